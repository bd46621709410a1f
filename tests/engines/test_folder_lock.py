"""A folder is one run's at a time, and the lock ends with its process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nni_aiop.engines._folder_lock import locked
from nni_aiop.errors import AiopError

ROOT = Path(__file__).parents[2]

HOLDER = """
import sys, time, os
from pathlib import Path
from nni_aiop.engines._folder_lock import locked

with locked(Path(sys.argv[1])):
    child = os.fork() if sys.argv[2] == "fork" else 1
    if child == 0:
        print(os.getpid(), flush=True)
        time.sleep(600)
    elif sys.argv[2] == "run":
        print(os.getpid(), flush=True)
    time.sleep(600)
"""


def holder(folder: Path, how: str) -> tuple[subprocess.Popen[str], int]:
    """A process that holds the folder, and the process that says so: itself or its child."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), how],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def test_the_second_one_says_who_holds_it(tmp_path: Path) -> None:
    process, _ = holder(tmp_path / "deep" / "o", "run")
    try:
        for name in ("deep/o", "deep/../deep/o"):
            with pytest.raises(AiopError) as caught, locked(tmp_path / name):
                pass
            assert f"process {process.pid} on {socket.gethostname()} has been" in str(caught.value)
            assert "since 20" in str(caught.value)
    finally:
        process.kill()
        process.communicate()
    with locked(tmp_path / "deep" / "o"):
        assert (tmp_path / "deep" / "o" / ".nni-aiop.lock").exists()
    assert list((tmp_path / "deep" / "o").iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_that_outlives_its_parent_does_not_keep_it(tmp_path: Path) -> None:
    process, child = holder(tmp_path, "fork")
    try:
        with pytest.raises(AiopError, match=f"process {process.pid} "), locked(tmp_path):
            pass
        process.kill()
        process.wait()
        os.kill(child, 0)  # it lives
        with locked(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        process.communicate()


def test_blocks_of_one_thread_nest_and_other_threads_are_refused(tmp_path: Path) -> None:
    found: list[AiopError] = []

    def other() -> None:
        try:
            with locked(tmp_path):
                pass
        except AiopError as err:
            found.append(err)

    with locked(tmp_path):
        with locked(tmp_path):
            pass
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert f"process {os.getpid()} " in str(found[0])
    other()
    assert len(found) == 1
