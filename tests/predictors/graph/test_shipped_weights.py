"""The weights that come with the package: whole, small, as their card says, and of use."""

from __future__ import annotations

import hashlib
import io
import shutil
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks._timm import create
from nni_aiop import weights
from nni_aiop.errors import FileFormatError
from nni_aiop.graphs import FEATURES_VERSION, ComputeGraph, from_module, from_onnx
from nni_aiop.predictors.graph import (
    GraphSet,
    TaskPredictor,
    load_shipped,
    load_shipped_task,
    model_card,
    shipped_tasks,
)
from nni_aiop.predictors.graph import _shipped as shipped
from nni_aiop.search_spaces import get_space

IMAGENET = "imagenet-top1"
CREATED = {
    # ImageNet top-1 as timm lists it, of weights trained on ImageNet-1k alone.
    "mobilenetv3_small_050": 57.9,
    "resnet18": 73.2,
    "resnet50": 81.2,
}


@pytest.fixture(scope="module")
def known() -> TaskPredictor:
    return load_shipped_task(IMAGENET)


@pytest.fixture(scope="module")
def networks() -> list[ComputeGraph]:
    with torch.device("meta"):
        return [from_module(create(name), (1, 3, 224, 224)) for name in CREATED]


def test_the_card_matches_the_files() -> None:
    card = model_card()
    assert card["features_version"] == FEATURES_VERSION
    assert set(card["tasks"]) == set(shipped_tasks())
    paths = list(weights.FOLDER.glob("*.safetensors"))
    assert set(card["files"]) == {path.name for path in paths}
    for path in paths:
        told = card["files"][path.name]
        assert told["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert told["bytes"] == path.stat().st_size
    assert sum(path.stat().st_size for path in paths) < 5e6
    for told in card["tasks"].values():
        assert {"predicts", "dataset", "rows", "figures", "limits"} <= set(told)


def test_every_task_loads() -> None:
    predictor = load_shipped(*shipped_tasks())
    assert tuple(predictor.adapters_) == shipped_tasks()
    assert set(load_shipped().adapters_) == set()


def test_real_networks_are_ranked(known: TaskPredictor, networks: list[ComputeGraph]) -> None:
    found = known.predict(networks)
    assert (known.distance(networks) < 1).all()
    assert (np.diff(found.mean[:, 0]) > 0).all()
    assert found.mean[:, 0] == pytest.approx(list(CREATED.values()), abs=7)


@pytest.mark.parametrize("dynamo", [False, True], ids=["legacy", "dynamo"])
def test_a_file_exported_by_default_is_predicted_as_its_module(
    known: TaskPredictor, dynamo: bool, tmp_path: Path
) -> None:
    network, path = create("mobilenetv3_small_050"), tmp_path / "network.onnx"
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (torch.zeros(1, 3, 224, 224),), path, dynamo=dynamo)
    module, file = known.predict([from_module(network, (1, 3, 224, 224)), from_onnx(path)]).mean
    assert file == module


def test_a_family_that_it_never_saw(known: TaskPredictor) -> None:
    # DenseNets, whose nodes read dozens of others: 75.0 % as published (Huang et al., 2017).
    with torch.device("meta"):
        graph = from_module(create("densenet121"), (1, 3, 224, 224))
    assert known.distance([graph]) <= 1
    assert known.predict([graph]).mean == pytest.approx(75.0, abs=5)


def test_foreign_networks_are_outside(known: TaskPredictor) -> None:
    space = get_space("digits")
    assert space.graph is not None
    toys = [space.graph(sample) for sample in space.sample(3, np.random.default_rng(0))]
    with torch.device("meta"):
        video = nn.Sequential(
            *(nn.Conv3d(3, 64, 3, padding=1), nn.ReLU(), nn.MaxPool3d(2)),
            *(nn.Conv3d(64, 64, 3, padding=1), nn.ReLU(), nn.MaxPool3d(2)),
            *(nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(64, 400)),
        )
        perceptron = nn.Sequential(nn.Flatten(), nn.Linear(3 * 224 * 224, 64), nn.Linear(64, 1000))
        pixels = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 21, 1))
    foreign = [
        *toys,
        from_module(video, (1, 3, 16, 112, 112)),
        from_module(perceptron, (1, 3, 224, 224)),
        from_module(pixels, (1, 3, 224, 224)),
    ]
    assert (known.distance(foreign) > 1).all()


def test_adapters_of_spaces_know_their_spaces() -> None:
    space = get_space("transnas101_micro")
    assert space.graph is not None
    graphs = [space.graph(sample) for sample in space.sample(10, np.random.default_rng(0))]
    assert np.mean(load_shipped_task("transnas-class-object").distance(graphs) <= 1) > 0.5


def test_an_unknown_task_lists_those_there_are() -> None:
    with pytest.raises(KeyError, match=r"one of .*imagenet-top1.*, but got 'top1'"):
        load_shipped("top1")


@pytest.mark.parametrize("name", [weights.BACKBONE, weights.adapter_file(IMAGENET)])
def test_damage_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in (weights.BACKBONE, weights.adapter_file(IMAGENET)):
        shutil.copy(weights.FOLDER / file, tmp_path)
    data = bytearray((tmp_path / name).read_bytes())
    data[-100] ^= 1
    (tmp_path / name).write_bytes(data)
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    with pytest.raises(FileFormatError, match="checksum differs"):
        load_shipped_task(IMAGENET)


def test_they_are_a_beginning(networks: list[ComputeGraph]) -> None:
    """Few labels of one's own carry them to another task."""
    predictor = load_shipped(IMAGENET)
    head = predictor.few_shot(GraphSet(networks), [1.0, 2.0, 3.0], head="ridge")
    assert (np.diff(head.predict(networks).mean[:, 0]) > 0).all()
