"""Compute graphs of NAS-Bench-101 networks, written straight from the cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nni_aiop.graphs import ComputeGraph, GraphWriter, Handle
from nni_aiop.search_spaces.nasbench101._costs import (
    CELLS_PER_STACK,
    IMAGE_SIZE,
    N_CLASSES,
    STEM,
    WIDTHS,
)
from nni_aiop.search_spaces.nasbench101._matrices import to_matrix, vertex_channels

__all__ = ["graph"]


def graph(sample: Mapping[str, Any]) -> ComputeGraph:
    """The compute graph of `NASBench101Net`, equal to what `from_module` makes of the network.

    Raises:
        SpaceError: The sample is not valid.

    Example:
        >>> from nni_aiop.search_spaces.nasbench101 import from_matrix
        >>> graph(from_matrix([[0, 1], [0, 0]], [])).output_shapes
        ((1, 10),)
    """
    matrix, operations = to_matrix(sample)
    w = GraphWriter()
    w.scope = "stem"
    x = _conv_norm_relu(w, w.input((1, 3, IMAGE_SIZE, IMAGE_SIZE)), STEM, kernel=3)
    for stack, width in enumerate(WIDTHS):
        w.scope = f"stacks.{stack}"
        if stack > 0:
            x = w.max_pool(x, 2, stride=2)
        channels = [*vertex_channels(matrix, width), width]
        for place in range(CELLS_PER_STACK):
            w.scope = f"stacks.{stack}.{place}"
            x = _cell(w, x, matrix, operations, channels)
    w.scope = "head"
    w.output(w.linear(w.global_avg_pool(x), N_CLASSES))
    return w.graph()


def _conv_norm_relu(w: GraphWriter, x: Handle, channels: int, kernel: int) -> Handle:
    return w.relu(w.batch_norm(w.conv(x, channels, kernel)))


def _cell(
    w: GraphWriter,
    x: Handle,
    matrix: Sequence[Sequence[int]],
    operations: Sequence[str],
    channels: Sequence[int],
) -> Handle:
    output = len(matrix) - 1

    def projected(vertex: int) -> list[Handle]:
        return [_conv_norm_relu(w, x, channels[vertex], 1)] if matrix[0][vertex] else []

    vertices = [x]
    for vertex, operation in enumerate(operations, start=1):
        terms = [
            w.slice(vertices[source], (1, 0, channels[vertex], 1))
            if channels[source] > channels[vertex]
            else vertices[source]
            for source in range(1, vertex)
            if matrix[source][vertex]
        ]
        y = w.add(*terms, *projected(vertex))
        if operation == "maxpool3x3":
            y = w.max_pool(y, 3, stride=1, padding=1)
        else:
            kernel = 3 if operation == "conv3x3-bn-relu" else 1
            y = _conv_norm_relu(w, y, channels[vertex], kernel)
        vertices.append(y)
    joined = [vertices[vertex] for vertex in range(1, output) if matrix[vertex][output]]
    return w.add(*([w.concat(joined)] if joined else []), *projected(output))
