"""One word for one thing: evaluations, fine-tunes, limits, multiply-adds; old words still do."""

from __future__ import annotations

from pathlib import Path

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


@pytest.mark.parametrize("name", ["digits", "nasbench201", "mobilenetv3"])
def test_macs_and_flops_of_a_space_are_the_same_multiply_adds(folder: Path, name: str) -> None:
    space = get_space(name)
    limit = sorted(space.cost("flops", space.encode_points(space.points(_samples(name)))).tolist())[
        4
    ]
    code = f"from nni_aiop.search_spaces import get_space\nspace = get_space({name!r})\n"
    (folder / "count.py").write_text(
        code + "def f(sample): return float(space.cost('macs', space.encode([sample]))[0])\n"
    )
    given = ("search", name, "--evaluator", "count:f", "--search", "random", "--evaluations", 6)
    succeed(*given, "--limit", f"macs={limit}", "--out", "macs")
    succeed(*given, "--limit", f"flops={limit}", "--out", "flops")
    for found in rows(folder / "macs"), rows(folder / "flops"):
        assert len(found) == 6
        assert all(float(row["default"]) <= limit for row in found)
    assert all(float(row["macs"]) == float(row["default"]) for row in rows(folder / "macs"))
    assert all(float(row["flops"]) == float(row["default"]) for row in rows(folder / "flops"))


def _samples(name: str) -> list[dict[str, object]]:
    import numpy as np

    return list(get_space(name).sample(8, np.random.default_rng(0)))


def test_help_says_what_flops_are() -> None:
    for command in (["search"], ["generate"], ["shrink"]):
        assert "multiply-adds" in succeed(*command, "--help")
    assert "multiply-adds" in succeed("spaces", "list")
