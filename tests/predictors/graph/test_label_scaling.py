"""Eqs. 4 and 5 of AIO-P and their inverses, against numbers worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from nni_aiop.errors import FileFormatError
from nni_aiop.predictors.graph.labels import LabelScaling

# 0, 9 and 99 GFLOPs: log10(F + 1) + 1 is 1, 2 and 3.
FLOPS = [0.0, 9e9, 99e9]


def test_equation_4() -> None:
    # Mean 4; squared deviations 4, 0, 4: their mean is 8/3.
    scaling = LabelScaling().fit([2.0, 4.0, 6.0])
    assert scaling.center_ == 4
    assert scaling.scale_ == pytest.approx(np.sqrt(8 / 3))
    np.testing.assert_allclose(scaling.transform([4.0, 7.0]), [0, 3 / np.sqrt(8 / 3)])
    np.testing.assert_allclose(scaling.inverse([0.0, -1.0]), [4, 4 - np.sqrt(8 / 3)])
    np.testing.assert_allclose(scaling.inverse_std([0.5]), [0.5 * np.sqrt(8 / 3)])


def test_equation_5_before_equation_4() -> None:
    # 2 / 1, 8 / 2, 18 / 3 are 2, 4, 6, as above.
    scaling = LabelScaling(by_flops=True).fit([2.0, 8.0, 18.0], FLOPS)
    assert scaling.center_ == pytest.approx(4)
    assert scaling.scale_ == pytest.approx(np.sqrt(8 / 3))
    # 14 / 2 = 7
    np.testing.assert_allclose(scaling.transform([14.0], [9e9]), [3 / np.sqrt(8 / 3)])
    np.testing.assert_allclose(scaling.inverse([0.0, 0.0, 0.0], FLOPS), [4, 8, 12])
    np.testing.assert_allclose(
        scaling.inverse_std([1.0, 1.0], [0, 99e9]), np.sqrt(8 / 3) * np.array([1, 3])
    )


def test_equation_5_alone() -> None:
    scaling = LabelScaling(standardise=False, by_flops=True).fit([1.0, 2.0, 3.0], FLOPS)
    assert (scaling.center_, scaling.scale_) == (0, 1)
    np.testing.assert_allclose(scaling.transform([6.0, 6.0, 6.0], FLOPS), [6, 3, 2])


def test_neither_is_the_identity() -> None:
    scaling = LabelScaling(standardise=False).fit([5.0])
    assert scaling.transform([7.0]).tolist() == [7] == scaling.inverse([7.0]).tolist()


@pytest.mark.parametrize("by_flops", [False, True])
def test_the_inverse_is_one(by_flops: bool) -> None:
    rng = np.random.default_rng(0)
    y, flops = rng.uniform(20, 90, 50), 10 ** rng.uniform(6, 12, 50)
    scaling = LabelScaling(by_flops=by_flops).fit(y[:20], flops[:20])
    np.testing.assert_allclose(scaling.inverse(scaling.transform(y, flops), flops), y)
    z = scaling.transform(y[:20], flops[:20])
    assert z.mean() == pytest.approx(0, abs=1e-12)
    assert z.std() == pytest.approx(1)


@pytest.mark.parametrize("y", [[70.1], [70.1, 70.1, 70.1]])
def test_labels_that_are_all_the_same(y: list[float]) -> None:
    scaling = LabelScaling().fit(y)
    assert scaling.scale_ == 0
    assert scaling.transform([1.0, 2.0]).tolist() == [0, 0]
    assert scaling.inverse([-3.0, 3.0]).tolist() == [70.1, 70.1]


def test_json_keeps_every_bit() -> None:
    scaling = LabelScaling(by_flops=True).fit([0.1, 0.7, 0.3], FLOPS)
    again = LabelScaling.from_json(json.loads(json.dumps(scaling.to_json())))
    assert again.to_json() == scaling.to_json()
    assert again.inverse([0.3], [5e9]) == scaling.inverse([0.3], [5e9])


WHOLE = {"standardise": True, "by_flops": False, "center": 1.0, "scale": 2.0}


@pytest.mark.parametrize(
    "change", [{"scale": -1.0}, {"center": float("nan")}, {"by_flops": 1}, {"scale": "wide"}]
)
def test_damaged_json_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(FileFormatError):
        LabelScaling.from_json(WHOLE | change)


def test_json_with_a_missing_entry_is_refused() -> None:
    with pytest.raises(FileFormatError, match="center"):
        LabelScaling.from_json({k: v for k, v in WHOLE.items() if k != "center"})


BY_FLOPS = LabelScaling(by_flops=True)
REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "no label": (lambda: LabelScaling().fit([]), "at least one label"),
    "NaN": (lambda: LabelScaling().fit([1.0, float("nan")]), "finite, but got nan"),
    "a table": (lambda: LabelScaling().fit([[1.0]]), r"\(n,\), but got \(1, 1\)"),
    "no FLOPs": (lambda: BY_FLOPS.fit([1.0]), "FLOPs .* must be given"),
    "other number": (lambda: BY_FLOPS.fit([1.0, 2.0], [1e9]), "FLOPs of 2 networks, but got 1"),
    "negative": (lambda: BY_FLOPS.fit([1.0], [-1e9]), "not be negative, but got -1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused(case: str) -> None:
    call, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        call()


def test_use_before_fit() -> None:
    for use in (LabelScaling().transform, LabelScaling().inverse, LabelScaling().inverse_std):
        with pytest.raises(NotFittedError):
            use([1.0])
