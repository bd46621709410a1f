"""Few-shot heads against closed forms, and AdaProxy's rescaling against known solutions."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm, t
from sklearn.exceptions import NotFittedError
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct
from sklearn.linear_model import Ridge

from nni_aiop.errors import FileFormatError
from nni_aiop.predictors.graph.few_shot import HEADS, GPHead, RidgeHead, rescale_last_layer

Array = NDArray[np.float64]
WIDTH = 40


def networks(seed: int, n: int, *, bend: float = 0.0, noise: float = 0.3) -> tuple[Array, Array]:
    """Embeddings (n, 40) of rank 8 with a little noise, and labels around 70 +- 5."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(n, 8)) * np.linspace(2, 0.5, 8)
    embeddings = hidden @ rng.normal(size=(8, WIDTH)) + 0.1 * rng.normal(size=(n, WIDTH))
    y = hidden @ rng.normal(size=8) + bend * np.sin(2 * hidden[:, 0])
    return embeddings, 70 + 5 * (y / y.std() + noise * rng.normal(size=n))


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("n", [5, 10, 20, 50])
@pytest.mark.parametrize("bend", [0.0, 4.0])
def test_80_percent_intervals_hold_70_to_90_percent(name: str, n: int, bend: float) -> None:
    half = norm.ppf(0.9)
    held = []
    for seed in range(30):
        embeddings, y = networks(seed, n + 100, bend=bend)
        mean, std = HEADS[name]().fit(embeddings[:n], y[:n]).predict(embeddings[n:])
        held.append(np.mean(np.abs(mean - y[n:]) <= half * std))
        # Neither blown up nor collapsed: labels spread by 5, their noise is 1.5.
        assert 0.3 < np.median(std) < 20
    assert 0.7 <= np.mean(held) <= 0.9


@pytest.mark.parametrize("name", HEADS)
def test_more_labels_predict_better(name: str) -> None:
    errors = []
    for n in (5, 20, 80):
        error = []
        for seed in range(10):
            embeddings, y = networks(seed, 200)
            mean, _ = HEADS[name]().fit(embeddings[:n], y[:n]).predict(embeddings[100:])
            error.append(np.mean((mean - y[100:]) ** 2) ** 0.5)
        errors.append(np.mean(error))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 2.0  # of which 1.5 is noise


def test_ridge_is_scikit_learns() -> None:
    embeddings, y = networks(0, 30)
    head = RidgeHead().fit(embeddings, y)
    z = (embeddings - embeddings.mean(axis=0)) / embeddings.std(axis=0)
    assert np.abs(z).max() < 4  # nothing is cut off
    penalty = WIDTH / head.theta_[0]
    expected = Ridge(alpha=penalty).fit(z, y).predict(z)
    np.testing.assert_allclose(head.predict(embeddings)[0], expected, rtol=1e-8)


def test_gp_is_scikit_learns() -> None:
    embeddings, y = networks(0, 30)
    head = GPHead().fit(embeddings, y)
    v, r, length, s = head.theta_
    # A broad prior stands for the unknown mean.
    kernel = v * DotProduct(1.0) + r * RBF(length) + ConstantKernel(1e5)
    process = GaussianProcessRegressor(kernel, alpha=s, optimizer=None)
    process.fit(head._x, (y - y.mean()) / y.std(ddof=1))
    mean, std = process.predict(head._x, return_std=True)
    found, spread = head.predict(embeddings)
    np.testing.assert_allclose(found, y.mean() + y.std(ddof=1) * mean, rtol=1e-4)
    expected = y.std(ddof=1) * head.scale_ * np.sqrt(std**2 + s)
    np.testing.assert_allclose(spread, expected, rtol=1e-3)


@pytest.mark.parametrize("name", HEADS)
def test_leave_one_out_is_leaving_one_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings, y = networks(1, 12)
    whole = HEADS[name]().fit(embeddings, y)
    p = whole._inverse.diagonal() - whole._ones**2 / whole._ones.sum()
    x, theta = whole._x, whole.theta_
    for i in range(12):
        rest = np.arange(12) != i
        part = HEADS[name].from_arrays(
            whole.to_arrays() | {"x": x[rest], "y": whole._y[rest], "theta": theta}
        )
        mean, std = part.predict(embeddings[i : i + 1])
        error = (y[i] - mean[0]) / whole._label_scale
        assert error == pytest.approx(whole._alpha[i] / p[i], abs=1e-8)
        assert (std[0] / whole._label_scale / whole.scale_) ** 2 == pytest.approx(1 / p[i])


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("n", [3, 12])
def test_the_std_is_scaled_to_errors_and_widened(name: str, n: int) -> None:
    embeddings, y = networks(1, n)
    head = HEADS[name]().fit(embeddings, y)
    p = head._inverse.diagonal() - head._ones**2 / head._ones.sum()
    found = np.mean((head._alpha / p) ** 2) / np.mean(1 / p)
    expected = {"ridge": np.median(p), "gp": 1.0}[name]
    weight = n / (n + head._caution)
    degrees = {3: 1, 12: 9}[n]
    wider = t.ppf(0.9, degrees) / norm.ppf(0.9) * np.sqrt(1 + 3 / n)
    scale = np.sqrt(found**weight * expected ** (1 - weight)) * wider
    assert head.scale_ == pytest.approx(scale)


@pytest.mark.parametrize("name", HEADS)
def test_units_do_not_matter(name: str) -> None:
    embeddings, y = networks(2, 40)
    mean, std = HEADS[name]().fit(embeddings[:20], y[:20]).predict(embeddings[20:])
    other = HEADS[name]().fit(1000 * embeddings[:20] - 3, y[:20] / 100)
    scaled_mean, scaled_std = other.predict(1000 * embeddings[20:] - 3)
    np.testing.assert_allclose(scaled_mean, mean / 100, rtol=1e-5)
    np.testing.assert_allclose(scaled_std, std / 100, rtol=1e-4)


@pytest.mark.parametrize("name", HEADS)
def test_far_away_the_mean_stays_bounded_and_the_std_grows(name: str) -> None:
    embeddings, y = networks(3, 20)
    head = HEADS[name]().fit(embeddings, y)
    mean, std = head.predict(np.stack([embeddings[0], 1e6 * np.ones(WIDTH)]))
    assert abs(mean[1] - 70) < 100
    assert std[0] < std[1] < 100


@pytest.mark.parametrize("name", HEADS)
def test_constant_columns_and_equal_labels(name: str) -> None:
    embeddings, y = networks(4, 20)
    blank = np.concatenate([embeddings, np.full((20, 3), 0.1)], axis=1)
    blank[10:, WIDTH] = 9.0  # which never varied in the fit
    mean, std = HEADS[name]().fit(blank[:10], y[:10]).predict(blank[10:])
    same = HEADS[name]().fit(embeddings[:10], y[:10]).predict(embeddings[10:])
    np.testing.assert_allclose(mean, same[0])
    np.testing.assert_allclose(std, same[1])
    mean, std = HEADS[name]().fit(np.ones((5, 3)), y[:5]).predict(np.zeros((2, 3)))
    np.testing.assert_allclose(mean, y[:5].mean())
    assert (std > 0).all()
    mean, std = HEADS[name]().fit(embeddings, np.full(20, 70.1)).predict(embeddings)
    np.testing.assert_allclose(mean, 70.1)
    assert (std == 0).all()


@pytest.mark.parametrize("name", HEADS)
def test_arrays_keep_every_bit(name: str) -> None:
    embeddings, y = networks(5, 30)
    head = HEADS[name]().fit(embeddings[:15], y[:15])
    arrays = head.to_arrays()
    again = HEADS[name].from_arrays(arrays)
    for before, after in zip(head.predict(embeddings), again.predict(embeddings), strict=True):
        assert (before == after).all()
    with pytest.raises(FileFormatError, match="'theta'"):
        HEADS[name].from_arrays({k: v for k, v in arrays.items() if k != "theta"})
    with pytest.raises(FileFormatError, match="'y' has shape"):
        HEADS[name].from_arrays(arrays | {"y": y})


@pytest.mark.parametrize("name", HEADS)
def test_bad_input_is_refused(name: str) -> None:
    embeddings, y = networks(6, 5)
    head = HEADS[name]()
    with pytest.raises(NotFittedError):
        head.predict(embeddings)
    with pytest.raises(ValueError, match="at least 3 networks must be labelled, but got 2"):
        head.fit(embeddings[:2], y[:2])
    with pytest.raises(ValueError, match="labels"):
        head.fit(embeddings, y[:4])
    with pytest.raises(ValueError, match="finite"):
        head.fit(embeddings, np.full(5, np.nan))
    head.fit(embeddings, y)
    with pytest.raises(ValueError, match=r"\(n, 40\), but got \(5, 39\)"):
        head.predict(embeddings[:, 1:])


# --- AdaProxy ------------------------------------------------------------------------------------


def test_a_scaled_task_is_found_by_alpha_alone() -> None:
    x, w = np.random.default_rng(0).normal(size=(20, 6)), np.arange(1.0, 7.0)
    found = rescale_last_layer(x, w, 0.5, 3 * x @ w + 0.5, lam=1.0)
    np.testing.assert_allclose(found, 3 * w)


def test_a_high_penalty_leaves_alpha_alone() -> None:
    rng = np.random.default_rng(1)
    x, w, y = rng.normal(size=(20, 6)), rng.normal(size=6), rng.normal(size=20)
    alpha = (x @ w) @ y / ((x @ w) @ (x @ w))
    np.testing.assert_allclose(rescale_last_layer(x, w, 0.0, y, lam=1e6), alpha * w)


def test_one_weight_that_differs_is_found() -> None:
    rng = np.random.default_rng(2)
    x, w = rng.normal(size=(200, 6)), np.array([1.0, -2.0, 1.0, 3.0, 0.0, 1.0])
    scaled = w * np.array([2.0, 2.0, 2.0, 5.0, 2.0, 2.0])
    found = rescale_last_layer(x, w, -1.0, x @ scaled - 1.0, lam=0.1)
    np.testing.assert_allclose(found, scaled, atol=0.01)
    assert found[4] == 0  # what was 0 stays


def test_no_penalty_is_least_squares() -> None:
    rng = np.random.default_rng(3)
    x, w, y = rng.normal(size=(20, 6)), rng.normal(size=6), rng.normal(size=20)
    expected = np.linalg.lstsq(x, y, rcond=None)[0]
    np.testing.assert_allclose(rescale_last_layer(x, w, 0.0, y, lam=0.0), expected)


@pytest.mark.parametrize("lam", [0.1, 1.0, 10.0])
def test_no_small_step_is_better(lam: float) -> None:
    """More numbers than networks: the published loss has no lower value near what was found."""
    rng = np.random.default_rng(4)
    x, w, y = rng.normal(size=(10, 15)), rng.uniform(0.5, 1.5, size=15), rng.normal(size=10)
    total = rescale_last_layer(x, w, 0.0, y, lam) / w  # alpha + b, of which alpha may be any

    def loss(factors: Array) -> float:
        penalty = min(np.abs(factors - alpha).sum() for alpha in factors)  # the median is one
        return float(((x @ (factors * w) - y) ** 2).sum() + lam * penalty)

    best = loss(total)
    for _ in range(300):
        assert loss(total + 1e-3 * rng.normal(size=15)) >= best - 1e-9


def test_a_silent_layer() -> None:
    x = np.zeros((4, 3))
    assert rescale_last_layer(x, [1.0, 2.0, 3.0], 0.0, np.ones(4), 0.1).tolist() == [1, 2, 3]


def test_bad_arguments_of_rescaling() -> None:
    with pytest.raises(ValueError, match=r"\(n, d\)"):
        rescale_last_layer(np.ones((3, 2)), np.ones(3), 0.0, np.ones(3), 0.1)
    for inputs, y in ((np.empty((0, 2)), np.empty(0)), (np.ones((3, 2)), np.ones((3, 1)))):
        with pytest.raises(ValueError, match=r"labels \(n,\) with n >= 1"):
            rescale_last_layer(inputs, np.ones(2), 0.0, y, 0.1)
    with pytest.raises(ValueError, match="not be negative, but got -1"):
        rescale_last_layer(np.ones((3, 2)), np.ones(2), 0.0, np.ones(3), -1)
    with pytest.raises(ValueError, match="finite"):
        rescale_last_layer(np.ones((3, 2)), np.ones(2), float("nan"), np.ones(3), 1)


@pytest.mark.parametrize("name", HEADS)
def test_a_weight_of_two_is_a_column_twice(name: str) -> None:
    embeddings, y = networks(0, 40)
    weights = np.ones(WIDTH)
    weights[-5:] = 2.0
    weighted = HEADS[name]().fit(embeddings[:25], y[:25], weights)
    doubled = np.concatenate([embeddings, embeddings[:, -5:]], axis=1)
    twice = HEADS[name]().fit(doubled[:25], y[:25])
    for a, b in zip(weighted.predict(embeddings[25:]), twice.predict(doubled[25:]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3)
    again = HEADS[name].from_arrays(weighted.to_arrays())
    np.testing.assert_array_equal(again.predict(embeddings)[0], weighted.predict(embeddings)[0])
