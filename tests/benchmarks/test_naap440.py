"""The reader of NAAP-440's table, on written files and on the published one."""

from pathlib import Path

import numpy as np
import pytest

from nni_aiop.benchmarks import load_naap440, load_table
from nni_aiop.errors import FileFormatError
from nni_aiop.search_spaces import get_space

SCHEME = "NumParams,NumMACs,NumLayers,NumStages,FirstLayerWidth,LastLayerWidth"
CURVES = ",".join(f"e{e}LossMean,e{e}LossMedian,e{e}Accuracy" for e in range(1, 91))
HEADER = f"ModelId,IsTest,{SCHEME},MaxAccuracy,{CURVES}"


def row(model: str = "3", is_test: str = "0", accuracy: str = "0.5", loss: str = "1.5") -> str:
    epochs = ",".join([f"{loss},1.4,0.4"] * 90)
    return f"{model},{is_test},2566,231600,3,2,12,16,{accuracy},{epochs}"


def write(folder: Path, *lines: str) -> Path:
    path = folder / "naap.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_table_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER, row(), row("440", "1", "0.75"))
    table = load_naap440(path)
    assert table.model_id.tolist() == [3, 440] and table.is_test.tolist() == [False, True]
    assert table.max_accuracy.tolist() == [0.5, 0.75]
    assert table.curves.shape == (2, 90, 3)
    np.testing.assert_array_equal(table.curves[0, 7], [0.4, 1.5, 1.4])
    assert table.scheme["NumMACs"].tolist() == [231600, 231600] and len(table) == 2
    space = get_space("naap")
    codes, _ = load_table(path, space)
    assert [s["stride_4"] for s in space.decode(codes)] == [2, 1]


@pytest.mark.parametrize(
    "lines",
    [
        [HEADER],
        [HEADER.replace("e90Accuracy", "e91Accuracy"), row()],
        [HEADER, row(), row()],
        [HEADER, row(model="1.5")],
        [HEADER, row(model="0")],
        [HEADER, row(is_test="2")],
        [HEADER, row(accuracy="1.1")],
        [HEADER, row(loss="nan")],
        [HEADER, row()[:-4]],
    ],
)
def test_other_tables_are_refused_with_one_sentence(tmp_path: Path, lines: list[str]) -> None:
    path = write(tmp_path, *lines)
    with pytest.raises(FileFormatError) as caught:
        load_naap440(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_number_beyond_the_space_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER, row(model="441"))
    with pytest.raises(FileFormatError, match="from 1 to 440, but has 441"):
        load_table(path, get_space("naap"))


def test_the_published_table(data_dir: Path) -> None:
    first, second = (
        load_naap440(data_dir / "naap440" / f"naap440{version}.csv") for version in ("", "v2")
    )
    assert len(first) == 440 and first.is_test.sum() == 40
    np.testing.assert_array_equal(first.curves[:, :, 0].max(1), first.max_accuracy)
    assert set(second.scheme) - set(first.scheme) == {"NumSkipConnections", "NumPartialRFLayers"}
