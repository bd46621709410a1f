"""Small parts of the engines by hand: conditions of paths, results, references, states."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest

from nni_aiop.engines._nni_activity import _and, _CannotTellError, _either, _follows, _Reading
from nni_aiop.engines._optuna_session import repeated
from nni_aiop.engines._references import load_object, made
from nni_aiop.engines._results import recorded, settled
from nni_aiop.engines._state import read_state, write_state
from nni_aiop.errors import AiopError, FileFormatError
from nni_aiop.search import RandomSearch
from nni_aiop.spaces import CodeSpace, Condition, Ordinal

A1, A2, A12 = Condition("a", (1,)), Condition("a", (2,)), Condition("a", (1, 2))
B1, B2 = Condition("b", (1,)), Condition("b", (2,))


def test_conditions_on_one_parent_become_one() -> None:
    assert _and((), A1) == (A1,)
    assert _and((A1,), B1) == (A1, B1)
    assert _and((A12, B1), Condition("a", (2, 3))) == (A2, B1)
    assert _and((B1, A12), Condition("a", (2, 3))) == (B1, A2)


def test_a_stronger_path_follows_from_none_weaker() -> None:
    assert _follows((A1,), (A12,)) and not _follows((A12,), (A1,))
    assert _follows((A1, B1), (A1,)) and not _follows((A1,), (A1, B1))
    assert _follows((A1,), ()) and not _follows((), (A1,))
    assert not _follows((A1,), (B1,))


def test_one_path_that_holds_when_one_of_several_does() -> None:
    assert _either([(A1,)]) == (A1,)
    assert _either([(A1,), ()]) == () == _either([(), (A1,)])
    assert _either([(A1,), (A12,)]) == (A12,) == _either([(A12,), (A1,)])
    assert _either([(A1,), (A2,)]) == (A12,)
    assert _either([(A1, B1), (A1, B2)]) == (A1, Condition("b", (1, 2)))
    never = (Condition("a", ()),)
    assert _either([never, (B1,)]) == (B1,)
    for paths in ([(A1,), (B1,)], [(A1, B1), (A2, B2)], [never], []):
        with pytest.raises(_CannotTellError):
            _either(paths)


def test_what_is_read_of_a_sample_is_recorded() -> None:
    reading = _Reading({"a": 1, "b": 2, "c": 3, "d": 4})
    assert reading["a"] == 1 and "b" in reading and reading.get("c") == 3
    assert reading.get("x", 7) == 7 and "y" not in reading
    assert reading.read == {"a", "b", "c", "x", "y"}


def test_results_are_as_the_search_keeps_them() -> None:
    search = RandomSearch(CodeSpace([Ordinal("a", range(4))]), seed=0)
    given = [({"a": 0}, {"default": 0.5}), ({"a": 1}, {"default": math.nan}), ({"a": 2}, None)]
    for sample, metrics in given[:2]:
        search.tell(sample, metrics)
    kept = recorded(search, given)
    assert [sample for sample, _ in kept] == [{"a": 0}, {"a": 1}, {"a": 2}]
    assert [metrics for _, metrics in kept] == [{"default": 0.5}, None, None]
    assert recorded(SimpleNamespace(), given) == given
    newest = SimpleNamespace(
        space=search.space, history=[({"a": 0}, {"x": 1.0}), ({"a": 0}, {"x": 2.0})]
    )
    assert recorded(newest, given[:1]) == [({"a": 0}, {"x": 2.0})]


def test_infinity_is_no_result() -> None:
    assert settled(None) is None
    found = settled({"a": 1.5, "b": math.inf, "c": -math.inf, "d": math.nan})
    assert found is not None and found["a"] == 1.5
    assert all(math.isnan(found[name]) for name in "bcd")


def test_references() -> None:
    assert load_object("math:sqrt") is math.sqrt
    assert load_object("pathlib:Path.home") == Path.home
    for wrong in ("math", "math:", ":sqrt", ".math:sqrt", ""):
        with pytest.raises(AiopError, match=r"importable as package\.module:name"):
            load_object(wrong)
    for missing in ("math:cube", "no_such_module_here:x", "pathlib:Path.none"):
        with pytest.raises(AiopError, match="must name something importable"):
            load_object(missing)
    assert made("collections:OrderedDict") == {}
    assert made(lambda: 3) == 3 and made(4) == 4
    annotation = SimpleNamespace(simplify=None)
    assert made(annotation) is annotation


class CallableModel:
    def simplify(self) -> None: ...

    def __call__(self) -> int:
        raise AssertionError("a model space is not called")


def test_a_model_space_that_can_be_called_is_taken_as_it_is() -> None:
    model = CallableModel()
    assert made(model) is model


def test_states_are_mappings(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_state(path, {"a": [1, None]})
    assert read_state(path) == {"a": [1, None]}
    for text in ("[1]", "{", "3"):
        path.write_text(text)
        with pytest.raises(FileFormatError, match="a strategy's state"):
            read_state(path)
    with pytest.raises(FileFormatError, match="a strategy's state"):
        read_state(tmp_path / "none.json")


def test_trials_that_were_run_again() -> None:
    attributes = ({}, {"retry_history": [0]}, {"retry_history": [0, 1]})
    assert repeated([SimpleNamespace(system_attrs=a) for a in attributes]) == {0, 1}
    assert repeated([]) == set()
