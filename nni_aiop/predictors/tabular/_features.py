"""What tabular predictors read of a network: its scheme, and the first epochs of its training.

Scheme features come from compute graphs, hence from any network, ONNX file or space that draws
them. Learning-curve features come from any list of (accuracy, mean loss, median loss) by epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nni_aiop.spaces import SampleCost

if TYPE_CHECKING:
    from nni_aiop.graphs import ComputeGraph, Node
    from nni_aiop.spaces import CodeSpace

__all__ = [
    "CURVE_COLUMNS",
    "SCHEME_COLUMNS",
    "compact_curve_features",
    "raw_curve_features",
    "sample_features",
    "scheme_features",
    "space_features",
]

Array = NDArray[np.float64]

SCHEME_COLUMNS = (
    "log_params",
    "log_macs",
    "depth",
    "stages",
    "first_width",
    "last_width",
    "skips",
    "receptive_field",
    "mean_log_width",
    "mean_kernel",
)
"""Columns of `scheme_features`; the first six are those of Hakim (2022, section 2)."""

CURVE_COLUMNS = ("accuracy", "loss_mean", "loss_median")
"""What a curve holds of each epoch."""

_LAYERS = frozenset({"conv", "conv_transpose", "linear"})


def scheme_features(graphs: Sequence[ComputeGraph]) -> Array:
    """(n, 10) the `SCHEME_COLUMNS` of each network.

    Layers are convolutions and linear layers in front of global pooling (all, where nothing is).
    `depth` counts them, `stages` the resolutions at which they work, `skips` the sums of tensors;
    `receptive_field` is the side of the window of the input that the last node sees, in pixels;
    counts enter as logarithms.

    Example:
        >>> from nni_aiop.search_spaces import naap
        >>> graph = naap.graph(naap.from_layers(naap.schemes()[0]))
        >>> scheme_features([graph])[0, 2:8].tolist()
        [3.0, 2.0, 12.0, 16.0, 0.0, 7.0]
    """
    return np.array([_scheme(graph) for graph in graphs]).reshape(-1, len(SCHEME_COLUMNS))


def _scheme(graph: ComputeGraph) -> list[float]:
    everywhere = [place for place, node in enumerate(graph.nodes) if node.op in _LAYERS]
    layers = [place for place in everywhere if graph.levels[place] is not None] or everywhere
    nodes = [graph.nodes[place] for place in layers]
    widths = [_width(node) for node in nodes] or [1]
    kernels = [_kernel(node) for node in nodes] or [1]
    skips = sum(n.op == "add" and len(graph.inputs[p]) > 1 for p, n in enumerate(graph.nodes))
    return [
        log(max(1, graph.parameters)),
        log(max(1, graph.cost.macs)),
        len(layers),
        len({graph.levels[place] for place in layers}),
        widths[0],
        widths[-1],
        skips,
        _receptive_field(graph),
        float(np.mean(np.log(widths))),
        float(np.mean(kernels)),
    ]


def _width(node: Node) -> int:
    return node.output_shape[-1] if node.op == "linear" else node.output_shape[1]


def _kernel(node: Node) -> int:
    return max(node.get("kernel", (1,)), default=1)


def _receptive_field(graph: ComputeGraph) -> float:
    """Of the widest way through the network."""
    sides: list[float] = []
    steps: list[float] = []
    for node, sources in zip(graph.nodes, graph.inputs, strict=True):
        side = max((sides[source] for source in sources), default=1.0)
        step = max((steps[source] for source in sources), default=1.0)
        dilation = max(node.get("dilation", (1,)), default=1)
        sides.append(side + (_kernel(node) - 1) * dilation * step)
        steps.append(step * max(node.get("stride", (1,)), default=1))
    return max(sides, default=1.0)


def space_features(space: CodeSpace, samples: Sequence[Mapping[str, Any]]) -> Array:
    """(n, width + costs) what a space tells of its samples: code, and logarithm of each cost that
    is a function of codes.

    Inactive labels stand at their default, so that equal networks have equal rows.
    """
    codes = space.encode_points(space.canonical_points(space.points(samples)))
    costs = [
        np.log(1 + space.cost(name, codes))[:, None]
        for name, cost in space.costs.items()
        if not isinstance(cost, SampleCost)
    ]
    return np.concatenate([codes, *costs], axis=1)


def raw_curve_features(curves: ArrayLike) -> Array:
    """(n, 3 k) every epoch's numbers, as Hakim (2022, section 4) reads them.

    Args:
        curves: (n, k, 3) the `CURVE_COLUMNS` of the first k epochs.

    Raises:
        ValueError: The shape is another.
    """
    c = _checked(curves)
    return c.reshape(len(c), -1)


def sample_features(space: CodeSpace, sample: Mapping[str, Any]) -> Array:
    """(p,) few columns of a sample, for a regressor that learns from few trials.

    The `SCHEME_COLUMNS` where the space draws graphs, else `space_features`.
    """
    if space.graph is None:
        return space_features(space, [sample]).ravel()
    return scheme_features([space.graph(sample)]).ravel()


def compact_curve_features(curves: ArrayLike) -> Array:
    """(n, 2 or 3) what a curve has come to: its best value, its last value, its lowest mean loss.

    Few columns that mean the same after any number of epochs and under any schedule of the learning
    rate: with warm restarts the last epoch is not the best.

    Args:
        curves: (n, k, 3) the `CURVE_COLUMNS` of the first k epochs, or (n, k, 1) of a metric alone,
            of which more is better; k at least 1.

    Raises:
        ValueError: The shape is another.
    """
    c = _checked(curves, channels=(1, len(CURVE_COLUMNS)))
    columns = [c[:, :, 0].max(axis=1), c[:, -1, 0]]
    if c.shape[2] > 1:
        columns.append(c[:, :, 1].min(axis=1))
    return np.stack(columns, axis=1)


def _checked(curves: ArrayLike, channels: tuple[int, ...] = (len(CURVE_COLUMNS),)) -> Array:
    c = np.asarray(curves, dtype=np.float64)
    if c.ndim != 3 or c.shape[1] < 1 or c.shape[2] not in channels:
        wanted = " or ".join(f"(n, k, {number})" for number in channels)
        raise ValueError(f"curves must have shape {wanted}, k at least 1, but got {c.shape}.")
    return c
