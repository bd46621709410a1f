"""Workers of one study, and the same search through Ray where that is installed."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples" / "many_machines"


def started(script: str, *arguments: str, cwd: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(EXAMPLES / script), *arguments],
        cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def shown(process: "subprocess.Popen[str]") -> str:
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return output


def test_two_workers_share_a_study(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/digits.db"
    command = ("worker.py", "--storage", storage, "--trials", "4", "--epochs", "1")
    workers = [started(*command, cwd=tmp_path) for _ in range(2)]
    outputs = [shown(worker) for worker in workers]
    counts = [int(text.split("which this worker has ")[1].split(".")[0]) for text in outputs]
    assert sum(counts) == 4
    assert all("4 results" in text and "test_accuracy" in text for text in outputs)


@pytest.mark.slow
def test_ray_tune(tmp_path: Path) -> None:
    pytest.importorskip("ray.tune", reason="Ray is not installed")
    storage = f"sqlite:///{tmp_path}/digits.db"
    command = ("ray_tune.py", "--trials", "3", "--epochs", "1", "--storage", storage)
    for _ in range(2):
        assert "The best of 3 networks has" in shown(started(*command, cwd=tmp_path))

    import optuna

    from nni_aiop.engines.optuna_space import sample_of
    from nni_aiop.search_spaces import digits

    space = digits.code_space()
    trials = optuna.load_study(study_name="optuna", storage=storage).trials
    assert len({space.key(sample_of(t, space)) for t in trials}) == len(trials) == 6
