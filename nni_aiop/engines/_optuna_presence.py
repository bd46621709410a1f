"""Which labels an objective asks for beside which values, and since when.

An objective may change while its study goes on: a label that was always asked for is asked for no
more, or beside some values only. What the latest trials show counts then. A change is told from an
exception by likelihood: let the trials that a label was expected in show it n1 times out of n; the
trials are parted where two rates explain them best, and the former part is left out where that
explains them better than one rate by more than `_EVIDENCE` (natural logarithm).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from nni_aiop.spaces import CodeSpace, Condition, Dimension, Nominal, Ordinal, Sample

__all__ = ["Presence", "presence"]

_MAX_PARENT_VALUES = 100  # a dimension with more values decides about no other


_EVIDENCE = 4.0  # ten trials that show a label and two that do not have 5.4, one that does not 3.4


_NEVER = 5  # trials that should show a label, before one never asked for is thought to be absent


@dataclass(frozen=True)
class Presence:
    """What is asked for.

    Attributes:
        absent: Labels that are asked for no more, or never were.
        conditions: For each label that some samples lack, what its parents must be.
        since: Place of the first sample of the objective as it is now.
    """

    absent: frozenset[str]
    conditions: dict[str, tuple[Condition, ...]]
    since: int


def presence(
    space: CodeSpace, samples: Sequence[Sample], expected: Sequence[Collection[str]] | None = None
) -> Presence:
    """Which labels of the space the samples have, in the simplest words that explain the last ones.

    Args:
        space: Whose dimensions decide.
        samples: What was asked for, in order.
        expected: For each sample the labels that should be asked for; all by default.
    """
    dimensions = {d.label: d for d in space.dimensions}
    rows = [{label: dimensions[label].point(v) for label, v in s.items()} for s in samples]
    absent: set[str] = set()
    conditions: dict[str, tuple[Condition, ...]] = {}
    since = 0
    for j, label in enumerate(space.labels):
        places = [
            i for i, row in enumerate(rows) if label in row or not expected or label in expected[i]
        ]
        parents = [d for d in space.dimensions[:j] if _can_decide(d) and d.label not in absent]
        changed = False
        while True:
            having = [i for i in places if label in rows[i]]
            lacking = [i for i in places if label not in rows[i]]
            if not having and (changed or len(lacking) >= _NEVER):
                absent.add(label)
            if not (having and lacking):
                break
            chosen, left = _explained(
                parents, [rows[i] for i in having], {i: rows[i] for i in lacking}
            )
            unexplained = sorted([*having, *left])
            first = _change([label in rows[i] for i in unexplained])
            if first is None:
                if chosen:
                    conditions[label] = chosen
                break
            changed = True
            since = max(since, unexplained[first])
            places = [i for i in places if i >= unexplained[first]]
    return Presence(frozenset(absent), conditions, since)


def _explained(
    parents: Sequence[Dimension],
    having: Sequence[dict[str, float]],
    lacking: dict[int, dict[str, float]],
) -> tuple[tuple[Condition, ...], list[int]]:
    """Conditions that all of `having` keep, and the places of those of `lacking` that do, too."""
    seen_beside = {
        d.label: {row[d.label] for row in having}
        for d in parents
        if all(d.label in row for row in having)
    }
    # Unordered choices, few values, and the nearest label are the likeliest to decide.
    places = {d.label: place for place, d in enumerate(parents)}
    dimensions = {d.label: d for d in parents}
    candidates = sorted(
        seen_beside,
        key=lambda p: (not isinstance(dimensions[p], Nominal), dimensions[p].size, -places[p]),
    )
    chosen: list[Condition] = []
    while lacking and candidates:
        left = {
            p: {i: r for i, r in lacking.items() if r.get(p) in seen_beside[p]} for p in candidates
        }
        best = min(candidates, key=lambda p: len(left[p]))
        if len(left[best]) == len(lacking):
            break
        values = tuple(dimensions[best].value(point) for point in sorted(seen_beside[best]))
        chosen.append(Condition(best, values))
        lacking = left[best]
    return tuple(chosen), list(lacking)


def _can_decide(dimension: Dimension) -> bool:
    return isinstance(dimension, (Nominal, Ordinal)) and dimension.size <= _MAX_PARENT_VALUES


def _change(shown: Sequence[bool]) -> int | None:
    """Where two rates explain what is shown better than one; None where they hardly do."""
    n, total = len(shown), sum(shown)
    whole = _likelihood(total, n)
    best, place, ones = _EVIDENCE, None, 0
    for i in range(1, n):
        ones += shown[i - 1]
        gain = _likelihood(ones, i) + _likelihood(total - ones, n - i) - whole
        if gain > best:
            best, place = gain, i
    return place


def _likelihood(ones: int, n: int) -> float:
    """The logarithm of the greatest likelihood of so many ones."""
    return sum(k * math.log(k / n) for k in (ones, n - ones) if k)
