"""Evaluating with a progress bar, saving on the way, and the closing lines of a search."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from nni_aiop.cli._app import table
from nni_aiop.cli._claims import STATE
from nni_aiop.cli._evaluators import Watched
from nni_aiop.cli._keeping import Keeper
from nni_aiop.cli._pace import Pace
from nni_aiop.cli._rows import Rows
from nni_aiop.cli._tell import answer, interrupted, note, shows_bars
from nni_aiop.engines._progress import EvaluationBar
from nni_aiop.results import ResultsRecorder, SearchResults
from nni_aiop.search import BaseSearch
from nni_aiop.spaces import Sample

_SAVE_EVERY = 15.0  # seconds
_TURN = 0.5  # seconds between two looks of a spinner
_REASONS = 3  # that are named of failed evaluations


class Bar:
    """A progress bar over evaluations that saves what there is every few seconds.

    Where there is much to save it does so less often, so that a twentieth of the time goes there.

    Ctrl-C is told of: how far it came, and how to go on.

    Args:
        total: Number of evaluations.
        search: What is told the results.
        save: Called now and then, and at the end, unless that is an error before the first result.
        out: The folder of the results.
        page: Called after the last `save`.
    """

    def __init__(
        self,
        total: int,
        search: BaseSearch,
        save: Callable[[], object],
        out: Path,
        page: Callable[[], object] = lambda: None,
    ) -> None:
        self._save = save
        self._page = page
        self._out = out
        self._pace = Pace(_SAVE_EVERY)
        self._search = search
        self._bar = EvaluationBar(total, search, shown=shows_bars())

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        with self._bar:
            pass
        began = kind is None or self._pace.began
        if began:
            self._save()
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            interrupted(self._how_far())
        if began:
            self._page()

    def _how_far(self) -> str:
        """What was done when Ctrl-C came, and how to go on."""
        done = max(self._bar.done, min(len(self._search.history), self._bar.total))
        if done == 0:
            return (
                f"Interrupted: none of {self._bar.total} evaluated yet; the same command begins "
                "again."
            )
        return (
            f"Interrupted: {done} of {self._bar.total} evaluated. The results are in {self._out}; "
            "the same command goes on from here."
        )

    def step(self, done: int | None = None) -> None:
        """One more evaluation is done: so many in all, or all that the search was told."""
        self._bar.step(done)
        if self._pace.is_due:
            with self._pace:
                self._save()


def evaluate_all(
    search: BaseSearch,
    measure: Watched,
    budget: int,
    recorder: ResultsRecorder,
    out: Path,
    rows: Rows | None,
) -> None:
    """Ask, measure and tell until the budget is spent or the space is exhausted.

    What is pending is evaluated first. An exception of the measure is a failed evaluation.

    Args:
        search: What proposes.
        measure: What evaluates.
        budget: Number of evaluations.
        recorder: Keeps the results.
        out: The folder of the results, where `STATE` holds the search's state after every event.
        rows: What the search is to stay within: the nearest one is looked up for a proposal.

    Raises:
        BadInput: The metrics of a first success are not what the search needs.
        NothingWorked: The first evaluations failed, and none succeeded.
    """
    pending = deque(search.pending())
    done = len(search.history if rows is None else rows.looked_up(search.history))
    tell_done(done, budget, "--evaluations")
    with (
        Bar(budget, search, recorder.write, out, recorder.write_page) as bar,
        Keeper(search, out / STATE) as keeper,
    ):

        def record(sample: Sample, metrics: dict[str, float] | None) -> None:
            recorder.add(sample, metrics)
            bar.step(done)

        on_result = measure.before(record)
        while done < budget:
            if pending:
                sample: Sample | None = pending.popleft()
            elif (sample := next(iter(search.ask(1)), None)) is not None:
                keeper.asked()
            if rows is not None and sample is not None:
                row = rows.nearest(sample)
                if row is None or search.space.key(row) != search.space.key(sample):
                    search.tell(sample, None)
                    keeper.told(sample, None)
                    sample = row
            if sample is None:
                break
            metrics = measure.attempt(sample)
            search.tell(sample, metrics)
            if rows is not None:
                rows.take(sample)
            done += 1
            keeper.told(sample, metrics)
            on_result(sample, None if metrics is None else dict(metrics))


def tell_done(done: int, total: int, option: str) -> None:
    """Tell how much of a search was done before this command, if anything.

    Args:
        done: So many.
        total: Of all that are asked for.
        option: What asks for more.
    """
    if done >= total:
        note(f"{done} of {total} are evaluated already; more {option} go on.")
    elif done:
        note(f"{done} of {total} are evaluated already.")


class Spinner:
    """A line that shows the time that long work takes, where the stream is a terminal.

    Args:
        text: What is being done.
        stream: Where to; stderr by default.
    """

    def __init__(self, text: str, stream: TextIO | None = None) -> None:
        self._done = threading.Event()
        self._line = tqdm(
            desc=text,
            file=stream,
            bar_format="{desc}: {elapsed}",
            leave=False,
            disable=None if shows_bars() else True,
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


def report(results: SearchResults, out: Path, reasons: Counter[str]) -> None:
    """Tell the best architecture, why evaluations failed, and where the results lie."""
    best = results.best
    found = None if best is None else results.evaluation(best)
    failed = sum(metrics is None for _, metrics in results.history)
    files = [out / name for name in results.FILES]
    if found is None:
        within = " within the limits" if results.limits else ""
        lines = [f"No architecture{within} was found in {len(results.history)} evaluations."]
    else:
        shown = {**(found["metrics"] or {}), **found["costs"]}
        lines = [
            f"The best of {len(results.history)} architectures (number {best}):\n",
            table(["dimension", "value"], list(found["sample"].items())) + "\n",
            table(["measured", "value"], [(k, float(v)) for k, v in shown.items()]),
        ]
    answer(
        "\n".join(lines),
        space=results.space.name,
        evaluations=len(results.history),
        failed=failed,
        reasons=dict(reasons),
        best=found,
        out=out,
        results=files,
    )
    if failed:
        named = [
            f"{reason.rstrip('.')} ({count} times)" if len(reasons) > 1 else reason.rstrip(".")
            for reason, count in reasons.most_common(_REASONS)
        ]
        more = [f"{len(reasons) - _REASONS} other reasons"] if len(reasons) > _REASONS else []
        why = f": {'; '.join(named + more)}" if reasons else ""
        note(f"\nEvaluations that failed: {failed} of {len(results.history)}{why}")
    note(f"\nResults: {', '.join(map(str, files))}")


def finish(results: SearchResults, out: Path, measure: Watched) -> None:
    """Print what a search found.

    Raises:
        NothingWorked: No evaluation succeeded.
    """
    report(results, out, measure.reasons)
    if measure.in_vain and not measure.keep_going:
        raise measure.given_up(len(results.history))
