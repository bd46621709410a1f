"""Evolution and local search by hand: who is alive, who is the parent, what is asked next."""

from __future__ import annotations

import math

import pytest

from nni_aiop.search import BaseSearch, LocalSearch, RegularizedEvolution
from nni_aiop.spaces import CodeSpace, Ordinal, Sample

SPACE = CodeSpace([Ordinal("a", range(40)), Ordinal("b", range(40))])


def apart(one: Sample, other: Sample) -> int:
    return abs(one["a"] - other["a"]) + abs(one["b"] - other["b"])


def told(search: BaseSearch, merits: list[float]) -> list[Sample]:
    """Asked one by one, and what was told of each."""
    samples = []
    for merit in merits:
        (sample,) = search.ask(1)
        search.tell(sample, None if math.isnan(merit) else merit)
        samples.append(sample)
    return samples


def evolution() -> RegularizedEvolution:
    return RegularizedEvolution(SPACE, population=4, tournament=4, seed=0)


def test_children_of_the_best_follow_the_first_population() -> None:
    search = evolution()
    first = told(search, [1.0, 9.0, 2.0, 3.0])
    assert all(apart(x, y) > 1 for i, x in enumerate(first) for y in first[:i])
    (child,) = told(search, [0.0])
    assert apart(child, first[1]) == 1


def test_the_oldest_die_however_good_they_are() -> None:
    search = evolution()
    first = told(search, [9.0, 1.0, 2.0, 3.0])
    children = told(search, [0.0, 8.0, 0.0])
    assert apart(children[0], first[0]) == 1
    assert apart(children[1], first[3]) == 1  # of the latest four, 3.0 is the best by now
    assert apart(children[2], children[1]) == 1


def test_without_a_result_there_is_no_parent() -> None:
    search = evolution()
    asked = search.ask(10)
    assert len({(x["a"], x["b"]) for x in asked}) == 10
    failing = evolution()
    samples = told(failing, [math.nan] * 6)
    assert min(apart(x, y) for i, x in enumerate(samples) for y in samples[:i]) > 1
    # A failure is none of the living.
    (child,) = told(failing, [1.0])
    assert apart(told(failing, [0.0])[0], child) == 1


@pytest.mark.parametrize(
    "options", [{"tournament": 0}, {"tournament": 5}, {"population": 3, "tournament": 4}]
)
def test_a_tournament_is_part_of_a_population(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="1 <= tournament <= population must hold"):
        RegularizedEvolution(SPACE, **{"population": 4, **options})
    RegularizedEvolution(SPACE, population=1, tournament=1)


@pytest.mark.parametrize("greedy", [False, True])
def test_a_better_neighbour_is_the_centre_at_once_or_after_all_others(greedy: bool) -> None:
    search = LocalSearch(SPACE, initial=2, greedy=greedy, seed=0)
    begin = told(search, [0.0, 5.0])
    neighbours = SPACE.neighbours(begin[1])
    near = told(search, [1.0, 7.0, 2.0])
    assert apart(near[0], begin[1]) == apart(near[1], begin[1]) == 1
    assert apart(near[2], near[1] if greedy else begin[1]) == 1
    if not greedy:
        rest = told(search, [1.0] * (len(neighbours) - 3))
        assert all(apart(sample, begin[1]) == 1 for sample in rest)
        (after,) = told(search, [0.0])
        assert apart(after, near[1]) == 1


def test_while_a_neighbour_is_under_way_it_is_no_optimum() -> None:
    search = LocalSearch(SPACE, initial=1, seed=0)
    (centre,) = told(search, [5.0])
    waiting = search.ask(len(SPACE.neighbours(centre)))
    assert all(apart(sample, centre) == 1 for sample in waiting)
    (other,) = search.ask(1)
    assert apart(other, centre) > 1
    search.tell(other, 0.0)
    search.tell(waiting[0], 6.0)
    (after,) = search.ask(1)
    assert apart(after, waiting[0]) == 1
