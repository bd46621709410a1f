"""`nni-aiop generate`: train once, generate for any budget, refuse in one sentence."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from nni_aiop.cli import app
from nni_aiop.search_spaces import get_space


def labelled(path: Path) -> Path:
    """Random cells of NAS-Bench-201, the better the more convolutions they have."""
    space = get_space("nasbench201")
    samples = space.sample(60, np.random.default_rng(0))
    rows = [",".join([*space.labels, "accuracy"])]
    for sample in samples:
        good = sum("conv" in str(value) for value in sample.values())
        rows.append(",".join([*map(str, sample.values()), str(50 + good)]))
    path.write_text("\n".join(rows))
    return path


def run(*arguments: str, code: int = 0) -> str:
    return run_generate(["--space", "nasbench201", *arguments], code)


def run_generate(arguments: list[str], code: int = 0) -> str:
    done = CliRunner().invoke(app, ["generate", *arguments])
    assert done.exit_code == code, done.output
    return " ".join(done.stderr.split()) if code else done.stdout


def costs_in(shown: str, n_costs: int) -> list[tuple[float, ...]]:
    """The costs of each architecture in a printed table."""
    rows = [line.split() for line in shown.splitlines() if "=" in line]
    return [tuple(map(float, row[1 : 1 + n_costs])) for row in rows]


@pytest.fixture(autouse=True)
def results_lie_elsewhere(tmp_path_factory: pytest.TempPathFactory, monkeypatch) -> None:
    """The folder of results is found from where the command is given."""
    monkeypatch.chdir(tmp_path_factory.mktemp("here"))


@pytest.fixture
def quick_evaluator(monkeypatch) -> None:
    from nni_aiop.predictors import ParetoEvaluator

    monkeypatch.setitem(ParetoEvaluator.__init__.__kwdefaults__, "steps", 10)


def test_it_trains_once_and_generates_for_any_budget(tmp_path: Path, quick_evaluator: None) -> None:
    file = tmp_path / "generator.safetensors"
    given = ("--generator", str(file), "-n", "3")
    table = str(labelled(tmp_path / "cells.csv"))
    first = run(*given, "--table", table, "--limit", "flops=6e7", "--steps", "3")
    assert file.exists() and not file.with_name(file.name + ".training").exists()
    assert first.count("op_01=") == 3
    again = run(*given, "--limit", "flops=9e7")
    costs = [float(line.split()[1]) for line in again.splitlines() if "op_01=" in line]
    assert len(costs) == 3 and max(costs) <= 9e7
    assert "but the cheapest, " in run(*given, "--budget", "flops=1", code=2)


def test_several_budgets_are_all_kept_and_one_outside_the_range_is_extrapolated(
    tmp_path: Path, quick_evaluator: None
) -> None:
    given = ("--generator", str(tmp_path / "generator.training"), "-n", "3")
    table = str(labelled(tmp_path / "cells.csv"))
    both = ("--limit", "flops=9e7", "--budget", "params=8e5")
    rows = costs_in(run(*given, "--table", table, *both, "--steps", "3"), 2)
    assert len(rows) == 3 and max(f for f, _ in rows) <= 9e7 and max(p for _, p in rows) <= 8e5
    wide = ("--budget", "flops=1e9", "--budget", "params=8e5")
    assert "trained range" in run(*given, *wide, code=2)
    assert len(costs_in(run(*given, *wide, "--extrapolate"), 2)) == 3
    assert "must name flops, params, which" in run(*given, "--limit", "flops=9e7", code=2)
    twice = ("--limit", "flops=9e7", "--budget", "flops=5e7")
    assert "must be limited once" in run(*given, *twice, code=2)


def test_an_interrupted_training_goes_on(tmp_path: Path, quick_evaluator: None) -> None:
    from nni_aiop.generators._training import PolicyTraining

    file = tmp_path / "g.safetensors"
    table = str(labelled(tmp_path / "cells.csv"))
    given = ("--generator", str(file), "--table", table, "--limit", "flops=6e7", "--steps", "3")
    whole = run(*given)
    file.unlink()

    def broken(self, reward) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(PolicyTraining, "update", broken)
        run(*given, code=130)
    assert not file.exists() and file.with_name("g.safetensors.training").exists()
    assert run(*given) == whole
    assert not file.with_name("g.safetensors.training").exists()


def test_architectures_whose_training_failed_are_left_out(
    tmp_path: Path, quick_evaluator: None
) -> None:
    table = labelled(tmp_path / "cells.csv")
    lines = table.read_text().splitlines()
    lines[3] = lines[3].rpartition(",")[0] + ","
    table.write_text("\n".join(lines))
    given = ("--generator", str(tmp_path / "g.safetensors"), "--limit", "flops=6e7")
    assert "op_01=" in run(*given, "--table", str(table), "--steps", "3")
    given = (*given, "--overwrite")
    table.write_text("\n".join([lines[0], lines[3], lines[4]]))
    assert "at least 2 rows" in run(*given, "--table", str(table), code=2)
    table.write_text("\n".join([lines[0], lines[4], lines[4]]))
    assert "must differ between architectures" in run(*given, "--table", str(table), code=2)


def test_a_phones_latency_is_a_budget_like_any_other(
    tmp_path: Path, data_dir: Path, quick_evaluator: None, monkeypatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2] / "examples")
    monkeypatch.setenv("LATENCY_TABLE", str(data_dir / "ofa_mbv3" / "lut_note10_w1.2.csv.gz"))
    given = ["--space", "phone_space:space", "--generator", str(tmp_path / "g.safetensors")]
    given += ["--out", str(tmp_path / "o")]
    table = str(data_dir / "ofa_mbv3" / "surrogate_16k.csv.gz")
    training = ["--table", table, "--metric", "autobuild_top1", "--steps", "2"]
    shown = run_generate([*given, *training, "--budget", "latency_ms=40"])
    assert all(cost <= 40 for (cost,) in costs_in(shown, 1)) and "d1=" in shown
    monkeypatch.delenv("LATENCY_TABLE")
    refused = run_generate([*given, "--budget", "latency_ms=40"], code=2)
    assert "lut_note10_w1.2.csv.gz must be usable, but is not" in refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--budget", "latency=1"), "it has: "),
        (("--budget", "flops=much"), "must read COST=NUMBER"),
        (("--budget", "flops=5e7"), "trained first"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path: Path, arguments, message: str) -> None:
    given = (*arguments, "--generator", str(tmp_path / "none.safetensors"))
    assert message in run(*given, code=2)


def test_what_was_generated_lies_in_a_folder_with_a_page(
    tmp_path: Path, quick_evaluator: None
) -> None:
    from nni_aiop.history import read_history

    given = ("--generator", str(tmp_path / "g.safetensors"))
    table = str(labelled(tmp_path / "cells.csv"))
    shown = run(*given, "--table", table, "--limit", "flops=6e7", "--steps", "3", "-n", "4")
    folder = Path("out/generate/nasbench201-flops-6e7")
    assert str(folder / "report.html") in shown
    summary = json.loads((folder / "results.json").read_text())
    space = get_space("nasbench201")
    samples, columns = read_history(folder / "history.csv", space)
    assert len(samples) == 4 and max(columns["flops"]) <= 6e7
    assert all(f"op_01={sample['op_01']}" in shown for sample in samples)
    assert columns["score"].tolist() == sorted(columns["score"], reverse=True)
    assert summary["best"]["number"] == 0 and summary["limits"] == {"flops": 6e7}
    page = (folder / "report.html").read_text()
    assert "nasbench201: 4 architectures generated" in page and "drawing-3" in page
    assert "-n 10" in summary["settings"]["command_line"]["more"]

    more = run(*given, "--limit", "flops=6e7", "-n", "6")  # another number is no other budget
    assert len(costs_in(more, 1)) == 6 and "6 architectures generated" in (
        folder / "report.html"
    ).read_text()  # fmt: skip
    here = ("--out", str(folder), "--limit", "flops=9e7")
    refused = run(*given, *here, code=2)
    assert "holds results.json of something else" in refused and "--overwrite" in refused
    run(*given, *here, "--overwrite")
    assert json.loads((folder / "results.json").read_text())["limits"] == {"flops": 9e7}
