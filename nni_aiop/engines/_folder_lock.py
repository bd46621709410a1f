"""One run at a time in a folder: a lock of the operating system's, which ends with its process."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import socket
import sys
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from nni_aiop.errors import AiopError

__all__ = ["locked"]

_logger = logging.getLogger(__name__)

_NAME = ".nni-aiop.lock"
_TAKEN = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)

_guard = threading.Lock()
_holders: dict[Path, int] = {}  # the thread that holds a folder, by the lock's path
_descriptors: set[int] = set()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """No other run works in the folder inside this block; the folder is made where missing.

    A block inside another one of the same thread and folder passes. The lock is the operating
    system's: it ends with its process, by whatever end, and no child that the process left behind
    keeps it.

    Raises:
        AiopError: Another run holds the folder; the message says whose.
        OSError: The folder cannot be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder.resolve() / _NAME
    thread = threading.get_ident()
    with _guard:
        if _holders.get(path) == thread:
            descriptor = None
        else:
            descriptor = _acquire(path, folder)
            _holders[path] = thread
            _descriptors.add(descriptor)
    if descriptor is None:
        yield
        return
    owner = os.getpid()
    try:
        yield
    finally:
        if os.getpid() == owner:
            with _guard:
                del _holders[path]
                _descriptors.discard(descriptor)
                # While it is still held: whoever waits for it looks whether its file is there.
                with contextlib.suppress(OSError):
                    path.unlink()
                os.close(descriptor)


def _acquire(path: Path, folder: Path) -> int:
    """The descriptor of the locked file, which tells who holds it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor)
        except OSError as err:
            if err.errno in _TAKEN:
                told = os.read(descriptor, 1000)
                os.close(descriptor)
                raise AiopError(
                    f"one run at a time must work in {folder}, but {_described(told)}."
                ) from err
            if err.errno not in _UNSUPPORTED:
                os.close(descriptor)
                raise
            _logger.warning("%s cannot be locked: start no second run in it.", folder)
        if _is(descriptor, path):
            break
        os.close(descriptor)  # its last holder removed the file meanwhile
    since = datetime.now().astimezone().isoformat(" ", "seconds")
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
    os.ftruncate(descriptor, 0)
    os.write(descriptor, json.dumps(holder).encode())
    return descriptor


if sys.platform == "win32":
    import msvcrt

    _PLACE = 1 << 30  # behind what is read

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, _PLACE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _described(told: bytes) -> str:
    try:
        holder = json.loads(told)
        return (
            f"process {holder['pid']} on {holder['host']} has been at work there since "
            f"{holder['since']}"
        )
    except (ValueError, KeyError, TypeError):
        return "another process is at work there"


def _let_go_in_child() -> None:
    """A forked child that outlives its parent must not keep the parent's locks."""
    global _guard
    _guard = threading.Lock()  # another thread may have held it
    for descriptor in _descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _descriptors.clear()
    _holders.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_child)
