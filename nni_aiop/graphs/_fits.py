"""What shapes and attributes an operation of a compute graph can have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from nni_aiop.graphs._node import Node
from nni_aiop.graphs._vocabulary import ACTIVATIONS, OPERATIONS

__all__ = ["WITHOUT_WEIGHTS", "fits"]

_LARGEST = 2**63

WITHOUT_WEIGHTS = frozenset(
    {
        "input", "output", "max_pool", "avg_pool", "global_avg_pool", "global_max_pool",
        "local_response_norm", "slice", "expand", "resize", "permute", "reduce", "pad",
        "cell_state", *ACTIVATIONS,
    }
) - {"prelu"}  # fmt: skip
"""Operations that hold no learned numbers."""


def fits(node: Node) -> bool:
    """Whether an operation's shapes and attributes are such as it can have."""
    check = _CHECKS.get(node.op)
    try:
        return check is None or check(node)
    except (KeyError, IndexError, TypeError, ValueError):  # an attribute or an axis is missing
        return False


def _numbers(value: Any, n: int, least: int = 1) -> bool:
    return len(value) == n and all(type(v) is int and v >= least for v in value)


def _pairs(value: Any, n: int) -> bool:
    return len(value) == n and all(_numbers(pair, 2, -_LARGEST) for pair in value)


def _windows(node: Node, n: int, *, spare: int) -> bool:
    """Whether the last n axes come from windows over those of the input, but for `spare` steps."""
    dilation = node.get("dilation", (1,) * n)
    sides = zip(
        node.input_shapes[0][-n:],
        node.output_shape[-n:],
        node["kernel"],
        node["stride"],
        node["padding"],
        dilation,
        strict=True,
    )
    for before, after, kernel, stride, (left, right), wide in sides:
        steps = (before + left + right - wide * (kernel - 1) - 1) // stride + 1
        if not steps <= after <= steps + spare:
            return False
    return True


def _spatial(node: Node) -> int:
    n = len(node.output_shape) - 2
    if n < 1 or len(node.input_shapes[0]) != n + 2:
        raise ValueError
    return n


def _weight(node: Node) -> Sequence[int]:
    return node.weight_shape if node.weight_shape is not None else node.input_shapes[1]


def _fits_kernel(node: Node, n: int) -> bool:
    weight = _weight(node)
    return (
        all(_numbers(node[name], n) for name in ("kernel", "stride", "dilation"))
        and _pairs(node["padding"], n)
        and type(node["groups"]) is int
        and node["groups"] > 0
        and len(weight) == n + 2
        and tuple(weight[2:]) == node["kernel"]
        and node.input_shapes[0][0] == node.output_shape[0]
    )


def _fits_conv(node: Node) -> bool:
    n = _spatial(node)
    (out, each, *_), groups = _weight(node), node["groups"]
    channels = node.input_shapes[0][1], node.output_shape[1]
    return _fits_kernel(node, n) and channels == (each * groups, out) and _windows(node, n, spare=0)


def _fits_conv_transpose(node: Node) -> bool:
    n = _spatial(node)
    (inner, each, *_), groups = _weight(node), node["groups"]
    channels = node.input_shapes[0][1], node.output_shape[1]
    if not (_fits_kernel(node, n) and channels == (inner, each * groups)):
        return False
    sides = zip(
        node.input_shapes[0][2:],
        node.output_shape[2:],
        node["kernel"],
        node["stride"],
        node["padding"],
        node["dilation"],
        strict=True,
    )
    for before, after, kernel, stride, (left, right), wide in sides:
        least = (before - 1) * stride - left - right + wide * (kernel - 1) + 1
        if not least <= after < least + max(stride, wide):  # an output padding is part of the side
            return False
    return True


def _fits_pool(node: Node) -> bool:
    n = len(node["kernel"])
    return (
        0 < n < len(node.output_shape) == len(node.input_shapes[0])
        and all(_numbers(node[name], n) for name in ("kernel", "stride"))
        and _numbers(node.get("dilation", (1,) * n), n)
        and _pairs(node["padding"], n)
        and node.input_shapes[0][:-n] == node.output_shape[:-n]
        and _windows(node, n, spare=1)  # a window that is cut short counts or not
    )


def _fits_global_pool(node: Node) -> bool:
    (shape,) = node.input_shapes
    return len(shape) > 1 and prod(node.output_shape) == prod(shape[:2])


def _fits_linear(node: Node) -> bool:
    (rows, inner), (same, out) = node.input_shapes[0], node.output_shape
    *outs, read = node.weight_shape or (out, inner)
    return rows == same and read == inner and prod(outs) == out


def _fits_matmul(node: Node) -> bool:
    shapes, out, operand = node.input_shapes, node.output_shape, node.get("operand")
    if not all(len(shape) == 3 for shape in (*shapes, out)):
        return False
    if len(shapes) == 2:
        (one, m, inner), (other, same, n) = shapes
        # Leading axes that are broadcast crosswise, (g, 1) with (1, 2), make more groups.
        groups = 0 < one <= out[0] <= one * other and out[0] % one == out[0] % other == 0
        return operand is None and inner == same and out[1:] == (m, n) and groups
    fits = {"left": shapes[0][2] == out[2], "right": shapes[0][1] == out[1]}
    return (
        len(shapes) == 1
        and shapes[0][0] <= out[0]
        and (any(fits.values()) if operand is None else fits[operand])
    )


def _fits_attention(node: Node) -> bool:
    constant, out = node.get("constant", ""), node.output_shape
    data = node.input_shapes[: 3 - len(constant)]
    if not (
        constant in ("", "q", "k", "v", "qk", "qv", "kv")
        and ("k" not in constant or len(node.weight_shape or ()) > 1)
        and len(data) >= (3 - len(constant) if constant else 2)
        and all(len(shape) == 3 for shape in (*data, out))
    ):
        return False
    if constant:
        return True
    (groups, n, d), (_, m, same), *values = data
    return (groups, n) == out[:2] and d == same and all(v[1:] == (m, out[2]) for v in values)


def _fits_recurrent(node: Node) -> bool:
    shapes = (*node.input_shapes, node.output_shape)
    hidden, directions = node["hidden"], node["directions"]
    width = node.get("projection", hidden)
    states = 2 if node.op == "lstm" else 1
    return (
        all(len(shape) == 3 for shape in shapes)
        and _numbers((hidden, directions, width), 3)
        and node.output_shape[-1] == directions * width
        and node.get("operand") in (None, "left")
        and len(node.input_shapes) <= states + (node.get("operand") is None)
        and len(node.weight_shape or (0, 0)) == 2
        and (node.get("operand") == "left" or shapes[0][:2] == node.output_shape[:2])
    )


def _fits_cell_state(node: Node) -> bool:
    return len(node.input_shapes) == 1 and all(
        len(shape) == 3 for shape in (*node.input_shapes, node.output_shape)
    )


def _fits_resize(node: Node) -> bool:
    shape, out = node.input_shapes[0], node.output_shape
    same = len(shape) == len(out) and shape[:2] == out[:2]
    return same and node["mode"] in ("nearest", "linear", "cubic")


def _axis(value: Any, shape: Sequence[int]) -> bool:
    return type(value) is int and 0 <= value < len(shape)


def _fits_slice(node: Node) -> bool:
    shape = node.input_shapes[0]
    if len(shape) != len(node.output_shape) or not all(
        _numbers(row, 4, -_LARGEST) and _axis(row[0], shape) for row in node["ranges"]
    ):
        return False
    sides = list(shape)
    for axis, start, stop, step in node["ranges"]:
        sides[axis] = min(sides[axis], len(range(start, stop, step)))
    return tuple(sides) == node.output_shape


def _fits_pad(node: Node) -> bool:
    sides = list(node.input_shapes[0])
    for axis, before, after in node["padding"]:
        if not (_axis(axis, sides) and type(before) is type(after) is int):
            return False
        sides[axis] += before + after
    return tuple(sides) == node.output_shape


def _fits_reduce(node: Node) -> bool:
    (shape,) = node.input_shapes
    if not all(_axis(axis, shape) for axis in node["axes"]):
        return False
    kept = [side for axis, side in enumerate(shape) if axis not in node["axes"]]
    return prod(kept) == prod(node.output_shape)


def _fits_concat(node: Node) -> bool:
    axis, out = node["axis"], node.output_shape
    if not _axis(axis, out):
        return False
    along = 0
    for shape in node.input_shapes:
        if len(shape) != len(out) or any(
            a != b for place, (a, b) in enumerate(zip(shape, out, strict=True)) if place != axis
        ):
            return False
        along += shape[axis]
    # What is constant beside the data has its part, too.
    return len(node.input_shapes) > 0 and along <= out[axis]


def _fits_expand(node: Node) -> bool:
    (shape,) = node.input_shapes
    before, after = prod(shape), prod(node.output_shape)
    return after % before == 0 if before else not after


def _fits_terms(node: Node) -> bool:
    """Whether the terms of a sum, or the operands of a function, broadcast to what comes out."""
    out = node.output_shape
    if node.get("operand") is None:
        return np.broadcast_shapes(*node.input_shapes) == out and len(node.input_shapes) > 0
    return len(node.input_shapes) > 0 and np.broadcast_shapes(*node.input_shapes, out) == out


def _fits_elementwise(node: Node) -> bool:
    bounded = node["function"] == "clamp"  # by tensors, maybe, which broadcast as operands do
    if len(node.input_shapes) == 1 and node.get("operand") is None and not bounded:
        return _keeps(node)
    if bounded:
        shapes = (*node.input_shapes, node.output_shape)
        return len(shapes) > 1 and np.broadcast_shapes(*shapes) == node.output_shape
    return _fits_terms(node)


def _fits_embedding(node: Node) -> bool:
    (shape, *_), out = node.input_shapes, node.output_shape
    return prod(out) == prod(shape) * (node.weight_shape or out)[-1]


def _keeps(node: Node) -> bool:
    """Whether as many entries come out as go in."""
    return prod(node.input_shapes[0]) == prod(node.output_shape)


def _keeps_one(node: Node) -> bool:
    return len(node.input_shapes) == 1 and _keeps(node)


def _fits_permute(node: Node) -> bool:
    order = node["order"]
    return _keeps_one(node) and sorted(order) == list(range(len(order)))


def _reads_one(node: Node) -> bool:
    return len(node.input_shapes) > 0


_CHECKS: dict[str, Callable[[Node], bool]] = {
    **dict.fromkeys(OPERATIONS, _reads_one),
    **dict.fromkeys(("output", "local_response_norm", *ACTIVATIONS), _keeps_one),
    **dict.fromkeys(
        ("batch_norm", "layer_norm", "rms_norm", "group_norm", "instance_norm", "prelu"), _keeps
    ),
    "input": lambda node: not node.input_shapes,
    "conv": _fits_conv,
    "conv_transpose": _fits_conv_transpose,
    "max_pool": _fits_pool,
    "avg_pool": _fits_pool,
    "global_avg_pool": _fits_global_pool,
    "global_max_pool": _fits_global_pool,
    "linear": _fits_linear,
    "matmul": _fits_matmul,
    "attention": _fits_attention,
    **dict.fromkeys(("lstm", "gru", "rnn"), _fits_recurrent),
    "cell_state": _fits_cell_state,
    "resize": _fits_resize,
    "slice": _fits_slice,
    "pad": _fits_pad,
    "reduce": _fits_reduce,
    "concat": _fits_concat,
    "expand": _fits_expand,
    "permute": _fits_permute,
    "add": _fits_terms,
    "mul": _fits_terms,
    "elementwise": _fits_elementwise,
    "embedding": _fits_embedding,
}
