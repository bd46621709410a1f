"""Folders that belong to one search or run, which goes on in them and which no other one enters."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nni_aiop.cli._app import BadInput
from nni_aiop.cli._tell import note
from nni_aiop.engines._folder_lock import locked
from nni_aiop.errors import AiopError
from nni_aiop.files import parse_json, plain, write_json
from nni_aiop.results import SearchResults

__all__ = ["EXPERIMENT", "JOURNAL", "STATE", "STATES", "claimed"]

EXPERIMENT = "experiment.json"
"""The settings that every command in the folder must share."""

STATE = "state.json"
"""The state of a search, or of an NNI strategy."""

JOURNAL = "optuna.journal"
"""The study of a run on Optuna, unless it has a storage."""

STATES = (STATE, JOURNAL, f"{JOURNAL}.lock")
"""What a search or a run goes on from."""

_ABSENT = object()


@contextmanager
def claimed(
    folder: Path, settings: Mapping[str, Any], *, kind: str, state: str | None, restart: bool
) -> Iterator[bool]:
    """Whether the folder, which is this command's alone inside this block, holds an earlier one.

    A command that is refused before its first result leaves nothing behind.

    Args:
        folder: It is made where missing.
        settings: What an earlier command must share, to be gone on with.
        kind: `search`, or `run`, of which an experiment file has the settings.
        state: The one of `STATES` that an earlier one goes on from; None where it is elsewhere.
        restart: Whether to delete what an earlier one goes on from.

    Raises:
        BadInput: The folder holds a search or a run of other settings, or files of another program.
        AiopError: Another process is at work in the folder.
    """
    with locked(folder):
        if restart:
            for name in (EXPERIMENT, *STATES):
                (folder / name).unlink(missing_ok=True)
        same = plain(settings)
        goes_on = (folder / EXPERIMENT).exists()
        if goes_on:
            _check(folder, same, kind)
            held = [name for name in SearchResults.FILES if (folder / name).exists()]
            if held and state is not None and not (folder / state).exists():
                raise BadInput(
                    f"{folder} must hold the {state} of the {kind} whose {held[0]} it holds, but "
                    f"lacks it: {_CURE}"
                )
            note(f"Going on with the {kind} in {folder} (--restart begins anew).")
        else:
            left = [] if restart else [*STATES, *SearchResults.FILES]
            for name in left:
                if (folder / name).exists():
                    raise BadInput(
                        f"{_rule(folder, kind)}, but holds {name} of another one: {_CURE}"
                    )
            write_json(folder / EXPERIMENT, same)
        try:
            yield goes_on
        except AiopError:
            if not goes_on and not any((folder / name).exists() for name in SearchResults.FILES):
                for name in (EXPERIMENT, *STATES):
                    (folder / name).unlink(missing_ok=True)
            raise


_CURE = "take another --out, or --restart to begin anew."


def _rule(folder: Path, kind: str) -> str:
    of = "of the same experiment" if kind == "run" else "with the same settings"
    return f"{folder} must be empty or hold a {kind} {of}"


def _check(folder: Path, same: Mapping[str, Any], kind: str) -> None:
    """Refuse a folder whose settings are not the same."""
    try:
        path = folder / EXPERIMENT
        earlier = parse_json(path.read_text(encoding="utf-8"), str(path))
    except ValueError:
        earlier = None
    if not isinstance(earlier, dict):
        raise BadInput(f"{_rule(folder, kind)}, but holds {EXPERIMENT} of another one: {_CURE}")
    differing = [
        name
        for name in dict.fromkeys([*same, *earlier])
        if earlier.get(name, _ABSENT) != same.get(name, _ABSENT)
    ]
    if differing == ["engine"]:
        raise BadInput(
            f"a run must go on with the engine that it began with, but {folder} holds one of "
            f"{earlier.get('engine')}, not of {same.get('engine')}: say --engine, take another "
            "--out, or --restart to begin anew."
        )
    if differing:
        name = differing[0]
        shown = (f"{json.dumps(earlier.get(name)):.60}", f"{json.dumps(same.get(name)):.60}")
        raise BadInput(
            f"{_rule(folder, kind)}, but holds another, with {name} = {shown[0]} instead of "
            f"{shown[1]}: {_CURE}"
        )
