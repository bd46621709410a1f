"""The reader of plain pickles: exact on plain data, one sentence on everything else."""

import os
import pickle
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nni_aiop.benchmarks import _pickles
from nni_aiop.benchmarks._pickles import NUMPY, Array, load_plain, parse_plain
from nni_aiop.errors import FileFormatError

PLAIN = [
    {"a": 1, "b": [300, 70000, -5, 2**70], "c": 0.25, "d": "text", "e": b"bytes"},
    {"a": 2, "b": [], "c": float("inf"), "t": (), "u": (1,), "v": (1, (2, 3), 4, 5)},
    {"flags": [True, False, None]},
]


class Calls:
    """Pickles to a call of `function`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


def refused(data: bytes, **options: Any) -> str:
    """The one sentence with which `data` is refused."""
    with pytest.raises(FileFormatError) as caught:
        parse_plain(data, "bad.pkl", **options)
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.startswith("bad.pkl") and sentence.endswith(".")
    assert len(sentence) < 300
    return sentence


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_data_comes_back(tmp_path: Path, protocol: int) -> None:
    data = PLAIN if protocol > 2 else PLAIN[1:]  # protocol 2 writes bytes as a call
    (tmp_path / "f").write_bytes(pickle.dumps(data, protocol))
    assert load_plain(tmp_path / "f") == data


def test_shared_and_long_data_come_back(tmp_path: Path) -> None:
    shared = [1, 2]
    data = [{"x": shared, "y": shared, f"k{i}": i} for i in range(3000)]
    (tmp_path / "f").write_bytes(pickle.dumps(data, 4))
    assert load_plain(tmp_path / "f") == data


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32),
        np.arange(6, dtype=">i2").reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array([True, False]),
        np.zeros((0, 3), dtype=np.uint8),
    ],
)
@pytest.mark.parametrize("protocol", [3, 4])
def test_arrays_come_back_equal(tmp_path: Path, array: Any, protocol: int) -> None:
    (tmp_path / "f").write_bytes(pickle.dumps({"x": array}, protocol))
    loaded: Any = load_plain(tmp_path / "f", admitted=NUMPY)
    assert isinstance(loaded["x"], Array)
    np.testing.assert_array_equal(loaded["x"].values, array)
    assert loaded["x"].values.dtype == array.dtype


def test_arrays_are_refused_where_not_admitted(tmp_path: Path) -> None:
    sentence = refused(pickle.dumps({"x": np.zeros(3)}, 4))
    assert re.search(r"names the global numpy\._?core\.multiarray\._reconstruct", sentence)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("options", [{}, {"admitted": NUMPY}])
def test_nothing_is_ever_called(tmp_path: Path, protocol: int, options: Any) -> None:
    target = tmp_path / "called"
    for payload in (
        Calls(os.mkdir, str(target)),
        Calls(eval, f"open({str(target)!r}, 'w')"),
        Calls(np.fromfile, __file__),
        Calls(np.ndarray, (2,)),
        Calls(getattr, np, "load"),
    ):
        for data in (payload, [payload], {"embedding": payload}, [{"embedding": (payload,)}]):
            try:
                text = pickle.dumps(data, protocol)
            except TypeError:  # some payloads cannot be written in some protocols
                continue
            refused(text, **options)
    assert not target.exists()


@pytest.mark.parametrize(
    "dtype", ["O", "U5", "S3", "V8", "M8[s]", "c16", "f2,f4", "i4,O"], ids=lambda d: f"dtype-{d}"
)
def test_arrays_of_anything_but_numbers_are_refused(tmp_path: Path, dtype: str) -> None:
    refused(pickle.dumps({"x": np.zeros(2, dtype=dtype)}, 4), admitted=NUMPY)


def array_with(shape: Any, data: Any, kind: Any = "f4", state: Any = None) -> bytes:
    """A pickled array whose state says what it likes."""
    reconstruct = b"cnumpy.core.multiarray\n_reconstruct\n"
    made = reconstruct + b"(cnumpy\nndarray\nK\x00\x85C\x01bt" + b"R"
    dtype = b"cnumpy\ndtype\n(" + pickle.dumps(kind, 3)[2:-1] + b"\x89\x88tR"
    order = b"(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    rest = pickle.dumps(data, 3)[2:-1]
    tail = b"(K\x01" + pickle.dumps(shape, 3)[2:-1] + dtype + order + b"\x89" + rest + b"tb"
    if state is not None:
        tail = pickle.dumps(state, 3)[2:-1] + b"b"
    return b"\x80\x03" + made + tail + b"."


def test_forged_array_states_are_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(array_with((2,), b"\0" * 8))
    good: Any = load_plain(tmp_path / "f", admitted=NUMPY)
    assert good.values.tolist() == [0.0, 0.0]
    for shape, data, kind in [
        ((3,), b"\0" * 8, "f4"),
        ((2**62, 2**62), b"", "f4"),
        ((-1,), b"\0" * 8, "f4"),
        ((2.0,), b"\0" * 8, "f4"),
        ((1,) * 40, b"\0" * 4, "f4"),
        ((2,), b"\0" * 7, "f4"),
        ((2,), [None, None], "f4"),
        ((1,), b"\0" * 8, "O"),
        ((1,), b"\0" * 8, 7),
        ("2", b"\0" * 8, "f4"),
    ]:
        refused(array_with(shape, data, kind), admitted=NUMPY)
    for state in ((), (1, (2,)), {"values": 1}):
        refused(array_with((2,), b"", state=state), admitted=NUMPY)


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = 100_000
    bombs = {
        "memo of four billion places": b"\x80\x03K\x01r\xff\xff\xff\xffj\xfe\xff\xff\xff.",
        "four gigabytes of text": b"\x80\x03X\xff\xff\xff\xffabc.",
        "a bytearray of 2^62": b"\x80\x05\x96" + struct.pack("<Q", 2**62) + b".",
        "a long of 2^31 bytes": b"\x80\x03\x8b\xff\xff\xff\x7f.",
        "a deeply nested key": b"\x80\x03})" + b"\x85" * deep + b"K\x01s.",
        "a deeply nested global": b"\x80\x04)" + b"\x85" * deep + b")\x93.",
        "a deeply nested shape": b"\x80\x04)" + b"\x85" * deep + b"b.",
        "an extension": b"\x80\x03\x82\x01.",
        "a persistent id": b"\x80\x03K\x01Q.",
        "old text with escapes": b"S'\\q'\n.",
        "an old instance": b"(ios\nsystem\n.",
        "marks only": b"\x80\x03" + b"(" * deep + b".",
        "nothing": b"",
        "no pickle": b"PK\x03\x04 not a pickle at all",
        "only a start": b"\x80\x04",
    }
    for data in bombs.values():
        refused(data)
        refused(data, admitted=NUMPY)
    monkeypatch.setattr(_pickles, "MAX_OPCODES", 1000)
    assert "opcodes" in refused(b"\x80\x03](" + b"K\x01" * 1000 + b"e.")
    monkeypatch.setattr(_pickles, "MAX_BYTES", 1000)
    (tmp_path / "big.pkl").write_bytes(bytes(1001))
    with pytest.raises(FileFormatError, match="at most 1000 bytes, but has 1001"):
        load_plain(tmp_path / "big.pkl")


def test_deeply_nested_lists_are_plain_data(tmp_path: Path) -> None:
    deep = 50_000
    (tmp_path / "f").write_bytes(b"\x80\x03" + b"]" * deep + b"a" * (deep - 1) + b".")
    assert isinstance(load_plain(tmp_path / "f"), list)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    for protocol in (3, 4):
        data = pickle.dumps([*PLAIN, {"x": np.zeros(3, dtype=np.float32)}], protocol)
        for end in range(len(data)):
            refused(data[:end], admitted=NUMPY)
        refused(data + b"x", admitted=NUMPY)


def test_mutations_are_refused_or_plain(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    original = np.frombuffer(pickle.dumps([*PLAIN, {"x": np.zeros(3, np.float32)}], 4), np.uint8)
    accepted = 0
    for _ in range(20_000):
        data = original.copy()
        for place in rng.integers(len(data), size=rng.integers(1, 6)):
            data[place] = rng.integers(256)
        try:
            parse_plain(data.tobytes(), "bad.pkl", admitted=NUMPY)
        except FileFormatError:
            continue
        accepted += 1
    assert 0 < accepted < 15_000


def test_a_missing_file_is_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_plain(tmp_path / "none.pkl")
