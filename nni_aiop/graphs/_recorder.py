"""The PyTorch door: runs a copy of a module on the meta device and writes down what it does.

Under `torch.inference_mode` a dispatch mode sees ATen operations before they are broken up, such as
aten.linear and aten.scaled_dot_product_attention; `_aten` says what each means. Nothing is computed
and the module is not touched: the copy shares no tensor with it.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from nni_aiop.errors import GraphError
from nni_aiop.graphs._aten import FACTORIES, HANDLERS
from nni_aiop.graphs._builder import Builder, Value
from nni_aiop.graphs._graph import ComputeGraph

__all__ = ["Recorder", "from_module"]

Example = Any
"""A tensor, a shape, or any nest of them in tuples, lists and dicts."""


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
    """Writes ATen operations down as `Builder` operations."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
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
        handler = HANDLERS.get(name)
        if handler is not None:
            return handler(self, func, *args, **kwargs)
        if name.endswith("_") and (handler := HANDLERS.get(name[:-1])) is not None:
            result = handler(self, func, *args, **kwargs)
            if result is not args[0]:
                self.write(args[0], self.value(result))
            return args[0]
        if name in FACTORIES:
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
            value = self.apply(name, values, out.shape)
            if any(out is x for x in tensors):
                self.write(out, value)
            elif place == 0 or id(out) not in self._entries:
                self.register(out, value)
        return result


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
    recorder = Recorder()
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
