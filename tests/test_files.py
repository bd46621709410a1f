"""Files are written whole or not at all, by however many writers at once."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from nni_aiop.errors import FileFormatError
from nni_aiop.files import read_described, write_atomically, write_described, write_json


def test_several_threads_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "result.json"
    contents = [str(i) * 50_000 for i in range(8)]
    failed: list[BaseException] = []
    start = threading.Barrier(len(contents))

    def write(content: str) -> None:
        try:
            start.wait()
            for _ in range(20):
                write_atomically(path, content, flush=False)
                assert path.read_text() in contents
        except BaseException as err:
            failed.append(err)
            raise

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert path.read_text() in contents
    assert [p.name for p in path.parent.iterdir()] == ["result.json"]
    write_atomically(path, "last")
    assert path.read_text() == "last"


def test_a_name_as_long_as_file_systems_allow_can_be_written(tmp_path: Path) -> None:
    path = write_json(tmp_path / ("x" * 250 + ".json"), [1])
    assert path.read_text() == "[\n  1\n]\n"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_description_of_another_shape_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tensors"
    write_described(path, "key", {"format": "kind", "version": 1}, {"a": np.arange(3)}, flush=False)

    def read(key: str = "key", kind: str = "kind", version: int = 1) -> None:
        read_described(path, key, kind=kind, version=version, what="some tensors")

    read()
    raw = path.read_bytes()
    for what, message in (
        ({"key": "other"}, "must be some tensors"),
        ({"version": 2}, "version 2"),
    ):
        with pytest.raises(FileFormatError, match=message):
            read(**what)  # type: ignore[arg-type]
    for bit in range(0, 8 * len(raw), 7):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(FileFormatError) as caught:
            read()
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX's")
def test_a_pipe_is_written_into_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    try:
        write_atomically(pipe, "whole")
        assert os.read(reader, 100) == b"whole"
    finally:
        os.close(reader)
    assert pipe.is_fifo() and [*tmp_path.iterdir()] == [pipe]
