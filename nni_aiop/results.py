"""What a search leaves behind: `results.json`, `history.csv` and `search.png`.

A file is first written beside its place and then renamed, so that an interrupted program leaves
either the old file or the new one, never half of one.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nni_aiop.errors import FileFormatError, SpaceError
from nni_aiop.spaces import Continuous, Nominal, Subset

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from nni_aiop.predictors import Prediction
    from nni_aiop.search import Objective
    from nni_aiop.spaces import CodeSpace, Dimension, Sample, Value

__all__ = [
    "SearchResults",
    "check_names",
    "draw_prediction",
    "new_figure",
    "pareto_front",
    "read_history",
    "save_figure",
    "write_atomically",
    "write_json",
]

History = Sequence[tuple["Sample", Mapping[str, float] | None]]
FORMAT_VERSION = 1


def write_atomically(path: Path | str, content: str | bytes, *, flush: bool = True) -> Path:
    """The path, which now holds `content`; its folder is made where missing.

    Args:
        path: The file to write.
        content: All of it; text in UTF-8.
        flush: Whether it outlives a power cut. Without, which is far quicker, it still outlives a
            SIGKILL.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(draft, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            if flush:
                file.flush()
                os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    return path


def _plain(value: Any) -> Any:
    """The value in JSON's own types; NaN and infinities, which JSON lacks, become null."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return str(value)


def write_json(path: Path | str, data: object) -> Path:
    """The path, which now holds `data` as indented JSON (NaN as null, foreign types as text)."""
    return write_atomically(path, json.dumps(_plain(data), indent=2, allow_nan=False) + "\n")


def pareto_front(values: ArrayLike) -> NDArray[np.bool_]:
    """(n,) True where no other row is at least as good everywhere and better somewhere.

    Args:
        values: (n, m), larger is better; a row with a NaN is never on the front.
    """
    v = np.asarray(values, dtype=np.float64)
    known = np.asarray(~np.isnan(v).any(axis=1))
    front = known.copy()
    for i in np.flatnonzero(known):
        better = (v[known] >= v[i]).all(axis=1) & (v[known] > v[i]).any(axis=1)
        front[i] = not better.any()
    return front


def check_names(space: CodeSpace, metrics: Iterable[str] = ()) -> None:
    """Refuse names that would share a column of `history.csv` with a dimension.

    Raises:
        SpaceError: A metric, or an exact cost of the space, is named as a dimension.
    """
    for name in (*metrics, *space.costs):
        if name in space.labels:
            raise SpaceError(
                "a metric or a cost must not be named as a dimension of the space, "
                f"but got {name!r}."
            )


@dataclass(frozen=True)
class SearchResults:
    """The evaluations of one search, ready to be saved and drawn.

    Args:
        space: The space that was searched.
        history: (sample, metrics) in the order of evaluation; metrics is None where it failed.
        objectives: What was searched for; the first one names the best architecture.
        limits: Upper limits on exact costs of the space, or on metrics, that the best architecture
            has to keep.
        settings: How the search was asked for, for the record (plain JSON).
        cost: The exact cost to draw against; by default the space's first one, if it has any.
    """

    space: CodeSpace
    history: History
    objectives: Sequence[Objective]
    limits: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    cost: str | None = None

    @cached_property
    def costs(self) -> dict[str, NDArray[np.float64]]:
        """(n,) exact costs of every evaluated sample, by the name of the cost.

        What is inactive stands at its default, as it does in what a search proposes.
        """
        if not self.history:
            return {name: np.empty(0) for name in self.space.costs}
        points = self.space.canonical_points(self.space.points([s for s, _ in self.history]))
        codes = self.space.encode(self.space.from_points(points))
        return {name: self.space.cost(name, codes) for name in self.space.costs}

    @cached_property
    def metrics(self) -> dict[str, NDArray[np.float64]]:
        """(n,) every metric that was reported, NaN where it was not."""
        names = dict.fromkeys(name for _, found in self.history for name in found or {})
        names.update(dict.fromkeys(o.metric for o in self.objectives))
        return {
            name: np.array([(found or {}).get(name, np.nan) for _, found in self.history], float)
            for name in names
        }

    @cached_property
    def feasible(self) -> NDArray[np.bool_]:
        """(n,) True where every limit is kept."""
        measured = self.metrics | self.costs
        keeps = np.ones(len(self.history), dtype=bool)
        for name, limit in self.limits.items():
            keeps &= measured[name] <= limit if name in measured else False
        return keeps

    @property
    def best(self) -> int | None:
        """Index of the evaluation with the best first objective within the limits, if any."""
        gains = np.where(self.feasible, self._gains(self.objectives[0]), np.nan)
        return None if np.isnan(gains).all() else int(np.nanargmax(gains))

    @property
    def front(self) -> list[int]:
        """Indices of the Pareto front of all objectives and, where there is one, the drawn cost."""
        columns = [self._gains(o) for o in self.objectives]
        if self._drawn_cost is not None:
            columns.append(-self.costs[self._drawn_cost])
        values = np.stack(columns, axis=1)
        values[~self.feasible] = np.nan
        return [int(i) for i in np.flatnonzero(pareto_front(values))]

    @property
    def _drawn_cost(self) -> str | None:
        return self.cost or next(iter(self.space.costs), None)

    def _title(self, metric: str) -> str:
        """The metric's name; for NNI's `default` that of the metric which it repeats, if any."""
        same = [
            name
            for name, column in self.metrics.items()
            if metric == "default" != name
            and np.array_equal(column, self.metrics[metric], equal_nan=True)
        ]
        return same[0] if same else metric

    def _gains(self, objective: Objective) -> NDArray[np.float64]:
        return objective.sign * self.metrics[objective.metric]

    def evaluation(self, index: int) -> dict[str, Any]:
        """One evaluation as a record: number, active sample, point, metrics and exact costs."""
        sample, metrics = self.history[index]
        return {
            "number": index,
            "sample": self.space.canonical(sample),
            "point": self.space.to_json(sample),
            "metrics": None if metrics is None else dict(metrics),
            "costs": {name: column[index] for name, column in self.costs.items()},
        }

    def save(self, out: Path | str) -> Path:
        """The folder `out`, which now holds results.json, history.csv and search.png."""
        out = Path(out)
        write_json(
            out / "results.json",
            {
                "format": FORMAT_VERSION,
                "space": self.space.name,
                "fingerprint": self.space.fingerprint,
                "settings": self.settings,
                "objectives": [
                    {"metric": o.metric, "direction": o.direction, "weight": o.weight}
                    for o in self.objectives
                ],
                "limits": self.limits,
                "evaluations": len(self.history),
                "failed": sum(metrics is None for _, metrics in self.history),
                "best": None if self.best is None else self.evaluation(self.best),
                "front": [self.evaluation(i) for i in self.front],
            },
        )
        write_atomically(out / "history.csv", self._csv())
        self.draw(out / "search.png")
        return out

    def _csv(self) -> str:
        check_names(self.space, self.metrics)
        costs = {name: column for name, column in self.costs.items() if name not in self.metrics}
        numbered = "number" not in {*self.space.labels, *self.metrics, *costs}
        cells = {d.label: _Cells(d) for d in self.space.dimensions}
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow([*["number"] * numbered, *cells, *self.metrics, *costs])
        for i, (sample, _) in enumerate(self.history):
            active = self.space.canonical(sample)
            shown = [cells[k].text(active[k]) if k in active else "" for k in cells]
            measured = [_cell(column[i]) for column in (*self.metrics.values(), *costs.values())]
            rows.writerow([*[i] * numbered, *shown, *measured])
        return text.getvalue()

    def draw(
        self,
        path: Path | str,
        *,
        baseline: tuple[str, SearchResults] | None = None,
        title: str | None = None,
    ) -> Path:
        """The path of a PNG: the best so far and, where there is a cost, the Pareto scatter.

        The scatter shows every evaluation by its exact cost and its first objective, shaded by its
        number, the Pareto front as stairs, and the trajectory of the best so far as a line.

        Args:
            path: The file to write.
            baseline: A name and the results of another search over the same space, drawn in grey.
            title: The heading; by default the name of the space.
        """
        figure = new_figure(11.0 if self._drawn_cost is not None else 5.5, 4.4)
        count = 2 if self._drawn_cost is not None else 1
        panels = [figure.add_subplot(1, count, i + 1) for i in range(count)]
        figure.suptitle(title or self.space.name)
        self._draw_progress(panels[0], baseline)
        if self._drawn_cost is not None:
            self._draw_scatter(panels[1], self._drawn_cost, baseline)
        return save_figure(figure, path)

    def _best_so_far(self) -> NDArray[np.float64]:
        gains = np.where(self.feasible, self._gains(self.objectives[0]), np.nan)
        return np.fmax.accumulate(gains) if len(gains) else gains

    def _draw_progress(self, axes: Axes, baseline: tuple[str, SearchResults] | None) -> None:
        objective = self.objectives[0]
        if baseline is not None:
            name, other = baseline
            numbers = np.arange(1, len(other.history) + 1)
            axes.step(
                numbers,
                objective.sign * other._best_so_far(),
                where="post",
                color="0.6",
                label=name,
            )
        numbers = np.arange(1, len(self.history) + 1)
        axes.scatter(numbers, self.metrics[objective.metric], s=12, color="tab:blue", alpha=0.5)
        best = objective.sign * self._best_so_far()
        axes.step(numbers, best, where="post", color="tab:red", label="best so far")
        axes.set_xlabel("architectures evaluated")
        axes.set_ylabel(self._title(objective.metric))
        axes.legend(loc="best", frameon=False)

    def _draw_scatter(
        self, axes: Axes, cost: str, baseline: tuple[str, SearchResults] | None
    ) -> None:
        objective = self.objectives[0]
        x, y = self.costs[cost], self.metrics[objective.metric]
        if baseline is not None:
            name, other = baseline
            others = other.metrics[objective.metric]
            axes.scatter(other.costs[cost], others, s=16, color="0.7", label=name)
        points = axes.scatter(x, y, s=20, c=np.arange(1, len(x) + 1), cmap="viridis", zorder=2)
        axes.figure.colorbar(points, ax=axes, label="number of the evaluation")
        gains = np.where(self.feasible, objective.sign * y, np.nan)
        front = np.flatnonzero(pareto_front(np.stack([gains, -x], axis=1)))
        front = front[np.argsort(x[front])]
        axes.step(x[front], y[front], where="post", color="tab:orange", label="Pareto front")
        best = self._best_so_far()
        leaders = [
            i for i in range(len(x)) if gains[i] == best[i] and (i == 0 or best[i - 1] != best[i])
        ]
        axes.plot(
            x[leaders], y[leaders], "-", color="tab:red", lw=1, label="trajectory of the best"
        )
        if leaders:
            axes.plot(x[leaders[-1]], y[leaders[-1]], "*", color="tab:red", ms=14, zorder=3)
        if cost in self.limits:
            axes.axvline(self.limits[cost], color="0.3", ls="--", lw=1, label=f"limit on {cost}")
        axes.set_xlabel(cost)
        if len(x) and x.max() > 10 * x.min() > 0:
            axes.set_xscale("log")
        axes.set_ylabel(self._title(objective.metric))
        axes.legend(loc="best", frameon=False)


def _cell(value: Any) -> str:
    """One CSV cell: JSON for a list, empty for NaN, else the value's text."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(value)
    return json.dumps(_plain(value)) if isinstance(value, (list, tuple)) else str(value)


class _Cells:
    """How the values of one dimension are written into the cells of a CSV, and read from them."""

    def __init__(self, dimension: Dimension) -> None:
        self.dimension = dimension
        values: Sequence[Value] = getattr(dimension, "values", ())
        self._is_range = isinstance(values, range)
        self._values = () if self._is_range else values  # a range may be too long to be listed

    @cached_property
    def _texts(self) -> list[str]:
        """The text of each listed value: its `repr` where plain texts are equal or empty."""
        show = _json if isinstance(self.dimension, Subset) else _cell
        texts = [show(v) for v in self._values]
        if len(set(texts)) < len(texts) or "" in texts:
            texts = [show(repr(v)) for v in self._values]
        return texts

    @cached_property
    def _value_of(self) -> dict[str, Value]:
        return dict(zip(self._texts, self._values, strict=True))

    def text(self, value: Value) -> str:
        """The cell of a value."""
        if isinstance(self.dimension, Subset):
            mask = int(self.dimension.point(value))
            return f"[{', '.join(t for i, t in enumerate(self._texts) if mask >> i & 1)}]"
        if isinstance(self.dimension, Nominal):
            return self._texts[int(self.dimension.point(value))]
        return _cell(value)

    def value(self, text: str) -> Value:
        """The value that a cell shows.

        Raises:
            FileFormatError: The dimension has no such value.
        """
        try:
            value = self._parse(text)
            self.dimension.point(value)
        except (KeyError, TypeError, ValueError) as err:
            raise FileFormatError(
                f"{self.dimension.label!r} must be one of {self.dimension.describe()}, "
                f"but got {text!r}."
            ) from err
        return value

    def _parse(self, text: str) -> Value:
        if isinstance(self.dimension, Subset):
            return [self._value_of[_json(v)] for v in json.loads(text)]
        if text in self._value_of:
            return self._value_of[text]
        if not isinstance(self.dimension, Nominal):
            number = float(text)
            if number.is_integer() and not isinstance(self.dimension, Continuous):
                return int(text if text.isdecimal() else number)
            if self._is_range:  # it would look through all its numbers for this one
                raise ValueError(text)
            return number
        data = json.loads(text)  # written by hand: 1.0 for 1, [1,2] for (1, 2)
        return next(
            v
            for v in self._values
            if _plain(v) == data and isinstance(v, bool) == isinstance(data, bool)
        )


def _json(value: Any) -> str:
    return json.dumps(_plain(value))


def read_history(
    path: Path | str, space: CodeSpace, metrics: Sequence[str] = ()
) -> tuple[list[Sample], dict[str, NDArray[np.float64]]]:
    """(samples, metric columns) of a CSV with one column for each dimension, as `history.csv`.

    An empty cell of a dimension means inactive; an empty cell of a metric means NaN.

    Args:
        path: The file.
        space: The space of the samples.
        metrics: Which columns to read; by default all but the dimensions and `number`.

    Raises:
        FileFormatError: A column is missing, or a cell is no value of its dimension or no number.
    """
    path = Path(path)
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file, strict=True))
    except (csv.Error, UnicodeDecodeError) as err:
        raise FileFormatError(f"{path} must be a CSV file in UTF-8, but is not ({err}).") from err
    if len(rows) < 2:
        raise FileFormatError(
            f"{path} must hold a heading and at least one row, but has {len(rows)} rows."
        )
    heading, rows = rows[0], rows[1:]
    if len(set(heading)) < len(heading):
        raise FileFormatError(f"{path} must name each column differently, but has {heading}.")
    numbered = heading[:1] == ["number"] and "number" not in space.labels  # as `history.csv`
    wanted = list(metrics) or [c for c in heading[numbered:] if c not in space.labels]
    for column in (*space.labels, *wanted):
        if column not in heading:
            raise FileFormatError(f"{path} must have a column {column!r}, but has {heading}.")
    where = {column: heading.index(column) for column in heading}
    cells = {d.label: _Cells(d) for d in space.dimensions}
    samples: list[Sample] = []
    columns: dict[str, list[float]] = {name: [] for name in wanted}
    for number, row in enumerate(rows, start=2):
        if len(row) != len(heading):
            raise FileFormatError(
                f"{path}, line {number}: a row must have {len(heading)} cells, but got {len(row)}."
            )
        try:
            sample = {k: cells[k].value(row[where[k]]) for k in cells if row[where[k]]}
            problem = space.violation(sample)
        except FileFormatError as err:
            problem = str(err)
        if problem is not None:
            raise FileFormatError(f"{path}, line {number}: {problem}")
        samples.append(sample)
        for name in wanted:
            columns[name].append(
                _number(row[where[name]], f"{path}, line {number}, column {name!r}")
            )
    return samples, {name: np.array(column) for name, column in columns.items()}


def _number(text: str, where: str) -> float:
    try:
        return float(text) if text else math.nan
    except ValueError as err:
        raise FileFormatError(f"{where}: must be a number, but got {text!r}.") from err


def draw_prediction(
    path: Path | str,
    prediction: Prediction,
    targets: Mapping[str, ArrayLike],
    *,
    level: float = 0.8,
) -> Path:
    """The path of a PNG: for each metric, predicted against measured values with `level` intervals.

    Args:
        path: The file to write.
        prediction: Predictions of n architectures.
        targets: (n,) measured values of each metric of the prediction.
        level: Probability that the drawn intervals promise to hold.
    """
    count = len(prediction.metrics)
    figure = new_figure(5.0 * count, 4.6)
    for i, name in enumerate(prediction.metrics):
        axes = figure.add_subplot(1, count, i + 1)
        one, measured = prediction[name], np.asarray(targets[name], dtype=np.float64)
        mean = one.mean[:, 0]
        low, high = one.interval(level)
        spread = np.stack([mean - low[:, 0], high[:, 0] - mean])
        axes.errorbar(
            measured, mean, yerr=spread, fmt="none", ecolor="tab:blue", alpha=0.15, zorder=1
        )
        axes.scatter(measured, mean, s=8, color="tab:blue", zorder=2)
        ends = [min(measured.min(), mean.min()), max(measured.max(), mean.max())]
        axes.plot(ends, ends, color="0.3", lw=1, ls="--")
        axes.set_xlabel(f"measured {name}")
        axes.set_ylabel(f"predicted {name}, with {level:.0%} intervals")
    return save_figure(figure, path)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of width × height inches that needs no display and no global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path | str) -> Path:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    return write_atomically(path, picture.getvalue())
