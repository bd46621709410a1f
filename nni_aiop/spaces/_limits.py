"""Hard limits on exact costs: who meets them, and how others are brought within them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nni_aiop.errors import InfeasibleError, SpaceError
from nni_aiop.spaces._code_space import CodeSpace
from nni_aiop.spaces._coding import Sample
from nni_aiop.spaces._cost_book import CostBook
from nni_aiop.spaces._probe import check_cost
from nni_aiop.spaces._sample_cost import TableCost

__all__ = [
    "check_limits",
    "excess",
    "meets_limits",
    "probable_excess",
    "repair",
    "tabulated",
    "within_limits",
]

Array = NDArray[np.float64]

_MISSES = 16  # costs that are evaluated in one go and exceed a limit
_LOOKS = 4  # such goes
_THOROUGH = 256  # costs that are evaluated where nothing keeps its limits by the estimates
_REPAIR = 64  # costs that are evaluated for one repair


def check_limits(space: CodeSpace, limits: Mapping[str, float]) -> dict[str, float]:
    """The limits, as floats.

    Raises:
        SpaceError: A limit is not a positive number, or names a cost that the space does not have
            or that no search can use (see `check_cost`).
    """
    out = {}
    for name, limit in limits.items():
        check_cost(space, name)
        if not (math.isfinite(limit) and limit > 0):
            raise SpaceError(f"the limit on {name} must be a positive number, but got {limit}.")
        out[name] = float(limit)
    return out


def excess(
    space: CodeSpace, points: Array, limits: Mapping[str, float], book: CostBook | None = None
) -> Array:
    """(n,) the largest ratio of a cost to its limit at each of (n, d) points; 0 without limits.

    Every cost is exact.
    """
    return _ratio((book or CostBook(space)).exact, points, limits)


def probable_excess(book: CostBook, points: Array, limits: Mapping[str, float]) -> Array:
    """(n,) the same where costs are known or quick, elsewhere the least that is still likely."""
    return _ratio(book.optimistic, points, limits)


def _ratio(
    costs: Callable[[str, Array], Array], points: Array, limits: Mapping[str, float]
) -> Array:
    ratio = np.zeros(len(points))
    for name, limit in limits.items():
        ratio = np.maximum(ratio, costs(name, points) / limit)
    return np.where(np.isnan(ratio), np.inf, ratio)  # an unknown cost is not within a limit


def tabulated(space: CodeSpace, limits: Mapping[str, float]) -> list[Sample]:
    """The samples of the shortest table that a limit is on: there are no others within it."""
    tables = [space.costs[name] for name in limits]
    listed = [cost.samples for cost in tables if isinstance(cost, TableCost)]
    return min(listed, key=len) if listed else []


def meets_limits(
    space: CodeSpace, points: Array, limits: Mapping[str, float], book: CostBook | None = None
) -> NDArray[np.bool_]:
    """(n,) whether every exact cost is within its limit at each of (n, d) points."""
    return excess(space, points, limits, book) <= 1.0


def within_limits(
    book: CostBook,
    points: Array,
    limits: Mapping[str, float],
    wanted: Callable[[int], bool] = lambda i: True,
    *,
    thorough: bool = False,
) -> Iterator[int]:
    """The places of the points that keep the limits exactly, in the order of the points.

    Costs that are learned between are evaluated when a place is asked for, and of those that
    probably keep their limits only; few that do not after all are looked at.

    Args:
        book: The costs.
        points: (n, d).
        limits: Upper limits.
        wanted: Whether a place is of use at all; asked before its costs are evaluated.
        thorough: Whether those that probably exceed a limit follow, the least excess first.
    """
    learned = {name: limit for name, limit in limits.items() if book.is_learned(name)}
    plain = {name: limit for name, limit in limits.items() if name not in learned}
    quick = np.flatnonzero(_ratio(book.exact, points, plain) <= 1.0)
    if not learned:
        yield from (i for i in quick.tolist() if wanted(i))
        return
    left, looks = quick, _LOOKS
    while len(left) and looks:
        looks -= 1
        ratios, most = np.zeros(len(left)), _MISSES
        if all(book.is_prepared(name) for name in learned):
            ratios = probable_excess(book, points[left], learned)
        if (ratios <= 1.0).any():
            order = np.flatnonzero(ratios <= 1.0)
        elif thorough:
            order, looks = np.argsort(ratios, kind="stable"), 0
            most = _MISSES if any(book.is_noisy(name) for name in learned) else _THOROUGH
        else:
            return
        missed, seen = 0, np.zeros(len(left), dtype=np.bool_)
        for place in order:
            seen[place] = True
            i = int(left[place])
            if not wanted(i):
                continue
            fresh = not all(book.is_evaluated(name, points[[i]])[0] for name in learned)
            if excess(book.space, points[[i]], learned, book)[0] <= 1.0:
                yield i
                continue
            missed += fresh
            if missed >= most:
                break  # what they teach is asked before any other is evaluated
        left = left[~seen]


def repair(
    space: CodeSpace,
    samples: Sequence[Sample],
    limits: Mapping[str, float],
    rng: np.random.Generator | None = None,
    book: CostBook | None = None,
) -> list[Sample]:
    """Samples within the limits, reached from the given ones by single edits that lower the cost.

    Each edit is drawn at random from the cheaper neighbours with `rng`, and is the smallest
    sufficient one, or else the steepest, without. Where costs are learned between, the estimates
    choose among the neighbours, and every step is one of the exact costs.

    Raises:
        InfeasibleError: A sample has no cheaper neighbour left and still exceeds a limit; the
            message names the cheapest architecture that was reached.
    """
    book = book or CostBook(space)
    return [_repaired(space, sample, limits, rng, book) for sample in samples]


def _repaired(
    space: CodeSpace,
    sample: Sample,
    limits: Mapping[str, float],
    rng: np.random.Generator | None,
    book: CostBook,
) -> Sample:
    left = _REPAIR
    (point,) = space.points([sample])
    here = float(excess(space, point[None], limits, book)[0])
    if here <= 1.0:
        return sample
    while here > 1.0:
        moves = space.neighbour_moves(point)
        exact, ratios = np.ones(len(moves.points), dtype=np.bool_), np.empty(len(moves.points))
        for name in [name for name in limits if book.is_learned(name)]:
            for block in moves.blocks():
                exact[block] &= book.is_evaluated(name, moves.rows(point, block))
        for block in moves.blocks():
            ratios[block] = _ratio(book.estimate, moves.rows(point, block), limits)
        while True:
            cheaper = np.flatnonzero(ratios < here * (1 - 1e-12))
            if len(cheaper) == 0:  # so say the estimates: those that are likely wrong come first
                cheaper = np.flatnonzero(~exact)
                cheaper = cheaper[np.argsort(ratios[cheaper], kind="stable")[:1]]
            if len(cheaper) == 0 or left == 0:
                raise InfeasibleError(_unreached(space, space.from_points([point])[0], limits))
            i = _chosen(cheaper, ratios, rng)
            if not exact[i]:
                left -= 1
                there = moves.rows(point, slice(i, i + 1))
                ratios[i] = excess(space, there, limits, book)[0]
                exact[i] = True
            if ratios[i] < here * (1 - 1e-12):
                break
        point, here = moves.rows(point, slice(i, i + 1))[0], float(ratios[i])
    (repaired,) = space.from_points([point])
    return repaired


def _chosen(cheaper: NDArray[np.intp], ratios: Array, rng: np.random.Generator | None) -> int:
    if rng is not None:
        return int(rng.choice(cheaper))
    enough = cheaper[ratios[cheaper] <= 1.0]
    among = ratios[enough].argmax() if len(enough) else ratios[cheaper].argmin()
    return int((enough if len(enough) else cheaper)[among])


def _unreached(space: CodeSpace, sample: Sample, limits: Mapping[str, float]) -> str:
    plain = space.canonical(sample)
    code = space.encode([space.complete(plain)])
    costs = ", ".join(f"{k} = {space.cost(k, code)[0]:.9g}" for k in limits)
    wanted = ", ".join(f"{k} <= {v:.9g}" for k, v in limits.items())
    shown = ", ".join(f"{k}={v}" for k, v in plain.items())
    return (
        f"an architecture of {space.name} must meet {wanted}, "
        f"but the cheapest that was reached has {costs}: {shown}."
    )
