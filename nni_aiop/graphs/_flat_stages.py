"""Positions and levels of the nodes of many graphs at once, as `_stages` tells them of one.

What `_stages` decides by rules that look further than a node and what it reads (inputs that are no
images, slices that drop positions, reductions, embeddings) it decides here too: those graphs are
asked one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log2, prod

import numpy as np
from numpy.typing import NDArray

from nni_aiop.graphs._flat import FlatGraphs, Sweep, starts
from nni_aiop.graphs._stages import GRIDS, LOSING, MOST_ROWS, RECURRENT, SINGLE
from nni_aiop.graphs._types import GraphLike, NodeLike

__all__ = ["flat_levels", "flat_positions"]

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

_PASSES, _TOLD, _ROWS, _ASKED = range(4)


def _rule(node: NodeLike) -> tuple[int, int, int]:
    """How its positions are told; those of one example, and the entries of the first axis."""
    shape = node.output_shape
    if node.op == "input":
        if len(shape) > 3 and shape[1] <= min(shape[2:]):
            return _TOLD, max(1, prod(shape[-2:])), 0
        return _ASKED, 0, 0
    if node.op in SINGLE:
        return _TOLD, 1, 0
    if node.op in GRIDS and len(shape) > 1:
        return _TOLD, prod(shape[2:][-2:]), shape[0]
    if node.op in RECURRENT:
        return _TOLD, shape[0], 0
    if node.op == "linear":
        return _ROWS, 1, shape[0]
    if node.op == "slice":
        drops = any(
            abs(step) > 1 or node.output_shape[axis] == 1 for axis, _, _, step in node["ranges"]
        )
        return (_ASKED if drops else _PASSES), 0, 0
    return (_ASKED if node.op in LOSING else _PASSES), 0, 0


def flat_positions(flat: FlatGraphs, graphs: Sequence[GraphLike]) -> tuple[Ints, Ints, Ints]:
    """(N,) positions of each node's output; (G,) batch and spatial axes of each graph's input."""
    rules = np.array([_rule(node) for node in flat.kinds], np.int64).reshape(-1, 3)
    rule, size, rows = rules[flat.kind].T
    first = np.array(
        [node.output_shape[0] if node.output_shape else 1 for node in flat.kinds], np.int64
    )
    g = len(flat)
    batch = np.ones(g, np.int64)
    ends = np.flatnonzero(flat.having("input"))
    axes = np.full(g, 2, np.int64)
    asked = np.bincount(flat.graph[ends], minlength=g) != 1
    asked[flat.graph[rule == _ASKED]] = True
    batch[flat.graph[ends]] = np.maximum(1, first[flat.kind[ends]])
    own = batch[flat.graph]
    told = np.where(rule == _TOLD, size * np.maximum(1, np.maximum(rows, own) // own), rows // own)
    found = np.maximum(1, told)
    waits = (rule == _PASSES) | (rule == _ROWS)
    into = waits[flat.target]
    found[rule == _PASSES] = 1
    _pass_on(flat, into, rule, told, found)
    first_node = starts(flat.nodes).tolist()
    for place in np.flatnonzero(asked).tolist():
        positions, batch[place], axes[place] = graphs[place].positions
        found[first_node[place] : first_node[place + 1]] = positions
    return found, batch, axes


def _pass_on(
    flat: FlatGraphs, into: NDArray[np.bool_], rule: Ints, told: Ints, found: Ints
) -> None:
    """Writes into `found` the positions of nodes that pass on those of what they read."""
    for nodes, read, first in Sweep.by(flat.depth, flat.source[into], flat.target[into]).steps():
        most = np.maximum.reduceat(found[read], first)
        keeps = (rule[nodes] == _ROWS) & (told[nodes] <= MOST_ROWS * most)
        found[nodes] = np.maximum(1, np.where(keeps, told[nodes], most))


def flat_levels(flat: FlatGraphs, positions: Ints, axes: Ints) -> Array:
    """(N,) the level of each node, NaN for the head."""
    is_input = flat.having("input")
    g = len(flat)
    whole = np.ones(g, np.int64)
    np.maximum.at(whole, flat.graph[is_input], positions[is_input])
    _, inputs, which = np.unique(
        np.stack([whole, axes]), axis=1, return_index=True, return_inverse=True
    )
    sizes, size = np.unique(positions, return_inverse=True)
    pairs, pair = np.unique(np.ravel(which)[flat.graph] * len(sizes) + size, return_inverse=True)
    known = np.full(len(pairs), np.inf)
    for place, (row, column) in enumerate(zip(*divmod(pairs, max(len(sizes), 1)), strict=True)):
        side, of, n = whole[inputs[row]], axes[inputs[row]], sizes[column]
        if n > 1 and side > 1:
            known[place] = round((log2(side) - log2(n)) / int(of))
    level = known[pair]
    single = (positions == 1) & (whole[flat.graph] > 1)
    back = single[flat.source]
    # Of several grids that one gate goes to, the finest.
    sweep = Sweep.by(flat.height, flat.target[back], flat.source[back])
    for nodes, readers, first in sweep.steps():
        level[nodes] = np.minimum.reduceat(level[readers], first)
    level[np.isinf(level)] = np.nan
    return level
