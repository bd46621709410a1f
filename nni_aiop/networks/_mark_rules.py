"""What operations do to the labels of real tensors, whichever program the operations stand in.

The rules for ATen operations (`_layout_rules`, `_product_rules`) and for ONNX operators
(`onnx/_rules`) read arguments, each in its own way, and say the rest by these functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from nni_aiop.graphs._types import Shape
from nni_aiop.graphs.edits import Coupler, Labels, Marks, along, group_options, product

__all__ = [
    "attention",
    "convolution",
    "embedding",
    "expanded",
    "grouped",
    "layer_norm",
    "linear",
    "padded",
    "part",
    "picked",
    "products",
    "reduced",
    "repeated",
    "shuffled",
    "sliced",
    "windowed",
    "with_channels",
]

_NO_CHANNELS = "it reads data that have no channels"
_BIAS_STAYS = "it is a bias of channels that stay"


# --- layout --------------------------------------------------------------------------------------


def expanded(shape: Shape, x: Marks) -> Marks:
    """Entries repeated along axes of length 1, and along new ones before the others."""
    more = (1,) * (len(shape) - len(x.shape))
    return x.mapped(shape, lambda layer: layer.reshape((*more, *layer.shape)))


def repeated(c: Coupler, shape: Shape, x: Marks) -> Marks:
    """The whole tensor repeated along axes."""
    layers = []
    for layer in expanded(shape, x).layers:
        if any(n > 1 and n != shape[a] for a, n in enumerate(layer.shape)):
            c.freeze(Marks(shape, [layer]), "it repeats them")
            continue
        layers.append(layer)
    return Marks(shape, layers)


def part(x: Marks, axis: int, index: slice) -> list[Labels]:
    """The layers of a part of an axis."""
    layers = []
    for layer in x.layers:
        if layer.shape[axis] > 1:
            layer = layer[(*[slice(None)] * axis, index)]
        layers.append(layer)
    return layers


def sliced(c: Coupler, x: Marks, axis: int, index: slice) -> Marks:
    """A part of an axis, whose ends lie within it."""
    if index.step != 1:
        c.freeze_axes(x, [axis], "it takes every so many of them")
    n = len(range(x.shape[axis])[index])
    return Marks((*x.shape[:axis], n, *x.shape[axis + 1 :]), part(x, axis, index))


def picked(c: Coupler, x: Marks, axis: int, index: int) -> Marks:
    """One entry of an axis, which is gone then."""
    layers = []
    for layer in x.layers:
        others = [n for a, n in enumerate(layer.shape) if a != axis]
        if layer.shape[axis] > 1:
            if prod(others) == 1:
                c.freeze(Marks(x.shape, [layer]), "they are taken one by one")
                continue
            layer = layer.take([index], axis)
        layers.append(layer.reshape(others))
    return Marks(tuple(n for a, n in enumerate(x.shape) if a != axis), layers)


def padded(
    c: Coupler, shape: Shape, x: Marks, amounts: Mapping[int, tuple[int, int]], *, constant: bool
) -> Marks:
    """A tensor with (before, after) more entries along axes, by a constant or otherwise."""
    layers = list(x.layers)
    for axis, (before, after) in amounts.items():
        if not (before or after):
            continue
        here = [layer for layer in layers if layer.shape[axis] > 1]
        layers = [layer for layer in layers if layer.shape[axis] == 1]
        for layer in here:
            if not constant or before < 0 or after < 0:
                c.freeze(Marks(x.shape, [layer]), "it repeats them")
                continue
            line = c.line(Marks(x.shape, [layer]), axis)
            assert line is not None
            full = np.concatenate([c.fresh(before), line, c.fresh(after)])
            layers.append(along(len(shape), axis, full))
    return Marks(shape, layers)


def shuffled(c: Coupler, shape: Shape, x: Marks, split: Shape, order: Sequence[int]) -> Marks:
    """A tensor split into axes, permuted, and put together again."""
    apart = x.reshaped(split)
    c.watch(apart)
    return apart.permuted(order).reshaped(shape)


# --- reductions ----------------------------------------------------------------------------------


def reduced(c: Coupler, shape: Shape, x: Marks, axes: Sequence[int], *, places: bool) -> Marks:
    """A tensor reduced along axes, which stay with length 1 or go; `places`: to their places."""
    if places:
        c.freeze_axes(x, axes, "it gives their places")
    keep = len(shape) == len(x.shape)
    layers = []
    for layer in x.layers:
        if all(n == 1 for a, n in enumerate(layer.shape) if a not in axes):
            continue  # fewer of them are reduced
        layer = c.flat(layer, axes)
        if not keep:
            layer = layer.reshape([n for a, n in enumerate(layer.shape) if a not in axes])
        layers.append(layer)
    return Marks(shape, layers)


def windowed(c: Coupler, shape: Shape, x: Marks) -> Marks:
    """What a window that slides over all axes from the third on makes."""
    spatial = list(range(2, len(shape)))
    c.freeze_axes(x, spatial, "it slides over them")
    return Marks(shape, x.constant(spatial))


# --- norms ---------------------------------------------------------------------------------------


def with_channels(
    c: Coupler, shape: Shape, x: Marks, vectors: Sequence[Marks], axis: int = 1
) -> Marks:
    """Marks of what has vectors of numbers for its channels."""
    line = c.line(x, axis)
    for vector in vectors:
        own = c.line(vector, 0) if vector.shape else None
        if own is None:
            continue
        if line is None:
            c.freeze(vector, "its channels have no labels")
        else:
            c.tie(line, own)
    layers = list(x.constant([axis]))
    if line is not None:
        layers.insert(0, along(len(x.shape), axis, line))
    return Marks(shape, layers)


def grouped(c: Coupler, x: Marks, groups: int) -> Marks | None:
    """(groups, each) the channels of what is normalised in groups; None where it has none."""
    line = c.line(x, 1)
    if line is None or groups <= 1:
        return None
    grid = line.reshape(groups, -1)
    if grid.shape[1] > 1:
        c.choose(group_options(grid))
    return Marks(grid.shape, [grid])


def layer_norm(c: Coupler, shape: Shape, x: Marks, vectors: Sequence[Marks], first: int) -> Marks:
    """Rows normalised over the axes from `first` on, with the same vectors for every row."""
    layers = []
    for layer in x.layers:
        if any(n > 1 for n in layer.shape[first:]):
            layer = c.flat(layer, range(first))
        layers.append(layer)
    over_rows = (1,) * first
    own = [layer for layer in layers if layer.shape[:first] == over_rows]
    inner = Marks(x.shape[first:], [layer.reshape(layer.shape[first:]) for layer in own])
    if vectors:
        c.merged(inner.shape, [inner, *vectors])
    return Marks(shape, layers)


# --- products with weights ----------------------------------------------------------------------


def convolution(
    c: Coupler,
    shape: Shape,
    x: Marks,
    weight: Marks,
    bias: Marks | None,
    *,
    groups: int,
    transposed: bool,
) -> tuple[Marks, Marks | None]:
    """(the marks of a convolution, the (groups, each) channels that it reads where it is grouped).

    Args:
        c: The ties.
        shape: Of what comes out.
        x: What it reads.
        weight: (out, in / groups, ...), of a transposed one (in, out / groups, ...).
        bias: (out,), None without.
        groups: Of channels.
        transposed: Whether it is a transposed one.
    """
    rank = len(shape)
    spatial = list(range(2, rank))
    c.freeze_axes(Marks(x.shape, x.constant([1])), spatial, "it slides over them")
    for axis in spatial:
        c.freeze(Marks(weight.shape, weight.varying(axis)), "it is a kernel")
    read = c.line(x, 1)
    inner = c.line(weight, 0 if transposed else 1)
    out = c.line(weight, 1 if transposed else 0)
    n_in, n_out = x.shape[1], shape[1]
    made = out
    counted = None
    if groups == 1:
        _tied(c, read, inner, _NO_CHANNELS)
    else:
        grid_in = None if read is None else read.reshape(groups, -1)
        if transposed:
            # The weight is (in, out / groups): what comes out has a label for each group.
            _tied(c, read, inner, _NO_CHANNELS)
            if n_out == groups and read is not None:
                assert grid_in is not None
                made = grid_in[:, 0]
                if grid_in.shape[1] > 1:
                    c.freeze(x, "groups of a transposed convolution stay")
            else:
                c.freeze(x, "groups of a transposed convolution stay")
                c.freeze(weight, "groups of a transposed convolution stay")
                made = None
        elif read is None or out is None:
            c.freeze(weight, _NO_CHANNELS)
            c.freeze(x, "it is read by a weight that has no channels")
        elif n_in == groups:
            c.tie(np.repeat(read, n_out // groups), out)
        else:
            own = out.reshape(groups, -1)
            assert grid_in is not None
            whole, each = group_options(grid_in, own)
            if inner is not None:
                # One axis of the weight has the same channel of every group.
                whole = _more(whole, inner, np.zeros_like(inner))
                each = _more(each, grid_in[0], inner)
            c.choose([whole, each])
        if grid_in is not None:
            counted = Marks(grid_in.shape, [grid_in])
    if bias is not None:
        _tied(c, made, c.line(bias, 0), _BIAS_STAYS)
    layers = list(x.constant([1, *spatial]))
    if made is not None:
        layers.insert(0, along(rank, 1, made))
    return Marks(shape, layers), counted


def _more(pairs: tuple[Labels, Labels], a: Labels, b: Labels) -> tuple[Labels, Labels]:
    return np.concatenate([pairs[0], a]), np.concatenate([pairs[1], b])


def _tied(c: Coupler, a: Labels | None, b: Labels | None, why: str) -> None:
    if a is None and b is None:
        return
    if a is None or b is None:
        labels = b if a is None else a
        assert labels is not None
        c.tie(labels, np.zeros_like(labels), why)
    else:
        c.tie(a, b)


def linear(c: Coupler, shape: Shape, x: Marks, weight: Marks, bias: Marks | None) -> Marks:
    """Rows multiplied with a weight (out, in); the bias is (out,)."""
    last = len(x.shape) - 1
    _tied(c, c.line(x, last), c.line(weight, 1), _NO_CHANNELS)
    out = c.line(weight, 0)
    if bias is not None:
        _tied(c, out, c.line(bias, 0), _BIAS_STAYS)
    layers = list(x.constant([last]))
    if out is not None:
        layers.insert(0, along(len(shape), len(shape) - 1, out))
    return Marks(shape, layers)


def embedding(c: Coupler, shape: Shape, index: Marks, table: Marks) -> Marks:
    """Rows of a table (rows, width) that an index picks."""
    c.freeze(index, "it picks rows")
    c.freeze_axes(table, [0], "they are rows of a table")
    line = c.line(table, 1)
    return Marks(shape) if line is None else Marks.along(shape, len(shape) - 1, line)


# --- products of tensors -------------------------------------------------------------------------


def products(c: Coupler, shape: Shape, a: Marks, b: Marks) -> Marks:
    """The labels of `numpy.matmul` of two tensors of at least two axes."""
    if min(len(a.shape), len(b.shape)) < 2:
        raise ValueError("a product with a vector")
    lead = shape[:-2]
    g = prod(lead)
    sides = []
    for x in (a, b):
        own = x.shape[:-2]
        if prod(own) == g:
            sides.append(x.reshaped((g, *x.shape[-2:])))
        elif prod(own) == 1:
            sides.append(x.reshaped((1, *x.shape[-2:])))
        else:
            raise ValueError("groups that are broadcast")
    made = product(c, (g, *shape[-2:]), *sides)
    return made.reshaped(shape)


def attention(c: Coupler, shape: Shape, q: Marks, k: Marks, v: Marks, mask: Marks | None) -> Marks:
    """softmax(q k^T + mask) v of tensors (..., heads, n, d) with as many heads each."""
    rank = len(q.shape)
    turned = k.permuted((*range(rank - 2), rank - 1, rank - 2))
    scores_shape = (*q.shape[:-1], k.shape[-2])
    if q.shape[:-2] != k.shape[:-2] or k.shape[:-2] != v.shape[:-2]:
        raise ValueError("keys have other heads")
    scores = products(c, scores_shape, q, turned)
    if mask is not None:
        scores = c.merged(scores_shape, [scores, mask])
    return products(c, shape, scores, v)
