"""Smaller forms of layers, their weights made from those that were there.

- the centre of a kernel: a crop, or a 1x1 convolution;
- a product of two layers of a low rank, by singular value decomposition (Jaderberg et al. 2014,
  arXiv 1405.3866);
- a depthwise and a pointwise convolution: of every input channel's kernels the best of rank one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from nni_aiop.graphs.edits import rank_of
from nni_aiop.networks._draft import Draft, parameter_of, set_parameter
from nni_aiop.networks._pass import packet_name
from nni_aiop.networks._surgery import arguments_of, set_arguments

__all__ = ["centre", "low_rank", "reform", "separable"]


def reform(draft: Draft, node: fx.Node, shape: Sequence[int] | None, option: object) -> None:
    """Gives a layer another form, its weights made from those it has."""
    assert shape is not None
    given = arguments_of(node)
    holder = node.args[1]
    assert isinstance(holder, fx.Node)
    path = str(holder.target)
    old = parameter_of(draft, path)
    weight = old.detach()
    if option == "1x1" or isinstance(option, int):
        size = 1 if option == "1x1" else int(str(option))
        _set(draft, path, centre(weight, size), old)
        if not isinstance(given["padding"], str):
            n = weight.dim() - 2
            padding, dilation = (_each(given[name], n) for name in ("padding", "dilation"))
            cut = zip(padding, dilation, weight.shape[2:], strict=True)
            set_arguments(node, padding=[p - d * (k - size) // 2 for p, d, k in cut])
        return
    if option == "separable":
        first, last = separable(weight)
    else:
        first, last = low_rank(weight, rank_of(shape, str(option)))
    graph = draft.graph
    parts = []
    with graph.inserting_before(node):
        for suffix, value in (("first", first), ("last", last)):
            own = f"{path}_{suffix}"
            _set(draft, own, value, old)
            parts.append(graph.get_attr(own))
            parts[-1].meta.update(holder.meta)
        before = dict(given, weight=parts[0], bias=None)
        if option == "separable":
            before["groups"] = first.shape[0]
        names = [a.name for a in node.target._schema.arguments]  # type: ignore[union-attr]
        middle = graph.call_function(node.target, tuple(before[name] for name in names))  # type: ignore[arg-type]
        middle.meta.update({k: v for k, v in node.meta.items() if k != "val"})
    if packet_name(node) == "linear":
        set_arguments(node, input=middle, weight=parts[1])
        return
    n = weight.dim() - 2
    plain = getattr(torch.ops.aten, packet_name(node)).default
    node.target = plain
    node.args = (middle, parts[1], given["bias"], [1] * n, [0] * n, [1] * n, 1)
    node.kwargs = {}


def _each(value: Any, n: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * n if len(values) == 1 else values


def _set(draft: Draft, path: str, value: Tensor, like: Tensor) -> None:
    set_parameter(draft, path, nn.Parameter(value, like.requires_grad))


def centre(weight: Tensor, size: int) -> Tensor:
    """(out, in, size, ...) the middle of kernels (out, in, k, ...)."""
    index: list[slice] = [slice(None), slice(None)]
    for k in weight.shape[2:]:
        first = (k - size) // 2
        index.append(slice(first, first + size))
    return weight[tuple(index)].clone()


def low_rank(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Weights (rank, in, ...) and (out, rank, 1 ...) whose product is nearest to (out, in, ...)."""
    out, rest = weight.shape[0], weight.shape[1:]
    matrix = weight.reshape(out, -1).double()
    wide = matrix.shape[0] <= matrix.shape[1]
    # The eigenvectors of the smaller square are the singular vectors of one side.
    square = matrix @ matrix.T if wide else matrix.T @ matrix
    n = min(rank, len(square))
    values, vectors = torch.linalg.eigh(square)
    side = vectors[:, -n:].flip(1)
    root = values[-n:].flip(0).clamp(min=0.0).sqrt().sqrt()
    inverse = torch.where(root > 0, 1 / root.clamp(min=1e-30), root)
    left = side * root if wide else (matrix @ side) * inverse
    right = inverse[:, None] * (side.T @ matrix) if wide else root[:, None] * side.T
    first = weight.new_zeros(rank, matrix.shape[1])
    last = weight.new_zeros(out, rank)
    first[:n] = right.to(weight.dtype)
    last[:, :n] = left.to(weight.dtype)
    return first.reshape(rank, *rest), last.reshape(out, rank, *_ones(rest[1:]))


def separable(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (in, 1, k, ...) and (out, in, 1, ...) of a depthwise and a pointwise convolution."""
    out, channels, *kernel = weight.shape
    each = weight.transpose(0, 1).reshape(channels, out, -1).double()
    u, s, v = torch.linalg.svd(each, full_matrices=False)
    root = s[:, 0].sqrt()
    first = (root[:, None] * v[:, 0]).to(weight.dtype).reshape(channels, 1, *kernel)
    last = (root[:, None] * u[:, :, 0]).to(weight.dtype).T
    return first, last.reshape(out, channels, *_ones(kernel)).contiguous()


def _ones(sizes: Sequence[int]) -> list[int]:
    return [1] * len(sizes)
