"""strategies → search_spaces → nni_aiop, and the engines behind one door."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# The one place that puts all the rooms together; nothing imports it.
COMPOSITION_ROOT = "nni_aiop.cli"
# A door that shows what stands in several rooms, each name imported when it is asked for.
DOOR = "nni_aiop.evaluators"
LEVELS = ["nni_aiop.strategies", "nni_aiop.search_spaces", "nni_aiop"]


def room(module: str) -> str:
    for name in (COMPOSITION_ROOT, DOOR, *LEVELS):
        if module == name or module.startswith(name + "."):
            return name
    return ""


def sources() -> Iterator[tuple[str, Path]]:
    """(module, file) of every module of the three rooms."""
    for name, folder in (
        ("nni_aiop", ROOT / "nni_aiop"),
        ("nni_aiop.strategies", ROOT / "strategies"),
        ("nni_aiop.search_spaces", ROOT / "search_spaces"),
    ):
        for path in folder.rglob("*.py"):
            inside = path.relative_to(folder).parts
            # The two links inside nni_aiop show the top-level folders a second time.
            if name == "nni_aiop" and inside[0] in ("strategies", "search_spaces"):
                continue
            parts = [p for p in (*inside[:-1], path.stem) if p != "__init__"]
            yield ".".join([name, *parts]), path


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module that a file imports, by statement at any depth or by importlib with a text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).split(".")[-1] in ("import_module", "require", "__import__")
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield str(node.args[0].value)


def breaches(module: str, source: str) -> list[str]:
    """What a module imports against the rules."""
    here = room(module)
    out = []
    for name in imports(ast.parse(source)):
        there = room(name)
        if there in (COMPOSITION_ROOT, DOOR) and here not in (COMPOSITION_ROOT, there):
            out.append(f"{module} imports {name}: nothing imports {there}")
        elif here in LEVELS and there in LEVELS and LEVELS.index(there) < LEVELS.index(here):
            out.append(f"{module} imports {name}: imports run {' → '.join(LEVELS)}")
        if (
            here == "nni_aiop"
            and name.split(".")[0] in ("nni", "optuna")
            and not module.startswith("nni_aiop.engines")
        ):
            out.append(f"{module} imports {name}: the core does so in nni_aiop.engines only")
    return out


def test_imports_run_one_way() -> None:
    found = dict(sources())
    assert {room(m) for m in found} == {COMPOSITION_ROOT, DOOR, *LEVELS}
    assert [b for module, path in found.items() for b in breaches(module, path.read_text())] == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("nni_aiop.spaces.x", "def f():\n    from nni_aiop.search_spaces import get_space"),
        ("nni_aiop.spaces.x", "import nni_aiop.strategies"),
        ("nni_aiop.search_spaces.x", "from nni_aiop import strategies"),
        ("nni_aiop.strategies.x", "from nni_aiop.cli import main"),
        ("nni_aiop.spaces.x", "from nni_aiop.evaluators import DigitsEvaluator"),
        ("nni_aiop.search.x", "import optuna"),
        ("nni_aiop.search.x", "nni = require('nni.nas', 'nni')"),
    ],
)
def test_a_breach_is_seen(module: str, source: str) -> None:
    assert len(breaches(module, source)) == 1
