"""Files of graph predictors and adapters, which name the features that they read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from nni_aiop.errors import FileFormatError
from nni_aiop.files import read_described, write_described
from nni_aiop.graphs._features import FEATURES_VERSION, GLOBAL_COLUMNS, NODE_COLUMNS

__all__ = ["read_file", "write_file"]

FORMAT_VERSION = 1

Tensors = Mapping[str, NDArray[Any]]


def write_file(
    path: str | os.PathLike[str], kind: str, content: Mapping[str, Any], tensors: Tensors
) -> None:
    """Writes a file of some kind, whole or not at all."""
    described = {
        "format": kind,
        "version": FORMAT_VERSION,
        "features_version": FEATURES_VERSION,
        "node_columns": list(NODE_COLUMNS),
        "global_columns": list(GLOBAL_COLUMNS),
        **content,
    }
    write_described(path, "description", described, tensors)


def read_file(
    path: str | os.PathLike[str], kind: str
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The description and the tensors of a file that `write_file` wrote.

    Raises:
        FileFormatError: The file is truncated, changed, of another kind, version or features.
        OSError: There is no such file.
    """
    content, tensors = read_described(
        path, "description", kind=kind, version=FORMAT_VERSION, what=f"a file of an {kind}"
    )
    columns = content.get("node_columns"), content.get("global_columns")
    if content.get("features_version") != FEATURES_VERSION or columns != (
        list(NODE_COLUMNS),
        list(GLOBAL_COLUMNS),
    ):
        raise FileFormatError(
            f"{path} must read features of version {FEATURES_VERSION}, "
            f"but reads version {content.get('features_version')!r:.80}."
        )
    return content, tensors
