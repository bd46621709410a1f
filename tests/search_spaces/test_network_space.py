"""A trained network's edits as an NNI model space, searched by the strategy `FlopsReduction`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("nni", reason="NNI is not installed")

from nni_aiop.engines.nni_experiment import run_nni
from nni_aiop.engines.nni_space import code_space_from_nni
from nni_aiop.errors import AiopError
from nni_aiop.evaluators import FineTuneEvaluator
from nni_aiop.networks import Network
from nni_aiop.search import FlopsReduction as Search
from nni_aiop.search_spaces.network import NetworkSpace
from nni_aiop.strategies import FlopsReduction

OWN = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU(),
                         nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Linear(16, 4)).eval()

def batches():
    x = torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return [(x, torch.arange(16) % 4)]

def fine_tune(network, scale=1.0):
    assert isinstance(network, nn.Module)
    return {"default": scale * sum(p.detach().abs().sum().item() for p in network.parameters())}

def text(network):
    return "good"
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module of one's own, another one in each test."""
    name = f"own_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return name


def test_the_model_of_a_sample_is_the_edited_network(own: str) -> None:
    space = NetworkSpace(f"{own}:make", (1, 3, 8, 8), batches=f"{own}:batches", keep=["3"])
    codes = code_space_from_nni(space)
    assert tuple(space.simplify()) == codes.labels
    assert "width:3" not in codes.labels
    sample = {**space.code_space().original, "width:0": 8}
    small = space.freeze(sample)
    assert isinstance(small, Network)
    assert small.graph.macs == round(codes.cost("flops", codes.encode([sample]))[0])
    x = torch.rand(2, 3, 8, 8)
    whole = space.freeze(space.code_space().original)
    assert whole(x).shape == small(x).shape == space(x).shape


@pytest.mark.parametrize("batches", [True, False])
def test_the_strategy_proposes_what_the_search_asks_for(
    own: str, tmp_path: Path, batches: bool
) -> None:
    given = {"batches": f"{own}:batches"} if batches else {}
    space = NetworkSpace(f"{own}:make", (1, 3, 8, 8), **given)
    score = space.calibration.loss if space.calibration is not None else None
    results = run_nni(
        space,
        FineTuneEvaluator(f"{own}:fine_tune", scale=2.0),
        FlopsReduction(budgets=[0.7], score=score),
        max_trials=4,
        out_dir=tmp_path / "out",
        progress=False,
    )
    search = Search(space.code_space(), budgets=[0.7], score=score)
    module: Any = sys.modules[own]
    for sample, metrics in results:
        (asked,) = search.ask(1)
        expected = module.fine_tune(space.network(asked), 2.0)
        search.tell(asked, expected)
        assert sample == asked and metrics == expected
        assert space.network(sample).graph.macs <= 0.7 * space.code_space().base.macs


def test_what_is_wrong_is_said(own: str) -> None:
    with pytest.raises(AiopError, match="missing"):
        NetworkSpace(f"{own}:missing", (1, 3, 8, 8))
    with pytest.raises(AiopError, match="must give a torch module, but gave list"):
        NetworkSpace(f"{own}:batches", (1, 3, 8, 8))
    with pytest.raises(AiopError, match="a number or a dict"):
        FineTuneEvaluator(f"{own}:text").evaluate(torch.nn.Identity())
    with pytest.raises(TypeError, match="budget"):
        FlopsReduction(budget=4)
