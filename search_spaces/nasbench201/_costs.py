"""Exact parameters and FLOPs of NAS-Bench-201 networks: linear in the one-hot code.

FLOPs are multiply-adds of the convolutions and the classifier plus the additions of the
classifier's bias, the count of the published benchmark; normalisation, pooling and sums are free.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from nni_aiop.search_spaces.nasbench201._cells import LABELS, OPERATIONS

__all__ = ["DATASETS", "Dataset", "dataset", "flops", "params"]

Codes = TypeVar("Codes", bound=Any)
"""An array or a tensor: what goes in comes out."""


@dataclass(frozen=True)
class Dataset:
    """What the network must fit: the side of its square images in pixels, and its classes."""

    image_size: int
    n_classes: int


DATASETS: dict[str, Dataset] = {
    "cifar10": Dataset(32, 10),
    "cifar100": Dataset(32, 100),
    "imagenet16-120": Dataset(16, 120),
}

WIDTHS = (16, 32, 64)
"""Channels of the three stages."""

CELLS_PER_STAGE = 5


def dataset(name: str) -> Dataset:
    """The data set of that name.

    Raises:
        ValueError: The name is unknown.
    """
    if name not in DATASETS:
        raise ValueError(f"dataset must be one of {', '.join(DATASETS)}, but got {name!r}.")
    return DATASETS[name]


def _params(data: Dataset) -> tuple[float, dict[str, float]]:
    """Parameters of the skeleton, and of one edge's operation over all cells."""
    skeleton = 9 * 3 * WIDTHS[0] + 2 * WIDTHS[0]  # stem
    for narrow, wide in pairwise(WIDTHS):  # residual block, 1x1 shortcut
        skeleton += 9 * narrow * wide + 2 * wide + 9 * wide * wide + 2 * wide + narrow * wide
    skeleton += 2 * WIDTHS[-1] + (WIDTHS[-1] + 1) * data.n_classes
    conv = {
        kernel: float(CELLS_PER_STAGE * sum(kernel * c * c + 2 * c for c in WIDTHS))
        for kernel in (1, 9)
    }
    return float(skeleton), {"nor_conv_1x1": conv[1], "nor_conv_3x3": conv[9]}


def _flops(data: Dataset) -> tuple[float, dict[str, float]]:
    """FLOPs of the skeleton, and of one edge's operation over all cells."""
    areas = [(data.image_size >> stage) ** 2 for stage in range(len(WIDTHS))]
    skeleton = 9 * 3 * WIDTHS[0] * areas[0]
    for (narrow, wide), area in zip(pairwise(WIDTHS), areas[1:], strict=True):
        skeleton += (9 * narrow * wide + 9 * wide * wide + narrow * wide) * area
    skeleton += (WIDTHS[-1] + 1) * data.n_classes
    conv = {
        kernel: float(
            CELLS_PER_STAGE * sum(kernel * c * c * a for c, a in zip(WIDTHS, areas, strict=True))
        )
        for kernel in (1, 9)
    }
    return float(skeleton), {"nor_conv_1x1": conv[1], "nor_conv_3x3": conv[9]}


def _linear(codes: Codes, skeleton: float, operations: dict[str, float]) -> Codes:
    width = len(LABELS) * len(OPERATIONS)
    if codes.ndim != 2 or codes.shape[1] != width:
        raise ValueError(f"codes must have the shape (n, {width}), but got {tuple(codes.shape)}.")
    edge = [operations.get(operation, 0.0) for operation in OPERATIONS]
    weights: NDArray[np.float64] | Any = np.array(edge * len(LABELS))
    if not isinstance(codes, np.ndarray):
        import torch

        weights = torch.as_tensor(weights, dtype=codes.dtype, device=codes.device)
    return cast(Codes, codes @ weights + skeleton)


def params(codes: Codes, *, data: str = "cifar100") -> Codes:
    """Number of parameters of each code's network, unused edges included.

    Args:
        codes: (n, 30) one-hot codes (or relaxed ones), an array or a tensor.
        data: A key of `DATASETS`.

    Returns:
        (n,) parameters, as floats.

    Raises:
        ValueError: The shape or the data set is wrong.
    """
    return _linear(codes, *_params(dataset(data)))


def flops(codes: Codes, *, data: str = "cifar100") -> Codes:
    """FLOPs of each code's network on one image, unused edges included.

    Args:
        codes: (n, 30) one-hot codes (or relaxed ones), an array or a tensor.
        data: A key of `DATASETS`.

    Returns:
        (n,) FLOPs (multiply-adds), as floats.

    Raises:
        ValueError: The shape or the data set is wrong.
    """
    return _linear(codes, *_flops(dataset(data)))
