"""The demonstration, the plain loops and NNI's examples, each from a folder of the user's own."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from nni_aiop.search_spaces import digits

EXAMPLES = Path(__file__).parents[2] / "examples"
COMMAND_LINE = "from nni_aiop.cli import main; main()"


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def shortened(name: str, folder: Path, trials: int) -> Path:
    """The experiment file with fewer and shorter trials."""
    experiment = yaml.safe_load((EXAMPLES / name).read_text())
    experiment["maxTrialNumber"] = trials
    experiment["evaluator"]["epochs"] = 1
    path = folder / name
    path.write_text(yaml.safe_dump(experiment))
    return path


def history(folder: Path) -> list[dict[str, str]]:
    with open(folder / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


def keys(rows: list[dict[str, str]]) -> list[tuple[str, ...]]:
    return [tuple(row[label] for label in digits.code_space().labels) for row in rows]


def test_demo_ends_in_tables_and_a_picture(tmp_path: Path) -> None:
    shown = run(EXAMPLES / "demo.py", "--trials", 5, "--epochs", 1, cwd=tmp_path)
    assert "Best by validation accuracy within 200,000 MACs" in shown
    assert "points of test accuracy" in shown
    out = tmp_path / "out" / "demo"
    assert (out / "demo.png").read_bytes().startswith(b"\x89PNG")
    chosen = json.loads((out / "demo.json").read_text())["chosen"]
    assert set(chosen) == {"random", "NCP"}
    for name, found in chosen.items():
        rows = history(out / name.lower())
        assert len(set(keys(rows))) == 5
        assert all(float(row["flops"]) <= 200_000 for row in rows)
        best = max(float(row["val_accuracy"]) for row in rows)
        assert found["metrics"]["val_accuracy"] == best
        # What the demonstration shows was really measured, and can be measured again.
        again = digits.train_and_evaluate(found["sample"], epochs=1, seed=0)
        assert again == pytest.approx(found["metrics"])


def test_ask_tell_digits_goes_on_where_it_was(tmp_path: Path) -> None:
    out = tmp_path / "out" / "ask_tell_digits"
    run(EXAMPLES / "ask_tell_digits.py", "--trials", 3, "--epochs", 1, cwd=tmp_path)
    before = history(out)
    shown = run(EXAMPLES / "ask_tell_digits.py", "--trials", 5, "--epochs", 1, cwd=tmp_path)
    after = history(out)
    assert after[:3] == before
    assert len(set(keys(after))) == 5
    assert "The best of 5 networks" in shown
    assert (out / "search.png").stat().st_size > 1000


@pytest.mark.parametrize("script", ["ask_tell_user_space.py", "nni_user_space.py"])
def test_scripts_on_a_space_of_ones_own(script: str, tmp_path: Path) -> None:
    pytest.importorskip("nni")
    shown = run(EXAMPLES / script, "--trials", 6, "--out", tmp_path / "out", cwd=tmp_path)
    assert "The best of 6 networks reaches" in shown
    rows = history(tmp_path / "out")
    assert len({(row["width"], row["activation"], row["depth"]) for row in rows}) == 6


def test_experiment_file_of_a_space_of_ones_own(tmp_path: Path) -> None:
    pytest.importorskip("nni")
    shown = run("-c", COMMAND_LINE, "run", EXAMPLES / "nni_user_space.yml", cwd=tmp_path)
    assert "The best of 20 architectures" in shown
    rows = history(tmp_path / "out" / "nni_user_space")
    assert len({(row["width"], row["activation"], row["depth"]) for row in rows}) == 20


@pytest.mark.slow
def test_experiment_file_of_pnag_reports_the_best_within_the_widest_budget(tmp_path: Path) -> None:
    file = shortened("nni_pnag_digits.yml", tmp_path, trials=6)
    run("-c", COMMAND_LINE, "run", file, "--engine", "optuna", cwd=tmp_path)
    out = tmp_path / "out" / "nni_pnag_digits"
    rows = history(out)
    assert len(set(keys(rows))) == 6
    within = [float(row["val_accuracy"]) for row in rows if float(row["flops"]) <= 200_000]
    results = json.loads((out / "results.json").read_text())
    assert results["best"]["metrics"]["val_accuracy"] == max(within)


@pytest.mark.slow
def test_experiment_file_falls_back_to_optuna_with_the_same_networks(tmp_path: Path) -> None:
    pytest.importorskip("nni")
    file = shortened("nni_ncp_digits.yml", tmp_path, trials=6)
    run("-c", COMMAND_LINE, "run", file, "--out", tmp_path / "nni", cwd=tmp_path)
    without = f"import sys; sys.modules['nni'] = None; {COMMAND_LINE}"
    shown = run("-c", without, "run", file, "--out", tmp_path / "optuna", cwd=tmp_path)
    assert "the search runs on Optuna" in shown
    found = history(tmp_path / "nni")
    assert len(found) == 6
    assert found == history(tmp_path / "optuna")


@pytest.mark.slow
def test_experiment_file_unchanged(tmp_path: Path) -> None:
    run("-c", COMMAND_LINE, "run", EXAMPLES / "nni_ncp_digits.yml", cwd=tmp_path)
    rows = history(tmp_path / "out" / "nni_ncp_digits")
    assert len(set(keys(rows))) == 40
    assert max(float(row["val_accuracy"]) for row in rows) > 90


@pytest.mark.slow
def test_experiment_file_on_the_training_service(tmp_path: Path) -> None:
    pytest.importorskip("nni")
    file = shortened("nni_ncp_digits_ts.yml", tmp_path, trials=4)
    run("-c", COMMAND_LINE, "run", file, cwd=tmp_path)
    rows = history(tmp_path / "out" / "nni_ncp_digits_ts")
    assert len(set(keys(rows))) == 4
    for row in rows:
        sample = {
            d.label: next(v for v in d.values if str(v) == row[d.label])
            for d in digits.code_space().dimensions
            if row[d.label]
        }
        again = digits.train_and_evaluate(sample, epochs=1)
        assert float(row["val_accuracy"]) == pytest.approx(again["val_accuracy"])
