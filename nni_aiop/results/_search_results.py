"""What a search leaves behind: `results.json`, `history.csv`, `search.png` and `report.html`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nni_aiop.figures import new_figure, save_figure
from nni_aiop.files import write_json
from nni_aiop.history import check_names, write_history
from nni_aiop.results._axes import axes_of
from nni_aiop.results._front import front_of, pareto_front, title_of, within
from nni_aiop.results._units import spelled
from nni_aiop.results.report._write import write_report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nni_aiop.search import Objective
    from nni_aiop.spaces import CodeSpace, Sample

__all__ = ["SearchResults"]

FORMAT_VERSION = 1


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
        known_costs: (n,) exact costs of the samples by name, where all that are shown are known.
    """

    FILES: ClassVar[tuple[str, ...]] = (
        "results.json", "history.csv", "search.png", "report.html",
    )  # fmt: skip
    """What `save` writes."""

    space: CodeSpace
    history: Sequence[tuple[Sample, Mapping[str, float] | None]]
    objectives: Sequence[Objective]
    limits: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    cost: str | None = None
    known_costs: Mapping[str, NDArray[np.float64]] | None = field(
        default=None, repr=False, compare=False
    )

    @cached_property
    def costs(self) -> dict[str, NDArray[np.float64]]:
        """(n,) exact costs of every evaluated sample, by the name of the cost.

        What is inactive stands at its default, as it does in what a search proposes.
        """
        if self.known_costs is not None:
            return {name: self.known_costs[name] for name in self.shown_costs}
        return self.costs_of([sample for sample, _ in self.history])

    @property
    def shown_costs(self) -> list[str]:
        """Names of the exact costs that are shown."""
        return self.space.shown_costs({*self.limits, *([] if self.cost is None else [self.cost])})

    def costs_of(self, samples: Sequence[Sample]) -> dict[str, NDArray[np.float64]]:
        """(n,) the costs that are shown of any samples."""
        names = self.shown_costs
        if not samples:
            return {name: np.empty(0) for name in names}
        points = self.space.canonical_points(self.space.points(samples))
        codes = self.space.encode(self.space.from_points(points))
        return {name: self.space.cost(name, codes) for name in names}

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
        return within(self.limits, self.metrics | self.costs, len(self.history))

    @property
    def best(self) -> int | None:
        """Index of the evaluation with the best first objective within the limits, if any."""
        gains = np.where(self.feasible, self._gains(self.objectives[0]), np.nan)
        return None if np.isnan(gains).all() else int(np.nanargmax(gains))

    @property
    def front(self) -> list[int]:
        """Indices of the Pareto front of all objectives and, where there is one, the drawn cost."""
        cost = None if self._drawn_cost is None else self.costs[self._drawn_cost]
        return front_of([self._gains(o) for o in self.objectives], cost, self.feasible)

    @property
    def _drawn_cost(self) -> str | None:
        return self.cost or next(iter(self.costs), None)

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

    def save(self, out: Path | str, *, page: bool = True) -> Path:
        """The folder `out`, which now holds results.json, history.csv, search.png and report.html.

        Args:
            out: The folder.
            page: Whether to write report.html, too, which takes a second or some: a search that
                saves what it has on the way leaves it for the end.
        """
        out = Path(out)
        self.write_summary(out / "results.json")
        self.write_history(out / "history.csv")
        self.draw(out / "search.png")
        if page:
            write_report(out, space=self.space)
        return out

    def write_summary(self, path: Path | str) -> Path:
        """The path of a JSON file: what was searched for, the best evaluation and the front."""
        return write_json(
            path,
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
                "dimensions": [axis.record for axis in axes_of(self.space)],
                "metrics": list(self.metrics),
                "costs": list(self.costs),
                "evaluations": len(self.history),
                "failed": sum(metrics is None for _, metrics in self.history),
                "best": None if self.best is None else self.evaluation(self.best),
                "front": [self.evaluation(i) for i in self.front],
            },
        )

    @property
    def columns(self) -> dict[str, NDArray[np.float64]]:
        """(n,) the numbers of `history.csv`: metrics, and costs of no metric's name."""
        return self.metrics | {k: c for k, c in self.costs.items() if k not in self.metrics}

    def write_history(self, path: Path | str) -> Path:
        """The path of a CSV file: a row for each evaluation.

        Raises:
            SpaceError: A metric or a cost is named as a dimension.
        """
        check_names(self.space, self.metrics)
        return write_history(path, self.space, [s for s, _ in self.history], self.columns)

    def draw(
        self,
        path: Path | str,
        *,
        baseline: tuple[str, SearchResults] | None = None,
        title: str | None = None,
    ) -> Path:
        """The path of a PNG: the best so far and, where there is a cost, the Pareto scatter.

        The scatter shows every evaluation by its exact cost and its first objective, shaded by its
        number, the Pareto front as stairs, and the best as a star.

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
            numbers = np.arange(len(other.history))
            axes.step(
                numbers,
                objective.sign * other._best_so_far(),
                where="post",
                color="0.6",
                label=name,
            )
        numbers = np.arange(len(self.history))  # as results.json and history.csv number them
        axes.scatter(numbers, self.metrics[objective.metric], s=12, color="tab:blue", alpha=0.5)
        best = objective.sign * self._best_so_far()
        axes.step(numbers, best, where="post", color="tab:red", label="best so far")
        axes.set_xlabel("number of the evaluation")
        axes.set_ylabel(title_of(objective.metric, self.metrics))
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
        points = axes.scatter(x, y, s=20, c=np.arange(len(x)), cmap="viridis", zorder=2)
        axes.figure.colorbar(points, ax=axes, label="number of the evaluation")
        gains = np.where(self.feasible, objective.sign * y, np.nan)
        front = np.flatnonzero(pareto_front(np.stack([gains, -x], axis=1)))
        front = front[np.argsort(x[front])]
        axes.step(x[front], y[front], where="post", color="tab:orange", label="Pareto front")
        best = self._best_so_far()
        leaders = [
            i for i in range(len(x)) if gains[i] == best[i] and (i == 0 or best[i - 1] != best[i])
        ]
        if leaders:
            last = leaders[-1]
            axes.plot(x[last], y[last], "*", color="tab:red", ms=14, zorder=3, ls="", label="best")
        if cost in self.limits:
            axes.axvline(self.limits[cost], color="0.3", ls="--", lw=1, label=f"limit on {cost}")
        axes.set_xlabel(spelled(cost))
        if len(x) and x.max() > 10 * x.min() > 0:
            axes.set_xscale("log")
        axes.set_ylabel(title_of(objective.metric, self.metrics))
        axes.legend(loc="best", frameon=False)
