"""Functions that a fitted Gaussian process holds to be possible, drawn from its posterior.

Notation as in `_gp`; f is a draw from the prior, e one of the noise:

    f(x | y) = mean(x) + f(x) - k(x, X) K^-1 (f(X) + e)   (Wilson et al. 2020, "Efficiently sampling
                                                          functions from GP posteriors", Eq. 4)

The prior is drawn as a sum of random cosines, whose frequencies follow Student's t distribution
with five degrees of freedom, the spectral density of Matern's kernel with nu = 5/2 (Rahimi & Recht
2007). One draw is a function: it may be looked at anywhere, at a cost that is linear in the places.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike

from nni_aiop.predictors._gp_fit import correlation, inverse_of, square_distance

if TYPE_CHECKING:
    from nni_aiop.predictors._base import Array
    from nni_aiop.predictors._gp import CodeGP

__all__ = ["explained_variance", "posterior_draws"]

_COSINES = 1024
_BLOCK = 4096  # codes that are looked at together


def posterior_draws(gp: CodeGP, codes: ArrayLike, n: int, *, seed: int = 0) -> Array:
    """(n, rows) the first metric at codes (rows, width), as n draws of the posterior have it.

    They hold no noise of a measurement, and vary about the mean as much wider or narrower than the
    posterior as the predictor's standard deviations are.

    Args:
        gp: A fitted predictor.
        codes: Where to look.
        n: Number of draws.
        seed: Of the draws.

    Raises:
        NotFittedError: `fit` was not called.
        SpaceError: The codes have another width.
    """
    gp._require_fit()
    rng = np.random.default_rng(seed)
    theta = torch.as_tensor(gp._theta[0])
    weights = torch.as_tensor(gp._weights[0])
    rows = torch.as_tensor(gp._x)
    scales = theta[1:-1].exp()
    normal = torch.as_tensor(rng.standard_normal((_COSINES, rows.shape[1])))
    heavy = torch.as_tensor(np.sqrt(5.0 / rng.chisquare(5, (_COSINES, 1))))
    frequencies = (normal * heavy / scales).T
    phases = torch.as_tensor(rng.uniform(0.0, 2 * np.pi, _COSINES))
    loads = torch.as_tensor(rng.standard_normal((_COSINES, n)))
    height = (2 * theta[0].exp() / _COSINES).sqrt()

    def prior(x: torch.Tensor) -> torch.Tensor:
        drawn: torch.Tensor = height * torch.cos(x @ frequencies + phases) @ loads
        return drawn

    inverse, variance = inverse_of(gp._theta[0], rows, weights)
    noise = torch.as_tensor(rng.standard_normal((len(rows), n))) * variance.sqrt()[:, None]
    pulled = inverse @ (prior(rows) + noise)
    alpha = torch.as_tensor(gp._alpha[0])[:, None]
    center, width = torch.as_tensor(gp._center), torch.as_tensor(gp._spread)
    found = []
    with torch.no_grad():
        for part in torch.split(torch.as_tensor(gp._checked(codes)), _BLOCK):
            x = (gp._inputs(part) - center) / width
            across = theta[0].exp() * correlation(square_distance(x / scales, rows / scales))
            found.append(across @ alpha + float(gp._inflation[0]) * (prior(x) - across @ pulled))
    drawn: Array = torch.cat(found).T.numpy() * gp.scale_[0] + gp.center_[0]
    return drawn


def explained_variance(gp: CodeGP) -> float:
    """The part of the first metric's variance over the rows that is predicted from the others.

    At most 1; at 0 or below the mean predicts as well.
    """
    gp._require_fit()
    rows, weights = torch.as_tensor(gp._x), torch.as_tensor(gp._weights[0])
    inverse, noise = inverse_of(gp._theta[0], rows, weights)
    alpha = torch.as_tensor(gp._alpha[0])
    error = alpha / inverse.diagonal()
    theta = torch.as_tensor(gp._theta[0])
    scaled = rows / theta[1:-1].exp()
    kernel = theta[0].exp() * correlation(square_distance(scaled, scaled))
    targets = kernel @ alpha + noise * alpha
    total = float((targets - targets.mean()).square().sum())
    return 1.0 - float(error.square().sum()) / total if total > 0 else 0.0
