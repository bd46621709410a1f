"""What every engine gives back of an evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from nni_aiop.spaces import Sample

__all__ = ["Result", "recorded", "settled"]

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
