"""How far each member counts, by its ranks of a few labels."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from nni_aiop.predictors.graph._transfer import fitted_weights, scaled_vote

Array = NDArray[np.float64]
RNG = np.random.default_rng(0)
Y = RNG.normal(size=20)


def weighed(z: Array, y: Array) -> tuple[Array, float]:
    found = fitted_weights(z, y)
    assert found is not None
    return found


def test_a_member_that_ranks_well_counts_most() -> None:
    z = np.stack([Y + 0.1 * RNG.normal(size=20), Y + 3 * RNG.normal(size=20), -Y], axis=1)
    w, bias = weighed(z, Y)
    assert w[0] > 2 * w[1] >= 0
    assert w[2] == 0
    assert np.abs(bias + z @ w - Y).mean() < 0.4


def test_units_and_outliers_of_members_do_not_matter() -> None:
    z = np.stack([Y + 0.5 * RNG.normal(size=20), Y + 0.5 * RNG.normal(size=20)], axis=1)
    w, bias = weighed(z, Y)
    moved, shift = weighed(z * [10.0, 0.1] + [3.0, -7.0], Y)
    votes = shift + (z * [10.0, 0.1] + [3.0, -7.0]) @ moved
    np.testing.assert_allclose(votes, bias + z @ w)
    far = Y.copy()
    far[np.argmin(Y)] = -50.0  # a network that failed to train
    np.testing.assert_allclose(*(v / v.sum() for v in (weighed(z, far)[0], w)))


@pytest.mark.parametrize("z", [np.ones((20, 2)), np.stack([-Y, -Y], axis=1)], ids=["flat", "wrong"])
def test_none_where_no_vote_agrees(z: Array) -> None:
    assert fitted_weights(z, Y) is None


@pytest.mark.parametrize("noise", [0.2, 1.0, 5.0])
def test_a_vote_of_another_task_gets_the_mean_of_labels_and_a_slope_that_errs_little(
    noise: float,
) -> None:
    many = np.random.default_rng(1).normal(size=400)
    z = 7.0 + 3.0 * (many + noise * np.random.default_rng(2).normal(size=400))[:, None]
    z = np.hstack([z, np.zeros((400, 1))])
    w, bias = scaled_vote(z[:20], many[:20], np.array([1.0, 0.0]))
    voted = bias + z @ w
    assert w[0] > 0 and w[1] == 0, "the order is that of the vote"
    assert abs((bias + z[:20] @ w).mean() - many[:20].mean()) < 1e-12
    errors = np.abs(voted - many).mean()
    assert errors < np.abs(z[:, 0] - many).mean() / 4
    assert errors < 1.05 * np.abs(many - many[:20].mean()).mean(), "a constant is hardly better"


def test_a_vote_that_ranks_labels_wrongly_keeps_its_order_and_says_little() -> None:
    z = np.stack([-Y, np.zeros(20)], axis=1)
    w, _ = scaled_vote(z, Y, np.array([1.0, 0.0]))
    assert 0 < w[0] <= 0.11


def test_a_vote_without_spread_is_moved_alone() -> None:
    w, bias = scaled_vote(np.ones((20, 2)), Y, np.array([1.0, 0.0]))
    assert w.tolist() == [1.0, 0.0]
    assert bias == pytest.approx(Y.mean() - 1)
