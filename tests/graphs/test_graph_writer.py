"""GraphWriter: each of its operations is the one that the PyTorch door reads."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nni_aiop.errors import GraphError
from nni_aiop.graphs import ComputeGraph, GraphWriter, Handle, Node, from_module

IMAGE = (2, 8, 6, 6)


class Lambda(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def write(
    operations: Callable[[GraphWriter, Handle], Handle], shape: tuple[int, ...] = IMAGE
) -> ComputeGraph:
    w = GraphWriter()
    w.output(operations(w, w.input(shape)))
    return w.graph()


PAIRS: dict[str, tuple[nn.Module, Callable[[GraphWriter, Handle], Handle]]] = {
    "conv": (
        nn.Conv2d(8, 16, 3, 2, 1, groups=4, bias=False),
        lambda w, x: w.conv(x, 16, 3, stride=2, groups=4),
    ),
    "conv with bias": (
        nn.Conv2d(8, 4, 2, padding=0),
        lambda w, x: w.conv(x, 4, 2, padding=0, bias=True),
    ),
    "conv_transpose": (
        nn.ConvTranspose2d(8, 4, 3, 2, padding=1, output_padding=1),
        lambda w, x: w.conv_transpose(x, 4, 3, stride=2, padding=1, output_padding=1),
    ),
    "linear": (nn.Linear(6, 5), lambda w, x: w.linear(x, 5)),
    "linear behind linear": (
        nn.Sequential(nn.Linear(6, 5, bias=False), nn.ReLU(), nn.Linear(5, 4)),
        lambda w, x: w.linear(w.relu(w.linear(x, 5, bias=False)), 4),
    ),
    "batch_norm": (nn.BatchNorm2d(8), lambda w, x: w.batch_norm(x)),
    "activation": (nn.Hardswish(), lambda w, x: w.activation(x, "hard_swish")),
    "add": (
        Lambda(lambda x: x.relu() + x.tanh() + x),
        lambda w, x: w.add(w.relu(x), w.activation(x, "tanh"), x),
    ),
    "add broadcast": (
        Lambda(lambda x: x + x.mean((2, 3), keepdim=True)),
        lambda w, x: w.add(x, w.global_avg_pool(x, keep=True)),
    ),
    "mul": (
        Lambda(lambda x: x * x.mean((2, 3), keepdim=True)),
        lambda w, x: w.mul(x, w.global_avg_pool(x, keep=True)),
    ),
    "zeros": (Lambda(lambda x: x * 0.0), lambda w, x: w.zeros(x)),
    "max_pool": (nn.MaxPool2d(3, 2, 1), lambda w, x: w.max_pool(x, 3, stride=2, padding=1)),
    "avg_pool": (nn.AvgPool2d(2, 2), lambda w, x: w.avg_pool(x, 2, stride=2)),
    "pool of all": (
        Lambda(lambda x: F.max_pool2d(x, 6).relu()),
        lambda w, x: w.relu(w.max_pool(x, 6, stride=6)),
    ),
    "global_avg_pool": (Lambda(lambda x: x.mean((2, 3))), lambda w, x: w.global_avg_pool(x)),
    "concat": (
        Lambda(lambda x: torch.cat([x, x.relu()], dim=1)),
        lambda w, x: w.concat([x, w.relu(x)]),
    ),
    "slice": (
        Lambda(lambda x: x[:, :3, ::2, ::4]),
        lambda w, x: w.slice(x, (1, 0, 3, 1), (2, 0, 6, 2), (3, 0, 6, 4)),
    ),
    "pad": (
        Lambda(lambda x: F.pad(x, (0, 1, 2, 0)).relu()),
        lambda w, x: w.relu(w.pad(x, (2, 2, 0), (3, 0, 1))),
    ),
    "resize": (
        nn.Upsample(scale_factor=2, mode="bilinear"),
        lambda w, x: w.resize(x, (12, 12), "linear"),
    ),
    "reshape": (
        nn.Sequential(nn.Flatten(), nn.Linear(288, 2)),
        lambda w, x: w.linear(w.reshape(x, (2, 288)), 2),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_what_is_written_is_what_is_read(name: str) -> None:
    module, operations = PAIRS[name]
    written, read = write(operations), from_module(module, IMAGE)
    assert written == read
    assert written.parameters == read.parameters == sum(p.numel() for p in module.parameters())


def test_three_axes() -> None:
    module = nn.Sequential(nn.Conv3d(3, 4, 3, padding=1, bias=False), nn.BatchNorm3d(4))
    shape = (1, 3, 4, 6, 5)
    assert write(lambda w, x: w.batch_norm(w.conv(x, 4, 3)), shape) == from_module(module, shape)


def test_the_mean_of_single_entries_is_no_operation_in_either() -> None:
    shape = (2, 8, 1, 1)
    written = write(lambda w, x: w.relu(w.global_avg_pool(x, keep=True)), shape)
    for pool in (nn.AdaptiveAvgPool2d(1), nn.AvgPool2d(1), Lambda(lambda x: x.mean((2, 3), True))):
        assert from_module(nn.Sequential(pool, nn.ReLU()), shape) == written
    flat = from_module(Lambda(lambda x: x.mean((2, 3)).relu()), shape)
    assert flat.operations == {"input": 1, "output": 1, "relu": 1}
    assert write(lambda w, x: w.resize(x, (1, 1), "nearest"), shape).operations == {
        "input": 1,
        "output": 1,
    }


def test_a_sum_that_only_a_sum_reads_is_part_of_it() -> None:
    def inner(w: GraphWriter, x: Handle) -> Handle:
        return w.add(x, w.relu(x))

    nested = write(lambda w, x: w.add(w.add(inner(w, x), x), w.relu(w.relu(x))))
    assert nested.operations["add"] == 1
    assert nested == from_module(Lambda(lambda x: x + x.relu() + x + x.relu().relu()), IMAGE)

    def read_twice(w: GraphWriter, x: Handle) -> Handle:
        y = inner(w, x)
        return w.add(y, w.relu(y))

    assert write(read_twice).operations["add"] == 2


def test_nothing_of_nothing_is_nothing_once() -> None:
    assert write(lambda w, x: w.zeros(w.zeros(x))) == from_module(
        Lambda(lambda x: x * 0.0 * 0.0), IMAGE
    )

    def read_twice(w: GraphWriter, x: Handle) -> Handle:
        y = w.zeros(x)
        return w.add(w.zeros(y), y)

    assert write(read_twice) == from_module(Lambda(lambda x: x * 0.0 * 0.0 + x * 0.0), IMAGE)
    assert write(read_twice).operations["mul"] == 2


def test_what_does_the_same_to_the_same_is_one_node() -> None:
    pool = nn.AvgPool2d(3, 1, 1)

    def twice(w: GraphWriter, x: Handle) -> Handle:
        first, second = (w.avg_pool(w.relu(x), 3, stride=1, padding=1) for _ in range(2))
        y = w.add(x, first)
        return w.add(w.add(x, second, w.conv(x, 8, 1)), w.conv(x, 8, 1), w.relu(y))

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs = nn.ModuleList(nn.Conv2d(8, 8, 1, bias=False) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            y = x + pool(x.relu())
            return x + pool(x.relu()) + self.convs[0](x) + self.convs[1](x) + y.relu()

    graph = write(twice)
    assert graph == from_module(Twice(), IMAGE)
    assert graph.operations["avg_pool"] == 1 and graph.operations["conv"] == 2
    assert graph.parameters == 128


def test_what_no_output_depends_on_vanishes() -> None:
    def with_rest(w: GraphWriter, x: Handle) -> Handle:
        y = w.add(x, w.relu(x))
        w.conv(w.add(y, x), 9, 3)
        return w.add(y, x)

    graph = write(with_rest)
    assert graph.operations == {"add": 1, "input": 1, "output": 1, "relu": 1}
    assert graph == from_module(Lambda(lambda x: x + x.relu() + x), IMAGE)


def test_an_input_stays() -> None:
    w = GraphWriter()
    w.input((1, 2))
    w.output(w.relu(w.input((1, 3))))
    assert w.graph().input_shapes == ((1, 2), (1, 3))


def test_weights_that_are_used_twice_count_once() -> None:
    twice = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU())
    w = GraphWriter()
    x = w.input(IMAGE)
    start = len(w)
    y = w.relu(w.conv(x, 8, 1, bias=True))
    once = range(start, len(w))
    z = w.repeat(once, x, y, y)
    w.output(w.repeat(once, x, z, y))
    graph, read = w.graph(), from_module(nn.Sequential(twice, twice, twice), IMAGE)
    assert graph == read
    assert graph.parameters == read.parameters == 72

    def without_the_first(w: GraphWriter, x: Handle) -> Handle:
        start = len(w)
        y = w.conv(x, 8, 1)
        once = range(start, len(w))
        others = (w.activation(x, op) for op in ("tanh", "relu", "silu"))
        return w.add(*(w.repeat(once, x, other, y) for other in others))

    assert write(without_the_first).parameters == 64


def test_a_repeated_range_has_its_sums_and_twins() -> None:
    class Block(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + x.relu() + x.tanh() + x.relu()

    def block(w: GraphWriter, x: Handle) -> Handle:
        return w.add(x, w.relu(x), w.activation(x, "tanh"), w.relu(x))

    def twice(w: GraphWriter, x: Handle) -> Handle:
        start = len(w)
        y = block(w, x)
        written = range(start, len(w))
        w.activation(y, "tanh")  # as the block will do
        z = w.repeat(written, x, y, y)
        return w.add(z, w.relu(y))  # as the block has done

    class Twice(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = Block()(x)
            return Block()(y) + y.relu()

    assert write(twice) == from_module(Twice(), IMAGE)


def test_names_follow_the_scope() -> None:
    w = GraphWriter()
    x = w.input(IMAGE)
    w.scope = "head"
    w.output(w.relu(x))
    assert w.graph().names == ("input_0", "head", "output_0")


def test_any_node_can_be_written() -> None:
    node = Node.make("permute", [(16, 36)], (36, 16), order=(1, 0))
    graph = write(lambda w, x: w.write(node, x))
    assert graph.nodes[1] is node


def test_without_an_output_it_is_no_graph() -> None:
    w = GraphWriter()
    w.relu(w.input(IMAGE))
    with pytest.raises(GraphError, match="must have an output"):
        w.graph()
