"""Many graphs as flat arrays, and batches of them for the encoders.

Notation: N nodes, E edges and G graphs in a set; n, e and g of them in a batch; F columns of node
features without those of positions, U of global ones, L resolution levels.

Features are collated once. Nodes of cells and blocks repeat, so that few distinct rows are kept. A
batch is a handful of gathers, and every sum over neighbours or over a part of a graph is one
`bag_sum`, whose gradient is the `bag_sum` of the transposed lists: several times faster on a CPU
than gathering messages for edges and scattering them.

Nodes can be merged into groups such as convolution, normalisation and activation: see `_groups`.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import Function, once_differentiable
from torch.nn.functional import embedding_bag

from nni_aiop.graphs._families import FAMILIES
from nni_aiop.graphs._features import LEVELS, NODE_COLUMNS, POSITIONS, FlatFeatures
from nni_aiop.graphs._flat import ranges, starts

if TYPE_CHECKING:
    from nni_aiop.graphs import ComputeGraph

__all__ = ["COLUMNS", "POSITIONS", "Bags", "GraphBatch", "GraphSet", "apply", "bag_sum"]

COLUMNS = tuple(name for name in NODE_COLUMNS if name not in POSITIONS)
"""The other columns of node features; nodes often share these."""

_ROW = [NODE_COLUMNS.index(name) for name in COLUMNS]
_HEAVY_FAMILIES = ("convolution", "linear", "product", "recurrent", "pooling")
_HEAVY = [COLUMNS.index(f"op:{op}") for family in _HEAVY_FAMILIES for op in FAMILIES[family]]

_CHUNK = 4096  # graphs whose features are held unpacked at once
_HELD = 4096  # graphs whose features are held at once by a prediction
_BATCH = 4000  # nodes that are predicted at once: what fits a cache
_MOST_NEIGHBOURS = 2
_LEVELS = len(LEVELS)

Ints = NDArray[np.int64]
Arrays = dict[str, NDArray[Any]]


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
        table: (r, F) distinct features of nodes, of merged ones (r, 3 F): the sum over the group,
            those of its first and those of its last node.
        row: Of each node its row of the table.
        positions: (n, len(POSITIONS)).
        u: (g, U) features of graphs.
        sources: For each node those that it reads (transposed: those that read it).
        bounds: (n, 1) what a sum over the nodes that each reads, or is read by, is multiplied with:
            those of more than two are twice their mean. None where there is no such sum.
        levels: For each graph and level its nodes; g * L bags.
        sinks: For each graph its nodes that nothing reads.
        counts: (g, L) how many nodes each level has.
        sink_counts: (g, 1).
    """

    table: Tensor
    row: Bags
    positions: Tensor
    u: Tensor
    sources: Bags
    bounds: tuple[Tensor | None, Tensor | None]
    levels: Bags
    sinks: Bags
    counts: Tensor
    sink_counts: Tensor

    def to(self, device: torch.device) -> GraphBatch:
        """The same on another device; itself where it is there already."""
        if self.u.device == device:
            return self
        into, out = (None if part is None else part.to(device) for part in self.bounds)
        parts = {name: part for name, part in vars(self).items() if name != "bounds"}
        moved = {name: part.to(device) for name, part in parts.items()}
        return GraphBatch(bounds=(into, out), **moved)


class GraphSet:
    """The features of many graphs, collated once for any number of fits and predictions.

    Args:
        graphs: The graphs.

    Attributes:
        u: (G, U) float32 global features.
        flops: (G,) float64 operations of each network.
    """

    def __init__(self, graphs: Sequence[ComputeGraph]) -> None:
        known: dict[int, int] = {}
        table: list[NDArray[np.float32]] = []
        at_once = range(0, max(len(graphs), 1), _CHUNK)
        chunks = [_chunk(graphs[at : at + _CHUNK], known, table) for at in at_once]
        parts = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
        self.u: NDArray[np.float32] = parts.pop("u")
        self.flops: NDArray[np.float64] = parts.pop("flops")
        self._nodes = _Nodes(table=np.concatenate(table), **parts)
        self._places = np.arange(len(graphs))

    def __len__(self) -> int:
        return len(self._places)

    def take(self, places: NDArray[Any] | Sequence[int]) -> GraphSet:
        """The graphs at some places (or where a mask is true); what is large is shared."""
        result = copy.copy(self)
        for name in ("u", "flops", "_places"):
            setattr(result, name, getattr(self, name)[np.asarray(places)])
        return result

    def batch(self, places: NDArray[Any] | Sequence[int], *, merged: bool = False) -> GraphBatch:
        """The batch of the graphs at some places, in that order."""
        chosen = np.asarray(places, np.int64)
        nodes = self._nodes.merged if merged else self._nodes
        return nodes.batch(self._places[chosen], self.u[chosen])

    def batches(self, size: int, *, merged: bool = False) -> Iterator[GraphBatch]:
        """All graphs in their order, `size` at a time; one empty batch if there are none."""
        for at in range(0, max(len(self), 1), size):
            yield self.batch(np.arange(at, min(at + size, len(self))), merged=merged)

    def filled(self, nodes: int, *, merged: bool = False) -> Iterator[GraphBatch]:
        """All graphs in their order, as many at a time as have so many nodes; at least one."""
        if not len(self):
            yield self.batch([], merged=merged)
            return
        sizes = (self._nodes.merged if merged else self._nodes).nodes[self._places]
        part = (np.cumsum(sizes) - sizes) // nodes
        first = np.flatnonzero(np.diff(part, prepend=-1))
        for begin, end in zip(first, np.append(first[1:], len(self)), strict=True):
            yield self.batch(np.arange(begin, end), merged=merged)

    @property
    def digest(self) -> str:
        """SHA-256 of what encoders read."""
        result = hashlib.sha256()
        for batch in self.batches(256):
            for part in (batch.table, *batch.row, batch.positions, batch.u, *batch.sources):
                result.update(part.numpy().tobytes())
        return result.hexdigest()


def _sets(graphs: Iterable[ComputeGraph]) -> Iterator[GraphSet]:
    """`_HELD` graphs after the other; one empty set if there are none."""
    rest, n = iter(graphs), _HELD
    first = True
    while n == _HELD:
        part = list(islice(rest, _HELD))
        n = len(part)
        if n or first:
            found = GraphSet(part)
            del part  # the next ones are made when these are gone
            yield found
        first = False


def apply(
    call: Callable[[GraphBatch], Tensor],
    graphs: Iterable[ComputeGraph] | GraphSet,
    *,
    merged: bool,
    device: torch.device,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n, k) what a function of batches returns for graphs, and the graphs' (n,) FLOPs.

    Of graphs that are made one after the other, `_HELD` are in memory at once.
    """
    sets = [graphs] if isinstance(graphs, GraphSet) else _sets(graphs)
    found, flops = [], []
    with torch.no_grad():
        for data in sets:
            flops.append(data.flops)
            for batch in data.filled(_BATCH, merged=merged):
                found.append(call(batch.to(device)).cpu().double())
    return torch.cat(found).numpy(), np.concatenate(flops)


# --- the arrays of a set -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Nodes:
    """The nodes of all graphs of a set, by graph and in each by level.

    Attributes:
        table: (R, C) distinct rows of features.
        row: (N,) of each node its row.
        position: (N, len(POSITIONS)).
        level: (N,) places in `LEVELS`.
        reads, read_by: (N,) how many edges come in and go out.
        source: (E,) by the node that reads: which one it reads, counted in the graph.
        reader: (E,) by the node that is read: which one reads it, likewise.
        nodes, edges: (G,) how many each graph has.
    """

    table: NDArray[np.float32]
    row: NDArray[np.int32]
    position: NDArray[np.float32]
    level: NDArray[np.int8]
    reads: NDArray[np.int32]
    read_by: NDArray[np.int32]
    source: NDArray[np.int32]
    reader: NDArray[np.int32]
    nodes: Ints
    edges: Ints

    @cached_property
    def first(self) -> Ints:
        return starts(self.nodes)

    @cached_property
    def first_edge(self) -> Ints:
        return starts(self.edges)

    def batch(self, chosen: Ints, u: NDArray[np.float32]) -> GraphBatch:
        g = len(chosen)
        sizes, edges = self.nodes[chosen], self.edges[chosen]
        first = starts(sizes)
        n = int(first[-1])
        node = ranges(self.first[chosen], sizes)
        edge = ranges(self.first_edge[chosen], edges)
        graph = np.repeat(np.arange(g), sizes)
        shift = np.repeat(first[:-1], edges)
        rows, row = np.unique(self.row[node], return_inverse=True)
        segment = graph * _LEVELS + self.level[node]
        counts = np.bincount(segment, minlength=g * _LEVELS)
        sink = self.read_by[node] == 0
        sinks = np.flatnonzero(sink)
        sink_counts = np.bincount(graph[sinks], minlength=g)
        each = np.arange(n + 1)
        return GraphBatch(
            table=torch.from_numpy(self.table[rows]),
            row=_bags(
                row,
                each,
                np.argsort(row, kind="stable"),
                starts(np.bincount(row, minlength=len(rows))),
            ),
            positions=torch.from_numpy(self.position[node]),
            u=torch.from_numpy(u),
            sources=_bags(
                self.source[edge] + shift,
                starts(self.reads[node]),
                self.reader[edge] + shift,
                starts(self.read_by[node]),
            ),
            bounds=(_bound(self.reads[node]), _bound(self.read_by[node])),
            levels=_bags(each[:-1], starts(counts), segment, each),
            sinks=_bags(sinks, starts(sink_counts), graph[sinks], starts(sink)),
            counts=torch.from_numpy(counts.reshape(g, _LEVELS).astype(np.float32)),
            sink_counts=torch.from_numpy(sink_counts.astype(np.float32))[:, None],
        )

    @cached_property
    def merged(self) -> _Nodes:
        """The groups of nodes, and the edges between groups."""
        shift = np.repeat(self.first[:-1], self.edges)
        target = np.repeat(np.arange(len(self.row)), self.reads)
        source = self.source + shift
        group = _groups(self, source, target)
        graph = np.repeat(np.arange(len(self.nodes)), self.nodes)
        # Members stand in the order of nodes, so that the first and the last come from the data's.
        members, sizes = np.argsort(group, kind="stable"), np.bincount(group)
        start = starts(sizes)
        first, last = members[start[:-1]], members[start[1:] - 1]
        mixed = _keys([self.row])[members]
        sums = np.add.reduceat(mixed, start[:-1]) if len(mixed) else mixed
        keys = _keys([self.row[first], self.row[last], sums])
        _, kinds, row = np.unique(keys, return_index=True, return_inverse=True)
        totals = [self.table[self.row[members[start[k] : start[k + 1]]]].sum(0) for k in kinds]
        width = self.table.shape[1]
        parts = [
            np.array(totals, np.float32).reshape(-1, width),
            self.table[self.row[first[kinds]]],
            self.table[self.row[last[kinds]]],
        ]
        between = group[source] != group[target]
        return _Nodes(
            table=np.concatenate(parts, axis=1),
            row=row.astype(np.int32),
            position=self.position[first],
            level=self.level[first],
            **_connected(
                group[source[between]],
                group[target[between]],
                graph[target[between]],
                np.bincount(graph[first], minlength=len(self.nodes)),
            ),
        )


def _bound(neighbours: NDArray[np.int32]) -> Tensor | None:
    if neighbours.max(initial=0) <= _MOST_NEIGHBOURS:
        return None
    bound = np.minimum(1.0, _MOST_NEIGHBOURS / np.maximum(neighbours, 1))
    return torch.from_numpy(bound.astype(np.float32))[:, None]


def _bags(*parts: Ints) -> Bags:
    return Bags(*(torch.from_numpy(part.astype(np.int32)) for part in parts))


def _connected(source: Ints, target: Ints, graph: Ints, nodes: Ints) -> Arrays:
    """The fields of `_Nodes` on edges, of those from and to some nodes in graphs of given sizes."""
    n, first = int(nodes.sum()), starts(nodes)[graph]
    by_target, by_source = np.argsort(target, kind="stable"), np.argsort(source, kind="stable")
    return {
        "source": (source - first)[by_target].astype(np.int32),
        "reader": (target - first)[by_source].astype(np.int32),
        "reads": np.bincount(target, minlength=n).astype(np.int32),
        "read_by": np.bincount(source, minlength=n).astype(np.int32),
        "nodes": nodes,
        "edges": np.bincount(graph, minlength=len(nodes)),
    }


def _chunk(
    graphs: Sequence[ComputeGraph], known: dict[int, int], table: list[NDArray[np.float32]]
) -> Arrays:
    """Fields of `_Nodes`, `u` and `flops`, of some graphs; new rows of features go to the table.

    `known` has the place in the table of each row by its key.
    """
    flat = FlatFeatures(graphs)
    order = np.argsort(flat.graph * _LEVELS + flat.level, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    # Nodes that are equal in these have equal rows, so that only one of them is looked at.
    told_by = [flat.kind, flat.read_by, flat.resolution, *flat.context.T]
    keys = _keys(column.view(np.uint64) for column in told_by)
    _, first, row = np.unique(keys[order], return_index=True, return_inverse=True)
    rows = flat.rows(order[first])[:, _ROW]
    return {
        "row": _shared_rows(rows, known, table)[row],
        "position": flat.position[order],
        "level": flat.level[order].astype(np.int8),
        "u": flat.u,
        "flops": flat.flops,
        **_connected(place[flat.source], place[flat.target], flat.graph[flat.target], flat.nodes),
    }


def _shared_rows(
    x: NDArray[np.float32], known: dict[int, int], table: list[NDArray[np.float32]]
) -> NDArray[np.int32]:
    """(n,) the place of each row in the table, which gets those it does not have yet."""
    bits = np.ascontiguousarray(x).view(np.uint32)
    keys, first, inverse = np.unique(_keys(bits.T), return_index=True, return_inverse=True)
    places, new = [], []
    for key, row in zip(keys.tolist(), first.tolist(), strict=True):
        if key not in known:
            known[key] = len(known)
            new.append(row)
        places.append(known[key])
    table.append(x[new])
    return np.array(places, np.int32)[inverse]


def _keys(columns: Iterable[NDArray[Any]]) -> NDArray[np.uint64]:
    """(n,) 64 bits for each tuple of whole numbers: mixed (SplitMix64's finaliser) and added up."""
    result = np.zeros((), np.uint64)
    for place, column in enumerate(columns, start=1):
        z = column.astype(np.uint64) + np.uint64(place * 0x9E3779B97F4A7C15 % 2**64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        result = result + (z ^ (z >> np.uint64(31)))
    return np.asarray(result)


def _groups(nodes: _Nodes, source: Ints, target: Ints) -> Ints:
    """(N,) the group of each node; groups are counted by their first nodes.

    A node joins the group of the one that it reads if it reads no other, nothing else reads that
    one, both stand at one level, and not both the node and the group hold a heavy operation
    (`_HEAVY_FAMILIES`).
    """
    n = len(nodes.row)
    # Place n stands for "no node" at the end of every array.
    before = np.full(n + 1, n)
    before[target] = source
    level, read_by = np.append(nodes.level, -1), np.append(nodes.read_by, 0)
    joins = (read_by[before] == 1) & (level[before] == level)
    joins[:n] &= nodes.reads == 1
    before = np.where(joins, before, n)
    # By doubling: the first node of each chain, and how many heavy ones there are since.
    chain = np.where(before == n, np.arange(n + 1), before)
    is_heavy = nodes.table[:, _HEAVY].sum(axis=1)
    heavy = np.append(is_heavy[nodes.row], 0).astype(np.int64)
    while (before < n).any():
        heavy = heavy + heavy[before]
        chain, before = chain[chain], before[before]
    keys = chain[:n] * (n + 1) + np.maximum(heavy[:n], 1)
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[group]
