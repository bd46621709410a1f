"""The reader of the task zoo, on written files and on the real one."""

from pathlib import Path

import numpy as np
import pytest

from nni_aiop.benchmarks import load_task_zoo
from nni_aiop.errors import FileFormatError

ROW = {
    "name": "mmdet/atss", "task": "coco-box-ap", "metric": "39.4", "family": "ATSS",
    "body": "ResNet(depth=50)", "group": "12 epochs, IN-1k", "package": "mmdet==3.3.0",
    "builder": "mm('mmdet', 'atss.py', (800, 1280))", "licence": "Apache-2.0",
    "pretraining": "IN-1k", "extra_data": "", "schedule": "12 epochs",
    "graph_input": "800x1280", "params_graph": "32.1", "gmacs": "205.3",
}  # fmt: skip
OTHER = {**ROW, "name": "mmdet/other", "metric": "41", "params_graph": "", "gmacs": ""}
MASK = {**ROW, "task": "coco-mask-ap", "metric": "35"}


def write(folder: Path, *rows: dict[str, str]) -> Path:
    path = folder / "zoo.csv"
    lines = [",".join(rows[0]), *(",".join(f'"{v}"' for v in row.values()) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_table_is_read(tmp_path: Path) -> None:
    zoo = load_task_zoo(write(tmp_path, ROW, OTHER, MASK))
    assert len(zoo) == 3 and zoo.tasks == ("coco-box-ap", "coco-mask-ap")
    assert zoo.metric.tolist() == [39.4, 41, 35]
    assert zoo.side.tolist() == [[800, 1280]] * 3
    np.testing.assert_array_equal(zoo.parameters, [32.1e6, np.nan, 32.1e6])
    np.testing.assert_array_equal(zoo.macs, [205.3e9, np.nan, 205.3e9])
    assert zoo.recipe["schedule"] == ["12 epochs"] * 3
    box = zoo.of("coco-box-ap")
    assert box.name == ["mmdet/atss", "mmdet/other"] and box.metric.tolist() == [39.4, 41]
    assert box.recipe["pretraining"] == ["IN-1k"] * 2
    assert zoo.take([2]).task == ["coco-mask-ap"]
    with pytest.raises(KeyError, match="must be one of coco-box-ap, coco-mask-ap, but got 'box'"):
        zoo.of("box")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{k: v for k, v in ROW.items() if k != "family"}], "must have the column 'family'"),
        ([{**ROW, "metric": "101"}], "must have a number 'metric' from 0 to 100"),
        ([{**ROW, "metric": "nan"}], "must have a number 'metric'"),
        ([{**ROW, "gmacs": "-1"}], "must have a number 'gmacs'"),
        ([{**ROW, "graph_input": "800"}], "line 2 .* must have a 'graph_input' such as"),
        ([{**ROW, "group": ""}], "line 2 .* must say its 'group'"),
        ([ROW, MASK, ROW], "line 4 .* must be the only one of 'mmdet/atss' under 'coco-box-ap'"),
    ],
)
def test_other_tables_are_refused_with_one_sentence(tmp_path: Path, rows, message: str) -> None:
    path = write(tmp_path, *rows)
    with pytest.raises(FileFormatError, match=message) as caught:
        load_task_zoo(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_the_real_table(data_dir: Path) -> None:
    zoo = load_task_zoo(data_dir / "task_zoo" / "task_zoo.csv")
    counts = {task: len(zoo.of(task)) for task in zoo.tasks}
    assert counts == {
        "ade20k-miou": 154, "cityscapes-miou": 226, "coco-box-ap": 439,
        "coco-keypoint-ap": 137, "coco-mask-ap": 166,
    }  # fmt: skip
    assert np.isfinite(zoo.macs).sum() == np.isfinite(zoo.parameters).sum() == 1084
    assert zoo.metric.min() == 19.71 and zoo.metric.max() == 84.2
