"""Hard limits on exact costs: who meets them, and how others are brought within them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nni_aiop.errors import InfeasibleError, SpaceError
from nni_aiop.spaces._code_space import CodeSpace
from nni_aiop.spaces._coding import Sample

Array = NDArray[np.float64]


def check_limits(space: CodeSpace, limits: Mapping[str, float]) -> dict[str, float]:
    """The limits, as floats.

    Raises:
        SpaceError: A limit is not a positive number, or names a cost that the space does not have.
    """
    out = {}
    for name, limit in limits.items():
        if name not in space.costs:
            known = ", ".join(space.costs) or "none"
            raise SpaceError(
                f"a limit must name an exact cost of {space.name}, but got {name!r}; "
                f"it has: {known}."
            )
        if not (math.isfinite(limit) and limit > 0):
            raise SpaceError(f"the limit on {name} must be a positive number, but got {limit}.")
        out[name] = float(limit)
    return out


def excess(space: CodeSpace, points: Array, limits: Mapping[str, float]) -> Array:
    """(n,) the largest ratio of a cost to its limit at each of (n, d) points; 0 without limits."""
    ratio = np.zeros(len(points))
    if limits:
        codes = space.encode_points(space.canonical_points(points))
        for name, limit in limits.items():
            ratio = np.maximum(ratio, space.cost(name, codes) / limit)
    return np.where(np.isnan(ratio), np.inf, ratio)  # an unknown cost is not within a limit


def meets_limits(space: CodeSpace, points: Array, limits: Mapping[str, float]) -> NDArray[np.bool_]:
    """(n,) whether every cost is within its limit at each of (n, d) points."""
    return excess(space, points, limits) <= 1.0


def repair(
    space: CodeSpace,
    samples: Sequence[Sample],
    limits: Mapping[str, float],
    rng: np.random.Generator | None = None,
) -> list[Sample]:
    """Samples within the limits, reached from the given ones by single edits that lower the cost.

    Each edit is drawn at random from the cheaper neighbours with `rng`, and is the smallest
    sufficient one, or else the steepest, without.

    Raises:
        InfeasibleError: A sample has no cheaper neighbour left and still exceeds a limit; the
            message names the cheapest architecture that was reached.
    """
    out = []
    for sample in samples:
        ratio = float(excess(space, space.points([sample]), limits)[0])
        while ratio > 1.0:
            neighbours = space.neighbours(sample)
            ratios = excess(space, space.points(neighbours), limits) if neighbours else np.empty(0)
            cheaper = np.flatnonzero(ratios < ratio * (1 - 1e-12))
            if len(cheaper) == 0:
                plain = space.canonical(sample)
                code = space.encode([space.complete(plain)])
                costs = ", ".join(f"{k} = {space.cost(k, code)[0]:.9g}" for k in limits)
                wanted = ", ".join(f"{k} <= {v:.9g}" for k, v in limits.items())
                shown = ", ".join(f"{k}={v}" for k, v in plain.items())
                raise InfeasibleError(
                    f"an architecture of {space.name} must meet {wanted}, "
                    f"but the cheapest that was reached has {costs}: {shown}."
                )
            if rng is not None:
                i = int(rng.choice(cheaper))
            else:
                enough = cheaper[ratios[cheaper] <= 1.0]
                i = int(enough[ratios[enough].argmax()] if len(enough) else ratios.argmin())
            sample, ratio = neighbours[i], float(ratios[i])
        out.append(sample)
    return out
