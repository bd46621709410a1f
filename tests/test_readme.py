"""The README's Python examples run as they stand, and its commands are real."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
EXAMPLES = dict(re.findall(r"^## ([^\n]+)\n+```python\n(.*?)^```", README, flags=re.M | re.S))


SHOWN = {
    "With NNI": "width_1",
    "With Optuna": "width_1",
    "In a loop of your own": "width_1",
    "A limit on your own network": "multiply-adds: {'depth'",
    "Less training for each network": "width_1",
    "Any network as a graph": "1/2 (1, 16, 112, 112) 5,419,008 MACs 480 parameters",
}
"""What each example prints, among other things."""


def test_the_readme_shows_both_front_ends_and_the_loop() -> None:
    assert list(EXAMPLES) == [*SHOWN]


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs(name: str, tmp_path: Path) -> None:
    if name == "With NNI":
        pytest.importorskip("nni")
    done = subprocess.run(
        [sys.executable, "-c", EXAMPLES[name]],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert SHOWN[name] in done.stdout


def test_the_commands_exist() -> None:
    from typer.testing import CliRunner

    from nni_aiop.cli import app

    commands = re.findall(r"^    nni-aiop (.+)$", README, flags=re.M)
    assert len(commands) >= 5
    for command in commands:
        words = command.split()
        group = words[:2] if words[0] in ("spaces", "predictor") else words[:1]
        shown = CliRunner().invoke(app, [*group, "--help"]).output
        options = [word for word in words if word.startswith("--")]
        assert all(option in shown for option in options), command


def test_the_files_exist() -> None:
    for path in re.findall(r"(?<![\w/])((?:examples|docs)/[\w./-]+\.\w+)", README):
        assert (ROOT / path).exists(), path
    for folder in re.findall(r"^\| `([\w/]+)`", README, flags=re.M):
        assert (ROOT / folder).is_dir(), folder


def test_an_experiment_file_is_said_to_be_code() -> None:
    from typer.testing import CliRunner

    from nni_aiop.cli import app

    shown = CliRunner().invoke(app, ["run", "--help"]).output
    for text in (README, shown, (ROOT / "docs" / "architecture.md").read_text()):
        said = " ".join(text.split())
        assert "An experiment file is code" in said
        assert "import" in said[said.index("An experiment file is code") :][:200]
