"""Cells of NAS-Bench-101 in the publisher's notation: a matrix and a list of operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, permutations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nni_aiop.errors import SpaceError
from nni_aiop.search_spaces.nasbench101._cells import (
    EDGES,
    MAX_EDGES,
    N_VERTICES,
    OPERATIONS,
    OUTPUT,
    active_labels,
    constraints,
    counting,
    dimensions,
)
from nni_aiop.spaces import CodeSpace

__all__ = ["canonical_string", "from_matrix", "to_matrix", "vertex_channels"]

_CELLS = CodeSpace(
    dimensions(), name="nasbench101", activity=active_labels, constraints=constraints()
)
_SPARE = _CELLS.complete({})


def _places(n: int) -> list[int]:
    """The vertices of a sample that hold a cell of n vertices: the first ones, and the output."""
    return [*range(n - 1), OUTPUT]


def from_matrix(adjacency: ArrayLike, operations: Sequence[str]) -> dict[str, Any]:
    """The sample of a cell in the publisher's notation; what does not count is pruned.

    Cells that are equal when pruned get the same sample, which writes their vertices first.

    Args:
        adjacency: (v, v) zeros and ones, 2 <= v <= 7, ones only above the diagonal; the first
            vertex is the input and the last the output.
        operations: The operations of the v - 2 vertices between them.

    Raises:
        SpaceError: These are not such, the input does not lead to the output, or more than nine
            edges count.

    Example:
        >>> sample = from_matrix([[0, 1, 1], [0, 0, 1], [0, 0, 0]], ["maxpool3x3"])
        >>> to_matrix(sample)
        (((0, 1, 1), (0, 0, 1), (0, 0, 0)), ('maxpool3x3',))
    """
    matrix = np.asarray(adjacency)
    n = len(matrix) if matrix.ndim == 2 else 0
    if not 2 <= n <= N_VERTICES or matrix.shape != (n, n):
        raise SpaceError(
            f"an adjacency matrix must be square, of 2 to {N_VERTICES} rows, "
            f"but has the shape {matrix.shape}."
        )
    if not np.isin(matrix, (0, 1)).all() or np.tril(matrix).any():
        raise SpaceError(
            "an adjacency matrix must hold zeros, and ones above its diagonal, "
            f"but got {matrix.tolist()}."
        )
    if len(operations) != n - 2 or not set(operations) <= set(OPERATIONS):
        raise SpaceError(
            f"a cell of {n} vertices must have {n - 2} operations of {', '.join(OPERATIONS)}, "
            f"but got {list(operations)}."
        )
    written = dict.fromkeys((f"edge_{i}{j}" for i, j in EDGES), 0)
    places = _places(n)
    for source, target in zip(*matrix.nonzero(), strict=True):
        written[f"edge_{places[source]}{places[target]}"] = 1
    kept = counting(written)
    if not kept:
        raise SpaceError("a cell's input must lead to its output, but does not.")
    n_edges = sum(written[f"edge_{i}{j}"] for i, j in combinations(kept, 2))
    if n_edges > MAX_EDGES:
        raise SpaceError(f"a cell must have at most {MAX_EDGES} edges, but has {n_edges}.")
    sample = _SPARE.copy()
    places = _places(len(kept))
    for (i, source), (j, target) in combinations(zip(places, kept, strict=True), 2):
        sample[f"edge_{i}{j}"] = written[f"edge_{source}{target}"]
    for place, vertex in zip(places[1:-1], kept[1:-1], strict=True):
        sample[f"op_{place}"] = operations[vertex - 1]
    return sample


def to_matrix(sample: Mapping[str, Any]) -> tuple[tuple[tuple[int, ...], ...], tuple[str, ...]]:
    """The pruned cell of a sample: its (v, v) adjacency matrix, and its v - 2 operations.

    Args:
        sample: A valid sample; inactive labels may be missing.

    Raises:
        SpaceError: A label is missing or has an unknown value, or the sample breaks a rule.
    """
    broken = _CELLS.violation(sample)
    if broken is not None:
        raise SpaceError(broken)
    chosen = _CELLS.complete(sample)
    vertices = counting(chosen)
    matrix = tuple(
        tuple(chosen[f"edge_{i}{j}"] if i < j else 0 for j in vertices) for i in vertices
    )
    return matrix, tuple(chosen[f"op_{vertex}"] for vertex in vertices[1:-1])


def canonical_string(sample: Mapping[str, Any]) -> str:
    """A text that isomorphic cells share: the pruned cell in the least of its vertex orders.

    The benchmark trained isomorphic cells once.

    Args:
        sample: A valid sample; inactive labels may be missing.

    Raises:
        SpaceError: A label is missing or has an unknown value, or the sample breaks a rule.

    Example:
        >>> one = from_matrix([[0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]],
        ...                   ["maxpool3x3", "conv1x1-bn-relu"])
        >>> other = from_matrix([[0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]],
        ...                     ["conv1x1-bn-relu", "maxpool3x3"])
        >>> canonical_string(one) == canonical_string(other)
        True
    """
    matrix, operations = to_matrix(sample)
    n = len(matrix)
    orders = np.array([[0, *inner, n - 1] for inner in permutations(range(1, n - 1))])
    turned = np.array(matrix, dtype=np.uint8)[orders[:, :, None], orders[:, None, :]]
    named = np.array([0, *(1 + OPERATIONS.index(name) for name in operations), 0], dtype=np.uint8)
    forwards = ~np.tril(turned).any(axis=(1, 2))
    rows = np.concatenate([named[orders], turned.reshape(len(turned), -1)], axis=1)[forwards]
    return min(bytes(row) for row in rows).hex()


def vertex_channels(matrix: Sequence[Sequence[int]], width: int) -> list[int]:
    """Channels of the inner vertices of a pruned cell of `width`, behind a 0 for its input.

    The vertices that lead to the output divide its channels, the first ones taking what is left
    over; another has the most of those that it leads to.
    """
    *vertices, output = range(len(matrix))
    joined = [vertex for vertex in vertices[1:] if matrix[vertex][output]]
    channels = [0] * len(vertices)
    for place, vertex in enumerate(joined):
        channels[vertex] = width // len(joined) + (place < width % len(joined))
    for vertex in reversed(vertices[1:]):
        if vertex not in joined:
            channels[vertex] = max(channels[t] for t in vertices if matrix[vertex][t])
    return channels
