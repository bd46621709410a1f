"""What every search must satisfy; a new search joins by being in SEARCHES."""

import json
import math

import numpy as np
import pytest

from nni_aiop.errors import FileFormatError, InfeasibleError, SpaceError
from nni_aiop.predictors import make_predictor
from nni_aiop.search import (
    LocalSearch,
    NCPSearch,
    Objective,
    PNAGSearch,
    PredictorTopK,
    RandomSearch,
    RandomWarmup,
    RegularizedEvolution,
)
from nni_aiop.search._predictor_based import log_regret
from nni_aiop.spaces import (
    CodeSpace,
    Condition,
    Constraint,
    Continuous,
    Nominal,
    Ordinal,
    SampleCost,
)
from tests.spaces.mutation_spaces import mutations

BUDGET = 24


def flops(sample):
    """What the function of codes says, of a sample."""
    widths = [math.log2(sample[f"width{i}"] / 8) / 3 for i in (2, 3)]
    return 1 + (sample["depth"] - 1) + sum(widths)


COSTS = {
    "codes": lambda c: 1 + c[:, 0] * 2 + c[:, 4] + c[:, 5],
    "samples": SampleCost(flops),
}


_costs = ["codes"]  # of the spaces that tests make


def space(**options) -> CodeSpace:
    return CodeSpace(
        [
            Ordinal("depth", (1, 2, 3)),
            Nominal("op", ("conv", "pool", "skip")),
            Ordinal("width2", (8, 16, 32, 64)),
            Ordinal("width3", (8, 16, 32, 64)),
            Continuous("dropout", 0.0, 0.5),
        ],
        conditions={"width2": Condition("depth", (2, 3)), "width3": Condition("depth", (3,))},
        costs={"flops": COSTS[_costs[-1]]},
        **options,
    )


def evaluate(sample):
    """Best: three conv layers of width 32 and a dropout of 0.2."""
    width = sum(-abs(math.log2(sample[f"width{i}"] / 32)) for i in range(2, sample["depth"] + 1))
    return {
        "default": 10 * sample["depth"] + 5 * (sample["op"] == "conv") + width
        - 20 * abs(sample["dropout"] - 0.2),
        "latency": float(sample["depth"]),
    }  # fmt: skip


SMALL_PNAG = {
    "budget": BUDGET,
    "rounds": 2,
    "levels": 3,
    "pool": 40,
    "drawn": 40,
    "evaluator_steps": 5,
    "generator_steps": 3,
}

SEARCHES = {
    "random": lambda space, **o: RandomSearch(space, **o),
    "evolution": lambda space, **o: RegularizedEvolution(space, population=8, tournament=3, **o),
    "local": lambda space, **o: LocalSearch(space, initial=3, **o),
    "local-greedy": lambda space, **o: LocalSearch(space, initial=3, greedy=True, **o),
    "top-k": lambda space, **o: PredictorTopK(space, budget=BUDGET, pool=300, **o),
    "ncp": lambda space, **o: NCPSearch(space, budget=BUDGET, rounds=3, starts=16, steps=5, **o),
    "ncp-pareto": lambda space, **o: NCPSearch(
        space,
        budget=BUDGET,
        rounds=3,
        starts=16,
        steps=5,
        pareto=True,
        objectives=("default", Objective("latency", "minimize")),
        **o,
    ),
    "ncp-cost": lambda space, **o: NCPSearch(
        space, budget=BUDGET, rounds=3, starts=16, steps=5, cost="flops", lam=0.3, **o
    ),
    "ncp-learned-cost": lambda space, **o: NCPSearch(
        space, budget=BUDGET, rounds=3, starts=16, steps=5, cost="latency", lam=0.3, **o
    ),
    "pnag": lambda space, **o: PNAGSearch(space, **SMALL_PNAG, cost="flops", **o),
    "pnag-learned-cost": lambda space, **o: PNAGSearch(
        space,
        objectives=("default", Objective("latency", "minimize")),
        predictor=lambda s, seed: make_predictor("gp", s, seed, steps=5),
        **SMALL_PNAG,
        **o,
    ),
}


@pytest.fixture(params=SEARCHES)
def make(request):
    return SEARCHES[request.param]


def run(search, n, metrics=evaluate):
    out = []
    for _ in range(n):
        for sample in search.ask(1):
            search.tell(sample, metrics(sample))
            out.append(sample)
    return out


class TestContract:
    # `test_sample_costs.py` is quick about costs of samples; all of the contract with them is long.
    @pytest.fixture(
        autouse=True,
        params=[
            pytest.param(kind, marks=() if kind == "codes" else pytest.mark.slow) for kind in COSTS
        ],
    )
    def costs(self, request):
        _costs.append(request.param)
        yield
        _costs.pop()

    def test_same_seed_same_result_other_seed_another(self, make):
        first = run(make(space(), seed=7), BUDGET)
        assert first == run(make(space(), seed=7), BUDGET)
        assert first != run(make(space(), seed=8), BUDGET)

    def test_samples_are_distinct_valid_and_full(self, make):
        s = space()
        asked = run(make(s, seed=0), BUDGET + 5)
        assert len(asked) == BUDGET + 5
        assert len({s.key(x) for x in asked}) == BUDGET + 5
        for sample in asked:
            assert s.violation(sample) is None
            assert set(sample) == set(s.labels)

    def test_state_survives_json_and_resumes_to_the_identical_proposals(self, make):
        for stop in (0, 3, 12, 19):
            whole, half = make(space(), seed=3), make(space(), seed=3)
            run(whole, stop)
            run(half, stop)
            state = json.loads(json.dumps(half.state_dict(), allow_nan=False))
            resumed = make(space(), seed=99)
            resumed.load_state_dict(state)
            assert run(resumed, 8) == run(whole, 8)
            assert resumed.history == whole.history

    def test_what_was_asked_and_not_told_is_pending_after_a_resume(self, make):
        s = space()
        search = make(s, seed=1)
        asked = search.ask(4)
        search.tell(asked[2], evaluate(asked[2]))
        resumed = make(s, seed=1)
        resumed.load_state_dict(json.loads(json.dumps(search.state_dict())))
        assert resumed.pending() == [asked[0], asked[1], asked[3]]
        again = run(resumed, 6)
        assert not {s.key(x) for x in again} & {s.key(x) for x in asked}

    def test_a_failed_or_nan_evaluation_harms_nothing(self, make):
        s = space()

        def flaky(sample):
            if sample["op"] == "pool":
                return None
            if sample["depth"] == 2:
                return {"default": math.nan, "latency": 1.0}
            return evaluate(sample)

        search = make(s, seed=2)
        asked = run(search, BUDGET, flaky)
        assert len({s.key(x) for x in asked}) == BUDGET
        assert sum(m is None for _, m in search.history) > 0
        json.dumps(search.state_dict(), allow_nan=False)
        best, metrics = search.best()
        assert best["op"] != "pool" and math.isfinite(metrics["default"])

    def test_all_evaluations_failed(self, make):
        search = make(space(), seed=2)
        assert len(run(search, BUDGET, lambda sample: None)) == BUDGET
        assert search.best() is None

    def test_a_batch_of_asks_without_tells_is_distinct(self, make):
        s = space()
        search = make(s, seed=4)
        asked = search.ask(15) + search.ask(10)
        assert len({s.key(x) for x in asked}) == 25

    def test_limits_are_kept_by_every_sample(self, make):
        s = space()
        search = make(s, seed=5, limits={"flops": 2.2})
        asked = run(search, BUDGET)
        codes = s.encode([s.complete(s.canonical(x)) for x in asked])
        assert (s.cost("flops", codes) <= 2.2).all()

    def test_an_impossible_limit_is_one_clear_error(self, make):
        with pytest.raises(InfeasibleError, match="the cheapest that was reached has flops = 1"):
            make(space(), seed=5, limits={"flops": 0.5}).ask(1)

    def test_an_unknown_limit_names_the_costs(self, make):
        with pytest.raises(SpaceError, match="it has: flops"):
            make(space(), limits={"latency": 3.0})

    def test_constraints_are_kept(self, make):
        rule = Constraint("no pooling when shallow", lambda x: x["depth"] > 1 or x["op"] != "pool")
        s = space(constraints=[rule])
        assert all(rule.check(x) for x in run(make(s, seed=6), BUDGET))

    def test_constraints_on_conditional_labels_are_kept(self, make):
        # The default of width2, 16, is what the rule forbids: inactive, it keeps its drawn value.
        rule = Constraint("width2 is not 16", lambda x: x["width2"] != 16)
        s = space(constraints=[rule])
        search = make(s, seed=6)
        assert all(rule.check(x) for x in run(search, BUDGET))

    def test_a_told_sample_is_kept_with_its_inactive_labels_at_their_defaults(self, make):
        s = space()
        search = make(s, seed=0)
        (sample,) = s.sample(1, np.random.default_rng(0))
        sample |= {"depth": 1, "width2": 64, "width3": 64}
        search.tell(sample, evaluate(sample))
        ((kept, _),) = search.history
        assert (kept["width2"], kept["width3"]) == (16, 16)

    def test_results_that_were_not_asked_are_learned_from(self, make):
        s = space()
        search = make(s, seed=0)
        given = s.sample(12, np.random.default_rng(0))
        for sample in given:
            search.tell(sample, evaluate(sample))
        asked = run(search, 8)
        assert not {s.key(x) for x in given} & {s.key(x) for x in asked}

    def test_a_result_replaces_a_failure_and_never_the_other_way(self, make):
        search = make(space(), seed=0)
        (sample,) = search.ask(1)
        search.tell(sample, None)
        search.tell(sample, evaluate(sample))
        search.tell(sample, None)
        assert search.history == [(sample, evaluate(sample))]

    def test_metrics_without_the_objective_are_told_and_cost_nothing(self, make):
        search = make(space(), seed=0)
        (sample,) = search.ask(1)
        wanted = "default, latency" if "latency" in search.needed else "default"
        with pytest.raises(ValueError, match=f"must have {wanted}, but lacks .*: it has accuracy"):
            search.tell(sample, {"accuracy": 0.9})
        for value in ("high", "0.9", math.inf, -math.inf, 1 + 0j, None, [0.9], 10**400):
            with pytest.raises(ValueError, match="default of a result must be a finite number"):
                search.tell(sample, {**evaluate(sample), "default": value, "note": 1.0})
        assert search.history == []
        assert search.pending() == [sample]
        search.tell(sample, {**evaluate(sample), "size": np.float32(0.5), "note": "good"})
        assert search.history == [(sample, {**evaluate(sample), "size": 0.5})]

    def test_a_constraint_that_is_no_number_is_not_taken_for_a_feasible_one(self, make):
        search = make(space(), seed=0)
        a, b = search.ask(2)
        for value in ("0.2", math.inf, None):
            with pytest.raises(ValueError, match="constraint:size of a result must be a finite"):
                search.tell(a, {**evaluate(a), "constraint:size": value})
        search.tell(a, {**evaluate(a), "constraint:size": math.nan})
        search.tell(b, {**evaluate(b), "constraint:size": 1.0})
        assert search.history == [(a, None), (b, {**evaluate(b), "constraint:size": 1.0})]

    def test_a_number_alone_is_the_one_objective(self, make):
        search = make(space(), seed=0)
        (sample,) = search.ask(1)
        if len(search.needed) == 1:
            search.tell(sample, np.float64(0.5))
            assert search.history == [(sample, {"default": 0.5})]
        else:
            with pytest.raises(ValueError, match="numbers by the names default, latency"):
                search.tell(sample, 0.5)

    def test_a_network_is_asked_for_once_unless_told_to(self, make):
        s = space(key=lambda x: (x["depth"], x["op"]))
        search = make(s, seed=0)
        asked = run(search, 12)
        assert len({(x["depth"], x["op"]) for x in asked}) == len(asked) == 9
        assert search.exhausted
        resumed = make(s, seed=0)
        resumed.load_state_dict(json.loads(json.dumps(search.state_dict())))
        assert resumed.ask(1) == []
        assert len(run(make(s, seed=0, repeat_networks=True), 12)) == 12

    def test_a_feasible_result_is_the_best(self, make):
        search = make(space(), seed=0)
        a, b, c = search.ask(3)
        search.tell(a, {"default": 3.0, "latency": 1.0, "constraint:size": 0.2})
        search.tell(b, {"default": 1.0, "latency": 1.0, "constraint:size": 0.0})
        search.tell(c, {"default": 2.0, "latency": 1.0, "constraint:size": -1.0})
        assert search.best()[0] == c

    def test_a_sample_of_another_space_is_refused(self, make):
        with pytest.raises(SpaceError):
            make(space()).tell({"a": 1}, {"default": 1.0})

    def test_a_state_of_another_kind_is_refused(self, make):
        search = make(space())
        state = search.state_dict()
        for broken in (
            {**state, "format": 99},
            {**state, "space": "other"},
            {**state, "search": "Other"},
            {k: v for k, v in state.items() if k != "rng"},
            {**state, "history": [[[0], None]]},
            {**state, "limits": {"flops": 1.5}},
            {**state, "objectives": [["other", "maximize", 1.0]]},
            {},
            [],
        ):
            with pytest.raises((FileFormatError, SpaceError)):
                make(space()).load_state_dict(broken)


def shrunk_and_measured(sample):
    """More is better, most of all whole branches; latency is what is left."""
    kept = [value / 16 for label, value in sample.items() if label.startswith("width")]
    gone = sum(value == "remove" for value in sample.values())
    return {"default": sum(kept) - gone, "latency": sum(kept)}


class TestContractOfMutations:
    """The part of the contract in which the space matters, on the edits of a network."""

    LIMIT = 150_000  # of 439,296 multiply-adds

    @pytest.mark.parametrize(
        "name",
        [
            pytest.param(name, marks=pytest.mark.slow if "learned" in name else ())
            for name in SEARCHES
        ],
    )
    def test_limits_on_exact_costs_are_never_exceeded(self, name):
        s = mutations()
        search = SEARCHES[name](s, seed=5, limits={"flops": self.LIMIT})
        asked = run(search, BUDGET, shrunk_and_measured)
        assert len({s.key(x) for x in asked}) == BUDGET
        for sample in asked:
            assert s.violation(sample) is None
            assert s.graph(sample).macs <= self.LIMIT

    @pytest.mark.slow
    def test_same_seed_same_result_and_it_resumes(self, make):
        whole, half = (make(mutations(), seed=3) for _ in range(2))
        assert run(whole, 12, shrunk_and_measured) == run(half, 12, shrunk_and_measured)
        resumed = make(mutations(), seed=99)
        resumed.load_state_dict(json.loads(json.dumps(half.state_dict(), allow_nan=False)))
        assert run(resumed, 8, shrunk_and_measured) == run(whole, 8, shrunk_and_measured)
        assert resumed.history == whole.history


@pytest.mark.parametrize(
    "kind",
    [RandomSearch, RegularizedEvolution, LocalSearch, PredictorTopK, NCPSearch, PNAGSearch],
)
def test_a_small_space_is_exhausted_without_an_error(kind):
    s = CodeSpace([Ordinal("a", (1, 2, 3)), Nominal("b", ("x", "y"))])
    search = kind(s, seed=0)
    asked = run(search, 10, lambda x: {"default": x["a"]})
    assert len({s.key(x) for x in asked}) == len(asked) == 6
    assert search.exhausted
    assert search.ask(3) == []


def test_a_needle_in_a_small_space_is_found_by_listing_it():
    s = CodeSpace(
        [Ordinal(f"a{i}", range(10)) for i in range(4)],
        constraints=[Constraint("all nines", lambda x: set(x.values()) == {9})],
    )
    search = RandomSearch(s, seed=0)
    assert search.ask(3) == [{f"a{i}": 9 for i in range(4)}]


def test_a_space_of_many_fixed_dimensions_can_be_listed():
    s = CodeSpace([*(Ordinal(f"f{i}", (1,)) for i in range(70)), Ordinal("a", (1, 2))])
    assert [x["a"] for x in sorted(RandomSearch(s).ask(5), key=lambda x: x["a"])] == [1, 2]


def test_a_resumed_search_goes_on_with_the_options_it_began_with():
    first = NCPSearch(space(), budget=30, rounds=3, starts=16, steps=5, exploration=2.0)
    run(first, 10)
    other = NCPSearch(space(), budget=99, rounds=1)
    other.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert (other.budget, other.rounds, other.starts, other.exploration) == (30, 3, 16, 2.0)


def test_objectives_must_differ():
    with pytest.raises(ValueError, match="objectives that differ"):
        RandomSearch(space(), objectives=("a", "a"))


def test_local_search_climbs_to_the_optimum_and_begins_anew():
    s = CodeSpace([Ordinal("a", range(9)), Ordinal("b", range(9))])
    search = LocalSearch(s, seed=0, initial=1)
    asked = run(search, 30, lambda x: {"default": -abs(x["a"] - 4) - abs(x["b"] - 4)})
    merits = [m["default"] for _, m in search.history]
    first = merits.index(0)
    # From the first sample on, each one is a neighbour of the best before it.
    for i in range(1, first + 1):
        steps = [abs(asked[i]["a"] - x["a"]) + abs(asked[i]["b"] - x["b"]) for x in asked[:i]]
        assert min(steps) == 1
    # The four neighbours of the optimum follow; then comes a random sample far from it.
    around = [x for x in asked if abs(x["a"] - 4) + abs(x["b"] - 4) == 1]
    assert len(around) == 4
    # What is asked next begins a new climb.
    last = max(asked.index(x) for x in around)
    assert abs(asked[last + 1]["a"] - 4) + abs(asked[last + 1]["b"] - 4) > 1


@pytest.mark.parametrize("kind", ["evolution", "ncp", "local"])
def test_it_finds_better_than_random(kind):
    def best(make, seed):
        search = make(space(), seed=seed)
        run(search, BUDGET)
        return search.best()[1]["default"]

    found = np.mean([best(SEARCHES[kind], s) for s in range(5)])
    assert found > np.mean([best(SEARCHES["random"], s) for s in range(5)])


def test_log_regret_by_hand():
    # The upper half of 0, 2, 3, 4 is 3, 4 with deviation 0.5: the slack is 0.05.
    assert log_regret(np.array([4.0, 0.0, 3.0, 2.0])).tolist() == pytest.approx(
        [-math.log(0.05), -math.log(4.05), -math.log(1.05), -math.log(2.05)]
    )
    assert np.isfinite(log_regret(np.ones(5))).all()


def test_warmup_is_a_share_of_the_budget_or_a_number():
    assert RandomWarmup().of(100) == 30
    assert RandomWarmup(count=7).of(100) == 7
    assert RandomWarmup(count=7).of(5) == 5
    with pytest.raises(ValueError, match="fraction"):
        RandomWarmup(1.5)
    with pytest.raises(ValueError, match="count"):
        RandomWarmup(count=0)


@pytest.mark.parametrize("lr", [0, -1.0, math.nan, math.inf, "fast"])
def test_a_learning_rate_is_positive(lr):
    with pytest.raises(ValueError, match="a positive number, but got"):
        NCPSearch(space(), lr=lr)
