"""The state of a search as plain JSON: all of it, or what a search that was told the same lacks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nni_aiop.errors import FileFormatError
from nni_aiop.files import brief
from nni_aiop.search._metrics import Objective, read_result
from nni_aiop.spaces import CodeSpace, CostBook, Sample

__all__ = ["Resumable"]

_FORMAT = 1
_MOST = {
    "budget": 1_000_000,
    "rounds": 1_000_000,
    "starts": 100_000,
    "steps": 10_000,
    "pool": 1_000_000,
    "drawn": 1_000_000,
    "levels": 10_000,
    "evaluator_steps": 1_000_000,
    "generator_steps": 1_000_000,
    "population": 1_000_000,
    "tournament": 1_000_000,
    "initial": 1_000_000,
}
"""The largest options that a state may bring to a search which was made with others."""

_OPTIONS = (*(name for name in _MOST if name != "drawn"), "greedy", "warmup")
"""What of a state is an option; a local search counts what it drew."""

_BROKEN = (
    AttributeError,
    LookupError,
    MemoryError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What reading a state that somebody changed may end with."""


class Resumable(ABC):
    """What a search knows, and how it goes on with that.

    A subclass with more to know supplies `_state` and `_load_state`.
    """

    space: CodeSpace
    objectives: tuple[Objective, ...]
    limits: dict[str, float]
    seed: int
    _book: CostBook
    _rng: np.random.Generator
    _pending: dict[str, Sample]
    _history: list[tuple[Sample, dict[str, float] | None]]
    _records: dict[str, int]
    _seen: set[str]
    _exhausted: bool
    _told: int

    @abstractmethod
    def _needed(self) -> list[str]:
        """Metrics without which a result counts as failed."""

    @abstractmethod
    def _networks(self, points: NDArray[np.float64]) -> list[str]:
        """The texts that samples at (n, d) points share which are not both asked for."""

    def _costs_used(self) -> list[str]:
        """The costs that proposals depend on."""
        return list(self.limits)

    def _state(self) -> dict[str, Any]:
        """What a subclass adds to the state, as plain JSON."""
        return {}

    def _load_state(self, state: Mapping[str, Any]) -> None:  # noqa: B027 (a hook: optional)
        """Take back what `_state` gave."""

    def state_dict(self) -> dict[str, Any]:
        """All that the search knows, as plain JSON."""
        to_json = self.space.to_json
        return {
            "format": _FORMAT,
            "search": type(self).__name__,
            "space": self.space.fingerprint,
            "seed": self.seed,
            "rng": self._rng.bit_generator.state,
            "pending": [to_json(s) for s in self._pending.values()],
            "history": [[to_json(s), m] for s, m in self._history],
            "exhausted": self._exhausted,
            "told": self._told,
            "objectives": [[o.metric, o.direction, o.weight] for o in self.objectives],
            "limits": self.limits,
            "costs": self._book.state(),
            **self._state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume exactly where `state_dict` was taken, with the options that it was taken with.

        Raises:
            FileFormatError: The state is of another search, space or format, was made for other
                objectives or limits, or is incomplete.
        """
        if not isinstance(state, dict):
            raise FileFormatError(f"a search state must be a JSON object, but got {state!r:.80}.")
        expected = {
            "format": _FORMAT,
            "search": type(self).__name__,
            "space": self.space.fingerprint,
            "objectives": [[o.metric, o.direction, o.weight] for o in self.objectives],
            "limits": self.limits,
        }
        for field, value in expected.items():
            if state.get(field) != value:
                raise FileFormatError(
                    f"a search state must have {field} = {value!r:.200}, "
                    f"but got {state.get(field)!r:.80}."
                )
        from_json, before = self.space.from_json, self.__dict__.copy()
        try:
            history = [(from_json(s), read_result(m)) for s, m in state["history"]]
            pending = [from_json(s) for s in state["pending"]]
            self._check_samples([s for s, _ in history], pending)
            rng = np.random.default_rng()
            rng.bit_generator.state = state["rng"]
            seed, exhausted = int(state["seed"]), bool(state["exhausted"])
            told = state.get("told", len(history))
            if not (type(told) is int and told >= len(history)):
                raise ValueError(f"told must be the results or more, but got {told!r:.80}")
            if not 0 <= seed < 2**62:
                raise ValueError(f"a seed must be from 0 to 2**62, but got {seed!r:.80}")
            self._check_bounded(state.get("options", state))
            book = CostBook(self.space)
            book.load_state(state.get("costs", {}))  # earlier states have none
            self._load_state(state)
            needed = self._needed()
            for place, (_, metrics) in enumerate(history):
                missing = [] if metrics is None else [n for n in needed if n not in metrics]
                if missing:
                    raise ValueError(f"result {place} must have {missing[0]!r:.80}, but lacks it")
        except _BROKEN as err:
            self.__dict__.update(before)  # a state that is refused changes nothing
            raise FileFormatError(
                f"a search state must be complete, but reading it gave: {brief(repr(err))}."
            ) from err
        self._history, self._rng, self.seed, self._exhausted = history, rng, seed, exhausted
        self._book, self._told = book, told
        self._pending = {self.space.key(s): s for s in pending}
        self._records = {self.space.key(s): i for i, (s, _) in enumerate(history)}
        everything = [*self._pending.values(), *(s for s, _ in history)]
        self._seen = set(self._networks(self.space.points(everything))) if everything else set()

    def progress(self) -> dict[str, Any] | None:
        """What a search that was told the same results lacks to go on like this one; plain JSON.

        It does not grow with the results. None where nothing less than the whole state will do.
        """
        if self._book.state() or any(map(self._book.is_learned, self._costs_used())):
            return None  # what was evaluated of a cost may be a lot
        state = self._state()
        state.pop("options", None)
        return {"rng": self._rng.bit_generator.state, **state}

    @property
    def identity(self) -> dict[str, Any]:
        """What two searches share that may go on with each other's `progress`."""
        state = self._state()
        options = {name: state[name] for name in _OPTIONS if name in state}
        return {
            "format": _FORMAT,
            "search": type(self).__name__,
            "space": self.space.fingerprint,
            "objectives": [[o.metric, o.direction, o.weight] for o in self.objectives],
            "limits": self.limits,
            "options": {**options, **state.get("options", {})},
        }

    def resume(self, progress: Mapping[str, Any]) -> None:
        """Go on where `progress` of a search of the same `identity` was taken.

        Raises:
            FileFormatError: It is none of such a search.
        """
        before = self.__dict__.copy()
        own = self._state()
        try:
            rng = np.random.default_rng()
            rng.bit_generator.state = progress["rng"]
            self._load_state({**own, **progress})
        except _BROKEN as err:
            self.__dict__.update(before)
            raise FileFormatError(
                f"a search's progress must be complete, but reading it gave: {brief(repr(err))}."
            ) from err
        self._rng = rng

    def _check_samples(self, told: Sequence[Sample], asked: Sequence[Sample]) -> None:
        """Refuse samples of a state that are none of the space, or that stand there twice.

        Raises:
            ValueError: There is one.
        """
        keys: set[str] = set()
        for sample in (*told, *asked):
            problem = self.space.violation(sample)
            if problem is not None:
                raise ValueError(problem)
            key = self.space.key(sample)
            if key in keys:
                raise ValueError(
                    f"an architecture must stand there once, but one does twice: {key:.80}"
                )
            keys.add(key)

    def _check_bounded(self, options: Mapping[str, Any]) -> None:
        """Refuse options of a state with which the next proposal would never come.

        Raises:
            ValueError: A number is none, or larger than `_MOST` and than this search's own.
        """
        for name, most in _MOST.items():
            value = options.get(name)
            if value is None or value == getattr(self, name, None):
                continue
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            least = 0 if name == "drawn" else 1  # local search counts what it drew
            if not (number and least <= value <= most):
                raise ValueError(f"{name} must be from {least} to {most:g}, but got {value!r:.80}")
