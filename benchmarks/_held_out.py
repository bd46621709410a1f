"""Whole groups held out, such as families of networks; and what a model card says of files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nni_aiop.predictors import Prediction
from nni_aiop.predictors.graph import GraphPredictor, GraphSet

__all__ = ["FOLDS", "LEVEL", "file_entry", "folds_of", "nested_coverage"]

Array = NDArray[np.float64]
Rows = NDArray[np.int64]

FOLDS = 5
LEVEL = 0.8


def folds_of(families: Any, seed: int) -> Rows:
    """(n,) the fold of each network; those of one family share it, and folds are of like size."""
    names, family, sizes = np.unique(families, return_inverse=True, return_counts=True)
    fold, load = np.zeros(len(names), np.int64), np.zeros(FOLDS)
    for name in np.random.default_rng(seed).permutation(len(names)):
        fold[name] = load.argmin()
        load[fold[name]] += sizes[name]
    return fold[family]


def nested_coverage(
    predictor: GraphPredictor,
    task: str,
    graphs: GraphSet,
    y: Array,
    families: Any,
    fold: Rows,
    predicted: Array,
) -> NDArray[np.bool_]:
    """(n,) whether each label lies in its interval, which the errors of the other folds made.

    Args:
        predictor: With an adapter for the task, which is calibrated anew for each fold.
        task: Of the adapter.
        graphs: n networks.
        y: (n,) their labels.
        families: (n,) names.
        fold: (n,) of each network.
        predicted: (n,) by what saw nothing of its family.
    """
    covered = np.zeros(len(y), np.bool_)
    for k in np.unique(fold):
        known, new = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        predictor.calibrate(task, graphs.take(known), y[known], predicted[known], families[known])
        adapter, flops = predictor.adapters_[task], graphs.take(new).flops
        z = adapter.labels.transform(predicted[new], flops)
        _, std = adapter.labels.inverse(z, np.full(len(new), adapter.std), flops)
        low, high = Prediction(predicted[new, None], std[:, None], (task,)).interval(LEVEL)
        covered[new] = (low[:, 0] <= y[new]) & (y[new] <= high[:, 0])
    return covered


def file_entry(path: Path) -> dict[str, Any]:
    """What a model card says of a file."""
    content = path.read_bytes()
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
