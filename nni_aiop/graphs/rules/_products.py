"""Rules 5 and 6: products, linear layers, attention, convolutions."""

from __future__ import annotations

from math import prod

import numpy as np

from nni_aiop.graphs.rules._patterns import is_function, with_constant, without_scale
from nni_aiop.graphs.rules._values import Value, constant

__all__ = ["attention", "conv", "linear", "matmul", "with_padding"]


def linear(value: Value) -> Value:
    """`linear` over rows."""
    weight = value.inputs[1]
    rows = prod(value.input_shapes[0][:-1])
    features, out = value.input_shapes[0][-1], prod(weight.shape[:-1])
    value.input_shapes[0] = (rows, features)
    value.shape = (rows, out)
    value.attributes = {}
    return value


def _grouped_matmul(value: Value) -> Value:
    """`matmul` of groups: (g, m, k), (g, k, n) -> (g, m, n)."""
    value.attributes = {"q_shape": value.input_shapes[0], "k_shape": value.input_shapes[1]}
    constants = [v.is_constant for v in value.inputs]
    if any(constants):
        value.attributes["operand"] = "left" if constants[0] else "right"
    a, b = ((1,) * (2 - len(s)) + tuple(s) for s in value.input_shapes[:2])
    if len(value.input_shapes[1]) == 1:
        b = (value.input_shapes[1][0], 1)
    value.input_shapes[:2] = [(prod(s[:-2]), s[-2], s[-1]) for s in (a, b)]
    groups = prod(np.broadcast_shapes(a[:-2], b[:-2]))
    value.shape = (groups, a[-2], b[-1])
    return value


def matmul(value: Value) -> Value:
    a, b = value.inputs
    if b.is_constant and len(b.shape) == 2:
        weight = constant(b.shape[::-1], learned=b.learned)
        value.op, value.inputs = "linear", [a, weight]
        value.input_shapes = [value.input_shapes[0], weight.shape]
        return linear(value)
    return _attention_of(value) or _grouped_matmul(value)


def _attention_of(value: Value) -> Value | None:
    """softmax(scale * q k^T + mask) v as one attention."""
    weights, v = value.inputs
    if weights.op != "softmax" or weights.uses != 1 or v.is_constant:
        return None
    if weights.attributes["axis"] != len(weights.shape) - 1:
        return None
    masks: list[Value] = []
    scores = _scores(weights.inputs[0], masks)
    if scores is None:
        return None
    masks = [_choice(mask) for mask in masks]
    q, k = scores.inputs
    rank = len(scores.attributes["k_shape"])
    order = (*range(rank - 2), rank - 1, rank - 2)
    q, k = without_scale(q), without_scale(k)
    k_shape = scores.attributes["k_shape"]
    turned = Value(
        "transpose",
        [k],
        tuple(k_shape[axis] for axis in order),
        {"order": order},
        input_shapes=[k_shape],
    )
    fused = Value(
        "attention",
        [q, turned, v, *masks],
        value.shape,
        {},
        value.name,
        input_shapes=[
            scores.attributes["q_shape"],
            turned.shape,
            value.input_shapes[1],
            *(mask.shape for mask in masks),
        ],
    )
    return attention(fused)


def _choice(mask: Value) -> Value:
    """The condition of a mask that is one number or another, as PyTorch takes it."""
    if is_function(mask, "where") and len(mask.inputs) == 3:
        condition, *numbers = mask.inputs
        if condition.shape == mask.shape and all(x.is_constant and x.size == 1 for x in numbers):
            return condition
    return mask


def _scores(value: Value, masks: list[Value]) -> Value | None:
    """The product q k^T behind scaling, masks and reshapes; masks are added to the list."""
    if value.is_constant or value.uses != 1:
        return None
    if value.op == "matmul":
        return value if not any(v.is_constant for v in value.inputs) else None
    if value.op == "reshape":
        return _scores(value.inputs[0], masks)
    if pair := with_constant(value, "mul"):
        return _scores(pair[0], masks) if pair[1].size == 1 else None
    if value.op == "add" or is_function(value, "where"):
        for place, term in enumerate(value.inputs):
            behind: list[Value] = []
            if not term.is_constant and (found := _scores(term, behind)) is not None:
                masks += [*behind, *value.inputs[:place], *value.inputs[place + 1 :]]
                return found
    return None


def attention(value: Value) -> Value:
    """`attention` over groups."""
    q, k, v = ((1,) * (3 - len(s)) + tuple(s) for s in value.input_shapes[:3])
    value.attributes = {"mask": len(value.inputs) > 3}
    names = "".join(n for n, v in zip("qkv", value.inputs, strict=False) if v.is_constant)
    if names:
        value.attributes["constant"] = names
    value.input_shapes[:3] = [(prod(s[:-2]), s[-2], s[-1]) for s in (q, k, v)]
    value.shape = (prod(value.shape[:-2]), q[-2], v[-1])
    value.inputs[:2] = [without_scale(x) for x in value.inputs[:2]]
    return value


def conv(value: Value) -> Value:
    return with_padding(value, 0.0)


def with_padding(value: Value, number: float) -> Value:
    """The operation that does itself what a pad of its spatial axes by `number` does before it."""
    pad = value.inputs[0]
    if pad.op != "pad" or pad.attributes["mode"] != "constant":
        return value
    if pad.attributes.get("number") != number or pad.shape != value.input_shapes[0]:
        return value
    extra = {axis: (before, after) for axis, before, after in pad.attributes["padding"]}
    if min(extra) < 2 or any(n < 0 for pair in extra.values() for n in pair):
        return value
    value.attributes["padding"] = tuple(
        (before + extra.get(axis, (0, 0))[0], after + extra.get(axis, (0, 0))[1])
        for axis, (before, after) in enumerate(value.attributes["padding"], start=2)
    )
    value.inputs[0] = pad.inputs[0]
    value.input_shapes[0] = pad.input_shapes[0]
    return value
