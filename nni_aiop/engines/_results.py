"""What every engine gives back of an evaluation."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nni_aiop.errors import AiopError
from nni_aiop.results import SearchResults
from nni_aiop.spaces import Sample

__all__ = ["Result", "check_results", "recorded", "save_results", "settled"]

_logger = logging.getLogger(__name__)

#: A sample (every label) and its metrics; None where the evaluation failed.
Result = tuple[Sample, dict[str, float] | None]


def recorded(search: Any, results: Sequence[Result]) -> list[Result]:
    """Results as the search that was told them keeps them: None where, say, an objective was NaN.

    A search that keeps no history takes them as they are.
    """
    history = getattr(search, "history", None)
    if not history:
        return list(results)
    key = search.space.key
    keys = [key(sample) for sample, _ in results]
    wanted = set(keys)
    kept: dict[str, dict[str, float] | None] = {}
    for sample, metrics in reversed(history):  # mostly the newest is wanted
        if len(kept) == len(wanted):
            break
        if (own := key(sample)) in wanted:
            kept[own] = metrics
    return [(s, kept.get(k, m)) for k, (s, m) in zip(keys, results, strict=True)]


def settled(metrics: Mapping[str, float] | None) -> dict[str, float] | None:
    """Metrics with NaN for infinity: a loss that diverged is a failed evaluation, not a fault."""
    if metrics is None:
        return None
    return {name: math.nan if math.isinf(v) else v for name, v in metrics.items()}


def check_results(out: Path, state: Path) -> None:
    """Refuse a folder with results of something else, which those of this run would overwrite.

    Raises:
        AiopError: There are results, and no state that they could belong to.
    """
    held = [name for name in SearchResults.FILES if (out / name).exists()]
    if held and not state.exists():
        raise AiopError(
            f"{out} must be empty or hold this run, but holds {held[0]} and no {state.name}: take "
            "another folder."
        )


def save_results(search: Any, out: Path, settings: Mapping[str, Any]) -> None:
    """Write results.json, history.csv and search.png of a search that keeps a history."""
    history, objectives = getattr(search, "history", None), getattr(search, "objectives", None)
    if not history or not objectives:
        return
    limits = {**getattr(search, "bounds", {}), **getattr(search, "limits", {})}
    try:
        SearchResults(search.space, history, objectives, limits=limits, settings=settings).save(out)
    except (AiopError, OSError) as err:  # the results that are returned are worth more
        _logger.warning("The results cannot be written to %s: %s", out, err)
