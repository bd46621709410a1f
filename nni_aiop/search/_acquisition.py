"""Which candidates a round asks for: expected improvement, feasibility, and fantasised results.

Notation, for c candidates: mu (c,) and sigma (c,) the predicted merit (more is better) and its
standard deviation without noise, best the highest predicted merit of what was evaluated.

    EI(x) = sigma h(z),  z = (mu - best) / sigma,  h(z) = phi(z) + z Phi(z)  (Jones et al. 1998)

Its logarithm is what is compared, as EI itself underflows far from the best (Ament et al. 2023,
"Unexpected improvements to expected improvement"). A constraint g(x) <= 0 that is learned with a
mean m and a deviation s multiplies EI by Phi(-m / s) (Gardner et al. 2014); what is not rather
surely feasible goes behind all else. After a pick the predictor is told its own mean there (kriging
believer, Ginsbourger et al. 2010), so that the next pick of the round is elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfcx, log_ndtr, ndtr

from nni_aiop.spaces import CodeSpace, Moves

if TYPE_CHECKING:
    from nni_aiop.predictors import CodePredictor, Prediction

__all__ = [
    "Acquisition",
    "Ranking",
    "beside",
    "fine_dimensions",
    "log_expected_improvement",
    "log_feasible",
    "perturbed",
    "predicted_means",
    "too_near",
]

Array = NDArray[np.float64]
Gains = Callable[[Array, "Prediction"], tuple[Array, Array]]

_SURE = 0.8  # probability of being feasible below which a candidate goes behind all others
_DRAWS = 32  # of the objectives of a candidate, where a weighting of several is not a sum

_PART = 1_024  # candidates that are looked at together

_FINE = 20  # values of an ordinal dimension from which on it is searched like a real number


def log_expected_improvement(mean: Array, std: Array, best: float) -> Array:
    """(c,) logarithm of the expected improvement upon `best`."""
    z = (mean - best) / std
    out = np.empty_like(z)
    near = z > -1
    here = z[near]
    out[near] = np.log(np.exp(-0.5 * here**2) / np.sqrt(2 * np.pi) + here * ndtr(here))
    far = z[~near]
    # h(z) = phi(z) (1 - |z| Phi(z) / phi(z)), whose second factor tends to 1 / z^2.
    ratio = 1 + far * erfcx(-far / np.sqrt(2)) * np.sqrt(np.pi / 2)
    inverse = 1 / np.maximum(far**2, 1.0)
    ratio = np.where(far > -1e3, np.maximum(ratio, 1e-300), inverse)
    out[~near] = -0.5 * far**2 - 0.5 * np.log(2 * np.pi) + np.log(ratio)
    return out + np.log(std)


def log_feasible(mean: Array, std: Array) -> Array:
    """(c,) logarithm of the probability that each of (c, g) constraints is at most 0."""
    return np.asarray(log_ndtr(-mean / std).sum(axis=1))


def fine_dimensions(space: CodeSpace) -> list[int]:
    """The dimensions whose neighbouring values hardly differ: real numbers and long ranges."""
    return [j for j, d in enumerate(space.dimensions) if d.width == 1 and d.size > _FINE]


def too_near(space: CodeSpace, points: Array, others: Array, gap: float) -> NDArray[np.bool_]:
    """(c,) whether a point differs from one of the others by less than `gap` of every fine range.

    Points that differ in another dimension are never too near; nor is any in a space without fine
    dimensions.

    Args:
        space: The space.
        points: (c, d).
        others: (n, d).
        gap: Distance in the code.
    """
    fine = fine_dimensions(space)
    near = np.zeros(len(points), dtype=np.bool_)
    if not fine:
        return near
    columns = [space.columns[space.labels[j]].start for j in fine]
    coarse = [j for j in range(len(space)) if j not in fine]
    codes = space.encode_points(points)[:, columns]
    for point, code in zip(others, space.encode_points(others)[:, columns], strict=True):
        same = (points[:, coarse] == point[coarse]).all(axis=1)
        near |= same & (np.abs(codes - code) < gap).all(axis=1)
    return near


def beside(space: CodeSpace, points: Array, n: int, rng: np.random.Generator) -> Array:
    """(b, d) neighbours of points (p, d); n of them, drawn evenly, where there are more."""
    moves = [space.neighbour_moves(point) for point in points]
    parts = np.repeat(np.arange(len(moves)), [len(m.points) for m in moves])
    places = np.concatenate([np.empty(0, np.intp), *(np.arange(len(m.points)) for m in moves)])
    if len(parts) > n:
        some = np.sort(rng.choice(len(parts), size=n, replace=False))
        parts, places = parts[some], places[some]
    found = []
    for i, (point, of) in enumerate(zip(points, moves, strict=True)):
        kept = places[parts == i]
        found.append(Moves(of.dimensions[kept], of.points[kept]).rows(point))
    return np.concatenate([points[:0], *found])


def perturbed(
    space: CodeSpace, points: Array, n: int, scales: tuple[float, ...], rng: np.random.Generator
) -> Array:
    """(n * len(points), d) points with some of their fine dimensions moved, the others as they are.

    Args:
        space: The space.
        points: (p, d).
        n: How many of each.
        scales: Standard deviations of a move in the code, one of which is drawn for each; 1 and
            above draw uniformly.
        rng: Source of randomness.
    """
    fine = fine_dimensions(space)
    if not fine or len(points) == 0:
        return points[:0]
    columns = [space.columns[space.labels[j]].start for j in fine]
    codes = space.encode_points(np.repeat(points, n, axis=0))
    shape = len(codes), len(columns)
    scale = rng.choice(scales, size=(len(codes), 1))
    moved = rng.random(shape) < max(0.3, min(1.0, 1.5 / len(columns)))
    still = np.flatnonzero(~moved.any(axis=1))
    moved[still, rng.integers(len(columns), size=len(still))] = True
    before = codes[:, columns]
    near = np.clip(before + scale * rng.normal(size=shape), 0.0, 1.0)
    codes[:, columns] = np.where(moved, np.where(scale < 1, near, rng.random(shape)), before)
    return space.normalise(space.decode_points(codes))


class Acquisition:
    """What candidates are worth to a search that goes on; it changes as results are fantasised.

    Args:
        predictor: Fitted on the results.
        gains: From codes and their prediction to (c, k) gains, more is better, and deviations.
        weights: (k,) of the gains, which are added up; None for a new random weighting at each
            call, by the augmented Chebyshev distance (Knowles 2006, ParEGO), which reaches the
            concave parts of a Pareto front, too.
        known: (n, width) codes of the results to improve upon; none where none is feasible.
        exploration: None for the expected improvement, or how many deviations a mean gains.
        constraints: Predictors of what must be at most 0.
        rng: Source of randomness.
    """

    def __init__(
        self,
        predictor: CodePredictor,
        gains: Gains,
        weights: Array | None,
        known: Array,
        *,
        exploration: float | None,
        constraints: Sequence[CodePredictor],
        rng: np.random.Generator,
    ) -> None:
        self.predictor = predictor
        self.gains = gains
        self.weights = weights
        self.known = known
        self.exploration = exploration
        self.constraints = constraints
        self._rng = rng
        self._gains_of_known: list[Array] = []

    def believe(self, codes: Array) -> None:
        """Take what is predicted of codes (n, width), which are asked for, as their result."""
        believing = getattr(self.predictor, "believing", None)
        if believing is not None:
            self.predictor = believing(codes)
        if len(self.known):
            self.known = np.concatenate([self.known, codes])

    def values(self, codes: Array) -> Array:
        """(c,) how much each of the codes (c, width) is worth."""
        mean, std = self._latent(codes)
        known = self._known_gains() if len(self.known) else mean
        if self.weights is None:
            worth = self._chebyshev(mean, std, known)
        else:
            merit, spread = mean @ self.weights, np.sqrt(std**2 @ self.weights**2)
            if self.exploration is None:
                best = float((known @ self.weights).max())
                worth = log_expected_improvement(merit, spread, best)
            else:
                worth = merit + self.exploration * spread
        return worth if not self.constraints else self._constrained(worth, codes)

    def _latent(self, codes: Array) -> tuple[Array, Array]:
        """Gains and their deviations without the noise of a measurement."""
        mean, std = self.gains(codes, _without_noise(self.predictor, codes))
        return mean, np.maximum(std, 1e-12)

    def _known_gains(self) -> Array:
        """(n, k) predicted gains of what was evaluated; what is believed does not change them."""
        told = sum(len(part) for part in self._gains_of_known)
        if told < len(self.known):
            codes = self.known[told:]
            gains, _ = self.gains(codes, predicted_means(self.predictor, codes))
            self._gains_of_known.append(gains)
        return np.concatenate(self._gains_of_known)

    @property
    def only_falls(self) -> bool:
        """Whether what is believed makes no candidate worth more.

        A believed mean stays, its deviation falls, and the best result only rises. (Where the
        nearest rows decide about deviations, a believed one may take a place among them from one
        that says more: by a few per cent a deviation rises then.)
        """
        explores = self.exploration is None or self.exploration >= 0
        return self.weights is not None and explores and not self.constraints

    def _chebyshev(self, mean: Array, std: Array, known: Array) -> Array:
        w = self._rng.dirichlet(np.ones(mean.shape[1]))
        optimism = 0.5 if self.exploration is None else self.exploration
        top = (mean + optimism * std).max(axis=0)

        def scalar(gains: Array) -> Array:
            below = w * (gains - top)
            return np.asarray(below.min(axis=-1) + 0.05 * below.sum(axis=-1))

        optimistic = scalar(mean + optimism * std)
        if self.exploration is not None:
            return optimistic
        best = float(scalar(known).max())
        draws = self._rng.normal(size=(_DRAWS, 1, mean.shape[1]))
        improvement = np.maximum(scalar(mean + draws * std) - best, 0.0).mean(axis=0)
        return np.asarray(improvement + 1e-6 * optimistic)

    def _constrained(self, worth: Array, codes: Array) -> Array:
        """The worth, times the probability that no constraint is violated."""
        parts = [_without_noise(predictor, codes) for predictor in self.constraints]
        mean = np.concatenate([part.mean for part in parts], axis=1)
        std = np.concatenate([part.std for part in parts], axis=1)
        chance = log_feasible(mean, np.maximum(std, 1e-9 * (1.0 + np.abs(mean))))
        chance = np.maximum(chance, -1e6)
        if len(self.known) == 0:  # nothing feasible yet: only that counts
            return chance + 1e-3 * np.argsort(np.argsort(worth)) / len(worth)
        if self.weights is not None and self.exploration is None:
            worth = worth + chance  # both are logarithms
        # A great improvement that is hardly feasible is no match for a small one that is.
        return np.where(chance >= np.log(_SURE), worth, worth.min() - 1.0 + chance)


class Ranking:
    """Candidates in the order of their worth, worked out again where it may have changed.

    Where worth only falls, what a candidate was worth bounds what it is worth: after a pick few
    candidates are looked at again (lazy greedy choice, Minoux 1978).

    Args:
        space: The space.
        points: (c, d) candidates.
        acquisition: What they are compared by.
    """

    def __init__(self, space: CodeSpace, points: Array, acquisition: Acquisition) -> None:
        self._space = space
        self._points = points
        self._acquisition = acquisition
        self._worth = np.full(len(points), np.inf)
        self._current = np.zeros(len(points), dtype=np.bool_)
        self._look(np.arange(len(points)))

    def outdate(self) -> None:
        """Something was believed since."""
        self._current[:] = False
        if not self._acquisition.only_falls:
            self._look(np.arange(len(self._points)))

    def first(self, n: int) -> tuple[Array, Array]:
        """The best (n, d) candidates, and what they are worth (n,); fewer where there are fewer."""
        order = self._order(0, n)
        return self._points[order], self._worth[order]

    def chunks(self, n: int) -> Iterator[Array]:
        """The candidates, best first: two, then twice as many each time, up to n at a time."""
        start, size = 0, min(2, n)
        while start < len(self._points):
            yield self._points[self._order(start, size)]
            start, size = start + size, min(2 * size, n)

    def _order(self, start: int, n: int) -> NDArray[np.int64]:
        """Places of the n candidates that come after the best `start`."""
        while True:
            order = np.argsort(-self._worth, kind="stable")[: start + n]
            outdated = order[~self._current[order]]
            if not len(outdated):
                return order[start:]
            self._look(outdated)

    def _look(self, places: NDArray[np.int64]) -> None:
        # What is worth something by itself alone is looked at in parts, which bounds the memory.
        size = _PART if self._acquisition.only_falls else max(1, len(places))
        for start in range(0, len(places), size):
            part = places[start : start + size]
            codes = self._space.encode_points(self._points[part])
            self._worth[part] = self._acquisition.values(codes)
        self._current[places] = True


def predicted_means(predictor: CodePredictor, codes: Array) -> Prediction:
    """What is predicted, its deviations 0 where they cost more than its means."""
    only = getattr(predictor, "means", None)
    return predictor.predict(codes) if only is None else only(codes)


def _without_noise(predictor: CodePredictor, codes: Array) -> Prediction:
    """What is predicted, its deviations without the noise of a measurement where that is known."""
    prediction = predictor.predict(codes)
    noise = getattr(predictor, "noise_std_", None)
    if noise is None:
        return prediction
    latent = np.sqrt(np.maximum(prediction.std**2 - noise**2, (1e-3 * prediction.std) ** 2))
    return replace(prediction, std=latent)
