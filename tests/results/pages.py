"""Searches to make pages of, and what a page holds."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from nni_aiop.results import SearchResults, write_report
from nni_aiop.search import Objective
from nni_aiop.spaces import (
    CodeSpace,
    Condition,
    Continuous,
    Nominal,
    Ordinal,
    Sample,
    Subset,
)

NASTY = "</script><script>alert('&amp;\"')</script><b>%{x}"
"""A name that a page must show as it is."""


def toy() -> CodeSpace:
    """A space of every kind of dimension, one of which matters only under a condition."""
    return CodeSpace(
        [
            Ordinal("depth", (1, 2, 4)),
            Nominal("op", ("conv", "pool", None)),
            Continuous("rate", 0.001, 1.0, log=True),
            Subset("inputs", ("a", "b", "c"), None),
        ],
        name="toy",
        conditions={"op": Condition("depth", (2, 4))},
        costs={"flops": lambda codes: 10 + 10 * codes[:, 0] + codes[:, -1]},
    )


def told(space: CodeSpace, n: int, *, failed: Sequence[int] = ()) -> list[Any]:
    """(sample, metrics) of `n` random samples; each is better than the last by chance only."""
    rng = np.random.default_rng(0)
    history: list[tuple[Sample, dict[str, float] | None]] = []
    for i, sample in enumerate(space.sample(n, rng)):
        depth = float(space.encode([sample])[0, 0])
        accuracy = round(0.5 + 0.3 * depth + 0.05 * rng.random(), 6)
        history.append((sample, None if i in failed else {"accuracy": accuracy}))
    return history


def results(space: CodeSpace, history: Sequence[Any], **more: Any) -> SearchResults:
    return SearchResults(space, history, **{"objectives": [Objective("accuracy")], **more})


def written(folder: Path, space: CodeSpace, history: Sequence[Any], **more: Any) -> str:
    """The page of a history, as it is made without the space."""
    results(space, history, **more).save(folder, page=False)
    return write_report(folder).read_text(encoding="utf-8")


def data_of(page: str) -> dict[str, Any]:
    """The JSON that a page's script reads."""
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    found: dict[str, Any] = json.loads(text)
    return found


class Shown(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._hidden = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._hidden = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._hidden = False

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.text += data

    @property
    def ids(self) -> set[str]:
        return {str(a["id"]) for _, a in self.elements if "id" in a}
