"""`nni-aiop predict`: a metric of networks that nobody has trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nni_aiop.cli._app import BadInput, bad_input, table
from nni_aiop.weights import shipped_tasks

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
        str,
        typer.Option(help=f"What to predict: {', '.join(shipped_tasks())}; or one of --predictor."),
    ],
    predictor: Annotated[
        Path | None,
        typer.Option(
            help="A folder of tasks, as `nni-aiop predictor adapt` writes it; by default the "
            "weights that come with the package."
        ),
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input", help="An input, as 1x3x224x224 or NAME=1x3x224x224; repeatable, in order."
        ),
    ] = None,
) -> None:
    """Predict a metric of a network, or rank several by it, with 80 % intervals.

    It says so, and predicts nothing, where a network is unlike those that the predictor learned
    from. No weights are made.

    \b
    Examples
      nni-aiop predict resnet.onnx vit.onnx --task imagenet-top1
      nni-aiop predict my_module:make_network --input 1x3x224x224 --task imagenet-top1
      nni-aiop predict detector.onnx --task accuracy --predictor out/tasks
    """
    from nni_aiop.cli._graph import read_graph
    from nni_aiop.predictors.graph import GraphSet, load_shipped_task, load_task

    try:
        with bad_input():
            known = load_shipped_task(task) if predictor is None else load_task(predictor, task)
    except KeyError as err:
        raise BadInput(err.args[0]) from err
    graphs = GraphSet([read_graph(model, inputs or ()) for model in models])
    distances = known.distance(graphs).tolist()
    found = known.predict(graphs)
    low, high = found.interval(_LEVEL)
    columns = (found.mean, low, high)
    told = zip(*(column[:, 0].tolist() for column in columns), models, distances, strict=True)
    inside = sorted((row for row in told if row[-1] <= 1), reverse=True)
    if len(models) > 1 and inside:
        rows = [[model, *row] for *row, model, _ in inside]
        typer.echo(table(["model", task, f"{_LEVEL:.0%} from", "to"], rows))
    elif inside:
        mean, least, most, *_ = inside[0]
        typer.echo(f"{task}: {mean:.6g} ({_LEVEL:.0%} interval {least:.6g} to {most:.6g})")
    for model, distance in zip(models, distances, strict=True):
        if distance > 1:
            typer.echo(
                f"{task}: nothing is predicted of {model}, which is outside what it was trained "
                f"on: {distance:.1f} times as far from any known network as one may be."
            )
