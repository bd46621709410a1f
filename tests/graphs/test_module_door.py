"""The PyTorch door: what it reads, that it leaves the module alone, and what it refuses."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nni_aiop.errors import GraphError
from nni_aiop.graphs import ComputeGraph, from_module


class Do(nn.Module):
    """A module from a function."""

    def __init__(self, function: Any, **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.parts = nn.ModuleDict(parts)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs, **dict(self.parts))


def read(function: Any, example: Any = (1, 8, 4, 4), **parts: nn.Module) -> ComputeGraph:
    return from_module(Do(function, **parts), example)


def operations(function: Any, example: Any = (1, 8, 4, 4), **parts: nn.Module) -> list[str]:
    return [node.op for node in read(function, example, **parts).nodes[1:-1]]


def test_a_small_network_exactly() -> None:
    """Figure 2 of AIO-P in small: convolution, norm, activation, pooling, classifier."""
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.SiLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(8, 5),
    )
    graph = from_module(net, (1, 3, 8, 8))
    assert [str(node) for node in graph.nodes] == [
        "input [ -> 1x3x8x8]",
        "conv dilation=1x1 groups=1 kernel=3x3 padding=(1x1, 1x1) stride=2x2 [1x3x8x8 -> 1x8x4x4]",
        "silu [1x8x4x4 -> 1x8x4x4]",
        "global_avg_pool [1x8x4x4 -> 1x8]",
        "linear [1x8 -> 1x5]",
        "output [1x5 -> 1x5]",
    ]
    assert graph.names[1:-1] == ("0", "2", "3", "6")
    assert graph.edges == [(i, i + 1) for i in range(5)]
    assert [node.parameters for node in graph.nodes] == [0, 216 + 16, 0, 0, 45, 0]
    assert graph.parameters == sum(p.numel() for p in net.parameters())


def test_the_module_is_not_touched_and_nothing_is_computed() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
    net[0].weight.data.fill_(float("nan"))
    before = copy.deepcopy(net.state_dict())
    kept = [net[0].weight, net[1].running_mean]
    from_module(net, torch.full((2, 3, 8, 8), float("nan")))
    assert net.training and all(m.training for m in net.modules())
    assert net[0].weight is kept[0] and net[1].running_mean is kept[1]
    assert not net[0]._forward_hooks and not net[0]._forward_pre_hooks
    for name, value in net.state_dict().items():
        assert torch.equal(value.nan_to_num(7), before[name].nan_to_num(7))


def test_a_network_larger_than_memory() -> None:
    """40 billion parameters, on the meta device from the start."""
    with torch.device("meta"):
        net = nn.Sequential(nn.Linear(200_000, 200_000), nn.ReLU())
    assert from_module(net, (1, 200_000)).parameters == 200_000**2 + 200_000


def test_equal_networks_are_equal_values() -> None:
    a, b = (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()) for _ in range(2))
    one, two = from_module(a, (1, 3, 8, 8)), from_module(b, torch.rand(1, 3, 8, 8))
    assert one == two and hash(one) == hash(two) and len({one, two}) == 1
    assert one != from_module(a, (1, 3, 9, 8))
    assert one != from_module(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh()), (1, 3, 8, 8))


# --- inputs and outputs --------------------------------------------------------------------------


def test_several_inputs_and_outputs_in_nests() -> None:
    def forward(pair: tuple[Tensor, Tensor], *, extra: Tensor) -> dict[str, Any]:
        a, b = pair
        return {"sum": a + b, "rest": [F.relu(extra), 3, "text"]}

    graph = from_module(Do(forward), (((1, 4), (1, 4)),), kwargs={"extra": (2, 3)})
    assert graph.operations == {"add": 1, "input": 3, "output": 2, "relu": 1}
    assert sorted(graph.output_shapes) == [(1, 4), (2, 3)]


def test_indices_as_input() -> None:
    graph = from_module(nn.Embedding(10, 6), torch.zeros(1, 5, dtype=torch.long))
    (node,) = graph.nodes[1:-1]
    assert (node.op, node.output_shape, node.weight_shape) == ("embedding", (1, 5, 6), (10, 6))
    assert node.parameters == 60


class Pyramid(nn.Module):
    """A body with a head that several levels share, as detectors have."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.down = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.head = nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        fine = F.relu(self.stem(x))
        coarse = F.relu(self.down(fine))
        fine = fine + F.interpolate(coarse, scale_factor=2.0)
        return [self.head(fine), self.head(coarse)]


def test_shared_weights_count_once() -> None:
    net = Pyramid()
    graph = from_module(net, (1, 3, 8, 8))
    heads = [i for i, node in enumerate(graph.nodes) if node.output_shape[1:2] == (5,)]
    heads = [i for i in heads if graph.nodes[i].op == "conv"]
    assert graph.tied == {max(heads): min(heads)}
    assert graph.parameters == sum(p.numel() for p in net.parameters())
    assert graph.operations["resize"] == 1


# --- operations in place and views ---------------------------------------------------------------


def test_operations_in_place_follow_views() -> None:
    def inside(x: Tensor) -> Tensor:
        y = torch.tanh(x)
        y.view(1, -1).relu_()
        return y

    def outside(x: Tensor) -> Tensor:
        y = torch.tanh(x)
        z = y.transpose(1, 2)
        y.relu_()
        return z.transpose(1, 2)

    assert operations(inside) == ["tanh", "relu"]
    assert operations(outside) == ["tanh", "relu"]


def test_writing_into_a_part_is_named() -> None:
    def forward(x: Tensor) -> Tensor:
        y = torch.tanh(x)
        y[:, 2:4] = 1.0
        y[:, :2].relu_()
        return y

    graph = read(forward)
    assert graph.others == ("scatter",)
    assert graph.operations["slice"] == 1


def test_copies_are_not_views() -> None:
    def forward(x: Tensor) -> Tensor:
        y = torch.tanh(x)
        y.clone().relu_()
        return y

    assert operations(forward) == ["tanh"]


# --- the same function, written otherwise --------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (F.silu, lambda x: x * torch.sigmoid(x)),
        (F.hardswish, lambda x: x * F.relu6(x + 3) / 6),
        (F.hardsigmoid, lambda x: F.relu6(x + 3) / 6),
        (F.gelu, lambda x: x * 0.5 * (1 + torch.erf(x / 2**0.5))),
        (F.mish, lambda x: x * torch.tanh(F.softplus(x))),
        (F.relu, lambda x: x.clamp(min=0)),
        (F.relu6, lambda x: torch.clamp(x, 0, 6)),
        (lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1), lambda x: x.mean((2, 3))),
        (lambda x: F.adaptive_avg_pool2d(x, 2), lambda x: F.avg_pool2d(x, 2)),
        (lambda x: x.mean((-1, -2)), lambda x: F.avg_pool2d(x, 4)[..., 0, 0]),
        (lambda x: F.max_pool2d(x, 4).flatten(1), lambda x: x.amax((2, 3))),
        (lambda x: torch.stack([x, -x, x * x], 1).sum(1), lambda x: x + (-x) + x * x),
        (lambda x: F.pixel_shuffle(x, 2), nn.PixelShuffle(2)),
        (
            lambda x: F.channel_shuffle(x, 2),
            lambda x: x.view(1, 2, 4, 4, 4).transpose(1, 2).reshape(1, 8, 4, 4),
        ),
        (lambda x: torch.cat(x.chunk(2, 1)[::-1], 1), lambda x: torch.cat([x[:, 4:], x[:, :4]], 1)),
        (lambda x: torch.roll(x, 1, 2), lambda x: torch.cat([x[:, :, 3:], x[:, :, :3]], 2)),
        (lambda x: 1 - x, lambda x: torch.rsub(x, 1)),
        (lambda x: x.flip(3), lambda x: torch.flip(x, (-1,))),
        (lambda x: torch.addcmul(x, x, x), lambda x: x + x * x),
        (lambda x: torch.var(x, 1), lambda x: (((x - x.mean(1, True)) ** 2).mean(1) * (8 / 7))),
        (
            lambda x: torch.einsum("bchw,bdhw->bcd", x, x),
            lambda x: x.flatten(2) @ x.flatten(2).transpose(1, 2),
        ),
        (
            lambda x: F.scaled_dot_product_attention(x, x, x),
            lambda x: (x @ x.transpose(-2, -1) * 0.5).softmax(-1) @ x,
        ),
        (lambda x: F.glu(x, 1), lambda x: x[:, :4] * torch.sigmoid(x[:, 4:])),
        (lambda x: F.conv2d(F.pad(x, (1, 1, 1, 1)), torch.ones(4, 8, 3, 3)),
         lambda x: F.conv2d(x, torch.ones(4, 8, 3, 3), padding="same")),
    ],
)  # fmt: skip
def test_one_function_is_one_graph(one: Any, other: Any) -> None:
    assert read(one) == read(other)


def test_multi_head_attention_is_attention() -> None:
    class Net(nn.Module):
        def __init__(self, need_weights: bool) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.need_weights = need_weights

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.attention(x, x, x, need_weights=self.need_weights)[0]
            return y

    quick, plain = (from_module(Net(need), (1, 6, 8)) for need in (False, True))
    assert quick == plain
    assert quick.operations["attention"] == 1
    assert quick.parameters == sum(p.numel() for p in Net(True).parameters())


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers(kind: Any, layers: int) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = kind(4, 6, num_layers=layers, bidirectional=True, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.layers(x)[0]
            return y

    graph = from_module(Net(), (2, 5, 4))
    name = kind.__name__.lower()
    assert graph.operations[name] == layers
    assert graph.parameters == sum(p.numel() for p in Net().parameters())
    node = next(n for n in graph.nodes if n.op == name)
    assert (node.input_shapes, node.output_shape) == (((5, 2, 4),), (5, 2, 12))


def test_the_exported_program_is_the_same_network() -> None:
    """torch.export as a second opinion."""
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding="same"), nn.BatchNorm2d(8), nn.Hardswish(), nn.Flatten(),
        nn.Linear(128, 4),
    ).eval()  # fmt: skip
    program = torch.export.export(net, (torch.zeros(1, 3, 4, 4),)).module()
    assert from_module(program, (1, 3, 4, 4)) == from_module(net, (1, 3, 4, 4))


def test_an_unknown_operation_is_shown() -> None:
    graph = read(lambda x: torch.cumsum(F.relu(x), 1))
    assert graph.others == ("cumsum",)
    assert graph.operations["other:cumsum"] == 1


# --- what is refused -----------------------------------------------------------------------------


def test_control_flow_on_data_is_refused() -> None:
    def forward(x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x

    with pytest.raises(GraphError, match="must not depend on the values of its data, but Do asks"):
        read(forward)


def test_shapes_that_depend_on_data_are_refused() -> None:
    with pytest.raises(GraphError, match="must not depend on the values of its data"):
        read(lambda x: x[x > 0])


def test_a_module_that_raises_names_where() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sequential(nn.ReLU(), nn.Linear(5, 2)))
    with pytest.raises(GraphError, match=r"Sequential \(in 1\.1\) raised RuntimeError") as caught:
        from_module(net, (1, 3, 8, 8))
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_module_that_cannot_be_copied_is_refused() -> None:
    class Single(nn.Module):
        def __deepcopy__(self, memo: Any) -> Any:
            raise TypeError("there is only one")

    with pytest.raises(GraphError, match=r"must bear copy\.deepcopy, but Single raised TypeError"):
        from_module(Single(), (1, 3))


def test_an_output_that_is_no_tensor_is_refused() -> None:
    with pytest.raises(GraphError, match="must depend on its input"):
        read(lambda x: 3)


def test_a_wrong_example_is_refused() -> None:
    with pytest.raises(GraphError, match="an example must be a tensor or a shape"):
        from_module(nn.ReLU(), 3)
    with pytest.raises(GraphError, match="a shape must be of positive whole numbers"):
        from_module(nn.ReLU(), (1, -3))
