"""Neighbours in blocks: those that comparing the keys of all moves gives, in that order."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from nni_aiop.search_spaces import SPACES, get_space
from nni_aiop.spaces import (
    CodeSpace,
    Condition,
    Constraint,
    Continuous,
    Nominal,
    Ordinal,
    Sample,
    Subset,
)


def conditional() -> CodeSpace:
    return CodeSpace(
        [
            Nominal("op", "abc"),
            Ordinal("width", (8, 16, 32)),
            Continuous("rate", 0.0, 1.0),
            Continuous("fixed", 2.0, 2.0),
            Subset("inputs", (0, 1, 2), None),
            Ordinal("groups", (1, 2)),
        ],
        conditions={
            "width": Condition("op", ("a", "b")),
            "rate": Condition("op", ("c",)),
            "groups": [Condition("width", (16, 32)), Condition("op", ("b",))],
        },
    )


def constrained() -> CodeSpace:
    rule = Constraint("narrow where deep", lambda s: s["depth"] * s["width"] < 12)
    return CodeSpace(
        [Ordinal("depth", range(1, 7)), Ordinal("width", range(1, 7)), Nominal("op", "ab")],
        constraints=[rule],
    )


def backwards() -> CodeSpace:
    """The last dimension switches off the first: moves of both lead to one architecture."""

    def active(sample: Sample) -> set[str]:
        return {"last", "width"} | ({"first"} if sample["last"] == 0 else set())

    return CodeSpace(
        [Ordinal("first", range(3)), Ordinal("width", range(3)), Nominal("last", range(3))],
        activity=active,
        constraints=[Constraint("no 2, 2", lambda s: (s["width"], s["last"]) != (2, 2))],
    )


MADE = {"conditional": conditional, "constrained": constrained, "backwards": backwards}


@pytest.fixture(params=[*MADE, *SPACES])
def space(request: pytest.FixtureRequest) -> CodeSpace:
    return MADE[request.param]() if request.param in MADE else get_space(request.param)


def by_keys(space: CodeSpace, sample: Sample) -> list[Sample]:
    """All moves of active dimensions, one of each key."""
    (point,) = space.points([sample])
    seen, out = {space.key(sample)}, []
    for j, d in enumerate(space.dimensions):
        for p in d.neighbours(point[j]) if space.active_points(point[None])[0, j] else []:
            row = point.copy()
            row[j] = p
            (other,) = space.from_points(row[None])
            if space.key(other) not in seen and space.violation(other) is None:
                seen.add(space.key(other))
                out.append(other)
    return out


def test_neighbours_are_those_of_other_keys(space: CodeSpace) -> None:
    for sample in space.sample(8, np.random.default_rng(0)):
        expected = by_keys(space, sample)
        assert repr(space.neighbours(sample)) == repr(expected)
        (point,) = space.points([sample])
        blocks = list(space.neighbour_points(point))
        assert [s for rows in blocks for s in space.from_points(rows)] == expected
        moves = space.neighbour_moves(point)
        assert len(moves.points) == len(expected)
        if blocks:
            np.testing.assert_array_equal(moves.rows(point), np.concatenate(blocks))


def test_two_moves_to_one_architecture_are_one_neighbour() -> None:
    space = backwards()
    near = space.neighbours({"first": 1, "width": 0, "last": 0})
    assert [(s["first"], s["width"], s["last"]) for s in near] == [
        (0, 0, 0), (2, 0, 0), (1, 1, 0), (1, 0, 1), (1, 0, 2)
    ]  # fmt: skip


def test_the_ends_of_a_real_number_and_one_that_has_no_choice() -> None:
    space = conditional()
    near = space.neighbours({"op": "c", "rate": 0.0, "inputs": []})
    assert [s["rate"] for s in near] == [0.0, 0.0, 0.05, 0.0, 0.0, 0.0]


def test_neighbours_of_many_dimensions_come_in_blocks() -> None:
    space = CodeSpace([Ordinal(f"x{i}", range(8)) for i in range(2000)])
    point = np.full(2000, 3.0)
    tracemalloc.start()
    count = 0
    for rows in space.neighbour_points(point):
        assert len(rows) <= 256
        count += len(rows)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 4000
    assert most < 20e6
