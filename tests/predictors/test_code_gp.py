"""The Gaussian process against numbers worked by hand, and what it promises beyond the contract."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, norm

from nni_aiop.errors import FileFormatError
from nni_aiop.predictors import NCPMLP, CodeGP, _gp_fit, load_predictor
from nni_aiop.predictors._gp_fit import (
    JITTER,
    KernelMean,
    correlation,
    inverse_of,
    leave_one_out,
    negative_log_density,
    square_distance,
)
from nni_aiop.predictors.metrics import coverage, mae
from nni_aiop.spaces import CodeSpace, Continuous

LINE = CodeSpace([Continuous("x", 0.0, 1.0)], name="line")
CUBE = CodeSpace([Continuous(name, 0.0, 1.0) for name in "abc"], name="cube")


def smooth(codes: np.ndarray) -> np.ndarray:
    return np.sin(3 * codes[:, 0]) + codes[:, 1] ** 2 - 0.5 * codes[:, 0] * codes[:, 2]


def matern(distance: float) -> float:
    r = math.sqrt(5) * distance
    return (1 + r + r**2 / 3) * math.exp(-r)


def test_kernel_is_matern_with_nu_five_halves() -> None:
    a, b = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.6, 0.8]])
    found = correlation(square_distance(a, b).double())
    torch.testing.assert_close(
        found, torch.tensor([[1.0, matern(5.0), matern(1.0)]], dtype=torch.float64)
    )


def test_prediction_is_the_posterior_of_its_hyperparameters() -> None:
    # Two rows: K = [[v + s2, v c], [v c, v + s2]] is inverted by hand.
    fit = CodeGP(LINE).fit([[0.0], [1.0]], {"y": [10.0, 14.0]})
    log_v, log_l, log_s2 = fit._theta[0]
    v, s2 = math.exp(log_v), math.exp(log_s2) + 1e-6
    # Rows stand at -1 and 1 once they are standardised; so do their targets.
    across, half = v * matern(2 / math.exp(log_l)), v * matern(1 / math.exp(log_l))
    slope = 1 / (v + s2 - across)
    prediction = fit.predict([[0.0], [0.5], [1.0]])
    expected = [12 - 2 * slope * (v - across), 12.0, 12 + 2 * slope * (v - across)]
    np.testing.assert_allclose(prediction.mean[:, 0], expected, rtol=1e-9)
    variance = v - 2 * half**2 / (v + s2 + across) + s2
    std = 2 * float(fit._inflation[0]) * math.sqrt(variance)
    assert prediction.std[1, 0] == pytest.approx(std, rel=1e-6)


def test_leave_one_out_is_a_fit_without_the_row() -> None:
    rng = np.random.default_rng(0)
    x, y = torch.as_tensor(rng.normal(size=(6, 2))), torch.as_tensor(rng.normal(size=6))
    weights = torch.tensor([1.0, 4.0, 1.0, 1.0, 2.0, 1.0], dtype=torch.float64)
    theta = np.log([1.5, 0.8, 1.3, 0.2])
    v, s2 = 1.5, 0.2 + 1e-6
    _, z = leave_one_out(theta, x, y, weights)
    scaled = x / torch.tensor([0.8, 1.3], dtype=torch.float64)
    k = v * correlation(square_distance(scaled, scaled))
    for i in range(6):
        rest = [j for j in range(6) if j != i]
        noisy = k[rest][:, rest] + torch.diag(0.2 * weights[rest] + 1e-6)
        gain = torch.linalg.solve(noisy, k[rest, i])
        error = y[i] - gain @ y[rest]
        std = torch.sqrt(v - gain @ k[rest, i] + s2)
        assert float(z[i]) == pytest.approx(float(error / std), rel=1e-6)


def test_own_gradient_of_the_mean_is_right() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b, alpha = (
        torch.randn(shape, dtype=torch.float64, generator=generator)
        for shape in ((4, 3), (6, 3), (6,))
    )
    a.requires_grad_()
    torch.testing.assert_close(
        KernelMean.apply(a, b, alpha), correlation(square_distance(a, b)) @ alpha
    )
    assert torch.autograd.gradcheck(lambda t: KernelMean.apply(t, b, alpha), a)
    # At a row itself the kernel is flat, not undefined.
    (at_row,) = torch.autograd.grad(KernelMean.apply(a, a.detach()[:1], alpha[:1])[0], a)
    assert torch.equal(at_row, torch.zeros_like(a))


def test_std_is_differentiable() -> None:
    codes = np.random.default_rng(0).random((30, 3))
    fit = CodeGP(CUBE).fit(codes, {"y": smooth(codes)})
    x = torch.rand(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(lambda c: fit.forward_with_std(c)[1], x.requires_grad_())


@pytest.mark.parametrize("n", [40, 300])
def test_intervals_hold_what_they_promise(n: int) -> None:
    rng = np.random.default_rng(1)
    shares = []
    for seed in range(8):
        codes = rng.random((n + 500, 3))
        y = smooth(codes) + 0.1 * rng.normal(size=len(codes))
        prediction = CodeGP(CUBE, seed=seed).fit(codes[:n], {"y": y[:n]}).predict(codes[n:])
        low, high = prediction.interval(0.8)
        shares.append(coverage(y[n:], low[:, 0], high[:, 0]))
    assert 0.75 <= np.mean(shares) <= 0.85


def test_outliers_do_little_harm() -> None:
    rng = np.random.default_rng(2)
    codes = rng.random((300, 3))
    y = smooth(codes) + 0.02 * rng.normal(size=300)
    broken = y[:100].copy()
    broken[:5] -= 20
    errors = []
    for targets in (y[:100], broken):
        fit = CodeGP(CUBE).fit(codes[:100], {"y": targets})
        errors.append(mae(y[100:], fit.predict(codes[100:]).mean[:, 0]))
    assert (fit._weights[0, :5] > 10).all()
    assert errors[1] < 0.25 * y.std()


def test_rows_beyond_the_subset_are_learned_from() -> None:
    codes = np.random.default_rng(3).random((200, 3))
    few = CodeGP(CUBE, rows=20).fit(codes, {"y": smooth(codes)})
    test = np.random.default_rng(4).random((100, 3))
    alone = CodeGP(CUBE).fit(codes[:20], {"y": smooth(codes[:20])})
    errors = [mae(smooth(test), fit.predict(test).mean[:, 0]) for fit in (few, alone)]
    assert errors[0] < 0.5 * errors[1]


def test_features_are_read() -> None:
    def wave(codes: torch.Tensor) -> torch.Tensor:
        return torch.sin(40 * codes[:, :1])

    knowing = CodeSpace([Continuous("x", 0.0, 1.0)], features=wave)
    codes = np.random.default_rng(0).random((60, 1))
    y = np.sin(40 * codes[:, 0])
    test = np.random.default_rng(1).random((60, 1))
    fit = CodeGP(knowing).fit(codes[:25], {"y": y[:25]})
    assert mae(np.sin(40 * test[:, 0]), fit.predict(test).mean[:, 0]) < 0.05


def test_published_layers() -> None:
    """E.1: 256 shared, 128 for each metric, and one output; with batch normalisation."""
    rng = np.random.default_rng(0)
    codes = rng.random((129, 3))  # a batch of 128, and one row that must not stand alone
    fit = NCPMLP(CUBE, epochs=2).fit(codes, {"a": rng.random(129), "b": rng.random(129)})
    learned = sum(p.numel() for p in fit._nets[torch.float32].parameters())
    trunk = 2 * 3 + (3 * 256 + 256) + 2 * 256
    head = (256 * 128 + 128) + 2 * 128 + (128 + 1)
    assert learned == trunk + 2 * head


def test_options_travel_with_the_file(tmp_path: Path) -> None:
    codes = np.random.default_rng(0).random((20, 3))
    fit = NCPMLP(CUBE, shared=8, separate=4, epochs=3, seed=7).fit(codes, {"y": smooth(codes)})
    fit.save(tmp_path / "p")
    again = load_predictor(tmp_path / "p", CUBE)
    assert isinstance(again, NCPMLP)
    assert (again.shared, again.separate, again.epochs, again.seed) == (8, 4, 3, 7)


def test_a_space_with_other_features_is_refused(tmp_path: Path) -> None:
    def knowing(features: Callable[[torch.Tensor], torch.Tensor]) -> CodeSpace:
        return CodeSpace(LINE.dimensions, name="line", features=features)

    fit = CodeGP(knowing(torch.square)).fit([[0.0], [0.5], [1.0]], {"y": [1.0, 2.0, 4.0]})
    fit.save(tmp_path / "p")
    with pytest.raises(FileFormatError, match="must have 2 columns as at the fit"):
        load_predictor(tmp_path / "p", knowing(lambda codes: torch.cat([codes, codes.exp()], 1)))


def test_the_density_that_is_maximised_is_likelihood_times_prior() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 2)), rng.normal(size=6)
    weights = np.array([1.0, 1, 1, 1, 2, 1])
    theta = np.array([0.4, 0.3, -0.2, -1.5])
    mean, std = np.array([0.0, 1.0, 1.2, -2.3]), np.array([2.0, 0.5, 0.7, 1.5])

    def exact(t: np.ndarray) -> float:
        scaled = torch.as_tensor(x * np.exp(-t[1:-1]))
        k = np.exp(t[0]) * correlation(square_distance(scaled, scaled)).numpy()
        k += np.diag(np.exp(t[-1]) * weights + JITTER)
        likelihood = multivariate_normal(np.zeros(6), k).logpdf(y) + 3 * np.log(2 * np.pi)
        prior = norm(mean, std).logpdf(t) + np.log(std) + 0.5 * np.log(2 * np.pi)
        return float(-likelihood - prior.sum())

    def found(t: np.ndarray) -> tuple[float, np.ndarray]:
        tensors = (torch.as_tensor(part) for part in (x, y, weights))
        return negative_log_density(t, *tensors, (mean, std))

    value, gradient = found(theta)
    assert value == pytest.approx(exact(theta), rel=1e-9)
    # The prior of each of them (signal, lengths, noise) is part of the gradient.
    for j in range(4):
        step = np.zeros(4)
        step[j] = 1e-5
        slope = (exact(theta + step) - exact(theta - step)) / 2e-5
        assert gradient[j] == pytest.approx(slope, rel=1e-5)


def test_leave_one_out_density_is_that_of_the_other_rows() -> None:
    space = CodeSpace([Continuous("a", 0.0, 1.0)])
    codes = np.linspace(0, 1, 9)[:, None]
    values = np.sin(5 * codes[:, 0])
    gp = CodeGP(space).fit(codes, {"m": values})
    theta, y = gp._theta[0], (values - gp.center_[0]) / gp.scale_[0]
    scaled = torch.as_tensor(gp._x * np.exp(-theta[1:-1]))
    k = np.exp(theta[0]) * correlation(square_distance(scaled, scaled)).numpy()
    noise = np.exp(theta[-1]) * gp._weights[0] + JITTER
    for i, density in enumerate(gp.leave_one_out_log_density()[:, 0]):
        rest = np.arange(9) != i
        inverse = np.linalg.inv(k[np.ix_(rest, rest)] + np.diag(noise[rest]))
        mean = k[i, rest] @ inverse @ y[rest]
        variance = k[i, i] - k[i, rest] @ inverse @ k[i, rest] + np.exp(theta[-1]) + JITTER
        assert density == pytest.approx(norm(mean, np.sqrt(variance)).logpdf(y[i]), rel=1e-5)


def test_many_rows_have_exact_means_and_deviations_of_their_nearest() -> None:
    rng = np.random.default_rng(0)
    codes = rng.random((400, 3))
    y = smooth(codes) + 0.05 * rng.normal(size=400)
    test = rng.random((200, 3))
    many = CodeGP(CUBE, rows=100, refined=100, exact=100).fit(codes, {"y": y})
    theta, x = many._theta[0], torch.as_tensor(many._x)
    weights = torch.as_tensor(many._weights[0])
    inverse, _ = inverse_of(theta, x, weights)
    standardised = torch.as_tensor((y - many.center_[0]) / many.scale_[0])
    np.testing.assert_allclose(many._alpha[0], inverse @ standardised, rtol=1e-6, atol=1e-8)
    # The same hyperparameters, with deviations of all rows.
    whole = copy.copy(many)
    whole.exact = 1000
    assert many._nearest_decide and not whole._nearest_decide
    near, all_of_them = many.predict(test), whole.predict(test)
    np.testing.assert_array_equal(near.mean, all_of_them.mean)
    assert np.median(np.abs(near.std / all_of_them.std - 1)) < 0.05
    assert (near.std >= all_of_them.std * (1 - 1e-9)).all()  # who knows less is less sure
    low, high = near.interval(0.8)
    new = smooth(test) + 0.05 * rng.normal(size=200)
    assert 0.7 <= coverage(new, low[:, 0], high[:, 0]) <= 0.9
    told = many.believing(test[:5])
    assert (told.predict(test[:5]).std < near.std[:5]).all()
    np.testing.assert_allclose(told.predict(test).mean, near.mean)


def test_deviations_of_the_nearest_are_differentiable() -> None:
    codes = np.random.default_rng(0).random((80, 3))
    fit = CodeGP(CUBE, rows=40, exact=40).fit(codes, {"y": smooth(codes)})
    x = torch.rand(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(lambda c: fit.forward_with_std(c)[1], x.requires_grad_())


def test_more_rows_than_are_kept_are_drawn_from(tmp_path: Path) -> None:
    codes = np.random.default_rng(0).random((300, 3))
    fit = CodeGP(CUBE, rows=50, exact=60, most=120).fit(codes, {"y": smooth(codes)})
    assert fit._x.shape == (120, 3) and fit.n_rows_ == 300
    fit.save(tmp_path / "p")
    again = load_predictor(tmp_path / "p", CUBE)
    test = np.random.default_rng(1).random((50, 3))
    assert (again.predict(test).std == fit.predict(test).std).all()
    assert mae(smooth(test), fit.predict(test).mean[:, 0]) < 0.1


def test_files_from_before_the_nearest_decided_keep_their_deviations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = np.random.default_rng(0).random((60, 3))
    whole = CodeGP(CUBE, exact=60).fit(codes, {"y": smooth(codes)})
    before = ("rows", "steps", "length", "doubt", "noise", "seed")
    monkeypatch.setattr(CodeGP, "_options", before)
    whole.save(tmp_path / "p")
    monkeypatch.undo()
    again = load_predictor(tmp_path / "p", CUBE)
    assert isinstance(again, CodeGP) and not again._nearest_decide and again.exact > 10**9
    test = np.random.default_rng(1).random((20, 3))
    assert (again.predict(test).std == whole.predict(test).std).all()


def test_a_fit_from_a_start_takes_fewer_steps_to_the_same_place() -> None:
    codes = np.random.default_rng(0).random((120, 3))
    y = smooth(codes)
    first = CodeGP(CUBE).fit(codes[:110], {"y": y[:110]})
    scratch, calls = {}, {}
    real = _gp_fit.negative_log_density
    for name, start in (("scratch", None), ("start", first.hyperparameters)):
        count = 0

        def counted(*arguments: Any) -> Any:
            nonlocal count
            count += 1
            return real(*arguments)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_gp_fit, "negative_log_density", counted)
            scratch[name] = CodeGP(CUBE).fit(codes, {"y": y}, start=start)
        calls[name] = count
    assert calls["start"] < 0.75 * calls["scratch"]
    test = np.random.default_rng(1).random((100, 3))
    errors = [mae(smooth(test), fit.predict(test).mean[:, 0]) for fit in scratch.values()]
    assert errors[1] < 1.2 * errors[0] + 1e-3


@pytest.mark.parametrize("start", [[0.0] * 4, [0.0] * 4 + [math.nan], [0.0] * 4 + [101.0]])
def test_a_start_of_something_else_is_refused(start: list[float]) -> None:
    codes = np.random.default_rng(0).random((10, 3))
    with pytest.raises(ValueError, match="a start of 'y' must be 5 numbers within 100 of 0"):
        CodeGP(CUBE).fit(codes, {"y": smooth(codes)}, start={"y": start})
    # What it does not name is learned from the beginning.
    fit = CodeGP(CUBE).fit(codes, {"y": smooth(codes)}, start={"x": start})
    assert fit.hyperparameters == CodeGP(CUBE).fit(codes, {"y": smooth(codes)}).hyperparameters


def test_a_factor_is_extended() -> None:
    k = torch.as_tensor(np.cov(np.random.default_rng(0).normal(size=(7, 30))))
    found = _gp_fit.extended(torch.linalg.cholesky(k[:4, :4]), k[:4, 4:], k[4:, 4:])
    torch.testing.assert_close(found, torch.linalg.cholesky(k))


@pytest.mark.parametrize("exact", [1000, 200])
def test_deviations_in_single_precision_are_those_in_double(exact: int) -> None:
    codes = np.random.default_rng(0).random((400, 3))
    fit = CodeGP(CUBE, rows=200, refined=200, exact=exact).fit(codes, {"y": smooth(codes)})
    new = torch.rand(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mean, std = fit.forward_with_std(new.float())
    assert mean.dtype == std.dtype == torch.float32
    torch.testing.assert_close(std.double(), fit.forward_with_std(new)[1], rtol=0.02, atol=0)
