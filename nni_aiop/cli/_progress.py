"""Evaluating with a progress bar, saving on the way, and the closing lines of a search."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TextIO

import typer
from tqdm import tqdm

from nni_aiop.cli._app import BadInput, table
from nni_aiop.measures import Measure, TableMeasure
from nni_aiop.results import SearchResults
from nni_aiop.search import BaseSearch

_SAVE_EVERY = 15.0  # seconds
_TURN = 0.5  # seconds between two looks of a spinner


class Bar:
    """A progress bar over evaluations that saves what there is every few seconds.

    Args:
        total: Number of evaluations.
        save: Called now and then, and at the end, unless that is an error before the first result.
    """

    def __init__(self, total: int, save: Callable[[], object]) -> None:
        self._save = save
        self._saved = -math.inf
        # disable=None: no bar where stderr is no terminal.
        self._bar = tqdm(total=total, unit="architecture", disable=None)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._bar.close()
        if kind is None or self._saved > -math.inf:
            self._save()

    def step(self) -> None:
        """One more evaluation is done."""
        self._bar.update()
        if time.monotonic() - self._saved > _SAVE_EVERY:
            self._save()
            self._saved = time.monotonic()


def evaluate_all(
    search: BaseSearch,
    measure: Measure,
    budget: int,
    save: Callable[[], object],
    check: Callable[[Mapping[str, float]], None],
) -> None:
    """Ask, measure and tell until the budget is spent or the space is exhausted.

    An exception of the measure is a failed evaluation. Before the first success it is more likely a
    mistake that would spend the whole budget, and ends the search; not so with a table, which may
    well lack the first samples.

    Args:
        search: What proposes.
        measure: What evaluates.
        budget: Number of evaluations.
        save: Called now and then and at the end.
        check: Raises where the metrics of a first success are not what the search needs.

    Raises:
        BadInput: The measure failed before it succeeded once.
    """
    succeeded = isinstance(measure, TableMeasure)
    with Bar(budget, save) as bar:
        while len(search.history) < budget:
            asked = search.ask(1)
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
            bar.step()


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
