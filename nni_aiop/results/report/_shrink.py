"""The part of a page that is about one network: before and after."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from nni_aiop.results.report._html import cells

__all__ = ["shrink_data", "shrink_sections", "shrink_tiles"]

_SHOWN = 400  # rows of a table


def shrink_tiles(shrunk: dict[str, Any]) -> list[tuple[str, str]]:
    """(number, what it is) of each key figure."""
    made = []
    for network in shrunk["networks"]:
        name, _, after, ratio = network["rows"][0]
        made.append((f"{ratio or after}", f"of the {name}, at most {network['budget']:.4g}"))
    return made


def shrink_data(shrunk: dict[str, Any]) -> dict[str, Any]:
    """The data behind the figures."""
    objective = shrunk.get("objective")
    return {
        "metric": None if objective is None else objective["metric"],
        "front": shrunk.get("front"),
        "networks": [
            {"budget": network["budget"], "widths": network["widths"]}
            for network in shrunk["networks"]
        ],
    }


def shrink_sections(shrunk: dict[str, Any]) -> list[str]:
    """The sections, in HTML."""
    sections = [_before_and_after(shrunk)]
    if shrunk.get("front") is not None:
        sections.append(
            "<section><h2>The budgets</h2>"
            '<p class="note">What fine-tuning gave against the part of the multiply-adds that is '
            "kept; a diamond is the best within a budget.</p>"
            '<div class="figure" id="budgets"></div></section>'
        )
    if any(network["widths"] for network in shrunk["networks"]):
        options = "".join(
            f'<option value="{i}">at most {network["budget"]:.4g} of the multiply-adds</option>'
            for i, network in enumerate(shrunk["networks"])
        )
        sections.append(
            "<section><h2>What was cut where</h2>"
            '<p class="note">Channels of each layer, before (grey) and after (blue), in the order '
            "of the network.</p>"
            f'<div class="choose"><label>network <select id="layers-of">{options}</select></label>'
            '</div><div class="figure" id="layers"></div></section>'
        )
    sections.append(_edits(shrunk))
    return sections


def _before_and_after(shrunk: dict[str, Any]) -> str:
    parts = ["<section><h2>Before and after</h2>"]
    for network in shrunk["networks"]:
        parts.append(f"<h3>At most {network['budget']:.6g} of the FLOPs (multiply-adds)</h3>")
        rows = [tuple(map(str, row)) for row in network["rows"]]
        parts.append(cells(("", "before", "after", "after / before"), rows, numbers=(1, 2, 3)))
        parts.append(f'<p class="note">Files: {escape(", ".join(network["files"]))}.</p>')
    if not shrunk["networks"]:
        parts.append("<p>No network was found within the budgets.</p>")
    return "\n".join([*parts, "</section>"])


def _edits(shrunk: dict[str, Any]) -> str:
    parts = ["<section><h2>The edits</h2>"]
    for network in shrunk["networks"]:
        edits: Sequence[Sequence[Any]] = network["edits"]
        rows = [tuple(map(str, row)) for row in edits[:_SHOWN]]
        more = f", of which {_SHOWN} are shown" if len(edits) > _SHOWN else ""
        parts.append(
            f"<details><summary>At most {network['budget']:.4g}: {len(edits)} edits{more}</summary>"
        )
        parts += [cells(("site", "before", "after"), rows), "</details>"]
    frozen = shrunk.get("frozen") or []
    if frozen:
        rows = [tuple(map(str, row)) for row in frozen[:_SHOWN]]
        parts.append(f"<details><summary>{len(frozen)} sites could not be edited</summary>")
        parts += [cells(("site", "reason"), rows), "</details>"]
    return "\n".join([*parts, "</section>"])
