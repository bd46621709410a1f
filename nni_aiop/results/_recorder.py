"""The files of a search while it goes on, at a cost that does not grow with it."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nni_aiop.history import HistoryRows
from nni_aiop.results._search_results import SearchResults
from nni_aiop.results.report._write import write_report

if TYPE_CHECKING:
    from nni_aiop.spaces import Sample

__all__ = ["ResultsRecorder"]

_GROWTH = 1.1  # of the evaluations between two times that `add` writes history.csv anew

Entry = tuple["Sample", Mapping[str, float] | None]


class ResultsRecorder:
    """Keeps the files of `SearchResults.save`: a row of `history.csv` as soon as it is known.

    `add` appends a row, and computes the exact costs of that sample alone. `write` leaves what
    `SearchResults.save` would but for the page, and may be called now and then, at the end, and of
    an interrupted search; `write_page`, which takes longer, is for the end. A row outlives a kill
    of the program; half a row, and whatever else the file has, gives way when the next recorder of
    the folder first writes.

    A metric that comes up for the first time, or a sample that is told again, changes rows that are
    written: the file is then written anew, whole or not at all, once it has grown by a tenth since
    that was last done, and by `write`.

    Args:
        out: The folder.
        results: What there is to save now, all of it. Its history decides: what was added is kept
            only until `write` finds otherwise there.

    Example:
        >>> import tempfile
        >>> from nni_aiop.search import RandomSearch
        >>> from nni_aiop.spaces import CodeSpace, Ordinal
        >>> search = RandomSearch(CodeSpace([Ordinal("depth", (1, 2, 4))]))
        >>> def results():
        ...     return SearchResults(search.space, search.history, search.objectives)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     recorder = ResultsRecorder(folder, results)
        ...     for sample in search.ask(2):
        ...         search.tell(sample, 0.5)
        ...         recorder.add(sample, {"default": 0.5})
        ...     print((Path(folder) / "history.csv").read_text().splitlines()[0])
        ...     _ = recorder.write()
        ...     print(sorted(path.name for path in Path(folder).iterdir()))
        number,depth,default
        ['history.csv', 'results.json', 'search.png']
    """

    def __init__(self, out: Path | str, results: Callable[[], SearchResults]) -> None:
        self._out = Path(out)
        self._whole = results
        self._lock = threading.RLock()
        found = results()
        self._empty = replace(found, history=[])
        self._entries: list[Entry] = []
        self._keys: list[str] = []
        self._places: dict[str, int] = {}
        self._costs: dict[str, list[float]] = {name: [] for name in found.shown_costs}
        self._file: _Rows | None = None  # where it has all entries, and nothing else
        self._rewritten = 0  # rows, when it was last written anew
        self._adopt(found.history)

    def add(self, sample: Sample, metrics: Mapping[str, float] | None) -> None:
        """One more evaluation, or a newer result of one: a row of `history.csv`."""
        with self._lock:
            key = self._empty.space.key(sample)
            if key in self._places:
                self._file = None
            else:
                self._put([(sample, metrics)], [key])
                row = {name: column[-1] for name, column in self._costs.items()}
                if self._file and not self._file.append(sample, metrics, row):
                    self._file = None
            if self._file is None and len(self._entries) >= _GROWTH * self._rewritten:
                self._rewrite(self.results())

    def write(self) -> SearchResults:
        """The results that results.json, history.csv and search.png now show."""
        with self._lock:
            results = self.results()
            results.write_summary(self._out / "results.json")
            if self._file is None or not self._file.is_whole(results):
                self._rewrite(results)
            results.draw(self._out / "search.png")
            return results

    def write_page(self) -> Path:
        """The path of report.html, which shows what `write` wrote last."""
        with self._lock:
            return write_report(self._out, space=self._empty.space)

    def results(self) -> SearchResults:
        """What there is to save now, with the costs that are known already."""
        with self._lock:
            found = self._whole()
            self._adopt(found.history)
            costs = {name: np.array(column) for name, column in self._costs.items()}
            return replace(found, known_costs=costs)

    def _rewrite(self, results: SearchResults) -> None:
        path = results.write_history(self._out / "history.csv")
        self._file = _Rows(path, results)
        self._rewritten = len(self._entries)

    def _adopt(self, history: Sequence[Entry]) -> None:
        """Take over the history, of which most is known: costs of what is new are computed."""
        same = 0
        for entry, known, key in zip(history, self._entries, self._keys, strict=False):
            if entry is not known:
                if entry[0] is not known[0] and self._empty.space.key(entry[0]) != key:
                    break
                if entry[1] != known[1]:
                    self._file = None
                self._entries[same] = entry  # the same object is told at once the next time
            same += 1
        if same < len(self._entries):
            for key in self._keys[same:]:
                self._places.pop(key, None)
            del self._entries[same:], self._keys[same:]
            for column in self._costs.values():
                del column[same:]
            self._file = None
        if same < len(history):
            new = list(history[same:])
            space = self._empty.space
            self._put(new, space.keys(space.points([sample for sample, _ in new])))
            self._file = None

    def _put(self, entries: Sequence[Entry], keys: Sequence[str]) -> None:
        costs = self._empty.costs_of([sample for sample, _ in entries])  # the long part comes first
        for place, key in enumerate(keys, len(self._keys)):
            self._places[key] = place
        self._entries += entries
        self._keys += keys
        for name, column in costs.items():
            self._costs[name] += column.tolist()


class _Rows:
    """A `history.csv` that was written whole, and the rows behind it.

    Args:
        path: The file.
        results: What it was written from.
    """

    def __init__(self, path: Path, results: SearchResults) -> None:
        self._path = path
        self._metrics = set(results.metrics)
        self._lines = HistoryRows(results.space, list(results.columns))
        self._count = len(results.history)
        self._size = path.stat().st_size

    def append(
        self, sample: Sample, metrics: Mapping[str, float] | None, costs: Mapping[str, float]
    ) -> bool:
        """Whether one more row stands in the file, to which nobody else has written."""
        told = metrics or {}
        if not told.keys() <= self._metrics:
            return False
        numbers = {**costs, **{name: told.get(name, math.nan) for name in self._metrics}}
        columns = {name: np.array([numbers[name]], dtype=np.float64) for name in numbers}
        row = self._lines.text([sample], columns, self._count).encode()
        try:
            with open(self._path, "r+b") as file:
                if file.seek(0, os.SEEK_END) != self._size:
                    return False
                file.write(row)
        except FileNotFoundError:
            return False
        self._count += 1
        self._size += len(row)
        return True

    def is_whole(self, results: SearchResults) -> bool:
        """Whether the file, now safe from a power cut, is what `results` would write."""
        same = tuple(results.columns) == self._lines.columns
        if not same or self._metrics != set(results.metrics) or self._count != len(results.history):
            return False
        try:
            with open(self._path, "r+b") as file:
                os.fsync(file.fileno())
                return file.seek(0, os.SEEK_END) == self._size
        except FileNotFoundError:
            return False
