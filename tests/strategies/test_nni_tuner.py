"""NCPTuner through the methods that NNI's dispatcher calls, and once through nnictl itself."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nni", reason="NNI is not installed")

from nni_aiop.engines._nni import importing_nni
from nni_aiop.engines.nni_json import code_space_from_json, unnest
from nni_aiop.errors import FileFormatError, SpaceError
from nni_aiop.search import RandomSearch
from nni_aiop.strategies import NCPTuner, SearchTuner

with importing_nni():
    from nni import NoMoreTrialError

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "nnictl_ncp"
PATIENCE = 600.0  # seconds; only against tests that hang
SMALL = {"a": {"_type": "choice", "_value": [1, 2, 3]}, "b": {"_type": "randint", "_value": [0, 2]}}
TINY: Any = {"budget": 12, "warmup": 0.5, "rounds": 2, "starts": 4, "steps": 2}
SPACE = json.loads((EXAMPLE / "search_space.json").read_text())


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NNI_CHECKPOINT_DIRECTORY", str(tmp_path))
    return tmp_path


@pytest.fixture(autouse=True)
def no_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NNI_CHECKPOINT_DIRECTORY", raising=False)


def ncp(**options: Any) -> NCPTuner:
    tuner = NCPTuner(
        **{"budget": 12, "warmup": 0.5, "rounds": 2, "starts": 4, "steps": 2} | options
    )
    tuner.update_search_space(SPACE)
    return tuner


def value_of(parameters: dict[str, Any]) -> float:
    return float(parameters["depth"] + parameters["width"] / 100)


def evaluate(tuner: SearchTuner, ids: range) -> list[dict[str, Any]]:
    out = []
    for i in ids:
        parameters = tuner.generate_parameters(i)
        tuner.receive_trial_result(i, parameters, value_of(parameters), customized=False)
        tuner.trial_end(i, success=True)
        out.append(parameters)
    return out


def test_a_whole_search() -> None:
    tuner = ncp()
    found = evaluate(tuner, range(14))  # more than the budget: rounds go on
    space = code_space_from_json(SPACE)
    assert len({space.key(unnest(p)) for p in found}) == 14
    best = tuner.search_.best()
    assert best is not None and best[1]["default"] == max(map(value_of, found))
    assert json.loads(json.dumps(found)) == found
    assert found == evaluate(ncp(), range(14))
    assert found != evaluate(ncp(seed=1), range(14))


def test_several_at_once_and_results_in_another_order() -> None:
    tuner = ncp()
    batch = tuner.generate_multiple_parameters([0, 1, 2, 3])
    assert len(batch) == 4
    for i in (2, 0, 3, 1):
        # The end of a trial may come before its result, and may name another trial.
        tuner.trial_end((i + 1) % 4, success=True)
    for i in (2, 0, 3, 1):
        tuner.receive_trial_result(i, batch[i], {"default": value_of(batch[i]), "size": 1})
    told = {tuner.space_.key(s): m for s, m in tuner.search_.history}  # type: ignore[union-attr]
    for parameters in batch:
        key = tuner.space_.key(unnest(parameters))  # type: ignore[union-attr]
        assert told[key] == {"default": value_of(parameters), "size": 1.0}


def test_failed_trials_are_known_when_none_is_under_way() -> None:
    tuner = ncp()
    first, second = tuner.generate_multiple_parameters([0, 1])
    tuner.trial_end(0, success=False)
    assert tuner.search_.history == []  # which one it was is not sure yet
    tuner.receive_trial_result(0, first, 1.0)
    tuner.trial_end(1, success=True)
    assert [m for _, m in tuner.search_.history] == [{"default": 1.0}, None]
    assert unnest(second).items() <= tuner.search_.history[1][0].items()


def test_the_end_of_the_space() -> None:
    tuner = SearchTuner(RandomSearch)
    tuner.update_search_space(SMALL)
    assert len(tuner.generate_multiple_parameters(list(range(9)))) == 6
    with pytest.raises(NoMoreTrialError):
        tuner.generate_parameters(9)


def test_objectives_and_modes() -> None:
    tuner = ncp(optimize_mode="minimize")
    assert [(o.metric, o.direction) for o in tuner.search_.objectives] == [("default", "minimize")]
    tuner = ncp(objectives={"accuracy": "maximize", "latency": "minimize"})
    parameters = tuner.generate_parameters(0)
    tuner.receive_trial_result(0, parameters, {"default": 1, "accuracy": 0.5, "latency": 3})
    assert tuner.search_.history[0][1] == {"default": 1.0, "accuracy": 0.5, "latency": 3.0}
    with pytest.raises(ValueError, match="direction must be"):
        ncp(optimize_mode="best")
    with pytest.raises(SpaceError, match="must be a choice"):
        NCPTuner().update_search_space({"x": {"_type": "strange", "_value": [1]}})


def test_import_data_and_a_changed_space() -> None:
    tuner = SearchTuner(RandomSearch)
    tuner.update_search_space(SMALL)
    tuner.import_data(
        [
            {"parameter": {"a": 1, "b": 0}, "value": 0.5},
            {"parameter": {"a": 99, "b": 0}, "value": 0.5},
            {"parameter": {"a": 2, "b": 1}, "value": {"default": 0.25}},
        ]
    )
    assert [s for s, _ in tuner.search_.history] == [{"a": 1, "b": 0}, {"a": 2, "b": 1}]
    tuner.generate_parameters(0)
    tuner.update_search_space({**SMALL, "a": {"_type": "choice", "_value": [1, 4]}})
    assert [s for s, _ in tuner.search_.history] == [{"a": 1, "b": 0}]


def test_resume(checkpoint: Path) -> None:
    whole = evaluate(ncp(), range(10))
    (checkpoint / "nni_aiop.json").unlink()
    first = ncp()
    found = evaluate(first, range(7))
    under_way = first.generate_parameters(7)
    assert [p.name for p in checkpoint.iterdir()] == ["nni_aiop.json"]
    first.save_checkpoint()

    second = NCPTuner(**TINY)
    second.load_checkpoint()  # NNI resumes before it tells the search space
    second.update_search_space(SPACE)
    # NNI hands over all results, and then that of the trial that it runs again.
    records = [{"parameter": p, "value": value_of(p)} for p in [*found, under_way]]
    second.import_data(records)
    assert [*found, under_way, *evaluate(second, range(8, 10))] == whole

    other = SearchTuner(RandomSearch)
    other.load_checkpoint()
    with pytest.raises(FileFormatError, match="search"):
        other.update_search_space(SPACE)
    for junk in ("{", "[]", "{}"):
        (checkpoint / "nni_aiop.json").write_text(junk)
        with pytest.raises(FileFormatError):
            other.update_search_space(SPACE)


def test_it_starts_within_nnis_ten_seconds() -> None:
    """Nothing heavy is imported before the dispatcher has connected."""
    code = (
        "import sys, nni_aiop.strategies as s; s.NCPTuner(budget=3);"
        "print({'torch', 'pytorch_lightning', 'nni.nas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def nnictl(home: Path, *arguments: str) -> str:
    """What nnictl says, with its files in the folder `home`."""
    environment = {
        **os.environ,
        "HOME": str(home),
        "NNI_CONFIG_DIR": str(home / "config"),  # else that of the virtual environment
        "PYTHONPATH": str(ROOT),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "nni.tools.nnictl.nnictl", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    return done.stdout + done.stderr


@pytest.mark.slow
def test_the_tuner_can_be_registered_and_taken_out_again(tmp_path: Path) -> None:
    assert "NCP" not in nnictl(tmp_path, "algo", "list")
    said = nnictl(tmp_path, "algo", "register", "--meta", str(EXAMPLE / "ncp_tuner.yml"))
    assert "NCP registered" in said
    shown = nnictl(tmp_path, "algo", "show", "NCP")
    assert '"className": "nni_aiop.strategies.NCPTuner"' in shown
    assert "NCP unregistered" in nnictl(tmp_path, "algo", "unregister", "NCP")
    assert "NCP" not in nnictl(tmp_path, "algo", "list")


@pytest.mark.slow
@pytest.mark.parametrize("registered", [False, True])
def test_nnictl_create(tmp_path: Path, registered: bool) -> None:
    folder = tmp_path / "example"
    shutil.copytree(EXAMPLE, folder)
    n = 1 if registered else 4
    config = (folder / "config.yml").read_text().replace("budget: 24", "budget: 4")
    config = config.replace("maxTrialNumber: 24", f"maxTrialNumber: {n}")
    if registered:
        named = "  className: nni_aiop.strategies.NCPTuner\n  codeDirectory: .\n"
        assert named in config
        config = config.replace(named, "  name: NCP\n")
    (folder / "config.yml").write_text(config)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = tmp_path / "home"
    home.mkdir()

    def results() -> list[dict[str, Any]]:
        import requests

        jobs = requests.get(
            f"http://localhost:{port}/api/v1/nni/trial-jobs", timeout=PATIENCE
        ).json()
        return [job for job in jobs if job["status"] == "SUCCEEDED" and "finalMetricData" in job]

    def history() -> list[Any]:
        # NNI links its latest experiment beside it.
        (state,) = {p.resolve() for p in home.glob("nni-experiments/*/checkpoint/nni_aiop.json")}
        found: list[Any] = json.loads(state.read_text())["history"]
        return found

    if registered:
        nnictl(home, "algo", "register", "--meta", str(folder / "ncp_tuner.yml"))
    out = nnictl(home, "create", "--config", str(folder / "config.yml"), "--port", str(port))
    try:
        deadline = time.monotonic() + PATIENCE
        while len(results()) < n or len(history()) < n:
            assert time.monotonic() < deadline, out
            time.sleep(1)
    finally:
        nnictl(home, "stop", "--all")
    assert len(history()) == n
    assert all(0.05 < metrics["default"] <= 1.0 for _, metrics in history())
