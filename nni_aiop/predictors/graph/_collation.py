"""Many graphs as flat arrays, and batches of them for the encoders.

Notation: N nodes, E edges and G graphs in a set; n, e and g of them in a batch; F columns of node
features, U of global ones, L resolution levels.

Features are collated once. A batch is then a handful of gathers, and every sum over neighbours or
over a part of a graph is one `bag_sum`, whose gradient is the `bag_sum` of the transposed lists:
several times faster on a CPU than gathering messages for edges and scattering them.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import Function, once_differentiable
from torch.nn.functional import embedding_bag

from nni_aiop.graphs._features import GLOBAL_COLUMNS, LEVELS, NODE_COLUMNS, graph_features

if TYPE_CHECKING:
    from nni_aiop.graphs import ComputeGraph

__all__ = ["POSITION_COLUMNS", "Bags", "GraphBatch", "GraphSet", "apply", "bag_sum"]

POSITION_COLUMNS = tuple(NODE_COLUMNS.index(name) for name in ("depth", "height", "progress"))
"""Columns that tell nearly every node of a graph from every other; rows without them repeat."""

_CHUNK = 256  # graphs whose features are held unpacked at once
_HELD = 1024  # graphs whose features are held at once by a prediction
_BATCH = 64  # graphs that are predicted at once: what fits a cache
_LEVELS = len(LEVELS)

Ints = NDArray[np.int64]


class Bags(NamedTuple):
    """Which rows of a tensor each row of a sum adds up, and the same transposed.

    Attributes:
        indices: (k,) int32, one bag after the other.
        offsets: (rows + 1,) int32 beginnings of the bags, and k.
        back_indices: (k,) int32 of the transposed lists.
        back_offsets: (columns + 1,) int32.
    """

    indices: Tensor
    offsets: Tensor
    back_indices: Tensor
    back_offsets: Tensor

    @property
    def transposed(self) -> Bags:
        return Bags(self.back_indices, self.back_offsets, self.indices, self.offsets)

    def to(self, device: torch.device) -> Bags:
        return Bags(*(part.to(device) for part in self))


class _BagSum(Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, bags: Bags) -> Tensor:
        ctx.bags = bags
        return _sums(h, bags.indices, bags.offsets)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        bags = ctx.bags
        return _sums(gradient.contiguous(), bags.back_indices, bags.back_offsets), None


def _sums(h: Tensor, indices: Tensor, offsets: Tensor) -> Tensor:
    return embedding_bag(indices, h, offsets, mode="sum", include_last_offset=True)


def bag_sum(h: Tensor, bags: Bags) -> Tensor:
    """(rows, d) sums of rows of h (columns, d); 0 for an empty bag."""
    result: Tensor = _BagSum.apply(h, bags)  # type: ignore[no-untyped-call]
    return result


@dataclass(frozen=True)
class GraphBatch:
    """What an encoder reads of some graphs. Nodes stand by graph, in each by level.

    Attributes:
        x: (n, F) features of nodes.
        u: (g, U) features of graphs.
        sources: For each node those that it reads (transposed: those that read it).
        levels: For each graph and level its nodes; g * L bags.
        sinks: For each graph its nodes that nothing reads.
        counts: (g, L) how many nodes each level has.
        sink_counts: (g, 1).
    """

    x: Tensor
    u: Tensor
    sources: Bags
    levels: Bags
    sinks: Bags
    counts: Tensor
    sink_counts: Tensor

    def to(self, device: torch.device) -> GraphBatch:
        """The same on another device; itself where it is there already."""
        if self.x.device == device:
            return self
        return GraphBatch(**{name: part.to(device) for name, part in vars(self).items()})


class GraphSet:
    """The features of many graphs, collated once for any number of fits and predictions.

    Args:
        graphs: The graphs.

    Attributes:
        u: (G, U) float32 global features.
        flops: (G,) float64 operations of each network.
        nodes: (G,) number of nodes.
    """

    def __init__(self, graphs: Sequence[ComputeGraph]) -> None:
        known: dict[int, int] = {}
        table: list[NDArray[np.float32]] = []
        chunks = [
            _chunk(graphs[at : at + _CHUNK], known, table) for at in range(0, len(graphs), _CHUNK)
        ] or [_chunk([], known, table)]
        parts = {
            name: np.concatenate([chunk[name] for chunk in chunks], axis=0) for name in chunks[0]
        }
        self._table = np.concatenate(table) if table else np.zeros((0, len(NODE_COLUMNS)), "f4")
        self._row, self._position, self._level = parts["row"], parts["position"], parts["level"]
        self._reads, self._read_by = parts["reads"], parts["read_by"]
        self._source, self._reader = parts["source"], parts["reader"]
        self._first, self._first_edge = _starts(parts["nodes"])[:-1], _starts(parts["edges"])[:-1]
        self._edges: Ints = parts["edges"]
        self.nodes: Ints = parts["nodes"]
        self.u: NDArray[np.float32] = parts["u"]
        self.flops = np.array([graph.flops for graph in graphs], np.float64)

    def __len__(self) -> int:
        return len(self.nodes)

    def take(self, places: NDArray[Any] | Sequence[int]) -> GraphSet:
        """The graphs at some places (or where a mask is true); what is large is shared."""
        result = copy.copy(self)
        for name in ("_first", "_first_edge", "_edges", "nodes", "u", "flops"):
            setattr(result, name, getattr(self, name)[np.asarray(places)])
        return result

    def batches(self, size: int) -> Iterator[GraphBatch]:
        """All graphs in their order, `size` at a time."""
        for at in range(0, max(len(self), 1), size):
            yield self.batch(np.arange(at, min(at + size, len(self))))

    @property
    def digest(self) -> str:
        """SHA-256 of what encoders read."""
        result = hashlib.sha256()
        for batch in self.batches(256):
            for part in (batch.x, batch.u, *batch.sources):
                result.update(part.numpy().tobytes())
        return result.hexdigest()

    def batch(self, places: Ints | Sequence[int]) -> GraphBatch:
        """The batch of the graphs at some places, in that order."""
        chosen = np.asarray(places, np.int64)
        g = len(chosen)
        sizes, edges = self.nodes[chosen], self._edges[chosen]
        first = _starts(sizes)
        n = int(first[-1])
        node = _ranges(self._first[chosen], sizes)
        edge = _ranges(self._first_edge[chosen], edges)
        graph = np.repeat(np.arange(g), sizes)
        shift = np.repeat(first[:-1], edges)
        x = self._table[self._row[node]]
        x[:, POSITION_COLUMNS] = self._position[node]
        segment = graph * _LEVELS + self._level[node]
        counts = np.bincount(segment, minlength=g * _LEVELS)
        sink = self._read_by[node] == 0
        sinks = np.flatnonzero(sink)
        sink_counts = np.bincount(graph[sinks], minlength=g)
        return GraphBatch(
            x=torch.from_numpy(x),
            u=torch.from_numpy(self.u[chosen]),
            sources=_bags(
                self._source[edge] + shift,
                _starts(self._reads[node]),
                self._reader[edge] + shift,
                _starts(self._read_by[node]),
            ),
            levels=_bags(np.arange(n), _starts(counts), segment, np.arange(n + 1)),
            sinks=_bags(sinks, _starts(sink_counts), graph[sinks], _starts(sink)),
            counts=torch.from_numpy(counts.reshape(g, _LEVELS).astype(np.float32)),
            sink_counts=torch.from_numpy(sink_counts.astype(np.float32))[:, None],
        )


def _starts(counts: NDArray[Any]) -> Ints:
    """(k + 1,) beginnings of k segments, and the end of the last."""
    result = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=result[1:])
    return result


def _ranges(first: Ints, counts: Ints) -> Ints:
    """first[0], first[0] + 1, ... (counts[0] of them), first[1], ..."""
    return np.arange(counts.sum()) + np.repeat(first - _starts(counts)[:-1], counts)


def _bags(*parts: Ints) -> Bags:
    return Bags(*(torch.from_numpy(part.astype(np.int32)) for part in parts))


def _chunk(
    graphs: Sequence[ComputeGraph], known: dict[int, int], table: list[NDArray[np.float32]]
) -> dict[str, NDArray[Any]]:
    """Arrays of some graphs; new rows of features go to the table, their keys to `known`.

    In each graph nodes are sorted by level, and edges are listed twice: those into each node, and
    those out of it, with the other end counted from the first node of the graph.
    """
    found = [graph_features(graph) for graph in graphs]
    nodes = np.array([len(f.x) for f in found], np.int64)
    edges = np.array([f.edges.shape[1] // 2 for f in found], np.int64)
    first = np.repeat(_starts(nodes)[:-1], edges)
    empty = np.zeros((2, 0), np.int64)
    source, target = np.concatenate(
        [empty, *(f.edges[:, : f.edges.shape[1] // 2] for f in found)], axis=1
    )
    level = np.concatenate([np.zeros(0, np.int64), *(f.level for f in found)])
    order = np.lexsort((level, np.repeat(np.arange(len(found)), nodes)))
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    source, target = place[source + first], place[target + first]
    by_target, by_source = np.argsort(target, kind="stable"), np.argsort(source, kind="stable")
    x = np.concatenate([np.zeros((0, len(NODE_COLUMNS)), "f4"), *(f.x for f in found)])[order]
    position = x[:, POSITION_COLUMNS]
    x[:, POSITION_COLUMNS] = 0
    return {
        "nodes": nodes,
        "edges": edges,
        "row": _shared_rows(x, known, table),
        "position": position,
        "level": level[order].astype(np.int8),
        "source": (source[by_target] - first).astype(np.int32),
        "reader": (target[by_source] - first).astype(np.int32),
        "reads": np.bincount(target, minlength=len(x)).astype(np.int32),
        "read_by": np.bincount(source, minlength=len(x)).astype(np.int32),
        "u": np.array([f.u for f in found], np.float32).reshape(-1, len(GLOBAL_COLUMNS)),
    }


def _shared_rows(
    x: NDArray[np.float32], known: dict[int, int], table: list[NDArray[np.float32]]
) -> NDArray[np.int32]:
    """(n,) the place of each row in the table, which gets those it does not have yet."""
    keys, first, inverse = np.unique(_keys(x), return_index=True, return_inverse=True)
    places, new = [], []
    for key, row in zip(keys.tolist(), first.tolist(), strict=True):
        if key not in known:
            known[key] = len(known)
            new.append(row)
        places.append(known[key])
    table.append(x[new])
    return np.array(places, np.int32)[inverse]


def _keys(x: NDArray[np.float32]) -> NDArray[np.uint64]:
    """(n,) 64 bits of each row: a sum over its columns of mixed bits (SplitMix64's finaliser)."""
    result = np.zeros(len(x), np.uint64)
    for column in range(x.shape[1]):
        bits = np.ascontiguousarray(x[:, column]).view(np.uint32).astype(np.uint64)
        z = bits + np.uint64(((column + 1) * 0x9E3779B97F4A7C15) % 2**64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        result += z ^ (z >> np.uint64(31))
    return result


def apply(
    call: Callable[[GraphBatch], Tensor],
    graphs: Sequence[ComputeGraph] | GraphSet,
    device: torch.device,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n, k) what a function of batches returns for graphs, and the graphs' (n,) FLOPs."""
    if isinstance(graphs, GraphSet):
        sets: Iterable[GraphSet] = [graphs]
    else:
        starts = range(0, max(len(graphs), 1), _HELD)
        sets = (GraphSet(graphs[at : at + _HELD]) for at in starts)
    found, flops = [], []
    with torch.no_grad():
        for data in sets:
            flops.append(data.flops)
            for batch in data.batches(_BATCH):
                found.append(call(batch.to(device)).cpu().double())
    return torch.cat(found).numpy(), np.concatenate(flops)
