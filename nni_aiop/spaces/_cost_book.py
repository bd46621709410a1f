"""What one search knows of the costs of its space: values that it asked for, estimates of others.

Two searches of one space share the values (`SampleCost` has each once), not what they learned: the
estimates follow from the values that a search asked for and their order alone, so that the same
seed gives the same proposals whatever was evaluated before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nni_aiop.errors import InfeasibleError
from nni_aiop.spaces._code_space import CodeSpace
from nni_aiop.spaces._coding import LISTED
from nni_aiop.spaces._sample_cost import SampleCost

if TYPE_CHECKING:
    from torch import Tensor

    from nni_aiop.spaces._stand_in import StandIn

__all__ = ["CostBook"]

Array = NDArray[np.float64]

_GROWTH = 1.25  # of the number of values between two fits
_DEVIATIONS = 1.0  # below the estimate, where a cost is still possible


class _Page:
    """The values of one cost, in the order in which they were asked for."""

    def __init__(self, cost: SampleCost) -> None:
        self.cost = cost
        self.values: dict[str, float] = {}  # by the key of the space
        self.points: list[Array] = []
        self.designed = False
        self._fitted = 0
        self._stand_in: StandIn | None = None

    def add(self, key: str, point: Array, value: float) -> None:
        if key not in self.values:
            self.values[key] = value
            self.points.append(point)

    def stand_in(self, space: CodeSpace) -> StandIn | None:
        """What is learned of the first values, as many as the last step of growth had."""
        size = _step(len(self.values))
        if size != self._fitted:
            self._fitted = size
            values = np.array(list(self.values.values())[:size])
            known = np.isfinite(values)
            self._stand_in = None
            if known.any():
                from nni_aiop.spaces._stand_in import StandIn

                codes = space.encode_points(np.array(self.points[:size])[known])
                self._stand_in = StandIn(codes, values[known])
        return self._stand_in


def _step(n: int) -> int:
    """The largest number of a fixed sequence up to n."""
    size = min(n, 1)
    while (following := math.ceil(size * _GROWTH)) <= n:
        size = following
    return size


class CostBook:
    """The costs of a space as one search sees them.

    Costs that are functions of codes, and quick functions of samples, are computed wherever they
    are asked for. Of any other `SampleCost` the book evaluates what it is told to, and learns.
    """

    def __init__(self, space: CodeSpace) -> None:
        self.space = space
        self._pages: dict[str, _Page] = {}

    @property
    def n_evaluated(self) -> int:
        """Number of values of the costs that are learned."""
        return sum(len(page.values) for page in self._pages.values())

    def of(self, space: CodeSpace) -> CostBook:
        """The same book for a copy of the space that has further costs."""
        book = CostBook(space)
        book._pages = dict(self._pages)
        return book

    def at(self, name: str, codes: Array) -> Array:
        """(n,) the cost of codes (n, width), or the estimate of one that is learned."""
        if not isinstance(self.space.costs.get(name), SampleCost):
            return self.space.cost(name, codes)
        return self.estimate(name, self.space.decode_points(codes))

    def is_learned(self, name: str) -> bool:
        """Whether the cost is evaluated at some architectures only, and learned between."""
        cost = self.space.costs.get(name)
        return isinstance(cost, SampleCost) and not cost.quick

    def is_noisy(self, name: str) -> bool:
        """Whether the cost is measured."""
        cost = self.space.costs[name]
        return isinstance(cost, SampleCost) and cost.noisy

    def _page(self, name: str) -> _Page:
        cost = self.space.costs[name]
        assert isinstance(cost, SampleCost)
        page = self._pages.get(name)
        if page is None or page.cost is not cost:
            page = self._pages[name] = _Page(cost)
        return page

    # --- exact values ---------------------------------------------------------------------------

    def exact(self, name: str, points: Array) -> Array:
        """(n,) the exact cost of (n, d) points, which is learned from."""
        canonical = self.space.canonical_points(points)
        if not isinstance(self.space.costs[name], SampleCost):
            return self.space.cost(name, self.space.encode_points(canonical))
        values = self.space.point_costs(name, points)
        if self.is_learned(name):
            page = self._page(name)
            for key, point, value in zip(
                self.space.keys(points), canonical, values.tolist(), strict=True
            ):
                page.add(key, point, value)
        return values

    def is_evaluated(self, name: str, points: Array) -> NDArray[np.bool_]:
        """(n,) whether this book has the exact cost of each of (n, d) points."""
        if not self.is_learned(name):
            return np.ones(len(points), dtype=np.bool_)
        known = self._page(name).values
        return np.array([key in known for key in self.space.keys(points)], dtype=np.bool_)

    def is_prepared(self, name: str) -> bool:
        """Whether estimates need no further evaluation."""
        page = self._page(name)
        return page.designed or len(page.values) >= page.cost.initial

    def prepare(self, name: str) -> None:
        """Evaluate random architectures and both ends of all dimensions, where not done yet."""
        cost = self.space.costs[name]
        if not isinstance(cost, SampleCost) or self._page(name).designed:
            return
        page = self._page(name)
        page.designed = True
        missing = cost.initial - len(page.values)
        if missing <= 0:
            return
        points = self.space.canonical_points(_design(self.space, missing))
        _, first = np.unique(points, axis=0, return_index=True)
        points = points[np.sort(first)]
        values = self.space.point_costs(name, points)
        for key, point, value in zip(self.space.keys(points), points, values.tolist(), strict=True):
            page.add(key, point, value)

    # --- estimates ------------------------------------------------------------------------------

    def estimate(self, name: str, points: Array) -> Array:
        """(n,) the cost of (n, d) points: exact where known, learned elsewhere."""
        return self._range(name, points)[0]

    def optimistic(self, name: str, points: Array) -> Array:
        """(n,) exact where known; elsewhere the least that is still likely."""
        return self._range(name, points)[1]

    def _range(self, name: str, points: Array) -> tuple[Array, Array]:
        if not self.is_learned(name):
            exact = self.exact(name, points)
            return exact, exact
        self.prepare(name)
        page = self._page(name)
        canonical = self.space.canonical_points(points)
        stand_in = page.stand_in(self.space)
        if stand_in is None:  # every value so far is unknown
            means, lows = np.full((2, len(points)), np.nan)
        else:
            means, lows = stand_in.range_of(self.space.encode_points(canonical), _DEVIATIONS)
        for i, key in enumerate(self.space.keys(points)):
            if key in page.values:
                means[i] = lows[i] = page.values[key]
        return means, lows

    def function(self, name: str) -> Callable[[Tensor], Tensor]:
        """The cost as a differentiable function of codes: itself, or what is learned of it.

        Raises:
            InfeasibleError: The cost is unknown wherever it was evaluated.
        """
        cost = self.space.costs[name]
        if not isinstance(cost, SampleCost):
            return cost
        self.prepare(name)
        stand_in = self._page(name).stand_in(self.space)
        if stand_in is None:
            why = "" if cost.problem is None else f" ({cost.problem:.300})"
            raise InfeasibleError(
                f"the {name} of some architecture of {self.space.name} must be known, "
                f"but of {len(self._page(name).values)} that were looked at none is{why}."
            )
        return stand_in

    # --- files ----------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """All values, as plain JSON."""
        out = {}
        for name, page in self._pages.items():
            samples = self.space.from_points(page.points) if page.points else []
            out[name] = {
                "designed": page.designed,
                "points": [self.space.to_json(sample) for sample in samples],
                "values": [None if math.isnan(v) else v for v in page.values.values()],
            }
        return out

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave; costs that the space has no more are passed over.

        Raises:
            KeyError, TypeError, ValueError, SpaceError: It is no such state.
        """
        pages: dict[str, _Page] = {}
        for name, told in state.items():
            cost = self.space.costs.get(name)
            if not isinstance(cost, SampleCost):
                continue
            page = pages[name] = _Page(cost)
            page.designed = bool(told["designed"])
            samples = [self.space.from_json(row) for row in told["points"]]
            values = [math.nan if v is None else float(v) for v in told["values"]]
            if len(samples) != len(values) or any(map(math.isinf, values)):
                raise ValueError(f"the values of {name} must be finite numbers, one for each point")
            if not samples:
                continue
            points = self.space.points(samples)
            keys = self.space.keys(points)
            for key, point, value in zip(keys, points, values, strict=True):
                page.add(key, point, value)
            if cost.noisy:
                self._remember(cost, points, values)
        self._pages = pages

    def _remember(self, cost: SampleCost, points: Array, values: Sequence[float]) -> None:
        """What was measured once is not measured again."""
        _, names = self.space.cost_samples(points)
        for name, value in zip(names, values, strict=True):
            cost.remember(name, value)


def _design(space: CodeSpace, n: int) -> Array:
    """(n or fewer, d) points: both ends of all dimensions where valid, and random ones."""
    if space.size <= n:
        points = space.enumerate_points(n)
        samples = space.from_points(points)
        return points[[space.violation(sample) is None for sample in samples]]
    rng = np.random.default_rng(0)
    ends = np.array([[d.options(1000)[i] for d in space.dimensions] for i in (0, -1)])
    try:
        points = np.concatenate([ends, space.points(space.sample(n, rng))])
    except InfeasibleError:
        if space.size > LISTED:
            raise
        points = rng.permutation(space.enumerate_points(LISTED))
    valid = [space.violation(sample) is None for sample in space.from_points(points)]
    return points[valid][:n]
