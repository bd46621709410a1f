"""Marks: which channels the entries of a tensor belong to.

A tensor carries layers of labels. A layer is an array of as many axes as the tensor has, of length
1 where its labels do not change along the axis; an entry of the tensor goes when the label of any
layer goes. The channels of a feature map are one layer of shape (1, C, 1, 1); a weight of a linear
layer has two, (out, 1) and (1, in). Layout operations move labels as they move data, so that a
reshape never has to be understood: it is done to the labels. Label 0 is no channel: it stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from nni_aiop.graphs._types import Shape

__all__ = ["Labels", "Marks", "along", "squeezed"]

Labels = NDArray[np.int64]

MOST_ENTRIES = 1 << 22
"""Of one layer; a tensor whose layout mixes channels with more than that is not followed."""


def squeezed(layer: Labels) -> Labels:
    """The layer with every axis of length 1 along which its labels do not change."""
    for axis, size in enumerate(layer.shape):
        if size > 1:
            first = layer.take([0], axis)
            if (layer == first).all():
                layer = first
    return layer


class Marks:
    """The labels of a tensor.

    Args:
        shape: Of the tensor.
        layers: Arrays of its rank; each axis has the tensor's length or 1. Layers of one label
            only are dropped: they single nothing out.
    """

    __slots__ = ("layers", "shape")

    def __init__(self, shape: Shape, layers: Iterable[Labels] = ()) -> None:
        self.shape = shape
        self.layers = tuple(layer for layer in layers if layer.size > 1)

    @classmethod
    def along(cls, shape: Shape, axis: int, labels: Labels) -> Marks:
        """One layer: labels (n,) along an axis of length n."""
        return cls(shape, [along(len(shape), axis, labels)])

    def varying(self, axis: int) -> list[Labels]:
        """The layers whose labels change along an axis."""
        return [layer for layer in self.layers if layer.shape[axis] > 1]

    def constant(self, axes: Sequence[int]) -> tuple[Labels, ...]:
        """The layers whose labels change along none of several axes."""
        return tuple(layer for layer in self.layers if all(layer.shape[axis] == 1 for axis in axes))

    def permuted(self, order: Sequence[int]) -> Marks:
        """The labels of the transposed tensor."""
        shape = tuple(self.shape[axis] for axis in order)
        return Marks(shape, [layer.transpose(order) for layer in self.layers])

    def reshaped(self, shape: Shape) -> Marks:
        """The labels of the same data in another shape.

        Raises:
            ValueError: It has another number of entries, or labels are mixed with so much else
                that a layer would be larger than `MOST_ENTRIES`.
        """
        if shape == self.shape:
            return self
        if not self.layers:
            if prod(shape) != prod(self.shape):
                raise ValueError(f"{self.shape} is not {shape}")
            return Marks(shape)
        blocks = _blocks(self.shape, shape)
        return Marks(shape, [_reshaped(layer, blocks, self.shape, shape) for layer in self.layers])

    def mapped(self, shape: Shape, function: Callable[[Labels], Labels]) -> Marks:
        """Marks of another shape whose layers are a function of these."""
        return Marks(shape, [function(layer) for layer in self.layers])

    def __repr__(self) -> str:
        return f"Marks({self.shape}, {[layer.shape for layer in self.layers]})"


def along(rank: int, axis: int, labels: Labels) -> Labels:
    """A layer of a rank whose labels (n,) change along one axis."""
    shape = [1] * rank
    shape[axis] = len(labels)
    return labels.reshape(shape)


_Block = tuple[int, int, int, int]
"""Axes [start, stop) of the one shape, and [start, stop) of the other, with equal products."""


def _blocks(old: Shape, new: Shape) -> list[_Block]:
    """The smallest groups of neighbouring axes that a reshape keeps apart.

    Raises:
        ValueError: The shapes have not as many entries.
    """
    if prod(old) != prod(new) or 0 in old:
        raise ValueError(f"{old} is not {new}")
    blocks: list[_Block] = []
    i = j = 0
    while i < len(old) or j < len(new):
        start, first = i, j
        a = b = 1
        if i < len(old):
            a, i = old[i], i + 1
        if j < len(new):
            b, j = new[j], j + 1
        while a != b:
            if a < b:
                a, i = a * old[i], i + 1
            else:
                b, j = b * new[j], j + 1
        blocks.append((start, i, first, j))
    return blocks


def _reshaped(layer: Labels, blocks: Sequence[_Block], old: Shape, new: Shape) -> Labels:
    sizes: list[int] = []
    shape: list[int] = []
    mixes = False
    for start, stop, first, last in blocks:
        have = layer.shape[start:stop]
        if prod(have) == 1:
            sizes += [1] * (stop - start)
            shape += [1] * (last - first)
        else:
            sizes += old[start:stop]
            shape += new[first:last]
            mixes = mixes or stop - start > 1 or last - first > 1
    if tuple(sizes) == layer.shape:
        made = layer.reshape(shape)
    else:
        if prod(sizes) > MOST_ENTRIES:
            raise ValueError(f"channels are mixed over {prod(sizes)} entries")
        made = np.broadcast_to(layer, sizes).reshape(shape)
    return squeezed(made) if mixes else made
