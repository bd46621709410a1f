"""Compute graphs of NAS-Bench-101 networks, written straight from the cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nni_aiop.graphs import ComputeGraph, Data, GraphWriter
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
    writer = GraphWriter()
    x = _conv_norm_relu(writer, writer.input((1, 3, IMAGE_SIZE, IMAGE_SIZE)), STEM, kernel=3)
    for stack, width in enumerate(WIDTHS):
        if stack > 0:
            x = writer.max_pool(x, 2, stride=2)
        channels = [*vertex_channels(matrix, width), width]
        for _ in range(CELLS_PER_STACK):
            x = _cell(writer, x, matrix, operations, channels)
    writer.output(writer.linear(writer.global_avg_pool(x), N_CLASSES))
    return writer.graph()


def _conv_norm_relu(writer: GraphWriter, x: Data, channels: int, kernel: int) -> Data:
    return writer.relu(writer.batch_norm(writer.conv(x, channels, kernel)))


def _cell(
    writer: GraphWriter,
    x: Data,
    matrix: Sequence[Sequence[int]],
    operations: Sequence[str],
    channels: Sequence[int],
) -> Data:
    output = len(matrix) - 1

    def projected(vertex: int) -> list[Data]:
        return [_conv_norm_relu(writer, x, channels[vertex], 1)] if matrix[0][vertex] else []

    vertices = [x]
    for vertex, operation in enumerate(operations, start=1):
        terms = [
            writer.slice(vertices[source], (1, 0, channels[vertex], 1))
            if channels[source] > channels[vertex]
            else vertices[source]
            for source in range(1, vertex)
            if matrix[source][vertex]
        ]
        y = writer.add(*terms, *projected(vertex))
        if operation == "maxpool3x3":
            y = writer.max_pool(y, 3, stride=1, padding=1)
        else:
            kernel = 3 if operation == "conv3x3-bn-relu" else 1
            y = _conv_norm_relu(writer, y, channels[vertex], kernel)
        vertices.append(y)
    joined = [vertices[vertex] for vertex in range(1, output) if matrix[vertex][output]]
    return writer.add(*([writer.concat(joined)] if joined else []), *projected(output))
