"""The examples that shrink networks, each from a folder of the user's own."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from nni_aiop.networks import Network

ROOT = Path(__file__).parents[2]
# timm without torchvision, as the benchmarks load it.
WITH_TIMM = (
    "import runpy, sys; sys.path.insert(0, {benchmarks!r}); import _timm; _timm.timm();"
    "sys.argv = ['shrink_timm.py', '--size', '64']; runpy.run_path({script!r}, run_name='__main__')"
)


def run(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error::FutureWarning", *map(str, command)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )


def test_shrink_digits_compares_three_networks(tmp_path: Path) -> None:
    script = ROOT / "examples/shrink_digits.py"
    done = run(script, "--trials", 3, "--epochs", 3, "--tuning", 1, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    table = {line[:22].strip(): line[22:].split() for line in done.stdout.splitlines()[1:4]}
    assert list(table) == ["as it was, fine-tuned", "uniform pruning", "searched"]
    for name in ("uniform pruning", "searched"):
        assert 0.985 * 0.667 <= float(table[name][1]) <= 0.667
    assert all(float(row[3].rstrip("%")) > 80 for row in table.values())
    out = tmp_path / "out/shrink_digits"
    for name in ("front.png", "layers.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    small = Network.load(out / "small.safetensors")
    assert f"{small.graph.macs:,}" == table["searched"][0]
    assert "| accuracy, fine-tuned |" in (out / "report.md").read_text()


def test_shrink_timm_meets_each_budget_or_says_what_is_missing(tmp_path: Path) -> None:
    script = ROOT / "examples/shrink_timm.py"
    without = run(
        "-c",
        f"import runpy, sys; sys.modules['timm'] = None; sys.argv = ['x'];"
        f"runpy.run_path({str(script)!r}, run_name='__main__')",
        cwd=tmp_path,
    )
    assert without.returncode == 1 and without.stderr == ""
    assert "timm must be importable here" in without.stdout
    code = WITH_TIMM.format(benchmarks=str(ROOT / "benchmarks"), script=str(script))
    done = run("-c", code, cwd=tmp_path)
    if "No module named 'timm'" in done.stderr:
        pytest.skip("timm is not installed")
    assert done.returncode == 0, done.stderr
    assert "At most 0.865: 0.86" in done.stdout and "At most 0.5: 0.49" in done.stdout
    assert len(list((tmp_path / "out/shrink_timm").iterdir())) == 2


@pytest.mark.slow
def test_experiment_file_shrinks_alike_on_both_engines(tmp_path: Path) -> None:
    pytest.importorskip("nni")
    experiment = yaml.safe_load((ROOT / "examples/nni_shrink_digits.yml").read_text())
    experiment["maxTrialNumber"] = 3
    file = tmp_path / "shrink.yml"
    file.write_text(yaml.safe_dump(experiment))
    for name in ("shrink_space.py", "shrink_digits.py"):
        (tmp_path / name).write_text((ROOT / "examples" / name).read_text())
    for engine in ("nni", "optuna"):
        code = "from nni_aiop.cli import main; main()"
        done = run("-c", code, "run", file, "--engine", engine, "--out", engine, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    told = (tmp_path / "nni/history.csv").read_text()
    assert told == (tmp_path / "optuna/history.csv").read_text()
    rows = list(csv.DictReader(told.splitlines()))
    assert len(rows) == 3 and all(float(row["validation"]) > 80 for row in rows)
    whole = 1_058_432
    assert all(0.985 * 0.667 <= float(row["flops"]) / whole <= 0.667 for row in rows)
