"""What rules look for in values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from nni_aiop.graphs._types import Shape
from nni_aiop.graphs.rules._values import Value

__all__ = [
    "Rule",
    "channels_of",
    "is_close",
    "is_function",
    "replace",
    "with_constant",
    "without_scale",
]

Rule = Callable[[Value], Value]


def is_close(number: float | None, target: float) -> bool:
    """Whether a number is the target, as exporters round it; zero is never rounded to."""
    return number is not None and math.isclose(number, target, rel_tol=1e-3)


def with_constant(value: Value, op: str) -> tuple[Value, Value] | None:
    """(data, constant) of a sum or product of one tensor and a constant."""
    if value.op == op and len(value.inputs) == 2 and value.inputs[1].is_constant:
        return value.inputs[0], value.inputs[1]
    return None


def is_function(value: Value, function: str) -> bool:
    return value.op == "elementwise" and value.attributes.get("function") == function


def without_scale(value: Value) -> Value:
    """The tensor behind products with single numbers."""
    while (pair := with_constant(value, "mul")) and pair[1].size == 1:
        value = pair[0]
    return value


def replace(value: Value, op: str, inputs: Sequence[Value], **attributes: object) -> Value:
    """A new value in the place of one, for functions whose result has the shape of their input."""
    shapes = [value.shape] * len(inputs)
    return Value(op, inputs, value.shape, dict(attributes), value.name, input_shapes=shapes)


def _channels_last(value: Value) -> bool:
    return value.op in ("layer_norm", "rms_norm", "linear")


def channels_of(value: Value, shape: Sequence[int], rank: int) -> Shape | None:
    """The shape of a constant without its axes of length 1, where it differs by channel alone.

    Args:
        value: The operation behind which it stands.
        shape: Of the constant, which is broadcast to `rank` axes.
    """
    if _channels_last(value):
        over = value.attributes.get("over", 1)
        channels = tuple(value.shape[-over:])
        wanted = (1,) * (rank - over) + channels
    else:
        channels = (value.shape[1],)
        wanted = (1, *channels) + (1,) * (rank - 2)
    return channels if (1,) * (rank - len(shape)) + tuple(shape) == wanted else None
