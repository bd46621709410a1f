"""Compute graphs of NAS-Bench-201 networks, written straight from the cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nni_aiop.graphs import ComputeGraph, Data, GraphWriter
from nni_aiop.search_spaces.nasbench201._cells import EDGES, operations_of
from nni_aiop.search_spaces.nasbench201._costs import CELLS_PER_STAGE, WIDTHS, dataset

__all__ = ["graph"]


def graph(sample: Mapping[str, str], *, data: str = "cifar100") -> ComputeGraph:
    """The compute graph of `NASBench201Net`, equal to what `from_module` makes of the network.

    Args:
        sample: The operation on each of the six edges, by label.
        data: A key of `DATASETS`.

    Raises:
        SpaceError: A label is missing or its operation unknown.
        ValueError: The data set is unknown.

    Example:
        >>> from nni_aiop.search_spaces.nasbench201 import from_index
        >>> graph(from_index(7777)).output_shapes
        ((1, 100),)
    """
    operations = operations_of(sample)
    size = dataset(data).image_size
    writer = GraphWriter()
    x = writer.batch_norm(writer.conv(writer.input((1, 3, size, size)), WIDTHS[0], 3))
    for stage, width in enumerate(WIDTHS):
        if stage > 0:
            x = _reduction(writer, x, width)
        for _ in range(CELLS_PER_STAGE):
            x = _cell(writer, x, operations)
    x = writer.global_avg_pool(writer.relu(writer.batch_norm(x)))
    writer.output(writer.linear(x, dataset(data).n_classes))
    return writer.graph()


def _relu_conv_norm(writer: GraphWriter, x: Data, channels: int, kernel: int, stride: int) -> Data:
    x = writer.conv(writer.relu(x), channels, kernel, stride=stride)
    return writer.batch_norm(x)


def _reduction(writer: GraphWriter, x: Data, width: int) -> Data:
    y = _relu_conv_norm(writer, x, width, kernel=3, stride=2)
    y = _relu_conv_norm(writer, y, width, kernel=3, stride=1)
    return writer.add(y, writer.conv(writer.avg_pool(x, 2, stride=2), width, 1))


def _cell(writer: GraphWriter, x: Data, operations: Sequence[str]) -> Data:
    nodes = [x]
    for target in (1, 2, 3):
        terms = [
            _operation(writer, nodes[source], operation)
            for (source, to), operation in zip(EDGES, operations, strict=True)
            if to == target
        ]
        nodes.append(writer.add(*terms))
    return nodes[3]


def _operation(writer: GraphWriter, x: Data, name: str) -> Data:
    if name == "skip_connect":
        return x
    if name == "none":
        return writer.zeros(x)
    if name == "avg_pool_3x3":
        return writer.avg_pool(x, 3, stride=1, padding=1)
    kernel = 3 if name == "nor_conv_3x3" else 1
    return _relu_conv_norm(writer, x, x.shape[1], kernel=kernel, stride=1)
