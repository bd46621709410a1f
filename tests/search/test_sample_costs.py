"""Limits on costs that are functions of samples: graphs, Python functions, tables, measurements."""

import json
import math
import zlib

import numpy as np
import pytest
from torch import nn

from nni_aiop.errors import FileFormatError, InfeasibleError
from nni_aiop.generators import BudgetGrid, ParetoGenerator, TrainingOptions, load_generator
from nni_aiop.graphs import from_module
from nni_aiop.predictors import make_predictor
from nni_aiop.search import (
    LocalSearch,
    NCPSearch,
    PNAGSearch,
    PredictorTopK,
    RandomSearch,
    RegularizedEvolution,
    Task,
    propagate,
)
from nni_aiop.spaces import (
    CodeSpace,
    Condition,
    Nominal,
    Ordinal,
    SampleCost,
    TableCost,
)

BUDGET = 18

DIMENSIONS = [
    Ordinal("depth", (1, 2, 3)),
    Nominal("op", ("relu", "tanh", "silu")),
    Ordinal("width1", (4, 8, 12, 16)),
    Ordinal("width2", (4, 8, 12, 16)),
    Ordinal("width3", (4, 8, 12, 16)),
    Ordinal("kernel", (1, 3, 5)),
]

CONDITIONS = {"width2": Condition("depth", (2, 3)), "width3": Condition("depth", (3,))}


def build(sample):
    layers, channels = [], 1
    for i in range(1, sample["depth"] + 1):
        width, kernel = sample[f"width{i}"], sample["kernel"]
        layers += [nn.Conv2d(channels, width, kernel, padding=kernel // 2)]
        layers += [{"relu": nn.ReLU, "tanh": nn.Tanh, "silu": nn.SiLU}[sample["op"]]()]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def macs(sample):
    """Of 8 x 8 pixels, by hand."""
    total, channels = 0, 1
    for i in range(1, sample["depth"] + 1):
        total += 64 * channels * sample[f"width{i}"] * sample["kernel"] ** 2
        channels = sample[f"width{i}"]
    return total + 10 * channels


def graph(sample):
    return from_module(build(sample), (1, 1, 8, 8))


class Counted:
    """A function of a sample that notes whom it was asked about."""

    def __init__(self, function=macs):
        self.function = function
        self.asked = []

    def __call__(self, sample):
        self.asked.append(tuple(sorted(sample.items())))
        return self.function(sample)


def millisecond(sample):
    """A deterministic measurement: what depends on the network, and some noise of its own."""
    noise = np.random.default_rng(zlib.crc32(repr(sorted(sample.items())).encode())).normal()
    return 0.1 + macs(sample) / 1e5 * (1 + 0.02 * noise)


def plain_space(**options):
    return CodeSpace(DIMENSIONS, name="net", conditions=CONDITIONS, **options)


def tabulated():
    space = plain_space()
    samples = space.from_points(space.enumerate_points())
    return space.with_cost("flops", TableCost(space, [(s, macs(s)) for s in samples]))


KINDS = {
    "graph": lambda: plain_space(graph=graph),
    "function": lambda: plain_space(costs={"flops": SampleCost(macs)}),
    "quick": lambda: plain_space(costs={"flops": SampleCost(macs, quick=True)}),
    "batched": lambda: plain_space(
        costs={"flops": SampleCost(lambda samples: [macs(s) for s in samples], batched=True)}
    ),
    "table": tabulated,
    "measured": lambda: plain_space(costs={"flops": SampleCost(macs, noisy=True, initial=16)}),
}


def evaluate(sample):
    """The more the better: what a limit has to hold back."""
    return {"default": math.log(macs(sample)) + (sample["op"] == "silu"), "latency": 1.0}


SMALL_PNAG = {
    "rounds": 2,
    "levels": 3,
    "pool": 40,
    "drawn": 40,
    "evaluator_steps": 5,
    "generator_steps": 3,
    "predictor": lambda s, seed: make_predictor("gp", s, seed, steps=5),
}

NCP = {"budget": BUDGET, "rounds": 3, "starts": 16, "steps": 5}

SEARCHES = {
    "random": lambda space, **o: RandomSearch(space, **o),
    "evolution": lambda space, **o: RegularizedEvolution(space, population=8, tournament=3, **o),
    "local": lambda space, **o: LocalSearch(space, initial=4, **o),
    "top-k": lambda space, **o: PredictorTopK(space, budget=BUDGET, pool=300, **o),
    "ncp": lambda space, **o: NCPSearch(space, **NCP, **o),
    "ncp-cost": lambda space, **o: NCPSearch(space, **NCP, cost="flops", lam=0.3, **o),
    "pnag": lambda space, **o: PNAGSearch(space, budget=BUDGET, **SMALL_PNAG, **o),
}


def run(search, n=BUDGET):
    out = []
    for _ in range(n):
        for sample in search.ask(1):
            search.tell(sample, evaluate(sample))
            out.append(sample)
    return out


@pytest.fixture(params=SEARCHES)
def make(request):
    return SEARCHES[request.param]


class TestEverySearch:
    @pytest.mark.parametrize(
        ("kind", "limit"),  # half of the networks, and few
        [("function", 60_000), ("graph", 60_000), *((kind, 4_000) for kind in KINDS)],
    )
    def test_nothing_that_is_asked_exceeds_a_limit(self, make, kind, limit):
        search = make(KINDS[kind](), seed=1, limits={"flops": limit})
        asked = run(search)
        assert len(asked) == BUDGET
        assert max(macs(s) for s in asked) <= limit
        assert len({search.space.key(s) for s in asked}) == BUDGET

    @pytest.mark.parametrize("limit", [60_000, 4_000])
    def test_a_cost_is_evaluated_once_and_seldom(self, make, limit):
        count = Counted()
        space = plain_space(costs={"flops": SampleCost(count)})
        asked = run(make(space, seed=2, limits={"flops": limit}))
        assert len(set(count.asked)) == len(count.asked)
        assert {tuple(sorted(s.items())) for s in asked} <= set(count.asked)
        assert len(count.asked) <= 48 + 12 * BUDGET

    def test_the_same_seed_gives_the_same_whatever_was_evaluated_before(self, make):
        space = plain_space(costs={"flops": SampleCost(macs)})
        first = run(make(space, seed=3, limits={"flops": 20_000}))
        space.cost("flops", space.encode(space.sample(100, np.random.default_rng(7))))
        assert run(make(space, seed=3, limits={"flops": 20_000})) == first

    def test_a_state_resumes_to_the_identical_proposals(self, make):
        def fresh():
            count = Counted()
            cost = SampleCost(count, noisy=True, initial=16)
            space = plain_space(costs={"flops": cost})
            return count, make(space, seed=4, limits={"flops": 20_000})

        _, whole = fresh()
        before, half = fresh()
        run(whole, 9)
        run(half, 9)
        after, resumed = fresh()
        resumed.load_state_dict(json.loads(json.dumps(half.state_dict(), allow_nan=False)))
        assert run(resumed, 6) == run(whole, 6)
        # But for what tells whether the cost is one at all, nothing is measured twice.
        assert len(set(before.asked) & set(after.asked)) <= 1

    def test_an_impossible_limit_is_one_sentence_after_few_evaluations(self, make):
        count = Counted()
        space = plain_space(costs={"flops": SampleCost(count)})
        with pytest.raises(InfeasibleError, match="the cheapest that was reached has flops = 296"):
            make(space, seed=5, limits={"flops": 100}).ask(1)
        assert len(count.asked) <= 600


class TestPropagation:
    def fitted(self, space):
        samples = space.sample(40, np.random.default_rng(0))
        targets = {"default": np.array([evaluate(s)["default"] for s in samples])}
        return make_predictor("gp", space, 0, steps=30).fit(space.encode(samples), targets)

    @pytest.mark.parametrize("strategy", ["continuous", "winner-takes-all"])
    @pytest.mark.parametrize("kind", KINDS)
    def test_what_it_returns_keeps_a_limit(self, kind, strategy):
        space = KINDS[kind]()
        starts = space.sample(6, np.random.default_rng(1))
        limit = 20_000
        run = propagate(
            space,
            Task(self.fitted(space)),
            starts,
            cost="flops",
            strategy=strategy,
            steps=10,
            limits={"flops": limit},
        )
        assert all(macs(s) <= limit for s in run.best(5))
        assert all(macs(s) <= limit for s in run.final())

    def test_a_lower_cost_is_what_its_stand_in_leads_to(self):
        space = plain_space(costs={"flops": SampleCost(macs), "other": SampleCost(macs)})
        flat = make_predictor("gp", space, 0, steps=5)
        codes = space.encode(space.sample(10, np.random.default_rng(0)))
        flat.fit(codes, {"default": np.ones(10)})
        run = propagate(space, Task(flat), space.sample(8, np.random.default_rng(2)), cost="flops")
        assert set(run.costs) == {"flops"}  # nobody asked about the other one
        ends = [macs(s) for s in run.final()]
        assert np.mean(ends) < 0.2 * np.mean([macs(s) for s in space.from_points(run.points[0])])


class TestGenerator:
    @pytest.mark.parametrize("kind", [k for k in KINDS if k != "graph"])
    def test_what_it_generates_keeps_the_budget(self, kind, tmp_path):
        space = KINDS[kind]()
        rng = np.random.default_rng(0)
        points = np.unique(space.settled_points(space.sample(60, rng)), axis=0)
        codes = space.encode_points(points)
        accuracy = [evaluate(s)["default"] for s in space.from_points(points)]
        grid = BudgetGrid({"flops": (5_000.0, 50_000.0, 200_000.0)})
        options = {"hidden": 16, "evaluator": {"hidden": 16, "steps": 10, "batch_size": 16}}
        training = TrainingOptions(steps=5, samples=4)
        generator = ParetoGenerator(space, grid, training=training, **options).fit(codes, accuracy)
        for budget, n in ((5_000.0, 3), (12_345.0, 5), (200_000.0, 20)):
            found = generator.generate(budget, n)
            assert len({space.key(s) for s in found}) == n
            assert max(macs(s) for s in found) <= budget
        assert generator.generate(400.0, 2, extrapolate=True)
        with pytest.raises(InfeasibleError, match="has flops = 296"):
            generator.generate(100.0)
        generator.save(tmp_path / "g.safetensors")
        again = load_generator(tmp_path / "g.safetensors", KINDS[kind]())
        assert again.generate(12_345.0, 5, seed=3) == generator.generate(12_345.0, 5, seed=3)

    def test_a_search_generates_within_exact_budgets(self):
        search = PNAGSearch(
            plain_space(costs={"flops": SampleCost(macs)}),
            budget=BUDGET,
            targets={"flops": [4_000, 30_000]},
            **SMALL_PNAG,
        )
        run(search)
        for budget in (4_000, 11_111):
            assert all(macs(s) <= budget for s in search.generate(budget, 4))
        found, _ = search.best()
        assert macs(found) <= 30_000

    def test_a_cost_of_zero_has_budgets_too(self):
        def extra(sample):
            return macs(sample) - macs({**sample, "depth": 1, "width1": 4, "kernel": 1})

        space = plain_space(costs={"flops": SampleCost(extra)})
        search = PNAGSearch(space, budget=BUDGET, targets={"flops": 4_000}, **SMALL_PNAG)
        run(search)
        assert all(extra(s) <= 4_000 for s in search.generate(4_000, 3))


def test_two_limits_of_different_kinds_are_both_kept():
    space = plain_space(
        graph=graph,
        costs={
            "slots": lambda codes: 1 + 2 * codes[:, 0],
            "ms": SampleCost(millisecond, noisy=True, initial=16),
        },
    )
    limits = {"slots": 2.0, "ms": 0.3, "params": 800}
    for kind in ("random", "ncp", "pnag"):
        for sample in run(SEARCHES[kind](space, seed=0, limits=limits)):
            assert sample["depth"] <= 2 and millisecond(sample) <= 0.3
            assert graph(sample).parameters <= 800


def test_a_limit_that_few_of_a_large_space_keep_takes_seconds_not_minutes():
    count = Counted(lambda s: math.prod(s.values()))
    space = CodeSpace(
        [Ordinal(f"w{i}", tuple(range(1, 11))) for i in range(10)],
        costs={"x": SampleCost(count)},
    )
    for kind in ("random", "evolution", "ncp"):
        count.asked.clear()
        search = SEARCHES[kind](space, seed=0, limits={"x": 100})
        for _ in range(6):
            (sample,) = search.ask(1)
            assert math.prod(sample.values()) <= 100
            search.tell(sample, {"default": sum(sample.values())})
        assert len(count.asked) <= 700


def test_the_last_networks_within_a_limit_are_found_and_then_it_is_exhausted():
    space = plain_space(costs={"flops": SampleCost(macs)})
    limit = 2_000
    within = {space.key(s) for s in space.from_points(space.enumerate_points()) if macs(s) <= limit}
    search = RandomSearch(space, limits={"flops": limit}, seed=0)
    asked = run(search, len(within) + 3)
    assert {space.key(s) for s in asked} == within
    assert search.exhausted


def test_a_state_of_before_there_were_such_costs_is_read():
    space = plain_space(costs={"flops": SampleCost(macs)})
    search = RandomSearch(space, limits={"flops": 20_000})
    run(search, 4)
    state = {k: v for k, v in search.state_dict().items() if k != "costs"}
    again = RandomSearch(space, limits={"flops": 20_000})
    again.load_state_dict(state)
    assert again.history == search.history
    broken = {"flops": {"designed": False, "points": [[0] * 6], "values": ["many"]}}
    short = {"flops": {**broken["flops"], "values": []}}
    for costs in (broken, short, {"flops": 3}, {"flops": {}}, []):
        with pytest.raises(FileFormatError):
            RandomSearch(space, limits={"flops": 20_000}).load_state_dict({**state, "costs": costs})
