"""Folders of tasks: a backbone, and beside it what predicts each task, with its domain.

A folder holds `backbone.safetensors`, and of each task `NAME.safetensors` (what it is, and the
few-shot head where it is one) and, where it is an adapter, `NAME.adapter.safetensors`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nni_aiop.errors import FileFormatError
from nni_aiop.files import whole
from nni_aiop.predictors._base import Prediction
from nni_aiop.predictors.graph._collation import GraphSet
from nni_aiop.predictors.graph._domain import Domain
from nni_aiop.predictors.graph._files import read_file, write_file
from nni_aiop.predictors.graph._predictor import GraphPredictor, load_graph_predictor
from nni_aiop.predictors.graph._scores import TaskLabels
from nni_aiop.predictors.graph._stored import digest_of, finite_of, part_of
from nni_aiop.predictors.graph._transfer import FewShotPredictor, TransferredPredictor
from nni_aiop.predictors.graph.few_shot import HEADS

if TYPE_CHECKING:
    from nni_aiop.graphs import ComputeGraph

__all__ = ["MODELS", "TaskPredictor", "learn_task", "load_task", "task_files", "tasks_of"]

MODELS = ("adapter", *HEADS)
"""What can predict a task: an adapter, or a few-shot head on frozen embeddings."""

_KIND = "nni-aiop task"
_BACKBONE = "backbone.safetensors"


@dataclass(frozen=True)
class TaskPredictor:
    """Predicts one task, and knows which graphs it knows something of.

    Attributes:
        task: Its name.
        domain: Of the graphs that it learned from.
    """

    task: str
    domain: Domain
    _predictor: GraphPredictor | TransferredPredictor

    def predict(self, graphs: Sequence[ComputeGraph] | GraphSet) -> Prediction:
        """The task's metric of n networks.

        Raises:
            TypeError: They are not compute graphs in a list, or a `GraphSet`.
        """
        _check_graphs(graphs)
        if isinstance(self._predictor, GraphPredictor):
            if self.task in self._predictor.adapters_:
                return self._predictor.predict(graphs, adapters=[self.task])
            return self._predictor.predict(graphs)[self.task]
        return self._predictor.predict(graphs)

    def distance(self, graphs: Sequence[ComputeGraph] | GraphSet) -> NDArray[np.float64]:
        """(n,) how far networks are from known ones; beyond 1 a prediction is not to be trusted."""
        _check_graphs(graphs)
        if isinstance(self._predictor, GraphPredictor):
            adapter = self.task if self.task in self._predictor.adapters_ else None
            return self._predictor.distance(graphs, adapter=adapter)
        data = graphs if isinstance(graphs, GraphSet) else GraphSet(graphs)
        return self.domain.distance(data.u)


def _check_graphs(graphs: object) -> None:
    from nni_aiop.graphs import ComputeGraph

    if isinstance(graphs, GraphSet):
        return
    wrong: object = graphs
    if isinstance(graphs, Sequence):
        wrong = next((graph for graph in graphs if not isinstance(graph, ComputeGraph)), None)
    if wrong is not None:
        what = "one compute graph" if isinstance(wrong, ComputeGraph) else type(wrong).__name__
        raise TypeError(
            f"networks must be given as a list of compute graphs, as `from_module` and `from_onnx` "
            f"make them, but got {what}."
        )


def learn_task(
    predictor: GraphPredictor,
    task: str,
    graphs: Sequence[ComputeGraph],
    y: ArrayLike,
    folder: str | os.PathLike[str],
    *,
    model: str = "gp",
    epochs: int | None = None,
    progress: bool = False,
) -> TaskPredictor:
    """What predicts a task, learned from n graphs with labels y (n,), and written to a folder.

    Args:
        predictor: Its backbone, without adapters, is written too.
        task: Letters, digits, `.`, `_` and `-`.
        graphs: Networks.
        y: Measured values, in any unit.
        folder: Of tasks on this backbone; it is made where missing.
        model: One of `MODELS`.
        epochs: Of an adapter.
        progress: Whether to show a bar.

    Raises:
        ValueError: The name or the model is not such, or labels as `GraphPredictor.adapt`.
        FileFormatError: The folder is of another backbone.
    """
    if model not in MODELS:
        raise ValueError(f"a model must be one of {', '.join(MODELS)}, but got {model!r}.")
    if task in predictor.metrics_:
        raise ValueError(f"a new task must not be a metric of the backbone, but got {task!r}.")
    path = _path(Path(folder), task)
    backbone = path.with_name(_BACKBONE)
    own = _digest(predictor)
    if backbone.exists() and _digest(load_graph_predictor(backbone)) != own:
        raise FileFormatError(f"{folder} must be of this backbone, but is of another one.")
    content: dict[str, object] = {"task": task, "model": model, "backbone": own}
    tensors: dict[str, NDArray[np.float64]] = {}
    found: GraphPredictor | TransferredPredictor = predictor
    if model == "adapter":
        predictor.adapt(task, graphs, y, epochs=epochs, progress=progress)
        predictor.save_adapter(task, _adapter(path))
        domain = predictor.adapters_[task].domain
    else:
        data = GraphSet(graphs)
        few = predictor.few_shot(data, y, adapters=(), head=model, metric=task)
        assert isinstance(few, FewShotPredictor)
        domain = Domain.fit(data.u)
        content["labels"] = few.labels.to_json()
        tensors |= {f"domain.{name}": array for name, array in domain.to_arrays().items()}
        tensors |= {f"head.{name}": array for name, array in few.head.to_arrays().items()}
        found = few
    if not backbone.exists():  # one that is there may have metrics of its own
        predictor.save(backbone)
    write_file(path, _KIND, content, tensors)
    return TaskPredictor(task, domain, found)


def task_files(folder: str | os.PathLike[str], task: str, model: str) -> list[Path]:
    """What `learn_task` writes of a task into a folder, beside the backbone.

    Raises:
        ValueError: The name is not such.
    """
    path = _path(Path(folder), task)
    return [path, _adapter(path)] if model == "adapter" else [path]


def load_task(folder: str | os.PathLike[str], task: str) -> TaskPredictor:
    """What predicts a task, or a metric of the backbone, from a folder that `learn_task` wrote.

    Raises:
        KeyError: The folder has no such task.
        FileFormatError: A file is damaged, or of another backbone.
        OSError: There is no such folder.
    """
    path = _path(Path(folder), task)
    predictor = load_graph_predictor(path.with_name(_BACKBONE))
    if task in predictor.metrics_ and not path.exists():
        return TaskPredictor(task, predictor.domain_, predictor)
    if not path.exists():
        known = ", ".join(tasks_of(folder))
        raise KeyError(f"a task must be one of {known}, but got {task!r}.")
    content, tensors = read_file(path, _KIND)
    if content.get("backbone") != _digest(predictor):
        raise FileFormatError(f"{path} must be of the backbone beside it, but is of another one.")
    model = content.get("model")
    if model == "adapter":
        predictor.load_adapter(_adapter(path))
        return TaskPredictor(task, predictor.adapters_[task].domain, predictor)
    if model not in [*HEADS]:
        raise FileFormatError(f"{path} must be of {', '.join(MODELS)}, but is of {model!r:.80}.")
    with whole(path, "a task", finite_of(tensors)):
        domain = Domain.from_arrays(part_of(tensors, "domain."))
        head = HEADS[model].from_arrays(part_of(tensors, "head."))
        labels = TaskLabels.from_json(content.get("labels", {}))
    return TaskPredictor(task, domain, FewShotPredictor(predictor, (), head, labels, task))


def tasks_of(folder: str | os.PathLike[str]) -> tuple[str, ...]:
    """The tasks of a folder that `learn_task` wrote, metrics of its backbone included.

    Raises:
        FileFormatError: The backbone's file is damaged.
        OSError: There is no such folder.
    """
    predictor = load_graph_predictor(Path(folder) / _BACKBONE)
    files = (p.name.removesuffix(".safetensors") for p in Path(folder).glob("*.safetensors"))
    learned = {name for name in files if not name.endswith(".adapter")} - {"backbone"}
    return tuple(sorted({*predictor.metrics_, *learned}))


def _digest(predictor: GraphPredictor) -> str:
    return digest_of(predictor._backbone.encoder)


def _path(folder: Path, task: str) -> Path:
    if not re.fullmatch(r"[\w.-]+", task) or task in ("backbone", ".", ".."):
        raise ValueError(f"a task must be letters, digits, '.', '_' and '-', but got {task!r}.")
    return folder / f"{task}.safetensors"


def _adapter(path: Path) -> Path:
    return path.with_name(f"{path.stem}.adapter.safetensors")
