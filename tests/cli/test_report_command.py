"""`nni-aiop report`: the page of a folder, anew; and that the commands write one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.command_line import invoke, refuse, work_in
from tests.results.pages import data_of

OWN = """
from nni_aiop.spaces import CodeSpace, Nominal, Ordinal

def space():
    return CodeSpace(
        [Ordinal("depth", range(1, 9)), Ordinal("width", range(8, 65, 8)), Nominal("op", "abc")],
        name="own", costs={"flops": lambda codes: 1 + 7 * codes[:, 0] + 7 * codes[:, 1]},
    )

def drawn():
    from torch import nn
    from nni_aiop.graphs import from_module
    def graph(sample):
        layers = [nn.Conv2d(3, sample["width"], 3)] * 1 + [nn.ReLU()] * sample["depth"]
        return from_module(nn.Sequential(*layers), (1, 3, 8, 8))
    return space().with_graph(graph)

def measure(sample):
    return {"default": sample["depth"] - abs(sample["width"] - 40) / 16, "x": 1.0}
"""

EXPERIMENT = """
experimentType: nas
maxTrialNumber: {n}
space: own:space
evaluator: {{name: "own:measure"}}
strategy: {{name: random}}
engine: optuna
"""

SEARCH = ("search", "own:space", "--search", "random", "--evaluator", "own:measure")


def succeed(*arguments: object) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return work_in(tmp_path, monkeypatch, "own", OWN)


def test_a_search_has_a_page_that_says_how_to_go_on(own: Path) -> None:
    said = succeed(*SEARCH, "--budget", 9, "--limit", "flops=12", "--out", "o")
    assert "o/report.html" in said
    page = (own / "o/report.html").read_text()
    same = (
        "nni-aiop search own:space --search random --evaluator own:measure --evaluations {} "
        "--limit flops=12 --out o"
    )
    assert same.format(9) in page and same.format(18) in page
    assert data_of(page)["n"] == 9
    # What the page says is a command that goes on.
    words = same.format(18).split()[1:]
    assert "Going on with the search in o" in succeed(*words)
    assert data_of((own / "o/report.html").read_text())["n"] == 18


def test_a_run_has_a_page(own: Path) -> None:
    (own / "e.yml").write_text(EXPERIMENT.format(n=9))
    assert "o/report.html" in succeed("run", "e.yml", "--out", "o")
    page = (own / "o/report.html").read_text()
    assert "nni-aiop run e.yml --out o" in page and "maxTrialNumber in e.yml" in page
    assert data_of(page)["n"] == 9


def test_the_page_is_made_anew(own: Path) -> None:
    succeed(*SEARCH, "--budget", 9, "--out", "o")
    page = (own / "o/report.html").read_text()
    (own / "o/report.html").unlink()
    assert succeed("report", "o") == "Report: o/report.html\n"
    anew = (own / "o/report.html").read_text()
    assert data_of(anew) == data_of(page) and "<img id" not in anew
    succeed("report", "o", "--space", "own:drawn")
    assert (own / "o/report.html").read_text().count("<img id") == 5


def test_a_ready_space_is_found_and_drawn(own: Path) -> None:
    (own / "five.py").write_text("def f(sample): return sample['width_1']")
    succeed(*("search", "digits", "--search", "random", "--evaluator", "five:f"),
            *("--budget", 3, "--out", "o"))  # fmt: skip
    (own / "o/report.html").unlink()
    succeed("report", "o")
    assert (own / "o/report.html").read_text().count("<img id") == 3


def test_a_wrong_folder_is_one_sentence(own: Path) -> None:
    assert "a folder of results must be given, but nowhere is none" in refuse("report", "nowhere")
    (own / "empty").mkdir()
    assert "as a search leaves them, but empty has none" in refuse("report", "empty")
    succeed(*SEARCH, "--budget", 3, "--out", "o")
    assert "the space must be own" in refuse("report", "o", "--space", "digits")
    for text in ("{", "[]", json.dumps({"objectives": [{"metric": "x"}], "dimensions": 3})):
        (own / "o/results.json").write_text(text)
        assert "o/results.json" in refuse("report", "o")
    assert not (own / "empty/report.html").exists()
