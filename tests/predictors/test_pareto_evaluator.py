"""The rule of Eq. 4, budgets and their interpolation, and the evaluator that learns the rule."""

from itertools import product

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError

from nni_aiop.errors import SpaceError
from nni_aiop.predictors import BudgetGrid, ParetoEvaluator, dominance
from nni_aiop.predictors._pareto import rule_scores
from nni_aiop.spaces import CodeSpace, Nominal, Ordinal

BUDGET = 2.0


def by_the_paper(acc_1: float, cost_1: float, acc_2: float, cost_2: float, budget: float) -> int:
    """Eq. 4, case by case."""
    both = cost_1 <= budget and cost_2 <= budget
    if both and acc_1 >= acc_2:
        return 1
    if both and acc_1 < acc_2:
        return -1
    if cost_1 <= cost_2:
        return 1
    return -1


def test_every_pair_under_every_budget_is_as_in_the_paper() -> None:
    # Costs below, at and above each budget; accuracies that differ and that tie.
    architectures = list(product((70.0, 71.0, 72.0), (1.0, 2.0, 3.0, 4.0)))
    accuracy, cost = torch.tensor(architectures, dtype=torch.float64).T
    budgets = torch.tensor([0.5, 1.0, 2.0, 2.5, 4.0, 9.0], dtype=torch.float64)
    found = dominance(accuracy, cost, budgets)
    assert found.shape == (6, 12, 12)
    for k, i, j in np.ndindex(*found.shape):
        wanted = by_the_paper(*architectures[i], *architectures[j], float(budgets[k]))
        assert found[k, i, j] == wanted


def test_it_is_antisymmetric_wherever_what_is_compared_differs() -> None:
    rng = np.random.default_rng(0)
    accuracy, cost = torch.as_tensor(rng.random((2, 20)))
    d = dominance(accuracy, cost, torch.tensor([0.2, 0.5, 2.0], dtype=torch.float64))
    off = ~torch.eye(20, dtype=torch.bool)
    assert (d[:, off] == -d.transpose(1, 2)[:, off]).all()
    assert (d.diagonal(dim1=1, dim2=2) == 1).all()


def test_without_the_accuracy_rule_the_cheaper_one_always_wins() -> None:
    d = dominance(
        torch.tensor([70.0, 75.0]), torch.tensor([1.0, 1.5]), torch.tensor([9.0]), by_accuracy=False
    )
    assert d[0].tolist() == [[1, 1], [-1, 1]]


def test_of_several_costs_the_largest_share_of_its_budget_counts() -> None:
    costs = torch.tensor([[1.0, 10.0], [2.0, 1.0], [1.0, 30.0]])
    d = dominance(torch.tensor([70.0, 71.0, 90.0]), costs, torch.tensor([[2.0, 10.0]]))
    assert d[0, 0].tolist() == [1, -1, 1]  # 1 keeps both budgets and is better; 2 breaks one
    assert d[0, 2].tolist() == [-1, -1, 1]


def test_ranks_order_architectures_as_the_rule_does() -> None:
    rng = np.random.default_rng(1)
    accuracy, cost = rng.random(15), rng.random((15, 1))
    budgets = np.array([[0.3], [0.7]])
    ranks = rule_scores(accuracy, cost, budgets)
    d = dominance(*map(torch.as_tensor, (accuracy, cost, budgets))).numpy()
    for k, i, j in np.ndindex(*d.shape):
        assert i == j or d[k, i, j] == (1 if ranks[k, i] > ranks[k, j] else -1)


# --- budgets ------------------------------------------------------------------------------------


def test_interpolation_by_hand() -> None:
    grid = BudgetGrid({"ms": (10.0, 20.0, 40.0), "macs": (1.0, 2.0, 3.0)})
    # Eq. of section 3.1.2: between 20 and 40, xi = (40 - 25) / (40 - 20) = 0.75.
    weights = grid.weights([[25.0, 1.5], [10.0, 3.0], [5.0, 9.0]])
    assert weights[0].tolist() == [[0, 0.75, 0.25], [0.5, 0.5, 0]]
    assert weights[1].tolist() == [[1, 0, 0], [0, 0, 1]]
    assert weights[2].tolist() == [[1, 0, 0], [0, 0, 1]]


def test_one_level_and_no_cost() -> None:
    assert BudgetGrid({"ms": (10.0,)}).weights([[7.0], [12.0]]).tolist() == [[[1.0]], [[1.0]]]
    free = BudgetGrid({})
    assert (free.k, free.names, free.vector({}).shape) == (1, (), (0,))
    assert free.weights(np.zeros((3, 0))).shape == (3, 0, 1)


def test_levels_spread_between_quantiles() -> None:
    grid = BudgetGrid.spread({"ms": np.arange(101.0)}, 3, low=0.1, high=0.9)
    assert grid.levels["ms"] == pytest.approx((10, 50, 90))
    assert BudgetGrid.spread({"ms": np.arange(101.0)}, 1).levels["ms"] == pytest.approx((50,))


@pytest.mark.parametrize(
    "levels", [{"ms": (2.0, 1.0)}, {"ms": (0.0, 1.0)}, {"ms": ()}, {"a": (1.0,), "b": (1.0, 2.0)}]
)
def test_wrong_levels_are_refused(levels: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(ValueError, match="level"):
        BudgetGrid(levels)


def test_a_wrong_budget_is_one_sentence() -> None:
    grid = BudgetGrid({"ms": (10.0, 20.0)})
    with pytest.raises(SpaceError, match="must name ms, but got macs"):
        grid.vector({"macs": 1.0})
    with pytest.raises(SpaceError, match="positive number"):
        grid.vector(float("nan"))
    assert grid.outside(grid.vector(15)) is None
    assert "from 10 to 20, but got 25" in str(grid.outside(grid.vector(25)))


# --- the evaluator ------------------------------------------------------------------------------


SPACE = CodeSpace(
    [*(Ordinal(f"w{i}", (1, 2, 3, 4)) for i in range(4)), Nominal("op", ("conv", "pool", "skip"))],
    costs={"ms": lambda c: 1 + c[:, :4].sum(1) * 3 + 4 * c[:, 4], "mb": lambda c: 5 - c[:, 0]},
)


def labelled(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    codes = SPACE.encode(SPACE.sample(n, np.random.default_rng(seed)))
    return codes, codes[:, :4] @ [1.0, 2.0, 3.0, 4.0] + 3 * codes[:, 4] + codes[:, 5]


def evaluator(**options: object) -> ParetoEvaluator:
    grid = BudgetGrid.spread({"ms": SPACE.cost("ms", labelled(300, 9)[0])}, 4)
    return ParetoEvaluator(SPACE, grid, hidden=32, steps=150, batch_size=64, **options)


def test_it_ranks_held_out_architectures_as_the_rule_under_every_budget() -> None:
    fitted = evaluator().fit(*labelled(300, 0))
    taus = fitted.kendall(*labelled(100, 1))
    assert list(taus) == [0, 1, 2, 3]
    assert min(taus.values()) > 0.85


def test_same_seed_same_scores_and_a_batch_is_as_one_by_one() -> None:
    codes, accuracy = labelled(80, 0)
    one, other = (evaluator(seed=3).fit(codes, accuracy) for _ in range(2))
    scores = one.score(codes, [6.0])
    assert (scores == other.score(codes, [6.0])).all()
    alone = [one.score(codes[i : i + 1], [6.0])[0] for i in range(5)]
    assert alone == pytest.approx(scores[:5].tolist(), abs=1e-5)
    again = evaluator(seed=3).restore(one.tensors())
    assert (again.score(codes, [6.0]) == scores).all()


def test_costs_may_be_given_and_there_may_be_none() -> None:
    codes, accuracy = labelled(60, 0)
    given = evaluator().fit(codes, accuracy, SPACE.cost("ms", codes))
    assert (given.score(codes, [6.0]) == evaluator().fit(codes, accuracy).score(codes, [6.0])).all()
    free = ParetoEvaluator(SPACE, BudgetGrid({}), hidden=16, steps=150).fit(codes, accuracy)
    assert free.kendall(codes, accuracy)[0] > 0.8


def test_what_cannot_be_learned_is_refused() -> None:
    codes, accuracy = labelled(10, 0)
    with pytest.raises(NotFittedError):
        evaluator().score(codes, [6.0])
    with pytest.raises(ValueError, match="at least 2"):
        evaluator().fit(codes[:1], accuracy[:1])
    with pytest.raises(ValueError, match="finite"):
        evaluator().fit(codes, np.full(10, np.nan))
    with pytest.raises(SpaceError, match="shape"):
        evaluator().fit(codes[:, 1:], accuracy)
