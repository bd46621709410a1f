"""Compute graphs of the digits networks, straight from their samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nni_aiop.errors import SpaceError
from nni_aiop.graphs import ComputeGraph, GraphWriter, Handle
from nni_aiop.search_spaces.digits._costs import (
    CLASSES,
    EXPANSION,
    KERNEL_OF_STEM,
    rules,
)

__all__ = ["graph"]

_ACTIVATIONS = {"relu": "relu", "hardswish": "hard_swish", "tanh": "tanh"}


def graph(sample: Mapping[str, Any]) -> ComputeGraph:
    """The compute graph of `DigitsNetwork` on one image.

    Args:
        sample: A sample of the space, inactive labels present or not.

    Raises:
        SpaceError: The sample breaks a rule of the space.
    """
    broken = rules().violation(sample)
    if broken is not None:
        raise SpaceError(broken)
    w = GraphWriter()
    activation = _ACTIVATIONS[sample["activation"]]

    def convolution(
        x: Handle, out: int, kernel: int, *, groups: int = 1, activated: bool = True
    ) -> Handle:
        x = w.batch_norm(w.conv(x, out, kernel, groups=groups))
        return w.activation(x, activation) if activated else x

    def block(x: Handle, op: str, kernel: int) -> Handle:
        width = x.shape[1]
        if op == "conv":
            return convolution(x, width, kernel)
        if op == "separable":
            return convolution(convolution(x, width, kernel, groups=width), width, 1)
        if op == "residual":
            return w.add(x, convolution(convolution(x, width, kernel), width, kernel))
        inner = EXPANSION * width
        y = convolution(convolution(x, inner, 1), inner, kernel, groups=inner)
        return w.add(x, convolution(y, width, 1, activated=False))

    def stage(x: Handle, number: int) -> Handle:
        for i in range(1, sample[f"depth_{number}"] + 1):
            w.scope = f"stage_{number}.{i - 1}"
            x = block(x, sample[f"op_{number}_{i}"], sample[f"kernel_{number}_{i}"])
        return x

    def transition(x: Handle, kind: str, out: int) -> Handle:
        if kind == "stride":
            y = w.conv(x, out, 2, stride=2, padding=0)
            return w.activation(w.batch_norm(y), activation)
        pool = w.max_pool if kind == "max" else w.avg_pool
        return convolution(pool(x, 2, stride=2), out, 1)

    x = w.input((1, 1, 8, 8))
    w.scope = "stem"
    x = stage(convolution(x, sample["width_1"], KERNEL_OF_STEM), 1)
    w.scope = "transition"
    x = stage(transition(x, sample["pooling"], sample["width_2"]), 2)
    w.scope = "head"
    w.output(w.linear(w.global_avg_pool(x), CLASSES))
    return w.graph()
