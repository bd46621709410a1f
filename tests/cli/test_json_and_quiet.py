"""--json and --quiet: every command obeys, before its name and behind it.

A new command joins by itself: it must have a line in `EXAMPLES`.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from onnx import TensorProto, helper, numpy_helper, save

from nni_aiop.cli import app
from nni_aiop.search_spaces import get_space
from tests.cli.command_line import invoke

ROOT = Path(__file__).parents[2]
EVERY = {"command", "notes", "exit_code"}

OWN = """
import os
from nni_aiop.spaces import CodeSpace, Ordinal

def space():
    return CodeSpace(
        [Ordinal("depth", range(1, 9)), Ordinal("width", range(8, 65, 8))],
        name="own", costs={"flops": lambda codes: 1 + 7 * codes[:, 0] + 7 * codes[:, 1]},
    )

def measure(sample):
    return float(sample["depth"] - abs(sample["width"] - 40) / 16)

def fails(sample):
    raise RuntimeError("never works")

def chatter(sample):
    print("epoch 1")
    os.write(1, b"from below\\n")
    os.system("echo from a process")
    return measure(sample)

def stops(sample):
    raise KeyboardInterrupt
"""

SEARCH = ("search", "own:space", "--evaluator", "own:measure", "--search", "random")
TABLE = ("data/history.csv", "--space", "own:space")

EXAMPLES: dict[str, tuple[tuple[str, ...], set[str]]] = {
    "spaces list": ((), {"spaces"}),
    "spaces show": (
        ("nasbench201",),
        {"space", "points", "dimensions", "constraints", "example"},
    ),
    "search": (
        (*SEARCH[1:], "--evaluations", "3", "--out", "s"),
        {"space", "evaluations", "failed", "reasons", "best", "out", "results"},
    ),
    "run": (
        ("e.yml", "--out", "r"),
        {"space", "evaluations", "failed", "reasons", "best", "out", "results"},
    ),
    "shrink": (
        ("net.onnx", "--flops", "0.6", "--out", "small"),
        {"networks", "report", "page", "baseline"},
    ),
    "generate": (
        (
            *("--space", "own:space", "--table", "data/history.csv", "--limit", "flops=9"),
            *("--steps", "4", "--levels", "3", "--generator", "g.safetensors", "-n", "2"),
        ),
        {"space", "limits", "generator", "architectures", "out", "results"},
    ),
    "report": (("data",), {"page"}),
    "graph": (
        ("nets/0.json", "--out", "g"),
        {"model", "nodes", "macs", "flops", "parameters", "activation_memory", "peak_memory"}
        | {"uncounted", "unknown", "stages", "results"},
    ),
    "predict": (
        ("nets", "--task", "cifar100-nasbench201", "--out", "p.csv"),
        {"level", "predictions", "failed", "out"},
    ),
    "rank": (("nets", "--out", "k.csv"), {"ranking", "agreement", "failed", "out"}),
    "supernet train": (
        ("digits", "--epochs", "1", "--out", "n.safetensors"),
        {"supernet", "losses"},
    ),
    "supernet label": (
        ("digits", "--supernet", "net.safetensors", "-n", "2", "--out", "l.csv"),
        {"best", "label", "labels", "architectures"},
    ),
    "predictor train": (
        (*TABLE, "--out", "t"),
        {"rows", "level", "metrics", "results", "predictor", "fitted", "held_out"},
    ),
    "predictor eval": (
        ("fit/predictor.safetensors", *TABLE, "--out", "v"),
        {"rows", "level", "metrics", "results"},
    ),
    "predictor adapt": (
        ("nets.csv", "--model", "ridge", "--out", "a"),
        {"task", "networks", "model", "out"},
    ),
}
"""Of each command arguments that work in `folder`, and the keys of its object beside `EVERY`."""


def commands(group: Any = None, words: str = "") -> Iterator[str]:
    """The words of every command of the app."""
    for name, command in (group or typer.main.get_command(app)).commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{name} ")
        else:
            yield words + name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working folder: a module, a table, a predictor, networks, an experiment file."""
    folder = tmp_path_factory.mktemp("json")
    (folder / "own.py").write_text(OWN)
    experiment = {"maxTrialNumber": 3, "space": "own:space", "evaluator": "own:measure"}
    experiment |= {"strategy": "random", "engine": "optuna"}
    (folder / "e.yml").write_text(json.dumps(experiment))
    _onnx(folder / "net.onnx")
    space = get_space("nasbench201")
    assert space.graph is not None
    (folder / "nets").mkdir()
    lines = ["model,speed"]
    for at, sample in enumerate(space.sample(6, np.random.default_rng(1))):
        graph = space.graph(sample)
        graph.save(folder / "nets" / f"{at}.json")
        lines.append(f"nets/{at}.json,{graph.macs / 1e6}")
    (folder / "nets.csv").write_text("\n".join(lines) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [str(folder), *sys.path])
        sys.modules.pop("own", None)
        assert invoke(*SEARCH, "--evaluations", 20, "--out", "data").exit_code == 0
        done = invoke("predictor", "train", *TABLE, "--holdout", 0, "--out", "fit")
        assert done.exit_code == 0, done.output
        done = invoke("supernet", "train", "digits", "--epochs", 1, "--out", "net.safetensors")
        assert done.exit_code == 0, done.output
        yield folder
    sys.modules.pop("own", None)


def _onnx(path: Path) -> None:
    """Two convolutions, of which the first can be narrower."""
    rng = np.random.default_rng(0)
    weights = {"w1": (64, 3, 3, 3), "w2": (4, 64, 3, 3)}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["h"], pads=[1] * 4),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Conv", ["r", "w2"], ["y"], pads=[1] * 4),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 8, 8])]
    held = [
        numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
        for name, shape in weights.items()
    ]
    graph = helper.make_graph(nodes, "net", inputs, outputs, held)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def the_object(text: str) -> dict[str, Any]:
    """The one object that a text is, without NaN and infinities."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    told = json.loads(text, parse_constant=refuse)
    assert isinstance(told, dict)
    return told


def without_times(text: str) -> list[str]:
    """The lines of a text without their numbers, of which some are measured anew each time."""
    return [" ".join(re.sub(r"[\d.]+", "#", line).split()) for line in text.splitlines()]


def test_every_command_has_an_example() -> None:
    assert sorted(commands()) == sorted(EXAMPLES)


@pytest.mark.parametrize("command", EXAMPLES)
def test_every_command_tells_one_object_and_obeys_quiet(folder: Path, command: str) -> None:
    arguments, keys = EXAMPLES[command]
    again = {"search": ["--restart"], "run": ["--restart"], "shrink": ["--restart"]}
    again |= {"spaces list": [], "spaces show": [], "report": []}
    told = invoke(*command.split(), *arguments, "--json")
    assert told.exit_code == 0, told.output
    found = the_object(told.stdout)
    assert told.stderr == ""
    assert set(found) == keys | EVERY
    assert found["command"] == command and found["exit_code"] == 0
    assert all(isinstance(said, str) and "\n" not in said for said in found["notes"])
    more = again.get(command, ["--overwrite"])
    quiet = invoke("--quiet", *command.split(), *arguments, *more)
    plain = invoke(*command.split(), *arguments, *more)
    assert quiet.exit_code == plain.exit_code == 0, quiet.output + plain.output
    assert quiet.stderr == plain.stderr == ""
    rest = iter(without_times(plain.stdout))
    assert quiet.stdout.strip() and all(line in rest for line in without_times(quiet.stdout))


def test_the_numbers_are_those_of_the_files(folder: Path) -> None:
    found = the_object(invoke("--json", *SEARCH, "--evaluations", 5, "--out", "n").stdout)
    best = json.loads((folder / "n/results.json").read_text())["best"]
    assert found["best"] == best and found["evaluations"] == 5 and found["failed"] == 0
    written = ("results.json", "history.csv", "search.png", "report.html")
    assert found["results"] == [f"n/{name}" for name in written]
    again = the_object(invoke(*SEARCH, "--evaluations", 5, "--out", "n", "--json").stdout)
    assert again["best"] == best
    going, done, where = again["notes"]
    assert going == "Going on with the search in n (--restart begins anew)."
    assert done == "5 of 5 are evaluated already; more --evaluations go on."
    assert where.startswith("Results: ")


def test_a_space_is_told_with_its_choices(folder: Path) -> None:
    found = the_object(invoke("spaces", "show", "digits", "--json").stdout)
    choices = {d["name"]: d["choices"] for d in found["dimensions"]}
    assert choices["pooling"] == ["max", "avg", "stride"]
    assert choices["width_1"] == [4, 8, 12, 16, 20]
    space = get_space("digits")
    assert [d["name"] for d in found["dimensions"]] == list(space.labels)
    assert set(found["example"]["costs"]) == set(space.shown_costs())
    assert set(found["example"]["sample"]) <= set(space.labels)


def test_a_single_network_and_one_that_nothing_is_predicted_of(folder: Path) -> None:
    one = the_object(
        invoke("predict", "nets/0.json", "--task", "cifar100-nasbench201", "--json").stdout
    )
    (row,) = one["predictions"]
    assert row["inside"] and row["from"] < row["prediction"] < row["to"] and row["distance"] <= 1
    assert one["out"] is None and one["level"] == 0.8
    told = invoke("predict", "net.onnx", "--task", "cifar100-nasbench201", "--json")
    assert told.exit_code == 1
    found = the_object(told.stdout)
    (row,) = found["predictions"]
    assert (row["prediction"], row["from"], row["to"], row["inside"]) == (None, None, None, False)
    assert row["distance"] > 1 and found["exit_code"] == 1
    assert "predictor adapt" in found["notes"][0]
    assert found["error"] == "nothing is predicted of any network"


def test_an_answer_of_a_part_says_what_went_wrong(folder: Path) -> None:
    (folder / "broken.json").write_text("{}")
    told = invoke(
        "predict", "nets/0.json", "broken.json", "--task", "cifar100-nasbench201", "--json"
    )
    assert told.exit_code == 2
    found = the_object(told.stdout)
    assert len(found["predictions"]) == 1 and [f["model"] for f in found["failed"]] == [
        "broken.json"
    ]
    assert found["error"].startswith("broken.json: ")


def test_quiet_objects_have_no_notes(folder: Path) -> None:
    told = invoke("graph", "nets/0.json", "--out", "q", "--json", "--quiet")
    assert the_object(told.stdout)["notes"] == []


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (("search", "nowhere"), "must be one of digits", 2),
        (("search", "digits", "--bogus"), "No such option", 2),
        (("spaces", "show"), "Missing argument", 2),
        (("graph", "none.onnx"), "none.onnx must be usable", 2),
        (("spaces",), "beside a command", 2),
        ((), "beside a command", 2),
    ],
)
def test_an_error_is_an_object_too(
    folder: Path, arguments: tuple[str, ...], words: str, code: int
) -> None:
    for given in (("--json", *arguments), (*arguments, "--json")):
        told = invoke(*given)
        assert told.exit_code == code
        found = the_object(told.stdout)
        assert words in found["error"] and found["exit_code"] == code
        assert told.stderr == f"nni-aiop: {found['error']}\n"


def test_what_a_failed_search_found_is_beside_its_error(folder: Path) -> None:
    failing = ("search", "own:space", "--evaluator", "own:fails", "--out", "f")
    told = invoke(*failing, "--json", "--quiet")
    found = the_object(told.stdout)
    assert told.exit_code == found["exit_code"] == 1
    assert found["best"] is None and found["failed"] == found["evaluations"] == 5
    assert found["reasons"] == {"RuntimeError: never works": 5}
    assert "the first 5 failed" in found["error"]


def test_files_that_cannot_be_read_are_named_in_the_object(folder: Path) -> None:
    (folder / "broken.json").write_text("{")
    told = invoke("predict", "nets", "broken.json", "--task", "cifar100-nasbench201", "--json")
    found = the_object(told.stdout)
    assert told.exit_code == found["exit_code"] == 2
    assert len(found["predictions"]) == 6
    ((model, error),) = [(one["model"], one["error"]) for one in found["failed"]]
    assert model == "broken.json" and told.stderr == f"nni-aiop: broken.json: {error}\n"
    few = invoke("rank", "nets/0.json", "broken.json", "--json")
    found = the_object(few.stdout)
    assert few.exit_code == 2 and "at least 5 networks" in found["error"]
    assert found["failed"][0]["model"] == "broken.json"


def test_ctrl_c_is_an_object_that_says_how_far_it_came(folder: Path) -> None:
    told = invoke("search", "own:space", "--evaluator", "own:stops", "--out", "c", "--json")
    found = the_object(told.stdout)
    assert told.exit_code == found["exit_code"] == 130
    assert found["error"] == (
        "Interrupted: none of 40 evaluated yet; the same command begins again."
    )


def test_what_others_write_to_standard_output_is_beside_the_object(folder: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "nni_aiop", "--json", "search", "own:space", "--evaluator"),
            *("own:chatter", "--search", "random", "--evaluations", "2", "--out", "o"),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])},
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    assert the_object(done.stdout)["evaluations"] == 2
    for words in ("epoch 1", "from below", "from a process"):
        assert done.stderr.count(words) == 2


def test_nan_is_null() -> None:
    from nni_aiop.cli._tell import Told

    told = Told(fields={"x": math.nan, "y": np.float64(2), "z": [math.inf], "p": Path("a")})
    assert the_object(told.object(0)) == {
        "command": None,
        "x": None,
        "y": 2.0,
        "z": [None],
        "p": "a",
        "notes": [],
        "exit_code": 0,
    }


def test_help_stays_help() -> None:
    assert invoke("search", "--json", "--help").stdout == invoke("search", "--help").stdout
