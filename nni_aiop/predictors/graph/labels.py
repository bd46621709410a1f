"""Labels of different tasks on one scale: standardised (Eq. 4), before that by size (Eq. 5).

Notation: y a label in its own unit, F the network's FLOPs in 1e9 operations, z the scaled label.

    z = (y - center) / scale                        (AIO-P, Eq. 4)
    z = (y / (log10(F + 1) + 1) - center) / scale   (AIO-P, Eq. 5, then Eq. 4)

Source: Mills et al. 2023, "AIO-P: Expanding Neural Performance Predictors beyond Image
Classification".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import NotFittedError
from typing_extensions import Self

from nni_aiop.errors import FileFormatError

__all__ = ["LabelScaling"]

Array = NDArray[np.float64]

_OPERATIONS_PER_GIGA = 1e9


class LabelScaling:
    """Labels to scaled labels and back; learned on one set of networks, used on any other.

    Args:
        standardise: Whether Eq. 4 applies; without it `center_` is 0 and `scale_` 1.
        by_flops: Whether Eq. 5 applies first; every method then needs the networks' FLOPs.

    Attributes:
        center_: Mean of the labels, after Eq. 5 where it applies.
        scale_: Their standard deviation, 0 where they are all the same.

    Example:
        >>> scaling = LabelScaling().fit([70.0, 72.0, 74.0, 76.0])
        >>> scaling.center_, round(scaling.scale_, 4)
        (73.0, 2.2361)
        >>> scaling.inverse([0.0, 1.0]).round(4).tolist()
        [73.0, 75.2361]
    """

    center_: float
    scale_: float

    def __init__(self, *, standardise: bool = True, by_flops: bool = False) -> None:
        self.standardise = standardise
        self.by_flops = by_flops

    def __repr__(self) -> str:
        return f"LabelScaling(standardise={self.standardise}, by_flops={self.by_flops})"

    def fit(self, y: ArrayLike, flops: ArrayLike | None = None) -> Self:
        """This scaling, with the mean and standard deviation of labels.

        Args:
            y: (n,) labels, at least one, all finite.
            flops: (n,) operations (not multiply-adds, not GFLOPs) of each network's forward pass.

        Raises:
            ValueError: No label, one that is not finite, or FLOPs that are missing, negative, not
                finite or of another number.
        """
        values = _column("labels", y)
        if not len(values):
            raise ValueError("there must be at least one label to learn a scale, but got none.")
        values = values / self._size(flops, len(values))
        self.center_, self.scale_ = 0.0, 1.0
        if self.standardise:
            self.center_ = float(values.mean())
            # Rounding must not pass for spread where all labels are the same.
            spread = float(values.std()) if np.ptp(values) > 0 else 0.0
            self.scale_ = spread if spread > 1e-12 * abs(self.center_) else 0.0
        return self

    def transform(self, y: ArrayLike, flops: ArrayLike | None = None) -> Array:
        """(n,) scaled labels of labels (n,); all 0 where the scale is 0.

        Raises:
            NotFittedError: `fit` was not called.
            ValueError: As `fit`.
        """
        self._require_fit()
        values = _column("labels", y)
        centred = values / self._size(flops, len(values)) - self.center_
        return centred / self.scale_ if self.scale_ > 0 else np.zeros_like(centred)

    def inverse(self, z: ArrayLike, flops: ArrayLike | None = None) -> Array:
        """(n,) labels, in their own unit, of scaled labels (n,).

        Raises:
            NotFittedError: `fit` was not called.
            ValueError: As `fit`.
        """
        self._require_fit()
        values = _column("scaled labels", z)
        return (self.center_ + self.scale_ * values) * self._size(flops, len(values))

    def inverse_std(self, s: ArrayLike, flops: ArrayLike | None = None) -> Array:
        """(n,) standard deviations of labels, in their unit, of those of scaled labels (n,).

        Raises:
            NotFittedError: `fit` was not called.
            ValueError: As `fit`.
        """
        self._require_fit()
        values = _column("standard deviations", s)
        return self.scale_ * values * self._size(flops, len(values))

    def to_json(self) -> dict[str, Any]:
        """Options and what was learned, in JSON's own types.

        Raises:
            NotFittedError: `fit` was not called.
        """
        self._require_fit()
        return {
            "standardise": self.standardise,
            "by_flops": self.by_flops,
            "center": self.center_,
            "scale": self.scale_,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """The scaling that `to_json` described.

        Raises:
            FileFormatError: An entry is missing or not of its kind.
        """
        try:
            options = {name: content[name] for name in ("standardise", "by_flops")}
            center, scale = float(content["center"]), float(content["scale"])
        except (KeyError, TypeError, ValueError) as err:
            raise FileFormatError(f"a label scaling must be whole, but is not: {err!r}.") from err
        if not all(isinstance(option, bool) for option in options.values()):
            raise FileFormatError(f"options of a label scaling must be true or false: {options}.")
        if not (np.isfinite(center) and np.isfinite(scale) and scale >= 0):
            raise FileFormatError(
                "a label scaling must have a finite center and scale >= 0, "
                f"but got {center} and {scale}."
            )
        scaling = cls(**options)
        scaling.center_, scaling.scale_ = center, scale
        return scaling

    def _size(self, flops: ArrayLike | None, n: int) -> Array:
        """(n,) divisors of Eq. 5; ones where it does not apply."""
        if not self.by_flops:
            return np.ones(n)
        if flops is None:
            raise ValueError("FLOPs of every network must be given with by_flops, but got none.")
        giga = _column("FLOPs", flops) / _OPERATIONS_PER_GIGA
        if len(giga) != n:
            raise ValueError(f"there must be FLOPs of {n} networks, but got {len(giga)}.")
        if (giga < 0).any():
            raise ValueError(f"FLOPs must not be negative, but got {giga.min() * 1e9}.")
        return np.asarray(np.log10(giga + 1) + 1)

    def _require_fit(self) -> None:
        if not hasattr(self, "scale_"):
            raise NotFittedError("LabelScaling must be fitted first: call fit.")


def _column(name: str, values: ArrayLike) -> Array:
    column = np.asarray(values, dtype=np.float64)
    if column.ndim != 1:
        raise ValueError(f"{name} must have shape (n,), but got {column.shape}.")
    if not np.isfinite(column).all():
        raise ValueError(f"{name} must be finite, but got {column[~np.isfinite(column)][0]}.")
    return column
