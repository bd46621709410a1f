"""PNAG: one generator of architectures for every budget.

Source: Guo et al., "Pareto-aware Neural Architecture Generation for Diverse Computational Budgets",
CVPR 2022.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import NotFittedError

from nni_aiop.errors import FileFormatError, InfeasibleError, SpaceError
from nni_aiop.generators._policy import TokenPolicy, TokenTables
from nni_aiop.generators._rewards import Reward, pareto_reward
from nni_aiop.generators._training import PolicyTraining, TrainingOptions, costs_of
from nni_aiop.predictors import BudgetGrid, ParetoEvaluator
from nni_aiop.predictors._files import read_described, write_described
from nni_aiop.search import repair
from nni_aiop.search._limits import check_limits

if TYPE_CHECKING:
    from nni_aiop.spaces import CodeSpace, Sample

__all__ = ["ParetoGenerator", "cheapest", "load_generator"]

Array = NDArray[np.float64]

_FORMAT, _VERSION = "nni-aiop generator", 1
_CHECKPOINT = "nni-aiop generator's training"
_SAVE_EVERY = 50  # updates
_ROUNDS = 6  # of drawing, before what was drawn is repaired


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
    ) -> None:
        check_limits(space, {name: levels[0] for name, levels in grid.levels.items()})
        self.space = space
        self.grid = grid
        self.hidden = hidden
        self.training = training or TrainingOptions()
        self.evaluator = {"seed": seed, **(evaluator or {})}
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
            self._resume(path, digest, training)
        else:
            evaluator = ParetoEvaluator(self.space, self.grid, **self.evaluator)
            self.evaluator_ = evaluator.fit(x, y)
        assert self.evaluator_ is not None
        self._train(training, pareto_reward(self.evaluator_), progress, path, digest)
        return self

    def fit_policy(self, reward: Reward, *, progress: bool = False) -> ParetoGenerator:
        """This generator, with a policy trained by another reward; there is no evaluator then."""
        self.evaluator_ = None
        self._train(self._new_training(), reward, progress, None, "")
        return self

    def _new_policy(self) -> TokenPolicy:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return TokenPolicy(
                self._tables, n_costs=len(self.grid.names), k=self.grid.k, hidden=self.hidden
            )

    def _new_training(self) -> PolicyTraining:
        return PolicyTraining(
            self._tables, self.grid, self._new_policy(), self.training, seed=self.seed
        )

    def _train(
        self,
        training: PolicyTraining,
        reward: Reward,
        progress: bool,
        path: Path | None,
        digest: str,
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
                if path is not None and (
                    training.done % _SAVE_EVERY == 0 or training.done == total
                ):
                    self._save_training(path, digest, training)
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
        with torch.no_grad():
            tokens, _, _ = self._policy(weights, generator)
        found: NDArray[np.int64] = tokens.numpy()
        return found

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
        returned.

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
            InfeasibleError: No architecture, or fewer than `n`, keep the budget; the message names
                the cheapest one.
            ValueError: n or pool is below 1.
        """
        if n < 1 or pool < 1:
            raise ValueError(f"n and pool must be at least 1, but got {n} and {pool}.")
        limits = self.grid.vector(budget)
        problem = self.grid.outside(limits)
        if problem is not None:
            self._refuse_impossible(limits)
            if not extrapolate:
                raise SpaceError(problem)
        generator = torch.Generator().manual_seed(seed)
        kept: dict[str, Array] = {}
        missed: dict[str, Array] = {}
        wanted = max(n, pool)
        for _ in range(_ROUNDS):
            tokens = np.unique(self._draw(limits, wanted, generator), axis=0)
            points = self._tables.points_of(tokens)
            inside = self._keeps(points, limits)
            for key, point, ok in zip(self.space.keys(points), points, inside, strict=True):
                (kept if ok else missed).setdefault(key, point)
            # Drawing on after the first round serves the number only.
            if len(kept) >= n:
                break
        if len(kept) < n:
            self._repair(kept, missed, limits, n)
        points = self.space.normalise(np.array(list(kept.values())))
        return self.space.from_points(points[self._order(points, limits)[:n]])

    def _order(self, points: Array, limits: Array) -> NDArray[np.int64]:
        """The points by descending score, or as drawn without an evaluator."""
        if self.evaluator_ is None:
            return np.arange(len(points))
        scores = self.evaluator_.score(self.space.encode_points(points), limits)
        return np.argsort(-scores, kind="stable")

    def _keeps(self, points: Array, limits: Array) -> NDArray[np.bool_]:
        """(n,) whether each of (n, d) points is valid and within the limits."""
        codes = self.space.encode_points(self.space.canonical_points(points))
        within = np.asarray((costs_of(self._tables, self.grid, codes) <= limits).all(axis=1))
        if self.space.constraints:
            samples = self.space.from_points(points)
            within = within & np.array([self.space.violation(s) is None for s in samples])
        return within

    def _repair(
        self, kept: dict[str, Array], missed: dict[str, Array], limits: Array, n: int
    ) -> None:
        """Bring what missed within the limits, then go to neighbours, until `n` are kept."""
        named = dict(zip(self.grid.names, limits.tolist(), strict=True))
        problem: InfeasibleError | None = None
        for point in missed.values():
            (sample,) = self.space.from_points(point[None])
            if self.space.violation(sample) is not None:
                sample = self.space.decode(self.space.encode([sample]))[0]
            try:
                (found,) = repair(self.space, [sample], named)
            except InfeasibleError as err:
                problem = err
                continue
            kept.setdefault(self.space.key(found), self.space.points([found])[0])
            if len(kept) >= n:
                return
        if not kept:
            self._refuse_impossible(limits)
            raise problem or InfeasibleError(f"no architecture of {self.space.name} was drawn.")
        frontier = list(kept)
        while frontier and len(kept) < n:
            (sample,) = self.space.from_points(kept[frontier.pop(0)][None])
            near = self.space.neighbours(sample)
            points = self.space.points(near) if near else np.empty((0, len(self.space)))
            for key, point, ok in zip(
                self.space.keys(points), points, self._keeps(points, limits), strict=True
            ):
                if ok and key not in kept:
                    kept[key] = point
                    frontier.append(key)
        if len(kept) < n:
            raise InfeasibleError(
                f"{n} architectures of {self.space.name} must meet "
                f"{', '.join(f'{k} <= {v:.6g}' for k, v in named.items())}, "
                f"but only {len(kept)} were found."
            )

    def _refuse_impossible(self, limits: Array) -> None:
        """An error that names the cheapest architecture, where a budget is below it."""
        for name, limit in zip(self.grid.names, limits.tolist(), strict=True):
            if limit >= self.grid.levels[name][0]:
                continue
            sample, cost = cheapest(self.space, name)
            if limit < cost:
                shown = ", ".join(f"{k}={v}" for k, v in self.space.canonical(sample).items())
                raise InfeasibleError(
                    f"an architecture of {self.space.name} must meet {name} <= {limit:.6g}, "
                    f"but the cheapest, {shown}, has {name} = {cost:.6g}."
                )

    # --- files ----------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes one safetensors file that `load_generator` reads, whole or not at all.

        Raises:
            NotFittedError: Neither `fit` nor `fit_policy` was called.
        """
        if self._policy is None:
            raise NotFittedError("a generator must be fitted before it is saved: call fit first.")
        tensors = {f"policy.{k}": v.numpy() for k, v in self._policy.state_dict().items()}
        content = {**self._described(), "format": _FORMAT, "version": _VERSION}
        content["has_evaluator"] = self.evaluator_ is not None
        write_described(path, "generator", content, tensors | self._evaluator_tensors())

    def _described(self) -> dict[str, Any]:
        return {
            "space": self.space.fingerprint,
            "space_name": self.space.name,
            "levels": {name: list(levels) for name, levels in self.grid.levels.items()},
            "hidden": self.hidden,
            "training": asdict(self.training),
            "evaluator": self.evaluator,
            "seed": self.seed,
        }

    def _evaluator_tensors(self) -> dict[str, NDArray[Any]]:
        if self.evaluator_ is None:
            return {}
        return {f"evaluator.{k}": v for k, v in self.evaluator_.tensors().items()}

    def _restore_evaluator(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        evaluator = ParetoEvaluator(self.space, self.grid, **self.evaluator)
        self.evaluator_ = evaluator.restore(
            {k.removeprefix("evaluator."): v for k, v in tensors.items() if "evaluator." in k}
        )

    def _save_training(self, path: Path, digest: str, training: PolicyTraining) -> None:
        content = {
            **self._described(),
            "format": _CHECKPOINT,
            "version": _VERSION,
            "data": digest,
            "state": training.state(),
        }
        tensors = training.tensors() | self._evaluator_tensors()
        write_described(path, "generator", content, tensors)

    def _resume(self, path: Path, digest: str, training: PolicyTraining) -> None:
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
                    f"{path} must be of the same training, but differs in its {name}."
                )
        training.restore(content["state"], tensors)
        self._restore_evaluator(tensors)


def load_generator(path: str | os.PathLike[str], space: CodeSpace) -> ParetoGenerator:
    """The trained generator of a file that `save` wrote; it generates the same architectures.

    Args:
        path: A .safetensors file.
        space: The space it was trained on, with the same costs.

    Raises:
        FileFormatError: The file is truncated, changed, of another version or another space.
        SpaceError: The space lacks a cost of the generator.
        OSError: There is no such file.
    """
    content, tensors = read_described(
        path, "generator", kind=_FORMAT, version=_VERSION, what="a generator's file"
    )
    if content["space"] != space.fingerprint:
        raise FileFormatError(
            f"{path} must be of the space {space.name}, but was trained on another one, "
            f"{content['space_name']}."
        )
    generator = ParetoGenerator(
        space,
        BudgetGrid(content["levels"]),
        hidden=content["hidden"],
        training=TrainingOptions(**content["training"]),
        evaluator=content["evaluator"],
        seed=content["seed"],
    )
    policy = generator._new_policy()
    try:
        policy.load_state_dict(
            {k: torch.as_tensor(tensors[f"policy.{k}"]) for k in policy.state_dict()}
        )
        if content["has_evaluator"]:
            generator._restore_evaluator(tensors)
    except (KeyError, RuntimeError) as err:
        raise FileFormatError(f"{path} must hold a whole generator, but does not: {err}.") from err
    generator._keep(policy)
    return generator


def cheapest(space: CodeSpace, cost: str, *, starts: int = 4) -> tuple[Sample, float]:
    """The cheapest architecture that single edits reach from random ones, and its cost.

    Raises:
        SpaceError: The space has no such cost.
    """
    found: list[tuple[float, Sample]] = []
    for sample in space.sample(starts, np.random.default_rng(0)):
        here = float(space.cost(cost, space.encode([_normal(space, sample)]))[0])
        while near := [_normal(space, s) for s in space.neighbours(sample)]:
            costs = space.cost(cost, space.encode(near))
            if costs.min() >= here:
                break
            sample, here = near[int(costs.argmin())], float(costs.min())
        found.append((here, sample))
    least, sample = min(found, key=lambda pair: pair[0])
    return sample, least


def _normal(space: CodeSpace, sample: Sample) -> Sample:
    """The sample with inactive dimensions at their defaults, which costs read."""
    return space.complete(space.canonical(sample))
