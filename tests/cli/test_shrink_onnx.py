"""`nni-aiop shrink` of an ONNX file: what it writes and says, and how it refuses."""

from __future__ import annotations

import warnings
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from nni_aiop.graphs import from_onnx
from tests.cli.command_line import invoke, refuse

WARNING = (
    "No accuracy was measured: the largest weights chose the channels, and fine-tuning needs the "
    "framework that the network was trained in."
)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 3, padding=1)
        self.body = nn.Sequential(
            nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(), nn.Conv2d(128, 64, 3, padding=1)
        )
        self.head = nn.Linear(64, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x).relu()
        return self.head((y + self.body(y)).mean((2, 3)))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with `net.onnx`, and `free.onnx` of any image size."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    for name, axes in (("net", {0: "b"}), ("free", {0: "b", 2: "h", 3: "w"})):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                Net().eval(), (torch.rand(1, 3, 16, 16),), f"{name}.onnx", dynamo=False,
                input_names=["x"], dynamic_axes={"x": axes},
            )  # fmt: skip
    return tmp_path


def succeed(*arguments: object) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def share(path: Path, size: int = 16) -> float:
    shapes = {"x": (1, 3, size, size)}
    small, whole = (from_onnx(file, input_shapes=shapes).macs for file in (path, "free.onnx"))
    return small / whole


def test_weights_that_lie_beside_the_model_are_named_and_kept(folder: Path) -> None:
    model = onnx.load("net.onnx")
    onnx.save_model(model, "apart.onnx", save_as_external_data=True, location="apart.bin",
                    size_threshold=0)  # fmt: skip
    said = succeed("shrink", "apart.onnx", "--flops", "0.5", "--out", "o")
    assert "small-0.5.onnx.data" in said
    assert "small-0.5.onnx.data" in (folder / "o/report.md").read_text()
    page = (folder / "o/report.html").read_text()
    assert "small-0.5.onnx.data" in page and "A network shrunk" in page and WARNING in page
    before = page
    assert "Report: o/report.html" in succeed("report", "o")
    assert (folder / "o/report.html").read_text() == before
    onnx.checker.check_model("o/small-0.5.onnx")
    for name in ("small-0.5.onnx", "report.md", "report.json", "report.html", "layers.png"):
        (folder / "o" / name).unlink()
    refused = refuse("shrink", "apart.onnx", "--flops", "0.5", "--out", "o")
    assert "must not hold results already, but holds small-0.5.onnx.data" in refused
    said = succeed("shrink", "net.onnx", "--flops", "0.5", "--out", "o", "--restart")
    assert not (folder / "o/small-0.5.onnx.data").exists() and ".data" not in said


def test_two_budgets_with_their_files(folder: Path) -> None:
    said = succeed("shrink", "net.onnx", "--flops", "0.88,0.5", "--out", "o")
    assert said.count("No accuracy was measured") == 1
    assert WARNING in said.splitlines()
    out = folder / "o"
    assert sorted(p.name for p in out.iterdir()) == [
        "layers.png", "report.html", "report.json", "report.md", "small-0.5.onnx",
        "small-0.88.onnx",
    ]  # fmt: skip
    for part in (0.88, 0.5):
        path = out / f"small-{part}.onnx"
        assert 0.985 * part <= share(path) <= part
        onnx.checker.check_model(str(path), full_check=True)
        session = onnxruntime.InferenceSession(str(path))
        (scores,) = session.run(None, {"x": torch.rand(3, 3, 16, 16).numpy()})
        assert scores.shape == (3, 5)
    report = (out / "report.md").read_text()
    assert WARNING in report
    assert "| width:/stem/Conv | 64 |" in report and "onnxruntime on one thread" in report
    assert "it leaves the network" in report and "front.png" not in report
    assert (out / "layers.png").read_bytes().startswith(b"\x89PNG")


def test_results_are_overwritten_only_where_that_is_said(folder: Path) -> None:
    given = ("shrink", "net.onnx", "--flops", "0.5", "--out", "o")
    succeed(*given)
    before = (folder / "o/small-0.5.onnx").read_bytes()
    assert "holds report.md: take another --out, or --restart" in refuse(*given)
    assert "--out must not overwrite" in refuse(
        "shrink", "o/small-0.5.onnx", "--flops", "0.5", "--out", "o", "--restart"
    )
    succeed(*given, "--restart")
    assert (folder / "o/small-0.5.onnx").read_bytes() == before
    (folder / "s").mkdir()
    (folder / "s/experiment.json").write_text("{}")
    assert "folder of a search" in refuse(*given[:-1], "s", "--restart")


def test_layers_are_kept_by_name(folder: Path) -> None:
    succeed("shrink", "net.onnx", "--flops", "0.6", "--keep", "/stem", "--out", "o")
    weights = {x.name: list(x.dims) for x in onnx.load("o/small-0.6.onnx").graph.initializer}
    assert weights["stem.weight"][0] == weights["body.2.weight"][0] == 64
    assert weights["body.0.weight"][0] < 128


def test_a_shape_that_is_not_in_the_file_is_given(folder: Path) -> None:
    said = refuse("shrink", "free.onnx", "--out", "o")
    assert "'x' has (b, 3, h, w): its shape must be given (--input)" in said
    succeed("shrink", "free.onnx", "--input", "1x3x24x24", "--flops", "0.5", "--out", "o")
    assert 0.985 * 0.5 <= share(folder / "o/small-0.5.onnx", 24) <= 0.5


def test_latency_is_kept(folder: Path) -> None:
    """Or a note says that it is not: the network is so small that its latency is noise."""
    said = succeed("shrink", "net.onnx", "--flops", "0.9", "--latency", "0.7", "--out", "o")
    assert "latency, onnxruntime on one thread" in said
    assert share(folder / "o/small-0.9.onnx") <= 0.9


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (["--train", "own:fine_tune"], "so that --train must not be given"),
        (["--baseline"], "so that --baseline must not be given"),
        (["--loss", "cross_entropy"], "so that --loss must not be given"),
        (["--calibrate", "own:data"], "so that --calibrate must not be given"),
        (["--metric", "acc"], "so that --metric must not be given"),
        (["--budget", "3"], "so that --fine-tunes must not be given"),
        (["--input", "1x3x16x16,1x3"], "a shape for each input of net.onnx (x), but gives 2"),
        (["--input", "1x4x16x16"], "must fit (b, 3, 16, 16), but got (1, 4, 16, 16)"),
        (["--keep", "nowhere"], "'nowhere'"),
        (["--flops", "2"], "--flops must be parts"),
    ],
)
def test_wrong_input_is_one_sentence_and_leaves_nothing(
    folder: Path, changed: list[str], said: str
) -> None:
    sentence = refuse("shrink", "net.onnx", "--out", "o", *changed)
    assert said in sentence, sentence
    assert not (folder / "o").exists()


def test_files_that_are_none(folder: Path) -> None:
    (folder / "bad.onnx").write_bytes(b"nothing")
    assert "bad.onnx must be an ONNX model" in refuse("shrink", "bad.onnx", "--out", "o")
    assert "none.onnx must be usable" in refuse("shrink", "none.onnx", "--out", "o")
    assert not (folder / "o").exists()
