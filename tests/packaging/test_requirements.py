"""What the package requires is what it imports: nothing is missing, nothing is carried along."""

from __future__ import annotations

import ast
import configparser
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("nni_aiop", "strategies", "search_spaces")

SETTINGS = configparser.ConfigParser()
SETTINGS.read(ROOT / "setup.cfg")


def names(lines: str) -> set[str]:
    """The distributions that some lines of requirements name."""
    found = re.findall(r"^\s*([\w.-]+)", lines, flags=re.M)
    return {re.sub(r"[-_.]+", "-", name).lower() for name in found}


def imported(*folders: str) -> set[str]:
    """The distributions that the files of some folders import."""
    modules = set()
    for folder in folders:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    modules |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    modules.add(node.module.split(".")[0])
                elif (
                    isinstance(node, ast.Call)
                    and ast.unparse(node.func).split(".")[-1] in ("import_module", "require")
                    and node.args
                    and isinstance(node.args[0], ast.Constant)
                ):
                    modules.add(str(node.args[0].value).split(".")[0])
    own = {"nni_aiop", *(path.stem for f in folders for path in (ROOT / f).rglob("*.py"))}
    known = packages_distributions()
    outside = modules - set(sys.stdlib_module_names) - own
    return {names(d).pop() for module in outside for d in known.get(module, [module])}


def test_every_requirement_is_imported() -> None:
    assert names(SETTINGS["options"]["install_requires"]) <= imported(*ROOMS)


def test_every_import_is_required() -> None:
    extras = SETTINGS["options.extras_require"]
    allowed = names(SETTINGS["options"]["install_requires"])
    allowed |= names(extras["nni"]) | names(extras["latency"])
    assert imported(*ROOMS) <= allowed
    more = names(extras["benchmarks"])
    # timm is installed by `make` alone: it requires torchvision, whose wheels bring CUDA.
    assert imported("benchmarks") - {"timm"} <= allowed | more
    assert more <= imported("benchmarks")


@pytest.mark.parametrize("extra", ["install_requires", *SETTINGS["options.extras_require"]])
def test_every_requirement_is_pinned(extra: str) -> None:
    pins = (ROOT / "constraints.txt").read_text()
    section = (
        SETTINGS["options"] if extra == "install_requires" else SETTINGS["options.extras_require"]
    )
    lines = re.sub(r"#.*", "", section[extra])
    assert names(lines) <= names(re.sub(r"#.*", "", pins))
