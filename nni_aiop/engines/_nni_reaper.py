"""Stops NNI's manager, the node process that runs trials, when nobody else can.

As a program, `python _nni_reaper.py PARENT EXPERIMENT`, it waits until the process PARENT is gone,
however it went, and then stops the manager of EXPERIMENT: NNI alone leaves it listening for ever
after a SIGKILL. It imports nothing of this package, so that it starts quickly.
"""

from __future__ import annotations

import contextlib
import sys
import time

import psutil  # type: ignore[import-untyped]

_POLL = 0.5  # seconds
_PATIENCE = 10.0  # seconds from the polite request to the kill


def managers_of(experiment: str) -> list[psutil.Process]:
    """The manager processes of an experiment, known by its id on their command line."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if experiment in words and "--experiment-id" in words:
            found.append(process)
    return found


def stop_managers_of(experiment: str) -> None:
    """No manager of the experiment, and no trial under it, is left when this returns."""
    managers = managers_of(experiment)
    trials = [child for manager in managers for child in _children(manager)]
    for manager in managers:
        with contextlib.suppress(psutil.NoSuchProcess):
            manager.terminate()  # it stops its trials before it goes
    _, stubborn = psutil.wait_procs(managers, timeout=_PATIENCE)
    doomed = [*stubborn, *trials, *(child for m in stubborn for child in _children(m))]
    for process in doomed:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(doomed, timeout=_PATIENCE)


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def main(parent: int, experiment: str) -> None:
    """Waits for the end of `parent`, then stops the experiment's manager."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(parent)
        while _is_alive(process):
            time.sleep(_POLL)
    stop_managers_of(experiment)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
