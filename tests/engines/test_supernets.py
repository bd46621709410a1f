"""Supernets on NNI and Optuna: ModelSpaces of the user's, an evaluator, an objective."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nni", reason="NNI is not installed")

import optuna
import torch
from torch import nn

from nni_aiop.engines._nni import importing_nni
from nni_aiop.engines.nni_experiment import run_nni
from nni_aiop.engines.nni_supernet import as_supernet, nni_supernet
from nni_aiop.errors import AiopError, SpaceError
from nni_aiop.evaluators import SupernetEvaluator, supernet_objective
from nni_aiop.measures import SupernetMeasure
from nni_aiop.search_spaces import digits
from nni_aiop.strategies import RandomSearch
from nni_aiop.supernet import Batches, SupernetData, SupernetTraining, train_supernet
from tests.supernet import toy

with importing_nni():
    import nni
    from nni.nas.nn.pytorch import (
        LayerChoice,
        ModelSpace,
        MutableBatchNorm2d,
        MutableConv2d,
        MutableLinear,
        Repeat,
    )

    from nni_aiop.search_spaces.digits import DigitsSpace


class Own(ModelSpace):  # type: ignore[misc]
    """Widths, a kernel, kinds of layer (one within another), depth."""

    def __init__(self) -> None:
        super().__init__()
        width = nni.choice("width", [4, 8])
        self.stem = MutableConv2d(1, width, nni.choice("kernel", [1, 3]), padding="same")
        self.norm = MutableBatchNorm2d(width)
        inner = LayerChoice([nn.ReLU(), nn.Sequential(nn.Conv2d(1, 1, 1), nn.Tanh())], label="in")
        self.choice = LayerChoice({"outer": inner, "plain": nn.Conv2d(1, 1, 1)}, label="out")
        self.blocks = Repeat(
            lambda i: nn.Sequential(MutableConv2d(width, width, 3, padding=1), nn.ReLU()),
            (1, 3),
            label="depth",
        )
        self.head = MutableLinear(width, 2)

    def forward(self, x: Any) -> Any:
        x = self.norm(self.stem(self.choice(x)))
        return self.head(self.blocks(x).mean((2, 3)))


def own_data() -> SupernetData:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(16, 1, 6, 6, generator=generator)
    y = (x.mean((1, 2, 3)) > 0).long()
    return SupernetData(Batches(x, y, 8, shuffle=True), Batches(x, y, 16))


def pair() -> tuple[Any, Any]:
    return own_data().train, own_data().validation


def test_a_model_space_shares_its_weights() -> None:
    supernet = nni_supernet(Own(), head="head", data=own_data, seed=0)
    shapes = {name: tuple(value.shape) for name, value in supernet.weights.items()}
    assert shapes["stem/weight"] == (8, 1, 3, 3)
    assert shapes["blocks/2/0/weight"] == (8, 8, 3, 3)
    assert shapes["head/weight"] == (2, 8)
    assert {name for name in shapes if name.startswith("choice")} == {
        f"choice/{candidate}/{name}"
        for candidate in ("[outer]/[1]/0", "[plain]")
        for name in ("weight", "bias")
    }
    x = torch.randn(4, 1, 6, 6)
    for sample in supernet.space.sample(6, np.random.default_rng(0)):
        real = supernet.subnet(sample).train()
        supernet.train()
        torch.testing.assert_close(supernet(x, sample), copy.deepcopy(real)(x))
        assert real.stem.out_channels == sample["width"]
        stem = supernet.weights["stem/weight"][: sample["width"]]
        kernel = stem if sample["kernel"] == 3 else stem[:, :, 1:2, 1:2]
        torch.testing.assert_close(real.stem.weight, kernel)
        assert len(real.blocks) == sample["depth"]
    train_supernet(supernet, training=SupernetTraining(epochs=2, count=1))
    assert 0 <= supernet.evaluate(supernet.largest) <= 100


def test_nni_is_left_as_it_was() -> None:
    before = LayerChoice.__dict__["create_fixed_module"], LayerChoice.freeze
    space = Own()
    weights = {k: v.clone() for k, v in space.state_dict().items()}
    nni_supernet(space, seed=0)
    assert (LayerChoice.__dict__["create_fixed_module"], LayerChoice.freeze) == before
    for name, value in space.state_dict().items():
        torch.testing.assert_close(value, weights[name])


def test_what_leads_to_a_supernet() -> None:
    net = toy.supernet()
    assert as_supernet(net) is net
    assert as_supernet("tests.supernet.toy:supernet").space.name == "toy"
    assert as_supernet(DigitsSpace()).weights.keys() == digits.supernet().weights.keys()
    assert nni_supernet(DigitsSpace(), apart=("pooling",)).apart == ("pooling",)
    assert as_supernet(Own).space.name == "Own"
    with pytest.raises(SpaceError, match="must lead to a Supernet or to an NNI ModelSpace"):
        as_supernet("tests.supernet.toy:space")
    with pytest.raises(AiopError):
        as_supernet("tests.supernet.toy:missing")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("supernet") / "digits.safetensors"
    digits.supernet(seed=1).save(path)
    return path


def test_an_experiment_is_evaluated_by_a_supernet(file: Path, tmp_path: Path) -> None:
    evaluator = SupernetEvaluator(file, steps=1)
    result = run_nni(DigitsSpace(), evaluator, RandomSearch(seed=0), max_trials=2, out_dir=tmp_path)
    net = digits.supernet().load(file)
    labelling = replace(net.labelling, steps=1)  # the other options stay the supernet's
    assert len(result) == 2
    for sample, metrics in result:
        assert metrics["default"] == metrics["val_explained"]
        assert metrics["default"] == net.evaluate(sample, labelling=labelling)


def test_an_experiment_of_ones_own_space(tmp_path: Path) -> None:
    reference = f"{__name__}:Own"
    path = tmp_path / "own.safetensors"
    nni_supernet(Own(), seed=3).save(path)
    evaluator = SupernetEvaluator(path, data=f"{__name__}:pair")
    evaluator.prepare(Own())
    net = nni_supernet(Own()).load(path)
    (sample,) = net.space.sample(1, np.random.default_rng(0))
    assert evaluator.measure(sample)["val_accuracy"] == net.evaluate(sample, pair())
    named = SupernetEvaluator(path, supernet=reference, data=f"{__name__}:pair")
    assert named.measure(sample) == evaluator.measure(sample)
    with pytest.raises(ValueError, match="must be given data"):
        SupernetEvaluator(path).prepare(Own())


def test_an_objective_for_optuna(file: Path) -> None:
    net = digits.supernet()
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(supernet_objective(net, path=file), n_trials=2)
    for trial in study.trials:
        space = net.space
        sample = space.complete({k: v for k, v in trial.params.items() if k in space.labels})
        assert trial.value == net.evaluate(sample)
        assert trial.user_attrs["metrics"] == {"default": trial.value, "val_explained": trial.value}
    assert SupernetMeasure(net).metrics == ("val_explained",)
