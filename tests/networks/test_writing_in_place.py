"""Models that write into tensors: followed exactly, or refused with the place."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nni_aiop.errors import GraphError
from nni_aiop.networks import Network


class Writing(nn.Module):
    def __init__(self, function: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 8, 1)
        self.function = function
        self.register_buffer("calls", torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self, self.first(x)))


def add_to_channels(m: nn.Module, x: Tensor) -> Tensor:
    part = x[:, :4]
    part.add_(1)
    return x * part.mean()


def clear_channels(m: nn.Module, x: Tensor) -> Tensor:
    x[:, :4] = 0
    x[:, -2:, 1:] *= 3
    return x


def add_to_one(m: nn.Module, x: Tensor) -> Tensor:
    y = x.clone()
    y[:, 0] += 1
    y[:, 1, 2] -= x[:, 0, 1]
    return y + x


def fill(m: nn.Module, x: Tensor) -> Tensor:
    """Channels moved over time, as of TSM, which fills an empty tensor part by part."""
    y = torch.zeros_like(x)
    y[:, :8, :-1] = x[:, :8, 1:]
    y[:, 8:] = x[:, 8:]
    return y


def activate(m: nn.Module, x: Tensor) -> Tensor:
    y = x + 1
    z = F.relu(x, inplace=True)
    x *= 2
    x -= x.mean()
    return F.silu(y, inplace=True) + x + z


@pytest.mark.parametrize("function", [add_to_channels, clear_channels, add_to_one, fill, activate])
def test_what_is_written_in_place(
    function: Callable[[nn.Module, Tensor], Tensor], tmp_path_factory: pytest.TempPathFactory
) -> None:
    torch.manual_seed(0)
    model = Writing(function).eval()
    network = Network.capture(model, (1, 3, 4, 4))
    loaded = Network.load(network.save(tmp_path_factory.mktemp("net") / "net"))
    for n in (1, 3):
        x = torch.rand(n, 3, 4, 4)
        expected = copy.deepcopy(model)(x)
        assert torch.equal(network(x), expected)
        assert torch.equal(loaded(x), expected)
    for site in network.sites():
        if site.counts and site.reason is None:
            edits = {site.label: site.value // 2}
            assert network.edit(edits).graph == network.graph.edit(edits)


def test_an_input_is_not_written_into() -> None:
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 4))
    network = Network.capture(model, (1, 4))
    x = torch.randn(3, 4)
    before = x.clone()
    assert torch.equal(network(x), model(x.clone()))
    assert torch.equal(x, before)


def other_layout(m: nn.Module, x: Tensor) -> Tensor:
    flat = x.flatten(2)
    F.relu_(flat)
    return x


def seen_before(m: nn.Module, x: Tensor) -> Tensor:
    y = x.view(x.shape[0], -1)
    x.mul_(2)
    return y.view(x.shape)


def transposed(m: nn.Module, x: Tensor) -> Tensor:
    x.transpose(1, 2).mul_(2)
    return x


def counting(m: nn.Module, x: Tensor) -> Tensor:
    m.calls.add_(1)
    return x * m.calls


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (other_layout, "another layout"),
        (seen_before, "another layout"),
        (transposed, "another layout"),
        (counting, "must not change its own tensors in evaluation, but .* changes calls"),
    ],
)
def test_what_would_not_be_followed_is_refused(
    function: Callable[[nn.Module, Tensor], Tensor], words: str
) -> None:
    with pytest.raises(GraphError, match=words):
        Network.capture(Writing(function).eval(), (1, 3, 4, 4))
