"""`nni-aiop shrink`: a whole run, what it leaves, going on, and wrong input."""

import json
from pathlib import Path

import pytest
import torch

from nni_aiop.networks import Network
from tests.cli.command_line import invoke, refuse, rows, work_in

MODULE = """
import torch
from torch import nn
from torch.nn import functional as F
torch.manual_seed(0)
X, Y = torch.rand(64, 1, 8, 8), torch.arange(64) % 4

def make():
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
                         nn.Conv2d(32, 48, 3, padding=1), nn.ReLU(),
                         nn.Conv2d(48, 64, 3, padding=1), nn.ReLU(),
                         nn.Conv2d(64, 96, 3, padding=1), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 4))

def batches():
    return [(X[:32], Y[:32]), (X[32:], Y[32:])]

def fine_tune(network):
    network.train()
    optimiser = torch.optim.SGD(network.parameters(), 0.01)
    F.cross_entropy(network(X), Y).backward()
    optimiser.step()
    network.eval()
    with torch.no_grad():
        return {"loss": float(F.cross_entropy(network(X), Y)), "seen": 1.0}

def stops(network):
    raise RuntimeError("out of data")

def nothing(network):
    return {"other": 1.0}

def text():
    return "no module"

def fails():
    raise ValueError("no weights")
"""
INPUT = ("--input", "1x1x8x8", "--train", "net:fine_tune", "--metric", "loss:minimize")

GOES_ON = ("--flops", "0.5", "--calibrate", "net:batches", "--out", "o")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return work_in(tmp_path, monkeypatch, "net", MODULE)


def run(*arguments: object) -> str:
    result = invoke("shrink", "net:make", *INPUT, *arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def test_a_front_of_two_budgets_with_all_that_it_leaves(folder: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    run("--flops", "0.7,0.5", "--calibrate", "net:batches", "--budget", 4, "--out", "o")
    out = folder / "o"
    original = Network.load(out / "original.safetensors")
    x = torch.rand(3, 1, 8, 8)
    for budget in (0.7, 0.5):
        small = Network.load(out / f"best-{budget}.safetensors")
        assert 0.9 * budget <= small.graph.macs / original.graph.macs <= budget
        program = torch.export.load(out / f"best-{budget}.pt2").module()
        session = onnxruntime.InferenceSession(out / f"best-{budget}.onnx")
        (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        assert torch.allclose(program(x), small(x), atol=1e-6)
        assert torch.allclose(torch.from_numpy(found), small(x), atol=1e-5)
    report = (out / "report.md").read_text()
    assert f"| {original.graph.macs} | 1.0000 |" in report
    assert "## Edits within 0.5" in report and "| width:0 | 32 |" in report
    assert (out / "layers.png").stat().st_size > 1000
    told = rows(out)
    assert len(told) == 4
    best = min(float(row["loss"]) for row in told)
    results = json.loads((out / "results.json").read_text())
    assert results["best"]["metrics"]["loss"] == pytest.approx(best)


def test_it_goes_on_where_it_was_and_to_a_larger_budget(folder: Path) -> None:
    run(*GOES_ON, "--budget", 2)
    first = rows(folder / "o")
    said = run(*GOES_ON, "--budget", 4)
    assert "Going on" in said
    both = rows(folder / "o")
    assert len(both) == 4
    assert both[:2] == first


def test_without_calibration_the_largest_weights_stay(folder: Path) -> None:
    said = run("--budget", 2, "--flops", "0.6", "--out", "o", "--keep", "3")
    assert "the largest weights stay" in said
    small = Network.load(folder / "o" / "best-0.6.safetensors")
    original = Network.load(folder / "o" / "original.safetensors")
    assert small.state_dict()["3.weight"].shape[0] == 48
    assert small.graph.macs <= 0.6 * original.graph.macs


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["net:make", "--input", "3,8"], "an input must be a shape such as 1x3x224x224, but got"),
        (["net:make", "--flops", "1.5"], "--flops must be parts in (0, 1]"),
        (["net:make", "--flops", "half"], "--flops must be parts in (0, 1]"),
        (["net:mke"], "'net:mke' must name something importable"),
        (["net:text"], "'net:text' must return a torch.nn.Module, but returned a str"),
        (["net:fails"], "'net:fails' must return when called, but raised ValueError: no weights"),
        (["model.onnx"], "ONNX files cannot be edited yet"),
        (["net:make", "--calibrate", "net:text"], "must return a list of (inputs, targets)"),
        (["net:make", "--keep", "hed"], "a name to keep must be that of a layer, but got 'hed'"),
        (["net:make", "--metric", "loss:down"], "a metric must read NAME"),
    ],
)
def test_wrong_input_is_one_sentence(folder: Path, arguments: list[str], message: str) -> None:
    given = ["shrink", *arguments, "--train", "net:fine_tune", "--out", "o"]
    if "--input" not in arguments:
        given += ["--input", "1x1x8x8"]
    assert message in refuse(*given)
    assert not (folder / "o" / "results.json").exists()


def test_a_metric_that_is_missing_is_named(folder: Path) -> None:
    given = ["shrink", "net:make", "--input", "1x1x8x8", "--train", "net:nothing", "--out", "o"]
    said = refuse(*given, "--metric", "accuracy")
    assert "accuracy" in said and "other" in said


def test_a_fine_tune_that_always_raises_ends_with_its_reason(folder: Path) -> None:
    result = invoke(
        "shrink", "net:make", "--input", "1x1x8x8", "--train", "net:stops", "--out", "o"
    )
    assert result.exit_code == 1
    assert "out of data" in result.stderr
