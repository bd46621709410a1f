"""Several graphs as arrays, and sweeps over all of them at once, one depth after another.

Notation: G graphs with N nodes, which are K objects, and E edges, all counted over all graphs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nni_aiop.graphs._types import GraphLike, NodeLike

__all__ = ["FlatGraphs", "Sweep", "depths", "ranges", "starts"]

Ints = NDArray[np.int64]


def starts(counts: NDArray[Any]) -> Ints:
    """(k + 1,) beginnings of k segments, and the end of the last."""
    result = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=result[1:])
    return result


def ranges(first: Ints, counts: Ints) -> Ints:
    """first[0], first[0] + 1, ... (counts[0] of them), first[1], ..."""
    return np.arange(counts.sum()) + np.repeat(first - starts(counts)[:-1], counts)


def depths(n: int, source: Ints, target: Ints) -> Ints:
    """(n,) edges on the longest way to each of n nodes, between which there is no cycle."""
    by_source = np.argsort(source, kind="stable")
    reached = target[by_source]
    begin = starts(np.bincount(source, minlength=n))
    waits = np.bincount(target, minlength=n)
    depth = np.zeros(n, np.int64)
    front, step = np.flatnonzero(waits == 0), 0
    while len(front):
        depth[front] = step
        ends = reached[ranges(begin[front], begin[front + 1] - begin[front])]
        np.subtract.at(waits, ends, 1)
        ready = ends[waits[ends] == 0]
        # Several edges may be a node's last ones.
        waits[ready] = -1
        depth[ready] = np.arange(len(ready))
        front, step = ready[depth[ready] == np.arange(len(ready))], step + 1
    return depth


@dataclass(frozen=True)
class Sweep:
    """Edges by the depth of the nodes that they lead to, so that a step reads finished nodes only.

    Attributes:
        source: (e,) where each edge comes from; those to one node stand together.
        target: (t,) the nodes that edges lead to, by depth.
        first: (t + 1,) beginning of each one's edges, and e.
        bounds: Beginnings of the steps in `target`, and t.
    """

    source: Ints
    target: Ints
    first: Ints
    bounds: Ints

    @classmethod
    def by(cls, depth: Ints, source: Ints, target: Ints) -> Sweep:
        """The sweep along edges, each of which leads to a node of greater depth."""
        order = np.lexsort((target, depth[target]))
        ends = target[order]
        first = np.flatnonzero(np.diff(ends, prepend=-1))
        bounds = np.flatnonzero(np.diff(depth[ends[first]], prepend=-1))
        return cls(
            source[order],
            ends[first],
            np.append(first, len(order)),
            np.append(bounds, len(first)),
        )

    def steps(self) -> Iterator[tuple[Ints, Ints, Ints]]:
        """Of each step: (t,) nodes, (e,) where their edges come from, (t,) where those begin."""
        for begin, end in zip(self.bounds[:-1].tolist(), self.bounds[1:].tolist(), strict=True):
            low, high = self.first[begin], self.first[end]
            yield self.target[begin:end], self.source[low:high], self.first[begin:end] - low


class FlatGraphs:
    """Several graphs, whose nodes and edges stand one after the other.

    Nodes that are one object, as many are in graphs of one search space, are read once.

    Attributes:
        kinds: The K objects.
        kind: (N,) which of them each node is.
        nodes: (G,) how many nodes each graph has.
        graph: (N,) the graph of each node.
        source, target: (E,) the nodes that each edge comes from and goes to, ordered by the latter.
    """

    def __init__(self, graphs: Sequence[GraphLike]) -> None:
        nodes: list[NodeLike] = list(chain.from_iterable(graph.nodes for graph in graphs))
        n = len(nodes)
        ids, first, kind = np.unique(
            np.fromiter(map(id, nodes), np.int64, n), return_index=True, return_inverse=True
        )
        # Places of objects in memory differ from run to run; where they stand does not.
        order = np.argsort(first)
        rank = np.empty_like(order)
        rank[order] = np.arange(len(ids))
        self.kinds = [nodes[place] for place in first[order].tolist()]
        self.kind = rank[kind]
        self.nodes = np.fromiter(map(len, graphs), np.int64, len(graphs))
        self.graph = np.repeat(np.arange(len(graphs)), self.nodes)
        reads = list(chain.from_iterable(graph.inputs for graph in graphs))
        self.reads = np.fromiter(map(len, reads), np.int64, n)
        self.target = np.repeat(np.arange(n), self.reads)
        self.source = np.fromiter(chain.from_iterable(reads), np.int64, len(self.target))
        self.source += np.repeat(starts(self.nodes)[:-1], self.nodes)[self.target]

    def __len__(self) -> int:
        return len(self.nodes)

    def having(self, *ops: str) -> NDArray[np.bool_]:
        """(N,) whether the operation of each node is one of these."""
        return np.array([node.op in ops for node in self.kinds], bool)[self.kind]

    @cached_property
    def depth(self) -> Ints:
        """(N,) edges on the longest way from a node without inputs."""
        return depths(len(self.kind), self.source, self.target)

    @cached_property
    def height(self) -> Ints:
        """(N,) edges on the longest way to a node that nothing reads."""
        return depths(len(self.kind), self.target, self.source)
