"""What the schema of an ATen operation says: what it writes, what its results show, its twin.

A schema marks an argument that is written with (a!), and a result that shows an argument's data
with the argument's letter: `add_(Tensor(a!) self, ...)`, `add.out(..., *, Tensor(a!) out)`,
`select.int(Tensor(a) self, ...) -> Tensor(a)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

__all__ = ["Schema", "schema_of", "tensors_in"]


@dataclass(frozen=True)
class Schema:
    """What is known about an operation before it runs.

    Attributes:
        name: The operation, without its overload.
        writes: Places (or names, for keywords) of the arguments that are written.
        outs: Names of the keyword arguments that only take results.
        pure: The same operation that writes nothing; itself where it writes nothing; None where
            there is none.
        returns_written: For each result, whether it is one of the written arguments.
        changes_shape: Whether the written argument itself becomes a view (`transpose_`).
        composite: Whether it is made of other operations.
        reads_data: Whether the result, or its shape, depends on the values of the data.
        takes_data: Whether a factory (`full`, `linspace`) takes a tensor whose values matter.
    """

    name: str
    writes: tuple[int | str, ...]
    outs: tuple[str, ...]
    pure: Any
    returns_written: tuple[bool, ...]
    changes_shape: bool
    composite: bool
    reads_data: bool
    takes_data: bool

    def written(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
        """The tensors that a call writes."""
        found: list[Tensor] = []
        for place in self.writes:
            if isinstance(place, str):
                found += tensors_in(kwargs.get(place))
            elif place < len(args):
                found += tensors_in(args[place])
        return found


def tensors_in(*nests: Any) -> list[Tensor]:
    """The tensors among arguments, lists and keyword arguments included."""
    found: list[Tensor] = []
    for x in nests:
        if isinstance(x, Tensor):
            found.append(x)
        elif isinstance(x, (list, tuple)):
            found += tensors_in(*x)
        elif isinstance(x, dict):
            found += tensors_in(*x.values())
    return found


@cache
def schema_of(func: Any) -> Schema:
    """What the schema of an operation says."""
    schema = func._schema
    name = func._overloadpacket.__name__
    writes: list[int | str] = []
    outs: list[str] = []
    for place, argument in enumerate(schema.arguments):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        if argument.kwarg_only:
            writes.append(argument.name)
            outs.append(argument.name)
        else:
            writes += [place, argument.name]
    tags = func.tags
    tensors = [a.name for a in schema.arguments if "Tensor" in str(a.type)]
    return Schema(
        name=name,
        writes=tuple(writes),
        outs=tuple(outs),
        pure=_pure(func, name, outs) if writes else func,
        returns_written=tuple(
            r.alias_info is not None and r.alias_info.is_write for r in schema.returns
        ),
        changes_shape=torch.Tag.inplace_view in tags,
        composite=torch._C._dispatch_has_kernel_for_dispatch_key(
            func.name(), torch._C.DispatchKey.CompositeImplicitAutograd
        ),
        reads_data=torch.Tag.data_dependent_output in tags
        or torch.Tag.dynamic_output_shape in tags,
        takes_data=bool(set(tensors) - {"self", *outs}),
    )


def _pure(func: Any, name: str, outs: Sequence[str]) -> Any:
    """The overload with the same arguments that makes a new tensor."""
    wanted = [(a.name, str(a.type)) for a in func._schema.arguments if a.name not in outs]
    names = [name] if outs else [name.removesuffix("_")] if name.endswith("_") else []
    for candidate in names:
        packet = getattr(getattr(torch.ops, func.namespace), candidate, None)
        for overload in packet.overloads() if packet is not None else ():
            other = getattr(packet, overload)
            arguments = other._schema.arguments
            if any(a.alias_info is not None and a.alias_info.is_write for a in arguments):
                continue
            # The first is called `self` or `input`.
            if [(a.name, str(a.type)) for a in arguments][1:] == wanted[1:]:
                return other
    return None
