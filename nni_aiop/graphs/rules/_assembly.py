"""From canonical values to a compute graph."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from math import prod

from nni_aiop.graphs._graph import ComputeGraph
from nni_aiop.graphs._node import Node
from nni_aiop.graphs._types import Shape
from nni_aiop.graphs._vocabulary import ENTRYWISE, OTHER
from nni_aiop.graphs.rules._regions import count, gathered, tensor_of
from nni_aiop.graphs.rules._values import Value

__all__ = ["assemble"]

# Operations whose weight tells the weight shape; the place of the weight among the inputs.
_WEIGHT_PLACE = {
    "conv": 1,
    "conv_transpose": 1,
    "linear": 1,
    "batch_norm": 1,
    "layer_norm": 1,
    "rms_norm": 1,
    "group_norm": 1,
    "instance_norm": 1,
    "prelu": 1,
    "embedding": 1,
    "lstm": 1,
    "gru": 1,
    "rnn": 1,
}


_ROWS = ENTRYWISE | {"linear"}
"""Operations whose shape a function of single entries takes over."""


def _weight_shape(value: Value) -> Shape | None:
    constants = [v for v in value.inputs if v.is_constant]
    place = _WEIGHT_PLACE.get(value.op)
    if place is not None:
        weight = value.inputs[place] if place < len(value.inputs) else None
        return weight.shape if weight is not None and weight.is_constant else None
    if value.op == "attention":
        return value.inputs[1].shape if value.inputs[1].is_constant else None
    for v in constants:
        # Outside the vocabulary constants may be indices as well.
        if v.size > 1 and (v.learned or not value.op.startswith(OTHER)):
            shape = v.shape
            while shape and shape[0] == 1:
                shape = shape[1:]
            while len(shape) > 1 and shape[-1] == 1:
                shape = shape[:-1]
            return shape
    return None


def assemble(order: Sequence[Value]) -> ComputeGraph:
    """The compute graph of canonical values, constants folded into the nodes that read them."""
    place: dict[int, int] = {}
    nodes: list[Node] = []
    inputs: list[list[int]] = []
    names: list[str] = []
    learned: list[dict[Hashable, int]] = []
    for value in order:
        sources = [
            (v, shape)
            for v, shape in zip(value.inputs, value.input_shapes, strict=True)
            if not v.is_constant
        ]
        held: dict[Hashable, int] = {}
        for v in value.inputs:
            if v.is_constant:
                held.update(v.learned)
        held = gathered(held)
        place[id(value)] = len(nodes)
        shapes, shape = [shape for _, shape in sources], value.shape
        if value.op in ENTRYWISE and len(value.inputs) == len(sources) == 1:
            # The rows of a linear layer may be seen with any leading axes: what reads them does not
            # tell, since reshapes are no operations.
            read = nodes[place[id(sources[0][0])]]
            if read.op in _ROWS and prod(read.output_shape) == prod(shape) == prod(shapes[0]):
                shapes, shape = [read.output_shape], read.output_shape
        nodes.append(
            Node.make(
                value.op,
                shapes,
                shape,
                weight_shape=_weight_shape(value),
                parameters=count(held),
                **value.attributes,
            )
        )
        inputs.append([place[id(v)] for v, _ in sources])
        names.append(value.name)
        learned.append(held)
    graph = ComputeGraph(nodes, inputs, names=names)
    return _with_tied_weights(graph, learned)


def _with_tied_weights(graph: ComputeGraph, learned: Sequence[dict[Hashable, int]]) -> ComputeGraph:
    """The graph in canonical order, nodes that hold the same learned numbers tied to the first.

    A node that shares only part of them, or a part of a tensor, counts what no earlier node holds.
    """
    ordered, order = graph.canonical_order()
    seen: dict[Hashable, dict[Hashable, int]] = {}
    owner: dict[frozenset[Hashable], int] = {}
    tied: dict[int, int] = {}
    nodes = list(ordered.nodes)
    for place, old in enumerate(order):
        held = learned[old]
        if not held:
            continue
        tensors = {tensor_of(key) for key in held}
        before = {key: n for tensor in tensors for key, n in seen.get(tensor, {}).items()}
        first = owner.setdefault(frozenset(held), place)
        if first != place:
            tied[place] = first
        elif before:
            rest = count(before | held) - count(before)
            nodes[place] = replace(nodes[place], parameters=rest)
        for key, n in held.items():
            seen.setdefault(tensor_of(key), {})[key] = n
    return ComputeGraph(nodes, ordered.inputs, names=ordered.names, tied=tied)
