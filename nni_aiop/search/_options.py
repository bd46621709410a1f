"""The options of a search, checked before its space is known."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from functools import partial
from numbers import Integral, Real
from typing import Any

from nni_aiop.errors import refuse_unknown
from nni_aiop.search._base import BaseSearch
from nni_aiop.search._predictor_based import RandomWarmup

__all__ = ["check_options", "check_value", "options_of"]


def options_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The keyword arguments of a function, or of a class and those it extends, and defaults."""
    made = [vars(c)["__init__"] for c in getattr(function, "__mro__", ()) if "__init__" in vars(c)]
    return {
        name: argument.default
        for one in reversed(made or [function])
        if one is not object.__init__
        for name, argument in inspect.signature(one).parameters.items()
        if argument.kind is argument.KEYWORD_ONLY
    }


def check_options(search: Any, options: Mapping[str, Any]) -> None:
    """Refuses options that a search cannot have in any space.

    Args:
        search: A search's class, or a `functools.partial` of one; of anything else nothing is
            known.
        options: Its arguments but for the space.

    Raises:
        TypeError: An option is unknown, or of another type.
        ValueError: An option is outside its range.
    """
    while isinstance(search, partial):
        search, options = search.func, {**search.keywords, **options}
    if not (isinstance(search, type) and issubclass(search, BaseSearch)):
        return
    known = options_of(search)
    refuse_unknown(search.__name__, options, known)
    for name, value in options.items():
        check_value(name, value, known[name])
    if search.__module__.startswith("nni_aiop."):
        # It checks the rest itself, whatever its space.
        search(search.stand_in(options.get("limits") or {}), **options)


def check_value(name: str, value: Any, default: Any) -> None:
    """Refuses a value of another type than an option's default.

    Raises:
        TypeError: It is one.
        ValueError: A number is NaN.
    """
    kinds: list[tuple[type | tuple[type, ...], type | tuple[type, ...], str]] = [
        (bool, bool, "True or False"),
        (int, Real if name == "budget" else Integral, "a whole number"),
        (float, Real, "a number"),
        (str, str, "a text"),
        (RandomWarmup, RandomWarmup, "a RandomWarmup, such as RandomWarmup(count=10)"),
    ]
    for kind, admitted, words in kinds:
        if isinstance(default, kind):
            right = isinstance(value, admitted)
            if not right or (isinstance(value, bool) and not isinstance(default, bool)):
                raise TypeError(f"{name} must be {words}, but got {value!r:.80}.")
            break
    if isinstance(value, Real) and math.isnan(value):
        raise ValueError(f"{name} must be a number, but got {value}.")
    if name in ("limits", "targets") and not (value is None or isinstance(value, Mapping)):
        raise TypeError(f"{name} must be bounds by the names of costs, but got {value!r:.80}.")
    if name == "predictor" and not (value is None or callable(value)):
        raise TypeError(
            f"a predictor must be a function of a space and a seed, or None, but got {value!r:.80}."
        )
