"""What a round's candidates are worth, and that proposals differ by more than a predictor tells."""

import math
from itertools import islice

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from nni_aiop.predictors import CodeGP
from nni_aiop.search import LocalSearch, NCPSearch, PNAGSearch, PredictorTopK, RegularizedEvolution
from nni_aiop.search._acquisition import (
    Ranking,
    beside,
    fine_dimensions,
    log_expected_improvement,
    log_feasible,
    perturbed,
    too_near,
)
from nni_aiop.spaces import CodeSpace, Condition, Continuous, Nominal, Ordinal


def mixed() -> CodeSpace:
    return CodeSpace(
        [
            Ordinal("width", (4, 8, 16)),
            Ordinal("depth", (1, 2, 3)),
            Nominal("act", ("relu", "tanh", "silu")),
            Continuous("dropout", 0.0, 0.6),
        ]
    )


def merit(s):
    """0 at width 16, depth 3, silu and a dropout of 0.35."""
    short = math.log2(16 / s["width"]) / 2 + (3 - s["depth"]) / 4
    loss = {"relu": 0.02, "tanh": 0.06, "silu": 0.0}[s["act"]]
    return -(0.12 * short + loss + 0.04 * ((s["dropout"] - 0.35) / 0.2) ** 2)


@pytest.mark.parametrize("z", [-6.0, -1.01, -0.99, 0.0, 2.5])
def test_the_logarithm_of_expected_improvement(z):
    std = 0.3
    exact = quad(lambda y: max(y, 0.0) * norm.pdf(y, z * std, std), 0, z * std + 12 * std)[0]
    found = log_expected_improvement(np.array([5.0 + z * std]), np.array([std]), 5.0)
    assert found[0] == pytest.approx(math.log(exact), rel=1e-6)


def test_expected_improvement_is_ordered_far_below_the_best():
    mean = np.array([-1e8, -1e4, -2000.0, -900.0, -40.0, 0.0])
    found = log_expected_improvement(mean, np.ones(6), 0.0)
    assert np.isfinite(found).all() and (np.diff(found) > 0).all()


def test_the_chance_of_keeping_all_constraints():
    found = log_feasible(np.array([[0.0, -1.0], [1.0, 1.0]]), np.ones((2, 2)))
    assert np.exp(found) == pytest.approx([0.5 * norm.cdf(1), norm.cdf(-1) ** 2])


def test_moves_change_fine_dimensions_only():
    space = mixed()
    assert fine_dimensions(space) == [3]
    points = space.points([{"width": 16, "depth": 2, "act": "tanh", "dropout": 0.3}])
    moved = perturbed(space, points, 50, (0.01,), np.random.default_rng(0))
    assert moved.shape == (50, 4)
    assert (moved[:, :3] == points[0, :3]).all()
    assert 0 < np.abs(moved[:, 3] - 0.3).max() < 0.05
    listed = CodeSpace([Ordinal("a", (1, 2)), Nominal("b", ("x", "y"))])
    assert len(perturbed(listed, listed.points([{"a": 1, "b": "x"}]), 5, (0.1,), None)) == 0


def test_near_is_the_same_network_with_hardly_another_number():
    space = mixed()

    def point(width, dropout):
        return {"width": width, "depth": 1, "act": "relu", "dropout": dropout}

    points = space.points([point(4, 0.301), point(4, 0.5), point(8, 0.3)])
    assert too_near(space, points, space.points([point(4, 0.3)]), 0.05).tolist() == [
        True, False, False,
    ]  # fmt: skip


def test_a_believer_predicts_the_same_more_surely():
    space = mixed()
    rng = np.random.default_rng(0)
    samples = space.sample(20, rng)
    codes = space.encode(samples)
    values = np.array([merit(s) for s in samples])
    gp = CodeGP(space).fit(codes, {"default": values})
    new = space.encode(space.sample(3, rng))
    told = gp.believing(new)
    others = space.encode(space.sample(50, rng))
    assert told.predict(others).mean == pytest.approx(gp.predict(others).mean, abs=1e-9)
    assert (told.predict(others).std <= gp.predict(others).std + 1e-12).all()
    assert (told.predict(new).std < gp.predict(new).std).all()
    # The noise of a measurement is the part that no result takes away.
    assert (told.predict(new).std > gp.noise_std_).all()
    assert gp.predict(new).std == pytest.approx(gp.believing(new[:0]).predict(new).std)


def test_one_real_number_does_not_collapse_ncp():
    for seed in range(3):
        search = NCPSearch(mixed(), budget=30, seed=seed)
        for _ in range(30):
            (sample,) = search.ask(1)
            search.tell(sample, merit(sample))
        assert search.best()[1]["default"] > -0.005


def test_one_real_number_does_not_collapse_top_k():
    networks = set()
    search = PredictorTopK(mixed(), budget=30, seed=0)
    for i in range(30):
        (sample,) = search.ask(1)
        search.tell(sample, merit(sample))
        if i >= 9:
            networks.add((sample["width"], sample["depth"], sample["act"]))
    assert len(networks) >= 5


def test_a_round_does_not_ask_for_near_copies():
    space = mixed()
    for options in ({}, {"exploration": 0.5}):
        search = NCPSearch(space, budget=30, rounds=3, seed=1, **options)
        for sample in search.ask(9):
            search.tell(sample, merit(sample))
        asked = search.ask(7)
        points = space.points(asked)
        for i in range(1, 7):
            assert not too_near(space, points[i : i + 1], points[:i], 0.05).any()


def test_what_is_under_way_is_not_asked_for_again_nearby():
    space = mixed()
    search = NCPSearch(space, budget=30, seed=2)
    for sample in search.ask(9):
        search.tell(sample, merit(sample))
    asked = [search.ask(1)[0] for _ in range(6)]
    points = space.points(asked)
    distinct = [
        i for i in range(6) if not too_near(space, points[i : i + 1], points[:i], 0.02).any()
    ]
    assert len(distinct) >= 5


def constrained(sample):
    """The best networks are too large."""
    size = sample["width"] * sample["depth"]
    return {"default": merit(sample), "constraint:size": size / 24 - 1}


@pytest.mark.parametrize(
    "make",
    [
        lambda s: NCPSearch(s, budget=40, seed=0),
        lambda s: PredictorTopK(s, budget=40, rounds=4, seed=0),
        lambda s: PNAGSearch(
            s, budget=40, rounds=4, levels=1, pool=100, drawn=60, evaluator_steps=20,
            generator_steps=5, seed=0,
        ),
    ],
    ids=["ncp", "top-k", "pnag"],
)  # fmt: skip
def test_constraints_are_learned(make):
    space = mixed()
    search = make(space)
    for _ in range(40):
        (sample,) = search.ask(1)
        search.tell(sample, constrained(sample))
    late = [m["constraint:size"] > 0 for _, m in search.history[20:]]
    assert sum(late) <= 5
    best, metrics = search.best()
    assert metrics["constraint:size"] <= 0
    assert best["width"] * best["depth"] >= 16


@pytest.mark.parametrize("kind", [LocalSearch, RegularizedEvolution])
def test_parents_are_feasible_where_any_is(kind):
    space = mixed()
    search = kind(space, seed=0)
    for _ in range(50):
        for sample in search.ask(1):
            search.tell(sample, constrained(sample))
    assert search.best()[1]["constraint:size"] <= 0


def test_constraints_that_all_break_point_to_where_they_break_least():
    space = CodeSpace(
        [Continuous("x", 0.0, 1.0), Nominal("on", (False, True)), Continuous("y", 0.0, 1.0)],
        conditions={"y": Condition("on", (True,))},
    )
    search = NCPSearch(space, budget=30, seed=0)
    for _ in range(30):
        (sample,) = search.ask(1)
        search.tell(sample, {"default": -sample["x"], "constraint:c": 0.9 - sample["x"]})
    assert search.best()[1]["constraint:c"] <= 0


def test_where_evaluations_fail_is_learned():
    space = mixed()
    search = NCPSearch(space, budget=40, seed=0)
    failed = []
    for i in range(40):
        (sample,) = search.ask(1)
        fails = sample["dropout"] > 0.25  # the best dropout is beyond
        search.tell(sample, None if fails else merit(sample))
        failed.append(fails and i >= 20)
    assert sum(failed) <= 8
    assert 0.2 < search.best()[0]["dropout"] <= 0.25


@pytest.mark.parametrize("exploration", [None, 0.5, 0.0])
def test_a_ranking_is_that_of_all_candidates_after_each_pick(exploration):
    space = mixed()
    rng = np.random.default_rng(1)
    samples = space.sample(25, rng)
    codes = space.encode(samples)
    search = NCPSearch(space, exploration=exploration)
    search.predictor_ = CodeGP(space).fit(codes, {"default": [merit(s) for s in samples]})
    acquisition = search._acquisition(search.predictor_, samples, [{"default": 0.0}] * 25)
    points = space.points(space.sample(300, rng))
    looked = []
    real = acquisition.values
    acquisition.values = lambda codes: looked.append(len(codes)) or real(codes)
    ranking = Ranking(space, points, acquisition)
    assert acquisition.only_falls and looked == [300]
    for _ in range(4):
        everything = real(space.encode_points(points))
        best_first = points[np.argsort(-everything, kind="stable")]
        found = np.concatenate([*islice(ranking.chunks(16), 3)])
        assert found.tolist() == best_first[: len(found)].tolist()
        top, worth = ranking.first(2)
        assert top.tolist() == best_first[:2].tolist()
        assert worth == pytest.approx(np.sort(everything)[::-1][:2])
        acquisition.believe(space.encode_points(top[:1]))
        ranking.outdate()
    assert sum(looked[1:]) < 300  # four picks, fewer than all looked at once more


def test_with_constraints_all_candidates_are_looked_at_again():
    space = mixed()
    rng = np.random.default_rng(1)
    samples = space.sample(25, rng)
    codes = space.encode(samples)
    search = NCPSearch(space)
    search.predictor_ = CodeGP(space).fit(codes, {"default": [merit(s) for s in samples]})
    metrics = [{"default": 0.0, "constraint:wide": s["width"] - 8.0} for s in samples]
    acquisition = search._acquisition(search.predictor_, samples, metrics)
    assert not acquisition.only_falls
    points = space.points(space.sample(100, rng))
    ranking = Ranking(space, points, acquisition)
    acquisition.believe(space.encode_points(ranking.first(1)[0]))
    ranking.outdate()
    everything = acquisition.values(space.encode_points(points))
    assert ranking.first(100)[0].tolist() == points[np.argsort(-everything, kind="stable")].tolist()


def test_more_neighbours_than_wanted_are_drawn_from():
    space = CodeSpace([Ordinal(f"o{i}", (1, 2, 3)) for i in range(40)])
    rng = np.random.default_rng(0)
    points = space.sample_points(3, rng)
    everything = {
        tuple(row) for p in points for block in space.neighbour_points(p) for row in block.tolist()
    }
    assert {tuple(row) for row in beside(space, points, 10_000, rng).tolist()} == everything
    some = beside(space, points, 50, rng)
    assert some.shape == (50, 40) and {tuple(row) for row in some.tolist()} <= everything
    assert beside(space, points[:0], 5, rng).shape == (0, 40)
