"""Gradient boosted trees as arrays: trained by scikit-learn, kept in safetensors files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Trees"]

Array = NDArray[np.float64]

_TREES = 150
_RATE = 0.06
_LEAVES = 15
_ROWS_OF_A_LEAF = 40
_FIELDS = ("feature_idx", "num_threshold", "left", "right", "value", "is_leaf")
_DEEPEST = 64


@dataclass(frozen=True)
class Trees:
    """A sum of regression trees.

    Attributes:
        feature: (m,) the column that each node looks at.
        threshold: (m,) it goes left where the column is at most this.
        left, right: (m,) the next node, which is the node itself in a leaf.
        value: (m,) what a leaf adds; 0 elsewhere.
        root: (t,) the first node of each tree.
        baseline: What is added to all.
    """

    feature: NDArray[np.int64]
    threshold: Array
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    value: Array
    root: NDArray[np.int64]
    baseline: float

    @classmethod
    def fit(
        cls, x: Array, y: Array, weights: Array, signs: Sequence[int] | None, seed: int
    ) -> Trees:
        """Trees of rows x (n, d) with labels y (n,).

        Args:
            x: All finite.
            y: Labels.
            weights: (n,) how much each row counts.
            signs: (d,) 1 where predictions must not fall as a column grows, -1 where they must not
                rise, 0 where they may do either.
            seed: Of scikit-learn.
        """
        from sklearn.ensemble import HistGradientBoostingRegressor

        fit = HistGradientBoostingRegressor(
            max_iter=_TREES,
            learning_rate=_RATE,
            max_leaf_nodes=_LEAVES,
            min_samples_leaf=min(_ROWS_OF_A_LEAF, max(2, len(x) // 8)),
            monotonic_cst=signs,
            early_stopping=False,
            random_state=seed,
        ).fit(x, y, weights)
        # scikit-learn has no public form of these trees; a test holds them to its predictions.
        tables = [tree.nodes for (tree,) in fit._predictors]
        sizes = [len(table) for table in tables]
        root = np.cumsum([0, *sizes[:-1]])
        shift = np.repeat(root, sizes)
        columns = {name: np.concatenate([table[name] for table in tables]) for name in _FIELDS}
        leaf = columns["is_leaf"].astype(bool)
        own = np.arange(len(leaf))
        return cls(
            np.where(leaf, 0, columns["feature_idx"]).astype(np.int64),
            np.where(leaf, 0.0, columns["num_threshold"]),
            np.where(leaf, own, columns["left"].astype(np.int64) + shift),
            np.where(leaf, own, columns["right"].astype(np.int64) + shift),
            np.where(leaf, columns["value"], 0.0),
            root,
            float(np.ravel(fit._baseline_prediction)[0]),
        )

    def predict(self, x: Array) -> Array:
        """(n,) predictions of rows (n, d)."""
        place = np.repeat(self.root[None], len(x), axis=0)
        rows = np.arange(len(x))[:, None]
        for _ in range(_DEEPEST):
            goes_left = x[rows, self.feature[place]] <= self.threshold[place]
            further = np.where(goes_left, self.left[place], self.right[place])
            if (further == place).all():
                break
            place = further
        return np.asarray(self.baseline + self.value[place].sum(axis=1))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """All of it, for a safetensors file."""
        small = {"feature": np.int16, "left": np.int32, "right": np.int32, "root": np.int32}
        arrays = {name: np.asarray(value) for name, value in vars(self).items()}
        arrays["baseline"] = np.array([self.baseline])
        return {name: array.astype(small.get(name, array.dtype)) for name, array in arrays.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], columns: int) -> Trees:
        """The trees that `to_arrays` described, which read so many columns.

        Raises:
            ValueError: A number does not fit.
            KeyError: An array is missing.
        """
        names = ("feature", "threshold", "left", "right", "value", "root")
        parts = [arrays[name] for name in names]
        m = len(parts[0])
        if any(part.shape != (m,) for part in parts[:5]) or parts[5].ndim != 1 or not m:
            raise ValueError("nodes of trees must have one number each of every kind")
        places = {"left": m, "right": m, "root": m, "feature": columns}
        for name, end in places.items():
            array = arrays[name]
            if array.dtype.kind != "i" or not ((array >= 0) & (array < end)).all():
                raise ValueError(f"{name} of trees must be whole numbers below {end}")
        if len(np.unique(arrays["root"])) != len(arrays["root"]):
            raise ValueError("each tree must have a first node of its own")
        (baseline,) = arrays["baseline"]
        if not np.isfinite(np.concatenate([parts[1], parts[4], [baseline]])).all():
            raise ValueError("thresholds and values of trees must be finite")
        whole = [part.astype(np.int64) for part in (parts[0], parts[2], parts[3], parts[5])]
        return cls(
            whole[0],
            parts[1].astype(np.float64),
            whole[1],
            whole[2],
            parts[4].astype(np.float64),
            whole[3],
            float(baseline),
        )
