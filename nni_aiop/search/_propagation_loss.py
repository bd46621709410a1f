"""The loss of network coding propagation: tasks, costs, and Eq. 3 of Ding et al. (ICLR 2022).

Notation: see `_propagation`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import NotFittedError
from torch import Tensor
from torch.nn import functional as F

from nni_aiop.errors import SpaceError
from nni_aiop.spaces import CodeSpace, CostBook, Ordinal

__all__ = ["Array", "Cost", "Task", "propagation_loss", "relative_cost_increase"]

Array = NDArray[np.float64]


class DifferentiablePredictor(Protocol):
    """What propagation needs of a predictor; every `CodePredictor` has it."""

    metrics_: tuple[str, ...]
    center_: Array
    scale_: Array

    def forward(self, codes: Tensor) -> Tensor:
        """codes: (n, width) -> (n, m) mean in the metrics' own units, differentiable."""


@dataclass(frozen=True)
class Task:
    """One metric of one frozen predictor that propagation improves.

    Args:
        predictor: A fitted predictor.
        metric: One of its metrics; its first by default.
        direction: Whether more of it is better, or less.
        weight: Weight of the task's gradient (Eq. 7).
        name: What the results call it; the metric by default.
    """

    predictor: DifferentiablePredictor
    metric: str = ""
    direction: Literal["maximize", "minimize"] = "maximize"
    weight: float = 1.0
    name: str = ""

    def __post_init__(self) -> None:
        metrics = getattr(self.predictor, "metrics_", None)
        if metrics is None:
            raise NotFittedError(
                "a task's predictor must be fitted, "
                f"but got an unfitted {type(self.predictor).__name__}."
            )
        metric = self.metric or metrics[0]
        if metric not in metrics:
            raise SpaceError(f"a task's metric must be one of {metrics}, but got {metric!r}.")
        object.__setattr__(self, "metric", metric)
        object.__setattr__(self, "name", self.name or metric)

    @property
    def column(self) -> int:
        """Where the predictor's output holds the metric."""
        return self.predictor.metrics_.index(self.metric)

    @property
    def sign(self) -> float:
        """1 where more is better, else -1."""
        return 1.0 if self.direction == "maximize" else -1.0

    def standardise(self, value: Tensor) -> Tensor:
        """A metric in its own units -> p of Eq. 3 (more is better)."""
        j = self.column
        center, scale = float(self.predictor.center_[j]), float(self.predictor.scale_[j])
        return self.sign * (value - center) / (scale if scale > 0 else 1.0)


@dataclass(frozen=True)
class Cost:
    """A cost to lower, standardised: from the space, exact or what its book has learned of it; else
    a metric that the first task's predictor learned.

    Args:
        name: Name of the cost.
        function: codes (n, width) -> (n,), differentiable.
        center: Subtracted from it; the mean over random samples, or over the predictor's training
            set.
        scale: Divided by; their standard deviation.
    """

    name: str
    function: Callable[[Tensor], Tensor]
    center: float
    scale: float

    def standardise(self, value: Tensor) -> Tensor:
        """A cost in its own units -> p_cost of Eq. 3."""
        return (value - self.center) / self.scale

    @classmethod
    def of(
        cls, space: CodeSpace, name: str, tasks: Sequence[Task], book: CostBook | None = None
    ) -> Cost:
        """The cost of that name.

        Raises:
            InfeasibleError: See `CostBook.function`.
            SpaceError: Neither the space nor the first task's predictor knows it.
        """
        if name in space.costs:
            book = book or CostBook(space)
            function = book.function(name)
            points = space.normalise(space.sample_points(2048, np.random.default_rng(0)))
            with torch.no_grad():
                values = function(torch.as_tensor(space.encode_points(points))).numpy()
            return cls(name, function, float(values.mean()), float(values.std()) or 1.0)
        predictor = tasks[0].predictor
        if name not in predictor.metrics_:
            known = sorted({*space.costs, *predictor.metrics_})
            raise SpaceError(f"the cost must be one of {known}, but got {name!r}.")
        j = predictor.metrics_.index(name)
        return cls(
            name,
            lambda codes: predictor.forward(codes)[:, j],
            float(predictor.center_[j]),
            float(predictor.scale_[j]) or 1.0,
        )


def propagation_loss(
    tasks: Sequence[Task],
    codes: Tensor,
    *,
    cost: Cost | None = None,
    lam: float = 0.5,
    targets: Mapping[str, float] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Eq. 3 for each code, summed over the tasks with their weights (whose gradient is Eq. 7).

    Args:
        tasks: What to improve.
        codes: (n, width).
        cost: What to lower.
        lam: Lambda of Eq. 3.
        targets: Fixed targets by the name of a task or cost, in its own units; all others are p + 1
            (p - 1 for
            the cost), set anew.

    Returns:
        (n,) losses, and the (n,) predicted value of every task and of the cost in its own units.
    """
    fixed = targets or {}
    predicted: dict[str, Tensor] = {}
    outputs: dict[int, Tensor] = {}
    loss = codes.new_zeros(len(codes))
    if cost is not None:
        predicted[cost.name] = cost.function(codes)
        p = cost.standardise(predicted[cost.name])
        t = (
            cost.standardise(torch.full_like(p, fixed[cost.name]))
            if cost.name in fixed
            else p.detach() - 1
        )
        cost_loss = lam * F.smooth_l1_loss(p, t, reduction="none")
    for task in tasks:
        key = id(task.predictor)
        if key not in outputs:
            outputs[key] = task.predictor.forward(codes)
        value = outputs[key][:, task.column]
        predicted[task.name] = value
        p = task.standardise(value)
        t = (
            task.standardise(torch.full_like(p, fixed[task.name]))
            if task.name in fixed
            else p.detach() + 1
        )
        term = F.smooth_l1_loss(p, t, reduction="none")
        loss = loss + task.weight * (term if cost is None else term + cost_loss)
    return loss, predicted


def relative_cost_increase(space: CodeSpace, cost: Cost, points: Array) -> Array:
    """(n, d) Delta r of Eq. 4: what the cost grows by as each dimension grows by its step k.

    At a dimension's upper bound it is what the last step there cost. Dimensions without an order
    get NaN.
    """
    n = len(points)
    out = np.full(points.shape, np.nan)
    with torch.no_grad():
        for j, dimension in enumerate(space.dimensions):
            if not isinstance(dimension, Ordinal):
                continue
            top = len(dimension.values) - 1
            up = points.copy()
            up[:, j] = np.minimum(points[:, j] + dimension.step, top)
            down = up.copy()
            down[:, j] = np.maximum(up[:, j] - dimension.step, 0)
            both = torch.as_tensor(space.encode_points(np.concatenate([up, down])))
            values = cost.function(both).numpy()
            out[:, j] = values[:n] - values[n:]
    return out
