"""The PyTorch door: runs a copy of a module on the meta device and writes down what it does.

Under `torch.inference_mode` a dispatch mode sees ATen operations before they are broken up, such as
aten.linear and aten.scaled_dot_product_attention; `_handlers` says what each means. Nothing is
computed and the module is not touched: the copy shares no tensor with it.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from nni_aiop.errors import GraphError
from nni_aiop.graphs._graph import ComputeGraph
from nni_aiop.graphs.doors.modules._handlers import HANDLERS
from nni_aiop.graphs.doors.modules._recorder import Recorder

__all__ = ["from_module"]

Example = Any
"""A tensor, a shape, or any nest of them in tuples, lists and dicts."""


def _on_meta(x: Any) -> Tensor:
    if isinstance(x, Tensor):
        return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")
    if any(n < 1 for n in x):
        raise GraphError(f"a shape must be of positive whole numbers, but got {tuple(x)}.")
    return torch.empty(x, device="meta")


def _is_shape(x: Any) -> bool:
    return isinstance(x, (tuple, list)) and len(x) > 0 and all(type(n) is int for n in x)


def _copy(module: nn.Module) -> tuple[nn.Module, dict[int, str]]:
    """A copy in evaluation mode that holds meta tensors, and its parameters' names."""
    memo: dict[int, Any] = {}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(_on_meta(parameter), requires_grad=False)
    for buffer in module.buffers():
        memo.setdefault(id(buffer), _on_meta(buffer))
    for part in module.modules():
        # A module holds a dozen of these for hooks; copying them takes longer than all the rest.
        for value in vars(part).values():
            if type(value) is OrderedDict and not value:
                memo[id(value)] = OrderedDict()
    twin = copy.deepcopy(module, memo).eval()
    names = {id(p): name for name, p in twin.named_parameters()}
    return twin, names


def from_module(
    module: nn.Module,
    example: Example,
    *,
    kwargs: dict[str, Example] | None = None,
) -> ComputeGraph:
    """The compute graph of a PyTorch module, in evaluation mode.

    No arithmetic is run and the module is not touched: a copy on the meta device is.

    Args:
        module: Any module that can be copied (`copy.deepcopy`).
        example: Its inputs: a tensor or a shape such as (1, 3, 224, 224); a tuple or list of
            them where the module takes several; nests where an input is one. Values are not
            looked at; a shape means float32.
        kwargs: Inputs by keyword.

    Raises:
        GraphError: The module raises, its control flow depends on data, its shapes do, or no
            output depends on an input. The module's own exception is the cause.

    Example:
        >>> graph = from_module(nn.Sequential(nn.Linear(4, 2), nn.ReLU()), (8, 4))
        >>> graph.operations
        {'input': 1, 'linear': 1, 'output': 1, 'relu': 1}
    """
    if isinstance(example, Tensor) or _is_shape(example):
        example = (example,)
    if not isinstance(example, (tuple, list)):
        raise GraphError(
            f"an example must be a tensor or a shape, or several, but got {example!r}."
        )
    kwargs = kwargs or {}
    try:
        twin, learned = _copy(module)
    except Exception as err:
        raise GraphError(
            f"a module must bear copy.deepcopy, but {type(module).__name__} raised "
            f"{type(err).__name__}: {err}"
        ) from err
    recorder = Recorder(HANDLERS)
    for parameter in twin.parameters():
        recorder.register(
            parameter, recorder.builder.parameter(tuple(parameter.shape), learned[id(parameter)])
        )
    leaves, spec = pytree.tree_flatten(
        (tuple(example), kwargs), is_leaf=lambda x: isinstance(x, Tensor) or _is_shape(x)
    )
    inputs = []
    for place, leaf in enumerate(leaves):
        if isinstance(leaf, Tensor) or _is_shape(leaf):
            leaf = _on_meta(leaf)
            recorder.register(leaf, recorder.builder.input(tuple(leaf.shape), f"input_{place}"))
        inputs.append(leaf)
    args, named = pytree.tree_unflatten(inputs, spec)
    _name_modules(twin, recorder.scope)
    try:
        with torch.inference_mode(), recorder:
            result = twin(*args, **named)
    except Exception as err:
        raise GraphError(_reason(module, recorder.scope[-1], err)) from err
    tensors = [x for x in pytree.tree_leaves(_plain(result)) if isinstance(x, Tensor)]
    for place, tensor in enumerate(tensors):
        recorder.builder.output(recorder.value(tensor), f"output_{place}")
    return recorder.builder.finish()


def _plain(result: Any) -> Any:
    """Dicts and records of a kind that pytree does not know, as plain dicts."""
    if isinstance(result, dict):
        return {str(k): _plain(v) for k, v in result.items()}
    if hasattr(result, "__dataclass_fields__"):
        return {k: _plain(getattr(result, k)) for k in result.__dataclass_fields__}
    if isinstance(result, (list, tuple)):
        return [_plain(v) for v in result]
    return result


def _name_modules(module: nn.Module, scope: list[str]) -> None:
    """Lets `scope` end in the path of the module that runs."""

    def leave(*_: Any) -> None:
        scope.pop()

    for name, part in module.named_modules():
        part.register_forward_pre_hook(lambda *_, name=name: scope.append(name))
        part.register_forward_hook(leave)


def _reason(module: nn.Module, scope: str, err: Exception) -> str:
    what = f"{type(module).__name__}" + (f" (in {scope})" if scope else "")
    text = str(err).strip().split("\n")[0]
    if any(word in str(err) for word in _DATA_DEPENDENT):
        return (
            f"what a network does must not depend on the values of its data, but {what} asks for "
            f"one: {text}"
        )
    return f"a network must run on the example, but {what} raised {type(err).__name__}: {text}"


_DATA_DEPENDENT = (
    "cannot be called on meta tensors",
    "data-dependent",
    "data-independent",
    "aten::nonzero",
    "aten::_local_scalar_dense",
    "aten::equal",
    "aten::masked_select",
    "aten::is_nonzero",
    "Tensor on device meta",
)
