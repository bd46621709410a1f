"""The evaluator and the assessor of early stopping."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nni", reason="NNI is not installed")

from nni_aiop.engines._nni import importing_nni
from nni_aiop.engines.nni_experiment import run_nni
from nni_aiop.errors import AiopError, FileFormatError
from nni_aiop.evaluators import EarlyStoppingEvaluator
from nni_aiop.strategies import EarlyStoppingAssessor, RandomSearch

with importing_nni():
    from nni.assessor import AssessResult

TRAIN = "early_stopping_toy:train"


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import nni_toy

    return nni_toy


def run(toy: Any, evaluator: Any, folder: Path, n: int = 16, seed: int = 0) -> list[Any]:
    return run_nni(toy.Toy, evaluator, RandomSearch(seed=seed), max_trials=n, out_dir=folder)


@pytest.mark.parametrize("losses", [False, True])
def test_later_models_are_predicted(toy: Any, tmp_path: Path, losses: bool) -> None:
    evaluator = EarlyStoppingEvaluator(TRAIN, epochs=2, startup=8, losses=losses)
    results = run(toy, evaluator, tmp_path / "out")
    measured, predicted = results[:8], results[8:]
    for sample, metrics in measured:
        assert metrics["default"] == sample["a"] / 10 + 0.001 * sample["c"]
        assert metrics["default_std"] == 0 and metrics["epochs"] == 6 and metrics["size"] == 1
    for sample, metrics in predicted:
        assert metrics["epochs"] == 2 and metrics["default_std"] > 0
        assert metrics["default"] == pytest.approx(sample["a"] / 10, abs=0.1)


def test_a_wide_forecast_trains_on_and_teaches(toy: Any, tmp_path: Path) -> None:
    evaluator = EarlyStoppingEvaluator(TRAIN, epochs=2, startup=8, max_std=1e-9)
    results = run(toy, evaluator, tmp_path / "out", 10)
    assert all(m["epochs"] == 6 and m["default_std"] == 0 for _, m in results)
    assert len(evaluator.rule) == 10


def test_what_was_trained_is_kept_for_others(toy: Any, tmp_path: Path) -> None:
    history = tmp_path / "kept" / "trials.jsonl"
    run(toy, EarlyStoppingEvaluator(TRAIN, history=history, startup=8), tmp_path / "1", 8)
    lines = [json.loads(line) for line in history.read_text().splitlines()]
    assert len(lines) == 8 and all(len(line["curve"]) == 6 for line in lines)
    again = EarlyStoppingEvaluator(TRAIN, history=history, startup=8)
    results = run(toy, again, tmp_path / "2", 3, seed=1)
    assert {m["epochs"] for _, m in results} == {3.0}
    assert len(history.read_text().splitlines()) == 8
    history.write_text(history.read_text() + '{"curve": [1]}\n')
    with pytest.raises(FileFormatError, match=r"trials\.jsonl must hold finished trials"):
        run(toy, EarlyStoppingEvaluator(TRAIN, history=history), tmp_path / "3", 1)


def test_what_is_wrong_is_told(toy: Any, tmp_path: Path) -> None:
    with pytest.raises(AiopError, match="must name something importable"):
        run(toy, EarlyStoppingEvaluator("early_stopping_toy:missing"), tmp_path / "1", 1)
    with pytest.raises(ValueError, match="epochs must be at least 1"):
        EarlyStoppingEvaluator(TRAIN, epochs=0)
    evaluator = EarlyStoppingEvaluator("early_stopping_toy:nameless")
    (result,) = run(toy, evaluator, tmp_path / "2", 1)
    assert result[1] is None
    assert "with `default`" in (tmp_path / "2" / "nni.log").read_text()
    evaluator = EarlyStoppingEvaluator("early_stopping_toy:diverging")
    (result,) = run(toy, evaluator, tmp_path / "3", 1)
    assert result[1]["default"] == 0 and len(evaluator.rule) == 0


def curve(final: float) -> list[float]:
    return [final * (1 - 0.5**epoch) for epoch in range(1, 7)]


@pytest.mark.parametrize("mode", ["maximize", "minimize"])
def test_the_assessor_ends_the_hopeless(mode: Any) -> None:
    sign = 1 if mode == "maximize" else -1
    assessor = EarlyStoppingAssessor(mode, startup=8)
    for i, final in enumerate(np.linspace(0.5, 0.9, 10)):
        values = [{"default": sign * v, "loss": 1.0} for v in curve(final)]
        for k in range(1, 7):
            assessor.assess_trial(f"t{i}", values[:k])
        assessor.trial_end(f"t{i}", True)
    assert len(assessor.rule) == 10
    # What a trial reported last is its final value.
    assert assessor.rule.best == pytest.approx(sign * curve(0.9)[-1])
    assert assessor.assess_trial("poor", [sign * v for v in curve(0.55)[:2]]) is AssessResult.Bad
    assessor.trial_end("poor", False)
    assert assessor.assess_trial("good", [sign * v for v in curve(0.95)[:2]]) is AssessResult.Good
    assert assessor.assess_trial("nan", [sign * 0.1, float("nan")]) is AssessResult.Good
    assessor.trial_end("nan", True)
    assessor.trial_end("never seen", True)
    assert len(assessor.rule) == 10
    with pytest.raises(ValueError, match="direction must be"):
        EarlyStoppingAssessor("up").assess_trial("x", [0.5])  # type: ignore[arg-type]


def test_the_assessor_starts_without_anything_heavy() -> None:
    script = """
import sys
from nni_aiop.strategies import EarlyStoppingAssessor
EarlyStoppingAssessor(startup=8)
loaded = {"torch", "sklearn", "optuna"} & set(sys.modules)
raise SystemExit(f"{loaded} were imported" if loaded else 0)
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
