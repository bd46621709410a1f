"""Options and results are records: who holds one may rely on it, and it may be a key."""

from __future__ import annotations

import dataclasses
from importlib import import_module
from types import ModuleType

import pytest

ROOMS = ("graphs", "spaces", "predictors", "predictors.tabular", "predictors.graph", "search",
         "generators", "results", "networks", "strategies")  # fmt: skip


def records(room: ModuleType) -> list[type]:
    public = [getattr(room, name) for name in room.__all__]
    return [one for one in public if isinstance(one, type) and dataclasses.is_dataclass(one)]


@pytest.mark.parametrize("room", ROOMS)
def test_public_records_are_frozen(room: str) -> None:
    if room == "strategies":
        pytest.importorskip("nni", reason="NNI is not installed")
    for record in records(import_module(f"nni_aiop.{room}")):
        assert record.__dataclass_params__.frozen, record  # type: ignore[attr-defined]


def test_there_are_records() -> None:
    tabular = import_module("nni_aiop.predictors.tabular")
    assert {"Decision", "Forecast"} <= {record.__name__ for record in records(tabular)}
