"""Hyperparameters of a Gaussian process, and what its rows then weigh.

Notation, for one metric: X (n, p) standardised inputs, y (n,) standardised targets, k a kernel,
s2 the noise variance, w (n,) noise multipliers (1 but for outliers), K = k(X, X) + s2 diag(w),
theta = (log v, log l_1..p, log s2).

    y_i - mean_i without row i = a_i / (K^-1)_ii,  a = K^-1 y,
    its variance = 1 / (K^-1)_ii                          (Rasmussen & Williams 2006, Eqs. 5.12)

Of more rows than K^-1 is worked out for, a row's variance is that of its nearest rows alone:
k(x, x) - k(x, N) K_N^-1 k(N, x), as in nearest-neighbour Gaussian processes (Vecchia 1988; Datta et
al. 2016), while the mean is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from nni_aiop.predictors._base import Array

__all__ = [
    "JITTER",
    "Choice",
    "Fit",
    "KernelMean",
    "correlation",
    "extended",
    "fit_one",
    "inverse_of",
    "leave_one_out",
    "nearest",
    "negative_log_density",
    "square_distance",
]

JITTER = 1e-6  # added to the noise variance, of standardised targets

_OUTLIER = 3.0  # standard deviations beyond which a row's noise is taken to be larger
_Z80 = 1.2815515655446004  # half width of the central 80 % of a standard normal
_COARSE = 500  # rows that choose before more rows do
_NEAR = 32  # rows that decide about a variance where there are many
_NEARER = 16  # rows that tell whether one is an outlier there
_CHECKED = 200  # rows that are left out to see how far off predictions are, where there are many
_BLOCK = 512  # rows that are looked at together


@dataclass(frozen=True)
class Choice:
    """How hyperparameters are chosen.

    Attributes:
        rows: At most so many rows choose.
        refined: At most so many refine what was chosen, once.
        exact: Up to so many rows K^-1 is worked out.
        steps: Evaluations of the posterior density that choose; a third as many refine.
        mean: (p + 2,) mean of the prior of theta.
        std: (p + 2,) its standard deviation.
    """

    rows: int
    refined: int
    exact: int
    steps: int
    mean: Array
    std: Array

    @property
    def prior(self) -> tuple[Array, Array]:
        return self.mean, self.std


@dataclass(frozen=True)
class Fit:
    """What was learned of one metric.

    Attributes:
        theta: (p + 2,) log v, log l_1..p, log s2.
        alpha: (n,) K^-1 y.
        weights: (n,) noise multipliers.
        inflation: By how much the predicted standard deviation is too small.
    """

    theta: Array
    alpha: Array
    weights: Array
    inflation: float


def square_distance(a: Tensor, b: Tensor) -> Tensor:
    """(n, m) of the rows of (n, p) and (m, p)."""
    lengths = a.square().sum(1)[:, None] + b.square().sum(1)
    return torch.addmm(lengths, a, b.T, alpha=-2).clamp_min(0.0)


def correlation(square_distance: Tensor) -> Tensor:
    """Matern's with nu = 5/2 at squared distances in length scales."""
    r = (5 * square_distance + 1e-12).sqrt()  # a root of 0 has no gradient
    return (1 + r + r.square() / 3) * torch.exp(-r)


class KernelMean(Function):
    """k(a, b) alpha with its gradient in a, worked out beside it for speed."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, alpha: Tensor) -> Tensor:
        r = square_distance(a, b).mul_(5).sqrt_()
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


# --- hyperparameters ------------------------------------------------------------------------------


def fit_one(x: Tensor, y: Tensor, order: NDArray[np.int64], how: Choice, start: Any = None) -> Fit:
    """What is learned of one metric.

    Args:
        x: (n, p) standardised inputs.
        y: (n,) standardised targets.
        order: Indices of all rows; the first ones choose.
        how: How.
        start: (p + 2,) theta of an earlier fit on fewer rows, from which the choice goes on; None
            to begin with the prior's mean.
    """
    n = len(x)
    if not y.any():
        return Fit(how.mean, np.zeros(n), np.ones(n), 1.0)
    rows = order[: how.rows]
    theta, weights = how.mean, torch.ones_like(y)
    budgets: tuple[int, ...]
    if start is not None:
        theta, budgets = np.asarray(start, dtype=np.float64), (how.steps // 3, how.steps // 6)
    else:
        budgets = how.steps, *[how.steps // 3] * 4
        if len(rows) > _COARSE:
            few = rows[:_COARSE]
            theta = _maximise(theta, x[few], y[few], weights[few], how.steps, how)
            budgets = budgets[1:]
    whole = len(rows) == n
    for budget in budgets:
        theta = _maximise(theta, x[rows], y[rows], weights[rows], budget, how)
        part = np.arange(n) if whole else rows
        found = _outliers(_left_out(theta, x[part], y[part], weights[part], how.exact))
        settled = bool(((found < 2 * weights[part]) & (weights[part] < 2 * found)).all())
        weights[part] = found
        if settled:
            break
    if not whole:
        weights = _outliers(_left_out(theta, x, y, torch.ones_like(y), how.exact))
    more = order[: how.refined]
    if len(more) > len(rows) and start is None:
        theta = _maximise(theta, x[more], y[more], weights[more], how.steps // 3, how)
    alpha, z = _solved(theta, x, y, weights, order, how.exact)
    found80 = torch.quantile(z.abs(), 0.8).item() / _Z80
    p = x.shape[1]
    # A quantile of few errors says little: it counts by their number. And hyperparameters fit few
    # rows too well: the std widens as in Akaike's final prediction error; of a parameter, which the
    # prior holds, a third counts (by cross-validation of the coverage).
    inflation = np.clip(found80, 0.5, 2.0) ** (n / (n + 50)) * np.sqrt(1 + min(p, n) / (3 * n))
    return Fit(theta, alpha.numpy(), weights.numpy(), float(inflation))


def _outliers(z: Tensor) -> Tensor:
    """(n,) noise multipliers by leave-one-out errors in standard deviations."""
    # By their quantile, errors are measured in a unit that the outliers did not stretch.
    unit = min(1.0, torch.quantile(z.abs(), 0.8).item() / _Z80)
    return (z / (_OUTLIER * unit)).square().clamp_min(1.0)


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
    r = (5 * square_distance(scaled, scaled) + 1e-12).sqrt()
    decay = t[0].exp() * torch.exp(-r)
    k = (1 + r + r.square() / 3) * decay
    noise = t[-1].exp() * weights
    factor = torch.linalg.cholesky(k + torch.diag(noise + JITTER))
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
    theta: Array, x: Tensor, y: Tensor, weights: Tensor, steps: int, how: Choice
) -> Array:
    """The theta of the highest posterior density that L-BFGS finds from a given one."""
    bounds = [(-6.0, 6.0), *[(-4.0, 9.0)] * x.shape[1], (-9.0, 3.0)]
    found = minimize(
        lambda values: negative_log_density(values, x, y, weights, how.prior),
        theta,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxfun": steps, "maxiter": steps},
    )
    return np.asarray(found.x)


# --- leaving one out ------------------------------------------------------------------------------


def leave_one_out(theta: Array, x: Tensor, y: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """a, and each row's leave-one-out error in standard deviations of an ordinary row."""
    inverse, noise = inverse_of(theta, x, weights)
    alpha = inverse @ y
    spread = 1 / inverse.diagonal() - noise + float(np.exp(theta[-1])) + JITTER
    return alpha, alpha / inverse.diagonal() / spread.sqrt()


def inverse_of(theta: Array, x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """K^-1 (n, n), and the noise variance of each row (n,)."""
    t = torch.as_tensor(theta)
    scaled = x * torch.exp(-t[1:-1])
    noise = t[-1].exp() * weights + JITTER
    k = t[0].exp() * correlation(square_distance(scaled, scaled))
    return torch.cholesky_inverse(torch.linalg.cholesky(k + torch.diag(noise))), noise


def _left_out(theta: Array, x: Tensor, y: Tensor, weights: Tensor, exact: int) -> Tensor:
    """(n,) leave-one-out errors in standard deviations, of many rows by their nearest ones."""
    if len(x) <= exact:
        return leave_one_out(theta, x, y, weights)[1]
    scaled, signal, noise = _units(theta, x, weights)
    ordinary = float(np.exp(theta[-1])) + JITTER
    out = torch.empty_like(y)
    for start in range(0, len(x), _BLOCK):
        rows = torch.arange(start, min(start + _BLOCK, len(x)))
        near, gain, variance = nearest(scaled[rows], scaled, signal, noise, without=rows, k=_NEARER)
        out[rows] = (y[rows] - (gain * y[near]).sum(1)) / (variance + ordinary).sqrt()
    return out


def _solved(
    theta: Array, x: Tensor, y: Tensor, weights: Tensor, order: NDArray[np.int64], exact: int
) -> tuple[Tensor, Tensor]:
    """a (n,), and leave-one-out errors in predicted standard deviations, of some where many."""
    if len(x) <= exact:
        return leave_one_out(theta, x, y, weights)
    scaled, signal, noise = _units(theta, x, weights)
    n = len(x)
    k = np.zeros((n, n))
    for start in range(0, n, _BLOCK):
        rows, before = slice(start, start + _BLOCK), slice(0, start + _BLOCK)
        k[rows, before] = correlation(square_distance(scaled[rows], scaled[before])) * signal
    k.ravel()[:: n + 1] += noise.numpy()
    # In place: what stands in the rows below the diagonal stands in columns above it for LAPACK.
    factor = cholesky(k.T, lower=False, overwrite_a=True, check_finite=False)
    alpha = torch.as_tensor(cho_solve((factor, False), y.numpy(), check_finite=False))
    some = torch.as_tensor(order[-_CHECKED:].copy())
    unit = np.zeros((n, len(some)), order="F")
    unit[some.numpy(), np.arange(len(some))] = 1.0
    inverse = solve_triangular(factor, unit, trans="T", overwrite_b=True, check_finite=False)
    error = alpha[some] / torch.as_tensor(np.square(inverse).sum(axis=0))
    _, _, variance = nearest(scaled[some], scaled, signal, noise, without=some)
    return alpha, error / (variance + float(np.exp(theta[-1])) + JITTER).sqrt()


def _units(theta: Array, x: Tensor, weights: Tensor) -> tuple[Tensor, float, Tensor]:
    """Inputs in length scales (n, p), v, and the noise variance of each row (n,)."""
    t = torch.as_tensor(theta)
    return x * torch.exp(-t[1:-1]), float(t[0].exp()), t[-1].exp() * weights + JITTER


def nearest(
    a: Tensor,
    x: Tensor,
    signal: float,
    noise: Tensor,
    *,
    without: Tensor | None = None,
    k: int = _NEAR,
) -> tuple[Tensor, Tensor, Tensor]:
    """What the nearest rows say of others, differentiable in `a`.

    Args:
        a: (c, p) inputs in length scales.
        x: (n, p) the rows.
        signal: v.
        noise: (n,) variance of the noise of each row.
        without: (c,) the row that does not count for each input; None where all do.
        k: How many rows.

    Returns:
        Indices (c, k) of the nearest rows, their gains k(a, N) K_N^-1 (c, k), and the variance
        (c,), without the noise of a measurement.
    """
    with torch.no_grad():
        distance = square_distance(a.detach(), x)
        if without is not None:
            distance[torch.arange(len(a)), without] = torch.inf
        most = len(x) - (without is not None)
        near = distance.topk(min(k, most), dim=1, largest=False).indices
        rows = x[near]
        lengths = rows.square().sum(-1)
        among = lengths[:, :, None] + lengths[:, None] - 2 * rows @ rows.transpose(1, 2)
        covariance = signal * correlation(among.clamp_min(0.0)) + torch.diag_embed(noise[near])
        factor = torch.linalg.cholesky(covariance)
    across = signal * correlation((a[:, None] - rows).square().sum(-1))
    gain = torch.cholesky_solve(across[..., None], factor)[..., 0]
    return near, gain, (signal - (across * gain).sum(1)).clamp_min(0.0)


def extended(factor: Tensor, across: Tensor, corner: Tensor) -> Tensor:
    """(n + k, n + k) Cholesky factor of a matrix that k rows and columns were added to.

    Args:
        factor: (n, n) that of the matrix.
        across: (n, k) what was added beside it.
        corner: (k, k) what was added below.
    """
    n, k = across.shape
    below = torch.linalg.solve_triangular(factor, across, upper=False)
    out = factor.new_zeros(n + k, n + k)
    out[:n, :n], out[n:, :n] = factor, below.T
    out[n:, n:] = torch.linalg.cholesky(corner - below.T @ below)
    return out
