"""The reader of NAS-Bench-101's table, on written files and on the published one."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from nni_aiop.benchmarks import load_nas_bench_101, load_table
from nni_aiop.errors import FileFormatError
from nni_aiop.results import SearchResults
from nni_aiop.search import Objective
from nni_aiop.search_spaces import get_space

HEADER = ["n_vertices", "adjacency", "ops", "val4", "val12", "val36", "val108"]
HEADER += ["train_time_s", "params"]
LINES = [
    ["3", "011001000", "maxpool3x3", "0.4", "0.5", "0.6", "0.7", "300.5", "900000"],
    ["2", "0100", "", "0.4", "0.5", "0.6", "1", "284", "882570"],
]


def text(header: list[str], lines: list[list[str]]) -> bytes:
    return "\n".join(",".join(line) for line in (header, *lines)).encode()


def changed(line: int, column: str, value: str) -> bytes:
    lines = [list(entries) for entries in LINES]
    lines[line][HEADER.index(column)] = value
    return text(HEADER, lines)


@pytest.mark.parametrize("zipped", [True, False])
def test_the_table_is_read(tmp_path: Path, zipped: bool) -> None:
    data = text(HEADER, LINES)
    (tmp_path / "t").write_bytes(gzip.compress(data) if zipped else data)
    table = load_nas_bench_101(tmp_path / "t")
    assert len(table) == 2 and table.operations == (("maxpool3x3",), ())
    assert [m.tolist() for m in table.adjacency] == [
        [[0, 1, 1], [0, 0, 1], [0, 0, 0]],
        [[0, 1], [0, 0]],
    ]
    assert {name: values.tolist() for name, values in table.metrics.items()} == {
        "val4": [0.4, 0.4],
        "val12": [0.5, 0.5],
        "val36": [0.6, 0.6],
        "val108": [0.7, 1.0],
    }
    assert table.train_time.tolist() == [300.5, 284] and table.params.tolist() == [900000, 882570]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x1f\x8b",
        text(HEADER, []),
        text(HEADER[:-1], [line[:-1] for line in LINES]),
        text(HEADER, [LINES[0], LINES[0]]),
        gzip.compress(text(HEADER, LINES), mtime=0)[:-9],
        changed(0, "n_vertices", "8"),
        changed(0, "n_vertices", "1"),
        changed(0, "n_vertices", "x"),
        changed(0, "n_vertices", "4"),
        changed(0, "adjacency", "01100100"),
        changed(0, "adjacency", "011002000"),
        changed(0, "adjacency", "011101000"),  # an edge that runs backwards
        changed(0, "adjacency", "111001000"),  # a loop
        changed(0, "adjacency", "001001000"),  # the middle is not reached
        changed(0, "adjacency", "011000000"),  # the middle leads nowhere
        changed(1, "adjacency", "0000"),
        changed(0, "ops", ""),
        changed(0, "ops", "conv5x5-bn-relu"),
        changed(1, "ops", "maxpool3x3"),
        changed(0, "val108", "1.01"),
        changed(0, "val4", "nan"),
        changed(0, "val4", "-0.1"),
        changed(0, "train_time_s", "inf"),
        changed(0, "params", "1.5"),
        changed(0, "params", "1e300"),
        text(
            HEADER,
            [["5", "0111100111000110000100000", "|".join(["maxpool3x3"] * 3), *LINES[0][3:]]],
        ),
    ],
)
def test_other_tables_are_refused_with_one_sentence(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "t.csv.gz").write_bytes(data)
    with pytest.raises(FileFormatError) as caught:
        load_nas_bench_101(tmp_path / "t.csv.gz")
    assert str(tmp_path / "t.csv.gz") in str(caught.value) and "\n" not in str(caught.value)


def test_a_published_csv_is_told_from_a_history(tmp_path: Path) -> None:
    space = get_space("nasbench101")
    (tmp_path / "published.csv").write_bytes(text(HEADER, LINES))
    codes, metrics = load_table(tmp_path / "published.csv", space, ["val108"])
    assert metrics["val108"].tolist() == [0.7, 1.0]
    assert space.cost("params", codes)[1] == 882570
    history = [(s, {"val108": 0.5}) for s in space.decode(codes)]
    SearchResults(space, history, [Objective("val108")]).save(tmp_path)
    again, _ = load_table(tmp_path / "history.csv", space)
    np.testing.assert_array_equal(again, codes)


def test_the_published_table(data_dir: Path) -> None:
    path = data_dir / "nas_bench_101" / "nb101_30k.csv.gz"
    table = load_nas_bench_101(path)
    assert len(table) == 30_001
    assert {len(matrix) for matrix in table.adjacency} == {2, 3, 4, 5, 6, 7}
    assert table.metrics["val108"].max() == 0.94911861
    space = get_space("nasbench101")
    codes, metrics = load_table(path, space)
    np.testing.assert_array_equal(metrics["val36"], table.metrics["val36"])
    np.testing.assert_array_equal(space.cost("params", codes), table.params)
