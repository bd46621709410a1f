"""The packages for OptunaHub: each keeps the registry's layout, and its README's example runs.

A new package joins by itself; what its example prints stands in `SHOWN`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

import nni_aiop.strategies

optunahub = pytest.importorskip("optunahub")

ROOT = Path(__file__).parents[2]
REGISTRY = ROOT / "packages"
PACKAGES = sorted(
    str(path.parent.relative_to(REGISTRY)) for path in REGISTRY.glob("*/*/__init__.py")
)
KINDS = {"samplers": ("sampler", BaseSampler), "pruners": ("pruner", BasePruner)}
HEADER = {"author", "title", "description", "tags", "optuna_versions", "license"}


def readme(package: str) -> tuple[dict[str, Any], str]:
    """The front matter of a package's README, and what stands below it."""
    text = (REGISTRY / package / "README.md").read_text()
    _, header, body = text.split("---\n", 2)
    return yaml.safe_load(header), body


def example(package: str) -> str:
    """The one block of Python of a package's README."""
    (code,) = re.findall(r"^```python\n(.*?)^```", readme(package)[1], flags=re.M | re.S)
    return str(code)


@pytest.fixture(autouse=True)
def from_here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`load_module` takes the packages of this repository, instead of the registry's."""
    local = partial(optunahub.load_local_module, registry_root=str(REGISTRY))
    monkeypatch.setattr(optunahub, "load_module", local)
    yield
    for name in [name for name in sys.modules if name.startswith("optunahub_registry")]:
        monkeypatch.delitem(sys.modules, name)


def test_the_four_packages_are_there() -> None:
    assert PACKAGES == [
        "pruners/nni_aiop_early_stopping",
        "samplers/nni_aiop_flops_reduction",
        "samplers/nni_aiop_ncp",
        "samplers/nni_aiop_pnag",
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_shows_what_this_one_has(package: str) -> None:
    module = optunahub.load_local_module(package, registry_root=str(REGISTRY))
    (name,) = module.__all__
    assert getattr(module, name) is getattr(nni_aiop.strategies, name)
    assert issubclass(getattr(module, name), KINDS[package.split("/")[0]][1])
    assert f"`{name}(" in readme(package)[1]


@pytest.mark.parametrize("package", PACKAGES)
def test_the_front_matter_is_whole(package: str) -> None:
    header, body = readme(package)
    assert header.keys() == HEADER and all(header.values())
    assert KINDS[package.split("/")[0]][0] in header["tags"]
    assert all(isinstance(word, str) for word in [*header["tags"], *header["optuna_versions"]])
    pin = re.search(r"^optuna==(.+)$", (ROOT / "constraints.txt").read_text(), flags=re.M)
    assert pin is not None and header["optuna_versions"] == [pin[1]]
    assert header["license"] == "MIT License"
    assert (REGISTRY / package / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    headings = re.findall(r"^## (.+)$", body, flags=re.M)
    assert headings[:4] == ["Abstract", "APIs", "Installation", "Example"]
    assert not re.search(r"</?\w+[^>]*>", body), "the registry takes no HTML"


SHOWN = {
    "pruners/nni_aiop_early_stopping": r"best 0\.9\d\d, (\d+) of 40 stopped early\n",
    "samplers/nni_aiop_flops_reduction": r"(\S+) multiply-adds before\n(.* loss .*\n){6}",
    "samplers/nni_aiop_ncp": r"(\S+) \{'depth': \d, 'width': \d+, 'op': '\w+'\}\n",
    "samplers/nni_aiop_pnag": r"(\[.*\] \{.*\}\n)+",
}
"""What each example prints."""


@pytest.mark.parametrize("package", PACKAGES)
def test_the_example_runs(package: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        exec(compile(example(package), package, "exec"), {"__name__": "__main__"})
    finally:
        optuna.logging.set_verbosity(before)
    printed = capsys.readouterr().out
    found = re.fullmatch(SHOWN[package], printed)
    assert found is not None, printed
    if package.endswith("ncp"):
        assert float(found[1]) == 2.0, "the optimum of the stand-in"
    elif package.endswith("early_stopping"):
        assert int(found[1]) > 5
    elif package.endswith("reduction"):
        macs = [int(n.replace(",", "")) for n in re.findall(r"^(\S+) multiply", printed, re.M)]
        assert all(n <= 0.7 * macs[0] for n in macs[1:])
        assert any(n <= 0.5 * macs[0] for n in macs[1:])


def test_without_this_package_one_says_what_is_missing(tmp_path: Path) -> None:
    for package in PACKAGES:
        source = REGISTRY / package / "__init__.py"
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(source)], capture_output=True, text=True, cwd=tmp_path
        )
        assert "ModuleNotFoundError: this package needs nni_aiop" in done.stderr
