"""Tables of a part of the space: a search stays within their rows, a run says what is missing."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.cli.command_line import invoke, work_in

OWN = """
from nni_aiop.spaces import CodeSpace, Nominal, Ordinal

def space():
    return CodeSpace(
        [Ordinal("depth", range(1, 9)), Ordinal("width", range(8, 65, 8)), Nominal("op", "abc")],
        name="own", costs={"flops": lambda codes: 1 + 7 * codes[:, 0] + 7 * codes[:, 1]},
    )
"""


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, ...]]:
    """The 20 rows of `t.csv`, of a space of 192 architectures; the working folder holds it."""
    work_in(tmp_path, monkeypatch, "own", OWN)
    found = {(str(1 + i % 8), str(8 + 8 * (i // 3 % 8)), "abc"[i % 3]) for i in range(20)}
    lines = [",".join([*row, str(sum(map(len, row)) + int(row[0]))]) for row in sorted(found)]
    (tmp_path / "t.csv").write_text("\n".join(["depth,width,op,acc", *lines, ""]))
    return found


def history(out: str = "out/search") -> list[dict[str, str]]:
    with open(f"{out}/history.csv", newline="") as file:
        return list(csv.DictReader(file))


def search(*more: object, budget: int = 12) -> tuple[object, ...]:
    return "search", "own:space", "--table", "t.csv", "--metric", "acc", "--budget", budget, *more


@pytest.mark.parametrize("strategy", ["random", "evolution", "ncp", "topk", "local"])
def test_a_search_stays_within_the_rows(rows: set[tuple[str, ...]], strategy: str) -> None:
    result = invoke(*search("--search", strategy))
    assert result.exit_code == 0, result.output
    assert "The search goes over the 20 architectures of t.csv, a part of own" in result.stdout
    found = [(row["depth"], row["width"], row["op"]) for row in history()]
    assert len(found) == len(set(found)) == 12 and set(found) <= rows
    assert "failed" not in result.stdout and "The best of 12 architectures" in result.stdout
    best = json.loads(Path("out/search/results.json").read_text())
    assert (best["evaluations"], best["failed"]) == (12, 0)


def test_it_ends_with_the_rows_keeps_limits_and_goes_on(rows: set[tuple[str, ...]]) -> None:
    invoke(*search("--search", "random", budget=5))
    first = history()
    assert invoke(*search("--search", "random", budget=99)).exit_code == 0
    assert len(history()) == 20 and history()[:5] == first
    invoke(*search("--search", "random", "--limit", "flops=4", "--out", "limited", budget=99))
    within = history("limited")
    assert 0 < len(within) < 20 and all(float(row["flops"]) <= 4 for row in within)
    best = max(float(row["acc"]) for row in within)
    assert json.loads(Path("limited/results.json").read_text())["best"]["metrics"]["acc"] == best


def test_a_run_names_what_the_table_lacks(rows: set[tuple[str, ...]]) -> None:
    experiment = {"maxTrialNumber": 40, "space": "own:space", "strategy": "random", "out": "o"}
    experiment |= {"evaluator": {"name": "table", "path": "t.csv"}}
    Path("e.yml").write_text(json.dumps(experiment))
    result = invoke("run", "e.yml", "--engine", "optuna")
    assert result.exit_code == 0, result.output
    assert "of 40: t.csv lacks the architecture\n" in result.stdout
    assert len(history("o")) == 40
