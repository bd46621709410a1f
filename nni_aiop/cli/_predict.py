"""`nni-aiop predict`: a metric of a network that nobody has trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nni_aiop.cli._app import BadInput, bad_input

_LEVEL = 0.8  # of the interval


def predict(
    model: Annotated[
        str,
        typer.Argument(
            help="An ONNX file (.onnx), a graph (.json), or module:callable, which returns a "
            "PyTorch module or a compute graph."
        ),
    ],
    task: Annotated[str, typer.Option(help="What to predict: a task of the folder.")],
    predictor: Annotated[
        Path, typer.Option(help="A folder of tasks, as `nni-aiop predictor adapt` writes it.")
    ],
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input", help="An input, as 1x3x224x224 or NAME=1x3x224x224; repeatable, in order."
        ),
    ] = None,
) -> None:
    """Predict a metric of a network, with its 80 % interval.

    It says so, and predicts nothing, where the network is unlike those that the predictor learned
    from. No weights are made.

    \b
    Example
      nni-aiop predict detector.onnx --task accuracy --predictor out/tasks
    """
    from nni_aiop.cli._graph import read_graph
    from nni_aiop.predictors.graph import load_task

    try:
        with bad_input():
            known = load_task(predictor, task)
    except KeyError as err:
        raise BadInput(err.args[0]) from err
    graph = read_graph(model, inputs or ())
    distance = float(known.distance([graph])[0])
    if distance > 1:
        typer.echo(
            f"{model} is outside what {task} was trained on: {distance:.1f} times as far from any "
            "known network as those may be from each other. Nothing is predicted."
        )
        return
    found = known.predict([graph])
    low, high = found.interval(_LEVEL)
    typer.echo(
        f"{task}: {found.mean[0, 0]:.6g} "
        f"({_LEVEL:.0%} interval {low[0, 0]:.6g} to {high[0, 0]:.6g})"
    )
