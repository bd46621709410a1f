"""Latency of networks measured on this machine: numbers, refusals; never how fast it is."""

from pathlib import Path

import pytest
from torch import nn

from nni_aiop.errors import FileFormatError
from nni_aiop.latency import Latency, _exported, measure_latency


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
