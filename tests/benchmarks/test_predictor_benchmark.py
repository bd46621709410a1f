"""The predictors on the published table: a small fit, and the benchmark script's quick run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nni_aiop.benchmarks import load_nas_bench_mr
from nni_aiop.predictors import default_predictor
from nni_aiop.predictors.metrics import spearman
from nni_aiop.search_spaces import get_space

ROOT = Path(__file__).resolve().parents[2]


def test_default_ranks_segmentation_networks_from_200_rows(data_dir: Path) -> None:
    table = load_nas_bench_mr(data_dir / "nas_bench_mr", "seg")
    space = get_space("multi_resolution")
    codes = space.encode([dict(zip(space.labels, row, strict=True)) for row in table.embedding])
    rows = np.random.RandomState(0).permutation(2507)
    y = table.metrics["mIoU"]
    fit = default_predictor(space).fit(codes[rows[:200]], {"mIoU": y[rows[:200]]})
    assert spearman(y[rows[2000:]], fit.predict(codes[rows[2000:]]).mean[:, 0]) > 0.85


@pytest.mark.slow
def test_quick_run(data_dir: Path, tmp_path: Path) -> None:
    script = ROOT / "benchmarks" / "nas_bench_mr.py"
    arguments = ["--data", str(data_dir), "--out", str(tmp_path), "--quick"]
    subprocess.run([sys.executable, str(script), *arguments], check=True, timeout=600)
    figures = json.loads((tmp_path / "results.json").read_text())
    assert figures["seg: mae of default"]["holds"] is None
    assert (
        figures["seg: mae of default"]["value"] < figures["seg: mae of published recipe"]["value"]
    )
    for picture in ("scatter.png", "calibration.png"):
        assert (tmp_path / picture).stat().st_size > 1000
