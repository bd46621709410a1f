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
    for name, part in module.named_modules():
        where = f" (in {name})" if name else ""
        if isinstance(part, torch.jit.ScriptModule):
            raise GraphError(
                "a module must be written in Python, but got a scripted or traced "
                f"{getattr(part, 'original_name', type(part).__name__)}{where}: give the module "
                "that it was made of, or its ONNX file."
            )
        own = (*part._parameters.values(), *part._buffers.values())
        if any(x is not None and is_lazy(x) for x in own):
            raise GraphError(
                "a module's parameters must have shapes, but those of "
                f"{type(part).__name__}{where} are not initialised: run the module once first."
            )
        # A module holds a dozen of these for hooks; copying them takes longer than all the rest.
        for value in vars(part).values():
            if type(value) is OrderedDict and not value:
                memo[id(value)] = OrderedDict()
            elif isinstance(value, (Tensor, list, tuple, dict)):
                for tensor in tensors_in(value):
                    if not tensor.is_leaf:  # made of parameters, as the old weight_norm does
                        memo[id(tensor)] = on_meta(tensor)
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(on_meta(parameter), requires_grad=False)
    buffers = []
    for buffer in module.buffers():
        if id(buffer) not in memo:
            memo[id(buffer)] = on_meta(buffer)
            buffers.append((memo[id(buffer)], buffer))
    try:
        return copy.deepcopy(module, memo).eval(), buffers
    except Exception as err:
        raise GraphError(
            f"a module must bear copy.deepcopy, but {type(module).__name__} raised "
            f"{type(err).__name__}: {err}"
        ) from err
