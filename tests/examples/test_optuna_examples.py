"""The Optuna examples run from a folder of one's own and end in a visible result."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(script: str, *arguments: str, cwd: Path) -> str:
    command = [sys.executable, str(EXAMPLES / script), *arguments]
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=1200, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_ncp_digits_goes_on_in_its_storage(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/digits.db"
    for total in (2, 4):
        shown = run(
            "optuna_ncp_digits.py", "--trials", "2", "--epochs", "1", "--storage", storage,
            cwd=tmp_path,
        )  # fmt: skip
        assert f"The best of {total} networks by validation accuracy:" in shown
        assert "test_accuracy" in shown
    out = tmp_path / "out" / "optuna_ncp_digits"
    assert {"results.json", "history.csv", "search.png", "report.html"} <= {
        f.name for f in out.iterdir()
    }


@pytest.mark.skipif(importlib.util.find_spec("nni") is None, reason="NNI is not installed")
def test_user_space(tmp_path: Path) -> None:
    shown = run("optuna_user_space.py", "--trials", "4", cwd=tmp_path)
    assert "The best of 4 networks reaches" in shown
    assert "activation" in shown
    assert (tmp_path / "out" / "optuna_user_space" / "search.png").stat().st_size > 1000


@pytest.mark.slow
def test_pnag_front_generates_for_budgets_of_no_trial(tmp_path: Path) -> None:
    shown = run("optuna_pnag_front.py", "--trials", "6", "--epochs", "1", cwd=tmp_path)
    assert "The front (accuracy in percent, multiply-adds):" in shown
    assert shown.count("Generated for") == 2 and shown.count("'width_1':") == 2
