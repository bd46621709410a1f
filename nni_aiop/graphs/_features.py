"""What predictors read of a compute graph: features of nodes, of edges, and of the whole.

Graphs that are equal have equal features, whatever door they came through: nothing is read that
equality does not look at (names, shared weights, the count of learned numbers). Another order of
nodes permutes the rows of nodes and leaves the rest as it is.

Sizes enter as log2(1 + size) / scale, with the scales of `_SCALES`, so that nearly all columns lie
between 0 and 2. A size that a node does not have, such as the kernel of an addition, is 0.

Columns of nodes (`NODE_COLUMNS`):

- `op:NAME`, one for each operation of the vocabulary and `op:other`: which one it is;
- `kernel_height`, `kernel_width`, `stride`, `dilation`, `groups`, `bias`: of windows (the width
  alone where they have one axis; stride and dilation of the widest axis);
- `constant`: a sum, product or function with a constant; `mask`: of attention;
- `weight`: entries of the learned weight; `macs`: multiply-adds; `flops`: operations;
- `reads`: how many tensors it reads; `read_by`: how many arguments its result is;
- `channels_in`, `channels_out`, `positions_in`, `positions_out`: entries of one position, and
  pixels or tokens of one example, of the largest input and of the output;
- `level`: log2(side of the input / side of the node) / 8, 0 in the head; `head`: whether it stands
  there (no positions are left);
- `depth`, `height`: edges on the longest way from an input and to an output; `progress`:
  depth / (depth + height).

Columns of the graph (`GLOBAL_COLUMNS`): `macs`, `flops`, `weights`, `activations`, `nodes`,
`edges`, `depth`; `input_side`, `input_channels`; `nodes:FAMILY`; and for each resolution
(`LEVELS`) `nodes@LEVEL`, `macs@LEVEL`, `weights@LEVEL`.

Edges run in both directions; `edge_type` is 0 along the flow of data and 1 against it. `level` is
the place of each node in `LEVELS`, for read-outs by resolution.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nni_aiop.graphs._families import FAMILIES, family
from nni_aiop.graphs._vocabulary import OPERATIONS

if TYPE_CHECKING:
    from torch_geometric.data import Data

    from nni_aiop.graphs._graph import ComputeGraph, Node

__all__ = [
    "FEATURES_VERSION",
    "GLOBAL_COLUMNS",
    "LEVELS",
    "NODE_COLUMNS",
    "FeatureCache",
    "GraphFeatures",
    "global_features",
    "graph_features",
    "node_features",
    "to_pyg",
]

FEATURES_VERSION = 1
"""Goes up with every change of what the columns are or hold."""

LEVELS = ("0", "1", "2", "3", "4", "5", "head")
"""Resolutions: the side of the input halved so often (5 or more times), or no positions left."""

_SCALES = {
    "kernel_height": 3.0,
    "kernel_width": 3.0,
    "stride": 2.0,
    "dilation": 2.0,
    "groups": 10.0,
    "weight": 24.0,
    "macs": 30.0,
    "flops": 30.0,
    "reads": 3.0,
    "read_by": 3.0,
}
_LOCAL = (*_SCALES, "bias", "constant", "mask")
_CONTEXT = {
    "channels_in": 10.0,
    "channels_out": 10.0,
    "positions_in": 16.0,
    "positions_out": 16.0,
    "depth": 8.0,
    "height": 8.0,
}
_OPERATION = {op: place for place, op in enumerate(OPERATIONS)}
_FIRST = len(_OPERATION) + 1

NODE_COLUMNS: tuple[str, ...] = (
    *(f"op:{op}" for op in (*OPERATIONS, "other")),
    *_LOCAL,
    *_CONTEXT,
    "level",
    "head",
    "progress",
)
"""Name of each column of node features."""

_READ_BY = NODE_COLUMNS.index("read_by")
_CONTEXT_AT = NODE_COLUMNS.index("channels_in")

_TOTALS = {
    "macs": 36.0,
    "flops": 36.0,
    "weights": 28.0,
    "activations": 28.0,
    "nodes": 10.0,
    "edges": 10.0,
    "depth": 8.0,
    "input_side": 10.0,
    "input_channels": 10.0,
}
_BY_LEVEL = {"nodes": 10.0, "macs": 36.0, "weights": 28.0}

GLOBAL_COLUMNS: tuple[str, ...] = (
    *_TOTALS,
    *(f"nodes:{name}" for name in FAMILIES),
    *(f"{what}@{level}" for what in _BY_LEVEL for level in LEVELS),
)
"""Name of each column of global features."""

_GLOBAL_SCALES = np.array(
    [
        *_TOTALS.values(),
        *[10.0] * len(FAMILIES),
        *(scale for scale in _BY_LEVEL.values() for _ in LEVELS),
    ]
)

Array = NDArray[np.float32]


@dataclass(frozen=True)
class GraphFeatures:
    """The features of one graph.

    Attributes:
        x: (n, len(NODE_COLUMNS)) float32 features of nodes.
        edges: (2, 2 e) int64: from, to; along the data first, then against them.
        edge_type: (2 e,) int64: 0 along the flow of data, 1 against it.
        level: (n,) int64 places in `LEVELS`.
        u: (len(GLOBAL_COLUMNS),) float32 features of the graph.
    """

    x: Array
    edges: NDArray[np.int64]
    edge_type: NDArray[np.int64]
    level: NDArray[np.int64]
    u: Array


def _log(sizes: NDArray[np.float64], scale: float | NDArray[np.float64]) -> NDArray[np.float64]:
    return np.log2(1.0 + sizes) / scale


# --- nodes ---------------------------------------------------------------------------------------


def local_features(node: Node) -> Array:
    """(len(NODE_COLUMNS),) what a node alone tells; the rest, which its graph tells, is 0."""
    window = node.get("kernel") or (0,)
    height = (1, *window)[-2] if window[-1] else 0
    cost = node.cost
    sizes = [
        height,
        window[-1],
        max(node.get("stride") or (0,)),
        max(node.get("dilation") or (0,)),
        node.get("groups") or 0,
        prod(node.weight_shape) if node.weight_shape is not None else 0,
        cost.macs,
        cost.flops,
        len(node.input_shapes),
        0,
    ]
    row = np.zeros(len(NODE_COLUMNS), np.float32)
    row[_OPERATION.get(node.op, _FIRST - 1)] = 1.0
    scales = np.array(list(_SCALES.values()))
    row[_FIRST : _FIRST + len(sizes)] = _log(np.array(sizes, np.float64), scales)
    flags = (node.get("bias"), node.get("operand"), node.get("mask"))
    row[_FIRST + len(sizes) : _FIRST + len(_LOCAL)] = [bool(flag) for flag in flags]
    row.setflags(write=False)
    return row


def _heights(graph: ComputeGraph) -> list[int]:
    """Edges on the longest way from each node to one that nothing reads."""
    height = [0] * len(graph)
    for place in range(len(graph) - 1, -1, -1):
        further = height[place] + 1
        for source in graph.inputs[place]:
            if height[source] < further:
                height[source] = further
    return height


def _places(graph: ComputeGraph) -> NDArray[np.int64]:
    head = len(LEVELS) - 1
    return np.array(
        [head if n is None else min(max(n, 0), head - 1) for n in graph.levels], np.int64
    )


def node_features(graph: ComputeGraph) -> Array:
    """(n, len(NODE_COLUMNS)) float32 features of the nodes, in the order of nodes."""
    n = len(graph)
    if n == 0:
        return np.zeros((0, len(NODE_COLUMNS)), np.float32)
    x = np.stack([node.features for node in graph.nodes])
    found, batch, _ = graph.positions
    positions = np.array(found, np.float64)
    entries = np.array([prod(node.output_shape) for node in graph.nodes], np.float64)
    channels = entries / (batch * positions)
    edges = np.array(graph.edges, np.int64).reshape(-1, 2)
    before = np.zeros((2, n))
    np.maximum.at(before[0], edges[:, 1], channels[edges[:, 0]])
    np.maximum.at(before[1], edges[:, 1], positions[edges[:, 0]])
    depth, height = (np.array(way, np.float64) for way in (graph.depth, _heights(graph)))
    sizes = np.stack([before[0], channels, before[1], positions, depth, height], axis=1)
    read_by = np.bincount(edges[:, 0], minlength=n).astype(np.float64)
    x[:, _READ_BY] = _log(read_by, _SCALES["read_by"])
    at = _CONTEXT_AT
    x[:, at : at + len(_CONTEXT)] = _log(sizes, np.array(list(_CONTEXT.values())))
    levels = graph.levels
    x[:, -3] = [0.0 if level is None else level / 8 for level in levels]
    x[:, -2] = [level is None for level in levels]
    x[:, -1] = depth / np.maximum(depth + height, 1)
    return x


# --- graphs --------------------------------------------------------------------------------------


def global_features(graph: ComputeGraph) -> Array:
    """(len(GLOBAL_COLUMNS),) float32 features of the whole graph."""
    level = _places(graph)
    weights = [0 if n.weight_shape is None else prod(n.weight_shape) for n in graph.nodes]
    macs = [node.cost.macs for node in graph.nodes]
    positions, batch, axes = graph.positions
    ends = [
        (count, prod(node.output_shape) / (batch * count))
        for count, node in zip(positions, graph.nodes, strict=True)
        if node.op == "input"
    ]
    side, channels = max(ends, default=(0, 0.0))
    families = dict.fromkeys(FAMILIES, 0)
    for op, count in graph.operations.items():
        families[family(op)] += count
    sizes = [
        sum(macs),
        sum(node.cost.flops for node in graph.nodes),
        sum(weights),
        sum(node.cost.activations for node in graph.nodes),
        len(graph),
        len(graph.edges),
        max(graph.depth, default=0),
        side ** (1 / axes),
        channels,
        *families.values(),
        *np.bincount(level, minlength=len(LEVELS)),
        *np.bincount(level, macs, len(LEVELS)),
        *np.bincount(level, weights, len(LEVELS)),
    ]
    return _log(np.array(sizes, np.float64), _GLOBAL_SCALES).astype(np.float32)


def graph_features(graph: ComputeGraph) -> GraphFeatures:
    """All features of a graph as arrays, its nodes in their order."""
    forward = np.array(graph.edges, np.int64).reshape(-1, 2).T
    return GraphFeatures(
        x=node_features(graph),
        # safetensors writes arrays as they lie in memory.
        edges=np.ascontiguousarray(np.concatenate([forward, forward[::-1]], axis=1)),
        edge_type=np.repeat(np.arange(2), forward.shape[1]),
        level=_places(graph),
        u=global_features(graph),
    )


def to_pyg(graph: ComputeGraph) -> Data:
    """The features of a graph for PyTorch Geometric.

    Its `Batch` and `DataLoader` join graphs of any size without padding.

    Returns:
        `x` (n, len(NODE_COLUMNS)), `edge_index` (2, 2 e), `edge_type` (2 e,) 0 along the flow of
        data and 1 against it, `level` (n,) places in `LEVELS`, and `u` (1, len(GLOBAL_COLUMNS)).
    """
    return _as_data(graph_features(graph))


def _as_data(features: GraphFeatures) -> Data:
    import torch
    from torch_geometric.data import Data

    return Data(
        x=torch.from_numpy(features.x),
        edge_index=torch.from_numpy(features.edges),
        edge_type=torch.from_numpy(features.edge_type),
        level=torch.from_numpy(features.level),
        u=torch.from_numpy(features.u)[None],
    )


# --- cache ---------------------------------------------------------------------------------------


class FeatureCache:
    """Features by content: equal graphs share them. Nodes stand in the canonical order.

    Args:
        size: How many graphs to keep in memory; the one not asked for longest goes first.
        folder: Where to keep them on disk too, as safetensors, under the content hash and
            `FEATURES_VERSION`; a damaged file counts as none.

    Example:
        >>> from nni_aiop.graphs import ComputeGraph, Node
        >>> x = Node.make("input", [], (1, 8))
        >>> y = Node.make("output", [(1, 8)], (1, 8))
        >>> cache = FeatureCache()
        >>> cache(ComputeGraph([x, y], [(), (0,)])).level.tolist()
        [6, 6]
    """

    def __init__(self, size: int = 10_000, folder: Path | str | None = None) -> None:
        if size < 1:
            raise ValueError(f"a cache must keep at least one graph, but got size={size}.")
        self.size = size
        self.folder = None if folder is None else Path(folder)
        self._kept: OrderedDict[str, Data] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def __call__(self, graph: ComputeGraph) -> Data:
        """`to_pyg` of `graph.canonical()`; a new record each time, whose tensors are shared."""
        key = graph.content_hash
        data = self._kept.get(key)
        if data is None:
            data = self._kept[key] = self._read(graph)
            if len(self._kept) > self.size:
                self._kept.popitem(last=False)
        else:
            self._kept.move_to_end(key)
        return copy.copy(data)

    def _read(self, graph: ComputeGraph) -> Data:
        if self.folder is None:
            return to_pyg(graph.canonical())
        from safetensors import SafetensorError
        from safetensors.numpy import load, save

        from nni_aiop.results import write_atomically

        key = graph.content_hash
        path = self.folder / key[:2] / f"{key}-{FEATURES_VERSION}.safetensors"
        try:
            return _as_data(GraphFeatures(**load(path.read_bytes())))
        except (FileNotFoundError, SafetensorError, TypeError):
            features = graph_features(graph.canonical())
            write_atomically(path, save(vars(features)), flush=False)
            return _as_data(features)
