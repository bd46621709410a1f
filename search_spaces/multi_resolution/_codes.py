"""The 27 numbers that stand for a multi-resolution network (NCP, Table 7 and Eq. 9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

import numpy as np

from nni_aiop.errors import SpaceError
from nni_aiop.spaces import Ordinal

__all__ = [
    "CHANNELS",
    "CHANNEL_LABELS",
    "DEPTHS",
    "LABELS",
    "dimensions",
    "numbers_of",
    "values_of",
]

Codes = TypeVar("Codes", bound=Any)
"""An array or a tensor: what goes in comes out."""

DEPTHS = range(1, 5)
"""Values of the numbers of blocks b and of residual units n."""

CHANNELS = range(8, 129, 8)
"""Values of the channel numbers i, c and o."""


def _per_branch(kind: str, stage: int) -> list[str]:
    if stage == 1:
        return [f"{kind}1"]
    return [f"{kind}{stage}_{branch}" for branch in range(1, stage + 1)]


def _labels() -> tuple[str, ...]:
    labels = ["i1", "i2"]
    for stage in range(1, 5):
        labels += [f"b{stage}", *_per_branch("n", stage), *_per_branch("c", stage)]
    return (*labels, "o1")


LABELS = _labels()
"""i1, i2, b1, n1, c1, b2, n2_1, n2_2, c2_1, c2_2, ..., c4_4, o1: the published order."""

CHANNEL_LABELS = tuple(label for label in LABELS if label[0] in "ico")
"""The 13 labels that count channels; the other 14 count blocks (b) or residual units (n)."""

_LOW = np.array([8.0 if label in CHANNEL_LABELS else 1.0 for label in LABELS])
_SPAN = np.array([120.0 if label in CHANNEL_LABELS else 3.0 for label in LABELS])


def dimensions() -> list[Ordinal]:
    """The 27 ordinal dimensions in the published order: b, n in 1..4 and i, c, o in 8, 16..128."""
    return [
        Ordinal(label, CHANNELS if label in CHANNEL_LABELS else DEPTHS, scale="linear")
        for label in LABELS
    ]


def values_of(codes: Codes) -> Codes:
    """(n, 27) numbers b, n, i, c, o of codes in [0, 1], an array or a tensor (differentiable)."""
    low: Any = _LOW
    span: Any = _SPAN
    if not isinstance(codes, np.ndarray):
        import torch

        low = torch.as_tensor(low, dtype=codes.dtype, device=codes.device)
        span = torch.as_tensor(span, dtype=codes.dtype, device=codes.device)
    return cast(Codes, low + codes * span)


def numbers_of(code: Mapping[str, int] | Sequence[int]) -> list[int]:
    """The 27 numbers of a sample, or of a list in the order of `LABELS`.

    Raises:
        SpaceError: The code has not 27 numbers, or one is not a positive whole number.
    """
    if isinstance(code, Mapping):
        missing = [label for label in LABELS if label not in code]
        if missing:
            raise SpaceError(f"a code must have all of {LABELS}, but lacks {missing}.")
        code = [code[label] for label in LABELS]
    if len(code) != len(LABELS):
        raise SpaceError(f"a code must have {len(LABELS)} numbers, but got {len(code)}.")
    for label, number in zip(LABELS, code, strict=True):
        if int(number) != number or number < 1:
            raise SpaceError(f"{label!r} must be a positive whole number, but got {number!r}.")
    return [int(number) for number in code]
