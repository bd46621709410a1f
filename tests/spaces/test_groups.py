"""Dimensions together give what each gives alone, to the bit, for few rows and for many."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import numpy as np
import pytest

from nni_aiop.errors import SpaceError
from nni_aiop.spaces import CodeSpace, Condition, Continuous, Dimension, Nominal, Ordinal, Subset
from nni_aiop.spaces._groups import FEW, Groups
from nni_aiop.spaces._narrowed import narrowed

DIMENSIONS: list[Dimension] = [
    Ordinal("one", (5,)),
    Ordinal("rank", (1, 2, 10)),
    Ordinal("linear", (1, 2, 10), scale="linear"),
    Nominal("alike", (True, 1, 1.0)),
    Ordinal("log", (1, 3, 50), scale="log"),
    Ordinal("long", range(1, 10**9)),
    Subset("two", ("a", "b", "c"), 2),
    Nominal("only", ("x",)),
    Ordinal("even", range(3, 30, 4), scale="linear"),
    Continuous("rate", 0.001, 10, log=True),
    Nominal("lists", ([1], [1, 2], None)),
    Subset("any", range(5), None),
    Nominal("wide", range(40)),
]


@pytest.fixture
def space() -> CodeSpace:
    conditions = {
        "alike": Condition("rank", (2, 10)),
        "rate": [Condition("alike", (True,)), Condition("log", (3, 50))],
    }
    return CodeSpace(DIMENSIONS, conditions=conditions)


@pytest.mark.parametrize("n", [1, 2, FEW, FEW + 1, 60])
def test_they_are_as_each_alone(space: CodeSpace, n: int) -> None:
    rng = np.random.default_rng(n)
    points = space.sample_points(n, rng)
    samples = space.from_points(points)
    noise = rng.normal(0.5, 1.0, (n, space.width))
    for j, d in enumerate(DIMENSIONS):
        columns, column = space.columns[d.label], points[:, j]
        np.testing.assert_array_equal(space.encode_points(points)[:, columns], d.encode(column))
        np.testing.assert_array_equal(space.decode_points(noise)[:, j], d.decode(noise[:, columns]))
        np.testing.assert_array_equal(space.points(samples)[:, j], column)
        values = [sample[d.label] for sample in samples]
        assert repr(values) == repr(d.values_of(column))
    active = space.active_points(points)
    assert [key.count("-") for key in space.keys(points)] == (~active).sum(axis=1).tolist()
    np.testing.assert_array_equal(
        active, np.concatenate([space.active_points(row[None]) for row in points])
    )


def test_codes_between_two_values_go_to_the_same_side() -> None:
    log = Ordinal("log", (1, 3, 50, 51), scale="log")
    between = ((log.grid[1:] + log.grid[:-1]) / 2)[:, None]
    space = CodeSpace([log])
    np.testing.assert_array_equal(space.decode_points(between)[:, 0], log.decode(between))


@pytest.mark.parametrize("n", [1, FEW + 1])
@pytest.mark.parametrize(
    ("label", "value"), [("one", 6), ("lists", [2]), ("two", ["a"]), ("rate", -1.0), ("long", 1.5)]
)
def test_strangers_are_named(space: CodeSpace, n: int, label: str, value: object) -> None:
    with pytest.raises(SpaceError, match=repr(label)):
        space.points([{label: value}] * n)
    with pytest.raises(SpaceError, match="'stranger'"):
        space.points([{"stranger": 1}] * n)


def test_a_point_without_a_code_is_refused() -> None:
    for d in (Nominal("x", "ab"), Ordinal("x", (1, 2, 9), scale="log")):
        with pytest.raises(IndexError):
            CodeSpace([d]).encode_points(np.array([[3.0]]))


def test_they_travel() -> None:
    groups = pickle.loads(pickle.dumps(Groups(DIMENSIONS)))
    points = np.array([[d.default for d in DIMENSIONS]])
    np.testing.assert_array_equal(groups.encode(points), Groups(DIMENSIONS).encode(points))


def test_a_narrowed_space_has_its_own_rules(space: CodeSpace) -> None:
    full = space.points([{"rank": 10, "alike": True, "log": 3}])
    assert space.active_points(full).all()
    less = narrowed(space, ["log"])
    off = {
        label for label, a in zip(less.labels, less.active_points(full)[0], strict=True) if not a
    }
    assert off == {"log", "rate"}


@pytest.mark.parametrize("ask", [CodeSpace.key, CodeSpace.settled, CodeSpace.violation])
def test_one_sample_asks_no_dimension_for_arrays(
    ask: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    dimensions = [Ordinal(f"x{i}", range(4)) for i in range(300)]
    space = CodeSpace(dimensions)
    (sample,) = space.sample(1, np.random.default_rng(0))

    def refuse(*given: object) -> None:
        raise AssertionError("one dimension at a time")

    for name in ("points_of", "values_of", "encode", "decode"):
        monkeypatch.setattr(Ordinal, name, refuse)
    ask(space, sample)
    space.decode_points(space.encode([sample]))
