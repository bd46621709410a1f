"""Which networks of a supernet a step of its training takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from nni_aiop.spaces import CodeSpace, Continuous, Dimension, Sample
from nni_aiop.supernet._extremes import extreme

__all__ = ["SAMPLINGS", "FairSampling", "Sampling", "SandwichSampling", "UniformSampling"]

_OPTIONS = 1000  # values of a dimension that are dealt; a larger one is drawn at random
_TRIES = 100  # deals in a row that break a constraint


class Sampling(ABC):
    """The networks of each step.

    Args:
        space: What they are of.
        count: How many are drawn for a step.
        seed: Of what is drawn.
    """

    def __init__(self, space: CodeSpace, count: int, seed: int) -> None:
        self.space = space
        self.count = count
        self._rng = np.random.default_rng(seed)

    @abstractmethod
    def step(self) -> list[Sample]:
        """The networks of the next step; the first is the teacher where there is distillation."""

    def state(self) -> dict[str, Any]:
        """Where it stands, as plain JSON."""
        return {"rng": self._rng.bit_generator.state}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        self._rng.bit_generator.state = state["rng"]


class UniformSampling(Sampling):
    """Random networks (Guo et al. 2020, "Single Path One-Shot NAS with Uniform Sampling")."""

    def step(self) -> list[Sample]:
        return self.space.sample(self.count, self._rng)


class SandwichSampling(UniformSampling):
    """The largest network, random ones, and the smallest.

    Source: Yu & Huang 2019, "Universally Slimmable Networks and Improved Training Techniques",
    section 3.2.
    """

    def __init__(self, space: CodeSpace, count: int, seed: int) -> None:
        super().__init__(space, count, seed)
        self.largest = extreme(space, largest=True)
        self.smallest = extreme(space, largest=False)

    def step(self) -> list[Sample]:
        return [self.largest, *super().step(), self.smallest]


class FairSampling(Sampling):
    """Each value of each dimension is trained equally often.

    Every dimension deals its values from a shuffled deck, which is shuffled anew when it is empty;
    a value that a network does not use, as its dimension is inactive, goes back on the deck. So at
    any time two values of a dimension differ by at most one in how often they were trained (where
    no constraint rejects networks).

    Source: Chu et al. 2021, "FairNAS: Rethinking Evaluation Fairness of Weight Sharing Neural
    Architecture Search", section 4 (strict fairness), whose spaces have no inactive dimensions.
    """

    def __init__(self, space: CodeSpace, count: int, seed: int) -> None:
        super().__init__(space, count, seed)
        self._decks: dict[str, list[float]] = {label: [] for label in space.labels}

    def step(self) -> list[Sample]:
        return [self._dealt() for _ in range(self.count)]

    def _dealt(self) -> Sample:
        space = self.space
        for _ in range(_TRIES):
            point = np.array([[self._card(d) for d in space.dimensions]])
            (sample,) = space.from_points(point)
            valid = space.violation(sample) is None
            used = space.active_points(point)[0]
            for d, value, active in zip(space.dimensions, point[0].tolist(), used, strict=True):
                if self._is_dealt(d) and not active:
                    self._decks[d.label].append(value)
            if valid:
                return sample
        return space.sample(1, self._rng)[0]

    def _card(self, dimension: Dimension) -> float:
        if not self._is_dealt(dimension):
            return float(dimension.random(1, self._rng)[0])
        deck = self._decks[dimension.label]
        if not deck:
            deck += self._rng.permutation(dimension.options(_OPTIONS)).tolist()
        return deck.pop()

    @staticmethod
    def _is_dealt(dimension: Dimension) -> bool:
        return not isinstance(dimension, Continuous) and dimension.size <= _OPTIONS

    def state(self) -> dict[str, Any]:
        return {**super().state(), "decks": {k: list(deck) for k, deck in self._decks.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self._decks = {label: list(state["decks"][label]) for label in self.space.labels}


SAMPLINGS: dict[str, type[Sampling]] = {
    "sandwich": SandwichSampling,
    "fair": FairSampling,
    "uniform": UniformSampling,
}
"""The ways of taking networks, by their names."""
