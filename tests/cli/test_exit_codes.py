"""Exit codes: the help names all that there are, and each is met."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nni_aiop.cli._app import EXIT_CODES
from tests.cli.command_line import invoke, work_in

ROOT = Path(__file__).parents[2]

OWN = """
from nni_aiop.spaces import CodeSpace, Ordinal

def space():
    return CodeSpace([Ordinal("a", range(9)), Ordinal("b", range(9))], name="own")

def good(sample): return 1.0
def bad(sample): raise RuntimeError("never")
def stop(sample): raise KeyboardInterrupt
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return work_in(tmp_path, monkeypatch, "mine", OWN)


SEARCH = ("search", "mine:space", "--search", "random", "--evaluations", "6", "--evaluator")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((), 0),
        (("--help",), 0),
        (("--version",), 0),
        (("spaces",), 0),
        (("predictor",), 0),
        ((*SEARCH, "mine:good"), 0),
        ((*SEARCH, "mine:bad"), 1),
        ((*SEARCH, "mine:nothing"), 2),
        (("bogus",), 2),
        (("search",), 2),
        (("graph", "missing.onnx"), 2),
        ((*SEARCH, "mine:stop"), 130),
    ],
)
def test_codes(folder: Path, arguments: tuple[str, ...], code: int) -> None:
    assert invoke(*arguments).exit_code == code
    assert code in EXIT_CODES


def test_a_reader_who_is_gone_is_no_error_to_tell(folder: Path) -> None:
    code = "from nni_aiop.cli import main; main()"
    command = subprocess.Popen(
        [sys.executable, "-c", code, "search", "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
    )
    assert command.stdout is not None and command.stderr is not None
    command.stdout.close()
    told = command.stderr.read()
    command.stderr.close()
    assert command.wait() in (0, 1) and told == b""


def test_the_help_names_every_code() -> None:
    shown = " ".join(invoke("--help").stdout.split())
    for code, text in EXIT_CODES.items():
        assert f"{code} {text}" in shown
