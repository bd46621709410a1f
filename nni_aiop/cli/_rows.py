"""A search over the rows of a table that holds only a part of the space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nni_aiop.cli._tell import note
from nni_aiop.measures import Measure, TableMeasure
from nni_aiop.search import BaseSearch
from nni_aiop.spaces import Sample, meets_limits

__all__ = ["Rows", "rows_of"]


class Rows:
    """The rows of a table that a search may still look up: those within its limits.

    Args:
        table: What holds them.
        search: What proposes; what it was told already is taken.
    """

    def __init__(self, table: TableMeasure, search: BaseSearch) -> None:
        self._table = table
        self._space = space = search.space
        self._points = table.points[meets_limits(space, table.points, search.limits)]
        self._codes = space.encode_points(space.canonical_points(self._points))
        self._place = {key: i for i, key in enumerate(space.keys(self._points))}
        self._free = np.ones(len(self._points), dtype=bool)
        for sample, _ in search.history:
            self.take(sample)

    def take(self, sample: Sample) -> None:
        """A row that is looked up, and will not be again."""
        place = self._place.get(self._space.key(sample))
        if place is not None:
            self._free[place] = False

    def nearest(self, sample: Sample) -> Sample | None:
        """The row nearest to a sample, by the codes, of those that are left; None where none is."""
        free = np.flatnonzero(self._free)
        if not len(free):
            return None
        code = self._space.encode([sample])[0]
        chosen = free[np.square(self._codes[free] - code).sum(axis=1).argmin()]
        (row,) = self._space.from_points(self._points[chosen][None])
        return row

    def looked_up(
        self, history: Sequence[tuple[Sample, Mapping[str, float] | None]]
    ) -> list[tuple[Sample, Mapping[str, float] | None]]:
        """The history without proposals that no row answers."""
        return [(s, m) for s, m in history if m is not None or s in self._table]


def rows_of(measure: Measure, search: BaseSearch) -> Rows | None:
    """The rows that a search is to stay within, which is told; None where it need not."""
    if not isinstance(measure, TableMeasure) or len(measure) >= search.space.size:
        return None
    note(
        f"The search goes over the {len(measure)} architectures of {measure.path}, a part of "
        f"{search.space.name} ({search.space.size:.3g} points): a proposal stands for the nearest."
    )
    return Rows(measure, search)
