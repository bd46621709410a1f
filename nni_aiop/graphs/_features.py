"""What predictors read of a compute graph: features of nodes, of edges, and of the whole.

Graphs that are equal have equal features, whatever door they came through: nothing is read that
equality does not look at (names, shared weights, the count of learned numbers). Another order of
nodes permutes the rows of nodes and leaves the rest as it is.

Sizes enter as log2(1 + size) / scale, with the scales of `_SCALES`, so that nearly all columns lie
between 0 and 2. A size that a node does not have, such as the kernel of an addition, is 0.

Columns of nodes (`NODE_COLUMNS`):

- `op:NAME`, one for each operation of the vocabulary and `op:other`: which one it is;
- `kernel_height`, `kernel_width`, `stride`, `dilation`, `groups`: of windows (the width
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

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nni_aiop.graphs._families import FAMILIES, family
from nni_aiop.graphs._flat import FlatGraphs, starts
from nni_aiop.graphs._flat_stages import flat_levels, flat_positions
from nni_aiop.graphs._types import GraphLike, NodeLike
from nni_aiop.graphs._vocabulary import OPERATIONS

if TYPE_CHECKING:
    from torch_geometric.data import Data


__all__ = [
    "FEATURES_VERSION",
    "GLOBAL_COLUMNS",
    "LEVELS",
    "NODE_COLUMNS",
    "POSITIONS",
    "FlatFeatures",
    "GraphFeatures",
    "as_data",
    "global_features",
    "graph_features",
    "local_features",
    "node_features",
    "to_pyg",
]

FEATURES_VERSION = 2
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
_LOCAL = (*_SCALES, "constant", "mask")
_CONTEXT = {
    "channels_in": 10.0,
    "channels_out": 10.0,
    "positions_in": 16.0,
    "positions_out": 16.0,
}
_WAYS = {"depth": 8.0, "height": 8.0}
_OPERATION = {op: place for place, op in enumerate(OPERATIONS)}
_FIRST = len(_OPERATION) + 1
_FAMILIES = {name: place for place, name in enumerate(FAMILIES)}
_ALL = slice(None)

NODE_COLUMNS: tuple[str, ...] = (
    *(f"op:{op}" for op in (*OPERATIONS, "other")),
    *_LOCAL,
    *_CONTEXT,
    *_WAYS,
    "level",
    "head",
    "progress",
)
"""Name of each column of node features."""

POSITIONS = (*_WAYS, "progress")
"""Columns of node features that tell nearly every node of a graph from every other."""

_READ_BY = NODE_COLUMNS.index("read_by")
_POSITION = [NODE_COLUMNS.index(name) for name in POSITIONS]
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


def local_features(node: NodeLike) -> Array:
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
    flags = (node.get("operand"), node.get("mask"))
    row[_FIRST + len(sizes) : _FIRST + len(_LOCAL)] = [bool(flag) for flag in flags]
    row.setflags(write=False)
    return row


def node_features(graph: GraphLike) -> Array:
    """(n, len(NODE_COLUMNS)) float32 features of the nodes, in the order of nodes."""
    return FlatFeatures([graph]).rows()


# --- graphs --------------------------------------------------------------------------------------


class FlatFeatures(FlatGraphs):
    """The features of several graphs, whose nodes and edges stand one after the other.

    Notation: as of `FlatGraphs`.

    Attributes:
        local: (K, len(NODE_COLUMNS)) what objects tell alone.
        read_by: (N,) how many arguments each result is.
        context: (N, 4) largest input and output: channels in, out, positions in, out.
        resolution: (N,) log2(side of the input / side of the node), NaN in the head.
        level: (N,) places in `LEVELS`.
        position: (N, len(POSITIONS)) float32 features.
        flops: (G,) operations of each network.
        u: (G, len(GLOBAL_COLUMNS)) float32 features of graphs.
    """

    def __init__(self, graphs: Sequence[GraphLike]) -> None:
        super().__init__(graphs)
        n, kinds = len(self.kind), self.kinds
        local = np.array([node.features for node in kinds], np.float32)
        self.local = local.reshape(-1, len(NODE_COLUMNS))
        self.read_by = np.bincount(self.source, minlength=n)

        positions, batch, axes = flat_positions(self, graphs)
        entries = np.array([prod(node.output_shape) for node in kinds], np.float64)
        channels = entries[self.kind] / (batch[self.graph] * positions)
        before = np.zeros((2, n))
        reading = np.flatnonzero(self.reads)
        if len(reading):
            first = starts(self.reads[reading])[:-1]
            before[0, reading] = np.maximum.reduceat(channels[self.source], first)
            before[1, reading] = np.maximum.reduceat(positions[self.source], first)
        self.context = np.stack([before[0], channels, before[1], positions], axis=1)
        ways = np.stack([self.depth, self.height]).astype(np.float64)
        progress = ways[0] / np.maximum(ways.sum(axis=0), 1)
        logs = [_log(way, scale) for way, scale in zip(ways, _WAYS.values(), strict=True)]
        self.position = np.stack([*logs, progress], axis=1).astype(np.float32)
        self.resolution = flat_levels(self, positions, axes)
        head = len(LEVELS) - 1
        level = np.where(np.isnan(self.resolution), head, self.resolution.clip(0, head - 1))
        self.level = level.astype(np.int64)
        self.flops, self.u = self._totals(axes)

    def rows(self, chosen: NDArray[np.int64] | slice = _ALL) -> Array:
        """(n, len(NODE_COLUMNS)) features of n of the nodes, of all by default."""
        x = self.local[self.kind[chosen]]
        x[:, _READ_BY] = _log(self.read_by[chosen].astype(np.float64), _SCALES["read_by"])
        scales = np.array(list(_CONTEXT.values()))
        x[:, _CONTEXT_AT : _CONTEXT_AT + len(scales)] = _log(self.context[chosen], scales)
        x[:, _POSITION] = self.position[chosen]
        resolution = self.resolution[chosen]
        in_head = np.isnan(resolution)
        x[:, -3] = np.where(in_head, 0.0, resolution / 8)
        x[:, -2] = in_head
        return x

    def _totals(self, axes: NDArray[np.int64]) -> tuple[NDArray[np.float64], Array]:
        """`flops` and `u`."""
        kinds = self.kinds
        costs = [node.cost for node in kinds]
        weight = [0 if node.weight_shape is None else prod(node.weight_shape) for node in kinds]
        lists = [
            [cost.macs for cost in costs],
            [cost.flops for cost in costs],
            weight,
            [cost.activations for cost in costs],
        ]
        macs, flops, weights, activations = np.array(lists, np.float64)[:, self.kind]
        families = np.array([_FAMILIES[family(node.op)] for node in kinds], np.int64)[self.kind]
        g = len(self)
        ends = [(0.0, 0.0)] * g
        for place in np.flatnonzero(self.having("input")):
            _, channels, _, positions = self.context[place].tolist()
            ends[self.graph[place]] = max(ends[self.graph[place]], (positions, channels))
        filled = np.flatnonzero(self.nodes)
        depth = np.zeros(g)
        if len(filled):
            depth[filled] = np.maximum.reduceat(self.depth, starts(self.nodes)[filled])
        single = [
            np.bincount(self.graph[self.target], minlength=g),
            depth,
            [side ** (1 / n) for (side, _), n in zip(ends, axes.tolist(), strict=True)],
            [channels for _, channels in ends],
        ]

        def sums(
            numbers: NDArray[np.float64] | None = None,
            part: NDArray[np.int64] | int = 0,
            n: int = 1,
        ) -> NDArray[np.float64]:
            """(G, n) sums over the nodes of each of n parts of a graph, by default how many."""
            found = np.bincount(self.graph * n + part, numbers, g * n)
            return found.astype(np.float64).reshape(-1, n)

        operations, levels = sums(flops), len(LEVELS)
        parts = [
            *(sums(macs), operations, sums(weights), sums(activations), sums()),
            np.array(single, np.float64).T,
            sums(None, families, len(FAMILIES)),
            sums(None, self.level, levels),
            sums(macs, self.level, levels),
            sums(weights, self.level, levels),
        ]
        u: Array = _log(np.concatenate(parts, axis=1), _GLOBAL_SCALES).astype(np.float32)
        return operations[:, 0], u


def global_features(graph: GraphLike) -> Array:
    """(len(GLOBAL_COLUMNS),) float32 features of the whole graph."""
    (u,) = FlatFeatures([graph]).u
    return np.asarray(u)


def graph_features(graph: GraphLike) -> GraphFeatures:
    """All features of a graph as arrays, its nodes in their order."""
    flat = FlatFeatures([graph])
    forward = [flat.source, flat.target]
    return GraphFeatures(
        x=flat.rows(),
        # safetensors writes arrays as they lie in memory.
        edges=np.ascontiguousarray(np.concatenate([forward, forward[::-1]], axis=1)),
        edge_type=np.repeat(np.arange(2), len(flat.source)),
        level=flat.level,
        u=flat.u[0],
    )


def to_pyg(graph: GraphLike) -> Data:
    """The features of a graph for PyTorch Geometric.

    Its `Batch` and `DataLoader` join graphs of any size without padding.

    Returns:
        `x` (n, len(NODE_COLUMNS)), `edge_index` (2, 2 e), `edge_type` (2 e,) 0 along the flow of
        data and 1 against it, `level` (n,) places in `LEVELS`, and `u` (1, len(GLOBAL_COLUMNS)).
    """
    return as_data(graph_features(graph))


def as_data(features: GraphFeatures) -> Data:
    import torch
    from torch_geometric.data import Data

    return Data(
        x=torch.from_numpy(features.x),
        edge_index=torch.from_numpy(features.edges),
        edge_type=torch.from_numpy(features.edge_type),
        level=torch.from_numpy(features.level),
        u=torch.from_numpy(features.u)[None],
    )
