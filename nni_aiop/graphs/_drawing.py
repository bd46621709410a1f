"""Pictures of compute graphs: a PNG by resolution as figure 2 of AIO-P, and Graphviz's language.

The picture has one column for each stage (resolution), the data flow downwards in each, and a bar
for each stage's multiply-adds below. To stay readable, normalisations, activations and moves of
data join the box of what they follow, and a part that comes several times in a row is drawn once.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from nni_aiop.errors import GraphError
from nni_aiop.graphs._families import FAMILIES, family
from nni_aiop.graphs._stages import Stage, short, stages
from nni_aiop.graphs._types import GraphLike, NodeLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nni_aiop.graphs._stages import Stage, short, stages

__all__ = ["draw", "to_dot"]

_COLOURS = dict(
    zip(
        FAMILIES,
        (
            "#d9d9d9", "#9ecae1", "#a1d99b", "#74c476", "#c7e9c0", "#fdd0a2", "#dadaeb",
            "#fcbba1", "#fff2ae", "#f0f0f0", "#ff7f7f",
        ),
        strict=True,
    )
)  # fmt: skip
_ALL = ("normalisation", "activation", "layout")
_FOLLOWERS = {"ends": (), "arithmetic": ("activation",)}
_ASPECT = 1.8
_MOST_BOXES = 250
_WIDTH, _GAP, _ROW = 1.75, 0.25, 0.42  # inches


# --- boxes ---------------------------------------------------------------------------------------


@dataclass
class _Box:
    """Nodes that are drawn together, and where."""

    places: list[int]
    row: int
    x: float = 0.0
    y: float = 0.0


@dataclass
class _Column:
    """What is drawn of one stage."""

    stage: Stage
    boxes: list[_Box] = field(default_factory=list)
    folds: list[tuple[int, int, int]] = field(default_factory=list)  # first row, last row, times
    x: float = 0.0
    width: float = 0.0
    rows: int = 0


def _boxes(graph: GraphLike) -> list[list[int]]:
    """Places of each box: an operation and what only follows it."""
    read_by = Counter(source for source, _ in graph.edges)
    found: dict[int, list[int]] = {}
    for place, (node, sources) in enumerate(zip(graph.nodes, graph.inputs, strict=True)):
        if (
            len(sources) == 1
            and read_by[sources[0]] == 1
            and family(node.op) in _FOLLOWERS.get(family(graph.nodes[sources[0]].op), _ALL)
            and graph.levels[sources[0]] == graph.levels[place]
        ):
            box = found[sources[0]]
            box.append(place)
            found[place] = box
        else:
            found[place] = [place]

    def order(box: list[int]) -> tuple[int, list[bytes]]:
        # Among twins in depth the order must not depend on what lies around them.
        return graph.depth[box[0]], [graph.nodes[place].digest for place in box]

    return sorted({id(box): box for box in found.values()}.values(), key=order)


def _segments(sources: Sequence[Sequence[int]]) -> list[range]:
    """Runs of boxes that a single box parts from what follows, no edge going around it."""
    furthest = list(range(len(sources)))
    for place, read in enumerate(sources):
        for source in read:
            furthest[source] = max(furthest[source], place)
    found, start, reach = [], 0, 0
    for place in range(len(sources)):
        if reach <= place:
            found.append(range(start, place + 1))
            start = place + 1
        reach = max(reach, furthest[place])
    if start < len(sources):
        found.append(range(start, len(sources)))
    return found


def _repeats(items: Sequence[object]) -> list[tuple[int, int, int]]:
    """(start, length, times) of the runs of items; those that come several times in a row once."""
    found = []
    start = 0
    while start < len(items):
        best = (0, 1, 1)
        for length in range(1, (len(items) - start) // 2 + 1):
            times = 1
            one = items[start : start + length]
            while items[start + times * length : start + (times + 1) * length] == one:
                times += 1
            best = max(best, (length * (times - 1), length, times), key=lambda b: (b[0], -b[1]))
        _, length, times = best
        found.append((start, length, times))
        start += length * times
    return found


def _columns(graph: GraphLike) -> tuple[list[_Column], list[_Box], list[int]]:
    """The columns, all their boxes, and for each node the index of its box.

    The nodes of a part that is drawn once are those of all its occurrences.
    """
    by_level: dict[int | None, list[list[int]]] = {}
    for places in _boxes(graph):
        by_level.setdefault(graph.levels[places[0]], []).append(places)
    columns: list[_Column] = []
    boxes: list[_Box] = []
    box_of = [0] * len(graph)
    for stage in stages(graph):
        groups = by_level[stage.level]
        local = {place: index for index, group in enumerate(groups) for place in group}
        sources = [[local[s] for s in graph.inputs[group[0]] if s in local] for group in groups]
        segments = _segments(sources)
        column = _Column(stage)
        rows = [0] * len(groups)
        for start, length, times in _repeats(_signatures(graph, groups, sources, segments)):
            first = segments[start].start
            end = segments[start + length - 1].stop
            base = column.rows
            for index in range(first, end):
                rows[index] = max([base, *(rows[source] + 1 for source in sources[index])])
                for place in groups[index]:
                    box_of[place] = len(boxes)
                boxes.append(_Box(groups[index], rows[index]))
                column.boxes.append(boxes[-1])
            column.rows = 1 + max(box.row for box in column.boxes)
            for index in range(end, segments[start + length * times - 1].stop):
                twin = first + (index - first) % (end - first)
                rows[index] = rows[twin]
                for place in groups[index]:
                    box_of[place] = box_of[groups[twin][0]]
            if times > 1:
                column.folds.append((base, column.rows - 1, times))
        columns.append(column)
    return columns, boxes, box_of


def _signatures(
    graph: GraphLike,
    groups: Sequence[Sequence[int]],
    sources: Sequence[Sequence[int]],
    segments: Sequence[range],
) -> list[int]:
    """A number for each segment; segments that look alike share it."""
    known: dict[object, int] = {}
    found = []
    for segment in segments:
        looks = tuple(
            (
                tuple(graph.nodes[place].digest for place in groups[index]),
                tuple(sorted(index - source for source in sources[index])),
            )
            for index in segment
        )
        found.append(known.setdefault(looks, len(known)))
    return found


# --- where and how -------------------------------------------------------------------------------


def _arrange(columns: Sequence[_Column]) -> tuple[float, int]:
    """Gives every box its place so that the picture is about as wide as a page.

    Returns:
        Inches to the right, and rows downwards.
    """
    longest = max(column.rows for column in columns)
    sizes = []
    for most in range(min(12, longest), longest + 1):
        width = sum(sum(_widths(column, most)) + 2 * _GAP for column in columns)
        sizes.append((abs(math.log(width / (_ROW * most + 4.0) / _ASPECT)), width, most))
    _, width, most = min(sizes)
    at = 0.0
    for column in columns:
        column.x = at
        widths = _widths(column, most)
        for row, members in _by_row(column).items():
            turn = row // most
            middle = at + sum(widths[:turn]) + widths[turn] / 2
            for number, box in enumerate(members):
                box.x = middle + (number - (len(members) - 1) / 2) * (_WIDTH + _GAP)
                box.y = -float(row % most)
        column.width = sum(widths)
        at += column.width + 2 * _GAP
    return width, most


def _by_row(column: _Column) -> dict[int, list[_Box]]:
    found: dict[int, list[_Box]] = {}
    for box in column.boxes:
        found.setdefault(box.row, []).append(box)
    return found


def _widths(column: _Column, most: int) -> list[float]:
    """Inches of each turn of a column that begins anew at the top after `most` rows."""
    widest = [0] * (-(-column.rows // most))
    for row, members in _by_row(column).items():
        widest[row // most] = max(widest[row // most], len(members))
    return [count * (_WIDTH + _GAP) for count in widest]


def _by(numbers: Sequence[int]) -> str:
    same = len(set(numbers)) == 1 and len(numbers) == 1
    return str(numbers[0]) if same else "×".join(map(str, numbers))


def _label(node: NodeLike) -> str:
    """The operation as a person writes it: "conv 3×3 /2 64→128"."""
    words = [node.op]
    if node.op == "elementwise":
        words = [str(node.get("function"))]
    groups = node.get("groups", 1)
    if node.op == "conv" and groups > 1:
        words = ["depthwise"] if groups == node.output_shape[1] else ["conv", f"in {groups}"]
    if node.get("kernel"):
        words.append(_by(node["kernel"]))
        if max(node["stride"]) > 1:
            words.append(f"/{max(node['stride'])}")
    if node.op in ("conv", "conv_transpose", "linear"):
        words.append(f"{node.input_shapes[0][1]}→{node.output_shape[1]}")
    elif node.op in ("attention", "input", "output"):
        words.append(_by(node.output_shape))
    return " ".join(words)


def _follow_ups(graph: GraphLike, places: Sequence[int]) -> str:
    text = " · ".join(_label(graph.nodes[place]) for place in places)
    return text if len(text) <= 34 else text[:33] + "…"


def _summary(graph: GraphLike, columns: Sequence[_Column]) -> None:
    """Puts the counts of operations in the place of a graph that is too large to be drawn."""
    for column in columns:
        kinds: dict[str, list[int]] = {}
        for place in column.stage.nodes:
            kinds.setdefault(graph.nodes[place].op, []).append(place)
        ordered = sorted(kinds.values(), key=lambda places: -len(places))
        column.boxes = [_Box(places, row) for row, places in enumerate(ordered)]
        column.rows, column.folds = len(ordered), []


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

    if not len(graph):
        raise GraphError("a picture must be of at least one node, but the graph has none.")
    columns, boxes, box_of = _columns(graph)
    detailed = len(boxes) <= _MOST_BOXES
    if not detailed:
        _summary(graph, columns)
    width, rows = _arrange(columns)
    height = _ROW * (rows + 2)
    figure = new_figure(max(7.0, width + 1.0), height + 3.0)
    grid = figure.add_gridspec(2, 1, height_ratios=[height, 1.8])
    top = figure.add_subplot(grid[0])
    bars = figure.add_subplot(grid[1], sharex=top)
    top.set_xlim(-_GAP, width - _GAP)
    top.set_ylim(-rows, 1.6)
    top.axis("off")
    for column in columns:
        _draw_column(top, graph, column, detailed)
    if detailed:
        edges = {(box_of[source], box_of[place]) for source, place in graph.edges}
        for source, target in sorted(edges):
            if source != target:
                _draw_edge(top, columns, boxes[source], boxes[target])
    _draw_bars(bars, graph, columns)
    drawn = (box for column in columns for box in column.boxes)
    present = {family(graph.nodes[box.places[0]].op) for box in drawn}
    figure.legend(
        handles=[Patch(color=_COLOURS[name], label=name) for name in FAMILIES if name in present],
        loc="outside lower center",
        ncols=min(len(present), 6 if width < 10 else 11),
        frameon=False,
        fontsize=8,
    )
    totals = (
        f"{short(graph.cost.macs)} MACs, {short(graph.parameters)} parameters, {len(graph)} nodes"
    )
    figure.suptitle(f"{title}: {totals}" if title else totals)
    return save_figure(figure, path)


def _draw_column(axes: Axes, graph: GraphLike, column: _Column, detailed: bool) -> None:
    from matplotlib.patches import FancyBboxPatch

    middle = column.x + column.width / 2
    shape = _by(column.stage.output_shape)
    axes.text(middle, 1.45, column.stage.name, ha="center", va="top", fontsize=10, weight="bold")
    count = len(column.stage.nodes)
    note = f"{count} node{'s' * (count > 1)}, to {shape}"
    axes.text(middle, 0.95, note, ha="center", va="top", fontsize=6.5, color="0.35")
    for first, last, times in column.folds:
        _draw_frame(axes, [box for box in column.boxes if first <= box.row <= last], times)
    for box in column.boxes:
        first_node = graph.nodes[box.places[0]]
        patch = FancyBboxPatch(
            (box.x - _WIDTH / 2, box.y - 0.33),
            _WIDTH,
            0.66,
            boxstyle="round,pad=0,rounding_size=0.06",
            facecolor=_COLOURS[family(first_node.op)],
            edgecolor="0.4",
            linewidth=0.5,
            zorder=2,
        )
        axes.add_patch(patch)
        rest = _follow_ups(graph, box.places[1:]) if detailed else ""
        label = _label(first_node) if detailed else f"{first_node.op} ×{len(box.places)}"
        up = 0.14 if rest else 0.0
        axes.text(box.x, box.y + up, label, ha="center", va="center", fontsize=7, zorder=3)
        if rest:
            axes.text(
                box.x, box.y - 0.16, rest, ha="center", va="center", fontsize=5.5, color="0.3",
                zorder=3,
            )  # fmt: skip


def _draw_frame(axes: Axes, boxes: Sequence[_Box], times: int) -> None:
    """A frame around boxes, one in each turn of their column, with how often they come."""
    from matplotlib.patches import FancyBboxPatch

    turns: dict[int, list[_Box]] = {}
    for box in boxes:
        turns.setdefault(round(box.row + box.y), []).append(box)
    for within in turns.values():
        left, right = min(box.x for box in within), max(box.x for box in within)
        low, high = min(box.y for box in within), max(box.y for box in within)
        frame = FancyBboxPatch(
            (left - _WIDTH / 2 - 0.08, low - 0.42),
            right - left + _WIDTH + 0.16,
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
            right + _WIDTH / 2 + 0.05,
            high + 0.41,
            f"×{times}",
            ha="right",
            va="center",
            fontsize=8,
            weight="bold",
            zorder=4,
            bbox={"facecolor": "white", "edgecolor": "0.5", "pad": 1.2, "linewidth": 0.6},
        )


def _draw_edge(axes: Axes, columns: Sequence[_Column], source: _Box, target: _Box) -> None:
    from matplotlib.patches import FancyArrowPatch

    column = {id(box): number for number, c in enumerate(columns) for box in c.boxes}
    same = column[id(source)] == column[id(target)]
    if same and target.row <= source.row:
        return  # from one occurrence of a part to the next
    style, start, end = "arc3,rad=0", (source.x, source.y - 0.33), (target.x, target.y + 0.33)
    colour = "0.35"
    if same and target.row > source.row + 1 and target.x == source.x and target.y < source.y:
        # Around the boxes between them, on the left.
        start = (source.x - _WIDTH / 2, source.y)
        end = (target.x - _WIDTH / 2, target.y)
        length = source.y - target.y
        style = f"bar,fraction={min(0.08 + 0.015 * length, 0.22) / length:.4f}"
    elif not same or target.y > source.y:
        colour = "#8c8cc0"
        forward = target.x > source.x
        start = (source.x + (_WIDTH / 2 if forward else -_WIDTH / 2), source.y)
        end = (target.x - (_WIDTH / 2 if forward else -_WIDTH / 2), target.y)
    arrow = FancyArrowPatch(
        start, end, connectionstyle=style, arrowstyle="-|>", mutation_scale=5, color=colour,
        linewidth=0.6, shrinkA=0, shrinkB=0, zorder=1, alpha=0.8,
    )  # fmt: skip
    axes.add_patch(arrow)


def _draw_bars(axes: Axes, graph: GraphLike, columns: Sequence[_Column]) -> None:
    whole = max(graph.cost.macs, 1)
    centres = [column.x + column.width / 2 for column in columns]
    macs = [column.stage.macs for column in columns]
    axes.bar(centres, macs, width=0.6 * _WIDTH, color=_COLOURS["convolution"], edgecolor="0.4")
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
            text = f"{_label(node)}\n{_by(node.output_shape)}"
            lines.append(
                f"    n{place} [label={_quoted(text)}, "
                f"tooltip={_quoted(f'{graph.names[place]}: {node}')}, "
                f'fillcolor="{_COLOURS[family(node.op)]}"];'
            )
        lines.append("  }")
    lines += [f"  n{source} -> n{place};" for source, place in graph.edges]
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
