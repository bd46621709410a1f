"""ATen operations that reduce: pooling, means, extremes, norms of vectors, variances."""

from __future__ import annotations

import math
from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from nni_aiop.graphs.doors.modules._recorder import Recorder
from nni_aiop.graphs.doors.modules._table import each, handles, registered
from nni_aiop.graphs.doors.modules._windows import window
from nni_aiop.graphs.rules._values import Value


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
    kernel, padding, dilation = (each(v, n) for v in (kernel, padding, dilation))
    stride = kernel if stride is None or stride == [] else each(stride, n)
    pads = tuple((p, p) for p in padding)
    spatial = window(x.shape[-n:], kernel, stride, pads, dilation, ceil=ceil)
    attributes: dict[str, Any] = {"kernel": kernel, "stride": stride, "padding": pads}
    if op == "max_pool":
        attributes["dilation"] = dilation
    return rec.emit(op, [rec.value(x)], (*x.shape[:-n], *spatial), x, **attributes)


@handles("max_pool1d", "max_pool2d", "max_pool3d")
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


@handles("max_pool2d_with_indices", "max_pool3d_with_indices")
def _max_pool_with_indices(rec: Recorder, func: Any, *args: Any, **kwargs: Any) -> Any:
    plain = getattr(torch.ops.aten, func._overloadpacket.__name__.removesuffix("_with_indices"))
    out = _max_pool(rec, plain.default, *args, **kwargs)
    indices = rec.run(func, args, kwargs)[1]
    rec.register(indices, rec.apply("max_pool_indices", [rec.value(args[0])], indices.shape))
    return out, indices


@handles("avg_pool1d", "avg_pool2d", "avg_pool3d")
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


@handles(
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
        for have, want in zip(x.shape[-n:], each(size, n), strict=True)
    )
    kind = "avg" if "avg" in name else "max"
    shape = (*x.shape[:-n], *size)
    if all(have % want == 0 for have, want in zip(x.shape[-n:], size, strict=True)):
        kernel = tuple(have // want for have, want in zip(x.shape[-n:], size, strict=True))
        attributes: dict[str, Any] = {"kernel": kernel, "stride": kernel, "padding": ((0, 0),) * n}
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
    rank = max(x.ndim, 1)
    if not all(-rank <= d < rank for d in dims):
        raise IndexError(f"dimensions must lie in [{-rank}, {rank - 1}], but got {dims}")
    return tuple(d % rank for d in dims)


def _reduced(x: Tensor, axes: Sequence[int], keepdim: bool) -> tuple[int, ...]:
    """The shape of a tensor whose axes are reduced."""
    return tuple(
        1 if axis in axes else size
        for axis, size in enumerate(x.shape)
        if keepdim or axis not in axes
    )


def _registered(
    rec: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], **attributes: Any
) -> Any:
    """What PyTorch returns, as a reduction of its first argument."""
    return registered(
        rec,
        func,
        args,
        kwargs,
        lambda out: rec.apply("reduce", [rec.value(args[0])], out.shape, **attributes),
    )


@handles(*_REDUCE)
def _reduce(rec: Recorder, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
    kind = _REDUCE[func._overloadpacket.__name__]
    dim = args[0] if args else kwargs.get("dim")
    keepdim = args[1] if len(args) > 1 else kwargs.get("keepdim", False)
    axes = _axes(x, dim)
    if kind == "mean" and "dtype" not in kwargs and x.is_contiguous():
        shape = _reduced(x, axes, keepdim)
        return rec.emit("reduce", [rec.value(x)], shape, x, kind=kind, axes=axes, keep=keepdim)
    return _registered(rec, func, (x, *args), kwargs, kind=kind, axes=axes, keep=keepdim)


def extreme(
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


@handles("norm", "linalg_vector_norm", "frobenius_norm")
def _vector_norm(rec: Recorder, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
    given = dict(zip(("p", "dim", "keepdim"), args, strict=False))
    if func._overloadpacket.__name__ == "frobenius_norm":
        given = dict(zip(("dim", "keepdim"), args, strict=False))
    p = given.get("p", kwargs.get("ord", kwargs.get("p", 2)))
    dim = given.get("dim", kwargs.get("dim"))
    keepdim = given.get("keepdim", kwargs.get("keepdim", False))
    kind = {1: "l1", 2: "l2", None: "l2", "fro": "l2"}.get(p, "norm")
    axes = _axes(x, dim)
    return _registered(rec, func, (x, *args), kwargs, kind=kind, axes=axes, keep=keepdim)


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


@handles("var", "std", "var_mean", "std_mean")
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
