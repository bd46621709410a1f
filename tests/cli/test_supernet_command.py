"""`nni-aiop supernet`, and the commands that ask a supernet for labels."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from nni_aiop.history import read_history
from nni_aiop.search_spaces import digits
from tests.cli.command_line import invoke, refuse
from tests.supernet import toy

OWN = """
from tests.supernet.toy import data as given
from tests.supernet.toy import space, supernet


def pair():
    found = given()
    return found.train, found.validation


def without_data():
    net = supernet()
    net.data = None
    return net


def nothing():
    return 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module `own` of the user's."""
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "own", raising=False)
    return tmp_path


def done(*arguments: object) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 0, (arguments, result.output, result.exception)
    return result.output


def test_train_label_search_and_run_a_space_of_ones_own(own: Path) -> None:
    file = own / "toy.safetensors"
    shown = done("supernet", "train", "own:without_data", "--data", "own:pair", "--out", file)
    assert f"Supernet: {file} (loss " in shown and "epochs: 30)" in shown
    assert not (own / "toy.safetensors.training").exists()
    labels = own / "labels.csv"
    done("supernet", "label", "own:supernet", "--supernet", file, "-n", 50, "--out", labels)
    samples, columns = read_history(labels, toy.space())
    assert len(samples) == 6 == len({toy.space().key(s) for s in samples})  # all that there are
    net = toy.supernet().load(file)
    for sample, label in zip(samples, columns["val_accuracy"], strict=True):
        assert label == net.evaluate(sample)

    done("search", "own:supernet", "--supernet", file, "--search", "random", "--budget", 4)
    found = json.loads((own / "out/search/results.json").read_text())
    assert found["settings"]["evaluator"] == "supernet"
    samples, columns = read_history(own / "out/search/history.csv", toy.space(), ["val_accuracy"])
    assert [net.evaluate(s) for s in samples] == list(columns["val_accuracy"])

    for engine in ("optuna",):
        text = f"""
space: own:space
evaluator: {{name: supernet, path: {file}, supernet: "own:supernet", data: "own:pair", steps: 1}}
strategy: {{name: random}}
maxTrialNumber: 3
engine: {engine}
"""
        (own / "experiment.yml").write_text(text)
        done("run", own / "experiment.yml", "--out", own / engine)
        samples, columns = read_history(own / engine / "history.csv", toy.space(), ["default"])
        from nni_aiop.supernet import Labelling

        how = Labelling(steps=1)
        assert [net.evaluate(s, labelling=how) for s in samples] == list(columns["default"])


def test_generate_labels_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nni_aiop.predictors import ParetoEvaluator

    monkeypatch.setitem(ParetoEvaluator.__init__.__kwdefaults__, "steps", 10)
    monkeypatch.chdir(tmp_path)
    digits.supernet(seed=0).save(tmp_path / "net.safetensors")
    given = ("generate", "--space", "digits", "--budget", "flops=2e5", "--label", 6, "--steps", 2)
    shown = done(*given, "--supernet", "net.safetensors", "--levels", 2, "--extrapolate")
    (table,) = (tmp_path / "out/generators").glob("digits.labels-6-0-*.csv")
    assert f"Labels of 6 architectures: out/generators/{table.name}" in shown
    assert "Training on 6 of 6 rows" in shown and "activation=" in shown
    samples, columns = read_history(table, digits.code_space())
    net = digits.supernet().load(tmp_path / "net.safetensors")
    assert columns["val_explained"][0] == net.evaluate(samples[0])
    again = done(
        *given, "--supernet", "net.safetensors", "--levels", 2, "--overwrite", "--extrapolate"
    )
    assert "which is there already" in again

    digits.supernet(seed=1).save(tmp_path / "net.safetensors")  # trained anew
    other = done(
        *given, "--supernet", "net.safetensors", "--levels", 2, "--overwrite", "--extrapolate"
    )
    assert "which is there already" not in other
    assert len([*(tmp_path / "out/generators").glob("digits.labels-6-0-*.csv")]) == 2

    (folder,) = (tmp_path / "out/generate").iterdir()
    settings = json.loads((folder / "results.json").read_text())["settings"]
    for way in ("same", "more"):  # with the generator that is there
        words = shlex.split(settings["command_line"][way])
        assert not {"--label", "--supernet", "--steps", "--levels"} & {*words}
        done(*words[1:])


def test_labels_of_two_supernets_do_not_mix(own: Path) -> None:
    file = own / "toy.safetensors"
    search = ("search", "own:supernet", "--supernet", file, "--search", "random", "--evaluations")
    toy.supernet(seed=0).save(file)
    done(*search, 2)
    done(*search, 3)
    toy.supernet(seed=1).save(file)
    assert "with digest = " in refuse(*search, 4)

    text = f"""
space: own:space
evaluator: {{name: supernet, path: {file}, supernet: "own:supernet"}}
strategy: {{name: random}}
maxTrialNumber: 2
engine: optuna
"""
    (own / "experiment.yml").write_text(text)
    done("run", own / "experiment.yml", "--out", own / "run")
    done("run", own / "experiment.yml", "--out", own / "run")
    toy.supernet(seed=2).save(file)
    assert "with digest = " in refuse("run", own / "experiment.yml", "--out", own / "run")


def test_the_best_label_is_a_number(tmp_path: Path) -> None:
    from nni_aiop.cli._app import BadInput
    from nni_aiop.cli._supernet import write_labels

    class Measured:
        space, metrics = toy.space(), ("x",)

        def __init__(self, *values: float) -> None:
            self.values = list(values)

        def __call__(self, sample: object) -> dict[str, float]:
            return {"x": self.values.pop()}

    told: list[float] = []

    def keep(shown: str, sample: object, label: float) -> None:
        told.append(label)

    nan = float("nan")
    for values in ((nan, 1.0, 2.0, nan), (3.0, nan, nan, nan)):
        file = tmp_path / f"{len(told)}.csv"
        assert write_labels(Measured(*values), 4, file, seed=0, best=keep) == 4  # type: ignore[arg-type]
    assert told == [2.0, 3.0]
    with pytest.raises(BadInput, match="must be a number"):
        write_labels(Measured(nan, nan), 2, tmp_path / "n.csv", seed=0, best=keep)  # type: ignore[arg-type]


def test_what_is_wrong_is_told_in_one_sentence(own: Path) -> None:
    assert "must be one of digits" in refuse("supernet", "train", "digit")
    assert "needs --data, but got none" in refuse("supernet", "train", "naap")
    assert "pair of loaders" in refuse("supernet", "train", "naap", "--data", "own:nothing")
    assert "sampling must be one of" in refuse("supernet", "train", "digits", "--sampling", "fare")
    assert "Supernet or to an NNI ModelSpace" in refuse("supernet", "train", "own:nothing")
    missing = refuse("supernet", "label", "digits", "--supernet", own / "none.safetensors")
    assert "none.safetensors must be usable, but is not" in missing
    (own / "bad.safetensors").write_text("bad")
    assert "a supernet's file" in refuse(
        "supernet", "label", "digits", "--supernet", own / "bad.safetensors"
    )
    toy.supernet().save(own / "toy.safetensors")
    assert "must be of the space digits, but is of 'toy'" in refuse(
        "search", "digits", "--supernet", own / "toy.safetensors"
    )
    assert "one file to measure by, but got --table and --supernet" in refuse(
        "search", "digits", "--supernet", own / "toy.safetensors", "--table", own / "own.py"
    )
    assert "a supernet of nasbench101 must be named" in refuse(
        "search", "nasbench101", "--supernet", own / "toy.safetensors"
    )
    assert "--table or --label, but got both" in refuse(
        *("generate", "--space", "digits", "--budget", "flops=1e5"),
        *("--label", 5, "--table", own / "own.py"),
    )
    (own / "there.safetensors").write_text("mine")
    assert "must not be overwritten unasked" in refuse(
        "supernet", "train", "digits", "--out", own / "there.safetensors"
    )
    assert (own / "there.safetensors").read_text() == "mine"
