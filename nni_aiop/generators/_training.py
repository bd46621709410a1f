"""Policy gradient over a generator's token policy, in batches, from where it was left.

Source: Guo et al., "Pareto-aware Neural Architecture Generation for Diverse Computational Budgets",
CVPR 2022, Eq. 2 and Algorithm 1 (lines 10 to 15); the published training draws one architecture at
a step, here every step draws several for each of K budgets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from nni_aiop.generators._policy import TokenPolicy, TokenTables
from nni_aiop.spaces import CostBook

if TYPE_CHECKING:
    from nni_aiop.generators._rewards import Reward
    from nni_aiop.predictors import BudgetGrid

__all__ = ["PolicyTraining", "TrainingOptions"]

_CLIP = 1.0  # norm of a gradient


@dataclass(frozen=True)
class TrainingOptions:
    """How a generator is trained.

    Args:
        steps: Number of updates.
        samples: Architectures that are drawn for each of the K budgets of an update.
        lr: Learning rate of Adam.
        entropy: Weight of the entropy of an architecture's choices at first; it falls to 0 by the
            last step.
        between: Whether every other update is at budgets between the levels, which trains their
            embeddings as they are interpolated.
    """

    steps: int = 800
    samples: int = 32
    lr: float = 3e-3
    entropy: float = 0.05
    between: bool = True

    def __post_init__(self) -> None:
        if self.steps < 0 or self.samples < 2:
            raise ValueError(
                "steps must be at least 0 and samples at least 2, "
                f"but got {self.steps} and {self.samples}."
            )


@dataclass
class PolicyTraining:
    """A training under way.

    Args:
        tables: Of the space.
        grid: Levels of the budgets.
        policy: What is trained, in place.
        options: How.
        seed: Of budgets and draws.
        book: The costs.

    Attributes:
        done: Number of updates so far.
        history: Of each update the mean reward and the share of draws that kept their budgets.
    """

    tables: TokenTables
    grid: BudgetGrid
    policy: TokenPolicy
    options: TrainingOptions
    seed: int
    done: int = 0
    history: list[tuple[float, float]] = field(default_factory=list)
    book: CostBook | None = None

    def __post_init__(self) -> None:
        self._optimiser = torch.optim.Adam(
            self.policy.parameters(), lr=self.options.lr, foreach=True
        )
        self._generator = torch.Generator().manual_seed(self.seed)
        self._rng = np.random.default_rng(self.seed)
        self._costs = self.book or CostBook(self.tables.space)

    def update(self, reward: Reward) -> None:
        """One step of the policy gradient.

        The baseline is the mean reward of the draws for one budget, and their spread is the unit,
        so that no budget weighs more than another.
        """
        options = self.options
        budgets = self._budgets()
        weights = torch.as_tensor(self.grid.weights(budgets)).float()
        tokens, log_prob, entropy = self.policy(weights, self._generator)
        codes = self.tables.codes_of(tokens.numpy())
        costs = costs_of(self._costs, self.grid, codes)
        rewards = _finite(reward(codes, costs, budgets))
        groups = rewards.reshape(self.grid.k, options.samples)
        gain = groups - groups.mean(axis=1, keepdims=True)
        gain /= np.maximum(groups.std(axis=1, keepdims=True), 1e-9)
        left = 1 - self.done / options.steps
        loss = -(torch.as_tensor(gain.ravel()).float() * log_prob).mean()
        loss = loss - options.entropy * left * entropy.mean()
        self._optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.policy.parameters(), _CLIP)
        self._optimiser.step()
        self.done += 1
        self.history.append((float(rewards.mean()), float((costs <= budgets).all(axis=1).mean())))

    def _budgets(self) -> NDArray[np.float64]:
        """(K * samples, c) budgets, those of one group the same."""
        grid = self.grid
        groups = grid.draws(1, self._rng)
        if self.options.between and self.done % 2 and grid.k > 1:
            # One budget anywhere in each of K equal parts of the range.
            place = (np.arange(grid.k) + self._rng.random((groups.shape[1], grid.k))) / grid.k
            for i, name in enumerate(grid.names):
                levels = grid.levels[name]
                drawn = np.interp(place[i] * (grid.k - 1), np.arange(grid.k), levels)
                groups[:, i] = drawn if i == 0 else self._rng.permutation(drawn)
        return groups.repeat(self.options.samples, axis=0)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Weights, moments of the optimiser, random states and history, as named arrays."""
        out = {f"policy.{k}": v for k, v in self.policy.arrays().items()}
        for i, state in self._optimiser.state_dict()["state"].items():
            out |= {f"adam.{i}.{k}": np.asarray(v) for k, v in state.items()}
        out["torch"] = self._generator.get_state().numpy()
        out["history"] = np.array(self.history).reshape(-1, 2)
        return out

    def state(self) -> dict[str, Any]:
        """The rest, as plain JSON."""
        return {"done": self.done, "rng": self._rng.bit_generator.state}

    def restore(self, state: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> None:
        """Go on exactly where `state` and `tensors` were taken.

        Raises:
            ValueError: The number of updates is not one of this training's.
        """
        if not 0 <= int(state["done"]) <= self.options.steps:
            raise ValueError(f"done must lie in 0..{self.options.steps}, but got {state['done']!r}")
        self.policy.load_arrays(
            {k.removeprefix("policy."): v for k, v in tensors.items() if k.startswith("policy.")}
        )
        whole = self._optimiser.state_dict()
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("adam."):
                _, i, key = name.split(".")
                moments.setdefault(int(i), {})[key] = torch.as_tensor(value)
        self._optimiser.load_state_dict({**whole, "state": moments})
        self._generator.set_state(torch.as_tensor(tensors["torch"]))
        self._rng.bit_generator.state = state["rng"]
        self.done = int(state["done"])
        self.history = [(float(a), float(b)) for a, b in tensors["history"]]


def costs_of(book: CostBook, grid: BudgetGrid, codes: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, c) costs of codes by a book, in the order of the grid; infinite where unknown (NaN)."""
    columns = [book.at(name, codes) for name in grid.names]
    if not columns:
        return np.zeros((len(codes), 0))
    costs = np.stack(columns, axis=1)
    return np.where(np.isnan(costs), np.inf, costs)


def _finite(rewards: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rewards, with the worst one in place of those that are no number."""
    known = np.isfinite(rewards)
    return np.where(known, rewards, rewards[known].min() if known.any() else 0.0)
