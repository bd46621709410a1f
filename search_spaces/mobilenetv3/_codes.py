"""The 45 choices that stand for a once-for-all network, and the text "d:ks:e" that names it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from nni_aiop.errors import SpaceError
from nni_aiop.spaces import Condition, Ordinal

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "DEPTHS",
    "EXPANSIONS",
    "KERNELS",
    "LABELS",
    "MAX_DEPTH",
    "N_UNITS",
    "Choices",
    "Resolution",
    "arch_string",
    "blocks_of",
    "choices_of",
    "conditions",
    "dimensions",
    "from_arch_string",
    "side_of",
    "sizes_of",
]

N_UNITS = 5
MAX_DEPTH = 4
"""Blocks of a unit at most: unit u owns the positions 4 u - 3 to 4 u of the twenty."""

DEPTHS = (2, 3, 4)
KERNELS = (3, 5, 7)
EXPANSIONS = (3, 4, 6)

_DEPTH_LABELS = tuple(f"d{unit}" for unit in range(1, N_UNITS + 1))
_POSITIONS = range(1, N_UNITS * MAX_DEPTH + 1)
LABELS = (
    *_DEPTH_LABELS,
    *(f"ks{position}" for position in _POSITIONS),
    *(f"e{position}" for position in _POSITIONS),
)
"""d1..d5, ks1..ks20, e1..e20: the order of the published tables."""

_VALUES = {"d": DEPTHS, "ks": KERNELS, "e": EXPANSIONS}

Resolution = int | Sequence[int]
"""Side of the square image in pixels, or the sides among which the dimension `r` chooses."""


def sizes_of(resolution: Resolution) -> tuple[int, ...]:
    """The sides of the image, one or several.

    Raises:
        ValueError: There is none, one is below 1 pixel, or they do not increase.
    """
    sizes = (resolution,) if isinstance(resolution, int) else tuple(resolution)
    if not sizes or sizes[0] < 1 or list(sizes) != sorted(set(sizes)):
        raise ValueError(
            f"resolution must be a side of 1 pixel or more, or increasing ones, "
            f"but got {resolution!r}."
        )
    return sizes


def side_of(sample: Mapping[str, Any], resolution: Resolution = 224) -> int:
    """The side of the image that a sample's network reads.

    Raises:
        SpaceError: There are several resolutions, and the sample's `r` is none of them.
        ValueError: The resolution is wrong.
    """
    sizes = sizes_of(resolution)
    if isinstance(resolution, int):
        return resolution
    if sample.get("r") not in sizes:
        raise SpaceError(f"'r' must be one of {sizes}, but got {sample.get('r')!r}.")
    return int(sample["r"])


def dimensions(resolution: Resolution = 224) -> list[Ordinal]:
    """The 45 ordinal dimensions of `LABELS`, after `r` where there are several resolutions."""
    labelled = [
        Ordinal(label, _VALUES[label.rstrip("0123456789")], scale="linear") for label in LABELS
    ]
    if isinstance(resolution, int):
        return labelled
    return [Ordinal("r", sizes_of(resolution), scale="linear"), *labelled]


def conditions() -> dict[str, Condition]:
    """When a position matters: its unit must be deep enough. The first two of a unit always do."""
    rules = {}
    for position in _POSITIONS:
        unit, rank = divmod(position - 1, MAX_DEPTH)
        deep_enough = tuple(depth for depth in DEPTHS if depth > rank)
        if deep_enough != DEPTHS:
            for kind in ("ks", "e"):
                rules[f"{kind}{position}"] = Condition(_DEPTH_LABELS[unit], deep_enough)
    return rules


class Choices(NamedTuple):
    """What codes choose, as real numbers where a code lies between two values."""

    depth: Tensor  # (n, 5)
    kernel: Tensor  # (n, 5, 4)
    expand: Tensor  # (n, 5, 4)
    gate: Tensor  # (n, 5, 4), 1 where the depth reaches a position, 0 where not
    side: Tensor  # (n, 1) pixels of the image's side


def choices_of(codes: Tensor, resolution: Resolution = 224) -> Choices:
    """The choices of codes in [0, 1], differentiable.

    Args:
        codes: (n, 45) codes, or (n, 46) where there are several resolutions.
        resolution: That of the code space.

    Raises:
        ValueError: The shape or the resolution is wrong.
    """
    sizes = sizes_of(resolution)
    width = len(LABELS) + (not isinstance(resolution, int))
    if codes.ndim != 2 or codes.shape[1] != width:
        raise ValueError(f"codes must have the shape (n, {width}), but got {tuple(codes.shape)}.")
    labelled = codes[:, -len(LABELS) :]
    depth, kernel, expand = (
        values[0] + (values[-1] - values[0]) * part
        for values, part in zip(
            _VALUES.values(),
            (labelled[:, :5], labelled[:, 5:25], labelled[:, 25:]),
            strict=True,
        )
    )
    shape = (-1, N_UNITS, MAX_DEPTH)
    rank = depth.new_tensor(range(MAX_DEPTH))
    return Choices(
        depth=depth,
        kernel=kernel.reshape(shape),
        expand=expand.reshape(shape),
        gate=(depth[:, :, None] - rank).clamp(0.0, 1.0),
        side=sizes[0] + (sizes[-1] - sizes[0]) * codes[:, :1],
    )


def blocks_of(sample: Mapping[str, Any]) -> list[list[tuple[int, int]]]:
    """(kernel, expand) of each active block of each unit; inactive labels may be missing.

    Raises:
        SpaceError: An active label is missing, or its value is none of the space's.
    """

    def chosen(kind: str, place: int) -> int:
        label = f"{kind}{place}"
        if label not in sample:
            raise SpaceError(f"a network must have every active label, but lacks {label!r}.")
        if sample[label] not in _VALUES[kind]:
            raise SpaceError(
                f"{label!r} must be one of {_VALUES[kind]}, but got {sample[label]!r}."
            )
        return int(sample[label])

    return [
        [
            (chosen("ks", position), chosen("e", position))
            for position in range(
                MAX_DEPTH * unit + 1, MAX_DEPTH * unit + chosen("d", unit + 1) + 1
            )
        ]
        for unit in range(N_UNITS)
    ]


def arch_string(sample: Mapping[str, Any]) -> str:
    """A sample in PNAG's notation: depths, kernels, expansions, 0 where a position is inactive.

    Raises:
        SpaceError: An active label is missing, or its value is none of the space's.

    Example:
        >>> small = {label: {"d": 2, "k": 3, "e": 4}[label[0]] for label in LABELS}
        >>> arch_string(small)
        '2,2,2,2,2:3,3,0,0,3,3,0,0,3,3,0,0,3,3,0,0,3,3,0,0:4,4,0,0,4,4,0,0,4,4,0,0,4,4,0,0,4,4,0,0'
    """
    units = blocks_of(sample)
    padded = [block for unit in units for block in [*unit, *[(0, 0)] * (MAX_DEPTH - len(unit))]]
    parts = ([len(unit) for unit in units], *zip(*padded, strict=True))
    return ":".join(",".join(map(str, part)) for part in parts)


def from_arch_string(text: str) -> dict[str, int]:
    """The sample, of active labels only, that `arch_string` wrote.

    Raises:
        SpaceError: The text is not in that notation.
    """
    try:
        numbers = [int(number) for part in text.split(":") for number in part.split(",")]
        values = dict(zip(LABELS, numbers, strict=True))
        right = arch_string(values) == text
    except ValueError:
        right = False
    if not right:
        raise SpaceError(
            "a network must read as 'd1,...,d5:ks1,...,ks20:e1,...,e20', 0 at inactive positions, "
            f"but got {text[:120]!r}."
        )
    return {label: value for label, value in values.items() if value}
