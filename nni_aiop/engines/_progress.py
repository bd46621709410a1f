"""What is seen of a search while it goes on: a bar on a terminal, and lines of the log."""

from __future__ import annotations

import logging
import os
from typing import Any

from tqdm import tqdm

from nni_aiop.spaces import Sample

__all__ = ["EvaluationBar", "log_result"]

_WIDTH = 80  # of a terminal that tells none
_logger = logging.getLogger(__name__)


class EvaluationBar:
    """A bar over evaluations with the best so far, where stderr is a terminal.

    Args:
        total: Number of evaluations, those of earlier runs included.
        search: What is told the results.
        shown: Whether there is a bar at all.
    """

    def __init__(self, total: int, search: Any, *, shown: bool = True) -> None:
        self.total = total
        self.done = 0
        self._search = search
        # disable=None: no bar where stderr is no terminal. It is blank on one that tells no width.
        narrow = os.isatty(2) and os.get_terminal_size(2).columns < 1
        self._bar = tqdm(
            total=total,
            unit="architecture",
            disable=None if shown else True,
            ncols=_WIDTH if narrow else None,
        )

    def __enter__(self) -> EvaluationBar:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def step(self, done: int | None = None) -> None:
        """One more evaluation is done.

        Args:
            done: Number of all; by default what the search was told, in earlier runs too.
        """
        if done is None:
            done = max(len(getattr(self._search, "history", ())), self.done + 1)
        if not self._bar.disable and (best := best_of(self._search)):
            self._bar.set_postfix_str(f"best {best}", refresh=False)
        if self.done == 0:
            self._bar.initial = done - 1  # no part of the rate
        self.done = done
        self._bar.update(done - self._bar.n)


def best_of(search: Any) -> str:
    """The objectives of the best result so far; empty where there is none."""
    best = search.best() if hasattr(search, "best") else None
    if best is None:
        return ""
    names = [o.metric for o in search.objectives]
    return ", ".join(f"{name} {best[1][name]:.6g}" for name in names)


def log_result(search: Any, total: int, sample: Sample, metrics: dict[str, float] | None) -> None:
    """Write a line on one evaluation."""
    if not _logger.isEnabledFor(logging.INFO):
        return
    told = "failed"
    if metrics is not None:
        told = ", ".join(f"{name} {value:.6g}" for name, value in metrics.items())
    done = len(getattr(search, "history", ()))
    best = best_of(search) or "none"
    _logger.info("%d of %d: %s (best so far: %s): %s", done, total, told, best, sample)
