"""Files written whole or not at all: text, bytes, JSON, and tensors with a description.

A file is first written beside its place and then renamed, so that an interrupted program leaves
either the old file or the new one, never half of one.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import math
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from nni_aiop.errors import AiopError, FileFormatError

__all__ = [
    "brief",
    "checked_tensors",
    "csv_number",
    "parse_json",
    "parse_yaml",
    "plain",
    "read_csv_rows",
    "read_described",
    "whole",
    "write_atomically",
    "write_described",
    "write_json",
]

_MOST_NESTED = 64  # levels of lists and records; no file of this package has more than ten
_MOST_DIGITS = 4300  # of a whole number, as Python's own limit


def write_atomically(path: Path | str, content: str | bytes, *, flush: bool = True) -> Path:
    """The path, which now holds `content`; its folder is made where missing.

    A device or a pipe, such as /dev/stdout, is written into: nothing takes its place.

    Args:
        path: The file to write.
        content: All of it; text in UTF-8.
        flush: Whether it outlives a power cut. Without, which is far quicker, it still outlives a
            SIGKILL.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    if path.exists() and not path.is_file() and not path.is_dir():
        path.write_bytes(data)
        return path
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


def brief(err: BaseException | str, most: int = 200) -> str:
    """What an error says, on one line and of bounded length."""
    text = " ".join(str(err).split()) or type(err).__name__
    return text if len(text) <= most else f"{text[: most - 4].rstrip()} ..."


def parse_json(text: str | bytes, what: str) -> Any:
    """What a JSON text holds.

    Args:
        text: All of it.
        what: What it must be, and where it stands, for the sentence of a refusal.

    Raises:
        FileFormatError: It is no JSON, nests too deeply, has a key twice in one record, or a whole
            number of more than 4,300 digits.
    """
    try:
        found = json.loads(text, object_pairs_hook=_record, parse_int=_integer)
        _check_depth(found)
    except (ValueError, RecursionError) as err:
        raise FileFormatError(f"{what} must be JSON, but is not: {_reason(err)}.") from err
    return found


def parse_yaml(text: str, what: str) -> Any:
    """What a YAML text holds, in plain types.

    Args:
        text: All of it.
        what: What it must be, and where it stands, for the sentence of a refusal.

    Raises:
        FileFormatError: It is no YAML, nests too deeply, has a key twice in one record, an alias
            (which can make a small file a large one), a date that no calendar has, or a whole
            number of more than 4,300 digits.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """Refuses what no file of settings needs."""

        depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise ValueError(f"it has an alias, *{self.peek_event().anchor:.60}")  # type: ignore[no-untyped-call]
            self.depth += 1
            if self.depth > _MOST_NESTED:
                raise RecursionError
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            _record((key, None) for key in keys)
            return dict(super().construct_mapping(node, deep))

    try:
        found = yaml.load(text, Loader)
        _check_depth(found)
    except (
        yaml.YAMLError,
        AttributeError,  # yaml's constructors trust that a tag fits its value
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as err:
        raise FileFormatError(f"{what} must be a YAML file, but is not: {_reason(err)}.") from err
    return found


def read_csv_rows(path: Path, most: int = 1 << 30) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The heading of a CSV file, and its rows, each with its line in the file (from 1).

    A byte order mark, as of Excel's "CSV UTF-8", and empty lines are passed over.

    Args:
        path: The file, in UTF-8, gzipped or not.
        most: Bytes that it may have, unpacked.

    Raises:
        FileFormatError: It is no such file, a row has another number of cells than the heading, or
            the heading names a column twice.
        OSError: It cannot be read.
    """
    try:
        with open(path, "rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else open(path, "rb") as file:
            data = file.read(most + 1)
        if len(data) > most:
            raise ValueError(f"it has more than {most} bytes")
        reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        lines, start = [], 1
        for row in reader:
            if row:
                lines.append((start, row))
            start = reader.line_num + 1
    except (EOFError, ValueError, csv.Error, gzip.BadGzipFile, zlib.error) as err:
        raise FileFormatError(
            f"{path} must be a whole CSV file in UTF-8, but is not: {brief(err).rstrip('.')}."
        ) from err
    if len(lines) < 2:
        raise FileFormatError(
            f"{path} must hold a heading and at least one row, but has {len(lines)} lines."
        )
    (_, heading), *rows = lines
    if len(heading) == 1 and ";" in heading[0]:
        raise FileFormatError(f"{path} must have commas between its cells, but has semicolons.")
    if len(set(heading)) < len(heading):
        raise FileFormatError(
            f"{path} must name each column differently, but has {heading!s:.300}."
        )
    for line, row in rows:
        if len(row) != len(heading):
            comma = " (a decimal comma must be a point)" if len(row) > len(heading) else ""
            raise FileFormatError(
                f"{path}, line {line}: a row must have {len(heading)} cells, "
                f"but got {len(row)}{comma}."
            )
    return heading, rows


def csv_number(text: str, where: str) -> float:
    """The finite number of a cell; NaN where it is empty or says nan.

    Args:
        text: The cell.
        where: The file, the line and the column, for the sentence of a refusal.

    Raises:
        FileFormatError: It is no finite number.
    """
    try:
        number = float(text) if text.strip() else math.nan
    except ValueError as err:
        comma = text.count(",") == 1 and "." not in text
        hint = " (a decimal comma must be a point)" if comma else ""
        raise FileFormatError(f"{where}: must be a number, but got {text!r:.80}{hint}.") from err
    if math.isinf(number):
        raise FileFormatError(f"{where}: must be a finite number, but got {text!r:.80}.")
    return number


def _reason(err: Exception) -> str:
    return "it nests too deeply" if isinstance(err, RecursionError) else brief(err)


def _record(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """A record of its keys and values.

    Raises:
        ValueError: A key stands there twice.
    """
    found: dict[Any, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"it has the key {key!r:.60} twice in one record")
        found[key] = value
    return found


def _integer(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"it has a whole number of {len(text)} digits")
    return int(text)


def _check_depth(data: Any) -> None:
    """Refuse what nests deeper than a program should follow, and texts that are none.

    Raises:
        RecursionError, ValueError: It does, or has half of a surrogate pair.
    """
    level = [data]
    for _ in range(_MOST_NESTED):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below += item.keys()
                below += item.values()
            elif isinstance(item, (list, tuple, set)):
                below += item
            elif isinstance(item, str) and not item.isascii():
                item.encode()
            elif isinstance(item, int) and item.bit_length() > 3 * _MOST_DIGITS:
                raise ValueError(f"it has a whole number of {item.bit_length()} bits")
        if not below:
            return
        level = below
    raise RecursionError


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
        header = parse_json(data[8 : 8 + int.from_bytes(data[:8], "little")], "its heading")
        content = parse_json(header["__metadata__"][key], "its description")
        tensors = load(data)
        found = content["format"]
    except KeyError as err:
        raise FileFormatError(
            f"{path} must be {what}, but is something else: it has no {brief(err)}."
        ) from err
    except (SafetensorError, ValueError, TypeError, IndexError, OverflowError) as err:
        raise FileFormatError(
            f"{path} must be {what}, but is damaged or something else: {brief(err).rstrip('.')}."
        ) from err
    if found != kind:
        raise FileFormatError(f"{path} must be {what}, but is another one, {found!r:.80}.")
    if content.get("version") != version:
        raise FileFormatError(
            f"{path} must have format version {version}, but has {content.get('version')!r:.80}."
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


@contextmanager
def whole(path: str | os.PathLike[str], what: str, tensors: Mapping[str, Any]) -> Iterator[None]:
    """What a file of the right checksum lacks or has wrong becomes a FileFormatError."""
    try:
        for name, value in tensors.items():
            if not np.isfinite(value).all():
                raise ValueError(f"{name} has numbers that are not finite")
        yield
    except AiopError:
        raise
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        MemoryError,
        RuntimeError,
        StopIteration,
        TypeError,
        ValueError,
    ) as err:
        raise FileFormatError(
            f"{path} must be {what} and whole, but is not: {brief(err).rstrip('.')}."
        ) from err


def checked_tensors(
    tensors: Tensors, shapes: Mapping[str, tuple[int, ...]], kind: str = "float64"
) -> None:
    """Refuse arrays that are missing, or have another shape or type.

    Raises:
        ValueError: One is.
    """
    for name, shape in shapes.items():
        if name not in tensors:
            raise ValueError(f"it lacks {name}")
        if tensors[name].shape != shape or str(tensors[name].dtype) != kind:
            raise ValueError(
                f"{name} must have shape {shape} and type {kind}, "
                f"not {tensors[name].shape} and {tensors[name].dtype}"
            )
