"""Latency of networks measured on this machine: numbers, refusals; never how fast it is."""

from pathlib import Path

import pytest
from torch import nn

from nni_aiop.errors import FileFormatError
from nni_aiop.latency import Latency, _exported, latency_cost, measure_latency
from nni_aiop.search import NCPSearch, RandomSearch
from nni_aiop.spaces import CodeSpace, Ordinal


def test_median_and_spread_by_hand() -> None:
    found = Latency((1.0, 2.0, 3.0, 4.0, 100.0))
    assert (found.median, found.spread) == (3.0, 2.0)


def test_a_module_is_measured_and_keeps_its_mode() -> None:
    pytest.importorskip("onnxruntime")
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    found = measure_latency(network, (1, 3, 8, 8), warmup=1, runs=3)
    assert len(found.runs) == 3 and found.median > 0 and found.spread >= 0
    assert network.training
    network[1].eval()  # partly frozen
    measure_latency(network, (1, 3, 8, 8), warmup=0, runs=1)
    assert [part.training for part in network] == [True, False]


def test_a_file_is_measured_at_its_shape_only(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    file = tmp_path / "net.onnx"
    file.write_bytes(_exported(nn.Conv2d(3, 4, 3), (1, 3, 8, 8)))
    assert measure_latency(file, (1, 3, 8, 8), warmup=0, runs=2).median > 0
    with pytest.raises(FileFormatError, match=r"must take numbers of shape \(1, 3, 224, 224\)"):
        measure_latency(file)
    with pytest.raises(FileNotFoundError):
        measure_latency(tmp_path / "none.onnx")


def test_what_is_no_network_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    file = tmp_path / "net.onnx"
    file.write_bytes(b"not a network")
    with pytest.raises(FileFormatError, match="must be an ONNX network"):
        measure_latency(file)


@pytest.mark.parametrize("network", [nn.Conv2d(3, 4, 3), nn.Bilinear(2, 2, 2), {"d1": 2}])
def test_what_does_not_take_such_an_image_is_refused(network) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(FileFormatError, match=r"takes an image of shape \(1, 5, 8, 8\)"):
        measure_latency(network, (1, 5, 8, 8))


def test_numbers_below_their_least_are_refused() -> None:
    with pytest.raises(ValueError, match="runs and threads at least 1"):
        measure_latency(nn.Identity(), runs=0)


SPACE = CodeSpace([Ordinal("width", range(1, 65)), Ordinal("kernel", (1, 3, 5))])


def build(sample) -> nn.Module:
    return nn.Conv2d(3, sample["width"], sample["kernel"])


def test_latency_is_a_cost_that_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    measured = []

    def measure(network, shape, **options) -> Latency:
        measured.append((network.out_channels, network.kernel_size))
        assert (shape, options) == ((1, 3, 8, 8), {"warmup": 1, "runs": 3, "threads": 2})
        return Latency((0.0, milliseconds(network), 100.0))  # the median counts

    def milliseconds(network) -> float:
        return network.out_channels * network.kernel_size[0] ** 2 / 100

    monkeypatch.setattr("nni_aiop.latency.measure_latency", measure)
    cost = latency_cost(build, (1, 3, 8, 8), warmup=1, runs=3, threads=2, initial=16)
    space = SPACE.with_cost("ms", cost)
    search = NCPSearch(space, budget=12, rounds=2, starts=8, steps=3, limits={"ms": 0.5})
    for _ in range(12):
        (sample,) = search.ask()
        assert milliseconds(build(sample)) <= 0.5
        search.tell(sample, sample["width"])
    assert len(measured) == len(set(measured)) < 100


def test_a_network_really_is_measured_for_a_limit() -> None:
    pytest.importorskip("onnxruntime")
    space = SPACE.with_cost("ms", latency_cost(build, (1, 3, 8, 8), warmup=0, runs=1))
    asked = RandomSearch(space, limits={"ms": 1e4}).ask(2)
    assert (space.cost("ms", space.encode(asked)) > 0).all()
    assert float(Latency((3.0, 1.0, 2.0))) == 2.0
