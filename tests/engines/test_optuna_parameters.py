"""One dimension as one parameter of Optuna: the distribution, and values written and read."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from nni_aiop.engines._optuna_draws import _base, _choice, _quantile, draw
from nni_aiop.engines._optuna_learner import SpaceLearner, _order
from nni_aiop.engines._optuna_parameters import (
    Parameter,
    _evenly_spaced,
    _rank,
    _same,
    _unrank,
    nearest,
    parameters_of,
)
from nni_aiop.engines._optuna_ranges import _merged, current
from nni_aiop.spaces import CodeSpace, Continuous, Dimension, Nominal, Ordinal, Subset


def parameter(dimension: Dimension) -> Parameter:
    return parameters_of(CodeSpace([dimension]))[dimension.label]


@pytest.mark.parametrize(
    ("dimension", "expected"),
    [
        (Ordinal("x", (2, 4, 6)), IntDistribution(2, 6, step=2)),
        (Ordinal("x", (7,)), IntDistribution(7, 7)),
        (Ordinal("x", range(1, 9), scale="log"), IntDistribution(1, 8, log=True)),
        (Ordinal("x", (0.1, 0.2, 0.3)), FloatDistribution(0.1, 0.3, step=0.1)),
        (Ordinal("x", (0.5, 0.7)), FloatDistribution(0.5, 0.7, step=0.2)),
        (Ordinal("x", (1, 2.5)), CategoricalDistribution([1, 2.5])),
        (Ordinal("x", (1.5, 3)), CategoricalDistribution([1.5, 3])),
        (Ordinal("x", (8, 16, 64)), CategoricalDistribution([8, 16, 64])),
        (Ordinal("x", tuple(k * k for k in range(1, 101))),
         CategoricalDistribution([k * k for k in range(1, 101)])),
        (Ordinal("x", tuple(k * k for k in range(1, 102))), IntDistribution(0, 100)),
        (Continuous("x", 0.5, 2.0), FloatDistribution(0.5, 2.0)),
        (Continuous("x", 0.5, 2.0, log=True), FloatDistribution(0.5, 2.0, log=True)),
        (Nominal("x", ("a", "b")), CategoricalDistribution(["a", "b"])),
        (Nominal("x", (1, 2, 5)), CategoricalDistribution([5, 2, 1])),
        (Nominal("x", (2, 1, 5)), CategoricalDistribution([2, 1, 5])),
        (Nominal("x", ((1, 2), (3,))), CategoricalDistribution(["0", "1"])),
        (Subset("x", ("a", "b", "c"), 2), CategoricalDistribution(["0+1", "0+2", "1+2"])),
        (Subset("x", tuple("abcdefghijk")), IntDistribution(0, 2**11 - 1)),
    ],
)  # fmt: skip
def test_a_dimension_and_its_distribution(dimension: Dimension, expected: BaseDistribution) -> None:
    found = parameter(dimension)
    assert found.distribution == expected
    for value in dimension.values if isinstance(dimension, (Ordinal, Nominal)) else ():
        written = found.write(value, found.distribution)
        assert expected._contains(expected.to_internal_repr(written))
        assert found.read(written, found.distribution) == value


def test_masks_of_as_many_bits_are_ranked_without_a_gap() -> None:
    masks = [sum(1 << bit for bit in bits) for bits in itertools.combinations(range(6), 3)]
    assert sorted(map(_rank, masks)) == list(range(20))
    assert [_rank(mask) for mask in sorted(masks)] == list(range(20))
    for rank in range(20):
        mask = _unrank(rank, 3)
        assert mask.bit_count() == 3 and _rank(mask) == rank
    many = Subset("x", tuple(range(14)), 5)
    found = parameter(many)
    assert found.distribution == IntDistribution(0, math.comb(14, 5) - 1)
    for value in ([0, 1, 2, 3, 4], [2, 5, 7, 11, 13], [9, 10, 11, 12, 13]):
        assert found.read(found.write(value, found.distribution), found.distribution) == value


def test_evenly_spaced_numbers_are_of_one_kind() -> None:
    assert _evenly_spaced((1, 3, 5)) and _evenly_spaced((0.1, 0.2, 0.3))
    assert _evenly_spaced((1, 9)) and _evenly_spaced(range(0, 9, 2))
    for values in ((1, 3, 6), (1, 2.0, 3), (0.1, 0.2, 0.4), (1, True, 3)):
        assert not _evenly_spaced(values)


def test_the_nearest_number_of_a_distribution() -> None:
    even = IntDistribution(2, 8, step=2)
    assert [nearest(even, x) for x in (-5, 2.9, 3.1, 7.2, 99)] == [2, 2, 4, 8, 8]
    tenths = FloatDistribution(0.5, 0.9, step=0.1)
    assert [nearest(tenths, x) for x in (0.0, 0.64, 0.66, 2.0)] == pytest.approx(
        [0.5, 0.6, 0.7, 0.9]
    )
    assert nearest(FloatDistribution(0.5, 0.9), 0.123) == 0.5
    assert nearest(FloatDistribution(0.5, 0.9), 0.777) == 0.777


def test_true_is_not_one_and_nan_is_nan() -> None:
    assert not _same(True, 1) and not _same(0, False) and _same(True, True)
    assert _same([1, [2]], (1, (2,))) and _same(math.nan, float("nan"))
    assert _same(1, 1.0) and not _same(1, 2)


def test_a_value_that_the_objective_spells_out_itself() -> None:
    widths = parameter(Ordinal("x", (8, 16, 64)))
    assert widths.read(16.0, FloatDistribution(0.0, 100.0)) == 16
    for wrong in (17, 7, 65, "16", True, math.nan):
        with pytest.raises(LookupError):
            widths.read(wrong, CategoricalDistribution([wrong, "none"]))
    assert widths.write(16, CategoricalDistribution([8, 16.0])) == 16.0
    with pytest.raises(LookupError):
        widths.write(64, CategoricalDistribution([8, 16]))
    assert widths.write(64, IntDistribution(1, 50)) == 50
    long = parameter(Ordinal("x", range(0, 2_000_000, 2)))
    assert long.read(6, IntDistribution(0, 10)) == 6
    with pytest.raises(LookupError):
        long.read(7, IntDistribution(0, 10))
    real = parameter(Continuous("x", 0.5, 2.0))
    assert real.read(2, IntDistribution(0, 5)) == 2.0
    for wrong in (0.4, 2.1, "1"):
        with pytest.raises(LookupError):
            real.read(wrong, CategoricalDistribution([wrong, "none"]))


# --- draws ---------------------------------------------------------------------------------------


def trial(number: int, params: dict, distributions: dict) -> FrozenTrial:
    found = create_trial(
        state=TrialState.COMPLETE, value=0.0, params=params, distributions=distributions
    )
    found.number = number
    return found


def test_the_first_trials_differ_in_every_digit() -> None:
    acts, depths = CategoricalDistribution(["a", "b", "c"]), IntDistribution(2, 8, step=2)
    seen = set()
    for number in range(12):
        act = draw(0, trial(number, {}, {}), "act", acts)
        depth = draw(0, trial(number, {"act": act}, {"act": acts}), "depth", depths)
        seen.add((act, depth))
    assert seen == set(itertools.product("abc", (2, 4, 6, 8)))
    assert draw(0, trial(3, {}, {}), "act", acts) == draw(0, trial(3, {}, {}), "act", acts)


def test_how_many_values_a_distribution_has() -> None:
    assert _base(CategoricalDistribution(["a", "b", "c"])) == 3
    assert _base(IntDistribution(2, 8, step=2)) == 4
    assert _base(IntDistribution(1, 1024)) == 1024
    assert _base(IntDistribution(0, 1024)) is None
    assert _base(FloatDistribution(0.0, 0.5, step=0.1)) == 6
    assert _base(FloatDistribution(0.0, 1.0)) is None
    assert _base(IntDistribution(1, 8, log=True)) is None
    assert _choice(IntDistribution(2, 8, step=2), 3) == 8
    assert _choice(FloatDistribution(0.0, 0.5, step=0.1), 5) == 0.5


def test_the_ends_are_as_likely_as_the_rest() -> None:
    steps = IntDistribution(0, 2000)
    assert _quantile(steps, 0.0) == 0
    assert _quantile(steps, 1.2 / 2001) == 1
    assert _quantile(steps, 0.9999) == 2000
    assert _quantile(FloatDistribution(1.0, 3.0), 0.25) == 1.5
    assert _quantile(FloatDistribution(1.0, 100.0, log=True), 0.5) == pytest.approx(10.0)
    # 0.5 to 8.5, of which the logarithm is halved at 2.06.
    assert _quantile(IntDistribution(1, 8, log=True), 0.5) == 2


# --- learning ------------------------------------------------------------------------------------


def test_a_new_label_stands_behind_the_one_suggested_before_it() -> None:
    one = IntDistribution(0, 1)
    known = dict.fromkeys(("a", "b", "c"), one)
    assert _order([known, dict.fromkeys(("a", "x", "y", "c", "z"), one)]) == [
        "a", "x", "y", "b", "c", "z",
    ]  # fmt: skip
    assert _order([known]) == ["a", "b", "c"]
    assert _order([known, dict.fromkeys(("x", "b"), one)]) == ["x", "a", "b", "c"]


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (IntDistribution(1, 9, step=4), IntDistribution(3, 15, step=4),
         IntDistribution(1, 15, step=2)),
        (IntDistribution(0, 8, step=4), IntDistribution(4, 16, step=4),
         IntDistribution(0, 16, step=4)),
        (IntDistribution(2, 2), IntDistribution(5, 5), IntDistribution(2, 5)),
        (IntDistribution(2, 8, log=True), IntDistribution(4, 16, log=True),
         IntDistribution(2, 16, log=True)),
        (FloatDistribution(0.0, 0.4, step=0.1), FloatDistribution(0.2, 0.8, step=0.1),
         FloatDistribution(0.0, 0.8, step=0.1)),
        (FloatDistribution(0.0, 0.4, step=0.1), FloatDistribution(0.25, 0.75, step=0.1),
         FloatDistribution(0.0, 0.75)),
        (FloatDistribution(0.0, 0.4, step=0.1), FloatDistribution(0.0, 0.8, step=0.2),
         FloatDistribution(0.0, 0.8)),
        (FloatDistribution(1.0, 2.0), FloatDistribution(0.5, 1.5), FloatDistribution(0.5, 2.0)),
        (FloatDistribution(1.0, 2.0), IntDistribution(0, 9), FloatDistribution(1.0, 2.0)),
    ],
)  # fmt: skip
def test_ranges_that_changed_are_joined(
    a: BaseDistribution, b: BaseDistribution, expected: BaseDistribution
) -> None:
    if isinstance(expected, FloatDistribution) and expected.step:
        assert _merged(a, b).step == expected.step
        assert (_merged(a, b).low, _merged(a, b).high) == pytest.approx((0.0, 0.8))
    else:
        assert _merged(a, b) == expected


def test_the_range_is_the_last_one_where_each_was_there_for_a_while() -> None:
    few, more, both = IntDistribution(1, 4), IntDistribution(3, 8), IntDistribution(1, 8)
    assert current([few]) == current([few, few]) == few
    assert current([few, few, more, more]) == more
    assert current([few, few, more]) == both == current([few, more, more])
    assert current([few, few, more, more, few, few]) == both  # it comes and goes
    assert current([few, more, few]) == both


def test_the_learner_tells_when_the_space_has_changed() -> None:
    learner = SpaceLearner()
    few, more = IntDistribution(0, 3), IntDistribution(0, 5)
    assert not learner.add(trial(0, {}, {}))
    assert learner.add(trial(1, {"a": 1}, {"a": few}))
    assert not learner.add(trial(2, {"a": 3}, {"a": few}))
    assert learner.add(trial(3, {"a": 5}, {"a": more}))
    assert learner.space is not None and learner.space.labels == ("a",)
    assert learner.space.dimensions[0].size == 6
    assert learner.add(trial(4, {"a": 2, "b": 0}, {"a": more, "b": few}))
    # b was seen beside a = 2 alone.
    (condition,) = learner.space.conditions["b"]
    assert (condition.parent, condition.values) == ("a", (2,))
    assert np.isin("b", learner.space.labels)
