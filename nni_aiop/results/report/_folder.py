"""What lies in a folder of results, read back without the space that was searched."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nni_aiop.errors import FileFormatError
from nni_aiop.files import csv_number, parse_json, read_csv_rows
from nni_aiop.results._axes import Axis, axes_of
from nni_aiop.results._front import front_of, title_of, within

if TYPE_CHECKING:
    from nni_aiop.spaces import CodeSpace

__all__ = ["Evaluations", "read_evaluations", "read_summary"]

SUMMARY, HISTORY = "results.json", "history.csv"


@dataclass(frozen=True)
class Evaluations:
    """The evaluations of a search as its files have them.

    Attributes:
        summary: What results.json says.
        axes: The dimensions.
        points: (n, d) points, NaN where a dimension is inactive.
        metrics: (n,) every metric by name, NaN where it was not reported.
        costs: (n,) every exact cost by name.
    """

    summary: dict[str, Any]
    axes: Sequence[Axis]
    points: NDArray[np.float64]
    metrics: dict[str, NDArray[np.float64]]
    costs: dict[str, NDArray[np.float64]]

    def __len__(self) -> int:
        return len(self.points)

    @cached_property
    def objectives(self) -> list[tuple[str, float]]:
        """(metric, 1 where more is better, else -1) of each objective."""
        return [
            (o["metric"], -1.0 if o.get("direction") == "minimize" else 1.0)
            for o in self.summary["objectives"]
        ]

    @cached_property
    def limits(self) -> dict[str, float]:
        return {k: float(v) for k, v in self.summary.get("limits", {}).items() if v is not None}

    @cached_property
    def failed(self) -> NDArray[np.bool_]:
        """(n,) True where no metric was reported."""
        columns = list(self.metrics.values())
        if not columns:
            return np.ones(len(self), dtype=np.bool_)
        return np.asarray(np.isnan(columns).all(axis=0))

    @cached_property
    def feasible(self) -> NDArray[np.bool_]:
        """(n,) True where every limit is kept."""
        return within(self.limits, self.costs | self.metrics, len(self))

    @cached_property
    def gains(self) -> NDArray[np.float64]:
        """(n,) the first objective, larger is better; NaN where a limit is not kept."""
        metric, sign = self.objectives[0]
        return np.where(self.feasible, sign * self.metrics[metric], np.nan)

    @cached_property
    def leaders(self) -> list[int]:
        """Evaluations from the best on, those within the limits only."""
        order = np.argsort(-self.gains, kind="stable")  # NaN comes last
        return [int(i) for i in order if not math.isnan(self.gains[i])]

    @cached_property
    def drawn_cost(self) -> str | None:
        """The cost to show metrics against."""
        asked = (self.summary.get("settings") or {}).get("cost")
        return asked if asked in self.costs else next(iter(self.costs), None)

    @cached_property
    def front(self) -> list[int]:
        """The Pareto front of all objectives and the drawn cost."""
        gains = [sign * self.metrics[name] for name, sign in self.objectives]
        cost = None if self.drawn_cost is None else self.costs[self.drawn_cost]
        return front_of(gains, cost, self.feasible)

    def title(self, metric: str) -> str:
        """The metric's name; for NNI's `default` that of the metric which it repeats, if any."""
        return title_of(metric, self.metrics)


def read_summary(folder: Path) -> dict[str, Any]:
    """What results.json says.

    Raises:
        FileFormatError: It is not what a search writes.
        OSError: It cannot be read.
    """
    path = folder / SUMMARY
    found = parse_json(path.read_text(encoding="utf-8"), str(path))
    objectives = found.get("objectives") if isinstance(found, dict) else None
    whole = isinstance(objectives, list) and all(
        isinstance(o, dict) and isinstance(o.get("metric"), str) for o in objectives
    )
    if not whole or not objectives or not isinstance(found.get("limits", {}), dict):
        raise FileFormatError(f"{path} must be the results of a search, but is something else.")
    return dict(found)


def read_evaluations(folder: Path, space: CodeSpace | None = None) -> Evaluations:
    """The evaluations that results.json and history.csv of a folder tell of.

    Args:
        folder: The folder.
        space: The space that was searched, which older files do not describe; without it
            dimensions of such files have the choices that were evaluated.

    Raises:
        FileFormatError: A file is damaged, or of something else.
        OSError: One cannot be read.
    """
    summary = read_summary(folder)
    path = folder / HISTORY
    heading, rows = _rows(path)
    first = int(heading[:1] == ["number"] and not _described(summary, "number"))
    cells = {name: [row[i] for row in rows] for i, name in enumerate(heading) if i >= first}
    try:
        if "dimensions" in summary:
            axes = [Axis.read(record) for record in summary["dimensions"]]
            metrics, costs = list(summary["metrics"]), list(summary["costs"])
        else:
            labels, metrics, costs = _guessed(summary, list(cells))
            if space is None:
                axes = [Axis.seen(label, cells[label]) for label in labels]
            else:
                axes = axes_of(space)
        columns = {axis.label: axis.points(cells[axis.label]) for axis in axes}
    except (LookupError, TypeError, ValueError) as err:
        if isinstance(err, FileFormatError):
            raise FileFormatError(f"{path}: {err}") from err
        raise FileFormatError(
            f"{folder / SUMMARY} and {HISTORY} must be of one search, but are not: {err}."
        ) from err
    # A metric that came up after results.json was written stands in history.csv alone.
    known = {*columns, *metrics, *costs}
    metrics += [name for name in cells if name not in known]
    wanted = [o["metric"] for o in summary["objectives"]]
    numbers = {name: _numbers(cells[name], path, name) for name in cells if name not in columns}
    unknown = np.full(len(rows), math.nan)
    # A cost that was measured, too, has its column once.
    shown = {name: numbers[name] for name in dict.fromkeys(costs) if name in numbers}
    if {"flops", "macs"} <= shown.keys() and np.array_equal(shown["flops"], shown["macs"]):
        del shown["macs"]  # the same by another name
    return Evaluations(
        summary,
        axes,
        np.stack(list(columns.values()), axis=1) if columns else np.empty((len(rows), 0)),
        {
            name: numbers.get(name, unknown)
            for name in dict.fromkeys([*metrics, *wanted])
            if name not in shown or name in wanted
        },
        {name: column for name, column in shown.items() if name not in wanted},
    )


def _described(summary: dict[str, Any], label: str) -> bool:
    """Whether a dimension is named so."""
    described = summary.get("dimensions")
    if isinstance(described, list):
        return any(isinstance(d, dict) and d.get("label") == label for d in described)
    return label in ((summary.get("best") or {}).get("sample") or {})


def _rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """The heading of the history, and its rows: none, or a last one that is half there, is fine."""
    text = path.read_bytes()
    lines = text.count(b"\n")
    if lines <= 1:
        import csv
        import io

        heading = next(csv.reader(io.StringIO(text.decode(errors="replace"))), [])
        return heading, []
    try:
        heading, rows = read_csv_rows(path)
    except FileFormatError:
        if text.endswith(b"\n"):
            raise
        import tempfile

        with tempfile.TemporaryDirectory() as folder:  # a row is being written
            whole = Path(folder) / path.name
            whole.write_bytes(text[: text.rindex(b"\n") + 1])
            heading, rows = read_csv_rows(whole)
    return heading, [row for _, row in rows]


def _guessed(
    summary: dict[str, Any], columns: Sequence[str]
) -> tuple[list[str], list[str], list[str]]:
    """(labels, metrics, costs) among the columns of a history that no results.json describes."""
    shown = [e for e in (summary.get("best"), *(summary.get("front") or ())) if e]
    costs = list(dict.fromkeys(name for e in shown for name in e.get("costs") or {}))
    reported = dict.fromkeys(name for e in shown for name in e.get("metrics") or {})
    reported.update(dict.fromkeys(o["metric"] for o in summary["objectives"]))
    known = {*costs, *reported, *summary.get("limits", {})}
    first = next((i for i, name in enumerate(columns) if name in known), len(columns))
    inside = [name for e in shown for name in e.get("sample") or {}]
    first = max([first, *(columns.index(name) + 1 for name in inside if name in columns)])
    rest = columns[first:]
    return list(columns[:first]), [c for c in rest if c not in costs], [
        c for c in rest if c in costs
    ]  # fmt: skip


def _numbers(cells: Sequence[str], path: Path, name: str) -> NDArray[np.float64]:
    where = f"{path}, column {name!r:.80}"
    return np.array([csv_number(cell, where) for cell in cells], dtype=np.float64)
