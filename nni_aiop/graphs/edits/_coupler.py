"""Which channels go together: ties between labels, and the classes that they make.

Rules of operations tie labels pair by pair (`Coupler.tie`), say what must stay (`freeze`), and
leave a choice where either of two ways is sound (`choose`: of a grid of groups and channels either
whole groups may go, or the same channel of every group). `Coupler.solve` gives the classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from nni_aiop.graphs._types import Shape
from nni_aiop.graphs.edits._marks import Labels, Marks

__all__ = ["Classes", "Coupler"]

Pairs = tuple[Labels, Labels]

_APART = "it meets data that have no channels"


@dataclass(frozen=True)
class Classes:
    """Labels that go together.

    Attributes:
        of: (labels,) the class of every label; label 0 has class 0, which stays.
        reasons: By class why it cannot go.
    """

    of: NDArray[np.int64]
    reasons: dict[int, str]


class Coupler:
    """Gives out labels and collects what ties them.

    Attributes:
        where: Name of the operation at work, for reasons.
    """

    def __init__(self) -> None:
        self.where = ""
        self.count = 1
        self._pairs: list[tuple[Labels, Labels, str]] = []
        self._starts: list[int] = []
        self._frozen: list[tuple[Labels, str]] = []
        self._choices: list[tuple[list[Pairs], int, int]] = []
        self._grids: dict[int, Labels] = {}
        self.aside: list[Labels] = []
        """Labels that stand for whole groups: no channels of their own."""

    # --- what rules say ------------------------------------------------------------------------

    def begin(self, where: str) -> None:
        """Says which operation is at work."""
        self.where = where
        self._starts.append(self.count)

    @property
    def starts(self) -> NDArray[np.int64]:
        """(operations,) the first label that each one gave out, if it gave out any."""
        return np.array(self._starts)

    def fresh(self, n: int) -> Labels:
        """(n,) labels that nothing has yet."""
        start, self.count = self.count, self.count + n
        return np.arange(start, start + n)

    def tie(self, a: Labels, b: Labels, why: str = _APART) -> None:
        """Says that labels go together, entry by entry as they broadcast; with label 0: stay."""
        if a is not b:
            if a.shape != b.shape:
                a, b = np.broadcast_arrays(a, b)
            self._pairs.append((a.ravel(), b.ravel(), why and f"{self.where}: {why}"))

    def freeze(self, marks: Marks, why: str) -> None:
        """Says that labels must stay."""
        for layer in marks.layers:
            self._frozen.append((layer.ravel(), f"{self.where}: {why}"))

    def freeze_axes(self, marks: Marks, axes: Sequence[int], why: str) -> None:
        """Says that labels that change along some axes must stay."""
        for axis in axes:
            self.freeze(Marks(marks.shape, marks.varying(axis)), why)

    def flat(self, layer: Labels, axes: Sequence[int]) -> Labels:
        """The layer with length 1 along some axes, its labels tied along them."""
        first = layer
        for axis in axes:
            if first.shape[axis] > 1:
                first = first.take([0], axis)
        if first.size < layer.size:
            self.tie(layer, first)
        return first

    def line(self, marks: Marks, axis: int) -> Labels | None:
        """(n,) the labels along one axis, those along other axes tied; None where none change."""
        layers = marks.varying(axis)
        if not layers:
            return None
        lines = []
        for layer in layers:
            lines.append(self.flat(layer, _but(layer, axis)).ravel())
        for other in lines[1:]:
            self.tie(lines[0], other)
        return lines[0]

    def choose(self, options: Sequence[Pairs], *, widths: int = -1, heads: int = -1) -> None:
        """Leaves open which one of several sets of ties holds.

        Args:
            options: The sets. The one that leaves most classes is taken.
            widths: Place of the one that is taken instead where widths are to go.
            heads: Likewise where heads are to go.
        """
        self._choices.append((list(options), widths, heads))

    def watch(self, marks: Marks) -> None:
        """Sees to it that a tensor stays a block: whatever goes is a slab along one axis."""
        seen: list[tuple[int, Labels]] = []
        for layer in marks.layers:
            axes = [axis for axis, n in enumerate(layer.shape) if n > 1]
            for axis in axes:
                for before, other in seen:
                    if before == axis and other is not layer:
                        self.tie(
                            self.flat(other, _but(other, axis)), self.flat(layer, _but(layer, axis))
                        )
                seen.append((axis, layer))
            if len(axes) > 1 and id(layer) not in self._grids:
                self._grids[id(layer)] = layer

    def merged(self, shape: Shape, terms: Sequence[Marks]) -> Marks:
        """The labels of what is computed entry by entry from tensors that broadcast to a shape."""
        terms = [_ranked(marks, len(shape)) for marks in terms]
        found: list[Labels] = []
        for marks in terms:
            for layer in marks.layers:
                self._join(found, layer)
        for marks in terms:
            for place, layer in enumerate(found):
                for axis, n in enumerate(layer.shape):
                    if n > 1 and marks.shape[axis] > 1 and not marks.varying(axis):
                        found[place] = layer = self._without(layer, axis)
        return Marks(shape, found)

    def _join(self, found: list[Labels], layer: Labels) -> None:
        varies = [n > 1 for n in layer.shape]
        for place, other in enumerate(found):
            if other is layer:
                return
            if any(a and n > 1 for a, n in zip(varies, other.shape, strict=True)):
                self.tie(other, layer)
                if layer.size > other.size:
                    found[place] = layer
                return
        found.append(layer)

    def _without(self, layer: Labels, axis: int) -> Labels:
        """A layer that meets data of full length along an axis, which have no labels there."""
        flat = self.flat(layer, [axis])
        if flat.size == 1:
            self.tie(flat, np.zeros_like(flat))
        return flat

    # --- classes -------------------------------------------------------------------------------

    def solve(self, *, heads: bool = False) -> Classes:
        """The classes; with `heads` those in which heads of attention go as a whole."""
        zeros: list[tuple[Labels, str]] = list(self._frozen)
        a, b = self._all_pairs(zeros)
        of = _components(self.count, a, b)
        given: list[Pairs] = []
        free: list[list[Pairs]] = []
        for options, for_widths, for_heads in self._choices:
            taken = for_heads if heads else for_widths
            if taken < 0:
                free.append(options)
            else:
                given.append(options[taken])
        if given:
            x, y = (np.concatenate([pair[side] for pair in given]) for side in (0, 1))
            of = _merged(of, *_merge(of, x, y))
        for options in (*free, *(_slabs(layer) for layer in self._grids.values())):
            if any((of[x] == of[y]).all() for x, y in options):
                continue
            best = min((_merge(of, x, y) for x, y in options), key=lambda merged: merged[1])
            of = _merged(of, *best)
        reasons: dict[int, str] = {0: "heads stay as many as there are"}
        for labels, why in zeros:
            for cls in np.unique(of[labels]).tolist():
                reasons.setdefault(cls, why)
        return Classes(of, reasons)

    def _all_pairs(self, zeros: list[tuple[Labels, str]]) -> Pairs:
        """Every pair of labels; what is tied to label 0 goes to `zeros` instead."""
        if not self._pairs:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        a = np.concatenate([pair[0] for pair in self._pairs])
        b = np.concatenate([pair[1] for pair in self._pairs])
        empty = (a == 0) | (b == 0)
        if not empty.any():
            return a, b
        starts = np.cumsum([0, *(len(pair[0]) for pair in self._pairs)])
        for place in np.unique(np.searchsorted(starts, np.flatnonzero(empty), "right") - 1):
            x, y, why = self._pairs[place]
            apart = (x == 0) != (y == 0)
            zeros.append((np.maximum(x, y)[apart], why))
        return a[~empty], b[~empty]


def _components(n: int, a: Labels, b: Labels) -> NDArray[np.int64]:
    # Of wider indices scipy 1.11 makes no components, and says so on standard error only.
    a, b = a.astype(np.int32), b.astype(np.int32)
    edges = coo_array((np.ones(len(a), np.int8), (a, b)), shape=(n, n))
    return np.asarray(connected_components(edges, directed=False)[1], np.int64)


def _merge(of: NDArray[np.int64], a: Labels, b: Labels) -> tuple[NDArray[np.int64], int]:
    """(a map from classes to classes, how many fewer there are) with further ties."""
    if not len(a):
        return np.empty(0, np.int64), 0
    x, y = of[a], of[b]
    known, place = np.unique(np.concatenate([x, y]), return_inverse=True)
    comp = _components(len(known), place[: len(x)], place[len(x) :])
    first = np.full(len(known), np.iinfo(np.int64).max)
    np.minimum.at(first, comp, known)
    new = np.arange(int(of.max()) + 1)
    new[known] = first[comp]
    return new, len(known) - int(comp.max()) - 1


def _merged(of: NDArray[np.int64], new: NDArray[np.int64], fewer: int) -> NDArray[np.int64]:
    return new[of] if fewer else of


def _ranked(marks: Marks, rank: int) -> Marks:
    """The marks with axes of length 1 before the others, up to a rank."""
    lacks = rank - len(marks.shape)
    if lacks <= 0:
        return marks
    more = (1,) * lacks
    return marks.mapped((*more, *marks.shape), lambda x: x.reshape((*more, *x.shape)))


def _but(layer: Labels, axis: int) -> list[int]:
    return [a for a, n in enumerate(layer.shape) if n > 1 and a != axis]


def _slabs(layer: Labels) -> list[Pairs]:
    """For every axis along which a layer changes the ties that leave slabs along it."""
    options = []
    for axis, n in enumerate(layer.shape):
        if n > 1:
            first = layer
            for other in _but(layer, axis):
                first = first.take([0], other)
            options.append((layer.ravel(), np.broadcast_to(first, layer.shape).ravel()))
    return options[::-1]
