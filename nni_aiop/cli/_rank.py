"""`nni-aiop rank`: the order of networks of a space that nothing is known of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
)
from nni_aiop.cli._outputs import Overwrite, check_table, write_table
from nni_aiop.cli._tell import answer, answer_fields, note

_LITTLE = 0.3  # an agreement below which the order is all but that of multiply-adds


def rank(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Five or more ONNX files (.onnx), graphs (.json), folders with such files at any "
            "depth, or module:callable, which returns a PyTorch module or a compute graph.",
        ),
    ],
    inputs: InputShapes = None,
    values: InputValues = None,
    out: Annotated[
        Path | None,
        typer.Option(help="A CSV to write: rank, model, score, multiply_adds, best first."),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Rank networks of one search space that have no label at all, best first.

    By what lies on the ways through each network, as the spaces that come with the package have
    taught it. The score has no unit and compares these networks alone. Files that cannot be read
    are named below the others, and the exit code is 2.

    \b
    Examples
      nni-aiop rank candidates/*.onnx
      nni-aiop rank candidates --out ranked.csv
    """
    from nni_aiop.graphs import short
    from nni_aiop.predictors.graph import load_shipped_ranker

    if out is not None:
        check_table(out, overwrite=overwrite)
    read, failed = read_graphs(in_folders(models), inputs or (), values or ())
    try:
        with bad_input():
            found = load_shipped_ranker().rank([graph for _, graph in read])
    except BadInput:
        for one in failures(failed):
            typer.echo(f"nni-aiop: {one['model']}: {one['error']}", err=True)
        answer_fields(failed=failures(failed))
        raise
    order = (-found.score).argsort(kind="stable").tolist()
    rows = [
        [place, read[at][0], round(float(found.score[at]), 3), read[at][1].cost.macs]
        for place, at in enumerate(order, start=1)
    ]
    answer(
        table(
            ["rank", "model", "score", "multiply-adds"],
            [[*row, short(macs)] for *row, macs in rows],
        ),
        ranking=[dict(zip(_COLUMNS, row, strict=True)) for row in rows],
        agreement=float(found.agreement),
        failed=failures(failed),
        out=out,
    )
    sizes = "" if found.agreement >= _LITTLE else ", which is little: all but the order of sizes"
    note(f"Rankers agree by {found.agreement:.2f} of 1{sizes}.")
    for at in order:
        model, graph = read[at]
        if found.constant[at]:
            note(f"{model}: its output does not depend on its input.")
        for said in notes(model, graph):
            note(said)
    if out is not None:
        write_table(out, _COLUMNS, rows)
        note(f"Written: {out}")
    name_failed(failed)


_COLUMNS = ("rank", "model", "score", "multiply_adds")
