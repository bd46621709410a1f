"""Rules 7 and 8: pooling, reductions, cutting and joining."""

from __future__ import annotations

import math
from math import prod

from nni_aiop.graphs.rules._functions import add
from nni_aiop.graphs.rules._patterns import replace
from nni_aiop.graphs.rules._products import with_padding
from nni_aiop.graphs.rules._values import Value

__all__ = ["avg_pool", "concat", "cut", "gather", "max_pool", "pad", "reduce", "reshape", "resize"]


def reshape(value: Value) -> Value:
    x = value.inputs[0]
    if x.op == "instance_norm" and x.inputs[0].op == "reshape" and x.uses == 1:
        source = x.inputs[0].inputs[0]
        if source.shape == value.shape and len(value.shape) > 2:
            return replace(value, "group_norm", [source], groups=x.shape[1])
    return value


def avg_pool(value: Value) -> Value:
    return _pool(with_padding(value, 0.0), "global_avg_pool")


def max_pool(value: Value) -> Value:
    return _pool(with_padding(value, -math.inf), "global_max_pool")


def _pool(value: Value, whole: str) -> Value:
    spatial = value.input_shapes[0][2:]
    if value.shape == value.input_shapes[0] and prod(value.attributes["kernel"]) == 1:
        return value.inputs[0]
    if (
        tuple(value.attributes["kernel"]) == tuple(spatial)
        and not any(n for pair in value.attributes["padding"] for n in pair)
        and prod(value.shape[2:]) == 1
    ):
        value.op, value.shape = whole, value.shape[:2]
    return value


def reduce(value: Value) -> Value:
    shape = value.input_shapes[0]
    axes = tuple(sorted(axis % len(shape) for axis in value.attributes["axes"]))
    value.attributes["axes"] = axes
    value.shape = tuple(size for axis, size in enumerate(shape) if axis not in axes)
    kind = value.attributes["kind"]
    if prod(shape) == prod(value.shape) and kind in ("mean", "max", "min", "sum", "prod"):
        return replace(value, "reshape", [value.inputs[0]])
    if kind == "sum" and (terms := _stacked(value)):
        return add(replace(value, "add", terms))
    if len(shape) > 2 and axes == tuple(range(2, len(shape))) and kind in ("mean", "max"):
        value.op = "global_avg_pool" if kind == "mean" else "global_max_pool"
    return value


def _stacked(value: Value) -> list[Value] | None:
    """The tensors that were stacked along the one axis that is now reduced."""
    stack, axes = value.inputs[0], value.attributes["axes"]
    if stack.op != "concat" or stack.uses != 1 or axes != (stack.attributes["axis"],):
        return None
    if any(v.is_constant for v in stack.inputs) or stack.shape != value.input_shapes[0]:
        return None
    if any(shape[axes[0]] != 1 for shape in stack.input_shapes):
        return None
    return [
        v.inputs[0] if v.op == "reshape" and v.inputs[0].shape == value.shape else v
        for v in stack.inputs
    ]


def cut(value: Value) -> Value:
    """One slice of the tensor behind slices; ranges that cut nothing are not kept."""
    x, shape = value.inputs[0], value.input_shapes[0]
    axis, start, stop, step = (value.attributes[k] for k in ("axis", "start", "stop", "step"))
    length = shape[axis]
    start, stop, step = slice(start, stop, step).indices(length)
    if (start, stop, step) == (0, length, 1):
        return x
    if x.op == "transpose" and x.shape == shape:
        return _cut_before_turn(value, x)
    ranges = {axis: (start, stop, step)}
    if x.op == "slice" and x.shape == shape:
        inner = {a: (lo, hi, by) for a, lo, hi, by in x.attributes["ranges"]}
        if axis in inner:
            low, _, by = inner[axis]
            ranges[axis] = (low + start * by, low + stop * by, by * step)
        ranges = inner | ranges
        x, shape = x.inputs[0], x.input_shapes[0]
    # The last entry that is taken tells where a range ends, however far it was said to go.
    tight = []
    for a in sorted(ranges):
        low, high, by = ranges[a]
        count = max(0, -(-(high - low) // by))
        tight.append((a, low, low + (count - 1) * by + (1 if by > 0 else -1), by))
    return Value(
        "slice", [x], value.shape, {"ranges": tuple(tight)}, value.name, input_shapes=[shape]
    )


def _cut_before_turn(value: Value, turned: Value) -> Value:
    """A cut of a transposed tensor as the transpose of a cut."""
    source, order = turned.inputs[0], turned.attributes["order"]
    sizes = dict(zip(order, value.shape, strict=True))
    shape = tuple(sizes[axis] for axis in range(len(order)))
    options = {**value.attributes, "axis": order[value.attributes["axis"]]}
    part = Value("slice", [source], shape, options, value.name, input_shapes=turned.input_shapes)
    turned.uses -= 1
    source.uses += turned.uses > 0
    part = cut(part)
    part.uses = 1
    return Value("transpose", [part], value.shape, {"order": order}, value.name)


def concat(value: Value) -> Value:
    axis = value.attributes["axis"] % len(value.shape)
    parts: list[Value] = []
    shapes = []
    for part, shape in zip(value.inputs, value.input_shapes, strict=True):
        if part.op == "concat" and part.uses == 1 and part.attributes["axis"] == axis:
            parts += part.inputs
            shapes += part.input_shapes
        else:
            parts.append(part)
            shapes.append(shape)
    value.inputs, value.input_shapes, value.attributes["axis"] = parts, shapes, axis
    return parts[0] if len(parts) == 1 else value


def gather(value: Value) -> Value:
    """Rows of a constant table are an `embedding`."""
    x, index = value.inputs
    if x.is_constant and len(x.shape) == 2 and value.attributes["axis"] == 0:
        return Value("embedding", [index, x], value.shape, {}, value.name)
    return value


def resize(value: Value) -> Value:
    return value.inputs[0] if value.shape == value.input_shapes[0] else value


def pad(value: Value) -> Value:
    value.attributes["padding"] = tuple(
        (axis, before, after)
        for axis, before, after in value.attributes["padding"]
        if before or after
    )
    return value if value.attributes["padding"] else value.inputs[0]
