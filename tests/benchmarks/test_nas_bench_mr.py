"""The reader of NAS-Bench-MR, on written files and on the publisher's."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nni_aiop.benchmarks import SETTINGS, NASBenchMR, load_nas_bench_mr
from nni_aiop.errors import FileFormatError

LARGEST = [128, 128, 4, 4, 128, *[4] * 3, 128, 128, *[4] * 4, 128, 128, 128, *[4] * 5, *[128] * 5]


def row(**changes: Any) -> dict[str, Any]:
    return {
        "top1": 80.5,
        "top5": 95,
        "flops": 8.631924914,
        "params": 24.97157,
        "input_channel": [128, 128],
        "inverted_residual_setting": [[1, [4], [128]]],
        "last_channel": 128,
        "embedding": LARGEST,
    } | changes


def write(folder: Path, rows: object, setting: str = "cls-10c") -> Path:
    file = folder / "data" / setting / "trainval.pkl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(pickle.dumps(rows, 3))
    return file


def test_there_are_nine_settings_with_the_papers_main_metrics() -> None:
    assert {name: setting.main_metric for name, setting in SETTINGS.items()} == {
        "cls-50-1000": "top1",
        "cls-50-100": "top1",
        "cls-10-1000": "top1",
        "cls-10c": "top1",
        "seg": "mIoU",
        "seg-4x": "mIoU",
        "3ddet": "moderate",
        "video": "top1",
        "video-p": "top1",
    }


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_is_read_from_the_publishers_layout(tmp_path: Path, setting: str) -> None:
    measured = {name: 70.0 + i for i, name in enumerate(SETTINGS[setting].metrics)}
    renamed = row(further=1.5, note="text", **measured)
    renamed["network_setting"] = renamed.pop("inverted_residual_setting")
    for key in {"top1", "top5"} - set(measured):
        del renamed[key]
    file = write(tmp_path, [renamed], setting)
    for path in (tmp_path, file, str(file)):
        table = load_nas_bench_mr(path, setting)
        assert {name: float(v[0]) for name, v in table.metrics.items()} == measured | {
            "further": 1.5
        }
        assert table.embedding.tolist() == [LARGEST] and len(table) == 1
        assert table.params.tolist() == [24_971_570] and table.flops.tolist() == [8_631_924_914]
        assert table.main_metric == SETTINGS[setting].main_metric and table.random is None


def test_the_search_list_tells_the_random_rows(tmp_path: Path) -> None:
    small = [8, 8, 1, 1, 8, 1, 1, 1, 8, 8, *[1] * 4, 8, 8, 8, *[1] * 5, *[8] * 5]
    listed = "8_8-1_1_1_8-1_2_1_1_8_8-1_3_1_1_1_8_8_8-1_4_1_1_1_1_8_8_8_8-8"
    file = write(tmp_path, [row(), row(embedding=small)])
    (tmp_path / "data" / "search_list.txt").write_text(f"{listed}\n")
    table = load_nas_bench_mr(file, "cls-10c")
    assert table.random is not None and table.random.tolist() == [False, True]
    for text in ("8_8-1_1_1_8", "8_8-1_2_1_8-1", "nonsense", "\xff"):
        (tmp_path / "data" / "search_list.txt").write_bytes(text.encode("latin-1"))
        if text == "8_8-1_1_1_8":
            continue  # a short code is no one's: nothing is random then
        with pytest.raises(FileFormatError, match="must hold codes"):
            load_nas_bench_mr(file, "cls-10c")


@pytest.mark.parametrize(
    "rows",
    [
        [],
        {"a": 1},
        7,
        [1],
        [row(), []],
        [row(embedding=LARGEST[:-1])],
        [row(embedding=[*LARGEST[:-1], 0])],
        [row(embedding=[*LARGEST[:-1], 128.0])],
        [row(embedding=[*LARGEST[:-1], True])],
        [row(embedding=[*LARGEST[:-1], 2**70])],
        [row(embedding="x" * 27)],
        [row(top1=float("nan"))],
        [row(top1="80")],
        [row(top5=None)],
        [row(top5=[1])],
        [row(top5=2**70)],
        [row(params=float("inf"))],
        [row(params=-1.0)],
        [row(flops=0.0)],
        [row(flops=1e300)],
        [{k: v for k, v in row().items() if k != "top1"}],
        [{k: v for k, v in row().items() if k != "embedding"}],
    ],
)
def test_other_structures_are_refused_with_one_sentence(tmp_path: Path, rows: object) -> None:
    file = write(tmp_path, rows)
    with pytest.raises(FileFormatError) as caught:
        load_nas_bench_mr(file, "cls-10c")
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_unknown_settings_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cls-50-1000, .*video-p, but got 'cls'"):
        load_nas_bench_mr(tmp_path, "cls")
    with pytest.raises(FileNotFoundError):
        load_nas_bench_mr(tmp_path, "seg")


# --- the publisher's files ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def published(data_dir: Path) -> dict[str, NASBenchMR]:
    root = data_dir / "nas_bench_mr"
    found = [name for name in SETTINGS if (root / "data" / name).is_dir()]
    return {name: load_nas_bench_mr(root, name) for name in found}


def test_the_published_tables_have_the_papers_statistics(published: Any) -> None:
    table_6 = {
        "cls-50-1000": (82.21, 2.64),
        "cls-50-100": (48.59, 3.69),
        "cls-10-1000": (85.70, 1.51),
        "cls-10c": (57.07, 4.51),
        "seg": (72.58, 5.33),
        "seg-4x": (62.21, 3.37),
        "3ddet": (76.36, 4.70),
        "video": (19.56, 3.69),
        "video-p": (30.88, 4.65),
    }
    assert len(published) >= 5
    for name, table in published.items():
        accuracy = table.metrics[table.main_metric][table.random]
        mean, std = table_6[name]
        assert abs(accuracy.mean() - mean) < 0.1 and abs(accuracy.std() - std) < 0.1


def test_the_published_tables_hold_the_same_networks(published: Any) -> None:
    first = next(iter(published.values()))
    assert len(first) == 2507 and len(np.unique(first.embedding, axis=0)) == 2507
    by_hand = [0, 1, 347, 1194, 2282, 2352, 2459, 2460, 2487, 2505, 2506]
    for table in published.values():
        assert table.embedding.shape == (2507, 27) and table.embedding.dtype == np.int64
        for name in ("embedding", "params", "flops", "random"):
            np.testing.assert_array_equal(getattr(table, name), getattr(first, name))
        assert np.flatnonzero(~table.random).tolist() == by_hand
        for values in table.metrics.values():
            assert values.shape == (2507,) and (values > 0).all() and (values <= 100).all()


def test_truncations_and_mutations_of_a_published_file(data_dir: Path, tmp_path: Path) -> None:
    data = (data_dir / "nas_bench_mr" / "data" / "video" / "trainval.pkl").read_bytes()
    rng = np.random.default_rng(0)
    file = tmp_path / "trainval.pkl"
    for end in (0, 1, 2, 100, *np.geomspace(1000, len(data) - 1, 8).astype(int)):
        file.write_bytes(data[:end])
        with pytest.raises(FileFormatError):
            load_nas_bench_mr(file, "video")
    # The first 5,000 bytes make a short table when ended properly; there mutations are quick.
    whole = np.frombuffer(pickle.dumps(pickle.loads(data)[:4], 3), np.uint8)
    outcomes = {True: 0, False: 0}
    for _ in range(300):
        changed = whole.copy()
        changed[rng.integers(len(whole), size=rng.integers(1, 4))] = rng.integers(256)
        file.write_bytes(changed.tobytes())
        try:
            table = load_nas_bench_mr(file, "video")
        except FileFormatError:
            outcomes[False] += 1
            continue
        outcomes[True] += 1
        assert table.embedding.shape[1] == 27 and np.isfinite(table.metrics["top1"]).all()
    assert min(outcomes.values()) > 10
