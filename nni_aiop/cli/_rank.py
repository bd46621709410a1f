"""`nni-aiop rank`: the order of networks of a space that nothing is known of."""

from __future__ import annotations

from typing import Annotated

import typer

from nni_aiop.cli._app import BadInput, bad_input, sentence, table
from nni_aiop.cli._graph import InputShapes, InputValues, name_failed, notes, read_graphs
from nni_aiop.graphs import short

_LITTLE = 0.3  # an agreement below which the order is all but that of multiply-adds


def rank(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Five or more ONNX files (.onnx), graphs (.json), or module:callable, which "
            "returns a PyTorch module or a compute graph.",
        ),
    ],
    inputs: InputShapes = None,
    values: InputValues = None,
) -> None:
    """Rank networks of one search space that have no label at all, best first.

    By what lies on the ways through each network, as the spaces that come with the package have
    taught it. The score has no unit and compares these networks alone. Files that cannot be read
    are named below the others, and the exit code is 2.

    \b
    Examples
      nni-aiop rank candidates/*.onnx
      nni-aiop rank candidates/*.json
    """
    from nni_aiop.predictors.graph import load_shipped_ranker

    read, failed = read_graphs(models, inputs or (), values or ())
    try:
        with bad_input():
            found = load_shipped_ranker().rank([graph for _, graph in read])
    except BadInput as err:
        if not failed:
            raise
        typer.echo(f"nni-aiop: {sentence(err)}", err=True)
        name_failed(failed)
    order = (-found.score).argsort(kind="stable").tolist()
    rows = [
        [place, read[at][0], round(float(found.score[at]), 3), short(read[at][1].cost.macs)]
        for place, at in enumerate(order, start=1)
    ]
    typer.echo(table(["rank", "model", "score", "multiply-adds"], rows))
    sizes = "" if found.agreement >= _LITTLE else ", which is little: all but the order of sizes"
    typer.echo(f"Rankers agree by {found.agreement:.2f} of 1{sizes}.")
    for at in order:
        model, graph = read[at]
        if found.constant[at]:
            typer.echo(f"{model}: its output does not depend on its input.")
        for note in notes(model, graph):
            typer.echo(note)
    name_failed(failed)
