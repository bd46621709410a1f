"""Smaller forms of layers, their weights made from those that were there.

- the centre of a kernel: a crop, or a 1x1 convolution;
- a product of two layers of a low rank, by singular value decomposition (Jaderberg et al. 2014,
  arXiv 1405.3866);
- a depthwise and a pointwise convolution: of every input channel's kernels the best of rank one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["centre", "low_rank", "separable"]


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
