"""What a page says, section by section; its figures are drawn by `page.js`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Any

from nni_aiop.files import plain
from nni_aiop.results._units import spelled
from nni_aiop.results.report._content import AXES, LINES, content_of, importance_in, shown
from nni_aiop.results.report._drawings import Drawing
from nni_aiop.results.report._folder import HISTORY, Evaluations
from nni_aiop.results.report._html import cells, data_uri, document, tiles
from nni_aiop.results.report._importance import LEVEL, Importance
from nni_aiop.results.report._shrink import shrink_data, shrink_sections, shrink_tiles

__all__ = ["page"]

_SURE = 0.5  # of the variance, below which importance is a guess


def page(
    found: Evaluations | None,
    shrunk: dict[str, Any] | None,
    drawings: Sequence[Drawing],
    undrawn: str,
) -> str:
    """The page, in HTML.

    Args:
        found: The evaluations of a search; None where there was none.
        shrunk: What report.json says of a network that was shrunk.
        drawings: Pictures of the best.
        undrawn: Why others are not drawn.
    """
    sections: list[str] = []
    data: dict[str, Any] = {"n": 0, "objectives": [], "limits": {}, "names": {}, "dimensions": []}
    data |= {"metrics": {}, "costs": {}, "failed": [], "outside": [], "front": [], "best": None}
    data |= {"cost": None, "axes": [], "seconds": None, "importance": None}
    if shrunk is not None:
        sections += shrink_sections(shrunk)
        data["shrink"] = shrink_data(shrunk)
    if found is not None:
        importance = importance_in(found)
        data |= content_of(found, importance)
        sections += [
            _front(found),
            _progress(found),
            _parallel(found),
            _matters(importance),
            _best(found, drawings, undrawn),
        ]
        sections.append(_settings(found))
    title, head = _head(found, shrunk)
    picking = bool(found is not None and len(found))
    aside = _PANEL if picking else ""
    body = (
        f"<header><h1>{escape(title)}</h1>\n{head}</header>\n"
        f'<main{" class=picking" if picking else ""}>\n<div class="sections">\n'
        + "\n".join(section for section in sections if section)
        + f"\n</div>\n{aside}</main>\n{_LARGE}{_NOSCRIPT}"
    )
    return document(title, body, data)


_NOSCRIPT = (
    "<noscript><p>The figures are drawn by a script of this file, which this browser does not "
    "run; the tables are here without it.</p></noscript>"
)

_LARGE = '<dialog id="large"><img src="data:," alt=""></dialog>\n'

_PANEL = (
    '<aside id="panel" aria-live="polite"><button class="close" id="unpick">Close</button>'
    '<div id="picked"><h3>Nothing is picked</h3><p class="note">A click on a point of a figure, or '
    "on a number of the table of the best, shows that evaluation here.</p></div></aside>\n"
)


def _section(heading: str, *parts: str) -> str:
    return f"<section><h2>{escape(heading)}</h2>\n" + "\n".join(parts) + "</section>"


def _note(text: str, identity: str = "") -> str:
    return f'<p class="note"{f" id={identity}" if identity else ""}>{escape(text)}</p>'


# --- the head ------------------------------------------------------------------------------------


def _head(found: Evaluations | None, shrunk: dict[str, Any] | None) -> tuple[str, str]:
    """(title, HTML) of what stands above all sections."""
    if found is None:
        assert shrunk is not None
        return "A network shrunk", tiles(shrink_tiles(shrunk)) + _notes(shrunk)
    n, lost = len(found), int(found.failed.sum())
    name = str(found.summary.get("space", "space"))
    generated = _command(found) == "generate"
    one = "architecture" if n == 1 else "architectures"
    if shrunk is not None or _command(found) == "shrink":
        title = f"A network shrunk: {n} {'fine-tune' if n == 1 else 'fine-tunes'}"
    else:
        title = f"{name}: {n} {one} {'generated' if generated else 'evaluated'}"
    if n == 0:
        return title, f"<p>{escape('Nothing has been evaluated yet.')}</p>"
    limits = [f"{spelled(k)} ≤ {shown(v)}" for k, v in found.limits.items()]
    within = f" within {', '.join(limits)}" if limits else ""
    if generated:
        score = found.title(found.objectives[0][0])
        text = [f"Generated{within}, by {score}: nothing was trained or measured."]
    else:
        text = [f"The aim: {_objectives(found)}{within}."]
    if lost:
        text.append(f"{lost} of {n} evaluations failed.")
    broken = int((~found.feasible & ~found.failed).sum())
    if broken:
        text.append(f"{broken} of {n} broke a limit.")
    best = next(iter(found.leaders), None)
    figures = [(shown(n), "generated" if generated else "evaluated")]
    if not generated:
        figures.append((shown(lost), "failed"))
    if best is None:
        text.append("No architecture was found that has a number and keeps the limits.")
    else:
        metric = found.objectives[0][0]
        value = shown(found.metrics[metric][best])
        figures.append((value, f"best {found.title(metric)} (evaluation {best})"))
        figures += [(shown(column[best]), spelled(name)) for name, column in found.costs.items()]
        if len(found.front) > 1:
            figures.append((shown(len(found.front)), "on the Pareto front"))
    head = f"<p>{escape(' '.join(text))}</p>{tiles(figures)}"
    return title, head + (_notes(shrunk) if shrunk is not None else "")


def _notes(shrunk: dict[str, Any]) -> str:
    return "".join(f"<p>{escape(str(note))}</p>" for note in shrunk.get("notes", ()))


def _command(found: Evaluations) -> str | None:
    settings = found.summary.get("settings")
    return settings.get("command") if isinstance(settings, dict) else None


def _objectives(found: Evaluations) -> str:
    named = [
        f"{found.title(metric)} ({'more' if sign > 0 else 'less'} is better)"
        for metric, sign in found.objectives
    ]
    return named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"


# --- sections ------------------------------------------------------------------------------------


def _front(found: Evaluations) -> str:
    count = len(found.metrics) + len(found.costs)
    if not len(found):
        return ""
    if count < 2:
        return _section(
            "The front",
            _note(
                "There is one objective and no exact cost, so that there is nothing to trade it "
                "for: the best so far is all there is to see."
            ),
        )
    many = [found.title(metric) for metric, _ in found.objectives]
    many += [spelled(found.drawn_cost)] if found.drawn_cost else []
    if len(many) == 1:
        said = f"On it is the best {many[0]}."
    else:
        said = (
            f"On it is what nothing else is better than in {', '.join(many[:-1])} and "
            f"{many[-1]} together. The line shows the front of the two axes that are chosen."
        )
    return _section(
        "The front",
        _note(f"{said} A click on a point shows the evaluation and keeps it."),
        '<div class="choose"><label>across <select id="front-x"></select></label>'
        '<label>up <select id="front-y"></select></label></div>',
        '<div class="figure" id="front"></div>',
    )


def _progress(found: Evaluations) -> str:
    if not len(found) or _command(found) == "generate":
        return ""
    metric = found.title(found.objectives[0][0])
    seconds = content_seconds(found)
    choose = (
        '<div class="choose"><label>against <select id="progress-x"></select></label></div>'
        if seconds
        else ""
    )
    return _section(
        "Progress",
        _note(f"The best {metric} so far, and what each evaluation gave."),
        choose,
        '<div class="figure" id="progress"></div>',
    )


def content_seconds(found: Evaluations) -> bool:
    """Whether a metric tells how long evaluations took."""
    return any(name in found.metrics for name in ("seconds", "duration", "time_s"))


def _parallel(found: Evaluations) -> str:
    if int((~found.failed).sum()) < 2:
        return ""
    count = len(found.axes)
    text = (
        "A line is an evaluation, brighter the better. Dragging along an axis leaves only the "
        "lines that go through there; a click on the axis shows all again."
    )
    if count > AXES:
        text += f" Of {count} dimensions the {AXES} that matter most, or else the first, are shown."
    known = int((~found.failed).sum())
    if known > LINES:
        text += f" Of {known} evaluations {LINES} are drawn: the best, and others evenly."
    return _section(
        "Parallel coordinates",
        _note(text, "parallel-note"),
        '<div class="scroll"><div class="figure" id="parallel"></div></div>',
    )


def _matters(importance: Importance | str) -> str:
    if isinstance(importance, str):
        return _section("What matters", _note(importance))
    text = (
        f"How much of the variance of {importance.metric} over the whole space goes back to each "
        f"dimension, as a Gaussian process has it that learned from {importance.rows} evaluations: "
        "the bar counts all that the dimension does, together with others too, the mark what it "
        f"does alone. The lines hold {LEVEL:.0%} of what the process thinks possible, given how "
        "smooth it takes the metric to be."
    )
    explained = importance.explained
    if explained >= _SURE:
        text += f" It predicts {explained:.0%} of the variance of evaluations that it is not shown."
    else:
        part = f"only {explained:.0%}" if explained > 0.005 else "nothing"
        text += (
            f" It predicts {part} of the variance of evaluations that it is not shown: take this "
            "for a guess."
        )
    rows = [
        (
            label,
            *(
                f"{100 * mid:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
                for low, mid, high in (total, alone)
            ),
        )
        for label, total, alone in zip(
            importance.labels, importance.total.tolist(), importance.alone.tolist(), strict=True
        )
    ]
    return _section(
        "What matters",
        _note(text),
        '<div class="figure" id="importance"></div>',
        "<details><summary>The numbers</summary>",
        cells(("dimension", "with interactions", "alone"), rows),
        "</details>",
    )


def _best(found: Evaluations, drawings: Sequence[Drawing], undrawn: str) -> str:
    leaders = found.leaders[:10]
    if not leaders:
        return ""
    metrics = list(dict.fromkeys(metric for metric, _ in found.objectives))
    headers = ["", *map(found.title, metrics), *map(spelled, found.costs)]
    head = "".join(f'<th class="n">{escape(h)}</th>' for h in headers)
    rows = []
    for i in leaders:
        numbers = [shown(found.metrics[m][i]) for m in metrics]
        numbers += [shown(column[i]) for column in found.costs.values()]
        row = "".join(f'<td class="n">{escape(number)}</td>' for number in numbers)
        rows.append(f'<tr><td class="n"><button data-pick="{i}">{i}</button></td>{row}</tr>')
    table = (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
    pictures = "".join(
        f'<figure><img id="drawing-{d.number}" src="{data_uri(d.svg)}" '
        f'alt="compute graph of evaluation {d.number}"><figcaption>evaluation {d.number}, '
        f"{escape(shown(found.metrics[metrics[0]][d.number]))}</figcaption></figure>"
        for d in drawings
    )
    first = found.title(metrics[0])
    return _section(
        "The best networks",
        _note(f"By {first}, within the limits. A click on a number shows the evaluation."),
        table,
        f'<h3 style="margin-top:16px">Drawn</h3><div class="drawings">{pictures}</div>'
        if pictures
        else "",
        _note(undrawn) if undrawn else "",
    )


# --- settings ------------------------------------------------------------------------------------


def _settings(found: Evaluations) -> str:
    settings = found.summary.get("settings")
    settings = settings if isinstance(settings, dict) else {}
    again = settings.get("command_line")
    rows = [("space", str(found.summary.get("space"))), ("objectives", _objectives(found))]
    rows += [(f"limit on {spelled(k)}", shown(v)) for k, v in found.limits.items()]
    for name, value in settings.items():
        if name != "command_line" and value is not None and value != {} and value != []:
            text = value if isinstance(value, str) else json.dumps(plain(value))
            rows.append((name, text if len(text) <= 300 else f"{text[:299]}…"))
    parts = [cells(("setting", "value"), rows), '<h3 style="margin-top:16px">How to go on</h3>']
    if isinstance(again, dict) and isinstance(again.get("same"), str):
        parts += [_note(str(again.get("note", ""))), _copied("again", again["same"])]
        if isinstance(again.get("more"), str):
            parts += [_note(str(again.get("then", ""))), _copied("more", again["more"])]
    else:
        parts.append(
            _note(
                "The same call goes on with this search, with a larger budget too; a command of "
                "nni-aiop does so when it is given again."
            )
        )
    parts += [_note(f"The evaluations, in Python, in the folder of {HISTORY}:")]
    parts.append(_copied("python", _loading(found)))
    return _section("Settings, and how to go on", *parts)


def _copied(identity: str, text: str) -> str:
    return (
        f'<pre id="{identity}">{escape(text)}</pre>'
        f'<p><button data-copy="{identity}">Copy</button></p>'
    )


def _loading(found: Evaluations) -> str:
    metric, sign = found.objectives[0]
    order = "False" if sign > 0 else "True"
    return (
        "import pandas as pd\n\n"
        f'history = pd.read_csv("{HISTORY}")\n'
        f"print(history.sort_values({metric!r}, ascending={order}).head(10))"
    )
