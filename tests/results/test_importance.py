"""Importance is that of functions whose indices of Sobol are known."""

from __future__ import annotations

import numpy as np
import pytest

from nni_aiop.predictors import search_predictor
from nni_aiop.predictors._gp_draws import explained_variance, posterior_draws
from nni_aiop.results.report._importance import Importance, importance_of
from nni_aiop.spaces import CodeSpace, Condition, Continuous, Nominal, Ordinal


def found(space: CodeSpace, points: np.ndarray, values: np.ndarray) -> Importance:
    importance = importance_of(space, points, values, "m")
    assert isinstance(importance, Importance), importance
    return importance


def by_label(importance: Importance, rows: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip(importance.labels, rows, strict=True))


def test_a_sum_of_linear_terms() -> None:
    # Of 4 a + 2 b + c, uniform on [0, 1]: 16, 4 and 1 parts of 21, alone as in all.
    space = CodeSpace([Continuous(name, 0.0, 1.0) for name in "abcde"])
    points = space.sample_points(40, np.random.default_rng(0))
    importance = found(space, points, points @ [4.0, 2.0, 1.0, 0.0, 0.0])
    assert importance.labels[:3] == ("a", "b", "c") and importance.explained > 0.99
    for rows in (importance.total, importance.alone):
        one = by_label(importance, rows)
        for label, expected in zip("abcde", (16 / 21, 4 / 21, 1 / 21, 0.0, 0.0), strict=True):
            low, middle, high = one[label]
            assert middle == pytest.approx(expected, abs=0.02)
            assert low <= middle <= high


def test_ishigamis_function() -> None:
    # Ishigami & Homma (1990), a = 7, b = 0.1: total 0.558, 0.442, 0.244; alone 0.314, 0.442, 0.
    space = CodeSpace([Continuous(name, -np.pi, np.pi) for name in "abc"])
    points = space.sample_points(300, np.random.default_rng(0))
    a, b, c = points.T
    importance = found(space, points, np.sin(a) + 7 * np.sin(b) ** 2 + 0.1 * c**4 * np.sin(a))
    total = by_label(importance, importance.total)
    alone = by_label(importance, importance.alone)
    for label, all_of_it, by_itself in (("a", 0.558, 0.314), ("b", 0.442, 0.442), ("c", 0.244, 0)):
        assert total[label][1] == pytest.approx(all_of_it, abs=0.07)
        assert alone[label][1] == pytest.approx(by_itself, abs=0.09)
        assert (alone[label] <= total[label] + 1e-12).all()


def test_an_exclusive_or_matters_together_only() -> None:
    space = CodeSpace([Nominal(name, ("0", "1")) for name in "ab"] + [Ordinal("c", (1, 2, 4))])
    points = np.array([(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1, 2)], float)
    importance = found(space, points, (points[:, 0] != points[:, 1]).astype(float))
    total, alone = (by_label(importance, r) for r in (importance.total, importance.alone))
    for label in "ab":
        assert total[label][1] > 0.9 and alone[label][1] < 0.1
    assert total["c"][1] < 0.05


def test_noise_explains_nothing_and_intervals_are_wide() -> None:
    space = CodeSpace([Continuous(name, 0.0, 1.0) for name in "ab"])
    rng = np.random.default_rng(3)
    points = space.sample_points(60, rng)
    noise = importance_of(space, points, rng.standard_normal(60), "m")
    assert isinstance(noise, str) or noise.explained < 0.4
    few = found(space, points[:10], points[:10] @ [1.0, 1.0])
    many = found(space, points, points @ [1.0, 1.0])
    assert np.ptp(few.total[:, ::2], axis=1).max() > np.ptp(many.total[:, ::2], axis=1).max()


def test_what_is_inactive_half_of_the_time_matters_half_as_much() -> None:
    space = CodeSpace(
        [Nominal("branch", ("on", "off")), Continuous("x", 0.0, 1.0), Continuous("y", 0.0, 1.0)],
        conditions={"x": Condition("branch", ("on",))},
    )
    points = space.canonical_points(space.sample_points(200, np.random.default_rng(0)))
    # Of x while it is active, and y: variance 1/12 of x half of the time beside 1/12 of y.
    importance = found(space, points, points[:, 1] * (points[:, 0] == 0) + points[:, 2])
    total = by_label(importance, importance.total)
    assert total["y"][1] > 1.2 * total["x"][1] > 0.2


def test_the_same_history_gives_the_same() -> None:
    space = CodeSpace([Continuous(name, 0.0, 1.0) for name in "ab"])
    points = space.sample_points(500, np.random.default_rng(0))
    one, two = (found(space, points, points[:, 0]) for _ in range(2))
    assert np.array_equal(one.total, two.total) and one.rows == 300


def test_draws_have_the_mean_and_the_spread_of_the_posterior() -> None:
    space = CodeSpace([Continuous(name, 0.0, 1.0) for name in "ab"])
    rng = np.random.default_rng(0)
    points = space.sample_points(12, rng)
    gp = search_predictor(space).fit(points, {"m": 50 + rng.standard_normal(12)})
    places = space.sample_points(200, rng)
    draws = posterior_draws(gp, places, 4000)
    predicted = gp.predict(places)
    # The predicted deviation has the noise of a measurement, which is of no function.
    std = np.sqrt(np.maximum(predicted.std[:, 0] ** 2 - gp.noise_std_[0] ** 2, 0))
    assert draws.shape == (4000, 200)
    assert np.abs(draws.mean(axis=0) - predicted.mean[:, 0]).max() < 0.1 * std.max()
    wide = std > 0.3 * std.max()
    assert wide.sum() > 10
    assert draws.std(axis=0)[wide] == pytest.approx(std[wide], rel=0.15)


def test_explained_variance_is_that_of_leaving_each_row_out() -> None:
    space = CodeSpace([Continuous(name, 0.0, 1.0) for name in "ab"])
    rng = np.random.default_rng(0)
    points = space.sample_points(30, rng)
    smooth = np.sin(5 * points[:, 0])
    assert explained_variance(search_predictor(space).fit(points, {"m": smooth})) > 0.9
    noise = search_predictor(space).fit(points, {"m": rng.standard_normal(30)})
    assert explained_variance(noise) < 0.3
