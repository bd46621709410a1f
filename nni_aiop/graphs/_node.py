"""One atomic operation of a compute graph."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np

from nni_aiop.errors import GraphError
from nni_aiop.graphs import _costs
from nni_aiop.graphs._types import Attribute, Cost, Shape
from nni_aiop.graphs._vocabulary import COMMUTATIVE, OTHER, is_known

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Node"]

_PLAIN = frozenset({bool, int, float, str})


def _freeze(value: Any) -> Any:
    """The value as plain numbers, texts and tuples (NumPy's numbers look otherwise when hashed)."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, (list, tuple)):
        return tuple(_freeze(v) for v in value)
    if isinstance(value, (np.generic, np.ndarray)):
        return _freeze(value.tolist())
    raise GraphError(
        f"an attribute must be a bool, a number, a text or a tuple of such, but got {value!r}."
    )


def _check_shape(shape: Any, what: str) -> None:
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise GraphError(f"{what} must be a tuple of whole numbers, but got {shape!r}.")


@dataclass(frozen=True)
class Node:
    """One atomic operation.

    Nodes are values: equal ones can be, and are, shared among graphs.

    Attributes:
        op: A name of the vocabulary, or "other:NAME".
        attributes: (name, value) pairs in the order of names; see `OPERATIONS`.
        input_shapes: Shape of each data input, as the operation sees it; sorted where the inputs
            have no order (`COMMUTATIVE`).
        output_shape: Shape of what comes out.
        weight_shape: Shape of the learned weight (not the bias), None where there is none.
        parameters: How many learned numbers the operation holds, bias included. It is known
            exactly from a module; an ONNX file does not tell learned numbers from constants, so
            that neither equality of graphs nor the content hash look at it.

    Raises:
        GraphError: The operation is neither known nor "other:NAME", or a shape is not one.
    """

    op: str
    attributes: tuple[tuple[str, Attribute], ...] = ()
    input_shapes: tuple[Shape, ...] = ()
    output_shape: Shape = ()
    weight_shape: Shape | None = None
    parameters: int = 0

    def __post_init__(self) -> None:
        if not is_known(self.op) and not self.op.startswith(OTHER):
            raise GraphError(
                f"an operation must be one of the vocabulary or {OTHER}NAME, but got {self.op!r}."
            )
        for shape in self.input_shapes:
            _check_shape(shape, f"an input shape of {self.op}")
        _check_shape(self.output_shape, f"the output shape of {self.op}")
        if self.weight_shape is not None:
            _check_shape(self.weight_shape, f"the weight shape of {self.op}")

    @classmethod
    def make(
        cls,
        op: str,
        input_shapes: Iterable[Sequence[int]] = (),
        output_shape: Sequence[int] = (),
        *,
        weight_shape: Sequence[int] | None = None,
        parameters: int = 0,
        **attributes: Attribute,
    ) -> Node:
        """A node from lists or tuples, its attributes by name.

        Example:
            >>> Node.make("relu", [(1, 8, 4, 4)], (1, 8, 4, 4)).output_shape
            (1, 8, 4, 4)
        """
        shapes = tuple(_freeze(tuple(shape)) for shape in input_shapes)
        return cls(
            op,
            tuple(sorted((name, _freeze(value)) for name, value in attributes.items())),
            tuple(sorted(shapes)) if op in COMMUTATIVE else shapes,
            _freeze(tuple(output_shape)),
            None if weight_shape is None else _freeze(tuple(weight_shape)),
            int(parameters),
        )

    def __getitem__(self, attribute: str) -> Attribute:
        """Value of an attribute; KeyError where the node has none of that name."""
        for name, value in self.attributes:
            if name == attribute:
                return value
        raise KeyError(attribute)

    def get(self, attribute: str, default: Any = None) -> Any:
        """Value of an attribute, or the default."""
        for name, value in self.attributes:
            if name == attribute:
                return value
        return default

    @cached_property
    def digest(self) -> bytes:
        """Hash of everything but `parameters`."""
        content = (
            self.op,
            self.attributes,
            self.input_shapes,
            self.output_shape,
            self.weight_shape,
        )
        return blake2b(repr(content).encode(), digest_size=16).digest()

    @cached_property
    def cost(self) -> Cost:
        """What the operation costs; see `Cost`."""
        return _costs.node_cost(self)

    @cached_property
    def features(self) -> NDArray[np.float32]:
        """The row of `node_features`, those columns 0 that only a graph can tell."""
        from nni_aiop.graphs._features import local_features

        return local_features(self)

    def __str__(self) -> str:
        details = " ".join(
            f"{name}={_text(value)}" for name, value in self.attributes if value is not False
        )
        shapes = ", ".join(_text(shape) for shape in self.input_shapes)
        return f"{self.op} {details} [{shapes} -> {_text(self.output_shape)}]".replace("  ", " ")


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        inner = [_text(v) for v in value]
        if len(set(inner)) == 1 and not isinstance(value[0], tuple) and len(inner) == 1:
            return inner[0]
        return (
            "x".join(inner) if all(type(v) is int for v in value) else "(" + ", ".join(inner) + ")"
        )
    return str(value)
