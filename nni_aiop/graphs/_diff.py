"""What one compute graph has that another has not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Generic, TypeVar

from nni_aiop.graphs._types import GraphLike, NodeLike
from nni_aiop.graphs._vocabulary import COMMUTATIVE

__all__ = ["GraphDiff", "diff"]

G = TypeVar("G", bound=GraphLike)

_RADII = (64, 32, 16, 8, 4, 2, 1, 0)
"""How many operations around two nodes must agree for them to be the same, widest first."""


@dataclass(frozen=True)
class GraphDiff(Generic[G]):
    """The difference of two graphs: false where nothing differs, and a report as text.

    Graphs may be equal and still differ in `learned`: two files of one network count otherwise what
    a layer learned beside its weight, and equality does not look at it.

    Attributes:
        a: The first graph.
        b: The second graph.
        matched: (place in a, place in b) of equal nodes.
        changed: (place in a, place in b) of nodes of one operation, in the same surroundings, that
            differ in attributes or shapes.
        rewired: Those of the matched and changed that read other nodes in b than in a.
        only_a: Places of nodes that only the first graph has.
        only_b: Places of nodes that only the second graph has.
        learned: Those of the matched that learned another count of numbers in b than in a, or share
            their weights with other nodes.
    """

    a: G
    b: G
    matched: tuple[tuple[int, int], ...]
    changed: tuple[tuple[int, int], ...]
    rewired: tuple[tuple[int, int], ...]
    only_a: tuple[int, ...]
    only_b: tuple[int, ...]
    learned: tuple[tuple[int, int], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.changed or self.rewired or self.only_a or self.only_b or self.learned)

    def __str__(self) -> str:
        if not self:
            return f"The graphs are equal: {len(self.a)} nodes."
        lines = [f"{len(self.a)} nodes against {len(self.b)}, {len(self.matched)} of them equal"]
        lines += [f"- {_named(self.a, place)}" for place in self.only_a]
        lines += [f"+ {_named(self.b, place)}" for place in self.only_b]
        for i, j in self.changed:
            what = _changes(self.a.nodes[i], self.b.nodes[j])
            lines.append(f"~ {_title(self.a, i)}: {what}")
        for i, j in self.rewired:
            before = ", ".join(_title(self.a, source) for source in self.a.inputs[i])
            after = ", ".join(_title(self.b, source) for source in self.b.inputs[j])
            lines.append(f"> {_title(self.a, i)} reads {after} instead of {before}")
        if self.learned and self.a.parameters != self.b.parameters:
            lines[0] += f"; {self.a.parameters} learned numbers against {self.b.parameters}"
        lines += [
            f"# {_title(self.a, i)} learned {_holding(self.b, j)} instead of {_holding(self.a, i)}"
            for i, j in self.learned
        ]
        return "\n".join(lines)


def _title(graph: GraphLike, place: int) -> str:
    name = graph.names[place]
    return f"{graph.nodes[place].op} {name!r}" if name else f"{graph.nodes[place].op} at {place}"


def _named(graph: GraphLike, place: int) -> str:
    return f"{graph.nodes[place]} {graph.names[place]!r}"


def _holding(graph: GraphLike, place: int) -> str:
    """How many numbers a node learned, and with which nodes it shares them."""
    others = [_title(graph, twin) for twin in _twins(graph, place)]
    shared = f" shared with {', '.join(others)}" if others else ""
    return f"{graph.nodes[place].parameters}{shared}"


def _twins(graph: GraphLike, place: int) -> list[int]:
    """The other nodes that use a node's weights."""
    if place not in graph.sharing:
        return []
    root = _root(graph, place)
    return [twin for twin in graph.sharing if twin != place and _root(graph, twin) == root]


def _root(graph: GraphLike, place: int) -> int:
    while place in graph.tied:
        place = graph.tied[place]
    return place


def _changes(a: NodeLike, b: NodeLike) -> str:
    """The fields in which two nodes of one operation differ."""
    found = []
    names = sorted({name for name, _ in (*a.attributes, *b.attributes)})
    pairs = [(name, a.get(name), b.get(name)) for name in names]
    pairs += [
        ("inputs", a.input_shapes, b.input_shapes),
        ("output", a.output_shape, b.output_shape),
        ("weight", a.weight_shape, b.weight_shape),
    ]
    for name, before, after in pairs:
        if before != after:
            found.append(f"{name} {before} -> {after}")
    return ", ".join(found)


def diff(a: G, b: G) -> GraphDiff[G]:
    """The difference of two graphs; names play no part.

    Nodes are the same where all that lies around them is, out to 64 operations, then less and
    less far, at last where the nodes alone are equal. Among the rest, nodes of one operation that
    read or feed the same nodes are one node that has changed.
    """
    if a == b:
        pairs = tuple(zip(_ordered(a), _ordered(b), strict=True))
        return GraphDiff(a, b, pairs, (), (), (), (), _learned(a, b, pairs))
    forth = _matched(a, b)
    back = {j: i for i, j in forth.items()}
    equal = tuple(sorted(forth.items()))
    changed: list[tuple[int, int]] = []
    readers = (_readers(a), _readers(b))
    for i, node in enumerate(a.nodes):
        if i in forth:
            continue
        near = [r for s in a.inputs[i] if s in forth for r in readers[1][forth[s]]]
        near += [s for r in readers[0][i] if r in forth for s in b.inputs[forth[r]]]
        for j in near:
            if j not in back and b.nodes[j].op == node.op:
                forth[i], back[j] = j, i
                changed.append((i, j))
                break
    return GraphDiff(
        a,
        b,
        equal,
        tuple(changed),
        tuple((i, j) for i, j in sorted(forth.items()) if _is_rewired(a, b, i, j, forth)),
        tuple(i for i in range(len(a)) if i not in forth),
        tuple(j for j in range(len(b)) if j not in back),
        _learned(a, b, equal),
    )


def _ordered(graph: GraphLike) -> list[int]:
    """The places in an order that equal graphs share; twins that learned alike stand together."""

    def key(place: int) -> tuple[bytes, bytes, int]:
        shared = graph.sharing.get(place, b"")
        return graph.colours[place], shared, graph.nodes[place].parameters

    return sorted(range(len(graph)), key=key)


def _learned(a: G, b: G, pairs: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Those of the pairs that learned another count of numbers, or share them otherwise."""
    alike = {*a.sharing.values()} == {*b.sharing.values()}
    forth = dict(pairs)
    return tuple(
        (i, j)
        for i, j in forth.items()
        if a.nodes[i].parameters != b.nodes[j].parameters
        or not (alike or {forth.get(twin, -1) for twin in _twins(a, i)} == {*_twins(b, j)})
    )


def _matched(a: GraphLike, b: GraphLike) -> dict[int, int]:
    """Place in a -> place in b of equal nodes."""
    found: dict[int, int] = {}
    taken: set[int] = set()
    colours = [_surroundings(graph) for graph in (a, b)]
    for radius in _RADII:
        waiting: dict[bytes, list[int]] = {}
        for j, colour in enumerate(colours[1][radius]):
            if j not in taken:
                waiting.setdefault(colour, []).append(j)
        for i, colour in enumerate(colours[0][radius]):
            if i in found or not waiting.get(colour):
                continue
            # Of twins, the one that reads what is matched with the node's own inputs.
            read = {found.get(source) for source in a.inputs[i]}
            j = max(waiting[colour], key=lambda place: len(read.intersection(b.inputs[place])))
            waiting[colour].remove(j)
            found[i] = j
            taken.add(j)
    return found


def _readers(graph: GraphLike) -> list[list[int]]:
    readers: list[list[int]] = [[] for _ in graph.nodes]
    for source, reader in graph.edges:
        readers[source].append(reader)
    return readers


def _is_rewired(a: GraphLike, b: GraphLike, i: int, j: int, forth: dict[int, int]) -> bool:
    before, after = [forth.get(source, -1) for source in a.inputs[i]], list(b.inputs[j])
    if a.nodes[i].op in COMMUTATIVE:
        return sorted(before) != sorted(after)
    return before != after


def _surroundings(graph: GraphLike) -> list[list[bytes]]:
    """For each radius up to the widest a hash of what lies that near to each node."""
    colours = [node.digest for node in graph.nodes]
    found = [colours]
    readers: list[list[tuple[bytes, int]]] = [[] for _ in graph.nodes]
    for place, sources in enumerate(graph.inputs):
        ordered = graph.nodes[place].op not in COMMUTATIVE
        for argument, source in enumerate(sources):
            readers[source].append((str(argument).encode() if ordered else b"*", place))
    for _ in range(max(_RADII)):
        after = []
        for place, sources in enumerate(graph.inputs):
            read = [colours[source] for source in sources]
            if graph.nodes[place].op in COMMUTATIVE:
                read.sort()
            by = sorted(at + colours[reader] for at, reader in readers[place])
            content = b"|".join((colours[place], *read, b"/", *by))
            after.append(blake2b(content, digest_size=16).digest())
        colours = after
        found.append(colours)
    return found
