"""report.html: a page to look at, made of what a search has left in its folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nni_aiop.errors import FileFormatError
from nni_aiop.files import parse_json, write_atomically

if TYPE_CHECKING:
    from nni_aiop.spaces import CodeSpace

__all__ = ["CUTS", "REPORT", "write_report"]

REPORT = "report.html"
"""The page."""

CUTS = "report.json"
"""What a shrink has left beside what a search leaves."""


def write_report(folder: str | os.PathLike[str], *, space: CodeSpace | None = None) -> Path:
    """The path of `report.html` in a folder of results, which now shows what lies there.

    It is one file of about five megabytes that opens offline. It is made of `results.json` and
    `history.csv`, also of a search that is still going on, and of `report.json` where a network was
    shrunk. A page that is there already is replaced.

    Args:
        folder: A folder that a search, a run, a generation or a shrink has written.
        space: The space that was searched. With it the best networks are drawn, where it draws
            graphs.

    Raises:
        FileFormatError: The folder holds no results, or a file of them is damaged.
        SpaceError: The space is another one than that which was searched.
        OSError: A file cannot be read or written.

    Example:
        >>> import tempfile
        >>> from nni_aiop.results import SearchResults
        >>> from nni_aiop.search import Objective
        >>> from nni_aiop.spaces import CodeSpace, Ordinal
        >>> space = CodeSpace([Ordinal("depth", (1, 2, 4)), Ordinal("width", (8, 16))])
        >>> told = [({"depth": 2, "width": 8}, {"accuracy": 0.9})]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = SearchResults(space, told, [Objective("accuracy")]).save(folder)
        ...     write_report(folder).name
        'report.html'
    """
    from nni_aiop.results.report._drawings import drawings_of
    from nni_aiop.results.report._folder import HISTORY, SUMMARY, read_evaluations
    from nni_aiop.results.report._page import page

    folder = Path(folder)
    searched = (folder / SUMMARY).is_file() and (folder / HISTORY).is_file()
    shrunk = _cuts(folder / CUTS)
    if not searched and shrunk is None:
        raise FileFormatError(
            f"a report must be of a folder with {SUMMARY} and {HISTORY}, as a search leaves them, "
            f"but {folder} " + ("has none." if folder.is_dir() else "is no folder.")
        )
    found = read_evaluations(folder, space) if searched else None
    drawings, undrawn = ([], "") if found is None else drawings_of(found, space)
    return write_atomically(folder / REPORT, page(found, shrunk, drawings, undrawn))


def _cuts(path: Path) -> dict[str, Any] | None:
    """What report.json says; None where there is none.

    Raises:
        FileFormatError: It is of something else.
    """
    if not path.is_file():
        return None
    found = parse_json(path.read_text(encoding="utf-8"), str(path))
    networks = found.get("networks") if isinstance(found, dict) else None
    keys = {"budget", "rows", "edits", "widths", "files"}
    if not isinstance(networks, list) or not all(
        isinstance(network, dict) and keys <= network.keys() for network in networks
    ):
        raise FileFormatError(f"{path} must tell of a network that was shrunk, but does not.")
    return dict(found)
