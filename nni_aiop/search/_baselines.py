"""Searches without a predictor: random search, regularized evolution, local search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nni_aiop.search._base import BaseSearch
from nni_aiop.search._metrics import violation
from nni_aiop.spaces import CodeSpace, Sample

_MUTATIONS = 50  # tries to find an unseen child before a random newcomer takes its place


class RandomSearch(BaseSearch):
    """Uniform random search over valid samples within the limits, none twice."""

    def _propose(self, n: int) -> list[Sample]:
        return self._random_new(n)


class RegularizedEvolution(BaseSearch):
    """Aging evolution: mutate the best of a random tournament, let the oldest die.

    Source: Real et al., "Regularized Evolution for Image Classifier Architecture Search", AAAI
        2019.

    Args:
        space: Where to search.
        population: Number of the youngest results that are alive.
        tournament: How many of them compete to be the parent.
        options: See `BaseSearch`.
    """

    def __init__(
        self,
        space: CodeSpace,
        *,
        population: int = 30,
        tournament: int = 10,
        **options: Any,
    ) -> None:
        super().__init__(space, **options)
        self.population = population
        self.tournament = tournament
        self._check_options()

    def _check_options(self) -> None:
        if not 1 <= self.tournament <= self.population:
            raise ValueError(
                "1 <= tournament <= population must hold, "
                f"but got {self.tournament}, {self.population}."
            )

    def _propose(self, n: int) -> list[Sample]:
        samples, metrics = self._results()
        if len(self._seen) < self.population or not samples:
            return self._random_new(min(n, max(1, self.population - len(self._seen))))
        alive = list(range(len(samples)))[-self.population :]
        for _ in range(_MUTATIONS):
            size = min(self.tournament, len(alive))
            entrants = self._rng.choice(alive, size=size, replace=False).tolist()
            parent = max(entrants, key=lambda i: (-violation(metrics[i]), self._merit(metrics[i])))
            (point,) = self.space.points([samples[parent]])
            moves = self.space.neighbour_moves(point)
            if len(moves.points):
                place = int(self._rng.integers(len(moves.points)))
                child = self.space.from_points(moves.rows(point, slice(place, place + 1)))
                if admitted := self._admit(child, 1, set()):
                    return admitted
        return self._random_new(1)

    def _state(self) -> dict[str, Any]:
        return {"population": self.population, "tournament": self.tournament}

    def _load_state(self, state: Mapping[str, Any]) -> None:
        self.population, self.tournament = int(state["population"]), int(state["tournament"])
        self._check_options()


class LocalSearch(BaseSearch):
    """Hill climbing with restarts: all neighbours of the best, then of the better one among them.

    Random samples come first. The best result is the incumbent, and all its neighbours (one active
    dimension changed) are asked for in a random order; the best of the results is the incumbent
    from then on. Where no neighbour is better it is a local optimum, and the search begins anew
    from a random sample.

    Source: White et al., "Exploring the Loss Landscape in Neural Architecture Search", UAI 2021.

    Args:
        space: Where to search.
        initial: Number of random samples before each climb; the best of them is where it begins.
        greedy: Whether a better neighbour is the incumbent at once, before the others are asked
            for.
        options: See `BaseSearch`.
    """

    def __init__(
        self,
        space: CodeSpace,
        *,
        initial: int = 10,
        greedy: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(space, **options)
        self.initial = initial
        self.greedy = greedy
        self._check_options()
        self._since = 0  # results before this climb
        self._drawn = 0  # random samples of this climb
        self._centre: str | None = None  # key of the incumbent whose neighbours are queued
        self._queue: list[Sample] = []

    def _check_options(self) -> None:
        if not (isinstance(self.initial, (int, np.integer)) and self.initial >= 1):
            raise ValueError(f"initial must be at least 1, but got {self.initial!r}.")

    def _propose(self, n: int) -> list[Sample]:
        while True:
            if self._drawn < self.initial:
                found = self._random_new(min(n, self.initial - self._drawn))
                self._drawn += len(found)
                return found
            incumbent = self._incumbent()
            if incumbent is None:  # nothing was told of this climb yet, or all of it failed
                return self._random_new(1)
            key = self.space.key(incumbent)
            if key != self._centre and (self.greedy or not self._queue):
                near = self.space.neighbours(incumbent)
                self._queue = [near[i] for i in self._rng.permutation(len(near))]
                self._centre = key
            while self._queue:
                if found := self._admit([self._queue.pop(0)], 1, set()):
                    return found
            if self._pending:  # one of them may be better yet
                return self._random_new(1)
            if self._centre == key:  # a local optimum
                self._since, self._drawn, self._centre = len(self._history), 0, None

    def _incumbent(self) -> Sample | None:
        """The best result of this climb."""
        good = [(s, m) for s, m in self._history[self._since :] if m is not None]
        if not good:
            return None
        return max(good, key=lambda one: (-violation(one[1]), self._merit(one[1])))[0]

    def _state(self) -> dict[str, Any]:
        return {
            "initial": self.initial,
            "greedy": self.greedy,
            "since": self._since,
            "drawn": self._drawn,
            "centre": self._centre,
            "queue": [self.space.to_json(s) for s in self._queue],
        }

    def _load_state(self, state: Mapping[str, Any]) -> None:
        queue = [self.space.from_json(s) for s in state["queue"]]
        self.initial = state["initial"]
        self._check_options()
        self.greedy = bool(state["greedy"])
        self._since, self._drawn = int(state["since"]), int(state["drawn"])
        centre = state["centre"]
        self._centre = None if centre is None else str(centre)
        self._queue = queue
