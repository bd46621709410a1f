"""The rest of a sample of which a part is given: by the user, another sampler, or a range."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from nni_aiop.engines._optuna_draws import draw
from nni_aiop.engines._optuna_outcomes import Outcome, Outcomes, mark
from nni_aiop.engines._optuna_parameters import parameters_of
from nni_aiop.engines._ordered import is_number
from nni_aiop.errors import InfeasibleError
from nni_aiop.search import Search
from nni_aiop.spaces import CodeSpace, Sample, meets_limits

__all__ = ["Fitting", "Proposal", "Taken"]

_DRAWN = 100  # random completions of a partly fixed trial that are looked at together


_PATIENCE = 10  # such draws before it may repeat an architecture, or exceed a limit


Taken = frozenset[tuple[str, Hashable]]
"""An outcome that can be looked up."""


@dataclass
class Proposal:
    """What a trial should evaluate.

    Attributes:
        sample: Its active labels.
        outcome: What the trial is thought to get of it.
        asked: What the search asked for; None where it did not.
        fixed: Whether values were given that the search had no say in.
    """

    sample: Sample
    outcome: dict[str, Hashable]
    asked: Sample | None = None
    fixed: bool = False


class Fitting:
    """Samples with given parts that are valid, within the limits, and new to the study.

    Attributes:
        networks: Networks that were told, where the search asks for a network once.
    """

    def __init__(self, space: CodeSpace, search: Search, outcomes: Outcomes) -> None:
        self.space = space
        self.search = search
        self.outcomes = outcomes
        self.parameters = parameters_of(space)
        self.networks: set[str] = set()

    def facts(self, trial: FrozenTrial, *, legal: bool = False) -> Sample:
        """The values that the trial has already, suggested or enqueued.

        Args:
            trial: The trial.
            legal: Only those that are in the space.

        Raises:
            LookupError: One of them is not in the space.
        """
        facts: Sample = {}
        fixed = trial.system_attrs.get("fixed_params", {})
        for label, parameter in self.parameters.items():
            with contextlib.suppress(*([LookupError] if legal else [])):
                if label in trial.params:
                    facts[label] = parameter.read(trial.params[label], trial.distributions[label])
                elif label in fixed:
                    facts[label] = parameter.read(fixed[label])
        return facts

    def networks_of(self, samples: Sequence[Sample]) -> set[str]:
        """Networks that a search asks for once; none where each sample is one of its own."""
        if self.space.network is None or getattr(self.search, "repeat_networks", False):
            return set()
        return set(self.space.network_keys(self.space.points(samples)))

    def is_new(self, outcome: Outcome, taken: set[Taken]) -> bool:
        known = frozenset(outcome.items()) in taken
        return not known and self.outcomes.repeated(outcome) is None

    def completed(
        self,
        asked: Sample | None,
        facts: Sample,
        taken: set[Taken],
        trial: FrozenTrial,
        *,
        new: bool = False,
    ) -> Sample | None:
        """The facts with the rest of what was asked, or of its neighbours, or a random rest.

        It is valid, within the limits and new; where no such rest turns up, the facts are the
        user's order: it may be taken by another trial, else exceed a limit, else be invalid; None
        where only what is `new` will do, or nothing was asked.
        """
        elsewhere: Sample = {}  # what the trial will have whatever is proposed
        for label, param in self.outcomes.elsewhere.items():
            with contextlib.suppress(LookupError):
                elsewhere[label] = self.parameters[label].read(param)
        limits = getattr(self.search, "limits", {})
        repeating: Sample = {}
        exceeding: Sample = {}
        for drawn in self._completions(asked, facts, np.random.default_rng(trial.number)):
            pairs = [(s, {**s, **elsewhere, **facts}) for s in drawn]
            valid = [pair for pair in pairs if self.space.violation(pair[1]) is None]
            points = self.space.points([s for _, s in valid])
            within = meets_limits(self.space, points, limits) if valid else ()
            for (sample, had), ok in zip(valid, within, strict=True):
                if not ok:
                    exceeding = exceeding or sample
                elif self.is_new(self.outcomes.of(had, trial.params), taken) and not (
                    new and self.networks & self.networks_of([had])
                ):
                    return sample
                else:
                    repeating = repeating or sample
        if new or asked is None:
            return None
        return repeating or exceeding or {**asked, **facts}

    def _completions(
        self, asked: Sample | None, facts: Sample, rng: np.random.Generator
    ) -> Iterator[list[Sample]]:
        if asked is not None:
            yield [{**asked, **facts}]
            near = self.space.neighbours({**asked, **facts})
            yield [{**near[i], **facts} for i in rng.permutation(len(near))]
        for _ in range(_PATIENCE):
            with contextlib.suppress(InfeasibleError):  # nothing valid is found by chance
                yield [{**s, **facts} for s in self.space.sample(_DRAWN, rng)]

    def refitted(
        self,
        taken: set[Taken],
        trial: FrozenTrial,
        proposal: Proposal,
        label: str,
        distribution: BaseDistribution,
    ) -> tuple[Sample, Any]:
        """A sample that makes the trial new by this label's parameter, or else by the rest.

        The first parameter that may be, with what was proposed, where nothing new turns up.
        """
        facts = self.facts(trial, legal=True)
        parameter, sample = self.parameters[label], {**proposal.sample, **facts}
        wanted: Any = proposal.sample.get(label)
        drawn = [draw(i, trial, label, distribution) for i in range(_DRAWN)]
        params = list({mark(param): param for param in drawn}.values())
        if is_number(wanted) and all(map(is_number, params)):
            params.sort(key=lambda param: abs(param - wanted))
        if label in proposal.sample:
            with contextlib.suppress(LookupError):
                params.insert(0, parameter.write(wanted, distribution))
        known = {x: mark(p) for x, p in trial.params.items() if x in self.parameters}
        for param in params:
            outcome = {**proposal.outcome, **known, label: mark(param)}
            if self.is_new(outcome, taken) and self._allows(sample, label, param, distribution):
                return sample, param
        for some in self._completions(None, facts, np.random.default_rng(trial.number)):
            for other in some:
                param = params[0]
                with contextlib.suppress(LookupError):
                    param = parameter.write(other[label], distribution)
                outcome = {**self.outcomes.of(other, trial.params), label: mark(param)}
                if self.is_new(outcome, taken) and self._allows(other, label, param, distribution):
                    return other, param
        return sample, params[0]

    def _allows(
        self, sample: Sample, label: str, param: Any, distribution: BaseDistribution
    ) -> bool:
        """Whether the sample with this parameter is one of the space, and within the limits."""
        try:
            had = {**sample, label: self.parameters[label].read(param, distribution)}
        except LookupError:
            return False
        limits = getattr(self.search, "limits", {})
        return self.space.violation(had) is None and bool(
            meets_limits(self.space, self.space.points([had]), limits)[0]
        )
