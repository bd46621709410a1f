"""NNI's JSON search spaces as CodeSpaces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nni", reason="NNI is not installed")

from nni_aiop.engines.nni_json import code_space_from_json, nest, unnest
from nni_aiop.errors import SpaceError
from nni_aiop.spaces import Condition, Continuous, Nominal, Ordinal

EXAMPLE = Path(__file__).parents[2] / "examples" / "nnictl_ncp" / "search_space.json"


def of(kind: str, *values: Any) -> Any:
    (dimension,) = code_space_from_json({"x": {"_type": kind, "_value": list(values)}}).dimensions
    return dimension


def test_every_type() -> None:
    assert of("choice", 1, 2, 4) == Ordinal("x", (1, 2, 4))
    assert of("choice", "a", "b") == Nominal("x", ("a", "b"))
    assert of("choice", True, False) == Nominal("x", (True, False))
    assert of("randint", 2, 6) == Ordinal("x", range(2, 6))
    assert of("uniform", 0.0, 2.0) == Continuous("x", 0.0, 2.0)
    assert of("loguniform", 0.01, 1.0) == Continuous("x", 0.01, 1.0, log=True)
    assert of("quniform", 0, 10, 5).values == (0.0, 5.0, 10.0)
    qlog = of("qloguniform", 1, 9, 4)
    assert (qlog.values, qlog.scale) == ((1.0, 4.0, 8.0), "log")
    normal = of("normal", 5.0, 2.0)
    assert normal.decode(np.array([[0.5]]))[0] == pytest.approx(5.0)
    # The middle 99.9 % of N(5, 2): 3.2905 standard deviations to each side.
    assert normal.high == pytest.approx(5.0 + 2.0 * 3.2905, abs=1e-3)
    assert 0.0 in of("qnormal", 0.0, 1.0, 0.5).values
    lognormal = of("lognormal", 0.0, 1.0)
    assert lognormal.decode(np.array([[0.5]]))[0] == pytest.approx(1.0)
    assert of("qlognormal", 1.0, 0.5, 1.0).values[:2] == (1.0, 2.0)


def test_nested_choices_are_conditional_and_come_back() -> None:
    given = json.loads(EXAMPLE.read_text())
    space = code_space_from_json(given)
    assert space.labels[4:] == ("optimizer", "optimizer/sgd/momentum", "optimizer/adam/beta_2")
    assert space.conditions["optimizer/sgd/momentum"] == (Condition("optimizer", ("sgd",)),)
    for sample in space.sample(20, np.random.default_rng(0)):
        parameters = nest(sample, given)
        assert (
            parameters["optimizer"].keys()
            == {
                "sgd": {"_name", "momentum"},
                "adam": {"_name", "beta_2"},
            }[sample["optimizer"]]
        )
        assert unnest(parameters) == space.canonical(sample)
        assert space.violation(unnest(json.loads(json.dumps(parameters)))) is None


def test_two_levels() -> None:
    inner = {"_name": "deep", "y": {"_type": "choice", "_value": [{"_name": "p"}, {"_name": "q"}]}}
    given = {"x": {"_type": "choice", "_value": [{"_name": "flat"}, inner]}}
    space = code_space_from_json(given)
    assert space.labels == ("x", "x/deep/y")
    assert nest({"x": "flat", "x/deep/y": "p"}, given) == {"x": {"_name": "flat"}}
    deep = {"x": {"_name": "deep", "y": {"_name": "q"}}}
    assert nest({"x": "deep", "x/deep/y": "q"}, given) == deep
    assert unnest(deep) == {"x": "deep", "x/deep/y": "q"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "must have at least one dimension"),
        ({"x": {"_type": "gamma", "_value": [1, 2]}}, "'x' must be a choice, randint"),
        ({"x": {"_value": [1, 2]}}, "'x' must have _type and _value"),
        ({"x": 3}, "'x' must have _type and _value"),
        ({"x": {"_type": "uniform", "_value": ["a", 2]}}, "'x' must be a legal uniform"),
        ({"x": {"_type": "quniform", "_value": [1, 2]}}, "'x' must be a legal quniform"),
        ({"x": {"_type": "choice", "_value": []}}, "'x' must have at least one value"),
        ({"x": {"_type": "randint", "_value": [3, 3]}}, "'x' must have at least one value"),
    ],
)
def test_refused_with_a_sentence(given: Any, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        code_space_from_json(given)
