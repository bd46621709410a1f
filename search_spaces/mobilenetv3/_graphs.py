"""Compute graphs of the once-for-all networks, straight from their choices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nni_aiop.graphs import ComputeGraph, GraphWriter, Handle
from nni_aiop.search_spaces.mobilenetv3._codes import Resolution, blocks_of, side_of
from nni_aiop.search_spaces.mobilenetv3._skeleton import UNITS, Activation, se_channels, skeleton

__all__ = ["graph"]

_ACTIVATIONS = {"relu": "relu", "hardswish": "hard_swish"}


def graph(
    sample: Mapping[str, Any],
    *,
    width: float = 1.0,
    resolution: Resolution = 224,
    n_classes: int = 1000,
) -> ComputeGraph:
    """The compute graph of `MobileNetV3Net` on one image.

    Args:
        sample: The choices by label; those of inactive positions are not read.
        width: Width multiplier, 1.0 or 1.2.
        resolution: Side of the square image in pixels; where several, the sample's `r` is it.
        n_classes: Outputs of the classifier.

    Raises:
        SpaceError: An active label is missing, or its value is none of the space's.
        ValueError: The width or the resolution is wrong.

    Example:
        >>> small = {label: {"d": 2, "k": 3, "e": 3}[label[0]] for label in LABELS}
        >>> graph(small).operations["conv"]
        44
    """
    channels = skeleton(width)
    side = side_of(sample, resolution)
    w = GraphWriter()
    x = w.input((1, 3, side, side))
    w.scope = "stem"
    x = _conv_norm(w, x, channels.stem, 3, stride=2, activation="hardswish")
    y = _conv_norm(w, x, channels.stem, 3, groups=channels.stem, activation="relu")
    x = w.add(x, _conv_norm(w, y, channels.stem))
    for place, (unit, out, blocks) in enumerate(
        zip(UNITS, channels.units, blocks_of(sample), strict=True)
    ):
        for rank, (kernel, expand) in enumerate(blocks):
            w.scope = f"units.{place}.{rank}"
            mid = x.shape[1] * expand
            stride = 1 if rank else unit.stride
            y = _conv_norm(w, x, mid, activation=unit.activation)
            y = _conv_norm(w, y, mid, kernel, stride=stride, groups=mid, activation=unit.activation)
            if unit.se:
                y = _weighed(w, y)
            y = _conv_norm(w, y, out)
            x = w.add(x, y) if stride == 1 and x.shape[1] == out else y
    w.scope = "head"
    x = _conv_norm(w, x, channels.expand, activation="hardswish")
    x = w.conv(w.global_avg_pool(x, keep=True), channels.mix, 1)
    x = w.reshape(w.activation(x, "hard_swish"), (1, channels.mix))
    w.output(w.linear(x, n_classes))
    return w.graph()


def _conv_norm(
    w: GraphWriter,
    x: Handle,
    out: int,
    kernel: int = 1,
    *,
    stride: int = 1,
    groups: int = 1,
    activation: Activation | None = None,
) -> Handle:
    x = w.batch_norm(w.conv(x, out, kernel, stride=stride, groups=groups))
    return x if activation is None else w.activation(x, _ACTIVATIONS[activation])


def _weighed(w: GraphWriter, x: Handle) -> Handle:
    """Squeeze-and-excitation."""
    y = w.global_avg_pool(x, keep=True)
    y = w.relu(w.conv(y, se_channels(x.shape[1]), 1, bias=True))
    y = w.conv(y, x.shape[1], 1, bias=True)
    return w.mul(x, w.activation(y, "hard_sigmoid"))
