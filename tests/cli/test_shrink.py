"""`nni-aiop shrink`: a whole search, what goes on after a kill, and how it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest
import torch

from nni_aiop.networks import Network
from tests.cli.command_line import invoke, refuse, rows, wait_until, work_in

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from nni_aiop.cli import main; main()"]
PNG = b"\x89PNG\r\n\x1a\n"

# A network of a user's own. Each fine-tune is told to a file; from the third on it waits while
# there is a file `hold`.
OWN = """
import os, time
from pathlib import Path
import torch
from torch import nn
from torch.nn import functional as F

def data():
    x = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return x, (x.mean((1, 2, 3)) * 300).long() % 3

class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c1, self.b1 = nn.Conv2d(c, c, 3, 1, 1, bias=False), nn.BatchNorm2d(c)
        self.c2 = nn.Conv2d(c, c, 3, 1, 1)

    def forward(self, x):
        return F.relu(x + self.c2(F.relu(self.b1(self.c1(x)))))

def make(seed=1):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 16, 3, 1, 1), nn.ReLU(), Block(16),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3))

def both():
    return make(), batches()

def unseeded():
    return make(int(time.time_ns()) % 2**31)

def count():
    return len(Path("calls.txt").read_text().splitlines()) if os.path.exists("calls.txt") else 0

def batches():
    x, y = data()
    return [(x[:32], y[:32]), (x[32:], y[32:])]

def fine_tune(net):
    with open("calls.txt", "a") as file:
        print(sum(p.numel() for p in net.parameters()), file=file)
    if os.path.exists("hold") and count() == 3:
        time.sleep(600)
    x, y = data()
    optimiser = torch.optim.SGD(net.parameters(), 0.05)
    net.train()
    for _ in range(2):
        optimiser.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        optimiser.step()
    return {"acc": float((net.eval()(x).argmax(1) == y).float().mean()), "loss": loss.item()}

def number(net):
    return fine_tune(net)["loss"]

def later(net):
    done = count()
    found = fine_tune(net)
    return float("nan") if done == 1 else found

def raises(net=None):
    raise RuntimeError("mine")

def text(net):
    return "good"

def three():
    return [1, 2, 3]

def nothing():
    return []

def flops(net):
    return {"acc": 1.0, "flops": 3.0}
"""
GIVEN = ("shrink", "own:make", "--train", "own:fine_tune")
WITH_DATA = (*GIVEN, "--calibrate", "own:batches", "--metric", "acc")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `own.py`, which is the working folder."""
    return work_in(tmp_path, monkeypatch, "own", OWN)


def succeed(*arguments: object) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def calls(folder: Path) -> list[str]:
    path = folder / "calls.txt"
    return path.read_text().splitlines() if path.exists() else []


def files_of(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_front_of_two_budgets_with_its_files(own: Path) -> None:
    said = succeed(*WITH_DATA, "--flops", "0.8,0.5", "--budget", 5, "--baseline", "--out", "o")
    out = own / "o"
    assert len(calls(own)) == 6, "five proposals and the network as it is"
    told = rows(out)
    whole = Network.load(out / "original.safetensors").graph.macs
    assert len(told) == 5 and all(float(r["flops"]) <= 0.8 * whole for r in told)
    report = (out / "report.md").read_text()
    assert "multiply-adds" in report and "## At most 0.5 of the FLOPs" in report
    assert "peak memory" in report and "onnxruntime on one thread" in report
    assert "not measured" not in report, "neither the latency nor the baseline"
    assert "it leaves the network" in report, "what could not be edited, and why"
    page = (out / "report.html").read_text()
    assert "A network shrunk: 5 fine-tunes" in page and "small-0.5.onnx" in page
    assert '"baseline":' in page and 'id="layers"' in page and "<img id" in page
    for name in ("front.png", "layers.png", "search.png"):
        assert (out / name).read_bytes().startswith(PNG)
    x = torch.rand(3, 1, 8, 8)
    for part in (0.8, 0.5):
        within = [r for r in told if float(r["flops"]) <= part * whole]
        best = max(float(r["acc"]) for r in within)
        small = Network.load(out / f"small-{part}.safetensors")
        assert small.graph.macs <= part * whole
        assert f"{best:.6g}" in said
        with torch.no_grad():
            expected = small(x)
            program = torch.export.load(str(out / f"small-{part}.pt2")).module()(x)
        session = onnxruntime.InferenceSession(str(out / f"small-{part}.onnx"))
        (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        torch.testing.assert_close(program, expected)
        torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-5, rtol=1e-4)
    assert len(list((out / "networks").iterdir())) <= 2


def test_without_data_the_largest_weights_choose_and_it_says_so(own: Path) -> None:
    given = (*GIVEN, "--input", "1x1x8x8", "--metric", "loss:minimize", "--flops", "0.7")
    said = succeed(*given, "--budget", 2, "--keep", "0", "--round-to", 2, "--out", "o")
    assert "Without calibration batches the largest weights choose" in said
    assert "were no calibration batches" in (own / "o/report.md").read_text()
    results = json.loads((own / "o/results.json").read_text())
    losses = [float(r["loss"]) for r in rows(own / "o")]
    assert results["best"]["metrics"]["loss"] == min(losses)
    assert {s for s in rows(own / "o")[0] if s.startswith("width")} == {"width:2.c1"}


def test_batches_may_come_with_the_network_and_a_bare_number_be_minimised(own: Path) -> None:
    given = ("shrink", "own:both", "--train", "own:number", "--minimise", "--budget", 2)
    succeed(*given, "--out", "o")
    results = json.loads((own / "o/results.json").read_text())
    assert results["objectives"][0]["direction"] == "minimize"
    assert results["best"]["metrics"]["default"] == min(
        float(r["default"]) for r in rows(own / "o")
    )


def test_a_target_of_latency_is_a_constraint(own: Path) -> None:
    succeed(*WITH_DATA, "--budget", 1, "--latency", 0.0001, "--out", "o")
    (row,) = rows(own / "o")
    assert float(row["constraint:latency"]) == pytest.approx(float(row["latency"]) - 0.0001)
    assert "no network kept 0.0001 of the latency" in (own / "o/report.md").read_text()
    assert json.loads((own / "o/results.json").read_text())["best"] is None


def test_a_killed_search_goes_on_and_runs_again_what_was_under_way(own: Path) -> None:
    given = [*map(str, WITH_DATA), "--flops", "0.7", "--budget", "4", "--out"]
    succeed(*given, "whole")
    whole = calls(own)
    (own / "calls.txt").unlink()
    (own / "hold").touch()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([*COMMAND, *given, "o"], env=environment, stdout=subprocess.DEVNULL)
    wait_until(lambda: len(calls(own)) >= 3, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (own / "hold").unlink()
    assert "Going on" in succeed(*given, "o")
    asked = calls(own)
    assert asked == [*whole[:3], whole[2], *whole[3:]]
    assert rows(own / "o") == rows(own / "whole")
    succeed(*given, "o")
    assert len(calls(own)) == len(asked), "nothing is fine-tuned twice"
    succeed(*given[:-2], "5", "--out", "o")
    assert len(rows(own / "o")) == 5


def test_ctrl_c_leaves_the_results_and_goes_on(own: Path) -> None:
    (own / "stop.py").write_text(
        "import own\n"
        "from pathlib import Path\n"
        "def stop(net):\n"
        "    if own.count() == 2 and not Path('stopped').exists():\n"
        "        Path('stopped').touch()\n"
        "        raise KeyboardInterrupt\n"
        "    return own.fine_tune(net)\n"
    )
    sys.modules.pop("stop", None)
    given = ("shrink", "own:both", "--train", "stop:stop", "--metric", "acc", "--budget", 3)
    stopped = invoke(*given, "--out", "o")
    assert stopped.exit_code == 130 and "2 of 3" in stopped.stderr
    assert len(rows(own / "o")) == 2
    succeed(*given, "--out", "o")
    assert len(rows(own / "o")) == 3


def test_the_search_goes_on_with_the_weights_that_it_began_with(own: Path) -> None:
    given = ("shrink", "own:unseeded", "--train", "own:fine_tune", "--metric", "acc")
    given = (*given, "--input", "1x1x8x8", "--out", "o", "--budget")
    succeed(*given, 1)
    before = (own / "o/original.safetensors").read_bytes()
    assert "has other weights than o/original.safetensors" in succeed(*given, 2)
    assert (own / "o/original.safetensors").read_bytes() == before


def test_a_fine_tune_that_fails_later_is_counted(own: Path) -> None:
    given = ("shrink", "own:both", "--train", "own:later", "--metric", "acc", "--budget", 3)
    said = succeed(*given, "--out", "o")
    assert "Fine-tunes that failed: 1 of 3" in said and "finite acc" in said
    assert [bool(r["acc"]) for r in rows(own / "o")] == [True, False, True]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"network": "missing:make"}, "No module named 'missing'"),
        ({"network": "own:missing"}, "missing"),
        ({"network": "own:raises"}, "raised RuntimeError: mine"),
        ({"network": "own:three"}, "must give a torch module"),
        ({"network": "own"}, "package.module:name"),
        ({"network": "net.onnx"}, "an ONNX file cannot be trained here, so that --train must not"),
        ({"--train": None}, "--train must name a function"),
        ({"--train": "own:missing"}, "missing"),
        ({"--train": "own:three"}, "must take a network"),
        ({"--train": "own:raises"}, "raises must return, but raised RuntimeError: mine"),
        ({"--train": "own:text"}, "must return a number or a dict of numbers"),
        ({"--train": "own:flops"}, "must not tell what the command measures itself"),
        ({"--metric": "accuracy"}, "must tell the metric 'accuracy', but tells acc, loss"),
        ({"--metric": None}, "return a number or a dict with 'default'"),
        ({"--calibrate": "own:nothing"}, "batches as a list of (inputs, targets)"),
        ({"--calibrate": "own:three"}, "batches as a list of (inputs, targets)"),
        ({"--calibrate": None}, "--input must give the input's shape"),
        ({"--input": "1x1x8"}, "expected input"),
        ({"--input": "8x8x"}, "--input must be a shape such as 1x3x224x224"),
        ({"--input": "0x1x8x8"}, "--input must be a shape"),
        ({"--flops": "1.1"}, "--flops must be parts of the whole"),
        ({"--flops": "0"}, "--flops must be parts of the whole"),
        ({"--flops": "0.5,half"}, "--flops must be parts of the whole"),
        ({"--flops": "nan"}, "--flops must be parts of the whole"),
        ({"--loss": "hinge"}, "--loss must be one of cross_entropy"),
        ({"--loss": "own:three"}, "must take outputs and targets"),
        ({"--loss": "mse"}, "must take the calibration batches"),
        ({"--latency": "2"}, "--latency must be above 0 and at most 1"),
        ({"--keep": "no.such"}, "no.such"),
        ({"--round-to": "0"}, "--round-to"),
        ({"--budget": "0"}, "--budget"),
    ],
)
def test_wrong_input_is_one_sentence_and_leaves_nothing(
    own: Path, changed: dict[str, str | None], said: str
) -> None:
    given: dict[str, str | None] = {
        "network": "own:make",
        "--train": "own:fine_tune",
        "--calibrate": "own:batches",
        "--metric": "acc",
        "--budget": "1",
        "--out": "o",
        **changed,
    }
    name = given.pop("network")
    options = [part for k, v in given.items() if v is not None for part in (k, v)]
    sentence = refuse("shrink", name, *options)
    assert said in sentence, sentence
    assert not (own / "o").exists() or not files_of(own / "o"), files_of(own / "o")


def test_other_settings_and_other_files_are_refused(own: Path) -> None:
    given = (*WITH_DATA, "--budget", 1, "--out", "o")
    (own / "o").mkdir()
    (own / "o/report.md").write_text("mine")
    assert "holds report.md" in refuse(*given)
    assert files_of(own / "o") == ["report.md"]
    (own / "o/report.md").unlink()
    succeed(*given)
    before = files_of(own / "o")
    assert "flops = [0.865] instead of [0.5]" in refuse(*given, "--flops", "0.5")
    assert files_of(own / "o") == before
    succeed(*given, "--flops", "0.5", "--restart")
    assert "small-0.5.onnx" in files_of(own / "o")


def test_help_teaches_by_example() -> None:
    assert "  nni-aiop shrink net:make" in succeed("shrink", "--help")
