"""What a table computes of all its rows is computed once, however often it is read."""

import inspect
from typing import Any

import numpy as np
import pytest

import nni_aiop.benchmarks
from nni_aiop.benchmarks import NASBench201, OFAMobileNetV3


def small_tables() -> list[Any]:
    none = np.zeros(3)
    kernel = np.full((3, 20), 3)
    return [
        NASBench201(np.tile(np.eye(5)[0], (3, 6)), {}, none, none),
        OFAMobileNetV3(np.full(3, 224), np.full((3, 5), 2), kernel, kernel, {"top1": none}, {}),
    ]


@pytest.mark.parametrize("table", small_tables(), ids=lambda table: type(table).__name__)
def test_rows_are_the_same_object_at_each_access(table: Any) -> None:
    rows = table.operations if isinstance(table, NASBench201) else table.samples
    assert len(rows) == len(table) == 3
    assert rows is (table.operations if isinstance(table, NASBench201) else table.samples)


def test_no_reader_computes_rows_anew() -> None:
    """A plain property of a table may look at names, but not at rows."""
    tables = [
        value
        for value in vars(nni_aiop.benchmarks).values()
        if inspect.isclass(value) and hasattr(value, "__len__")
    ]
    assert len(tables) == 7
    plain = {
        f"{table.__name__}.{name}"
        for table in tables
        for name, value in vars(table).items()
        if isinstance(value, property)
    }
    assert plain == {
        "NASBenchMR.main_metric",
        "OFAMobileNetV3.measured",
        "OFAMobileNetV3.predicted",
        "OFAMobileNetV3.surrogate",
        "TaskZoo.tasks",
    }
