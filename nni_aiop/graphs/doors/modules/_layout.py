"""ATen operations that move data: reshapes and transposes, cutting and joining, look-ups."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from nni_aiop.graphs.doors.modules._layouts import empty
from nni_aiop.graphs.doors.modules._recorder import Recorder
from nni_aiop.graphs.doors.modules._table import each, handles, registered
from nni_aiop.graphs.rules._values import Value


@handles(
    "view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "_unsafe_view", "view_as",
    "reshape_as", "atleast_1d", "_reshape_alias", "ravel",
)  # fmt: skip
def _reshape(rec: Recorder, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
    if func._overloadname == "dtype":
        return rec.unknown(func, (x, *args), kwargs)
    try:
        out = rec.run(func, (x, *args), kwargs)
    except RuntimeError:
        if func._overloadpacket.__name__ != "view" or not rec.is_loose(x):
            raise
        out = rec.run(torch.ops.aten.reshape.default, (x, *args), kwargs)
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


@handles("transpose", "swapaxes", "swapdims")
def _transpose(rec: Recorder, func: Any, x: Tensor, a: int, b: int) -> Tensor:
    order = list(range(x.ndim))
    order[a], order[b] = order[b], order[a]
    return _permuted(rec, rec.run(torch.ops.aten.transpose.int, (x, a, b), {}), x, order)


@handles("t", "numpy_T", "mT", "matrix_H", "adjoint")
def _matrix_transpose(rec: Recorder, func: Any, x: Tensor) -> Tensor:
    order = list(range(x.ndim))
    name = func._overloadpacket.__name__
    if name == "numpy_T":
        order = order[::-1]
    elif x.ndim > 1:
        order[-2:] = [order[-1], order[-2]]
    return _permuted(rec, rec.run(torch.ops.aten.permute.default, (x, order), {}), x, order)


@handles("permute", "movedim", "moveaxis")
def _permute(rec: Recorder, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    if func._overloadpacket.__name__ != "permute":
        source, target = (each(v, 1) for v in args)
        rest = [axis for axis in range(x.ndim) if axis not in [s % x.ndim for s in source]]
        order = rest
        for to, axis in sorted(
            (t % x.ndim, s % x.ndim) for s, t in zip(source, target, strict=True)
        ):
            order.insert(to, axis)
    else:
        order = list(args[0] if args else kwargs["dims"])
    return _permuted(rec, rec.run(torch.ops.aten.permute.default, (x, order), {}), x, order)


@handles("expand", "expand_as", "repeat", "tile", "broadcast_to")
def _expand(rec: Recorder, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
    out = rec.run(func, (x, *args), kwargs)
    if out is x:
        return out
    before, after = tuple(x.shape), tuple(out.shape)
    if prod(after) == x.numel():
        rec.register_view(
            out,
            x,
            lambda v: rec.apply("reshape", [v], after),
            lambda v: rec.apply("reshape", [v], before),
        )
    else:
        rec.register_view(out, x, lambda v: rec.apply("expand", [v], after))
    return out


def _shuffled(
    rec: Recorder, x: Tensor, split: Sequence[int], order: Sequence[int], shape: Sequence[int]
) -> Tensor:
    """A tensor split into axes, permuted, and put together again."""
    value = rec.apply("reshape", [rec.value(x)], split)
    moved = [split[axis] for axis in order]
    value = rec.apply("transpose", [value], moved, order=tuple(order))
    out = empty("shuffle", shape, x)
    rec.register(out, rec.apply("reshape", [value], shape))
    return out


@handles("pixel_shuffle")
def _pixel_shuffle(rec: Recorder, func: Any, x: Tensor, r: int) -> Tensor:
    *lead, c, h, w = x.shape
    n = len(lead)
    order = [*range(n), n, n + 3, n + 1, n + 4, n + 2]
    return _shuffled(
        rec, x, [*lead, c // (r * r), r, r, h, w], order, [*lead, c // (r * r), h * r, w * r]
    )


@handles("pixel_unshuffle")
def _pixel_unshuffle(rec: Recorder, func: Any, x: Tensor, r: int) -> Tensor:
    *lead, c, h, w = x.shape
    n = len(lead)
    order = [*range(n), n, n + 2, n + 4, n + 1, n + 3]
    return _shuffled(
        rec, x, [*lead, c, h // r, r, w // r, r], order, [*lead, c * r * r, h // r, w // r]
    )


@handles("channel_shuffle", "native_channel_shuffle")
def _channel_shuffle(rec: Recorder, func: Any, x: Tensor, groups: int) -> Tensor:
    b, c, *rest = x.shape
    order = [0, 2, 1, *range(3, 3 + len(rest))]
    return _shuffled(rec, x, [b, groups, c // groups, *rest], order, x.shape)


# --- cutting and joining ---


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


@handles("slice")
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


@handles("narrow")
def _narrow(rec: Recorder, func: Any, x: Tensor, dim: int, start: int, length: int) -> Any:
    return _slice(rec, torch.ops.aten.slice.Tensor, x, dim, start, start + length)


@handles("select")
def _select(rec: Recorder, func: Any, x: Tensor, dim: int, index: int) -> Any:
    out = rec.run(func, (x, dim, index), {})
    dim %= x.ndim
    index %= x.shape[dim]
    _cut(rec, out, x, dim, index, index + 1, 1)
    return out


@handles(
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
        if name.startswith("unsafe"):
            # What is written into such a part is not seen in the whole.
            rec.register(part, rec.value(part))
        at += length
    return parts


@handles("cat", "concat", "concatenate")
def _cat(rec: Recorder, func: Any, tensors: Sequence[Tensor], dim: int = 0) -> Any:
    used = [t for t in tensors if t.shape != (0,)]
    return registered(
        rec,
        func,
        (tensors, dim),
        {},
        lambda out: rec.apply("concat", [rec.value(t) for t in used], out.shape, axis=dim),
    )


@handles("stack")
def _stack(rec: Recorder, func: Any, tensors: Sequence[Tensor], dim: int = 0) -> Any:
    def stacked(out: Tensor) -> Value:
        axis = dim % out.ndim
        one = tuple(1 if a == axis else size for a, size in enumerate(out.shape))
        parts = [rec.apply("reshape", [rec.value(t)], one) for t in tensors]
        return rec.apply("concat", parts, out.shape, axis=axis)

    return registered(rec, func, (tensors, dim), {}, stacked)


@handles("roll")
def _roll(rec: Recorder, func: Any, x: Tensor, shifts: Any, dims: Any = ()) -> Any:
    shifts, dims = each(shifts, 1), each(dims, 1)
    value = rec.value(x)
    flat = not dims
    if flat:
        value, dims = rec.apply("reshape", [value], (x.numel(),)), (0,)
    shape = value.shape
    for shift, dim in zip(shifts, dims, strict=True):
        dim %= len(shape)
        cut = -shift % shape[dim]
        if cut == 0:
            continue
        parts = []
        for start, stop in ((cut, shape[dim]), (0, cut)):
            part = tuple(stop - start if a == dim else n for a, n in enumerate(shape))
            parts.append(
                rec.apply("slice", [value], part, axis=dim, start=start, stop=stop, step=1)
            )
        value = rec.apply("concat", parts, shape, axis=dim)
    return rec.emit("reshape" if flat else "identity", [value], x.shape, x)


@handles("flip")
def _flip(rec: Recorder, func: Any, x: Tensor, dims: Sequence[int]) -> Tensor:
    value = rec.value(x)
    for dim in dims:
        dim %= x.ndim
        size = x.shape[dim]
        value = rec.apply(
            "slice", [value], x.shape, axis=dim, start=size - 1, stop=-size - 1, step=-1
        )
    return rec.emit("identity", [value], x.shape, x)


@handles("pad", "constant_pad_nd", "reflection_pad2d", "replication_pad2d", "reflection_pad1d")
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


@handles(
    "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_linear1d",
    "upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d",
    "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "_upsample_nearest_exact2d",
)  # fmt: skip
def _resize(rec: Recorder, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
    name = func._overloadpacket.__name__
    mode = next(m for m in ("nearest", "linear", "cubic") if m in name)
    return registered(
        rec,
        func,
        (x, *args),
        kwargs,
        lambda out: rec.apply("resize", [rec.value(x)], out.shape, mode=mode),
    )


@handles("embedding")
def _embedding(
    rec: Recorder, func: Any, weight: Tensor, index: Tensor, *args: Any, **kw: Any
) -> Any:
    values = [rec.value(index), rec.value(weight)]
    return rec.emit("embedding", values, (*index.shape, weight.shape[1]), weight)


@handles("gather")
def _gather(rec: Recorder, func: Any, x: Tensor, dim: int, index: Tensor, **kwargs: Any) -> Any:
    return rec.emit("gather_elements", [rec.value(x), rec.value(index)], index.shape, x)


@handles("index_select")
def _index_select(rec: Recorder, func: Any, x: Tensor, dim: int, index: Tensor) -> Any:
    return registered(
        rec,
        func,
        (x, dim, index),
        {},
        lambda out: rec.apply(
            "gather", [rec.value(x), rec.value(index)], out.shape, axis=dim % x.ndim
        ),
    )


@handles("index")
def _index(rec: Recorder, func: Any, x: Tensor, indices: Sequence[Tensor | None]) -> Any:
    given = [(axis, index) for axis, index in enumerate(indices) if index is not None]
    if len(given) != 1 or given[0][1].dtype == torch.bool:
        return rec.unknown(func, (x, indices), {})
    axis, index = given[0]
    return registered(
        rec,
        func,
        (x, indices),
        {},
        lambda out: rec.apply("gather", [rec.value(x), rec.value(index)], out.shape, axis=axis),
    )
