"""Weights that come with the package: a backbone, adapters of tasks, a ranker, their model card.

`nni_aiop.predictors.graph.load_shipped` and its siblings make predictors of them; here is what they
are. The card names the commands that make them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["BACKBONE", "FOLDER", "RANKER", "adapter_file", "model_card", "shipped_tasks"]

FOLDER = Path(__file__).parent
"""Where the files lie."""

BACKBONE = "backbone.safetensors"

RANKER = "ranker.safetensors"

_SUFFIX = ".adapter.safetensors"


def adapter_file(task: str) -> str:
    """The name of the file of a task's adapter."""
    return f"{task}{_SUFFIX}"


def shipped_tasks() -> tuple[str, ...]:
    """The tasks that have an adapter."""
    return tuple(sorted(path.name.removesuffix(_SUFFIX) for path in FOLDER.glob(f"*{_SUFFIX}")))


def model_card() -> dict[str, Any]:
    """What they were trained on, by which command, how good they are, and where they end.

    Raises:
        OSError: There is no card.
    """
    card: dict[str, Any] = json.loads((FOLDER / "card.json").read_text())
    return card
