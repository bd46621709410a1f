"""Searches without a predictor: random search and regularized evolution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nni_aiop.search._base import BaseSearch, Objective
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
        objectives: What to improve, by weighted sum.
        limits: Hard upper limits on exact costs.
        seed: Of every random choice.
        population: Number of the youngest results that are alive.
        tournament: How many of them compete to be the parent.
    """

    def __init__(
        self,
        space: CodeSpace,
        *,
        objectives: Sequence[Objective | str] = ("default",),
        limits: Mapping[str, float] | None = None,
        seed: int = 0,
        population: int = 30,
        tournament: int = 10,
    ) -> None:
        super().__init__(space, objectives=objectives, limits=limits, seed=seed)
        if not 1 <= tournament <= population:
            raise ValueError(
                f"1 <= tournament <= population must hold, but got {tournament}, {population}."
            )
        self.population = population
        self.tournament = tournament

    def _propose(self, n: int) -> list[Sample]:
        samples, metrics = self._results()
        if len(self._seen) < self.population or not samples:
            return self._random_new(min(n, max(1, self.population - len(self._seen))))
        alive = list(range(len(samples)))[-self.population :]
        for _ in range(_MUTATIONS):
            size = min(self.tournament, len(alive))
            entrants = self._rng.choice(alive, size=size, replace=False).tolist()
            parent = max(entrants, key=lambda i: self._merit(metrics[i]))
            children = self.space.neighbours(samples[parent])
            if children:
                child = children[int(self._rng.integers(len(children)))]
                if admitted := self._admit([child], 1, set()):
                    return admitted
        return self._random_new(1)

    def _state(self) -> dict[str, Any]:
        return {"population": self.population, "tournament": self.tournament}

    def _load_state(self, state: Mapping[str, Any]) -> None:
        self.population = int(state["population"])
        self.tournament = int(state["tournament"])
