"""FlopsReduction: a network's edits searched for fewer multiply-adds at the same quality.

The application of AIO-P (Mills et al., AAAI 2023, arXiv 2211.17228, "Application to NAS") is a
mutation search that a predictor guides. Here measured results guide it, because no cheap score
orders edits reliably; a predictor may join, and counts as far as it has been right so far.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nni_aiop.search._base import BaseSearch
from nni_aiop.search._metrics import violation
from nni_aiop.spaces import CRITERION, CodeSpace, MutationSpace, Ordinal, Sample

if TYPE_CHECKING:
    from nni_aiop.graphs import ComputeGraph

__all__ = ["FlopsReduction"]

Score = Callable[[Sample], float]
Judge = Callable[[Sequence["ComputeGraph"]], Sequence[float]]

_SLACK = 0.015  # of a budget that may be left
_LEVELS = (0.75, 0.5, 0.25)  # of a width, measured
_LEAST_SAVED = 0.003  # of the whole, by an edit that is measured
_FEW = 5  # results before a predictor can count
_FOR_GP = 20  # results before a Gaussian process joins
_CHILDREN = 16
_SWAPS = 12  # edits that are undone to come nearer to a budget
_MEASURED = 3  # children of each proposal whose loss is measured
_TRIES = 24


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
        space.cost(cost, space.encode([space.original]))
        self._space = space
        self.cost = cost
        self.whole = float(space.cost(cost, space.encode([space.original]))[0])
        limits = dict(options.pop("limits", None) or {})
        limits[cost] = min(limits.get(cost, np.inf), self.budgets[0] * self.whole)
        super().__init__(space, limits=limits, **options)
        self.score = score
        self.predictor = predictor
        self._sensitivity: dict[str, dict[str, float]] = {}
        self._plain: float | None = None
        self._stages: dict[float, int] = dict.fromkeys(self.budgets, 0)
        self._reports: dict[str, float] = {}

    # --- what was found ---------------------------------------------------------------------------

    def budget_of(self, sample: Mapping[str, Any]) -> float | None:
        """The smallest budget that a sample keeps."""
        share = self._shares([dict(sample)])[0]
        kept = [b for b in self.budgets if share <= b * (1 + 1e-9)]
        return min(kept) if kept else None

    def best_within(self, budget: float) -> tuple[Sample, dict[str, float]] | None:
        """The best result told so far that keeps a budget; None without any."""
        samples, metrics = self._results()
        if not samples:
            return None
        shares = self._shares(samples)
        found = [
            (sample, one)
            for sample, one, share in zip(samples, metrics, shares, strict=True)
            if share <= budget * (1 + 1e-9)
        ]
        key: Callable[[Any], Any] = lambda one: (-violation(one[1]), self._merit(one[1]))  # noqa: E731
        return max(found, key=key) if found else None

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
        return max(0.0, _rank_correlation(self._predicted(samples), told))

    # --- proposals --------------------------------------------------------------------------------

    def _propose(self, n: int) -> list[Sample]:
        order = sorted(self.budgets, key=self._asked)
        for budget in order:
            if found := self._next(budget):
                return [found]
        return []

    def _asked(self, budget: float) -> int:
        samples = [*self._pending.values(), *(s for s, _ in self._history)]
        return sum(self.budget_of(s) == budget for s in samples)

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
            lambda budget, criterion=criterion: self._uniform(budget, criterion)  # type: ignore[misc]
            for criterion in criteria
        ]
        starts.append(lambda budget: self._greedy(budget, structural=True))
        starts.append(lambda budget: self._greedy(budget, structural=False))
        return starts

    def _original(self, criterion: str | None = None) -> Sample:
        plain = self._space.original
        if criterion is not None and self._space.criteria:
            plain[CRITERION] = criterion
        elif "measured" in self._space.criteria:
            plain[CRITERION] = "measured"
        return plain

    def _counted(self) -> list[Ordinal]:
        """The dimensions of widths and heads."""
        counts = {site.label for site in self._space.sites if site.counts}
        return [d for d in self._space.dimensions if isinstance(d, Ordinal) and d.label in counts]

    def _shares(self, samples: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
        """(n,) the part of the network's cost that samples keep."""
        codes = self._space.encode([self._space.complete(s) for s in samples])
        return self._space.cost(self.cost, codes) / self.whole

    def _uniform(self, budget: float, criterion: str | None) -> Sample | None:
        """Every width cut by one ratio, then raised to use the budget."""
        dimensions = self._counted()
        if not dimensions:
            return None

        def cut(ratio: float) -> Sample:
            sample = self._original(criterion)
            for d in dimensions:
                fits = [v for v in d.values if v <= ratio * d.values[-1]]
                sample[d.label] = fits[-1] if fits else d.values[0]
            return sample

        ratios = np.linspace(0.02, 1.0, 197)
        shares = self._shares([cut(r) for r in ratios])
        within = np.flatnonzero(shares <= budget)
        if not len(within):
            return None
        return self._filled(cut(float(ratios[within[-1]])), budget, even=True)

    def _filled(self, sample: Sample, budget: float, *, even: bool = False) -> Sample:
        """The sample, widths raised one step after another as long as the budget allows."""
        for _ in range(10_000):
            moves = self._raises(sample)
            if not moves:
                return sample
            now = float(self._shares([sample])[0])
            if even and now >= budget * (1 - _SLACK / 3):
                return sample
            shares = self._shares(moves)
            fits = np.flatnonzero((shares <= budget) & (shares > now))
            if not len(fits):
                return sample if now >= budget * (1 - _SLACK) else self._swapped(sample, budget)
            if even:
                least = [self._kept_part(sample, moves[i]) for i in fits]
                sample = moves[int(fits[int(np.argmin(least))])]
            else:
                worth = [self._relief(sample, moves[i], shares[i] - now) for i in fits]
                sample = moves[int(fits[int(np.argmax(worth))])]
        return sample

    def _raises(self, sample: Sample) -> list[Sample]:
        """The samples with one width one step larger, or one edit of the structure another."""
        found = []
        plain = self._space.original
        counted = {d.label: d for d in self._counted()}
        for d in self._space.dimensions:
            if d.label in counted:
                values = counted[d.label].values
                place = values.index(sample[d.label])
                found += [{**sample, d.label: v} for v in values[place + 1 : place + 2]]
            elif d.label != CRITERION and sample[d.label] != plain[d.label]:
                options = d.values_of(d.options(100))
                found += [{**sample, d.label: v} for v in options if v != sample[d.label]]
        return found

    def _lowers(self, sample: Sample) -> list[Sample]:
        found = []
        for d in self._counted():
            place = d.values.index(sample[d.label])
            if place:
                found.append({**sample, d.label: d.values[place - 1]})
        return found

    def _kept_part(self, before: Sample, after: Sample) -> float:
        """What part of its width the site keeps that differs."""
        for d in self._counted():
            if before[d.label] != after[d.label]:
                return float(before[d.label] / d.values[-1])
        return 1.0

    def _relief(self, before: Sample, after: Sample, cost: float) -> float:
        """Measured loss that an edit which costs more takes back for each unit of cost."""
        for label, value in before.items():
            if value != after[label]:
                gained = self._loss_at(label, value) - self._loss_at(label, after[label])
                return max(gained, 0.0) / cost + 1e-9 * cost
        return 0.0

    def _swapped(self, sample: Sample, budget: float) -> Sample:
        """A sample nearer to its budget: one edit undone, and widths lowered for it."""
        now = float(self._shares([sample])[0])
        moves = self._raises(sample)
        shares = self._shares(moves) if moves else np.empty(0)
        order = [i for i in np.argsort(shares, kind="stable").tolist() if shares[i] > budget]
        best, best_share = sample, now
        for i in order[:_SWAPS]:
            other = self._descended(moves[i], budget)
            if other is None:
                continue
            share = float(self._shares([other])[0])
            if share > best_share:
                best, best_share = other, share
            if best_share >= budget * (1 - _SLACK):
                break
        return best

    def _descended(self, sample: Sample, budget: float) -> Sample | None:
        """The sample, widths lowered where it costs least loss, until it keeps the budget."""
        share = float(self._shares([sample])[0])
        while share > budget:
            moves = self._lowers(sample)
            if not moves:
                return None
            shares = self._shares(moves)
            saved = share - shares
            lost = np.array([self._relief(after, sample, 1.0) for after in moves])
            # A step that saves much more than is asked for would miss the budget again.
            rate = (lost + 1e-9) / np.minimum(np.maximum(saved, 1e-9), share - budget + 1e-4)
            rate = rate + 1e3 * (shares < budget * (1 - _SLACK)) + 1e6 * (saved <= 1e-9)
            best = int(np.argmin(rate))
            if saved[best] <= 1e-9:
                return None
            sample, share = moves[best], float(shares[best])
        return sample

    # --- the greedy descent -----------------------------------------------------------------------

    def _levels(self) -> dict[str, list[Any]]:
        """By label the values other than that of the network which are measured."""
        plain = self._original()
        asked: list[tuple[str, Any]] = []
        for d in self._space.dimensions:
            if d.label == CRITERION:
                continue
            values = list(d.values) if isinstance(d, Ordinal) else d.values_of(d.options(100))
            whole = plain[d.label]
            if d.label in {c.label for c in self._counted()}:
                wanted = [min(values, key=lambda v, f=f: (abs(v - f * whole), v)) for f in _LEVELS]  # type: ignore[misc]
                values = list(dict.fromkeys(v for v in wanted if v < whole))
            asked += [(d.label, v) for v in values if v != whole]
        shares = self._shares([{**plain, label: value} for label, value in asked])
        levels: dict[str, list[Any]] = {}
        for (label, value), share in zip(asked, shares, strict=True):
            if share <= 1 - _LEAST_SAVED:
                levels.setdefault(label, []).append(value)
        return levels

    def _measure_sensitivity(self) -> None:
        """The loss after each single edit, once."""
        if self._plain is not None:
            return
        plain = self._original()
        score = self.score
        for label, values in self._levels().items():
            known = self._sensitivity.setdefault(label, {})
            for value in values:
                if repr(value) not in known:
                    edited = {**plain, label: value}
                    known[repr(value)] = self._assumed(edited) if score is None else score(edited)
        self._plain = 0.0 if score is None else score(plain)

    def _assumed(self, sample: Sample) -> float:
        """Without measurements: the square of the part that goes."""
        plain = self._original()
        for label, value in sample.items():
            if value != plain[label]:
                if isinstance(value, (int, float)) and not isinstance(value, bool):
                    return float((1 - value / plain[label]) ** 2)
                return 0.5
        return 0.0

    def _loss_at(self, label: str, value: Any) -> float:
        """The loss that one edit adds, between measured widths on the line between them."""
        plain = self._original()
        if value == plain[label] or self._plain is None:
            return 0.0
        known = self._sensitivity.get(label, {})
        if repr(value) in known:
            return known[repr(value)] - self._plain
        numbers = {float(text): loss for text, loss in known.items() if _is_number(text)}
        if not numbers or not isinstance(value, (int, float)):
            return 0.0
        points = sorted({**numbers, float(plain[label]): self._plain}.items())
        line = np.interp(float(value), [p for p, _ in points], [loss for _, loss in points])
        return float(line) - self._plain

    def _greedy(self, budget: float, *, structural: bool) -> Sample | None:
        """Steps that add least loss for what they save, until the budget is kept."""
        self._measure_sensitivity()
        levels = self._levels()
        counted = {d.label for d in self._counted()}
        if not structural:
            levels = {label: values for label, values in levels.items() if label in counted}
        state = self._original()
        now = 1.0
        while now > budget:
            moves = [
                (label, value)
                for label, values in levels.items()
                for value in values
                if self._is_step(label, state[label], value)
            ]
            if not moves:
                return self._lowered(state, budget)
            shares = self._shares([{**state, label: value} for label, value in moves])
            rates = np.full(len(moves), np.inf)
            for i, (label, value) in enumerate(moves):
                saved = now - shares[i]
                if saved > 1e-6:
                    lost = self._loss_at(label, value) - self._loss_at(label, state[label])
                    # A step that overshoots saves no more than what is asked for.
                    rates[i] = max(lost, 1e-9) / min(saved, max(now - budget, 1e-3))
            best = int(np.argmin(rates))
            if not np.isfinite(rates[best]):
                return self._lowered(state, budget)
            state = {**state, moves[best][0]: moves[best][1]}
            now = float(shares[best])
        return self._filled(state, budget)

    def _is_step(self, label: str, now: Any, value: Any) -> bool:
        whole = self._original()[label]
        if isinstance(value, (int, float)) and isinstance(now, (int, float)):
            return value < now
        return bool(now == whole and value != whole)

    def _lowered(self, sample: Sample, budget: float) -> Sample | None:
        """The sample with widths lowered in turn until the budget is kept; None if it is not."""
        for _ in range(10_000):
            if float(self._shares([sample])[0]) <= budget:
                return self._filled(sample, budget)
            moves = self._lowers(sample)
            if not moves:
                return None
            sample = max(moves, key=lambda after: self._kept_part(sample, after))
        return None

    # --- mutations --------------------------------------------------------------------------------

    def _mutant(self, budget: float) -> Sample | None:
        """A child of what was told best, chosen among many by what is known."""
        samples, metrics = self._results()
        self._measure_sensitivity()
        ranked = sorted(
            zip(samples, metrics, strict=True),
            key=lambda one: (-violation(one[1]), self._merit(one[1])),
            reverse=True,
        )
        within = [sample for sample, _ in ranked if self.budget_of(sample) == budget]
        parents = (within or [sample for sample, _ in ranked])[:3] or [self._original()]
        children: dict[str, Sample] = {}
        for _ in range(_TRIES):
            parent = parents[min(int(self._rng.geometric(0.6)) - 1, len(parents) - 1)]
            child = self._within(self._mutated(parent), budget)
            if child is None:
                continue
            child = self.space.settled(child)
            key = self._network(child)
            if key not in self._seen:
                children.setdefault(key, child)
            if len(children) >= _CHILDREN:
                break
        if not children:
            return None
        return self._chosen(list(children.values()), samples, metrics)

    def _mutated(self, parent: Sample) -> Sample:
        child = dict(parent)
        counted = {d.label: d for d in self._counted()}
        for _ in range(int(self._rng.integers(1, 5))):
            d = self.space.dimensions[int(self._rng.integers(len(self.space.dimensions)))]
            if d.label in counted:
                values = counted[d.label].values
                step = int(self._rng.integers(1, 4)) * int(self._rng.choice([-1, 1]))
                place = values.index(child[d.label]) + step
                child[d.label] = values[int(np.clip(place, 0, len(values) - 1))]
            else:
                options = d.values_of(d.options(100))
                child[d.label] = options[int(self._rng.integers(len(options)))]
        return child

    def _within(self, sample: Sample, budget: float) -> Sample | None:
        """The sample, widths lowered at random until it keeps the budget, then raised."""
        for _ in range(10_000):
            share = float(self._shares([sample])[0])
            if share <= budget:
                return sample if share >= budget * (1 - _SLACK) else self._filled(sample, budget)
            moves = self._lowers(sample)
            if not moves:
                return None
            shares = self._shares(moves)
            useful = np.flatnonzero(shares < share - 1e-9)
            if not len(useful):
                return None
            sample = moves[int(self._rng.choice(useful))]
        return None

    def _chosen(
        self,
        children: list[Sample],
        samples: Sequence[Sample],
        metrics: Sequence[Mapping[str, float]],
    ) -> Sample:
        added = np.array(
            [sum(self._loss_at(label, v) for label, v in c.items() if label != CRITERION)
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
        """(n,) the expected improvement of a Gaussian process on codes."""
        from scipy.stats import norm

        from nni_aiop.predictors import search_predictor

        merit = np.array([self._merit(one) for one in metrics])
        predictor = search_predictor(self.space, self.seed)
        predictor.fit(self.space.encode(list(samples)), {"merit": merit})
        guess = predictor.predict(self.space.encode(list(children)))["merit"]
        mean, std = guess.mean[:, 0], guess.std[:, 0]
        above = mean - merit.max()
        z = above / np.maximum(std, 1e-12)
        return np.asarray(above * norm.cdf(z) + std * norm.pdf(z))

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
            "sensitivity": self._sensitivity,
            "plain": self._plain,
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
        self._sensitivity = {
            str(label): {str(v): float(loss) for v, loss in known.items()}
            for label, known in state["sensitivity"].items()
        }
        self._plain = None if state["plain"] is None else float(state["plain"])
        self._stages = dict(zip(self.budgets, stages, strict=True))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _ranks(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.stats import rankdata

    return np.asarray(rankdata(numbers) / len(numbers))


def _rank_correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    from scipy.stats import spearmanr

    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(spearmanr(a, b).statistic)
