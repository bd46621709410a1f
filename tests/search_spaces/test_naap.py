"""NAAP-440's space: the published schemes, costs, features; the networks; the split."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from nni_aiop.benchmarks import NAAP440, held_out, load_naap440, load_table
from nni_aiop.errors import SpaceError
from nni_aiop.graphs import from_module
from nni_aiop.search_spaces import naap
from nni_aiop.search_spaces.naap import Layer, NAAPNet


@pytest.fixture(scope="module", params=["naap440.csv", "naap440v2.csv"])
def published(request: pytest.FixtureRequest, data_dir: Path) -> NAAP440:
    return load_naap440(data_dir / "naap440" / request.param)


def codes() -> torch.Tensor:
    return torch.as_tensor(naap.code_space().encode([naap.from_layers(s) for s in naap.schemes()]))


def test_the_scan_gives_the_published_schemes_in_their_order(data_dir: Path) -> None:
    text = (data_dir / "naap440" / "generated_schemes.json").read_text()
    keys = ("kernel_size", "width", "stride", "residual")
    wanted = [tuple(Layer(*(layer[k] for k in keys)) for layer in s) for s in json.loads(text)]
    assert naap.schemes() == wanted and len(wanted) == 440


def test_every_scheme_has_one_sample_and_every_sample_one_scheme() -> None:
    space = naap.code_space()
    points = space.enumerate_points()
    keys = space.keys(points)
    distinct = list(dict.fromkeys(keys))
    found = [naap.layers(space.from_points(points[[keys.index(key)]])[0]) for key in distinct]
    assert found == naap.schemes()
    for scheme in naap.schemes()[::7]:
        sample = naap.from_layers(scheme)
        assert space.violation(sample) is None and space.canonical(sample) == sample
        assert naap.layers(space.decode(space.encode([sample]))[0]) == scheme


def test_features_equal_the_table_in_every_row(published: NAAP440) -> None:
    found = naap.scheme(codes()).numpy()
    assert published.model_id.tolist() == list(range(1, 441))
    for name, column in zip(naap.SCHEME_COLUMNS, found.T, strict=True):
        np.testing.assert_array_equal(column, published.scheme[name])
    if "NumSkipConnections" in published.scheme:
        skips = [sum(layer.skip for layer in scheme) for scheme in naap.schemes()]
        np.testing.assert_array_equal(skips, published.scheme["NumSkipConnections"])


def test_the_split_is_the_published_one(published: NAAP440) -> None:
    split = held_out(published.max_accuracy, published.model_id)
    np.testing.assert_array_equal(split, published.is_test)
    assert split.sum() == 40


def test_the_table_has_codes(data_dir: Path) -> None:
    space = naap.code_space()
    path = data_dir / "naap440" / "naap440.csv"
    table, metrics = load_table(path, space, ["max_accuracy"])
    assert space.keys(space.decode_points(table)) == space.keys(space.decode_points(codes()))
    np.testing.assert_array_equal(metrics["max_accuracy"], load_naap440(path).max_accuracy)


def test_networks_have_the_costs_and_the_graph() -> None:
    space = naap.code_space()
    for number in (0, 9, 53, 439):
        sample = naap.from_layers(naap.schemes()[number])
        net = NAAPNet(sample)
        code = space.encode([sample])
        assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
        graph = from_module(net, (1, 3, 32, 32))
        assert graph == naap.graph(sample)
        assert sum(p.numel() for p in net.parameters()) == space.cost("params", code)
        assert graph.macs == space.cost("flops", code)


def test_features_lie_about_the_unit_cube_and_have_gradients() -> None:
    space = naap.code_space()
    assert space.features is not None
    relaxed = codes().requires_grad_()
    found = space.features(relaxed)
    assert found.min() > -0.1 and found.max() < 1.1
    (slope,) = torch.autograd.grad(found.sum(), relaxed)
    assert torch.isfinite(slope).all()


@pytest.mark.parametrize(
    "layers",
    [
        [(3, 12, 2), (3, 16, 2)],
        [(3, 12, 2), (3, 16, 2), (3, 24, 1, True)],  # other width
        [(3, 12, 2), (3, 16, 2), (3, 16, 2, True)],  # other resolution
        [(3, 12, 2), (3, 16, 2), (3, 16, 2), (3, 32, 2)],  # four stages
        [(1, 12, 2), (3, 16, 2), (3, 16, 1)],
        [(3, 12, 2), (3, 16, 2), (3, 16, 1), (3, 32, 1), (3, 32, 1)],
    ],
)
def test_other_layers_are_refused(layers: list[tuple[int, ...]]) -> None:
    with pytest.raises(SpaceError):
        naap.from_layers(layers)


def test_an_incomplete_sample_is_refused() -> None:
    with pytest.raises(SpaceError, match="lacks"):
        naap.layers({"n_layers": 4})
