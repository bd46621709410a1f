"""Calls between PyTorch and Python that no ATen operation shows.

`torch.tensor([2, 3], device=x.device)` makes its tensor, and `x.tolist()` looks at one, before or
after a dispatch mode sees it; a function mode sees the call itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from nni_aiop.graphs.doors.modules._known import DataDependentError
from nni_aiop.graphs.doors.modules._recorder import Recorder

__all__ = ["PythonCalls"]


class PythonCalls(TorchFunctionMode):
    """Keeps the values of tensors that are made of numbers, and refuses to show unknown ones."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        special = _SPECIAL.get(func)
        if special is not None:
            return special(self._recorder, func, *args, **(kwargs or {}))
        return func(*args, **kwargs) if kwargs else func(*args)


def _made(rec: Recorder, func: Any, data: Any, *args: Any, **kwargs: Any) -> Any:
    """A tensor made of numbers, whose values are kept where it is a meta tensor."""
    device = kwargs.get("device")
    if device is None or isinstance(data, Tensor) or torch.device(device).type != "meta":
        return func(data, *args, **kwargs)
    return func(data, *args, **{**kwargs, "device": "cpu"}).to(device)


def _shown(rec: Recorder, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
    """The values of a tensor, where they are known."""
    twin = rec.known.twin(x)
    if twin is None:
        raise DataDependentError(getattr(func, "__name__", "tolist"))
    shared = func is not Tensor.tolist
    return func(rec.known.show(twin) if shared else twin, *args, **kwargs)


def _set(rec: Recorder, func: Any, x: Tensor, data: Tensor) -> None:
    """`x.data = data`."""
    value = rec.value(data)
    func(x, rec.meta(data) if x.is_meta else data)
    rec.register(x, value)


class _Places(tuple[Any, ...]):
    """Where a mask of unknown values is true: nobody knows how often, but it can be written there.

    Attributes:
        mask: The mask.
    """

    mask: Tensor

    def _asked(self, *_: object) -> Any:
        raise DataDependentError("where", shape=True)

    __iter__ = __getitem__ = _asked

    def __len__(self) -> int:
        return max(1, self.mask.dim())


def _where(rec: Recorder, func: Any, *args: Any, **kwargs: Any) -> Any:
    """The places of a mask, unless others are chosen by it."""
    others = dict(kwargs)
    masks = [*args, *(others.pop(name) for name in ("condition", "input") if name in others)]
    asked = {} if func is torch.where else {"as_tuple": True}
    if len(masks) != 1 or others != asked or rec.known.twin(masks[0]) is not None:
        return func(*args, **kwargs)
    places = _Places()
    places.mask = masks[0] != 0
    return places


def _written(rec: Recorder, func: Any, x: Tensor, index: Any, value: Any) -> None:
    """`x[places] = value` is `x[mask] = value`."""
    func(x, index.mask if isinstance(index, _Places) else index, value)


def _indexed(rec: Recorder, func: Any, x: Tensor, index: Any) -> Any:
    """`x[places]` has a shape that nobody knows."""
    return index._asked() if isinstance(index, _Places) else func(x, index)


_SPECIAL: dict[Any, Callable[..., Any]] = {
    torch.tensor: _made,
    torch.as_tensor: _made,
    torch.asarray: _made,
    Tensor.tolist: _shown,
    Tensor.numpy: _shown,
    Tensor.__array__: _shown,
    torch.where: _where,
    torch.nonzero: _where,
    Tensor.nonzero: _where,
    Tensor.__setitem__: _written,
    Tensor.__getitem__: _indexed,
    Tensor.data.__set__: _set,  # type: ignore[attr-defined]
}
"""What else than calling happens to a function."""
