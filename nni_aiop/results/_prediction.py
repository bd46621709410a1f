"""Predicted against measured values as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from nni_aiop.figures import new_figure, save_figure

if TYPE_CHECKING:
    from nni_aiop.predictors import Prediction

__all__ = ["draw_prediction"]


def draw_prediction(
    path: Path | str,
    prediction: Prediction,
    targets: Mapping[str, ArrayLike],
    *,
    level: float = 0.8,
) -> Path:
    """The path of a PNG: for each metric, predicted against measured values with `level` intervals.

    Args:
        path: The file to write.
        prediction: Predictions of n architectures.
        targets: (n,) measured values of each metric of the prediction.
        level: Probability that the drawn intervals promise to hold.
    """
    count = len(prediction.metrics)
    figure = new_figure(5.0 * count, 4.6)
    for i, name in enumerate(prediction.metrics):
        axes = figure.add_subplot(1, count, i + 1)
        one, measured = prediction[name], np.asarray(targets[name], dtype=np.float64)
        mean = one.mean[:, 0]
        low, high = one.interval(level)
        spread = np.stack([mean - low[:, 0], high[:, 0] - mean])
        axes.errorbar(
            measured, mean, yerr=spread, fmt="none", ecolor="tab:blue", alpha=0.15, zorder=1
        )
        axes.scatter(measured, mean, s=8, color="tab:blue", zorder=2)
        inside = np.mean((low[:, 0] <= measured) & (measured <= high[:, 0]))
        error = np.abs(mean - measured).mean()
        axes.set_title(
            f"{len(measured)} architectures: mean error {error:.3g}, {inside:.0%} inside",
            fontsize=10,
        )
        ends = [min(measured.min(), mean.min()), max(measured.max(), mean.max())]
        axes.plot(ends, ends, color="0.3", lw=1, ls="--")
        axes.set_xlabel(f"measured {name}")
        axes.set_ylabel(f"predicted {name}, with {level:.0%} intervals")
    return save_figure(figure, path)
