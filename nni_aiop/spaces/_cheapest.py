"""The cheapest architecture of a space, by which a budget that nothing keeps is told."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nni_aiop.errors import InfeasibleError
from nni_aiop.spaces._code_space import CodeSpace
from nni_aiop.spaces._coding import LISTED, Sample
from nni_aiop.spaces._cost_book import CostBook
from nni_aiop.spaces._limits import Array

__all__ = ["cheapest", "refuse_impossible"]

_RANDOM = 2_000  # random architectures, the cheapest of which others are descended from
_SIDEWAYS = 50  # edits in a row that do not lower a cost
_LOOKS = 40  # times that a learned cost is looked up where it seems least
_VAIN = 3  # such looks in a row that find nothing cheaper, before it is the cheapest
_AT_ONCE = 6  # architectures that are then evaluated


def refuse_impossible(
    space: CodeSpace, budget: Mapping[str, float], book: CostBook | None = None
) -> list[Sample]:
    """The cheapest architecture by each of the budgeted costs.

    Raises:
        InfeasibleError: A budget is below it; the message names the architecture.
    """
    found = []
    for name, limit in budget.items():
        book = book or CostBook(space)
        sample, cost = cheapest(space, name, book=book)
        if limit < cost:
            shown = ", ".join(f"{k}={v}" for k, v in space.canonical(sample).items())
            certain = space.size <= LISTED and not book.is_learned(name)
            known = "" if certain else "of those found "
            raise InfeasibleError(
                f"an architecture of {space.name} must meet {name} <= {limit:.9g}, "
                f"but {known}the cheapest, {shown}, has {name} = {cost:.9g}."
            )
        found.append(sample)
    return found


def cheapest(
    space: CodeSpace, cost: str, *, starts: int = 4, book: CostBook | None = None
) -> tuple[Sample, float]:
    """The cheapest architecture and its cost.

    Of a space of up to 100,000 points it is looked up; of a larger one it is the cheapest that
    single edits reach from the cheapest of random architectures and from both ends of all
    dimensions. A cost that is learned between is evaluated where it seems least, until that is
    no less, 240 times at most beside what is learned from.

    Raises:
        SpaceError: The space has no such cost.
        InfeasibleError: No architecture that was found keeps the constraints and has a known cost.
    """
    rng = np.random.default_rng(0)
    book = book or CostBook(space)
    if space.size <= LISTED:
        points = space.enumerate_points(LISTED)
    else:
        ends = [[d.options(1000)[i] for d in space.dimensions] for i in (0, -1)]
        points = np.concatenate([ends, space.sample_points(_RANDOM, rng)])
        if space.constraints:
            points = np.concatenate([points, space.points(space.sample(starts, rng))])
    if book.is_learned(cost):
        return _least_seen(space, cost, points, book)
    if space.size <= LISTED:
        found = _first_valid(space, cost, points, 1)
    else:
        found = [
            _descended(space, cost, sample, rng)
            for sample in _first_valid(space, cost, points, starts)
        ]
    if not found:
        raise InfeasibleError(f"no architecture of {space.name} was found whose {cost} is known.")
    costs = _point_costs(space, cost, space.points(found))
    return found[int(costs.argmin())], float(costs.min())


def _least_seen(space: CodeSpace, cost: str, points: Array, book: CostBook) -> tuple[Sample, float]:
    """The cheapest valid architecture that was evaluated, and its cost."""
    listed = space.size <= LISTED
    points = np.unique(space.canonical_points(points), axis=0)
    best: tuple[Sample, float] | None = None
    vain = 0  # looks in a row that found nothing cheaper
    for _ in range(_LOOKS):
        estimates = book.estimate(cost, points)
        known = book.is_evaluated(cost, points)
        order = np.argsort(np.where(np.isnan(estimates), np.inf, estimates), kind="stable")
        before = best
        for i in order[known[order]][:_AT_ONCE]:
            if np.isfinite(estimates[i]) and (best is None or estimates[i] < best[1]):
                (sample,) = space.from_points(points[[i]])
                if space.violation(sample) is None:
                    best = sample, float(estimates[i])
        unknown = [
            i
            for i in order[~known[order]][: 20 * _AT_ONCE]
            if space.violation(space.from_points(points[[i]])[0]) is None
        ][:_AT_ONCE]
        for i in unknown:
            value = float(book.exact(cost, points[[i]])[0])
            if np.isfinite(value) and (best is None or value < best[1]):
                best = space.from_points(points[[i]])[0], value
        vain = vain + 1 if best == before else 0
        if vain == _VAIN or not unknown:
            break
        if not listed and best is not None:
            (here,) = space.points([best[0]])
            near = [space.canonical_points(rows) for rows in space.neighbour_points(here)]
            points = np.unique(np.concatenate([points, *near]), axis=0)
    if best is None:
        raise InfeasibleError(f"no architecture of {space.name} was found whose {cost} is known.")
    return best


def _first_valid(space: CodeSpace, cost: str, points: Array, n: int) -> list[Sample]:
    """The `n` cheapest valid samples of (m, d) points."""
    costs = _point_costs(space, cost, points)
    out: list[Sample] = []
    for i in np.argsort(costs, kind="stable"):
        (sample,) = space.from_points(points[[i]])
        if len(out) == n or np.isinf(costs[i]):
            break
        if space.violation(sample) is None:
            out.append(sample)
    return out


def _descended(space: CodeSpace, cost: str, sample: Sample, rng: np.random.Generator) -> Sample:
    """The cheapest sample on a way of single edits, none of which raises the cost."""
    (point,) = space.points([sample])
    best, sideways = point, 0
    here = float(_point_costs(space, cost, point[None])[0])
    seen = {_name(space, point[None])[0]}
    while sideways < _SIDEWAYS:
        moves = space.neighbour_moves(point)
        costs = np.full(len(moves.points), np.inf)
        new = False
        for block in moves.blocks():
            points = moves.rows(point, block)
            unseen = np.array([name not in seen for name in _name(space, points)])
            costs[block] = np.where(unseen, _point_costs(space, cost, points), np.inf)
            new = new or bool(unseen.any())
        least = float(costs.min(initial=np.inf))
        if least > here or not new:
            break
        i = int(rng.choice(np.flatnonzero(costs == least)))
        point, sideways = moves.rows(point, slice(i, i + 1))[0], sideways + 1
        seen.update(_name(space, point[None]))
        if least < here:
            best, here, sideways = point, least, 0
    (found,) = space.from_points([best])
    return found


def _name(space: CodeSpace, points: Array) -> list[bytes]:
    """(n,) what is equal for equal architectures; quicker than keys."""
    return [row.tobytes() for row in space.canonical_points(points)]


def _point_costs(space: CodeSpace, cost: str, points: Array) -> Array:
    """(n,) costs of (n, d) points, infinite where unknown."""
    costs = CostBook(space).exact(cost, points)
    return np.where(np.isfinite(costs), costs, np.inf)
