"""The list of ready spaces, and spaces named by module and attribute."""

import sys
from types import ModuleType

import pytest

from nni_aiop.errors import MissingPackageError, SpaceError
from nni_aiop.search_spaces import SPACES, get_space
from nni_aiop.spaces import CodeSpace, Nominal


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    own = ModuleType("own_space")
    monkeypatch.setitem(sys.modules, "own_space", own)
    return own


def small() -> CodeSpace:
    return CodeSpace([Nominal("a", ["x", "y"])], name="own")


@pytest.mark.parametrize("name", SPACES)
def test_every_ready_space_is_a_code_space_of_that_name(name: str) -> None:
    space = get_space(name)
    assert isinstance(space, CodeSpace) and space.name == name and space.costs


def test_a_users_own_space(module: ModuleType) -> None:
    space = small()

    class Wrapped:
        def code_space(self) -> CodeSpace:
            return space

    module.__dict__.update(made=space, make=lambda: space, Wrapped=Wrapped, inner=Wrapped())
    for attribute in ("made", "make", "Wrapped", "inner", "inner.code_space"):
        assert get_space(f"own_space:{attribute}") is space


def test_unknown_names_list_the_choices(module: ModuleType) -> None:
    known = ", ".join(sorted(SPACES))
    with pytest.raises(SpaceError, match=rf"one of {known} or .* 'mnas'"):
        get_space("mnas")
    module.__dict__.update(number=7)
    with pytest.raises(SpaceError, match=r"must lead to a CodeSpace, but gives .* type int"):
        get_space("own_space:number")
    for name in ("own_space:none", "no_such_module:x", ":x", "own_space:"):
        with pytest.raises(SpaceError, match="importable"):
            get_space(name)


def test_a_missing_package_stays_one(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise MissingPackageError(f"{name} needs NNI")

    monkeypatch.setattr(module, "__getattr__", missing, raising=False)
    with pytest.raises(MissingPackageError, match="needs NNI"):
        get_space("own_space:Space")
