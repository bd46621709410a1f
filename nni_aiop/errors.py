"""The package's exceptions: few, and all with one base."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType

__all__ = [
    "AiopError",
    "FileFormatError",
    "GraphError",
    "InfeasibleError",
    "MissingPackageError",
    "SpaceError",
    "UnknownCostWarning",
    "did_you_mean",
    "refuse_unknown",
    "require",
    "the_nearest",
]


class AiopError(Exception):
    """Base of every error that this package raises on purpose."""


class SpaceError(AiopError, ValueError):
    """A space definition, a sample or a code breaks a rule of its space."""


class FileFormatError(AiopError, ValueError):
    """A file is refused: truncated, of another version, or with content that is not admitted."""


class GraphError(AiopError, ValueError):
    """A network cannot be read as a compute graph, or a compute graph breaks a rule."""


class InfeasibleError(AiopError, ValueError):
    """No architecture of the space meets the limits."""


class UnknownCostWarning(UserWarning):
    """A compute graph's costs leave out operations that are not known and may cost much."""


class MissingPackageError(AiopError, ImportError):
    """An optional package is needed here; the message says how to install it."""


def require(module: str, extra: str) -> ModuleType:
    """The imported `module`, which the optional dependency group `extra` installs.

    Raises:
        MissingPackageError: The module cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as err:
        raise MissingPackageError(
            f"{module!r} must be importable here, but is not ({err}): "
            f"install it with  pip install 'nni-aiop[{extra}]'"
        ) from err


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """A question that names what is nearest to a name; empty where nothing is near."""
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def the_nearest(name: object, known: Iterable[str], kind: str = "") -> str:
    """A clause that names what is nearest to a name, however far; empty where nothing is known.

    Example:
        >>> the_nearest("fc", ["head", "stem"], "name")
        "; the nearest name is 'head'"
    """
    near = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.0)
    return f"; the nearest {kind + ' ' if kind else ''}is {near[0]!r}" if near else ""


def refuse_unknown(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuses options that are not among the known ones, with the nearest of them.

    Raises:
        TypeError: One is unknown.
    """
    names = sorted(known)
    for name in given:
        if name not in names:
            raise TypeError(
                f"an option of {what} must be one of {', '.join(names)}, "
                f"but got {name!r}{did_you_mean(name, names)}."
            )
