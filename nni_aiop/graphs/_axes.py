"""Chains of reshapes and transposes: what they come to, by the axes of what they begin with.

The normal form follows the axes, split as finely as the chain splits them: where they come out in
the order in which they went in, nothing has moved; otherwise it is one transpose, over axes as
coarse as they can be (neighbours that stay neighbours are one, axes of length 1 none).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from nni_aiop.graphs._types import Shape

__all__ = ["AxisChain"]


class _Axis:
    """A part of an axis of the source; the object is its identity."""

    __slots__ = ("size",)

    def __init__(self, size: int) -> None:
        self.size = size


@dataclass(frozen=True)
class AxisChain:
    """Parts of axes in the order of a tensor, and grouped as they stand after reshapes and
    transposes."""

    parts: list[_Axis]
    groups: list[list[_Axis]]

    @classmethod
    def start(cls, shape: Sequence[int]) -> AxisChain:
        """A tensor's axes as they are."""
        parts = [_Axis(size) for size in shape]
        return cls(parts, [[part] for part in parts])

    def transposed(self, order: Sequence[int]) -> AxisChain:
        """The chain after a transpose."""
        return AxisChain(self.parts, [self.groups[axis] for axis in order])

    def reshaped(self, shape: Sequence[int]) -> AxisChain | None:
        """The chain after a reshape, None where the new axes cut across parts that have moved."""
        return _reshaped(self, shape)

    def permutation(self) -> tuple[Shape, tuple[int, ...]] | None:
        """(shape, order) of the one transpose that the chain is, None where nothing has moved."""
        before = [part for part in self.parts if part.size != 1]
        after = [part for group in self.groups for part in group if part.size != 1]
        position = {part: place for place, part in enumerate(before)}
        sequence = [position[part] for part in after]
        if sequence == sorted(sequence):
            return None
        runs: list[list[int]] = []
        for place in sequence:
            if runs and runs[-1][-1] + 1 == place:
                runs[-1].append(place)
            else:
                runs.append([place])
        sizes = {run[0]: prod(before[place].size for place in run) for run in runs}
        starts = sorted(sizes)
        order = tuple(starts.index(run[0]) for run in runs)
        return tuple(sizes[start] for start in starts), order


def _reshaped(chain: AxisChain, shape: Sequence[int]) -> AxisChain | None:
    if 0 in shape:
        return None
    waiting = [part for group in chain.groups for part in group][::-1]
    split: dict[_Axis, list[_Axis]] = {}
    groups: list[list[_Axis]] = []
    for size in shape:
        group: list[_Axis] = []
        have = 1
        while have < size:
            if not waiting:
                return None
            part = waiting.pop()
            want, rest = divmod(size, have)
            if rest:
                return None
            if part.size > want:
                if part.size % want:
                    return None
                left, right = _Axis(want), _Axis(part.size // want)
                origin = next((k for k, v in split.items() if part in v), part)
                pieces = split.get(origin, [part])
                at = pieces.index(part)
                split[origin] = [*pieces[:at], left, right, *pieces[at + 1 :]]
                waiting.append(right)
                part = left
            group.append(part)
            have *= part.size
        if have != size:
            return None
        groups.append(group)
    if any(part.size != 1 for part in waiting):
        return None
    parts = [piece for part in chain.parts for piece in split.get(part, [part])]
    return AxisChain(parts, groups)
