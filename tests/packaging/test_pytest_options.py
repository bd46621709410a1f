"""pytest starts beside what NNI installs, on every Python that is supported."""

from __future__ import annotations

import warnings

import pytest


def test_the_plugin_of_typeguard_is_not_loaded(pytestconfig: pytest.Config) -> None:
    """NNI pins typeguard 4.1.2, whose import warns on Python 3.12, and warnings are errors."""
    assert pytestconfig.pluginmanager.is_blocked("typeguard")
    assert not pytestconfig.pluginmanager.has_plugin("typeguard")


@pytest.mark.parametrize("name", ["Str", "Num", "NameConstant"])
def test_its_import_from_nni_is_no_error(name: str) -> None:
    """Python's own words for what typeguard imports from `ast`."""
    message = f"ast.{name} is deprecated and will be removed in Python 3.14; use ast.Constant"
    warnings.warn(message, DeprecationWarning, stacklevel=1)
    with pytest.raises(DeprecationWarning):
        warnings.warn(f"nni.{name} is deprecated", DeprecationWarning, stacklevel=1)
