"""ONNX operators that reduce, reshape, cut and join."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from nni_aiop.graphs.doors.onnx._call import Call, handle_other, handles
from nni_aiop.graphs.rules._values import Value

__all__ = ["cut"]


@handles("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(call: Call) -> Value:
    axes = tuple(range(2, len(call.shape)))
    if prod(call.x.shape[2:]) == 1:
        return call.apply("identity", [call.x])
    kind = "mean" if call.node.op_type == "GlobalAveragePool" else "max"
    return call.apply("reduce", [call.x], kind=kind, axes=axes, keep=True)


_REDUCE = {
    "ReduceMean": "mean",
    "ReduceSum": "sum",
    "ReduceMax": "max",
    "ReduceMin": "min",
    "ReduceProd": "prod",
    "ReduceL1": "l1",
    "ReduceL2": "l2",
    "ReduceLogSumExp": "logsumexp",
    "ReduceLogSum": "sum",
    "ReduceSumSquare": "sum",
}


@handles(*_REDUCE)
def _reduce(call: Call) -> Value:
    kind, x = call.node.op_type, call.x
    axes = call.integers(1) if call.given(1) else call.option("axes")
    if not axes:
        if call.option("noop_with_empty_axes", 0):
            return call.apply("identity", [x])
        axes = range(len(x.shape))
    axes = tuple(axis % len(x.shape) for axis in axes)
    if kind == "ReduceSumSquare":
        x = call.apply("unary", [x], x.shape, function="square")
    keep = bool(call.option("keepdims", 1))
    value = call.apply("reduce", [x], kind=_REDUCE[kind], axes=axes, keep=keep)
    return call.apply("unary", [value], function="log") if kind == "ReduceLogSum" else value


@handles("ArgMax", "ArgMin")
def _place_of_extreme(call: Call) -> Value:
    axes = (call.option("axis", 0) % len(call.x.shape),)
    keep = bool(call.option("keepdims", 1))
    return call.apply("reduce", [call.x], kind=call.node.op_type.lower(), axes=axes, keep=keep)


@handles("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def _reshape(call: Call) -> Value:
    call.demand(
        call.x.size == prod(call.shape),
        "a reshape must keep the number of entries",
        f"{call.x.shape} -> {call.shape}",
    )
    return call.apply("reshape", [call.x])


@handles("Transpose")
def _transpose(call: Call) -> Value:
    x = call.x
    order = tuple(call.option("perm", range(len(x.shape) - 1, -1, -1)))
    call.demand(
        sorted(order) == list(range(len(x.shape))), f"perm must order {len(x.shape)} axes", order
    )
    if call.opset < 13 and x.op in ("softmax", "log_softmax") and x.inputs[0].op == "transpose":
        # How PyTorch's exporter writes a softmax over any axis but the last up to opset 12.
        there = x.inputs[0].attributes["order"]
        if [there[axis] for axis in order] == sorted(order):
            return call.apply(x.op, x.inputs[0].inputs, axis=there[x.attributes["axis"]])
    return call.apply("transpose", [x], order=order)


@handles("Expand", "Tile")
def _expand(call: Call) -> Value:
    return call.apply("reshape" if call.x.size == prod(call.shape) else "expand", [call.x])


def _shuffled(call: Call, split: Sequence[int], order: Sequence[int]) -> Value:
    """A tensor split into axes, permuted, and put together again."""
    value = call.apply("reshape", [call.x], split)
    moved = [split[axis] for axis in order]
    value = call.apply("transpose", [value], moved, order=tuple(order))
    return call.apply("reshape", [value])


@handles("DepthToSpace")
def _depth_to_space(call: Call) -> Value:
    b, c, h, w = call.x.shape
    r = call.option("blocksize")
    if call.option("mode", "DCR") == "CRD":
        return _shuffled(call, [b, c // (r * r), r, r, h, w], [0, 1, 4, 2, 5, 3])
    return _shuffled(call, [b, r, r, c // (r * r), h, w], [0, 3, 4, 1, 5, 2])


@handles("SpaceToDepth")
def _space_to_depth(call: Call) -> Value:
    b, c, h, w = call.x.shape
    r = call.option("blocksize")
    return _shuffled(call, [b, c, h // r, r, w // r, r], [0, 3, 5, 1, 2, 4])


def cut(call: Call, x: Value, axis: int, start: int, stop: int, step: int = 1) -> Value:
    shape = list(x.shape)
    shape[axis] = len(range(start, stop, step))
    if stop < 0:  # before the first entry, which -1 would not say
        stop = -x.shape[axis] - 1
    return call.apply("slice", [x], shape, axis=axis, start=start, stop=stop, step=step)


@handles("Slice")
def _slice(call: Call) -> Value:
    starts, stops = call.integers(1) or (), call.integers(2) or ()
    axes = call.integers(3) or tuple(range(len(starts)))
    steps = call.integers(4) or (1,) * len(starts)
    value = call.x
    for axis, start, stop, step in zip(axes, starts, stops, steps, strict=True):
        axis %= len(value.shape)
        value = cut(call, value, axis, *slice(start, stop, step).indices(value.shape[axis]))
    return value


@handles("Split")
def _split(call: Call) -> list[Value]:
    axis = call.option("axis", 0) % len(call.x.shape)
    parts, at = [], 0
    for shape in call.shapes:
        parts.append(cut(call, call.x, axis, at, at + shape[axis]))
        at += shape[axis]
    return parts


@handles("Concat")
def _concat(call: Call) -> Value:
    used = [value for value in call.values() if value.shape != (0,)]
    return call.apply("concat", used, axis=call.option("axis"))


@handles("Gather")
def _gather(call: Call) -> Value:
    x, index = call.x, call.value(1)
    axis = call.option("axis", 0) % len(x.shape)
    place = call.number(1)
    if index.is_constant and index.shape == () and place is not None and not x.is_constant:
        at, size = int(place), x.shape[axis]
        call.demand(-size <= at < size, f"an index must lie within {size}", at)
        at %= size
        return call.apply("reshape", [cut(call, x, axis, at, at + 1)])
    if x.is_constant and len(x.shape) == 2 and axis == 0 and index.shape:
        return call.apply("embedding", [index, x])  # a table, of which all rows are learned
    entries = call.data(1) if index.is_constant and index.size == x.shape[axis] > 1 else None
    if entries is not None and entries.reshape(-1).tolist() == list(range(index.size)):
        # All in their order, as PyTorch's newer exporter writes `as_strided`.
        return call.apply("reshape", [x])
    return call.apply("gather", [x, index], axis=axis)


@handles("GatherND")
def _gather_entries(call: Call) -> Value | list[Value]:
    """Indices along one axis are a gather, through the transpose that brings the axis to front."""
    x, index = call.x, call.value(1)
    if call.option("batch_dims", 0) or index.shape[-1] != 1 or x.is_constant == index.is_constant:
        return handle_other(call)
    index = call.apply("reshape", [index], index.shape[:-1])
    if x.op != "transpose" or len(index.shape) != 1:
        return call.apply("gather", [x, index], axis=0)
    order = x.attributes["order"]
    source = x.inputs[0]
    shape = list(source.shape)
    shape[order[0]] = index.shape[0]
    value = call.apply("gather", [source, index], shape, axis=order[0])
    return call.apply("transpose", [value], order=order)


_PAD_MODES = {"edge": "replicate", "wrap": "circular"}


@handles("Pad")
def _pad(call: Call) -> Value:
    rank = len(call.x.shape)
    amounts = call.integers(1) or ()
    axes = call.integers(3) or tuple(range(rank))
    padding = tuple(
        sorted(
            (axis % rank, before, after)
            for axis, before, after in zip(
                axes, amounts[: len(axes)], amounts[len(axes) :], strict=True
            )
        )
    )
    mode = call.option("mode", "constant")
    number = call.number(2) if call.given(2) else 0.0
    return call.apply(
        "pad",
        [call.x],
        padding=padding,
        mode=_PAD_MODES.get(mode, mode),
        number=number if mode == "constant" else None,
    )


@handles("Resize", "Upsample")
def _resize(call: Call) -> Value:
    return call.apply("resize", [call.x], mode=call.option("mode", "nearest"))
