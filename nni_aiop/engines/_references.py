"""What a text `package.module:name` leads to."""

from __future__ import annotations

import warnings
from importlib import import_module
from types import ModuleType
from typing import Any

from nni_aiop.errors import AiopError, MissingPackageError

__all__ = ["load_object", "made"]


def load_object(reference: str) -> Any:
    """The object that `package.module:name` names (its parts may go deeper: `module:Class.method`).

    Raises:
        AiopError: The text has another form, or there is no such module or name.
        MissingPackageError: The module needs a package that is not installed.
    """
    module_name, colon, name = reference.partition(":")
    if not (module_name and colon and name) or module_name.startswith("."):
        raise AiopError(
            f"a reference must be importable as package.module:name, but got {reference!r}."
        )
    try:
        found: Any = _import(module_name)
        for part in name.split("."):
            found = getattr(found, part)
    except MissingPackageError:
        raise
    except (ImportError, AttributeError) as err:
        raise AiopError(f"{reference!r} must name something importable, but: {err}.") from err
    return found


def made(given: Any) -> Any:
    """What is given or what a reference leads to; a class, or a function that makes it, is called.

    Raises:
        AiopError: The reference leads nowhere.
    """
    found = load_object(given) if isinstance(given, str) else given
    makes = isinstance(found, type) or (callable(found) and not hasattr(found, "simplify"))
    return found() if makes else found


def _import(name: str) -> ModuleType:
    with warnings.catch_warnings():
        # A user's module may be the first to import NNI; see `importing_nni`.
        warnings.filterwarnings("ignore", message=".*found to be not a nn.Module", module="nni")
        return import_module(name)
