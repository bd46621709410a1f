"""Slices of learned tensors: parameters and weight shapes count the part that a network uses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nni_aiop.graphs import ComputeGraph, from_module
from nni_aiop.graphs.rules._regions import Region, count, gathered

IMAGE = (2, 3, 8, 8)


class Supernet(nn.Module):
    """The largest network, of which a smaller one runs."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.conv = nn.Conv2d(8, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.linear = nn.Linear(32, 24)
        self.table = nn.Embedding(10, 32)
        self.index = torch.tensor([0, 2, 5])

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def small_conv(net: Supernet, x: Tensor) -> Tensor:
    x = F.conv2d(x, net.conv.weight[:6, :3], net.conv.bias[:6], padding=1)
    norm = net.norm
    return F.batch_norm(
        x, norm.running_mean[:6], norm.running_var[:6], norm.weight[:6], norm.bias[:6]
    )


def test_a_small_network_of_a_supernet(file_door: Callable[..., ComputeGraph]) -> None:
    graph = from_module(Supernet(small_conv), IMAGE)
    plain = from_module(nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)), IMAGE)
    assert graph == plain and graph.parameters == plain.parameters == 6 * 27 + 6 + 12
    assert graph.nodes[1].weight_shape == (6, 3, 3, 3)
    filed = file_door(Supernet(small_conv), torch.zeros(IMAGE))
    assert (filed, filed.parameters) == (plain, plain.parameters)


W = 24 * 32
SLICES: dict[str, tuple[int, Callable[[Supernet, Tensor], Any]]] = {
    "slice": (24 * 9, lambda n, x: F.linear(x[:, :9], n.linear.weight[:, :9])),
    "every other": (12 * 32, lambda n, x: F.linear(x, n.linear.weight[::2])),
    "narrow": (7 * 32, lambda n, x: F.linear(x, n.linear.weight.narrow(0, 3, 7))),
    "select": (32, lambda n, x: x * n.linear.weight[3]),
    "last": (32, lambda n, x: x * n.linear.weight[-1]),
    "entry": (1, lambda n, x: x * n.linear.weight[3, 4]),
    "flip": (W, lambda n, x: F.linear(x, n.linear.weight.flip(0))),
    "chunk": (W // 3, lambda n, x: F.linear(x, n.linear.weight.chunk(3)[1])),
    "all chunks": (W, lambda n, x: [F.linear(x, w) for w in n.linear.weight.chunk(3)]),
    "split": (W // 4 * 3, lambda n, x: [F.linear(x, w) for w in n.linear.weight.split(6)[1:]]),
    "unbind": (3 * 32, lambda n, x: [x * row for row in n.linear.weight.unbind(0)[:3]]),
    "turned": (5 * 24, lambda n, x: x[:, :24] @ n.linear.weight.T[:5].T),
    "of a view": (4 * 32, lambda n, x: F.linear(x, n.linear.weight.view(6, 4, 32)[2])),
    "of a slice": (2 * 3, lambda n, x: F.linear(x[:, :3], n.linear.weight[4:, 2:][:2, :3])),
    "middle of a kernel": (
        16 * 3, lambda n, x: F.conv2d(x.view(2, 3, 4, 8), n.conv.weight[:, :3, 1:2, 1:2])
    ),
    "index": (3 * 32, lambda n, x: F.linear(x, n.linear.weight[n.index])),
    "index of columns": (24 * 3, lambda n, x: F.linear(x[:, :3], n.linear.weight[:, n.index])),
    "index_select": (3 * 32, lambda n, x: F.linear(x, n.linear.weight.index_select(0, n.index))),
    "a table": (10 * 32, lambda n, x: x[:1] * n.table(n.index)),
    "twice the same": (
        9 * 32,
        lambda n, x: F.linear(x, n.linear.weight[:9]) + F.linear(x.relu(), n.linear.weight[:9]),
    ),
    "overlapping": (
        12 * 32,
        lambda n, x: (F.linear(x, n.linear.weight[:9]), F.linear(x, n.linear.weight[3:12])),
    ),
    "rows and columns": (
        2 * 32 + 24 * 3 - 2 * 3,
        lambda n, x: (F.linear(x, n.linear.weight[:2]), F.linear(x[:, :3], n.linear.weight[:, :3])),
    ),
    "a part and the whole": (
        W, lambda n, x: F.linear(F.linear(x, n.linear.weight[:9])[:, :1] * x, n.linear.weight)
    ),
    "the whole, then a part": (
        W, lambda n, x: F.linear(x[:, :24] * F.linear(x, n.linear.weight), n.linear.weight[:, :24])
    ),
    "joined again": (
        W, lambda n, x: F.linear(x, torch.cat([n.linear.weight[12:], n.linear.weight[:12]]))
    ),
    "in a product": (9 * 32 + 9, lambda n, x: F.linear(
        x, n.linear.weight[:9] * n.linear.bias[:9, None]
    )),
}  # fmt: skip
NOT_FROM_A_FILE = ("index", "index_select")


@pytest.mark.parametrize("name", SLICES)
def test_slices_hold_what_they_take(name: str, file_door: Callable[..., ComputeGraph]) -> None:
    parameters, function = SLICES[name]
    shape = (3, 32)
    if name == "middle of a kernel":
        shape = (6, 32)
    graph = from_module(Supernet(function), shape)
    assert (graph.parameters, graph.others) == (parameters, ())
    if name not in NOT_FROM_A_FILE:
        # A row that an index picks from a table may be any: the whole table is learned.
        filed = file_door(Supernet(function), torch.zeros(shape))
        assert (filed, filed.parameters) == (graph, parameters)


def test_slices_that_are_used_again_are_tied() -> None:
    _, function = SLICES["twice the same"]
    graph = from_module(Supernet(function), (3, 32))
    assert len(graph.tied) == 1


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_places_are_those_that_numpy_takes(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)))
    numbers = np.arange(np.prod(shape)).reshape(shape)
    learned: dict[Any, int] = {}
    taken: set[int] = set()
    for _ in range(data.draw(st.integers(1, 3))):
        region: Region | None = Region.of("w", shape)
        part = numbers
        for _ in range(data.draw(st.integers(0, 4))):
            kind = data.draw(st.sampled_from(["slice", "transpose", "reshape"]))
            if kind == "slice" and part.ndim:
                axis = data.draw(st.integers(0, part.ndim - 1))
                ends = data.draw(st.slices(part.shape[axis]))
                step = ends.step or 1
                start, stop, step = slice(ends.start, ends.stop, step).indices(part.shape[axis])
                cut = [slice(None)] * part.ndim
                cut[axis] = slice(start, None if stop < 0 else stop, step)
                stop = -part.shape[axis] - 1 if stop < 0 else stop
                part, region = part[tuple(cut)], region.sliced(axis, start, stop, step)
            elif kind == "transpose":
                order = data.draw(st.permutations(range(part.ndim)))
                part, region = part.transpose(order), region.transposed(order)
            elif part.size:
                sizes = (part.size // part.shape[-1], part.shape[-1]) if part.ndim else (1,)
                flat = data.draw(st.sampled_from([(part.size,), sizes, (*part.shape, 1)]))
                turned = region.reshaped(flat)
                assert (turned is not None) == np.shares_memory(part.reshape(flat), numbers)
                if turned is not None:
                    part, region = part.reshape(flat), turned
        assert (region.sizes, region.taken) == (part.shape, part.size)
        learned |= region.learned()
        taken |= set(part.ravel().tolist())
    assert count(learned) == len(taken) == count(gathered(learned))


def test_large_tensors_are_compared_without_their_places() -> None:
    whole = Region.of("w", (50_000, 4_096))
    parts = [whole.sliced(0, 0, 30_000, 1), whole.sliced(0, 20_000, 50_000, 1)]
    learned = parts[0].learned() | parts[1].learned()
    assert gathered(learned) == {"w": 50_000 * 4_096}
    few = parts[0].learned() | whole.sliced(1, 0, 1_024, 1).learned()
    assert count(few) == 30_000 * 4_096 + 20_000 * 1_024
