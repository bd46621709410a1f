"""The default predictor: a Gaussian process on codes and features.

Notation as in `_gp_fit`; for one metric:

    mean(x) = k(x, X) a,  a = K^-1 y
    var(x) = k(x, x) - k(x, X) K^-1 k(X, x) + s2          (Rasmussen & Williams 2006, Eqs. 2.25-26)

The kernel is Matern's with nu = 5/2, v (1 + r + r^2 / 3) exp(-r) in
r^2 = 5 sum_j (x_j - x'_j)^2 / l_j^2, with a length scale l_j for every input.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from nni_aiop.files import checked_tensors
from nni_aiop.predictors._base import Array, CodePredictor
from nni_aiop.predictors._gp_fit import (
    JITTER,
    Choice,
    KernelMean,
    correlation,
    extended,
    fit_one,
    inverse_of,
    nearest,
    square_distance,
)

if TYPE_CHECKING:
    from nni_aiop.spaces import CodeSpace

_CODE_BESIDE_FEATURES = 1.5  # how much longer the log length scales of codes with features are
_LARGEST_THETA = 100.0  # of a file; a fit stays within 9 of 0, or as far as its prior
_ENTRIES = 2_000_000  # of a kernel that is worked out at once, which bounds the memory


class CodeGP(CodePredictor):
    """A Gaussian process for each metric, with a length scale for every input.

    Its inputs are the code and `space.features`. Hyperparameters maximise the posterior density
    (the marginal likelihood times weak priors) on random subsets of rows. Rows with a leave-one-out
    error beyond three standard deviations get a larger noise. The predicted standard deviation is
    scaled so that 80 % of the leave-one-out errors lie within their 80 % intervals, and a little
    wider where rows are few.

    Means are exact, and so are standard deviations up to `exact` rows; of more rows a standard
    deviation is that of the nearest 32, which costs no more as rows grow in number.
    Cross-validation preferred that to inducing points, to subsets of rows and to local means (4,000
    rows of NAS-Bench-201: error 0.73 points against 0.88, 0.99 and 0.82).

    Args:
        space: Whose codes it reads.
        rows: At most so many rows choose the hyperparameters.
        refined: At most so many rows refine what was chosen; none do in a fit that has a start.
        exact: Rows from which on standard deviations are those of the nearest rows.
        most: So many rows, drawn at random, are learned from where there are more: memory and time
            of a fit grow with their square and cube.
        steps: At most so many evaluations of the posterior density choose, a third as many refine.
        length: Expected length scale, in standard deviations of an input, of a single input; of
            several it grows with the square root of their number.
        doubt: Standard deviation of the prior of the logarithms of length scales: how far a metric
            may be from depending on everything alike.
        noise: Expected share of noise in the variance of a metric.
        seed: Of the choice of rows.
    """

    _options = ("rows", "refined", "exact", "most", "steps", "length", "doubt", "noise", "seed")
    _once: ClassVar[dict[str, Any]] = {"exact": 2**31, "most": 2**31}

    def __init__(
        self,
        space: CodeSpace,
        *,
        rows: int = 1000,
        refined: int = 2000,
        exact: int = 2000,
        most: int = 6000,
        steps: int = 60,
        length: float = 4.5,
        doubt: float = 0.5,
        noise: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__(space, seed=seed)
        self.rows = rows
        self.refined = refined
        self.exact = exact
        self.most = most
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
        order = np.random.default_rng(self.seed).permutation(len(codes))
        if len(order) > self.most:
            kept = np.sort(order[: self.most])
            codes, targets = codes[kept], targets[kept]
            order = np.random.default_rng(self.seed).permutation(len(codes))
        with torch.no_grad():
            x = self._inputs(torch.as_tensor(codes))
        self._center = x.mean(0).numpy()
        spread = x.std(0, correction=0).numpy()
        self._spread = np.where(spread > 1e-9, spread, 1.0)
        x = (x - torch.as_tensor(self._center)) / torch.as_tensor(self._spread)
        how = Choice(
            rows=self.rows,
            refined=self.refined,
            exact=self.exact,
            steps=self.steps,
            mean=np.array([0.0, *self._expected_scales(), np.log(self.noise)]),
            std=np.array([2.0, *[self.doubt] * x.shape[1], 2.0]),
        )
        fits = [
            fit_one(x, torch.as_tensor(column.copy()), order, how, self._start_of(name, x.shape[1]))
            for name, column in zip(self.metrics_, targets.T, strict=True)
        ]
        self._x = x.numpy()
        self._theta = np.stack([fit.theta for fit in fits])
        self._alpha = np.stack([fit.alpha for fit in fits])
        self._weights = np.stack([fit.weights for fit in fits])
        self._inflation = np.array([fit.inflation for fit in fits])
        self._prepare()

    def _start_of(self, metric: str, p: int) -> Array | None:
        """(p + 2,) hyperparameters to go on from; None without any.

        Raises:
            ValueError: They are not as many finite numbers as there are hyperparameters.
        """
        if metric not in self._start:
            return None
        theta = np.array(self._start[metric], dtype=np.float64)
        if theta.shape != (p + 2,) or not (np.abs(theta) <= _LARGEST_THETA).all():
            raise ValueError(
                f"a start of {metric!r} must be {p + 2} numbers within {_LARGEST_THETA:g} of 0, "
                f"but got {len(np.ravel(theta))} of them."
            )
        return theta

    @property
    def hyperparameters(self) -> dict[str, list[float]]:
        self._require_fit()
        return {
            name: theta.tolist() for name, theta in zip(self.metrics_, self._theta, strict=True)
        }

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
        told._factors, told._ready = {}, {}
        for (dtype, j), (rows, alpha, inverse) in self._ready.items():
            more = torch.as_tensor(
                (x - self._center) / self._spread * np.exp(-self._theta[j, 1:-1])
            )
            rows = torch.cat([rows, more.to(dtype)])
            told._ready[dtype, j] = rows, torch.cat([alpha, alpha.new_zeros(n)]), inverse
        for j, factor in self._factors.items():
            told._factors[j] = extended(factor, *told._added(j, len(self._x)))
        return told

    def _added(self, j: int, n: int) -> tuple[Tensor, Tensor]:
        """What the rows from n on add to K of metric j, beside it (n, k) and below it (k, k)."""
        theta = torch.as_tensor(self._theta[j])
        x, _, _ = self._ready[torch.float64, j]
        noise = theta[-1].exp() * torch.as_tensor(self._weights[j, n:]) + JITTER
        k = theta[0].exp() * correlation(square_distance(x, x[n:]))
        return k[:n], k[n:] + torch.diag(noise)

    @property
    def noise_std_(self) -> Array:
        """(m,) the part of the predicted standard deviations that is noise of a measurement."""
        noise = np.exp(self._theta[:, -1]) + JITTER
        return np.asarray(self._inflation * np.sqrt(noise) * self.scale_)

    def leave_one_out_log_density(self) -> Array:
        """(n, m) log density of each row's standardised target, predicted from the other rows."""
        x, columns = torch.as_tensor(self._x), []
        for theta, alpha, weights in zip(self._theta, self._alpha, self._weights, strict=True):
            inverse, noise = inverse_of(theta, x, torch.as_tensor(weights))
            variance = 1 / inverse.diagonal() - noise + float(np.exp(theta[-1])) + JITTER
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

    @property
    def _nearest_decide(self) -> bool:
        """Whether the nearest rows decide about standard deviations."""
        return min(self.n_rows_, self.most) > self.exact

    @property
    def _chunk(self) -> int:
        rows, width = self._x.shape
        return int(min(4096, max(64, _ENTRIES // max(rows, width))))

    def _factor(self, j: int) -> Tensor:
        """(n, n) Cholesky factor of K of metric j."""
        if j not in self._factors:
            theta = torch.as_tensor(self._theta[j])
            x, _, _ = self._ready[torch.float64, j]
            noise = theta[-1].exp() * torch.as_tensor(self._weights[j]) + JITTER
            k = theta[0].exp() * correlation(square_distance(x, x))
            self._factors[j] = torch.linalg.cholesky(k + torch.diag(noise))
        return self._factors[j]

    def _standardised(self, codes: Tensor, *, with_std: bool) -> tuple[Tensor, Tensor | None]:
        if with_std and codes.dtype != torch.float64:  # a small variance is a small difference
            exact, std = self._standardised(codes.double(), with_std=True)
            assert std is not None
            return exact.to(codes.dtype), std.to(codes.dtype)
        inputs = self._inputs(codes) - codes.new_tensor(self._center)
        means, stds = [], []
        for j, theta in enumerate(self._theta):
            x, alpha, inverse = self._ready[codes.dtype, j]
            scaled = inputs * inverse
            if not with_std:
                mean: Tensor = KernelMean.apply(scaled, x, alpha)  # type: ignore[no-untyped-call]
                means.append(mean)
                continue
            across = correlation(square_distance(scaled, x))
            means.append(across @ alpha)
            signal, noise = float(np.exp(theta[0])), float(np.exp(theta[-1])) + JITTER
            if self._nearest_decide:
                weights = np.exp(theta[-1]) * self._weights[j] + JITTER
                _, _, latent = nearest(scaled, x, signal, torch.as_tensor(weights))
            else:
                factor = self._factor(j)
                known = torch.linalg.solve_triangular(factor, signal * across.T, upper=False)
                latent = (signal - known.square().sum(0)).clamp_min(0.0)
            stds.append(float(self._inflation[j]) * (latent + noise).sqrt())
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
        n, m = min(self.n_rows_, self.most), len(self.metrics_)
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
