"""Which numbers of a learned tensor a network uses, where it uses slices of it.

A slice of a learned tensor holds only what it takes: its key is the tensor's with the places that
are taken. As long as a tensor is cut, turned and reshaped without a copy, these are known exactly,
as an offset and strides; entries that are picked by an index count as so many, wherever they lie.
Several slices of one tensor count as their union, at most as the whole.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import gcd, prod

import numpy as np

__all__ = ["Picked", "Region", "count", "gathered", "tensor_of"]

_MOST_PLACES = 2**26
"""Of a tensor whose parts are compared place by place."""


@dataclass(frozen=True)
class Region:
    """Places of a learned tensor as the axes of another tensor show them.

    Attributes:
        key: Of the learned tensor.
        whole: How many numbers it has.
        offset: Place of the first number.
        sizes: Of the axes.
        strides: Places between neighbours along each axis.
    """

    key: Hashable
    whole: int
    offset: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]

    @classmethod
    def of(cls, key: Hashable, shape: Sequence[int]) -> Region:
        """The whole of a learned tensor."""
        strides = tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))
        return cls(key, prod(shape), 0, tuple(shape), strides)

    @property
    def taken(self) -> int:
        """How many numbers there are."""
        return prod(self.sizes)

    def learned(self) -> dict[Hashable, int]:
        """The learned numbers, as constants have them."""
        if self.taken == self.whole:
            return {self.key: self.whole}
        return {self._plain(): self.taken} if self.taken else {}

    def sliced(self, axis: int, start: int, stop: int, step: int) -> Region:
        """A slice along an axis."""
        start, stop, step = slice(start, stop, step).indices(self.sizes[axis])
        sizes, strides = list(self.sizes), list(self.strides)
        sizes[axis], strides[axis] = len(range(start, stop, step)), strides[axis] * step
        offset = self.offset + start * self.strides[axis]
        return replace(self, offset=offset, sizes=tuple(sizes), strides=tuple(strides))

    def transposed(self, order: Sequence[int]) -> Region:
        """The same numbers, their axes in another order."""
        sizes, strides = ([have[a] for a in order] for have in (self.sizes, self.strides))
        return replace(self, sizes=tuple(sizes), strides=tuple(strides))

    def reshaped(self, shape: Sequence[int]) -> Region | None:
        """The same numbers in another shape, None where that takes a copy."""
        if prod(shape) != self.taken or self.taken == 0:
            return None
        runs = _runs(zip(self.sizes, self.strides, strict=True))
        strides = []
        left, stride = 1, 1
        for size in reversed(shape):
            if size > 1 and left == 1:
                left, stride = runs.pop()
            if left % size:
                return None
            strides.append(stride)
            left, stride = left // size, stride * size
        return replace(self, sizes=tuple(shape), strides=tuple(reversed(strides)))

    def _plain(self) -> Region:
        """The same places whatever the axes that show them."""
        offset, axes = self.offset, []
        for size, stride in zip(self.sizes, self.strides, strict=True):
            offset += min(0, stride) * (size - 1)
            axes.append((size, abs(stride)))
        runs = _runs(sorted(axes, key=lambda axis: -axis[1]))
        sizes, strides = zip(*runs, strict=True) if runs else ((), ())
        return Region(self.key, self.whole, offset, tuple(sizes), tuple(strides))


@dataclass(frozen=True, eq=False)
class Picked:
    """Numbers of a learned tensor that an index picks; which ones is not known.

    Attributes:
        key: Of the learned tensor.
        whole: How many numbers it has.
        taken: How many are picked, at most.
    """

    key: Hashable
    whole: int
    taken: int


def _runs(axes: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """(size, stride) of axes; those that continue each other are one, those of length 1 none."""
    runs: list[tuple[int, int]] = []
    for size, stride in axes:
        if size == 1:
            continue
        if runs and runs[-1][1] == size * stride:
            size *= runs.pop()[0]
        runs.append((size, stride))
    return runs


def tensor_of(key: Hashable) -> Hashable:
    """The learned tensor that a key of learned numbers belongs to."""
    return key.key if isinstance(key, (Region, Picked)) else key


def count(learned: Mapping[Hashable, int]) -> int:
    """How many learned numbers there are, each counted once."""
    parts: dict[Hashable, list[Region | Picked]] = {}
    total = 0
    for key, n in learned.items():
        if isinstance(key, (Region, Picked)):
            parts.setdefault(key.key, []).append(key)
        else:
            total += n
    return total + sum(_union(own) for key, own in parts.items() if key not in learned)


def gathered(learned: Mapping[Hashable, int]) -> dict[Hashable, int]:
    """The same learned numbers, a tensor whose parts make up the whole under its own key."""
    parts: dict[Hashable, list[Region | Picked]] = {}
    for key in learned:
        if isinstance(key, (Region, Picked)):
            parts.setdefault(key.key, []).append(key)
    found = dict(learned)
    for tensor, own in parts.items():
        whole = own[0].whole
        if tensor in learned or _union(own) == whole:
            for key in own:
                del found[key]
            found[tensor] = whole
    return found


def _union(parts: Sequence[Region | Picked]) -> int:
    """How many numbers of one learned tensor its parts take together."""
    known = [part for part in parts if isinstance(part, Region)]
    picked = sum(part.taken for part in parts if isinstance(part, Picked))
    return min(parts[0].whole, picked + _places(known))


def _places(regions: Sequence[Region]) -> int:
    """How many places regions in plain form have together."""
    if len(regions) < 2:
        return sum(region.taken for region in regions)
    # Neighbours that are always taken together are one place.
    step = 0
    for region in regions:
        run = region.sizes[-1] if region.strides and region.strides[-1] == 1 else 1
        step = gcd(step, region.offset, run, *(s for s in region.strides if s != 1))
    if regions[0].whole // step > _MOST_PLACES:
        return sum(region.taken for region in regions)
    taken = np.zeros(-(-regions[0].whole // step), bool)
    for region in regions:
        pairs = zip(region.sizes, region.strides, strict=True)
        axes = [(n // step, 1) if s == 1 else (n, s // step) for n, s in pairs]
        shape, strides = zip(*axes, strict=True) if axes else ((), ())
        view = np.lib.stride_tricks.as_strided(taken[region.offset // step :], shape, strides)
        view[...] = True
    return int(np.count_nonzero(taken)) * step
