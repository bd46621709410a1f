"""The picture of a compute graph as SVG: as `draw` has it, in a hundredth of the time.

It is text of some ten thousand characters that is sharp at any size, which suits a page.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

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
from nni_aiop.graphs._stages import short
from nni_aiop.graphs._types import GraphLike

__all__ = ["to_svg"]

_ACROSS, _DOWN = 96.0, 96.0 * ROW  # pixels of a unit of the drawing
_TOP, _BARS, _BELOW = 78.0, 90.0, 92.0  # pixels of the heading, the bars, and what is below them
_TALL = 0.66 * _DOWN  # of a box


def to_svg(graph: GraphLike, *, title: str | None = None) -> str:
    """The graph by stages and the multiply-adds of each, as a file of SVG.

    Args:
        graph: What to draw; one that stays too large shows how often each operation occurs.
        title: Stands before the totals.

    Raises:
        GraphError: The graph has no nodes.
    """
    plan = plan_of(graph, title)
    columns, boxes = plan.columns, plan.boxes
    right = max(plan.width * _ACROSS, 480.0)
    low = _TOP + plan.rows * _DOWN
    parts = [_text(right / 2, 18, plan.heading, 14, "bold")]
    for column in columns:
        parts += _column(graph, column, plan.detailed)
    where = {id(box): number for number, c in enumerate(columns) for box in c.boxes}
    lines = [_edge(boxes[source], boxes[target], where) for source, target in plan.edges]
    parts = [*(line for line in lines if line), *parts]
    parts += _bars(graph, columns, low)
    parts += _legend(graph, columns, right, low + _BARS + _BELOW - 14)
    size = f"{right:.0f} {low + _BARS + _BELOW:.0f}"
    across, down = size.split()
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{across}" height="{down}" '
        f'viewBox="0 0 {size}" font-family="Helvetica, Arial, sans-serif">\n'
        '<defs><marker id="tip" viewBox="0 0 6 6" refX="6" refY="3" markerWidth="5" '
        'markerHeight="5" orient="auto"><path d="M0 0L6 3L0 6z" fill="#666"/></marker></defs>\n'
        '<rect width="100%" height="100%" fill="#fff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _x(x: float) -> float:
    return (x + GAP) * _ACROSS


def _y(y: float) -> float:
    return _TOP + (0.5 - y) * _DOWN


def _text(x: float, y: float, text: str, size: float, weight: str = "normal", fill: str = "#222",
          anchor: str = "middle") -> str:  # fmt: skip
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" font-weight="{weight}" fill="{fill}" '
        f'text-anchor="{anchor}">{escape(text)}</text>'
    )


def _rect(x: float, y: float, width: float, height: float, more: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" {more}/>'


def _column(graph: GraphLike, column: Column, detailed: bool) -> list[str]:
    middle = _x(column.x + column.width / 2)
    count = len(column.stage.nodes)
    note = f"{count} node{'s' * (count > 1)}, to {crossed(column.stage.output_shape)}"
    parts = [
        _text(middle, 44, column.stage.name, 13, "bold"),
        _text(middle, 60, note, 9, fill="#666"),
    ]
    for first, last, times in column.folds:
        parts += _frame([box for box in column.boxes if first <= box.row <= last], times)
    for box in column.boxes:
        node = graph.nodes[box.places[0]]
        x, y = _x(box.x), _y(box.y)
        look = f'rx="5" fill="{COLOURS[family(node.op)]}" stroke="#777" stroke-width="0.7"'
        wide = WIDTH * _ACROSS
        parts.append(_rect(x - wide / 2, y - _TALL / 2, wide, _TALL, look))
        rest = follow_ups(graph, box.places[1:]) if detailed else ""
        label = label_of(node) if detailed else f"{node.op} ×{len(box.places)}"
        parts.append(_text(x, y + (-1 if rest else 4), label, 10))
        if rest:
            parts.append(_text(x, y + 10, rest, 7.5, fill="#555"))
    return parts


def _frame(boxes: Sequence[Box], times: int) -> list[str]:
    """A frame around boxes, one in each turn of their column, with how often they come."""
    turns: dict[int, list[Box]] = {}
    for box in boxes:
        turns.setdefault(round(box.row + box.y), []).append(box)
    parts = []
    for within in turns.values():
        left = _x(min(box.x for box in within) - WIDTH / 2) - 7
        right = _x(max(box.x for box in within) + WIDTH / 2) + 7
        top = _y(max(box.y for box in within)) - 0.43 * _DOWN
        low = _y(min(box.y for box in within)) + 0.43 * _DOWN
        look = 'rx="9" fill="none" stroke="#777" stroke-dasharray="5 3"'
        parts.append(_rect(left, top, right - left, low - top, look))
        parts.append(_rect(right - 24, top - 8, 26, 15, 'rx="3" fill="#fff" stroke="#777"'))
        parts.append(_text(right - 11, top + 3.5, f"×{times}", 10, "bold"))
    return parts


def _edge(source: Box, target: Box, where: dict[int, int]) -> str:
    """An arrow between two boxes; empty from one occurrence of a part to the next."""
    same = where[id(source)] == where[id(target)]
    if same and target.row <= source.row:
        return ""
    half = WIDTH * _ACROSS / 2
    from_x, from_y, to_x, to_y = _x(source.x), _y(source.y), _x(target.x), _y(target.y)
    colour = "#666"
    if same and target.row > source.row + 1 and target.x == source.x and target.y < source.y:
        # Around the boxes between them, on the left.
        out = from_x - half - min(4 + 2.5 * (source.y - target.y), 20)
        path = f"M{from_x - half:.1f} {from_y:.1f}H{out:.1f}V{to_y:.1f}H{to_x - half:.1f}"
    elif not same or target.y > source.y:
        colour = "#8c8cc0"
        side = 1 if target.x > source.x else -1
        start, end = from_x + side * half, to_x - side * half
        turn = (start + end) / 2
        path = f"M{start:.1f} {from_y:.1f}C{turn:.1f} {from_y:.1f} {turn:.1f} {to_y:.1f} "
        path += f"{end:.1f} {to_y:.1f}"
    else:
        path = f"M{from_x:.1f} {from_y + _TALL / 2:.1f}L{to_x:.1f} {to_y - _TALL / 2:.1f}"
    return (
        f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1" opacity="0.85" '
        'marker-end="url(#tip)"/>'
    )


def _bars(graph: GraphLike, columns: Sequence[Column], top: float) -> list[str]:
    """The multiply-adds of each stage, below its column."""
    whole, most = max(graph.cost.macs, 1), max(1, *(c.stage.macs for c in columns))
    floor = top + _BARS + 30
    parts = [_text(8, floor + 17, "MACs by stage", 9, fill="#666", anchor="start")]
    for column in columns:
        stage, x = column.stage, _x(column.x + column.width / 2)
        tall = _BARS * stage.macs / most
        wide = 0.6 * WIDTH * _ACROSS
        look = f'fill="{COLOURS["convolution"]}" stroke="#777" stroke-width="0.7"'
        parts.append(_rect(x - wide / 2, floor - tall, wide, tall, look))
        parts.append(
            _text(x, floor - tall - 16, f"{short(stage.macs)} ({stage.macs / whole:.0%})", 9)
        )
        parts.append(_text(x, floor - tall - 5, f"{short(stage.parameters)} params", 9))
        parts.append(_text(x, floor + 17, stage.name, 10))
    return parts


def _legend(graph: GraphLike, columns: Sequence[Column], right: float, y: float) -> list[str]:
    drawn = (box for column in columns for box in column.boxes)
    present = {family(graph.nodes[box.places[0]].op) for box in drawn}
    names = [name for name in FAMILIES if name in present]
    step = min(right / len(names), 110.0)
    x = (right - step * len(names)) / 2 + 8
    parts = []
    for i, name in enumerate(names):
        look = f'fill="{COLOURS[name]}" stroke="#777" stroke-width="0.7"'
        parts.append(_rect(x + i * step, y - 9, 11, 11, look))
        parts.append(_text(x + i * step + 15, y, name, 9.5, anchor="start"))
    return parts
