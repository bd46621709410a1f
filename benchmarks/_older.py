"""An older commit's package beside this one, and processes that run a script with either."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

__all__ = ["ROOT", "older_package", "run_with"]

ROOT = Path(__file__).resolve().parents[1]
"""The folder of this package."""

PARTS = ("nni_aiop", "search_spaces", "strategies")


def older_package(revision: str, out: Path) -> Path:
    """A folder below `out` with the package as a commit has it.

    Raises:
        LookupError: This is no checkout that has the commit.
    """
    older = out / f"before-{revision}"
    try:
        archive = subprocess.run(
            ["git", "-C", str(ROOT), "archive", revision, *PARTS], capture_output=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as err:
        raise LookupError(f"{ROOT} must be a checkout with the commit {revision}.") from err
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(older, filter="data")
    return older


def run_with(package: Path, script: str, *arguments: object) -> dict[str, Any]:
    """The JSON that a script of benchmarks/ prints, run in one thread with a folder's package."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    environment = {**os.environ, "PYTHONPATH": str(package), **threads}
    command = [sys.executable, str(ROOT / "benchmarks" / script), *map(str, arguments)]
    done = subprocess.run(command, cwd=package, env=environment, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        sys.exit(f"{package}: {' '.join(map(str, arguments))}: {last}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found
