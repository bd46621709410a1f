"""What `import nni_aiop` offers: the first names and the rooms, and it stays quick."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import nni_aiop

ROOT = Path(__file__).parents[1]


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_import_takes_nothing_along() -> None:
    code = "import sys; import nni_aiop; print(*sorted(m for m in sys.modules if 'aiop' in m))"
    loaded = [name for name in python(code).split() if not name.startswith("__editable__")]
    assert [name for name in loaded if "finder" not in name] == ["nni_aiop", "nni_aiop._lazy"]


@pytest.mark.parametrize("name", nni_aiop.__all__)
def test_a_name_is_that_of_its_room(name: str) -> None:
    home = import_module(nni_aiop._MODULES[name])
    assert getattr(nni_aiop, name) is getattr(home, name)
    assert name in home.__all__ and name in dir(nni_aiop)


def test_every_name_is_shown_and_every_room_is_one() -> None:
    assert sorted(nni_aiop._MODULES) == sorted(nni_aiop.__all__)
    for room in nni_aiop._ROOMS:
        folder = ROOT / "nni_aiop" / room
        assert (folder / "__init__.py").exists() or folder.with_suffix(".py").exists(), room
        assert room in dir(nni_aiop)


def test_rooms_are_there_without_an_import_of_their_own() -> None:
    assert python("import nni_aiop; print(nni_aiop.strategies.NCPSampler.__name__)") == "NCPSampler"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'nni_aiop' has no attribute 'NCP'"):
        nni_aiop.NCP  # noqa: B018


def test_the_example_runs() -> None:
    import doctest

    assert doctest.testmod(nni_aiop).attempted == 4 and doctest.testmod(nni_aiop).failed == 0
