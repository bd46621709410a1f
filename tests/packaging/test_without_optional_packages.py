"""Without NNI all but its adapter works and that says how to install it; imports stay light."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

BLOCK = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("nni", "pytorch_lightning"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
"""

EVERY_MODULE = """
import importlib, pkgutil
import nni_aiop
from nni_aiop.errors import MissingPackageError

refused = []
for module in pkgutil.walk_packages(nni_aiop.__path__, "nni_aiop.", onerror=lambda name: None):
    try:
        importlib.import_module(module.name)
    except MissingPackageError as err:
        assert "pip install 'nni-aiop[nni]'" in str(err), err
        refused.append(module.name)
print(*refused)
"""


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_module_but_the_nni_adapter_imports() -> None:
    refused = python(BLOCK + EVERY_MODULE).split()
    assert refused, "some module is NNI's"
    assert all("nni" in name.removeprefix("nni_aiop.") for name in refused), refused


def test_a_search_runs_without_nni() -> None:
    code = """
from nni_aiop.search import RandomSearch
from nni_aiop.search_spaces import get_space
from nni_aiop.search_spaces.digits import train_and_evaluate

search = RandomSearch(get_space("digits"), seed=0)
(sample,) = search.ask(1)
search.tell(sample, train_and_evaluate(sample, epochs=1))
print(len(search.history), "nni" in sys.modules)
"""
    assert python(BLOCK + code).split() == ["1", "False"]


def test_nni_names_say_how_to_install_it() -> None:
    code = """
from nni_aiop.errors import MissingPackageError
from nni_aiop.search_spaces import digits, multi_resolution, nasbench201

for module, name in (
    (digits, "DigitsSpace"), (multi_resolution, "MultiResolutionSpace"),
    (nasbench201, "NASBench201Space"),
):
    try:
        getattr(module, name)
    except MissingPackageError as err:
        print(err)
"""
    lines = python(BLOCK + code).splitlines()
    assert len(lines) == 3
    assert all("pip install 'nni-aiop[nni]'" in line for line in lines)


def test_importing_the_package_is_light() -> None:
    heavy = ("torch", "optuna", "nni", "matplotlib", "pandas", "plotly", "sklearn", "gpytorch")
    code = f"import sys, nni_aiop.cli, nni_aiop.spaces; print(set({heavy}) & set(sys.modules))"
    assert python(code).strip() == "set()"
