"""Files written whole or not at all: text, bytes, JSON, and tensors with a description.

A file is first written beside its place and then renamed, so that an interrupted program leaves
either the old file or the new one, never half of one.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from nni_aiop.errors import FileFormatError

__all__ = ["plain", "read_described", "write_atomically", "write_described", "write_json"]


def write_atomically(path: Path | str, content: str | bytes, *, flush: bool = True) -> Path:
    """The path, which now holds `content`; its folder is made where missing.

    Args:
        path: The file to write.
        content: All of it; text in UTF-8.
        flush: Whether it outlives a power cut. Without, which is far quicker, it still outlives a
            SIGKILL.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    # Each writer has a draft of its own: of several at once, on any machine, the last one stays.
    draft = path.with_name(f".{path.name[:40]}.{uuid4().hex}.tmp")
    try:
        with open(draft, "xb") as file:
            file.write(data)
            if flush:
                file.flush()
                os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    return path


def plain(value: Any) -> Any:
    """The value in JSON's own types; NaN and infinities, which JSON lacks, become null."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return str(value)


def write_json(path: Path | str, data: object) -> Path:
    """The path, which now holds `data` as indented JSON (NaN as null, foreign types as text)."""
    return write_atomically(path, json.dumps(plain(data), indent=2, allow_nan=False) + "\n")


Tensors = Mapping[str, NDArray[Any]]


def write_described(
    path: str | os.PathLike[str],
    key: str,
    content: Mapping[str, Any],
    tensors: Tensors,
    *,
    flush: bool = True,
) -> None:
    """Writes tensors with a description, whole or not at all.

    Args:
        path: The file.
        key: Where the description stands in the file's metadata.
        content: The description, plain JSON; its `format` and `version` are what a reader checks.
        tensors: Arrays by name.
        flush: As of `write_atomically`.
    """
    from safetensors.numpy import save

    arrays = {name: np.array(array, order="C") for name, array in tensors.items()}
    described = {**content, "sha256": _digest(content, arrays)}
    write_atomically(Path(path), save(arrays, {key: json.dumps(described)}), flush=flush)


def read_described(
    path: str | os.PathLike[str], key: str, *, kind: str, version: int, what: str
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The description, without its checksum, and the tensors that `write_described` wrote.

    Args:
        path: The file.
        key: As when it was written.
        kind: The `format` that it must have.
        version: The `version` that it must have.
        what: What it must be, for the sentence of a refusal.

    Raises:
        FileFormatError: The file is truncated, changed, or of another kind or version.
        OSError: There is no such file.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    data = Path(path).read_bytes()
    try:
        # The header is JSON behind its length in eight bytes; `load` returns no metadata.
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        content = json.loads(header["__metadata__"][key])
        tensors = load(data)
        found = content["format"]
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as err:
        raise FileFormatError(
            f"{path} must be {what}, but is damaged or something else: {err}."
        ) from err
    if found != kind:
        raise FileFormatError(f"{path} must be {what}, but is another one, {found!r}.")
    if content.get("version") != version:
        raise FileFormatError(
            f"{path} must have format version {version}, but has {content.get('version')!r}."
        )
    if content.pop("sha256", None) != _digest(content, tensors):
        raise FileFormatError(f"{path} must be as it was written, but its checksum differs.")
    return content, tensors


def _digest(content: Mapping[str, Any], tensors: Tensors) -> str:
    """SHA-256 of the description and of every tensor's name, type, shape and bytes."""
    result = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for name in sorted(tensors):
        array = tensors[name]
        result.update(json.dumps([name, str(array.dtype), list(array.shape)]).encode())
        result.update(array.tobytes())
    return result.hexdigest()
