"""`nni-aiop predict`: a metric of networks that nobody has trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nni_aiop.cli._app import BadInput, bad_input, table
from nni_aiop.cli._graph import (
    InputShapes,
    InputValues,
    failures,
    in_folders,
    name_failed,
    notes,
    read_graphs,
    uncounted,
)
from nni_aiop.cli._names import tasks
from nni_aiop.cli._outputs import Overwrite, check_table, write_table
from nni_aiop.cli._tell import answer, answer_fields, note, went_wrong
from nni_aiop.weights import shipped_tasks

if TYPE_CHECKING:
    from nni_aiop.graphs import ComputeGraph
    from nni_aiop.predictors.graph._tasks import TaskPredictor

_LEVEL = 0.8  # of the interval


def predict(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="ONNX files (.onnx), graphs (.json), folders with such files at any depth, or "
            "module:callable, which returns a PyTorch module or a compute graph.",
        ),
    ],
    task: Annotated[
        list[str],
        typer.Option(
            help=f"What to predict: {', '.join(shipped_tasks())}; or one of --predictor. May be "
            "given several times; all for every task.",
            autocompletion=tasks,
        ),
    ],
    predictor: Annotated[
        Path | None,
        typer.Option(
            help="A folder of tasks, as `nni-aiop predictor adapt` writes it; by default the "
            "weights that come with the package."
        ),
    ] = None,
    inputs: InputShapes = None,
    values: InputValues = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="A CSV to write, with a row for each network and task: model, task, prediction, "
            "from, to, inside."
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Predict a metric of a network, or rank several by it, with 80 % intervals.

    It says so, and predicts nothing, where a network is unlike those that the predictor learned
    from; where it predicts nothing at all, the exit code is 1. No weights are made. Files that
    cannot be read are named below the others, and the exit code is 2.

    \b
    Examples
      nni-aiop predict resnet.onnx vit.onnx --task imagenet-top1
      nni-aiop predict candidates --task imagenet-top1 --out predicted.csv
      nni-aiop predict resnet.onnx vit.onnx --task all
      nni-aiop predict my_module:make_network --input 1x3x224x224 --task imagenet-top1
      nni-aiop predict detector.onnx --task accuracy --predictor out/tasks
    """
    if out is not None:
        check_table(out, overwrite=overwrite)
    known = _known(task, predictor)
    files = in_folders(models)
    read, failed = read_graphs(files, inputs or (), values or ())
    predictions = _predictions(known, read)
    if read and len(known) == 1:
        _tell(known[0].task, predictions, several=len(files) > 1)
    elif read:
        _tell_all([one.task for one in known], predictions)
    told = any(one.inside for one in predictions)
    if read and not told:
        note(
            "To predict networks like these, measure some, and let `nni-aiop predictor adapt` "
            "learn from them."
        )
    for model, graph in read:
        for said in notes(model, graph):
            note(said)
    answer_fields(
        level=_LEVEL,
        predictions=[one.record() for one in predictions],
        failed=failures(failed),
        out=out,
    )
    if out is not None and read:
        write_table(out, _COLUMNS, [one.row() for one in predictions])
        note(f"Written: {out}")
    name_failed(failed)
    if not told:
        went_wrong("nothing is predicted of any network")
        raise typer.Exit(1)


_COLUMNS = ("model", "task", "prediction", "from", "to", "inside")


@dataclass(frozen=True)
class _Prediction:
    """What is predicted of a network: where it is not inside, the numbers are a guess.

    Args:
        model: As it was named.
        task: What is predicted.
        mean: The prediction.
        low: Where the interval begins.
        high: Where it ends.
        distance: How far the network is from known ones; up to 1 it is inside.
        uncounted: What its costs leave out.
    """

    model: str
    task: str
    mean: float
    low: float
    high: float
    distance: float
    uncounted: str

    @property
    def inside(self) -> bool:
        return self.distance <= 1

    def row(self) -> list[object]:
        """The row of the CSV; without numbers where nothing is predicted."""
        numbers = (self.mean, self.low, self.high) if self.inside else ("", "", "")
        return [self.model, self.task, *numbers, str(self.inside).lower()]

    def record(self) -> dict[str, object]:
        """The same for programs."""
        numbers = (self.mean, self.low, self.high) if self.inside else (None, None, None)
        told = dict(zip(_COLUMNS, (self.model, self.task, *numbers, self.inside), strict=True))
        return {**told, "distance": self.distance, "uncounted": self.uncounted or None}


def _predictions(
    known: Sequence[TaskPredictor], read: Sequence[tuple[str, ComputeGraph]]
) -> list[_Prediction]:
    """Of each network what each task's predictor says; those of one network stand together."""
    from nni_aiop.predictors.graph import GraphSet

    if not read:
        return []
    graphs = GraphSet([graph for _, graph in read])
    predictions: list[list[_Prediction]] = []
    for one in known:
        found, distances = one.predict(graphs), one.distance(graphs).tolist()
        low, high = found.interval(_LEVEL)
        numbers = (column[:, 0].tolist() for column in (found.mean, low, high))
        predictions.append(
            [
                _Prediction(model, one.task, mean, a, b, distance, uncounted(graph).strip())
                for (model, graph), mean, a, b, distance in zip(
                    read, *numbers, distances, strict=True
                )
            ]
        )
    return [one for row in zip(*predictions, strict=True) for one in row]


def _known(names: Sequence[str], predictor: Path | None) -> list[TaskPredictor]:
    """What predicts each task, once, in the order given; "all" stands for the others."""
    from nni_aiop.predictors.graph import load_shipped_task, load_task, tasks_of

    try:
        with bad_input():
            wanted: list[str] = []
            for name in names:
                if name == "all":
                    wanted += shipped_tasks() if predictor is None else tasks_of(predictor)
                else:
                    wanted.append(name)
            return [
                load_shipped_task(name) if predictor is None else load_task(predictor, name)
                for name in dict.fromkeys(wanted)
            ]
    except KeyError as err:
        raise BadInput(err.args[0]) from err


def _tell_all(tasks: Sequence[str], predictions: Sequence[_Prediction]) -> None:
    """Tell a table of networks by tasks."""
    rows: list[list[object]] = []
    costs = any(one.uncounted for one in predictions)
    for at in range(0, len(predictions), len(tasks)):
        ones = predictions[at : at + len(tasks)]
        cells = [
            f"{one.mean:.4g} ({one.low:.4g} to {one.high:.4g})" if one.inside else "-"
            for one in ones
        ]
        rows.append([ones[0].model, *cells, *([ones[0].uncounted] if costs else [])])
    answer(table(["model", *tasks, *(["costs"] if costs else [])], rows))
    note(f"In brackets: {_LEVEL:.0%} intervals.")
    if not all(one.inside for one in predictions):
        note(
            "-: nothing is predicted of a network that is unlike those that the task was learned "
            "from: a number for it would be a guess."
        )


def _tell(task: str, predictions: Sequence[_Prediction], *, several: bool) -> None:
    """Tell the metric of each network, the best first, or why there is none."""
    inside = sorted(
        (one for one in predictions if one.inside), key=lambda one: one.mean, reverse=True
    )
    if several and inside:
        rows = [[one.model, one.mean, one.low, one.high, one.uncounted] for one in inside]
        headers = ["model", task, f"{_LEVEL:.0%} from", "to"]
        full = [*headers, "costs"] if any(one.uncounted for one in inside) else headers
        answer(table(full, [row[: len(full)] for row in rows]))
    elif inside:
        (one,) = inside
        left_out = f" {one.uncounted}" if one.uncounted else ""
        interval = f"{_LEVEL:.0%} interval {one.low:.6g} to {one.high:.6g}"
        answer(f"{task}: {one.mean:.6g} ({interval}){left_out}")
    for one in predictions:
        if not one.inside:
            left_out = f" {one.uncounted}" if one.uncounted else ""
            answer(
                f"{task}: nothing is predicted of {one.model}{left_out}, which is unlike the "
                f"networks that the task was learned from ({one.distance:.1f} times as far from "
                "the nearest as is trusted): a number for it would be a guess."
            )
