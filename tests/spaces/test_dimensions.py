"""Dimensions worked out by hand."""

import numpy as np
import pytest

from nni_aiop.errors import SpaceError
from nni_aiop.spaces import Continuous, Nominal, Ordinal, Subset


@pytest.mark.parametrize(
    ("scale", "codes"),
    [("rank", [0, 0.5, 1]), ("linear", [0, 1 / 7, 1]), ("log", [0, 1 / 3, 1])],
)
def test_ordinal_scales(scale, codes):
    d = Ordinal("c", (2, 4, 16), scale=scale)
    assert d.encode(np.arange(3.0))[:, 0].tolist() == pytest.approx(codes)
    assert d.decode(d.encode(np.arange(3.0))).tolist() == [0, 1, 2]


def test_ordinal_decodes_to_the_nearest_value_and_clips():
    d = Ordinal("c", (1, 2, 10), scale="linear")
    # The codes are 0, 1/9, 1; their midpoints 1/18 and 5/9.
    assert d.decode(np.array([[-3.0], [0.05], [0.06], [0.55], [0.56], [7.0]])).tolist() == [
        0, 0, 1, 1, 2, 2,
    ]  # fmt: skip


def test_a_long_range_costs_no_memory():
    d = Ordinal("n", range(1, 10**9))
    assert d.point(500) == 499
    assert d.value(d.decode(d.encode(np.array([123456.0])))[0]) == 123457
    assert d.points_of([7.0, np.int64(8)]) == [6, 7]
    for stranger in (0.5, "7", None):
        with pytest.raises(SpaceError, match="'n' must be one of"):
            d.points_of([stranger])


@pytest.mark.parametrize("values", [(3, 1), (1, 1), ("a", "b", 3), ()])
def test_ordinal_refuses_values_that_do_not_increase(values):
    with pytest.raises(SpaceError, match="'c'"):
        Ordinal("c", values)


def test_nominal_is_one_hot_and_takes_the_largest():
    d = Nominal("op", ("x", "y", "z"))
    assert d.encode(np.array([2.0])).tolist() == [[0, 0, 1]]
    assert d.decode(np.array([[0.2, 0.9, 0.3], [-1.0, -3.0, -2.0]])).tolist() == [1, 0]


def test_nominal_tells_values_apart_that_python_calls_equal():
    d = Nominal("v", (1, True, 1.0, "1", [1]))
    assert [d.point(v) for v in (1, True, 1.0, "1", [1])] == [0, 1, 2, 3, 4]


def test_subset_of_a_given_size_takes_the_largest_codes():
    d = Subset("s", ("a", "b", "c"), 2)
    assert d.value(d.decode(np.array([[0.1, 0.9, 0.5]]))[0]) == ["b", "c"]
    assert d.size == 3
    assert [d.value(p) for p in d.options(10).tolist()] == [["a", "b"], ["a", "c"], ["b", "c"]]
    assert [d.value(p) for p in d.neighbours(d.point(["a", "b"]))] == [["b", "c"], ["a", "c"]]


def test_subset_of_any_size():
    d = Subset("s", ("a", "b"), None)
    assert d.value(d.decode(np.array([[0.2, 0.1]]))[0]) == []
    assert d.size == 4
    with pytest.raises(ValueError, match="a"):
        d.point(["a", "a"])


def test_continuous_log_middle_is_the_geometric_mean():
    d = Continuous("lr", 1e-4, 1.0, log=True)
    assert d.decode(np.array([[0.5]]))[0] == pytest.approx(1e-2)
    assert d.encode(np.array([1e-2]))[0, 0] == pytest.approx(0.5)


def test_continuous_values_survive_a_round_trip_to_the_bit():
    d = Continuous("lr", 1e-6, 3.0, log=True)
    values = d.random(1000, np.random.default_rng(0))
    assert d.decode(d.encode(values)).tolist() == values.tolist()


def test_continuous_by_quantiles():
    d = Continuous("x", 0.0, 4.0, ppf=lambda q: 4 * q**2, cdf=lambda x: (x / 4) ** 0.5)
    assert d.decode(np.array([[0.5]]))[0] == pytest.approx(1.0)
    assert d.encode(np.array([1.0]))[0, 0] == pytest.approx(0.5)


@pytest.mark.parametrize(("low", "high", "log"), [(1.0, 0.0, False), (0.0, 1.0, True)])
def test_continuous_refuses_bad_bounds(low, high, log):
    with pytest.raises(SpaceError, match="'x' must have"):
        Continuous("x", low, high, log=log)


def test_a_wrong_value_is_named_with_the_choices():
    with pytest.raises(SpaceError, match=r"'k' must be one of \[3, 5\], but got 4"):
        Ordinal("k", (3, 5)).points_of([3, 4])
