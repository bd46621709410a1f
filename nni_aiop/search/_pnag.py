"""PNAG as a search: in rounds, a generator for every budget proposes what is looked up next."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from nni_aiop.search._limits import check_limits, meets_limits
from nni_aiop.search._predictor_based import Array, PredictorSearch
from nni_aiop.spaces import CodeSpace, Sample

if TYPE_CHECKING:
    from torch import Tensor

    from nni_aiop.generators import ParetoGenerator
    from nni_aiop.predictors import BudgetGrid, CodePredictor

__all__ = ["PNAGSearch"]

_LEAST = 0.01  # of a cost that runs from 1 to 2
_ELITE = 4  # best results under each budget whose neighbours compete with what is generated


class PNAGSearch(PredictorSearch):
    """A Pareto-aware generator (Guo et al. 2022), refitted in rounds on what was looked up.

    Random samples come first. In each round a predictor learns their metrics and labels a pool of
    architectures, as the paper's supernet does; an evaluator and a generator learn from the pool;
    and the generator proposes architectures at budgets spread over the front, or at the one that is
    asked for. `generator_` is then the trained generator, for any budget; a search that was resumed
    has it again after its next round.

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
        self.targets = {
            name: [float(b) for b in np.atleast_1d(bounds)]
            for name, bounds in (targets or {}).items()
        }
        super().__init__(space, **options)
        self.levels = levels
        self.pool = pool
        self.drawn = drawn
        self.evaluator_steps = evaluator_steps
        self.generator_steps = generator_steps
        self.generator_: ParetoGenerator | None = None
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
        if len({len(bounds) for bounds in self.targets.values()}) > 1:
            raise ValueError(
                f"targets must have as many bounds for each cost, but got {self.targets}."
            )
        for name, bounds in self.targets.items():
            if not bounds or not np.isfinite(bounds).all():
                raise ValueError(f"targets of {name} must be finite numbers, but got {bounds}.")
            if name in self.space.costs:
                for bound in bounds:
                    check_limits(self.space, {name: bound})

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
    def budgeted(self) -> tuple[str, ...]:
        """The costs that have a budget."""
        if self.targets or self.cost or self.limits:
            return tuple(self.targets or ([self.cost] if self.cost else self.limits))
        minimised = [o.metric for o in self.objectives if o.direction == "minimize"]
        # Where all are minimised the first one is the quality.
        return tuple(minimised[len(minimised) == len(self.objectives) :])

    def _needed(self) -> list[str]:
        names = super()._needed()
        told = [name for name in self.budgeted if name not in self.space.costs]
        return [*names, *(name for name in told if name not in names)]

    def _candidates(
        self, predictor: CodePredictor, samples: list[Sample], metrics: list[dict[str, float]]
    ) -> Array:
        raise NotImplementedError  # `_favoured` chooses by budget

    def _favoured(
        self, predictor: CodePredictor, samples: list[Sample], metrics: list[dict[str, float]]
    ) -> list[Sample]:
        """One round's proposals: at each budget in turn the generated one of the highest merit."""
        known = self.space.points(samples)
        fresh = self.space.points(self.space.sample(self.pool, self._rng))
        points = np.unique(self.space.normalise(np.concatenate([known, fresh])), axis=0)
        codes = self.space.encode_points(points)
        exact = [self.space.cost(name, codes) for name in self.budgeted if name in self.space.costs]
        codes = codes[np.isfinite(exact).all(axis=0)] if exact else codes
        if len(codes) < 2:
            return []
        space, bounds = self._budget_space(predictor, codes)
        costs = {name: space.cost(name, codes) for name in self.budgeted}
        grid = _grid(costs, bounds, self.levels)
        generator = self._trained(space, grid, codes, self._merits(predictor, codes, 0.0))
        self.generator_ = generator

        asked = bool(bounds) and len(bounds) == len(costs)
        budgets = self._rng.permutation(
            np.stack([bounds[name] for name in costs], axis=1) if asked else grid.array
        )
        proposed = self._proposed(generator, list(budgets), known)
        proposed = proposed[meets_limits(self.space, proposed, self.limits)]
        if len(proposed) == 0:
            return []
        codes = self.space.encode_points(proposed)
        merits = self._merits(predictor, codes, self.exploration)
        spent = [space.cost(name, codes) for name in self.budgeted]
        orders = []
        for budget in budgets:
            kept = np.ones(len(codes), dtype=np.bool_)
            for cost, bound in zip(spent, budget, strict=True):
                kept &= cost <= bound
            order = np.lexsort((-merits, ~kept))
            orders.append(proposed[order[: max(1, int(kept.sum()))]])
        return self._in_turn(orders)

    def _in_turn(self, orders: list[Array]) -> list[Sample]:
        """A batch of new samples, of each order in turn the first."""
        taken: set[str] = set()
        out: list[Sample] = []
        places = [0] * len(orders)
        while len(out) < self._batch:
            before = len(out)
            for i, order in enumerate(orders):
                while places[i] < len(order) and len(out) < self._batch:
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
        codes = self.space.encode_points(self.space.normalise(known))
        parts = []
        for i, budget in enumerate(budgets):
            named = dict(zip(names, budget.tolist(), strict=True))
            parts.append(generator.draw(named, each, seed=self.seed + 1000 * self._round + i))
            costs = np.array([generator.space.cost(name, codes) for name in names])
            scores = generator.evaluator_.score(codes, budget, costs.T if names else None)
            best = self.space.from_points(known[np.argsort(-scores, kind="stable")[:_ELITE]])
            near = [n for sample in best for n in self.space.neighbours(sample)]
            parts.append(self.space.points(near))
        return np.unique(self.space.normalise(np.concatenate(parts)), axis=0)

    def _trained(
        self, space: CodeSpace, grid: BudgetGrid, codes: Array, merits: Array
    ) -> ParetoGenerator:
        from nni_aiop.generators import ParetoGenerator, TrainingOptions

        return ParetoGenerator(
            space,
            grid,
            hidden=32,
            training=TrainingOptions(steps=self.generator_steps, samples=16, lr=1e-2),
            evaluator={"hidden": 64, "steps": self.evaluator_steps, "batch_size": 64},
            seed=self.seed + self._round,
        ).fit(codes, merits)

    def _merits(self, predictor: CodePredictor, codes: Array, exploration: float) -> Array:
        """(n,) predicted weighted sum of the objectives without budgets, in standard units."""
        gains, spreads = self._gains(codes, predictor.predict(codes))
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
        bounds = {}
        for name in self.budgeted:
            limited = [self.limits[name]] if name in self.limits else []
            asked = self.targets.get(name, limited)
            exact = self.space.costs.get(name)
            if exact is None or self.space.cost(name, codes).min() <= 0:
                if exact is None:
                    column = predictor.metrics_.index(name)
                    low, span = _range(predictor.predict(codes).mean[:, column])
                    exact = partial(_column, predictor, column)
                else:
                    low, span = _range(self.space.cost(name, codes))
                space.costs[name] = partial(_from_one, exact, low, span)
                asked = [max(_LEAST, 1 + (bound - low) / span) for bound in asked]
            if asked:
                bounds[name] = asked
        return space, bounds


def _column(predictor: CodePredictor, column: int, codes: Tensor) -> Tensor:
    return predictor.forward(codes)[:, column]


def _from_one(cost: Callable[[Tensor], Tensor], low: float, span: float, codes: Tensor) -> Tensor:
    return (1 + (cost(codes) - low) / span).clamp_min(_LEAST)


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
