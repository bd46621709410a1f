"""The default predictor: an exact Gaussian process on codes and features.

Notation, for one metric: X (n, p) standardised inputs, y (n,) standardised targets, k a kernel,
s2 the noise variance, w (n,) noise multipliers (1 but for outliers), K = k(X, X) + s2 diag(w).

    mean(x) = k(x, X) a,  a = K^-1 y
    var(x) = k(x, x) - k(x, X) K^-1 k(X, x) + s2          (Rasmussen & Williams 2006, Eqs. 2.25-26)
    y_i - mean_i without row i = a_i / (K^-1)_ii,
    its variance = 1 / (K^-1)_ii                          (the same, Eqs. 5.12)

The kernel is Matern's with nu = 5/2, v (1 + r + r^2 / 3) exp(-r) in
r^2 = 5 sum_j (x_j - x'_j)^2 / l_j^2, with a length scale l_j for every input.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from nni_aiop.files import checked_tensors
from nni_aiop.predictors._base import Array, CodePredictor

if TYPE_CHECKING:
    from nni_aiop.spaces import CodeSpace

_JITTER = 1e-6  # added to the noise variance, of standardised targets
_OUTLIER = 3.0  # standard deviations beyond which a row's noise is taken to be larger
_CODE_BESIDE_FEATURES = 1.5  # how much longer the log length scales of codes with features are
_LARGEST_THETA = 100.0  # of a file; a fit stays within 9 of 0, or as far as its prior
_Z80 = 1.2815515655446004  # half width of the central 80 % of a standard normal


class CodeGP(CodePredictor):
    """An exact Gaussian process for each metric, with a length scale for every input.

    Its inputs are the code and `space.features`. Hyperparameters maximise the posterior density
    (the marginal likelihood times weak priors) on a random subset of rows and are then refined on
    all, from which it predicts. Rows with a leave-one-out error beyond three standard deviations
    get a larger noise. The predicted standard deviation is scaled so that 80 % of the leave-one-out
    errors lie within their 80 % intervals, and a little wider where rows are few.

    Args:
        space: Whose codes it reads.
        rows: At most so many rows choose the hyperparameters; all refine them.
        steps: At most so many evaluations of the posterior density choose, a third as many refine.
        length: Expected length scale, in standard deviations of an input, of a single input; of
            several it grows with the square root of their number.
        doubt: Standard deviation of the prior of the logarithms of length scales: how far a metric
            may be from depending on everything alike.
        noise: Expected share of noise in the variance of a metric.
        seed: Of the choice of rows.
    """

    _options = ("rows", "steps", "length", "doubt", "noise", "seed")

    def __init__(
        self,
        space: CodeSpace,
        *,
        rows: int = 1000,
        steps: int = 60,
        length: float = 4.5,
        doubt: float = 0.5,
        noise: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__(space, seed=seed)
        self.rows = rows
        self.steps = steps
        self.length = length
        self.doubt = doubt
        self.noise = noise
        if not all(math.isfinite(n) and n > 0 for n in (length, doubt, noise)):
            raise ValueError(
                f"length, doubt and noise must be positive, but got {length}, {doubt}, {noise}."
            )

    def _inputs(self, codes: Tensor) -> Tensor:
        """(n, p) the code and its features, not standardised."""
        if self.space.features is None:
            return codes
        return torch.cat([codes, self.space.features(codes)], dim=1)

    def _fit(self, codes: Array, targets: Array) -> None:
        with torch.no_grad():
            x = self._inputs(torch.as_tensor(codes))
        self._center = x.mean(0).numpy()
        spread = x.std(0, correction=0).numpy()
        self._spread = np.where(spread > 1e-9, spread, 1.0)
        x = (x - torch.as_tensor(self._center)) / torch.as_tensor(self._spread)
        rows = np.random.default_rng(self.seed).permutation(len(x))[: self.rows]
        mean = np.array([0.0, *self._expected_scales(), np.log(self.noise)])
        prior = mean, np.array([2.0, *[self.doubt] * x.shape[1], 2.0])
        fits = [
            _fit_one(x, torch.as_tensor(column.copy()), rows, self.steps, prior)
            for column in targets.T
        ]
        self._x = x.numpy()
        self._theta, self._alpha, self._weights, self._inflation = (
            np.stack(part) for part in zip(*fits, strict=True)
        )
        self._prepare()

    def believing(self, codes: ArrayLike) -> CodeGP:
        """A copy that was told its own mean at codes (n, width): it predicts the same, more surely.

        Raises:
            NotFittedError: `fit` was not called.
            SpaceError: The codes have another width.
        """
        self._require_fit()
        with torch.no_grad():
            x = self._inputs(torch.as_tensor(self._checked(codes))).numpy()
        told = copy.copy(self)
        told._x = np.concatenate([self._x, (x - self._center) / self._spread])
        m, n = len(self._alpha), len(x)
        # K^-1 y does not change where y is what was predicted: the new rows pull at nothing.
        told._alpha = np.concatenate([self._alpha, np.zeros((m, n))], axis=1)
        told._weights = np.concatenate([self._weights, np.ones((m, n))], axis=1)
        told._prepare()
        return told

    @property
    def noise_std_(self) -> Array:
        """(m,) the part of the predicted standard deviations that is noise of a measurement."""
        noise = np.exp(self._theta[:, -1]) + _JITTER
        return np.asarray(self._inflation * np.sqrt(noise) * self.scale_)

    def leave_one_out_log_density(self) -> Array:
        """(n, m) log density of each row's standardised target, predicted from the other rows."""
        x, columns = torch.as_tensor(self._x), []
        for theta, alpha, weights in zip(self._theta, self._alpha, self._weights, strict=True):
            inverse, noise = _inverse(theta, x, torch.as_tensor(weights))
            variance = 1 / inverse.diagonal() - noise + float(np.exp(theta[-1])) + _JITTER
            error = torch.as_tensor(alpha) / inverse.diagonal()
            columns.append(-0.5 * (error.square() / variance + (2 * np.pi * variance).log()))
        return torch.stack(columns, dim=1).numpy()

    def _expected_scales(self) -> Array:
        """(p,) the logarithms of the length scales that the prior expects.

        They grow with the square root of the number of inputs, so that any two rows stay as similar
        (Hvarfner et al. 2024, "Vanilla Bayesian optimization performs great in high dimensions").
        Features are chosen with knowledge of the space: beside them a raw code matters less.
        """
        p, width = len(self._center), self.space.width
        long = math.log(self.length)
        if p == width:
            return np.full(p, long + np.log(p) / 2)
        scales = np.full(p, long + np.log(p - width) / 2)
        scales[:width] += _CODE_BESIDE_FEATURES
        return scales

    def _prepare(self) -> None:
        """What every prediction needs, in both precisions; factors of K are made when asked."""
        self._ready: dict[tuple[torch.dtype, int], tuple[Tensor, ...]] = {}
        self._factors: dict[int, Tensor] = {}
        for dtype in (torch.float32, torch.float64):
            for j, theta in enumerate(self._theta):
                inverse = np.exp(-theta[1:-1])
                self._ready[dtype, j] = (
                    torch.as_tensor(self._x * inverse, dtype=dtype),
                    torch.as_tensor(self._alpha[j] * np.exp(theta[0]), dtype=dtype),
                    torch.as_tensor(inverse / self._spread, dtype=dtype),
                )

    def _factor(self, j: int) -> Tensor:
        """(n, n) Cholesky factor of K of metric j."""
        if j not in self._factors:
            theta = torch.as_tensor(self._theta[j])
            x, _, _ = self._ready[torch.float64, j]
            noise = theta[-1].exp() * torch.as_tensor(self._weights[j]) + _JITTER
            k = theta[0].exp() * _correlation(_square_distance(x, x))
            self._factors[j] = torch.linalg.cholesky(k + torch.diag(noise))
        return self._factors[j]

    def _standardised(self, codes: Tensor, *, with_std: bool) -> tuple[Tensor, Tensor | None]:
        inputs = self._inputs(codes) - codes.new_tensor(self._center)
        means, stds = [], []
        for j, theta in enumerate(self._theta):
            x, alpha, inverse = self._ready[codes.dtype, j]
            scaled = inputs * inverse
            if not with_std:
                mean: Tensor = _Mean.apply(scaled, x, alpha)  # type: ignore[no-untyped-call]
                means.append(mean)
                continue
            across = _correlation(_square_distance(scaled, x))
            means.append(across @ alpha)
            signal, noise = float(np.exp(theta[0])), float(np.exp(theta[-1])) + _JITTER
            factor = self._factor(j).to(codes.dtype)
            known = torch.linalg.solve_triangular(factor, signal * across.T, upper=False)
            variance = (signal - known.square().sum(0)).clamp_min(0.0) + noise
            stds.append(float(self._inflation[j]) * variance.sqrt())
        return torch.stack(means, 1), torch.stack(stds, 1) if with_std else None

    def _tensors(self) -> dict[str, NDArray[Any]]:
        return {
            "x": self._x,
            "input_center": self._center,
            "input_spread": self._spread,
            "theta": self._theta,
            "alpha": self._alpha,
            "weights": self._weights,
            "inflation": self._inflation,
        }

    def _restore(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        n, m = self.n_rows_, len(self.metrics_)
        width = self._inputs(torch.zeros(1, self.space.width, dtype=torch.float64)).shape[1]
        if tensors["x"].shape[1:] != (width,):
            raise ValueError(
                f"codes and features must have {tensors['x'].shape[-1]} columns as at the fit, "
                f"but {self.space.name} now has {width}"
            )
        checked_tensors(
            tensors,
            {
                "x": (n, width),
                "input_center": (width,),
                "input_spread": (width,),
                "theta": (m, width + 2),
                "alpha": (m, n),
                "weights": (m, n),
                "inflation": (m,),
            },
        )
        if not all((tensors[name] > 0).all() for name in ("input_spread", "weights", "inflation")):
            raise ValueError("spreads, weights and inflations must be positive")
        if not (np.abs(tensors["theta"]) <= _LARGEST_THETA).all():
            raise ValueError(f"theta must lie within {_LARGEST_THETA:g} of 0")
        self._x, self._center = tensors["x"], tensors["input_center"]
        self._spread, self._theta = tensors["input_spread"], tensors["theta"]
        self._alpha, self._weights = tensors["alpha"], tensors["weights"]
        self._inflation = tensors["inflation"]
        self._prepare()


def _square_distance(a: Tensor, b: Tensor) -> Tensor:
    lengths = a.square().sum(1)[:, None] + b.square().sum(1)
    return torch.addmm(lengths, a, b.T, alpha=-2).clamp_min(0.0)


def _correlation(square_distance: Tensor) -> Tensor:
    r = (5 * square_distance + 1e-12).sqrt()  # a root of 0 has no gradient
    return (1 + r + r.square() / 3) * torch.exp(-r)


class _Mean(Function):
    """k(a, b) alpha with its gradient in a, worked out beside it for speed."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, alpha: Tensor) -> Tensor:
        r = _square_distance(a, b).mul_(5).sqrt_()
        weighted = torch.exp(-r).mul_(alpha)
        pull = weighted * (1 + r)
        if ctx.needs_input_grad[0]:
            # d/da_i of the kernel: -5/3 (1 + r) exp(-r) (a_i - b)
            ctx.save_for_backward((pull @ b - pull.sum(1, keepdim=True) * a) * (5 / 3))
        return pull.addcmul_(weighted, r.square_(), value=1 / 3).sum(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return gradient[:, None] * slope, None, None


def _fit_one(
    x: Tensor, y: Tensor, rows: NDArray[np.int64], steps: int, prior: tuple[Array, Array]
) -> tuple[Array, Array, Array, Array]:
    """Hyperparameters theta = (log v, log l_1..p, log s2), a, w and the inflation of the std.

    Args:
        x: (n, p) standardised inputs.
        y: (n,) standardised targets.
        rows: Indices of those that choose the hyperparameters.
        steps: Evaluations of the posterior density.
        prior: (p + 2,) mean and standard deviation of theta.
    """
    n, p = x.shape
    theta = prior[0]
    weights = torch.ones_like(y)
    if not y.any():
        return theta, np.zeros(n), weights.numpy(), np.ones(())
    for budget in (steps, *[steps // 3] * 4):
        theta = _maximise(theta, x[rows], y[rows], weights[rows], budget, prior)
        _, z = _leave_one_out(theta, x, y, weights)
        # By their quantile, errors are measured in a unit that the outliers did not stretch.
        unit = min(1.0, torch.quantile(z.abs(), 0.8).item() / _Z80)
        outliers = (z / (_OUTLIER * unit)).square().clamp_min(1.0)
        settled = bool(((outliers < 2 * weights) & (weights < 2 * outliers)).all())
        weights = outliers
        if settled:
            break
    if len(rows) < n:
        theta = _maximise(theta, x, y, weights, steps // 3, prior)
    alpha, z = _leave_one_out(theta, x, y, weights)
    found = torch.quantile(z.abs(), 0.8).item() / _Z80
    # A quantile of few errors says little: it counts by their number. And hyperparameters fit few
    # rows too well: the std widens as in Akaike's final prediction error; of a parameter, which the
    # prior holds, a third counts (by cross-validation of the coverage).
    inflation = np.clip(found, 0.5, 2.0) ** (n / (n + 50)) * np.sqrt(1 + min(p, n) / (3 * n))
    return theta, alpha.numpy(), weights.numpy(), np.asarray(inflation)


def negative_log_density(
    theta: Array, x: Tensor, y: Tensor, weights: Tensor, prior: tuple[Array, Array]
) -> tuple[float, Array]:
    """-log p(y | x, theta) p(theta) up to a constant, and its gradient in theta (p + 2,).

    Args:
        theta: (p + 2,) log v, log l_1..p, log s2.
        x: (n, p) standardised inputs.
        y: (n,) standardised targets.
        weights: (n,) noise multipliers.
        prior: (p + 2,) mean and standard deviation of theta, normal.
    """
    t = torch.as_tensor(theta)
    mean, std = (torch.as_tensor(part) for part in prior)
    scaled = x * torch.exp(-t[1:-1])
    r = (5 * _square_distance(scaled, scaled) + 1e-12).sqrt()
    decay = t[0].exp() * torch.exp(-r)
    k = (1 + r + r.square() / 3) * decay
    noise = t[-1].exp() * weights
    factor = torch.linalg.cholesky(k + torch.diag(noise + _JITTER))
    inverse = torch.cholesky_inverse(factor)
    alpha = inverse @ y
    fit = 0.5 * y @ alpha + factor.diagonal().log().sum()
    unlikely = 0.5 * ((t - mean) / std).square().sum()
    # dL/dK, whose sum of products with dK/dtheta is the gradient of the likelihood (Eq. 5.9).
    slope = 0.5 * (inverse - torch.outer(alpha, alpha))
    # dK/dlog l_j = 5/3 v (1 + r) exp(-r) (x_j - x'_j)^2 / l_j^2
    pull = slope * (5 / 3) * (1 + r) * decay
    lengths = 2 * (scaled.square().T @ pull.sum(1) - (scaled * (pull @ scaled)).sum(0))
    gradient = torch.cat([(slope * k).sum()[None], lengths, (slope.diagonal() @ noise)[None]])
    return float(fit + unlikely), (gradient + (t - mean) / std.square()).numpy()


def _maximise(
    theta: Array,
    x: Tensor,
    y: Tensor,
    weights: Tensor,
    steps: int,
    prior: tuple[Array, Array],
) -> Array:
    """The theta of the highest posterior density that L-BFGS finds from a given one."""
    bounds = [(-6.0, 6.0), *[(-4.0, 9.0)] * x.shape[1], (-9.0, 3.0)]
    found = minimize(
        lambda values: negative_log_density(values, x, y, weights, prior),
        theta,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxfun": steps, "maxiter": steps},
    )
    return np.asarray(found.x)


def _leave_one_out(theta: Array, x: Tensor, y: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """a, and each row's leave-one-out error in standard deviations of an ordinary row."""
    inverse, noise = _inverse(theta, x, weights)
    alpha = inverse @ y
    spread = 1 / inverse.diagonal() - noise + float(np.exp(theta[-1])) + _JITTER
    return alpha, alpha / inverse.diagonal() / spread.sqrt()


def _inverse(theta: Array, x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """K^-1 (n, n), and the noise variance of each row (n,)."""
    t = torch.as_tensor(theta)
    scaled = x * torch.exp(-t[1:-1])
    noise = t[-1].exp() * weights + _JITTER
    k = t[0].exp() * _correlation(_square_distance(scaled, scaled))
    return torch.cholesky_inverse(torch.linalg.cholesky(k + torch.diag(noise))), noise
