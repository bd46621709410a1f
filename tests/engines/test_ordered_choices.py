"""Which choices have an order: one rule for both engines."""

import math
from typing import Any

import optuna
import pytest

from nni_aiop.engines.nni_space import categorical
from nni_aiop.engines.optuna_space import code_space_from_distributions
from nni_aiop.spaces import Nominal, Ordinal


@pytest.mark.parametrize(
    ("choices", "kind"),
    [
        ([1, 2, 4], Ordinal),
        ([0.1, 2, 3.5], Ordinal),
        ([1, 4, 2], Nominal),
        ([False, True], Nominal),
        ([3], Nominal),
        ([1.0, math.inf], Nominal),
        (["1", "2"], Nominal),
    ],
)
def test_increasing_finite_numbers_are_ordinal(choices: list[Any], kind: type) -> None:
    assert type(categorical("x", choices, is_layer_choice=False)) is kind
    assert type(categorical("x", choices, is_layer_choice=True)) is Nominal
    read = optuna.distributions.CategoricalDistribution(choices)
    (dimension,) = code_space_from_distributions({"x": read}).dimensions
    assert type(dimension) is kind
