"""Rules of the label pass for norms, and for products with weights and of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from torch import fx

from nni_aiop.graphs.edits import Coupler, Labels, Marks, along, group_options, product
from nni_aiop.networks._pass import Pass, argument, packet_name, rule_of

__all__: list[str] = []


@rule_of("prelu")
def _prelu(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, slope = p.of(args[0]), p.of(args[1])
    return _with_channels(p, node, x, [slope], 1)


def _with_channels(p: Pass, node: fx.Node, x: Marks, vectors: Sequence[Marks], axis: int) -> Marks:
    """Marks of what has vectors of numbers for its channels."""
    line = p.coupler.line(x, axis)
    for vector in vectors:
        own = p.coupler.line(vector, 0) if vector.shape else None
        if own is None:
            continue
        if line is None:
            p.coupler.freeze(vector, "its channels have no labels")
        else:
            p.coupler.tie(line, own)
    layers = list(x.constant([axis]))
    if line is not None:
        layers.insert(0, along(len(x.shape), axis, line))
    return Marks(p.shape(node), layers)


@rule_of("batch_norm", "_native_batch_norm_legit_no_training", "instance_norm")
def _batch_norm(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    vectors = [p.of(a) for a in args[1:5] if isinstance(a, fx.Node)]
    return _with_channels(p, node, p.of(args[0]), vectors, 1)


@rule_of("group_norm")
def _group_norm(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    vectors = [p.of(a) for a in args[2:4] if isinstance(a, fx.Node)]
    made = _with_channels(p, node, p.of(args[0]), vectors, 1)
    line = p.coupler.line(p.of(args[0]), 1)
    groups = int(args[1])
    if line is not None and groups > 1:
        grid = line.reshape(groups, -1)
        if grid.shape[1] > 1:
            p.coupler.choose(group_options(grid))
        p.groups[node.name] = Marks(grid.shape, [grid])
    return made


@rule_of("layer_norm", "rms_norm", "_fused_rms_norm")
def _layer_norm(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, normalised = p.of(args[0]), args[1]
    c, rank = p.coupler, len(x.shape)
    first = rank - len(normalised)
    vectors = [p.of(a) for a in args[2:4] if isinstance(a, fx.Node)]
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
    return Marks(p.shape(node), layers)


# --- products with weights ----------------------------------------------------------------------


@rule_of("conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d", "conv_transpose2d",
       "conv_transpose3d")  # fmt: skip
def _conv(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    name, c = packet_name(node), p.coupler
    x, weight = p.of(args[0]), p.of(args[1])
    bias = argument(args, kwargs, 2, "bias", None)
    transposed, place = "transpose" in name, 6
    if name == "convolution":
        transposed, place = bool(args[6]), 8
    groups = int(argument(args, kwargs, place, "groups", 1))
    shape = p.shape(node)
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
    if groups == 1:
        _tied(c, read, inner, "it reads data that have no channels")
    else:
        grid_in = None if read is None else read.reshape(groups, -1)
        if transposed:
            # The weight is (in, out / groups): what comes out has a label for each group.
            _tied(c, read, inner, "it reads data that have no channels")
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
            c.freeze(weight, "it reads data that have no channels")
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
            p.groups[node.name] = Marks(grid_in.shape, [grid_in])
    if isinstance(bias, fx.Node):
        own_bias = c.line(p.of(bias), 0)
        _tied(c, made, own_bias, "it is a bias of channels that stay")
    layers = list(x.constant([1, *spatial]))
    if made is not None:
        layers.insert(0, along(rank, 1, made))
    return Marks(shape, layers)


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


@rule_of("linear")
def _linear(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, weight = p.of(args[0]), p.of(args[1])
    c, shape = p.coupler, p.shape(node)
    if len(weight.shape) != 2:
        return p.freeze_all(node, "its weight has other than two axes")
    _tied(c, c.line(x, len(x.shape) - 1), c.line(weight, 1), "it reads data that have no channels")
    out = c.line(weight, 0)
    bias = argument(args, kwargs, 2, "bias", None)
    if isinstance(bias, fx.Node):
        _tied(c, out, c.line(p.of(bias), 0), "it is a bias of channels that stay")
    layers = list(x.constant([len(x.shape) - 1]))
    if out is not None:
        layers.insert(0, along(len(shape), len(shape) - 1, out))
    return Marks(shape, layers)


@rule_of("addmm")
def _addmm(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    made = _products(p, p.shape(node), p.of(args[1]), p.of(args[2]))
    return p.coupler.merged(p.shape(node), [made, p.of(args[0])])


@rule_of("matmul", "bmm", "mm")
def _matmul(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _products(p, p.shape(node), p.of(args[0]), p.of(args[1]))


@rule_of("baddbmm")
def _baddbmm(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    made = _products(p, p.shape(node), p.of(args[1]), p.of(args[2]))
    return p.coupler.merged(p.shape(node), [made, p.of(args[0])])


def _products(p: Pass, shape: tuple[int, ...], a: Marks, b: Marks) -> Marks:
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
    made = product(p.coupler, (g, *shape[-2:]), *sides)
    return made.reshaped(shape)


@rule_of("scaled_dot_product_attention")
def _attention(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    q, k, v = (p.of(a) for a in args[:3])
    mask = argument(args, kwargs, 3, "attn_mask", None)
    rank = len(q.shape)
    turned = k.permuted((*range(rank - 2), rank - 1, rank - 2))
    scores_shape = (*q.shape[:-1], k.shape[-2])
    if q.shape[:-2] != k.shape[:-2] or k.shape[:-2] != v.shape[:-2]:
        raise ValueError("keys have other heads")
    scores = _products(p, scores_shape, q, turned)
    if isinstance(mask, fx.Node):
        scores = p.coupler.merged(scores_shape, [scores, p.of(mask)])
    return _products(p, p.shape(node), scores, v)


@rule_of("embedding")
def _embedding(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    table, c, shape = p.of(args[0]), p.coupler, p.shape(node)
    c.freeze(p.of(args[1]), "it picks rows")
    c.freeze_axes(table, [0], "they are rows of a table")
    line = c.line(table, 1)
    return Marks(shape) if line is None else Marks.along(shape, len(shape) - 1, line)
