"""The bar over evaluations and the lines of the log: where it stands, and the best so far."""

from __future__ import annotations

import io
import logging
import os
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from nni_aiop.engines._progress import EvaluationBar, log_result
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


def test_what_was_there_is_no_part_of_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal(monkeypatch, 80)
    search = told(5)
    with EvaluationBar(9, search) as bar:
        seen = []
        for i in range(5, 8):
            search.tell({"a": i}, {"default": float(i)})
            bar.step()
            seen.append((bar.done, bar._bar.n, bar._bar.initial))
        bar.step(9)
    assert seen == [(6, 6, 5), (7, 7, 5), (8, 8, 5)]
    assert (bar.done, bar._bar.n, bar._bar.initial) == (9, 9, 5)


def test_a_search_without_a_history_is_counted_step_by_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stderr = terminal(monkeypatch, 80)
    with EvaluationBar(3, SimpleNamespace()) as bar:
        bar.step()
        bar.step()
    last = stderr.getvalue().split("\r")[-1]
    assert "2/3" in last and "best" not in last


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


def test_a_line_of_the_log_says_what_came_of_an_evaluation(
    caplog: pytest.LogCaptureFixture,
) -> None:
    name = "nni_aiop.engines._progress"
    with caplog.at_level(logging.WARNING, logger=name):
        log_result(told(3), 8, {"a": 2}, {"default": 2.0})
    assert caplog.messages == []
    with caplog.at_level(logging.INFO, logger=name):
        log_result(told(3), 8, {"a": 1}, {"default": 1.0, "ms": 0.123456789})
        log_result(told(0), 8, {"a": 2}, None)
    assert caplog.messages == [
        "3 of 8: default 1, ms 0.123457 (best so far: default 2): {'a': 1}",
        "0 of 8: failed (best so far: none): {'a': 2}",
    ]
