"""The table of ATen operations, and what its handlers share.

A handler gets the recorder, the operation and its arguments, and returns the result as a meta
tensor that the recorder knows. Operations in place (`relu_`) share the handler of their twin.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from nni_aiop.graphs.doors.modules._recorder import Handler, Recorder
from nni_aiop.graphs.rules._values import Value

__all__ = ["HANDLERS", "each", "handles", "out_of_place", "registered"]

H = TypeVar("H", bound=Handler)

HANDLERS: dict[str, Handler] = {}
"""Handler of each operation, by the name of its packet without a trailing underscore."""


def handles(*names: str) -> Callable[[H], H]:
    """Enters a handler into the table under these names."""

    def add(handler: H) -> H:
        HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return add


def registered(
    rec: Recorder, func: Any, args: Any, kwargs: Any, value: Callable[[Tensor], Value]
) -> Any:
    """The meta kernel's result, registered with the value made for it."""
    out = rec.run(out_of_place(func), args, kwargs)
    rec.register(out, value(out))
    return out


def out_of_place(func: Any) -> Any:
    """The twin of an operation in place, so that the meta kernel makes a new tensor."""
    name = func._overloadpacket.__name__
    if not name.endswith("_") or name.endswith("__"):
        return func
    packet = getattr(torch.ops.aten, name[:-1])
    return getattr(packet, func._overloadname, packet)


def each(value: Any, n: int) -> tuple[int, ...]:
    """An integer or a list of one or n of them, as n."""
    if isinstance(value, int):
        return (value,) * n
    return tuple(value) * n if len(value) == 1 else tuple(value)
