"""What every door builds first: operations as the door reads them, constants apart from data.

A door calls `Builder.input`, `constant`, `apply` and `output`, and at last `finish`, which applies
the canonical rules (`_rules`, `_layout`) and gives the compute graph. Beside the operations of the
vocabulary a door may apply these, which the rules do away with:

- `identity`: dropout, casts, copies, whatever returns its input;
- `reshape`: the same data in another shape; `transpose` with `order` over the axes;
- `clamp` with `low`, `high` (None where open); `binary` with `function` "add", "sub", "mul", "div"
  ...; `unary` with `function` "exp", "sqrt", "erf", "pow" with `exponent` ...;
- `matmul` of any ranks as numpy.matmul has it; `linear` of any rank;
- `attention` of any rank: inputs q, k, v (..., n, d) and masks, each added before the softmax;
- `slice` with `axis`, `start`, `stop`, `step`; `reduce` with `kind`, `axes`, `keep` (whether
  reduced axes stay with length 1).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from math import prod
from typing import Any

from nni_aiop.errors import GraphError
from nni_aiop.graphs._graph import ComputeGraph, Node, Shape
from nni_aiop.graphs._vocabulary import OTHER

__all__ = ["Builder", "Value"]


class Value:
    """A tensor, and the operation that it comes from.

    Attributes:
        op: The operation; "constant" for all that does not depend on the network's inputs.
        inputs: The tensors that the operation reads.
        shape: Of the tensor.
        attributes: Of the operation.
        name: For people.
        learned: Constants: key -> count of the learned numbers in it.
        number: Constants of one entry: its value, where it is known.
        uses: How many arguments read the tensor.
    """

    __slots__ = (
        "attributes",
        "input_shapes",
        "inputs",
        "learned",
        "name",
        "number",
        "op",
        "shape",
        "uses",
    )
    shape: Shape

    def __init__(
        self,
        op: str,
        inputs: Sequence[Value],
        shape: Shape,
        attributes: dict[str, Any],
        name: str = "",
        *,
        input_shapes: Sequence[Shape] | None = None,
        learned: Mapping[Hashable, int] | None = None,
        number: float | None = None,
    ) -> None:
        self.op = op
        self.inputs = list(inputs)
        self.input_shapes = (
            [v.shape for v in inputs] if input_shapes is None else list(input_shapes)
        )
        self.shape = shape
        self.attributes = attributes
        self.name = name
        self.learned = learned or {}
        self.number = number
        self.uses = 0

    @property
    def is_constant(self) -> bool:
        """Whether the tensor does not depend on the network's inputs."""
        return self.op == "constant"

    @property
    def size(self) -> int:
        """Number of entries."""
        return prod(self.shape)

    def __repr__(self) -> str:
        return f"Value({self.op} {self.shape} {self.attributes})"


def constant(
    shape: Sequence[int],
    *,
    learned: Mapping[Hashable, int] | None = None,
    number: float | None = None,
) -> Value:
    """A tensor that does not depend on the network's inputs."""
    return Value("constant", (), tuple(shape), {}, learned=learned, number=number)


class Builder:
    """Collects the operations of one network in the order in which they run."""

    def __init__(self) -> None:
        self._inputs: list[Value] = []
        self._outputs: list[Value] = []

    def input(self, shape: Sequence[int], name: str = "input") -> Value:
        """An input of the network."""
        value = Value("input", (), tuple(shape), {}, name)
        self._inputs.append(value)
        return value

    def parameter(self, shape: Sequence[int], key: Hashable) -> Value:
        """A learned tensor; equal keys are one and the same tensor."""
        return constant(shape, learned={key: prod(shape)})

    def constant(self, shape: Sequence[int], number: float | None = None) -> Value:
        """A tensor that is not learned; `number` is its value where it has one entry."""
        return constant(shape, number=number)

    def apply(
        self,
        op: str,
        inputs: Sequence[Value],
        shape: Sequence[int],
        *,
        name: str = "",
        **attributes: Any,
    ) -> Value:
        """The result of an operation: a constant where all its inputs are.

        Args:
            op: A name of the vocabulary, one of this module's, or any other, which becomes
                "other:NAME".
            inputs: What it reads, weights included, in the order that `_rules` names.
            shape: Of the result.
            name: For people, such as a module's path.
            attributes: See `OPERATIONS` and this module.
        """
        shape = tuple(shape)
        if all(v.op == "constant" for v in inputs):
            learned: dict[Hashable, int] = {}
            for v in inputs:
                learned.update(v.learned)
            same = op in ("identity", "reshape") and len(inputs) == 1
            return constant(shape, learned=learned, number=inputs[0].number if same else None)
        return Value(op, inputs, shape, attributes, name)

    def einsum(self, equation: str, values: Sequence[Value], *, name: str = "") -> Value | None:
        """A product of two tensors by Einstein's convention, as transposes and a `matmul`.

        None where it is not one: other than two tensors, an ellipsis, a letter twice in a term,
        or one that is summed within a single tensor.
        """
        terms, _, result = equation.replace(" ", "").partition("->")
        if len(values) != 2 or "." in equation or terms.count(",") != 1:
            return None
        a, b = terms.split(",")
        if "->" not in equation:
            result = "".join(sorted(c for c in set(a + b) if (a + b).count(c) == 1))
        if any(len(set(term)) != len(term) for term in (a, b, result)):
            return None
        batch = [c for c in result if c in a and c in b]
        rows = [c for c in result if c in a and c not in b]
        columns = [c for c in result if c in b and c not in a]
        inner = [c for c in a if c in b and c not in result]
        if set(a + b) != {*batch, *rows, *columns, *inner}:
            return None
        size = dict(zip(a + b, values[0].shape + values[1].shape, strict=True))

        def laid(value: Value, term: str, groups: Sequence[Sequence[str]]) -> Value:
            letters = [c for group in groups for c in group]
            order = tuple(term.index(c) for c in letters)
            moved = tuple(size[c] for c in letters)
            value = self.apply("transpose", [value], moved, name=name, order=order)
            shape = tuple(prod(size[c] for c in group) for group in groups)
            return self.apply("reshape", [value], shape, name=name)

        lead = [] if values[1].is_constant and not batch else [batch]
        left = laid(values[0], a, [*lead, rows, inner])
        right = laid(values[1], b, [*lead, inner, columns])
        product = self.apply(
            "matmul", [left, right], (*left.shape[:-1], right.shape[-1]), name=name
        )
        letters = [*batch, *rows, *columns]
        product = self.apply("reshape", [product], tuple(size[c] for c in letters), name=name)
        order = tuple(letters.index(c) for c in result)
        return self.apply(
            "transpose", [product], tuple(size[c] for c in result), name=name, order=order
        )

    def output(self, value: Value, name: str = "output") -> None:
        """Makes a tensor an output of the network; a constant is not one."""
        if not value.is_constant:
            self._outputs.append(Value("output", [value], value.shape, {}, name))

    def finish(self) -> ComputeGraph:
        """The compute graph of everything that an output depends on.

        Raises:
            GraphError: No output depends on an input.
        """
        from nni_aiop.graphs._layout import without_layout
        from nni_aiop.graphs._rules import merge_twins, simplify

        if not self._outputs:
            raise GraphError(
                "an output of the network must depend on its input, but none of them does."
            )
        merge_twins(live(self._outputs))
        outputs = simplify(live(self._outputs), self._outputs)
        merge_twins(live(outputs))
        outputs = without_layout(live(outputs), outputs)
        return _assemble(live([*self._inputs, *outputs]))


def live(outputs: Sequence[Value]) -> list[Value]:
    """Every data tensor that the outputs depend on, in a topological order, their uses counted."""
    order: list[Value] = []
    seen: set[int] = set()
    stack: list[tuple[Value, bool]] = [(v, False) for v in reversed(outputs)]
    while stack:
        value, done = stack.pop()
        if done:
            order.append(value)
            continue
        if id(value) in seen or value.op == "constant":
            continue
        seen.add(id(value))
        value.uses = 0
        stack.append((value, True))
        stack += [(v, False) for v in reversed(value.inputs)]
    for value in order:
        for source in value.inputs:
            source.uses += 1
    return order


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


def _weight_shape(value: Value) -> Shape | None:
    constants = [v for v in value.inputs if v.is_constant]
    place = _WEIGHT_PLACE.get(value.op)
    if place is not None:
        weight = value.inputs[place] if place < len(value.inputs) else None
        return weight.shape if weight is not None and weight.is_constant else None
    if value.op == "attention":
        return None
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


def _assemble(order: Sequence[Value]) -> ComputeGraph:
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
        place[id(value)] = len(nodes)
        nodes.append(
            Node.make(
                value.op,
                [shape for _, shape in sources],
                value.shape,
                weight_shape=_weight_shape(value),
                parameters=sum(held.values()),
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

    A node that shares only part of them counts only what no earlier node holds.
    """
    ordered, order = graph.canonical_order()
    owner: dict[Hashable, int] = {}
    tied: dict[int, int] = {}
    nodes = list(ordered.nodes)
    for place, old in enumerate(order):
        held = learned[old]
        known = [key for key in held if key in owner]
        first = owner[known[0]] if known else place
        if known and len(known) == len(held) and learned[order[first]].keys() == held.keys():
            tied[place] = first
        elif known:
            rest = sum(count for key, count in held.items() if key not in owner)
            node = nodes[place]
            nodes[place] = Node(
                node.op,
                node.attributes,
                node.input_shapes,
                node.output_shape,
                node.weight_shape,
                rest,
            )
        for key in held:
            owner.setdefault(key, place)
    return ComputeGraph(nodes, ordered.inputs, names=ordered.names, tied=tied)


def other(name: str) -> str:
    """The operation of that name outside the vocabulary."""
    return OTHER + name.lower()
