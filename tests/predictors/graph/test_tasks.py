"""Folders of tasks: what was learned predicts the same when it is read; other files are refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nni_aiop.errors import FileFormatError
from nni_aiop.graphs import ComputeGraph
from nni_aiop.predictors.graph import GraphPredictor, learn_task, load_task
from nni_aiop.predictors.graph._files import read_file, write_file
from nni_aiop.predictors.graph._tasks import MODELS
from nni_aiop.search_spaces import get_space

QUICK: dict[str, Any] = {"epochs": 2, "encoder_options": {"hidden": 8, "layers": 2}}


@pytest.fixture(scope="module")
def graphs() -> list[ComputeGraph]:
    space = get_space("digits")
    return [space.graph(sample) for sample in space.sample(24, np.random.default_rng(0))]


@pytest.fixture(scope="module")
def macs(graphs: list[ComputeGraph]) -> np.ndarray:
    return np.array([graph.macs for graph in graphs]) / 1e6


@pytest.fixture(scope="module")
def backbone(graphs: list[ComputeGraph], macs: np.ndarray) -> GraphPredictor:
    return GraphPredictor(**QUICK).fit(graphs, {"mmacs": macs})


def change(path: Path, **entries: Any) -> None:
    content, tensors = read_file(path, "nni-aiop task")
    write_file(path, "nni-aiop task", content | entries, tensors)


@pytest.mark.parametrize("model", MODELS)
def test_a_task_is_read_as_it_was_learned(
    model: str, backbone: GraphPredictor, graphs: list[ComputeGraph], macs: Any, tmp_path: Path
) -> None:
    learned = learn_task(backbone, "speed", graphs[:16], -macs[:16], tmp_path, model=model)
    assert (tmp_path / "speed.adapter.safetensors").exists() == (model == "adapter")
    read = load_task(tmp_path, "speed")
    assert (learned.task, read.task) == ("speed", "speed")
    for known, again in (
        (learned.predict(graphs).mean, read.predict(graphs).mean),
        (learned.predict(graphs).std, read.predict(graphs).std),
        (learned.distance(graphs), read.distance(graphs)),
    ):
        np.testing.assert_array_equal(known, again)
    assert (read.distance(graphs[:16]) <= 1).all()
    metric = load_task(tmp_path, "mmacs")
    np.testing.assert_array_equal(
        metric.predict(graphs).mean, backbone.predict(graphs)["mmacs"].mean
    )
    np.testing.assert_array_equal(metric.distance(graphs), backbone.distance(graphs))


def test_a_head_has_learned_the_labels(
    backbone: GraphPredictor, graphs: list[ComputeGraph], macs: Any, tmp_path: Path
) -> None:
    found = learn_task(backbone, "speed", graphs, -macs, tmp_path).predict(graphs).mean[:, 0]
    assert np.corrcoef(found, -macs)[0, 1] > 0.8


def test_what_is_no_task_is_one_sentence(
    backbone: GraphPredictor, graphs: list[ComputeGraph], macs: Any, tmp_path: Path
) -> None:
    learn_task(backbone, "speed", graphs, macs, tmp_path)
    learn_task(backbone, "other", graphs, macs, tmp_path, model="adapter")
    with pytest.raises(KeyError, match="must be one of mmacs, other, speed, but got 'sped'"):
        load_task(tmp_path, "sped")
    for name in ("a/b", "backbone", "..", ".", ""):
        with pytest.raises(ValueError, match="a task must be letters"):
            load_task(tmp_path, name)
    with pytest.raises(ValueError, match="must not be a metric of the backbone, but got 'mmacs'"):
        learn_task(backbone, "mmacs", graphs, macs, tmp_path)
    with pytest.raises(ValueError, match="a model must be one of adapter"):
        learn_task(backbone, "fast", graphs, macs, tmp_path, model="tree")

    file = tmp_path / "speed.safetensors"
    shutil.copy(file, tmp_path / "kept")
    change(file, model="tree")
    with pytest.raises(FileFormatError, match=r"must be of adapter, .*but is of 'tree'"):
        load_task(tmp_path, "speed")
    shutil.copy(tmp_path / "kept", file)
    change(file, backbone="0")
    with pytest.raises(FileFormatError, match="must be of the backbone beside it"):
        load_task(tmp_path, "speed")


def test_a_folder_of_another_backbone_is_refused(
    backbone: GraphPredictor, graphs: list[ComputeGraph], macs: Any, tmp_path: Path
) -> None:
    learn_task(backbone, "speed", graphs, macs, tmp_path)
    learn_task(backbone, "again", graphs, macs, tmp_path)
    other = GraphPredictor(**QUICK, seed=1).fit(graphs, macs)
    with pytest.raises(FileFormatError, match="must be of this backbone"):
        learn_task(other, "speed", graphs, macs, tmp_path)


@pytest.mark.parametrize("validation", [-1, -0.01, 1, 1.5])
def test_the_share_that_is_not_learned_lies_below_one(
    validation: float, backbone: GraphPredictor, graphs: list[ComputeGraph], macs: Any
) -> None:
    message = r"validation must lie in \[0, 1\)"
    with pytest.raises(ValueError, match=message):
        GraphPredictor(**QUICK).fit(graphs, macs, validation=validation)
    with pytest.raises(ValueError, match=message):
        backbone.adapt("task", graphs, macs, validation=validation)
