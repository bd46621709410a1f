"""Regressors from few labelled networks: ridge and Gaussian process on frozen embeddings.

Notation: n labelled networks, d numbers of each embedding, X (n, k) the embeddings standardised
and weighted column by column and turned to k of their principal axes, y (n,) standardised labels,
1 a vector of ones. Both heads are a Gaussian process with an unknown constant mean m and the kernel

    k(x, x') = v x.x' / d + r exp(-|x - x'|^2 / (2 l^2 d)),  K = k(X, X) + s I

of which the ridge has v = 1 / lambda, r = 0 and s = 1. With c = 1^T K^-1 1 and
P = K^-1 - K^-1 1 1^T K^-1 / c (Rasmussen & Williams 2006, Eqs. 2.42, 2.45 and 5.12):

    mean(x) = m + k(x, X) P y,  m = 1^T K^-1 y / c
    var(x) = k(x, x) - k(x, X) K^-1 k(X, x) + (1 - 1^T K^-1 k(X, x))^2 / c + s
    y_i - mean_i without row i = (P y)_i / P_ii,  its variance = 1 / P_ii

The standard deviation is then scaled to agree with these leave-one-out errors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import NotFittedError
from typing_extensions import Self

from nni_aiop.errors import FileFormatError

__all__ = ["HEADS", "FewShotHead", "GPHead", "RidgeHead", "rescale_last_layer"]

Array = NDArray[np.float64]

_FEWEST = 3
# Columns that hardly vary among few networks may vary widely among others; and beyond some
# standard deviations the labels of a few say nothing.
_LEAST_SPREAD = 0.05
_FURTHEST = 4.0
_LAMBDAS = 10.0 ** np.arange(-3.0, 3.1, 0.25)
# Mean and standard deviation of the logarithms that a head expects of its hyperparameters: of few
# labels alone, the likelihood and leave-one-out errors too often choose to interpolate.
_LAMBDA_PRIOR = (np.log(0.3), 1.5)
_THETA_PRIOR = (np.log([0.5, 0.5, 1.0, 0.1]), np.array([1.5, 1.5, 0.5, 1.5]))
_BOUND = 6.0  # of the logarithms of v, r, l and s
_LEAST_ERROR = 1e-3  # mean square of standardised labels that counts as none


class FewShotHead(ABC):
    """What both heads share: everything but the choice of (v, r, l, s).

    Attributes:
        theta_: (4,) v, r, l and s of the kernel.
        scale_: What the standard deviation of the Gaussian process is multiplied with.
    """

    theta_: Array
    scale_: float

    #: Share of the variance of the standardised embeddings that the kept axes hold at least.
    _variance = 1.0
    #: Weight, in rows, of what the kernel says about the size of errors before it is fitted.
    _caution: float

    @abstractmethod
    def _choose(self, x: Array, y: Array) -> Array:
        """(4,) v, r, l and s."""

    @abstractmethod
    def _expected(self, p: Array) -> float:
        """The expected scale of the std, from the P_ii (n,)."""

    def fit(self, embeddings: ArrayLike, y: ArrayLike, weights: ArrayLike | None = None) -> Self:
        """This head, fitted; sensible from five networks, possible from three.

        Args:
            embeddings: (n, d) of each network, all finite.
            y: (n,) labels in any unit, all finite; larger n take n^3 time.
            weights: (d,) how much each column counts in products and distances; 1 by default.

        Raises:
            ValueError: Fewer than three rows, shapes that differ, or a number that is not finite.
        """
        rows, labels = np.asarray(embeddings, np.float64), np.asarray(y, np.float64)
        if rows.ndim != 2 or labels.shape != rows.shape[:1]:
            raise ValueError(
                "embeddings must have shape (n, d) and labels (n,), "
                f"but got {rows.shape} and {labels.shape}."
            )
        if len(rows) < _FEWEST:
            raise ValueError(f"at least {_FEWEST} networks must be labelled, but got {len(rows)}.")
        if not (np.isfinite(rows).all() and np.isfinite(labels).all()):
            raise ValueError("embeddings and labels must be finite, but got NaN or infinity.")
        self._center = rows.mean(axis=0)
        spread = rows.std(axis=0)
        known = spread > 1e-9 * np.abs(self._center)
        least = _LEAST_SPREAD * np.sqrt(np.mean(spread[known] ** 2)) if known.any() else 1.0
        # A column that never varied is left out: its spread counts as infinite.
        self._spread = np.where(known, np.maximum(spread, least), np.inf)
        self._weights = np.ones(rows.shape[1]) if weights is None else np.asarray(weights, float)
        x = self._standardised(rows)
        _, sizes, axes = np.linalg.svd(x, full_matrices=False)
        share = np.cumsum(sizes**2) / max(float((sizes**2).sum()), 1e-300)
        kept = (sizes > 1e-9 * sizes.max(initial=0.0)) & (share - share[0] < self._variance)
        self._axes = axes[kept]
        self._x = x @ self._axes.T
        self._label_center = float(labels.mean())
        constant = np.ptp(labels) <= 1e-12 * abs(self._label_center)
        self._label_scale = 0.0 if constant else float(labels.std(ddof=1))
        self._y = (labels - self._label_center) / (self._label_scale or 1.0)
        self.theta_ = self._choose(self._x, self._y)
        self._prepare()
        self.scale_ = self._calibrated()
        return self

    def predict(self, embeddings: ArrayLike) -> tuple[Array, Array]:
        """Means and standard deviations (n,) of labels of networks with embeddings (n, d).

        The standard deviation is that of a measurement, its noise included; where all labels of
        the fit were the same it is 0.

        Raises:
            NotFittedError: `fit` was not called.
            ValueError: The embeddings have another width or are not finite.
        """
        self._require_fit()
        rows = np.asarray(embeddings, np.float64)
        if rows.ndim != 2 or rows.shape[1] != len(self._center):
            raise ValueError(
                f"embeddings must have shape (n, {len(self._center)}), but got {rows.shape}."
            )
        if not np.isfinite(rows).all():
            raise ValueError("embeddings must be finite, but got NaN or infinity.")
        x = self._standardised(rows) @ self._axes.T
        v, r, _, s = self.theta_
        across = _kernel(self.theta_, x, self._x)
        mean = self._mean + across @ self._alpha
        known = ((across @ self._inverse) * across).sum(axis=1)
        of_mean = (1 - across @ self._ones) ** 2 / self._ones.sum()
        # The two lengths differ by rounding alone where the row is one of the fit.
        variance = np.maximum(v * (x**2).sum(axis=1) + r - known, 0.0) + of_mean + s
        return (
            self._label_center + self._label_scale * mean,
            self._label_scale * self.scale_ * np.sqrt(variance),
        )

    def left_out_errors(self) -> Array:
        """(n,) label less prediction of each network of the fit, by all the others.

        Raises:
            NotFittedError: `fit` was not called.
        """
        self._require_fit()
        return np.asarray(self._label_scale * self._alpha / self._left_out_precision)

    @property
    def _left_out_precision(self) -> Array:
        """(n,) P_ii."""
        return np.asarray(self._inverse.diagonal() - self._ones**2 / self._ones.sum())

    def to_arrays(self) -> dict[str, Array]:
        """What was learned, as named float64 arrays (for a safetensors file).

        Raises:
            NotFittedError: `fit` was not called.
        """
        self._require_fit()
        return {
            "center": self._center,
            "spread": self._spread,
            "weights": self._weights,
            "axes": self._axes,
            "x": self._x,
            "y": self._y,
            "theta": self.theta_,
            "scalars": np.array([self._label_center, self._label_scale, self.scale_]),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.float64]]) -> Self:
        """The head that `to_arrays` described; it predicts the same.

        Raises:
            FileFormatError: An array is missing or has a shape that does not fit the others.
        """
        try:
            center, axes, x = arrays["center"], arrays["axes"], arrays["x"]
            shapes = {
                "center": (len(center),),
                "spread": (len(center),),
                "weights": (len(center),),
                "axes": (len(axes), len(center)),
                "x": (len(x), len(axes)),
                "y": (len(x),),
                "theta": (4,),
                "scalars": (3,),
            }
            broken = [name for name, shape in shapes.items() if arrays[name].shape != shape]
        except (KeyError, TypeError) as err:
            raise FileFormatError(f"a few-shot head must be whole, but lacks {err}.") from err
        if broken:
            raise FileFormatError(
                f"arrays of a few-shot head must fit each other, but {broken[0]!r} has shape "
                f"{arrays[broken[0]].shape} instead of {shapes[broken[0]]}."
            )
        head = cls()
        head._center, head._spread, head._axes = center, arrays["spread"], axes
        head._weights = arrays["weights"]
        head._x, head._y, head.theta_ = x, arrays["y"], arrays["theta"]
        head._label_center, head._label_scale, head.scale_ = arrays["scalars"].tolist()
        head._prepare()
        return head

    def _standardised(self, rows: Array) -> Array:
        """(n, d) standardised rows, scaled so that products are weighted means over columns."""
        z = np.clip((rows - self._center) / self._spread, -_FURTHEST, _FURTHEST)
        counted = self._weights[np.isfinite(self._spread)].sum()
        return np.asarray(z * np.sqrt(self._weights / (counted or 1.0)))

    def _prepare(self) -> None:
        """What every prediction needs of K."""
        self._inverse = np.linalg.inv(_covariance(self.theta_, self._x))
        self._ones = self._inverse.sum(axis=1)  # K^-1 1
        self._mean = float(self._ones @ self._y / self._ones.sum())
        self._alpha = self._inverse @ (self._y - self._mean)  # P y

    def _calibrated(self) -> float:
        """The scale of the std at which leave-one-out errors are as large as they should be.

        The fewer rows, the more it keeps to the expected scale (a geometric mean with `_caution`
        rows of it), and the wider it is, as Student's t is against the normal: mean, scale and
        kernel were learned of the same rows. The widths were chosen by the coverage measured on
        NAS-Bench-MR with 5 to 50 labels.
        """
        from scipy.stats import norm, t

        if self._label_scale == 0:
            return 1.0
        n = len(self._y)
        p = self._left_out_precision
        found = float(np.mean((self._alpha / p) ** 2) / np.mean(1 / p))
        weight = n / (n + self._caution)
        scale = found ** (weight / 2) * self._expected(p) ** (1 - weight)
        wider = t.ppf(0.9, max(n - 3, 1)) / norm.ppf(0.9) * np.sqrt(1 + _FEWEST / n)
        return float(scale * wider)

    def _require_fit(self) -> None:
        if not hasattr(self, "scale_"):
            raise NotFittedError(
                f"{type(self).__name__} must be fitted before it predicts: call fit first."
            )


class RidgeHead(FewShotHead):
    """Linear regression with a penalty `lambda |w|^2` on weights of standardised embeddings.

    Of a grid, that lambda is chosen whose mean squared leave-one-out error is least, with a weak
    prior that decides where labels are few.
    """

    _caution = 3.0

    def _choose(self, x: Array, y: Array) -> Array:
        n = len(y)
        sizes, u = np.linalg.eigh(x @ x.T)
        scores = []
        for value in _LAMBDAS:
            shrunk = 1 / (np.maximum(sizes, 0.0) / value + 1)
            ones = u @ (shrunk * u.sum(axis=0))
            alpha = u @ (shrunk * (u.T @ y)) - ones * (ones @ y) / ones.sum()
            error = np.mean((alpha / (u**2 @ shrunk - ones**2 / ones.sum())) ** 2)
            prior = ((np.log(value) - _LAMBDA_PRIOR[0]) / _LAMBDA_PRIOR[1]) ** 2
            scores.append(n * np.log(error + _LEAST_ERROR) + prior)
        return np.array([1 / _LAMBDAS[int(np.argmin(scores))], 0.0, 1.0, 1.0])

    def _expected(self, p: Array) -> float:
        # s = 1 has no meaning of its own: errors are expected as large as the labels' spread.
        return float(np.sqrt(np.median(p)))


class GPHead(FewShotHead):
    """A Gaussian process whose kernel is linear plus RBF, on the principal axes of the embeddings.

    The kernel has the highest posterior density: the restricted marginal likelihood (that of P,
    which leaves the unknown mean out) times weak log-normal priors.
    """

    _variance = 0.999
    _caution = 10.0

    def _choose(self, x: Array, y: Array) -> Array:
        from scipy.optimize import minimize

        center, width = _THETA_PRIOR
        linear, distance = x @ x.T, _square_distance(x, x)

        def negative_log_density(theta: Array) -> tuple[float, Array]:
            v, r, length, s = np.exp(theta)
            smooth = r * np.exp(-distance / (2 * length**2))
            k = v * linear + smooth + s * np.eye(len(y))
            inverse = np.linalg.inv(k)
            ones = inverse.sum(axis=1)
            p = inverse - np.outer(ones, ones) / ones.sum()
            alpha = p @ y
            away = (theta - center) / width
            value = y @ alpha + np.linalg.slogdet(k)[1] + np.log(ones.sum()) + away @ away
            pull = p - np.outer(alpha, alpha)
            slopes = (v * linear, smooth, smooth * distance / length**2, s * np.eye(len(y)))
            gradient = [float((pull * slope).sum()) for slope in slopes]
            return value / 2, (np.array(gradient) + 2 * away / width) / 2

        bounds = [(-_BOUND, _BOUND)] * len(center)
        found = minimize(negative_log_density, center, jac=True, method="L-BFGS-B", bounds=bounds)
        return np.asarray(np.exp(found.x))

    def _expected(self, p: Array) -> float:
        return 1.0


HEADS: dict[str, type[FewShotHead]] = {"ridge": RidgeHead, "gp": GPHead}
"""Every few-shot head by its name."""


def rescale_last_layer(
    inputs: ArrayLike, weights: ArrayLike, bias: float, y: ArrayLike, lam: float
) -> Array:
    """(d,) weights of a regressor's last layer, rescaled to a new task as AdaProxy does.

    The new weights are (alpha 1 + b) o w, where o multiplies element by element, with the scalar
    alpha and the vector b (d,) of the least |((alpha 1 + b) o w)^T x + bias - y|^2 + lam |b|_1,
    summed over the networks. alpha is the best for any b, which leaves a lasso in b alone; where
    every w^T x is 0, alpha is 1.

    Source: Lu et al. 2021, "One Proxy Device Is Enough for Hardware-Aware Neural Architecture
    Search" (AdaProxy), as AIO-P writes it in its section on fine-tuning.

    Args:
        inputs: (n, d) inputs x of the last layer.
        weights: (d,) its weights w.
        bias: Its bias, which stays.
        y: (n,) labels, on the scale of the layer's output.
        lam: Weight of the penalty, not negative; 0 takes the smallest b that fits best.

    Raises:
        ValueError: Shapes that do not fit, no network, a number that is not finite, or lam < 0.
    """
    x, w = np.asarray(inputs, np.float64), np.asarray(weights, np.float64)
    target = np.asarray(y, np.float64) - bias
    if w.ndim != 1 or x.shape != (len(target), len(w)) or target.ndim != 1 or not len(target):
        raise ValueError(
            "inputs must have shape (n, d), weights (d,) and labels (n,) with n >= 1, "
            f"but got {x.shape}, {w.shape} and {target.shape}."
        )
    if not all(np.isfinite(part).all() for part in (x, w, target)):
        raise ValueError("inputs, weights, bias and labels must be finite, but one is not.")
    if not lam >= 0:
        raise ValueError(f"lam must not be negative, but got {lam}.")
    parts = x * w
    output = parts.sum(axis=1)
    length = output @ output
    if length == 0:
        alpha_of, rest, left = np.zeros(len(w)), parts, target
        alpha = 1.0
    else:
        alpha_of = output @ parts / length  # by how much alpha falls as b grows
        alpha = float(output @ target / length)
        rest, left = parts - np.outer(output, alpha_of), target - alpha * output
    b = _lasso(rest, left, lam)
    return np.asarray((alpha - alpha_of @ b + b) * w)


def _lasso(x: Array, y: Array, lam: float) -> Array:
    """(d,) b of the least |x b - y|^2 + lam |b|_1."""
    from sklearn.linear_model import Lasso

    if lam == 0:
        return np.asarray(np.linalg.lstsq(x, y, rcond=1e-10)[0])
    solver = Lasso(lam / (2 * len(y)), fit_intercept=False, tol=1e-6, max_iter=100_000)
    return np.asarray(solver.fit(x, y).coef_)


def _square_distance(a: Array, b: Array) -> Array:
    lengths = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)
    return np.asarray(np.maximum(lengths - 2 * a @ b.T, 0.0))


def _kernel(theta: Array, a: Array, b: Array) -> Array:
    v, r, length, _ = theta
    linear: Array = v * (a @ b.T)
    if not r:
        return linear
    smooth: Array = r * np.exp(-_square_distance(a, b) / (2 * length**2))
    return linear + smooth


def _covariance(theta: Array, x: Array) -> Array:
    return np.asarray(_kernel(theta, x, x) + theta[3] * np.eye(len(x)))
