"""Names that a module shows without importing what they stand in until they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["lazy_names"]


def lazy_names(module: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a module (PEP 562) that finds these names elsewhere.

    Args:
        module: The module's own name.
        modules: Name -> the module where it stands.
    """

    def find(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        return getattr(import_module(modules[name]), name)

    return find
