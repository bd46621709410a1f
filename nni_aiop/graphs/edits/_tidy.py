"""Brings an edited graph into canonical form again, as far as edits can leave it (`graphs/rules`).

Without a branch or gate two operations may meet that the canonical form makes one: a normalisation
behind a convolution, a sum behind a sum, a clamp behind a clamp; with one head left an axis is
gone that a transpose moved. What nobody reads any more goes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from nni_aiop.graphs._axes import AxisChain
from nni_aiop.graphs._exchange import GraphParts
from nni_aiop.graphs._node import Node
from nni_aiop.graphs._types import NodeLike
from nni_aiop.graphs._vocabulary import COMMUTATIVE
from nni_aiop.graphs.edits._structure import LAYERS

__all__ = ["takes_in", "tidied"]


class _Draft:
    """Nodes while they are tidied; a node that is gone stands for another one."""

    def __init__(self, nodes: list[Node], inputs: list[list[int]]) -> None:
        self.nodes, self.inputs = nodes, inputs
        self.stands: dict[int, int] = {}

    def source(self, place: int) -> int:
        while place in self.stands:
            place = self.stands[place]
        return place

    def readers(self) -> list[int]:
        """How many arguments read each node."""
        counts = [0] * len(self.nodes)
        for place, sources in enumerate(self.inputs):
            if place not in self.stands:
                for source in sources:
                    counts[self.source(source)] += 1
        return counts


def tidied(
    nodes: list[Node],
    inputs: list[list[int]],
    names: Sequence[str],
    tied: dict[int, int],
    met: Collection[int],
) -> GraphParts:
    """The graph of edited nodes in canonical form.

    Args:
        nodes: In a topological order.
        inputs: What each reads.
        names: Of each.
        tied: See `ComputeGraph`.
        met: Those that read another operation than before.
    """
    draft = _Draft(nodes, inputs)
    counts = draft.readers()
    for place, node in enumerate(nodes):
        sources = [draft.source(source) for source in draft.inputs[place]]
        draft.inputs[place] = sources
        if len(sources) < 1:
            continue
        before = draft.nodes[sources[0]]
        if node.op == "permute":
            _turn(draft, place, node, met=place in met)
        elif place not in met:
            continue
        elif node.op == "relu6" and before.op == "relu6":
            draft.stands[place] = sources[0]
            counts[sources[0]] += counts[place] - 1
        elif node.op == "relu6" and before.op == "relu":
            draft.inputs[place] = list(draft.inputs[sources[0]])
            counts[sources[0]] -= 1
        elif node.op == "batch_norm" and takes_in(before, node) and counts[sources[0]] == 1:
            more = before.parameters + node.parameters
            draft.nodes[sources[0]] = replace(before, parameters=more)
            draft.stands[place] = sources[0]
            counts[sources[0]] = counts[place]
        elif node.op == "add":
            _sum(draft, place, node, counts)
    return _alive(draft, names, tied)


def takes_in(layer: NodeLike, norm: NodeLike) -> bool:
    """Whether a layer takes in a normalisation right behind it."""
    rank = len(norm.output_shape)
    return (
        layer.op in LAYERS
        and layer.weight_shape is not None
        and (layer.op != "linear" or rank == 2)
    )


def _sum(draft: _Draft, place: int, node: Node, counts: list[int]) -> None:
    """A sum of sums that nobody else reads is one sum."""
    if node.get("operand") is not None:
        return
    terms: list[int] = []
    for source in draft.inputs[place]:
        inner = draft.nodes[source]
        single = inner.op == "add" and inner.get("operand") is None and counts[source] == 1
        if single and inner.output_shape == node.output_shape:
            terms += draft.inputs[source]
            counts[source] = 0
        else:
            terms.append(source)
    if len(terms) > len(draft.inputs[place]):
        shapes = [node.output_shape for _ in terms]
        draft.inputs[place] = terms
        draft.nodes[place] = Node.make(
            "add", shapes, node.output_shape,
            weight_shape=node.weight_shape, parameters=node.parameters, **dict(node.attributes),
        )  # fmt: skip


def _turn(draft: _Draft, place: int, node: Node, *, met: bool) -> None:
    """A transpose, with the one that it reads if they have only met now, in its normal form."""
    (shape,), order = node.input_shapes, node["order"]
    (source,) = draft.inputs[place]
    before = draft.nodes[source]
    chain: AxisChain | None = None
    if met and before.op == "permute":
        first = AxisChain.start(before.input_shapes[0]).transposed(before["order"])
        chain = first.reshaped(shape)
        if chain is not None:
            source = draft.inputs[source][0]
    elif 1 not in shape:
        return
    moved = (chain or AxisChain.start(shape)).transposed(order).permutation()
    draft.inputs[place] = [source]
    if moved is None:
        draft.stands[place] = source
        return
    seen, turned = moved
    out = tuple(seen[axis] for axis in turned)
    draft.nodes[place] = Node.make("permute", [seen], out, order=turned)


def _alive(draft: _Draft, names: Sequence[str], tied: dict[int, int]) -> GraphParts:
    needed: set[int] = set()
    waiting = [place for place, node in enumerate(draft.nodes) if node.op in ("output", "input")]
    while waiting:
        place = waiting.pop()
        if place not in needed:
            needed.add(place)
            waiting += [draft.source(source) for source in draft.inputs[place]]
    order = [place for place in range(len(draft.nodes)) if place in needed]
    where = {old: new for new, old in enumerate(order)}
    inputs = []
    for old in order:
        sources = [where[draft.source(source)] for source in draft.inputs[old]]
        inputs.append(sorted(sources) if draft.nodes[old].op in COMMUTATIVE else sources)
    return GraphParts(
        [draft.nodes[old] for old in order],
        inputs,
        [names[old] for old in order],
        {where[a]: where[b] for a, b in tied.items() if a in where and b in where},
    )
