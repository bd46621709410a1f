"""Where a command writes: places are tried before the work, and nothing is lost by it."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import shlex
from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from nni_aiop.cli._app import BadInput

__all__ = [
    "Overwrite",
    "check_files",
    "check_folder",
    "check_table",
    "digest",
    "the_same",
    "write_table",
]

Overwrite: TypeAlias = Annotated[
    bool, typer.Option("--overwrite", help="Replace results that are there already.")
]


def check_folder(
    folder: Path,
    names: Sequence[str],
    *,
    option: str = "--out",
    inputs: Mapping[str, Path | None] | None = None,
    overwrite: bool = True,
) -> None:
    """Refuse a folder in which a command cannot write its files, or would destroy others.

    Args:
        folder: It need not be there.
        names: The files that the command may write into it.
        option: What names the folder.
        inputs: Files that the command reads, by what names them.
        overwrite: Whether files that are there may be overwritten.

    Raises:
        BadInput: The folder cannot be made or written, a file of it is read by the command, is a
            folder, or is there already.
    """
    if os.path.lexists(folder) and not os.path.isdir(folder):
        what = "a file" if os.path.exists(folder) else "a link that leads nowhere"
        raise BadInput(f"{option} must be a folder, but {folder} is {what}.")
    files = [folder / name for name in names]
    check_files(files, option=option, inputs=inputs, overwrite=overwrite)


def check_files(
    files: Sequence[Path],
    *,
    option: str,
    inputs: Mapping[str, Path | None] | None = None,
    overwrite: bool = True,
) -> None:
    """Refuse files, all of one folder, that a command cannot write, or that it would destroy.

    Args:
        files: What the command may write, the longest name included.
        option: What names them.
        inputs: As `check_folder` takes them.
        overwrite: As `check_folder` takes it.

    Raises:
        BadInput: As `check_folder`.
    """
    for file in files:
        if "\0" in str(file):
            raise BadInput(f"{option} must not hold a NUL character, but is {str(file.parent)!r}.")
        for source, path in (inputs or {}).items():
            if path is not None and _same(file, path):
                raise BadInput(
                    f"{option} must not overwrite what {source} reads, but {file} is that file."
                )
        if os.path.isdir(file):
            raise BadInput(f"{option} must not name a folder as a file, but {file} is a folder.")
    _try(max(files, key=lambda file: len(file.name)), option)
    if not overwrite:
        for file in files:
            if os.path.lexists(file):
                raise BadInput(
                    f"{file} must not be overwritten unasked, but is there already: take another "
                    f"{option}, or --overwrite to replace it."
                )


def digest(file: Path) -> str:
    """What tells a file's contents from others, for the record of what read it."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def the_same(
    context: typer.Context, *, without: Container[str] = (), **larger: int
) -> dict[str, Any]:
    """How to go on with what a command has left, for its record.

    Args:
        context: Of the command.
        without: Parameters whose work is done and is not to be repeated.
        larger: Options by which it does more, with such a value.
    """
    words = _words(context, {}, without)
    found = {
        "same": words,
        "note": "The same command goes on, in the folder where it was first given:",
    }
    if larger:
        found["more"] = _words(context, larger, without)
        found["then"] = "And for more of it:"
    return found


# Parameters of a command that are not for its repetition.
_ONCE = {"restart", "overwrite", "as_json", "quiet"}


def _words(context: typer.Context, instead: Mapping[str, Any], without: Container[str]) -> str:
    """The command as it can be typed again."""
    words = ["nni-aiop", str(context.info_name)]
    for parameter in context.command.params:
        name = str(parameter.name)
        given = getattr(context.get_parameter_source(name), "name", "") != "DEFAULT"
        if name in _ONCE or name in without or not (given or name in instead):
            continue
        value = instead.get(name, context.params.get(name))
        long = [option for option in parameter.opts if option.startswith("--")]
        brief = [option for option in parameter.opts if option.startswith("-")]
        option = (long or brief or [""])[0]
        if value is True or value is False:
            off = [o for o in parameter.secondary_opts if o.startswith("--")]
            words += [option] if value else off[:1]
            continue
        values = value if isinstance(value, (list, tuple)) else [value]
        for one in values:
            words += [*([option] if option else []), str(one)]
    return shlex.join(words)


def check_table(file: Path, *, overwrite: bool) -> None:
    """Refuse a CSV that a command cannot write, or that it would destroy.

    Raises:
        BadInput: As `check_files`, or the name does not end in .csv.
    """
    if file.suffix.lower() != ".csv":
        raise BadInput(f"--out must name a file .csv, but got {file}.")
    check_files([file], option="--out", overwrite=overwrite)


def write_table(file: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    """The path of a CSV with these columns and rows."""
    from nni_aiop.files import write_atomically

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return write_atomically(file, text.getvalue())


def _same(file: Path, other: Path) -> bool:
    try:
        return os.path.samefile(file, other)
    except OSError:
        return os.path.realpath(file) == os.path.realpath(other)


def _try(file: Path, option: str) -> None:
    """Write a draft as `write_atomically` does; nothing of it stays, nor do folders made for it."""
    draft = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    missing = [p for p in (file.parent, *file.parent.parents) if not os.path.lexists(p)]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        draft.touch()
        draft.unlink()
    except OSError as err:
        raise BadInput(
            f"{option} must lead to where files can be written, but {file} cannot be: "
            f"{err.strerror}."
        ) from err
    finally:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()
