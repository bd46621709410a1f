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

from nni_aiop.graphs._vocabulary import is_known

__all__ = ["Schema", "schema_of", "tensors_in"]

_BUILDERS = frozenset(
    {"identity", "reshape", "transpose", "clamp", "binary", "unary", "matmul", "reduce", "slice"}
)
"""Names that `Builder` gives a meaning beside the vocabulary."""

_FACTORIES = frozenset(
    {
        "arange", "empty", "empty_like", "empty_strided", "eye", "full", "full_like", "linspace",
        "logspace", "new_empty", "new_empty_strided", "new_full", "new_ones", "new_zeros", "ones",
        "ones_like", "rand", "rand_like", "randn", "randn_like", "randint", "scalar_tensor",
        "tril_indices", "triu_indices", "zeros", "zeros_like",
    }
)  # fmt: skip
"""Operations whose result does not depend on their tensors' values: constants."""

_RANDOM = frozenset({"rand", "rand_like", "randn", "randn_like", "randint"})


@dataclass(frozen=True)
class Schema:
    """What is known about an operation before it runs.

    Attributes:
        name: The operation, without its overload.
        other: Its name in a graph where the table does not have it.
        writes: Places (or names, for keywords) of the arguments that are written.
        outs: Names of the keyword arguments that only take results.
        pure: The same operation that writes nothing; itself where it writes nothing; None where
            there is none.
        returns_written: For each result, whether it is one of the written arguments.
        changes_shape: Whether the written argument itself becomes a view (`transpose_`).
        composite: Whether it is made of other operations.
        reads_data: Whether the result, or its shape, depends on the values of the data.
        factory: Whether the result does not depend on the values of tensors (`zeros_like`).
        random: Whether it is drawn anew each time.
    """

    name: str
    other: str
    writes: tuple[int | str, ...]
    outs: tuple[str, ...]
    pure: Any
    returns_written: tuple[bool, ...]
    changes_shape: bool
    composite: bool
    reads_data: bool
    factory: bool
    random: bool

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
        other=_other(name),
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
        # linspace.Tensor_Tensor takes values of tensors, too.
        factory=name in _FACTORIES and not set(tensors) - {"self", *outs},
        random=name in _RANDOM,
    )


def _other(name: str) -> str:
    """A name that is no operation of the vocabulary, nor of `Builder`."""
    name = name.strip("_")
    return f"aten_{name}" if is_known(name) or name in _BUILDERS else name


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
