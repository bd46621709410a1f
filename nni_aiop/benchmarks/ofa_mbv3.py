"""Tables of once-for-all MobileNetV3 networks (Cai et al., ICLR 2020), measured and predicted.

The files have columns alike, each network in d1..d5, ks1..ks20, e1..e20 (or in `arch`, the text
"d:ks:e" of PNAG), and a column for each figure: dynast_w1.0_measured (ImageNet top-1),
help_ofa_latency_5000 (GPU latencies), pnag_published_15 (latency and top-1 of three platforms)
and surrogate_16k, where no figure is a measurement.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nni_aiop.benchmarks._csv import Table, numbers, read_csv
from nni_aiop.errors import FileFormatError

__all__ = ["OFAMobileNetV3", "load_ofa_mbv3"]

Integers = NDArray[np.int64]

_N_UNITS, _MAX_DEPTH = 5, 4
_LABELS = (
    *(f"d{unit}" for unit in range(1, 6)),
    *(f"ks{position}" for position in range(1, 21)),
    *(f"e{position}" for position in range(1, 21)),
)
_VALUES = {"d": (2, 3, 4), "ks": (3, 5, 7), "e": (3, 4, 6)}
_NAMES = ("arch", "arch_id", "name", "platform", "run")
_COUNTED = ("macs", "madds", "params")
_PREDICTED = ("autobuild", "lut", "pred")


@dataclass(frozen=True)
class OFAMobileNetV3:
    """Networks with their figures; every array has a row a network.

    Attributes:
        resolution: (n,) side of the square image in pixels; 224 where the file does not say.
        depth: (n, 5) blocks of each unit.
        kernel: (n, 20) of each position, 0 where inactive.
        expand: (n, 20) of each position, 0 where inactive.
        metrics: (n,) of each column of figures, by its name in the file and in its unit:
            latencies in milliseconds, costs (`_m`) in millions, top-1 in percent, the predicted
            accuracies of `acc_pred...` and `autobuild_acc` as fractions.
        names: Columns of text: who searched, platform, name.
    """

    resolution: Integers
    depth: Integers
    kernel: Integers
    expand: Integers
    metrics: Mapping[str, NDArray[np.float64]]
    names: Mapping[str, list[str]]

    def __len__(self) -> int:
        return len(self.depth)

    @property
    def predicted(self) -> tuple[str, ...]:
        """The metrics that a published predictor or a sum over a look-up table gave."""
        return tuple(name for name in self.metrics if any(word in name for word in _PREDICTED))

    @property
    def measured(self) -> tuple[str, ...]:
        """The metrics that are neither predicted nor counts of operations or parameters."""
        return tuple(
            name
            for name in self.metrics
            if name not in self.predicted and not name.startswith(_COUNTED)
        )

    @property
    def surrogate(self) -> bool:
        """Whether nothing is measured: what is reported from such a table must say "surrogate"."""
        return not self.measured

    @cached_property
    def samples(self) -> list[dict[str, int]]:
        """Each network as a sample of the space mobilenetv3: active labels, without `r`."""
        rows = np.concatenate([self.depth, self.kernel, self.expand], axis=1).tolist()
        return [
            {label: value for label, value in zip(_LABELS, row, strict=True) if value}
            for row in rows
        ]


def load_ofa_mbv3(path: str | os.PathLike[str]) -> OFAMobileNetV3:
    """Reads a table of once-for-all MobileNetV3 networks.

    What a file holds at inactive positions is dropped.

    Args:
        path: A CSV file, gzipped or not, with the columns d1..d5, ks1..ks20, e1..e20 or `arch`,
            maybe r, and figures of 0 or more.

    Raises:
        FileFormatError: The file is truncated, damaged, or its columns or rows are not such
            networks.
        OSError: There is no such file.
    """
    file = Path(path)
    table = read_csv(file)
    if "d1" in table:
        choices = np.stack([numbers(file, table, label) for label in _LABELS], axis=1)
    else:
        choices = _from_text(file, table)
    n = len(choices)
    depth, kernel, expand = choices[:, :5], choices[:, 5:25], choices[:, 25:]
    rank = np.tile(np.arange(_MAX_DEPTH), _N_UNITS)
    active = rank < depth.repeat(_MAX_DEPTH, axis=1)
    columns = {"d": depth, "ks": np.where(active, kernel, 0), "e": np.where(active, expand, 0)}
    for kind, values in columns.items():
        legal = np.isin(values, _VALUES[kind]) | (False if kind == "d" else ~active)
        if not legal.all():
            row, place = np.argwhere(~legal)[0].tolist()
            raise FileFormatError(
                f"line {table.lines[row]} of {file} must have '{kind}{place + 1}' "
                f"among {_VALUES[kind]}, but has {values[row, place]:g}."
            )
    resolution = numbers(file, table, "r") if "r" in table else np.full(n, 224.0)
    if (resolution < 1).any() or (resolution % 1).any():
        raise FileFormatError(f"column r of {file} must hold whole pixels, but does not.")
    return OFAMobileNetV3(
        resolution=resolution.astype(np.int64),
        depth=depth.astype(np.int64),
        kernel=columns["ks"].astype(np.int64),
        expand=columns["e"].astype(np.int64),
        metrics={
            name: numbers(file, table, name)
            for name in table
            if name not in (*_LABELS, *_NAMES, "r")
        },
        names={name: list(table[name]) for name in _NAMES if name in table},
    )


def _from_text(file: Path, table: Table) -> NDArray[np.float64]:
    """(n, 45) numbers of texts "d1,...,d5:ks1,...,ks20:e1,...,e20"."""
    rows = []
    for line, text in zip(table.lines, table.get("arch", ()), strict=False):
        parts = [part.split(",") for part in text.split(":")]
        numbers = [number for part in parts for number in part]
        if [len(part) for part in parts] != [5, 20, 20] or not all(map(str.isdecimal, numbers)):
            raise FileFormatError(
                f"line {line} of {file} must have an arch 'd1,...:ks1,...:e1,...' of 45 numbers, "
                f"but has {text[:60]!r}."
            )
        rows.append([float(number) for number in numbers])
    if not rows:
        raise FileFormatError(f"{file} must have the columns d1 to e20 or 'arch', but has not.")
    return np.array(rows)
