"""CodeSpace on a hand-made space with every kind of dimension, and what every ready space must
satisfy."""

import json
import math

import numpy as np
import pytest

from nni_aiop.errors import InfeasibleError, SpaceError
from nni_aiop.graphs import GraphWriter
from nni_aiop.search_spaces import SPACES, get_space
from nni_aiop.spaces import (
    CodeSpace,
    Condition,
    Constraint,
    Continuous,
    Nominal,
    Ordinal,
    Subset,
)
from tests.spaces.mutation_spaces import mutations


def mixed() -> CodeSpace:
    return CodeSpace(
        [
            Ordinal("depth", (1, 2, 3)),
            Nominal("op2", ("conv", "pool")),
            Ordinal("kernel2", (3, 5, 7)),
            Continuous("dropout", 0.0, 0.5),
            Subset("inputs", ("a", "b", "c"), 2),
        ],
        name="mixed",
        conditions={
            "op2": Condition("depth", (2, 3)),
            "kernel2": [Condition("op2", ("conv",))],
        },
    )


def wide() -> CodeSpace:
    """A hundred dimensions, half of them one-hot."""
    return CodeSpace(
        [
            Ordinal(f"c{i}", range(8, 136, 8)) if i % 2 else Nominal(f"op{i}", tuple("abcde"))
            for i in range(100)
        ],
        name="wide",
    )


def linked() -> CodeSpace:
    return CodeSpace(
        [Ordinal("a", range(6)), Ordinal("b", range(6))],
        name="linked",
        constraints=[Constraint("a + b is even", lambda s: (s["a"] + s["b"]) % 2 == 0)],
    )


HAND_MADE = {"mixed": mixed, "wide": wide, "linked": linked, "mutations": mutations}


@pytest.fixture(params=[*HAND_MADE, *SPACES])
def space(request):
    name = request.param
    return HAND_MADE[name]() if name in HAND_MADE else get_space(name)


class TestContract:
    """What every space must satisfy; a new ready space joins by being in SPACES."""

    def test_encode_then_decode_is_the_identity(self, space):
        samples = space.sample(200, np.random.default_rng(0))
        assert space.decode(space.encode(samples)) == samples

    def test_json_and_points_are_round_trips(self, space):
        for sample in space.sample(20, np.random.default_rng(1)):
            assert space.from_json(json.loads(json.dumps(space.to_json(sample)))) == sample
            canonical = space.canonical(sample)
            assert space.from_json(json.loads(json.dumps(space.to_json(canonical)))) == canonical
            assert space.from_points(space.points([sample])) == [sample]

    def test_key_is_the_canonical_samples(self, space):
        samples = space.sample(50, np.random.default_rng(2))
        for sample in samples:
            canonical = space.canonical(sample)
            assert space.key(canonical) == space.key(sample) == space.key(space.complete(canonical))
        distinct = {space.key(s) for s in samples}
        assert len({repr(space.canonical(s)) for s in samples}) == len(distinct)

    def test_tokens_are_a_round_trip(self, space):
        samples = space.sample(50, np.random.default_rng(3))
        tokens = space.tokens(samples)
        assert (tokens < np.array(space.vocabulary)).all()
        np.testing.assert_array_equal(space.tokens(space.from_tokens(tokens)), tokens)
        np.testing.assert_array_equal(tokens == 0, ~space.active(samples))

    def test_neighbours_are_valid_distinct_and_one_decision_away(self, space):
        for sample in space.sample(5, np.random.default_rng(4)):
            beside = space.neighbours(sample)
            keys = [space.key(s) for s in beside]
            assert len(set(keys)) == len(keys)
            assert space.key(sample) not in keys
            for other in beside:
                assert space.violation(other) is None
                assert sum(sample[label] != other[label] for label in space.labels) == 1

    def test_samples_are_valid_and_follow_the_seed(self, space):
        first = space.sample(30, np.random.default_rng(5))
        assert first == space.sample(30, np.random.default_rng(5))
        assert all(space.violation(s) is None for s in first)
        assert all(space.violation(space.canonical(s)) is None for s in first)

    def test_any_vector_decodes_to_a_valid_sample(self, space):
        codes = np.random.default_rng(6).normal(0.5, 1.0, (20, space.width))
        assert all(space.violation(s) is None for s in space.decode(codes))

    def test_snap_is_idempotent(self, space):
        snapped = space.snap(np.random.default_rng(7).random((20, space.width)))
        np.testing.assert_array_equal(space.snap(snapped), snapped)

    def test_costs_are_finite_positive_and_by_row(self, space):
        codes = space.snap(np.random.default_rng(8).random((10, space.width)))
        for name in space.costs:
            together = space.cost(name, codes)
            assert np.isfinite(together).all()
            assert (together >= 0).all()
            np.testing.assert_allclose(
                together, [space.cost(name, row[None])[0] for row in codes], rtol=1e-12
            )

    def test_bad_input_gets_one_sentence(self, space):
        with pytest.raises(SpaceError, match="must have the label, but got 'no-such-label'"):
            space.encode([{"no-such-label": 1}])
        with pytest.raises(SpaceError, match="must be one of"):
            space.encode([{space.labels[0]: "no such value"}])
        with pytest.raises(SpaceError, match="codes must have shape"):
            space.decode(np.zeros((2, space.width + 1)))
        with pytest.raises(SpaceError, match="codes must be finite"):
            space.decode(np.full((1, space.width), math.nan))
        with pytest.raises(SpaceError, match="must have the cost"):
            space.cost("no such cost", np.zeros((1, space.width)))


def test_ten_thousand_codes_of_a_hundred_dimensions_survive_a_batched_round_trip():
    # The time of it is a figure of `python benchmarks/spaces.py`.
    space = wide()
    samples = space.sample(10_000, np.random.default_rng(0))
    assert space.decode(space.encode(samples)) == samples


def test_activity_follows_the_chain_of_conditions():
    space = mixed()
    sample = {"depth": 1, "op2": "conv", "kernel2": 7, "dropout": 0.1, "inputs": ["a", "c"]}
    assert space.active([sample])[0].tolist() == [True, False, False, True, True]
    assert space.canonical(sample) == {"depth": 1, "dropout": 0.1, "inputs": ["a", "c"]}
    assert space.key(sample) == space.key({**sample, "kernel2": 3, "op2": "pool"})
    assert space.key({**sample, "depth": 2}) != space.key({**sample, "depth": 2, "kernel2": 3})
    pool = {**sample, "depth": 3, "op2": "pool"}
    assert space.active([pool])[0].tolist() == [True, True, False, True, True]


def test_activity_can_be_a_function():
    space = CodeSpace(
        [Ordinal("a", (1, 2)), Ordinal("b", (1, 2))],
        activity=lambda s: {"a", "b"} if s["a"] == 2 else {"a"},
    )
    assert space.key({"a": 1, "b": 2}) == space.key({"a": 1})
    assert space.key({"a": 2, "b": 2}) != space.key({"a": 2, "b": 1})


def test_decode_finds_the_nearest_sample_that_keeps_the_constraints():
    space = linked()
    # The nearest point to (0.21, 0.42) is (1, 2), odd; of (1, 1), (2, 2), (0, 2) and (1, 3) the
    # first three differ.
    by_hand = min(
        ((a, b) for a in range(6) for b in range(6) if (a + b) % 2 == 0),
        key=lambda p: (p[0] / 5 - 0.21) ** 2 + (p[1] / 5 - 0.42) ** 2,
    )
    assert space.decode([[0.21, 0.42]]) == [{"a": by_hand[0], "b": by_hand[1]}]


def test_an_empty_space_is_said_to_be_one():
    space = CodeSpace([Ordinal("a", (1, 2))], constraints=[Constraint("no", lambda _: False)])
    with pytest.raises(InfeasibleError, match="2000 random ones in a row"):
        space.sample(1, np.random.default_rng(0))
    with pytest.raises(InfeasibleError, match="keeps the constraints"):
        space.decode([[0.0]])


def test_violation_says_what_is_wrong():
    space = linked()
    assert "lacks ['b']" in space.violation({"a": 1})
    assert "a + b is even" in space.violation({"a": 1, "b": 2})
    assert "must be one of" in space.violation({"a": 1, "b": 77})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dimensions": []}, "at least one dimension"),
        ({"dimensions": [Ordinal("a", (1,)), Ordinal("a", (1,))]}, "labels must differ"),
        ({"conditions": {"x": Condition("a", (1,))}}, "must have the label"),
        ({"conditions": {"a": Condition("b", (1,))}}, "must stand before its child"),
        ({"conditions": {"b": Condition("a", (7,))}}, "must be one of"),
    ],
)
def test_a_definition_that_breaks_a_rule_is_refused(options, message):
    defaults = {"dimensions": [Ordinal("a", (1, 2)), Ordinal("b", (1, 2))]}
    with pytest.raises(SpaceError, match=message):
        CodeSpace(**{**defaults, **options})


def test_fingerprint_tells_spaces_apart():
    assert mixed().fingerprint == mixed().fingerprint
    assert len({f().fingerprint for f in HAND_MADE.values()}) == len(HAND_MADE)
    alike = [
        CodeSpace([Ordinal("w", (1, 2, 3, 4, 5, 6, 7, 8, 256))]),
        CodeSpace([Ordinal("w", (1, 2, 4, 8, 16, 32, 64, 128, 256))]),
        CodeSpace([Ordinal("w", (1, 2, 4, 8, 16, 32, 64, 128, 256))], features=lambda c: c),
    ]
    assert len({s.fingerprint for s in alike}) == 3


def test_the_nearest_valid_value_of_a_long_range_is_exact():
    space = CodeSpace(
        [Ordinal("n", range(100_000))], constraints=[Constraint("odd", lambda s: s["n"] % 2 == 1)]
    )
    assert space.decode([[50_000 / 99_999]])[0]["n"] in (49_999, 50_001)


def test_ten_thousand_samples_of_subsets_and_quantiles_survive_a_batched_round_trip():
    space = CodeSpace(
        [
            *(Subset(f"s{i}", tuple("abcdefgh"), 2 if i % 2 else None) for i in range(20)),
            Continuous("q", 0.0, 4.0, ppf=lambda q: 4 * q**2, cdf=lambda x: (x / 4) ** 0.5),
            Continuous("one", 0.0, 1.0, ppf=lambda q: min(q, 1.0), cdf=lambda x: min(x, 1.0)),
        ]
    )
    samples = space.sample(1_000, np.random.default_rng(0))
    assert space.decode(space.encode(samples)) == samples


@pytest.mark.parametrize("data", [[0, 0], [9, 0, 0, 0.1, 3], [-1, 0, 0, 0.1, 3], [0, 0, 0, 0.1, 7]])
def test_from_json_refuses_what_to_json_never_wrote(data):
    with pytest.raises(SpaceError):
        mixed().from_json(data)


def test_the_key_of_a_network_may_be_given_or_its_graph():
    def graph(sample):
        w = GraphWriter()
        x = w.input((1, 3, 8, 8))
        for _ in range(sample["a"] + sample["b"]):
            x = w.conv(x, 3, 3)
        w.output(x)
        return w.graph()

    dimensions = [Ordinal("a", (1, 2)), Ordinal("b", (1, 2))]
    by_graph = CodeSpace(dimensions, graph=graph, key="graph")
    by_sum = CodeSpace(dimensions, key=lambda s: s["a"] + s["b"])
    plain = CodeSpace(dimensions)
    for space, distinct in ((by_graph, 3), (by_sum, 3), (plain, 4)):
        points = space.enumerate_points()
        assert len(set(space.network_keys(points))) == distinct
        assert [space.network_key(s) for s in space.from_points(points)] == space.network_keys(
            points
        )
    for key in (3, "grpah"):
        with pytest.raises(SpaceError, match="key must be a function of a sample, or 'graph'"):
            CodeSpace(dimensions, key=key)
    with pytest.raises(SpaceError, match="must be given graph"):
        CodeSpace(dimensions, key="graph")


def test_no_points_have_no_active_dimensions() -> None:
    conditional = CodeSpace(
        [Ordinal("a", (1, 2)), Ordinal("b", (1, 2))], conditions={"b": Condition("a", (1,))}
    )
    none = np.empty((0, 2))
    assert conditional.active_points(none).shape == (0, 2)
    assert conditional.canonical_points(none).shape == (0, 2)
    assert conditional.keys(none) == [] and conditional.from_points(none) == []
    assert conditional.encode_points(none).shape == conditional.points([]).shape == (0, 2)
