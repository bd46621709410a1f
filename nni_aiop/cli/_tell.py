"""What a command tells: text for people, or one JSON object for programs.

A command calls `answer` with what it was asked for and `note` with what is good to know beside it.
Two options that every command has, before or behind its name, change what becomes of them:

    --quiet     no notes and no bars; the answer, results files and errors stay
    --json      standard output is one JSON object and nothing else: the fields of the answer,
                `command`, `notes`, `exit_code`, and `error` where there was one. NaN is null.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeAlias, get_type_hints

import typer
from typer.models import CommandFunctionType

__all__ = [
    "Commands",
    "answer",
    "answer_fields",
    "interrupted",
    "note",
    "shows_bars",
    "telling",
    "wants_json",
    "went_wrong",
]

_JSON, _QUIET = "--json", "--quiet"

Json: TypeAlias = Annotated[
    bool, typer.Option(_JSON, help="Write one JSON object to standard output, and nothing else.")
]
Quiet: TypeAlias = Annotated[
    bool, typer.Option(_QUIET, help="No bars and no notes; results and errors are told.")
]


@dataclass
class Told:
    """What one command has told.

    Args:
        as_json: Whether it becomes an object.
        quiet: Whether notes and bars are left out.
    """

    as_json: bool = False
    quiet: bool = False
    command: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    error: str | None = None

    def object(self, code: int) -> str:
        """The object as text, with the exit code."""
        from nni_aiop.files import plain

        told = {"command": self.command, **self.fields, "notes": self.notes}
        told |= {} if self.error is None else {"error": self.error}
        return json.dumps(plain({**told, "exit_code": code}), indent=2, allow_nan=False)


_told = Told()


def answer(text: str, **fields: object) -> None:
    """Tell what the command was asked for.

    Args:
        text: For people.
        fields: The same for programs: numbers, texts, lists and dicts, by their keys.
    """
    _told.fields.update(fields)
    if not _told.as_json:
        typer.echo(text)


def answer_fields(**fields: object) -> None:
    """What the answer has for programs alone, where its text was told by and by."""
    _told.fields.update(fields)


def note(text: str, *, err: bool = False) -> None:
    """Tell what is good to know beside the answer.

    Args:
        text: For people; in the object it is one line.
        err: Whether it goes to standard error.
    """
    if _told.quiet:
        return
    if _told.as_json:
        _told.notes.append(" ".join(text.split()))
    else:
        typer.echo(text, err=err)


def went_wrong(text: str) -> None:
    """Say in the object what went wrong in a command that answers all the same."""
    _told.error = text


def interrupted(text: str) -> None:
    """Tell standard error how far a command came before Ctrl-C, whatever the options."""
    _told.error = text
    typer.echo(text, err=True)


def shows_bars() -> bool:
    """Whether bars and spinners are shown, on a terminal."""
    return not _told.quiet


def wants_json() -> bool:
    """Whether the command's object is all that goes to standard output."""
    return _told.as_json


@contextmanager
def telling(args: Sequence[str]) -> Iterator[Told]:
    """What the command in this block tells; its object is left to the caller to write.

    The options are looked for in the arguments themselves, so that errors of usage obey them too.

    Args:
        args: Of the command line.
    """
    global _told
    options = list(args)[: list(args).index("--")] if "--" in args else args
    helped = any(word in options for word in ("-h", "--help"))
    _told = told = Told(_JSON in options and not helped, _QUIET in options)
    try:
        if told.as_json:
            with _standard_output_as_error():
                yield told
        else:
            yield told
    finally:
        _told = Told()


@contextmanager
def _standard_output_as_error() -> Iterator[None]:
    """What anything else writes to standard output, processes that it starts too, is beside it."""
    sys.stdout.flush()
    try:
        number, error = sys.stdout.fileno(), sys.stderr.fileno()
    except (OSError, ValueError):  # a stream of Python's alone, as in tests
        with redirect_stdout(sys.stderr):
            yield
        return
    kept = os.dup(number)
    os.dup2(error, number)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, number)
        os.close(kept)


class Commands(typer.Typer):
    """Commands that have --json and --quiet."""

    def command(
        self, name: str | None = None, **settings: Any
    ) -> Callable[[CommandFunctionType], CommandFunctionType]:
        """As typer's, of a function that knows nothing of the two options."""
        register = super().command(name, **settings)
        group = self.info.name

        def add(function: CommandFunctionType) -> CommandFunctionType:
            own = name or function.__name__.replace("_", "-")
            words = own if group in (None, "nni-aiop") else f"{group} {own}"
            register(_with_options(function, words))
            return function

        return add

    def callback(self, **settings: Any) -> Callable[[CommandFunctionType], CommandFunctionType]:
        """As typer's, of a function that knows nothing of the two options."""
        register = super().callback(**settings)

        def add(function: CommandFunctionType) -> CommandFunctionType:
            register(_with_options(function, None))
            return function

        return add


def _with_options(function: Callable[..., Any], command: str | None) -> Callable[..., Any]:
    """The function with the two options in its signature, which `telling` has read already."""

    @functools.wraps(function)
    def call(**given: Any) -> Any:
        _told.command = command or _told.command
        return function(**{k: v for k, v in given.items() if k not in ("as_json", "quiet")})

    hints = get_type_hints(function, include_extras=True)
    own = [
        parameter.replace(annotation=hints[name])
        for name, parameter in inspect.signature(function).parameters.items()
    ]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
        for name, kind in (("as_json", Json), ("quiet", Quiet))
    ]
    call.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *added)}
    return call
