"""PNAG: one generator of architectures for every budget.

Source: Guo et al., "Pareto-aware Neural Architecture Generation for Diverse Computational Budgets",
CVPR 2022.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import NotFittedError

from nni_aiop.errors import FileFormatError, InfeasibleError, SpaceError
from nni_aiop.files import read_described, whole, write_described
from nni_aiop.generators._files import evaluator_tensors, exact_costs
from nni_aiop.generators._policy import TokenPolicy, TokenTables
from nni_aiop.generators._rewards import Reward, pareto_reward
from nni_aiop.generators._training import PolicyTraining, TrainingOptions, costs_of
from nni_aiop.predictors import BudgetGrid, ParetoEvaluator
from nni_aiop.spaces import (
    CostBook,
    LearnedCost,
    RescaledCost,
    check_limits,
    probable_excess,
    refuse_impossible,
    repair,
    within_limits,
)

if TYPE_CHECKING:
    from nni_aiop.spaces import CodeSpace, Sample

__all__ = ["ParetoGenerator"]

Array = NDArray[np.float64]


_FORMAT, _VERSION = "nni-aiop generator", 2
_CHECKPOINT = "nni-aiop generator's training"
_SAVE_EVERY = 50  # updates
_ROUNDS = 6  # of drawing, before what was drawn is repaired
_REPAIRS = 8  # draws that are repaired, before neighbours of what is kept fill up the rest


class ParetoGenerator:
    """f(B; theta): architectures for any budget, after one training.

    An LSTM writes an architecture token by token, conditioned on the embedding of the budget, which
    is interpolated linearly between K trained ones (section 3.1.2). It learns by policy gradient
    from the scores of a `ParetoEvaluator`, which learned from labelled architectures which of two
    is better under a budget.

    Args:
        space: What is generated; every cost of the grid must be one of its exact costs.
        grid: The budgets of training.
        hidden: Width of the LSTM.
        training: How the generator is trained, where not by the defaults.
        evaluator: Options of `ParetoEvaluator`.
        seed: Of weights and draws.
        book: What is known of the costs already. A `SampleCost` is learned between what is known of
            it, for training; what is generated keeps the budget by the exact one.

    Raises:
        SpaceError: The space lacks a cost of the grid.

    Attributes:
        evaluator_: R(.|B; w), once `fit` has learned it.
        history_: Of each update the mean reward and the share of draws that kept their budgets.
    """

    def __init__(
        self,
        space: CodeSpace,
        grid: BudgetGrid,
        *,
        hidden: int = 64,
        training: TrainingOptions | None = None,
        evaluator: Mapping[str, Any] | None = None,
        seed: int = 0,
        book: CostBook | None = None,
    ) -> None:
        check_limits(space, {name: levels[0] for name, levels in grid.levels.items()})
        self.space = space
        self.grid = grid
        self.hidden = hidden
        self.training = training or TrainingOptions()
        self.evaluator = {"seed": seed, **(evaluator or {})}
        self.book = book or CostBook(space)
        ParetoEvaluator(space, grid, **self.evaluator)  # refuses wrong options at once
        self.seed = seed
        self.evaluator_: ParetoEvaluator | None = None
        self._tables = TokenTables(space)
        self._policy: TokenPolicy | None = None

    # --- learning -------------------------------------------------------------------------------

    def fit(
        self,
        codes: ArrayLike,
        accuracy: ArrayLike,
        *,
        progress: bool = False,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> ParetoGenerator:
        """This generator, with evaluator and policy trained on labelled architectures.

        Args:
            codes: (n, width) codes, inactive dimensions at their defaults.
            accuracy: (n,) of which more is better, in any unit.
            progress: Whether a terminal shows a bar.
            checkpoint: A file in which the training is kept; where it is there already, training
                goes on from it to the same result as without a break.

        Raises:
            FileFormatError: The checkpoint is damaged, or of another training.
            ValueError: See `ParetoEvaluator.fit`.
        """
        x, y = np.asarray(codes, dtype=np.float64), np.asarray(accuracy, dtype=np.float64)
        digest = hashlib.sha256(x.tobytes() + y.tobytes()).hexdigest()
        path = None if checkpoint is None else Path(checkpoint)
        training = self._new_training()
        if path is not None and path.exists():
            evaluator = self._resume(path, digest, training)
        else:
            evaluator = self._new_evaluator().fit(x, y)

        def keep() -> None:
            if path is not None:
                self._save_training(path, digest, training, evaluator)

        if training.done == 0:
            keep()
        self._train(training, pareto_reward(evaluator), progress, keep)
        self.evaluator_ = evaluator
        return self

    def fit_policy(self, reward: Reward, *, progress: bool = False) -> ParetoGenerator:
        """This generator, with a policy trained by another reward; there is no evaluator then."""
        self._train(self._new_training(), reward, progress, lambda: None)
        self.evaluator_ = None
        return self

    def _new_evaluator(self) -> ParetoEvaluator:
        return ParetoEvaluator(self.space, self.grid, **self.evaluator, book=self.book)

    def _new_policy(self) -> TokenPolicy:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return TokenPolicy(
                self._tables, n_costs=len(self.grid.names), k=self.grid.k, hidden=self.hidden
            )

    def _new_training(self) -> PolicyTraining:
        return PolicyTraining(
            self._tables,
            self.grid,
            self._new_policy(),
            self.training,
            seed=self.seed,
            book=self.book,
        )

    def _train(
        self,
        training: PolicyTraining,
        reward: Reward,
        progress: bool,
        keep: Callable[[], None],
    ) -> None:
        from tqdm import tqdm

        total = self.training.steps
        with tqdm(
            total=total, initial=training.done, unit="update", disable=None if progress else True
        ) as bar:
            while training.done < total:
                training.update(reward)
                bar.update()
                bar.set_postfix_str(f"{training.history[-1][1]:.0%} keep the budget", refresh=False)
                if training.done % _SAVE_EVERY == 0 or training.done == total:
                    keep()
        self._keep(training.policy)
        self.history_ = list(training.history)

    def _keep(self, policy: TokenPolicy) -> None:
        self._policy = policy.eval().requires_grad_(False)

    # --- generating -----------------------------------------------------------------------------

    def draw(self, budget: Mapping[str, float] | float, n: int, *, seed: int = 0) -> Array:
        """(n, d) points straight from the policy: not selected, not repaired, maybe repeated.

        Raises:
            NotFittedError: Neither `fit` nor `fit_policy` was called.
            SpaceError: The budget is not one of the grid's costs.
        """
        generator = torch.Generator().manual_seed(seed)
        return self._tables.points_of(self._draw(self.grid.vector(budget), n, generator))

    def _draw(self, budget: Array, n: int, generator: torch.Generator) -> NDArray[np.int64]:
        if self._policy is None:
            raise NotFittedError("a generator must be fitted before it generates: call fit first.")
        weights = torch.as_tensor(self.grid.weights(budget)).float().repeat(n, 1, 1)
        found: NDArray[np.int64] = self._policy.draw(weights, generator).numpy()
        return found

    def check_budget(self, budget: Mapping[str, float] | float) -> None:
        """Refuse a budget that was not, or will not be, trained for; there may be no training yet.

        Raises:
            SpaceError: The budget does not name the grid's costs, or lies outside the trained
                range.
            InfeasibleError: It is below the cheapest architecture that was found.
        """
        limits = self.grid.vector(budget)
        problem = self.grid.outside(limits)
        if problem is not None:
            low = dict(zip(self.grid.names, self.grid.array[0], strict=True))
            named = self._named(limits)
            below = {k: v for k, v in named.items() if v < low[k]}
            refuse_impossible(self.space, below, self.book)
            raise SpaceError(problem)

    def generate(
        self,
        budget: Mapping[str, float] | float,
        n: int = 1,
        *,
        pool: int = 48,
        extrapolate: bool = False,
        seed: int = 0,
    ) -> list[Sample]:
        """`n` distinct valid architectures (every label) that keep the budget exactly, best first.

        Architectures are drawn until enough of them keep the budget; where they do not, they are
        repaired by the fewest edits that suffice. Those that the evaluator scores highest are
        returned, or after `fit_policy`, which has none, the first that were drawn.

        Args:
            budget: Of each cost; a number where there is one cost.
            n: How many.
            pool: How many are drawn at least, to choose from.
            extrapolate: Allow a budget outside the trained range: it is generated for as the
                nearest trained one is, then drawn anew and repaired until it is kept.
            seed: Of the draws.

        Raises:
            NotFittedError: Neither `fit` nor `fit_policy` was called.
            SpaceError: The budget does not name the grid's costs, or lies outside the trained
                range.
            InfeasibleError: No architecture that was found keeps the budget, and the message names
                the cheapest one; or fewer than `n` do.
            ValueError: n or pool is below 1.
        """
        if n < 1 or pool < 1:
            raise ValueError(f"n and pool must be at least 1, but got {n} and {pool}.")
        limits = self.grid.vector(budget)
        if not extrapolate:
            self.check_budget(budget)
        if n > self.space.size:
            raise self._too_few(limits, n, f"the space has {self.space.size} points")
        generator = torch.Generator().manual_seed(seed)
        kept: dict[str, Array] = {}
        missed: dict[str, Array] = {}
        wanted = max(n, pool)
        for _ in range(_ROUNDS):
            tokens = self._draw(limits, wanted, generator)
            _, first = np.unique(tokens, axis=0, return_index=True)
            points = self._tables.points_of(tokens[np.sort(first)])
            inside = self._keeps(points, limits)
            for key, point, ok in zip(self.space.keys(points), points, inside, strict=True):
                (kept if ok else missed).setdefault(key, point)
            likely, kept = kept, self._confirmed(kept, limits, n)
            missed |= {key: point for key, point in likely.items() if key not in kept}
            # Drawing on after the first round serves the number only.
            if len(kept) >= n:
                break
        if len(kept) < n:
            self._repair(kept, missed, limits, n)
            self._fill(kept, limits, n)
        points = np.array(list(kept.values()))
        return self.space.from_points(points[self._order(points, limits)[:n]])

    def _order(self, points: Array, limits: Array) -> NDArray[np.int64]:
        """The points by descending score, or as drawn without an evaluator."""
        if self.evaluator_ is None:
            return np.arange(len(points))
        scores = self.evaluator_.score(self.space.encode_points(points), limits)
        return np.argsort(-scores, kind="stable")

    @property
    def _learns_costs(self) -> bool:
        """Whether a budgeted cost is known at some architectures only."""
        return any(self.book.is_learned(name) for name in self.grid.names)

    def _confirmed(self, kept: dict[str, Array], limits: Array, n: int) -> dict[str, Array]:
        """What keeps the budget exactly; where costs are learned the first `n` by score."""
        if not kept or not self._learns_costs:
            return kept
        keys, points = list(kept), np.array(list(kept.values()))
        order = self._order(points, limits)
        inside = within_limits(self.book, points[order], self._named(limits))
        return {keys[order[i]]: points[order[i]] for i in islice(inside, n)}

    def _keeps(self, points: Array, limits: Array) -> NDArray[np.bool_]:
        """(n,) whether each of (n, d) points is valid and, as far as known, within the limits."""
        codes = self.space.encode_points(self.space.canonical_points(points))
        within = np.asarray((costs_of(self.book, self.grid, codes) <= limits).all(axis=1))
        if self.space.constraints:
            samples = self.space.from_points(points)
            within = within & np.array([self.space.violation(s) is None for s in samples])
        return within

    def _repair(
        self, kept: dict[str, Array], missed: dict[str, Array], limits: Array, n: int
    ) -> None:
        """Bring some of what missed within the limits, what exceeds them least first.

        Raises:
            InfeasibleError: None could be, nor is any kept already.
        """
        named = self._named(limits)
        points = np.array(list(missed.values())).reshape(-1, len(self.space))
        problem: InfeasibleError | None = None
        order = np.argsort(probable_excess(self.book, points, named), kind="stable")
        for i in order[:_REPAIRS]:
            (sample,) = self.space.from_points(points[[i]])
            if self.space.violation(sample) is not None:
                sample = self.space.decode(self.space.encode([sample]))[0]
            try:
                (found,) = repair(self.space, [sample], named, book=self.book)
            except InfeasibleError as err:
                problem = err
                continue
            kept.setdefault(self.space.key(found), self.space.settled_points([found])[0])
            if len(kept) >= n:
                return
        if not kept:
            possible = refuse_impossible(self.space, named, self.book)
            points = self.space.settled_points(possible)
            found = dict(zip(self.space.keys(points), points, strict=True)) if possible else {}
            inside = self._keeps(points, limits).tolist() if possible else []
            likely = {k: p for (k, p), ok in zip(found.items(), inside, strict=False) if ok}
            kept |= self._confirmed(likely, limits, n)
            if not kept:
                raise problem or self._too_few(limits, n, "none was found")

    def _fill(self, kept: dict[str, Array], limits: Array, n: int) -> None:
        """Go to neighbours of what is kept, until `n` are.

        Raises:
            InfeasibleError: There are no more.
        """
        frontier = deque(kept)
        while frontier and len(kept) < n:
            (sample,) = self.space.from_points(kept[frontier.popleft()][None])
            near = self.space.neighbours(sample)
            if not near:
                continue
            points = self.space.settled_points(near)
            inside = self._keeps(points, limits)
            keys = self.space.keys(points)
            new = {k: p for k, p, ok in zip(keys, points, inside, strict=True) if ok}
            new = {k: p for k, p in new.items() if k not in kept}
            new = self._confirmed(new, limits, n - len(kept))
            kept |= new
            frontier.extend(new)
        if len(kept) < n:
            raise self._too_few(limits, n, f"only {len(kept)} were found")

    def _too_few(self, limits: Array, n: int, found: str) -> InfeasibleError:
        wanted = ", ".join(f"{k} <= {v:.6g}" for k, v in self._named(limits).items())
        return InfeasibleError(
            f"{n} architectures of {self.space.name} must meet {wanted or 'its rules'}, "
            f"but {found}."
        )

    def _named(self, limits: Array) -> dict[str, float]:
        return dict(zip(self.grid.names, limits.tolist(), strict=True))

    # --- files ----------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes one safetensors file that `load_generator` reads, whole or not at all.

        Raises:
            NotFittedError: Neither `fit` nor `fit_policy` was called.
            SpaceError: A budgeted cost is learned by a search, and ends with it.
        """
        if self._policy is None:
            raise NotFittedError("a generator must be fitted before it is saved: call fit first.")
        for name in self.grid.names:
            if isinstance(self.space.costs[name], (LearnedCost, RescaledCost)):
                raise SpaceError(
                    "a generator must have exact costs of its space to be saved, "
                    f"but {name} was learned by a search."
                )
        tensors = {f"policy.{k}": v for k, v in self._policy.arrays().items()}
        content = {**self._described(), "format": _FORMAT, "version": _VERSION}
        content["has_evaluator"] = self.evaluator_ is not None
        content["known_costs"] = self.book.state()
        write_described(path, "generator", content, tensors | evaluator_tensors(self.evaluator_))

    def _described(self) -> dict[str, Any]:
        return {
            "space": self.space.fingerprint,
            "space_name": self.space.name,
            "levels": {name: list(levels) for name, levels in self.grid.levels.items()},
            "costs": exact_costs(self.space, self.grid.names),
            "hidden": self.hidden,
            "training": asdict(self.training),
            "evaluator": self.evaluator,
            "seed": self.seed,
        }

    def _restored_evaluator(self, tensors: Mapping[str, NDArray[Any]]) -> ParetoEvaluator:
        prefix = "evaluator."
        return self._new_evaluator().restore(
            {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        )

    def _save_training(
        self, path: Path, digest: str, training: PolicyTraining, evaluator: ParetoEvaluator
    ) -> None:
        content = {
            **self._described(),
            "format": _CHECKPOINT,
            "version": _VERSION,
            "data": digest,
            "state": training.state(),
            "known_costs": self.book.state(),
        }
        tensors = training.tensors() | evaluator_tensors(evaluator)
        write_described(path, "generator", content, tensors)

    def _resume(self, path: Path, digest: str, training: PolicyTraining) -> ParetoEvaluator:
        content, tensors = read_described(
            path,
            "generator",
            kind=_CHECKPOINT,
            version=_VERSION,
            what="a checkpoint of a generator",
        )
        expected = {**self._described(), "data": digest}
        for name, value in expected.items():
            if content.get(name) != value:
                raise FileFormatError(
                    f"{path} must be of the same training, but differs in its {name} "
                    f"({content.get(name)!r:.60}, not {value!r:.60}): delete it to train anew."
                )
        with whole(path, "a checkpoint", tensors):
            training.restore(content["state"], tensors)
            self.book.load_state(content.get("known_costs", {}))
            return self._restored_evaluator(tensors)
