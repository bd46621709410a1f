"""The reader of TransNAS-Bench-101's tables, on written files and on the published ones."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from nni_aiop.benchmarks import load_table, load_transnas_bench_101
from nni_aiop.errors import FileFormatError
from nni_aiop.search_spaces import get_space

HEADER = "arch_id,naslib_ops,class_scene,room_layout,normal"
CELLS = ['0,"(2, 3, 2, 3, 2, 3)",53.8,-0.6,0.57', '1,"(0, 0, 2, 1, 2, 3)",30,-0.7,-0.1']
SKELETONS = ['0,"(4, 1, 2, 3)",53.8,-0.6,0.57', '1,"(1, 1, 2, 1, 2, 3)",30,-0.7,-0.1']


def write(folder: Path, *lines: str, header: str = HEADER) -> Path:
    (folder / "t.csv").write_text("\n".join((header, *lines)))
    return folder / "t.csv"


def test_cells_and_skeletons_are_read(tmp_path: Path) -> None:
    table = load_transnas_bench_101(write(tmp_path, *CELLS))
    assert table.space == "micro" and table.codes == ((2, 3, 2, 3, 2, 3), (0, 0, 2, 1, 2, 3))
    assert {task: values.tolist() for task, values in table.metrics.items()} == {
        "class_scene": [53.8, 30],
        "room_layout": [-0.6, -0.7],
        "normal": [0.57, -0.1],
    }
    file = write(tmp_path, *SKELETONS)
    file.write_bytes(gzip.compress(file.read_bytes()))
    table = load_transnas_bench_101(file)
    assert table.space == "macro" and len(table) == 2 and table.codes[0] == (4, 1, 2, 3)


def test_codes_of_either_space_need_its_name(tmp_path: Path) -> None:
    file = write(tmp_path, CELLS[0])
    for space in ("micro", "macro"):
        assert load_transnas_bench_101(file, space=space).space == space
    with pytest.raises(FileFormatError, match="holds those of micro or macro"):
        load_transnas_bench_101(file)
    with pytest.raises(FileFormatError, match="codes of macro, but holds those of none"):
        load_transnas_bench_101(write(tmp_path, *CELLS), space="macro")


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [CELLS[1], SKELETONS[0]],
        [CELLS[1], CELLS[1]],
        [CELLS[1].replace("(0, ", "(4, "), CELLS[1]],
        [CELLS[1].replace("(0, ", "(5, ")],
        [CELLS[1].replace("(0, ", "(")],
        [CELLS[1].replace("(0, ", "(0, 0, ")],
        [CELLS[1].replace("(0, ", "[0, ")],
        [CELLS[1].replace("(0, ", "(-1, ")],
        [CELLS[1].replace("(0, ", "(__import__, ")],
        [CELLS[1].replace(",30,", ",101,")],
        [CELLS[1].replace(",30,", ",-1,")],
        [CELLS[1].replace(",-0.7,", ",0.7,")],
        [CELLS[1].replace(",-0.7,", ",-inf,")],
        [CELLS[1].replace(",-0.1", ",nan")],
        [CELLS[1].replace(",-0.1", ",")],
        [CELLS[1].replace(",-0.1", "")],
    ],
)
def test_other_tables_are_refused_with_one_sentence(tmp_path: Path, lines: list[str]) -> None:
    file = write(tmp_path, *lines)
    with pytest.raises(FileFormatError) as caught:
        load_transnas_bench_101(file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("header", ["arch_id,naslib_ops,a,b,c", HEADER.replace("naslib_ops", "x")])
def test_columns_must_be_there(tmp_path: Path, header: str) -> None:
    with pytest.raises(FileFormatError, match="must have"):
        load_transnas_bench_101(write(tmp_path, *CELLS, header=header))


@pytest.mark.parametrize(
    ("kind", "n", "best"), [("micro", 4096, 54.936306), ("macro", 3256, 57.414413)]
)
def test_the_published_tables(data_dir: Path, kind: str, n: int, best: float) -> None:
    path = data_dir / "transnas_bench_101" / f"tnb101_{kind}.csv.gz"
    table = load_transnas_bench_101(path)
    assert table.space == kind and len(table) == n
    assert table.metrics["class_scene"].max() == best
    space = get_space(f"transnas101_{kind}")
    codes, metrics = load_table(path, space, ["jigsaw"])
    np.testing.assert_array_equal(metrics["jigsaw"], table.metrics["jigsaw"])
    samples = space.decode(codes)
    assert len({space.key(sample) for sample in samples}) == n
    assert all(space.violation(sample) is None for sample in samples)
