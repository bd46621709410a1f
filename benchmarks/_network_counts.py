"""What a network costs by PyTorch's own counter, apart from what does not depend on its input.

`FlopCounterMode` counts every product of a forward pass; half of its count are multiply-adds. A
compute graph leaves out what does not depend on the input (a position bias from learned numbers is
the same for every image), so `Dependence` runs the network once more and adds up those products.
It marks storages: an operation that reads a marked one marks what it writes.

The networks run on the meta device, where attention and recurrent layers are broken up into
products that the counter sees; a network that asks for values runs on the CPU, with attention and
recurrent layers broken up there, too. Mixtures of experts, for which the counter has no formula,
are given one.
"""

from __future__ import annotations

import contextlib
import copy
import math
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry, register_flop_formula

__all__ = ["Counts", "Dependence", "asks_for_values", "count", "unlike"]

aten = torch.ops.aten
_VALUES = {
    *(aten._local_scalar_dense, aten.equal, aten.is_nonzero, aten.masked_select),
    *(aten.nonzero, aten._unique2, aten.unique_consecutive, aten.unique_dim),
}
"""What gives out values, or shapes that depend on them."""
_RECURRENT = {aten.lstm, aten.gru, aten.rnn_tanh, aten.rnn_relu}


@dataclass(frozen=True)
class Counts:
    """An independent count of a network.

    Args:
        macs: Multiply-adds of all products.
        constants: Those of them that do not depend on the input.
        parameters: Entries of the parameters that the forward pass reads.
        unread: Entries of the others.
        device: Where the network ran: "meta" or "cpu".
    """

    macs: int
    constants: int
    parameters: int
    unread: int
    device: str

    def plain(self) -> dict[str, Any]:
        return asdict(self)


class Dependence(TorchDispatchMode):
    """Counts products that do not depend on the inputs, and knows which tensors were read.

    `asked` says whether the values of a tensor that depends on the inputs were asked for.

    Args:
        inputs: Tensors on which something depends.
    """

    def __init__(self, inputs: list[Tensor]) -> None:
        super().__init__()
        self.constants = 0
        self.asked = False
        self._marked: dict[int, StorageWeakRef] = {}
        self._read: dict[int, StorageWeakRef] = {}
        for tensor in inputs:
            self._mark(tensor)

    def read(self, tensor: Tensor) -> bool:
        """Whether an operation read the tensor or a view of it."""
        return _key(tensor).cdata in self._read

    def depends(self, tensor: Tensor) -> bool:
        """Whether the tensor depends on the inputs."""
        return _key(tensor).cdata in self._marked

    def _mark(self, tensor: Tensor) -> None:
        # The weak reference keeps the address from being given to another storage.
        key = _key(tensor)
        self._marked[key.cdata] = key

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        read = _tensors((args, kwargs))
        for tensor in read:
            key = _key(tensor)
            self._read[key.cdata] = key
        depends = any(self.depends(tensor) for tensor in read)
        packet = func._overloadpacket
        self.asked |= depends and packet in _VALUES
        if packet is aten.index:
            # The shape of what a mask picks depends on its values.
            self.asked |= any(self.depends(i) for i in _tensors(args[1]) if i.dtype is torch.bool)
        if depends and packet in _RECURRENT:
            # A layer is whole: its first step counts, though it begins from a constant state.
            for tensor in _tensors(args[2 if func._overloadname == "data" else 1]):
                self._mark(tensor)
        if packet not in flop_registry:
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = func(*args, **kwargs)
        if packet in flop_registry:
            products = flop_registry[packet](*args, **kwargs, out_val=out) // 2
            self.constants += 0 if depends else products
        if depends and not func.is_view:
            for tensor in [*_tensors(out), *_written(func, args, kwargs)]:
                self._mark(tensor)
        return out


def _experts_flops(rows: Any, experts: Any, *_: Any, **__: Any) -> int:
    """Each row times the weights of one expert: shapes (rows, k) and (experts, k, n)."""
    return 2 * math.prod(rows) * int(experts[-1])


if aten._grouped_mm not in flop_registry:  # torch 2.13.0 counts it as nothing
    register_flop_formula(aten._grouped_mm)(_experts_flops)


def _key(tensor: Tensor) -> StorageWeakRef:
    return StorageWeakRef(tensor.untyped_storage())


def _tensors(x: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(x) if isinstance(leaf, Tensor)]


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """The arguments that an operation writes to."""
    named = zip(func._schema.arguments, args, strict=False)
    both = [(a, value) for a, value in named]
    both += [(a, kwargs[a.name]) for a in func._schema.arguments if a.name in kwargs]
    return [
        tensor
        for argument, value in both
        if argument.alias_info is not None and argument.alias_info.is_write
        for tensor in _tensors(value)
    ]


@contextlib.contextmanager
def _without_mkldnn() -> Iterator[None]:
    """Without the one kernel of the CPU that runs a whole recurrent layer."""
    with warnings.catch_warnings():
        # Setting a flag sets all, and warns of one that only some GPUs know.
        warnings.filterwarnings("ignore", "TF32 acceleration")
        with torch.backends.mkldnn.flags(enabled=False):
            yield


@contextlib.contextmanager
def _broken_up() -> Iterator[None]:
    """Attention and recurrent layers of the CPU, as products that are seen."""
    with sdpa_kernel(SDPBackend.MATH), _without_mkldnn():
        before = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(before)


def count(
    network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], device: str = "meta"
) -> Counts:
    """The independent count of a network in evaluation mode.

    Args:
        network: It is not changed.
        args: Its inputs: nests with tensors.
        kwargs: Its inputs by keyword.
        device: "meta" or "cpu".

    Raises:
        Exception: Whatever the network raises on that device.
    """
    args, kwargs = pytree.tree_map_only(Tensor, lambda t: t.to(device), (args, kwargs))
    with _broken_up() if device == "cpu" else contextlib.nullcontext():
        counter = FlopCounterMode(display=False)
        twin = _twin(network, device)
        with torch.no_grad(), counter:
            twin(*args, **kwargs)
        twin = _twin(network, device)  # a fresh one: some keep what they computed first
        dependence = Dependence(_tensors((args, kwargs)))
        with torch.inference_mode(), dependence:
            twin(*args, **kwargs)
    read = sum(p.numel() for p in twin.parameters() if dependence.read(p))
    return Counts(
        macs=counter.get_total_flops() // 2,
        constants=dependence.constants,
        parameters=read,
        unread=sum(p.numel() for p in twin.parameters()) - read,
        device=device,
    )


def asks_for_values(network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a network, run on the CPU, asks for values that depend on its input, or raises."""
    dependence = Dependence(_tensors((args, kwargs)))
    try:
        with torch.inference_mode(), dependence:
            _twin(network, "cpu")(*args, **kwargs)
    except Exception:  # noqa: BLE001 (it does not run)
        return True
    return dependence.asked


def _twin(network: nn.Module, device: str) -> nn.Module:
    if device == "cpu":
        return copy.deepcopy(network).eval()
    memo: dict[int, Any] = {}
    for parameter in network.parameters():
        memo[id(parameter)] = nn.Parameter(
            torch.empty_like(parameter, device="meta"), requires_grad=False
        )
    for buffer in network.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(network, memo).to(device).eval()


def unlike(macs: int, parameters: int, counts: Counts) -> str:
    """In what a graph differs from the independent count: "" in nothing.

    "constants" where its multiply-adds lie between those that depend on the input and all.
    """
    parts = []
    least = counts.macs - counts.constants
    if macs not in (least, counts.macs):
        parts.append("constants" if least < macs < counts.macs else "macs")
    if parameters != counts.parameters:
        parts.append("parameters")
    return "+".join(parts)
