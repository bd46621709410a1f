"""The default predictor on the published table: a small fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nni_aiop.benchmarks import load_nas_bench_mr
from nni_aiop.predictors import default_predictor
from nni_aiop.predictors.metrics import spearman
from nni_aiop.search_spaces import get_space


def test_default_ranks_segmentation_networks_from_200_rows(data_dir: Path) -> None:
    table = load_nas_bench_mr(data_dir / "nas_bench_mr", "seg")
    space = get_space("multi_resolution")
    codes = space.encode([dict(zip(space.labels, row, strict=True)) for row in table.embedding])
    rows = np.random.RandomState(0).permutation(2507)
    y = table.metrics["mIoU"]
    fit = default_predictor(space).fit(codes[rows[:200]], {"mIoU": y[rows[:200]]})
    assert spearman(y[rows[2000:]], fit.predict(codes[rows[2000:]]).mean[:, 0]) > 0.85
