"""The readers of NAS-Bench-201, on written files and on the published ones."""

import gzip
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nni_aiop.benchmarks import (
    NASBench201,
    load_nas_bench_201,
    load_nas_bench_201_csv,
    load_table,
)
from nni_aiop.benchmarks.nas_bench_201 import EDGES, OPERATIONS
from nni_aiop.errors import FileFormatError
from nni_aiop.results import SearchResults
from nni_aiop.search import Objective
from nni_aiop.search_spaces import get_space


def code(*chosen: int) -> Any:
    return np.eye(5, dtype=np.float32)[list(chosen)].reshape(-1)


def row(**changes: Any) -> dict[str, Any]:
    default = {"embedding": code(0, 1, 2, 3, 4, 0), "Acc": 41.5, "Flops": 15.65, "Params": 0.135}
    return default | changes


def write(folder: Path, rows: object, protocol: int = 4) -> Path:
    file = folder / "data" / "nas-bench-201" / "trainval.pkl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(pickle.dumps(rows, protocol))
    return file


@pytest.mark.parametrize("protocol", [3, 4])
def test_the_publishers_layout_is_read(tmp_path: Path, protocol: int) -> None:
    file = write(tmp_path, [row(), row(embedding=code(4, 4, 4, 4, 4, 4), Acc=47.0)], protocol)
    for path in (tmp_path, file):
        table = load_nas_bench_201(path)
        assert table.operations == [
            (
                "avg_pool_3x3",
                "none",
                "skip_connect",
                "nor_conv_1x1",
                "nor_conv_3x3",
                "avg_pool_3x3",
            ),
            ("nor_conv_3x3",) * 6,
        ]
        assert table.metrics["Acc"].tolist() == [41.5, 47.0] and len(table) == 2
        assert table.flops.tolist() == [15_650_000] * 2 and table.params.tolist() == [135_000] * 2


@pytest.mark.parametrize(
    "rows",
    [
        [],
        {"a": 1},
        [row(), 3],
        [row(embedding=code(0, 1, 2))],
        [row(embedding=code(0, 1, 2, 3, 4, 0).reshape(6, 5))],
        [row(embedding=code(0, 1, 2, 3, 4, 0) * 2)],
        [row(embedding=code(0, 1, 2, 3, 4, 0) * 0)],
        [row(embedding=code(0, 1, 2, 3, 4, 0) * np.float32("nan"))],
        [row(embedding=code(0, 1, 2, 3, 4, 0) > 0)],
        [row(embedding=list(code(0, 1, 2, 3, 4, 0).tolist()))],
        [row(embedding=code(0, 1, 2, 3, 4, 0).astype(object))],
        [row(), row()],
        [row(Acc=float("nan"))],
        [row(Acc=-1.0)],
        [row(Flops="15")],
        [row(Params=None)],
        [{"embedding": code(0, 1, 2, 3, 4, 0)}],
    ],
)
def test_other_structures_are_refused_with_one_sentence(tmp_path: Path, rows: object) -> None:
    file = write(tmp_path, rows)
    with pytest.raises(FileFormatError) as caught:
        load_nas_bench_201(file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


HEADER = [
    "index",
    *(f"op_{edge}" for edge in EDGES),
    *("c10_test", "c100_test", "in16_test", "c10_val", "c100_val", "in16_val", "in16_val_ncp"),
    *("params_c100_m", "flops_c100_m"),
]
LINES = [
    ["0", *OPERATIONS, "none", *["50.5"] * 7, "0.135156", "15.65"],
    ["1", *["none"] * 6, *["10"] * 7, "0.079156", "7.79"],
]


def csv_text(header: list[str], lines: list[list[str]]) -> bytes:
    return "\n".join(",".join(line) for line in (header, *lines)).encode()


@pytest.mark.parametrize("zipped", [True, False])
def test_the_csv_table_is_read(tmp_path: Path, zipped: bool) -> None:
    text = csv_text(HEADER, LINES)
    (tmp_path / "t.csv").write_bytes(gzip.compress(text) if zipped else text)
    (tmp_path / "l.csv").write_bytes(b"index,pixel3,fpga_1\n0,1.5,2\n1,3,0.25\n")
    table = load_nas_bench_201_csv(tmp_path / "t.csv", latency=tmp_path / "l.csv")
    assert table.operations == [(*OPERATIONS, "none"), ("none",) * 6]
    assert table.metrics["in16_test"].tolist() == [50.5, 10.0]
    assert table.params.tolist() == [135_156, 79_156]
    assert {k: v.tolist() for k, v in table.latency.items()} == {
        "pixel3": [1.5, 3.0],
        "fpga_1": [2.0, 0.25],
    }
    assert load_nas_bench_201_csv(tmp_path / "t.csv").latency == {}


def changed(line: int, column: str, value: str) -> bytes:
    lines = [list(entries) for entries in LINES]
    lines[line][HEADER.index(column)] = value
    return csv_text(HEADER, lines)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"\xff\xfe",
        b"index\n",
        b'"',
        csv_text(HEADER, []),
        csv_text(HEADER[:-1], [line[:-1] for line in LINES]),
        csv_text(HEADER, [LINES[0], LINES[0]]),
        csv_text(HEADER, [LINES[0], LINES[1][:-1]]),
        csv_text(["index", *HEADER[:-1]], LINES),
        changed(0, "op_01", "max_pool"),
        changed(0, "c10_test", "nan"),
        changed(0, "c10_test", ""),
        changed(1, "in16_val", "-1"),
        changed(1, "flops_c100_m", "inf"),
        gzip.compress(csv_text(HEADER, LINES), mtime=0)[:-9],
        gzip.compress(csv_text(HEADER, LINES), mtime=0)[:15],
        b"\x1f\x8b" + b"x" * 50,
        b"\x1f\x8b",
    ],
)
def test_other_tables_are_refused_with_one_sentence(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "t.csv.gz"
    file.write_bytes(data)
    with pytest.raises(FileFormatError) as caught:
        load_nas_bench_201_csv(file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(bytes(65 * 2**20), 1))
    with pytest.raises(FileFormatError):
        load_nas_bench_201_csv(tmp_path / "t.csv.gz")


def test_latencies_of_other_cells_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(csv_text(HEADER, LINES))
    for text in ("index,a\n1,1\n0,1\n", "index,a\n0,1\n", "a\n1\n1\n"):
        (tmp_path / "l.csv").write_text(text)
        with pytest.raises(FileFormatError, match="index"):
            load_nas_bench_201_csv(tmp_path / "t.csv", latency=tmp_path / "l.csv")


# --- the published files ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pickled(data_dir: Path) -> NASBench201:
    return load_nas_bench_201(data_dir / "nas_bench_201")


@pytest.fixture(scope="module")
def tabled(data_dir: Path) -> NASBench201:
    folder = data_dir / "nas_bench_201"
    return load_nas_bench_201_csv(folder / "nb201.csv.gz", latency=folder / "latency_help.csv.gz")


def test_both_files_hold_every_cell_in_the_same_order(pickled: Any, tabled: Any) -> None:
    assert len(pickled) == 15_625 and len(set(pickled.operations)) == 15_625
    np.testing.assert_array_equal(pickled.embedding, tabled.embedding)
    np.testing.assert_allclose(pickled.metrics["Acc"], tabled.metrics["in16_val_ncp"], atol=1e-6)
    assert round(pickled.metrics["Acc"].max(), 2) == 47.33
    assert len(tabled.latency) == 27


def test_ncp_gives_150_cells_the_costs_of_an_isomorphic_one(pickled: Any, tabled: Any) -> None:
    other = pickled.flops != tabled.flops
    assert other.sum() == 150
    np.testing.assert_array_equal(np.abs(pickled.params - tabled.params) > 1000, other)


def test_truncations_and_mutations_of_the_published_pickle(data_dir: Path, tmp_path: Path) -> None:
    original = data_dir / "nas_bench_201" / "data" / "nas-bench-201" / "trainval.pkl"
    data = original.read_bytes()
    file = tmp_path / "trainval.pkl"
    for end in (0, 1, 10, *np.geomspace(100, len(data) - 1, 8).astype(int)):
        file.write_bytes(data[:end])
        with pytest.raises(FileFormatError):
            load_nas_bench_201(file)
    rng = np.random.default_rng(0)
    whole = np.frombuffer(pickle.dumps([row(), row(embedding=code(1, 1, 1, 1, 1, 1))], 4), np.uint8)
    for _ in range(500):
        mutated = whole.copy()
        mutated[rng.integers(len(whole), size=rng.integers(1, 4))] = rng.integers(256)
        file.write_bytes(mutated.tobytes())
        try:
            table = load_nas_bench_201(file)
        except FileFormatError:
            continue
        assert (table.embedding.reshape(-1, 6, 5).sum(2) == 1).all()


def test_a_history_with_published_metrics_is_no_published_table(tmp_path: Path) -> None:
    space = get_space("nasbench201")
    samples = space.sample(3, np.random.default_rng(0))
    history = [(sample, {"in16_val_ncp": float(i)}) for i, sample in enumerate(samples)]
    SearchResults(space, history, [Objective("in16_val_ncp")]).save(tmp_path)
    codes, metrics = load_table(tmp_path / "history.csv", space, ["in16_val_ncp"])
    np.testing.assert_array_equal(codes, space.encode(samples))
    assert metrics["in16_val_ncp"].tolist() == [0, 1, 2]
    (tmp_path / "published.csv").write_bytes(csv_text(HEADER, LINES))
    assert len(load_table(tmp_path / "published.csv", space)[0]) == len(LINES)
