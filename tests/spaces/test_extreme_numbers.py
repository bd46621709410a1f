"""Ranges as wide as floats are: right, or refused in one sentence."""

from __future__ import annotations

import math
import sys
import warnings

import numpy as np
import optuna
import pytest

from nni_aiop.engines.optuna_space import code_space_from_distributions
from nni_aiop.errors import SpaceError
from nni_aiop.search import NCPSearch, RandomSearch
from nni_aiop.spaces import CodeSpace, Continuous, Ordinal

MAX = sys.float_info.max
TINY = 5e-324

RANGES = {
    "all": Continuous("x", -1.7e308, 1.7e308),
    "to the end": Continuous("x", -MAX, MAX),
    "half": Continuous("x", 0.0, MAX),
    "log": Continuous("x", 1e-300, 1e300, log=True),
    "log of all": Continuous("x", TINY, MAX, log=True),
    "log of the smallest": Continuous("x", TINY, 1e-310, log=True),
    "whole": Continuous("x", 0, 2**70),
    "whole, log": Continuous("x", 1, 2**70, log=True),
    "tiny": Continuous("x", 0.0, TINY),
}


@pytest.mark.parametrize("name", RANGES)
def test_wide_ranges(name: str) -> None:
    dimension = RANGES[name]
    codes = np.linspace(0, 1, 11)[:, None]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = dimension.decode(codes)
        # Twelve digits are kept, at the ends as well.
        assert values[0] == pytest.approx(dimension.low, rel=1e-11, abs=0)
        assert values[-1] == pytest.approx(dimension.high, rel=1e-11, abs=0)
        assert np.isfinite(values).all() and (np.diff(values) >= 0).all()
        back = dimension.encode(values)
    if name not in ("tiny", "log of the smallest"):  # a handful of floats
        assert (np.diff(values) > 0).all()
        np.testing.assert_allclose(back, codes, atol=1e-9)
    np.testing.assert_array_equal(dimension.decode(back), values)


def test_the_middle_of_a_wide_range() -> None:
    assert RANGES["all"].decode(np.array([[0.5], [0.75]])).tolist() == [0.0, 8.5e307]
    middle = RANGES["log"].decode(np.array([[0.5]]))[0]
    assert middle == pytest.approx(1.0)
    assert RANGES["whole"].decode(np.array([[0.5]]))[0] == pytest.approx(2.0**69)


@pytest.mark.parametrize("name", RANGES)
def test_searches_go_through_wide_ranges(name: str) -> None:
    space = CodeSpace([RANGES[name], Ordinal("n", (1, 2, 3))])
    search = NCPSearch(space, budget=8, rounds=2, starts=8, steps=2)
    for i in range(6):
        (sample,) = search.ask()
        assert RANGES[name].low <= sample["x"] <= RANGES[name].high
        search.tell(sample, float(i))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Continuous("x", 0, 10**400), "must have finite low <= high"),
        (lambda: Continuous("x", 0, math.inf), "must have finite low <= high"),
        (lambda: Ordinal("x", (1, 2, math.inf)), "must be finite numbers, but got inf"),
        (lambda: Ordinal("x", (-math.inf, 2)), "must be finite numbers, but got -inf"),
        (lambda: Ordinal("x", (math.nan,)), "must be finite numbers, but got nan"),
        (lambda: Ordinal("x", (1, math.nan, 2)), "must be increasing numbers"),
        (lambda: Ordinal("x", (1, 10**400)), "a whole number of 1329 bits"),
        (lambda: Ordinal("x", range(2**70)), "must have at most 2**53 values"),
        (lambda: Ordinal("x", range(0, 2**70, 3)), "must have at most 2**53 values"),
    ],
)
def test_what_is_refused(make: object, message: str) -> None:
    with pytest.raises(SpaceError) as caught:
        make()  # type: ignore[operator]
    assert message in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize("scale", ["rank", "linear", "log"])
def test_ordinals_of_huge_numbers(scale: str) -> None:
    dimension = Ordinal("x", (1, 2**70, 1e300, 1.7e308), scale=scale)  # type: ignore[arg-type]
    assert np.isfinite(dimension.grid).all() and dimension.grid[-1] == 1
    points = np.arange(4.0)
    decoded = dimension.decode(dimension.encode(points)).tolist()
    assert decoded == ([0, 1, 2, 3] if scale != "linear" else decoded)
    assert dimension.value(dimension.point(2**70)) == 2**70
    wide = Ordinal("x", (-1.7e308, 0.0, 1.7e308), scale="linear")
    assert wide.grid.tolist() == [0, 0.5, 1]
    stepped = Ordinal("x", range(0, 2**70 + 1, 2**69), scale="linear")
    assert stepped.grid.tolist() == [0, 0.5, 1] and stepped.value(2) == 2**70


def test_distributions_of_optuna() -> None:
    with pytest.raises(SpaceError, match=r"2\*\*53 values"):
        code_space_from_distributions({"n": optuna.distributions.IntDistribution(0, 2**70)})
    space = code_space_from_distributions(
        {
            "n": optuna.distributions.IntDistribution(0, 2**40),
            "x": optuna.distributions.FloatDistribution(-1.7e308, 1.7e308),
            "y": optuna.distributions.FloatDistribution(1e-300, 1e300, log=True),
        }
    )
    for sample in RandomSearch(space).ask(20):
        assert 0 <= sample["n"] <= 2**40 and abs(sample["x"]) <= 1.7e308
        assert 1e-300 <= sample["y"] <= 1e300
