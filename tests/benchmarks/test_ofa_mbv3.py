"""The reader of once-for-all tables, on written files and on the published ones."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from nni_aiop.benchmarks import load_ofa_mbv3, load_table
from nni_aiop.errors import FileFormatError
from nni_aiop.results import SearchResults
from nni_aiop.search import Objective
from nni_aiop.search_spaces import get_space
from nni_aiop.search_spaces.mobilenetv3 import code_space

LABELS = [f"{k}{i}" for k, n in (("d", 5), ("ks", 20), ("e", 20)) for i in range(1, n + 1)]
TEXT = "2,3,4,2,2:3,5,0,0,7,3,3,0,3,3,3,3,3,3,0,0,3,3,0,0:6,4,0,0,3,3,3,0,3,3,3,3,3,3,0,0,3,3,0,0"
NUMBERS = TEXT.replace(":", ",").split(",")


def write(folder: Path, columns: dict[str, str], *, name: str = "table.csv") -> Path:
    file = folder / name
    file.write_text(",".join(columns) + "\n" + ",".join(f'"{v}"' for v in columns.values()) + "\n")
    return file


def numbered(**changes: str) -> dict[str, str]:
    return dict(zip(LABELS, NUMBERS, strict=True)) | changes


def test_columns_and_texts_give_the_same_network(tmp_path: Path) -> None:
    # What stands at an inactive position has no effect.
    by_columns = load_ofa_mbv3(write(tmp_path, numbered(r="132", ks4="99", e3="6", top1="75.5")))
    by_text = load_ofa_mbv3(write(tmp_path, {"arch": TEXT, "lat_lut_ms": "31.5"}))
    for table in (by_columns, by_text):
        assert len(table) == 1 and table.depth.tolist() == [[2, 3, 4, 2, 2]]
        assert table.kernel[0, :8].tolist() == [3, 5, 0, 0, 7, 3, 3, 0]
        assert table.expand[0, :8].tolist() == [6, 4, 0, 0, 3, 3, 3, 0]
        assert table.samples == [
            {label: int(n) for label, n in zip(LABELS, NUMBERS, strict=True) if n != "0"}
        ]
    assert by_columns.resolution.tolist() == [132] and by_text.resolution.tolist() == [224]
    assert {k: v.tolist() for k, v in by_columns.metrics.items()} == {"top1": [75.5]}
    assert by_columns.measured == ("top1",) and by_columns.predicted == ()
    assert by_text.measured == () and by_text.predicted == ("lat_lut_ms",)
    assert (by_columns.surrogate, by_text.surrogate) == (False, True)
    assert by_text.names == {"arch": [TEXT]}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (numbered(d1="5"), r"must have 'd1' among \(2, 3, 4\), but has 5"),
        (numbered(ks2="4"), r"must have 'ks2' among \(3, 5, 7\), but has 4"),
        (numbered(e9="0"), r"must have 'e9' among \(3, 4, 6\), but has 0"),
        (numbered(e9="x"), "must have a number 'e9'"),
        (numbered(r="130.5"), "whole pixels"),
        (numbered(r="0"), "whole pixels"),
        (numbered(top1="nan"), "must have a number 'top1'"),
        ({"d1": "2"}, "must have the column 'd2'"),
        ({"key": "2"}, "must have the columns d1 to e20 or 'arch'"),
        ({"arch": TEXT[:-2]}, "must have an arch"),
        ({"arch": TEXT.replace("7", "x")}, "must have an arch"),
        ({"arch": TEXT.replace("7", "9")}, "'ks5' among"),
    ],
)
def test_other_tables_are_refused_with_one_sentence(
    tmp_path: Path, columns: dict[str, str], message: str
) -> None:
    file = write(tmp_path, columns)
    with pytest.raises(FileFormatError, match=message) as caught:
        load_ofa_mbv3(file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_ofa_mbv3(tmp_path / "none.csv")
    whole = gzip.compress(write(tmp_path, numbered(top1="75")).read_bytes())
    file = tmp_path / "table.csv.gz"
    file.write_bytes(whole)
    assert len(load_ofa_mbv3(str(file))) == 1
    for damaged in (whole[:40], whole[:-5], b"", b"\xff\xfe"):
        file.write_bytes(damaged)
        with pytest.raises(FileFormatError):
            load_ofa_mbv3(file)


@pytest.mark.parametrize(
    ("name", "n", "measured", "surrogate"),
    [
        ("dynast_w1.0_measured.csv.gz", 2373, {"top1"}, False),
        ("pnag_published_15.csv", 15, {"top1", "latency_ms"}, False),
        (
            "help_ofa_latency_5000.csv.gz",
            5000,
            {
                f"lat_{device}_{batch}"
                for device in ("2080ti", "titan_rtx", "titan_xp", "v100")
                for batch in (1, 32, 64)
            },
            False,
        ),
        ("surrogate_16k.csv.gz", 16000, set(), True),
    ],
)
def test_the_published_tables(
    data_dir: Path, name: str, n: int, measured: set[str], surrogate: bool
) -> None:
    table = load_ofa_mbv3(data_dir / "ofa_mbv3" / name)
    assert len(table) == len(table.samples) == n
    assert set(table.measured) == measured and table.surrogate is surrogate
    assert all(values.shape == (n,) for values in table.metrics.values())
    active = np.arange(20) % 4 < table.depth.repeat(4, axis=1)
    for choices, values in ((table.kernel, (3, 5, 7)), (table.expand, (3, 4, 6))):
        assert np.isin(choices[active], values).all() and not choices[~active].any()
    assert set(table.resolution) <= set(range(128, 225, 4))


def test_the_published_networks_by_platform(data_dir: Path) -> None:
    table = load_ofa_mbv3(data_dir / "ofa_mbv3" / "pnag_published_15.csv")
    assert table.names["platform"] == ["cpu"] * 5 + ["gpu"] * 5 + ["mobile"] * 5
    assert table.metrics["top1"].tolist()[:2] == [78.3, 79.4]
    assert set(table.predicted) >= {"acc_pred_ofa", "lat_note10_lut_ms", "autobuild_acc"}


def test_other_published_tables_are_refused(data_dir: Path) -> None:
    for name in ("ofa_mbv3/lut_i7-8700K.csv.gz", "nas_bench_201/nb201.csv.gz"):
        with pytest.raises(FileFormatError, match="d1 to e20 or 'arch'"):
            load_ofa_mbv3(data_dir / name)


def test_tables_by_the_space_that_they_measure(tmp_path: Path) -> None:
    space = get_space("mobilenetv3")
    published = write(tmp_path, {"arch": TEXT, "r": "192", "top1": "75.5"})
    codes, metrics = load_table(published, space, ["top1"])
    assert metrics["top1"].tolist() == [75.5]
    sample = space.canonical(space.decode(codes)[0])
    assert sample == load_ofa_mbv3(published).samples[0]
    # A search's history has labels as columns too, but inactive ones are empty.
    SearchResults(space, [(sample, {"top1": 75.5})], [Objective("top1")]).save(tmp_path)
    again, _ = load_table(tmp_path / "history.csv", space)
    assert (again == codes).all()
    wide = code_space(resolution=(160, 192))
    assert wide.decode(load_table(published, wide)[0])[0]["r"] == 192
    with pytest.raises(FileFormatError, match="'r'"):
        load_table(published, code_space(resolution=(160, 224)))


def test_networks_of_several_resolutions_need_a_space_that_chooses_it(data_dir: Path) -> None:
    file = data_dir / "ofa_mbv3" / "help_ofa_latency_5000.csv.gz"
    with pytest.raises(FileFormatError, match="must hold networks of one resolution"):
        load_table(file, get_space("mobilenetv3"))
    space = code_space(resolution=range(128, 225, 4))
    codes, metrics = load_table(file, space, ["lat_v100_1"])
    assert codes.shape == (5000, 46) and set(metrics) == {"lat_v100_1"}
