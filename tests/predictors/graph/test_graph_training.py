"""The training loop: losses, checkpoints that resume, several processes."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nni_aiop.errors import FileFormatError
from nni_aiop.graphs import ComputeGraph
from nni_aiop.predictors.graph import GraphPredictor, _training
from nni_aiop.predictors.graph._training import Recipe, _loss, _rate
from nni_aiop.search_spaces import get_space

QUICK: dict[str, Any] = {"epochs": 4, "encoder_options": {"hidden": 8, "layers": 2}}


@pytest.fixture(scope="module")
def graphs() -> list[ComputeGraph]:
    space = get_space("digits")
    return [space.graph(sample) for sample in space.sample(40, np.random.default_rng(0))]


@pytest.fixture(scope="module")
def y(graphs: list[ComputeGraph]) -> np.ndarray:
    return np.log([graph.macs for graph in graphs])


class TestLoss:
    FOUND = torch.tensor([[0.0, 1.0], [2.0, 3.0], [1.0, 0.0]])
    TARGETS = torch.tensor([[1.0, math.nan], [2.0, 3.0], [0.0, 1.0]])

    def test_by_hand(self) -> None:
        square = (1 + 0 + 0 + 1 + 1) / 5

        def pair(margin: float) -> float:
            return math.log1p(math.exp(-5 * margin))

        # y_1 > y_0 > y_2 of the first metric, y_1 > y_2 of the second.
        pairs = (pair(2 - 0) + pair(2 - 1) + pair(0 - 1) + pair(3 - 0)) / 4
        for loss, expected in (("mse", square), ("rank", pairs), ("both", square + 2 * pairs)):
            recipe = Recipe(loss=loss, rank_weight=2.0, rank_sharpness=5.0)
            assert float(_loss(self.FOUND, self.TARGETS, recipe)) == pytest.approx(expected)

    def test_equal_labels_are_no_pairs(self) -> None:
        found = torch.zeros(3, 1, requires_grad=True)
        loss = _loss(found, torch.zeros(3, 1), Recipe(loss="rank"))
        loss.backward()
        assert loss.item() == 0 and (found.grad == 0).all()

    def test_learning_rate_rises_and_falls(self) -> None:
        recipe = Recipe(learning_rate=1.0)
        rates = [_rate(recipe, done) for done in (0.0, 0.05, 0.1, 0.55, 1.0)]
        assert rates == pytest.approx([0.05, 0.525, 1.0, 0.5, 0.0])
        assert _rate(Recipe(learning_rate=1.0, schedule="constant"), 0.9) == 1.0


class TestCheckpoints:
    @pytest.mark.parametrize("stopped", [1, 3])
    def test_a_stopped_fit_goes_on_to_the_same_bits(
        self,
        graphs: list[ComputeGraph],
        y: np.ndarray,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        stopped: int,
    ) -> None:
        file = tmp_path / "checkpoint"
        whole = GraphPredictor(**QUICK).fit(graphs, y)
        written = _training._write

        def stop(*args: Any) -> None:
            written(*args)
            if len(args[-1]) == stopped:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(_training, "_write", stop)
            GraphPredictor(**QUICK).fit(graphs, y, checkpoint=file)
        resumed = GraphPredictor(**QUICK).fit(graphs, y, checkpoint=file)
        again = GraphPredictor(**QUICK).fit(graphs, y, checkpoint=file)
        for predictor in (resumed, again):
            assert predictor.losses_ == whole.losses_
            np.testing.assert_array_equal(
                predictor.predict(graphs).mean, whole.predict(graphs).mean
            )

    def test_adapters_have_them_too(
        self, graphs: list[ComputeGraph], y: np.ndarray, tmp_path: Path
    ) -> None:
        file = tmp_path / "adapter"
        predictor = GraphPredictor(**QUICK).fit(graphs, y)
        predictor.adapt("task", graphs, -y, checkpoint=file)
        first = predictor.predict(graphs, adapters=["task"]).mean
        predictor.adapt("task", graphs, -y, checkpoint=file)
        np.testing.assert_array_equal(predictor.predict(graphs, adapters=["task"]).mean, first)

    def test_of_another_training_is_refused(
        self, graphs: list[ComputeGraph], y: np.ndarray, tmp_path: Path
    ) -> None:
        file = tmp_path / "checkpoint"
        GraphPredictor(**QUICK).fit(graphs, y, checkpoint=file)
        for options, labels in ((QUICK | {"seed": 1}, y), (QUICK | {"epochs": 9}, y), (QUICK, -y)):
            with pytest.raises(FileFormatError, match="must be a checkpoint of this training"):
                GraphPredictor(**options).fit(graphs, labels, checkpoint=file)
        file.write_bytes(file.read_bytes()[:-9])
        with pytest.raises(FileFormatError, match="damaged"):
            GraphPredictor(**QUICK).fit(graphs, y, checkpoint=file)


def test_a_bar_shows_progress(
    graphs: list[ComputeGraph], y: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    GraphPredictor(**QUICK).fit(graphs, y)
    assert capsys.readouterr().err == ""
    GraphPredictor(**QUICK).fit(graphs, y, progress=True)
    assert "4/4" in capsys.readouterr().err


SCRIPT = """
import sys
import numpy as np
import torch
from nni_aiop.predictors.graph import GraphPredictor
from nni_aiop.search_spaces import get_space

rank, folder = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group(
    "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
)
space = get_space("digits")
graphs = [space.graph(sample) for sample in space.sample(30, np.random.default_rng(0))]
y = np.log([graph.macs for graph in graphs])
predictor = GraphPredictor(epochs=2, batch_size=8, encoder_options={"hidden": 8, "layers": 2})
predictor.fit(graphs, y, checkpoint=f"{folder}/checkpoint").adapt("task", graphs, -y)
predictor.save(f"{folder}/backbone{rank}")
predictor.save_adapter("task", f"{folder}/adapter{rank}")
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_learn_the_same(tmp_path: Path) -> None:
    commands = [[sys.executable, "-c", SCRIPT, str(rank), str(tmp_path)] for rank in (0, 1)]
    processes = [subprocess.Popen(command) for command in commands]
    assert [process.wait(timeout=600) for process in processes] == [0, 0]
    for name in ("backbone", "adapter"):
        first, second = ((tmp_path / f"{name}{rank}").read_bytes() for rank in (0, 1))
        assert first == second
