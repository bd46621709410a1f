"""The operators that onnxruntime's optimisers write, as the nodes of onnx that they stand for.

`_rewrites` has those of quantised arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
from onnx import TensorProto

from nni_aiop.graphs.doors.onnx._rewrites import BLOCKED, Parts, Rewrite, foreign, moved

__all__: list[str] = []


def _activated(parts: Parts, name: str, numbers: Sequence[float] | None) -> str:
    """A tensor behind the activation of a fused node."""
    kind = parts.option("activation", "")
    numbers = list(numbers or ())
    if not kind:
        return name
    if kind == "Clip":
        low, high = (parts.numbers(n, TensorProto.FLOAT) for n in (numbers or (-3.5e38, 3.5e38)))
        return parts.add("Clip", name, low, high)
    names = {"LeakyRelu": ("alpha",), "HardSigmoid": ("alpha", "beta"), "Elu": ("alpha",)}
    known = ("Relu", "Sigmoid", "Tanh", "Softplus", "Softsign", "HardSwish", "Gelu", *names)
    parts.demand(kind in known, "the activation of a fused node must be known")
    options: dict[str, Any] = dict(zip(names.get(kind, ()), numbers, strict=False))
    return parts.add(kind, name, **options)


@foreign("FusedConv")
def _fused_conv(parts: Parts) -> Sequence[str]:
    """Convolution, sum with a tensor, activation."""
    options = parts.options("activation", "activation_params")
    made = parts.add("Conv", *(parts.input(place) for place in range(3)), **options)
    if parts.given(3):
        made = parts.add("Add", made, parts.input(3))
    return [_activated(parts, made, parts.option("activation_params"))]


@foreign("NhwcFusedConv")
def _fused_conv_of_last(parts: Parts) -> Sequence[str]:
    options = parts.options("activation", "activation_params")
    x = moved(parts, parts.input(0), first=True)
    made = parts.add("Conv", x, parts.input(1), parts.input(2), **options)
    made = moved(parts, made, first=False)
    if parts.given(3):
        made = parts.add("Add", made, parts.input(3))
    return [_activated(parts, made, parts.option("activation_params"))]


@foreign("FusedMatMul", "TransposeMatMul")
def _fused_matmul(parts: Parts) -> Sequence[str]:
    sides = []
    for place, side in enumerate("AB"):
        name = parts.input(place)
        rank = len(parts.shape(name))
        order = list(range(rank))
        if parts.option(f"transBatch{side}", 0):
            order = [*order[1:-1], order[0], order[-1]]
        if parts.option(f"trans{side}", 0):
            order[-2:] = order[:-3:-1]
        sides.append(name if order == sorted(order) else parts.add("Transpose", name, perm=order))
    made = parts.add("MatMul", *sides)
    alpha = parts.option("alpha", 1.0)
    return [made if alpha == 1 else parts.add("Mul", made, parts.numbers(alpha, TensorProto.FLOAT))]


@foreign("FusedGemm")
def _fused_gemm(parts: Parts) -> Sequence[str]:
    numbers = [
        parts.option(f"activation_{name}")
        for name in ("alpha", "beta")
        if parts.option(f"activation_{name}") is not None
    ]
    options = {name: parts.option(name) for name in ("alpha", "beta", "transA", "transB")}
    made = parts.add("Gemm", *(parts.input(place) for place in range(3)), **options)
    return [_activated(parts, made, numbers)]


# --- norms ---------------------------------------------------------------------------------------


@foreign("SkipLayerNormalization", "SkipSimplifiedLayerNormalization")
def _skip_norm(parts: Parts) -> Sequence[str]:
    simple = "Simplified" in parts.node.op_type
    total = parts.add("Add", parts.input(0), parts.input(1))
    bias = parts.input(3 if simple else 4)
    if bias:
        total = parts.add("Add", total, bias)
    if simple:
        made = parts.add("RMSNormalization", total, parts.input(2))
    else:
        made = parts.add("LayerNormalization", total, parts.input(2), parts.input(3))
    nothing = parts.numbers(0.0, TensorProto.FLOAT)
    return [made, nothing, nothing, total]


@foreign("SimplifiedLayerNormalization")
def _simple_norm(parts: Parts) -> Sequence[str]:
    axis = parts.option("axis", -1)
    made = parts.add("RMSNormalization", parts.input(0), parts.input(1), axis=axis)
    return [made, parts.numbers(0.0, TensorProto.FLOAT)]


@foreign("EmbedLayerNormalization")
def _embedding_norm(parts: Parts) -> Sequence[str]:
    """Sum of the embeddings of words, places and segments, normalised."""
    words = parts.input(0)
    length = parts.shape(words)[1]
    total = parts.add("Gather", parts.input(2), words)
    if parts.given(8):
        places = parts.add("Gather", parts.input(3), parts.input(8))
    else:
        # A look-up, as networks have it: all rows of a table are learned.
        places = parts.add("Gather", parts.input(3), parts.numbers(range(length)))
    total = parts.add("Add", total, places)
    if parts.given(1) and parts.given(4):
        total = parts.add("Add", total, parts.add("Gather", parts.input(4), parts.input(1)))
    made = parts.add("LayerNormalization", total, parts.input(5), parts.input(6))
    results = [made]
    if parts.wants(1):
        lengths = np.full(parts.shape(words)[:1], length)
        results.append(parts.numbers(lengths, TensorProto.INT32))
    elif len(parts.node.output) > 2:
        results.append(made)
    return [*results, total]


# --- functions -----------------------------------------------------------------------------------


@foreign("Gelu", "BiasGelu", "FastGelu")
def _gelu(parts: Parts) -> Sequence[str]:
    x = parts.input(0)
    if parts.given(1):
        x = parts.add("Add", x, parts.input(1))
    return [parts.add("Gelu", x)]


@foreign("QuickGelu")
def _quick_gelu(parts: Parts) -> Sequence[str]:
    x, alpha = parts.input(0), parts.option("alpha", 1.702)
    scaled = x
    if alpha != 1:
        scaled = parts.add("Mul", x, parts.numbers(alpha, TensorProto.FLOAT))
    return [parts.add("Mul", x, parts.add("Sigmoid", scaled))]


@foreign("BiasSoftmax")
def _bias_softmax(parts: Parts) -> Sequence[str]:
    total = parts.add("Add", parts.input(0), parts.input(1))
    axis, rank = parts.option("axis", 1), len(parts.shape(total))
    parts.demand(axis % rank == rank - 1, "a softmax must be over the last axis")
    return [parts.add("Softmax", total, axis=-1)]


# --- attention -----------------------------------------------------------------------------------


@foreign("Attention", "QAttention")
def _attention(parts: Parts) -> Sequence[str]:
    """Projection of one tensor to queries, keys and values, and their attention."""
    quantised = parts.node.op_type == "QAttention"
    mask, past = (5, 8) if quantised else (3, 4)
    plain = not parts.given(past) and not parts.wants(1)
    parts.demand(plain, "an attention must keep no keys and values of earlier calls")
    made = parts.add("MatMul", parts.real(0), parts.real(1))
    if parts.given(2):
        made = parts.add("Add", made, parts.input(2))
    width = parts.shape(made)[-1]
    sizes = parts.option("qkv_hidden_sizes") or [width // 3] * 3
    first = parts.add("Split", made, parts.numbers(sizes), axis=-1, outputs=3)
    q, k, v = first, f"{first}+1", f"{first}+2"
    masks = [parts.input(mask)] if parts.given(mask) else []
    if not quantised and parts.given(5):
        masks.append(parts.input(5))
    return [_heads_attend(parts, q, k, v, masks)]


@foreign("MultiHeadAttention")
def _multi_head_attention(parts: Parts) -> Sequence[str]:
    q, k, v = (parts.input(place) for place in range(3))
    ranks = [len(parts.shape(name)) for name in (q, k, v) if name]
    plain = ranks == [3, 3, 3] and not parts.given(6) and not parts.wants(1)
    parts.demand(plain, "an attention must read queries, keys and values of three axes alone")
    if parts.given(3):
        widths = [parts.shape(name)[-1] for name in (q, k, v)]
        first = parts.add("Split", parts.input(3), parts.numbers(widths), axis=0, outputs=3)
        biases = (first, f"{first}+1", f"{first}+2")
        q, k, v = (
            parts.add("Add", name, bias) for name, bias in zip((q, k, v), biases, strict=True)
        )
    masks = [parts.input(place) for place in (4, 5) if parts.given(place)]
    return [_heads_attend(parts, q, k, v, masks)]


def _heads_attend(parts: Parts, q: str, k: str, v: str, masks: Sequence[str]) -> str:
    heads = parts.option("num_heads")
    total = ""
    for name in masks:
        shape = parts.shape(name)
        parts.demand(len(shape) in (2, 4), "the mask of an attention must have two axes or four")
        if len(shape) == 2:
            name = parts.add("Unsqueeze", name, parts.numbers([1, 2]))
        total = parts.add("Add", total, name) if total else name
    return parts.add(
        "Attention",
        q,
        k,
        v,
        total,
        q_num_heads=heads,
        kv_num_heads=heads,
        is_causal=parts.option("unidirectional", 0),
    )


# --- channels in blocks --------------------------------------------------------------------------
# Channels are filled up to whole blocks by zeros; they are read without these.


def _blocked(*names: str) -> Callable[[Rewrite], Rewrite]:
    def add(rewrite: Rewrite) -> Rewrite:
        BLOCKED.update(dict.fromkeys(names, rewrite))
        return rewrite

    return add


@_blocked("Conv")
def _blocked_conv(parts: Parts) -> Sequence[str]:
    whole = parts.shape(parts.input(1))
    used = _used_channels(parts)
    group = parts.option("group", 1)
    if group == whole[0]:
        group = used
    inner = parts.shape(parts.input(0))[1] // group
    weight = parts.parameter((used, inner, *whole[2:]), parts.input(1))
    bias = parts.parameter((used,), parts.input(2)) if parts.given(2) else ""
    options = parts.options("activation", "activation_params", "group")
    made = parts.add("Conv", parts.input(0), weight, bias, group=group, **options)
    if parts.given(3):
        made = parts.add("Add", made, parts.input(3))
    return [_activated(parts, made, parts.option("activation_params"))]


def _used_channels(parts: Parts) -> int:
    """Output channels of a blocked convolution without those at the end that are all zeros.

    Its weight holds, for each block of output channels, rows of one number for each channel.
    """
    operand = parts.operand(parts.input(1))
    channels, data = operand.value.shape[0], operand.data
    if data is None:
        return channels
    used = channels
    for block in (8, 16):
        if channels % block == 0:
            last = np.any(data.reshape(channels // block, -1, block)[-1] != 0, axis=0)
            empty = int(np.argmax(last[::-1])) if last.any() else 0
            used = min(used, channels - empty)
    return used


@_blocked("MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool")
def _blocked_pool(parts: Parts) -> Sequence[str]:
    return [parts.add(parts.node.op_type, parts.input(0), **parts.options())]


@_blocked("Upsample")
def _blocked_upsample(parts: Parts) -> Sequence[str]:
    shape = parts.shape(parts.input(0))
    sizes = [n * scale for n, scale in zip(shape, parts.option("scales"), strict=True)]
    mode = parts.option("mode", "nearest")
    return [parts.add("Resize", parts.input(0), "", "", parts.numbers(sizes), mode=mode)]


@_blocked("ReorderInput")
def _into_blocks(parts: Parts) -> Sequence[str]:
    x = parts.input(0)
    if parts.option("channels_last", 0):
        x = moved(parts, x, first=True)
    return [parts.add("Identity", x)]


@_blocked("ReorderOutput")
def _out_of_blocks(parts: Parts) -> Sequence[str]:
    x, channels = parts.input(0), parts.option("channels")
    if prod(parts.shape(x)[1:2]) > channels:
        ends = [parts.numbers([n]) for n in (0, channels, 1)]
        x = parts.add("Slice", x, *ends)
    if parts.option("channels_last", 0):
        x = moved(parts, x, first=False)
    return [parts.add("Identity", x)]
