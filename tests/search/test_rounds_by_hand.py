"""The parts of a round of a predictor-based search, with predictors of known numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nni_aiop.predictors import CodeGP, Prediction, default_predictor, search_predictor
from nni_aiop.search import NCPSearch, Objective, PredictorTopK, RandomWarmup, _fits
from nni_aiop.search._acquisition import Ranking
from nni_aiop.search._metrics import CONSTRAINT
from nni_aiop.search._predictor_based import PredictorSearch, log_regret
from nni_aiop.spaces import CodeSpace, Ordinal


def space(**options: Any) -> CodeSpace:
    costs = {"flops": lambda codes: 4 * (3 * codes[:, 0] + codes[:, 1])}
    return CodeSpace([Ordinal("a", range(5)), Ordinal("b", range(5))], costs=costs, **options)


SAMPLES = [{"a": i, "b": 4 - i} for i in range(5)]


class Fitted:
    """Remembers what it was fitted on; its leave-one-out density is that of its `like`."""

    def __init__(self, like: float = 0.0) -> None:
        self.like = like

    def fit(self, codes: np.ndarray, targets: dict[str, np.ndarray]) -> Fitted:
        self.codes, self.targets = codes, targets
        self.metrics_ = tuple(targets)
        self.center_ = np.array([v.mean() for v in targets.values()])
        self.scale_ = np.array([v.std() for v in targets.values()])
        return self

    def leave_one_out_log_density(self) -> np.ndarray:
        return np.full((len(self.codes), len(self.metrics_)), self.like)


def test_targets_are_stretched_only_where_one_thing_is_improved() -> None:
    two = {"objectives": ("x", "y")}
    assert NCPSearch(space())._warps
    assert not NCPSearch(space(), cost="flops")._warps
    assert not NCPSearch(space(), **two)._warps
    assert NCPSearch(space(), pareto=True, **two)._warps
    assert not PredictorTopK(space())._warps


def test_stretched_targets_keep_their_direction() -> None:
    objectives = (Objective("x"), Objective("y", "minimize"))
    search = NCPSearch(space(), objectives=objectives, pareto=True)
    x, y, z = np.array([1.0, 3.0, 2.0]), np.array([5.0, 4.0, 9.0]), np.array([7.0, 7.0, 8.0])
    found = search._stretched({"x": x, "y": y, "z": z}, 0.1)
    assert found["x"] == pytest.approx(log_regret(x, 0.1))
    assert found["y"] == pytest.approx(-log_regret(-y, 0.1))
    assert (found["z"] == z).all()
    assert np.argmax(found["x"]) == 1 and np.argmin(found["y"]) == 1
    assert search._stretched({"x": x}, 0)["x"] is x


def test_the_likelihood_of_the_better_half_in_units_of_the_results() -> None:
    search = NCPSearch(space(), objectives=("x",))
    plain = {"x": np.array([1.0, 2.0, 3.0, 4.0, 5.0])}
    codes = space().encode(SAMPLES)
    fitted = Fitted(like=-0.5).fit(codes, plain)
    scale = np.sqrt(2.0)
    # The better half of five is 3, 4, 5.
    assert search._likelihood(fitted, plain, 0) == pytest.approx(3 * (-0.5 - np.log(scale)))
    slope = log_regret(plain["x"], 0.1)[2:].sum()
    expected = 3 * (-0.5 - np.log(scale)) + slope
    assert search._likelihood(fitted, plain, 0.1) == pytest.approx(expected)
    assert search._likelihood(object(), plain, 0) == 0  # it does not tell
    assert search._likelihood(object(), plain, 0.1) == 10


def test_the_stretching_is_chosen_anew_after_a_quarter_more_results() -> None:
    made: list[Fitted] = []

    def factory(space: CodeSpace, seed: int) -> Fitted:
        made.append(Fitted())
        return made[-1]

    search = NCPSearch(space(), objectives=("x",), predictor=factory)
    samples = [s for s in SAMPLES for _ in range(8)]
    metrics = [{"x": float(i)} for i in range(40)]
    search._fit(samples[:4], metrics[:4])
    assert len(made) == 2 and search._decided_at == 4
    search._fit(samples[:4], metrics[:4])  # fewer than a quarter more: as it was
    assert len(made) == 3
    search._fit(samples[:5], metrics[:5])
    assert len(made) == 5 and search._decided_at == 5
    search._fit(samples, metrics)
    assert len(made) > 7 and search._decided_at == 40


def test_nothing_is_fitted_twice_on_one_table() -> None:
    made: list[CodeGP] = []

    def factory(space: CodeSpace, seed: int) -> CodeGP:
        made.append(CodeGP(space, steps=6, seed=seed))
        return made[-1]

    options: dict[str, Any] = {"budget": 20, "warmup": RandomWarmup(count=4), "predictor": factory}
    search = NCPSearch(space(), rounds=16, starts=4, steps=2, **options)
    for i, sample in enumerate([*search.ask(4), *search.ask(1)]):
        search.tell(sample, {"default": float(i), f"{CONSTRAINT}wide": i - 2.0})
    search.tell(search.ask(1)[0], None)
    before = len(made)
    search.ask(1)
    assert len(made) > before + 2  # results, a constraint, failures
    before = len(made)
    search.ask(1)
    search.ask(1)
    assert len(made) == before
    # A search that is resumed here fits the same ones again, from what they started from.
    again = NCPSearch(space(), rounds=16, starts=4, steps=2, **options)
    again.load_state_dict(search.state_dict())
    assert again.ask(3) == search.ask(3)
    assert again.predictor_ is not None and search.predictor_ is not None
    assert again.predictor_.hyperparameters == search.predictor_.hyperparameters


def test_a_fit_goes_on_from_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_fits, "_AFRESH", 4)
    starts: list[Any] = []

    class Seen(CodeGP):
        def fit(self, codes: Any, targets: Any, *, start: Any = None) -> CodeGP:
            starts.append(start)
            return super().fit(codes, targets, start=start)

    search = PredictorTopK(
        space(), warmup=RandomWarmup(count=4), predictor=lambda s, seed: Seen(s, seed=seed)
    )
    for i, sample in enumerate(search.ask(4)):
        search.tell(sample, float(i))
    for _ in range(3):
        search._wanted = 1
        search.tell(search._next_round()[0], 7.0)
    assert starts[0] is None  # few rows: from the beginning
    assert list(starts[1]) == list(starts[2]) == ["default"]
    assert len(starts[1]["default"]) == 4  # signal, two lengths, noise
    assert starts[1]["default"] == np.round(starts[1]["default"], 4).tolist()


def test_many_results_judge_the_stretching_by_some_of_them() -> None:
    fitted: list[Fitted] = []

    def factory(space: CodeSpace, seed: int) -> Fitted:
        fitted.append(Fitted())
        return fitted[-1]

    search = NCPSearch(space(), objectives=("x",), predictor=factory)
    samples = [s for s in SAMPLES for _ in range(60)]
    search._fit(samples, [{"x": float(i)} for i in range(300)])
    assert [len(f.codes) for f in fitted] == [200, 200, 200, 300]


def test_gains_are_standardised_and_costs_are_lost() -> None:
    objectives = (Objective("x"), Objective("y", "minimize"))
    mean = np.array([[3.0, 8.0, 30.0], [1.0, 2.0, 10.0]])
    std = np.array([[1.0, 2.0, 4.0], [0.5, 1.0, 2.0]])
    codes = space().encode([{"a": 4, "b": 0}, {"a": 0, "b": 2}])

    def gains(cost: str) -> tuple[np.ndarray, np.ndarray]:
        search = NCPSearch(space(), objectives=objectives, cost=cost)
        search.predictor_ = Fitted()  # type: ignore[assignment]
        search.predictor_.center_ = np.array([1.0, 2.0, 10.0])
        search.predictor_.scale_ = np.array([2.0, 0.0, 5.0])
        return search._gains(codes, Prediction(mean, std, ("x", "y", "ms")))

    found, spread = gains("ms")
    assert found == pytest.approx(np.array([[1.0, -6.0, -4.0], [0.0, 0.0, 0.0]]))
    assert spread == pytest.approx(np.array([[0.5, 2.0, 0.8], [0.25, 1.0, 0.4]]))
    found, spread = gains("flops")
    # Costs of 12 and 2 about the mean 8 of the space, with the deviation sqrt(20).
    assert found[:, :2] == pytest.approx(np.array([[1.0, -6.0], [0.0, 0.0]]))
    assert found[:, 2] == pytest.approx([-4 / 20**0.5, 6 / 20**0.5], abs=0.1)
    assert spread[:, 2].tolist() == [0.0, 0.0]


def test_rounds_share_what_warm_up_leaves() -> None:
    search = NCPSearch(space(), budget=20, rounds=4, warmup=RandomWarmup(count=7))
    assert search._batch == 4  # 13 in 4 rounds
    assert NCPSearch(space(), budget=5, rounds=50)._batch == 1
    assert PredictorTopK(space(), budget=20, warmup=RandomWarmup(count=7))._batch == 13
    warmup = RandomWarmup(count=1)
    assert (warmup.of(0), warmup.of(5)) == (1, 1)
    for wrong in ({"fraction": 0.0}, {"fraction": 1.0}, {"count": 0}):
        with pytest.raises(ValueError, match="must"):
            RandomWarmup(**wrong)


def test_a_constraint_is_learned_once_a_result_breaks_it() -> None:
    search = NCPSearch(space(), objectives=("x",), predictor=lambda s, seed: Fitted())
    kept = [{"x": 1.0, f"{CONSTRAINT}0": -1.0} for _ in SAMPLES]
    assert search._constraints(SAMPLES, kept) == []
    assert search._constraints(SAMPLES, [*kept[:-1], {"x": 1.0}]) == []
    broken = [{"x": 1.0}, *kept[:3], {"x": 1.0, f"{CONSTRAINT}0": 0.5}]
    (found,) = search._constraints(SAMPLES, broken)
    assert found.targets[f"{CONSTRAINT}0"].tolist() == [-1.0, -1.0, -1.0, 0.5]
    assert found.codes.tolist() == space().encode(SAMPLES[1:]).tolist()
    # Two results are too few to learn from.
    assert search._constraints(SAMPLES[3:], broken[3:]) == []
    search.predictor_ = found
    known = search._acquisition(found, SAMPLES, broken).known
    assert known.tolist() == space().encode(SAMPLES[:4]).tolist()


def test_options_that_no_search_can_have_are_refused() -> None:
    for options, message in (
        ({"budget": 0}, "budget and rounds must be at least 1"),
        ({"rounds": 0}, "budget and rounds must be at least 1"),
        ({"lam": -0.1}, "lam must not be negative"),
        ({"lam": np.inf}, "lam must not be negative"),
        ({"exploration": np.inf}, "exploration must be a finite number"),
        ({"cost": 3}, "a cost must be a name"),
        ({"starts": 0}, "starts and steps must be at least 1"),
        ({"steps": 0}, "starts and steps must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            NCPSearch(space(), **options)
    NCPSearch(space(), budget=1, rounds=1, lam=0.0, exploration=0.0, starts=1, steps=1)


def test_a_pool_of_half_the_space_is_the_whole_space() -> None:
    s = space()  # of 25
    whole = PredictorTopK(s, pool=13)._candidates(Fitted(), [], [])
    assert whole.tolist() == [[a, b] for a in range(5) for b in range(5)]
    part = PredictorTopK(s, pool=12)._candidates(Fitted(), [], [])
    assert 6 <= len(part) <= 12
    even = CodeSpace([Ordinal("a", range(4)), Ordinal("b", range(5))])
    assert len(PredictorTopK(even, pool=10)._candidates(Fitted(), [], [])) == 20


class Worth:
    only_falls = True

    def values(self, codes: np.ndarray) -> np.ndarray:
        return codes[:, 0]


def offered(search: PredictorSearch, points: np.ndarray) -> np.ndarray:
    worth: Any = Worth()
    return np.concatenate([*search._offered(Ranking(search.space, points, worth), worth)])


def test_candidates_are_moved_on_in_fine_dimensions_unless_a_front_is_sought() -> None:
    fine = CodeSpace([Ordinal("a", range(50)), Ordinal("b", range(5))])
    points = np.array([[10.0, 1.0], [30.0, 2.0], [20.0, 3.0]])
    moved = offered(NCPSearch(fine), points)
    assert len(moved) > 3 and moved[0, 0] > 30 and moved[-3:].tolist() == points[[1, 2, 0]].tolist()
    best_first = points[[1, 2, 0]].tolist()
    for search in (
        NCPSearch(fine, objectives=("x", "y"), pareto=True),
        NCPSearch(space()),
        PredictorTopK(fine),
    ):
        coarse = points if search.space is fine else points / 10
        expected = best_first if search.space is fine else (points[[1, 2, 0]] / 10).tolist()
        assert offered(search, coarse).tolist() == expected


def test_each_search_learns_with_the_predictor_that_was_chosen_for_it() -> None:
    for search, wanted in ((NCPSearch, search_predictor), (PredictorTopK, default_predictor)):
        found, expected = search(space(), seed=3)._made(), wanted(space(), 3)
        assert type(found) is type(expected)
        assert isinstance(found, CodeGP) and isinstance(expected, CodeGP)
        for option in ("length", "doubt", "noise", "seed"):
            assert getattr(found, option) == getattr(expected, option), option


LINE = CodeSpace([Ordinal("a", range(65))])  # a step is 1/64 of the range


class Slope:
    """Predicts a merit that grows with the code."""

    center_ = np.zeros(1)
    scale_ = np.ones(1)

    def predict(self, codes: np.ndarray) -> Prediction:
        return Prediction(codes, np.full_like(codes, 0.1), ("default",))


class Everything(PredictorTopK):
    def _candidates(self, *given: Any) -> np.ndarray:
        return self.space.enumerate_points(65)


def results(values: list[float]) -> list[dict[str, float]]:
    return [{"default": value} for value in values]


def test_a_search_stalls_at_every_other_round_without_a_gain() -> None:
    def stalls(values: list[float], place: int = 2, space: CodeSpace = LINE) -> bool:
        search = PredictorTopK(space)
        search._round = place
        return search._stalls(results(values))

    flat = [5.0, 1.0, 2.0, 4.0]
    assert [stalls(flat, place) for place in (1, 2, 3, 4)] == [False, True, False, True]
    assert not stalls(flat[:3])  # no result is older than the latest three
    assert not stalls([5.0, 1.0, 2.0, 6.0])
    assert not stalls([5.0, 6.0, 2.0, 1.0])
    # The deviation is 39: a gain of 0.3 is less than a hundredth of it, one of 0.5 is not.
    late = [80.0, 0.0, 0.0, 0.0]
    assert stalls([*late, 80.3]) and not stalls([*late, 80.5])
    assert not stalls(flat, space=space())  # nothing there is fine


def test_proposals_keep_apart_and_a_search_that_stalls_goes_elsewhere() -> None:
    def asked(place: int, waiting: tuple[int, ...] = (), **options: Any) -> list[int]:
        search = Everything(LINE, **options)
        samples = [{"a": a} for a in (64, 20, 10, 5)]
        for sample, metrics in zip(samples, results([4.0, 3.0, 2.0, 1.0]), strict=True):
            search.tell(sample, metrics)
        search._pending = {str(a): {"a": a} for a in waiting}
        search.predictor_ = Slope()  # type: ignore[assignment]
        search._round, search._wanted = place, 2
        return [s["a"] for s in search._favoured(search.predictor_, *search._results())]

    assert asked(1) == [63, 47]  # a quarter of the range apart
    assert asked(1, (50,)) == [34, 18]
    assert asked(2) == [48]  # and from results, which leave no other
    # An improvement is believed already, what is as good stays a twentieth away.
    assert asked(1, exploration=None) == [63, 59]
    assert asked(2, exploration=None) == [60, 56]
