"""Edits of networks: they commute, scores say which units stay, and wrong ones get one sentence."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from nni_aiop.errors import GraphError
from nni_aiop.networks import Network
from tests.networks.zoo import ZOO, batch_of, captured


def near(a: Any, b: Any) -> None:
    for x, y in zip(pytree.tree_leaves(a), pytree.tree_leaves(b), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-5)


def ranks(site: Any, kept: int | None = None) -> np.ndarray[Any, Any]:
    """Scores by which the first units stay, whatever the weights are."""
    return -np.arange(float(kept or site.value))


@pytest.mark.parametrize("name", ZOO)
def test_edits_commute(name: str) -> None:
    """One after the other in either order is both at once, where the same units stay."""
    network = captured(name)
    rng = random.Random(name)
    sites = [site for site in network.sites() if site.reason is None and site.counts]
    rng.shuffle(sites)
    half = (len(sites) + 1) // 2
    parts = [
        {site.label: rng.randint(max(1, site.value // 3), site.value) for site in part}
        for part in (sites[:half], sites[half:])
    ]
    # Factors of a weight and the mean of a gate depend on what was there when they were made.
    structures = [
        (site.label, value)
        for site in network.sites()
        for value in site.values[1:]
        if site.reason is None and (site.kind in ("branch", "kernel") or value == "1x1")
    ]
    if structures:
        label, value = rng.choice(structures)
        parts[1][label] = value
    scores = {site.label: ranks(site) for site in sites}

    def step(source: Network, edits: dict[str, Any]) -> Network:
        own = {site.label: site for site in source.sites() if site.reason is None}
        edits = {k: v for k, v in edits.items() if k in own}
        return source.edit(edits, scores={k: ranks(s) for k, s in own.items() if s.counts})

    both = network.edit({**parts[0], **parts[1]}, scores=scores)
    inputs = batch_of(network.example, 2)
    for first, second in (parts, parts[::-1]):
        middle = step(network, first)
        labels = {site.label for site in middle.sites() if site.reason is None}
        if not set(second) <= labels:
            continue  # a removed branch changes what sites are called
        last = step(middle, second)
        assert last.graph == both.graph
        near(last(*inputs), both(*inputs))


def test_an_edited_network_is_edited_further() -> None:
    network = captured("mobile")
    for share in (0.7, 0.5, 0.5):
        sites = [s for s in network.sites() if s.counts and s.reason is None]
        edits = {s.label: max(1, int(share * s.value)) for s in sites}
        small = network.edit(edits)
        assert small.graph == network.graph.edit(edits)
        assert small.graph.macs < network.graph.macs
        network = small


def chain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 3)
    ).eval()


def rows_of(small: Network, model: nn.Sequential) -> list[int]:
    """Which filters of the first layer are left."""
    left = small.state_dict()["0.weight"]
    return [i for w in left for i, v in enumerate(model[0].weight) if torch.equal(w, v)]


def test_scores_say_which_units_stay() -> None:
    model = chain()
    network = Network.capture(model, (1, 3, 9, 9))
    rng = np.random.default_rng(0)
    for values in (rng.normal(size=16), rng.integers(0, 100, 16), -rng.random(16)):
        best = sorted(np.argsort(-values)[:5].tolist())
        for given in (values, values.tolist(), torch.tensor(values, requires_grad=False)):
            small = network.edit({"width:0": 5}, scores={"width:0": given})
            assert rows_of(small, model) == best
    state = small.state_dict()
    for key in ("1.weight", "1.bias", "1.running_mean", "1.running_var"):
        assert torch.equal(state[key], model.state_dict()[key][best])
    assert torch.equal(state["3.weight"], model[3].weight[:, best])
    assert torch.equal(state["3.bias"], model[3].bias)


def test_by_default_the_l2_norm_of_a_whole_group_decides() -> None:
    """Filters, batch norm and the weights that read them together, none of them alone."""
    model = chain()
    with torch.no_grad():
        model[0].weight[3] = 0
        model[3].weight[:, 3] *= 30
        model[1].weight[7] = 40
        model[3].weight[:, 9] = 0
        model[0].weight[9] *= 1.01
    network = Network.capture(model, (1, 3, 9, 9))
    own = [
        model[0].weight.square().sum((1, 2, 3)),
        model[1].weight.square() + model[1].bias.square(),
        model[3].weight.square().sum((0, 2, 3)),
    ]
    best = sorted(torch.stack(own).sum(0).argsort(descending=True)[:6].tolist())
    assert {3, 7} <= set(best)
    small = network.edit({"width:0": 6})
    left = small.state_dict()["3.weight"]
    assert torch.equal(left, model[3].weight[:, best])


def test_which_heads_stay() -> None:
    network = captured("vit")
    site = next(site for site in network.sites() if site.kind == "heads")
    small = network.edit({site.label: 2}, scores={site.label: [1.0, 5.0, 2.0, 4.0]})
    old = network.state_dict()["blocks.0.attention.qkv.weight"].reshape(3, 4, 12, 48)
    new = small.state_dict()["blocks.0.attention.qkv.weight"].reshape(3, 2, 12, 48)
    assert torch.equal(new, old[:, [1, 3]])


@pytest.mark.parametrize(
    ("edits", "scores", "words"),
    [
        ({"width:nowhere": 4}, {}, "'width:nowhere'; the nearest is"),
        ({"width:0": 0}, {}, "must keep 1 to 16 of its units, but got 0"),
        ({"width:0": 17}, {}, "must keep 1 to 16"),
        ({"width:0": 4.0}, {}, "must keep 1 to 16"),
        ({"width:0": True}, {}, "must keep 1 to 16"),
        ({"width:3": 4}, {}, "must stay as it is, since .*it leaves the network"),
        ({"form:3": "3x3"}, {}, "must be one of 'dense', 'separable', but got '3x3'"),
        ({"width:0": 4}, {"width:0": [1.0] * 15}, "a score for each of its 16 units"),
        ({"width:0": 4}, {"width:0": np.ones((16, 2))}, r"scores of shape \(16, 2\)"),
        ({"width:0": 4}, {"width:0": [1.0] * 15 + [float("nan")]}, "scores must be finite"),
        ({"width:0": 4}, {"width:0": ["a"] * 16}, "scores must be numbers"),
        ({"width:0": 4}, {"width:1": [1.0] * 16}, "got 'width:1'; the nearest is"),
        ({"width:0": 4}, {"form:3": [1.0] * 16}, "scores must be of widths and heads"),
    ],
)
def test_wrong_edits_and_scores(edits: Any, scores: Any, words: str) -> None:
    network = Network.capture(chain(), (1, 3, 9, 9))
    with pytest.raises(GraphError, match=words) as caught:
        network.edit(edits, scores=scores)
    text = str(caught.value)
    assert text.endswith(".")
    assert "\n" not in text
    assert len(text) < 300


# --- what cannot be captured -----------------------------------------------------------------


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x - 1


class OneBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x.reshape(2, 12))


class Raising(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("no such thing\nand more")


class Uncopied(nn.Linear):
    """Holds what its weight was computed from, as the old weight norm does."""

    def __init__(self) -> None:
        super().__init__(4, 4)
        self.doubled = self.weight * 2


@pytest.mark.parametrize(
    ("model", "example", "words"),
    [
        (Branching(), (2, 4), "one that torch.export takes, but Branching raised"),
        (OneBatch(), (2, 3, 4), "OneBatch"),
        (Raising(), (2, 4), "Raising raised RuntimeError: no such thing"),
        (torch.jit.script(nn.Linear(4, 4)), (2, 4), "torch.export takes"),
        (nn.Linear(4, 4), (2, 5), "Linear raised"),
        (nn.Linear(4, 4), "2x4", "an example must be a tensor or a shape"),
        (nn.Linear(4, 4), (), "an example must be"),
        (nn.Linear(4, 4), (2, 0), "an example must be"),
        (nn.Linear(4, 4), torch.tensor(1.0), "a batch"),
        (nn.Linear(4, 4), torch.rand(0, 4), "a batch"),
        ("a text", (2, 4), "must be a PyTorch module"),
        (nn.LazyLinear(4), (2, 4), "LazyLinear has layers that were never run"),
        (Uncopied(), (2, 4), "one that can be copied, but Uncopied raised RuntimeError"),
        (nn.Linear, (2, 4), "must be a PyTorch module"),
    ],
)
def test_what_cannot_be_captured(model: Any, example: Any, words: str) -> None:
    with pytest.raises(GraphError, match=words) as caught:
        Network.capture(model, example)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 400
    assert text.endswith(".")


def test_a_reason_names_the_module_that_it_comes_from() -> None:
    class Sorted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sort(1).values

    model = nn.Sequential(nn.Linear(8, 64), Sorted(), nn.Linear(64, 4))
    reasons = Network.capture(model, (1, 8))._labels.coupler.solve().reasons.values()
    assert "1 (sort): there is no rule for sort" in reasons
