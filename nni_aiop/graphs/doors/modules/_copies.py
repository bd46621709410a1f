"""Copies of modules that hold meta tensors, so that reading a network touches nothing."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from nni_aiop.errors import GraphError
from nni_aiop.graphs.doors.modules._schemas import tensors_in

__all__ = ["meta_copy", "on_meta"]


def on_meta(x: Any) -> Tensor:
    """A meta tensor like a tensor, or of a shape."""
    if isinstance(x, Tensor):
        return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")
    if any(n < 1 for n in x):
        raise GraphError(f"a shape must be of positive whole numbers, but got {tuple(x)}.")
    return torch.empty(x, device="meta")


def meta_copy(module: nn.Module) -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    """A copy in evaluation mode that holds meta tensors, and its buffers with the originals.

    Raises:
        GraphError: The module is scripted, not initialised yet, or cannot be copied.
    """
    memo: dict[int, Any] = {}
    buffers = []
    for part in module.modules():
        if isinstance(part, torch.jit.ScriptModule):
            raise GraphError(
                "a module must be written in Python, but got a scripted or traced "
                f"{getattr(part, 'original_name', type(part).__name__)}{_place(module, part)}: "
                "give the module that it was made of, or its ONNX file."
            )
        for own in (*part._parameters.values(), *part._buffers.values()):
            if own is None or id(own) in memo:
                continue
            if is_lazy(own):
                raise GraphError(
                    f"a module's parameters must have shapes, but those of {type(part).__name__}"
                    f"{_place(module, part)} are not initialised: run the module once first."
                )
            if isinstance(own, nn.Parameter):
                memo[id(own)] = nn.Parameter(on_meta(own), requires_grad=False)
            else:
                memo[id(own)] = on_meta(own)
                buffers.append((memo[id(own)], own))
        for name, value in vars(part).items():
            kind = type(value)
            if kind is bool or kind is int or name in _TABLES:
                continue
            if kind is OrderedDict and not value:
                # A module holds a dozen of these for hooks; copying them takes longer than all
                # the rest.
                memo[id(value)] = OrderedDict()
            elif isinstance(value, (Tensor, list, tuple, dict)):
                for tensor in tensors_in(value):
                    if not tensor.is_leaf:  # made of parameters, as the old weight_norm does
                        memo.setdefault(id(tensor), on_meta(tensor))
    try:
        return copy.deepcopy(module, memo).eval(), buffers
    except Exception as err:
        raise GraphError(
            f"a module must bear copy.deepcopy, but {type(module).__name__} raised "
            f"{type(err).__name__}: {err}"
        ) from err


_TABLES = frozenset({"_parameters", "_buffers", "_modules"})


def _place(module: nn.Module, part: nn.Module) -> str:
    name = next((name for name, other in module.named_modules() if other is part), "")
    return f" (in {name})" if name else ""
