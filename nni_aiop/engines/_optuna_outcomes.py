"""What a trial really gets of what is proposed to it, and what others have got already.

The objective names its own distributions, which move numbers into their range and onto their steps;
another sampler may fix values, or an enqueued trial; and what is proposed may never be asked for.
An outcome is what the trial has in the end, as far as it is known: two proposals with equal
outcomes are one and the same to the objective.
"""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from nni_aiop.engines._optuna_parameters import Parameter, _plain
from nni_aiop.engines._optuna_ranges import current
from nni_aiop.engines._ordered import is_number
from nni_aiop.spaces import CodeSpace, Sample

__all__ = ["Outcome", "Outcomes", "mark"]

_REMEMBERED = 10  # latest distributions of a label, by which the next one is foretold


Outcome = Mapping[str, Hashable]
"""For each label the mark of its parameter."""


def mark(param: Any) -> Hashable:
    """What two parameters share exactly when they are the same: numbers to twelve digits."""
    if is_number(param):
        return float(f"{param:.12g}")
    return repr(_plain(param))


@dataclass
class _Node:
    """What the objective asks for next where it was given the same before."""

    label: str = ""
    distribution: BaseDistribution | None = None
    below: dict[Hashable, _Node] = field(default_factory=dict)


class _Asked:
    """What completed trials were asked for, by the labels that they have."""

    def __init__(self) -> None:
        self._rows: dict[frozenset[str], list[tuple[int, dict[str, Hashable]]]] = {}
        # For labels and some of these the last trial with each value of the latter.
        self._parts: dict[tuple[frozenset[str], frozenset[str]], dict[Hashable, int]] = {}

    def add(self, number: int, got: dict[str, Hashable]) -> None:
        labels = frozenset(got)
        self._rows.setdefault(labels, []).append((number, got))
        for (whole, part), last in self._parts.items():
            if whole == labels:
                key = frozenset((label, got[label]) for label in part)
                last[key] = max(number, last.get(key, -1))

    def contradicting(self, got: dict[str, Hashable]) -> int:
        """Number of the last trial that has all of this and more, or a part and no more; or -1."""
        labels, found = frozenset(got), -1
        for other in self._rows:
            if other == labels:
                continue
            if other < labels or labels < other:
                part = other if other < labels else labels
                last = self._last(other, part)
                found = max(found, last.get(frozenset((x, got[x]) for x in part), -1))
        return found

    def _last(self, labels: frozenset[str], part: frozenset[str]) -> dict[Hashable, int]:
        known = self._parts.get((labels, part))
        if known is None:
            known = self._parts[labels, part] = {}
            for number, got in self._rows[labels]:
                key = frozenset((label, got[label]) for label in part)
                known[key] = max(number, known.get(key, -1))
        return known

    def forget(self, last: int) -> None:
        """Forget the trials up to this number."""
        rows = {k: [(n, got) for n, got in v if n > last] for k, v in self._rows.items()}
        self._rows = {labels: kept for labels, kept in rows.items() if kept}
        self._parts = {}


class Outcomes:
    """What the completed trials of a study have got, and what a proposal would get.

    Args:
        space: What proposals are samples of.
        parameters: How its dimensions stand in Optuna.
        since: Number of the first trial of the objective as it is now: what an earlier one got may
            be evaluated again.

    Attributes:
        elsewhere: For each label whose latest value came from elsewhere (a sampler that fixes it)
            that parameter.
    """

    def __init__(
        self, space: CodeSpace, parameters: Mapping[str, Parameter], since: int = 0
    ) -> None:
        self.space = space
        self.elsewhere: dict[str, Any] = {}
        self._parameters = parameters
        self._since = since
        self._named: dict[str, dict[int, BaseDistribution]] = {}  # by the trial's number
        self._latest: dict[str, BaseDistribution] = {}
        self._varying: set[str] = set()  # labels whose range comes and goes
        self._root = _Node()
        self._asked = _Asked()
        self._done: dict[tuple[str, ...], dict[tuple[Hashable, ...], int]] = {}

    def learn(self, trial: FrozenTrial, claimed: Sample, known: Sample) -> bool:
        """Learn from a completed trial; whether it repeats another one.

        Args:
            trial: The trial.
            claimed: What was proposed to it; empty where nothing was.
            known: Its whole sample.
        """
        self.see(trial)
        proposed = self._params(claimed, trial.distributions)
        ordered = trial.system_attrs.get("fixed_params", {})
        for label, param in trial.params.items():
            if label not in proposed or label in ordered:
                continue
            if mark(param) != mark(proposed[label]):
                self.elsewhere[label] = param
            elif label in self.elsewhere and mark(param) != mark(self.elsewhere[label]):
                del self.elsewhere[label]
        if trial.number < self._since:
            return False
        node = self._root
        got = {}
        for label, param in trial.params.items():
            got[label] = mark(param)
            node.label, node.distribution = label, trial.distributions[label]
            node = node.below.setdefault(got[label], _Node())
        self._forget_contradicted(got)
        self._asked.add(trial.number, got)
        # An objective that is given the same again asks for the same again, and for no more. Of one
        # that also asks for labels outside of the space this is not known.
        shared = {label: m for label, m in got.items() if label in self._parameters}
        if len(shared) < len(got):
            shared = {**self.of(known), **shared}
        repeats = self.repeated(shared) is not None
        if shared:
            labels = tuple(label for label in self.space.labels if label in shared)
            values = tuple(shared[label] for label in labels)
            self._done.setdefault(labels, {}).setdefault(values, trial.number)
        return repeats

    def see(self, trial: FrozenTrial) -> None:
        """Keep the distributions that the objective names, of the latest trials with each."""
        for label, distribution in trial.distributions.items():
            named = self._named.setdefault(label, {})
            if trial.number not in named and trial.number > min(named, default=-1):
                if label in self._latest and self._latest[label] == distribution:
                    distribution = self._latest[label]  # one object, which is quick to compare
                named[trial.number] = distribution
                if len(named) > _REMEMBERED:
                    del named[min(named)]
                if all(other is distribution for other in named.values()):
                    self._latest[label] = distribution
                    continue
                self._latest[label] = current([named[n] for n in sorted(named)])
                if self._latest[label] != distribution:
                    self._varying.add(label)

    def _forget_contradicted(self, got: dict[str, Hashable]) -> None:
        """Forget what was got before the objective began to ask for more, or less, beside it."""
        last = self._asked.contradicting(got)
        if last >= 0:
            self._asked.forget(last)
            self._done = {
                labels: {values: n for values, n in done.items() if n > last}
                for labels, done in self._done.items()
            }

    def of(self, sample: Sample, facts: Mapping[str, Any] | None = None) -> dict[str, Hashable]:
        """What a trial would get of the sample.

        Args:
            sample: Active labels, or more.
            facts: Parameters that the trial has already.
        """
        sample = self.space.canonical(sample)
        given = {**self.elsewhere, **(facts or {})}
        params = {**self._params(sample, self._latest), **given}
        outcome = {label: mark(params[label]) for label in sample}
        node: _Node | None = self._root
        while self._varying and node is not None and node.label in outcome:
            label = node.label
            if label in self._varying and label not in given and node.distribution is not None:
                (param,) = self._params({label: sample[label]}, {label: node.distribution}).values()
                outcome[label] = mark(param)
            node = node.below.get(outcome[label])
        return outcome

    def _params(
        self, sample: Sample, distributions: Mapping[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The sample as parameters of the objective's distributions, as far as it has them."""
        out = {}
        for label, value in sample.items():
            parameter = self._parameters[label]
            out[label] = parameter.to_param(value)
            if label in distributions:
                with contextlib.suppress(LookupError):  # the objective refuses it: drawn at random
                    out[label] = parameter.write(value, distributions[label])
        return out

    def repeated(self, outcome: Outcome) -> int | None:
        """Number of the completed trial that the outcome repeats; None where it is new."""
        for labels, done in self._done.items():
            if all(label in outcome for label in labels):
                number = done.get(tuple(outcome[label] for label in labels))
                if number is not None:
                    return number
        return None
