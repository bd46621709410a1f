"""The largest and the smallest architecture of a space, and such as reach every weight."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from nni_aiop.errors import InfeasibleError
from nni_aiop.spaces import CodeSpace, Nominal, Sample, Subset

__all__ = ["extreme", "reaching"]

_COSTS = ("flops", "macs", "params")  # the first that the space has tells large from small
_OPTIONS = 50  # values of a dimension that are tried
_PASSES = 3
_RANDOM = 8  # architectures that are looked at for weights
_MOST_RANDOM = 200  # looked at where a value of a nominal dimension was not active


def extreme(space: CodeSpace, *, largest: bool) -> Sample:
    """The largest or the smallest architecture (every label), inactive dimensions at defaults.

    Large is what costs most `flops`, else `macs`, else `params`: from the last, or the first, value
    of all dimensions single changes lead there. A space without such a cost is taken at its word:
    its last values are the largest.

    Raises:
        InfeasibleError: No architecture near there keeps the space's constraints.
    """
    place = -1 if largest else 0
    corner = np.array([[d.options(_OPTIONS)[place] for d in space.dimensions]])
    (start,) = space.decode(space.encode_points(corner))
    cost = next((name for name in _COSTS if name in space.costs), None)
    point = space.points([start])[0]
    if cost is not None:
        sign = 1.0 if largest else -1.0
        for _ in range(_PASSES):
            before = point
            for j in range(len(space.dimensions)):
                point = _best_value(space, point, j, cost, sign)
            if (point == before).all():
                break
    return space.settled(space.from_points(point[None])[0])


def _best_value(
    space: CodeSpace, point: NDArray[np.float64], j: int, cost: str, sign: float
) -> NDArray[np.float64]:
    """The point with the value of dimension j that costs most by the sign; its own if none more."""
    options = space.dimensions[j].options(_OPTIONS)
    tried = np.repeat(point[None], len(options) + 1, axis=0)
    tried[1:, j] = options
    if space.constraints:
        tried = tried[[i == 0 or _is_valid(space, row) for i, row in enumerate(tried)]]
    canonical = space.canonical_points(tried)
    costs = sign * np.asarray(space.cost(cost, space.encode_points(canonical)), dtype=np.float64)
    best = int(np.argmax(np.where(np.isnan(costs), -np.inf, costs)))
    chosen: NDArray[np.float64] = tried[best] if costs[best] > costs[0] else point
    return chosen


def _is_valid(space: CodeSpace, point: NDArray[np.float64]) -> bool:
    return space.violation(space.from_points(point[None])[0]) is None


def reaching(space: CodeSpace) -> Iterator[Sample]:
    """Architectures that together should reach every weight at its largest.

    The last value of all dimensions, with the nominal ones at their first, second, ... value; the
    first value of all; random ones, and more until every value of a nominal dimension was active.
    """
    nominal = [j for j, d in enumerate(space.dimensions) if isinstance(d, Nominal | Subset)]
    options = [d.options(_OPTIONS) for d in space.dimensions]
    wanted = {(j, float(value)) for j in nominal for value in options[j]}
    corners = [np.array([values[0] for values in options])]
    for turn in range(max((len(options[j]) for j in nominal), default=1)):
        corners.append(np.array([values[-1] for values in options]))
        for j in nominal:
            corners[-1][j] = options[j][turn % len(options[j])]
    rng = np.random.default_rng(0)
    for tries in range(_MOST_RANDOM + len(corners)):
        if tries < len(corners):
            try:
                (sample,) = space.decode(space.encode_points(corners[tries][None]))
            except InfeasibleError:
                continue
            new = True
        else:
            (sample,) = space.sample(1, rng)
            new = tries < len(corners) + _RANDOM
        point = space.points([sample])
        (active,) = space.active_points(point)
        seen = {(j, float(point[0, j])) for j in nominal if active[j]}
        if new or seen & wanted:
            yield sample
        wanted -= seen
        if not wanted and tries >= len(corners) + _RANDOM:
            return
