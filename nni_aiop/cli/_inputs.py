"""What several commands read from their arguments."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import nni_aiop.search
from nni_aiop.cli._app import MOST, BadInput, bad_input
from nni_aiop.cli._names import SEARCHES
from nni_aiop.engines.nni_space import as_code_space
from nni_aiop.search import BaseSearch, Objective, RandomWarmup
from nni_aiop.search._options import options_of
from nni_aiop.search_spaces import get_space
from nni_aiop.spaces import CodeSpace

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEARNING = ("ncp", "topk", "pnag")
"""Those that fit a predictor: they plan with the budget and can weigh a cost."""


def load_space(name: str) -> CodeSpace:
    """A ready space by its name, or the user's own by `module:attribute`, also from this folder."""
    import_from(os.getcwd())
    if ":" not in name:
        return get_space(name)
    try:
        return as_code_space(name)
    except TypeError as err:  # it wants arguments
        raise BadInput(f"{name!r} must lead to a space, but does not ({err}).") from err


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
        if name in limits:
            raise BadInput(f"each cost must be limited once, but got {name!r} twice.")
        limits[name] = limit
    return limits


def parse_objectives(given: Sequence[str]) -> list[Objective]:
    """Objectives from texts such as `accuracy` or `latency:minimize`."""
    objectives: list[Objective] = []
    for text in given:
        metric, _, direction = text.partition(":")
        if not metric or direction not in ("", "maximize", "minimize"):
            raise BadInput(
                f"a metric must read NAME, NAME:maximize or NAME:minimize, but got {text!r}."
            )
        if metric in (o.metric for o in objectives):
            raise BadInput(f"each metric must be given once, but got {metric!r} twice.")
        objectives.append(Objective(metric, "minimize" if direction == "minimize" else "maximize"))
    return objectives


def complete_rows(targets: Mapping[str, NDArray[np.float64]], rows: str) -> NDArray[np.bool_]:
    """(n,) True where every metric is known; it takes two such rows to learn or to measure."""
    import numpy as np

    known = np.asarray(np.all([np.isfinite(column) for column in targets.values()], axis=0))
    if known.sum() < 2:
        raise BadInput(
            f"at least 2 {rows} must have every metric, but {known.sum()} of {len(known)} have."
        )
    return known


def make_search(
    name: str,
    space: CodeSpace,
    *,
    objectives: Sequence[Objective] = (Objective("default"),),
    budget: int,
    seed: int,
    arguments: Mapping[str, Any],
) -> BaseSearch:
    """The search of a name, with the arguments of its class.

    Args:
        name: A key of `SEARCHES`.
        space: Where to search.
        objectives: What to improve.
        budget: Number of evaluations to plan for.
        seed: Of every random choice.
        arguments: Further arguments of the search's class; `warmup` is a fraction of the budget,
            or a number of architectures, and `objectives` are texts (see `parse_objectives`) that
            replace the given ones.

    Raises:
        BadInput: The name is unknown, or an argument is unknown or illegal.
    """
    if name not in SEARCHES:
        raise BadInput(f"a search must be one of {', '.join(SEARCHES)}, but got {name!r}.")
    options = dict(arguments)
    kind: type[BaseSearch] = getattr(nni_aiop.search, SEARCHES[name])
    if name not in LEARNING and options.get("cost") is not None:
        raise BadInput(f"a cost to weigh needs one of {', '.join(LEARNING)}, but got {name!r}.")
    known = options_of(kind).keys() - {"seed", "predictor"}
    for option in options:
        if option not in known:
            raise BadInput(
                f"an option of the search {name} must be one of {', '.join(sorted(known))}, "
                f"but got {option!r}."
            )
    if "objectives" in options:
        given = options.pop("objectives")
        if not (isinstance(given, list) and given and all(isinstance(o, str) for o in given)):
            raise BadInput(
                f"objectives must be a list such as [default, ms:minimize], not {given!r}."
            )
        objectives = parse_objectives(given)
    if name in LEARNING:
        planned = options.setdefault("budget", budget)
        if isinstance(planned, (int, float)) and planned > MOST:
            raise BadInput(f"a budget must be at most {MOST}, but got {planned}.")
    shown = ", ".join(f"{option}={value!r:.40}" for option, value in arguments.items())
    try:
        with bad_input():
            if "warmup" in options:
                given = options["warmup"]
                count = isinstance(given, int)
                options["warmup"] = RandomWarmup(count=given) if count else RandomWarmup(given)
            return kind(space, objectives=objectives, seed=seed, **options)
    except (BadInput, AttributeError) as err:
        if isinstance(err.__cause__, ValueError):  # a rule in words
            raise
        raise BadInput(
            f"options of the search {name} must be of their kind, but got {shown}: {err}."
        ) from err
