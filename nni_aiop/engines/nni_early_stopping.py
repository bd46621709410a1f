"""An NNI evaluator that trains a few epochs and predicts the rest."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nni_aiop.engines._nni import importing_nni, numbers
from nni_aiop.engines._references import load_object
from nni_aiop.engines.nni_evaluators import _ByTheSample
from nni_aiop.errors import AiopError, FileFormatError
from nni_aiop.files import brief, parse_json
from nni_aiop.measures import Measure
from nni_aiop.predictors.tabular import EarlyStopping, Forecast, sample_features
from nni_aiop.spaces import Sample

with importing_nni():
    import nni

__all__ = ["EarlyStoppingEvaluator"]


class _Enough(Exception):
    """Ends a training whose final value is known well enough."""

    def __init__(self, forecast: Forecast) -> None:
        super().__init__()
        self.forecast = forecast


@nni.trace
class EarlyStoppingEvaluator(_ByTheSample):
    """Trains a few epochs and reports the final metric that they promise.

    Each epoch's value is an intermediate result. The final result has `default`, its standard
    deviation `default_std` (0 where it was measured) and `epochs`. The first `startup` networks are
    trained to the end; so is one whose forecast is too wide after `epochs` epochs, unless a later
    epoch narrows it. The regressor learns anew as such networks finish; see `EarlyStopping`.

    Args:
        train: Reference `module:function`; it is called with the sample (every label), `on_epoch`
            and `arguments`, calls `on_epoch(epoch, value)` after each epoch with a number (or with
            accuracy, mean loss and median loss), lets pass what that raises, and returns a number
            or a dict with `default`. The module is imported: name only modules that you trust.
        epochs: Epochs before the first forecast.
        history: A file that keeps what was trained to the end, a JSON line each, and that trials in
            other processes or a later experiment learn from; None for this process alone.
        space: See `PredictedEvaluator`.
        optimize_mode: Whether more of `default` is better, or less.
        startup: See `EarlyStopping`.
        max_std: See `EarlyStopping`.
        seed: See `EarlyStopping`.
        arguments: Scalars and texts for the function.

    Raises:
        AiopError: The reference leads nowhere, or the result has no number `default`.
        FileFormatError: The history is damaged.
        ValueError: An argument lies outside its range.
    """

    def __init__(
        self,
        train: str,
        *,
        epochs: int = 3,
        history: str | os.PathLike[str] | None = None,
        space: str | None = None,
        optimize_mode: Literal["maximize", "minimize"] = "maximize",
        startup: int = 10,
        max_std: float = 0.5,
        seed: int = 0,
        **arguments: Any,
    ) -> None:
        super().__init__(space)
        if epochs < 1:
            raise ValueError(f"epochs must be at least 1, but got {epochs}.")
        self.train = train
        self.epochs = epochs
        self.history = None if history is None else Path(history)
        self.arguments = arguments
        self.rule = EarlyStopping(
            direction=optimize_mode, startup=startup, max_std=max_std, seed=seed
        )
        self._read = 0  # bytes of the history that the rule has learned from

    def make_measure(self) -> Measure:
        found: Measure = load_object(self.train)
        self._learn()
        return found

    def measured(self, model: Any, sample: Sample) -> Mapping[str, float]:
        scheme = sample_features(self.code_space(model), sample).tolist()
        self._learn()
        curve: list[Any] = []

        def on_epoch(epoch: int, value: Any) -> None:
            curve.append(np.atleast_1d(np.asarray(value, dtype=np.float64)).tolist())
            nni.report_intermediate_result(curve[-1][0])
            if self.epochs <= len(curve) < self.rule.epochs and np.isfinite(curve).all():
                forecast = self.rule.forecast(curve, scheme)
                if forecast is not None and not self.rule.abstains(forecast):
                    raise _Enough(forecast)

        train: Any = self.measure
        try:
            metrics = numbers(train(sample, on_epoch=on_epoch, **self.arguments))
        except _Enough as enough:
            forecast = enough.forecast
            return {
                "default": forecast.mean,
                "default_std": forecast.std,
                "epochs": float(len(curve)),
            }
        if "default" not in metrics:
            raise AiopError(
                f"{self.train} must return a number or a dict with `default`, "
                f"but the numbers that it returned are {list(metrics)}."
            )
        if np.isfinite(curve).all() and np.isfinite(metrics["default"]):
            self._finish(curve, metrics["default"], scheme)
        return {**metrics, "default_std": 0.0, "epochs": float(len(curve))}

    def _finish(self, curve: Sequence[Any], final: float, scheme: Sequence[float]) -> None:
        if self.history is None:
            self.rule.finish(curve, final, scheme)
            return
        line = json.dumps({"curve": curve, "final": final, "scheme": scheme}) + "\n"
        self.history.parent.mkdir(parents=True, exist_ok=True)
        with open(self.history, "a", encoding="utf-8") as file:
            file.write(line)  # at once, so that lines of several processes do not mix
        self._learn()

    def _learn(self) -> None:
        """Learns from the lines of the history that are new."""
        if self.history is None or not self.history.exists():
            return
        with open(self.history, "rb") as file:
            file.seek(self._read)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        for line in whole.splitlines():
            try:
                trial = parse_json(line, "a line")
                self.rule.finish(trial["curve"], trial["final"], trial["scheme"])
            except (ValueError, KeyError, TypeError) as err:
                raise FileFormatError(
                    f"{self.history} must hold finished trials of one space, but: "
                    f"{brief(err).rstrip('.')}."
                ) from err
        self._read += len(whole)
