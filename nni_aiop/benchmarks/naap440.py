"""NAAP-440's table (Hakim, 2022): 440 networks, their schemes and 90 epochs of their training.

The publisher's naap440.csv, or naap440v2.csv with two more columns of the scheme. Accuracies are
fractions, on CIFAR-10's test set after each epoch; losses are the mean and the median over an
epoch's batches. The target is `max_accuracy`, the highest accuracy of the 90 epochs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nni_aiop.benchmarks._csv import numbers, read_csv
from nni_aiop.errors import FileFormatError

__all__ = ["NAAP440", "held_out", "load_naap440"]

Array = NDArray[np.float64]

_SCHEME = (
    "NumParams",
    "NumMACs",
    "NumLayers",
    "NumStages",
    "FirstLayerWidth",
    "LastLayerWidth",
)
_SCHEME_OF_V2 = ("NumSkipConnections", "NumPartialRFLayers")
_EPOCHS = 90
_CURVES = ("Accuracy", "LossMean", "LossMedian")
_PER_BIN = 11  # networks of similar accuracy, the middle one of which is held out


@dataclass(frozen=True)
class NAAP440:
    """The networks in the table's order.

    Attributes:
        model_id: (n,) from 1, the place in the publisher's list of schemes.
        is_test: (n,) whether the row is of the published test set.
        scheme: (n,) of each scheme feature, in the table's words.
        max_accuracy: (n,) highest test accuracy of all epochs, a fraction.
        curves: (n, 90, 3) accuracy (a fraction), mean loss and median loss of each epoch.
    """

    model_id: NDArray[np.int64]
    is_test: NDArray[np.bool_]
    scheme: Mapping[str, Array]
    max_accuracy: Array
    curves: Array

    def __len__(self) -> int:
        return len(self.model_id)


def load_naap440(path: str | os.PathLike[str]) -> NAAP440:
    """Reads naap440.csv or naap440v2.csv, gzipped or not.

    Raises:
        FileFormatError: The file is truncated, damaged, or its columns or rows are not such ones.
        OSError: There is no such file.
    """
    file = Path(path)
    table = read_csv(file)
    names = (*_SCHEME, *(name for name in _SCHEME_OF_V2 if name in table))
    scheme = {name: numbers(file, table, name) for name in names}
    model_id = numbers(file, table, "ModelId", low=1)
    is_test = numbers(file, table, "IsTest", high=1)
    for name, values in {"ModelId": model_id, "IsTest": is_test, **scheme}.items():
        if (values % 1).any():
            raise FileFormatError(f"column {name} of {file} must hold whole numbers, but has not.")
    if len(set(model_id.tolist())) != len(model_id):
        raise FileFormatError(f"{file} must hold each ModelId once, but repeats one.")
    curves = [
        [
            numbers(file, table, f"e{epoch}{what}", high=1 if what == "Accuracy" else np.inf)
            for what in _CURVES
        ]
        for epoch in range(1, _EPOCHS + 1)
    ]
    return NAAP440(
        model_id=model_id.astype(np.int64),
        is_test=is_test.astype(np.bool_),
        scheme=scheme,
        max_accuracy=numbers(file, table, "MaxAccuracy", high=1),
        curves=np.moveaxis(np.array(curves), 2, 0),
    )


def held_out(max_accuracy: ArrayLike, model_id: ArrayLike) -> NDArray[np.bool_]:
    """(n,) which networks are the test set: the middle one of each eleven of similar accuracy.

    The published split (section 2, figure 3). The publisher breaks ties in the accuracy by the name
    of a network's file, which puts 10 before 9.

    Args:
        max_accuracy: (n,) accuracies.
        model_id: (n,) the networks' numbers.
    """
    accuracies = np.asarray(max_accuracy, dtype=np.float64)
    names = [f"scheme_{number}.txt" for number in np.asarray(model_id).tolist()]
    order = sorted(range(len(names)), key=lambda place: (accuracies[place], names[place]))
    out = np.zeros(len(names), dtype=np.bool_)
    out[order[_PER_BIN // 2 :: _PER_BIN]] = True
    return out
