"""Tensors whose values are known while a network is read: constants, and integers that were given.

A network runs on the meta device, where tensors have no values. Each tensor here whose value is
known has a twin on the CPU: `torch.arange(n, device=x.device)`, masks and indices that the user
gave, and what is computed from such tensors alone. Twins of views are views of twins, so that
operations in place need no book-keeping; a twin that something unknown was written into is
forgotten, with all that show its data.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from nni_aiop.graphs.doors.modules._schemas import tensors_in

__all__ = ["DataDependentError", "Known"]

_SMALL, _LARGEST = 2**16, 2**22
"""Entries of tensors whose values are always computed, and of the largest that may be."""
_MEMORY = 2**28
"""Bytes of all values of tensors that are not small."""


class DataDependentError(RuntimeError):
    """An operation asks for values that nobody knows.

    Args:
        operation: Its name.
        shape: Whether the shape of its result depends on the values, not only the result.
    """

    def __init__(self, operation: str, *, shape: bool = False) -> None:
        super().__init__(f"the shape of what {operation} returns" if shape else operation)
        self.operation = operation


class Known:
    """The twins, by the identity of their tensors (which the recorder keeps alive)."""

    def __init__(self) -> None:
        self._twins: dict[int, Tensor] = {}
        self._originals: dict[int, Tensor] = {}
        self._forgotten: dict[int, Any] = {}
        self._shown: dict[int, Any] = {}
        self._bytes = 0
        self._quiet: dict[int, Tensor] = {}

    def fits(self, tensors: Iterable[Tensor]) -> bool:
        """Whether the values of new tensors may be computed: a mask of an image's size may."""
        tensors = list(tensors)
        entries = sum(x.numel() for x in tensors)
        if entries <= _SMALL:
            return True
        size = sum(x.numel() * x.element_size() for x in tensors)
        if entries > _LARGEST or self._bytes + size > _MEMORY:
            return False
        self._bytes += size
        return True

    def add(self, tensor: Tensor, twin: Tensor) -> None:
        """Says what the values of a tensor are."""
        self._twins[id(tensor)] = twin

    def add_original(self, tensor: Tensor, original: Tensor, *, buffer: bool = False) -> None:
        """Says where the values of a tensor stand, which must not be written there.

        Those of floating-point buffers answer what is asked of them, but are no numbers of the
        graph: it would be another one with other weights.
        """
        if original.is_floating_point() or original.is_complex():
            if not buffer:
                return
            self._quiet[id(tensor)] = tensor
        self._originals[id(tensor)] = original

    def is_quiet(self, tensor: Tensor) -> bool:
        """Whether the values of a tensor are no numbers of the graph."""
        return id(tensor) in self._quiet

    def hush(self, tensors: Iterable[Tensor], like: Iterable[Tensor]) -> None:
        """The values of tensors are no numbers of the graph, if those of some other are not."""
        if self._quiet and any(id(x) in self._quiet for x in like):
            self._quiet.update((id(x), x) for x in tensors)

    def show(self, twin: Tensor) -> Tensor:
        """The twin, whose storage an array outside of PyTorch is going to share."""
        self._shown[_storage(twin)] = twin.untyped_storage()  # kept, so that no other has it
        return twin

    def twin(self, tensor: Tensor) -> Tensor | None:
        """The tensor with its values, None where they are not known."""
        twin = self._twins.get(id(tensor))
        if twin is None:
            if tensor.device.type != "meta":
                twin = tensor
            elif id(tensor) in self._originals:
                original = self._originals.pop(id(tensor))
                if original.is_meta or not self.fits([original]):
                    return None
                twin = self._twins[id(tensor)] = original.detach().cpu().clone()
            else:
                return None
        if self._forgotten and _storage(twin) in self._forgotten:
            return None
        return twin

    def forget(self, tensor: Tensor) -> None:
        """Something unknown was written into the tensor."""
        twin = self.twin(tensor)
        if twin is None:
            self._twins.pop(id(tensor), None)
            return
        if _storage(twin) in self._shown:
            raise DataDependentError("numpy")  # of which the array would show the old ones
        self._forgotten[_storage(twin)] = twin.untyped_storage()  # kept, so that no other has it
        if twin.is_floating_point():
            twin.detach().fill_(float("nan"))  # what a tensor made on the CPU shows outside torch

    def are_known(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether the values of all tensors among arguments are known."""
        return all(self.twin(x) is not None for x in _tensors(args, kwargs))

    def compute(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The operation's result on the twins, on the CPU."""

        def known(x: Any) -> Any:
            if isinstance(x, Tensor):
                twin = self.twin(x)
                # Only a factory (`zeros_like`) gets here without one; it asks the shape alone.
                return torch.empty((), dtype=x.dtype).expand(x.shape) if twin is None else twin
            return torch.device("cpu") if isinstance(x, torch.device) else x

        args, kwargs = pytree.tree_map(known, (args, kwargs))
        return func(*args, **kwargs)


def _tensors(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Tensor]:
    for x in args:
        if isinstance(x, Tensor):
            yield x
        elif isinstance(x, (list, tuple)):
            yield from tensors_in(x)
    if kwargs:
        yield from tensors_in(kwargs)


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
