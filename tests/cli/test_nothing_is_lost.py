"""What is there stays there, whatever the command writes; and searches that are gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nni_aiop.graphs import ComputeGraph, Node
from nni_aiop.predictors.graph import GraphPredictor
from nni_aiop.search_spaces import get_space
from tests.cli.command_line import invoke, refuse, rows, wait_until, work_in

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from nni_aiop.cli import main; main()"]
SAVED = ("results.json", "history.csv", "search.png", "report.html")

# A space and measures of a user's own. Each call is told to a file; `held` waits from the fourth on
# while there is a file `hold`.
OWN = """
import os, time
from nni_aiop.spaces import CodeSpace, Nominal, Ordinal

def space():
    return CodeSpace(
        [Ordinal("depth", range(1, 9)), Ordinal("width", range(8, 65, 8)), Nominal("op", "abc")],
        name="own", costs={"flops": lambda codes: 1 + 7 * codes[:, 0] + 7 * codes[:, 1]},
    )

def measure(sample):
    with open("calls.txt", "a") as file:
        print(sorted(sample.items()), file=file)
    if os.path.exists("hold") and len(open("calls.txt").readlines()) == 4:
        time.sleep(600)
    return {"default": sample["depth"] - abs(sample["width"] - 40) / 16, "x": 1.0}

def wrong(sample):
    raise RuntimeError("mine")
"""


def succeed(*arguments: object) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `own.py`, which is the working folder."""
    return work_in(tmp_path, monkeypatch, "own", OWN)


def calls(folder: Path) -> list[str]:
    path = folder / "calls.txt"
    return path.read_text().splitlines() if path.exists() else []


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and "__pycache__" not in p.parts
    }


def search(*arguments: object, evaluator: str = "own:measure", budget: int = 4) -> list[object]:
    given: list[object] = ["search", "own:space", "--search", "random", "--budget", budget]
    return [*given, "--evaluator", evaluator, *arguments]


# --- a search is gone on with, and no other one enters its folder ---


def test_the_same_search_goes_on_and_a_larger_budget_extends_it(own: Path) -> None:
    succeed(*search("--out", "whole", budget=10))
    whole = rows(own / "whole")
    (own / "calls.txt").unlink()
    assert "Going on" not in succeed(*search())
    first = rows(own / "out/search")
    assert "Going on with the search in out/search" in succeed(*search())
    assert rows(own / "out/search") == first and len(calls(own)) == 4
    succeed(*search(budget=10))
    assert rows(own / "out/search") == whole and len(calls(own)) == 10
    assert "The best of 10" in succeed(*search(budget=2))
    assert rows(own / "out/search") == whole and len(calls(own)) == 10


@pytest.mark.parametrize("strategy", ["ncp", "evolution", "topk", "pnag"])
def test_every_search_goes_on_to_the_same_end(own: Path, strategy: str) -> None:
    given = [*search(budget=10), "--search", strategy, "--limit", "flops=12", "--out"]
    succeed(*given, "whole")
    (own / "stop.py").write_text(
        "import own\nn = 0\n"
        "def stop(sample):\n"
        "    global n\n    n += 1\n"
        "    if n == 8: raise KeyboardInterrupt\n"
        "    return own.measure(sample)\n"
    )
    sys.modules.pop("stop", None)
    stopping = [*given[:-1], "--evaluator", "stop:stop", "--out", "part"]
    interrupted = invoke(*stopping)
    assert interrupted.exit_code == 130
    assert "7 of 10" in interrupted.stderr and "part" in interrupted.stderr
    assert len(rows(own / "part")) == 7
    succeed(*stopping)
    assert rows(own / "part") == rows(own / "whole")


def test_a_killed_search_evaluates_nothing_twice(own: Path) -> None:
    succeed(*search("--out", "whole", budget=9))
    (own / "calls.txt").unlink()
    (own / "hold").touch()
    command = [*COMMAND, *map(str, search("--out", "o", budget=9))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    wait_until(lambda: len(calls(own)) >= 4, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (own / "hold").unlink()
    under_way = calls(own)[3]
    assert rows(own / "o") == rows(own / "whole")[:3], "each result had its row at once"
    history = own / "o/history.csv"
    history.write_bytes(history.read_bytes()[:-5])  # as if it had been killed in the third
    succeed(*search("--out", "o", budget=9))
    asked = calls(own)
    assert len(asked) == 10 and asked[4] == under_way, "what was under way comes first, once more"
    assert len(set(asked)) == 9
    assert rows(own / "o") == rows(own / "whole")


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (("--seed", 5), "seed = 0 instead of 5"),
        (("--metric", "x"), "metrics"),
        (("--metric", "default:minimize"), "metrics"),
        (("--limit", "flops=9"), "limits"),
        (("--search", "evolution"), 'search = "random" instead of "evolution"'),
        (("--evaluator", "own:wrong"), 'evaluator = "own:measure" instead of "own:wrong"'),
    ],
)
def test_a_search_of_other_settings_is_refused(
    own: Path, other: tuple[object, ...], named: str
) -> None:
    succeed(*search())
    before = bytes_of(own / "out")
    said = refuse(*search(*other))
    assert "out/search must be empty or hold a search with the same settings" in said
    assert named in said and "--restart" in said
    assert bytes_of(own / "out") == before


def test_restart_begins_anew(own: Path) -> None:
    succeed(*search(budget=6))
    succeed(*search("--seed", 5, "--restart"))
    assert len(rows(own / "out/search")) == 4
    assert len(calls(own)) == 10
    assert "Going on" in succeed(*search("--seed", 5))


@pytest.mark.parametrize("name", [*SAVED, "state.json", "experiment.json"])
def test_files_of_another_program_are_kept(own: Path, name: str) -> None:
    (own / "o").mkdir()
    (own / "o" / name).write_text("mine")
    for arguments in (search("--out", "o"), search("--out", "o", evaluator="own:wrong")):
        assert f"holds {name}" in refuse(*arguments)
    (own / "e.yml").write_text(
        "maxTrialNumber: 2\nspace: own:space\nevaluator: own:measure\nstrategy: random\n"
        "engine: optuna\nout: o\n"
    )
    assert f"holds {name}" in refuse("run", "e.yml")
    assert bytes_of(own / "o") == {name: b"mine"}
    assert calls(own) == []


def test_results_without_their_state_are_kept(own: Path) -> None:
    succeed(*search())
    (own / "out/search/state.json").unlink()
    before = bytes_of(own / "out")
    assert "must hold the state.json" in refuse(*search())
    assert bytes_of(own / "out") == before


def test_a_search_and_a_run_do_not_share_a_folder(own: Path) -> None:
    succeed(*search("--out", "o"))
    (own / "e.yml").write_text(
        "maxTrialNumber: 2\nspace: own:space\nevaluator: own:measure\nstrategy: random\n"
        "engine: optuna\nout: o\n"
    )
    before = bytes_of(own / "o")
    assert "o must be empty or hold a run of the same experiment" in refuse("run", "e.yml")
    assert bytes_of(own / "o") == before
    succeed("run", "e.yml", "--restart")
    assert "o must be empty or hold a search" in refuse(*search("--out", "o"))


def test_a_search_that_is_refused_leaves_nothing(own: Path) -> None:
    refuse(*search("--metric", "accuracy", "--out", "o"))
    refuse(*search("--limit", "flops=0", "--out", "o"))
    assert not list((own / "o").glob("*"))
    succeed(*search("--out", "o"))


# --- results of one file ---


@pytest.fixture
def measured(own: Path) -> Path:
    """A CSV of 20 measured architectures of the user's space."""
    lines = ["depth,width,op,y"]
    lines += [f"{1 + i % 8},{8 + 8 * (i // 3 % 8)},{'abc'[i % 3]},{i}" for i in range(20)]
    (own / "t.csv").write_text("\n".join(lines) + "\n")
    return own / "t.csv"


@pytest.fixture
def networks(own: Path) -> Path:
    """A backbone, graphs and a CSV of their measured values."""
    space = get_space("nasbench201")
    assert space.graph is not None
    graphs = [space.graph(s) for s in space.sample(8, np.random.default_rng(0))]
    fit = GraphPredictor(epochs=1, encoder_options={"hidden": 8, "layers": 2})
    fit.fit(graphs, [g.macs / 1e6 for g in graphs]).save(own / "b.safetensors")
    for i, graph in enumerate(graphs):
        graph.save(own / f"{i}.json")
    (own / "n.csv").write_text("\n".join(["model,ms", *(f"{i}.json,{i}" for i in range(8)), ""]))
    return own


def test_generate_keeps_what_is_there(
    own: Path, measured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nni_aiop.predictors import ParetoEvaluator

    monkeypatch.setitem(ParetoEvaluator.__init__.__kwdefaults__, "steps", 10)
    table = measured.read_bytes()
    given = ("generate", "--space", "own:space", "--budget", "flops=9", "--steps", 2)
    train = (*given, "--table", "t.csv")
    (own / "link.csv").symlink_to("t.csv")
    os.link(measured, own / "hard.csv")
    for same in ("t.csv", "./t.csv", measured, "link.csv", "hard.csv"):
        for more in ((), ("--overwrite",)):
            said = refuse(*train, "--generator", same, *more)
            assert "--generator must not overwrite what --table reads" in said
    assert measured.read_bytes() == table
    os.rename(measured, own / "g.training")  # where an interrupted training would be kept
    assert "must not overwrite what --table reads" in refuse(
        *given, "--table", "g.training", "--generator", "g", "--overwrite"
    )
    os.rename(own / "g.training", measured)
    assert measured.read_bytes() == table
    succeed(*train)
    default = own / "out/generators/own.safetensors"
    before = default.read_bytes()
    for place in ((), ("--generator", default)):
        said = refuse(*train, "--seed", 1, *place)
        assert "must not be overwritten unasked" in said and "--overwrite" in said
    assert default.read_bytes() == before
    succeed(*train, "--seed", 1, "--overwrite")
    assert default.read_bytes() != before
    (own / "notes.txt").write_text("mine")
    refuse(*train, "--generator", "notes.txt")
    (own / "new.training").write_text("mine")
    refuse(*train, "--generator", "new")
    assert (own / "notes.txt").read_text() == (own / "new.training").read_text() == "mine"


def kept(folder: Path, out: str, command: Callable[[], tuple[object, ...]]) -> None:
    """The command refuses to write over its own results, and does so with --overwrite."""
    succeed(*command())
    before = bytes_of(folder / out)
    assert before
    assert "must not be overwritten unasked, but is there already" in refuse(*command())
    assert bytes_of(folder / out) == before
    succeed(*command(), "--overwrite")


def test_predictor_train_and_eval_keep_what_is_there(own: Path, measured: Path) -> None:
    train = ("predictor", "train", "t.csv", "--space", "own:space", "--metric", "y")
    kept(own, "out/predictor", lambda: train)
    file = own / "out/predictor/predictor.safetensors"
    evaluate = ("predictor", "eval", file, "t.csv", "--space", "own:space")
    kept(own, "out/predictor-eval", lambda: evaluate)
    succeed(*search("--out", "s"))
    before = bytes_of(own / "s")
    history = ("s/history.csv", "--space", "own:space", "--out", "s")
    assert "s/results.json must not be overwritten" in refuse("predictor", "train", *history)
    assert "s/results.json must not be overwritten" in refuse("predictor", "eval", file, *history)
    assert bytes_of(own / "s") == before
    (own / "d").mkdir()
    os.rename(measured, own / "d/predictions.csv")
    said = refuse(
        *("predictor", "train", "d/predictions.csv", "--space", "own:space", "--out", "d"),
        "--overwrite",
    )
    assert "--out must not overwrite what DATA reads" in said


def test_graph_keeps_what_is_there(own: Path) -> None:
    shapes = [(1, 7)]
    nodes = [
        Node.make("input", [], (1, 7)),
        Node.make("softmax", shapes, (1, 7), axis=-1),
        Node.make("output", shapes, (1, 7)),
    ]
    ComputeGraph(nodes, [(), (0,), (1,)]).save(own / "graph.json")
    told = succeed("graph", "graph.json")
    assert succeed("graph", "graph.json") == told, "the same graph again loses nothing"
    nodes = [Node.make("input", [], (1, 9)), Node.make("output", [(1, 9)], (1, 9))]
    ComputeGraph(nodes, [(), (0,)]).save(own / "other.json")
    written = bytes_of(own / "out/graph")
    assert "out/graph/graph.json must not be overwritten" in refuse("graph", "other.json")
    (own / "p").mkdir()
    (own / "p/graph.png").write_text("mine")
    assert "p/graph.png must not be overwritten" in refuse("graph", "other.json", "--out", "p")
    assert bytes_of(own / "out/graph") == written and bytes_of(own / "p") == {"graph.png": b"mine"}
    succeed("graph", "other.json", "--overwrite")
    before = (own / "graph.json").read_bytes()
    said = refuse("graph", "graph.json", "--out", ".", "--overwrite")
    assert "--out must not overwrite what MODEL reads" in said
    assert (own / "graph.json").read_bytes() == before


def test_adapt_keeps_what_is_there(networks: Path) -> None:
    adapt = ("predictor", "adapt", "n.csv", "--backbone", "b.safetensors", "--model", "ridge")
    kept(networks, "out/tasks", lambda: adapt)
    text = (networks / "n.csv").read_text()
    (networks / "n.csv").write_text(text.replace("model,ms", "model,mj"))
    before = bytes_of(networks / "out/tasks")
    succeed(*adapt)
    after = bytes_of(networks / "out/tasks")
    assert after.items() > before.items() and set(after) - set(before) == {"mj.safetensors"}
    os.rename(networks / "b.safetensors", networks / "mw.safetensors")
    (networks / "n.csv").write_text(text.replace("model,ms", "model,mw"))
    said = refuse(
        *("predictor", "adapt", "n.csv", "--backbone", "mw.safetensors", "--model", "ridge"),
        *("--out", ".", "--overwrite"),
    )
    assert "--out must not overwrite what --backbone reads" in said


# --- places are tried before the work ---


@pytest.mark.parametrize("place", ["/proc/x/o", "own.py", "own.py/o", "dangling", "made/long"])
def test_places_are_tried_before_the_work(own: Path, measured: Path, place: str) -> None:
    (own / "dangling").symlink_to("nowhere/at/all")
    (own / "made").mkdir()
    if place == "made/long":
        place = "made/" + 300 * "n"
    (own / "e.yml").write_text(
        "maxTrialNumber: 2\nspace: own:space\nevaluator: own:measure\nengine: optuna\n"
    )
    before = bytes_of(own)
    table = ("t.csv", "--space", "own:space")
    for command in (
        search("--out", place),
        ["run", "e.yml", "--out", place],
        ["predictor", "train", *table, "--out", place],
        ["graph", "own:nothing", "--out", place],
        ["generate", *table[1:], "--table", "t.csv", "--budget", "flops=9"],
    ):
        if command[0] == "generate":
            command = [*command, "--generator", f"{place}/g"]
        said = refuse(*command)
        assert "--out must" in said or "--generator must" in said, said
    assert bytes_of(own) == before
    assert calls(own) == []
    assert list((own / "made").iterdir()) == []


def test_a_folder_in_the_place_of_a_result_is_told_before_the_work(own: Path) -> None:
    (own / "o/history.csv").mkdir(parents=True)
    said = refuse(*search("--out", "o"))
    assert "o/history.csv is a folder" in said
    assert calls(own) == []


def test_a_table_that_lies_where_results_go_is_kept(own: Path) -> None:
    succeed(*search("--out", "o", budget=192))
    before = (own / "o/history.csv").read_bytes()
    table = ("search", "own:space", "--table", "o/history.csv", "--out", "o", "--restart")
    assert "--out must not overwrite what --table reads" in refuse(*table)
    (own / "e.yml").write_text(
        "maxTrialNumber: 2\nspace: own:space\nengine: optuna\nout: o\n"
        "evaluator: {name: table, path: o/history.csv}\n"
    )
    assert "the evaluator's path reads" in refuse("run", "e.yml", "--restart")
    assert (own / "o/history.csv").read_bytes() == before


def test_the_state_is_plain_json(own: Path) -> None:
    succeed(*search())
    state = json.loads((own / "out/search/state.json").read_text())
    assert len(state["history"]) == 4
