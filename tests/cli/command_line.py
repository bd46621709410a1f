"""What the tests of the command line share: a command that is run, its one sentence, its folder."""

from __future__ import annotations

import csv
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from nni_aiop.cli import app

PATIENCE = 600.0  # seconds; only against tests that hang


def wait_until(happened: Callable[[], bool], process: subprocess.Popen[Any]) -> None:
    """Waits for something that a process, which must go on meanwhile, brings about."""
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def refuse(*arguments: object) -> str:
    """The one sentence with which the command refuses."""
    result = invoke(*arguments)
    assert result.exit_code == 2, (arguments, result.output, result.exception)
    (line,) = result.stderr.splitlines()
    return line


def rows(out: Path) -> list[dict[str, str]]:
    with open(out / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


def work_in(folder: Path, monkeypatch: pytest.MonkeyPatch, module: str, text: str) -> Path:
    """The folder, which holds `module`.py and is the working folder until the test ends."""
    (folder / f"{module}.py").write_text(text)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, module, raising=False)
    return folder
