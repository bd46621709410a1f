"""`nni-aiop predict`: a metric of networks that nobody has trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nni_aiop.cli._app import BadInput, bad_input, table
from nni_aiop.cli._graph import InputShapes, InputValues, name_failed, notes, read_graphs, uncounted
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
            help="ONNX files (.onnx), graphs (.json), or module:callable, which returns a PyTorch "
            "module or a compute graph.",
        ),
    ],
    task: Annotated[
        list[str],
        typer.Option(
            help=f"What to predict: {', '.join(shipped_tasks())}; or one of --predictor. May be "
            "given several times; all for every task."
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
) -> None:
    """Predict a metric of a network, or rank several by it, with 80 % intervals.

    It says so, and predicts nothing, where a network is unlike those that the predictor learned
    from; where it predicts nothing at all, the exit code is 1. No weights are made. Files that
    cannot be read are named below the others, and the exit code is 2.

    \b
    Examples
      nni-aiop predict resnet.onnx vit.onnx --task imagenet-top1
      nni-aiop predict resnet.onnx vit.onnx --task all
      nni-aiop predict my_module:make_network --input 1x3x224x224 --task imagenet-top1
      nni-aiop predict detector.onnx --task accuracy --predictor out/tasks
    """
    known = _known(task, predictor)
    read, failed = read_graphs(models, inputs or (), values or ())
    several = len(models) > 1
    told = bool(read) and (
        _tell(known[0], read, several=several) if len(known) == 1 else _tell_all(known, read)
    )
    name_failed(failed)
    if not told:
        raise typer.Exit(1)


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


def _tell_all(known: Sequence[TaskPredictor], read: Sequence[tuple[str, ComputeGraph]]) -> bool:
    """Whether anything is predicted; prints a table of networks by tasks."""
    from nni_aiop.predictors.graph import GraphSet

    graphs = GraphSet([graph for _, graph in read])
    columns: list[list[str]] = []
    for one in known:
        found, distances = one.predict(graphs), one.distance(graphs).tolist()
        low, high = found.interval(_LEVEL)
        numbers = zip(found.mean[:, 0], low[:, 0], high[:, 0], distances, strict=True)
        columns.append(
            [f"{mean:.4g} ({a:.4g} to {b:.4g})" if d <= 1 else "-" for mean, a, b, d in numbers]
        )
    costs = [uncounted(graph).strip() for _, graph in read]
    rows: list[list[object]] = [
        [model, *cells, *([cost] if any(costs) else [])]
        for (model, _), *cells, cost in zip(read, *columns, costs, strict=True)
    ]
    headers = ["model", *(one.task for one in known), *(["costs"] if any(costs) else [])]
    typer.echo(table(headers, rows))
    typer.echo(f"In brackets: {_LEVEL:.0%} intervals.")
    cells = [cell for column in columns for cell in column]
    if "-" in cells:
        typer.echo(
            "-: nothing is predicted of a network that is outside what the task was learned from."
        )
    for model, graph in read:
        for note in notes(model, graph):
            typer.echo(note)
    return any(cell != "-" for cell in cells)


def _tell(known: TaskPredictor, read: Sequence[tuple[str, ComputeGraph]], *, several: bool) -> bool:
    """Whether anything is predicted; prints the metric of each network, or why there is none."""
    from nni_aiop.predictors.graph import GraphSet

    task = known.task
    graphs = GraphSet([graph for _, graph in read])
    distances = known.distance(graphs).tolist()
    found = known.predict(graphs)
    low, high = found.interval(_LEVEL)
    columns = (column[:, 0].tolist() for column in (found.mean, low, high))
    told = zip(*columns, range(len(read)), strict=True)
    inside = sorted((row for row in told if distances[row[-1]] <= 1), reverse=True)
    if several and inside:
        rows = [[read[at][0], *row, uncounted(read[at][1]).strip()] for *row, at in inside]
        headers = ["model", task, f"{_LEVEL:.0%} from", "to"]
        full = [*headers, "costs"] if any(row[-1] for row in rows) else headers
        typer.echo(table(full, [row[: len(full)] for row in rows]))
    elif inside:
        mean, least, most, _ = inside[0]
        left_out = uncounted(read[0][1])
        typer.echo(
            f"{task}: {mean:.6g} ({_LEVEL:.0%} interval {least:.6g} to {most:.6g}){left_out}"
        )
    for (model, graph), distance in zip(read, distances, strict=True):
        if distance > 1:
            typer.echo(
                f"{task}: nothing is predicted of {model}{uncounted(graph)}, which is outside what "
                f"it was trained on: {distance:.1f} times as far from any known network as one "
                f"may be."
            )
    for model, graph in read:
        for note in notes(model, graph):
            typer.echo(note)
    return bool(inside)
