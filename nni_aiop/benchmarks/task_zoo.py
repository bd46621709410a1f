"""The task zoo: published results of detection, segmentation and pose networks.

One row for each network and task: COCO box, mask and keypoint AP, ADE20K and Cityscapes mIoU, in
percent, as OpenMMLab, Hugging Face, torchvision and ultralytics published them. Recipes differ
(schedule, pretraining, data): `group` names rows that were trained alike.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nni_aiop.benchmarks._csv import column, numbers, read_csv
from nni_aiop.errors import FileFormatError

__all__ = ["TaskZoo", "load_task_zoo"]

Array = NDArray[np.float64]

_TEXTS = ("name", "task", "family", "body", "group", "package", "builder", "licence")
_RECIPE = ("pretraining", "extra_data", "schedule")
_MAY_BE_MISSING = {"params_graph": 1e6, "gmacs": 1e9}


@dataclass(frozen=True)
class TaskZoo:
    """Networks with what each reached on a task; every column has a row a network and task.

    Attributes:
        name: Of the network.
        task: "coco-box-ap", "coco-mask-ap", "coco-keypoint-ap", "ade20k-miou" or
            "cityscapes-miou".
        metric: (n,) of the task, in percent; mIoU at a single scale.
        family: The method, such as "Mask R-CNN".
        body: The backbone, in the publisher's words.
        group: Rows of one name were trained and tested alike.
        recipe: By "pretraining", "extra_data" and "schedule" what each row says.
        package: That builds the network, with its version.
        builder: A Python expression that does; it is run by nothing here.
        licence: Of the figures' source.
        side: (n, 2) height and width in pixels of the image that the graph reads.
        parameters: (n,) of the graph, NaN where it could not be made.
        macs: (n,) multiply-adds of the graph, NaN where it could not be made.
    """

    name: Sequence[str]
    task: Sequence[str]
    metric: Array
    family: Sequence[str]
    body: Sequence[str]
    group: Sequence[str]
    recipe: Mapping[str, Sequence[str]]
    package: Sequence[str]
    builder: Sequence[str]
    licence: Sequence[str]
    side: NDArray[np.int64]
    parameters: Array
    macs: Array

    def __len__(self) -> int:
        return len(self.metric)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks in alphabetical order."""
        return tuple(sorted(set(self.task)))

    def of(self, task: str) -> TaskZoo:
        """The rows of a task.

        Raises:
            KeyError: There is no such task.
        """
        if task not in self.task:
            raise KeyError(f"a task must be one of {', '.join(self.tasks)}, but got {task!r}.")
        return self.take(np.flatnonzero(np.array(self.task) == task))

    def take(self, rows: ArrayLike) -> TaskZoo:
        """Some rows, by their places."""
        places = np.asarray(rows, np.int64)

        def taken(value: Any) -> Any:
            if isinstance(value, np.ndarray):
                return value[places]
            if isinstance(value, Mapping):
                return {name: taken(one) for name, one in value.items()}
            return [value[place] for place in places.tolist()]

        return replace(self, **{f.name: taken(getattr(self, f.name)) for f in fields(self)})


def load_task_zoo(path: str | os.PathLike[str]) -> TaskZoo:
    """Reads task_zoo.csv, gzipped or not.

    Raises:
        FileFormatError: The file is truncated, damaged, or its columns or rows are not such ones.
        OSError: There is no such file.
    """
    file = Path(path)
    table = read_csv(file)
    texts = {name: column(file, table, name) for name in _TEXTS}
    for name in ("name", "task", "group"):
        for line, text in zip(table.lines, texts[name], strict=True):
            if not text:
                raise FileFormatError(f"line {line} of {file} must say its {name!r}, but does not.")
    seen: dict[tuple[str, str], int] = {}
    for line, pair in zip(table.lines, zip(texts["name"], texts["task"], strict=True), strict=True):
        if seen.setdefault(pair, line) != line:
            raise FileFormatError(
                f"line {line} of {file} must be the only one of {pair[0][:60]!r} under "
                f"{pair[1][:60]!r}, but line {seen[pair]} is of it, too."
            )
    sides = []
    for line, text in zip(table.lines, column(file, table, "graph_input"), strict=True):
        found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
        if found is None:
            raise FileFormatError(
                f"line {line} of {file} must have a 'graph_input' such as 512x1024, "
                f"but has {text[:60]!r}."
            )
        sides.append([int(found[1]), int(found[2])])
    counts = {}
    for name, unit in _MAY_BE_MISSING.items():
        # A network whose graph could not be made has no count.
        filled = {**table, name: [text or "0" for text in column(file, table, name)]}
        known = np.array([bool(text) for text in table[name]])
        own = type(table)(filled)
        own.lines = table.lines
        counts[name] = np.where(known, unit * numbers(file, own, name), np.nan)
    return TaskZoo(
        **texts,
        metric=numbers(file, table, "metric", high=100),
        recipe={name: column(file, table, name) for name in _RECIPE},
        side=np.array(sides, np.int64),
        parameters=counts["params_graph"],
        macs=counts["gmacs"],
    )
