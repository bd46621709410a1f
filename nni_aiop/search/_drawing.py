"""A propagation as a picture (figure 3 of Ding et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from nni_aiop.figures import new_figure, save_figure
from nni_aiop.search._propagation import Propagation

_PANELS = 8


def draw_propagation(
    run: Propagation,
    path: Path | str,
    *,
    start: int = 0,
    groups: Mapping[str, Sequence[str]] | None = None,
) -> Path:
    """The path, which now holds a PNG of one start's way: a panel for each group of dimensions.

    Each line is one dimension of the architecture that the code rounds to, in its value where it is
    a number and in the number of its value where not. Two more panels show the prediction of each
    task and the exact costs, relative to the start.

    Args:
        run: What `propagate` returned.
        path: The PNG file.
        start: Which start is drawn.
        groups: Title and labels of each panel; by default eight panels of neighbouring dimensions.
    """
    from matplotlib.ticker import MaxNLocator

    space = run.space
    if groups is None:
        chunks = np.array_split(np.array(space.labels), min(_PANELS, len(space.labels)))
        groups = {", ".join((c[0], c[-1]) if len(c) > 1 else c): c.tolist() for c in chunks}
    panels = [*groups.items(), ("predicted", ()), ("exact cost / start's", ())]
    rows = (len(panels) + 1) // 2
    figure = new_figure(9, 1.7 * rows)
    steps = np.arange(len(run.points))
    axes = figure.subplots(rows, 2, sharex=True, squeeze=False)
    for axis, (title, labels) in zip(axes.flat, panels, strict=False):
        if title == "predicted":
            lines = {name: values[:, start] for name, values in run.predicted.items()}
        elif title.startswith("exact"):
            lines = {name: v[:, start] / v[0, start] for name, v in run.costs.items()}
        else:
            lines = {label: _values(run, start, label) for label in labels}
        for name, values in lines.items():
            axis.plot(steps, values, label=name, linewidth=1.3)
        axis.set_title(title, fontsize="small")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
        if lines:
            axis.legend(fontsize=6, ncols=2, loc="center left", bbox_to_anchor=(1, 0.5))
    for axis in list(axes.flat)[len(panels) :]:
        axis.set_axis_off()
    figure.supxlabel("iteration", fontsize="small")
    return save_figure(figure, path)


def _values(run: Propagation, start: int, label: str) -> np.ndarray:
    j = run.space.labels.index(label)
    points = run.points[:, start, j]
    values = run.space.dimensions[j].values_of(points)
    numbers = all(isinstance(v, (int, float)) for v in values)
    return np.asarray(values if numbers else points, dtype=np.float64)
