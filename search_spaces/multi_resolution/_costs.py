"""Exact parameters and FLOPs of a multi-resolution network, straight from its 27 numbers.

Every layer of the network but the classifier is a convolution without bias and a batch
normalisation. One such unit that reads `p` channels and writes `q` channels through `k` kernel
weights to an output of `A` positions has

    k p q + 2 q         parameters, and
    A (k p q + 2 q)     FLOPs: multiply-adds, and two operations for each normalised element;

the classifier has K q + K parameters and so many FLOPs at each position, bias included.

The kinds of unit are the same for every code: only their channels and how often they occur
change. So a table of the units, written once, gives the cost of a batch of codes in a few
array operations, by NumPy on arrays and by PyTorch on tensors (then differentiable).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeVar, cast, get_args

import numpy as np
from numpy.typing import NDArray

from nni_aiop.search_spaces.multi_resolution._codes import LABELS

__all__ = ["Head", "check_head", "flops", "params", "unit_costs", "unit_table"]

Head = Literal["classification", "segmentation", "video"]

Values = TypeVar("Values", bound=Any)
"""An array or a tensor: what goes in comes out."""


@dataclass(frozen=True)
class Unit:
    """One kind of convolution + batch normalisation.

    Attributes:
        stage: 0 for the stem, 1 to 4, and 5 for the output layer.
        level: Where it writes: 0 is half the input's side, branch j is level j (1 / 2^(j + 1)).
        source: Labels whose sum is the number of channels read; empty for the image.
        target: Label of the number of channels written.
        kernel: Kernel weights a channel pair, 9 for 3x3.
        factors: The unit occurs scale * the product of these (label, offset) terms
            (value + offset).
        scale: See `factors`.
    """

    stage: int
    level: int
    source: tuple[str, ...]
    target: str
    kernel: int
    factors: tuple[tuple[str, int], ...] = ()
    scale: int = 1


def _label(kind: str, stage: int, branch: int) -> str:
    return f"{kind}1" if stage == 1 else f"{kind}{stage}_{branch}"


def _fusion(
    stage: int, sources: list[str], targets: list[str], factors: tuple[tuple[str, int], ...]
) -> list[Unit]:
    """The fusion module from branches `sources` to branches `targets` (one more at most)."""
    units = []
    for branch, target in enumerate(targets, start=1):
        if branch > len(sources):  # the new resolution comes from the fused one above it
            units.append(Unit(stage, branch, (targets[branch - 2],), target, 9, factors))
            continue
        units.append(Unit(stage, branch, (sources[branch - 1],), target, 9, factors))
        if branch > 1:
            units.append(Unit(stage, branch, (sources[branch - 2],), target, 9, factors))
        if branch < len(sources):  # 1x1 at the lower resolution, upsampled afterwards
            units.append(Unit(stage, branch + 1, (sources[branch],), target, 1, factors))
    return units


def check_head(head: str) -> None:
    """Refuses an unknown head.

    Raises:
        ValueError: The head is none of `Head`.
    """
    if head not in get_args(Head):
        raise ValueError(f"head must be one of {', '.join(get_args(Head))}, but got {head!r}.")


@lru_cache(maxsize=3)
def unit_table(head: Head = "classification") -> tuple[Unit, ...]:
    """Every kind of unit of the network, in the order in which data meets them.

    Raises:
        ValueError: The head is unknown.
    """
    check_head(head)
    units = [Unit(0, 0, (), "i1", 9), Unit(0, 1, ("i1",), "i2", 9)]
    previous = ["i2"]
    for stage in range(1, 5):
        blocks = f"b{stage}"
        channels = [_label("c", stage, branch) for branch in range(1, stage + 1)]
        units += _fusion(stage, previous, channels, ())
        units += _fusion(stage, channels, channels, ((blocks, -1),))
        for branch, channel in enumerate(channels, start=1):
            repeats = ((blocks, 0), (_label("n", stage, branch), 0))
            units.append(Unit(stage, branch, (channel,), channel, 9, repeats, scale=2))
        previous = channels
    units.append(
        Unit(
            5,
            1 if head == "segmentation" else 4,
            tuple(previous),
            "o1",
            27 if head == "video" else 1,
        )
    )
    return tuple(units)


@dataclass(frozen=True)
class _Table:
    """`unit_table` as index arrays over the columns [codes | image channels, 1, sum of c4]."""

    source: NDArray[np.int64]
    target: NDArray[np.int64]
    kernel: NDArray[np.float64]
    scale: NDArray[np.float64]
    first: NDArray[np.int64]
    first_offset: NDArray[np.float64]
    second: NDArray[np.int64]
    level: NDArray[np.int64]


_IMAGE, _ONE, _SUM = len(LABELS), len(LABELS) + 1, len(LABELS) + 2
_LAST_CHANNELS = slice(LABELS.index("c4_1"), LABELS.index("c4_4") + 1)


@lru_cache(maxsize=3)
def _table(head: Head) -> _Table:
    units = unit_table(head)
    column = {label: index for index, label in enumerate(LABELS)}

    def source(unit: Unit) -> int:
        if not unit.source:
            return _IMAGE
        return _SUM if len(unit.source) > 1 else column[unit.source[0]]

    def factor(unit: Unit, position: int) -> tuple[int, int]:
        if position >= len(unit.factors):
            return _ONE, 0
        label, offset = unit.factors[position]
        return column[label], offset

    return _Table(
        source=np.array([source(unit) for unit in units]),
        target=np.array([column[unit.target] for unit in units]),
        kernel=np.array([float(unit.kernel) for unit in units]),
        scale=np.array([float(unit.scale) for unit in units]),
        first=np.array([factor(unit, 0)[0] for unit in units]),
        first_offset=np.array([float(factor(unit, 0)[1]) for unit in units]),
        second=np.array([factor(unit, 1)[0] for unit in units]),
        level=np.array([unit.level for unit in units]),
    )


def _areas(input_size: int | tuple[int, int]) -> NDArray[np.float64]:
    """(5,) positions at levels 0 to 4; each level halves the sides, rounding up."""
    height, width = (input_size, input_size) if isinstance(input_size, int) else input_size
    if height < 1 or width < 1:
        raise ValueError(f"input_size must be at least 1, but got {input_size!r}.")
    areas = []
    for _ in range(5):
        height, width = -(-height // 2), -(-width // 2)
        areas.append(float(height * width))
    return np.array(areas)


def _check(values: Any) -> None:
    if values.ndim != 2 or values.shape[1] != len(LABELS):
        raise ValueError(
            f"codes must have the shape (n, {len(LABELS)}), but got {tuple(values.shape)}."
        )


def unit_costs(
    values: Values, *, head: Head = "classification", in_channels: int = 3
) -> tuple[Values, NDArray[np.int64]]:
    """Parameters of each kind of unit, with the level at which each writes.

    Args:
        values: (n, 27) numbers b, n, i, c, o in the order of `LABELS`, an array or a tensor.
        head: What the network ends in.
        in_channels: Channels of the image.

    Returns:
        (n, units) parameters in the order of `unit_table(head)`, all occurrences of a kind
        together; (units,) levels.
    """
    _check(values)
    table = _table(head)
    if isinstance(values, np.ndarray):
        numbers = values.astype(np.float64)
        fixed = np.broadcast_to([float(in_channels), 1.0], (len(numbers), 2))
        total = numbers[:, _LAST_CHANNELS].sum(1, keepdims=True)
        columns: Any = np.concatenate([numbers, fixed, total], axis=1)
        kernel: Any = table.kernel
        offset: Any = table.first_offset
        scale: Any = table.scale
    else:
        import torch

        kind = values.dtype if values.is_floating_point() else torch.float64
        like = {"dtype": kind, "device": values.device}
        image_and_one = torch.tensor([[float(in_channels), 1.0]], **like).expand(len(values), 2)
        tensor = values.to(kind)
        last = tensor[:, _LAST_CHANNELS].sum(1, keepdim=True)
        columns = torch.cat([tensor, image_and_one, last], dim=1)
        kernel = torch.tensor(table.kernel, **like)
        offset = torch.tensor(table.first_offset, **like)
        scale = torch.tensor(table.scale, **like)
    target = columns[:, table.target]
    repeats = scale * (columns[:, table.first] + offset) * columns[:, table.second]
    return cast(Values, repeats * target * (kernel * columns[:, table.source] + 2)), table.level


def _classifier(values: Any, n_classes: int) -> Any:
    """(n,) parameters of the 1x1 classifier, which are its FLOPs at one position."""
    if n_classes < 1:
        raise ValueError(f"n_classes must be at least 1, but got {n_classes}.")
    return (values[:, -1] + 1.0) * float(n_classes)


def params(
    values: Values, *, n_classes: int = 50, head: Head = "classification", in_channels: int = 3
) -> Values:
    """Number of parameters of each code's network.

    With the defaults this is the column `params` of every setting of NAS-Bench-MR (which is in
    millions) to the last digit.

    Args:
        values: (n, 27) numbers in the order of `LABELS`, an array or a tensor (of floats where
            gradients are wanted; float64 is exact).
        n_classes: Outputs of the classifier.
        head: "video" has a 3x3x3 output convolution instead of the 1x1 one.
        in_channels: Channels of the image.

    Returns:
        (n,) parameters, as floats.

    Raises:
        ValueError: The shape, the head or a number is wrong.
    """
    units, _ = unit_costs(values, head=head, in_channels=in_channels)
    return cast(Values, units.sum(1) + _classifier(values, n_classes))


def flops(
    values: Values,
    *,
    input_size: int | tuple[int, int] = 128,
    n_classes: int = 50,
    head: Head = "classification",
    in_channels: int = 3,
    frames: int = 1,
) -> Values:
    """FLOPs of each code's network on one image (or clip, for video).

    FLOPs are multiply-adds of the convolutions, two operations for each element that a batch
    normalisation writes, and the additions of the classifier's bias: the count of the published
    benchmark. Pooling, upsampling, sums and activations are free. With the defaults this is
    the column `flops` of every setting of NAS-Bench-MR (which is in billions) to the last digit.

    Args:
        values: (n, 27) numbers in the order of `LABELS`, an array or a tensor.
        input_size: Side of the image, or (height, width), in pixels.
        n_classes: Outputs of the classifier.
        head: "segmentation" joins the branches and classifies at a quarter of the input's
            side, the others join at 1/32 and classify once.
        in_channels: Channels of the image.
        frames: Frames of a clip; the classifier works once a clip.

    Returns:
        (n,) FLOPs, as floats.

    Raises:
        ValueError: The shape, the head or a number is wrong.
    """
    units, level = unit_costs(values, head=head, in_channels=in_channels)
    areas = _areas(input_size)
    positions: Any = areas[level]
    if not isinstance(values, np.ndarray):
        import torch

        tensor = cast(torch.Tensor, units)
        positions = torch.tensor(positions, dtype=tensor.dtype, device=tensor.device)
    outputs = areas[1] if head == "segmentation" else 1.0
    return cast(
        Values, units @ positions * float(frames) + _classifier(values, n_classes) * outputs
    )
