"""At which resolution each node works: the stages of a network.

The number of positions of a tensor (pixels, tokens) is told by convolutions, pooling, resizing and
the rows of linear layers; through all other operations it is passed on, since the shapes of a
permute or an attention do not tell it. The level of a node is log2(side of the input / side of the
node), rounded, the side being the root of the number of positions (in videos that of one frame).

A node with a single position belongs to no level (the head behind global pooling), unless its
result returns to a grid, as in squeeze-and-excitation: then it belongs to the level of that grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import log2, prod

from nni_aiop.graphs._costs import total
from nni_aiop.graphs._types import GraphLike, Shape

__all__ = [
    "GRIDS",
    "LOSING",
    "MOST_ROWS",
    "RECURRENT",
    "SINGLE",
    "Stage",
    "node_levels",
    "node_positions",
    "short",
    "stages",
]

GRIDS = frozenset(
    {
        "conv", "conv_transpose", "max_pool", "avg_pool", "batch_norm", "instance_norm",
        "group_norm", "local_response_norm", "resize",
    }
)  # fmt: skip
"""Operations whose tensors are (batch, channels, *positions)."""

RECURRENT = ("lstm", "gru", "rnn")
LOSING = ("slice", "reduce", "embedding")
"""Operations that may have fewer positions than they read, though their shapes do not tell."""

SINGLE = ("global_avg_pool", "global_max_pool", "cell_state")
"""Operations whose output has a single position."""

MOST_ROWS = 16
"""A linear layer of more rows for each position of what it reads has rows that are no positions."""


@dataclass(frozen=True)
class Stage:
    """The nodes that work at one resolution.

    Attributes:
        level: log2(side of the input / side of the nodes), None for the head, without positions.
        nodes: Their places in the graph.
        output_shape: Of the last of them that is not an output of the network.
        macs: Multiply-adds of all of them.
        flops: Operations of all of them.
        parameters: Learned numbers of all of them.
    """

    level: int | None
    nodes: tuple[int, ...]
    output_shape: Shape
    macs: int
    flops: int
    parameters: int

    @property
    def name(self) -> str:
        """The side as a fraction of the input's: "1/4", or "head"."""
        if self.level is None:
            return "head"
        return f"1/{2**self.level}" if self.level >= 0 else f"{2**-self.level}/1"


@lru_cache(maxsize=2**14)
def _positions(op: str, shape: Shape, batch: int) -> int | None:
    """Positions of a tensor that an operation reads or writes, where its shape tells them."""
    if op in GRIDS and len(shape) > 1:
        return prod(shape[2:][-2:]) * max(1, shape[0] // batch)
    if op == "linear":
        return shape[0] // batch
    if op in RECURRENT:
        return shape[0]
    return None


def _of_inputs(graph: GraphLike) -> tuple[dict[int, int], int, int]:
    """Positions of each input of the network, and batch and axes of the one with the most."""
    shapes = {p: node.output_shape for p, node in enumerate(graph.nodes) if node.op == "input"}
    if not shapes:
        return {}, 1, 2
    batch = {place: max(1, shape[0]) if shape else 1 for place, shape in shapes.items()}
    told: list[int | None] = []
    found: dict[int, int] = {}
    for place, shape in shapes.items():
        if len(shape) > 3 and shape[1] <= min(shape[2:]):
            found[place] = max(1, prod(shape[-2:]))
            continue
        # A matrix, tokens, or an image with its channels last: what reads it knows.
        told = told or _told_by_readers(graph, max(batch.values()))
        found[place] = max(1, told[place] or (prod(shape[2:][-2:]) if len(shape) > 2 else 1))
    largest = max(found, key=lambda place: (found[place], batch[place]))
    return found, batch[largest], 1 if len(shapes[largest]) == 3 else 2


def _told_by_readers(graph: GraphLike, batch: int) -> list[int | None]:
    """Positions of what each node puts out, as the nearest node behind that knows reads it."""
    told: list[int | None] = [None] * len(graph)
    for place in range(len(graph) - 1, -1, -1):
        node = graph.nodes[place]
        if not graph.inputs[place]:
            continue
        if node.op == "embedding":
            seen: int | None = prod(node.input_shapes[0]) // batch
        else:
            seen = _positions(node.op, node.input_shapes[0], batch)
            if seen is None and prod(node.output_shape) == prod(node.input_shapes[0]):
                seen = told[place]
        if seen is not None:
            for source in graph.inputs[place]:
                told[source] = max(told[source] or 0, seen)
    return told


def _passed_on(graph: GraphLike, place: int, before: Sequence[int], batch: int) -> int:
    """Positions behind an operation whose shape does not tell them.

    Args:
        graph: The graph.
        place: That of the operation.
        before: Positions of its inputs.
        batch: That of the network's input.
    """
    node = graph.nodes[place]
    most = max(before, default=1)
    if not before or node.op not in LOSING:
        return most
    entries = graph.nodes[graph.inputs[place][0]].cost.activations
    channels = max(1, entries // (batch * before[0]))
    if node.op == "slice":
        # A piece of a grid stays at its resolution; every other entry, or a single one, does not.
        for axis, _, _, step in node["ranges"]:
            size, left = node.input_shapes[0][axis] or 1, node.output_shape[axis]
            if (abs(step) > 1 or left == 1) and before[0] % size == 0 and channels % size != 0:
                most = most * left // size
    elif node.op == "reduce" and prod(node.output_shape) == batch * channels != batch * most:
        most = 1
    elif node.op == "embedding":
        most = prod(node.output_shape[:-1]) // batch
    return most


def node_positions(graph: GraphLike) -> tuple[list[int], int, int]:
    """Positions of each node's output, and batch and spatial axes of the network's input."""
    of_inputs, batch, axes = _of_inputs(graph)
    found: list[int] = []
    for place, (node, sources) in enumerate(zip(graph.nodes, graph.inputs, strict=True)):
        told = _positions(node.op, node.output_shape, batch)
        if place in of_inputs:
            told = of_inputs[place]
        elif node.op in SINGLE:
            told = 1
        elif told is None or node.op == "linear":
            before = [found[source] for source in sources]
            # Rows may be more than positions: pairs of tokens, as heads of attention are mixed.
            if told is None or told > MOST_ROWS * max(before, default=told):
                told = _passed_on(graph, place, before, batch)
        found.append(max(1, told))
    return found, batch, axes


def node_levels(graph: GraphLike) -> tuple[int | None, ...]:
    """The level of each node, None for the head."""
    positions, _, axes = graph.positions
    whole = max(
        (n for n, node in zip(positions, graph.nodes, strict=True) if node.op == "input"), default=1
    )
    if whole == 1:
        return (None,) * len(graph)
    known: dict[int, int | None] = {1: None}
    for n in set(positions) - {1}:
        known[n] = round((log2(whole) - log2(n)) / axes)
    levels = [known[n] for n in positions]
    for place in range(len(graph) - 1, -1, -1):
        level = levels[place]
        if level is None:
            continue
        for source in graph.inputs[place]:
            # Of several grids that one gate goes to, the finest; they are seen last to first.
            here = levels[source]
            if positions[source] == 1 and (here is None or level < here):
                levels[source] = level
    return tuple(levels)


def stages(graph: GraphLike) -> tuple[Stage, ...]:
    """The nodes grouped by resolution, from fine to coarse, the head last."""
    groups: dict[int | None, list[int]] = {}
    for place, level in enumerate(graph.levels):
        groups.setdefault(level, []).append(place)
    found = []
    for level in sorted(groups, key=lambda n: (n is None, n)):
        places = groups[level]
        inner = [p for p in places if graph.nodes[p].op != "output"] or places
        cost = total([graph.costs[place] for place in places])
        shape = graph.nodes[inner[-1]].output_shape
        found.append(Stage(level, tuple(places), shape, cost.macs, cost.flops, cost.parameters))
    return tuple(found)


def short(number: float) -> str:
    """A count for people: 1234567 is "1.23 M".

    Example:
        >>> short(1234567), short(999), short(0)
        ('1.23 M', '999', '0')
    """
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= 0.9995 * size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.3g}"
