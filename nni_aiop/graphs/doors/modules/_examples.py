"""Arguments and results of a module: nests of tensors, and what else stands in them."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from nni_aiop.errors import GraphError
from nni_aiop.graphs.doors.modules._schemas import tensors_in

__all__ = ["Plain", "is_shape", "mapped", "plain_arguments", "tensors_of"]


@dataclasses.dataclass(frozen=True)
class Plain:
    """An argument that is passed on as it is."""

    value: Any


def is_shape(x: Any) -> bool:
    """Whether an example is taken for a shape: a tuple or list of whole numbers."""
    return (
        isinstance(x, (tuple, list))
        and len(x) > 0
        and not hasattr(x, "_fields")
        and all(type(n) is int for n in x)
    )


def mapped(x: Any, leaf: Callable[[Any], Any]) -> Any:
    """The same nest with other leaves: records, mappings and tuples keep their class."""
    if isinstance(x, Plain):
        return x.value
    if isinstance(x, Tensor) or is_shape(x):
        return leaf(x)
    if isinstance(x, Mapping):
        return _mapping(x, {k: mapped(v, leaf) for k, v in x.items()})
    if dataclasses.is_dataclass(x) and not isinstance(x, type):
        twin = copy.copy(x)
        for field in dataclasses.fields(x):
            if hasattr(x, field.name):
                # Not `replace`, which asks for what __init__ takes, and checks it again.
                object.__setattr__(twin, field.name, mapped(getattr(x, field.name), leaf))
        return twin
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return type(x)(*(mapped(v, leaf) for v in x))
    if isinstance(x, (tuple, list)):
        return type(x)(mapped(v, leaf) for v in x)
    parts, spec = pytree.tree_flatten(x, is_leaf=lambda y: y is not x)
    if len(parts) != 1 or parts[0] is not x:
        return pytree.tree_unflatten([mapped(v, leaf) for v in parts], spec)
    if tensors_in(getattr(x, "__dict__", {})):
        raise GraphError(
            "tensors of an example must stand in tuples, lists, mappings or dataclasses, but got "
            f"some in {type(x).__name__}."
        )
    return leaf(x)


def _mapping(x: Mapping[Any, Any], items: dict[Any, Any]) -> Any:
    if type(x) is dict:
        return items
    twin: Any = copy.copy(x)
    if not hasattr(twin, "__setitem__"):
        return items
    for key, value in items.items():
        twin[key] = value
    return twin


def tensors_of(result: Any) -> list[Tensor]:
    """The tensors of a module's result, from left to right."""
    if isinstance(result, Tensor):
        return [result]
    if isinstance(result, Mapping):
        parts: Sequence[Any] = list(result.values())
    elif dataclasses.is_dataclass(result) and not isinstance(result, type):
        parts = [getattr(result, f.name, None) for f in dataclasses.fields(result)]
    elif isinstance(result, (list, tuple, set, frozenset)):
        parts = list(result)
    else:
        parts = pytree.tree_leaves(result, is_leaf=lambda y: y is not result)
        if len(parts) == 1 and parts[0] is result:
            return tensors_in(getattr(result, "__dict__", {}))
    return [tensor for part in parts for tensor in tensors_of(part)]


def plain_arguments(
    module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """The arguments; tuples of whole numbers that `forward` takes for such are marked `Plain`."""
    if not any(map(is_shape, (*args, *kwargs.values()))):
        return list(args), dict(kwargs)
    try:
        parameters = inspect.signature(module.forward).parameters
    except (TypeError, ValueError):
        return list(args), dict(kwargs)
    try:
        hints = typing.get_type_hints(module.forward)
    except (NameError, TypeError, AttributeError):
        hints = {}
    numbers = {
        name
        for name, parameter in parameters.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and _takes_numbers(hints.get(name, parameter.empty), parameter.default)
    }
    places = [
        name
        for name, parameter in parameters.items()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]

    def marked(name: str, x: Any) -> Any:
        return Plain(x) if name in numbers and is_shape(x) else x

    named = [*places, *("",) * len(args)]
    return (
        [marked(name, x) for name, x in zip(named, args, strict=False)],
        {name: marked(name, x) for name, x in kwargs.items()},
    )


def _takes_numbers(hint: Any, default: Any) -> bool:
    """Whether a parameter's annotation, or its default, says whole numbers and no tensor."""
    if hint is inspect.Parameter.empty:
        return type(default) is int or is_shape(default)
    return _is_numbers(hint)


def _is_numbers(hint: Any) -> bool:
    if hint in (int, tuple, list, Sequence, torch.Size):
        return True
    if isinstance(hint, type) and issubclass(hint, torch.Size):
        return True
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        some = [h for h in inner if h is not type(None)]
        return bool(some) and all(_is_numbers(h) or h is float for h in some)
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return all(h is Ellipsis or _is_numbers(h) for h in inner)
    return False
