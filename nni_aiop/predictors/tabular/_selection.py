"""Which groups of columns a regressor needs: ablation and selection by held-out rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nni_aiop.predictors.metrics import mae, violations

__all__ = ["Score", "ablate", "score", "select"]

Rows = NDArray[np.int64]
Splits = Iterable[tuple[Rows, Rows]]
"""(training rows, held-out rows) of each fold, as scikit-learn's splitters give them."""

Groups = Mapping[str, ArrayLike]


class Score(NamedTuple):
    """What predictions of held-out rows are worth, as means over the folds.

    Attributes:
        mae: Mean absolute error.
        violations: Of monotonicity, as a share of all pairs: 1 - the score of Eq. 1.
    """

    mae: float
    violations: float


def score(
    regressor: Callable[[], Any], X: ArrayLike, y: ArrayLike, splits: Splits, *, ties: float = 0.5
) -> Score:
    """Mean score of fresh regressors on the held-out rows of each fold.

    Args:
        regressor: Makes an unfitted one.
        X: (n, p) columns.
        y: (n,) targets.
        splits: The folds.
        ties: See `nni_aiop.predictors.metrics.violations`.
    """
    columns, targets = np.asarray(X, dtype=np.float64), np.asarray(y, dtype=np.float64)
    found = []
    for train, held_out in splits:
        predicted = regressor().fit(columns[train], targets[train]).predict(columns[held_out])
        truth = targets[held_out]
        pairs = len(truth) * (len(truth) - 1) / 2
        found.append((mae(truth, predicted), violations(truth, predicted, ties=ties) / pairs))
    return Score(*np.mean(found, axis=0).tolist())


def ablate(
    regressor: Callable[[], Any],
    groups: Groups,
    y: ArrayLike,
    splits: Sequence[tuple[Rows, Rows]],
    *,
    ties: float = 0.5,
) -> dict[str, Score]:
    """The score with all groups of columns ("all") and without each one (Hakim 2022, table 1).

    Args:
        regressor: Makes an unfitted one.
        groups: Name -> (n,) or (n, p) columns; at least two.
        y: (n,) targets.
        splits: The folds.
        ties: See `nni_aiop.predictors.metrics.violations`.

    Raises:
        ValueError: There are fewer than two groups.
    """
    if len(groups) < 2:
        raise ValueError(f"there must be at least 2 groups of columns, but got {len(groups)}.")
    found = {"all": score(regressor, _joined(groups, groups), y, splits, ties=ties)}
    for name in groups:
        left = [other for other in groups if other != name]
        found[name] = score(regressor, _joined(groups, left), y, splits, ties=ties)
    return found


def select(
    regressor: Callable[[], Any],
    groups: Groups,
    y: ArrayLike,
    splits: Sequence[tuple[Rows, Rows]],
) -> tuple[str, ...]:
    """The groups that are left when one after the other goes, as long as the mean error falls.

    In each step the one without which the mean absolute error is lowest.
    """
    kept = list(groups)
    best = score(regressor, _joined(groups, kept), y, splits).mae
    while len(kept) > 1:
        without = {
            name: score(regressor, _joined(groups, [k for k in kept if k != name]), y, splits).mae
            for name in kept
        }
        name = min(without, key=without.__getitem__)
        if without[name] >= best:
            break
        best = without[name]
        kept.remove(name)
    return tuple(kept)


def _joined(groups: Groups, names: Iterable[str]) -> NDArray[np.float64]:
    return np.column_stack([np.asarray(groups[name], dtype=np.float64) for name in names])
