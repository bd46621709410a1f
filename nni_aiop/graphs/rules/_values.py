"""What a network is while it is brought into canonical form: tensors and their operations."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from math import prod
from typing import Any

from nni_aiop.graphs._types import Shape
from nni_aiop.graphs.rules._regions import Region

__all__ = ["Value", "constant", "live"]


class Value:
    """A tensor, and the operation that it comes from.

    Attributes:
        op: The operation; "constant" for all that does not depend on the network's inputs.
        inputs: The tensors that the operation reads.
        shape: Of the tensor.
        attributes: Of the operation.
        name: For people.
        learned: Constants: key -> count of the learned numbers in it; see `_regions`.
        region: Constants that only show numbers of one learned tensor: which ones, and how.
        number: Constants of one entry: its value, where it is known.
        shown: Learned constants of one entry: its value in the file, where it is known.
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
        "region",
        "shape",
        "shown",
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
        self.shown: float | None = None
        self.region: Region | None = None
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
    region: Region | None = None,
) -> Value:
    """A tensor that does not depend on the network's inputs."""
    if region is not None:
        learned = region.learned()
    value = Value("constant", (), tuple(shape), {}, learned=learned, number=number)
    value.region = region
    return value


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
