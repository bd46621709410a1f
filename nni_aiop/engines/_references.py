"""What a text `package.module:name` leads to."""

from __future__ import annotations

import re
import warnings
from importlib import import_module
from types import ModuleType
from typing import Any

from nni_aiop.errors import AiopError, MissingPackageError

__all__ = ["load_object", "made", "raised", "told_by_database", "without_password"]


def load_object(reference: str) -> Any:
    """The object that `package.module:name` names (its parts may go deeper: `module:Class.method`).

    Raises:
        AiopError: The text has another form, there is no such module or name, or the module raises.
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
    except (Exception, SystemExit) as err:
        raise AiopError(
            f"{reference!r} must name something importable, but importing it raised {raised(err)}."
        ) from err
    return found


def without_password(storage: str) -> str:
    """A storage's URL as it may be shown."""
    shown = re.sub(r"(://[^:/@]*):.*@", r"\1:***@", storage)
    return re.sub(r"(?i)(password=)[^&]*", r"\1***", shown)


def raised(err: BaseException) -> str:
    """An exception of other people's code, by its kind and text, in one line."""
    text = " ".join(str(err).split()).rstrip(".")
    return f"{type(err).__name__}: {text}" if text else type(err).__name__


def told_by_database(err: BaseException) -> str:
    """The same of a database's exception, without its statement and links."""
    return raised(err).partition(" (Background")[0].partition(" [SQL")[0]


def made(given: Any) -> Any:
    """What is given or what a reference leads to; a class, or a function that makes it, is called.

    Raises:
        AiopError: The reference leads nowhere, or the call raises.
        OSError: The call raises it.
        TypeError: The call raises it, as one does that wants arguments.
    """
    found = load_object(given) if isinstance(given, str) else given
    is_made = hasattr(found, "simplify") or hasattr(found, "code_space")  # modules can be called
    makes = isinstance(found, type) or (callable(found) and not is_made)
    if not makes:
        return found
    try:
        return found()
    except (AiopError, OSError, TypeError):
        raise
    except (Exception, SystemExit) as err:
        name = repr(given) if isinstance(given, str) else getattr(found, "__qualname__", found)
        raise AiopError(f"{name} must return when called, but raised {raised(err)}.") from err


def _import(name: str) -> ModuleType:
    with warnings.catch_warnings():
        # A user's module may be the first to import NNI; see `importing_nni`.
        warnings.filterwarnings("ignore", message=".*found to be not a nn.Module", module="nni")
        return import_module(name)
