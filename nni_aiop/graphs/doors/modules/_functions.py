"""ATen operations entry by entry: activations, arithmetic, casts and copies."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from nni_aiop.graphs.doors.modules._recorder import Recorder
from nni_aiop.graphs.doors.modules._reductions import extreme
from nni_aiop.graphs.doors.modules._table import handles, registered

_SAME_NAME = {
    "relu": "relu",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "silu": "silu",
    "hardswish": "hard_swish",
    "hardsigmoid": "hard_sigmoid",
    "gelu": "gelu",
    "mish": "mish",
    "softplus": "softplus",
    "leaky_relu": "leaky_relu",
    "elu": "elu",
    "selu": "selu",
    "celu": "celu",
}

_UNARY = (
    "abs", "acos", "asin", "atan", "bitwise_not", "ceil", "cos", "cosh", "erf", "exp", "expm1",
    "floor", "isfinite", "isinf", "isnan", "log", "log10", "log1p", "log2",
    "logical_not", "neg", "reciprocal", "round", "rsqrt", "sgn", "sign", "sin", "sinh", "sqrt",
    "square", "tan", "trunc",
)  # fmt: skip

_BINARY = {
    "add": "add",
    "sub": "sub",
    "subtract": "sub",
    "mul": "mul",
    "multiply": "mul",
    "div": "div",
    "divide": "div",
    "true_divide": "div",
    "maximum": "max",
    "minimum": "min",
    "max": "max",
    "min": "min",
    "pow": "pow",
    "remainder": "mod",
    "fmod": "mod",
    "floor_divide": "floor_div",
    "atan2": "atan2",
    "eq": "equal",
    "ne": "not_equal",
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
    "logical_and": "and",
    "logical_or": "or",
    "logical_xor": "xor",
    "bitwise_and": "and",
    "bitwise_or": "or",
    "bitwise_xor": "xor",
}

_IDENTITY = (
    "dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout", "native_dropout",
    "contiguous", "clone", "detach", "alias", "lift_fresh", "to", "_to_copy", "type_as", "float",
    "half", "bfloat16", "double", "positive", "view_as_real_copy", "cuda", "cpu",
)  # fmt: skip


@handles(*_SAME_NAME)
def _activation(rec: Recorder, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    op = _SAME_NAME[func._overloadpacket.__name__.rstrip("_")]
    return rec.emit(op, [rec.value(x)], x.shape, x)


@handles(*_UNARY)
def _unary(rec: Recorder, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    function = func._overloadpacket.__name__.rstrip("_")
    if function == "bitwise_not" and x.dtype == torch.bool:
        function = "logical_not"
    out: Tensor = registered(
        rec,
        func,
        (x, *args),
        kwargs,
        lambda out: rec.apply("unary", [rec.value(x)], out.shape, function=function),
    )
    return out


@handles(*_BINARY)
def _binary(
    rec: Recorder, func: Any, x: Any, other: Any = None, *args: Any, alpha: Any = 1, **kwargs: Any
) -> Any:
    name = func._overloadpacket.__name__.rstrip("_")
    if name in ("max", "min") and not isinstance(other, Tensor):
        return extreme(rec, func, x, other, *args, **kwargs)
    function = _BINARY[name]
    extra = {"alpha": alpha} if alpha != 1 else {}
    a, b = rec.operand(x), rec.operand(other)
    if alpha != 1:
        b = rec.apply("binary", [b, rec.number(alpha)], b.shape, function="mul")
        if b.is_constant and not isinstance(other, Tensor):
            b = rec.number(other * alpha)
    if kwargs.get("rounding_mode"):
        function = "floor_div"
    if (
        isinstance(x, Tensor)
        and isinstance(other, Tensor)
        and x.is_meta
        and x.shape == other.shape
        and x.dtype == other.dtype
        and x.stride() == other.stride()
        and function in ("add", "sub", "mul")
    ):
        return rec.emit("binary", [a, b], x.shape, x, function=function)
    return registered(
        rec,
        func,
        (x, other, *args),
        kwargs | extra,
        lambda out: rec.apply("binary", [a, b], out.shape, function=function),
    )


@handles("log_sigmoid", "log_sigmoid_forward")
def _log_sigmoid(rec: Recorder, func: Any, x: Tensor) -> Any:
    gate = rec.apply("sigmoid", [rec.value(x)], x.shape)
    out = rec.emit("unary", [gate], x.shape, x, function="log")
    return out if func._overloadpacket.__name__ == "log_sigmoid" else (out, out)


@handles("rsub")
def _rsub(rec: Recorder, func: Any, x: Tensor, other: Any, alpha: float = 1) -> Any:
    return _binary(rec, torch.ops.aten.sub.Tensor, other, x, alpha=alpha)


@handles(*_IDENTITY)
def _identity(rec: Recorder, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
    name = func._overloadpacket.__name__.rstrip("_")
    if name.endswith("dropout"):
        p, train = (*args, kwargs.get("train"))[:2]
        if name != "native_dropout" and (not train or p == 0):
            return x
        out = rec.emit("identity", [rec.value(x)], x.shape, x)
        return (out, torch.ones_like(out)) if name == "native_dropout" else out
    if x.is_meta and rec.known.twin(x) is None:
        # There are no values to move: what goes to another device stays where all the rest is.
        args, kwargs = tree_map_only(torch.device, lambda _: x.device, (args, kwargs))
    elif x.is_meta and any(d.type != "meta" for d in _devices(args, kwargs)):
        out = rec.known.compute(func, (x, *args), kwargs).clone()
        rec.register(out, rec.value(x))
        return out
    out = rec.run(func, (x, *args), kwargs)
    if out is not x:
        rec.register_view(out, x, lambda v: v, lambda v: v)
    return out


def _devices(args: Any, kwargs: Any) -> list[torch.device]:
    return [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.device)]


@handles("copy")
def _copy(rec: Recorder, func: Any, x: Tensor, source: Tensor, *args: Any) -> Tensor:
    value = rec.value(source)
    if source.shape != x.shape:
        value = rec.apply("expand", [value], x.shape)
    return rec.emit("identity", [value], x.shape, x)


@handles("fill", "zero")
def _fill(rec: Recorder, func: Any, x: Tensor, number: Any = 0) -> Tensor:
    if isinstance(number, Tensor):
        return rec.emit("expand", [rec.value(number)], x.shape, x)
    known = None if isinstance(number, complex) else float(number)
    return rec.emit("identity", [rec.builder.constant(x.shape, known)], x.shape, x)


@handles("zeros_like", "new_zeros", "zeros")
def _zeros(rec: Recorder, func: Any, *args: Any, **kwargs: Any) -> Any:
    out = rec.run(func, args, kwargs)
    rec.register(out, rec.builder.constant(out.shape, 0.0))
    return out


@handles("ones_like", "new_ones", "ones")
def _ones(rec: Recorder, func: Any, *args: Any, **kwargs: Any) -> Any:
    out = rec.run(func, args, kwargs)
    rec.register(out, rec.builder.constant(out.shape, 1.0))
    return out


@handles("relu6")
def _relu6(rec: Recorder, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
    return rec.emit("clamp", [rec.value(x)], x.shape, x, low=0.0, high=6.0)


@handles("clamp", "clip", "hardtanh", "clamp_min", "clamp_max")
def _clamp(rec: Recorder, func: Any, x: Tensor, *bounds: Any, **kwargs: Any) -> Any:
    name = func._overloadpacket.__name__.rstrip("_")
    bounds = (*bounds, *(None,) * (2 - len(bounds)))
    low = kwargs.get("min", kwargs.get("min_val", bounds[0]))
    high = kwargs.get("max", kwargs.get("max_val", bounds[1]))
    if name == "hardtanh":
        low, high = -1 if low is None else low, 1 if high is None else high
    if name == "clamp_max":
        low, high = None, kwargs.get("max", bounds[0])
    tensors = [b for b in (low, high) if isinstance(b, Tensor)]
    low, high = (None if isinstance(b, Tensor) else b for b in (low, high))
    return rec.emit("clamp", [rec.value(t) for t in (x, *tensors)], x.shape, x, low=low, high=high)


@handles("prelu")
def _prelu(rec: Recorder, func: Any, x: Tensor, weight: Tensor) -> Tensor:
    return rec.emit("prelu", [rec.value(x), rec.value(weight)], x.shape, x)


@handles("softmax", "log_softmax", "_softmax", "_log_softmax", "special_softmax")
def _softmax(rec: Recorder, func: Any, x: Tensor, dim: int, *args: Any, **kwargs: Any) -> Tensor:
    op = "log_softmax" if "log" in func._overloadpacket.__name__ else "softmax"
    return rec.emit(op, [rec.value(x)], x.shape, x, axis=dim)


@handles("glu")
def _glu(rec: Recorder, func: Any, x: Tensor, dim: int = -1) -> Tensor:
    dim %= x.ndim
    half = x.shape[dim] // 2
    shape = tuple(half if axis == dim else size for axis, size in enumerate(x.shape))
    whole = rec.value(x)
    a, b = (
        rec.apply("slice", [whole], shape, axis=dim, start=at, stop=at + half, step=1)
        for at in (0, half)
    )
    gate = rec.apply("sigmoid", [b], shape)
    return rec.emit("binary", [a, gate], shape, x, function="mul")


@handles("where", "masked_fill")
def _where(rec: Recorder, func: Any, *args: Any, **kwargs: Any) -> Any:
    if len(args) < 3:
        return rec.unknown(func, args, kwargs)
    values = [rec.operand(x) for x in args[:3]]
    if func._overloadpacket.__name__.startswith("masked_fill"):
        values = [values[1], values[2], values[0]]
    return registered(
        rec,
        func,
        args,
        kwargs,
        lambda out: rec.apply("unary", values, out.shape, function="where"),
    )


@handles("addcmul", "addcdiv")
def _addc(rec: Recorder, func: Any, x: Any, a: Any, b: Any, *, value: Any = 1) -> Any:
    """x + value * a * b, or over b."""
    function = "mul" if "mul" in func._overloadpacket.__name__ else "div"
    product = _binary(rec, getattr(torch.ops.aten, function).Tensor, a, b)
    return _binary(rec, torch.ops.aten.add.Tensor, x, product, alpha=value)


@handles("lerp")
def _lerp(rec: Recorder, func: Any, x: Tensor, end: Tensor, weight: Any) -> Any:
    values = [rec.operand(v) for v in (x, end, weight)]
    return registered(
        rec,
        func,
        (x, end, weight),
        {},
        lambda out: rec.apply("unary", values, out.shape, function="lerp"),
    )
