"""Which tensors share memory, and how results lie in it: what PyTorch does on the CPU decides."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from nni_aiop.graphs import ComputeGraph, from_module
from tests.graphs import aten_examples
from tests.graphs.aten_examples import KNOWN, call


class Do(nn.Module):
    def __init__(self, function: Callable[..., Any], **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.parts = nn.ModuleDict(parts)

    def forward(self, *args: Tensor) -> Any:
        return self.function(*args, **dict(self.parts))


def read(function: Callable[..., Any], *shapes: tuple[int, ...], **parts: nn.Module) -> Any:
    return from_module(Do(function, **parts), shapes or ((2, 4, 4, 4),))


def operations(graph: ComputeGraph) -> list[str]:
    return [node.op for node in graph.nodes if node.op not in ("input", "output")]


def shared(view: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Writes into a view, and returns what was viewed."""

    def forward(x: Tensor) -> Tensor:
        y = torch.tanh(x)
        view(y).zero_()
        return y + x

    return forward


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "repeat": lambda y: y.repeat(1, 1, 1, 1),
    "tile": lambda y: y.tile(1, 1, 1, 1),
    "expand": lambda y: y.expand(2, 4, 4, 4),
    "expand and clone": lambda y: y.expand(2, 4, 4, 4).clone(),
    "reshape": lambda y: y.reshape(2, 16, 4),
    "reshape that copies": lambda y: y.transpose(1, 2).reshape(2, 16, 4),
    "reshape of a transpose that shows": lambda y: y.transpose(0, 1).reshape(4, 2, 16),
    "flatten that copies": lambda y: y.permute(0, 2, 3, 1).flatten(1),
    "contiguous": lambda y: y.contiguous(),
    "contiguous that copies": lambda y: y.permute(0, 2, 3, 1).contiguous(),
    "permute": lambda y: y.permute(0, 2, 3, 1),
    "movedim": lambda y: y.movedim(1, -1),
    "dropout": lambda y: F.dropout(y, 0.5, False),
    "dropout of none": lambda y: F.dropout(y, 0.0, True),
    "dropout that is on": lambda y: F.dropout(y, 0.5, True),
    "to the same": lambda y: y.to(torch.float32),
    "to a copy": lambda y: y.to(torch.float32, copy=True),
    "to another": lambda y: y.to(torch.float64),
    "detach": lambda y: y.detach(),
    "data": lambda y: y.data,
    "view": lambda y: y.view(-1),
    "unflatten": lambda y: y.unflatten(1, (2, 2)),
    "chunk": lambda y: torch.cat(y.chunk(2, 1), 1),
    "real": lambda y: y.real,
    "channels_last": lambda y: y.to(memory_format=torch.channels_last),
    "squeeze": lambda y: y.unsqueeze(0).squeeze(0),
    "as_strided of all": lambda y: y.as_strided((128,), (1,)),
}


@pytest.mark.parametrize("name", VIEWS)
def test_a_write_shows_where_pytorch_shows_it(name: str) -> None:
    """Zeros written into what shares y's memory leave x alone: no tanh, nothing added."""
    forward = shared(VIEWS[name])
    x = torch.rand(2, 4, 4, 4)
    with torch.inference_mode():
        shows = torch.equal(forward(x), x)
        assert shows or torch.equal(forward(x), torch.tanh(x) + x)
    graph = read(forward)
    assert ("tanh" not in operations(graph)) == shows or name == "as_strided of all"


@pytest.mark.parametrize(
    "view",
    [
        lambda y: y[:, 1],
        lambda y: y[..., ::2],
        lambda y: y.diagonal(dim1=2, dim2=3),
        lambda y: y.unfold(2, 2, 2),
        lambda y: y.as_strided((2, 4), (64, 1), 3),
        lambda y: y.unbind(1)[2],
        lambda y: y.split(1, 2)[1].transpose(0, 1),
        lambda y: y.narrow(1, 0, 2).view(2, 32),
        lambda y: y.select(1, 0).unsqueeze(0),
    ],
)
def test_a_write_into_a_part_keeps_both(view: Callable[[Tensor], Tensor]) -> None:
    def forward(x: Tensor, a: nn.Module, b: nn.Module) -> Tensor:
        y = a(x)
        part = view(y)
        part.copy_(b(x).mean().expand(part.shape))
        return y

    graph = read(forward, a=nn.Conv2d(4, 4, 1), b=nn.Conv2d(4, 4, 1))
    assert graph.operations["conv"] == 2
    assert graph.parameters == 40
    assert "scatter" in graph.others


def test_two_views_of_one_tensor_follow_each_other() -> None:
    def forward(x: Tensor) -> Tensor:
        y = torch.tanh(x)
        a, b = y.view(2, -1), y.permute(3, 2, 1, 0)
        a.sigmoid_()
        return b.permute(3, 2, 1, 0)

    assert operations(read(forward)) == ["tanh", "sigmoid"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda y: y.transpose_(1, 2), lambda y: y.transpose(1, 2)),
        (lambda y: y.swapaxes_(1, 3), lambda y: y.transpose(1, 3)),
        (lambda y: y[0, 0].t_(), lambda y: y[0, 0].t()),
        (lambda y: y[:1].squeeze_(0), lambda y: y[:1].squeeze(0)),
        (lambda y: y[:1].squeeze_(), lambda y: y[:1].squeeze()),
        (lambda y: y.unsqueeze_(1), lambda y: y.unsqueeze(1)),
        (lambda y: y.detach_(), lambda y: y),
    ],
)
def test_a_tensor_turned_in_place(one: Any, other: Any) -> None:
    def turned(x: Tensor) -> Any:
        y = torch.tanh(x)
        z = one(y)
        return torch.relu(z)

    def written(x: Tensor) -> Any:
        y = torch.tanh(x)
        before = y.view(-1)
        z = one(y)
        z.relu_()
        return z if z.numel() == x.numel() else before.view(x.shape)

    assert read(turned) == read(lambda x: torch.relu(other(torch.tanh(x))))
    assert "relu" in operations(read(written))


def test_a_turned_tensor_is_the_same_tensor() -> None:
    def forward(x: Tensor) -> Tensor:
        y = torch.tanh(x)
        whole = y.view(-1)
        y.transpose_(1, 2)
        y.relu_()
        return whole.view(2, 4, 4, 4)

    assert {"tanh", "relu"} <= set(operations(read(forward)))


CHAINS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu between permutes": lambda x: (
        F.gelu(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).view(2, 64)
    ),
    "add between permutes": lambda x: (
        (x.permute(0, 2, 3, 1) + x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).view(2, 64)
    ),
    "dropout between transposes": lambda x: (
        F.dropout(x.transpose(1, 2), 0.5, True).transpose(1, 2).view(2, 64)
    ),
    "clamp between transposes": lambda x: x.mT.clamp(0, 1).mT.view(2, 64),
    "where between transposes": lambda x: torch.where(x.mT > 0, x.mT, 0.0).mT.view(2, 64),
    "convolution": lambda x: (
        F.conv2d(x.contiguous(memory_format=torch.channels_last), torch.ones(4, 4, 1, 1))
        .permute(0, 2, 3, 1)
        .view(2, 64)
    ),
    "pooling": lambda x: (
        F.max_pool2d(x.contiguous(memory_format=torch.channels_last), 2)
        .permute(0, 2, 3, 1)
        .view(2, 16)
    ),
    "attention": lambda x: F.scaled_dot_product_attention(x, x, x).transpose(1, 2).view(2, 4, 16),
    "attention, heads first": lambda x: F.scaled_dot_product_attention(x, x, x).view(8, 4, 4),
}


@pytest.mark.parametrize("name", CHAINS)
def test_a_view_that_pytorch_makes_is_read(name: str) -> None:
    read(CHAINS[name])


def orders(x: Tensor) -> list[Tensor]:
    """The same numbers, laid out otherwise."""
    found = [x]
    if x.ndim > 1:
        found.append(x.transpose(0, -1).contiguous().transpose(0, -1))
    if x.ndim == 4:
        found.append(x.contiguous(memory_format=torch.channels_last))
    return found


KERNELS = {
    # The CPU's kernels and the meta kernels disagree, or the layout is the kernel's own affair.
    "scaled_dot_product_attention", "lstm", "gru", "rnn_tanh", "rnn_relu", "cudnn_batch_norm",
    "_reshape_alias", "bilinear", "cdist", "log_sigmoid", "log_sigmoid_forward",
}  # fmt: skip


FIRST = {
    # Whose other results are statistics for the way back.
    "_fused_rms_norm", "_native_batch_norm_legit_no_training", "native_batch_norm",
    "native_layer_norm",
}  # fmt: skip


def inputs_of(name: str) -> list[aten_examples.F]:
    leaves = pytree.tree_leaves((list(KNOWN[name].args), KNOWN[name].kwargs))
    return [x for x in leaves if isinstance(x, aten_examples.F)]


LAID = [
    (name, which)
    for name in sorted(set(KNOWN) - KERNELS)
    if hasattr(torch.ops.aten, name) and inputs_of(name)
    for which in range(len(orders(inputs_of(name)[0].draw())))
]


@pytest.mark.parametrize(("name", "which"), LAID)
def test_results_lie_in_memory_as_pytorch_lays_them(name: str, which: int) -> None:
    packet, inputs = getattr(torch.ops.aten, name), inputs_of(name)
    strides = []

    def forward(*tensors: Tensor) -> Any:
        laid = [orders(x)[which] if len(orders(x)) > which else x for x in tensors]
        result = call(packet, KNOWN[name], laid)
        strides.append(
            [
                (t.shape, t.stride() if t.numel() > 1 else None)
                for t in pytree.tree_leaves(result)
                if isinstance(t, Tensor)
            ]
        )
        return result, sum(x.sum() for x in tensors)

    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            forward(*(x.draw() for x in inputs))
        except (RuntimeError, NotImplementedError) as err:
            pytest.skip(str(err).split("\n")[0])
        from_module(Do(forward), tuple(torch.zeros(x.shape) for x in inputs))
    n = 1 if name in FIRST else None
    assert strides[1][:n] == strides[0][:n]
