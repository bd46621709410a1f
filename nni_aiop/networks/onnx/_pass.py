"""The label pass over an ONNX model: which channels of its tensors go together.

It is the pass of `networks/_pass` over ONNX operators. Constants have labels, too, one layer an
axis, wherever they come from: initialisers, Constant nodes, zeros that are filled in, and the
copies by which exporters share equal tensors. A vector of equal numbers that several operators read
counts for each of them, as in the compute graph: tools write equal tensors once. What has no rule
freezes what it touches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from nni_aiop.graphs._types import Shape
from nni_aiop.graphs.doors.onnx import (
    FLOATING,
    ModelTensor,
    captured_by,
    domain_of,
    in_order,
    same_number,
)
from nni_aiop.graphs.edits import Coupler, Marks, along
from nni_aiop.networks._pass import entry_of

__all__ = ["RULES", "Call", "Held", "OnnxPass", "Place", "called", "rule_of"]

Place = tuple[int, int]
"""A node, and which of its inputs."""

Made = Marks | list[Marks]
Rule = Callable[["Call"], Made]

RULES: dict[str, Rule] = {}
rule_of = entry_of(RULES)

_WITHOUT_LABELS = ("Constant", "Shape", "Size")


@dataclass
class Held:
    """A constant as one or several operators read it.

    Attributes:
        name: Of the tensor in the model.
        marks: Its labels.
        places: Where it is read.
        source: The constant that it is a copy of, itself otherwise.
    """

    name: str
    marks: Marks
    places: list[Place]
    source: str


def called(node: NodeProto) -> str:
    """The name of a node, that of what it puts out where it has none."""
    return str(node.name or next((name for name in node.output if name), ""))


class OnnxPass:
    """The labels of every tensor of a model.

    Args:
        model: One whose functions are inlined.
        tensors: Of the model, by name.

    Attributes:
        nodes: In a topological order.
        coupler: The ties.
        marks: By name of a tensor its labels.
        groups: By name of a grouped operator's output the channels that it reads, (groups, each).
        held: The constants that are read.
        varying: Names of the tensors that depend on the inputs of the model.
    """

    def __init__(self, model: ModelProto, tensors: Mapping[str, ModelTensor]) -> None:
        self.tensors = tensors
        self.coupler = Coupler()
        self.marks: dict[str, Any] = {}
        self.groups: dict[str, Marks] = {}
        self.held: dict[str, Held] = {}
        self._by_place: dict[Place, Held] = {}
        graph = model.graph
        self.opset = max((o.version for o in model.opset_import if not domain_of(o.domain)),
                         default=1)  # fmt: skip
        self.nodes = in_order(graph.node, lambda _: False)
        constants = {x.name for x in graph.initializer}
        constants |= {x.values.name for x in graph.sparse_initializer}
        self.varying = {x.name for x in graph.input} - constants
        for node in self.nodes:
            read = {*node.input, *captured_by(node)}
            if read & self.varying or node.op_type.startswith("Random"):
                self.varying.update(name for name in node.output if name)
        self._constants = constants | {
            node.output[0] for node in self.nodes if self._is_constant(node)
        }
        self._copies = {
            node.output[0]: node.input[0]
            for node in self.nodes
            if node.op_type == "Identity" and node.input[0] in self._constants
        }
        self._constants |= self._copies.keys()
        self._kernels = _kernels(self.nodes)
        self._apart = self._read_apart()
        for name in self.varying & {x.name for x in graph.input}:
            self.marks[name] = Marks(tensors[name].shape)
        for at, node in enumerate(self.nodes):
            self.coupler.begin(f"{called(node)} ({node.op_type})")
            self._visit(at, node)
        for end in graph.output:
            self.coupler.begin(end.name)
            marks = self.marks.get(end.name)
            if isinstance(marks, Marks):
                self.coupler.freeze(marks, "it leaves the network")

    def _is_constant(self, node: NodeProto) -> bool:
        filled = node.op_type == "ConstantOfShape" and node.input[0] not in self.varying
        return not domain_of(node.domain) and (node.op_type == "Constant" or filled)

    def _read_apart(self) -> set[str]:
        """Vectors of equal numbers that several operators read, each of which has its own then."""
        counts = Counter(name for node in self.nodes for name in node.input)
        found = set()
        for name, count in counts.items():
            known = self.tensors.get(name)
            if count < 2 or name not in self._constants or known is None:
                continue
            vector = len(known.shape) == 1 and known.shape[0] > 1 and known.elem_type in FLOATING
            if vector and same_number(known.read()) is not None:
                found.add(name)
        return found

    # --- tensors ---------------------------------------------------------------------------------

    def of(self, at: int, place: int) -> Marks:
        """The marks of what a node reads."""
        held = self.held_at(at, place)
        if held is not None:
            return held.marks
        name = self.nodes[at].input[place]
        marks = self.marks.get(name)
        return marks if isinstance(marks, Marks) else self.blank(name)

    def blank(self, name: str) -> Marks:
        """Marks without labels."""
        known = self.tensors.get(name)
        return Marks(() if known is None else known.shape)

    def held_at(self, at: int, place: int) -> Held | None:
        """The constant that a node reads; None where it reads another tensor."""
        if (at, place) in self._by_place:
            return self._by_place[at, place]
        node = self.nodes[at]
        name = node.input[place]
        known = self.tensors.get(name)
        if name not in self._constants or known is None or known.elem_type not in FLOATING:
            return None
        key = f"{name}@{at}:{place}" if name in self._apart else name
        if key not in self.held:
            self.held[key] = Held(name, self._fresh(name, known.shape), [], self._source(name))
        held = self._by_place[at, place] = self.held[key]
        held.places.append((at, place))
        return held

    def _source(self, name: str) -> str:
        while name in self._copies:
            name = self._copies[name]
        return name

    def _fresh(self, name: str, shape: Shape) -> Marks:
        axes = range(2) if name in self._kernels and len(shape) > 2 else range(len(shape))
        layers = [
            along(len(shape), axis, self.coupler.fresh(shape[axis]))
            for axis in axes
            if shape[axis] > 1
        ]
        return Marks(shape, layers)

    # --- nodes -----------------------------------------------------------------------------------

    def _visit(self, at: int, node: NodeProto) -> None:
        if node.output[0] in self._constants:
            return
        made = self._made(at, node)
        for name, marks in zip(node.output, made, strict=False):
            if name:
                self.marks[name] = marks
                if marks.layers:
                    self.coupler.watch(marks)

    def _made(self, at: int, node: NodeProto) -> Sequence[Marks]:
        plain = not domain_of(node.domain)
        inputs = [self.of(at, i) for i, name in enumerate(node.input) if name]
        if not any(marks.layers for marks in inputs) and not captured_by(node):
            return [self.blank(name) for name in node.output]
        if plain and node.op_type in _WITHOUT_LABELS:
            return [self.blank(name) for name in node.output]
        rule = RULES.get(node.op_type) if plain else None
        if rule is None:
            domain = domain_of(node.domain)
            kind = f"{domain}.{node.op_type}" if domain else node.op_type
            return self._frozen(at, node, f"there is no rule for {kind}")
        try:
            made = rule(Call(self, at, node))
        except (ValueError, IndexError, KeyError, TypeError) as err:
            return self._frozen(at, node, f"{node.op_type} is not followed here: {str(err)[:80]}")
        return made if isinstance(made, list) else [made]

    def _frozen(self, at: int, node: NodeProto, why: str) -> Sequence[Marks]:
        """Freezes what an operator reads, in its bodies too."""
        around = [self.marks.get(name) for name in captured_by(node)]
        for marks in (*(self.of(at, i) for i, name in enumerate(node.input) if name), *around):
            if isinstance(marks, Marks):
                self.coupler.freeze(marks, why)
        return [self.blank(name) for name in node.output]


@dataclass(frozen=True)
class Call:
    """One node as its rule sees it."""

    labels: OnnxPass
    at: int
    node: NodeProto

    @property
    def coupler(self) -> Coupler:
        """The ties."""
        return self.labels.coupler

    def given(self, place: int) -> bool:
        """Whether the node has an input in that place."""
        return place < len(self.node.input) and bool(self.node.input[place])

    def marks(self, place: int) -> Marks:
        """The marks of an input."""
        return self.labels.of(self.at, place)

    @property
    def x(self) -> Marks:
        """The marks of the first input."""
        return self.marks(0)

    def some(self, *places: int) -> list[Marks]:
        """The marks of those inputs that are there."""
        return [self.marks(place) for place in places if self.given(place)]

    def shape_of(self, output: int) -> Shape:
        """The shape of an output."""
        return self.labels.tensors[self.node.output[output]].shape

    @property
    def shape(self) -> Shape:
        """The shape of the first output."""
        return self.shape_of(0)

    def data(self, place: int) -> NDArray[Any]:
        """The entries of an input.

        Raises:
            ValueError: They are not known.
        """
        data = self.labels.tensors[self.node.input[place]].read()
        if data is None:
            raise ValueError(f"its input {place} is not known")
        return data

    def integers(self, place: int, attribute: str, default: Sequence[int]) -> list[int]:
        """Whole numbers that an input or, in older opsets, an attribute has."""
        if self.given(place):
            return [int(n) for n in self.data(place).reshape(-1)]
        return [int(n) for n in self.option(attribute, default)]

    def option(self, name: str, default: Any = None) -> Any:
        """An attribute, text decoded."""
        for attribute in self.node.attribute:
            if attribute.name == name:
                value = onnx.helper.get_attribute_value(attribute)
                return value.decode() if isinstance(value, bytes) else value
        return default

    def constant(self, place: int) -> bool:
        """Whether an input does not depend on the inputs of the model."""
        return self.node.input[place] not in self.labels.varying


def _kernels(nodes: Sequence[NodeProto]) -> set[str]:
    """Names of the tensors that weights of convolutions are, or are computed from."""
    found: set[str] = set()
    for node in reversed(nodes):
        if node.op_type in ("Conv", "ConvTranspose"):
            found.add(node.input[1])
        elif found.intersection(node.output):
            found.update(node.input)
    return found
