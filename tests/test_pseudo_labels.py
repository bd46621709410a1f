"""Eqs. 2 and 3 by hand, the round robin, and both ways to train a shared head."""

from __future__ import annotations

import copy
from collections import Counter

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nni_aiop.pseudo_labels import (
    METHODS,
    BodyPool,
    depth_bins,
    feature_maps,
    latent_sample,
    latent_statistics,
    pseudo_label,
    train_shared_head,
)


class Scale(nn.Module):
    """A body: the images times a number, and in a second map its half."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(float(factor)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.factor * x, self.factor * x[:, :1] / 2


class Joined(nn.Module):
    """A head on both maps."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 2)

    def forward(self, maps: list[Tensor]) -> Tensor:
        scores: Tensor = self.layer(torch.cat(maps, dim=1))
        return scores


def loader() -> list[tuple[Tensor, Tensor]]:
    """Three mini-batches; the class is whether the first number is positive."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(3, 20, 2, generator=generator)
    return [(x, (x[:, 0] > 0).long()) for x in images]


def accuracy(network: nn.Module) -> float:
    with torch.no_grad():
        return 100 * sum((network(x).argmax(1) == y).float().mean().item() for x, y in loader()) / 3


# --- Eqs. 2 and 3 --------------------------------------------------------------------------------


def test_mean_and_std_over_bodies() -> None:
    x = torch.tensor([[1.0, -2.0], [0.0, 4.0]])
    (mean, std), (half_mean, half_std) = latent_statistics([Scale(f) for f in (1, 2, 6)], x)
    # Of the factors 1, 2, 6: mean 3, variance (4 + 1 + 9) / 3.
    spread = (14 / 3) ** 0.5
    torch.testing.assert_close(mean, 3 * x)
    torch.testing.assert_close(std, spread * x.abs())
    torch.testing.assert_close(half_mean, 1.5 * x[:, :1])
    torch.testing.assert_close(half_std, spread / 2 * x[:, :1].abs())


def test_one_body_has_no_spread_and_is_its_own_sample() -> None:
    x = torch.randn(4, 2)
    statistics = latent_statistics([Scale(3)], x)
    assert all((std == 0).all() for _, std in statistics)
    z = latent_sample(statistics, torch.Generator().manual_seed(0))
    torch.testing.assert_close(z[0], 3 * x)


def test_samples_have_the_distribution_and_differ_between_images() -> None:
    x = torch.ones(20_000, 2)
    statistics = latent_statistics([Scale(1), Scale(3)], x)
    z, half = latent_sample(statistics, torch.Generator().manual_seed(0))
    assert z.mean().item() == pytest.approx(2, abs=0.02)
    assert z.std().item() == pytest.approx(1, abs=0.02)
    assert half.std().item() == pytest.approx(0.5, abs=0.01)
    # Independent for every image and every number.
    assert abs(torch.corrcoef(z.T)[0, 1].item()) < 0.03


def test_one_map_needs_no_list() -> None:
    x = torch.ones(2, 3)
    assert len(feature_maps(nn.Identity(), x)) == 1
    ((mean, _),) = latent_statistics([nn.Identity()], x)
    assert torch.equal(mean, x)


# --- bins and the round robin --------------------------------------------------------------------


def test_bins_of_equal_size_by_depth() -> None:
    assert depth_bins([5, 1, 4, 2, 3, 0], float, 3) == [[0, 1], [2, 3], [4, 5]]
    assert [len(part) for part in depth_bins(range(7), float, 3)] == [3, 2, 2]
    with pytest.raises(ValueError, match="1 to 2 as there are samples, but got 3"):
        depth_bins([1, 2], float, 3)


def test_round_robin_keeps_every_bin_equally_often() -> None:
    made: list[int] = []

    def body_of(sample: int) -> nn.Module:
        made.append(sample)
        return Scale(sample).train()

    pool = BodyPool([[0, 1], [10, 11], [20, 21]], body_of, per_bin=2, seed=0)
    for _ in range(50):
        factors = [int(body.factor.item()) for body in pool.bodies if isinstance(body, Scale)]
        assert Counter(f // 10 for f in factors) == {0: 2, 1: 2, 2: 2}
        assert not any(body.training for body in pool.bodies)
        oldest, rest = pool.bodies[0], list(pool.bodies)[1:]
        pool.replace_oldest()
        assert list(pool.bodies)[:-1] == rest
        assert oldest not in pool.bodies
    assert [sample // 10 for sample in made] == [0, 1, 2] * 18 + [0, 1]
    assert set(made) == {0, 1, 10, 11, 20, 21}


# --- training ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_shared_head_serves_bodies_it_has_not_seen(method: str) -> None:
    head, bodies = Joined(), {f: Scale(f) for f in (0.5, 1, 2, 3, 4)}
    before = copy.deepcopy(head.state_dict())
    losses: list[float] = []
    trained = train_shared_head(
        head,
        depth_bins(list(bodies), float, 5),
        bodies.__getitem__,
        loader(),
        F.cross_entropy,
        method=method,
        epochs=30,
        learning_rate=0.05,
        on_epoch=lambda _, loss: losses.append(loss),
    )
    assert len(losses) == 30
    assert losses[-1] < losses[0] / 2
    assert (
        pseudo_label(Scale(1.5), trained, accuracy) > 90 > pseudo_label(Scale(1.5), head, accuracy)
    )
    assert pseudo_label(Scale(-1), trained, accuracy) < 10
    assert all(torch.equal(before[n], v) for n, v in head.state_dict().items())
    assert all(body.factor.item() == f and body.factor.grad is None for f, body in bodies.items())


@pytest.mark.parametrize("method", METHODS)
def test_the_seed_decides(method: str) -> None:
    bins = depth_bins([1.0, 2.0, 3.0], float, 3)

    def weights(seed: int) -> Tensor:
        torch.manual_seed(seed + 7)  # the global generator is not read
        trained = train_shared_head(
            Joined(), bins, Scale, loader(), F.cross_entropy, method=method, epochs=2, seed=seed
        )
        return trained.state_dict()["layer.weight"]

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_fine_tuning_trains_copies_of_both() -> None:
    body, head = Scale(-1), Joined()
    plain = pseudo_label(body, head, accuracy)
    tuned = pseudo_label(
        body, head, accuracy, loader(), F.cross_entropy, epochs=30, learning_rate=0.1
    )
    assert tuned > max(plain, 90)
    assert body.factor.item() == -1
    assert pseudo_label(body, head, accuracy) == plain


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="latent_sampling, body_swapping, but got 'both'"):
        train_shared_head(Joined(), [[1]], Scale, loader(), F.cross_entropy, method="both")
    with pytest.raises(ValueError, match="epochs must be at least 1, but got 0"):
        train_shared_head(Joined(), [[1]], Scale, loader(), F.cross_entropy, epochs=0)
    with pytest.raises(ValueError, match="no empty one"):
        train_shared_head(Joined(), [[1], []], Scale, loader(), F.cross_entropy)
    with pytest.raises(ValueError, match="at least 1, but got 0"):
        BodyPool([[1]], Scale, per_bin=0)
    with pytest.raises(ValueError, match="must have a loss"):
        pseudo_label(Scale(1), Joined(), accuracy, loader())
    with pytest.raises(ValueError, match="at least one body"):
        latent_statistics([], torch.ones(1, 2))
    with pytest.raises(ValueError, match="same shapes"):
        latent_statistics([nn.Identity(), nn.Flatten(0)], torch.ones(1, 2))
