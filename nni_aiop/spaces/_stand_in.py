"""A differentiable stand-in of a cost, learned from its values at a few architectures.

Notation: X (n, w) standardised codes, y (n,) standardised costs (their logarithms where all are
positive, as costs are products of sizes), K = k(X, X), r the noise. The prediction is the mean of a
Gaussian process, whose kernel is a mixture of a quadratic and a smooth part,

    k(x, x') = a ((1 + x.x'/w) / 2)^2 + (1 - a) exp(-|x - x'|^2 / (2 s w)),
    mean(x) = k(x, X) (K + r I)^-1 y.

a, s and r are those of a small grid under which y is the likeliest.
"""

from __future__ import annotations

import itertools
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["StandIn"]

Array = NDArray[np.float64]

_QUADRATIC = (0.5, 0.9, 0.99)
_SMOOTH = (0.3, 1.0, 4.0)
_NOISE = (1e-6, 1e-4, 1e-2)
_MOST = 512  # values that are learned from, the latest
_CHUNK = 8192


class StandIn:
    """What is learned of a cost: a mean and a standard deviation at any code.

    Args:
        codes: (n, width) codes, n at least 1.
        costs: (n,) finite numbers.
    """

    def __init__(self, codes: Array, costs: Array) -> None:
        codes, costs = codes[-_MOST:], costs[-_MOST:]
        self.low, self.high = float(costs.min()), float(costs.max())
        self._log = self.low > 0
        y = np.log(costs) if self._log else costs
        unit = float(np.abs(y).max()) or 1.0  # squares of large numbers would overflow
        self._center, self._scale = unit * float((y / unit).mean()), unit * float((y / unit).std())
        self._scale = self._scale or 1.0
        spread = codes.std(axis=0)
        self._middle = torch.as_tensor(codes.mean(axis=0))
        self._unit = torch.as_tensor(np.where(spread > 1e-9, spread, 1.0))
        self._x = self._standard(torch.as_tensor(codes))
        self._y = torch.as_tensor((y - self._center) / self._scale)
        best = -np.inf
        for a, s, r in itertools.product(_QUADRATIC, _SMOOTH, _NOISE):
            k = self._kernel(self._x, self._x, a, s) + r * torch.eye(len(codes)).double()
            factor, failed = torch.linalg.cholesky_ex(k)
            if failed:
                continue
            weights = torch.cholesky_solve(self._y[:, None], factor)[:, 0]
            variance = float(self._y @ weights) / len(codes)
            likelihood = -len(codes) / 2 * np.log(max(variance, 1e-12)) - float(
                factor.diagonal().log().sum()
            )
            if likelihood > best:
                best = likelihood
                self._options = a, s
                self._factor, self._weights, self._variance = factor, weights, variance

    def _standard(self, codes: Tensor) -> Tensor:
        return (codes - self._middle) / self._unit

    @staticmethod
    def _kernel(a: Tensor, b: Tensor, quadratic: float, smooth: float) -> Tensor:
        width = a.shape[1]
        product = a @ b.T
        gap = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * product
        return (
            quadratic * ((1 + product / width) / 2) ** 2
            + (1 - quadratic) * (-gap / (2 * smooth * width)).exp()
        )

    def _standardised(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        x = self._standard(codes.double())
        k = self._kernel(x, self._x, *self._options)
        return k @ self._weights, k

    def __call__(self, codes: Tensor) -> Tensor:
        """(n,) the learned cost of codes (n, width), differentiable."""
        mean, _ = self._standardised(codes)
        y = mean * self._scale + self._center
        return (y.clamp_max(self._ceiling).exp() if self._log else y).to(codes.dtype)

    @cached_property
    def _ceiling(self) -> float:
        """Above it an exponential would overflow single precision."""
        return 80.0

    def range_of(self, codes: Array, deviations: float) -> tuple[Array, Array]:
        """(n,) the learned cost, and the same less that many standard deviations."""
        means, lows = [], []
        a, _ = self._options
        with torch.no_grad():
            for start in range(0, len(codes), _CHUNK):
                part = torch.as_tensor(codes[start : start + _CHUNK])
                mean, k = self._standardised(part)
                x = self._standard(part.double())
                own = a * ((1 + (x**2).sum(1) / x.shape[1]) / 2) ** 2 + (1 - a)
                solved = torch.linalg.solve_triangular(self._factor, k.T, upper=False)
                variance = self._variance * (own - (solved**2).sum(0)).clamp_min(0.0)
                means.append(mean)
                lows.append(mean - deviations * variance.sqrt())
        if not means:
            return np.empty(0), np.empty(0)
        both = []
        for parts in (means, lows):
            y = (torch.cat(parts) * self._scale + self._center).numpy()
            both.append(np.exp(np.minimum(y, self._ceiling)) if self._log else y)
        return both[0], both[1]
