"""ATen operations of layers: convolutions, linear layers and products, normalisation.

Shapes are worked out here, because PyTorch's own meta kernels for convolutions and normalisation
are several times slower.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nni_aiop.graphs.doors.modules._recorder import Recorder
from nni_aiop.graphs.doors.modules._table import each, handles, out_of_place, registered
from nni_aiop.graphs.doors.modules._windows import same_padding, window
from nni_aiop.graphs.rules._values import Value


@handles("conv1d", "conv2d", "conv3d")
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
    n = weight.ndim - 2
    kernel = tuple(weight.shape[2:])
    stride, dilation = each(stride, n), each(dilation, n)
    if isinstance(padding, str):
        pads = ((0, 0),) * n if padding == "valid" else same_padding(kernel, dilation)
    else:
        pads = tuple((p, p) for p in each(padding, n))
    shape = _batched(x, n, weight.shape[1] * groups)
    spatial = window(shape[2:], kernel, stride, pads, dilation)
    return _convolved(
        rec,
        "conv",
        (x, weight, bias),
        (shape[0], weight.shape[0], *spatial),
        kernel=kernel,
        stride=stride,
        padding=pads,
        dilation=dilation,
        groups=groups,
    )


def _batched(x: Tensor, n: int, channels: int) -> tuple[int, ...]:
    """The shape of a convolution's input with a batch axis."""
    shape = tuple(x.shape) if x.ndim == n + 2 else (1, *x.shape)
    if len(shape) != n + 2:
        raise RuntimeError(
            f"expected {n + 1}D or {n + 2}D input to {n}D convolution, but got {tuple(x.shape)}"
        )
    if shape[1] != channels:
        raise RuntimeError(f"expected input to have {channels} channels, but got {shape[1]}")
    return shape


def _convolved(
    rec: Recorder,
    op: str,
    tensors: tuple[Tensor, Tensor, Tensor | None],
    shape: tuple[int, ...],
    **attributes: Any,
) -> Tensor:
    """The result of a convolution whose batched shape is given, without the axis of no batch."""
    x, weight, bias = tensors
    inputs = [rec.value(v) for v in (x, weight, bias) if v is not None]
    if x.ndim == len(shape):
        return rec.emit(op, inputs, shape, x, weight=weight, **attributes)
    inputs[0] = rec.apply("reshape", inputs[:1], (1, *x.shape))
    out = rec.apply(op, inputs, shape, **attributes)
    return rec.emit("reshape", [out], shape[1:], x)


@handles("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
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
    n = weight.ndim - 2
    kernel = tuple(weight.shape[2:])
    stride, dilation, padding, extra = (
        each(v, n) for v in (stride, dilation, padding, output_padding)
    )
    shape = _batched(x, n, weight.shape[0])
    spatial = tuple(
        (size - 1) * s - 2 * p + d * (k - 1) + e + 1
        for size, s, p, d, k, e in zip(
            shape[2:], stride, padding, dilation, kernel, extra, strict=True
        )
    )
    return _convolved(
        rec,
        "conv_transpose",
        (x, weight, bias),
        (shape[0], weight.shape[1] * groups, *spatial),
        kernel=kernel,
        stride=stride,
        padding=tuple((p, p) for p in padding),
        dilation=dilation,
        groups=groups,
    )


@handles("convolution", "_convolution")
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
        return _conv_transpose(
            rec, func, x, weight, bias, stride, padding, output_padding, groups, dilation
        )
    return _conv(rec, func, x, weight, bias, stride, padding, dilation, groups)


@handles("linear")
def _linear(
    rec: Recorder, func: Any, x: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    if x.shape[-1] != weight.shape[-1]:
        raise RuntimeError(
            f"shapes cannot be multiplied: {tuple(x.shape)} and {tuple(weight.shape)} transposed"
        )
    inputs = [rec.value(v) for v in (x, weight, bias) if v is not None]
    return rec.emit("linear", inputs, (*x.shape[:-1], *weight.shape[:-1]), x)


@handles("matmul", "mm", "bmm", "mv", "dot", "vdot")
def _matmul(rec: Recorder, func: Any, a: Tensor, b: Tensor) -> Any:
    return registered(
        rec,
        func,
        (a, b),
        {},
        lambda out: rec.apply("matmul", [rec.value(a), rec.value(b)], out.shape),
    )


@handles("_grouped_mm")
def _grouped(
    rec: Recorder,
    func: Any,
    x: Tensor,
    weights: Tensor,
    offs: Tensor | None = None,
    bias: Tensor | None = None,
    out_dtype: Any = None,
) -> Any:
    """Rows (M, K), sorted by expert, each times one of the weights (G, K, N): M * K * N products.

    Its shape is told here, since PyTorch's meta kernel takes bfloat16 only (2.13.0).
    """
    pair = (rec.value(x), rec.value(weights))
    if offs is None and x.ndim == weights.ndim == 3:
        value = rec.apply("matmul", pair, (*x.shape[:-1], weights.shape[-1]))
    elif offs is not None and x.ndim == 2 and weights.ndim == 3:
        rows, width = x.shape[0], weights.shape[-1]
        left = rec.apply("reshape", pair[:1], (rows, 1, x.shape[1]))
        right = rec.apply("gather", (pair[1], rec.value(offs)), (rows, *weights.shape[1:]), axis=0)
        value = rec.apply("matmul", (left, right), (rows, 1, width))
        value = rec.apply("reshape", (value,), (rows, width))
    else:
        return rec.unknown(func, (x, weights, offs, bias, out_dtype), {})
    if bias is not None:
        value = rec.apply("binary", [value, rec.value(bias)], value.shape, function="add")
    return rec.emit("identity", [value], value.shape, x)


@handles("addmm", "addbmm", "baddbmm", "addmv", "addr")
def _addmm(
    rec: Recorder, func: Any, base: Tensor, a: Tensor, b: Tensor, *, beta: Any = 1, alpha: Any = 1
) -> Any:
    out = rec.run(out_of_place(func), (base, a, b), {"beta": beta, "alpha": alpha})
    name, left, right = func._overloadpacket.__name__.strip("_"), rec.value(a), rec.value(b)
    if name == "addr":
        left = rec.apply("reshape", [left], (*left.shape, 1))
        product = rec.apply("binary", [left, right], out.shape, function="mul")
    elif name == "addbmm":
        product = rec.apply("matmul", [left, right], (a.shape[0], *out.shape))
        product = rec.apply("reduce", [product], out.shape, kind="sum", axes=(0,), keep=False)
    else:
        product = rec.apply("matmul", [left, right], out.shape)
    if alpha != 1:
        product = rec.apply("binary", [product, rec.number(alpha)], out.shape, function="mul")
    if beta != 0:
        shift = rec.value(base)
        if beta != 1:
            shift = rec.apply("binary", [shift, rec.number(beta)], shift.shape, function="mul")
        product = rec.apply("binary", [product, shift], out.shape, function="add")
    rec.register(out, product)
    return out


@handles("einsum")
def _einsum(
    rec: Recorder,
    func: Any,
    equation: str,
    operands: Sequence[Tensor],
    *,
    path: Sequence[int] | None = None,
) -> Any:
    values = [rec.value(x) for x in operands]
    value = rec.builder.einsum(equation, values, path=path, name=rec.scope[-1])
    if value is None:
        with rec:
            return func.decompose(equation, operands, path=path)
    out = torch.empty(value.shape, dtype=operands[0].dtype, device="meta")
    rec.register(out, value)
    return out


@handles("bilinear")
def _bilinear(
    rec: Recorder, func: Any, a: Tensor, b: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    """A linear layer from the first input to (out, second), times the second."""
    builder, name = rec.builder, rec.scope[-1]
    rows = builder.einsum("...i,oij->...oj", [rec.value(a), rec.value(weight)], name=name)
    value = rows and builder.einsum("...oj,...j->...o", [rows, rec.value(b)], name=name)
    if value is None:
        raise RuntimeError(
            f"inputs {tuple(a.shape)} and {tuple(b.shape)} must fit the weight "
            f"{tuple(weight.shape)}"
        )
    if bias is not None:
        value = rec.apply("binary", [value, rec.value(bias)], value.shape, function="add")
    return rec.emit("identity", [value], value.shape, a)


@handles("cdist")
def _distances(
    rec: Recorder, func: Any, a: Tensor, b: Tensor, p: float = 2.0, compute_mode: Any = None
) -> Tensor:
    """Distances of all pairs; Euclidean ones by way of the product: |a|^2 + |b|^2 - 2 a b."""
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    n, m, d = a.shape[-2], b.shape[-2], a.shape[-1]
    left, right, shape = rec.value(a), rec.value(b), (*lead, n, m)
    if p != 2:
        left = rec.apply("reshape", [left], (*a.shape[:-1], 1, d))
        right = rec.apply("reshape", [right], (*b.shape[:-2], 1, m, d))
        apart = rec.apply("binary", [left, right], (*shape, d), function="sub")
        kind = "l1" if p == 1 else "norm"
        return rec.emit("reduce", [apart], shape, a, kind=kind, axes=(len(shape),), keep=False)
    squares = []
    for value, sizes in ((left, (*a.shape[:-1], 1)), (right, (*b.shape[:-2], 1, m))):
        square = rec.apply("binary", [value, value], value.shape, function="mul")
        axes = (len(value.shape) - 1,)
        length = rec.apply("reduce", [square], value.shape[:-1], kind="sum", axes=axes, keep=False)
        squares.append(rec.apply("reshape", [length], sizes))
    order = (*range(b.ndim - 2), b.ndim - 1, b.ndim - 2)
    turned = rec.apply("transpose", [right], (*b.shape[:-2], d, m), order=order)
    product = rec.apply("matmul", [left, turned], shape)
    product = rec.apply("binary", [product, rec.number(-2)], shape, function="mul")
    for square in squares:
        product = rec.apply("binary", [product, square], shape, function="add")
    return rec.emit("unary", [product], shape, a, function="sqrt")


@handles("conv_tbc")
def _conv_tbc(
    rec: Recorder, func: Any, x: Tensor, weight: Tensor, bias: Tensor, pad: int = 0
) -> Tensor:
    """A convolution over time whose axes are (time, batch, channels)."""
    steps, batch, channels = x.shape
    kernel, _, out = weight.shape
    turned = rec.apply("transpose", [rec.value(x)], (batch, channels, steps), order=(1, 2, 0))
    filters = rec.apply("transpose", [rec.value(weight)], (out, channels, kernel), order=(2, 1, 0))
    length = steps + 2 * pad - kernel + 1
    value = rec.apply(
        "conv",
        [turned, filters, rec.value(bias)],
        (batch, out, length),
        kernel=(kernel,),
        stride=(1,),
        padding=((pad, pad),),
        dilation=(1,),
        groups=1,
    )
    return rec.emit("transpose", [value], (length, batch, out), x, order=(2, 0, 1))


@handles("scaled_dot_product_attention")
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
    lead: Sequence[int] = q.shape[:-2]
    if not kwargs.get("enable_gqa"):
        lead = np.broadcast_shapes(lead, k.shape[:-2], v.shape[:-2])
    return rec.emit("attention", inputs, (*lead, q.shape[-2], v.shape[-1]), q)


def _norm_inputs(
    rec: Recorder, x: Tensor, tensors: Sequence[Tensor | None], channels: int
) -> list[Value]:
    """x, scale and shift; a missing scale is all ones, which is how ONNX writes it."""
    values = [None if t is None else rec.value(t) for t in tensors]
    if values[0] is None:
        values[0] = rec.builder.constant((channels,), 1.0)
    return [rec.value(x), *(v for v in values if v is not None)]


@handles(
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


@handles("instance_norm")
def _instance_norm(
    rec: Recorder, func: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, *args: Any
) -> Tensor:
    inputs = _norm_inputs(rec, x, (weight, bias), x.shape[1])
    return rec.emit("instance_norm", inputs, x.shape, x)


@handles("layer_norm", "native_layer_norm")
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


@handles("rms_norm", "_fused_rms_norm")
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


@handles("group_norm")
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
