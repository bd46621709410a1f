"""Ready search spaces: each has codes, exact costs, features for predictors, and its networks.

Every space is a module with `code_space() -> CodeSpace`, free of any engine, and a class that
is an NNI ModelSpace with the same labels in the same order (there when NNI is installed).
"""

from __future__ import annotations

import importlib

from nni_aiop.errors import MissingPackageError, SpaceError
from nni_aiop.spaces import CodeSpace

__all__ = ["SPACES", "get_space"]

SPACES: dict[str, str] = {
    "digits": "nni_aiop.search_spaces.digits",
    "multi_resolution": "nni_aiop.search_spaces.multi_resolution",
    "nasbench201": "nni_aiop.search_spaces.nasbench201",
}
"""Module of each ready space, by its name."""


def get_space(name: str) -> CodeSpace:
    """The code space of a ready space, or of a user's own.

    Args:
        name: A key of `SPACES`, or `module:attribute`, where the attribute is a CodeSpace, an NNI
            ModelSpace, or something to call without arguments that returns either. The module
            is imported: name only modules that you trust.

    Raises:
        SpaceError: The name is unknown, or does not lead to a CodeSpace.
        MissingPackageError: The space needs a package that is not installed.

    Example:
        >>> get_space("nasbench201").labels
        ('op_01', 'op_02', 'op_12', 'op_03', 'op_13', 'op_23')
    """
    if name in SPACES:
        module_name, attribute = SPACES[name], "code_space"
    elif ":" in name:
        module_name, attribute = name.split(":", maxsplit=1)
    else:
        raise SpaceError(
            f"a space must be one of {', '.join(sorted(SPACES))} or module:attribute, "
            f"but got {name!r}."
        )
    try:
        found: object = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except MissingPackageError:
        raise
    except (ImportError, AttributeError, ValueError) as err:
        raise SpaceError(f"a space must be importable, but got {name!r} ({err}).") from err
    if callable(found) and not isinstance(found, CodeSpace):
        found = found()
    method = getattr(found, "code_space", None)
    if callable(method):
        found = method()
    elif callable(getattr(found, "simplify", None)):
        from nni_aiop.engines.nni_space import code_space_from_nni

        found = code_space_from_nni(found)
    if not isinstance(found, CodeSpace):
        raise SpaceError(
            f"{name!r} must lead to a CodeSpace, but gives an object of type "
            f"{type(found).__name__}."
        )
    return found
