"""How results lie in memory, where PyTorch's own kernels are not asked."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format

__all__ = ["empty"]

_BY_FORMAT = frozenset(
    {
        "conv", "conv_transpose", "batch_norm", "group_norm", "max_pool", "avg_pool", "pad",
        "adaptive_avg_pool", "adaptive_max_pool", "shuffle",
    }
)  # fmt: skip
"""Operations whose result is channels_last where their input (or weight) is."""

_PLAIN = frozenset(
    {
        "softmax", "log_softmax", "layer_norm", "rms_norm", "instance_norm", "linear", "matmul",
        "attention", "embedding", "gather_elements", "reduce", "reshape", "concat",
    }
)  # fmt: skip
"""Operations whose result is contiguous; all others work entry by entry and keep the order."""


def empty(op: str, shape: Sequence[int], like: Tensor, weight: Tensor | None = None) -> Tensor:
    """A meta tensor for the result of an operation, in the order that PyTorch gives it."""
    if op in _BY_FORMAT:
        for tensor in (like, weight):
            if tensor is not None and not tensor.is_contiguous() and tensor.ndim == len(shape):
                form = suggest_memory_format(tensor)
                if form is not torch.contiguous_format:
                    return torch.empty(shape, dtype=like.dtype, device="meta", memory_format=form)
    elif op not in _PLAIN and not like.is_contiguous() and like.ndim == len(shape):
        if tuple(shape) == tuple(like.shape):
            return torch.empty_like(like, device="meta")
        strides = like.stride()
        order = tuple(sorted(range(like.ndim), key=lambda axis: -strides[axis]))
        return torch.empty_permuted(shape, order, dtype=like.dtype, device="meta")
    return torch.empty(shape, dtype=like.dtype, device="meta")
