"""The bar over evaluations: where it stands, and the best so far."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

import pytest

from nni_aiop.engines._progress import EvaluationBar
from nni_aiop.search import RandomSearch
from nni_aiop.spaces import CodeSpace, Ordinal


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> Terminal:
    """A stand-in for stderr, from now on."""
    found = Terminal()
    monkeypatch.setattr(sys, "stderr", found)
    monkeypatch.setattr(os, "isatty", lambda descriptor: True)
    monkeypatch.setattr(os, "get_terminal_size", lambda descriptor: os.terminal_size((width, 24)))
    return found


def told(n: int) -> RandomSearch:
    search = RandomSearch(CodeSpace([Ordinal("a", range(100))]))
    for i in range(n):
        search.tell({"a": i}, {"default": float(i)})
    return search


def test_a_bar_of_a_run_that_goes_on_counts_what_was_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stderr = terminal(monkeypatch, 80)
    search = told(5)
    with EvaluationBar(8, search) as bar:
        for i in range(5, 8):
            search.tell({"a": i}, {"default": float(i)})
            bar.step()
    last = stderr.getvalue().split("\r")[-1]
    assert "8/8" in last and "100%" in last and "best default 7" in last


def test_a_terminal_without_a_width_has_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = terminal(monkeypatch, 0)
    search: Any = told(1)
    with EvaluationBar(2, search) as bar:
        bar.step()
    assert "1/2" in stderr.getvalue()


def test_a_file_gets_no_bar(capfd: pytest.CaptureFixture[str]) -> None:
    with EvaluationBar(2, told(1)) as bar:
        bar.step()
    with EvaluationBar(2, told(1), shown=False) as bar:
        bar.step()
    assert capfd.readouterr() == ("", "")
