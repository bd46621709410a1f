"""`nni-aiop report`: the page of a folder of results, made anew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nni_aiop.cli._app import BadInput
from nni_aiop.cli._names import spaces
from nni_aiop.cli._tell import answer


def report(
    folder: Annotated[
        Path, typer.Argument(help="What search, run, generate or shrink has written.")
    ],
    space: Annotated[
        str | None,
        typer.Option(
            help="The space that was searched, as module:attribute, where it is none of `spaces "
            "list`: with it the best networks are drawn. It is imported: it is code.",
            autocompletion=spaces,
        ),
    ] = None,
) -> None:
    """Write report.html anew: the page to look at of a folder of results.

    It opens offline in any browser: the front, progress, parallel coordinates, what matters, the
    best networks, settings and how to go on. It may be written while a search is going on, and of
    a folder that an older version has written.

    \b
    Examples
      nni-aiop report out/digits
      nni-aiop report out/mine --space my_module:MySpace
    """
    from nni_aiop.cli._inputs import load_space
    from nni_aiop.cli._outputs import check_folder
    from nni_aiop.errors import AiopError, FileFormatError
    from nni_aiop.results import REPORT, write_report
    from nni_aiop.results.report._folder import SUMMARY, read_summary
    from nni_aiop.search_spaces import SPACES

    if not folder.is_dir():
        raise BadInput(f"a folder of results must be given, but {folder} is none.")
    check_folder(folder, [REPORT], option="the folder")
    searched = None
    if space is not None:
        searched = load_space(space)
    elif (folder / SUMMARY).is_file():
        summary = read_summary(folder)
        if summary.get("space") in SPACES:
            try:
                ready = load_space(summary["space"])
            except AiopError:  # a package of it is not installed: the page goes without drawings
                ready = None
            if ready is not None and ready.fingerprint == summary.get("fingerprint"):
                searched = ready
    try:
        page = write_report(folder, space=searched)
    except FileFormatError as err:
        raise BadInput(str(err)) from err
    answer(f"Report: {page}", page=page)
