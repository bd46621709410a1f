"""Evaluating with a progress bar, saving on the way, and the closing lines of a search."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TextIO

import typer
from tqdm import tqdm

from nni_aiop.cli._app import BadInput, table
from nni_aiop.cli._claims import STATE
from nni_aiop.engines._state import write_state
from nni_aiop.measures import Measure, TableMeasure
from nni_aiop.results import SearchResults
from nni_aiop.search import BaseSearch

_SAVE_EVERY = 15.0  # seconds
_TURN = 0.5  # seconds between two looks of a spinner


class Bar:
    """A progress bar over evaluations that saves what there is every few seconds.

    Ctrl-C is told of: how far it came, and how to go on.

    Args:
        total: Number of evaluations.
        save: Called now and then, and at the end, unless that is an error before the first result.
        out: The folder of the results.
    """

    def __init__(self, total: int, save: Callable[[], object], out: Path) -> None:
        self._total = total
        self._save = save
        self._out = out
        self._done = 0
        self._saved = -math.inf
        # disable=None: no bar where stderr is no terminal.
        self._bar = tqdm(total=total, unit="architecture", disable=None)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._bar.close()
        if kind is None or self._saved > -math.inf:
            self._save()
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            typer.echo(
                f"Interrupted: {self._done} of {self._total} evaluated, results in {self._out}; "
                "the same command goes on.",
                err=True,
            )

    def step(self, done: int) -> None:
        """One more evaluation is done, `done` in all, those of earlier runs included."""
        if self._done == 0:
            self._bar.initial = done - 1  # no part of the rate
        self._done = done
        self._bar.update(done - self._bar.n)
        if time.monotonic() - self._saved > _SAVE_EVERY:
            self._save()
            self._saved = time.monotonic()


def evaluate_all(
    search: BaseSearch,
    measure: Measure,
    budget: int,
    save: Callable[[], object],
    check: Callable[[Mapping[str, float]], None],
    out: Path,
) -> None:
    """Ask, measure and tell until the budget is spent or the space is exhausted.

    What is pending is evaluated first.

    An exception of the measure is a failed evaluation. Before the first success it is more likely a
    mistake that would spend the whole budget, and ends the search; not so with a table, which may
    well lack the first samples.

    Args:
        search: What proposes.
        measure: What evaluates.
        budget: Number of evaluations.
        save: Called now and then and at the end.
        check: Raises where the metrics of a first success are not what the search needs.
        out: The folder of the results, where `STATE` holds the search's state after every event.

    Raises:
        BadInput: The measure failed before it succeeded once.
    """
    succeeded = isinstance(measure, TableMeasure) or any(m for _, m in search.history)
    pending = deque(search.pending())
    state = out / STATE
    with Bar(budget, save, out) as bar:
        while len(search.history) < budget:
            if pending:
                asked = [pending.popleft()]
            else:
                asked = search.ask(1)
                write_state(state, search.state_dict())
            if not asked:
                break
            metrics: Mapping[str, float] | None = None
            try:
                metrics = measure(asked[0])
            except Exception as err:
                if not succeeded:
                    raise BadInput(
                        f"the evaluator must succeed once before it fails, but the first "
                        f"evaluation ended with {err!r}."
                    ) from err
            if not succeeded and metrics is not None:
                check(metrics)
                succeeded = True
            search.tell(asked[0], metrics)
            write_state(state, search.state_dict())
            bar.step(len(search.history))


class Spinner:
    """A line that shows the time that long work takes, where the stream is a terminal.

    Args:
        text: What is being done.
        stream: Where to; stderr by default.
    """

    def __init__(self, text: str, stream: TextIO | None = None) -> None:
        self._done = threading.Event()
        self._line = tqdm(
            desc=text, file=stream, bar_format="{desc}: {elapsed}", leave=False, disable=None
        )
        self._thread = threading.Thread(target=self._turn, daemon=True)

    def __enter__(self) -> Spinner:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()
        self._line.close()

    def _turn(self) -> None:
        while not self._done.wait(_TURN):
            self._line.refresh()


def report(results: SearchResults, out: Path) -> None:
    """Print the best architecture and where the results lie."""
    best = results.best
    if best is None:
        within = " within the limits" if results.limits else ""
        typer.echo(f"No architecture{within} was found in {len(results.history)} evaluations.")
    else:
        found = results.evaluation(best)
        shown = [*(found["metrics"] or {}).items(), *found["costs"].items()]
        typer.echo(f"The best of {len(results.history)} architectures (number {best}):\n")
        typer.echo(table(["dimension", "value"], list(found["sample"].items())) + "\n")
        typer.echo(table(["measured", "value"], [(k, float(v)) for k, v in dict(shown).items()]))
    failed = sum(metrics is None for _, metrics in results.history)
    if failed:
        typer.echo(f"\nEvaluations that failed: {failed} of {len(results.history)}")
    typer.echo(f"\nResults: {out}/results.json, {out}/history.csv, {out}/search.png")
