"""Edits of the user's own module: the same numbers as the edited network, or one sentence."""

import copy

import pytest
import torch
from torch import nn

from benchmarks._timm import create
from nni_aiop.errors import GraphError
from nni_aiop.graphs import from_module
from nni_aiop.networks import Network, edit_in_place


class Gated(nn.Module):
    """Depthwise and grouped convolutions, and a linear layer behind a flattened map."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.norm = nn.BatchNorm2d(32)
        self.depthwise = nn.Conv2d(32, 32, 5, padding=2, groups=32)
        self.grouped = nn.Conv2d(32, 64, 1, groups=4)
        self.channels = nn.GroupNorm(8, 64)
        self.head = nn.Linear(64 * 4 * 4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.depthwise(torch.relu(self.norm(self.stem(x))))
        return self.head(self.channels(self.grouped(x)).flatten(1))


class Baked(nn.Module):
    """A forward with a size of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 64), nn.Linear(64, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x).view(-1, 2, 32).transpose(1, 2).flatten(1))


def halves(network: Network) -> dict[str, int]:
    return {
        site.label: max(1, site.value // 2)
        for site in network.sites()
        if site.counts and site.reason is None
    }


def agrees(module: nn.Module, shape: tuple[int, ...], edits=None) -> None:
    module = module.eval()
    network = Network.capture(module, shape)
    wanted = halves(network) if edits is None else edits
    small = network.edit(wanted)
    kept = [name for name, _ in module.named_modules()]
    assert edit_in_place(module, network, wanted) is module
    x = torch.rand(3, *shape[1:])
    assert torch.allclose(module(x), small(x), atol=1e-6)
    assert from_module(module, shape) == small.graph
    assert [name for name, _ in module.named_modules()] == kept
    again = copy.deepcopy(module)
    again.load_state_dict(module.state_dict())


def test_plain_layers_are_narrowed_with_their_numbers() -> None:
    module = Gated()
    agrees(module, (1, 3, 4, 4))
    assert module.stem.out_channels == module.norm.num_features == module.depthwise.groups
    assert module.grouped.in_channels == module.stem.out_channels
    assert module.channels.num_channels == module.grouped.out_channels
    assert module.head.in_features == module.head.weight.shape[1]


def test_whole_groups_go_from_convolutions_and_norms() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 64, 1),
        nn.Conv2d(64, 64, 3, padding=1, groups=32),
        nn.GroupNorm(32, 64),
        nn.Conv2d(64, 8, 1),
    )
    agrees(module, (1, 3, 8, 8))
    assert module[1].groups == module[2].num_groups == 16
    assert module[1].in_channels == module[2].num_channels == 32


def test_a_kernel_is_cropped_with_its_padding() -> None:
    module = Gated()
    agrees(module, (1, 3, 4, 4), {"kernel:depthwise": 3})
    assert module.depthwise.kernel_size == (3, 3)
    assert module.depthwise.padding == (1, 1)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_100"])
def test_networks_of_timm(name: str) -> None:
    agrees(create(name), (1, 3, 64, 64))


def test_edits_of_the_structure_need_the_network() -> None:
    module = create("resnet18")
    network = Network.capture(module, (1, 3, 64, 64))
    before = {k: v.clone() for k, v in module.state_dict().items()}
    branch = next(s.label for s in network.sites() if s.kind == "branch")
    with pytest.raises(GraphError, match=r"must be of widths, heads or kernels, but got 'branch:"):
        edit_in_place(module, network, {branch: "remove"})
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


def test_a_forward_with_sizes_of_its_own_is_refused_and_nothing_is_changed() -> None:
    module = Baked().eval()
    network = Network.capture(module, (1, 8))
    edits = halves(network)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    with pytest.raises(GraphError, match="sizes of its own"):
        edit_in_place(module, network, edits)
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


def test_a_tensor_that_is_no_plain_layers_is_named() -> None:
    module = create("vit_tiny_patch16_224", img_size=32, depth=1).eval()
    network = Network.capture(module, (1, 3, 32, 32))
    with pytest.raises(GraphError, match=r"weights of plain layers, but '(cls_token|pos_embed)'"):
        edit_in_place(module, network, halves(network))
