"""What a page shows of a search, in plain JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nni_aiop.errors import AiopError
from nni_aiop.files import plain
from nni_aiop.results._axes import Axis, space_of
from nni_aiop.results._units import spelled
from nni_aiop.results.report._folder import Evaluations
from nni_aiop.results.report._importance import Importance, importance_of

__all__ = ["AXES", "BEST", "LINES", "content_of", "importance_in", "shown"]

AXES = 10
"""Dimensions that parallel coordinates show at most."""

LINES = 2000
"""Evaluations that parallel coordinates show at most."""

BEST = 10
"""Rows of the table of the best."""

_CHOICES = 60  # of a dimension that are all listed; of more those that were evaluated


def shown(number: float | None) -> str:
    """A number as a reader wants it."""
    if number is None or math.isnan(number):
        return "not known"
    if float(number).is_integer() and abs(number) < 1e15:
        return f"{number:,.0f}"
    return f"{number:,.2f}" if 1e4 <= abs(number) < 1e15 else f"{number:.6g}"


def importance_in(found: Evaluations) -> Importance | str:
    """What matters to the first objective, or why that cannot be told."""
    metric = found.objectives[0][0]
    try:
        space = space_of(found.axes, str(found.summary.get("space", "space")))
    except (AiopError, ValueError) as err:
        return f"The dimensions cannot be read back: {err}"
    if len(space) < 2:
        return "There is one dimension only: all that differs is its doing."
    defaults = np.array([d.default for d in space.dimensions])
    points = np.where(np.isnan(found.points), defaults, found.points)
    return importance_of(space, points, found.metrics[metric], found.title(metric))


def content_of(found: Evaluations, importance: Importance | str) -> dict[str, Any]:
    """The data behind the figures, which the page's script reads."""
    order = list(range(len(found.axes)))
    if not isinstance(importance, str):
        places = {axis.label: i for i, axis in enumerate(found.axes)}
        order = [places[label] for label in importance.labels]
    content = {
        "n": len(found),
        "objectives": [
            {"metric": metric, "title": found.title(metric), "sign": sign}
            for metric, sign in found.objectives
        ],
        "limits": found.limits,
        "names": {name: spelled(name) for name in found.costs},
        "cost": found.drawn_cost,
        "dimensions": [_dimension(axis, found.points[:, i]) for i, axis in enumerate(found.axes)],
        "axes": order[:AXES],
        "lines": LINES,
        "metrics": _once(found),
        "costs": found.costs,
        "failed": np.flatnonzero(found.failed),
        "outside": np.flatnonzero(~found.feasible & ~found.failed),
        "front": found.front,
        "best": next(iter(found.leaders), None),
        "leaders": found.leaders[:BEST],
        "seconds": next((n for n in ("seconds", "duration", "time_s") if n in found.metrics), None),
        "importance": None if isinstance(importance, str) else _importance(importance),
    }
    return dict(plain(content))


def _once(found: Evaluations) -> dict[str, NDArray[np.float64]]:
    """The metrics without that which an objective repeats, and has its name from."""
    wanted = {metric for metric, _ in found.objectives}
    repeated = {found.title(metric) for metric in wanted} - wanted
    return {name: column for name, column in found.metrics.items() if name not in repeated}


def _importance(importance: Importance) -> dict[str, Any]:
    return {
        "metric": importance.metric,
        "labels": importance.labels,
        "total": importance.total,
        "alone": importance.alone,
    }


def _dimension(axis: Axis, points: NDArray[np.float64]) -> dict[str, Any]:
    """One dimension: the number of each evaluation, or the index of its choice."""
    known = points[~np.isnan(points)]
    inactive = bool(np.isnan(points).any())
    size = axis.dimension.size
    if axis.kind == "continuous" or (axis.kind == "ordinal" and size > _CHOICES):
        values = np.full(len(points), math.nan)
        values[~np.isnan(points)] = [float(v) for v in axis.dimension.values_of(known)]
        log = axis.scale == "log"
        return {"label": axis.label, "log": log, "points": values, "inactive": inactive}
    listed: Sequence[float] = np.unique(known).tolist()
    if size <= _CHOICES and axis.kind != "subset":
        listed = [float(i) for i in range(int(size))]
    places = {point: i for i, point in enumerate(listed)}
    return {
        "label": axis.label,
        "texts": [axis.text(point) for point in listed],
        "values": [axis.value(point) for point in listed],
        "points": [None if math.isnan(p) else places[p] for p in points.tolist()],
        "inactive": inactive,
    }
