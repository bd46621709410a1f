"""The engine-free code space of the once-for-all MobileNetV3 networks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from nni_aiop.errors import SpaceError
from nni_aiop.search_spaces.mobilenetv3._codes import (
    Resolution,
    conditions,
    dimensions,
    sizes_of,
)
from nni_aiop.search_spaces.mobilenetv3._costs import macs, params
from nni_aiop.search_spaces.mobilenetv3._features import features
from nni_aiop.search_spaces.mobilenetv3._graphs import graph
from nni_aiop.search_spaces.mobilenetv3._latency import LatencyTable
from nni_aiop.search_spaces.mobilenetv3._skeleton import skeleton
from nni_aiop.spaces import CodeSpace

__all__ = ["code_space"]


def code_space(
    *,
    width: float = 1.0,
    resolution: Resolution = 224,
    n_classes: int = 1000,
    latency: Mapping[str, LatencyTable] | None = None,
) -> CodeSpace:
    """The space as 45 ordinal dimensions, with exact costs, features and compute graphs.

    Its costs are `params` (a number), `macs` (multiply-adds of one image) and those of `latency`
    (milliseconds). The kernel and the expansion of a position that its unit's depth does not reach
    are inactive.

    Args:
        width: Width multiplier, 1.0 or 1.2.
        resolution: Side of the square image in pixels; where several increasing ones, it is
            chosen too, by a first dimension `r`.
        n_classes: Outputs of the classifier.
        latency: Further costs by name, from `load_latency_table` at that width and resolution.

    Raises:
        SpaceError: A latency table is of another width or resolution, or named params or macs.
        ValueError: The width or the resolution is wrong.

    Example:
        >>> space = code_space(width=1.2)
        >>> len(space.labels), len(space.conditions)
        (45, 20)
        >>> code_space(resolution=range(128, 225, 4)).labels[:3]
        ('r', 'd1', 'd2')
    """
    skeleton(width)
    sizes_of(resolution)
    for name, table in (latency or {}).items():
        if name in ("params", "macs"):
            raise SpaceError(f"a latency must have a name of its own, but got {name!r}.")
        if table.width != width:
            raise SpaceError(
                f"the latency table {name!r} must be of the space's width {width}, "
                f"but is of {table.width}."
            )
        one = isinstance(table.resolution, int), isinstance(resolution, int)
        if sizes_of(table.resolution) != sizes_of(resolution) or one[0] != one[1]:
            raise SpaceError(
                f"the latency table {name!r} must be of the space's resolution {resolution}, "
                f"but is of {table.resolution}."
            )

    resolution = resolution if isinstance(resolution, int) else tuple(resolution)
    chosen: dict[str, Any] = {"width": width, "resolution": resolution, "n_classes": n_classes}
    return CodeSpace(
        dimensions(resolution),
        name="mobilenetv3",
        conditions=conditions(),
        costs={
            "params": partial(params, **chosen),
            "macs": partial(macs, **chosen),
            **(latency or {}),
        },
        features=partial(features, width=width, resolution=resolution),
        graph=partial(graph, **chosen),
    )
