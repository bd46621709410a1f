"""What stands where in a picture of a compute graph, for every kind of picture.

There is one column for each stage (resolution), in which the data flow downwards. To stay readable,
normalisations, activations and moves of data join the box of what they follow, and a part that
comes several times in a row is drawn once.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from nni_aiop.errors import GraphError
from nni_aiop.graphs._families import FAMILIES, family
from nni_aiop.graphs._stages import Stage, short, stages
from nni_aiop.graphs._types import GraphLike, NodeLike

__all__ = [
    "COLOURS",
    "GAP",
    "ROW",
    "WIDTH",
    "Box",
    "Column",
    "Plan",
    "crossed",
    "follow_ups",
    "label_of",
    "plan_of",
]

COLOURS = dict(
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
WIDTH, GAP, ROW = 1.75, 0.25, 0.42  # inches


# --- boxes ---------------------------------------------------------------------------------------


@dataclass
class Box:
    """Nodes that are drawn together, and where."""

    places: list[int]
    row: int
    x: float = 0.0
    y: float = 0.0


@dataclass
class Column:
    """What is drawn of one stage."""

    stage: Stage
    boxes: list[Box] = field(default_factory=list)
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


def _columns(graph: GraphLike) -> tuple[list[Column], list[Box], list[int]]:
    """The columns, all their boxes, and for each node the index of its box.

    The nodes of a part that is drawn once are those of all its occurrences.
    """
    by_level: dict[int | None, list[list[int]]] = {}
    for places in _boxes(graph):
        by_level.setdefault(graph.levels[places[0]], []).append(places)
    columns: list[Column] = []
    boxes: list[Box] = []
    box_of = [0] * len(graph)
    for stage in stages(graph):
        groups = by_level[stage.level]
        local = {place: index for index, group in enumerate(groups) for place in group}
        sources = [[local[s] for s in graph.inputs[group[0]] if s in local] for group in groups]
        segments = _segments(sources)
        column = Column(stage)
        rows = [0] * len(groups)
        for start, length, times in _repeats(_signatures(graph, groups, sources, segments)):
            first = segments[start].start
            end = segments[start + length - 1].stop
            base = column.rows
            for index in range(first, end):
                rows[index] = max([base, *(rows[source] + 1 for source in sources[index])])
                for place in groups[index]:
                    box_of[place] = len(boxes)
                boxes.append(Box(groups[index], rows[index]))
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


def _arrange(columns: Sequence[Column]) -> tuple[float, int]:
    """Gives every box its place so that the picture is about as wide as a page.

    Returns:
        Inches to the right, and rows downwards.
    """
    longest = max(column.rows for column in columns)
    sizes = []
    for most in range(min(12, longest), longest + 1):
        width = sum(sum(_widths(column, most)) + 2 * GAP for column in columns)
        sizes.append((abs(math.log(width / (ROW * most + 4.0) / _ASPECT)), width, most))
    _, width, most = min(sizes)
    at = 0.0
    for column in columns:
        column.x = at
        widths = _widths(column, most)
        for row, members in _by_row(column).items():
            turn = row // most
            middle = at + sum(widths[:turn]) + widths[turn] / 2
            for number, box in enumerate(members):
                box.x = middle + (number - (len(members) - 1) / 2) * (WIDTH + GAP)
                box.y = -float(row % most)
        column.width = sum(widths)
        at += column.width + 2 * GAP
    return width, most


def _by_row(column: Column) -> dict[int, list[Box]]:
    found: dict[int, list[Box]] = {}
    for box in column.boxes:
        found.setdefault(box.row, []).append(box)
    return found


def _widths(column: Column, most: int) -> list[float]:
    """Inches of each turn of a column that begins anew at the top after `most` rows."""
    widest = [0] * (-(-column.rows // most))
    for row, members in _by_row(column).items():
        widest[row // most] = max(widest[row // most], len(members))
    return [count * (WIDTH + GAP) for count in widest]


def crossed(numbers: Sequence[int]) -> str:
    same = len(set(numbers)) == 1 and len(numbers) == 1
    return str(numbers[0]) if same else "×".join(map(str, numbers))


def label_of(node: NodeLike) -> str:
    """The operation as a person writes it: "conv 3×3 /2 64→128"."""
    words = [node.op]
    if node.op == "elementwise":
        words = [str(node.get("function"))]
    groups = node.get("groups", 1)
    if node.op == "conv" and groups > 1:
        words = ["depthwise"] if groups == node.output_shape[1] else ["conv", f"in {groups}"]
    if node.get("kernel"):
        words.append(crossed(node["kernel"]))
        if max(node["stride"]) > 1:
            words.append(f"/{max(node['stride'])}")
    if node.op in ("conv", "conv_transpose", "linear"):
        words.append(f"{node.input_shapes[0][1]}→{node.output_shape[1]}")
    elif node.op in ("attention", "input", "output"):
        words.append(crossed(node.output_shape))
    return " ".join(words)


def follow_ups(graph: GraphLike, places: Sequence[int]) -> str:
    text = " · ".join(label_of(graph.nodes[place]) for place in places)
    return text if len(text) <= 34 else text[:33] + "…"


def _summary(graph: GraphLike, columns: Sequence[Column]) -> None:
    """Puts the counts of operations in the place of a graph that is too large to be drawn."""
    for column in columns:
        kinds: dict[str, list[int]] = {}
        for place in column.stage.nodes:
            kinds.setdefault(graph.nodes[place].op, []).append(place)
        ordered = sorted(kinds.values(), key=lambda places: -len(places))
        column.boxes = [Box(places, row) for row, places in enumerate(ordered)]
        column.rows, column.folds = len(ordered), []


@dataclass(frozen=True)
class Plan:
    """What stands where: the same for every kind of picture.

    Attributes:
        columns: The stages.
        boxes: All boxes of a detailed picture.
        edges: Numbers of boxes that are joined, in order; none unless detailed.
        detailed: Whether each operation has a box, or the counts of operations stand there.
        width: Of all columns.
        rows: Of the longest.
        heading: The totals, behind the title if there is one.
    """

    columns: list[Column]
    boxes: list[Box]
    edges: list[tuple[int, int]]
    detailed: bool
    width: float
    rows: int
    heading: str


def plan_of(graph: GraphLike, title: str | None) -> Plan:
    """The plan of a graph's picture.

    Raises:
        GraphError: The graph has no nodes.
    """
    if not len(graph):
        raise GraphError("a picture must be of at least one node, but the graph has none.")
    columns, boxes, box_of = _columns(graph)
    detailed = len(boxes) <= _MOST_BOXES
    if not detailed:
        _summary(graph, columns)
    width, rows = _arrange(columns)
    ends = {(box_of[source], box_of[place]) for source, place in graph.edges} if detailed else ()
    totals = (
        f"{short(graph.cost.macs)} MACs, {short(graph.parameters)} parameters, {len(graph)} nodes"
    )
    heading = f"{title}: {totals}" if title else totals
    edges = sorted((a, b) for a, b in ends if a != b)
    return Plan(columns, boxes, edges, detailed, width, rows, heading)
