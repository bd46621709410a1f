"""Every benchmark script runs with --quick, prints a table and writes its figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(p.name for p in (ROOT / "benchmarks").glob("[!_]*.py"))
PATIENCE = 900.0  # seconds


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_runs_quickly(name: str, data_dir: Path, tmp_path: Path) -> None:
    source = (ROOT / "benchmarks" / name).read_text()
    for package in ("thop", "joblib"):
        if package in source:
            pytest.importorskip(package)
    done = subprocess.run(
        [
            *(sys.executable, str(ROOT / "benchmarks" / name), "--quick"),
            *("--data", str(data_dir), "--out", str(tmp_path)),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    (heading,) = (i for i, line in enumerate(lines) if line.split() == FIGURES)
    assert set(lines[heading + 1]) == {"-", " "}
    end = lines.index("A quick run: these figures prove nothing.")
    figures = json.loads((tmp_path / "results.json").read_text())
    assert len(figures) == end - heading - 2
    for figure in figures.values():
        assert {"value", "asked", "holds"} <= set(figure)
        assert figure["holds"] is None
    for picture in PICTURES.get(name, ()):
        assert (tmp_path / picture).stat().st_size > 1000
    for less, more in SURE.get(name, ()):
        assert figures[less]["value"] < figures[more]["value"]


FIGURES = ["figure", "value", "asked", "holds"]
PICTURES = {
    "nas_bench_mr.py": ("scatter.png", "calibration.png"),
    "scale.py": ("scale.png",),
    "supernet.py": ("supernet.png",),
}
SURE = {"nas_bench_mr.py": [("seg: mae of default", "seg: mae of published recipe")]}
"""Figures of which even a quick run shows which one is less."""
