"""Learning the space of a define-by-run objective from the trials that it has completed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial

from nni_aiop.engines._optuna_parameters import parameters_of
from nni_aiop.engines.optuna_space import code_space_from_distributions
from nni_aiop.spaces import CodeSpace, Condition, Dimension, Nominal, Ordinal, Sample

__all__ = ["SpaceLearner"]

_MAX_PARENT_VALUES = 100  # a dimension with more values decides about no other


class SpaceLearner:
    """The union of the spaces that completed trials have seen, with simple conditions.

    A label that some trials lack is taken to be present iff an earlier label's value is one of
    those beside which it was seen (or several earlier labels', where one alone does not explain
    it). Beside values never seen it is taken to be absent, until a trial shows it.

    Attributes:
        space: What has been learnt; None before the first trial with parameters.
    """

    def __init__(self) -> None:
        self.space: CodeSpace | None = None
        self._distributions: dict[str, BaseDistribution] = {}
        self._trials: list[FrozenTrial] = []

    def add(self, trial: FrozenTrial) -> bool:
        """Learn from a completed trial; whether the space is another one now."""
        if not trial.distributions:
            return False
        self._trials.append(trial)
        if self.space is not None and self._explained(trial):
            return False
        self._distributions = _union(self._distributions, trial.distributions)
        grown = code_space_from_distributions(self._distributions)
        conditions = _conditions(grown, [_values(grown, t) for t in self._trials])
        learnt = code_space_from_distributions(self._distributions, conditions=conditions)
        if self.space is not None and learnt.fingerprint == self.space.fingerprint:
            return False
        self.space = learnt
        return True

    def _explained(self, trial: FrozenTrial) -> bool:
        assert self.space is not None
        known = self._distributions
        if not trial.distributions.keys() <= known.keys():
            return False
        if any(
            _merged(known[label], d) != known[label] for label, d in trial.distributions.items()
        ):
            return False
        present = _values(self.space, trial)
        return self.space.canonical(present).keys() == present.keys()


def _values(space: CodeSpace, trial: FrozenTrial) -> Sample:
    sample: Sample = {}
    for label, parameter in parameters_of(space).items():
        if label in trial.params:
            try:
                sample[label] = parameter.read(trial.params[label], trial.distributions[label])
            except LookupError:  # an enqueued value outside its distribution
                sample[label] = parameter.dimension.value(parameter.dimension.default)
    return sample


def _union(
    known: dict[str, BaseDistribution], seen: dict[str, BaseDistribution]
) -> dict[str, BaseDistribution]:
    """Both, each new label right behind the one that was suggested before it."""
    labels = list(known)
    place = 0
    for label in seen:
        if label in known:
            place = labels.index(label) + 1
        else:
            labels.insert(place, label)
            place += 1
    return {
        label: _merged(known[label], seen[label])
        if label in known and label in seen
        else known.get(label) or seen[label]
        for label in labels
    }


def _merged(a: BaseDistribution, b: BaseDistribution) -> BaseDistribution:
    """A distribution with the values of both (within a study choices never change)."""
    if a == b or isinstance(a, CategoricalDistribution) or type(a) is not type(b):
        return a
    if isinstance(a, IntDistribution) and isinstance(b, IntDistribution):
        low, high = min(a.low, b.low), max(a.high, b.high)
        step = 1 if a.log else math.gcd(a.step, b.step, a.low - b.low, a.high - b.high)
        return IntDistribution(low, high, log=a.log, step=step or 1)
    assert isinstance(a, FloatDistribution) and isinstance(b, FloatDistribution)
    low_, high_ = min(a.low, b.low), max(a.high, b.high)
    same_grid = a.step == b.step and a.step is not None and _multiple(a.low - b.low, a.step)
    return FloatDistribution(low_, high_, log=a.log, step=a.step if same_grid else None)


def _multiple(number: float, step: float) -> bool:
    return math.isclose(number / step, round(number / step), abs_tol=1e-8)


def _conditions(space: CodeSpace, samples: Sequence[Sample]) -> dict[str, list[Condition]]:
    """For each label that some samples lack, what its parents' values were where it is present."""
    dimensions = {d.label: d for d in space.dimensions}
    rows = [{label: dimensions[label].point(v) for label, v in s.items()} for s in samples]
    found: dict[str, list[Condition]] = {}
    for j, label in enumerate(space.labels):
        lacking = [row for row in rows if label not in row]
        having = [row for row in rows if label in row]
        seen_beside = {
            d.label: {row[d.label] for row in having}
            for d in space.dimensions[:j]
            if lacking and _can_decide(d) and all(d.label in row for row in having)
        }
        # Unordered choices, few values, and the nearest label are the likeliest to decide.
        parents = sorted(
            seen_beside,
            key=lambda p: (
                not isinstance(dimensions[p], Nominal),
                dimensions[p].size,
                -space.labels.index(p),
            ),
        )
        chosen: list[Condition] = []
        while lacking and parents:
            left = {p: [r for r in lacking if r.get(p) in seen_beside[p]] for p in parents}
            best = min(parents, key=lambda p: len(left[p]))
            if len(left[best]) == len(lacking):
                break
            values = tuple(dimensions[best].value(point) for point in sorted(seen_beside[best]))
            chosen.append(Condition(best, values))
            lacking = left[best]
        if chosen:
            found[label] = chosen
    return found


def _can_decide(dimension: Dimension) -> bool:
    return isinstance(dimension, (Nominal, Ordinal)) and dimension.size <= _MAX_PARENT_VALUES
