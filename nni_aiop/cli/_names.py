"""The names that a shell completes, found without importing what they stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import typer

__all__ = ["SEARCHES", "names", "spaces", "tasks"]

SEARCHES = {
    "ncp": "NCPSearch",
    "random": "RandomSearch",
    "evolution": "RegularizedEvolution",
    "topk": "PredictorTopK",
    "pnag": "PNAGSearch",
    "local": "LocalSearch",
    "reduction": "FlopsReduction",
}
"""Searches by their names here and in experiment files: the class in `nni_aiop.search`."""


def names(*known: str) -> Callable[[str], list[str]]:
    """A completion among known names."""

    def complete(incomplete: str) -> list[str]:
        return _beginning(incomplete, known)

    return complete


def spaces(incomplete: str) -> list[str]:
    """The ready spaces whose names begin so."""
    from nni_aiop.search_spaces import SPACES

    return _beginning(incomplete, SPACES)


def tasks(context: typer.Context, incomplete: str) -> list[str]:
    """The tasks whose names begin so: of the folder of --predictor, else those of the package."""
    from nni_aiop.weights import shipped_tasks

    folder = context.params.get("predictor")
    known: Iterable[str] = shipped_tasks()
    if folder is not None:
        files = {path.stem for path in Path(folder).glob("*.safetensors")} - {"backbone"}
        known = sorted(name for name in files if not name.endswith(".adapter"))
    return _beginning(incomplete, [*known, "all"])


def _beginning(incomplete: str, known: Iterable[str]) -> list[str]:
    return [name for name in known if name.startswith(incomplete)]
