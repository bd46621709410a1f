"""What the tests of the command line share: a command that is run, its one sentence, its folder."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from nni_aiop.cli import app


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
