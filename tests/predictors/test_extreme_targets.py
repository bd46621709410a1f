"""Results as large as floats are: searches and predictors go on, and say nothing wrong."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from nni_aiop.predictors import make_predictor
from nni_aiop.predictors._moderate import center_and_scale, moderate
from nni_aiop.predictors.tabular import EarlyStopping
from nni_aiop.search import (
    BaseSearch,
    LocalSearch,
    NCPSearch,
    Objective,
    PNAGSearch,
    PredictorTopK,
    RegularizedEvolution,
)
from nni_aiop.search._predictor_based import log_regret
from nni_aiop.spaces import CodeSpace, Ordinal

MAX = sys.float_info.max
SPACE = CodeSpace([Ordinal(f"x{i}", tuple(range(6))) for i in range(4)])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 2.0, 4.0, 5.0, 1e300], [1.0, 2.0, 4.0, 5.0, 24.0]),
        ([1.0, 2.0, 4.0, 5.0, -MAX], [1.0, 2.0, 4.0, 5.0, -18.0]),
        ([1.0, 2.0, 4.0, 5.0, MAX, -MAX], [1.0, 2.0, 4.0, 5.0, 32.0, -28.0]),
        ([0.1, 0.1, 0.1, 0.9, 1e300], [0.1, 0.1, 0.1, 0.9, 8.9]),
        ([1.0, 2.0, 5000.0], [1.0, 2.0, 5000.0]),
        ([1e300, 1.1e300, 2e300], [1e300, 1.1e300, 2e300]),
        ([1.0, 1e300], [1.0, 1e300]),
        ([-MAX, 0.0, MAX], [-MAX, 0.0, MAX]),
        ([3.0, 3.0, 3.0], [3.0, 3.0, 3.0]),
        ([1.0, np.nan, 2.0, 4.0, 5.0, 1e300], [1.0, np.nan, 2.0, 4.0, 5.0, 24.0]),
    ],
)
def test_what_is_far_beyond_all_others_is_near(values: list[float], expected: list[float]) -> None:
    np.testing.assert_allclose(moderate(np.array(values)), expected, rtol=1e-12)


def test_means_and_deviations_do_not_overflow() -> None:
    center, scale = center_and_scale(np.array([[1e300, 1.0], [3e300, 3.0], [2e300, 2.0]]))
    np.testing.assert_allclose(center, [2e300, 2.0])
    np.testing.assert_allclose(scale, np.std([1.0, 2.0, 3.0]) * np.array([1e300, 1.0]))


@pytest.mark.parametrize("values", [[1.0, 2.0, MAX], [-MAX, 0.0, MAX], [1e300, 2e300, 3e300]])
def test_log_regret_rises(values: list[float]) -> None:
    found = log_regret(np.array(values))
    assert np.isfinite(found).all() and (np.diff(found) >= 0).all() and found[-1] > found[0]


@pytest.mark.parametrize("name", ["gp", "ncp-mlp"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_predictors_of_huge_metrics(name: str, dtype: torch.dtype) -> None:
    rng = np.random.default_rng(0)
    codes = SPACE.encode(SPACE.sample(30, rng))
    y = codes.sum(axis=1)
    options = {} if name == "gp" else {"epochs": 20}
    plain = make_predictor(name, SPACE, 0, **options).fit(codes, {"y": y})
    huge = make_predictor(name, SPACE, 0, **options).fit(codes, {"y": y * 1e300})
    a, b = plain.predict(codes), huge.predict(codes)
    np.testing.assert_allclose(b.mean, a.mean * 1e300, rtol=1e-6)
    np.testing.assert_allclose(b.std, a.std * 1e300, rtol=1e-6)
    for mean in huge.forward_with_std(torch.as_tensor(codes, dtype=dtype)):
        assert mean.isfinite().all()
    outlier = y.copy()
    outlier[3] = MAX
    found = make_predictor(name, SPACE, 0, **options).fit(codes, {"y": outlier}).predict(codes)
    others = np.arange(30) != 3
    assert np.corrcoef(found.mean[others, 0], y[others])[0, 1] > 0.6


RESULTS: dict[str, Callable[[float, int], float]] = {
    "some diverged": lambda good, i: 1e300 if i in (2, 9) else good,
    "many diverged": lambda good, i: MAX if i % 4 == 2 else good,
    "where it is bad": lambda good, i: MAX if good > 14 else good,
    "all are huge": lambda good, i: good * 1e300,
    "all are tiny": lambda good, i: good * 1e-310,
}


@pytest.mark.parametrize("name", RESULTS)
@pytest.mark.parametrize("kind", [NCPSearch, PredictorTopK, PNAGSearch, LocalSearch,
                                  RegularizedEvolution])  # fmt: skip
def test_searches_go_on(kind: type[BaseSearch], name: str) -> None:
    options: dict[str, Any] = {}
    if kind in (NCPSearch, PredictorTopK, PNAGSearch):
        options = {"budget": 24, "rounds": 3}
    if kind is PNAGSearch:
        options |= {"evaluator_steps": 30, "generator_steps": 10, "pool": 200, "drawn": 60}
    search = kind(SPACE, objectives=[Objective("default", "minimize")], seed=0, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for i in range(24):
            (sample,) = search.ask()
            search.tell(sample, RESULTS[name](float(sum(sample.values())), i))
    best = search.best()
    assert best is not None and np.isfinite(best[1]["default"])
    if kind in (NCPSearch, PredictorTopK):  # they learned from what is left
        assert sum(best[0].values()) <= (3 if kind is NCPSearch else 5)


def test_the_best_of_several_huge_objectives() -> None:
    search = LocalSearch(SPACE, objectives=["a", "b"])
    for i, (a, b) in enumerate([(MAX, MAX), (MAX, -MAX), (1.0, 1.0)]):
        (sample,) = search.ask()
        search.tell(sample, {"a": a, "b": b, "i": float(i)})
    best = search.best()
    assert best is not None and best[1]["i"] == 0


@pytest.mark.parametrize("far", [1e300, -1e300, MAX, -MAX])
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_early_stopping_does_not_learn_from_what_diverged(far: float, direction: Any) -> None:
    rules = [EarlyStopping(startup=6, direction=direction) for _ in range(2)]
    for final in (0.6, 0.7, 0.8, 0.9, 0.65, 0.75):
        for rule in rules:
            rule.finish([final - 0.2, final - 0.1, final], final)
    rules[1].finish([0.5, far, far], far)
    for curve in ([0.41, 0.5], [0.75, 0.85]):
        plain, other = (rule.forecast(curve) for rule in rules)
        assert plain is not None and other is not None
        assert other.mean == pytest.approx(plain.mean, abs=0.02)
    found = rules[1].forecast([far, far])
    assert found is not None and np.isfinite([found.mean, found.std]).all()
