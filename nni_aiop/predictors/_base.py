"""What every predictor of metrics from architecture codes does, and its file.

Notation: n codes (rows) of width d, m metrics. A predictor learns standardised targets
(y - center_) / scale_; what it returns is in the metrics' own units.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import NotFittedError
from typing_extensions import Self

from nni_aiop.errors import FileFormatError, SpaceError
from nni_aiop.files import checked_tensors, read_described, whole, write_described
from nni_aiop.predictors._moderate import center_and_scale, moderate, unit_of

if TYPE_CHECKING:
    from torch import Tensor

    from nni_aiop.spaces import CodeSpace

Array = NDArray[np.float64]

FORMAT = "nni-aiop predictor"
FORMAT_VERSION = 1
_LARGEST_OPTION = 2**63
_LARGE = 1e30  # beyond it float32 may overflow


@dataclass(frozen=True)
class Prediction:
    """Predicted metrics of n codes, in the metrics' own units.

    Attributes:
        mean: (n, m).
        std: (n, m) standard deviation of a new measurement, its noise included.
        metrics: The m names.
    """

    mean: Array
    std: Array
    metrics: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.mean)

    def __getitem__(self, metric: str) -> Prediction:
        """The prediction of one metric, with m = 1."""
        if metric not in self.metrics:
            known = ", ".join(self.metrics)
            raise KeyError(f"a metric must be one of {known}, but got {metric!r}.")
        j = self.metrics.index(metric)
        return Prediction(self.mean[:, j : j + 1], self.std[:, j : j + 1], (metric,))

    def interval(self, level: float = 0.8) -> tuple[Array, Array]:
        """(n, m) lower and upper ends of the central normal interval of probability `level`.

        Raises:
            ValueError: The level does not lie in (0, 1).
        """
        from scipy.stats import norm

        if not 0 < level < 1:
            raise ValueError(f"a level must lie in (0, 1), but got {level}.")
        half = norm.ppf((1 + level) / 2) * self.std
        return self.mean - half, self.mean + half


class CodePredictor(ABC):
    """A regressor from codes to metrics, differentiable in the code.

    A subclass supplies `_fit`, `_standardised`, `_tensors` and `_restore`, and stores the
    arguments of its constructor under their own names.

    Args:
        space: Whose codes it reads; `space.features`, where there are any, are read too.
        seed: Of every random choice of the fit.

    Attributes:
        metrics_: Names of what was learned.
        center_: (m,) mean of the training targets.
        scale_: (m,) their standard deviation, 0 where they are all the same.
        n_rows_: Number of rows that were learned from.
    """

    metrics_: tuple[str, ...]
    center_: Array
    scale_: Array
    n_rows_: int

    #: Names of the constructor's arguments that a file keeps.
    _options: tuple[str, ...] = ("seed",)

    #: What those stand for that files did not keep at first.
    _once: ClassVar[dict[str, Any]] = {}

    def __init__(self, space: CodeSpace, *, seed: int = 0) -> None:
        self.space = space
        self.seed = seed
        self._start: Mapping[str, Sequence[float]] = {}

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._options)
        return f"{type(self).__name__}({self.space.name!r}, {options})"

    # --- what a subclass supplies ---------------------------------------------------------------

    @abstractmethod
    def _fit(self, codes: Array, targets: Array) -> None:
        """Learns standardised targets (n, m); a constant metric is a column of zeros."""

    @abstractmethod
    def _standardised(self, codes: Tensor, *, with_std: bool) -> tuple[Tensor, Tensor | None]:
        """Mean and, if wanted, standard deviation (n, m) of the standardised metrics."""

    @abstractmethod
    def _tensors(self) -> dict[str, NDArray[Any]]:
        """What was learned, as named arrays."""

    @abstractmethod
    def _restore(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Learns what `_tensors` returned, to the bit."""

    # --- what users call ------------------------------------------------------------------------

    @property
    def hyperparameters(self) -> dict[str, list[float]]:
        """By metric, what a fit on more rows may start from; empty where there is nothing.

        Raises:
            NotFittedError: `fit` was not called.
        """
        self._require_fit()
        return {}

    @property
    def _chunk(self) -> int:
        """How many codes are predicted at once, which bounds the memory."""
        return 4096

    def fit(
        self,
        codes: ArrayLike,
        targets: Mapping[str, ArrayLike],
        *,
        start: Mapping[str, Sequence[float]] | None = None,
    ) -> Self:
        """This predictor, fitted; rows with a NaN anywhere are left out.

        A value more than a million median deviations from the median, as a diverged training
        reports, is learned as ten of them (`moderate`): beside it all others would look the same.

        Args:
            codes: (n, width) codes.
            targets: (n,) measured values of each metric, in any units.
            start: `hyperparameters` of a predictor of the same options that was fitted on fewer of
                these rows: the fit goes on from there and takes a fraction of the time. Metrics
                that it lacks are learned from the beginning.

        Raises:
            SpaceError: The codes have another width.
            ValueError: No metric, lengths that differ, an infinity, fewer than 2 rows left, or a
                start that is none of this predictor's.
        """
        x = self._checked(codes)
        if not targets:
            raise ValueError("there must be at least one metric to learn, but got none.")
        columns = [np.asarray(column, dtype=np.float64) for column in targets.values()]
        for name, column in zip(targets, columns, strict=True):
            if column.shape != (len(x),):
                raise ValueError(
                    f"targets of {name!r} must have shape ({len(x)},) as the codes have rows, "
                    f"but got {column.shape}."
                )
        y = np.stack(columns, axis=1)
        if np.isinf(x).any() or np.isinf(y).any():
            raise ValueError("codes and targets must be finite (or NaN, left out), but got inf.")
        known = ~(np.isnan(x).any(axis=1) | np.isnan(y).any(axis=1))
        if known.sum() < 2:
            raise ValueError(
                f"at least 2 rows must have every metric, but {known.sum()} of {len(x)} have."
            )
        x, y = x[known], y[known]
        self.metrics_ = tuple(targets)
        self.n_rows_ = len(x)
        y = np.stack([moderate(column) for column in y.T], axis=1)
        self.center_, self.scale_ = center_and_scale(y)
        units = np.array([unit_of(column) for column in y.T])
        scale = np.where(self.scale_ > 0, self.scale_ / units, 1.0)
        self._start = {} if start is None else start
        try:
            self._fit(x, (y / units - self.center_ / units) / scale)
        finally:
            self._start = {}
        return self

    def predict(self, codes: ArrayLike) -> Prediction:
        """Mean and standard deviation of each metric at codes (n, width), computed in float64.

        Raises:
            NotFittedError: `fit` was not called.
            SpaceError: The codes have another width.
        """
        import torch

        self._require_fit()
        x = torch.as_tensor(self._checked(codes))
        with torch.no_grad():
            parts = [self.forward_with_std(chunk) for chunk in torch.split(x, self._chunk)]
        mean, std = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
        return Prediction(mean, std, self.metrics_)

    def means(self, codes: ArrayLike) -> Prediction:
        """`predict` without standard deviations, which are 0 here.

        Raises:
            NotFittedError: `fit` was not called.
            SpaceError: The codes have another width.
        """
        import torch

        self._require_fit()
        x = torch.as_tensor(self._checked(codes))
        with torch.no_grad():
            mean = torch.cat([self.forward(chunk) for chunk in torch.split(x, self._chunk)]).numpy()
        return Prediction(mean, np.zeros_like(mean), self.metrics_)

    def forward(self, codes: Tensor) -> Tensor:
        """(n, m) predicted means of codes (n, width), differentiable, in the codes' dtype.

        Raises:
            NotFittedError: `fit` was not called.
        """
        self._require_fit()
        mean, _ = self._standardised(codes, with_std=False)
        return self._in_units(mean, self.center_)

    def forward_with_std(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """(n, m) means and standard deviations (noise included), both differentiable.

        Raises:
            NotFittedError: `fit` was not called.
        """
        self._require_fit()
        mean, std = self._standardised(codes, with_std=True)
        assert std is not None
        return self._in_units(mean, self.center_), self._in_units(std, np.zeros_like(self.center_))

    def _in_units(self, values: Tensor, center: Array) -> Tensor:
        """Standardised values (n, m) in the metrics' units; none is infinite."""
        import torch

        if max(np.abs(center).max(), self.scale_.max()) <= _LARGE:
            return values * values.new_tensor(self.scale_) + values.new_tensor(center)
        most = torch.finfo(values.dtype).max
        scale, shift = (np.clip(a, -most, most) for a in (self.scale_, center))
        # In quarters, as the sum of two large numbers may be too large.
        found = values * values.new_tensor(scale / 4) + values.new_tensor(shift / 4)
        return found.clamp(-most / 4, most / 4) * 4

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes one safetensors file that `load_predictor` reads, whole or not at all.

        Raises:
            NotFittedError: `fit` was not called.
        """
        self._require_fit()
        tensors = {**self._tensors(), "center": self.center_, "scale": self.scale_}
        content = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "class": type(self).__name__,
            "space": self.space.fingerprint,
            "space_name": self.space.name,
            "options": {name: getattr(self, name) for name in self._options},
            "metrics": list(self.metrics_),
            "n_rows": self.n_rows_,
        }
        write_described(path, "predictor", content, tensors)

    # --- shared parts ---------------------------------------------------------------------------

    def _require_fit(self) -> None:
        if not hasattr(self, "metrics_"):
            raise NotFittedError(
                f"{type(self).__name__} must be fitted before it predicts: call fit first."
            )

    def _checked(self, codes: ArrayLike) -> Array:
        x = np.array(codes, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != self.space.width:
            raise SpaceError(f"codes must have shape (n, {self.space.width}), but got {x.shape}.")
        return x


def read_predictor(
    path: str | os.PathLike[str], space: CodeSpace, classes: Mapping[str, type[CodePredictor]]
) -> CodePredictor:
    """The predictor that `save` wrote to a file; `classes` are those that may be named there.

    Raises:
        FileFormatError: The file is truncated, changed, of another version or another space.
        OSError: There is no such file.
    """
    content, tensors = read_described(
        path, "predictor", kind=FORMAT, version=FORMAT_VERSION, what="a predictor's file"
    )
    with whole(path, "a predictor's file", tensors):
        if content["space"] != space.fingerprint:
            raise FileFormatError(
                f"{path} must be of the space {space.name}, but was fitted on another one, "
                f"{content['space_name']!s:.80}."
            )
        kinds = {kind.__name__: kind for kind in classes.values()}
        if content["class"] not in [*kinds]:
            raise FileFormatError(
                f"{path} must hold one of {', '.join(kinds)}, but holds {content['class']!r:.80}."
            )
        kind = kinds[content["class"]]
        predictor = kind(space, **kind._once | _options(content["options"]))
        names, n_rows = content["metrics"], content["n_rows"]
        texts = isinstance(names, list) and all(isinstance(name, str) for name in names)
        if not (texts and names and len({*names}) == len(names)):
            raise ValueError(f"metrics must be names that differ, not {names!r:.80}")
        if not (type(n_rows) is int and n_rows >= 2):
            raise ValueError(f"n_rows must be 2 or more, not {n_rows!r:.80}")
        checked_tensors(tensors, dict.fromkeys(("center", "scale"), (len(names),)))
        if (tensors["scale"] < 0).any():
            raise ValueError("scale must not be negative")
        predictor.metrics_, predictor.n_rows_ = tuple(names), n_rows
        predictor.center_, predictor.scale_ = tensors["center"], tensors["scale"]
        predictor._restore(tensors)
    return predictor


def _options(given: Any) -> dict[str, Any]:
    """The arguments of a constructor, numbers that a predictor can have.

    Raises:
        ValueError: One is no finite number from 0 on, or a larger one than any predictor needs.
    """
    for name, value in dict(given).items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not (number and 0 <= value <= _LARGEST_OPTION):
            raise ValueError(f"the option {name} must be a number from 0 on, not {value!r:.80}")
    return dict(given)
