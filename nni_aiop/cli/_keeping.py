"""The state of a search on disk: a whole one now and then, and what happened since behind it.

The first line of the file is the whole state. Each further line is an event: that a sample was
asked for, or what was told. Asking again from the whole state gives the same proposals, so that the
two together are the state after the last event.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nni_aiop.cli._pace import Pace
from nni_aiop.engines._state import read_state, write_state
from nni_aiop.errors import FileFormatError
from nni_aiop.files import parse_json
from nni_aiop.search import BaseSearch
from nni_aiop.spaces import Sample, SampleCost

__all__ = ["Keeper", "take_up"]

_ASKED, _TOLD = "asked", "told"


class Keeper:
    """Keeps the state of a search in a file, so that a kill loses nothing.

    Args:
        search: Whose state.
        path: The file. It holds nothing but the whole state once the search has left the block.
    """

    def __init__(self, search: BaseSearch, path: Path) -> None:
        self._search = search
        self._path = path
        self._pace = Pace()
        # What is measured anew is another number: it cannot be asked again.
        self._repeats = not any(
            isinstance(cost, SampleCost) and cost.noisy for cost in search.space.costs.values()
        )

    def __enter__(self) -> Keeper:
        return self

    def __exit__(self, *error: object) -> None:
        self._write()

    def asked(self) -> None:
        """The search has just proposed one sample."""
        self._keep([_ASKED])

    def told(self, sample: Sample, metrics: Mapping[str, float] | None) -> None:
        """The search was just told a result."""
        given = None if metrics is None else dict(metrics)
        self._keep([_TOLD, self._search.space.to_json(sample), given])

    def _keep(self, event: list[Any]) -> None:
        if self._repeats and not self._pace.is_due:
            try:
                line = json.dumps(event)
            except (TypeError, ValueError):  # a metric is no number of Python's
                pass
            else:
                with open(self._path, "ab") as file:
                    file.write(f"\n{line}".encode())
                return
        self._write()

    def _write(self) -> None:
        with self._pace:
            write_state(self._path, self._search.state_dict())


def take_up(search: BaseSearch, path: Path) -> None:
    """Resume a search where a `Keeper` left it.

    Raises:
        FileFormatError: The file holds no such state, or that of another search.
    """
    first, *lines = path.read_bytes().split(b"\n")
    try:
        state = parse_json(first, str(path))
    except FileFormatError:
        state, lines = read_state(path), []  # set by hand in several lines, or none at all
    search.load_state_dict(state)
    for number, line in enumerate(lines, 2):
        try:
            event = parse_json(line, f"{path}, line {number},")
        except FileFormatError:
            if number == len(lines) + 1:
                return  # the program was killed while it wrote
            raise
        try:
            _repeat(search, event)
        except (LookupError, TypeError, ValueError) as err:
            raise FileFormatError(
                f"{path}, line {number}, must be an event of a search, but is {event!r:.80}."
            ) from err


def _repeat(search: BaseSearch, event: Any) -> None:
    if event[0] == _ASKED:
        search.ask(1)
    elif event[0] == _TOLD:
        search.tell(search.space.from_json(event[1]), event[2])
    else:
        raise ValueError(event[0])
