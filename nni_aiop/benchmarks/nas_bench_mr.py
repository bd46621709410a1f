"""NAS-Bench-MR: 2,507 multi-resolution networks, measured in nine settings (NCP, section 3.2).

The publisher's files are github.com/dingmyu/NCP, folder `data`: one `trainval.pkl` a setting, each
a pickle of plain lists and dicts, and `search_list.txt`. The same networks stand in the same order
in every setting.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nni_aiop.benchmarks._pickles import load_plain
from nni_aiop.errors import FileFormatError

__all__ = ["SETTINGS", "NASBenchMR", "Setting", "load_nas_bench_mr"]

_WIDTH = 27
_WIDEST = 4096
_RANDOM_LINES = 2500
_STRUCTURE = (
    "embedding",
    "input_channel",
    "inverted_residual_setting",
    "network_setting",
    "last_channel",
    "params",
    "flops",
)
"""Keys that are no metrics; the publisher's README calls the third by the name of the fourth."""


@dataclass(frozen=True)
class Setting:
    """One task and way of training.

    Attributes:
        metrics: What the file holds at least, the main metric (the paper's Table 6) first, in
            percent.
        summary: Data set, input size in pixels, and training, in a few words.
    """

    metrics: tuple[str, ...]
    summary: str

    @property
    def main_metric(self) -> str:
        """The metric that the paper reports and searches for."""
        return self.metrics[0]


_TOP = ("top1", "top5")
_IOU = ("mIoU", "mAcc", "aAcc")

SETTINGS: dict[str, Setting] = {
    "cls-50-1000": Setting(_TOP, "ImageNet, 50 classes of 1,000 images, 224 x 224, 100 epochs"),
    "cls-50-100": Setting(_TOP, "ImageNet, 50 classes of 100 images, 224 x 224, 100 epochs"),
    "cls-10-1000": Setting(_TOP, "ImageNet, 10 classes of 1,000 images, 224 x 224, 100 epochs"),
    "cls-10c": Setting(_TOP, "ImageNet, 50 classes of 1,000 images, 224 x 224, 10 epochs"),
    "seg": Setting(_IOU, "Cityscapes, 19 classes, 512 x 1024, 530 epochs"),
    "seg-4x": Setting(_IOU, "Cityscapes, 19 classes, 128 x 256, 530 epochs"),
    "3ddet": Setting(("moderate",), "KITTI, car 3D AP, 432 x 496 bird's-eye view, 80 epochs"),
    "video": Setting(_TOP, "HMDB51, 51 classes, 112 x 112, 100 epochs"),
    "video-p": Setting(_TOP, "HMDB51, 112 x 112, 100 epochs, pretrained on cls-50-1000"),
}
"""The nine settings by the name of their folder."""


@dataclass(frozen=True)
class NASBenchMR:
    """The measurements of one setting; every array has a row a network.

    `params` and `flops` are those of the 50-class classification network at 128 x 128, whatever
    the setting.

    Attributes:
        setting: A key of `SETTINGS`.
        embedding: (n, 27) the codes i1, i2, b1, n1, c1, b2, ..., o1.
        metrics: (n,) of each metric, in percent.
        params: (n,) number of parameters.
        flops: (n,) multiply-adds plus two operations for each normalised element.
        random: (n,) False for the networks that were added by hand to the random sample (11
            extremes in the published files); None where no `search_list.txt` tells.
    """

    setting: str
    embedding: NDArray[np.int64]
    metrics: Mapping[str, NDArray[np.float64]]
    params: NDArray[np.int64]
    flops: NDArray[np.int64]
    random: NDArray[np.bool_] | None

    def __len__(self) -> int:
        return len(self.embedding)

    @property
    def main_metric(self) -> str:
        """Name of the metric that the paper reports."""
        return SETTINGS[self.setting].main_metric


def load_nas_bench_mr(path: str | os.PathLike[str], setting: str) -> NASBenchMR:
    """Reads one setting from the publisher's own file.

    The file of `3ddet` is described by the publisher's configuration only (its metric is called
    `moderate`); whatever else it measures is taken along.

    Args:
        path: The benchmark's folder, which holds `data/<setting>/trainval.pkl` (a clone of
            github.com/dingmyu/NCP), or a `trainval.pkl` itself.
        setting: A key of `SETTINGS`.

    Raises:
        ValueError: The setting is unknown.
        FileFormatError: The file is truncated, damaged, no pickle of plain data, or its rows are
            not such networks.
        OSError: There is no such file.
    """
    if setting not in SETTINGS:
        raise ValueError(f"setting must be one of {', '.join(SETTINGS)}, but got {setting!r}.")
    file = Path(path)
    if file.is_dir():
        file = file / "data" / setting / "trainval.pkl"
    rows = load_plain(file)
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise FileFormatError(f"{file} must hold a list of dicts, but does not.")
    required = SETTINGS[setting].metrics
    for place, row in enumerate(rows):
        problem = _problem(row, required)
        if problem is not None:
            raise FileFormatError(f"row {place} of {file} {problem}.")
    further = [
        key
        for key in rows[0]
        if key not in (*required, *_STRUCTURE) and all(_is_number(row.get(key)) for row in rows)
    ]
    embedding = np.array([row["embedding"] for row in rows], dtype=np.int64)
    return NASBenchMR(
        setting=setting,
        embedding=embedding,
        metrics={
            key: np.array([row[key] for row in rows], dtype=np.float64)
            for key in (*required, *further)
        },
        params=_units([row["params"] for row in rows], 1e6),
        flops=_units([row["flops"] for row in rows], 1e9),
        random=_random_rows(file.parent.parent / "search_list.txt", embedding),
    )


def _is_number(value: object) -> bool:
    if type(value) is int:
        return abs(value) < 2**53
    return type(value) is float and math.isfinite(value)


def _problem(row: Mapping[str, Any], metrics: Sequence[str]) -> str | None:
    """What is wrong with a row, as the end of a sentence."""
    embedding = row.get("embedding")
    if (
        not isinstance(embedding, list)
        or len(embedding) != _WIDTH
        or not all(type(number) is int and 1 <= number <= _WIDEST for number in embedding)
    ):
        return f"must have an embedding of {_WIDTH} whole numbers from 1 to {_WIDEST}, but has not"
    for key in (*metrics, "params", "flops"):
        if not _is_number(row.get(key)):
            return f"must have a finite number {key!r}, but has not"
    for key in ("params", "flops"):
        if not 0 < row[key] < 1e6:
            return f"must have {key!r} between 0 and 1e6 (millions, billions), but has not"
    return None


def _random_rows(search_list: Path, embedding: NDArray[np.int64]) -> NDArray[np.bool_] | None:
    """Which rows are among the first 2,500 lines of the list; what was added by hand follows."""
    if not search_list.is_file():
        return None
    try:
        lines = search_list.read_text(encoding="ascii").split()[:_RANDOM_LINES]
        codes = {_code(line) for line in lines}
    except ValueError as err:
        raise FileFormatError(
            f"{search_list} must hold codes such as 16_64-1_1_3_128-...-112, but does not: {err}."
        ) from err
    return np.array([tuple(row) in codes for row in embedding.tolist()])


def _code(line: str) -> tuple[int, ...]:
    """The 27 numbers of a line, in which each stage also names its number of branches."""
    stem, *stages, out = ([int(number) for number in part.split("_")] for part in line.split("-"))
    code = [*stem]
    for stage, numbers in enumerate(stages, start=1):
        if numbers[1:2] != [stage] or len(numbers) != 2 + 2 * stage:
            raise ValueError(f"stage {stage} of {line[:80]!r} must have {2 + 2 * stage} numbers")
        code += [numbers[0], *numbers[2:]]
    return (*code, *out)


def _units(published: Sequence[float], unit: float) -> NDArray[np.int64]:
    return np.rint(np.array(published) * unit).astype(np.int64)
