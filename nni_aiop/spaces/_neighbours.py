"""What lies one decision away from an architecture, in blocks of bounded size.

Notation: d dimensions; a *move* (j, p) takes dimension j to the point p; there are m moves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nni_aiop.spaces._dimensions import Array, Continuous

__all__ = ["Moves", "moves_from"]

_BLOCK = 256  # moves that are looked at together


class Moves(NamedTuple):
    """Moves from one point.

    Attributes:
        dimensions: (m,) j of each.
        points: (m,) p of each.
    """

    dimensions: NDArray[np.intp]
    points: Array

    def rows(self, point: Array, block: slice = slice(None)) -> Array:
        """(m, d), or so many as the block has, where they lead to from a point (d,)."""
        rows = np.repeat(point[None], len(self.points[block]), axis=0)
        rows[np.arange(len(rows)), self.dimensions[block]] = self.points[block]
        return rows

    def blocks(self) -> Iterator[slice]:
        """Blocks of up to 256 moves, whose rows are to be held at once."""
        for start in range(0, len(self.points), _BLOCK):
            yield slice(start, min(start + _BLOCK, len(self.points)))


def moves_from(space: Any, point: Array) -> Iterator[Moves]:
    """Blocks of up to 256 moves to valid architectures, each of them once, in order of dimensions.

    Args:
        space: Whose activity and constraints are kept.
        point: (d,) where the moves begin.
    """
    blocks = _blocks(space, point)
    if space.constraints:
        blocks = _valid(space, point, blocks)
    # A function may let one dimension switch off another before it: only keys tell then.
    return blocks if space.activity is None else _distinct(space, point, blocks)


def _blocks(space: Any, point: Array) -> Iterator[Moves]:
    """Moves of the active dimensions, those to equal points once.

    Where rules say what is active, parents stand before their children: a move (j, p) leaves j
    active, and so differs in j from the start and from every move of another dimension.
    """
    dimensions: list[int] = []
    points: list[float] = []
    active = space.active_points(point[None])[0].tolist()
    for j, (d, here, matters) in enumerate(
        zip(space.dimensions, point.tolist(), active, strict=True)
    ):
        if not matters:
            continue
        there = d.neighbours(here)
        if isinstance(d, Continuous):
            known = {repr(here): here}  # as keys tell numbers apart
            known |= {repr(p): p for p in there if repr(p) not in known}
            there = list(known.values())[1:]
        dimensions += [j] * len(there)
        points += there
        while len(points) >= _BLOCK:
            yield _moves(dimensions[:_BLOCK], points[:_BLOCK])
            del dimensions[:_BLOCK], points[:_BLOCK]
    if points:
        yield _moves(dimensions, points)


def _moves(dimensions: list[int], points: list[float]) -> Moves:
    return Moves(np.array(dimensions, dtype=np.intp), np.array(points, dtype=np.float64))


def _distinct(space: Any, point: Array, blocks: Iterator[Moves]) -> Iterator[Moves]:
    seen = set(map(_digest, space.keys(point[None])))
    for block in blocks:
        kept = []
        for i, key in enumerate(space.keys(block.rows(point))):
            digest = _digest(key)
            if digest not in seen:
                seen.add(digest)
                kept.append(i)
        yield Moves(block.dimensions[kept], block.points[kept])


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=16).digest()


def _valid(space: Any, point: Array, blocks: Iterator[Moves]) -> Iterator[Moves]:
    (start,) = space.from_points(point[None])
    for block in blocks:
        kept = []
        for i, (j, p) in enumerate(
            zip(block.dimensions.tolist(), block.points.tolist(), strict=True)
        ):
            d = space.dimensions[j]
            if space._broken({**start, d.label: d.value(p)}) is None:
                kept.append(i)
        yield Moves(block.dimensions[kept], block.points[kept])
