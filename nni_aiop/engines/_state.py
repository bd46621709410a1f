"""The state of a search as a file, which an engine writes after every event."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nni_aiop.errors import FileFormatError
from nni_aiop.files import brief, parse_json, write_atomically

__all__ = ["read_state", "write_state"]


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state in plain JSON types; a flush to the disk would cost more than many trials."""
    write_atomically(path, json.dumps(state), flush=False)


def read_state(path: Path) -> dict[str, Any]:
    """The state that a file holds.

    Raises:
        FileFormatError: There is no such file, or it holds no JSON mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (ValueError, OSError) as err:
        raise FileFormatError(
            f"{path} must be a strategy's state, but is not: {brief(err)}."
        ) from err
    state = parse_json(text, f"{path}, a strategy's state,")
    if not isinstance(state, dict):
        raise FileFormatError(f"{path} must be a strategy's state, but is {type(state).__name__}.")
    return state
