"""A page in one file: nothing of it is fetched, and nothing that a user named is taken for HTML."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

from nni_aiop.files import plain

__all__ = ["cells", "data_uri", "document", "tiles"]

_NUL = {0: "\N{REPLACEMENT CHARACTER}"}


@cache
def _text(name: str) -> str:
    """A file of this folder."""
    return (files(__package__) / name).read_text(encoding="utf-8")


def _plotly() -> str:
    """plotly.js, all of it."""
    from plotly.offline import get_plotlyjs

    source: str = get_plotlyjs()
    # Inside of a script's text the parser of HTML looks for its end, and for comments.
    return source.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _allowed(*scripts: str) -> str:
    """A policy under which a page runs these scripts, and reaches nothing outside of itself.

    plotly.js compiles the programs of its WebGL figures, which takes `unsafe-eval`.
    """
    digests = [
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts
    ]
    own = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {own} 'unsafe-eval'; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _embedded(data: Any) -> str:
    """Data as JSON that cannot end the element in which it stands."""
    text = json.dumps(plain(data), allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def document(title: str, body: str, data: Any) -> str:
    """A whole page.

    Args:
        title: Its title, as text.
        body: What it shows, as HTML.
        data: What its script draws; None without any figure that one draws.
    """
    scripts = [] if data is None else [_plotly(), _text("page.js")]
    embedded = "" if data is None else (
        f'<script type="application/json" id="data">{_embedded(data)}</script>\n'
    )  # fmt: skip
    # The policy knows a script by its text as it stands between the tags.
    inlined = "".join(f"<script>{script}</script>\n" for script in scripts)
    text = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_allowed(*scripts)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_text('page.css')}</style>\n</head>\n<body>\n"
        f"{body}\n{embedded}{inlined}</body>\n</html>\n"
    )
    # Names of labels may hold what no text file should: a NUL, half of a surrogate pair.
    return text.translate(_NUL).encode("utf-8", "replace").decode()


def data_uri(svg: str) -> str:
    """A picture as the address of itself."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def cells(
    headers: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[int] = ()
) -> str:
    """A table of texts; the columns of `numbers` are set to the right."""

    def line(tag: str, texts: Sequence[str]) -> str:
        made = [
            f'<{tag} class="n">{escape(text)}</{tag}>'
            if i in numbers
            else f"<{tag}>{escape(text)}</{tag}>"
            for i, text in enumerate(texts)
        ]
        return f"<tr>{''.join(made)}</tr>"

    head = f"<thead>{line('th', headers)}</thead>" if any(headers) else ""
    body = "".join(line("td", row) for row in rows)
    return f'<div class="scroll"><table>{head}<tbody>{body}</tbody></table></div>'


def tiles(shown: Sequence[tuple[str, str]]) -> str:
    """Key figures: (number, what it is) of each, as texts."""
    made = [
        f"<li><b>{escape(number)}</b><span>{escape(what)}</span></li>" for number, what in shown
    ]
    return f'<ul class="tiles">{"".join(made)}</ul>'
