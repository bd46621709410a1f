"""Coding: a flat list of typed dimensions, and how its samples become points and codes.

What makes a sample valid, or a dimension matter, is not known here: see `CodeSpace`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from nni_aiop.errors import SpaceError
from nni_aiop.spaces._dimensions import Array, Continuous, Dimension, Value
from nni_aiop.spaces._groups import FEW, Groups

__all__ = ["LISTED", "Coding", "Sample"]

Sample = dict[str, Value]

LISTED = 100_000
"""Spaces of up to so many points may be listed whole."""


class Coding:
    """Typed dimensions in an order, and the points and codes of samples.

    Args:
        dimensions: The decisions.
        name: For messages and files.

    Raises:
        SpaceError: There are no dimensions, or labels repeat.
    """

    def __init__(self, dimensions: Sequence[Dimension], *, name: str) -> None:
        self.name = name
        self.dimensions = tuple(dimensions)
        self.labels = tuple(d.label for d in self.dimensions)
        self._order = {label: j for j, label in enumerate(self.labels)}
        if not self.dimensions:
            raise SpaceError("a space must have at least one dimension, but got none.")
        if len(self._order) != len(self.labels):
            raise SpaceError(f"labels must differ, but got {list(self.labels)}.")
        ends = np.cumsum([d.width for d in self.dimensions])
        self.width = int(ends[-1])
        self.columns = {
            d.label: slice(int(end) - d.width, int(end))
            for d, end in zip(self.dimensions, ends, strict=True)
        }

    def __len__(self) -> int:
        return len(self.dimensions)

    def _at(self, label: str) -> int:
        try:
            return self._order[label]
        except KeyError:
            raise SpaceError(
                f"{self.name} must have the label, but got {label!r}; "
                f"its labels are {', '.join(self.labels)}."
            ) from None

    @cached_property
    def _groups(self) -> Groups:
        return Groups(self.dimensions)

    @cached_property
    def size(self) -> int | float:
        """Number of points; constraints and inactive dimensions are not taken off."""
        sizes = [d.size for d in self.dimensions]
        return math.inf if math.inf in sizes else math.prod(int(s) for s in sizes)

    @cached_property
    def code_std(self) -> Array:
        """(width,) standard deviation of each code column under uniform sampling."""
        return np.concatenate([d.code_std() for d in self.dimensions])

    def points(self, samples: Sequence[Mapping[str, Value]]) -> Array:
        """(n, d) points of samples; a missing label takes the dimension's default.

        Raises:
            SpaceError: A label is unknown or a value is not one of its dimension's.
        """
        out = np.empty((len(samples), len(self.dimensions)))
        known = self._order.keys()
        for sample in samples:
            if not sample.keys() <= known:
                self._at(next(label for label in sample if label not in known))
        if len(samples) <= FEW:
            try:
                for i, sample in enumerate(samples):
                    out[i] = self._groups.row(sample)
                return out
            except (KeyError, TypeError, ValueError):
                pass  # the dimensions name the stranger
        for j, d in enumerate(self.dimensions):
            try:
                column = [s[d.label] for s in samples]
            except KeyError:
                default = d.value(d.default)
                column = [s.get(d.label, default) for s in samples]
            out[:, j] = d.points_of(column)
        return out

    def from_points(self, points: ArrayLike) -> list[Sample]:
        """Samples (every label) of (n, d) points."""
        p = np.asarray(points, dtype=np.float64)
        if len(p) <= FEW:
            values = self._groups.values
            return [dict(zip(self.labels, values(row), strict=True)) for row in p.tolist()]
        columns = [d.values_of(p[:, j]) for j, d in enumerate(self.dimensions)]
        return [dict(zip(self.labels, row, strict=True)) for row in zip(*columns, strict=True)]

    def encode(self, samples: Sequence[Mapping[str, Value]]) -> Array:
        """(n, width) codes in [0, 1]; a missing label takes the dimension's default.

        Raises:
            SpaceError: A label is unknown or a value is not one of its dimension's.
        """
        return self.encode_points(self.points(samples))

    def encode_points(self, points: Array) -> Array:
        """(n, width) codes of (n, d) points."""
        return self._groups.encode(points)

    def decode_points(self, codes: ArrayLike) -> Array:
        """(n, d) nearest points of any real codes (n, width); constraints are not looked at.

        Raises:
            SpaceError: The codes have another width, or one is not a finite number.
        """
        c = np.asarray(codes, dtype=np.float64)
        if c.ndim != 2 or c.shape[1] != self.width:
            raise SpaceError(f"codes must have shape (n, {self.width}), but got {c.shape}.")
        if not np.isfinite(c).all():
            raise SpaceError("codes must be finite numbers, but got NaN or infinity.")
        return self._groups.decode(c)

    def complete(self, sample: Mapping[str, Value]) -> Sample:
        """The sample with every label, the missing ones at their dimension's default."""
        return self.from_points(self.points([sample]))[0]

    def to_json(self, sample: Mapping[str, Value]) -> list[float | int | None]:
        """The sample as plain JSON: a number for each dimension, None where the label is absent."""
        row = self.points([sample])[0].tolist()
        return [
            None if d.label not in sample else p if isinstance(d, Continuous) else int(p)
            for d, p in zip(self.dimensions, row, strict=True)
        ]

    def from_json(self, data: Sequence[float | int | None]) -> Sample:
        """The sample that `to_json` wrote.

        Raises:
            SpaceError: The list has another length or a number that no value has.
        """
        if len(data) != len(self.dimensions):
            raise SpaceError(
                f"a sample of {self.name} must have {len(self.dimensions)} numbers, "
                f"but got {len(data)}."
            )
        sample: Sample = {}
        for d, p in zip(self.dimensions, data, strict=True):
            if p is None:
                continue
            try:
                value = d.value(p)
                legal = p >= 0 or isinstance(d, Continuous)
                legal = legal and d.point(value) == p
            except (KeyError, IndexError, TypeError, ValueError):
                legal = False
            if not legal:
                raise SpaceError(f"{d.label!r} must have such a point, but got {p!r}.")
            sample[d.label] = value
        return sample

    def sample_points(self, n: int, rng: np.random.Generator) -> Array:
        """(n, d) random points; constraints are not looked at."""
        return np.stack([d.random(n, rng) for d in self.dimensions], axis=1)

    def enumerate_points(self, limit: int = LISTED) -> Array:
        """(size, d) every point; constraints are not looked at.

        Raises:
            SpaceError: The space has more than `limit` points.
        """
        if self.size > limit:
            raise SpaceError(
                f"a space must have at most {limit} points to be listed, "
                f"but {self.name} has {self.size:.3g}."
            )
        number = np.arange(self.size, dtype=np.int64)
        columns = []
        for d in reversed(self.dimensions):  # the last dimension is the digit that changes first
            options = d.options(limit)
            columns.append(options[number % len(options)])
            number //= len(options)
        return np.stack(columns[::-1], axis=1)
