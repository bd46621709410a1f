"""What candidates are worth, against the formulas written out for a predictor of known numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from nni_aiop.predictors import BudgetGrid, Prediction
from nni_aiop.search import Objective, PNAGSearch
from nni_aiop.search._acquisition import (
    _SURE,
    Acquisition,
    fine_dimensions,
    log_expected_improvement,
    perturbed,
    too_near,
)
from nni_aiop.search._pnag import _broken, _grid, _range, _read_targets
from nni_aiop.spaces import CodeSpace, Continuous, CostBook, Nominal, Ordinal

CODES = np.array([[0.0, 0.4], [1.0, 0.2], [0.5, 0.9]])
KNOWN = np.array([[0.3, 0.3], [0.6, 0.1]])


class Known:
    """Predicts the codes themselves, with deviations 0.5 and 0.2."""

    def __init__(self, shift: float = 0.0, noise: Any = None) -> None:
        self.shift = shift
        self.noise_std_ = noise

    def predict(self, codes: np.ndarray) -> Prediction:
        std = np.broadcast_to([0.5, 0.2], codes.shape)
        return Prediction(codes + self.shift, std, ("a", "b"))


def gains(codes: np.ndarray, prediction: Prediction) -> tuple[np.ndarray, np.ndarray]:
    return prediction.mean, prediction.std


def acquisition(predictor: Any = None, weights: Any = (1.0, 2.0), **options: Any) -> Acquisition:
    given = {"exploration": None, "constraints": (), "rng": np.random.default_rng(3)} | options
    known = given.pop("known", KNOWN)
    weights = None if weights is None else np.array(weights)
    return Acquisition(predictor or Known(), gains, weights, known, **given)


def test_weighted_gains() -> None:
    merit, spread = CODES @ [1, 2], np.sqrt(0.25 + 4 * 0.04)
    assert acquisition(exploration=0.5).values(CODES) == pytest.approx(merit + 0.5 * spread)
    # The best of what is known is 0.3 + 2 * 0.3.
    expected = log_expected_improvement(merit, np.full(3, spread), 0.9)
    assert acquisition().values(CODES) == pytest.approx(expected)
    # Nothing is known: the best of the candidates stands for it.
    expected = log_expected_improvement(merit, np.full(3, spread), 2.3)
    assert acquisition(known=np.empty((0, 2))).values(CODES) == pytest.approx(expected)


def test_noise_is_no_reason_to_look_again() -> None:
    _, std = acquisition(Known(noise=np.array([0.3, 0.2])))._latent(CODES)
    assert std == pytest.approx(np.tile([0.4, 1e-3 * 0.2], (3, 1)))


class Certain(Known):
    def predict(self, codes: np.ndarray) -> Prediction:
        return Prediction(codes, np.zeros(codes.shape), ("a", "b"))


def test_a_predictor_without_a_doubt_is_as_good_as_its_mean() -> None:
    _, std = acquisition(Certain())._latent(CODES)
    assert (std > 0).all() and (std < 1e-9).all()
    for weights in ((1.0, 2.0), None):
        found = acquisition(Certain(), weights, known=CODES[:1]).values(CODES)
        assert np.isfinite(found).all()
    assert acquisition(Certain(), exploration=0.5).values(CODES) == pytest.approx(CODES @ [1, 2])


def test_a_weighting_of_several_is_an_augmented_chebyshev_distance() -> None:
    w = np.random.default_rng(3).dirichlet(np.ones(2))
    upper = CODES + 2.0 * np.array([0.5, 0.2])
    below = w * (upper - [1.0 + 1.0, 0.9 + 0.4])
    expected = below.min(axis=1) + 0.05 * below.sum(axis=1)
    assert acquisition(weights=None, exploration=2.0).values(CODES) == pytest.approx(expected)


def test_the_improvement_of_a_chebyshev_distance_is_a_mean_over_draws() -> None:
    rng = np.random.default_rng(3)
    w = rng.dirichlet(np.ones(2))
    draws = rng.normal(size=(32, 1, 2))
    top = (CODES + 0.5 * np.array([0.5, 0.2])).max(axis=0)

    def scalar(values: np.ndarray) -> np.ndarray:
        below = w * (values - top)
        return below.min(axis=-1) + 0.05 * below.sum(axis=-1)

    best = scalar(KNOWN).max()
    gained = np.maximum(scalar(CODES + draws * [0.5, 0.2]) - best, 0).mean(axis=0)
    expected = gained + 1e-6 * scalar(CODES + 0.5 * np.array([0.5, 0.2]))
    assert acquisition(weights=None).values(CODES) == pytest.approx(expected, rel=1e-9)


def test_the_chance_of_feasibility_multiplies_the_improvement() -> None:
    rule = Known(shift=-1.0)
    chance = norm.logcdf(-(CODES - 1.0) / [0.5, 0.2]).sum(axis=1)
    likely = chance >= np.log(_SURE)
    assert likely[0] and not likely.all()
    for exploration in (None, 1.0):
        worth = acquisition(exploration=exploration).values(CODES)
        if exploration is None:
            worth = worth + chance  # of both the logarithm
        # What is probably infeasible comes after all others.
        expected = np.where(likely, worth, worth.min() - 1 + chance)
        found = acquisition(exploration=exploration, constraints=[rule]).values(CODES)
        assert found == pytest.approx(expected)
    # Nothing feasible yet: the chance, and the worth's rank between equal ones.
    none = acquisition(constraints=[rule], known=np.empty((0, 2))).values(CODES)
    ranks = np.argsort(np.argsort(CODES @ [1, 2]))
    assert none == pytest.approx(chance + 1e-3 * ranks / 3)


def test_what_is_asked_for_is_known_from_then_on() -> None:
    found = acquisition()
    found.believe(CODES[:1])
    assert found.known.tolist() == [*KNOWN.tolist(), [0.0, 0.4]]
    # It says nothing of constraints: while nothing is known to be feasible, nothing is.
    blind = acquisition(constraints=[Known()], known=np.empty((0, 2)))
    blind.believe(CODES[:1])
    assert len(blind.known) == 0


def space() -> CodeSpace:
    return CodeSpace(
        [
            Nominal("act", ("relu", "silu")),
            Continuous("x", 0.0, 1.0),
            Ordinal("long", tuple(range(21))),
            Ordinal("short", tuple(range(20))),
        ]
    )


def test_fine_dimensions_have_more_than_twenty_values() -> None:
    assert fine_dimensions(space()) == [1, 2]


def test_near_means_near_in_every_fine_dimension() -> None:
    s = space()
    base = {"act": "relu", "x": 0.5, "long": 10, "short": 3}
    changes = [{}, {"x": 0.54}, {"x": 0.56}, {"long": 11}, {"short": 4}, {"act": "silu"}]
    points = s.points([base | change for change in changes])
    found = too_near(s, points, s.points([base]), 0.05)
    assert found.tolist() == [True, True, False, False, False, False]


def test_each_move_changes_a_fine_dimension_and_large_ones_are_uniform() -> None:
    s = space()
    base = s.points([{"act": "relu", "x": 0.95, "long": 10, "short": 3}])
    moved = perturbed(s, base, 400, (1.0,), np.random.default_rng(0))
    assert len(moved) == 400
    assert (moved[:, [0, 3]] == base[0, [0, 3]]).all()
    x = moved[moved[:, 1] != base[0, 1], 1]
    assert 0.4 < x.mean() < 0.6
    assert 0.0 <= x.min() < 0.05 and 0.95 < x.max() <= 1.0
    near = perturbed(s, base, 400, (0.01,), np.random.default_rng(0))
    assert 0 < np.abs(near[:, 1] - 0.95).max() < 0.05
    # Three quarters of two dimensions move at least: each move has one.
    assert (near[:, 1] != 0.95).mean() > 0.7


def test_ranges_and_grids_of_learned_budgets() -> None:
    assert _range(np.array([3.0, 1.0, 5.0])) == (1.0, 4.0)
    assert _range(np.array([2.0, 2.0])) == (2.0, 1.0)
    values = {"ms": np.linspace(0, 100, 101)}
    assert _grid(values, {}, 3).levels == {"ms": pytest.approx((2.0, 50.0, 98.0))}
    assert _grid(values, {"ms": [1.0, 120.0]}, 3).levels == {"ms": pytest.approx((1.0, 60.5, 120))}
    assert _grid(values, {"ms": [-5.0]}, 2).levels == {"ms": pytest.approx((98e-6, 98.0))}
    assert _grid({"ms": np.full(5, 7.0)}, {}, 3).levels == {"ms": (7.0,)}


def test_targets_are_lists_of_numbers_by_name() -> None:
    assert _read_targets({"ms": 3, "mb": [1, 2.5]}) == {"ms": [3.0], "mb": [1.0, 2.5]}
    assert _read_targets(None) == {}
    for wrong in ({"ms": []}, {"ms": "fast"}, {"ms": [1, np.inf]}):
        with pytest.raises(ValueError, match="targets of ms must be finite numbers"):
            _read_targets(wrong)
    with pytest.raises(ValueError, match="targets must be bounds by the names of costs"):
        _read_targets([3.0])


def budgeted(**options: Any) -> PNAGSearch:
    s = CodeSpace(
        [Ordinal("a", (1, 2, 3, 4)), Ordinal("b", (1, 2, 3, 4))],
        costs={"ms": lambda codes: 1 + codes[:, 0]},
    )
    return PNAGSearch(s, **{"cost": "ms", **options})


def test_a_generator_is_trained_with_the_options_of_its_search() -> None:
    search = budgeted(generator_steps=3, evaluator_steps=2, seed=5)
    search._round = 2
    codes = search.space.encode_points(search.space.enumerate_points(16))
    book = CostBook(search.space)
    grid = BudgetGrid({"ms": (1.2, 2.0)})
    found = search._trained(search.space, grid, codes, codes.sum(axis=1), book)
    assert (found.training.steps, len(found.history_), found.evaluator["steps"]) == (3, 3, 2)
    assert found.seed == found.evaluator["seed"] == 7 and found.grid is grid
    assert found.book is book and found.evaluator_ is not None


def test_each_budget_in_turn_gives_its_first_that_is_new() -> None:
    search = budgeted()
    search._wanted = 4
    search.tell({"a": 1, "b": 1}, {"default": 0.0})
    first, second = np.array([[0, 0], [0, 1], [0, 2], [0, 3]]), np.array([[0, 1], [3, 3]])
    found = search._in_turn([first.astype(float), second.astype(float)])
    # The known one is skipped, what one budget took is no other's.
    assert [(s["a"], s["b"]) for s in found] == [(1, 2), (4, 4), (1, 3), (1, 4)]
    search._wanted = 2
    assert [(s["a"], s["b"]) for s in search._in_turn([first.astype(float)])] == [(1, 2), (1, 3)]
    assert search._in_turn([first[:1].astype(float)]) == []


def test_merits_leave_budgeted_objectives_out() -> None:
    objectives = (Objective("a", weight=2.0), Objective("b", "minimize", weight=3.0))
    search = budgeted(cost=None, objectives=objectives)
    assert search.budgeted == ("b",)
    search.predictor_ = predictor = Known()  # type: ignore[assignment]
    predictor.center_, predictor.scale_ = np.array([0.5, 0.0]), np.array([0.25, 1.0])
    expected = 2.0 * (CODES[:, 0] - 0.5) / 0.25
    assert search._merits(predictor, CODES, 0.0) == pytest.approx(expected)
    assert search._merits(predictor, CODES, 0.5) == pytest.approx(expected + 0.5 * 2.0 * 0.5 / 0.25)


def test_a_constraint_is_broken_above_zero() -> None:
    assert _broken([], CODES).tolist() == [False, False, False]
    assert _broken([Known()], CODES).tolist() == [False, True, True]
    assert _broken([Known(-0.5), Known(-1.0)], CODES).tolist() == [False, True, False]


def test_budgets_run_from_one_to_two_where_a_cost_is_learned_or_not_positive() -> None:
    s = CodeSpace(
        [Ordinal("a", (1, 2, 3, 4)), Ordinal("b", (1, 2, 3, 4))],
        costs={"ms": lambda codes: 1 + codes[:, 0], "mb": lambda codes: 4 * codes[:, 1]},
    )
    search = PNAGSearch(s, targets={"ms": 1.5, "mb": 3.0, "a": 0.75}, objectives=("b",))
    predictor = Known()
    predictor.metrics_ = ("a", "b")
    codes = s.encode_points(s.enumerate_points(16))
    inner, bounds = search._budget_space(predictor, codes)
    assert search._scales == {"mb": (0.0, 4.0), "a": (0.0, 1.0)}
    assert bounds == {"ms": [1.5], "mb": [1.75], "a": [1.75]}
    assert set(inner.costs) == {"ms", "mb", "a"} and set(s.costs) == {"ms", "mb"}
    assert inner.cost("ms", codes) == pytest.approx(1 + codes[:, 0])
    assert inner.cost("mb", codes) == pytest.approx(1 + codes[:, 1])
