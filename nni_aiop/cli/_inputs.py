"""What several commands read from their arguments."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence

from nni_aiop.cli._app import BadInput
from nni_aiop.search import Objective
from nni_aiop.search_spaces import get_space
from nni_aiop.spaces import CodeSpace


def load_space(name: str) -> CodeSpace:
    """A ready space by its name, or the user's own by `module:attribute`, also from this folder."""
    import_from(os.getcwd())
    return get_space(name)


def import_from(folder: str) -> None:
    """Let `module:attribute` find the modules of a folder, as Python lets a script."""
    if folder not in sys.path:
        sys.path.insert(0, folder)


def parse_limits(given: Sequence[str]) -> dict[str, float]:
    """Limits on exact costs from texts such as `flops=2e6`."""
    limits = {}
    for text in given:
        name, equals, number = text.partition("=")
        try:
            limit = float(number)
        except ValueError:
            limit = math.nan
        if not (name and equals and math.isfinite(limit)):
            raise BadInput(f"a limit must read COST=NUMBER, such as flops=2e6, but got {text!r}.")
        limits[name] = limit
    return limits


def parse_objectives(given: Sequence[str]) -> list[Objective]:
    """Objectives from texts such as `accuracy` or `latency:minimize`."""
    objectives = []
    for text in given:
        metric, _, direction = text.partition(":")
        if not metric or direction not in ("", "maximize", "minimize"):
            raise BadInput(
                "a metric must read NAME, NAME:maximize or NAME:minimize, " f"but got {text!r}."
            )
        objectives.append(Objective(metric, "minimize" if direction == "minimize" else "maximize"))
    return objectives
