"""What import-linter's contracts (pyproject.toml) cannot say: engines, circles, sizes of files.

The stair itself is checked by `make lint`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import networkx as nx
import pytest

import nni_aiop

ROOT = Path(__file__).parents[2]

# The one place that puts all the rooms together; nothing but `python -m nni_aiop` imports it.
COMPOSITION_ROOT = "nni_aiop.cli"
ENTRY = "nni_aiop.__main__"
# A door that shows what stands in several rooms, each name imported when it is asked for.
DOOR = "nni_aiop.evaluators"
ABOVE = ("nni_aiop.strategies", "nni_aiop.search_spaces")
# It shows the first names, which would lead up the stair unseen.
ROOT_MODULE = "nni_aiop"
SHOWN = tuple(nni_aiop.__all__)
MOST_LINES = 500


def sources() -> Iterator[tuple[str, Path]]:
    """(module, file) of every module of the package, by its installed name."""
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


def within(module: str, *rooms: str) -> bool:
    return any(module == room or module.startswith(room + ".") for room in rooms)


def breaches(module: str, source: str) -> list[str]:
    """What a module imports against the rules."""
    out = []
    for name in imports(ast.parse(source)):
        for room in (COMPOSITION_ROOT, DOOR):
            if within(name, room) and not within(module, COMPOSITION_ROOT, room, ENTRY):
                out.append(f"{module} imports {name}: nothing imports {room}")
        if name.startswith("nni_aiop.") and name.split(".")[1] in SHOWN and module != ROOT_MODULE:
            out.append(f"{module} imports {name}: from its room, not from where users find it")
        core = not within(module, *ABOVE, COMPOSITION_ROOT, "nni_aiop.engines")
        if core and name.split(".")[0] in ("nni", "optuna"):
            out.append(f"{module} imports {name}: the core does so in nni_aiop.engines only")
    return out


def test_engines_stand_behind_one_door_and_nothing_imports_the_command_line() -> None:
    assert [b for module, path in sources() for b in breaches(module, path.read_text())] == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("nni_aiop.strategies.x", "from nni_aiop.cli import main"),
        ("nni_aiop.spaces.x", "from nni_aiop.evaluators import DigitsEvaluator"),
        ("nni_aiop.search.x", "def f():\n    import optuna"),
        ("nni_aiop.search.x", "nni = require('nni.nas', 'nni')"),
        ("nni_aiop.spaces.x", "from nni_aiop import NCPSearch"),
    ],
)
def test_a_breach_is_seen(module: str, source: str) -> None:
    assert len(breaches(module, source)) == 1


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Imports inside functions and those for types count."""
    import grimp

    found = grimp.build_graph("nni_aiop", exclude_type_checking_imports=False, cache_dir=None)
    assert set(found.modules) == {module for module, _ in sources()}
    graph = nx.DiGraph(
        (module, other)
        for module in found.modules
        for other in found.find_modules_directly_imported_by(module)
    )
    assert [sorted(c) for c in nx.strongly_connected_components(graph) if len(c) > 1] == []


def test_a_long_file_says_why_in_its_first_line() -> None:
    long = [
        f"{module}: {len(lines)} lines"
        for module, path in sources()
        if len(lines := path.read_text().splitlines()) > MOST_LINES
        and not re.search(r"\bin one file\b", lines[0])
    ]
    assert long == []
