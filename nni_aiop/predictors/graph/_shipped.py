"""Predictors of the weights that come with the package."""

from __future__ import annotations

from nni_aiop.predictors.graph._predictor import GraphPredictor, load_graph_predictor
from nni_aiop.predictors.graph._tasks import TaskPredictor
from nni_aiop.predictors.graph.cross_space import CrossSpaceRanker, load_cross_space_ranker
from nni_aiop.weights import BACKBONE, FOLDER, RANKER, adapter_file, shipped_tasks

__all__ = ["load_shipped", "load_shipped_ranker", "load_shipped_task"]


def load_shipped(*tasks: str) -> GraphPredictor:
    """The backbone that comes with the package, with the adapters of these tasks.

    Raises:
        KeyError: There is no such task; `shipped_tasks` lists them.
        FileFormatError: A file is damaged.
        OSError: A file is missing.
    """
    for task in tasks:
        if task not in shipped_tasks():
            raise KeyError(f"a task must be one of {', '.join(shipped_tasks())}, but got {task!r}.")
    predictor = load_graph_predictor(FOLDER / BACKBONE)
    for task in tasks:
        predictor.load_adapter(FOLDER / adapter_file(task))
    return predictor


def load_shipped_task(task: str) -> TaskPredictor:
    """What predicts one task, and knows where it ends.

    Raises:
        KeyError: There is no such task; `shipped_tasks` lists them.
        FileFormatError: A file is damaged.
        OSError: A file is missing.

    Example:
        >>> known = load_shipped_task("imagenet-top1")
        >>> from nni_aiop.graphs import ComputeGraph, Node
        >>> x = Node.make("input", [], (1, 8))
        >>> y = Node.make("output", [(1, 8)], (1, 8))
        >>> bool(known.distance([ComputeGraph([x, y], [(), (0,)])])[0] > 1)
        True
    """
    predictor = load_shipped(task)
    return TaskPredictor(task, predictor.adapters_[task].domain, predictor)


def load_shipped_ranker() -> CrossSpaceRanker:
    """What ranks networks of any space without a label; see `CrossSpaceRanker`.

    Raises:
        FileFormatError: The file is damaged.
        OSError: The file is missing.

    Example:
        >>> sorted(load_shipped_ranker().spaces_)[:3]
        ['NAAP-440', 'NAS-Bench-101', 'NAS-Bench-201']
    """
    return load_cross_space_ranker(FOLDER / RANKER)
