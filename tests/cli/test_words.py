"""One word for one thing: evaluations, fine-tunes, limits, multiply-adds; old words still do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nni_aiop.search_spaces import get_space
from tests.cli.command_line import invoke, rows, work_in

OWN = """
from nni_aiop.spaces import CodeSpace, Ordinal

def space():
    return CodeSpace([Ordinal("a", range(9)), Ordinal("b", range(9))], name="own",
                     costs={"flops": lambda codes: 1 + 8 * codes[:, 0] + 8 * codes[:, 1]})

def measure(sample): return float(sample["a"] - sample["b"])
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return work_in(tmp_path, monkeypatch, "own", OWN)


def succeed(*arguments: object) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("option", ["--evaluations", "--budget"])
def test_evaluations_of_a_search(folder: Path, option: str) -> None:
    succeed("search", "own:space", "--evaluator", "own:measure", option, 3, "--out", "o")
    assert len(rows(folder / "o")) == 3


def test_both_words_are_one_setting(folder: Path) -> None:
    search = ("search", "own:space", "--evaluator", "own:measure", "--out", "o")
    succeed(*search, "--budget", 3)
    assert "3 of 5 are evaluated already." in succeed(*search, "--evaluations", 5)
    assert len(rows(folder / "o")) == 5


def test_limits_of_a_generator(folder: Path) -> None:
    succeed("search", "own:space", "--evaluator", "own:measure", "--budget", 20, "--out", "o")
    given = ("generate", "--space", "own:space", "--generator", "g.safetensors")
    training = ("--table", "o/history.csv", "--steps", 4, "--levels", 3)
    first = succeed(*given, "--limit", "flops=9", *training, "--quiet")
    assert succeed(*given, "--limit", "flops=9") == succeed(*given, "--budget", "flops=9") == first
    refused = invoke(*given, "--limit", "params=9")
    assert refused.exit_code == 2


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("search", "--evaluations, --budget"),
        ("shrink", "--fine-tunes, --budget"),
        ("generate", "--limit, --budget"),
    ],
)
def test_help_names_the_old_word_as_the_second(command: str, options: str) -> None:
    assert options in " ".join(succeed(command, "--help").split())


@pytest.mark.parametrize(
    ("name", "more"), [("digits", 0), ("nasbench201", 100), ("mobilenetv3", 0)]
)
def test_macs_and_flops_of_a_space_are_multiply_adds(folder: Path, name: str, more: int) -> None:
    """The flops of nasbench201 are its publisher's count, with the biases of 100 classes."""
    space = get_space(name)
    samples = space.sample(8, np.random.default_rng(0))
    limit = sorted(space.cost("flops", space.encode(samples)).tolist())[4]
    (folder / f"count_{name}.py").write_text(
        f"from nni_aiop.search_spaces import get_space\nspace = get_space({name!r})\n"
        "def f(sample): return float(space.cost('macs', space.encode([sample]))[0])\n"
    )
    for cost in ("macs", "flops"):
        succeed(
            *("search", name, "--evaluator", f"count_{name}:f", "--search", "random"),
            *("--evaluations", 6, "--limit", f"{cost}={limit}", "--out", cost),
        )
        found = rows(folder / cost)
        assert len(found) == 6
        assert all(float(row[cost]) <= limit for row in found)
        extra = more if cost == "flops" else 0
        assert all(float(row[cost]) == float(row["default"]) + extra for row in found)


def test_help_says_what_flops_are() -> None:
    for command in (["search"], ["generate"], ["shrink"]):
        assert "multiply-adds" in succeed(*command, "--help")
    assert "multiply-adds" in succeed("spaces", "list")
