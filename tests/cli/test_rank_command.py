"""`nni-aiop rank`: networks of a space without any label, best first."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from nni_aiop.graphs import GraphWriter
from nni_aiop.predictors.graph import load_shipped_ranker
from nni_aiop.search_spaces import get_space
from tests.cli.command_line import invoke


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    space, folder = get_space("nasbench201"), tmp_path_factory.mktemp("rank")
    samples = space.sample(8, np.random.default_rng(1))
    return [space.graph(sample).save(folder / f"{at}.json") for at, sample in enumerate(samples)]


def test_networks_are_listed_best_first(files: list[Path]) -> None:
    from nni_aiop.graphs import ComputeGraph

    told = invoke("rank", *files)
    assert told.exit_code == 0, told.output
    names = re.findall(r"(\d+)\.json", told.output)
    score = load_shipped_ranker().rank([ComputeGraph.load(path) for path in files]).score
    assert [*map(int, names)] == (-score).argsort(kind="stable").tolist()
    assert re.search(r"Rankers agree by 0\.\d\d of 1", told.output)


def test_what_reads_nothing_is_told_and_what_cannot_be_read_is_named(
    files: list[Path], tmp_path: Path
) -> None:
    w = GraphWriter()
    w.output(w.zeros(w.input((1, 3, 8, 8))))
    dead = w.graph().save(tmp_path / "dead.json")
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    told = invoke("rank", *files[:5], dead, broken)
    assert told.exit_code == 2
    assert "dead.json: its output does not depend on its input." in told.output
    assert "broken.json" in told.stderr


def test_four_are_too_few(files: list[Path]) -> None:
    told = invoke("rank", *files[:4])
    assert told.exit_code == 2
    assert "at least 5 networks of a space must be ranked together" in told.output + told.stderr
    told = invoke("rank", *files[:4], "missing.json")
    assert told.exit_code == 2
    assert "but got 4" in told.stderr and "missing.json" in told.stderr
