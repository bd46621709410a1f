"""One search, two engines: the same proposals in the same order for the same seed."""

from pathlib import Path

import optuna
import pytest

from nni_aiop.engines.optuna_experiment import run_optuna
from nni_aiop.search import BaseSearch, LocalSearch, NCPSearch, RandomSearch, RegularizedEvolution
from nni_aiop.spaces import CodeSpace

pytest.importorskip("nni", reason="NNI is not installed")

from nni_aiop.engines._nni import importing_nni
from nni_aiop.engines.nni_experiment import run_nni
from nni_aiop.engines.nni_space import code_space_from_nni
from nni_aiop.engines.nni_strategy import SearchStrategy
from nni_aiop.evaluators import SampleEvaluator

with importing_nni():
    from nni.nas.hub.pytorch import NasBench201

optuna.logging.set_verbosity(optuna.logging.CRITICAL)

MERIT = """
def merit(sample):
    return float(sum(len(op) for op in sample.values()))
"""


def searches(space: CodeSpace) -> list[BaseSearch]:
    return [
        RandomSearch(space, seed=4),
        RegularizedEvolution(space, seed=4, population=5, tournament=2),
        NCPSearch(space, seed=4, budget=10, rounds=2, starts=8, steps=3),
        LocalSearch(space, seed=4, initial=3),
    ]


@pytest.mark.parametrize("which", [0, 1, 2, 3], ids=["random", "evolution", "ncp", "local"])
def test_both_engines_propose_the_same(
    which: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "merit_of_sample.py").write_text(MERIT)
    monkeypatch.syspath_prepend(str(tmp_path))
    space = code_space_from_nni(NasBench201())
    on_nni = run_nni(
        NasBench201(),
        SampleEvaluator("merit_of_sample:merit"),
        SearchStrategy(searches(space)[which]),
        max_trials=12,
        out_dir=tmp_path / "out",
    )
    from merit_of_sample import merit  # type: ignore[import-not-found]

    on_optuna = run_optuna(
        space, lambda s: {"default": merit(s)}, searches(space)[which], max_trials=12
    )
    assert len(on_nni) == 12
    assert [(s, m["default"]) for s, m in on_nni if m] == [
        (s, m["default"]) for s, m in on_optuna if m
    ]
