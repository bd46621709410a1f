"""The wheel, both editable installs and an uninstalled checkout show the same packages."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("nni_aiop", "strategies", "search_spaces")
IMPORT_ALL = (
    "import nni_aiop, nni_aiop.strategies, nni_aiop.search_spaces; print(nni_aiop.__file__)"
)


def python(*arguments: str, cwd: Path, path: Path | None = None) -> str:
    """What a Python that sees this project only through `path` prints."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the package is built from, so that a build leaves nothing behind."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in (*ROOMS, "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, copy / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(source, copy / name)
    return copy


@pytest.fixture(scope="module")
def wheel(checkout: Path) -> Path:
    python("-m", "build", "--no-isolation", "--wheel", "--outdir", "dist", cwd=checkout)
    (built,) = (checkout / "dist").glob("*.whl")
    return built


def folders_with_sources() -> set[str]:
    """Every package that the repository's folders hold, by its installed name."""
    found = set()
    for room in ROOMS:
        prefix = Path(room) if room == "nni_aiop" else Path("nni_aiop") / room
        for file in (ROOT / room).rglob("*.py"):
            inside = file.relative_to(ROOT / room).parts[:-1]
            if room == "nni_aiop" and inside[:1] in (("strategies",), ("search_spaces",)):
                continue
            found.add(".".join(prefix.joinpath(*inside).parts))
    return found


def test_setup_cfg_lists_every_folder() -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    assert set(settings["options"]["packages"].split()) == folders_with_sources()


@pytest.mark.slow
def test_wheel_holds_every_source_and_nothing_else(wheel: Path) -> None:
    weights = (ROOT / "nni_aiop" / "weights").glob("*.[!p]*")
    expected = {"nni_aiop/py.typed", *(f"nni_aiop/weights/{path.name}" for path in weights)}
    expected |= {f"nni_aiop/results/report/page.{kind}" for kind in ("css", "js")}
    for room in ROOMS:
        prefix = "" if room == "nni_aiop" else "nni_aiop/"
        for file in (ROOT / room).rglob("*.py"):
            inside = file.relative_to(ROOT / room).parts
            if not (room == "nni_aiop" and inside[0] in ("strategies", "search_spaces")):
                expected.add(prefix + file.relative_to(ROOT).as_posix())
    names = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    assert names == expected


@pytest.mark.slow
def test_wheel_imports(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as content:
        content.extractall(tmp_path / "site")
    shown = python("-c", IMPORT_ALL, cwd=tmp_path, path=tmp_path / "site")
    assert Path(shown) == tmp_path / "site" / "nni_aiop" / "__init__.py"
    assert {p.name for p in (tmp_path / "site").iterdir() if p.suffix != ".dist-info"} == {
        "nni_aiop"
    }


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["lenient", "strict"])
def test_editable_install_imports(checkout: Path, tmp_path: Path, mode: str) -> None:
    # A virtual environment of its own, which sees this one's packages through a .pth file.
    python("-m", "venv", "--without-pip", str(tmp_path / "env"), cwd=tmp_path)
    interpreter = str(tmp_path / "env" / "bin" / "python")
    site = next((tmp_path / "env" / "lib").glob("python*/site-packages"))
    pip = ["-m", "pip", "--python", interpreter, "install", "--quiet", "--no-deps"]
    options = ["--config-settings", f"editable_mode={mode}"] if mode == "strict" else []
    import setuptools
    import torch

    (site / "parent.pth").write_text(
        "\n".join({str(Path(m.__file__).parents[1]) for m in (setuptools, torch)})  # type: ignore[arg-type]
    )
    python(*pip, "--no-build-isolation", *options, "--editable", ".", cwd=checkout)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [interpreter, "-c", IMPORT_ALL],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).resolve().is_relative_to(checkout.resolve())


def test_uninstalled_checkout_imports(checkout: Path, tmp_path: Path) -> None:
    # -S leaves the editable finder of this environment out; its packages come back by path.
    import torch

    code = f"import sys; sys.path.append({str(Path(torch.__file__).parents[1])!r}); {IMPORT_ALL}"
    shown = python("-S", "-c", code, cwd=checkout, path=checkout)
    assert Path(shown).resolve() == (checkout / "nni_aiop" / "__init__.py").resolve()
