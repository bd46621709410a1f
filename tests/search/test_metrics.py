"""Objectives, constraints and numbers of a result, by hand."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from nni_aiop.search import Objective
from nni_aiop.search._metrics import as_number, read_result, violation


def test_an_objective_has_a_direction_and_a_positive_weight() -> None:
    assert Objective.of("x") == Objective("x") == Objective("x", "maximize", 1.0)
    less = Objective("ms", "minimize", 0.5)
    assert Objective.of(less) is less
    assert (Objective("x").sign, less.sign) == (1.0, -1.0)
    with pytest.raises(ValueError, match="must be one or a metric's name, but got 3"):
        Objective.of(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="maximize or minimize, but got 'up'"):
        Objective("x", "up")  # type: ignore[arg-type]
    for weight in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="weight must be positive"):
            Objective("x", weight=weight)


def test_a_violation_is_the_sum_above_zero() -> None:
    metrics = {"constraint:a": 0.5, "constraint:b": -2.0, "constraint:c": 1.0, "default": 9.0}
    assert violation(metrics) == 1.5
    assert violation({"default": 9.0, "constraint:a": 0.0}) == 0


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (2, 2.0),
        (True, 1.0),
        (Fraction(1, 2), 0.5),
        (np.float32(0.5), 0.5),
        (np.array(0.5), 0.5),
        (torch.tensor(0.5), 0.5),
        ("0.5", None),
        (None, None),
        ([0.5], None),
        (1 + 0j, None),
        (10**400, None),
        (np.ones(2), None),
        (torch.ones(2), None),
    ],
)
def test_what_counts_as_a_number(value: Any, number: float | None) -> None:
    assert as_number(value) == number


def test_a_result_that_is_read_again_is_finite() -> None:
    assert read_result(None) is None
    assert read_result({"a": 1, "b": -0.5}) == {"a": 1.0, "b": -0.5}
    for value in (math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError, match="'b' of a result must be finite, but is"):
            read_result({"a": 1, "b": value})
