"""Whether a network's training is worth going on with, from its first epochs; free of any engine.

A trial reports a value (or several) after each epoch and ends with a final one. From what finished
trials reported in their first k epochs, a regressor learns the final value of a trial that has come
so far, as a normal distribution. The trial is stopped where the probability that it ends above the
best so far is below 1 - confidence. Where the distribution is too wide to say so it goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nni_aiop.predictors._moderate import center_and_scale, moderate, unit_of
from nni_aiop.predictors.tabular._features import compact_curve_features
from nni_aiop.predictors.tabular._regressors import default_regressor

__all__ = ["Decision", "EarlyStopping", "Forecast"]

Array = NDArray[np.float64]
_ROOM = 1e3  # how far beyond the known rows a regressor is asked, in their range or their size
_FEWEST = 4  # finished trials without which nothing is learned


@dataclass(frozen=True)
class Forecast:
    """The final value that is expected of a trial, in the metric's own units.

    Attributes:
        mean: Of the normal distribution.
        std: Its standard deviation, the noise of training included.
        n_trials: How many finished trials it was learned from.
    """

    mean: float
    std: float
    n_trials: int


@dataclass(frozen=True)
class Decision:
    """What to do with a trial, and why.

    Attributes:
        stop: Whether to stop it; False also where nothing can be said yet.
        forecast: None before there are enough finished trials.
        chance: Probability that the trial ends better than the best so far; None where the rule
            abstains: too few trials, or a forecast that is too wide.
    """

    stop: bool
    forecast: Forecast | None = None
    chance: float | None = None


def _is_far(values: Array) -> NDArray[np.bool_]:
    return np.asarray(moderate(values) != values)


@dataclass
class _Fitted:
    """A regressor of one epoch, and what keeps its columns within numbers to reckon with.

    Attributes:
        n: How many trials it was fitted on.
        units: (p,) what columns are divided by; 1 but for huge numbers.
        low: (p,) least values that it is asked about.
        high: (p,) largest ones.
        model: The regressor.
    """

    n: int
    units: Array
    low: Array
    high: Array
    model: Any = None

    @classmethod
    def of(cls, X: Array, n: int) -> _Fitted:
        """For rows (k, p) of n trials."""
        units = np.array([unit_of(column) for column in X.T])
        low, high = (X / units).min(axis=0), (X / units).max(axis=0)
        room = _ROOM * np.maximum(high - low, np.maximum(np.abs(high), np.abs(low)))
        return cls(n, units, low - room, high + room)

    def columns(self, X: Array) -> Array:
        """(n, p) what the regressor reads of rows."""
        return np.asarray(np.clip(X / self.units, self.low, self.high))


class EarlyStopping:
    """Decides from (scheme, curve so far, finished trials) whether a trial goes on.

    A finished trial with a number that is far beyond all others (more than a million median
    deviations from the median), as of a training that diverged, is not learned from.

    Args:
        direction: Whether more of the metric is better, or less.
        confidence: A trial stops where it stays behind the best with this probability.
        startup: Finished trials before anything is stopped.
        min_epochs: Epochs before a trial may be stopped; with 0 its scheme alone may rule it out.
        max_std: The rule abstains where the forecast's standard deviation exceeds this fraction of
            the standard deviation of the finished trials' final values: it then says little more
            than that the trial is one of them.
        refit: The regressor of an epoch is fitted anew when the finished trials have grown by this
            fraction.
        regressor: From a seed to an unfitted regressor whose `predict` takes `return_std`.
        seed: Of the regressor.

    Raises:
        ValueError: An argument lies outside its range.

    Example:
        >>> rule = EarlyStopping(startup=4)
        >>> for final in (0.6, 0.7, 0.8, 0.9):  # their curves and final values
        ...     rule.finish([final - 0.2, final - 0.1, final], final)
        >>> rule.decide([0.41, 0.5]).stop, rule.decide([0.75, 0.85]).stop
        (True, False)
    """

    def __init__(
        self,
        *,
        direction: Literal["maximize", "minimize"] = "maximize",
        confidence: float = 0.95,
        startup: int = 10,
        min_epochs: int = 1,
        max_std: float = 1.0,
        refit: float = 0.1,
        regressor: Callable[[int], Any] = default_regressor,
        seed: int = 0,
    ) -> None:
        if direction not in ("maximize", "minimize"):
            raise ValueError(f"a direction must be maximize or minimize, but got {direction!r}.")
        if not 0.5 <= confidence < 1:
            raise ValueError(f"confidence must lie in [0.5, 1), but got {confidence}.")
        if startup < _FEWEST:
            raise ValueError(f"startup must be at least {_FEWEST}, but got {startup}.")
        if min_epochs < 0:
            raise ValueError(f"min_epochs must not be negative, but got {min_epochs}.")
        if not max_std > 0 or not refit >= 0:
            raise ValueError(
                f"max_std must be positive and refit not negative, but got {max_std} and {refit}."
            )
        self.direction = direction
        self.confidence = confidence
        self.startup = startup
        self.min_epochs = min_epochs
        self.max_std = max_std
        self.refit = refit
        self.regressor = regressor
        self.seed = seed
        self._sign = 1.0 if direction == "maximize" else -1.0
        self._curves: list[Array] = []
        self._schemes: list[Array] = []
        self._finals: list[float] = []
        self._fitted: dict[int, _Fitted] = {}

    def __len__(self) -> int:
        """How many finished trials it has learned from."""
        return len(self._finals)

    @property
    def best(self) -> float | None:
        """The best final value so far."""
        return self._sign * max(self._finals) if self._finals else None

    @property
    def epochs(self) -> int:
        """Epochs of the longest finished trial."""
        return max(map(len, self._curves), default=0)

    def finish(self, curve: ArrayLike, final: float, scheme: Sequence[float] = ()) -> None:
        """Learn from a trial that was trained to its end.

        Args:
            curve: (k,) the metric after each epoch, or (k, 3) with mean and median loss beside it.
            final: Its final value.
            scheme: What is known of the network without training, the same columns for each.

        Raises:
            ValueError: A number is not finite, or a shape differs from that of earlier trials.
        """
        values, columns = self._curve(curve), self._scheme(scheme)
        if not np.isfinite(final):
            raise ValueError(f"a final value must be finite, but got {final}.")
        self._curves.append(values)
        self._schemes.append(columns)
        self._finals.append(self._sign * float(final))

    def forecast(self, curve: ArrayLike, scheme: Sequence[float] = ()) -> Forecast | None:
        """The final value of a trial that has come so far; None before `startup` trials finished.

        Raises:
            ValueError: A number is not finite, or a shape differs from that of earlier trials.
        """
        values, columns = self._curve(curve), self._scheme(scheme)
        epochs = len(values)
        known = [i for i, other in enumerate(self._curves) if len(other) >= epochs]
        if len(known) < self.startup or epochs + columns.size == 0:
            return None
        fitted = self._fitted.get(epochs)
        if fitted is None or len(known) >= fitted.n + max(1.0, self.refit * fitted.n):
            X = np.stack([self._row(self._curves[i], self._schemes[i], epochs) for i in known])
            finals = np.array([self._finals[i] for i in known])
            near = ~_is_far(finals)
            for column in X.T:
                near &= ~_is_far(column)
            if near.sum() < _FEWEST:
                near[:] = True
            fitted = _Fitted.of(X[near], len(known))
            fitted.model = self.regressor(self.seed).fit(fitted.columns(X[near]), finals[near])
            self._fitted[epochs] = fitted
        row = fitted.columns(self._row(values, columns, epochs)[None])
        mean, std = fitted.model.predict(row, return_std=True)
        return Forecast(self._sign * float(mean[0]), float(std[0]), fitted.n)

    def decide(self, curve: ArrayLike, scheme: Sequence[float] = ()) -> Decision:
        """Whether a trial that has come so far is stopped; never behind its last epoch.

        Raises:
            ValueError: A number is not finite, or a shape differs from that of earlier trials.
        """
        if not self.min_epochs <= len(np.asarray(curve)) < self.epochs:
            return Decision(stop=False)
        forecast = self.forecast(curve, scheme)
        if forecast is None or self.abstains(forecast):
            return Decision(stop=False, forecast=forecast)
        from scipy.stats import norm

        ahead = self._sign * forecast.mean - max(self._finals)
        chance = float(norm.cdf(ahead / forecast.std)) if forecast.std > 0 else float(ahead > 0)
        return Decision(chance < 1 - self.confidence, forecast, chance)

    def abstains(self, forecast: Forecast) -> bool:
        """Whether a forecast is too wide to decide by."""
        finals = np.array(self._finals)
        _, spread = center_and_scale(finals[~_is_far(finals)][:, None])
        return forecast.std > self.max_std * float(spread[0])

    def _row(self, curve: Array, scheme: Array, epochs: int) -> Array:
        if not epochs:
            return scheme
        return np.concatenate([scheme, compact_curve_features(curve[None, :epochs])[0]])

    def _curve(self, curve: ArrayLike) -> Array:
        """(k, channels), more of the first channel being better."""
        values = np.asarray(curve, dtype=np.float64)
        values = values[:, None] if values.ndim == 1 else values.copy()
        if values.ndim != 2 or not np.isfinite(values).all():
            raise ValueError(
                f"a curve must be finite numbers of shape (k,) or (k, 3), but got {curve!r:.200}."
            )
        if self._curves and len(values) and values.shape[1] != self._curves[0].shape[1]:
            raise ValueError(
                f"a curve must have {self._curves[0].shape[1]} values an epoch as earlier ones, "
                f"but has {values.shape[1]}."
            )
        if len(values):
            values[:, 0] *= self._sign
        return values

    def _scheme(self, scheme: Sequence[float]) -> Array:
        columns = np.asarray(scheme, dtype=np.float64)
        wanted = self._schemes[0].shape if self._schemes else (columns.size,)
        if columns.shape != wanted or not np.isfinite(columns).all():
            raise ValueError(
                f"a scheme must be finite numbers of shape {wanted}, but got {scheme!r:.200}."
            )
        return columns
