"""What shrinking a network leaves: a report, also as data, the front, and what was cut where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nni_aiop.figures import new_figure, save_figure
from nni_aiop.files import write_atomically, write_json

if TYPE_CHECKING:
    from nni_aiop.search import Objective
    from nni_aiop.spaces import MutationSpace, Sample

__all__ = ["ShrinkReport", "Shrunk"]

_FORMAT_VERSION = 1
_TALL = 40.0  # inches of a picture at most


@dataclass(frozen=True)
class Shrunk:
    """The best network within one budget.

    Attributes:
        budget: The part of the multiply-adds to stay within.
        sample: Its edits.
        metrics: What was told of it.
        files: Where it lies.
        latency: Milliseconds before and after, measured in turns; None where it was not measured.
    """

    budget: float
    sample: Sample
    metrics: Mapping[str, float]
    files: Sequence[Path] = ()
    latency: tuple[float, float] | None = None


@dataclass(frozen=True)
class ShrinkReport:
    """Networks within budgets beside the one that they were made from.

    Args:
        space: The edits.
        objective: What was searched for; None where widths were cut and nothing was told.
        found: The best of each budget, the largest budget first.
        history: All results.
        baseline: Metrics of the network as it is, equally fine-tuned.
        notes: Sentences for the reader.
    """

    space: MutationSpace
    objective: Objective | None
    found: Sequence[Shrunk]
    history: Sequence[tuple[Sample, Mapping[str, float] | None]]
    baseline: Mapping[str, float] | None = None
    notes: Sequence[str] = ()

    FILES = ("report.md", "report.json", "front.png", "layers.png")
    """What `save` writes."""

    FILES_OF_CUTS = ("report.md", "report.json", "layers.png")
    """What it writes without an objective."""

    def save(self, out: Path) -> Path:
        """The folder, which now holds the report and the pictures."""
        write_atomically(out / "report.md", self.text())
        write_json(out / "report.json", self.record())
        if self.objective is not None:
            self.draw_front(out / "front.png")
        self.draw_layers(out / "layers.png")
        return out

    def rows(self, shrunk: Shrunk) -> list[tuple[str, str, str, str]]:
        """(name, before, after, ratio) of each figure of a network."""
        codes = self.space.encode([self.space.original, self.space.complete(shrunk.sample)])
        rows = []
        for cost, name, unit in _SHOWN:
            before, after = (float(v) for v in self.space.cost(cost, codes))
            rows.append((name, _figure(before, unit), _figure(after, unit), _ratio(before, after)))
        if shrunk.latency is not None:
            before, after = shrunk.latency
            rows.append(
                ("latency, onnxruntime on one thread (ms)", f"{before:.3g}", f"{after:.3g}",
                 _ratio(before, after))
            )  # fmt: skip
        if self.objective is None:
            return rows
        metric = self.objective.metric
        plain = None if self.baseline is None else self.baseline[metric]
        shown = "not measured" if plain is None else f"{plain:.6g}"
        rows.append((f"{metric}, fine-tuned", shown, f"{shrunk.metrics[metric]:.6g}", ""))
        return rows

    def edits(self, shrunk: Shrunk) -> list[tuple[str, str, str]]:
        """(site, before, after) of each edit of a network."""
        sites = {site.label: site for site in self.space.sites}
        return [
            (label, str(sites[label].value), str(value))
            for label, value in self.space.edits(shrunk.sample).items()
        ]

    def text(self) -> str:
        """The report, in Markdown."""
        lines = ["# A network shrunk", ""]
        how = "Widths cut alike." if self.objective is None else f"{len(self.history)} fine-tunes."
        lines += [f"{how} FLOPs are multiply-adds.", ""]
        for note in self.notes:
            lines += [note, ""]
        for shrunk in self.found:
            lines += [f"## At most {shrunk.budget:.6g} of the FLOPs", ""]
            lines += _table(("", "before", "after", "after / before"), self.rows(shrunk))
            lines += [f"Files: {', '.join(path.name for path in shrunk.files)}.", ""]
            lines += _table(("site", "before", "after"), self.edits(shrunk))
        if self._frozen:
            lines += ["## What could not be edited", ""]
            lines += _table(("site", "reason"), self._frozen)
        if self.objective is not None:
            lines += ["![quality against FLOPs](front.png)", ""]
        lines += ["![what was cut](layers.png)", ""]
        return "\n".join(lines)

    def record(self) -> dict[str, Any]:
        """The report in plain JSON, of which `write_report` makes a page."""
        objective = self.objective
        return {
            "format": _FORMAT_VERSION,
            "objective": None
            if objective is None
            else {"metric": objective.metric, "direction": objective.direction},
            "notes": self.notes,
            "networks": [
                {
                    "budget": shrunk.budget,
                    "rows": self.rows(shrunk),
                    "edits": self.edits(shrunk),
                    "widths": self.widths(shrunk),
                    "files": [path.name for path in shrunk.files],
                }
                for shrunk in self.found
            ],
            "frozen": self._frozen,
            "front": None if objective is None else self._front(objective.metric),
        }

    @property
    def _frozen(self) -> list[tuple[str, str]]:
        """(site, reason) of what could not be edited."""
        return [(s.label, str(s.reason)) for s in self.space.sites if s.reason is not None]

    def _front(self, metric: str) -> dict[str, Any]:
        """(part of the multiply-adds, metric) of what was fine-tuned, and of the best."""
        told = [(sample, metrics[metric]) for sample, metrics in self.history if metrics]
        best = [(one.sample, one.metrics[metric]) for one in self.found]
        return {
            **{
                name: list(
                    zip(self._shares([s for s, _ in rows]), [y for _, y in rows], strict=True)
                )
                for name, rows in (("tuned", told), ("best", best))
            },
            "baseline": None if self.baseline is None else self.baseline[metric],
        }

    def draw_front(self, path: Path) -> Path:
        """The path of a PNG: what was told against the part of the FLOPs that is kept."""
        assert self.objective is not None
        metric = self.objective.metric
        told = [(sample, metrics[metric]) for sample, metrics in self.history if metrics]
        figure = new_figure(6.0, 4.4)
        axes = figure.add_subplot()
        axes.scatter(self._shares([s for s, _ in told]), [y for _, y in told], s=18, color="0.6",
                     label="fine-tuned")  # fmt: skip
        best = sorted(self.found, key=lambda one: one.budget)
        x = self._shares([one.sample for one in best])
        y = [one.metrics[metric] for one in best]
        axes.plot(x, y, "o-", color="tab:red", label="best of a budget")
        for one in best:
            axes.axvline(one.budget, color="0.8", lw=0.8, zorder=0)
        if self.baseline is not None:
            axes.plot([1.0], [self.baseline[metric]], "*", ms=12, color="black", label="as it was")
        axes.set_xlabel("part of the FLOPs (multiply-adds) that is kept")
        axes.set_ylabel(metric)
        axes.legend(frameon=False)
        return save_figure(figure, path)

    def _shares(self, samples: Sequence[Sample]) -> list[float]:
        if not samples:
            return []
        codes = self.space.encode([self.space.complete(s) for s in samples])
        whole = self.space.cost("flops", self.space.encode([self.space.original]))
        return [float(v) for v in self.space.cost("flops", codes) / whole]

    def widths(self, shrunk: Shrunk) -> list[tuple[str, int, int, str]]:
        """(layer, channels before, channels after, its other edit) of each layer with channels."""
        edits = self.space.edits(shrunk.sample)
        gone = {label for label, value in edits.items() if value == "remove"}
        marks: dict[str, str] = {}
        for site in self.space.sites:
            if site.counts or site.label not in edits:
                continue
            kind = site.kind if edits[site.label] == "remove" else str(edits[site.label])
            for layer in site.layers:
                marks.setdefault(layer, f"{kind} removed" if kind == site.kind else kind)
        rows = []
        for site in sorted((s for s in self.space.sites if s.counts), key=lambda s: s.index):
            kept = 0 if gone & set(site.parents) else edits.get(site.label, site.value)
            for layer in site.layers:
                name = layer if site.kind == "width" else f"{layer} ({site.kind})"
                before = site.value * site.channels
                rows.append((name, before, int(kept) * site.channels, marks.get(layer, "")))
        return rows

    def draw_layers(self, path: Path) -> Path:
        """The path of a PNG: the channels of each layer before and after, one panel a budget."""
        widths = [self.widths(one) for one in self.found]
        count = max((len(rows) for rows in widths), default=1)
        figure = new_figure(5.0 * max(1, len(widths)), min(_TALL, 1.2 + 0.2 * count))
        for i, (one, rows) in enumerate(zip(self.found, widths, strict=True)):
            axes = figure.add_subplot(1, len(widths), i + 1)
            places = range(len(rows))
            axes.barh(places, [r[1] for r in rows], color="0.85", label="before")
            axes.barh(places, [r[2] for r in rows], color="tab:blue", height=0.5, label="after")
            for place, (_, before, _, mark) in enumerate(rows):
                if mark:
                    axes.text(before, place, f" {mark}", va="center", size=6, color="tab:red")
            axes.set_yticks(places, [r[0] for r in rows], size=6)
            axes.invert_yaxis()
            axes.set_xlabel("channels")
            axes.set_title(f"at most {one.budget:.4g} of the FLOPs", size=9)
            axes.legend(frameon=False, fontsize=7)
        return save_figure(figure, path)


_SHOWN = (
    ("flops", "FLOPs (multiply-adds)", 1.0),
    ("params", "parameters", 1.0),
    ("peak_memory", "peak memory of activations (MiB)", 2.0**20),
)


def _figure(value: float, unit: float) -> str:
    return f"{value / unit:,.0f}" if unit == 1.0 else f"{value / unit:.4g}"


def _ratio(before: float, after: float) -> str:
    return f"{after / before:.4f}" if before else ""


def _table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    lines = [headers, ["---"] * len(headers), *rows]
    return [*(f"| {' | '.join(str(c).replace('|', '/') for c in line)} |" for line in lines), ""]
