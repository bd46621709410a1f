"""Edits of a network brought within a budget: cut alike, by measured loss, or at random."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nni_aiop.spaces import CRITERION, MutationSpace, Ordinal, Sample

__all__ = ["BudgetedEdits", "Score"]

Score = Callable[[Sample], float]
"""The measured loss of a sample, less is better."""

_SLACK = 0.015  # of a budget that may be left
_LEVELS = (0.75, 0.5, 0.25)  # of a width, measured
_LEAST_SAVED = 0.003  # of the whole, by an edit that is measured
_PERTURBED = 2000
_SWAPS = 12  # edits that are undone to come nearer to a budget


class BudgetedEdits:
    """How samples of a space of edits come near a part of the network's cost from below.

    Args:
        space: The edits.
        cost: Which cost.
        score: Measures single edits; without one, more of a width is worth more.

    Attributes:
        whole: The cost of the network as it is.
        sensitivity: By label and value (as text) the loss after that one edit.
        plain: The loss without an edit; None before anything was measured.
    """

    def __init__(self, space: MutationSpace, cost: str, score: Score | None) -> None:
        self.space, self.cost, self.score = space, cost, score
        self.whole = float(space.cost(cost, space.encode([space.original]))[0])
        self.sensitivity: dict[str, dict[str, float]] = {}
        self.plain: float | None = None

    def original(self, criterion: str | None = None) -> Sample:
        plain = self.space.original
        if criterion is not None and self.space.criteria:
            plain[CRITERION] = criterion
        elif "measured" in self.space.criteria:
            plain[CRITERION] = "measured"
        return plain

    @cached_property
    def counted(self) -> dict[str, Ordinal]:
        """The dimensions of widths and heads, by label."""
        counts = {site.label for site in self.space.sites if site.counts}
        return {
            d.label: d
            for d in self.space.dimensions
            if isinstance(d, Ordinal) and d.label in counts
        }

    @cached_property
    def _whole(self) -> Sample:
        """The network as it is, for its values alone."""
        return self.space.original

    def shares(self, samples: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
        """(n,) the part of the network's cost that samples keep."""
        codes = self.space.encode([self.space.complete(s) for s in samples])
        return self.space.cost(self.cost, codes) / self.whole

    def uniform(self, budget: float, criterion: str | None) -> Sample | None:
        """Every width cut by one ratio, then raised to use the budget."""
        dimensions = list(self.counted.values())
        if not dimensions:
            return None

        def cut(ratio: float) -> Sample:
            sample = self.original(criterion)
            for d in dimensions:
                fits = [v for v in d.values if v <= ratio * d.values[-1]]
                sample[d.label] = fits[-1] if fits else d.values[0]
            return sample

        ratios = np.linspace(0.02, 1.0, 197)
        shares = self.shares([cut(r) for r in ratios])
        within = np.flatnonzero(shares <= budget)
        if not len(within):
            return None
        return self.filled(cut(float(ratios[within[-1]])), budget, even=True)

    def filled(self, sample: Sample, budget: float, *, even: bool = False) -> Sample:
        """The sample, widths raised one step after another as long as the budget allows."""
        for _ in range(10_000):
            moves = self._raises(sample)
            if not moves:
                return sample
            now = float(self.shares([sample])[0])
            if even and now >= budget * (1 - _SLACK / 3):
                return sample
            shares = self.shares(moves)
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
        plain = self._whole
        for d in self.space.dimensions:
            if d.label in self.counted:
                values = self.counted[d.label].values
                place = values.index(sample[d.label])
                found += [{**sample, d.label: v} for v in values[place + 1 : place + 2]]
            elif d.label != CRITERION and sample[d.label] != plain[d.label]:
                options = d.values_of(d.options(100))
                found += [{**sample, d.label: v} for v in options if v != sample[d.label]]
        return found

    def _lowers(self, sample: Sample) -> list[Sample]:
        found = []
        for d in self.counted.values():
            place = d.values.index(sample[d.label])
            if place:
                found.append({**sample, d.label: d.values[place - 1]})
        return found

    def _kept_part(self, before: Sample, after: Sample) -> float:
        """What part of its width the site keeps that differs."""
        for d in self.counted.values():
            if before[d.label] != after[d.label]:
                return float(before[d.label] / d.values[-1])
        return 1.0

    def _relief(self, before: Sample, after: Sample, cost: float) -> float:
        """Measured loss that an edit which costs more takes back for each unit of cost."""
        for label, value in before.items():
            if value != after[label]:
                gained = self.loss_at(label, value) - self.loss_at(label, after[label])
                return max(gained, 0.0) / cost + 1e-9 * cost
        return 0.0

    def _swapped(self, sample: Sample, budget: float) -> Sample:
        """A sample nearer to its budget: a few widths up or down, or one edit undone for others."""
        near = self._near(sample, budget)
        if float(self.shares([near])[0]) >= budget * (1 - _SLACK):
            return near
        best, best_share = near, float(self.shares([near])[0])
        moves = self._raises(sample)
        shares = self.shares(moves) if moves else np.empty(0)
        order = [i for i in np.argsort(shares, kind="stable").tolist() if shares[i] > budget]
        for i in order[:_SWAPS]:
            other = self._descended(moves[i], budget)
            if other is None:
                continue
            other = self._near(other, budget)
            share = float(self.shares([other])[0])
            if share > best_share:
                best, best_share = other, share
            if best_share >= budget * (1 - _SLACK):
                break
        return best

    def _near(self, sample: Sample, budget: float) -> Sample:
        """The sample with up to three widths some steps larger or smaller, so that the budget is
        used; of those that use it the one that adds least loss."""
        dimensions = list(self.counted.values())
        if not dimensions:
            return sample
        rng = np.random.default_rng(0)
        (point,) = self.space.points([sample])
        columns = [self.space.labels.index(d.label) for d in dimensions]
        most = np.array([len(d.values) - 1 for d in dimensions])
        n = len(dimensions)
        steps = np.zeros((_PERTURBED, n), dtype=np.int64)
        rows = np.arange(_PERTURBED)
        for _ in range(3):
            steps[rows, rng.integers(n, size=_PERTURBED)] += rng.integers(-3, 4, size=_PERTURBED)
        points = np.tile(point, (_PERTURBED, 1))
        moved = np.clip(points[:, columns] + steps, 0, most)
        points[:, columns] = moved
        shares = self.space.cost(self.cost, self.space.encode_points(points)) / self.whole
        fits = np.flatnonzero(shares <= budget)
        now = float(self.shares([sample])[0])
        if not len(fits) or shares[fits].max() <= now:
            return sample
        used = fits[shares[fits] >= budget * (1 - _SLACK)]
        if not len(used):
            return self.space.from_points(points[[fits[int(np.argmax(shares[fits]))]]])[0]
        tables = [np.array([self.loss_at(d.label, v) for v in d.values]) for d in dimensions]
        places = moved[used].astype(np.int64)
        lost = np.sum([table[places[:, j]] for j, table in enumerate(tables)], axis=0)
        far = np.abs(places - point[columns]).sum(axis=1)
        return self.space.from_points(points[[used[int(np.lexsort((far, lost))[0])]]])[0]

    def _descended(self, sample: Sample, budget: float) -> Sample | None:
        """The sample, widths lowered where it costs least loss, until it keeps the budget."""
        share = float(self.shares([sample])[0])
        while share > budget:
            moves = self._lowers(sample)
            if not moves:
                return None
            shares = self.shares(moves)
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

    @cached_property
    def _levels(self) -> dict[str, list[Any]]:
        """By label the values other than that of the network which are measured."""
        plain = self.original()
        asked: list[tuple[str, Any]] = []
        for d in self.space.dimensions:
            if d.label == CRITERION:
                continue
            values = list(d.values) if isinstance(d, Ordinal) else d.values_of(d.options(100))
            whole = plain[d.label]
            if d.label in self.counted:
                wanted = [min(values, key=lambda v, f=f: (abs(v - f * whole), v)) for f in _LEVELS]  # type: ignore[misc]
                values = list(dict.fromkeys(v for v in wanted if v < whole))
            asked += [(d.label, v) for v in values if v != whole]
        shares = self.shares([{**plain, label: value} for label, value in asked])
        levels: dict[str, list[Any]] = {}
        for (label, value), share in zip(asked, shares, strict=True):
            if share <= 1 - _LEAST_SAVED:
                levels.setdefault(label, []).append(value)
        return levels

    def measure(self) -> None:
        """The loss after each single edit, once."""
        if self.plain is not None:
            return
        plain = self.original()
        score = self.score
        for label, values in self._levels.items():
            known = self.sensitivity.setdefault(label, {})
            for value in values:
                if repr(value) not in known:
                    edited = {**plain, label: value}
                    known[repr(value)] = self._assumed(edited) if score is None else score(edited)
        self.plain = 0.0 if score is None else score(plain)

    def _assumed(self, sample: Sample) -> float:
        """Without measurements: the square of the part that goes."""
        plain = self._whole
        for label, value in sample.items():
            if label != CRITERION and value != plain[label]:
                if isinstance(value, (int, float)) and not isinstance(value, bool):
                    return float((1 - value / plain[label]) ** 2)
                return 0.5
        return 0.0

    def loss_at(self, label: str, value: Any) -> float:
        """The loss that one edit adds, between measured widths on the line between them."""
        plain = self._whole
        if value == plain[label] or self.plain is None:
            return 0.0
        known = self.sensitivity.get(label, {})
        if repr(value) in known:
            return known[repr(value)] - self.plain
        numbers = {float(text): loss for text, loss in known.items() if _is_number(text)}
        if not numbers or not isinstance(value, (int, float)):
            return 0.0
        points = sorted({**numbers, float(plain[label]): self.plain}.items())
        line = np.interp(float(value), [p for p, _ in points], [loss for _, loss in points])
        return float(line) - self.plain

    def greedy(self, budget: float, *, structural: bool) -> Sample | None:
        """Steps that add least loss for what they save, until the budget is kept."""
        self.measure()
        levels = self._levels
        if not structural:
            levels = {label: values for label, values in levels.items() if label in self.counted}
        state = self.original()
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
            shares = self.shares([{**state, label: value} for label, value in moves])
            rates = np.full(len(moves), np.inf)
            for i, (label, value) in enumerate(moves):
                saved = now - shares[i]
                if saved > 1e-6:
                    lost = self.loss_at(label, value) - self.loss_at(label, state[label])
                    # A step that overshoots saves no more than what is asked for.
                    rates[i] = max(lost, 1e-9) / min(saved, max(now - budget, 1e-3))
            best = int(np.argmin(rates))
            if not np.isfinite(rates[best]):
                return self._lowered(state, budget)
            state = {**state, moves[best][0]: moves[best][1]}
            now = float(shares[best])
        return self.filled(state, budget)

    def _is_step(self, label: str, now: Any, value: Any) -> bool:
        whole = self._whole[label]
        if isinstance(value, (int, float)) and isinstance(now, (int, float)):
            return value < now
        return bool(now == whole and value != whole)

    def _lowered(self, sample: Sample, budget: float) -> Sample | None:
        """The sample with widths lowered in turn until the budget is kept; None if it is not."""
        for _ in range(10_000):
            if float(self.shares([sample])[0]) <= budget:
                return self.filled(sample, budget)
            moves = self._lowers(sample)
            if not moves:
                return None
            sample = max(moves, key=lambda after: self._kept_part(sample, after))
        return None

    def mutated(self, parent: Sample, rng: np.random.Generator) -> Sample:
        child = dict(parent)
        for _ in range(int(rng.integers(1, 5))):
            d = self.space.dimensions[int(rng.integers(len(self.space.dimensions)))]
            if d.label in self.counted:
                values = self.counted[d.label].values
                step = int(rng.integers(1, 4)) * int(rng.choice([-1, 1]))
                place = values.index(child[d.label]) + step
                child[d.label] = values[int(np.clip(place, 0, len(values) - 1))]
            else:
                options = d.values_of(d.options(100))
                child[d.label] = options[int(rng.integers(len(options)))]
        return child

    def within(self, sample: Sample, budget: float, rng: np.random.Generator) -> Sample | None:
        """The sample, widths lowered at random until it keeps the budget, then raised."""
        for _ in range(10_000):
            share = float(self.shares([sample])[0])
            if share <= budget:
                return sample if share >= budget * (1 - _SLACK) else self.filled(sample, budget)
            moves = self._lowers(sample)
            if not moves:
                return None
            shares = self.shares(moves)
            useful = np.flatnonzero(shares < share - 1e-9)
            if not len(useful):
                return None
            sample = moves[int(rng.choice(useful))]
        return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
