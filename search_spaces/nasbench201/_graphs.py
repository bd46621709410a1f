"""Compute graphs of NAS-Bench-201 networks, written straight from the cell."""

from __future__ import annotations

from collections.abc import Mapping

from nni_aiop.graphs import ComputeGraph, GraphWriter, Handle
from nni_aiop.search_spaces._four_nodes import relu_conv_norm, write_cell
from nni_aiop.search_spaces.nasbench201._cells import operations_of
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
    w = GraphWriter()

    def operation(node: Handle, source: int, name: str) -> Handle:
        return _operation(w, node, name)

    w.scope = "stem"
    x = w.batch_norm(w.conv(w.input((1, 3, size, size)), WIDTHS[0], 3))
    for stage, width in enumerate(WIDTHS):
        w.scope = f"stages.{stage}.reduction"
        if stage > 0:
            x = _reduction(w, x, width)
        for place in range(CELLS_PER_STAGE):
            w.scope = f"stages.{stage}.{place}"
            x = write_cell(w, x, operation, operations)
    w.scope = "head"
    x = w.global_avg_pool(w.relu(w.batch_norm(x)))
    w.output(w.linear(x, dataset(data).n_classes))
    return w.graph()


def _reduction(w: GraphWriter, x: Handle, width: int) -> Handle:
    y = relu_conv_norm(w, x, width, kernel=3, stride=2)
    y = relu_conv_norm(w, y, width, kernel=3, stride=1)
    return w.add(y, w.conv(w.avg_pool(x, 2, stride=2), width, 1))


def _operation(w: GraphWriter, x: Handle, name: str) -> Handle:
    if name == "skip_connect":
        return x
    if name == "none":
        return w.zeros(x)
    if name == "avg_pool_3x3":
        return w.avg_pool(x, 3, stride=1, padding=1)
    kernel = 3 if name == "nor_conv_3x3" else 1
    return relu_conv_norm(w, x, x.shape[1], kernel=kernel, stride=1)
