"""Zero-cost proxies against numbers worked out by hand, and against NAS-Bench-201's accuracies."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nni_aiop.benchmarks import load_nas_bench_201_csv
from nni_aiop.predictors.metrics import spearman
from nni_aiop.search_spaces import nasbench201
from nni_aiop.zero_cost import ZERO_COST, fisher, grad_norm, jacov, snip, synflow

K = 1e-5


def weighted_sum(output: Tensor, targets: Tensor) -> Tensor:
    """A loss whose gradient in the output is the targets."""
    return (output * targets).sum()


def linear(*rows: list[float]) -> nn.Linear:
    layer = nn.Linear(len(rows[0]), len(rows), bias=False)
    layer.weight.data = torch.tensor(rows)
    return layer


# w = (2, -3); outputs -1 and -6; dL/dw = 1 (1, 1) + 2 (0, 2) = (1, 5)
LINEAR = linear([2.0, -3.0])
X = torch.tensor([[1.0, 1.0], [0.0, 2.0]])
T = torch.tensor([[1.0], [2.0]])

# The second layer of |w| sees (3, 3), (5, 5): R = 3 + 2 * 5 = 13, in each of the two layers.
DEEP = nn.Sequential(linear([1.0, -2.0], [-4.0, 1.0]), nn.ReLU(), linear([-1.0, 2.0]))


def both_eigenvalues(first: float, second: float) -> float:
    return -sum(math.log(v + K) + 1 / (v + K) for v in (first, second))


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        ("grad_norm", math.sqrt(26)),
        ("snip", 2 + 15),
        ("synflow", 2 + 3),
        ("fisher", ((-1 * 1) ** 2 + (-6 * 2) ** 2) / 2 / 2),
        ("jacov", both_eigenvalues(2, 0)),  # both images have the slope (2, -3)
    ],
)
def test_a_linear_layer(name: str, by_hand: float) -> None:
    assert ZERO_COST[name](LINEAR, X, T, weighted_sum) == pytest.approx(by_hand, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        # Image (1, 0): hidden (1, -4) -> (1, 0), output -1. Image (0, 1): (-2, 1) -> (0, 1), 2.
        # With T, dL/dw2 = 1 (1, 0) + 2 (0, 1); dL/dw1 = -1 in its first, 2 * 2 in its last entry.
        ("grad_norm", math.sqrt(1 + 4) + math.sqrt(1 + 16)),
        ("snip", (1 * 1 + 2 * 2) + (1 * 1 + 4 * 1)),
        ("synflow", 13 + 13),
        # Layer 1: channel 1 -1 * 1 and 0, channel 2 0 and 4 * 1. Layer 2: -1 * 1 and 2 * 2.
        ("fisher", ((1 + 0) + (0 + 16) + (1 + 16)) / 2 / 2),
        # Slopes -1 (1, -2) and 2 (-4, 1): centred (-3/2, 3/2) and (-5, 5), parallel.
        ("jacov", both_eigenvalues(2, 0)),
    ],
)
def test_two_layers(name: str, by_hand: float) -> None:
    assert ZERO_COST[name](DEEP, torch.eye(2), T, weighted_sum) == pytest.approx(by_hand, rel=1e-4)


def test_a_dense_head() -> None:
    """A 1x1 convolution to two maps: removal of a channel sums over its positions first."""
    convolution = nn.Conv2d(1, 2, 1, bias=False)
    convolution.weight.data = torch.tensor([3.0, -1.0]).reshape(2, 1, 1, 1)
    image = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 1, 2, 2)
    ones = torch.ones(1, 2, 2, 2)
    assert fisher(convolution, image, ones, weighted_sum) == ((3 * 10) ** 2 + 10**2) / 2
    assert grad_norm(convolution, image, ones, weighted_sum) == pytest.approx(math.sqrt(200))
    assert snip(convolution, image, ones, weighted_sum) == 30 + 10
    assert synflow(convolution, image) == 4 * (3 + 1)


def test_uncorrelated_slopes() -> None:
    """Products with the image: the slopes are w and 0 in turn where the image decides."""

    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = linear([1.0, 0.0, -1.0, 0.0], [0.0, 1.0, 0.0, -1.0])

        def forward(self, x: Tensor) -> Tensor:
            picked: Tensor = self.weights(x) * (x[:, :2] > 0)
            return picked

    images = torch.tensor([[1.0, -1.0, 0.0, 0.0], [-1.0, 1.0, 0.0, 0.0]])
    # Slopes (1, 0, -1, 0) and (0, 1, 0, -1) have mean 0 and no correlation: eigenvalues 1, 1.
    assert jacov(Gate(), images) == pytest.approx(both_eigenvalues(1, 1), rel=1e-4)


def test_synflow_passes_normalisation() -> None:
    normed = nn.Sequential(DEEP[0], nn.BatchNorm1d(2), nn.ReLU(), DEEP[2], nn.LayerNorm(1))
    assert synflow(normed, X) == pytest.approx(26)


def test_every_output_counts() -> None:
    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = LINEAR

        def forward(self, x: Tensor) -> dict[str, Any]:
            y = self.layer(x)
            return {"maps": [y, y], "classes": y, "number": torch.ones(1, dtype=torch.long)}

    assert synflow(Several(), X) == pytest.approx(3 * 5)
    by_one = grad_norm(Several(), X, T, lambda out, t: weighted_sum(out["classes"], t))
    assert by_one == pytest.approx(math.sqrt(26))


class Varied(nn.Module):
    """Everything that a proxy could disturb: statistics, in-place steps, dropout, frozen parts."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.activation = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(4, 3)
        self.head.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.norm(self.convolution(x)))
        scores: Tensor = self.head(self.dropout(self.activation(x.mean((2, 3)))))
        return scores


@pytest.mark.parametrize("name", ZERO_COST)
@pytest.mark.parametrize("training", [True, False])
def test_the_module_stays_as_it_was(name: str, training: bool) -> None:
    module = Varied().train(training)
    module.norm.eval()
    calls: list[int] = []
    module.convolution.register_forward_hook(lambda *_: calls.append(1))
    x, y = torch.randn(5, 1, 6, 6), torch.tensor([0, 1, 2, 0, 1])
    F.cross_entropy(module(x), y).backward()
    state = copy.deepcopy(module.state_dict())
    gradients = {
        n: None if p.grad is None else p.grad.clone() for n, p in module.named_parameters()
    }
    trainable = {n: p.requires_grad for n, p in module.named_parameters()}
    modes = {n: part.training for n, part in module.named_modules()}
    hooks = {n: len(part._forward_hooks) for n, part in module.named_modules()}
    random, images = torch.get_rng_state(), x.clone()
    with torch.no_grad():
        value = ZERO_COST[name](module, x, y, F.cross_entropy)
    assert math.isfinite(value)
    assert value == ZERO_COST[name](module, x, y, F.cross_entropy)
    assert all(torch.equal(state[n], v) for n, v in module.state_dict().items())
    for n, p in module.named_parameters():
        expected = gradients[n]
        assert (p.grad is None) == (expected is None)
        assert expected is None or (p.grad is not None and torch.equal(p.grad, expected))
    assert trainable == {n: p.requires_grad for n, p in module.named_parameters()}
    assert modes == {n: part.training for n, part in module.named_modules()}
    assert hooks == {n: len(part._forward_hooks) for n, part in module.named_modules()}
    assert torch.equal(random, torch.get_rng_state())
    assert torch.equal(images, x) and x.grad is None


def test_frozen_weights_count_too() -> None:
    frozen = copy.deepcopy(DEEP).requires_grad_(False)
    assert snip(frozen, torch.eye(2), T, weighted_sum) == pytest.approx(10)


@pytest.mark.parametrize("name", ZERO_COST)
def test_what_the_network_draws_comes_from_the_seed(name: str) -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            drawn: Tensor = self.layer(x * torch.rand_like(x))
            return drawn

    module, x = Noisy(), torch.randn(6, 4)
    y = torch.zeros(6, dtype=torch.long)
    first, again, other = (
        ZERO_COST[name](module, x, y, F.cross_entropy, seed=seed) for seed in (0, 0, 1)
    )
    assert first == again != other


@pytest.mark.parametrize("name", ZERO_COST)
def test_what_cannot_be_worked_out_is_nan(name: str) -> None:
    broken = nn.Sequential(linear([1.0, float("inf")]), linear([1.0]))
    assert math.isnan(ZERO_COST[name](broken, X, T, weighted_sum))


def test_a_jacobian_of_zeros_is_nan() -> None:
    assert math.isnan(jacov(linear([0.0, 0.0]), X))


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"convolution or a linear layer .* ReLU has none"):
        grad_norm(nn.ReLU(), X, T, weighted_sum)
    with pytest.raises(ValueError, match=r"scalar, but got the shape \(2, 1\)"):
        snip(LINEAR, X, T, lambda out, t: out * t)


def test_classes_of_pixels() -> None:
    """Every proxy measures a network with classes for every pixel."""
    dense = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1))
    x = torch.randn(4, 1, 6, 6)
    y = torch.randint(0, 3, (4, 6, 6))
    for name, proxy in ZERO_COST.items():
        assert math.isfinite(proxy(dense, x, y, F.cross_entropy)), name


@pytest.mark.slow
def test_synflow_and_grad_norm_rank_nas_bench_201(data_dir: Path) -> None:
    """Published (Abdelfattah et al. 2021, table 2): 0.74 and 0.58 on CIFAR-10, all cells."""
    table = load_nas_bench_201_csv(data_dir / "nas_bench_201" / "nb201.csv.gz")
    space = nasbench201.code_space()
    rows = np.random.default_rng(1).permutation(len(table.embedding))[:40]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(16, 3, 8, 8, generator=generator)
    y = torch.randint(0, 10, (16,), generator=generator)
    found: dict[str, list[float]] = {"synflow": [], "grad_norm": []}
    for sample in space.from_points(space.decode_points(table.embedding[rows])):
        torch.manual_seed(0)
        network = nasbench201.NASBench201Net(sample, data="cifar10")
        for name, values in found.items():
            values.append(ZERO_COST[name](network, x, y, F.cross_entropy))
    accuracy = table.metrics["c10_test"][rows]
    assert spearman(accuracy, found["synflow"]) > 0.6
    assert spearman(accuracy, found["grad_norm"]) > 0.3
