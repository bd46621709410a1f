"""Runs a module on the meta device and writes down what it does.

Under `torch.inference_mode` a dispatch mode sees ATen operations before they are broken up, such as
aten.linear and aten.scaled_dot_product_attention; a table of handlers says what each means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from nni_aiop.graphs._vocabulary import OTHER
from nni_aiop.graphs.doors._builder import Builder
from nni_aiop.graphs.rules._values import Value

__all__ = ["Handler", "Recorder"]

Handler = Callable[..., Any]
"""From the recorder, an operation and its arguments to the result, which the recorder knows."""

_FACTORIES = frozenset(
    {
        "arange", "empty", "empty_like", "empty_strided", "eye", "full", "full_like", "linspace",
        "logspace", "new_empty", "new_empty_strided", "new_full", "new_ones", "new_zeros", "ones",
        "ones_like", "rand", "rand_like", "randn", "randn_like", "randint", "scalar_tensor",
        "tril_indices", "triu_indices", "zeros", "zeros_like", "bernoulli",
    }
)  # fmt: skip
"""Operations whose result does not depend on their tensors' values: constants."""


@dataclass
class _Entry:
    """A tensor (kept, so that its identity stays its own) and what it holds.

    A view follows its base: `replay` makes the view's value from the base's, `restore` the base's
    from the view's (None where the view shows only a part).
    """

    tensor: Tensor
    value: Value
    base: _Entry | None = None
    replay: Callable[[Value], Value] | None = None
    restore: Callable[[Value], Value] | None = None
    version: int = 0


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes ATen operations down as `Builder` operations.

    Args:
        handlers: By the name of an operation's packet without a trailing underscore, what it means.
    """

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._handlers = handlers
        self.builder = Builder()
        self.scope: list[str] = [""]
        self._entries: dict[int, _Entry] = {}
        self._meta: dict[int, Tensor] = {}

    # --- tensors and values --------------------------------------------------------------------

    def register(self, tensor: Tensor, value: Value) -> None:
        """Says what a tensor holds."""
        self._entries[id(tensor)] = _Entry(tensor, value)

    def register_view(
        self,
        tensor: Tensor,
        source: Tensor,
        replay: Callable[[Value], Value],
        restore: Callable[[Value], Value] | None = None,
    ) -> None:
        """Says that a tensor shows the data of another."""
        parent = self._entry(source)
        value = replay(self.value(source))
        if parent.base is None:
            entry = _Entry(tensor, value, parent, replay, restore, parent.version)
        else:
            first, back = parent.replay, parent.restore
            assert first is not None
            entry = _Entry(
                tensor,
                value,
                parent.base,
                lambda v: replay(first(v)),
                None if back is None or restore is None else lambda v: back(restore(v)),
                parent.base.version,
            )
        self._entries[id(tensor)] = entry

    def write(self, tensor: Tensor, value: Value) -> None:
        """Says what a tensor holds after an operation in place; views and bases follow."""
        entry = self._entry(tensor)
        entry.value = value
        base = entry.base
        if base is None:
            entry.version += 1
        elif base.tensor.untyped_storage()._cdata == tensor.untyped_storage()._cdata:
            if entry.restore is not None:
                base.value = entry.restore(value)
            else:
                base.value = self.apply("scatter", [base.value, value], base.tensor.shape)
            base.version += 1
            entry.version = base.version

    def _entry(self, tensor: Tensor) -> _Entry:
        entry = self._entries.get(id(tensor))
        if entry is None:
            number = None
            if tensor.device.type != "meta" and tensor.numel() == 1 and not tensor.is_complex():
                number = float(tensor)
            value = self.builder.constant(tuple(tensor.shape), number)
            entry = self._entries[id(tensor)] = _Entry(tensor, value)
        return entry

    def value(self, tensor: Tensor) -> Value:
        """What a tensor holds now; unknown tensors are constants."""
        entry = self._entry(tensor)
        if entry.base is not None and entry.version != entry.base.version:
            assert entry.replay is not None
            entry.value, entry.version = entry.replay(entry.base.value), entry.base.version
        return entry.value

    def number(self, number: float) -> Value:
        """A constant of a single known number."""
        return self.builder.constant((), float(number))

    def operand(self, x: Any) -> Value:
        """The value of a tensor or number."""
        return self.value(x) if isinstance(x, Tensor) else self.number(x)

    def apply(
        self, op: str, inputs: Sequence[Value], shape: Sequence[int], **attributes: Any
    ) -> Value:
        """`Builder.apply`, named after the module that runs."""
        return self.builder.apply(op, inputs, shape, name=self.scope[-1], **attributes)

    def emit(
        self,
        op: str,
        inputs: Sequence[Value],
        shape: Sequence[int],
        like: Tensor,
        **attributes: Any,
    ) -> Tensor:
        """A new meta tensor that holds the result of an operation."""
        out = torch.empty(shape, dtype=like.dtype, device="meta")
        self.register(out, self.apply(op, inputs, shape, **attributes))
        return out

    # --- dispatch ------------------------------------------------------------------------------

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = func._overloadpacket.__name__
        handler = self._handlers.get(name)
        if handler is not None:
            return handler(self, func, *args, **kwargs)
        if name.endswith("_") and (handler := self._handlers.get(name[:-1])) is not None:
            result = handler(self, func, *args, **kwargs)
            if result is not args[0]:
                self.write(args[0], self.value(result))
            return args[0]
        if name in _FACTORIES:
            return func(*args, **kwargs)
        if torch._C._dispatch_has_kernel_for_dispatch_key(
            func.name(), torch._C.DispatchKey.CompositeImplicitAutograd
        ):
            with self:
                return func.decompose(*args, **kwargs)
        return self.unknown(func, args, kwargs)

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """What PyTorch's own meta kernel returns; CPU constants among meta tensors become meta."""
        flat, spec = pytree.tree_flatten((args, kwargs))
        if any(isinstance(x, Tensor) and x.is_meta for x in flat):
            flat = [self.meta(x) if isinstance(x, Tensor) else x for x in flat]
            args, kwargs = pytree.tree_unflatten(flat, spec)
        return func(*args, **kwargs)

    def meta(self, tensor: Tensor) -> Tensor:
        """The tensor on the meta device."""
        if tensor.is_meta:
            return tensor
        if id(tensor) not in self._meta:
            self._entry(tensor)  # kept alive there, so that its identity stays its own
            self._meta[id(tensor)] = torch.empty_strided(
                tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta"
            )
        return self._meta[id(tensor)]

    def unknown(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """An operation outside the table: "other:NAME"."""
        result = self.run(func, args, kwargs)
        tensors = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        name = func._overloadpacket.__name__.strip("_")
        if not tensors:
            return result
        values = [self.value(x) for x in tensors]
        for place, out in enumerate(pytree.tree_leaves(result)):
            if not isinstance(out, Tensor):
                continue
            value = self.apply(OTHER + name, values, out.shape)
            if any(out is x for x in tensors):
                self.write(out, value)
            elif place == 0 or id(out) not in self._entries:
                self.register(out, value)
        return result
