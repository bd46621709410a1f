"""What ATen operations mean in the words of `Builder`: a table, and a function where one must be.

A handler gets the recorder, the operation and its arguments, and returns the result as a meta
tensor that the recorder knows. Operations in place (`relu_`) share the handler of their twin.
Shapes of the common operations are worked out here, because PyTorch's own meta kernels for
convolutions, pooling and normalisation are several times slower.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nni_aiop.graphs._builder import Value

if TYPE_CHECKING:
    from nni_aiop.graphs._recorder import Recorder

__all__ = ["FACTORIES", "HANDLERS"]

Handler = Callable[..., Any]

HANDLERS: dict[str, Handler] = {}
"""Handler of each operation, by the name of its packet without a trailing underscore."""

FACTORIES = frozenset(
    {
        "arange", "empty", "empty_like", "empty_strided", "eye", "full", "full_like", "linspace",
        "logspace", "new_empty", "new_empty_strided", "new_full", "new_ones", "new_zeros", "ones",
        "ones_like", "rand", "rand_like", "randn", "randn_like", "randint", "scalar_tensor",
        "tril_indices", "triu_indices", "zeros", "zeros_like", "bernoulli",
    }
)  # fmt: skip
"""Operations whose result does not depend on their tensors' values: constants."""


def _handles(*names: str) -> Callable[[Handler], Handler]:
    def add(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return add


# --- entry by entry ------------------------------------------------------------------------------

_SAME_NAME = {
    "relu": "relu",
    "relu6": "relu6",
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


def _out(rec: Recorder, func: Any, args: Any, kwargs: Any, value: Callable[[Tensor], Value]) -> Any:
    """The meta kernel's result, registered with the value made for it."""
    out = rec.run(_out_of_place(func), args, kwargs)
    rec.register(out, value(out))
    return out


def _out_of_place(func: Any) -> Any:
    """The twin of an operation in place, so that the meta kernel makes a new tensor."""
    name = func._overloadpacket.__name__
    if not name.endswith("_") or name.endswith("__"):
        return func
    packet = getattr(torch.ops.aten, name[:-1])
    return getattr(packet, func._overloadname, packet)


def _activation(rec: Recorder, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    op = _SAME_NAME[func._overloadpacket.__name__.rstrip("_")]
    return rec.emit(op, [rec.value(x)], x.shape, x)


def _unary(rec: Recorder, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    function = func._overloadpacket.__name__.rstrip("_")
    if function == "bitwise_not" and x.dtype == torch.bool:
        function = "logical_not"
    out: Tensor = _out(
        rec,
        func,
        (x, *args),
        kwargs,
        lambda out: rec.apply("unary", [rec.value(x)], out.shape, function=function),
    )
    return out


def _binary(
    rec: Recorder, func: Any, x: Any, other: Any = None, *args: Any, alpha: Any = 1, **kwargs: Any
) -> Any:
    name = func._overloadpacket.__name__.rstrip("_")
    if name in ("max", "min") and not isinstance(other, Tensor):
        return _extreme(rec, func, x, other, *args, **kwargs)
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
        and function in ("add", "sub", "mul")
    ):
        return rec.emit("binary", [a, b], x.shape, x, function=function)
    return _out(
        rec,
        func,
        (x, other, *args),
        kwargs | extra,
        lambda out: rec.apply("binary", [a, b], out.shape, function=function),
    )


@_handles("log_sigmoid", "log_sigmoid_forward")
def _log_sigmoid(rec: Recorder, func: Any, x: Tensor) -> Any:
    gate = rec.apply("sigmoid", [rec.value(x)], x.shape)
    out = rec.emit("unary", [gate], x.shape, x, function="log")
    return out if func._overloadpacket.__name__ == "log_sigmoid" else (out, out)


@_handles("rsub")
def _rsub(rec: Recorder, func: Any, x: Tensor, other: Any, alpha: float = 1) -> Any:
    return _binary(rec, torch.ops.aten.sub.Tensor, other, x, alpha=alpha)


def _identity(rec: Recorder, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
    name = func._overloadpacket.__name__.rstrip("_")
    if name.endswith("dropout"):
        if func._overloadpacket.__name__.endswith("_"):
            return x
        out = torch.empty(x.shape, dtype=x.dtype, device="meta")
        rec.register(out, rec.value(x))
        return (out, out) if name == "native_dropout" else out
    out = rec.run(func, (x, *args), kwargs)
    if out is x:
        return out
    if out.untyped_storage()._cdata == x.untyped_storage()._cdata:
        rec.register_view(out, x, lambda v: v, lambda v: v)
    else:
        rec.register(out, rec.value(x))
    return out


@_handles("copy")
def _copy(rec: Recorder, func: Any, x: Tensor, source: Tensor, *args: Any) -> Tensor:
    value = rec.value(source)
    if source.shape != x.shape:
        value = rec.apply("expand", [value], x.shape)
    out = torch.empty(x.shape, dtype=x.dtype, device="meta")
    rec.register(out, value)
    return out


@_handles("fill", "zero")
def _fill(rec: Recorder, func: Any, x: Tensor, number: Any = 0) -> Tensor:
    out = torch.empty(x.shape, dtype=x.dtype, device="meta")
    known = None if isinstance(number, Tensor) else float(number)
    rec.register(out, rec.builder.constant(x.shape, known))
    return out


@_handles("zeros_like", "new_zeros", "zeros")
def _zeros(rec: Recorder, func: Any, *args: Any, **kwargs: Any) -> Any:
    out = rec.run(func, args, kwargs)
    rec.register(out, rec.builder.constant(out.shape, 0.0))
    return out


@_handles("ones_like", "new_ones", "ones")
def _ones(rec: Recorder, func: Any, *args: Any, **kwargs: Any) -> Any:
    out = rec.run(func, args, kwargs)
    rec.register(out, rec.builder.constant(out.shape, 1.0))
    return out


@_handles("clamp", "clip", "hardtanh", "clamp_min", "clamp_max")
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


@_handles("prelu")
def _prelu(rec: Recorder, func: Any, x: Tensor, weight: Tensor) -> Tensor:
    return rec.emit("prelu", [rec.value(x), rec.value(weight)], x.shape, x)


@_handles("softmax", "log_softmax", "_softmax", "_log_softmax", "special_softmax")
def _softmax(rec: Recorder, func: Any, x: Tensor, dim: int, *args: Any, **kwargs: Any) -> Tensor:
    op = "log_softmax" if "log" in func._overloadpacket.__name__ else "softmax"
    return rec.emit(op, [rec.value(x)], x.shape, x, axis=dim)


@_handles("glu")
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


@_handles("where", "masked_fill")
def _where(rec: Recorder, func: Any, *args: Any, **kwargs: Any) -> Any:
    if len(args) < 3:
        return rec.unknown(func, args, kwargs)
    values = [rec.operand(x) for x in args[:3]]
    if func._overloadpacket.__name__.startswith("masked_fill"):
        values = [values[1], values[2], values[0]]
    return _out(
        rec,
        func,
        args,
        kwargs,
        lambda out: rec.apply("unary", values, out.shape, function="where"),
    )


@_handles("addcmul", "addcdiv")
def _addc(rec: Recorder, func: Any, x: Any, a: Any, b: Any, *, value: Any = 1) -> Any:
    """x + value * a * b, or over b."""
    function = "mul" if "mul" in func._overloadpacket.__name__ else "div"
    product = _binary(rec, getattr(torch.ops.aten, function).Tensor, a, b)
    return _binary(rec, torch.ops.aten.add.Tensor, x, product, alpha=value)


@_handles("lerp")
def _lerp(rec: Recorder, func: Any, x: Tensor, end: Tensor, weight: Any) -> Any:
    values = [rec.operand(v) for v in (x, end, weight)]
    return _out(
        rec,
        func,
        (x, end, weight),
        {},
        lambda out: rec.apply("unary", values, out.shape, function="lerp"),
    )


# --- convolutions, linear layers, products -------------------------------------------------------


def _each(value: Any, n: int) -> tuple[int, ...]:
    """An integer or a list of one or n of them, as n."""
    if isinstance(value, int):
        return (value,) * n
    return tuple(value) * n if len(value) == 1 else tuple(value)


def _same_padding(kernel: Sequence[int], dilation: Sequence[int]) -> tuple[tuple[int, int], ...]:
    totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    return tuple((total // 2, total - total // 2) for total in totals)


def _window(
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[tuple[int, int]],
    dilation: Sequence[int],
    *,
    ceil: bool = False,
) -> tuple[int, ...]:
    """How often a window fits along each axis."""
    out = []
    for size, k, s, (before, after), d in zip(
        sizes, kernel, stride, padding, dilation, strict=True
    ):
        room = size + before + after - d * (k - 1) - 1
        if room < 0:
            raise RuntimeError(
                f"kernel size can't be greater than actual input size: a window of "
                f"{d * (k - 1) + 1} on {size + before + after}"
            )
        n = room // s + 1
        if ceil and -(-room // s) + 1 > n and n * s < size + before:
            n += 1
        out.append(n)
    return tuple(out)


def _conv_forward(
    rec: Recorder,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> Tensor:
    n = weight.ndim - 2
    kernel = tuple(weight.shape[2:])
    stride, dilation = _each(stride, n), _each(dilation, n)
    if isinstance(padding, str):
        pads = ((0, 0),) * n if padding == "valid" else _same_padding(kernel, dilation)
    else:
        pads = tuple((p, p) for p in _each(padding, n))
    value = rec.value(x)
    batched = x.ndim == n + 2
    shape = tuple(x.shape) if batched else (1, *x.shape)
    if shape[1] != weight.shape[1] * groups:
        raise RuntimeError(
            f"expected input to have {weight.shape[1] * groups} channels, but got {shape[1]}"
        )
    if not batched:
        value = rec.apply("reshape", [value], shape)
    sizes = (shape[0], weight.shape[0], *_window(shape[2:], kernel, stride, pads, dilation))
    inputs = [value, rec.value(weight)] + ([] if bias is None else [rec.value(bias)])
    out = rec.emit(
        "conv",
        inputs,
        sizes,
        x,
        kernel=kernel,
        stride=stride,
        padding=pads,
        dilation=dilation,
        groups=groups,
    )
    return out if batched else out.squeeze(0)


@_handles("conv1d", "conv2d", "conv3d")
def _conv(
    rec: Recorder,
    func: Any,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    return _conv_forward(rec, x, weight, bias, stride, padding, dilation, groups)


def _conv_transpose_forward(
    rec: Recorder,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: int,
    dilation: Any,
) -> Tensor:
    n = weight.ndim - 2
    kernel = tuple(weight.shape[2:])
    stride, dilation, padding, extra = (
        _each(v, n) for v in (stride, dilation, padding, output_padding)
    )
    spatial = tuple(
        (size - 1) * s - 2 * p + d * (k - 1) + e + 1
        for size, s, p, d, k, e in zip(
            x.shape[2:], stride, padding, dilation, kernel, extra, strict=True
        )
    )
    inputs = [rec.value(x), rec.value(weight)] + ([] if bias is None else [rec.value(bias)])
    return rec.emit(
        "conv_transpose",
        inputs,
        (x.shape[0], weight.shape[1] * groups, *spatial),
        x,
        kernel=kernel,
        stride=stride,
        padding=tuple((p, p) for p in padding),
        dilation=dilation,
        groups=groups,
    )


@_handles("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _conv_transpose(
    rec: Recorder,
    func: Any,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    return _conv_transpose_forward(
        rec, x, weight, bias, stride, padding, output_padding, groups, dilation
    )


@_handles("convolution", "_convolution")
def _convolution(
    rec: Recorder,
    func: Any,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
    *args: Any,
    **kwargs: Any,
) -> Tensor:
    if transposed:
        return _conv_transpose_forward(
            rec, x, weight, bias, stride, padding, output_padding, groups, dilation
        )
    return _conv_forward(rec, x, weight, bias, stride, padding, dilation, groups)


@_handles("linear")
def _linear(
    rec: Recorder, func: Any, x: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    if x.shape[-1] != weight.shape[-1]:
        raise RuntimeError(
            f"shapes cannot be multiplied: {tuple(x.shape)} and {tuple(weight.shape)} transposed"
        )
    inputs = [rec.value(v) for v in (x, weight, bias) if v is not None]
    return rec.emit("linear", inputs, (*x.shape[:-1], *weight.shape[:-1]), x)


@_handles("matmul", "mm", "bmm", "mv", "dot")
def _matmul(rec: Recorder, func: Any, a: Tensor, b: Tensor) -> Any:
    return _out(
        rec,
        func,
        (a, b),
        {},
        lambda out: rec.apply("matmul", [rec.value(a), rec.value(b)], out.shape),
    )


@_handles("addmm", "addbmm", "baddbmm", "addmv")
def _addmm(
    rec: Recorder, func: Any, base: Tensor, a: Tensor, b: Tensor, *, beta: Any = 1, alpha: Any = 1
) -> Any:
    out = rec.run(_out_of_place(func), (base, a, b), {"beta": beta, "alpha": alpha})
    product = rec.apply("matmul", [rec.value(a), rec.value(b)], out.shape)
    for factor in (alpha,):
        if factor != 1:
            product = rec.apply("binary", [product, rec.number(factor)], out.shape, function="mul")
    if beta == 0:
        rec.register(out, product)
    else:
        rec.register(
            out, rec.apply("binary", [product, rec.value(base)], out.shape, function="add")
        )
    return out


@_handles("einsum")
def _einsum(
    rec: Recorder, func: Any, equation: str, operands: Sequence[Tensor], *args: Any, **kwargs: Any
) -> Any:
    value = rec.builder.einsum(equation, [rec.value(x) for x in operands], name=rec.scope[-1])
    if value is None:
        return rec.unknown(func, (equation, operands), kwargs)
    out = torch.empty(value.shape, dtype=operands[0].dtype, device="meta")
    rec.register(out, value)
    return out


@_handles("scaled_dot_product_attention")
def _attention(
    rec: Recorder,
    func: Any,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **kwargs: Any,
) -> Tensor:
    masks = [] if attn_mask is None else [rec.value(attn_mask)]
    if is_causal:
        masks.append(rec.builder.constant((q.shape[-2], k.shape[-2])))
    inputs = [*map(rec.value, (q, k, v)), *masks]
    return rec.emit("attention", inputs, (*q.shape[:-1], v.shape[-1]), q)


# --- normalisations ------------------------------------------------------------------------------


def _norm_inputs(
    rec: Recorder, x: Tensor, tensors: Sequence[Tensor | None], channels: int
) -> list[Value]:
    """x, scale and shift; a missing scale is all ones, which is how ONNX writes it."""
    values = [None if t is None else rec.value(t) for t in tensors]
    if values[0] is None:
        values[0] = rec.builder.constant((channels,), 1.0)
    return [rec.value(x), *(v for v in values if v is not None)]


@_handles(
    "batch_norm", "native_batch_norm", "cudnn_batch_norm", "_native_batch_norm_legit_no_training"
)
def _batch_norm(
    rec: Recorder,
    func: Any,
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    mean: Tensor | None = None,
    var: Tensor | None = None,
    *args: Any,
    **kwargs: Any,
) -> Any:
    inputs = _norm_inputs(rec, x, (weight, bias, mean, var), x.shape[1])
    out = rec.emit("batch_norm", inputs, x.shape, x)
    return out if func._overloadpacket.__name__ == "batch_norm" else (out, out, out)


@_handles("instance_norm")
def _instance_norm(
    rec: Recorder, func: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, *args: Any
) -> Tensor:
    inputs = _norm_inputs(rec, x, (weight, bias), x.shape[1])
    return rec.emit("instance_norm", inputs, x.shape, x)


@_handles("layer_norm", "native_layer_norm")
def _layer_norm(
    rec: Recorder,
    func: Any,
    x: Tensor,
    shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *args: Any,
    **kwargs: Any,
) -> Any:
    inputs = [rec.value(v) for v in (x, weight, bias) if v is not None]
    out = rec.emit("layer_norm", inputs, x.shape, x)
    return out if func._overloadpacket.__name__ == "layer_norm" else (out, out, out)


@_handles("rms_norm", "_fused_rms_norm")
def _rms_norm(
    rec: Recorder,
    func: Any,
    x: Tensor,
    shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Any:
    inputs = [rec.value(v) for v in (x, weight) if v is not None]
    out = rec.emit("rms_norm", inputs, x.shape, x)
    return out if func._overloadpacket.__name__ == "rms_norm" else (out, out)


@_handles("group_norm")
def _group_norm(
    rec: Recorder,
    func: Any,
    x: Tensor,
    groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *args: Any,
    **kwargs: Any,
) -> Tensor:
    inputs = [rec.value(v) for v in (x, weight, bias) if v is not None]
    return rec.emit("group_norm", inputs, x.shape, x, groups=groups)


# --- pooling and reductions ----------------------------------------------------------------------


def _pool_forward(
    rec: Recorder,
    op: str,
    x: Tensor,
    n: int,
    kernel: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil: bool,
) -> Tensor:
    kernel, padding, dilation = (_each(v, n) for v in (kernel, padding, dilation))
    stride = kernel if stride is None or stride == [] else _each(stride, n)
    pads = tuple((p, p) for p in padding)
    spatial = _window(x.shape[-n:], kernel, stride, pads, dilation, ceil=ceil)
    attributes = {"kernel": kernel, "stride": stride, "padding": pads}
    if op == "max_pool":
        attributes["dilation"] = dilation
    return rec.emit(op, [rec.value(x)], (*x.shape[:-n], *spatial), x, **attributes)


@_handles("max_pool1d", "max_pool2d", "max_pool3d")
def _max_pool(
    rec: Recorder,
    func: Any,
    x: Tensor,
    kernel: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> Tensor:
    n = int(func._overloadpacket.__name__[-2])
    return _pool_forward(rec, "max_pool", x, n, kernel, stride, padding, dilation, ceil_mode)


@_handles("max_pool2d_with_indices", "max_pool3d_with_indices")
def _max_pool_with_indices(rec: Recorder, func: Any, *args: Any, **kwargs: Any) -> Any:
    plain = getattr(torch.ops.aten, func._overloadpacket.__name__.removesuffix("_with_indices"))
    out = _max_pool(rec, plain.default, *args, **kwargs)
    indices = rec.run(func, args, kwargs)[1]
    rec.register(indices, rec.apply("max_pool_indices", [rec.value(args[0])], indices.shape))
    return out, indices


@_handles("avg_pool1d", "avg_pool2d", "avg_pool3d")
def _avg_pool(
    rec: Recorder,
    func: Any,
    x: Tensor,
    kernel: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    *args: Any,
    **kwargs: Any,
) -> Tensor:
    n = int(func._overloadpacket.__name__[-2])
    return _pool_forward(rec, "avg_pool", x, n, kernel, stride, padding, 1, ceil_mode)


@_handles(
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "_adaptive_avg_pool2d",
)
def _adaptive_pool(rec: Recorder, func: Any, x: Tensor, size: Any) -> Any:
    name = func._overloadpacket.__name__.lstrip("_")
    n = int(name[-2])
    size = tuple(
        have if want is None else want
        for have, want in zip(x.shape[-n:], _each(size, n), strict=True)
    )
    kind = "avg" if "avg" in name else "max"
    shape = (*x.shape[:-n], *size)
    if all(have % want == 0 for have, want in zip(x.shape[-n:], size, strict=True)):
        kernel = tuple(have // want for have, want in zip(x.shape[-n:], size, strict=True))
        attributes = {"kernel": kernel, "stride": kernel, "padding": ((0, 0),) * n}
        if kind == "max":
            attributes["dilation"] = (1,) * n
        op = f"{kind}_pool" if max(kernel) > 1 else "identity"
        out = rec.emit(op, [rec.value(x)], shape, x, **attributes)
    else:
        out = rec.emit(f"adaptive_{kind}_pool", [rec.value(x)], shape, x)
    return out if kind == "avg" else (out, out)


_REDUCE = {
    "mean": "mean",
    "sum": "sum",
    "amax": "max",
    "amin": "min",
    "prod": "prod",
    "logsumexp": "logsumexp",
    "argmax": "argmax",
    "argmin": "argmin",
    "all": "all",
    "any": "any",
}


def _axes(x: Tensor, dim: Any) -> tuple[int, ...]:
    if dim is None or dim == []:
        return tuple(range(x.ndim))
    dims = (dim,) if isinstance(dim, int) else tuple(dim)
    return tuple(d % max(x.ndim, 1) for d in dims)


def _reduce(
    rec: Recorder, func: Any, x: Tensor, dim: Any = None, keepdim: bool = False, **kwargs: Any
) -> Any:
    kind = _REDUCE[func._overloadpacket.__name__]
    axes = _axes(x, dim)
    return _out(
        rec,
        func,
        (x,) if dim is None and not keepdim else (x, dim, keepdim),
        kwargs,
        lambda out: rec.apply(
            "reduce", [rec.value(x)], out.shape, kind=kind, axes=axes, keep=keepdim
        ),
    )


def _extreme(
    rec: Recorder, func: Any, x: Tensor, dim: Any = None, keepdim: bool = False, **kwargs: Any
) -> Any:
    """max and min over one axis (with their places) or all."""
    kind = func._overloadpacket.__name__
    axes = _axes(x, dim)
    result = rec.run(func, (x,) if dim is None else (x, dim, keepdim), kwargs)
    first = result if dim is None else result[0]
    rec.register(first, rec.apply("reduce", [rec.value(x)], first.shape, kind=kind, axes=axes))
    if dim is not None:
        rec.register(
            result[1],
            rec.apply("reduce", [rec.value(x)], first.shape, kind=f"arg{kind}", axes=axes),
        )
    return result


@_handles("norm", "linalg_vector_norm", "frobenius_norm")
def _vector_norm(
    rec: Recorder,
    func: Any,
    x: Tensor,
    p: Any = 2,
    dim: Any = None,
    keepdim: bool = False,
    **kwargs: Any,
) -> Any:
    kind = {1: "l1", 2: "l2", None: "l2", "fro": "l2"}.get(p, "norm")
    axes = _axes(x, dim)
    shape = tuple(
        1 if axis in axes else size
        for axis, size in enumerate(x.shape)
        if keepdim or axis not in axes
    )
    return rec.emit("reduce", [rec.value(x)], shape, x, kind=kind, axes=axes, keep=keepdim)


def _variance(
    rec: Recorder, x: Tensor, axes: tuple[int, ...], correction: float, shape: Sequence[int]
) -> list[Value]:
    """(mean, variance), written out as ONNX has them; `shape` is that of the variance."""
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
    value = rec.value(x)
    n = prod(x.shape[axis] for axis in axes)
    mean = rec.apply("reduce", [value], kept, kind="mean", axes=axes, keep=True)
    deviation = rec.apply("binary", [value, mean], x.shape, function="sub")
    square = rec.apply("binary", [deviation, deviation], x.shape, function="mul")
    keep = len(shape) == len(kept)
    var = rec.apply("reduce", [square], shape, kind="mean", axes=axes, keep=keep)
    if correction:
        factor = rec.number(n / (n - correction) if n > correction else math.nan)
        var = rec.apply("binary", [var, factor], shape, function="mul")
    return [mean, var]


@_handles("var", "std", "var_mean", "std_mean")
def _var(rec: Recorder, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
    name = func._overloadpacket.__name__
    result = rec.run(func, (x, *args), kwargs)
    overload = func._overloadname
    dim = args[0] if args and not isinstance(args[0], bool) else kwargs.get("dim")
    if "correction" in overload:
        correction = kwargs.get("correction")
        correction = 1 if correction is None else correction
    else:
        flags = [a for a in args if isinstance(a, bool)] + [kwargs.get("unbiased", True)]
        correction = int(flags[0])
    results = result if isinstance(result, tuple) else (result,)
    mean, var = _variance(rec, x, _axes(x, dim), correction, tuple(results[0].shape))
    if name.startswith("std"):
        var = rec.apply("unary", [var], var.shape, function="sqrt")
    for out, value in zip(results, (var, mean), strict=False):
        rec.register(out, rec.apply("reshape", [value], out.shape))
    return result


# --- layout --------------------------------------------------------------------------------------


@_handles(
    "view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "_unsafe_view", "view_as",
    "reshape_as", "atleast_1d", "_reshape_alias", "ravel",
)  # fmt: skip
def _reshape(rec: Recorder, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
    out = rec.run(func, (x, *args), kwargs)
    if out is x:
        return out
    before, after = tuple(x.shape), tuple(out.shape)
    rec.register_view(
        out,
        x,
        lambda v: rec.apply("reshape", [v], after),
        lambda v: rec.apply("reshape", [v], before),
    )
    return out


def _permuted(rec: Recorder, out: Tensor, x: Tensor, order: Sequence[int]) -> Tensor:
    order = tuple(axis % x.ndim for axis in order)
    back = tuple(order.index(axis) for axis in range(x.ndim))
    before, after = tuple(x.shape), tuple(out.shape)
    rec.register_view(
        out,
        x,
        lambda v: rec.apply("transpose", [v], after, order=order),
        lambda v: rec.apply("transpose", [v], before, order=back),
    )
    return out


@_handles("transpose", "swapaxes", "swapdims")
def _transpose(rec: Recorder, func: Any, x: Tensor, a: int, b: int) -> Tensor:
    order = list(range(x.ndim))
    order[a], order[b] = order[b], order[a]
    return _permuted(rec, rec.run(torch.ops.aten.transpose.int, (x, a, b), {}), x, order)


@_handles("t", "numpy_T", "mT", "matrix_H", "adjoint")
def _matrix_transpose(rec: Recorder, func: Any, x: Tensor) -> Tensor:
    order = list(range(x.ndim))
    name = func._overloadpacket.__name__
    if name == "numpy_T":
        order = order[::-1]
    elif x.ndim > 1:
        order[-2:] = [order[-1], order[-2]]
    return _permuted(rec, rec.run(torch.ops.aten.permute.default, (x, order), {}), x, order)


@_handles("permute", "movedim", "moveaxis")
def _permute(rec: Recorder, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    if func._overloadpacket.__name__ != "permute":
        source, target = (_each(v, 1) for v in args)
        rest = [axis for axis in range(x.ndim) if axis not in [s % x.ndim for s in source]]
        order = rest
        for to, axis in sorted(
            (t % x.ndim, s % x.ndim) for s, t in zip(source, target, strict=True)
        ):
            order.insert(to, axis)
    else:
        order = list(args[0] if args else kwargs["dims"])
    return _permuted(rec, rec.run(torch.ops.aten.permute.default, (x, order), {}), x, order)


@_handles("expand", "expand_as", "repeat", "tile", "broadcast_to")
def _expand(rec: Recorder, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
    out = rec.run(func, (x, *args), kwargs)
    after = tuple(out.shape)
    op = "reshape" if prod(after) == x.numel() else "expand"
    rec.register_view(out, x, lambda v: rec.apply(op, [v], after))
    return out


def _shuffled(
    rec: Recorder, x: Tensor, split: Sequence[int], order: Sequence[int], shape: Sequence[int]
) -> Tensor:
    """A tensor split into axes, permuted, and put together again."""
    value = rec.apply("reshape", [rec.value(x)], split)
    moved = [split[axis] for axis in order]
    value = rec.apply("transpose", [value], moved, order=tuple(order))
    return rec.emit("reshape", [value], shape, x)


@_handles("pixel_shuffle")
def _pixel_shuffle(rec: Recorder, func: Any, x: Tensor, r: int) -> Tensor:
    *lead, c, h, w = x.shape
    n = len(lead)
    order = [*range(n), n, n + 3, n + 1, n + 4, n + 2]
    return _shuffled(
        rec, x, [*lead, c // (r * r), r, r, h, w], order, [*lead, c // (r * r), h * r, w * r]
    )


@_handles("pixel_unshuffle")
def _pixel_unshuffle(rec: Recorder, func: Any, x: Tensor, r: int) -> Tensor:
    *lead, c, h, w = x.shape
    n = len(lead)
    order = [*range(n), n, n + 2, n + 4, n + 1, n + 3]
    return _shuffled(
        rec, x, [*lead, c, h // r, r, w // r, r], order, [*lead, c * r * r, h // r, w // r]
    )


@_handles("channel_shuffle", "native_channel_shuffle")
def _channel_shuffle(rec: Recorder, func: Any, x: Tensor, groups: int) -> Tensor:
    b, c, *rest = x.shape
    order = [0, 2, 1, *range(3, 3 + len(rest))]
    return _shuffled(rec, x, [b, groups, c // groups, *rest], order, x.shape)


# --- cutting and joining -------------------------------------------------------------------------


def _cut(
    rec: Recorder, out: Tensor, x: Tensor, axis: int, start: int, stop: int, step: int
) -> None:
    shape = tuple(out.shape)
    kept = tuple(
        len(range(start, stop, step)) if a == axis else size for a, size in enumerate(x.shape)
    )

    def replay(value: Value) -> Value:
        part = rec.apply("slice", [value], kept, axis=axis, start=start, stop=stop, step=step)
        return part if kept == shape else rec.apply("reshape", [part], shape)

    rec.register_view(out, x, replay)


@_handles("slice")
def _slice(
    rec: Recorder,
    func: Any,
    x: Tensor,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Any:
    out = rec.run(func, (x, dim, start, end, step), {})
    dim %= x.ndim
    low, high, step = slice(start, end, step).indices(x.shape[dim])
    _cut(rec, out, x, dim, low, max(low, high), step)
    return out


@_handles("narrow")
def _narrow(rec: Recorder, func: Any, x: Tensor, dim: int, start: int, length: int) -> Any:
    return _slice(rec, torch.ops.aten.slice.Tensor, x, dim, start, start + length)


@_handles("select")
def _select(rec: Recorder, func: Any, x: Tensor, dim: int, index: int) -> Any:
    out = rec.run(func, (x, dim, index), {})
    dim %= x.ndim
    index %= x.shape[dim]
    _cut(rec, out, x, dim, index, index + 1, 1)
    return out


@_handles(
    "split", "chunk", "split_with_sizes", "tensor_split", "unbind", "unsafe_chunk", "unsafe_split",
    "hsplit", "vsplit",
)  # fmt: skip
def _split(rec: Recorder, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
    parts = rec.run(func, (x, *args), kwargs)
    name = func._overloadpacket.__name__
    place = 0 if name == "unbind" else 1
    dim = kwargs.get("dim", args[place] if len(args) > place else 0) % x.ndim
    if name in ("hsplit", "vsplit"):
        dim = 1 if name == "hsplit" and x.ndim > 1 else 0
    at = 0
    for part in parts:
        length = 1 if name == "unbind" else part.shape[dim]
        _cut(rec, part, x, dim, at, at + length, 1)
        at += length
    return parts


@_handles("cat", "concat", "concatenate")
def _cat(rec: Recorder, func: Any, tensors: Sequence[Tensor], dim: int = 0) -> Any:
    used = [t for t in tensors if t.shape != (0,)]
    return _out(
        rec,
        func,
        (tensors, dim),
        {},
        lambda out: rec.apply("concat", [rec.value(t) for t in used], out.shape, axis=dim),
    )


@_handles("stack")
def _stack(rec: Recorder, func: Any, tensors: Sequence[Tensor], dim: int = 0) -> Any:
    def stacked(out: Tensor) -> Value:
        axis = dim % out.ndim
        one = tuple(1 if a == axis else size for a, size in enumerate(out.shape))
        parts = [rec.apply("reshape", [rec.value(t)], one) for t in tensors]
        return rec.apply("concat", parts, out.shape, axis=axis)

    return _out(rec, func, (tensors, dim), {}, stacked)


@_handles("roll")
def _roll(rec: Recorder, func: Any, x: Tensor, shifts: Any, dims: Any = ()) -> Any:
    shifts, dims = _each(shifts, 1), _each(dims, 1)
    if not dims:
        return rec.unknown(func, (x, shifts), {})
    value = rec.value(x)
    for shift, dim in zip(shifts, dims, strict=True):
        dim %= x.ndim
        size = x.shape[dim]
        cut = -shift % size
        if cut == 0:
            continue
        parts = []
        for start, stop in ((cut, size), (0, cut)):
            shape = tuple(stop - start if a == dim else n for a, n in enumerate(x.shape))
            parts.append(
                rec.apply("slice", [value], shape, axis=dim, start=start, stop=stop, step=1)
            )
        value = rec.apply("concat", parts, x.shape, axis=dim)
    out = torch.empty(x.shape, dtype=x.dtype, device="meta")
    rec.register(out, value)
    return out


@_handles("flip")
def _flip(rec: Recorder, func: Any, x: Tensor, dims: Sequence[int]) -> Tensor:
    value = rec.value(x)
    for dim in dims:
        dim %= x.ndim
        size = x.shape[dim]
        value = rec.apply(
            "slice", [value], x.shape, axis=dim, start=size - 1, stop=-size - 1, step=-1
        )
    out = torch.empty(x.shape, dtype=x.dtype, device="meta")
    rec.register(out, value)
    return out


@_handles("pad", "constant_pad_nd", "reflection_pad2d", "replication_pad2d", "reflection_pad1d")
def _pad(
    rec: Recorder,
    func: Any,
    x: Tensor,
    amounts: Sequence[int],
    mode: Any = "constant",
    value: Any = None,
) -> Any:
    name = func._overloadpacket.__name__
    if name == "constant_pad_nd":
        mode, value = "constant", mode if not isinstance(mode, str) else 0
    elif name != "pad":
        mode = name.split("_")[0]
    mode = {"reflection": "reflect", "replication": "replicate"}.get(mode, mode)
    padding = tuple(
        (x.ndim - 1 - place, amounts[2 * place], amounts[2 * place + 1])
        for place in range(len(amounts) // 2)
    )[::-1]
    shape = list(x.shape)
    for axis, before, after in padding:
        shape[axis] += before + after
    return rec.emit(
        "pad",
        [rec.value(x)],
        shape,
        x,
        padding=padding,
        mode=mode,
        number=float(value or 0) if mode == "constant" else None,
    )


def _resize(rec: Recorder, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
    name = func._overloadpacket.__name__
    mode = next(m for m in ("nearest", "linear", "cubic") if m in name)
    return _out(
        rec,
        func,
        (x, *args),
        kwargs,
        lambda out: rec.apply("resize", [rec.value(x)], out.shape, mode=mode),
    )


@_handles("embedding")
def _embedding(
    rec: Recorder, func: Any, weight: Tensor, index: Tensor, *args: Any, **kw: Any
) -> Any:
    values = [rec.value(index), rec.value(weight)]
    return rec.emit("embedding", values, (*index.shape, weight.shape[1]), weight)


@_handles("gather")
def _gather(rec: Recorder, func: Any, x: Tensor, dim: int, index: Tensor, **kwargs: Any) -> Any:
    return rec.emit("gather_elements", [rec.value(x), rec.value(index)], index.shape, x)


@_handles("index_select")
def _index_select(rec: Recorder, func: Any, x: Tensor, dim: int, index: Tensor) -> Any:
    return _out(
        rec,
        func,
        (x, dim, index),
        {},
        lambda out: rec.apply(
            "gather", [rec.value(x), rec.value(index)], out.shape, axis=dim % x.ndim
        ),
    )


@_handles("index")
def _index(rec: Recorder, func: Any, x: Tensor, indices: Sequence[Tensor | None]) -> Any:
    given = [(axis, index) for axis, index in enumerate(indices) if index is not None]
    if len(given) != 1 or given[0][1].dtype == torch.bool:
        return rec.unknown(func, (x, indices), {})
    axis, index = given[0]
    return _out(
        rec,
        func,
        (x, indices),
        {},
        lambda out: rec.apply("gather", [rec.value(x), rec.value(index)], out.shape, axis=axis),
    )


# --- recurrent layers ----------------------------------------------------------------------------


def _recurrent(
    rec: Recorder,
    func: Any,
    x: Tensor,
    state: Any,
    params: Sequence[Tensor],
    biases: bool,
    layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> Any:
    """One node for each layer; the last states are slices of what the layers put out."""
    op = func._overloadpacket.__name__.split("_")[0]
    directions = 2 if bidirectional else 1
    each = len(params) // (layers * directions)
    hidden = params[1].shape[1]
    value = rec.value(x)
    length, batch = (x.shape[1], x.shape[0]) if batch_first else (x.shape[0], x.shape[1])
    if batch_first:
        value = rec.apply("transpose", [value], (length, batch, x.shape[2]), order=(1, 0, 2))
    last = []
    for layer in range(layers):
        own = params[layer * directions * each : (layer + 1) * directions * each]
        value = rec.apply(
            op,
            [value, *map(rec.value, own)],
            (length, batch, directions * hidden),
            hidden=hidden,
            directions=directions,
            bias=biases,
        )
        last.append(
            rec.apply(
                "slice",
                [value],
                (1, batch, directions * hidden),
                axis=0,
                start=length - 1,
                stop=length,
                step=1,
            )
        )
    if batch_first:
        value = rec.apply(
            "transpose", [value], (batch, length, directions * hidden), order=(1, 0, 2)
        )
        out = rec.emit("identity", [value], (batch, length, directions * hidden), x)
    else:
        out = rec.emit("identity", [value], (length, batch, directions * hidden), x)
    rows = [rec.apply("reshape", [v], (directions, batch, hidden)) for v in last]
    states = rec.apply("concat", rows, (layers * directions, batch, hidden), axis=0)
    n_states = 2 if op == "lstm" else 1
    return (
        out,
        *(rec.emit("identity", [states], states.shape, x) for _ in range(n_states)),
    )


HANDLERS |= {
    **dict.fromkeys(_SAME_NAME, _activation),
    **dict.fromkeys(_UNARY, _unary),
    **dict.fromkeys(_BINARY, _binary),
    **dict.fromkeys(_IDENTITY, _identity),
    **dict.fromkeys(_REDUCE, _reduce),
    **dict.fromkeys(
        (
            "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_linear1d",
            "upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d",
            "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "_upsample_nearest_exact2d",
        ),
        _resize,
    ),
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrent),
}  # fmt: skip
