"""FlopsReduction: a network's edits searched for fewer multiply-adds at the same quality.

The application of AIO-P (Mills et al., AAAI 2023, arXiv 2211.17228, "Application to NAS") is a
mutation search that a predictor guides. Here measured results guide it, because no cheap score
orders edits reliably; a predictor may join, and counts as far as it has been right so far.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nni_aiop.predictors.metrics import spearman
from nni_aiop.search._acquisition import log_expected_improvement
from nni_aiop.search._base import BaseSearch
from nni_aiop.search._budgeted import BudgetedEdits, Score
from nni_aiop.spaces import CRITERION, CodeSpace, MutationSpace, Sample

if TYPE_CHECKING:
    from nni_aiop.graphs import ComputeGraph

__all__ = ["FlopsReduction"]

Judge = Callable[[Sequence["ComputeGraph"]], Sequence[float]]

_FEW = 5  # results before a predictor can count
_FOR_GP = 20  # results before a Gaussian process joins
_CHILDREN = 16
_MEASURED = 3  # children of each proposal whose loss is measured
_TRIES = 24
_NEWCOMERS = 50


class FlopsReduction(BaseSearch):
    """Edits of a network within budgets of multiply-adds, best quality first found by measuring.

    Asked in this order: every width cut alike, with each of the space's criteria for the channels
    that stay (uniform pruning is the one to beat); what a greedy descent over all sites, structural
    edits included, finds by measured loss for each multiply-add saved, and the same with widths
    alone; then mutations of what was told best. What a step saves too much is given back: every
    proposal is within its budget, and at most 1.5 % below it where the sites allow. From twenty
    results on a Gaussian process on codes chooses among the mutations.

    Args:
        space: The edits of a network, a `MutationSpace`.
        budgets: Parts of the network's cost to stay within; several give a front, and take turns.
        cost: Which cost: "flops" (multiply-adds, as in every space), "params", "peak_memory".
        score: The measured loss of a sample, less is better (`Calibration.loss`); without one the
            descent takes what saves most of the widest first.
        predictor: From compute graphs to figures, more is better (AIO-P as published). Its weight
            is 0 until its rank correlation with told results is positive, and grows with it.
        options: See `BaseSearch`.

    Raises:
        SpaceError: The space does not have the cost.
        ValueError: A budget is not in (0, 1], or the space is not one of mutations.
    """

    def __init__(
        self,
        space: CodeSpace,
        *,
        budgets: Sequence[float] = (0.865,),
        cost: str = "flops",
        score: Score | None = None,
        predictor: Judge | None = None,
        **options: Any,
    ) -> None:
        if not isinstance(space, MutationSpace):
            raise ValueError(
                f"FlopsReduction must be given a MutationSpace, the edits of a network, but got "
                f"{space!r:.80}."
            )
        if isinstance(budgets, (int, float)):
            budgets = (budgets,)
        self.budgets = tuple(sorted({float(b) for b in budgets}, reverse=True))
        if not self.budgets or not all(0 < b <= 1 for b in self.budgets):
            raise ValueError(f"budgets must be parts in (0, 1], but got {tuple(budgets)!r:.80}.")
        self._space = space
        self.cost = cost
        self.steps = BudgetedEdits(space, cost, score)
        self.whole = self.steps.whole
        limits = dict(options.pop("limits", None) or {})
        limits[cost] = min(limits.get(cost, np.inf), self.budgets[0] * self.whole)
        super().__init__(space, limits=limits, **options)
        self.score = score
        self.predictor = predictor
        self._stages: dict[float, int] = dict.fromkeys(self.budgets, 0)
        self._reports: dict[str, float] = {}

    @classmethod
    def stand_in(cls, costs: Iterable[str] = ()) -> MutationSpace:
        """The edits of two layers; a network has the costs that it has."""
        from nni_aiop.graphs import ComputeGraph, Node

        layers = [
            Node.make("input", [], (1, 8)),
            Node.make("linear", [(1, 8)], (1, 32), weight_shape=(32, 8), parameters=256),
            Node.make("linear", [(1, 32)], (1, 8), weight_shape=(8, 32), parameters=256),
            Node.make("output", [(1, 8)], (1, 8)),
        ]
        return MutationSpace(ComputeGraph(layers, [(), (0,), (1,), (2,)]))

    # --- what was found ---------------------------------------------------------------------------

    def budget_of(self, sample: Mapping[str, Any]) -> float | None:
        """The smallest budget that a sample keeps."""
        return self._budgets_of([sample])[0]

    def _budgets_of(self, samples: Sequence[Mapping[str, Any]]) -> list[float | None]:
        """The same of several samples at once."""
        if not samples:
            return []
        found = []
        for share in self.steps.shares(samples).tolist():
            kept = [b for b in self.budgets if share <= b * (1 + 1e-9)]
            found.append(min(kept) if kept else None)
        return found

    def best_within(self, budget: float) -> tuple[Sample, dict[str, float]] | None:
        """The best result told so far that keeps a budget; None without any."""
        samples, metrics = self._results()
        if not samples:
            return None
        shares = self.steps.shares(samples)
        found = [
            (sample, one)
            for sample, one, share in zip(samples, metrics, shares, strict=True)
            if share <= budget * (1 + 1e-9)
        ]
        return max(found, key=self._standing) if found else None

    def front(self) -> dict[float, tuple[Sample, dict[str, float]]]:
        """By budget the best result that keeps it."""
        found = {budget: self.best_within(budget) for budget in self.budgets}
        return {budget: best for budget, best in found.items() if best is not None}

    @property
    def predictor_weight(self) -> float:
        """How much the predictor counts beside what was measured, 0 to 1."""
        samples, metrics = self._results()
        if self.predictor is None or len(samples) < _FEW:
            return 0.0
        told = np.array([self._merit(one) for one in metrics])
        agreement = spearman(told, self._predicted(samples))
        return max(0.0, agreement) if np.isfinite(agreement) else 0.0

    # --- proposals --------------------------------------------------------------------------------

    def _propose(self, n: int) -> list[Sample]:
        asked = self._budgets_of([*self._pending.values(), *(s for s, _ in self._history)])
        for budget in sorted(self.budgets, key=asked.count):
            if found := self._next(budget):
                return [found]
        return []

    def _next(self, budget: float) -> Sample | None:
        starts = self._starts()
        while self._stages[budget] < len(starts):
            make = starts[self._stages[budget]]
            self._stages[budget] += 1
            sample = make(budget)
            if sample is not None and (found := self._admit([sample], 1, set())):
                return found[0]
        return self._mutant(budget)

    def _starts(self) -> list[Callable[[float], Sample | None]]:
        named = [c for c in self._space.criteria if c != "measured"]
        criteria: list[str | None] = [*named] or [None]
        starts: list[Callable[[float], Sample | None]] = [
            lambda budget, criterion=criterion: self.steps.uniform(budget, criterion)  # type: ignore[misc]
            for criterion in criteria
        ]
        starts.append(lambda budget: self.steps.greedy(budget, structural=True))
        starts.append(lambda budget: self.steps.greedy(budget, structural=False))
        return starts

    # --- mutations --------------------------------------------------------------------------------

    def _mutant(self, budget: float) -> Sample | None:
        """A child of what was told best, chosen among many by what is known."""
        samples, metrics = self._results()
        self.steps.measure()
        ranked = sorted(zip(samples, metrics, strict=True), key=self._standing, reverse=True)
        told = [sample for sample, _ in ranked]
        within = [s for s, b in zip(told, self._budgets_of(told), strict=True) if b == budget]
        parents = (within or told)[:3] or [self.steps.original()]
        children: dict[str, Sample] = {}
        for _ in range(_TRIES):
            parent = parents[min(int(self._rng.geometric(0.6)) - 1, len(parents) - 1)]
            child = self.steps.within(self.steps.mutated(parent, self._rng), budget, self._rng)
            if child is None:
                continue
            child = self.space.settled(child)
            key = self._network(child)
            if key not in self._seen:
                children.setdefault(key, child)
            if len(children) >= _CHILDREN:
                break
        if not children:
            return self._newcomer(budget)
        return self._chosen(list(children.values()), samples, metrics)

    def _newcomer(self, budget: float) -> Sample | None:
        """A random sample within a budget, where no child of the best is new."""
        for drawn in self.space.sample(_NEWCOMERS, self._rng):
            found = self.steps.within(drawn, budget, self._rng)
            if found is not None and self._network(found) not in self._seen:
                return found
        return None

    def _chosen(
        self,
        children: list[Sample],
        samples: Sequence[Sample],
        metrics: Sequence[Mapping[str, float]],
    ) -> Sample:
        added = np.array(
            [sum(self.steps.loss_at(label, v) for label, v in c.items() if label != CRITERION)
             for c in children]
        )  # fmt: skip
        rank = _ranks(added)
        if len(samples) >= _FOR_GP:
            rank = rank + 2 * _ranks(-self._improvement(children, samples, metrics))
        weight = self.predictor_weight
        if weight > 0:
            rank = rank + weight * _ranks(-self._predicted(children))
        order = np.argsort(rank, kind="stable")
        if self.score is None:
            return children[int(order[0])]
        tried = [children[i] for i in order[:_MEASURED].tolist()]
        return min(tried, key=self.score)

    def _improvement(
        self,
        children: Sequence[Sample],
        samples: Sequence[Sample],
        metrics: Sequence[Mapping[str, float]],
    ) -> NDArray[np.float64]:
        """(n,) the logarithm of the expected improvement of a Gaussian process on codes."""
        from nni_aiop.predictors import search_predictor

        merit = np.array([self._merit(one) for one in metrics])
        predictor = search_predictor(self.space, self.seed)
        predictor.fit(self.space.encode(list(samples)), {"merit": merit})
        guess = predictor.predict(self.space.encode(list(children)))["merit"]
        std = np.maximum(guess.std[:, 0], 1e-12)
        return log_expected_improvement(guess.mean[:, 0], std, float(merit.max()))

    def _predicted(self, samples: Sequence[Sample]) -> NDArray[np.float64]:
        """(n,) what the predictor says of samples; remembered."""
        assert self.predictor is not None
        keys = [self.space.key(sample) for sample in samples]
        fresh = [i for i, key in enumerate(keys) if key not in self._reports]
        if fresh:
            graphs = [self._space.graph_of(samples[i]) for i in fresh]
            for i, figure in zip(fresh, self.predictor(graphs), strict=True):
                self._reports[keys[i]] = float(figure)
        return np.array([self._reports[key] for key in keys])

    # --- state ------------------------------------------------------------------------------------

    def _state(self) -> dict[str, Any]:
        return {
            "budgets": list(self.budgets),
            "cost": self.cost,
            "sensitivity": self.steps.sensitivity,
            "plain": self.steps.plain,
            "stages": [self._stages[budget] for budget in self.budgets],
        }

    def _load_state(self, state: Mapping[str, Any]) -> None:
        if list(state["budgets"]) != list(self.budgets) or state["cost"] != self.cost:
            raise ValueError(
                f"budgets must be {self.budgets} of {self.cost}, but got {state['budgets']!r:.80} "
                f"of {state['cost']!r:.40}"
            )
        stages = [int(n) for n in state["stages"]]
        if len(stages) != len(self.budgets) or min(stages) < 0:
            raise ValueError(f"there must be a stage for each budget, but got {stages!r:.80}")
        sensitivity = {
            str(label): {str(v): float(loss) for v, loss in known.items()}
            for label, known in state["sensitivity"].items()
        }
        plain = None if state["plain"] is None else float(state["plain"])
        losses = [loss for known in sensitivity.values() for loss in known.values()]
        if not np.isfinite([*losses, plain or 0.0]).all():
            raise ValueError("measured losses must be finite")
        # Its own copy: a state that is refused after all leaves the one that is there.
        self.steps = copy.copy(self.steps)
        self.steps.sensitivity, self.steps.plain = sensitivity, plain
        self._stages = dict(zip(self.budgets, stages, strict=True))


def _ranks(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.stats import rankdata

    return np.asarray(rankdata(numbers) / len(numbers))
