"""What every engine gives back of an evaluation."""

from __future__ import annotations

from typing import Any

from nni_aiop.spaces import Sample

__all__ = ["Result", "recorded"]

#: A sample (every label) and its metrics; None where the evaluation failed.
Result = tuple[Sample, dict[str, float] | None]


def recorded(search: Any, result: Result) -> Result:
    """A result as the search that was told it keeps it: None where, say, an objective was NaN.

    A search that keeps no history takes it as it is.
    """
    sample, metrics = result
    history = getattr(search, "history", None)
    if not history:
        return result
    key = search.space.key
    own = key(sample)
    # The newest stand last, and this one is among them.
    return sample, next((kept for s, kept in reversed(history) if key(s) == own), metrics)
