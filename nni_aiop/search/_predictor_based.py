"""Searches that learn a predictor from their own results."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import nlargest
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nni_aiop.search._acquisition import (
    Acquisition,
    Ranking,
    fine_dimensions,
    perturbed,
    too_near,
)
from nni_aiop.search._base import BaseSearch
from nni_aiop.search._fits import Fits
from nni_aiop.search._metrics import CONSTRAINT, Objective, violation
from nni_aiop.spaces import CodeSpace, Sample, check_cost, probable_excess

if TYPE_CHECKING:
    from nni_aiop.predictors import CodePredictor, Prediction

Array = NDArray[np.float64]
PredictorFactory = Callable[[CodeSpace, int], "CodePredictor"]

_FEWEST = 3  # results below which a predictor is not fitted and proposals stay random
_SLACKS = (0.0, 1.0, 0.1)  # what `log_regret` is tried with; 0 is for targets as they are
_ENOUGH = 25  # results from which on the last of them is tried, too
_RESULTS = "results"  # what is learned first
_FAILS = "fails"  # what is learned of failed evaluations, like a constraint
_JUDGES = 200  # results, drawn at random, by which `log_regret` is tried
_WARM = 32  # random samples that are drawn together
_RIVALS = 1_000  # best results to improve upon
_ROWS = 500  # results that choose hyperparameters
_EXACT = 1_000  # results up to which every deviation is exact
_AT_ONCE = 16  # ranked candidates that are looked at together; costs evaluated for a proposal
_APART = 0.05  # of a fine range, by which proposals of one network differ that are under way
_APART_BY_MERIT = 0.25  # the same where they are chosen by a merit, not by its improvement
_APART_FROM_KNOWN = 0.01  # the same from what was evaluated, where a merit does not see to it
_PATIENCE = 3  # results without a gain after which a search stalls
_LATE = 30  # latest results that a search which stalls keeps away from
_REFINED = (0.1, 0.03, 0.01, 0.003)  # scales at which the best candidates are moved on


@dataclass(frozen=True)
class RandomWarmup:
    """How many random samples precede the first fit.

    Args:
        fraction: Share of the budget, in (0, 1).
        count: The number itself, instead.
    """

    fraction: float = 0.3
    count: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise ValueError(f"fraction must lie in (0, 1), but got {self.fraction}.")
        if self.count is not None and self.count < 1:
            raise ValueError(f"count must be at least 1, but got {self.count}.")

    def of(self, budget: int) -> int:
        """The number of random samples out of a budget."""
        wanted = round(self.fraction * budget) if self.count is None else self.count
        return max(1, min(wanted, budget))


def log_regret(values: Array, slack: float = 0.1) -> Array:
    """-log(regret to the best + slack), an increasing function of `values` (n,).

    A search lives among the best, where metrics differ by little, while the failures at the other
    end rule the variance that a predictor explains. The logarithm turns that round. It is the
    logarithm of its own slope, too.

    Args:
        values: More is better.
        slack: In standard deviations of the upper half.
    """
    from nni_aiop.predictors._moderate import unit_of

    values = values / unit_of(values)
    upper = np.sort(values)[len(values) // 2 :]
    added = slack * float(upper.std()) or 1.0
    return np.asarray(-np.log(values.max() - values + added))


class PredictorSearch(BaseSearch):
    """Random warm-up, then rounds of refitting a predictor and asking for what it favours.

    A subclass supplies the candidates of a round. It learns from results that `moderate` brought
    near where one is far beyond all others, such as the 1e300 of a training that diverged.

    Args:
        space: Where to search.
        objectives: What to improve, by weighted sum of standardised metrics.
        budget: Number of evaluations that warm-up and rounds share; asking on adds further rounds.
        warmup: Random samples before the first fit.
        rounds: Number of refits that share the rest of the budget.
        cost: A cost to hold down: an exact one of the space, or else a metric that is told.
        lam: Weight of the standardised cost (lambda of Ding et al. 2022, Eq. 3).
        limits: Hard upper limits on exact costs.
        exploration: How many predicted standard deviations a candidate's merit gains; None for the
            expected improvement instead.
        pareto: Spread proposals over the Pareto front: each one is ranked by a random weighting of
            the objectives instead of their fixed weights.
        seed: Of every random choice.
        repeat_networks: See `BaseSearch`.
        predictor: From a space and a seed to an unfitted predictor; by default `search_predictor`
            for NCP, which is fitted on its own proposals, else `default_predictor`.
    """

    def __init__(
        self,
        space: CodeSpace,
        *,
        objectives: Sequence[Objective | str] = ("default",),
        budget: int = 100,
        warmup: RandomWarmup = RandomWarmup(),
        rounds: int = 12,
        cost: str | None = None,
        lam: float = 0.5,
        limits: Mapping[str, float] | None = None,
        exploration: float | None = 0.5,
        pareto: bool = False,
        seed: int = 0,
        repeat_networks: bool = False,
        predictor: PredictorFactory | None = None,
    ) -> None:
        super().__init__(
            space,
            objectives=objectives,
            limits=limits,
            seed=seed,
            repeat_networks=repeat_networks,
        )
        self.budget = budget
        self.warmup = warmup
        self.rounds = rounds
        self.cost = cost
        self.lam = lam
        self.exploration = exploration
        self.pareto = pareto
        self.predictor = predictor
        self.predictor_: CodePredictor | None = None
        self._queue: list[Sample] = []
        self._round = 0
        self._wanted = 1  # proposals of the round under way
        self._slack: float | None = None  # of `log_regret` of the targets, 0 for none
        self._decided_at = 0  # number of results when that was chosen
        self._fits = Fits()
        PredictorSearch._check_options(self)

    def _check_options(self) -> None:
        """Refuses options that no search can have, given or read from a state."""
        if not all(
            isinstance(n, (int, float, np.number)) and n >= 1 for n in (self.budget, self.rounds)
        ):
            raise ValueError(
                f"budget and rounds must be at least 1, but got {self.budget!r} and "
                f"{self.rounds!r}."
            )
        if not (math.isfinite(self.lam) and self.lam >= 0):
            raise ValueError(f"lam must not be negative, but got {self.lam}.")
        if self.exploration is not None and not math.isfinite(self.exploration):
            raise ValueError(f"exploration must be a finite number, but got {self.exploration}.")
        if not (self.cost is None or isinstance(self.cost, str)):
            raise ValueError(f"a cost must be a name, but got {self.cost!r}.")
        if self.cost in self.space.costs:
            check_cost(self.space, self.cost)

    def _needed(self) -> list[str]:
        names = super()._needed()
        return names if self.cost is None or self.cost in self.space.costs else [*names, self.cost]

    def _costs_used(self) -> list[str]:
        return [*super()._costs_used(), *([] if self.cost is None else [self.cost])]

    @property
    def _batch(self) -> int:
        """How many samples one round asks for."""
        return max(1, math.ceil((self.budget - self.warmup.of(self.budget)) / self.rounds))

    def _propose(self, n: int) -> list[Sample]:
        self.prepare(n)
        out, self._queue = self._queue[:n], self._queue[n:]
        return out

    def prepare(self, n: int) -> None:
        self._clear_queue()
        if not self._queue:
            self._wanted = max(n, self._batch)
            self._queue = self._next_round()

    def ready(self) -> bool:
        self._clear_queue()
        warm = self.warmup.of(self.budget) > len(self._seen)
        return bool(self._queue) or warm or sum(m is not None for _, m in self._history) < _FEWEST

    def _clear_queue(self) -> None:
        # A result that was told without being asked may have come for a queued sample.
        self._queue = [s for s in self._queue if self._network(s) not in self._seen]

    def _next_round(self) -> list[Sample]:
        warm = self.warmup.of(self.budget) - len(self._seen)
        if warm > 0:
            return self._random_new(min(warm, max(self._wanted, _WARM)))
        samples, metrics = self._results()
        if len(samples) < _FEWEST:
            return self._random_new(1)
        self._round += 1
        from nni_aiop.predictors._moderate import moderated

        metrics = moderated(metrics)
        known = self._fits.known(_RESULTS, self._told)
        self.predictor_ = self._fit(samples, metrics) if known is None else known
        out = self._favoured(self.predictor_, samples, metrics)
        return out or self._random_new(self._wanted)

    @property
    def _warps(self) -> bool:
        """Whether targets may be stretched near their best: only where the best stays the best."""
        return False

    def _made(self) -> CodePredictor:
        """An unfitted predictor."""
        # Of one table always the same, so that a search that is resumed comes to the same one.
        seed = self.seed + self._told
        if self.predictor is not None:
            return self.predictor(self.space, seed)
        from nni_aiop.predictors import CodeGP, search_predictor

        if self._refines:
            return search_predictor(self.space, seed)
        return CodeGP(self.space, rows=_ROWS, refined=_ROWS, exact=_EXACT, seed=seed)

    def _fit(self, samples: list[Sample], metrics: list[dict[str, float]]) -> CodePredictor:
        """A predictor of every needed metric, fitted on all results so far.

        Where targets may be stretched, how much is chosen by what makes the better half of the
        results the likeliest.
        """
        codes = self.space.encode(samples)
        plain = {name: np.array([m[name] for m in metrics]) for name in self._needed()}
        told, n = self._told, len(samples)
        fits = self._fits
        if not self._warps:
            fit = fits.fitted(self._made(), _RESULTS, told, codes, plain)
        elif self._slack is not None and n < 1.25 * self._decided_at:
            targets = self._stretched(plain, self._slack)
            fit = fits.fitted(self._made(), _RESULTS, told, codes, targets)
        elif n <= _JUDGES:
            self._slack, fit = self._judged(codes, plain)
            self._decided_at = n
        else:
            some = np.random.default_rng(self.seed + told).permutation(n)[:_JUDGES]
            few = {name: column[some] for name, column in plain.items()}
            self._slack, judge = self._judged(codes[some], few)
            self._decided_at = n
            fits.begin(_RESULTS, told, judge)
            targets = self._stretched(plain, self._slack)
            fit = fits.fitted(self._made(), _RESULTS, told, codes, targets)
        return fits.keep(fit, _RESULTS, told)

    def _judged(self, codes: Array, plain: Mapping[str, Array]) -> tuple[float, CodePredictor]:
        """The slack that makes the better half of the results the likeliest, and its fit."""
        slacks = _SLACKS if len(codes) >= _ENOUGH else _SLACKS[:2]
        found: list[CodePredictor] = []
        for slack in slacks:
            targets = self._stretched(plain, slack)
            fit = self._fits.fitted(self._made(), _RESULTS, self._told, codes, targets)
            found.append(fit)
        likely = [self._likelihood(fit, plain, s) for fit, s in zip(found, slacks, strict=True)]
        best = int(np.argmax(likely))
        return slacks[best], found[best]

    def _stretched(self, targets: Mapping[str, Array], slack: float) -> dict[str, Array]:
        """The targets, objectives by `log_regret`; a slack of 0 leaves them as they are."""
        if slack == 0:
            return dict(targets)
        own = {o.metric: o.sign * log_regret(o.sign * targets[o.metric], slack)
               for o in self.objectives}  # fmt: skip
        return {**targets, **own}

    def _likelihood(
        self, predictor: CodePredictor, plain: Mapping[str, Array], slack: float
    ) -> float:
        """How likely the better half of the results is, each predicted from all others.

        A density of stretched targets becomes one of the results by the slope of `log_regret`. Of
        predictors that do not tell it, those of the most stretched targets are taken.
        """
        density = getattr(predictor, "leave_one_out_log_density", None)
        if density is None:
            return slack if slack == 0 else 1 / slack
        log_density = density() - np.log(np.where(predictor.scale_ > 0, predictor.scale_, 1.0))
        total = 0.0
        for o in self.objectives:
            values = o.sign * plain[o.metric]
            log_slope = log_regret(values, slack) if slack else np.zeros(len(values))
            upper = values >= np.median(values)
            column = log_density[:, predictor.metrics_.index(o.metric)]
            total += float((column + log_slope)[upper].sum())
        return total

    @abstractmethod
    def _candidates(
        self, predictor: CodePredictor, samples: list[Sample], metrics: list[dict[str, float]]
    ) -> Array:
        """(c, d) distinct points to choose from."""

    def _favoured(
        self, predictor: CodePredictor, samples: list[Sample], metrics: list[dict[str, float]]
    ) -> list[Sample]:
        """One round's proposals: the new candidates of the highest merit, one after the other."""
        points = self._candidates(predictor, samples, metrics)
        points = points[probable_excess(self._book, points, self.limits) <= 1.0]
        acquisition = self._acquisition(predictor, samples, metrics)
        waiting = list(self._pending.values())
        if waiting:
            acquisition.believe(self.space.encode(waiting))
        if self.exploration is not None or self.pareto:
            known = self.space.points([*samples, *waiting])
            points = points[~too_near(self.space, points, known, _APART_FROM_KNOWN)]
        avoided = [*waiting, *(samples[-_LATE:] if self._stalls(metrics) else [])]
        # Only a believing predictor's improvement tells near-copies apart by itself.
        gap = _APART if self.exploration is None else _APART_BY_MERIT
        taken: set[str] = set()
        out: list[Sample] = []
        most = self._book.n_evaluated + _AT_ONCE * self._wanted
        # A merit without exploration does not change with what is believed.
        still = self.exploration == 0 and not self.pareto
        ranking = Ranking(self.space, points, acquisition)
        while len(out) < self._wanted and len(points):
            found: list[Sample] = []
            for offered in self._offered(ranking, acquisition):
                if avoided:
                    near = too_near(self.space, offered, self.space.points(avoided), gap)
                    offered = offered[~near]
                found = self._admit(self.space.from_points(offered), 1, taken)
                if found or self._book.n_evaluated > most:
                    break
            if not found:
                break
            out += found
            avoided += found
            if not still and len(out) < self._wanted:
                acquisition.believe(self.space.encode(found))
                ranking.outdate()
        return out

    def _stalls(self, metrics: list[dict[str, float]]) -> bool:
        """Whether the latest results were no better: every other round then looks elsewhere.

        A predictor that is too sure of a slope improves upon its end again and again, by less than
        anybody can tell.
        """
        if self._round % 2 or len(metrics) <= _PATIENCE or not fine_dimensions(self.space):
            return False
        merits = np.array([self._merit(m) for m in metrics])
        gained = merits[-_PATIENCE:].max() - merits[:-_PATIENCE].max()
        return bool(gained < 0.01 * merits.std())

    def _acquisition(
        self, predictor: CodePredictor, samples: list[Sample], metrics: list[dict[str, float]]
    ) -> Acquisition:
        """What the round's candidates are compared by."""
        constraints = self._constraints(samples, metrics)
        pairs = zip(samples, metrics, strict=True)
        feasible = [(s, m) for s, m in pairs if violation(m) == 0]
        if not self.pareto and len(feasible) > _RIVALS:  # the best one is hardly among the others
            feasible = nlargest(_RIVALS, feasible, key=lambda pair: self._merit(pair[1]))
        known = [s for s, _ in feasible]
        weights = np.array([o.weight for o in self.objectives])
        if self.cost is not None:
            weights = np.append(weights, self.lam)
        return Acquisition(
            predictor,
            self._gains,
            None if self.pareto else weights,
            self.space.encode(known) if known else np.empty((0, self.space.width)),
            exploration=self.exploration,
            constraints=constraints,
            rng=self._rng,
        )

    def _constraints(
        self, samples: list[Sample], metrics: list[dict[str, float]]
    ) -> list[CodePredictor]:
        """A predictor of each constraint that a result violates, and of whether evaluations fail.

        What failed is told as 1, what did not as -1.
        """
        names = dict.fromkeys(n for m in metrics for n in m if n.startswith(CONSTRAINT))
        found = []
        for name in names:
            rows = [i for i, m in enumerate(metrics) if name in m]
            values = np.array([metrics[i][name] for i in rows])
            if len(rows) >= _FEWEST and (values > 0).any():
                found.append(self._constraint(name, [samples[i] for i in rows], values))
        failed = [s for s, m in self._history if m is None]
        if failed:
            values = np.repeat([-1.0, 1.0], [len(samples), len(failed)])
            found.append(self._constraint(_FAILS, [*samples, *failed], values))
        return found

    def _constraint(self, name: str, samples: list[Sample], values: Array) -> CodePredictor:
        def table() -> tuple[Array, dict[str, Array]]:
            return self.space.encode(samples), {name: values}

        return self._fits.learned(name, self._told, self._made, table)

    #: Whether proposals are refined one by one: the best candidates are moved on in the fine
    #: dimensions before one is chosen, by a predictor that is made for it.
    _refines: ClassVar[bool] = False

    def _offered(self, ranking: Ranking, acquisition: Acquisition) -> Iterator[Array]:
        """The candidates, best first, some (c, d) at a time."""
        if self._refines and fine_dimensions(self.space) and not self.pareto:
            top, _ = ranking.first(5)
            for scale in _REFINED:
                moved = perturbed(self.space, top, 30, (scale, scale / 3), self._rng)
                moved = moved[probable_excess(self._book, moved, self.limits) <= 1.0]
                both = np.concatenate([top, moved])
                worth = acquisition.values(self.space.encode_points(both))
                top = both[np.argsort(-worth, kind="stable")[:5]]
            yield top
        yield from ranking.chunks(_AT_ONCE)

    def _gains(self, codes: Array, prediction: Prediction) -> tuple[Array, Array]:
        """(c, k) standardised gain of each objective, then of the cost, and their deviations."""
        predictor = self.predictor_
        assert predictor is not None
        names = [o.metric for o in self.objectives]
        signs = [o.sign for o in self.objectives]
        if self.cost is not None and self.cost not in self.space.costs:
            names, signs = [*names, self.cost], [*signs, -1.0]
        columns = [prediction.metrics.index(name) for name in names]
        scale = np.where(predictor.scale_ > 0, predictor.scale_, 1.0)[columns]
        gains = np.array(signs) * (prediction.mean[:, columns] - predictor.center_[columns]) / scale
        spreads = prediction.std[:, columns] / scale
        if self.cost is not None and self.cost in self.space.costs:
            from nni_aiop.search._propagation_loss import Cost

            known = Cost.of(self.space, self.cost, [], self._book)
            spent = (self._book.at(self.cost, codes) - known.center) / known.scale
            return np.column_stack([gains, -spent]), np.column_stack([spreads, 0.0 * spent])
        return gains, spreads

    #: Options that the state carries, so that a resumed search goes on with those it began with.
    _kept: ClassVar[tuple[str, ...]] = ("budget", "rounds", "cost", "lam", "exploration", "pareto")

    def _state(self) -> dict[str, Any]:
        return {
            "warmup": [self.warmup.fraction, self.warmup.count],
            "options": {name: getattr(self, name) for name in self._kept},
            "round": self._round,
            "stretched": [self._slack, self._decided_at],
            "fits": self._fits.state(),
            "queue": [self.space.to_json(s) for s in self._queue],
        }

    def _load_state(self, state: Mapping[str, Any]) -> None:
        queue = [self.space.from_json(s) for s in state["queue"]]
        place, warmup = int(state["round"]), RandomWarmup(*state["warmup"])
        slack, decided = state.get("stretched", (None, 0))
        if not (slack in (None, *_SLACKS) and type(decided) is int and 0 <= decided <= 10**9):
            raise ValueError(f"stretched must be a slack and a number, but got {slack!r:.80}")
        if len({self.space.key(s) for s in queue}) < len(queue):
            raise ValueError("what is queued must stand there once")
        if not (0 <= place <= 10**6 and type(warmup.count) in (int, type(None))):
            raise ValueError(
                "the round must be from 0 to a million and a warm-up whole, "
                f"but got {place!r:.80}, {warmup.count!r:.80}"
            )
        fits = Fits.of(state.get("fits", {}))
        self.__dict__.update({name: state["options"][name] for name in self._kept})
        self._check_options()
        self._queue, self._round, self.warmup = queue, place, warmup
        self._slack = None if slack is None else float(slack)
        self._decided_at = int(decided)
        self._fits = fits
