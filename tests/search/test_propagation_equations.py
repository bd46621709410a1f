"""The equations of NCP (Ding et al. 2022) against numbers worked out by hand."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError

from nni_aiop.errors import InfeasibleError, SpaceError
from nni_aiop.predictors import make_predictor
from nni_aiop.search import Task, propagate
from nni_aiop.search._propagation import winner_takes_all
from nni_aiop.search._propagation_loss import Cost, propagation_loss, relative_cost_increase
from nni_aiop.search_spaces import get_space
from nni_aiop.spaces import CodeSpace, Constraint, Continuous, Nominal, Ordinal


class Linear:
    """A predictor a + w.x of one metric, so that every gradient is known."""

    def __init__(self, weights, intercept=0.0, *, metric="accuracy", center=0.0, scale=1.0):
        self.weights = torch.tensor(weights)
        self.intercept = intercept
        self.metrics_ = (metric,)
        self.center_ = np.array([center])
        self.scale_ = np.array([scale])

    def forward(self, codes):
        return (codes @ self.weights.to(codes.dtype) + self.intercept)[:, None]


def grid_space(**options):
    """Two ordinals of five values each; the cost is 3 a + 1 b in ranks."""
    return CodeSpace(
        [Ordinal("a", range(5)), Ordinal("b", range(5))],
        costs={"flops": lambda codes: 4 * (3 * codes[:, 0] + codes[:, 1])},
        **options,
    )


def test_equation_3_with_targets_set_anew():
    # p = (0.2 + 0.4*0.5 - 0.1)/0.5 = 0.6; the target lies 1 away, where smooth L1 (beta 1) is 1 -
    # 0.5 = 0.5.
    task = Task(Linear([0.4, 0.0], 0.2, center=0.1, scale=0.5))
    cost = Cost("flops", lambda c: 2 * c[:, 1], center=0.0, scale=1.0)
    codes = torch.tensor([[0.5, 0.25]], dtype=torch.float64, requires_grad=True)
    loss, predicted = propagation_loss([task], codes, cost=cost, lam=0.7)
    assert loss.tolist() == pytest.approx([0.5 + 0.7 * 0.5])
    assert predicted["accuracy"].tolist() == pytest.approx([0.4])
    assert predicted["flops"].tolist() == pytest.approx([0.5])
    # At a distance of 1 the slope of smooth L1 is 1: the gradient is -dp_acc/de + lambda
    # dp_flops/de.
    (gradient,) = torch.autograd.grad(loss.sum(), codes)
    assert gradient[0].tolist() == pytest.approx([-0.4 / 0.5, 0.7 * 2])


def test_equation_3_with_fixed_targets():
    # The prediction 0.4 misses the target 0.7 by 0.3: 0.3**2 / 2; the cost 0.5 misses 3 by more
    # than 1: 2.5 - 0.5.
    task = Task(Linear([0.4, 0.0], 0.2))
    cost = Cost("flops", lambda c: 2 * c[:, 1], center=0.0, scale=1.0)
    codes = torch.tensor([[0.5, 0.25]], dtype=torch.float64)
    loss, _ = propagation_loss(
        [task], codes, cost=cost, lam=1.0, targets={"accuracy": 0.7, "flops": 3.0}
    )
    assert loss.tolist() == pytest.approx([0.045 + 2.0])


def test_continuous_propagation_takes_the_published_step():
    # e <- e - lr dL/de in the standardised code z = x / std: dL/dz = -0.1 std, x moves by lr std
    # (0.1 std).
    space = grid_space()
    std = np.std(np.arange(5) / 4)
    run = propagate(space, Task(Linear([0.1, -0.2])), [[0.5, 0.5]], steps=1, lr=3.0)
    expected = [0.5 + 3 * std**2 * 0.1, 0.5 - 3 * std**2 * 0.2]
    assert run.codes[1, 0].tolist() == pytest.approx(expected, abs=1e-6)


def test_codes_stay_in_the_domain():
    run = propagate(grid_space(), Task(Linear([5.0, -5.0])), [[0.5, 0.5]], steps=20)
    assert run.codes.min() >= 0 and run.codes.max() <= 1
    assert run.points[-1, 0].tolist() == [4, 0]


def test_equation_4_relative_increase_of_the_exact_cost():
    # A step k = 2 ranks in a costs 2 * 3, one rank in b costs 1; at the upper bound it is what the
    # last step cost.
    space = CodeSpace(
        [Ordinal("a", range(5), step=2), Ordinal("b", range(5)), Nominal("op", "xy")],
        costs={"flops": lambda c: 4 * (3 * c[:, 0] + c[:, 1]) + c[:, 2]},
    )
    cost = Cost.of(space, "flops", [])
    increase = relative_cost_increase(space, cost, np.array([[1.0, 1.0, 0.0], [4.0, 4.0, 1.0]]))
    assert increase[:, :2].tolist() == [[6, 1], [6, 1]]
    assert np.isnan(increase[:, 2]).all()


def test_equation_5_and_6_lower_the_dimension_with_the_largest_positive_ratio():
    space = grid_space()
    increase = np.array([[3.0, 1.0]])
    # Ratios 6/3 = 2 and 1/1 = 1: a wins and falls.
    assert winner_takes_all(
        space, np.array([[2.0, 2.0]]), np.array([[6.0, 1.0]]), increase
    ).tolist() == [[1, 2]]
    # Ratios -2 and 0.5: the largest is positive, b falls although |a| is larger.
    assert winner_takes_all(
        space, np.array([[2.0, 2.0]]), np.array([[-6.0, 0.5]]), increase
    ).tolist() == [[2, 1]]


def test_equation_5_and_6_raise_the_most_negative_ratio_when_none_is_positive():
    space = grid_space()
    increase = np.array([[3.0, 1.0]])
    # Ratios -3/3 = -1 and -2/1 = -2: b gains more per unit of cost.
    assert winner_takes_all(
        space, np.array([[2.0, 2.0]]), np.array([[-3.0, -2.0]]), increase
    ).tolist() == [[2, 3]]


def test_winner_takes_all_never_leaves_the_domain():
    space = grid_space()
    increase = np.array([[3.0, 1.0]])
    # b should fall but is at its lower bound; a, with the next largest positive ratio, falls
    # instead.
    assert winner_takes_all(
        space, np.array([[2.0, 0.0]]), np.array([[3.0, 2.0]]), increase
    ).tolist() == [[1, 0]]
    # Nothing can move.
    assert winner_takes_all(
        space, np.array([[0.0, 0.0]]), np.array([[3.0, 2.0]]), increase
    ).tolist() == [[0, 0]]


def test_winner_takes_all_as_a_search_edits_one_dimension_at_each_step():
    run = propagate(
        grid_space(),
        Task(Linear([0.5, 2.0])),
        [{"a": 3, "b": 1}],
        cost="flops",
        lam=0.1,
        strategy="winner-takes-all",
        steps=5,
    )
    moves = np.abs(np.diff(run.points[:, 0], axis=0))
    assert (moves.sum(axis=1) <= 1).all()
    assert moves.sum() > 0


def test_winner_takes_all_needs_an_order_and_a_cost():
    space = CodeSpace([Nominal("op", "xyz")], costs={"flops": lambda c: c[:, 0]})
    with pytest.raises(SpaceError, match="ordered dimensions"):
        propagate(space, Task(Linear([0.0] * 3)), cost="flops", strategy="winner-takes-all")
    with pytest.raises(SpaceError, match="must have a cost"):
        propagate(grid_space(), Task(Linear([0.0] * 2)), strategy="winner-takes-all")


def test_equation_7_adds_up_the_gradients_of_the_tasks_with_their_weights():
    first = Task(Linear([0.1, 0.3]), name="cls")
    second = Task(Linear([0.4, -0.2]), name="seg", weight=2.0)
    cost = Cost("flops", lambda c: c[:, 0], center=0.0, scale=1.0)
    codes = torch.tensor([[0.5, 0.5]], dtype=torch.float64, requires_grad=True)
    loss, _ = propagation_loss([first, second], codes, cost=cost, lam=0.5)
    (gradient,) = torch.autograd.grad(loss.sum(), codes)
    by_hand = [-(0.1 + 2 * 0.4) + (1 + 2) * 0.5 * 1.0, -(0.3 - 2 * 0.2)]
    assert gradient[0].tolist() == pytest.approx(by_hand)


def test_a_metric_to_minimise_is_climbed_down():
    task = Task(Linear([0.3, 0.0]), direction="minimize")
    run = propagate(grid_space(), task, [[0.5, 0.5]], steps=30)
    assert run.points[-1, 0].tolist() == [0, 2]


def test_straight_through_takes_the_loss_at_the_rounded_code():
    # |x - 0.5| is flat nowhere, but its gradient at the rounded code 0.5 is that of the rounded
    # code, not of 0.45.
    seen = []

    class Recorder(Linear):
        def forward(self, codes):
            seen.append(codes.detach().clone())
            return super().forward(codes)

    propagate(
        grid_space(),
        Task(Recorder([0.1, 0.1])),
        [[0.45, 0.3]],
        steps=1,
        rounding="straight-through",
    )
    assert seen[0].tolist() == [[0.5, 0.25]]


def test_one_hot_code_is_set_to_the_rounded_one_every_k_steps():
    # Appendix C: after each k steps the code is the one-hot of its argmax.
    space = CodeSpace([Nominal("op", "xyz")])
    task = Task(Linear([-0.2, 0.3, 0.1]))
    run = propagate(space, task, [{"op": "x"}], steps=12, lr=2.0, rounding=6)
    assert sorted(run.codes[6, 0].tolist()) == [0, 0, 1]
    assert set(run.codes[5, 0].tolist()) - {0.0, 1.0}
    assert run.best()[0] == {"op": "y"}


def test_a_start_rests_when_it_has_reached_its_fixed_targets():
    task = Task(Linear([1.0, 0.0]))
    run = propagate(
        grid_space(), task, [[0.0, 0.5], [0.9, 0.5]], steps=40, lr=0.5, targets={"accuracy": 0.6}
    )
    assert run.codes[-1, 1].tolist() == pytest.approx([0.9, 0.5])
    assert 0.5 < run.codes[-1, 0, 0] < 0.75


def test_the_defaults_are_the_papers():
    # Section 4.1 and appendix E.1: b, n = 2; c, i, o = 64; lambda 0.5, learning rate 3, 70 steps.
    space = get_space("multi_resolution")
    predictor = Linear([0.01] * 27)
    given = propagate(
        space,
        Task(predictor),
        [{k: 64 if k[0] in "cio" else 2 for k in space.labels}],
        cost="flops",
        lam=0.5,
        lr=3.0,
        steps=70,
        optimiser="sgd",
        rounding="end",
        strategy="continuous",
    )
    default = propagate(space, Task(predictor), cost="flops")
    np.testing.assert_array_equal(default.codes, given.codes)


def test_one_edit_of_the_winner_is_eight_channels_or_one_block():
    space = get_space("multi_resolution")
    run = propagate(
        space, Task(Linear([0.5] * 27)), cost="flops", strategy="winner-takes-all", steps=40
    )
    way = space.from_points(run.points[:, 0])
    edits = [
        (label, abs(a[label] - b[label]))
        for a, b in pairwise(way)
        for label in space.labels
        if a[label] != b[label]
    ]
    assert {k for label, k in edits if label[0] in "cio"} <= {8}
    assert {k for label, k in edits if label[0] in "bn"} <= {1}
    assert edits


def test_a_continuous_value_keeps_its_key_on_the_way():
    space = CodeSpace([Continuous("x", 1e-3, 1.0, log=True), Ordinal("a", range(5))])
    samples = space.sample(20, np.random.default_rng(0))
    run = propagate(space, Task(Linear([0.0, 0.1])), samples, steps=1)
    assert space.keys(run.points[0]) == [space.key(s) for s in samples]


def test_limits_and_constraints_together():
    space = CodeSpace(
        [Ordinal("a", range(5)), Ordinal("b", range(5))],
        constraints=[Constraint("a is not 1", lambda s: s["a"] != 1)],
        costs={"flops": lambda codes: 4 * (3 * codes[:, 0] + codes[:, 1])},
    )
    run = propagate(
        space, Task(Linear([1.0, 1.0])), np.random.default_rng(0).random((30, 2)),
        limits={"flops": 7.0}, steps=20,
    )  # fmt: skip
    for found in run.best(3):
        assert space.violation(found) is None
        assert 3 * found["a"] + found["b"] <= 7


def test_a_given_code_can_be_the_start_of_a_transfer():
    run = propagate(grid_space(), Task(Linear([0.0, 1.0])), [{"a": 4, "b": 0}], steps=40)
    assert run.points[0, 0].tolist() == [4, 0]
    assert run.points[-1, 0].tolist() == [4, 4]


@pytest.mark.parametrize("rounding", ["end", "straight-through", 5])
def test_limits_are_never_exceeded_by_what_is_returned(rounding):
    space = grid_space()
    rng = np.random.default_rng(0)
    run = propagate(
        space,
        Task(Linear([1.0, 1.0])),
        rng.random((40, 2)),
        steps=25,
        limits={"flops": 7.0},
        rounding=rounding,
    )
    for found in (run.best(5), run.final()):
        costs = space.cost("flops", space.encode(found))
        assert (costs <= 7.0).all()
    # 3 a + b <= 7 with the most of a + b: a = 1, b = 4.
    assert run.best()[0] == {"a": 1, "b": 4}


def test_an_impossible_limit_names_the_cheapest():
    space = CodeSpace([Ordinal("a", range(1, 5))], costs={"flops": lambda c: 1 + 3 * c[:, 0]})
    with pytest.raises(InfeasibleError, match=r"flops <= 0.5.*cheapest.*flops = 1"):
        propagate(space, Task(Linear([1.0])), limits={"flops": 0.5}).best()


def test_bad_arguments_get_one_sentence():
    space, task = grid_space(), Task(Linear([1.0, 0.0]))
    with pytest.raises(SpaceError, match="the cost must be one of"):
        propagate(space, task, cost="latency")
    with pytest.raises(SpaceError, match="must have different names"):
        propagate(space, [task, task])
    with pytest.raises(SpaceError, match="targets must name"):
        propagate(space, task, targets={"accurcy": 1.0})
    with pytest.raises(SpaceError, match="codes must be finite"):
        propagate(space, task, [[np.nan, 0.0]])
    with pytest.raises(SpaceError, match="metric must be one of"):
        Task(Linear([1.0]), "top1")
    with pytest.raises(NotFittedError, match="must be fitted"):
        Task(make_predictor("gp", space, 0))
    for option in ({"strategy": "x"}, {"optimiser": "x"}, {"rounding": 0}, {"rounding": "x"}):
        with pytest.raises(ValueError, match="must be"):
            propagate(space, task, **option)


def test_a_batch_of_starts_equals_each_start_alone():
    space, task = grid_space(), Task(Linear([0.3, -0.1]))
    starts = np.random.default_rng(1).random((7, 2))
    together = propagate(space, task, starts, steps=8, optimiser="adam", lr=0.3)
    for i, start in enumerate(starts):
        alone = propagate(space, task, start[None], steps=8, optimiser="adam", lr=0.3)
        np.testing.assert_allclose(together.codes[:, i], alone.codes[:, 0], atol=1e-6)


def test_every_visited_architecture_carries_its_exact_cost_and_prediction():
    space, predictor = grid_space(), Linear([0.3, -0.1], 0.05)
    run = propagate(space, Task(predictor), [[0.1, 0.9]], cost="flops", steps=6)
    points = run.points[:, 0]
    np.testing.assert_allclose(run.costs["flops"][:, 0], 3 * points[:, 0] + points[:, 1])
    rounded = torch.as_tensor(space.encode_points(points))
    np.testing.assert_allclose(
        run.predicted["accuracy"][:, 0], predictor.forward(rounded)[:, 0].numpy(), atol=1e-7
    )


def test_winner_takes_all_reaches_the_top_of_the_domain_and_stays_there():
    space = grid_space()
    increase = np.array([[3.0, 1.0]])
    gradients = np.array([[-3.0, -2.0]])
    # b, one below its top of 4, rises to it; at the top a rises instead, and then nothing.
    for point, after in (([2, 3], [2, 4]), ([2, 4], [3, 4]), ([4, 4], [4, 4])):
        found = winner_takes_all(space, np.array([point], dtype=float), gradients, increase)
        assert found.tolist() == [after]
    # With steps of two ranks, a value one below the top may not rise past it.
    wide = CodeSpace([Ordinal("a", range(5), step=2), Ordinal("b", range(5))])
    for point, after in (([2, 4], [4, 4]), ([3, 4], [3, 4])):
        found = winner_takes_all(wide, np.array([point], dtype=float), gradients, increase)
        assert found.tolist() == [after]


def test_rounding_after_every_step_visits_architectures_only():
    space = CodeSpace([Nominal("op", "xyz"), Ordinal("a", range(5))])
    task = Task(Linear([-0.2, 0.3, 0.1, 0.4]))
    run = propagate(space, task, [{"op": "x", "a": 1}], steps=4, lr=9.0, rounding=1)
    for step in run.codes:
        assert (step == space.snap(step)).all()
    assert run.codes[1, 0].tolist() != run.codes[0, 0].tolist()
    for bad in (0, -1, 1.5):
        with pytest.raises(ValueError, match="rounding must be"):
            propagate(space, task, rounding=bad)
