"""docs/architecture.md names the rooms that exist, in the order of the stair."""

from __future__ import annotations

import re
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()


def rooms() -> set[str]:
    """Every folder and file at the top of the package, the two links included."""
    found = {path.parent.name for path in (ROOT / "nni_aiop").glob("*/__init__.py")}
    found |= {path.stem for path in (ROOT / "nni_aiop").glob("*.py")}
    return found - {"__init__"}


def stair() -> list[str]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (contract,) = (
        c for c in settings["tool"]["importlinter"]["contracts"] if c["name"] == "the stair"
    )
    return [room for layer in contract["layers"] for room in layer.split(" | ")]


def test_the_page_and_the_contract_name_every_room_in_one_order() -> None:
    named = re.findall(r"^\| `(\w+)` \|", PAGE, flags=re.M)
    assert named == stair()
    assert set(named) == rooms()


def test_the_folders_that_the_page_names_exist() -> None:
    for path in set(re.findall(r"`((?:graphs|predictors)/\w+(?:\.py)?)`", PAGE)):
        assert (ROOT / "nni_aiop" / path).exists(), path


def test_every_wing_of_the_graphs_is_named() -> None:
    folders = {path.parent.name for path in (ROOT / "nni_aiop" / "graphs").glob("*/__init__.py")}
    doors = (ROOT / "nni_aiop" / "graphs" / "doors").glob("*/__init__.py")
    assert all(f"`graphs/{name}`" in PAGE for name in folders)
    assert all(f"`{path.parent.name}`" in PAGE for path in doors)
