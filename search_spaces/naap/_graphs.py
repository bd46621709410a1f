"""Compute graphs of NAAP-440's networks, written straight from the scheme."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nni_aiop.graphs import ComputeGraph, GraphWriter
from nni_aiop.search_spaces.naap._costs import CLASSES, IMAGE_SIZE
from nni_aiop.search_spaces.naap._schemes import layers

__all__ = ["graph"]


def graph(sample: Mapping[str, Any]) -> ComputeGraph:
    """The compute graph of `NAAPNet`, equal to what `from_module` makes of the network.

    Raises:
        SpaceError: The sample is not valid.
    """
    found = layers(sample)
    w = GraphWriter()
    x = w.input((1, 3, IMAGE_SIZE, IMAGE_SIZE))
    for number, layer in enumerate(found):
        w.scope = f"layers.{number}"
        y = w.conv(x, layer.width, layer.kernel, stride=layer.stride)
        y = w.relu(w.batch_norm(y))
        x = w.add(y, x) if layer.skip else y
    w.scope = "head"
    w.output(w.linear(w.global_avg_pool(x), CLASSES))
    return w.graph()
