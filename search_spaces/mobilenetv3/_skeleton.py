"""What all networks of the space share: MobileNetV3-Large as once-for-all widens it.

Facts of Cai et al. (ICLR 2020) and its published networks, which the published parameter and
MAdds columns confirm to the last digit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

__all__ = ["UNITS", "WIDTHS", "Skeleton", "Unit", "make_divisible", "se_channels", "skeleton"]

Activation = Literal["relu", "hardswish"]

WIDTHS = (1.0, 1.2)
"""The width multipliers of the two published once-for-all networks."""


@dataclass(frozen=True)
class Unit:
    """A unit: channels at width 1.0, stride of its first block, squeeze-and-excitation or not."""

    channels: int
    stride: int
    se: bool
    activation: Activation


UNITS = (
    Unit(24, 2, False, "relu"),
    Unit(40, 2, True, "relu"),
    Unit(80, 2, False, "hardswish"),
    Unit(112, 1, True, "hardswish"),
    Unit(160, 2, True, "hardswish"),
)


def make_divisible(channels: float, divisor: int = 8) -> int:
    """The nearest multiple of the divisor, but never below it nor below 90 % of the channels.

    Example:
        >>> make_divisible(19.2), make_divisible(134.4)
        (24, 136)
    """
    nearest = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * channels else nearest


def se_channels(channels: int) -> int:
    """Hidden channels of squeeze-and-excitation."""
    return make_divisible(channels // 4)


@dataclass(frozen=True)
class Skeleton:
    """The channels of a width: of the stem (and the first block), the units, the last two layers
    before the classifier."""

    stem: int
    units: tuple[int, ...]
    expand: int
    mix: int

    @property
    def inputs(self) -> tuple[int, ...]:
        """Channels that come into each unit."""
        return (self.stem, *self.units[:-1])


@lru_cache(maxsize=len(WIDTHS))
def skeleton(width: float) -> Skeleton:
    """The channels of a width multiplier.

    Raises:
        ValueError: The width is not one of `WIDTHS`.
    """
    if width not in WIDTHS:
        raise ValueError(f"width must be one of {WIDTHS}, but got {width!r}.")
    return Skeleton(
        stem=make_divisible(16 * width),
        units=tuple(make_divisible(unit.channels * width) for unit in UNITS),
        expand=make_divisible(960 * width),
        mix=make_divisible(1280 * width),
    )
