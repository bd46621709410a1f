"""Runs a module on the meta device and writes down what it does.

Under `torch.inference_mode` a dispatch mode sees ATen operations before they are broken up, such as
aten.linear and aten.scaled_dot_product_attention; a table of handlers says what each means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from nni_aiop.graphs._vocabulary import OTHER
from nni_aiop.graphs.doors._builder import Builder
from nni_aiop.graphs.doors.modules._known import DataDependentError, Known
from nni_aiop.graphs.doors.modules._layouts import empty
from nni_aiop.graphs.doors.modules._schemas import Schema, schema_of, tensors_in
from nni_aiop.graphs.rules._values import Value, live

__all__ = ["Handler", "Recorder"]

Handler = Callable[..., Any]
"""From the recorder, an operation and its arguments to the result, which the recorder knows."""

_LOOSE = frozenset({"attention"})
"""Operations whose kernels do not agree how the result lies in memory."""


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
    loose: bool = False
    """Whether PyTorch's kernels do not agree how the tensor lies in memory."""


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
        self.known = Known()

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
        """Says that a tensor shows the data of another, or, where it does not, is a copy."""
        parent = self._entry(source)
        value = replay(self.value(source))
        loose = (parent.base or parent).loose
        if not loose and not self.share(tensor, source):
            self.register(tensor, value)
            return
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
        else:
            if entry.restore is not None:
                base.value = entry.restore(value)
            else:
                base.value = self.apply("scatter", [base.value, value], base.tensor.shape)
            base.version += 1
            entry.version = base.version

    def share(self, a: Tensor, b: Tensor) -> bool:
        """Whether two tensors show the same memory."""
        at = a.untyped_storage()._cdata
        if b.untyped_storage()._cdata == at:
            return True
        twin = self._meta.get(id(b))
        return twin is not None and bool(twin.untyped_storage()._cdata == at)

    def is_loose(self, tensor: Tensor) -> bool:
        """Whether it depends on the kernel how a tensor lies in memory."""
        entry = self._entry(tensor)
        return (entry.base or entry).loose

    def _entry(self, tensor: Tensor) -> _Entry:
        entry = self._entries.get(id(tensor))
        if entry is None:
            number = None
            if tensor.numel() == 1 and not tensor.is_meta:
                number = self._number(tensor)
            value = self.builder.constant(tuple(tensor.shape), number)
            entry = self._entries[id(tensor)] = _Entry(tensor, value)
        return entry

    def _number(self, tensor: Tensor) -> float | None:
        """The value of a tensor of one entry, where it is known."""
        twin = None if self.known.is_quiet(tensor) else self.known.twin(tensor)
        return None if twin is None or twin.is_complex() else float(twin)

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
        *,
        weight: Tensor | None = None,
        **attributes: Any,
    ) -> Tensor:
        """A new meta tensor that holds the result of an operation.

        Args:
            op: See `Builder.apply`.
            inputs: What the operation reads.
            shape: Of the result.
            like: Gives the result its dtype and its order in memory.
            weight: Of a convolution, which gives an order in memory, too.
            attributes: See `Builder.apply`.
        """
        out = empty(op, shape, like, weight)
        self.register(out, self.apply(op, inputs, shape, **attributes))
        if op in _LOOSE:
            self._entries[id(out)].loose = True
        return out

    # --- dispatch ------------------------------------------------------------------------------

    supports_higher_order_operators = True

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if not isinstance(func, torch._ops.OpOverload):
            raise DataDependentError(f"torch.{func.name()}")
        schema = schema_of(func)
        pure = schema.pure
        handler = None if pure is None else self._handlers.get(pure._overloadpacket.__name__)
        factory = schema.factory
        if handler is None and schema.composite and not factory and schema.name != "item":
            if not schema.outs or pure is None:
                return self.unknown(func, args, kwargs)
            handler = _decomposed
        known = self.known.are_known(args, kwargs)
        if schema.name == "index" and _by_mask(args[1]):
            args = (args[0], self._places(args[1]))
        elif schema.name == "masked_select" and not known:
            masks = self._places([args[1]])
            return self._handlers["index"](self, torch.ops.aten.index.Tensor, args[0], masks)
        elif schema.reads_data and schema.name != "index":
            return self._read(func, args, kwargs, known)
        if schema.writes:
            return self._mutate(func, schema, handler, args, kwargs, known)
        if handler is not None:
            result = handler(self, func, *args, **kwargs)
            self._complete(func, args, kwargs, result)
        elif factory:
            result = func(*args, **kwargs)
            self.register(result, self.builder.constant(tuple(result.shape)))
        else:
            result = self.unknown(func, args, kwargs)
        if known or (factory and not schema.random):
            self._follow(func, args, kwargs, result)
        return result

    def _complete(self, func: Any, args: Any, kwargs: dict[str, Any], result: Any) -> None:
        """Registers what a handler left unregistered, so that nothing becomes a constant."""
        for out in (result,) if isinstance(result, Tensor) else tensors_in(result):
            if out.is_meta and id(out) not in self._entries:
                values = [self.value(x) for x in tensors_in(args, kwargs)]
                self.register(out, self.apply(schema_of(func).other, values, out.shape))

    def _follow(self, func: Any, args: Any, kwargs: dict[str, Any], result: Any) -> None:
        """Computes a result whose values are known."""
        outs = [x for x in pytree.tree_leaves(result) if isinstance(x, Tensor)]
        if any(x.is_meta and self.known.twin(x) is None for x in outs):
            if schema_of(func).random or not self.known.fits(x for x in outs if x.is_meta):
                return
            real = self.known.compute(func, args, kwargs)
            twins = [x for x in pytree.tree_leaves(real) if isinstance(x, Tensor)]
            for out, twin in zip(outs, twins, strict=True):
                if out.is_meta:
                    self.known.add(out, twin)
            self.known.hush(outs, tensors_in(args, kwargs))
        for out in outs:
            entry = self._entry(out)
            if out.numel() == 1 and entry.value.is_constant and entry.value.number is None:
                entry.value = self.builder.constant(tuple(out.shape), self._number(out))

    def _read(self, func: Any, args: Any, kwargs: dict[str, Any], known: bool) -> Any:
        """The result of an operation that depends on values, or has a shape that does."""
        name = schema_of(func).other
        if not known:
            name = "item" if name == "local_scalar_dense" else name
            raise DataDependentError(name, shape=torch.Tag.dynamic_output_shape in func.tags)
        given = tensors_in(args, kwargs)
        values = [self.value(x) for x in given]
        real = self.known.compute(func, args, kwargs)

        def shown(twin: Tensor) -> Tensor:
            out = _like(twin) if any(x.is_meta for x in given) else twin
            self.register(out, self.apply(name, values, out.shape))
            self.known.add(out, twin)
            return out

        return pytree.tree_map_only(Tensor, shown, real)

    def _places(self, indices: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Indices, with masks of known values as the places where they are true."""
        found: list[Tensor | None] = []
        for index in indices:
            if index is None or not _by_mask([index]):
                found.append(index)
                continue
            if self.known.twin(index) is None:
                raise DataDependentError("index", shape=True)
            places = torch.ops.aten.nonzero.default
            with self:
                found += self._read(places, (index,), {}, True).unbind(1)
        return found

    def _mutate(
        self,
        func: Any,
        schema: Schema,
        handler: Handler | None,
        args: Any,
        kwargs: dict[str, Any],
        known: bool,
    ) -> Any:
        """An operation that writes into its arguments, in place or by `out=`."""
        targets = schema.written(args, kwargs)
        if schema.changes_shape:
            self._turn(func, schema, handler, args, kwargs, known)
            fresh: list[Any] = []
        elif handler is not None:
            given = {k: v for k, v in kwargs.items() if k not in schema.outs}
            made = handler(self, schema.pure, *args, **given)
            self._complete(schema.pure, args, given, made)
            for target, result in zip(targets, tensors_in(made), strict=False):
                if target is result:
                    continue
                value = self.value(result)
                if not self._resize(target, tuple(result.shape), schema):
                    self.write(target, value)
                else:
                    self.register(target, value)
            fresh = []
        else:
            fresh = self._write_unknown(func, schema, args, kwargs, targets)
        if known:
            self.known.compute(func, args, kwargs)
            self.known.hush(targets, tensors_in(args, kwargs))
            for target in targets:
                entry = self._entry(target)
                if target.numel() == 1 and entry.value.is_constant:
                    entry.value = self.builder.constant(tuple(target.shape), self._number(target))
        elif not schema.changes_shape:
            for target in targets:
                self.known.forget(target)
        written = iter(targets)
        others = iter(fresh)
        returns = tuple(next(written if own else others) for own in schema.returns_written)
        return None if not returns else returns[0] if len(returns) == 1 else returns

    def _resize(self, target: Tensor, shape: tuple[int, ...], schema: Schema) -> bool:
        """Gives an `out=` tensor the shape of the result; whether it had another."""
        if tuple(target.shape) == shape:
            return False
        if not schema.outs:
            raise RuntimeError(
                f"what {schema.name} writes must fit {tuple(target.shape)}, but is {shape}"
            )
        target.resize_(shape)
        self._meta.pop(id(target), None)
        return True

    def _write_unknown(
        self,
        func: Any,
        schema: Schema,
        args: Any,
        kwargs: dict[str, Any],
        targets: Sequence[Tensor],
    ) -> list[Any]:
        """Writes "other:NAME" into what an operation writes; its results that are new tensors."""
        given = {k: v for k, v in kwargs.items() if k not in schema.outs}
        sources = tensors_in(args, given)
        values = [self.value(x) for x in sources]
        copies = {id(x): _like(x) for x in tensors_in(args, kwargs)}
        swapped = pytree.tree_map_only(Tensor, lambda x: copies[id(x)], (args, kwargs))
        try:
            result = func(*swapped[0], **swapped[1])
        except NotImplementedError:  # no meta kernel, as for masks; the shape is the target's
            if schema.outs or not all(schema.returns_written):
                raise
            result = ()
        name = schema.other
        for target in targets:
            shape = tuple(copies[id(target)].shape)
            value = self.apply(name, values, shape)
            if not self._resize(target, shape, schema):
                self.write(target, value)
            else:
                self.register(target, value)
        returned = result if isinstance(result, tuple) else (result,)
        fresh = [x for x, own in zip(returned, schema.returns_written, strict=False) if not own]
        for out in tensors_in(fresh):
            self.register(out, self.apply(name, values, out.shape))
        return fresh

    def _turn(
        self,
        func: Any,
        schema: Schema,
        handler: Handler | None,
        args: Any,
        kwargs: dict[str, Any],
        known: bool,
    ) -> None:
        """An operation in place after which a tensor shows its data otherwise (`transpose_`)."""
        x, *rest = args
        values = [self.value(t) for t in tensors_in(args, kwargs)]
        before = x.as_strided(x.size(), x.stride(), x.storage_offset())
        old = self._entry(x)
        if schema.name != "detach_" and handler is not None:
            old.tensor, self._entries[id(before)] = before, old
            turned = handler(self, schema.pure, before, *rest, **kwargs)
            entry = self._entry(turned)
        else:
            entry = old
        if x.is_meta or not known:
            func(*args, **kwargs)
            self._meta.pop(id(x), None)
        if handler is not None:
            self._entries[id(x)] = replace(entry, tensor=x)
            return
        self.register(x, self.apply(schema.other, values, x.shape))

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """What PyTorch's own meta kernel returns; CPU constants among meta tensors become meta."""
        flat, spec = pytree.tree_flatten((args, kwargs))
        tensors = [x for x in flat if isinstance(x, Tensor)]
        if any(x.is_meta or self.known.twin(x) is None for x in tensors):
            flat = [self.meta(x) if isinstance(x, Tensor) else x for x in flat]
            args, kwargs = pytree.tree_unflatten(flat, spec)
        return func(*args, **kwargs)

    def meta(self, tensor: Tensor) -> Tensor:
        """The tensor on the meta device."""
        if tensor.is_meta:
            return tensor
        if id(tensor) not in self._meta:
            self._entry(tensor)  # kept alive there, so that its identity stays its own
            # PyTorch does not let a tensor made in inference mode show one made outside of it.
            with torch.inference_mode(tensor.is_inference()):
                self._meta[id(tensor)] = _like(tensor)
        return self._meta[id(tensor)]

    def _one_device(self, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The arguments, in which meta tensors show those of the CPU, if there are both."""
        tensors = tensors_in(args, kwargs)
        if not any(x.is_meta for x in tensors) or all(x.is_meta for x in tensors):
            return args, kwargs

        def moved(x: Tensor) -> Tensor:
            shown = self.meta(x)
            if shown is not x and id(shown) not in self._entries:
                self.register_view(shown, x, lambda v: v, lambda v: v)
                if self.known.twin(x) is not None:
                    self.known.add(shown, x)
            return shown

        moved_args, moved_kwargs = pytree.tree_map_only(Tensor, moved, (args, kwargs))
        return moved_args, moved_kwargs

    def unknown(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """An operation outside the table: what it is made of, or "other:NAME"."""
        schema = schema_of(func)
        if schema.composite:
            args, kwargs = self._one_device(args, kwargs)
            with self:
                return func.decompose(*args, **kwargs)
        result = self.run(func, args, kwargs)
        tensors = tensors_in(args, kwargs)
        name = schema.other
        values = [self.value(x) for x in tensors]
        for out in pytree.tree_leaves(result):
            if not isinstance(out, Tensor) or any(out is x for x in tensors):
                continue
            source = next((x for x in tensors if self.share(out, x)), None)
            if source is None:
                self.register(out, self.apply(OTHER + name, values, out.shape))
                continue
            others = [self.value(x) for x in tensors if x is not source]
            self.register_view(out, source, self._shown(name, others, tuple(out.shape)))
        return result

    def _shown(
        self, name: str, others: list[Value], shape: tuple[int, ...]
    ) -> Callable[[Value], Value]:
        return lambda value: self.apply(OTHER + name, [value, *others], shape)

    def unread(self) -> list[Value]:
        """What was computed from inputs and has not been read, in the order of computation."""
        values = [self.value(entry.tensor) for entry in list(self._entries.values())]
        live(values)
        ends = {id(v): v for v in values if v.uses == 0 and v.op not in ("constant", "input")}
        return list(ends.values())


def _like(x: Tensor) -> Tensor:
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")


def _decomposed(rec: Recorder, func: Any, *args: Any, **kwargs: Any) -> Any:
    return rec.unknown(func, args, kwargs)


def _by_mask(indices: Sequence[Tensor | None]) -> bool:
    return any(x is not None and x.dtype in (torch.bool, torch.uint8) for x in indices)
