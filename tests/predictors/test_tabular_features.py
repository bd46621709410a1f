"""Features of schemes and of learning curves, against numbers worked out by hand."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nni_aiop.benchmarks import load_naap440
from nni_aiop.graphs import from_module
from nni_aiop.predictors.tabular import (
    SCHEME_COLUMNS,
    compact_curve_features,
    raw_curve_features,
    scheme_features,
    space_features,
)
from nni_aiop.search_spaces import digits, get_space, naap
from nni_aiop.spaces import SampleCost


def column(found: np.ndarray, name: str) -> np.ndarray:
    return found[:, SCHEME_COLUMNS.index(name)]


class Skipped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.inner = nn.Conv2d(8, 8, 5, padding=2, bias=False)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.inner(x)
        return self.head(x.mean((2, 3)))


def test_a_network_counted_by_hand() -> None:
    (found,) = scheme_features([from_module(Skipped(), (1, 3, 16, 16))])
    params = 216 + 1600 + 36
    macs = 64 * (216 + 1600) + 32
    # Two layers at one resolution; a window of 3 + (5 - 1) * 2 pixels.
    wanted = [math.log(params), math.log(macs), 2, 1, 8, 8, 1, 11, math.log(8), 4]
    np.testing.assert_allclose(found, wanted)


def test_a_network_without_positions() -> None:
    net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    (found,) = scheme_features([from_module(net, (1, 6))])
    assert found[2] == 2 and found[4:6].tolist() == [5, 2] and np.isfinite(found).all()
    assert scheme_features([]).shape == (0, len(SCHEME_COLUMNS))


def test_schemes_of_naap_are_those_of_its_table(data_dir: Path) -> None:
    table = load_naap440(data_dir / "naap440" / "naap440v2.csv")
    found = scheme_features([naap.graph(naap.from_layers(s)) for s in naap.schemes()])
    np.testing.assert_allclose(np.exp(column(found, "log_params")), table.scheme["NumParams"])
    for name, published in (
        ("depth", "NumLayers"),
        ("stages", "NumStages"),
        ("first_width", "FirstLayerWidth"),
        ("last_width", "LastLayerWidth"),
        ("skips", "NumSkipConnections"),
    ):
        np.testing.assert_array_equal(column(found, name), table.scheme[published])


@pytest.mark.parametrize("name", ["digits", "nasbench201", "mobilenetv3"])
def test_any_space_has_features(name: str) -> None:
    space = get_space(name)
    assert space.graph is not None
    samples = space.sample(2, np.random.default_rng(0))
    assert np.isfinite(scheme_features([space.graph(s) for s in samples])).all()
    of_codes = [cost for cost in space.costs.values() if not isinstance(cost, SampleCost)]
    assert space_features(space, samples).shape == (2, space.width + len(of_codes))


def test_equal_networks_have_equal_rows() -> None:
    space = digits.code_space()
    (sample,) = space.sample(1, np.random.default_rng(0))
    other = {**sample, "depth_1": 0, "op_1_1": "conv"}
    again = {**sample, "depth_1": 0, "op_1_1": "inverted"}
    found = space_features(space, [other, again])
    np.testing.assert_array_equal(found[0], found[1])
    flops = space.cost("flops", space.encode([other]))
    assert found[0, space.width] == pytest.approx(math.log(1 + flops[0]))


def test_curves() -> None:
    curve = [[0.4, 1.7, 1.6], [0.6, 1.2, 1.1], [0.5, 1.3, 1.2]]
    np.testing.assert_array_equal(compact_curve_features([curve]), [[0.6, 0.5, 1.2]])
    np.testing.assert_array_equal(raw_curve_features([curve]), [np.ravel(curve)])
    alone = np.array(curve)[None, :, :1]
    np.testing.assert_array_equal(compact_curve_features(alone), [[0.6, 0.5]])
    for shape in ((1, 3), (1, 0, 3), (1, 3, 2)):
        with pytest.raises(ValueError, match="curves must have shape"):
            compact_curve_features(np.zeros(shape))
    with pytest.raises(ValueError, match="curves must have shape"):
        raw_curve_features(alone)
