"""The commands, and what all of them share: one sentence and exit code 2 for bad input."""

from __future__ import annotations

import errno
import os
import platform
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, TypeAlias

import typer
from typer.core import TyperGroup

from nni_aiop import __version__
from nni_aiop.cli._tell import Commands, Told, answer, telling, wants_json
from nni_aiop.engines._references import raised
from nni_aiop.errors import AiopError

# typer brings its own copy of click in newer releases and imports click in older ones; this is the
# base of its usage errors in both.
_UsageError: type[Exception] = typer.BadParameter.__mro__[2]


class BadInput(AiopError):
    """What was typed, or what a file says, breaks a rule."""


MOST = 1_000_000
"""The most evaluations: a search plans for all of them."""

KeepGoing: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--keep-going",
        help="Go on although the first evaluations fail and none succeeds.",
    ),
]

Restart: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--restart",
        help="Begin anew instead of going on with the search in the folder, whose results are "
        "overwritten.",
    ),
]


class NothingWorked(AiopError):
    """No evaluation of a search succeeded; the command ends with exit code 1."""


@contextmanager
def bad_input() -> Iterator[None]:
    """A ValueError or TypeError inside this block is the user's input: it becomes `BadInput`."""
    try:
        yield
    except AiopError:
        raise
    except (ValueError, TypeError) as err:
        raise BadInput(str(err)) from err


def sentence(err: BaseException) -> str:
    """What is told of an error: one line."""
    if isinstance(err, OSError) and err.filename is not None:
        text = f"{err.filename} must be usable, but is not: {err.strerror}"
        relative = not os.path.isabs(os.fsdecode(err.filename))
        looked = f" (looked for in {os.getcwd()})" if relative and err.errno == errno.ENOENT else ""
        text += f"{looked}."
    elif isinstance(err, _UsageError):
        text = err.format_message()  # type: ignore[attr-defined]
    else:
        text = str(err)
    return " ".join(text.split())


_INTERRUPTED = 130  # the exit code after Ctrl-C
_TRACEBACK = "NNI_AIOP_TRACEBACK"  # environment variable: unforeseen errors show their traceback


def _place(err: Exception) -> str:
    """Where an unforeseen error was raised, rather in the user's code or ours than in a library."""
    frames = traceback.extract_tb(err.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    return f"{own[-1].filename}, line {own[-1].lineno}"


class _OneSentence(TyperGroup):
    """A group of commands in which bad input ends with one sentence on stderr and exit code 2."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        def run() -> Any:
            return super(_OneSentence, self).main(
                args, prog_name, complete_var, False, windows_expand_args, **extra
            )

        if not standalone_mode:
            return run()
        with telling(sys.argv[1:] if args is None else args) as told:
            code = _exit_code(run, told)
        if code == _INTERRUPTED and told.error is None:
            told.error = "interrupted by Ctrl-C"
        if told.as_json:
            code = _exit_code(lambda: _write(told.object(code), code), None)
        sys.exit(code)


def _exit_code(run: Callable[[], Any], told: Told | None) -> int:
    """The exit code of a command, or of writing its object, whose error is told in a sentence."""
    try:
        # Outside its standalone mode typer returns the code of typer.Exit, also that of Ctrl-C.
        code = run()
        return code if isinstance(code, int) else 0
    except (_UsageError, AiopError) as err:
        _tell_error(sentence(err), told)
        return 1 if isinstance(err, NothingWorked) else 2
    except OSError as err:
        if err.errno == errno.EPIPE:  # the reader of our output, such as `head`, is gone
            sys.stderr.close()
            return 1
        _tell_error(sentence(err), told)
        return 2
    except typer.Abort:
        return _INTERRUPTED
    except Exception as err:
        if os.environ.get(_TRACEBACK):
            raise
        place = f"(in {_place(err)}; {_TRACEBACK}=1 shows the way there)"
        _tell_error(f"{raised(err)} {place}.", told)
        return 2


def _tell_error(text: str, told: Told | None) -> None:
    typer.echo(f"nni-aiop: {text}", err=True)
    if told is not None:
        told.error = text


def _write(text: str, code: int) -> int:
    typer.echo(text)
    return code


EXIT_CODES = {
    0: "done; also for help, and for a group of commands without one",
    1: "nothing came out: no evaluation succeeded, or nothing is predicted of any network",
    2: "bad input: one sentence on standard error names the rule and the value; also where some "
    "of several files cannot be read, which are named below the answer",
    130: "interrupted by Ctrl-C; what was done is kept, and the same command goes on from there",
}
"""All exit codes, and what they mean."""


def _lines(codes: Mapping[int, str]) -> Iterator[str]:
    for code, text in codes.items():
        first, *more = textwrap.wrap(text, 68)
        yield f"  {code:<4} {first}"
        yield from (f"       {line}" for line in more)


app = Commands(
    name="nni-aiop",
    cls=_OneSentence,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "Predictor-based neural architecture search.\n\n"
        "A search proposes architectures of a space, an evaluator measures them, and the results "
        "land in a folder: report.html to look at, results.json, history.csv and search.png.\n\n"
        "--json and --quiet may stand before a command or behind it.\n\n"
        "\b\n"
        "Begin with\n"
        "  nni-aiop spaces list\n"
        "  nni-aiop search digits --evaluations 20 --out out/first\n"
        "  nni-aiop run examples/nni_ncp_digits.yml\n"
        "  nni-aiop --install-completion"
    ),
    epilog="\b\n" + "\n".join(["Exit codes", *_lines(EXIT_CODES)]),
)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version, Python's and those of engines.")
    ] = False,
) -> None:
    if version:
        found = versions()
        name, *others = [f"{package} {number}" for package, number in found.items()]
        answer(f"{name} ({', '.join(others)})", versions=found)
    else:
        _show_help(context)


def versions() -> dict[str, str]:
    """Of this package, of Python and of what it runs on, without importing any of them."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"nni-aiop": __version__, "Python": platform.python_version()}
    for package in ("torch", "optuna", "nni"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def main() -> None:
    """Run the command line."""
    app()


def help_without_command(group: typer.Typer) -> None:
    """Let a group of commands show its help when it is called without one."""
    group.callback(invoke_without_command=True)(_show_help)


def _show_help(context: typer.Context) -> None:
    """The help, where no command was named: exit code 0."""
    if context.invoked_subcommand is not None:
        return
    if wants_json():
        raise BadInput("--json must stand beside a command that answers, but there is none.")
    typer.echo(context.get_help())


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A plain text table; floats with six digits."""
    cells = [list(headers), *([_shown(value) for value in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headers))]
    cells.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )


def _shown(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
