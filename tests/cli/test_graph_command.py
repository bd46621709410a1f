"""`nni-aiop graph`: stages and costs of a network, and how it refuses bad input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from nni_aiop.cli import app
from nni_aiop.graphs import ComputeGraph
from tests.cli.command_line import work_in

OWN = """
import torch
from torch import nn
from nni_aiop.graphs import from_module

def small():
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Linear(8, 10))

class Two(nn.Module):
    def forward(self, image, tokens=None):
        return image.mean((2, 3)) + tokens

class Sorts(nn.Module):
    def forward(self, x):
        return torch.fft.fft(x).real

class Decides(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x

two = Two()
graph = from_module(small(), (1, 3, 16, 16))

def needs(argument):
    return argument

def nothing():
    return 7
"""


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `own_networks.py`, which is the working folder."""
    return work_in(tmp_path, monkeypatch, "own_networks", OWN)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["graph", *(str(a) for a in arguments)])


def succeed(*arguments: object) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


def refuse(*arguments: object) -> str:
    """The one sentence with which the command refuses."""
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    return line


def test_the_stages_of_a_module(own: Path) -> None:
    lines = succeed("own_networks:small", "--input", "1x3x32x32").splitlines()
    assert lines[0].split() == ["stage", "nodes", "output", "MACs", "FLOPs", "parameters"]
    assert lines[3].split() == ["1/2", "2", "1x8x16x16", "55.3", "k", "113", "k", "224"]
    assert lines[5].split()[:2] == ["total", "6"]
    assert "exactly: 55376 MACs, 114848 FLOPs, 314 parameters" in lines
    assert lines[-1] == "Results: out/graph/graph.json, out/graph/graph.png"
    assert ComputeGraph.load(own / "out/graph/graph.json").macs == 55376
    assert (own / "out/graph/graph.png").read_bytes().startswith(b"\x89PNG")


def test_written_graphs_and_graphs_of_ones_own(own: Path) -> None:
    first = succeed("own_networks:graph", "--out", "a")
    second = succeed("a/graph.json", "--out", "b")
    assert first.splitlines()[:-1] == second.splitlines()[:-1]
    assert (own / "a/graph.json").read_bytes() == (own / "b/graph.json").read_bytes()


def test_several_inputs(own: Path) -> None:
    one = succeed("own_networks:two", "--input", "1x8x4x4", "--input", "1x8")
    named = succeed("own_networks:Two", "--input", "1x8x4x4", "--input", "tokens=1x8")
    assert one == named


def test_unknown_operations_are_listed(own: Path) -> None:
    assert "of unknown cost, counted as nothing: fft" in succeed(
        "own_networks:Sorts", "--input", "1x8"
    )


def test_onnx_files(own: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    x, y = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 3, 4, 4])
        for name in "xy"
    )
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "net", [x], [y])
    onnx.save(helper.make_model(graph), own / "net.onnx")
    plain = succeed("net.onnx", "--input", "2x3x4x4")
    assert plain == succeed("net.onnx", "--input", "x=2x3x4x4") and "2x3x4x4" in plain
    assert "net.onnx has 1 inputs and 2 shapes" in refuse(
        "net.onnx", "--input", "2x3x4x4", "--input", "1"
    )
    refuse("net.onnx")
    (own / "net.onnx").write_bytes((own / "net.onnx").read_bytes()[:20])
    refuse("net.onnx", "--input", "2x3x4x4")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["own_networks:small"], "must be given its inputs: --input 1x3x224x224"),
        (["own_networks:small", "--input", "1x3xa"], "must read as 1x3x224x224"),
        (["own_networks:small", "--input", "1x0x3"], "must read as 1x3x224x224"),
        (["own_networks:small", "--input", "1x4x8x8"], "expected input to have 3 channels"),
        (["own_networks:none", "--input", "1"], "own_networks:none must be importable"),
        (["nowhere:none", "--input", "1"], "No module named 'nowhere'"),
        (["own_networks:needs", "--input", "1"], "but raised TypeError"),
        (["own_networks:nothing", "--input", "1"], "but is of type int"),
        (["own_networks:Decides", "--input", "1x3"], "must not depend on the values of its data"),
        (["own_networks", "--input", "1"], "a file .onnx or .json, or module:callable"),
        (["none.json"], "none.json must be usable"),
        (["none.onnx", "--input", "1"], "none.onnx must be usable"),
        (["none.json", "--input", "1"], "but --input was given"),
    ],
)
def test_bad_input_ends_with_one_sentence(arguments: list[str], message: str) -> None:
    assert message in refuse(*arguments)


# --- ONNX files: values, inputs that are constants, costs that nobody knows ----------------------


def write_model(
    path: Path,
    nodes: Sequence[Any],
    inputs: dict[str, tuple[list[int | str], int]],
    constants: Sequence[Any] = (),
) -> None:
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    given = [helper.make_tensor_value_info(n, kind, shape) for n, (shape, kind) in inputs.items()]
    made = [helper.make_tensor_value_info("y", 1, None)]
    graph = helper.make_graph(nodes, "net", given, made, list(constants))
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)


def test_the_command_names_its_own_options(own: Path) -> None:
    from onnx import helper

    write_model(own / "net.onnx", [helper.make_node("Relu", ["x"], ["y"])], {"x": (["n", 3], 1)})
    line = refuse("net.onnx")
    assert "name a shape for 'x' by --input" in line and "input_shapes" not in line
    assert "--input must name inputs of the model" in refuse("net.onnx", "--input", "z=1x3")


def test_values_of_inputs(own: Path) -> None:
    from onnx import helper

    reshape = helper.make_node("Reshape", ["x", "s"], ["y"])
    write_model(own / "net.onnx", [reshape], {"x": ([2, 6], 1), "s": ([2], 7)})
    succeed("net.onnx", "--value", "s=4,3")
    assert ComputeGraph.load(own / "out/graph/graph.json").output_shapes == ((4, 3),)
    assert "--value" in refuse("net.onnx")
    assert "must read as NAME=16000" in refuse("net.onnx", "--value", "s")
    assert "must read as NAME=16000" in refuse("net.onnx", "--value", "s=fast")
    assert "--value must name inputs" in refuse("net.onnx", "--value", "t=4,3")
    assert "only inputs of an ONNX file" in refuse("own_networks:graph", "--value", "t=4,3")


def test_what_is_not_counted_stands_beside_the_figure(own: Path) -> None:
    from onnx import helper

    nodes = [
        helper.make_node("GridSample", ["x", "g"], ["a"]),
        helper.make_node("GridSample", ["a", "g"], ["y"]),
    ]
    write_model(own / "net.onnx", nodes, {"x": ([1, 3, 4, 4], 1), "g": ([1, 4, 4, 2], 1)})
    assert "exactly: 0 MACs (grid_sampler_2d x2 counted as nothing), 0 FLOPs" in succeed("net.onnx")


def test_what_only_moves_data_is_not_uncounted(own: Path) -> None:
    from onnx import helper, numpy_helper

    k = numpy_helper.from_array(np.array([2]), "k")
    nodes = [helper.make_node("TopK", ["x", "k"], ["y", "i"])]
    write_model(own / "net.onnx", nodes, {"x": ([1, 4], 1)}, [k])
    told = succeed("net.onnx")
    assert "exactly: 0 MACs, 0 FLOPs" in told
    assert "of unknown cost, counted as nothing: topk" in told


def test_inputs_that_are_constants_are_noted(own: Path) -> None:
    from onnx import helper, numpy_helper

    nodes = [
        helper.make_node("Sub", ["x", "mean"], ["a"]),
        helper.make_node("Sqrt", ["variance"], ["d"]),
        helper.make_node("Div", ["a", "d"], ["b"]),
        helper.make_node("Mul", ["b", "own"], ["c"]),
        helper.make_node("Add", ["c", "other"], ["y"]),
    ]
    constants = [numpy_helper.from_array(np.ones(3, np.float32), n) for n in ("own", "other")]
    inputs = {n: ([1, 1, 1, 3], 1) for n in ("mean", "variance")}
    all_inputs = {"x": ([1, 4, 4, 3], 1), **inputs, "own": ([3], 1)}
    write_model(own / "net.onnx", nodes, all_inputs, constants)
    lines = succeed("net.onnx").splitlines()
    (first, second) = [line for line in lines if line.startswith("note: ")]
    assert "has values of its own for own, which count as constants" in first
    assert "mean, variance of net.onnx may be constants" in second
