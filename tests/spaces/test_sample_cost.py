"""Costs that are functions of samples: values, what is evaluated, refusals, estimates."""

import copy
import math
import operator
import pickle
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn

from nni_aiop.errors import InfeasibleError, SpaceError, UnknownCostWarning
from nni_aiop.graphs import from_module
from nni_aiop.search import NCPSearch, PNAGSearch, RandomSearch, RegularizedEvolution
from nni_aiop.search_spaces import digits
from nni_aiop.spaces import (
    CodeSpace,
    Condition,
    Constraint,
    CostBook,
    Nominal,
    Ordinal,
    SampleCost,
    TableCost,
    cheapest,
    check_limits,
    repair,
)
from nni_aiop.spaces._stand_in import StandIn

DIMENSIONS = [Ordinal("depth", (1, 2, 3)), Ordinal("width", (8, 16, 32)), Nominal("op", ("a", "b"))]


def area(sample):
    return sample["depth"] * sample["width"] ** 2


def build(sample):
    layers, channels = [], 3
    for _ in range(sample["depth"]):
        layers += [nn.Conv2d(channels, sample["width"], 3, padding=1), nn.ReLU()]
        channels = sample["width"]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def small_graph(sample):
    return from_module(build(sample), (1, 3, 8, 8))


def drawn(shape=(1, 3, 8, 8), **options):
    return CodeSpace(DIMENSIONS, graph=lambda sample: from_module(build(sample), shape), **options)


def wide(n=12, **options):
    """A space that is too large to be listed."""
    return CodeSpace([Ordinal(f"w{i}", tuple(range(1, 9))) for i in range(n)], **options)


class TestGraphs:
    def test_costs_are_those_of_the_decoded_network(self):
        space = drawn((2, 3, 8, 8))
        codes = np.random.default_rng(0).random((12, space.width))
        for i, sample in enumerate(space.decode(codes)):
            graph = from_module(build(sample), (2, 3, 8, 8))
            assert space.cost("flops", codes)[i] == graph.macs
            assert space.cost("macs", codes)[i] == graph.macs  # multiply-adds, as in ready spaces
            assert space.cost("params", codes)[i] == graph.parameters
            assert space.cost("peak_memory", codes)[i] == graph.peak_memory()

    def test_a_graph_is_made_once_for_all_costs_and_only_when_asked(self):
        made = []

        def graph(sample):
            made.append(tuple(sample.values()))
            return from_module(build(sample), (1, 3, 8, 8))

        space = CodeSpace(DIMENSIONS, graph=graph)
        assert made == []
        codes = space.encode_points(space.enumerate_points())
        for name in ("flops", "params", "peak_memory"):
            space.cost(name, codes)
        assert len(made) == len(set(made)) == 18
        copied = space.with_cost("area", SampleCost(area))
        copied.cost("flops", codes)
        assert len(made) == 18

    def test_they_are_pickled_with_what_is_known(self):
        space = CodeSpace(DIMENSIONS, graph=small_graph)
        code = space.encode([{"depth": 2, "width": 8}])
        flops = space.cost("flops", code)
        other = pickle.loads(pickle.dumps(space))
        other.costs["flops"].figures.graph = None  # nothing is made anew
        assert other.cost("flops", code) == flops
        assert other.cost("params", code) == space.cost("params", code)

    def test_what_is_given_goes_before_the_graph(self):
        space = drawn(costs={"flops": SampleCost(area)})
        assert list(space.costs) == ["flops", "macs", "params", "peak_memory"]
        assert space.shown_costs() == ["flops"]
        assert space.shown_costs(["params"]) == ["flops", "params"]
        named = CodeSpace([Ordinal("params", (1, 2))], graph=lambda s: None)
        assert "params" not in named.costs

    def test_a_ready_space_has_what_it_did_not_give(self):
        space = digits.code_space()
        (sample,) = space.sample(1, np.random.default_rng(0))
        code = space.encode([space.settled(sample)])
        graph = digits.graph(space.settled(sample))
        assert space.cost("peak_memory", code)[0] == graph.peak_memory()
        assert space.cost("macs", code)[0] == space.cost("flops", code)[0] == graph.macs
        assert space.shown_costs() == ["flops", "params"]

    def test_random_numbers_of_pytorch_stay_as_they_were(self):
        space = drawn()
        torch.manual_seed(0)
        before = torch.get_rng_state()
        space.cost("flops", space.encode([{"depth": 1, "width": 8}]))
        assert torch.equal(torch.get_rng_state(), before)

    def test_what_counts_as_nothing_is_warned_of_once(self):
        class Odd(nn.Module):
            def forward(self, x):
                return torch.special.bessel_j0(torch.linalg.inv(x))

        space = CodeSpace([Ordinal("n", (1, 2, 3))], graph=lambda s: from_module(Odd(), (4, 4)))
        with pytest.warns(UnknownCostWarning, match="count as nothing in its flops") as found:
            space.cost("flops", [[0.0], [0.5], [1.0]])
        assert len(found) == 1


class TestFunctions:
    def test_an_architecture_is_evaluated_once(self):
        asked = []

        def cost(sample):
            asked.append(dict(sample))
            return area(sample)

        space = CodeSpace(
            DIMENSIONS,
            conditions={"width": Condition("depth", (2, 3))},
            costs={"area": SampleCost(cost)},
        )
        samples = [{"depth": 1, "width": w, "op": "a"} for w in (8, 16, 32)]
        assert space.cost("area", space.encode(samples)).tolist() == [256.0] * 3
        assert asked == [{"depth": 1, "width": 16, "op": "a"}]  # inactive: at its default

    def test_the_function_gets_a_sample_of_its_own(self):
        def greedy(sample):
            return sample.pop("depth")

        space = CodeSpace(DIMENSIONS, costs={"x": SampleCost(greedy)})
        assert space.cost("x", space.encode([{"depth": 3}])).tolist() == [3.0]

    def test_a_batch_is_one_call(self):
        calls = []

        def cost(samples):
            calls.append(len(samples))
            return np.array([area(s) for s in samples])

        space = CodeSpace(DIMENSIONS, costs={"area": SampleCost(cost, batched=True)})
        codes = space.encode_points(space.enumerate_points())
        expected = [area(s) for s in space.decode(codes)]
        assert space.cost("area", codes).tolist() == expected
        assert calls == [18]

    @pytest.mark.parametrize(
        "value", [None, math.nan, math.inf, -math.inf, np.float64("nan"), torch.tensor(math.nan)]
    )
    def test_an_unknown_cost_is_nan_and_not_within_a_limit(self, value):
        cost = SampleCost(lambda s: value if s["depth"] == 2 else torch.tensor(1.5))
        space = CodeSpace(DIMENSIONS, costs={"x": cost})
        found = space.cost("x", space.encode([{"depth": 1}, {"depth": 2}]))
        assert found[0] == 1.5 and math.isnan(found[1])
        asked = RandomSearch(space, limits={"x": 2.0}).ask(12)
        assert {s["depth"] for s in asked} == {1, 3} and len(asked) == 12

    def test_an_exception_is_warned_of_once_and_not_within_a_limit(self):
        def cost(sample):
            if sample["depth"] == 3:
                raise ValueError("too deep")
            return 1.0

        space = CodeSpace(DIMENSIONS, costs={"x": SampleCost(cost)})
        with pytest.warns(UserWarning, match="ValueError: too deep.*depth=3") as found:
            asked = RandomSearch(space, limits={"x": 2.0}).ask(18)
        assert len(found) == 1 and len(asked) == 12 and max(s["depth"] for s in asked) == 2

    def test_a_limit_that_is_met_exactly_is_kept(self):
        space = CodeSpace(DIMENSIONS, costs={"area": SampleCost(area)})
        asked = RandomSearch(space, limits={"area": 256}).ask(18)
        assert sorted(map(area, asked)) == [64, 64, 128, 128, 192, 192, 256, 256]

    def test_costs_survive_copies_and_pickles(self):
        space = CodeSpace(DIMENSIONS, costs={"area": SampleCost(area, noisy=True)})
        code = space.encode([{"depth": 2, "width": 8}])
        space.cost("area", code)
        for other in (copy.copy(space), copy.deepcopy(space), pickle.loads(pickle.dumps(space))):
            assert other.cost("area", code).tolist() == [128.0]
            assert other.fingerprint == space.fingerprint == CodeSpace(DIMENSIONS).fingerprint
            assert next(iter(other.costs["area"]._known.values())) == 128.0

    def test_a_cost_is_added_to_a_ready_space(self):
        plain = digits.code_space()
        space = plain.with_cost("depths", SampleCost(lambda s: 1 + s["depth_1"] + s["depth_2"]))
        assert "depths" not in plain.costs and space.fingerprint == plain.fingerprint
        assert space.shown_costs() == ["flops", "params", "depths"]
        asked = NCPSearch(space, budget=8, limits={"depths": 1, "flops": 50_000}).ask(6)
        assert all(s["depth_1"] == s["depth_2"] == 0 for s in asked)
        codes = space.encode([space.settled(s) for s in asked])
        assert (space.cost("flops", codes) <= 50_000).all()
        replaced = space.with_cost("depths", SampleCost(lambda s: 7))
        assert replaced.cost("depths", codes).tolist() == [7.0] * 6

    @pytest.mark.parametrize("bad", [3, "flops", None, [area]])
    def test_no_function_is_no_cost(self, bad):
        with pytest.raises(SpaceError, match="must be a function"):
            CodeSpace(DIMENSIONS, costs={"x": bad})
        with pytest.raises(SpaceError, match="must be a function"):
            CodeSpace(DIMENSIONS).with_cost("x", bad)
        with pytest.raises(SpaceError, match="must be a function"):
            SampleCost(bad)

    def test_too_few_values_to_learn_from(self):
        with pytest.raises(SpaceError, match="initial must be at least 8, but got 0"):
            SampleCost(area, initial=0)


ROWS = [({"depth": d, "width": w, "op": "a"}, 1.0 * d * w) for d in (1, 2) for w in (8, 16)]


class TestTables:
    def test_rows_by_sample_or_by_key(self):
        plain = CodeSpace(DIMENSIONS)
        by_key = {plain.network_key(s): v for s, v in ROWS}
        for rows in (ROWS, iter(ROWS), by_key):
            space = plain.with_cost("ms", TableCost(plain, rows))
            code = space.encode([{"depth": 2, "width": 8}, {"depth": 3}, {"op": "b"}])
            np.testing.assert_array_equal(space.cost("ms", code), [16.0, np.nan, np.nan])

    def test_only_its_rows_are_within_a_limit(self):
        plain = CodeSpace(DIMENSIONS)
        space = plain.with_cost("ms", TableCost(plain, ROWS))
        for kind in (RandomSearch, NCPSearch):
            asked = kind(space, limits={"ms": 16.0}).ask(9)
            assert sorted((s["depth"], s["width"], s["op"]) for s in asked) == [
                (1, 8, "a"), (1, 16, "a"), (2, 8, "a"),
            ]  # fmt: skip

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ([], "at least one number"),
            ([({"depth": 1}, None), ({"depth": 2}, math.nan)], "at least one number"),
            ([({"depth": 1}, 2.0), ({"depth": 1}, 3.0)], "one number in a table"),
            ([({"depth": 9}, 2.0)], "must be one of"),
            ([({"deepness": 1}, 2.0)], "must have the label"),
            ([({"depth": 1}, "fast")], "pairs of a sample and a number"),
            ([3], "pairs of a sample and a number"),
        ],
    )
    def test_what_is_no_table(self, rows, message):
        with pytest.raises(SpaceError, match=message):
            TableCost(CodeSpace(DIMENSIONS), rows)

    @pytest.mark.parametrize("kind", [RandomSearch, NCPSearch, PNAGSearch, RegularizedEvolution])
    def test_few_rows_of_a_large_space_are_found(self, kind):
        space = wide()
        samples = space.sample(9, np.random.default_rng(0))
        costed = space.with_cost("ms", TableCost(space, [(s, i) for i, s in enumerate(samples)]))
        search = kind(costed, limits={"ms": 5}, seed=0)
        asked = []
        for _ in range(8):
            for sample in search.ask(1):
                asked.append(sample)
                search.tell(sample, sum(sample.values()))
        assert sorted(map(samples.index, asked)) == [0, 1, 2, 3, 4, 5]
        assert search.exhausted

    def test_networks_of_one_key_share_a_row(self):
        space = CodeSpace(
            [Ordinal("a", (1, 2)), Ordinal("b", (1, 2))], key=lambda s: sorted(s.values())
        )
        table = TableCost(space, [({"a": 1, "b": 2}, 5.0)])
        found = space.with_cost("ms", table)
        assert found.cost("ms", found.encode([{"a": 2, "b": 1}])).tolist() == [5.0]

    def test_it_is_pickled(self):
        plain = CodeSpace(DIMENSIONS)
        space = pickle.loads(pickle.dumps(plain.with_cost("ms", TableCost(plain, ROWS))))
        assert space.cost("ms", space.encode([ROWS[0][0]])).tolist() == [8.0]


class TestWhatIsRefused:
    """When a search is made, before anything is paid for, and in one sentence."""

    @pytest.mark.parametrize(
        ("cost", "problem"),
        [
            (lambda c: torch.as_tensor(c.detach().numpy().sum(1)), "does not depend on the codes"),
            (lambda c: c.numpy().sum(1), "raises RuntimeError"),
            (lambda c: c.detach().sum(1), "by torch"),
            (lambda c: c.sum(), r"has the shape \(\)"),
            (lambda c: c.sum(1, keepdim=True), r"has the shape \(8, 1\)"),
            (lambda c: c[:3, 0], r"has the shape \(3,\)"),
            (lambda c: c.sum(1) * torch.nan, "is NaN at all"),
            (lambda c: (8 * c.sum(1)).round(), "its gradient is 0 everywhere"),
            (lambda c: (c > 0.5).sum(1), "is of torch.int64"),
            (lambda c: (c > 0.5).double().sum(1), "by torch"),
            (lambda c: torch.ones(len(c)), "does not depend on the codes"),
            (lambda c: 3.0, "returns float"),
            (lambda c: [1.0] * len(c), "returns list"),
            (lambda c: c @ torch.ones(c.shape[1]), "raises RuntimeError"),  # single, not double
            (lambda c: c @ torch.ones(c.shape[1]).double(), "raises RuntimeError"),
            (area, "raises"),
            (operator.itemgetter("depth"), "raises"),
        ],
    )
    @pytest.mark.parametrize("how", ["limits", "cost"])
    def test_a_function_of_codes_that_no_gradient_goes_through(self, cost, problem, how):
        space = CodeSpace(DIMENSIONS, costs={"x": cost})
        options = {"limits": {"x": 5.0}} if how == "limits" else {"cost": "x"}
        with pytest.raises(SpaceError, match=f"{problem}.*: give any other function as SampleCost"):
            NCPSearch(space, **options)

    @pytest.mark.parametrize(
        ("cost", "problem"),
        [
            (lambda s: s["depht"], "KeyError: 'depht'"),
            (lambda s: "fast", "ValueError"),
            (lambda s: math.nan, "no number"),
            (lambda s: None, "no number"),
            (lambda s: {"ms": 1.0}, "TypeError"),
        ],
    )
    def test_a_function_of_samples_that_gives_no_number(self, cost, problem):
        space = CodeSpace(DIMENSIONS, costs={"x": SampleCost(cost)})
        told = pytest.warns(UserWarning) if "Error" in problem else nullcontext()
        refused = pytest.raises(SpaceError, match=f"must be a number for some sample.*{problem}")
        with told, refused:
            NCPSearch(space, limits={"x": 5.0})

    def test_what_is_in_order_is_asked_once(self):
        asked = []

        def cost(codes):
            asked.append(codes.dtype)
            return codes.sum(1)

        space = CodeSpace(DIMENSIONS, costs={"x": cost})
        for _ in range(3):
            check_limits(space, {"x": 1.0})
        assert asked == [torch.float64, torch.float32]

    def test_a_cost_that_is_unknown_here_and_there_is_in_order(self):
        space = CodeSpace(
            DIMENSIONS, costs={"x": lambda c: torch.where(c[:, 0] < 0.4, torch.nan, c.sum(1))}
        )
        assert all(s["depth"] > 1 for s in RandomSearch(space, limits={"x": 9.0}).ask(5))


class TestEstimates:
    def test_an_estimate_is_exact_where_it_was_evaluated_and_near_elsewhere(self):
        def product(sample):
            return math.prod(sample[f"w{i}"] for i in range(4)) + sample["w5"]

        space = wide(6, costs={"x": SampleCost(product)})
        book = CostBook(space)
        points = space.points(space.sample(300, np.random.default_rng(1)))
        exact = np.array([product(s) for s in space.from_points(points)])
        book.exact("x", points[:200])
        found = book.estimate("x", points)
        np.testing.assert_array_equal(found[:200], exact[:200])
        assert np.median(np.abs(found[200:] / exact[200:] - 1)) < 0.1
        assert (book.optimistic("x", points)[200:] <= found[200:]).all()

    def test_the_stand_in_has_the_gradient_of_its_own_values(self):
        rng = np.random.default_rng(0)
        codes = rng.random((60, 4))
        stand_in = StandIn(codes, np.exp(codes @ [1.0, 2.0, 0.0, -1.0]))
        leaf = torch.tensor(rng.random((5, 4)), requires_grad=True)
        assert torch.autograd.gradcheck(stand_in, (leaf,))
        (gradient,) = torch.autograd.grad(stand_in(leaf).sum(), leaf)
        assert (gradient[:, 1] > 0).all() and (gradient[:, 3] < 0).all()
        single = stand_in(leaf.detach().float())
        assert single.dtype == torch.float32
        np.testing.assert_allclose(single.numpy(), stand_in(leaf).detach().numpy(), rtol=1e-4)
        means, lows = stand_in.range_of(codes, 1.0)
        np.testing.assert_allclose(means, np.exp(codes @ [1.0, 2.0, 0.0, -1.0]), rtol=0.02)
        assert (lows <= means).all()

    @pytest.mark.parametrize(
        "costs", [np.ones(9), np.zeros(9), -np.arange(9.0), np.arange(9) * 1e300]
    )
    def test_constant_negative_and_huge_costs_are_learned(self, costs):
        codes = np.linspace(0, 1, 9)[:, None]
        means, lows = StandIn(codes, costs).range_of(codes, 1.0)
        assert np.isfinite(means).all() and np.isfinite(lows).all()

    def test_the_same_values_in_the_same_order_give_the_same_estimates(self):
        space = wide(6, costs={"x": SampleCost(lambda s: sum(s.values()))})
        points = space.points(space.sample(90, np.random.default_rng(1)))
        first, second = CostBook(space), CostBook(space)
        for book in (first, second):
            book.exact("x", points[:30])
            book.prepare("x")
            if book is second:  # learned in between, and evaluated for another book
                book.estimate("x", points)
                CostBook(space).exact("x", points)
            book.exact("x", points[30:70])
        np.testing.assert_array_equal(first.estimate("x", points), second.estimate("x", points))
        third = CostBook(space)
        third.load_state(first.state())
        np.testing.assert_array_equal(third.estimate("x", points), first.estimate("x", points))

    def test_a_cost_that_is_never_known_is_one_sentence(self):
        space = wide(6, costs={"x": SampleCost(lambda s: math.nan)})
        with pytest.raises(InfeasibleError, match="of 48 that were looked at none is"):
            CostBook(space).function("x")


class TestCheapest:
    @pytest.mark.parametrize("n", [4, 12])  # listed, and too many to be
    def test_it_is_found_in_few_evaluations(self, n):
        asked = []

        def cost(sample):
            asked.append(sample)
            return 5 + sum((v - 2) ** 2 * (i + 1) for i, v in enumerate(sample.values()))

        space = wide(n, costs={"x": SampleCost(cost)})
        sample, least = cheapest(space, "x")
        assert least == 5.0 and set(sample.values()) == {2}
        assert len(asked) <= 200

    def test_a_tight_limit_is_reached_by_repair_in_few_evaluations(self):
        asked = []

        def cost(sample):
            asked.append(sample)
            return math.prod(sample.values())

        space = wide(8, costs={"x": SampleCost(cost)})
        drawn = space.sample(3, np.random.default_rng(0))
        for rng in (None, np.random.default_rng(0)):
            asked.clear()
            repaired = repair(space, drawn, {"x": 4.0}, rng)
            assert max(math.prod(s.values()) for s in repaired) <= 4
            assert len(asked) <= 48 + 3 * 64

    def test_constraints_are_kept(self):
        space = wide(
            8,
            costs={"x": SampleCost(lambda s: math.prod(s.values()))},
            constraints=[
                Constraint("the first is the largest", lambda s: s["w0"] == max(s.values()))
            ],
        )
        sample, least = cheapest(space, "x")
        assert least == 1.0 and space.violation(sample) is None
        asked = RandomSearch(space, limits={"x": 50}).ask(5)
        assert all(space.violation(s) is None and math.prod(s.values()) <= 50 for s in asked)
