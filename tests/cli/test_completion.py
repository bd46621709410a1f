"""Shell completion, in a real bash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import nni_aiop.search
from nni_aiop.cli import _names
from nni_aiop.cli._evaluators import _MEASURES
from nni_aiop.cli._shrink_inputs import LOSSES
from nni_aiop.predictors import PREDICTORS
from nni_aiop.predictors.graph._tasks import MODELS
from nni_aiop.search import BaseSearch
from nni_aiop.search_spaces import SPACES
from nni_aiop.weights import shipped_tasks
from tests.cli.command_line import invoke

ROOT = Path(__file__).parents[2]
bash = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose `bin` holds the command, as pip makes it."""
    home = tmp_path_factory.mktemp("home")
    (home / "bin").mkdir()
    command = home / "bin" / "nni-aiop"
    command.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "from nni_aiop.cli import main\nmain()\n"
    )
    command.chmod(0o755)
    return home


def run(home: Path, script: str) -> str:
    """What a bash with that home writes."""
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        env={**os.environ, "HOME": str(home), "PATH": f"{home}/bin:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        cwd=home,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def completed(home: Path, line: str) -> list[str]:
    """What bash offers behind a line, by the script that the command shows."""
    words = line.split(" ")
    typed = " ".join(f'"{word}"' for word in words)
    return run(
        home,
        'eval "$(nni-aiop --show-completion)"\n'
        f"COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}\n"
        '$(complete -p nni-aiop | sed "s/.*-F \\([^ ]*\\) .*/\\1/") nni-aiop\n'
        'printf "%s\\n" "${COMPREPLY[@]}"',
    ).split()


@bash
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("nni-aiop se", ["search"]),
        ("nni-aiop predictor ", ["train", "eval", "adapt"]),
        ("nni-aiop search nasb", ["nasbench101", "nasbench201"]),
        ("nni-aiop --quiet search mob", ["mobilenetv3"]),
        ("nni-aiop spaces show trans", ["transnas101_macro", "transnas101_micro"]),
        ("nni-aiop generate --space dig", ["digits"]),
        ("nni-aiop search digits --search e", ["evolution"]),
        ("nni-aiop search digits --eval", ["--evaluator", "--evaluations"]),
        ("nni-aiop predict x.onnx --task image", ["imagenet-top1"]),
        ("nni-aiop search digits --js", ["--json"]),
        ("nni-aiop predict my_file", []),  # bash offers files
    ],
)
def test_bash_offers(home: Path, line: str, offered: list[str]) -> None:
    assert sorted(completed(home, line)) == sorted(offered)


@bash
def test_the_script_is_installed_where_bash_finds_it(home: Path) -> None:
    # With a second command bash stays the parent, by which the shell is known.
    told = run(home, "nni-aiop --install-completion; true")
    assert "bash completion installed in" in told
    assert "complete" in run(home, '. "$HOME/.bashrc"; complete -p nni-aiop')


@pytest.mark.parametrize(("shell", "mark"), [("zsh", "compdef"), ("fish", "complete --command")])
def test_scripts_of_other_shells(
    home: Path, monkeypatch: pytest.MonkeyPatch, shell: str, mark: str
) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    assert mark in run(home, f"nni-aiop --show-completion {shell}")


def test_names_are_found_without_heavy_imports() -> None:
    code = (
        "import sys; from nni_aiop.cli import app, _names; _names.spaces(''); "
        "print(*({'numpy', 'torch', 'optuna', 'nni', 'tqdm'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == ""


def test_the_names_are_those_that_there_are(tmp_path: Path) -> None:
    for name in _names.SEARCHES.values():
        assert issubclass(getattr(nni_aiop.search, name), BaseSearch)
    assert _names.spaces("") == list(SPACES)
    offers = {
        "search": {"evaluator": _MEASURES, "search": _names.SEARCHES},
        "shrink": {"loss": LOSSES},
        "predictor train": {"model": PREDICTORS},
        "predictor adapt": {"model": MODELS},
    }
    for command, options in offers.items():
        shown = " ".join(invoke(*command.split(), "--help").stdout.split())
        for known in options.values():
            assert all(name in shown for name in known), command


def test_tasks_are_those_of_the_folder_that_was_named(tmp_path: Path) -> None:
    class Context:
        params: dict[str, Path | None]

    context = Context()
    context.params = {"predictor": None}
    assert _names.tasks(context, "") == [*shipped_tasks(), "all"]  # type: ignore[arg-type]
    for name in ("backbone", "b", "a", "a.adapter"):
        (tmp_path / f"{name}.safetensors").touch()
    context.params = {"predictor": tmp_path}
    assert _names.tasks(context, "a") == ["a", "all"]  # type: ignore[arg-type]
