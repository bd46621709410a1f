"""Pictures of compute graphs: a PNG by resolution as figure 2 of AIO-P, and Graphviz's language.

The PNG has a column for each stage, and a bar for each stage's multiply-adds below.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nni_aiop.graphs._families import FAMILIES, family
from nni_aiop.graphs._picture import (
    COLOURS,
    GAP,
    ROW,
    WIDTH,
    Box,
    Column,
    crossed,
    follow_ups,
    label_of,
    plan_of,
)
from nni_aiop.graphs._stages import short, stages
from nni_aiop.graphs._types import GraphLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw", "to_dot"]

# --- PNG -----------------------------------------------------------------------------------------


def draw(graph: GraphLike, path: Path | str, *, title: str | None = None) -> Path:
    """The path of a PNG: the graph by stages, and the multiply-adds of each.

    Args:
        graph: What to draw; one that stays too large shows how often each operation occurs.
        path: The file to write.
        title: The heading; by default the totals.

    Raises:
        GraphError: The graph has no nodes.
    """
    from matplotlib.patches import Patch

    from nni_aiop.figures import new_figure, save_figure

    plan = plan_of(graph, title)
    columns, width, rows = plan.columns, plan.width, plan.rows
    height = ROW * (rows + 2)
    figure = new_figure(max(7.0, width + 1.0), height + 3.0)
    grid = figure.add_gridspec(2, 1, height_ratios=[height, 1.8])
    top = figure.add_subplot(grid[0])
    bars = figure.add_subplot(grid[1], sharex=top)
    top.set_xlim(-GAP, width - GAP)
    top.set_ylim(-rows, 1.6)
    top.axis("off")
    for column in columns:
        _draw_column(top, graph, column, plan.detailed)
    for source, target in plan.edges:
        _draw_edge(top, columns, plan.boxes[source], plan.boxes[target])
    _draw_bars(bars, graph, columns)
    drawn = (box for column in columns for box in column.boxes)
    present = {family(graph.nodes[box.places[0]].op) for box in drawn}
    figure.legend(
        handles=[Patch(color=COLOURS[name], label=name) for name in FAMILIES if name in present],
        loc="outside lower center",
        ncols=min(len(present), 6 if width < 10 else 11),
        frameon=False,
        fontsize=8,
    )
    figure.suptitle(plan.heading)
    return save_figure(figure, path)


def _draw_column(axes: Axes, graph: GraphLike, column: Column, detailed: bool) -> None:
    from matplotlib.patches import FancyBboxPatch

    middle = column.x + column.width / 2
    shape = crossed(column.stage.output_shape)
    axes.text(middle, 1.45, column.stage.name, ha="center", va="top", fontsize=10, weight="bold")
    count = len(column.stage.nodes)
    note = f"{count} node{'s' * (count > 1)}, to {shape}"
    axes.text(middle, 0.95, note, ha="center", va="top", fontsize=6.5, color="0.35")
    for first, last, times in column.folds:
        _draw_frame(axes, [box for box in column.boxes if first <= box.row <= last], times)
    for box in column.boxes:
        first_node = graph.nodes[box.places[0]]
        patch = FancyBboxPatch(
            (box.x - WIDTH / 2, box.y - 0.33),
            WIDTH,
            0.66,
            boxstyle="round,pad=0,rounding_size=0.06",
            facecolor=COLOURS[family(first_node.op)],
            edgecolor="0.4",
            linewidth=0.5,
            zorder=2,
        )
        axes.add_patch(patch)
        rest = follow_ups(graph, box.places[1:]) if detailed else ""
        label = label_of(first_node) if detailed else f"{first_node.op} ×{len(box.places)}"
        up = 0.14 if rest else 0.0
        axes.text(box.x, box.y + up, label, ha="center", va="center", fontsize=7, zorder=3)
        if rest:
            axes.text(
                box.x, box.y - 0.16, rest, ha="center", va="center", fontsize=5.5, color="0.3",
                zorder=3,
            )  # fmt: skip


def _draw_frame(axes: Axes, boxes: Sequence[Box], times: int) -> None:
    """A frame around boxes, one in each turn of their column, with how often they come."""
    from matplotlib.patches import FancyBboxPatch

    turns: dict[int, list[Box]] = {}
    for box in boxes:
        turns.setdefault(round(box.row + box.y), []).append(box)
    for within in turns.values():
        left, right = min(box.x for box in within), max(box.x for box in within)
        low, high = min(box.y for box in within), max(box.y for box in within)
        frame = FancyBboxPatch(
            (left - WIDTH / 2 - 0.08, low - 0.42),
            right - left + WIDTH + 0.16,
            high - low + 0.84,
            boxstyle="round,pad=0,rounding_size=0.1",
            facecolor="#f7f7f7",
            edgecolor="0.5",
            linestyle="--",
            linewidth=0.8,
            zorder=0,
        )
        axes.add_patch(frame)
        axes.text(
            right + WIDTH / 2 + 0.05,
            high + 0.41,
            f"×{times}",
            ha="right",
            va="center",
            fontsize=8,
            weight="bold",
            zorder=4,
            bbox={"facecolor": "white", "edgecolor": "0.5", "pad": 1.2, "linewidth": 0.6},
        )


def _draw_edge(axes: Axes, columns: Sequence[Column], source: Box, target: Box) -> None:
    from matplotlib.patches import FancyArrowPatch

    column = {id(box): number for number, c in enumerate(columns) for box in c.boxes}
    same = column[id(source)] == column[id(target)]
    if same and target.row <= source.row:
        return  # from one occurrence of a part to the next
    style, start, end = "arc3,rad=0", (source.x, source.y - 0.33), (target.x, target.y + 0.33)
    colour = "0.35"
    if same and target.row > source.row + 1 and target.x == source.x and target.y < source.y:
        # Around the boxes between them, on the left.
        start = (source.x - WIDTH / 2, source.y)
        end = (target.x - WIDTH / 2, target.y)
        length = source.y - target.y
        style = f"bar,fraction={min(0.08 + 0.015 * length, 0.22) / length:.4f}"
    elif not same or target.y > source.y:
        colour = "#8c8cc0"
        forward = target.x > source.x
        start = (source.x + (WIDTH / 2 if forward else -WIDTH / 2), source.y)
        end = (target.x - (WIDTH / 2 if forward else -WIDTH / 2), target.y)
    arrow = FancyArrowPatch(
        start, end, connectionstyle=style, arrowstyle="-|>", mutation_scale=5, color=colour,
        linewidth=0.6, shrinkA=0, shrinkB=0, zorder=1, alpha=0.8,
    )  # fmt: skip
    axes.add_patch(arrow)


def _draw_bars(axes: Axes, graph: GraphLike, columns: Sequence[Column]) -> None:
    whole = max(graph.cost.macs, 1)
    centres = [column.x + column.width / 2 for column in columns]
    macs = [column.stage.macs for column in columns]
    axes.bar(centres, macs, width=0.6 * WIDTH, color=COLOURS["convolution"], edgecolor="0.4")
    for centre, column in zip(centres, columns, strict=True):
        stage = column.stage
        text = f"{short(stage.macs)} ({stage.macs / whole:.0%})\n{short(stage.parameters)} params"
        axes.annotate(
            text, (centre, stage.macs), (0, 2), textcoords="offset points", ha="center",
            va="bottom", fontsize=7,
        )  # fmt: skip
    axes.set_ylim(0, 1.35 * max(*macs, 1))
    axes.set_ylabel("MACs by stage", fontsize=8)
    axes.set_yticks([])
    axes.set_xticks(centres, [column.stage.name for column in columns])
    axes.spines[["top", "right", "left"]].set_visible(False)


# --- Graphviz ------------------------------------------------------------------------------------


def to_dot(graph: GraphLike) -> str:
    """The graph in Graphviz's language: all its nodes, those of a stage in one frame."""
    lines = [
        "digraph network {",
        "  rankdir=TB;",
        '  node [shape=box, style="rounded,filled", fontname="Helvetica", fontsize=10];',
    ]
    for number, stage in enumerate(stages(graph)):
        label = f"{stage.name}: {short(stage.macs)} MACs, {short(stage.parameters)} parameters"
        lines += [f"  subgraph cluster_{number} {{", f"    label={_quoted(label)};"]
        for place in stage.nodes:
            node = graph.nodes[place]
            text = f"{label_of(node)}\n{crossed(node.output_shape)}"
            lines.append(
                f"    n{place} [label={_quoted(text)}, "
                f"tooltip={_quoted(f'{graph.names[place]}: {node}')}, "
                f'fillcolor="{COLOURS[family(node.op)]}"];'
            )
        lines.append("  }")
    lines += [f"  n{source} -> n{place};" for source, place in graph.edges]
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
