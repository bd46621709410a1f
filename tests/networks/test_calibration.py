"""Calibration: what edits cost in loss, and which channels stay."""

import copy
import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nni_aiop.networks import Calibration, Network
from nni_aiop.spaces import CRITERION


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Dropout(0.5),
            nn.Conv2d(32, 16, 3, padding=1), nn.BatchNorm2d(16),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


def calibration(n_batches: int = 1, **options) -> Calibration:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), Block(), nn.BatchNorm2d(16),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
    ).eval()  # fmt: skip
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.weight.data.uniform_(0.5, 2)
            part.running_var.uniform_(0.5, 2)
            part.running_mean.normal_()
    network = Network.capture(model, (1, 3, 10, 10))
    batches = [(torch.rand(24, 3, 10, 10), torch.randint(4, (24,))) for _ in range(n_batches)]
    return Calibration(network, batches, F.cross_entropy, **options)


def samples(own: Calibration, n: int = 12) -> list[dict]:
    return [own.space.original, *own.space.sample(n, np.random.default_rng(1))]


@pytest.mark.parametrize("n_batches", [1, 3])
def test_a_loss_is_that_of_the_edited_and_recalibrated_network(n_batches: int) -> None:
    own = calibration(n_batches)
    for sample in samples(own):
        # One batch gives its statistics on the way, each norm after norms that have theirs.
        rel = 1e-3 if n_batches == 1 else 1e-5
        assert own.loss(sample) == pytest.approx(own.measure(own.edit(sample)), rel=rel)


def test_measuring_a_loss_changes_nothing() -> None:
    own = calibration()
    own.network.train()
    before = copy.deepcopy(own.network.state_dict())
    found = [own.loss(sample) for sample in samples(own)]
    assert own.network.training
    after = own.network.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[key], after[key]) for key in before)
    again = calibration()
    assert [again.loss(sample) for sample in samples(again)] == found  # and no dropout


def test_an_edited_network_has_tensors_of_its_own() -> None:
    own = calibration()
    small = own.edit(own.space.original)
    theirs = {p.data_ptr() for p in own.network.state_dict(keep_vars=True).values()}
    assert not theirs & {p.data_ptr() for p in small.state_dict(keep_vars=True).values()}


def test_taylor_is_the_squared_change_to_first_order_summed_over_tensors() -> None:
    own = calibration()
    score = own._score("width:3.body.0", "taylor")
    assert score is not None
    ends = ("0.weight", "0.bias", "1.weight", "1.bias", "4.weight")
    weights = [own.network.get_parameter(f"3.body.{end}") for end in ends]
    (inputs, targets), *_ = own.batches
    gradients = torch.autograd.grad(F.cross_entropy(own.network(inputs), targets), weights)
    wanted = torch.zeros(32)
    for end, weight, gradient in zip(ends, weights, gradients, strict=True):
        change = (weight * gradient).detach()
        change = change.transpose(0, 1) if end == "4.weight" else change
        wanted += change.reshape(32, -1).sum(1).square()
    torch.testing.assert_close(torch.from_numpy(score).float(), wanted, rtol=1e-4, atol=1e-9)


def test_measured_takes_the_criterion_that_lost_less() -> None:
    own = calibration()
    label = "width:3.body.0"
    half = {**own.space.original, label: 16}
    lost = {name: own.loss({**half, CRITERION: name}) for name in ("l2", "taylor")}
    best = min(lost, key=lost.__getitem__)
    assert lost["l2"] != lost["taylor"]
    assert own.criterion_of(label) == best
    assert own.loss({**half, CRITERION: "measured"}) == lost[best]


def test_what_was_measured_survives_as_json() -> None:
    own = calibration()
    sample = {**own.space.original, "width:3.body.0": 16, CRITERION: "measured"}
    found = own.loss(sample)
    other = calibration()
    other.load_state_dict(json.loads(json.dumps(own.state_dict())))
    other.measure = other.edit = None  # type: ignore[assignment,method-assign]
    assert other.loss(sample) == found


def test_without_data_the_largest_weights_stay() -> None:
    own = Calibration(calibration().network, [], F.cross_entropy)
    assert own.space.criteria == ("l2",)
    edits = {"width:3.body.0": 16}
    small = own.edit({**own.space.original, **edits})
    assert small.state_dict()["3.body.0.weight"].equal(
        own.network.edit(edits).state_dict()["3.body.0.weight"]
    )
