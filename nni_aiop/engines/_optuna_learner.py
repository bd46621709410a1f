"""Learning the space of a define-by-run objective from the trials that it has completed."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping, Sequence

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from nni_aiop.engines._optuna_parameters import parameters_of
from nni_aiop.engines._optuna_presence import Presence, presence
from nni_aiop.engines._optuna_ranges import current, united
from nni_aiop.engines.optuna_space import code_space_from_distributions
from nni_aiop.spaces import CodeSpace, Condition, Sample, narrowed

__all__ = ["SpaceLearner"]


class SpaceLearner:
    """The space that completed trials have seen, with simple conditions.

    A label that some trials lack is taken to be present iff an earlier label's value is one of
    those beside which it was seen (or several earlier labels', where one alone does not explain
    it). Beside values never seen it is taken to be absent, until a trial shows it. Ranges that vary
    are united. Where the objective has changed, its latest trials count: a label that is asked for
    no more is left out, and a range that has become another one for good is that one.

    Args:
        base: A space whose labels and values are known, so that only what is asked for is learned.

    Attributes:
        space: What has been learnt; None before the first trial with parameters.
        since: Number of the first trial of the objective as it is now.
    """

    def __init__(self, base: CodeSpace | None = None) -> None:
        self.base = self.space = base
        self.since = 0
        self._distributions: dict[str, BaseDistribution] = {}
        self._presence = Presence(frozenset(), {}, 0)
        self._trials: list[FrozenTrial] = []

    def add(self, trial: FrozenTrial) -> bool:
        """Learn from a completed trial; whether the space is another one now."""
        if self.base is not None and trial.params.keys().isdisjoint(self.base.labels):
            return False
        if not trial.distributions:
            return False
        bisect.insort(self._trials, trial, key=lambda t: t.number)
        return self._learn(trial) if self.base is None else self._narrow(self.base, trial)

    def _learn(self, trial: FrozenTrial) -> bool:
        known = self._distributions
        if (
            self.space is not None
            and all(known.get(label) == d for label, d in trial.distributions.items())
            and self._expects(trial)
        ):
            return False
        all_seen = [t.distributions for t in self._trials]
        seen = {label: [d[label] for d in all_seen if label in d] for label in _order(all_seen)}
        grown = code_space_from_distributions({label: united(d) for label, d in seen.items()})
        self._presence = presence(grown, [_values(grown, t) for t in self._trials])
        self.since = self._trials[self._presence.since].number
        self._distributions = {
            label: current(distributions)
            for label, distributions in seen.items()
            if label not in self._presence.absent
        }
        learnt = _conditioned(self._distributions, self._presence.conditions)
        if self.space is not None and learnt.fingerprint == self.space.fingerprint:
            return False
        self.space = learnt
        return True

    def _narrow(self, base: CodeSpace, trial: FrozenTrial) -> bool:
        if self._expects(trial):
            return False
        samples = [_values(base, t) for t in self._trials]
        expected = [base.canonical(s).keys() for s in samples]
        before, self._presence = self._presence, presence(base, samples, expected)
        self.since = self._trials[self._presence.since].number
        if self._presence == before:
            return False
        self.space = narrowed(base, self._presence.absent, self._presence.conditions)
        return True

    def _expects(self, trial: FrozenTrial) -> bool:
        """Whether the trial asked for what the space says."""
        assert self.space is not None
        known = self.space.labels
        if self.base is None and not trial.distributions.keys() <= set(known):
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


def _conditioned(
    distributions: Mapping[str, BaseDistribution], conditions: Mapping[str, Sequence[Condition]]
) -> CodeSpace:
    """The space of the distributions, under the conditions as far as it has their values."""
    plain = code_space_from_distributions(distributions)
    dimensions = {d.label: d for d in plain.dimensions}
    kept: dict[str, list[Condition]] = {}
    for label, given in conditions.items():
        for condition in given:
            values = []
            for value in condition.values:
                try:
                    dimensions[condition.parent].point(value)
                except (KeyError, TypeError, ValueError):
                    continue
                values.append(value)
            if values and label in dimensions:
                kept.setdefault(label, []).append(Condition(condition.parent, tuple(values)))
    return code_space_from_distributions(distributions, conditions=kept)


def _order(seen: Iterable[Mapping[str, BaseDistribution]]) -> list[str]:
    """All labels, each new one right behind the one that was suggested before it."""
    labels: list[str] = []
    for distributions in seen:
        place = 0
        for label in distributions:
            if label in labels:
                place = labels.index(label) + 1
            else:
                labels.insert(place, label)
                place += 1
    return labels
