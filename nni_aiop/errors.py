"""The package's exceptions: few, and all with one base."""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = [
    "AiopError",
    "FileFormatError",
    "GraphError",
    "InfeasibleError",
    "MissingPackageError",
    "SpaceError",
    "UnknownCostWarning",
    "require",
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
