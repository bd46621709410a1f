"""`nni-aiop generate`: train once, generate for any budget, refuse in one sentence."""

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
    done = CliRunner().invoke(app, ["generate", "--space", "nasbench201", *arguments])
    assert done.exit_code == code, done.output
    return " ".join(done.stderr.split()) if code else done.stdout


def test_it_trains_once_and_generates_for_any_budget(tmp_path: Path, monkeypatch) -> None:
    from nni_aiop.predictors import ParetoEvaluator

    monkeypatch.setitem(ParetoEvaluator.__init__.__kwdefaults__, "steps", 10)
    file = tmp_path / "generator.safetensors"
    given = ("--generator", str(file), "-n", "3")
    table = str(labelled(tmp_path / "cells.csv"))
    first = run(*given, "--table", table, "--budget", "flops=6e7", "--steps", "3")
    assert file.exists() and not file.with_name(file.name + ".training").exists()
    assert first.count("op_01=") == 3
    again = run(*given, "--budget", "flops=9e7")
    costs = [float(line.split()[1]) for line in again.splitlines() if "op_01=" in line]
    assert len(costs) == 3 and max(costs) <= 9e7
    assert "but the cheapest, " in run(*given, "--budget", "flops=1", code=2)


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
