"""What lies on the ways through a network: the features that rank networks of unknown spaces.

Of every way from the input to the output it counts operations of each of `STEPS`: the most, the
fewest, and the mean over ways that go back from the output and take each input of a sum or product
as likely as the others; and how many there are in all. Depth along ways, unlike widths and
multiply-adds, means the same in any space.

Only what is in effect counts: a node that reads products with zero alone, as the unused edges of a
cell do, or what such nodes give, is a constant, so that it and what only it reads are left out; and
a sum or product that is left with one term is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nni_aiop.graphs._families import family
from nni_aiop.graphs._flat import FlatGraphs, Sweep
from nni_aiop.graphs._types import GraphLike, NodeLike

__all__ = ["PATH_COLUMNS", "STEPS", "PathFeatures", "path_features"]

STEPS = ("spatial", "pointwise", "depthwise", "pooling", "activation", "normalisation")
"""Kinds of operations: convolutions over a window (grouped ones, too), products of tensors,
recurrent layers and embeddings; convolutions of one pixel and linear layers; convolutions of each
channel alone; pools and reductions but the global pools; activations; normalisations."""

_COUNTED = (*STEPS, "learned", "window", "any")

PATH_COLUMNS = (
    *(f"{how}:{what}" for how in ("most", "fewest", "mean", "all") for what in _COUNTED),
    "joins",
    "ways",
    "further_edges",
)
"""Names of the columns: logarithms log2(1 + count), of "ways" the natural one of their number.

"learned" are the first three of `STEPS`, "window" the first and the third, "any" all operations;
"joins" are sums, products and concatenations, "further_edges" edges beyond one a node."""

_JOINS = ("add", "mul", "concat")


@dataclass(frozen=True)
class PathFeatures:
    """What `path_features` finds.

    Attributes:
        columns: (n, len(PATH_COLUMNS)).
        macs: (n,) log2(1 + multiply-adds) of what is in effect.
        constant: (n,) whether the outputs read products with zero alone, or there are none; the
            rest says nothing then.
    """

    columns: NDArray[np.float64]
    macs: NDArray[np.float64]
    constant: NDArray[np.bool_]


def _is(node: NodeLike) -> tuple[bool, ...]:
    """Which of `STEPS` it is."""
    of = family(node.op)
    kernel, groups = node.get("kernel"), node.get("groups") or 1
    convolves = of == "convolution"
    depthwise = convolves and groups > 1 and groups == node.output_shape[1]
    window = convolves and not depthwise and max(kernel) > 1
    return (
        window or of in ("product", "recurrent"),
        (convolves and not depthwise and not window) or of == "linear",
        depthwise,
        of == "pooling" and not node.op.startswith("global"),
        of == "activation",
        of == "normalisation",
    )


def path_features(graphs: Sequence[GraphLike] | FlatGraphs) -> PathFeatures:
    """What lies on the ways through each of n networks."""
    flat = graphs if isinstance(graphs, FlatGraphs) else FlatGraphs(graphs)
    n, g = len(flat.kind), len(flat)
    is_join, is_output = flat.having(*_JOINS), flat.having("output")
    alone = np.array([not node.get("operand") for node in flat.kinds], bool)[flat.kind]
    constant, used = _in_effect(flat, is_output)

    live = used[flat.source] & used[flat.target]
    source, target = flat.source[live], flat.target[live]
    terms = np.bincount(target, minlength=n)
    passes = is_join & alone & (terms == 1) & (flat.reads > 1)
    counted = used & ~passes
    steps = np.array([_is(node) for node in flat.kinds], np.float64).reshape(-1, len(STEPS))
    kinds = np.column_stack(
        [steps, steps[:, :3].sum(1), steps[:, 0] + steps[:, 2], np.ones(len(steps))]
    )
    weight = kinds[flat.kind] * counted[:, None]
    most, fewest, mean = (np.zeros_like(weight) for _ in range(3))
    ways = np.zeros(n)
    for nodes, read, first in Sweep.by(flat.depth, source, target).steps():
        own = weight[nodes]
        most[nodes] = np.maximum.reduceat(most[read], first) + own
        fewest[nodes] = np.minimum.reduceat(fewest[read], first) + own
        share = np.diff(first, append=len(read))[:, None]
        mean[nodes] = np.add.reduceat(mean[read], first) / share + own
        ways[nodes] = np.logaddexp.reduceat(ways[read], first)

    ends = np.flatnonzero(is_output & used)
    of = flat.graph[ends]
    total = np.zeros((g, kinds.shape[1]))
    np.add.at(total, flat.graph, weight)
    found = [np.zeros((g, kinds.shape[1])), np.full((g, kinds.shape[1]), np.inf)]
    np.maximum.at(found[0], of, most[ends])
    np.minimum.at(found[1], of, fewest[ends])
    means, most_ways = np.zeros((g, kinds.shape[1])), np.zeros(g)
    np.add.at(means, of, mean[ends])
    means /= np.maximum(np.bincount(of, minlength=g), 1)[:, None]
    np.maximum.at(most_ways, of, ways[ends])
    edges = np.bincount(flat.graph[target], minlength=g) - np.bincount(
        flat.graph[passes & used], minlength=g
    )
    more = np.maximum(edges - np.bincount(flat.graph[counted], minlength=g), 0)
    found[1][np.isinf(found[1])] = 0.0
    n_joins = np.bincount(flat.graph[is_join & counted], minlength=g)
    logs = np.log2(1 + np.column_stack([*found, means, total, n_joins, more]))
    macs = np.array([node.cost.macs for node in flat.kinds], np.float64)[flat.kind]
    return PathFeatures(
        np.column_stack([logs[:, :-1], most_ways, logs[:, -1]]),
        np.log2(1 + np.bincount(flat.graph, macs * used, g)),
        constant,
    )


def _in_effect(
    flat: FlatGraphs, is_output: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(G,) whether a graph's outputs are constants, and (N,) which nodes outputs depend on."""
    fixed = np.array([node.op == "mul" and node.get("value") == 0 for node in flat.kinds], bool)
    still = fixed[flat.kind]
    for nodes, read, first in Sweep.by(flat.depth, flat.source, flat.target).steps():
        still[nodes] |= np.logical_and.reduceat(still[read], first)
    used = is_output & ~still
    for nodes, readers, first in Sweep.by(flat.height, flat.target, flat.source).steps():
        used[nodes] |= np.logical_or.reduceat(used[readers], first) & ~still[nodes]
    lives = np.bincount(flat.graph[is_output & ~still], minlength=len(flat)) > 0
    return ~lives, used
