"""Evaluating with a progress bar, saving on the way, and the closing lines of a search."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import typer
from tqdm import tqdm

from nni_aiop.cli._app import table
from nni_aiop.errors import AiopError
from nni_aiop.measures import Measure
from nni_aiop.results import SearchResults
from nni_aiop.search import BaseSearch

_SAVE_EVERY = 15.0  # seconds


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
) -> None:
    """Ask, measure and tell until the budget is spent or the space is exhausted.

    What a measure refuses, such as a sample that its table lacks, counts as failed.
    """
    with Bar(budget, save) as bar:
        while len(search.history) < budget:
            asked = search.ask(1)
            if not asked:
                break
            try:
                metrics: Mapping[str, float] | None = measure(asked[0])
            except AiopError:
                metrics = None
            search.tell(asked[0], metrics)
            bar.step()


def report(results: SearchResults, out: Path) -> None:
    """Print the best architecture and where the results lie."""
    best = results.best
    if best is None:
        typer.echo(f"No architecture was found in {len(results.history)} evaluations.")
    else:
        found = results.evaluation(best)
        shown = [*(found["metrics"] or {}).items(), *found["costs"].items()]
        typer.echo(f"The best of {len(results.history)} architectures (number {best}):\n")
        typer.echo(table(["dimension", "value"], list(found["sample"].items())) + "\n")
        typer.echo(table(["measured", "value"], [(k, float(v)) for k, v in dict(shown).items()]))
    typer.echo(f"\nResults: {out}/results.json, {out}/history.csv, {out}/search.png")
