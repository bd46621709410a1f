"""What every search shares: distinct valid proposals, records of results, a state in JSON."""

from __future__ import annotations

import math
import sys
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nni_aiop.errors import InfeasibleError, SpaceError
from nni_aiop.search._metrics import CONSTRAINT, Objective, as_number, violation
from nni_aiop.search._state import Resumable
from nni_aiop.spaces import (
    LISTED,
    CodeSpace,
    CostBook,
    Ordinal,
    Sample,
    check_limits,
    repair,
    tabulated,
    within_limits,
)

if TYPE_CHECKING:
    from torch import Tensor

_FEW_TRIES = 4  # of repairs for each sample, where costs are learned between
_LARGEST = sys.float_info.max
_TRIES = 20  # rounds of rejection before a small space is listed, or a large one called exhausted


def _ones(codes: Tensor) -> Tensor:
    return codes[:, 0] * 0 + 1


class Search(Protocol):
    """A search without an engine: ask for samples, evaluate them anyhow, tell the results."""

    def ask(self, n: int = 1) -> list[Sample]:
        """`n` new, distinct, valid samples (every label); fewer when the space is exhausted."""

    def tell(self, sample: Mapping[str, Any], metrics: Mapping[str, float] | float | None) -> None:
        """Record the result of a sample; None says that the evaluation failed."""

    def state_dict(self) -> dict[str, Any]:
        """All that the search knows, as plain JSON."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume exactly where `state_dict` was taken."""


class BaseSearch(Resumable):
    """A search that keeps its books; a subclass supplies `_propose`.

    Args:
        space: Where to search.
        objectives: What to improve; names stand for metrics to maximise.
        limits: Hard upper limits on the space's exact costs; no sample above one is ever asked.
        seed: Of every random choice.
        repeat_networks: Whether samples of one network, as the space's `key` tells, are all asked
            for; each sample is asked for once, in any case.

    Raises:
        SpaceError: A limit names a cost that the space does not have.
    """

    def __init__(
        self,
        space: CodeSpace,
        *,
        objectives: Sequence[Objective | str] = ("default",),
        limits: Mapping[str, float] | None = None,
        seed: int = 0,
        repeat_networks: bool = False,
    ) -> None:
        if isinstance(objectives, (str, Objective)):
            raise ValueError(f"objectives must be a list of them, but got {objectives!r} alone.")
        self.space = space
        self.objectives = tuple(Objective.of(o) for o in objectives)
        names = [o.metric for o in self.objectives]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"a search must have objectives that differ, but got {names}.")
        self.limits = check_limits(space, limits or {})
        self._book = CostBook(space)
        self.seed = seed
        self.repeat_networks = repeat_networks
        self._rng = np.random.default_rng(seed)
        self._pending: dict[str, Sample] = {}
        self._history: list[tuple[Sample, dict[str, float] | None]] = []
        self._records: dict[str, int] = {}
        self._seen: set[str] = set()
        self._exhausted = False
        self._told = 0

    @classmethod
    def stand_in(cls, costs: Iterable[str] = ()) -> CodeSpace:
        """The smallest space that such a search takes, with costs of these names."""
        return CodeSpace([Ordinal("option", (0, 1))], costs=dict.fromkeys(costs, _ones))

    @property
    def needed(self) -> tuple[str, ...]:
        """The metrics without which a result counts as failed."""
        return tuple(self._needed())

    @property
    def bounds(self) -> Mapping[str, float]:
        """Upper bounds, on exact costs or on metrics, that the best result should keep."""
        return {}

    def keeps_bounds(self, sample: Mapping[str, Any], metrics: Mapping[str, float]) -> bool:
        """Whether a result is within all of `bounds`."""
        for name, bound in self.bounds.items():
            if name in self.space.costs:
                code = self.space.encode([self.space.settled(sample)])
                value = float(self.space.cost(name, code)[0])
            else:
                value = metrics.get(name, math.inf)
            if not value <= bound:
                return False
        return True

    @property
    def history(self) -> list[tuple[Sample, dict[str, float] | None]]:
        """What was told, in order: samples and metrics (None where the evaluation failed)."""
        return list(self._history)

    @property
    def exhausted(self) -> bool:
        """Whether `ask` has run out of new samples; known only once it came back short."""
        return self._exhausted

    def pending(self) -> list[Sample]:
        """Samples asked and not yet told; a front end that resumes evaluates these first."""
        return list(self._pending.values())

    def ask(self, n: int = 1) -> list[Sample]:
        """`n` new, distinct, valid samples (every label); fewer when the space is exhausted."""
        if n < 0:
            raise ValueError(f"n must not be negative, but got {n}.")
        out: list[Sample] = []
        self._exhausted = False
        while len(out) < n and not self._exhausted:
            proposed = self._propose(n - len(out))
            self._exhausted = not proposed
            for sample in proposed:
                self._seen.add(self._network(sample))
                self._pending[self.space.key(sample)] = sample
                out.append(sample)
        return out

    def tell(self, sample: Mapping[str, Any], metrics: Mapping[str, float] | float | None) -> None:
        """Record a sample's result, asked here or not.

        A sample that is told again keeps one record: a result replaces a failure and an older
        result.

        Args:
            sample: Of the space; it may lack inactive labels.
            metrics: Numbers by name, or a number where there is one objective. None, or NaN in an
                objective or a constraint, says that the evaluation failed. Further finite numbers
                are kept; one whose name begins with `constraint:` is violated where it is above 0.

        Raises:
            SpaceError: The sample is not one of the space.
            ValueError: An objective, or a cost that the search learns, is not among the metrics, or
                one of these or a constraint is no finite number.
        """
        problem = self.space.violation(sample)
        if problem is not None:
            raise SpaceError(problem)
        kept = self._checked(metrics)
        key = self.space.key(sample)
        full = self._pending.pop(key, None) or self.space.settled(sample)
        self._seen.add(self._network(full))
        self._told += 1
        if key not in self._records:
            self._records[key] = len(self._history)
            self._history.append((full, kept))
        elif kept is not None:
            self._history[self._records[key]] = (full, kept)

    # --- several workers at one search ---

    def ready(self) -> bool:
        """Whether the next proposal is there, or quick to make."""
        return True

    def prepare(self, n: int) -> None:
        """Make the next round now, of `n` proposals or more; nothing where there are no rounds."""

    def expect(self, sample: Mapping[str, Any]) -> None:
        """Take it that a sample is being evaluated, by somebody who asked elsewhere.

        Raises:
            SpaceError: The sample is not one of the space.
        """
        key = self.space.key(sample)
        if key not in self._records and key not in self._pending:
            full = self.space.settled(sample)
            self._seen.add(self._network(full))
            self._pending[key] = full

    def dismiss(self, key: str) -> None:
        """Wait no more for a result of the sample with this key; it stays known as asked for."""
        self._pending.pop(key, None)

    def _checked(self, metrics: Mapping[str, float] | float | None) -> dict[str, float] | None:
        """The finite numbers of `metrics`; None for a failed evaluation."""
        if metrics is None:
            return None
        needed = self._needed()
        if not isinstance(metrics, Mapping):
            if len(needed) > 1:
                raise ValueError(
                    f"a result must be numbers by the names {', '.join(needed)}, "
                    f"but got {metrics!r:.80}."
                )
            metrics = {needed[0]: metrics}
        missing = [name for name in needed if name not in metrics]
        if missing:
            given = ", ".join(map(str, metrics)) or "nothing"
            hint = (
                "; `default` is the objective where a search is given no `objectives`"
                if "default" in missing
                else ""
            )
            raise ValueError(
                f"a result must have {', '.join(needed)}, but lacks {', '.join(missing)}: "
                f"it has {given}{hint}."
            )
        kept, failed = {}, False
        for name, value in metrics.items():
            number = as_number(value)
            decides = name in needed or str(name).startswith(CONSTRAINT)
            if number is not None and math.isfinite(number):
                kept[str(name)] = number
            elif decides and number is not None and math.isnan(number):
                failed = True
            elif decides:
                raise ValueError(
                    f"{name} of a result must be a finite number, or NaN where the evaluation "
                    f"failed, but got {value!r:.80}; the result has {', '.join(map(str, metrics))}."
                )
        return None if failed else kept

    def _network(self, sample: Mapping[str, Any]) -> str:
        """The text that samples share which are not both asked for."""
        (key,) = self._networks(self.space.points([sample]))
        return key

    def _networks(self, points: NDArray[np.float64]) -> list[str]:
        """The same for each of (n, d) points."""
        return self.space.keys(points) if self.repeat_networks else self.space.network_keys(points)

    def _needed(self) -> list[str]:
        """Metrics without which a result counts as failed."""
        return [o.metric for o in self.objectives]

    @abstractmethod
    def _propose(self, n: int) -> list[Sample]:
        """Up to `n` samples whose networks are not in `_seen`; none when there are no more."""

    def _results(self) -> tuple[list[Sample], list[dict[str, float]]]:
        """The samples and metrics of the evaluations that did not fail."""
        good = [(s, m) for s, m in self._history if m is not None]
        return [s for s, _ in good], [m for _, m in good]

    def _merit(self, metrics: Mapping[str, float]) -> float:
        """The weighted sum of the objectives, more is better."""
        terms = [o.weight * o.sign * metrics[o.metric] for o in self.objectives]
        if not math.isfinite(sum(terms)):  # its parts are finite
            parts = (o.weight * o.sign * (metrics[o.metric] / 2**40) for o in self.objectives)
            return max(-_LARGEST, min(_LARGEST, sum(parts) * 2**40))
        return sum(terms)

    def best(self) -> tuple[Sample, dict[str, float]] | None:
        """The best result told so far by the weighted sum of the objectives; None without any.

        Results that violate no constraint go before those that do, and where a search has targets,
        results that keep them before those that do not.
        """
        found = list(zip(*self._results(), strict=True))
        if not found:
            return None
        return max(found, key=self._standing)

    def _standing(self, result: tuple[Sample, dict[str, float]]) -> tuple[float, bool, float]:
        """What the results are ordered by, the best has the largest; see `best`."""
        sample, metrics = result
        return -violation(metrics), self.keeps_bounds(sample, metrics), self._merit(metrics)

    def _admit(
        self, samples: Sequence[Sample], n: int, taken: set[str], *, thorough: bool = False
    ) -> list[Sample]:
        """The first `n` of the samples that are new, valid and within the limits; `taken` grows."""
        out: list[Sample] = []
        if not samples or n < 1:
            return out
        points = self.space.points(samples)
        keys: dict[int, str] = {}

        def is_new(i: int) -> bool:
            if self.space.violation(samples[i]) is not None:
                return False
            keys[i] = self._networks(points[[i]])[0]
            return keys[i] not in self._seen and keys[i] not in taken

        for i in within_limits(self._book, points, self.limits, is_new, thorough=thorough):
            taken.add(keys[i])
            out.append(self.space.settled(samples[i]))
            if len(out) == n:
                break
        return out

    def _drawn_points(self, n: int) -> NDArray[np.float64]:
        """(n, d) points of valid random samples."""
        if not self.space.constraints:
            return self.space.sample_points(n, self._rng)
        return self.space.points(self.space.sample(n, self._rng))

    def _random_new(self, n: int) -> list[Sample]:
        """`n` new random samples within the limits; fewer when there are no more."""
        taken: set[str] = set()
        out: list[Sample] = []
        small = self.space.size <= LISTED
        for _ in range(_TRIES):
            try:
                drawn = self.space.sample(max(2 * n, 16), self._rng)
            except InfeasibleError:
                if not small:
                    raise
                break
            out += self._admit(drawn, n - len(out), taken)
            if len(out) == n:
                return out
        if small:
            everything = self.space.from_points(
                self._rng.permutation(self.space.enumerate_points(LISTED))
            )
            out += self._admit(everything, n - len(out), taken, thorough=True)
            if out or self._seen or not self.limits:
                return out
        elif rows := tabulated(self.space, self.limits):
            order = self._rng.permutation(len(rows))
            out += self._admit([rows[i] for i in order], n - len(out), taken)
            if out or self._seen:
                return out
        return out + self._repaired_new(n - len(out), taken)

    def _repaired_new(self, n: int, taken: set[str]) -> list[Sample]:
        """`n` new samples, repaired where the limits leave too little to hit by chance.

        Raises:
            InfeasibleError: No sample was ever found, and none of the draws can be repaired.
        """
        out: list[Sample] = []
        problem: InfeasibleError | None = None
        learned = any(self._book.is_learned(name) for name in self.limits)
        tries = _FEW_TRIES if learned else _TRIES  # each may evaluate costs
        for _ in range(tries * n if self.limits else 0):
            drawn = self.space.sample(1, self._rng)
            try:
                found = repair(self.space, drawn, self.limits, self._rng, self._book)
            except InfeasibleError as err:
                problem = err
                if learned and not out:
                    break
                continue
            out += self._admit(found, n - len(out), taken)
            if len(out) == n:
                break
        if problem is not None and not (out or taken or self._seen):
            raise problem
        return out
