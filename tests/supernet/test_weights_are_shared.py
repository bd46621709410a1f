"""The network of a sample is the space's own, its weights parts of the shared tensors."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nni_aiop.errors import SpaceError
from nni_aiop.search_spaces import SUPERNETS, digits, get_supernet, mobilenetv3, naap, nasbench201
from nni_aiop.spaces import CodeSpace, Nominal, Ordinal
from nni_aiop.supernet import Supernet, part_of
from tests.supernet import toy

READY: dict[str, tuple[Callable[[], Supernet], tuple[int, ...]]] = {
    "digits": (lambda: digits.supernet(seed=0), (4, 1, 8, 8)),
    "naap": (lambda: naap.supernet(seed=0), (2, 3, 32, 32)),
    "nasbench201": (lambda: nasbench201.supernet("cifar10", seed=0), (2, 3, 8, 8)),
    "mobilenetv3": (lambda: mobilenetv3.supernet(n_classes=5, seed=0), (2, 3, 32, 32)),
}


def test_every_ready_supernet_is_tested() -> None:
    assert READY.keys() == SUPERNETS.keys()


def with_batch_statistics(network: nn.Module) -> nn.Module:
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None
    return network


@pytest.mark.parametrize("name", READY)
def test_a_subnet_computes_what_the_real_network_computes(name: str) -> None:
    make, shape = READY[name]
    supernet = make()
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    samples = supernet.space.sample(3, np.random.default_rng(0))
    for sample in [supernet.largest, supernet.smallest, *samples]:
        real = supernet.subnet(sample)
        assert type(real).__module__.startswith("nni_aiop.search_spaces")
        for training in (True, False):
            supernet.train(training)
            alone = with_batch_statistics(real).train(training)
            torch.testing.assert_close(supernet(x, sample), alone(x), atol=1e-5, rtol=1e-5)
        parts = supernet.parts(sample)
        assert parts.keys() == dict(real.named_parameters()).keys()
        count = sum(part.numel() for _, part in parts.values())
        assert count == sum(p.numel() for p in real.parameters())
        if "params" in supernet.space.costs:
            codes = supernet.space.encode([sample])
            assert count == supernet.space.cost("params", codes)[0]


def test_digits_weights_by_hand() -> None:
    supernet = digits.supernet(seed=0)
    sample = {
        "activation": "relu",
        "pooling": "avg",
        "width_1": 8,
        "depth_1": 1,
        "op_1_1": "inverted",
        "kernel_1_1": 3,
        "width_2": 4,
        "depth_2": 0,
    }
    net = supernet.subnet(sample)
    shared = supernet.weights
    stem = shared["stem/0/weight"]
    assert tuple(stem.shape) == (20, 1, 3, 3)
    torch.testing.assert_close(net.stem[0].weight, stem[:8])
    depthwise = shared["stage_1/0/inverted/body/1/0/weight"]
    assert tuple(depthwise.shape) == (80, 1, 5, 5)
    torch.testing.assert_close(net.stage_1[0].body[1][0].weight, depthwise[:32, :, 1:4, 1:4])
    pointwise = shared["transition/pool/1/0/weight"]
    torch.testing.assert_close(net.transition[1][0].weight, pointwise[:4, :8])
    torch.testing.assert_close(net.head.weight, shared["head/weight"][:, :4])


def test_gradients_reach_exactly_the_parts_of_a_sample() -> None:
    supernet = toy.supernet()
    supernet(torch.randn(4, 1, 6, 6), {"depth": 2, "width": 2, "op": "conv"}).sum().backward()
    grad = supernet.weights["block/weight"].grad
    assert grad is not None
    touched = grad != 0
    assert touched[:2, :2].all()
    assert not touched[2:].any() and not touched[:, 2:].any()
    supernet.zero_grad()
    supernet(torch.randn(4, 1, 6, 6), {"depth": 2, "width": 2, "op": "pool"}).sum().backward()
    assert supernet.weights["block/weight"].grad is None


def test_the_network_of_a_sample_is_a_copy() -> None:
    supernet = toy.supernet()
    before = supernet.arrays()
    net = supernet.subnet(supernet.largest)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1.0)
    for name, value in supernet.arrays().items():
        np.testing.assert_array_equal(value, before[name])


def test_parts_are_first_channels_and_middles() -> None:
    shared = torch.arange(2 * 2 * 4.0).reshape(2, 2, 4)
    assert part_of(shared, (1, 2, 2), window=2).tolist() == [[[1.0, 2.0], [5.0, 6.0]]]
    assert part_of(shared, (1, 1, 3)).tolist() == [[[0.0, 1.0, 2.0]]]


def test_labels_can_have_weights_of_their_own() -> None:
    plain, apart = toy.supernet(), toy.supernet(apart=("width",))
    assert len(plain.weights) == 7
    small = {"depth": 1, "width": 2}
    assert {name for name, _ in apart.parts(small).values()} == {
        f"width=2|{name}" for name, _ in plain.parts(small).values()
    }
    assert tuple(apart.weights["width=2|stem/weight"].shape) == (2, 1, 3, 3)
    with pytest.raises(SpaceError, match="labels of the space, depth, width, op, but got 'depht'"):
        toy.supernet(apart=("depht",))


def test_inactive_labels_change_nothing() -> None:
    supernet = toy.supernet()
    x = torch.randn(2, 1, 6, 6)
    supernet.eval()
    a = supernet(x, {"depth": 1, "width": 4, "op": "conv"})
    torch.testing.assert_close(a, supernet(x, {"depth": 1, "width": 4}))


def test_largest_and_smallest() -> None:
    space = digits.code_space()
    supernet = digits.supernet(seed=0)
    drawn = space.sample(300, np.random.default_rng(0))
    flops = space.cost("flops", space.encode([space.settled(s) for s in drawn]))
    (largest, smallest) = space.cost("flops", space.encode([supernet.largest, supernet.smallest]))
    assert largest >= flops.max() and smallest <= flops.min()
    assert supernet.smallest["depth_1"] == supernet.smallest["depth_2"] == 0
    assert naap.supernet(seed=0).largest["stride_3"] == 1  # a stride is a number that saves
    assert toy.supernet().largest["depth"] == 2  # no cost: the last value


def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_generator() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    a, b, c = toy.supernet(1), toy.supernet(1), toy.supernet(2)
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in a.arrays().items():
        np.testing.assert_array_equal(value, b.arrays()[name])
    assert not np.array_equal(a.arrays()["stem/weight"], c.arrays()["stem/weight"])


def test_what_is_wrong_is_told() -> None:
    supernet = toy.supernet()
    with pytest.raises(SpaceError):
        supernet(torch.zeros(1, 1, 6, 6), {"depth": 3, "width": 2})
    with pytest.raises(SpaceError, match=r"stem/weight at its largest, \(4, 1, 3, 3\)"):
        narrow = toy.supernet(reach=[{"depth": 2, "width": 2, "op": "conv"}])
        narrow(torch.zeros(1, 1, 6, 6), {"depth": 1, "width": 4})
    with pytest.raises(SpaceError, match=r"must be one of digits, .* but got 'digit'"):
        get_supernet("digit")


def test_a_tensor_that_nobody_reached_is_drawn_when_it_is_needed() -> None:
    deep = {"depth": 2, "width": 4, "op": "conv"}
    weights = []
    for first in (deep, {"depth": 2, "width": 2, "op": "conv"}):
        supernet = toy.supernet(reach=[{"depth": 1, "width": 4}])
        assert "block/weight" not in supernet.weights
        supernet(torch.zeros(1, 1, 6, 6), first)
        supernet(torch.zeros(1, 1, 6, 6), deep)
        weights.append(supernet.arrays())
    assert weights[0].keys() == toy.supernet().weights.keys()
    for name, value in weights[0].items():
        np.testing.assert_array_equal(value, weights[1][name])


def test_two_kinds_under_one_name_are_refused() -> None:
    def build(sample: Any) -> nn.Module:
        return nn.Linear(2, 2) if sample["op"] == "linear" else nn.Conv1d(2, 2, 1)

    space = CodeSpace([Nominal("op", ("linear", "conv"))])
    with pytest.raises(SpaceError, match="`place` must name tensors of one kind alike"):
        Supernet(space, build)
    named = Supernet(space, build, place=lambda name, sample, net: f"{sample['op']}.{name}", seed=0)
    assert set(named.weights) == {"linear/weight", "linear/bias", "conv/weight", "conv/bias"}


def test_what_no_network_has_whole_is_drawn_too() -> None:
    def build(sample: Any) -> nn.Module:
        return nn.Linear(sample["a"], 6 - sample["a"], bias=False)

    supernet = Supernet(CodeSpace([Ordinal("a", (1, 5))]), build, seed=0)
    (weight,) = supernet.arrays().values()
    assert weight.shape == (5, 5)
    assert (weight != 0).all()


def test_buffers_go_where_the_weights_go() -> None:
    class Shifted(nn.Module):
        def __init__(self, sample: Any) -> None:
            super().__init__()
            self.linear = nn.Linear(3, sample["width"])
            self.register_buffer("shift", torch.ones(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.linear(x + self.shift)
            return y

    net = Supernet(CodeSpace([Ordinal("width", (2, 4))]), Shifted, seed=0)
    x, sample = torch.zeros(5, 3), {"width": 2}
    before = net(x, sample)
    net.to("meta")
    assert net(x.to("meta"), sample).device.type == "meta"
    again = Supernet(CodeSpace([Ordinal("width", (2, 4))]), Shifted, seed=0)
    assert torch.equal(again(x, sample), before)
    assert torch.equal(before, again.subnet(sample)(x))
