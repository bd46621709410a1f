"""The architecture evaluator of PNAG: a score under a budget, learned from pairwise comparisons.

Source: Guo et al., "Pareto-aware Neural Architecture Generation for Diverse Computational Budgets",
CVPR 2022, section 3.2.

Notation: M architectures with accuracy Acc and c costs, K budget vectors B; d(i, j, B) = 1 where
architecture i is better than j under B, else -1 (Eq. 4); R(.|B; w) is the learned score.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import NotFittedError
from torch import Tensor, nn

from nni_aiop.errors import SpaceError
from nni_aiop.predictors._budgets import Array, BudgetGrid
from nni_aiop.predictors.metrics import kendall
from nni_aiop.spaces import CostBook

if TYPE_CHECKING:
    from nni_aiop.spaces import CodeSpace

__all__ = ["ParetoEvaluator", "dominance", "excess_of", "rule_scores"]

_SHARPNESS = (4.0, 16.0, 64.0)
"""Slopes at which the evaluator reads how far a cost lies from its budget."""

_CHUNK = 65_536


def excess_of(costs: Tensor, budgets: Tensor) -> Tensor:
    """(K, M) the largest ratio of a cost to its budget: costs (M, c), budgets (K, c).

    It is at most 1 exactly where every budget is kept. Zeros where there is no cost.
    """
    if costs.shape[1] == 0:
        return costs.new_zeros(len(budgets), len(costs))
    return (costs[None] / budgets[:, None]).amax(dim=2)


def dominance(
    accuracy: Tensor, costs: Tensor, budgets: Tensor, *, by_accuracy: bool = True
) -> Tensor:
    """(K, M, M) of 1 where architecture i is better than j under a budget, else -1 (Eq. 4).

    Two architectures that both keep the budget are compared by accuracy, all others by cost. With
    one cost that is the paper's rule; of several costs the largest ratio to its budget counts.
    d(i, j) = -d(j, i) wherever what is compared differs; a tie is 1 both ways, as in the paper.

    Args:
        accuracy: (M,) of which more is better.
        costs: (M, c) costs, or (M,) of one.
        budgets: (K, c) budgets, or (K,) of one cost.
        by_accuracy: False leaves the accuracy rule out (the third row of Table 2): costs alone
            decide.
    """
    costs = costs.reshape(len(accuracy), -1)
    budgets = budgets.reshape(-1, costs.shape[1]) if costs.shape[1] else budgets
    excess = excess_of(costs, budgets)
    cheaper = excess[:, :, None] <= excess[:, None, :]
    if by_accuracy:
        kept = excess <= 1
        both = kept[:, :, None] & kept[:, None, :]
        better = accuracy[:, None] >= accuracy[None, :]
        cheaper = torch.where(both, better, cheaper)
    return cheaper.to(accuracy.dtype) * 2 - 1


def rule_scores(accuracy: Array, costs: Array, budgets: Array) -> Array:
    """(K, M) ranks that order architectures as Eq. 4 does: the better, the higher."""
    excess = excess_of(torch.as_tensor(costs), torch.as_tensor(budgets)).numpy()
    out = np.empty_like(excess)
    for k, row in enumerate(excess):
        kept = row <= 1
        # Accuracies above 0, excesses below it.
        lifted = accuracy - accuracy.min() + 1
        _, out[k] = np.unique(np.where(kept, lifted, -row), return_inverse=True)
    return out


class ParetoEvaluator:
    """R(.|B; w): three fully connected layers that score an architecture under a budget (Eq. 3).

    It reads the code, the features of the space where it has any, the embedding of the budget, and,
    as costs are known, the logarithm of each cost's ratio to its budget.

    Args:
        space: Whose codes it reads.
        grid: The budgets of training; others are interpolated.
        hidden: Width of the two hidden layers.
        embedding: Width of the budget embedding.
        steps: Number of updates.
        batch_size: Architectures whose pairs are compared in one update, at all budgets.
        lr: First learning rate of Adam; cosine annealing brings it to a hundredth.
        weight_decay: Of Adam.
        by_accuracy: See `dominance`.
        seed: Of weights and of the order of architectures.
        book: What is known of the costs.

    Raises:
        ValueError: A batch of fewer than 2 architectures has no pairs.
    """

    options: tuple[str, ...] = (
        "hidden",
        "embedding",
        "steps",
        "batch_size",
        "lr",
        "weight_decay",
        "by_accuracy",
        "seed",
    )

    def __init__(
        self,
        space: CodeSpace,
        grid: BudgetGrid,
        *,
        hidden: int = 128,
        embedding: int = 16,
        steps: int = 2500,
        batch_size: int = 128,
        lr: float = 2e-3,
        weight_decay: float = 1e-4,
        by_accuracy: bool = True,
        seed: int = 0,
        book: CostBook | None = None,
    ) -> None:
        if batch_size < 2:
            raise ValueError(f"batch_size must be at least 2, but got {batch_size}.")
        self.space = space
        self.grid = grid
        self.hidden = hidden
        self.embedding = embedding
        self.steps = steps
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.by_accuracy = by_accuracy
        self.seed = seed
        self.book = book or CostBook(space)

    def fit(
        self, codes: ArrayLike, accuracy: ArrayLike, costs: ArrayLike | None = None
    ) -> ParetoEvaluator:
        """This evaluator, fitted on every pair of each batch at every level of the grid.

        Args:
            codes: (n, width) codes, inactive dimensions at their defaults.
            accuracy: (n,) of which more is better, in any unit.
            costs: (n, c) costs in the order of `grid.names`; by default the space's own.

        Raises:
            SpaceError: The codes have another width, or the space lacks a cost.
            ValueError: Fewer than 2 architectures, other lengths, or numbers that are not finite.
        """
        x = self._checked(codes)
        y = np.asarray(accuracy, dtype=np.float64)
        c = self._costs(x, costs)
        if len(x) < 2 or y.shape != (len(x),):
            raise ValueError(
                f"at least 2 architectures must have an accuracy each, but got codes {x.shape} "
                f"and accuracies {y.shape}."
            )
        for what, given in (("accuracies", y[:, None]), ("costs", c)):
            if not np.isfinite(given).all():
                row = int(np.argmin(np.isfinite(given).all(axis=1)))
                raise ValueError(
                    f"{what} must be finite numbers, but row {row} has {given[row].tolist()}."
                )
        raw = self._described(x)
        self._center = raw.mean(axis=0)
        spread = raw.std(axis=0)
        self._scale = np.where(spread > 1e-9, spread, 1.0)
        inputs = self._inputs(raw)
        accuracies, cost = torch.as_tensor(y), torch.as_tensor(c)
        rng = np.random.default_rng(self.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            net = self._network()
        optimiser = torch.optim.Adam(net.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.steps, self.lr / 100)
        left = np.empty(0, dtype=np.int64)
        for _ in range(self.steps):
            if len(left) < min(self.batch_size, len(x)):
                left = rng.permutation(len(x))
            rows, left = left[: self.batch_size], left[self.batch_size :]
            budgets = self.grid.draws(1, rng)
            i, j = np.triu_indices(len(rows), 1)
            scores = self._scores(net, inputs[rows], c[rows], budgets)
            sign = dominance(
                accuracies[rows],
                cost[rows],
                torch.as_tensor(budgets),
                by_accuracy=self.by_accuracy,
            )[:, i, j]
            gap = scores[:, i] - scores[:, j]
            loss = torch.relu(1 - sign.float() * gap).mean()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
        self._keep(net)
        return self

    def score(
        self, codes: ArrayLike, budgets: ArrayLike, costs: ArrayLike | None = None
    ) -> NDArray[np.float64]:
        """(n,) scores R of architectures (n, width), each under its own budget (n, c).

        Args:
            codes: (n, width) codes, inactive dimensions at their defaults.
            budgets: (n, c) budgets, or (c,) one for all.
            costs: (n, c) costs; by default the space's own.

        Raises:
            NotFittedError: `fit` was not called.
            SpaceError: The codes have another width, or the space lacks a cost.
        """
        net = self._fitted()
        x = self._checked(codes)
        c = self._costs(x, costs)
        b = np.broadcast_to(np.asarray(budgets, dtype=np.float64), c.shape)
        out = []
        with torch.no_grad():
            for start in range(0, len(x), _CHUNK):
                part = slice(start, start + _CHUNK)
                inputs = self._inputs(self._described(x[part]))
                out.append(net(inputs, self._relations(c[part], b[part])))
        return torch.cat(out).double().numpy() if out else np.empty(0)

    def kendall(
        self, codes: ArrayLike, accuracy: ArrayLike, costs: ArrayLike | None = None
    ) -> dict[int, float]:
        """Kendall's tau between scores and the rule of Eq. 4 at each level k of the grid."""
        x = self._checked(codes)
        c = self._costs(x, costs)
        order = rule_scores(np.asarray(accuracy, dtype=np.float64), c, self.grid.array)
        return {
            k: kendall(order[k], self.score(x, budget, c))
            for k, budget in enumerate(self.grid.array)
        }

    # --- parts ----------------------------------------------------------------------------------

    def _network(self) -> _Scorer:
        columns = self.space.width
        if self.space.features is not None:
            columns = self._described(np.zeros((1, self.space.width))).shape[1]
        return _Scorer(columns, self.grid, self.hidden, self.embedding)

    def _keep(self, net: _Scorer) -> None:
        self._net = net.eval().requires_grad_(False)

    def _fitted(self) -> _Scorer:
        if not hasattr(self, "_net"):
            raise NotFittedError("ParetoEvaluator must be fitted before it scores: call fit first.")
        return self._net

    def _described(self, codes: Array) -> Array:
        """Codes and features, as they are."""
        if self.space.features is None:
            return codes
        with torch.no_grad():
            features = self.space.features(torch.as_tensor(codes)).numpy()
        return np.concatenate([codes, features], axis=1)

    def _inputs(self, described: Array) -> Tensor:
        return torch.as_tensor((described - self._center) / self._scale).float()

    def _relations(self, costs: Array, budgets: Array) -> tuple[Tensor, Tensor]:
        """(n, c, K) interpolation weights and (n, 4 c) readings of log cost / budget."""
        log_ratio = np.log(np.maximum(costs / budgets, 1e-9))
        readings = [np.tanh(slope * log_ratio) for slope in _SHARPNESS]
        near = np.concatenate([*readings, costs <= budgets], axis=1)
        return (
            torch.as_tensor(self.grid.weights(budgets)).float(),
            torch.as_tensor(near).float(),
        )

    def _scores(self, net: _Scorer, inputs: Tensor, costs: Array, budgets: Array) -> Tensor:
        """(K, n) scores of all architectures under all budgets."""
        k, n = len(budgets), len(inputs)
        relations = self._relations(np.tile(costs, (k, 1)), budgets.repeat(n, axis=0))
        scores: Tensor = net(inputs, relations, repeats=k)
        return scores.reshape(k, n)

    def _costs(self, codes: Array, costs: ArrayLike | None) -> Array:
        if costs is None:
            columns = [self.book.at(name, codes) for name in self.grid.names]
            return np.stack(columns, axis=1) if columns else np.zeros((len(codes), 0))
        c = np.asarray(costs, dtype=np.float64).reshape(len(codes), -1)
        if c.shape[1] != len(self.grid.names):
            raise ValueError(
                f"costs must have a column for each of {self.grid.names}, but got {c.shape}."
            )
        return c

    def _checked(self, codes: ArrayLike) -> Array:
        x = np.asarray(codes, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != self.space.width:
            raise SpaceError(f"codes must have shape (n, {self.space.width}), but got {x.shape}.")
        return x

    def tensors(self) -> dict[str, NDArray[Any]]:
        """What was learned, as named arrays for a file.

        Raises:
            NotFittedError: `fit` was not called.
        """
        learned = {name: value.numpy() for name, value in self._fitted().state_dict().items()}
        return {**learned, "center": self._center, "scale": self._scale}

    def restore(self, tensors: Mapping[str, NDArray[Any]]) -> ParetoEvaluator:
        """This evaluator, with what `tensors` returned.

        Raises:
            KeyError, RuntimeError, ValueError: They are of another evaluator.
        """
        net = self._network()
        columns = (net.architecture.in_features,)
        for name in ("center", "scale"):
            if tensors[name].shape != columns:
                raise ValueError(f"{name} must have shape {columns}, not {tensors[name].shape}")
        self._center, self._scale = tensors["center"], tensors["scale"]
        net.load_state_dict({k: torch.as_tensor(tensors[k]) for k in net.state_dict()})
        self._keep(net)
        return self


class _Scorer(nn.Module):
    """The network; architectures repeat at each budget, so their part is computed once."""

    def __init__(self, columns: int, grid: BudgetGrid, hidden: int, embedding: int) -> None:
        super().__init__()
        c = len(grid.names)
        self.budgets = nn.Parameter(0.1 * torch.randn(c, grid.k, embedding))
        self.architecture = nn.Linear(columns, hidden)
        self.budget = nn.Linear(embedding + (len(_SHARPNESS) + 1) * c, hidden, bias=False)
        self.second = nn.Linear(hidden, hidden)
        self.third = nn.Linear(hidden, 1)

    def forward(self, inputs: Tensor, relations: tuple[Tensor, Tensor], repeats: int = 1) -> Tensor:
        weights, near = relations
        embedded = torch.einsum("nck,cke->ne", weights, self.budgets)
        under = self.budget(torch.cat([embedded, near], dim=1))
        first = torch.nn.functional.silu(self.architecture(inputs).repeat(repeats, 1) + under)
        second = torch.nn.functional.silu(self.second(first))
        scores: Tensor = self.third(second)[:, 0]
        return scores
