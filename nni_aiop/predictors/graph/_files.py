"""Files of graph predictors: safetensors with a description in JSON, a version and a checksum."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nni_aiop.errors import FileFormatError
from nni_aiop.graphs._features import FEATURES_VERSION, GLOBAL_COLUMNS, NODE_COLUMNS
from nni_aiop.predictors._base import _digest
from nni_aiop.results import write_atomically

__all__ = ["read_file", "write_file"]

FORMAT_VERSION = 1

Tensors = Mapping[str, NDArray[Any]]


def write_file(
    path: str | os.PathLike[str], kind: str, content: Mapping[str, Any], tensors: Tensors
) -> None:
    """Writes a file of some kind, whole or not at all."""
    from safetensors.numpy import save

    arrays = {name: np.array(array, order="C") for name, array in tensors.items()}
    described = {
        "format": kind,
        "version": FORMAT_VERSION,
        "features_version": FEATURES_VERSION,
        "node_columns": list(NODE_COLUMNS),
        "global_columns": list(GLOBAL_COLUMNS),
        **content,
    }
    described["sha256"] = _digest(described, arrays)
    write_atomically(Path(path), save(arrays, {"description": json.dumps(described)}))


def read_file(
    path: str | os.PathLike[str], kind: str
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The description and the tensors of a file that `write_file` wrote.

    Raises:
        FileFormatError: The file is truncated, changed, of another kind, version or features.
        OSError: There is no such file.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    data = Path(path).read_bytes()
    try:
        # The header is JSON behind its length in eight bytes; `load` returns no metadata.
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        content = json.loads(header["__metadata__"]["description"])
        tensors = load(data)
        found = content["format"]
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as err:
        raise FileFormatError(
            f"{path} must be a file of an {kind}, but is damaged or something else: {err}."
        ) from err
    if found != kind:
        raise FileFormatError(f"{path} must be a file of an {kind}, but is of an {found!r}.")
    if content.get("version") != FORMAT_VERSION:
        raise FileFormatError(
            f"{path} must have format version {FORMAT_VERSION}, but has {content.get('version')!r}."
        )
    if content.pop("sha256", None) != _digest(content, tensors):
        raise FileFormatError(f"{path} must be as it was written, but its checksum differs.")
    columns = content["node_columns"], content["global_columns"]
    if content["features_version"] != FEATURES_VERSION or columns != (
        list(NODE_COLUMNS),
        list(GLOBAL_COLUMNS),
    ):
        raise FileFormatError(
            f"{path} must read features of version {FEATURES_VERSION}, "
            f"but reads version {content['features_version']}."
        )
    return content, tensors
