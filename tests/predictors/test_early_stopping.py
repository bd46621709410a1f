"""The rule of early stopping, without an engine."""

import numpy as np
import pytest
from scipy.stats import norm

from nni_aiop.predictors.tabular import EarlyStopping, Forecast, GPRegressor


def curve(final: float, epochs: int = 6, seed: int = 0) -> np.ndarray:
    """Rises towards its final value; what it has after an epoch tells where it ends."""
    noise = np.random.default_rng(seed).normal(0, 0.002, epochs)
    return final * (1 - 0.5 ** np.arange(1, epochs + 1)) + noise


def quick(seed: int) -> GPRegressor:
    return GPRegressor(rows=40, steps=20, random_state=seed)


def taught(n: int = 14, *, direction: str = "maximize", **options) -> EarlyStopping:
    rule = EarlyStopping(direction=direction, regressor=quick, startup=8, **options)
    sign = 1 if direction == "maximize" else -1
    for i, final in enumerate(np.linspace(0.5, 0.9, n)):
        rule.finish(sign * curve(final, seed=i), sign * final)
    return rule


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_it_stops_the_hopeless_and_no_other(direction: str) -> None:
    rule = taught(direction=direction)
    sign = 1 if direction == "maximize" else -1
    assert rule.best == sign * 0.9 and len(rule) == 14
    for epochs in (1, 3):
        poor = rule.decide(sign * curve(0.6, seed=99)[:epochs])
        assert poor.stop and poor.chance is not None and poor.chance < 0.05
        assert poor.forecast is not None and poor.forecast.n_trials == 14
        assert sign * poor.forecast.mean == pytest.approx(0.6, abs=0.02)
        assert not rule.decide(sign * curve(0.93, seed=98)[:epochs]).stop


def test_it_waits_for_finished_trials() -> None:
    rule = EarlyStopping(startup=8, regressor=quick)
    assert rule.best is None
    for i, final in enumerate(np.linspace(0.5, 0.9, 7)):
        rule.finish(curve(final, seed=i), final)
    decision = rule.decide(curve(0.1)[:2])
    assert not decision.stop and decision.forecast is None and decision.chance is None
    rule.finish(curve(0.8), 0.8)
    assert rule.decide(curve(0.1)[:2]).stop
    # None of them came that far; and what is over need not be stopped.
    assert rule.epochs == 6 and rule.forecast(curve(0.1, epochs=7)) is None
    assert not rule.decide(curve(0.1)).stop


def test_it_abstains_where_the_interval_is_too_wide() -> None:
    rng = np.random.default_rng(0)
    rule = EarlyStopping(startup=8, regressor=quick, max_std=0.8)
    for final in rng.uniform(0.5, 0.9, 20):
        rule.finish(rng.uniform(0, 1, 4), final)  # curves that tell nothing
    decision = rule.decide([0.01, 0.02])
    assert not decision.stop and decision.chance is None
    assert decision.forecast is not None and rule.abstains(decision.forecast)


def test_the_scheme_alone_may_rule_a_trial_out() -> None:
    rule = EarlyStopping(startup=8, min_epochs=0, regressor=quick)
    for i, final in enumerate(np.linspace(0.5, 0.9, 14)):
        rule.finish(curve(final, seed=i), final, scheme=[final, 1.0])
    assert rule.decide([], scheme=[0.55, 1.0]).stop
    assert not rule.decide([], scheme=[0.93, 1.0]).stop
    assert taught(min_epochs=0).decide([]).forecast is None
    assert not taught(min_epochs=3).decide(curve(0.5)[:2]).stop


def test_it_refits_as_trials_finish() -> None:
    fits: list[int] = []

    class Counting(GPRegressor):
        def fit(self, X, y):
            fits.append(len(y))
            return super().fit(X, y)

    rule = EarlyStopping(startup=4, refit=0.5, regressor=lambda seed: Counting(steps=5))
    for i, final in enumerate(np.linspace(0.5, 0.9, 9)):
        rule.finish(curve(final, seed=i), final)
        rule.forecast(curve(0.7)[:2])
    assert fits == [4, 6, 9]
    rule.forecast(curve(0.7)[:3])
    assert fits == [4, 6, 9, 9]


def test_three_values_an_epoch() -> None:
    rule = EarlyStopping(startup=8, regressor=quick)
    for i, final in enumerate(np.linspace(0.5, 0.9, 12)):
        c = curve(final, seed=i)
        rule.finish(np.stack([c, 1 - c, 1 - c], axis=1), final)
    poor = curve(0.55, seed=50)[:2]
    assert rule.decide(np.stack([poor, 1 - poor, 1 - poor], axis=1)).stop
    with pytest.raises(ValueError, match="must have 3 values an epoch"):
        rule.decide(poor)


@pytest.mark.parametrize(
    "options",
    [
        {"direction": "up"},
        {"confidence": 0.4},
        {"confidence": 1.0},
        {"startup": 3},
        {"min_epochs": -1},
        {"max_std": 0.0},
        {"refit": -0.1},
    ],
)
def test_arguments_have_ranges(options: dict) -> None:
    with pytest.raises(ValueError, match="but got"):
        EarlyStopping(**options)


def test_what_is_no_curve_is_refused() -> None:
    rule = taught()
    for wrong in ([0.5, float("nan")], [[[0.5]]]):
        with pytest.raises(ValueError, match="a curve must be finite"):
            rule.decide(wrong)
    with pytest.raises(ValueError, match="a final value must be finite"):
        rule.finish(curve(0.5), float("inf"))
    with pytest.raises(ValueError, match="a scheme must be finite numbers of shape"):
        rule.decide(curve(0.5)[:2], scheme=[1.0])


class Says:
    """A regressor that expects the same of every trial."""

    def __init__(self, mean: float, std: float) -> None:
        self.mean, self.std = mean, std

    def fit(self, X: np.ndarray, y: np.ndarray) -> "Says":
        return self

    def predict(self, X: np.ndarray, return_std: bool) -> tuple[np.ndarray, np.ndarray]:
        return np.full(len(X), self.mean), np.full(len(X), self.std)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_chance_is_that_of_a_normal_distribution(sign: int) -> None:
    def decided(mean: float, std: float, confidence: float = 0.95):
        rule = EarlyStopping(
            direction="maximize" if sign > 0 else "minimize",
            startup=4,
            confidence=confidence,
            regressor=lambda seed: Says(mean, std),
        )
        for i, final in enumerate((0.0, 0.0, 2.0, 2.0)):  # a deviation of 1, the best is 2
            rule.finish(sign * curve(final, seed=i), sign * final)
        return rule.decide(sign * curve(1.0)[:2])

    for std in (0.25, 1.0):
        found = decided(1.5, std)
        assert found.chance == pytest.approx(norm.cdf(-0.5 / std))
        assert found.forecast == Forecast(sign * 1.5, std, 4)
        assert found.stop == (std < 0.3)
    assert decided(1.0, 1.0, confidence=0.8).stop  # a chance of 0.16
    wide = decided(1.5, 1.01)
    assert wide.chance is None and wide.forecast is not None and not wide.stop
    # Without a deviation it is sure, and as good as the best is no better.
    assert [decided(mean, 0.0).chance for mean in (1.9, 2.0, 2.1)] == [0.0, 0.0, 1.0]
