"""README and docs: examples run as they stand; commands, links and messages are real."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
}
BLOCKS = {
    f"{page}, {number}": block
    for page, text in PAGES.items()
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```", text, flags=re.M | re.S))
}

SHOWN = {
    "README.md, 0": "'depth': 8, 'width': 16",
    "README.md, 1": "{'depth': 8, 'width': 64}",
    "README.md, 2": "width_1",
    "docs/any-budget.md, 0": " %",
    "docs/bring-your-own.md, 0": "multiply-adds: {'depth'",
    "docs/bring-your-own.md, 1": "{'depth': 8, 'width': 24}",
    "docs/coming-from.md, 0": "{'depth': 8, 'width': 64}",
    "docs/costs.md, 0": "multiply-adds: {'depth'",
    "docs/doors.md, 0": "1/2 (1, 16, 112, 112) 5,419,008 MACs 480 parameters",
    "docs/early-stopping.md, 0": "width_1",
    "docs/predict.md, 0": "(64, 6)",
    "docs/shrink.md, 0": "multiply-adds",
    "docs/start.md, 0": "'width': 32, 'activation': 'silu'",
}
"""What each example prints, among other things."""


def test_every_example_says_what_it_prints() -> None:
    assert list(BLOCKS) == [*SHOWN]


@pytest.mark.slow
@pytest.mark.parametrize("name", BLOCKS)
def test_an_example_runs(name: str, tmp_path: Path) -> None:
    if "nni_experiment" in BLOCKS[name]:
        pytest.importorskip("nni")
    done = subprocess.run(
        [sys.executable, "-c", BLOCKS[name]],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert SHOWN[name] in done.stdout


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_exist(page: str) -> None:
    import click
    import typer
    from typer.testing import CliRunner

    from nni_aiop.cli import app

    groups = {
        name
        for name, command in typer.main.get_command(app).commands.items()
        if isinstance(command, click.Group) or hasattr(command, "commands")
    }
    for command in re.findall(r"^    (?:\$ )?nni-aiop (.+?)(?:  +#.*)?$", PAGES[page], flags=re.M):
        words = [word for word in command.split() if word != "..."]
        names = [word for word in words if not word.startswith("-")]
        group = names[:2] if names and names[0] in groups else names[:1]
        done = CliRunner().invoke(app, [*group, "--help"])
        assert done.exit_code == 0, command
        options = [word.split("=")[0] for word in words if word.startswith("--")]
        assert all(option in done.output for option in options), command


@pytest.mark.parametrize("page", PAGES)
def test_the_files_exist(page: str) -> None:
    folder = (ROOT / page).parent
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", PAGES[page]):
        assert target.startswith("http") or (folder / target).exists(), target
    for path in re.findall(r"(?<![\w/.])((?:examples|docs|benchmarks)/[\w./-]+\.\w+)", PAGES[page]):
        assert (ROOT / path).exists(), path
    for name in re.findall(r"^\| `([\w/]+)/` ", PAGES[page], flags=re.M):
        assert (ROOT / name).is_dir(), name


def test_troubleshooting_quotes_messages_that_are_given() -> None:
    sources = "".join(
        " ".join(re.sub(r'"\s*\n\s*f?"', "", path.read_text()).split())
        for folder in ("nni_aiop", "strategies", "search_spaces")
        for path in (ROOT / folder).rglob("*.py")
    )
    table = PAGES["docs/troubleshooting.md"].split("## What other libraries do")[0]
    quoted = re.findall(r"^\| `([^`]+)` \|", table, flags=re.M)
    assert len(quoted) >= 4
    for message in quoted:
        for part in re.split(r"\.\.\.|[A-Z]{2,}", message):
            assert part.strip() in sources, message


def test_an_experiment_file_is_said_to_be_code() -> None:
    from typer.testing import CliRunner

    from nni_aiop.cli import app

    shown = CliRunner().invoke(app, ["run", "--help"]).output
    for text in (README, shown, (ROOT / "docs" / "architecture.md").read_text()):
        said = " ".join(text.split())
        assert "An experiment file is code" in said
        assert "import" in said[said.index("An experiment file is code") :][:200]
