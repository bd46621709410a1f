"""PNAG as a search: in rounds, a generator for every budget proposes what is looked up next."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import NotFittedError

from nni_aiop.search._acquisition import beside, predicted_means
from nni_aiop.search._predictor_based import Array, PredictorSearch
from nni_aiop.spaces import (
    CodeSpace,
    CostBook,
    LearnedCost,
    RescaledCost,
    Sample,
    SampleCost,
    check_cost,
    check_limits,
    probable_excess,
    refuse_impossible,
)

if TYPE_CHECKING:
    from torch import Tensor

    from nni_aiop.generators import ParetoGenerator
    from nni_aiop.predictors import BudgetGrid, CodePredictor

__all__ = ["PNAGSearch"]

_ELITE = 4  # best results under each budget whose neighbours compete with what is generated
_BESIDE = 400  # of these neighbours under each budget, where there are more
_WIDTH = 32  # of the generator; of the evaluator twice that
_SAMPLES = 16  # architectures drawn for each budget of an update of the generator
_LR = 1e-2  # of the generator, which has few updates in a round
_BATCH = 64  # architectures whose pairs an update of the evaluator compares


class PNAGSearch(PredictorSearch):
    """A Pareto-aware generator (Guo et al. 2022), refitted in rounds on what was looked up.

    Random samples come first. In each round a predictor learns their metrics and labels a pool of
    architectures, as the paper's supernet does; an evaluator and a generator learn from the pool;
    and the generator proposes architectures at budgets spread over the front, or at the one that is
    asked for. `generator_` is then the trained generator, and `generate` asks it, for any budget; a
    search that was resumed has it again after its next round.

    What is budgeted: the costs of `targets`; else `cost`; else those of `limits`; else every
    minimised objective beside a maximised or an earlier one. What the space has no exact cost for
    is a metric that is told, and is predicted. Without any, the generator serves the best
    architecture alone.

    Args:
        space: Where to search.
        targets: The budget to search for, from costs to upper bounds, or several budgets, from
            costs to as many bounds each; by default budgets are spread over the range of costs,
            unless `limits` bound every budgeted cost.
        levels: Number of budgets K of the generator.
        pool: Architectures that the predictor labels for the evaluator in each round.
        drawn: Architectures that are generated in each round, to choose from.
        evaluator_steps: Updates of the evaluator.
        generator_steps: Updates of the generator.
        options: See `PredictorSearch`; `lam` has no effect, as a budget is not a weight.
    """

    def __init__(
        self,
        space: CodeSpace,
        *,
        targets: Mapping[str, float | Sequence[float]] | None = None,
        levels: int = 5,
        pool: int = 1000,
        drawn: int = 500,
        evaluator_steps: int = 400,
        generator_steps: int = 100,
        **options: Any,
    ) -> None:
        self.targets = _read_targets(targets)
        super().__init__(space, **options)
        self.levels = levels
        self.pool = pool
        self.drawn = drawn
        self.evaluator_steps = evaluator_steps
        self.generator_steps = generator_steps
        self.generator_: ParetoGenerator | None = None
        self._scales: dict[str, tuple[float, float]] = {}
        self._looked = False
        self._check_options()

    def _check_options(self) -> None:
        super()._check_options()
        sizes = (
            self.levels,
            self.pool,
            self.drawn,
            self.evaluator_steps,
            self.generator_steps,
        )
        if not all(isinstance(size, (int, np.integer)) and size >= 1 for size in sizes):
            raise ValueError(
                "levels, pool, drawn, evaluator_steps and generator_steps must be at least 1, "
                f"but got {', '.join(map(repr, sizes))}."
            )
        if all(o.metric in self.budgeted for o in self.objectives):
            raise ValueError(
                "an objective must be left that has no budget, but "
                f"{', '.join(self.budgeted)} is all there is."
            )
        if len({len(bounds) for bounds in self.targets.values()}) > 1:
            raise ValueError(
                f"targets must have as many bounds for each cost, but got {self.targets}."
            )
        for name, bounds in _read_targets(self.targets).items():
            for bound in bounds if name in self.space.costs else []:
                check_limits(self.space, {name: bound})
        for name in self.budgeted:
            if name in self.space.costs:
                check_cost(self.space, name)

    _kept = (
        *PredictorSearch._kept,
        "targets",
        "levels",
        "pool",
        "drawn",
        "evaluator_steps",
        "generator_steps",
    )

    @property
    def bounds(self) -> Mapping[str, float]:
        """The targets; of several budgets the widest."""
        return {name: max(bounds) for name, bounds in self.targets.items()}

    @property
    def budgeted(self) -> tuple[str, ...]:
        """The costs that have a budget."""
        if self.targets or self.cost or self.limits:
            return tuple(self.targets or ([self.cost] if self.cost else self.limits))
        minimised = [o.metric for o in self.objectives if o.direction == "minimize"]
        # Where all are minimised the first one is the quality.
        return tuple(minimised[len(minimised) == len(self.objectives) :])

    def _costs_used(self) -> list[str]:
        return [*super()._costs_used(), *self.budgeted]

    def _needed(self) -> list[str]:
        names = super()._needed()
        told = [name for name in self.budgeted if name not in self.space.costs]
        return [*names, *(name for name in told if name not in names)]

    def _next_round(self) -> list[Sample]:
        if not self._looked:
            self._refuse_impossible()
            self._looked = True
        return super()._next_round()

    def _refuse_impossible(self) -> None:
        """Tell of a target that no architecture keeps, before anything is evaluated.

        Raises:
            InfeasibleError: A target is below the cheapest architecture that was found.
        """
        for name, bounds in self.targets.items():
            if name not in self.space.costs:
                continue
            points = self.space.sample_points(200, np.random.default_rng(0))
            # What a random architecture keeps is possible.
            if not (probable_excess(self._book, points, {name: min(bounds)}) <= 1.0).any():
                refuse_impossible(self.space, {name: min(bounds)}, self._book)

    def generate(
        self, budget: Mapping[str, float] | float, n: int = 1, **options: Any
    ) -> list[Sample]:
        """`n` distinct architectures for a budget by the generator of the last round, best first.

        Args:
            budget: Of each of `budgeted`, in the units that they are told or computed in; a number
                where there is one. What is learned is kept as predicted.
            n: How many.
            options: See `ParetoGenerator.generate`.

        Raises:
            NotFittedError: There was no round yet.
            SpaceError, InfeasibleError: See `ParetoGenerator.generate`.
        """
        if self.generator_ is None:
            raise NotFittedError("a search generates after its first round, but none was yet.")
        if not isinstance(budget, Mapping):
            budget = dict.fromkeys(self.budgeted[:1], budget)
        inner = {
            name: LearnedCost.rescaled(bound, *self._scales[name])
            if name in self._scales
            else bound
            for name, bound in budget.items()
        }
        return self.generator_.generate(inner, n, **options)

    def _candidates(
        self, predictor: CodePredictor, samples: list[Sample], metrics: list[dict[str, float]]
    ) -> Array:
        raise NotImplementedError  # `_favoured` chooses by budget

    def _favoured(
        self, predictor: CodePredictor, samples: list[Sample], metrics: list[dict[str, float]]
    ) -> list[Sample]:
        """One round's proposals: at each budget in turn the generated one of the highest merit."""
        known = self.space.points(samples)
        fresh = self._drawn_points(self.pool)
        if len(known) > 2 * self.pool:  # the best, and some of the others
            order = np.argsort([-self._merit(m) for m in metrics], kind="stable")
            some = self._rng.choice(order[self.pool :], size=self.pool, replace=False)
            known = known[np.sort(np.concatenate([order[: self.pool], some]))]
        points = np.unique(self.space.canonical_points(np.concatenate([known, fresh])), axis=0)
        codes = self.space.encode_points(points)
        known_costs = [name for name in self.budgeted if name in self.space.costs]
        spent = [self._book.at(name, codes) for name in known_costs]
        codes = codes[np.isfinite(spent).all(axis=0)] if spent else codes
        if len(codes) < 2:
            return []
        space, asked = self._budget_space(predictor, codes)
        book = self._book.of(space)
        costs = {name: book.at(name, codes) for name in self.budgeted}
        grid = _grid(costs, asked, self.levels)
        constraints = self._constraints(samples, metrics)
        merits = self._merits(predictor, codes, 0.0)
        # What breaks a constraint is worse than all that does not, so that it is not generated.
        merits -= (np.ptp(merits) + 1.0) * _broken(constraints, codes)
        generator = self._trained(space, grid, codes, merits, book)
        self.generator_ = generator

        complete = bool(asked) and len(asked) == len(costs)
        budgets = self._rng.permutation(
            np.stack([asked[name] for name in costs], axis=1) if complete else grid.array
        )
        proposed = self._proposed(generator, list(budgets), known)
        proposed = proposed[probable_excess(self._book, proposed, self.limits) <= 1.0]
        if len(proposed) == 0:
            return []
        codes = self.space.encode_points(proposed)
        merits = self._merits(predictor, codes, self.exploration or 0.0)
        broken = _broken(constraints, codes)
        spent = [book.at(name, codes) for name in self.budgeted]
        orders = []
        for budget in budgets:
            kept = np.ones(len(codes), dtype=np.bool_)
            for cost, bound in zip(spent, budget, strict=True):
                kept &= cost <= bound
            kept &= ~broken
            order = np.lexsort((-merits, broken, ~kept))
            orders.append(proposed[order[: max(1, int(kept.sum()))]])
        return self._in_turn(orders)

    def _in_turn(self, orders: list[Array]) -> list[Sample]:
        """A batch of new samples, of each order in turn the first."""
        taken: set[str] = set()
        out: list[Sample] = []
        places = [0] * len(orders)
        while len(out) < self._wanted:
            before = len(out)
            for i, order in enumerate(orders):
                while places[i] < len(order) and len(out) < self._wanted:
                    point = order[places[i]][None]
                    places[i] += 1
                    found = self._admit(self.space.from_points(point), 1, taken)
                    if found:
                        out += found
                        break
            if len(out) == before:
                break
        return out

    def _proposed(self, generator: ParetoGenerator, budgets: list[Array], known: Array) -> Array:
        """(n, d) distinct points drawn for the budgets, and neighbours of the best known ones."""
        assert generator.evaluator_ is not None
        names = generator.grid.names
        each = max(1, self.drawn // len(budgets))
        codes = self.space.encode_points(self.space.canonical_points(known))
        parts = []
        for i, budget in enumerate(budgets):
            named = dict(zip(names, budget.tolist(), strict=True))
            parts.append(generator.draw(named, each, seed=self.seed + 1000 * self._round + i))
            costs = np.array([generator.book.at(name, codes) for name in names])
            scores = generator.evaluator_.score(codes, budget, costs.T if names else None)
            best = known[np.argsort(-scores, kind="stable")[:_ELITE]]
            parts.append(beside(self.space, best, _BESIDE, self._rng))
        return np.unique(self.space.canonical_points(np.concatenate(parts)), axis=0)

    def _trained(
        self, space: CodeSpace, grid: BudgetGrid, codes: Array, merits: Array, book: CostBook
    ) -> ParetoGenerator:
        from nni_aiop.generators import ParetoGenerator, TrainingOptions

        return ParetoGenerator(
            space,
            grid,
            hidden=_WIDTH,
            training=TrainingOptions(steps=self.generator_steps, samples=_SAMPLES, lr=_LR),
            evaluator={"hidden": 2 * _WIDTH, "steps": self.evaluator_steps, "batch_size": _BATCH},
            seed=self.seed + self._round,
            book=book,
        ).fit(codes, merits)

    def _merits(self, predictor: CodePredictor, codes: Array, exploration: float) -> Array:
        """(n,) predicted weighted sum of the objectives without budgets, in standard units."""
        found = predictor.predict(codes) if exploration else predicted_means(predictor, codes)
        gains, spreads = self._gains(codes, found)
        chosen = [i for i, o in enumerate(self.objectives) if o.metric not in self.budgeted]
        weights = np.array([self.objectives[i].weight for i in chosen])
        optimism = exploration * np.sqrt(spreads[:, chosen] ** 2 @ weights**2)
        return np.asarray(gains[:, chosen] @ weights + optimism)

    def _budget_space(
        self, predictor: CodePredictor, codes: Array
    ) -> tuple[CodeSpace, dict[str, list[float]]]:
        """The space with a positive cost for each budget, and the budgets that are asked for.

        What must be learned, and an exact cost that is not positive, runs from 1 to 2 over these
        codes; its budgets do so, too.
        """
        space = copy.copy(self.space)
        space.costs = dict(self.space.costs)
        self._scales = {}
        bounds = {}
        for name in self.budgeted:
            limited = [self.limits[name]] if name in self.limits else []
            asked = self.targets.get(name, limited)
            exact = self.space.costs.get(name)
            if exact is None or self._book.at(name, codes).min() <= 0:
                if exact is None:
                    column = predictor.metrics_.index(name)
                    scale = _range(predictor.predict(codes).mean[:, column])
                    exact = partial(_column, predictor, column)
                else:
                    scale = _range(self._book.at(name, codes))
                space.costs[name] = (
                    RescaledCost(exact, *scale)
                    if isinstance(exact, SampleCost)
                    else LearnedCost(exact, *scale)
                )
                self._scales[name] = scale
                asked = [LearnedCost.rescaled(bound, *scale) for bound in asked]
            if asked:
                bounds[name] = asked
        return space, bounds


def _broken(constraints: Sequence[CodePredictor], codes: Array) -> NDArray[np.bool_]:
    """(n,) whether a constraint is predicted to be above 0."""
    broken = np.zeros(len(codes), dtype=np.bool_)
    for constraint in constraints:
        broken |= constraint.predict(codes).mean[:, 0] > 0
    return broken


def _column(predictor: CodePredictor, column: int, codes: Tensor) -> Tensor:
    return predictor.forward(codes)[:, column]


def _read_targets(given: Any) -> dict[str, list[float]]:
    """The bounds of each cost, as lists.

    Raises:
        ValueError: They are not numbers by the names of costs.
    """
    if not isinstance(given or {}, Mapping):
        raise ValueError(f"targets must be bounds by the names of costs, but got {given!r}.")
    out = {}
    for name, bounds in (given or {}).items():
        row = list(bounds) if isinstance(bounds, (list, tuple, np.ndarray)) else [bounds]
        real = all(isinstance(b, (int, float, np.number)) and math.isfinite(b) for b in row)
        if not (row and real):
            raise ValueError(f"targets of {name} must be finite numbers, but got {bounds!r}.")
        out[name] = [float(b) for b in row]
    return out


def _range(values: Array) -> tuple[float, float]:
    """The least value, and the distance to the greatest, or 1 where there is none."""
    return float(values.min()), float(np.ptp(values)) or 1.0


def _grid(costs: Mapping[str, Array], bounds: Mapping[str, list[float]], levels: int) -> BudgetGrid:
    """Budgets over the range of costs, which the bounds lie in, too."""
    from nni_aiop.predictors import BudgetGrid

    ends = {}
    for name, values in costs.items():
        low, high = np.quantile(values, [0.02, 0.98]).tolist()
        asked = bounds.get(name, [high])
        low = max(min(low, *asked), 1e-6 * high)
        ends[name] = (low, max(high, *asked))
    wide = all(high > (1 + 1e-9) * low for low, high in ends.values())
    k = levels if wide else 1
    return BudgetGrid(
        {
            name: (high,) if k == 1 else np.linspace(low, high, k).tolist()
            for name, (low, high) in ends.items()
        }
    )
