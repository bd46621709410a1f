"""What is kept of a propagation: its costs, merits and predictions, and the best of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nni_aiop.search import Task, propagate
from nni_aiop.search._propagation import Propagation, _adam, _hold_limits, _reached
from nni_aiop.search._propagation_loss import Cost
from nni_aiop.spaces import CodeSpace, Ordinal


class Linear:
    """A predictor of two metrics, 10 + 4 w.x and -w.x, standardised by center and scale."""

    metrics_ = ("accuracy", "ms")
    center_ = np.array([10.0, -1.0])
    scale_ = np.array([2.0, 0.5])

    def __init__(self, weights: list[float]) -> None:
        self.weights = torch.tensor(weights)

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        product = codes @ self.weights.to(codes.dtype)
        return torch.stack([10 + 4 * product, -product], dim=1)


def grid() -> CodeSpace:
    return CodeSpace(
        [Ordinal("a", range(5)), Ordinal("b", range(5))],
        costs={"flops": lambda codes: 4 * (3 * codes[:, 0] + codes[:, 1])},
    )


def made(limits: dict[str, float]) -> Propagation:
    """Two starts, one step: (0, 0) -> (1, 0) and (4, 4) -> (1, 0)."""
    points = np.array([[[0.0, 0.0], [4.0, 4.0]], [[1.0, 0.0], [1.0, 0.0]]])
    costs = {"flops": 3 * points[..., 0] + points[..., 1]}
    merit = np.array([[1.0, 9.0], [2.0, 2.0]])
    return Propagation(grid(), (), points / 4, points, {}, costs, merit, limits)


def test_only_what_keeps_every_limit_is_visited() -> None:
    free = made({})
    assert free.feasible.all()
    assert [row.tolist() for row in free.visited] == [[[4, 4], [1, 0], [0, 0]], [9, 2, 1]]
    assert free.best(2) == [{"a": 4, "b": 4}, {"a": 1, "b": 0}]
    assert len(free.best(7)) == 3

    held = made({"flops": 3.0})  # 3 itself keeps it
    assert held.feasible.tolist() == [[True, False], [True, True]]
    assert [row.tolist() for row in held.visited] == [[[1, 0], [0, 0]], [2, 1]]
    assert held.best(3) == [{"a": 1, "b": 0}, {"a": 0, "b": 0}]


def test_the_best_is_repaired_where_nothing_keeps_the_limit() -> None:
    points = np.array([[[4.0, 4.0], [4.0, 3.0]]])
    costs = {"flops": 3 * points[..., 0] + points[..., 1]}
    run = Propagation(
        grid(), (), points / 4, points, {}, costs, np.array([[1.0, 2.0]]), {"flops": 14.0}
    )
    assert len(run.visited[0]) == 0
    # From (4, 3) with 15: one less of b suffices, one less of a is more than that.
    assert run.best() == [{"a": 4, "b": 2}]
    assert run.final() == [{"a": 3, "b": 4}, {"a": 4, "b": 2}]


def test_predictions_costs_and_merits_of_what_was_visited() -> None:
    space, predictor = grid(), Linear([1.0, -1.0])
    tasks = [
        Task(predictor, "accuracy", weight=3.0),
        Task(predictor, "ms", direction="minimize", weight=2.0),
    ]
    starts = [{"a": 1, "b": 2}, {"a": 4, "b": 0}]
    run = propagate(space, tasks, starts, cost="flops", lam=0.25, steps=4)
    a, b = run.points[..., 0], run.points[..., 1]
    assert run.points[0].tolist() == [[1, 2], [4, 0]]
    product = (a - b) / 4
    assert run.predicted["accuracy"] == pytest.approx(10 + 4 * product, abs=1e-5)
    assert run.predicted["ms"] == pytest.approx(-product, abs=1e-5)
    assert run.costs["flops"] == pytest.approx(3 * a + b)
    cost = Cost.of(space, "flops", tasks)
    assert (cost.center, cost.scale) == (
        pytest.approx(8, abs=0.3),
        pytest.approx(20**0.5, rel=0.05),
    )
    spent = 0.25 * (3 * a + b - cost.center) / cost.scale
    # (10 + 4 p - 10) / 2, and the other way round (-p + 1) / 0.5.
    expected = 3 * (2 * product - spent) + 2 * (-(1 - product) / 0.5 - spent)
    assert run.merit == pytest.approx(expected, abs=1e-4)


def test_adam_takes_the_steps_of_pytorch() -> None:
    parameter = torch.zeros(3, 2, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([parameter], lr=1.0)
    moment = (torch.zeros(3, 2, dtype=torch.float64), torch.zeros(3, 2, dtype=torch.float64))
    rng = torch.Generator().manual_seed(0)
    for step in (1, 2, 3):
        gradient = torch.randn(3, 2, generator=rng, dtype=torch.float64)
        before = parameter.detach().clone()
        parameter.grad = gradient
        optimiser.step()
        moved = before - parameter.detach()
        assert torch.allclose(_adam(moment, gradient, step), moved)


def test_a_start_beyond_a_limit_lowers_that_cost_alone() -> None:
    cost = Cost("flops", lambda codes: codes.sum(dim=1), 1.0, 2.0)
    leaf = torch.tensor([[0.4, 0.4], [0.9, 0.9], [0.5, 0.5]])
    rounded = torch.tensor([[0.5, 0.5], [1.0, 1.0], [0.75, 0.5]])
    found = _hold_limits(torch.tensor([7.0, 8.0, 9.0]), leaf, rounded, {"f": cost}, {"f": 1.25})
    assert found.tolist() == pytest.approx([7.0, (1.8 - 1) / 2, 9.0])


def test_every_fixed_target_must_be_reached() -> None:
    tasks = [
        Task(Linear([1.0, 0.0]), "accuracy"),
        Task(Linear([1.0, 0.0]), "ms", direction="minimize"),
    ]
    cost = Cost("flops", lambda codes: codes.sum(dim=1), 1.0, 2.0)
    predicted = {
        "accuracy": torch.tensor([5.0, 5.0, 4.9, 9.0]),
        "ms": torch.tensor([2.0, 2.1, 1.0, 1.0]),
        "flops": torch.tensor([3.0, 3.0, 3.0, 3.1]),
    }

    def reached(targets: dict[str, float] | None) -> Any:
        return _reached(tasks, cost, predicted, targets).tolist()

    assert reached(None) == [False] * 4
    assert reached({"accuracy": 5.0}) == [True, True, False, True]
    assert reached({"accuracy": 5.0, "ms": 2.0}) == [True, False, False, True]
    assert reached({"accuracy": 5.0, "ms": 2.0, "flops": 3.0}) == [True, False, False, False]
