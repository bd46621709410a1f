"""One node of an ONNX model as its handler sees it, and the table of handlers."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TypeProto

from nni_aiop.errors import GraphError
from nni_aiop.graphs._types import Shape
from nni_aiop.graphs._vocabulary import OTHER
from nni_aiop.graphs.doors._builder import Builder
from nni_aiop.graphs.rules._values import Value

__all__ = ["HANDLERS", "Call", "Operand", "handle_other", "handles"]


class Operand:
    """A tensor of a model: its value, its type, and its entries where they are few and known."""

    __slots__ = ("_data", "_read", "_type", "elem_type", "value")

    def __init__(
        self,
        value: Value,
        elem_type: int,
        read: Callable[[], NDArray[Any] | None] | None = None,
    ) -> None:
        self.value = value
        self.elem_type = elem_type
        self._read = read
        self._data: NDArray[Any] | None = None
        self._type: TypeProto | None = None

    @property
    def has_data(self) -> bool:
        """Whether there may be entries to look at."""
        return self._read is not None

    @property
    def data(self) -> NDArray[Any] | None:
        """The entries, None where they are not known."""
        if self._data is None and self._read is not None:
            self._data = self._read()
        return self._data

    @property
    def type(self) -> TypeProto:
        """As onnx writes it."""
        if self._type is None:
            self._type = onnx.helper.make_tensor_type_proto(self.elem_type, self.value.shape)
        return self._type


@dataclass
class Call:
    """One node: what it reads, and the shapes of what it makes."""

    builder: Builder
    node: NodeProto
    opset: int
    inputs: Sequence[Operand | None]
    shapes: Sequence[Shape]
    attributes: dict[str, Any]
    owner: str = ""

    @property
    def name(self) -> str:
        return self.node.name or self.node.output[0]

    @property
    def shape(self) -> Shape:
        """Of the first output."""
        return self.shapes[0]

    def given(self, place: int) -> bool:
        """Whether the node has an input in that place."""
        return place < len(self.inputs) and self.inputs[place] is not None

    def value(self, place: int) -> Value:
        """The input in that place."""
        operand = self.inputs[place] if place < len(self.inputs) else None
        if operand is None:
            raise GraphError(
                f"{self.node.op_type} must have an input {place}, but node {self.name!r} has none."
            )
        return operand.value

    @property
    def x(self) -> Value:
        """The first input."""
        return self.value(0)

    def values(self) -> list[Value]:
        """All inputs that are there."""
        return [operand.value for operand in self.inputs if operand is not None]

    def data(self, place: int) -> NDArray[Any] | None:
        """The entries of an input, None where it is not there or they are not known."""
        operand = self.inputs[place] if place < len(self.inputs) else None
        return None if operand is None else operand.data

    def number(self, place: int) -> float | None:
        """The only entry of an input, where it is known."""
        data = self.data(place)
        return None if data is None or data.size != 1 else float(data.reshape(()))

    def integers(self, place: int) -> tuple[int, ...] | None:
        """The entries of an input that a shape depends on, None where it is not there.

        Raises:
            GraphError: They are not known.
        """
        if not self.given(place):
            return None
        data = self.data(place)
        if data is None:
            raise GraphError(
                f"what a network does must not depend on the values of its data, but node "
                f"{self.name!r} ({self.node.op_type}) reads its input {place} so; the value of an "
                f"input can be given (values=)."
            )
        return tuple(int(n) for n in data.reshape(-1))

    def option(self, name: str, default: Any = None) -> Any:
        """An attribute, text decoded."""
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def apply(
        self, op: str, inputs: Sequence[Value], shape: Sequence[int] | None = None, **options: Any
    ) -> Value:
        """`Builder.apply` with the node's name; the shape is that of the first output."""
        return self.builder.apply(
            op, inputs, self.shape if shape is None else shape, name=self.name, **options
        )

    def demand(self, holds: bool, rule: str, got: object) -> None:
        """Refuses the node where a rule does not hold.

        Raises:
            GraphError: It does not.
        """
        if not holds:
            raise GraphError(f"{rule}, but node {self.name!r} ({self.node.op_type}) has {got}.")

    def binary(
        self, function: str, a: Value, b: Value | float, shape: Shape | None = None
    ) -> Value:
        """A function of two tensors, or a tensor and a number."""
        if not isinstance(b, Value):
            b = self.builder.constant((), float(b))
        return self.apply("binary", [a, b], shape, function=function)


Handler = Callable[[Call], "Value | Sequence[Value]"]


HANDLERS: dict[str, Handler] = {}
"""Handler of each operator of the default domain."""


def handles(*names: str) -> Callable[[Handler], Handler]:
    def add(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return add


_OTHER_NAMES = {
    "GridSample": "grid_sampler_2d",
    "ScatterElements": "scatter",
    "ScatterND": "scatter",
    "TopK": "topk",
    "CumSum": "cumsum",
    "NonZero": "nonzero",
}
"""Operators outside the vocabulary that PyTorch has another name for."""


def handle_other(call: Call) -> list[Value]:
    """An operator outside the table, by its name in small letters, words apart."""
    kind = call.node.op_type
    name = _OTHER_NAMES.get(kind) or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind).lower()
    return [call.apply(OTHER + name, call.values(), shape) for shape in call.shapes]
