"""The token policy and its policy gradient against plain loops over one architecture at a time."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
import torch
from torch import Tensor

from nni_aiop.generators import BudgetGrid, ParetoGenerator, TrainingOptions
from nni_aiop.generators._policy import TokenPolicy, TokenTables
from nni_aiop.generators._training import PolicyTraining, costs_of
from nni_aiop.spaces import CodeSpace, Condition, Nominal, Ordinal
from nni_aiop.spaces._cost_book import CostBook


def space() -> CodeSpace:
    return CodeSpace(
        [
            Ordinal("depth", (1, 2)),
            Nominal("op", ("conv", "pool", "skip")),
            Ordinal("width", (8, 16, 32, 64)),
        ],
        conditions={"width": Condition("depth", (2,))},
        costs={"ms": lambda c: 1 + c[:, 0]},
    )


def policy(k: int = 2) -> tuple[TokenTables, TokenPolicy]:
    torch.manual_seed(0)
    tables = TokenTables(space())
    made = TokenPolicy(tables, n_costs=1, k=k, hidden=5)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    return tables, made


def by_hand(made: TokenPolicy, tokens: list[int], budget: Tensor) -> tuple[float, float]:
    """Log-probability of one architecture and the entropy of its choices, dimension by dimension.

    Rows of the table of tokens: the start, then those of each dimension, 0 standing for inactive.
    """
    first = [1, 1 + 3, 1 + 3 + 4]
    active = [True, True, tokens[0] == 2]
    log_prob = entropy = 0.0
    row, state = 0, (torch.zeros(5), torch.zeros(5))
    cell = torch.nn.LSTMCell(5, 5)
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in made.cell.state_dict().items()})
    for j, token in enumerate(tokens):
        state = cell(made.tokens.weight[row] + budget, state)
        p = torch.softmax(made.heads[j](state[0]), dim=0).tolist()
        if active[j]:
            log_prob += log(p[token - 1])
            entropy -= sum(q * log(q) for q in p)
        row = first[j] + token
    return log_prob, entropy


def test_probability_and_entropy_of_what_is_drawn() -> None:
    _, made = policy()
    assert made.tokens.num_embeddings == 1 + 3 + 4 + 5
    weights = torch.tensor([[[1.0, 0.0]], [[0.25, 0.75]]]).repeat(100, 1, 1)
    with torch.no_grad():
        tokens, log_prob, entropy = made(weights, torch.Generator().manual_seed(0))
    # Both with a width, which a depth of 2 brings, and without.
    assert {row[0]: row[2] > 0 for row in tokens.tolist()} == {1: False, 2: True}
    for i, row in enumerate(tokens.tolist()):
        budget = (weights[i, 0, :, None] * made.budgets[0]).sum(0)
        expected = by_hand(made, row, budget)
        assert (float(log_prob[i]), float(entropy[i])) == pytest.approx(expected, rel=1e-4)


def test_draws_are_as_frequent_as_they_are_probable() -> None:
    _, made = policy()
    weights = torch.tensor([[[0.5, 0.5]]]).repeat(20_000, 1, 1)
    with torch.no_grad():
        tokens, log_prob, _ = made(weights, torch.Generator().manual_seed(1))
    rows, inverse = torch.unique(tokens, dim=0, return_inverse=True)
    # What is inactive is drawn too, and what is drawn of it is not told apart.
    share = torch.bincount(inverse) / len(tokens)
    first = torch.tensor([int((inverse == i).nonzero()[0]) for i in range(len(rows))])
    torch.testing.assert_close(share, log_prob[first].exp(), atol=0.012, rtol=0)


def test_weights_have_the_names_of_earlier_files() -> None:
    _, made = policy()
    arrays = made.arrays()
    names = {"weight_ih", "weight_hh", "bias_ih", "bias_hh"}
    assert {name for name in arrays if name.startswith("cell.")} == {f"cell.{n}" for n in names}
    _, again = policy(k=2)
    with torch.no_grad():
        again.cell.weight_ih_l0.zero_()
    again.load_arrays(arrays)
    assert (again.cell.weight_ih_l0 == made.cell.weight_ih_l0).all()


def training(options: TrainingOptions, k: int = 2) -> PolicyTraining:
    tables, made = policy(k)
    grid = BudgetGrid({"ms": (1.5, 2.0)[:k]})
    return PolicyTraining(tables, grid, made, options, seed=0)


def entropy_of(made: TokenPolicy) -> float:
    weights = torch.eye(2)[:, None].repeat(500, 1, 1)
    with torch.no_grad():
        return float(made(weights, torch.Generator().manual_seed(1))[2].mean())


def same_reward(codes: np.ndarray, costs: np.ndarray, budgets: np.ndarray) -> np.ndarray:
    return np.full(len(codes), 7.0)


def test_the_entropy_counts_at_first_and_no_longer_at_the_last_step() -> None:
    options = TrainingOptions(steps=40, samples=8, lr=0.05, entropy=1.0, between=False)
    fresh = training(options)
    before = entropy_of(fresh.policy)
    for _ in range(10):
        fresh.update(same_reward)
    assert entropy_of(fresh.policy) > before
    assert fresh.done == len(fresh.history) == 10
    assert fresh.history[0][0] == 7.0

    ended = training(options)
    ended.done = options.steps
    weights = {name: value.clone() for name, value in ended.policy.state_dict().items()}
    ended.update(same_reward)
    for name, value in ended.policy.state_dict().items():
        assert torch.equal(value, weights[name]), name


def test_one_update_is_the_gradient_of_the_standardised_reward() -> None:
    options = TrainingOptions(steps=4, samples=3, lr=1e-3, entropy=0.0, between=False)
    trained, other = training(options), training(options)
    seen: list[np.ndarray] = []

    def reward(codes: np.ndarray, costs: np.ndarray, budgets: np.ndarray) -> np.ndarray:
        seen.append(budgets)
        return np.arange(len(codes), dtype=float) ** 2

    trained.update(reward)
    # Groups of one budget each: rewards 0, 1, 4 and 9, 16, 25, over their own mean and spread.
    assert [len(set(group.ravel())) for group in seen[0].reshape(2, 3)] == [1, 1]
    gains = [(np.array(r) - np.mean(r)) / np.std(r) for r in ([0, 1, 4], [9, 16, 25])]
    weights = torch.as_tensor(other.grid.weights(seen[0])).float()
    _, log_prob, _ = other.policy(weights, torch.Generator().manual_seed(0))
    (-(torch.as_tensor(np.concatenate(gains)).float() * log_prob).sum() / 6).backward()
    norm = sum(float(p.grad.square().sum()) for p in other.policy.parameters()) ** 0.5
    for found, parameter in zip(
        trained.policy.parameters(), other.policy.parameters(), strict=True
    ):
        expected = parameter.grad / max(1.0, norm)
        assert torch.allclose(found.grad, expected, rtol=1e-3, atol=1e-6)


def test_budgets_are_one_in_each_part_of_the_range_at_every_other_update() -> None:
    options = TrainingOptions(steps=4, samples=3)
    half = training(options)
    levels = {tuple(half._budgets().ravel()) for _ in range(5)}
    assert levels <= {(1.5,) * 3 + (2.0,) * 3, (2.0,) * 3 + (1.5,) * 3}
    half.done = 1
    for _ in range(20):
        low, high = half._budgets().reshape(2, 3)
        assert len(set(low)) == len(set(high)) == 1
        assert 1.5 <= low[0] < 1.75 <= high[0] < 2.0
    half.done = 2
    assert set(half._budgets().ravel()) == {1.5, 2.0}


def test_costs_stand_in_the_order_of_the_grid_and_unknown_ones_are_infinite() -> None:
    tables, _ = policy()
    codes = tables.codes_of(np.array([[1, 1, 0], [2, 2, 3]]))
    grid = BudgetGrid({"ms": (1.5, 2.0)})
    assert costs_of(CostBook(tables.space), grid, codes).tolist() == [[1.0], [2.0]]
    tables.space.costs["ms"] = lambda c: torch.where(c[:, 0] > 0, torch.nan, 1.0)
    assert costs_of(CostBook(tables.space), grid, codes).tolist() == [[1.0], [np.inf]]


def test_options_say_what_must_hold() -> None:
    TrainingOptions(steps=0, samples=2)
    for wrong in ({"steps": -1}, {"samples": 1}):
        with pytest.raises(ValueError, match="steps must be at least 0 and samples at least 2"):
            TrainingOptions(**wrong)
    made = training(TrainingOptions(steps=4, samples=3))
    state, tensors = made.state(), made.tensors()
    made.restore({**state, "done": 4}, tensors)
    for wrong_done in (-1, 5):
        with pytest.raises(ValueError, match=r"done must lie in 0\.\.4"):
            made.restore({**state, "done": wrong_done}, tensors)


def test_a_bar_shows_only_where_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    options = TrainingOptions(steps=2, samples=2)
    grid = BudgetGrid({"ms": (1.5, 2.0)})
    made = ParetoGenerator(space(), grid, hidden=4, training=options).fit_policy(same_reward)
    assert len(made.history_) == 2
    assert capsys.readouterr().err == ""
