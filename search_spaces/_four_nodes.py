"""Cells of four nodes with an operation on each of their six edges, as several spaces have them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nni_aiop.errors import SpaceError
from nni_aiop.graphs import GraphWriter, Handle

__all__ = [
    "EDGES",
    "LABELS",
    "chosen_operations",
    "expression",
    "relu_conv_norm",
    "write_cell",
]

EDGES: tuple[tuple[int, int], ...] = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""(from, to) of each edge in the order of `LABELS`: node 0 is the input, node 3 the output."""

LABELS = tuple(f"op_{source}{target}" for source, target in EDGES)
"""op_01, op_02, op_12, op_03, op_13, op_23: the order of both benchmarks' strings."""


def chosen_operations(sample: Mapping[str, Any], operations: Sequence[str]) -> tuple[str, ...]:
    """The operations of a sample in the order of `LABELS`.

    Raises:
        SpaceError: A label is missing, or its operation is not one of these.
    """
    missing = [repr(label) for label in LABELS if label not in sample]
    if missing:
        raise SpaceError(
            f"a cell must have the labels {', '.join(LABELS)}, but lacks {', '.join(missing)}."
        )
    chosen = tuple(sample[label] for label in LABELS)
    for operation in chosen:
        if operation not in operations:
            raise SpaceError(
                f"an operation must be one of {', '.join(operations)}, but got {operation!r}."
            )
    return chosen


def expression(
    chosen: Sequence[str],
    letters: Mapping[str, str | None],
    *,
    entering: Mapping[str, str | None] | None = None,
) -> str:
    """What a cell computes, as a text that isomorphic cells share.

    Zeroised edges and what hangs on them vanish, identities pass on the sum behind them, and the
    terms of a sum are sorted: `(0)3` is the operation 3 on the cell's input.

    Args:
        chosen: The operation on each of `EDGES`.
        letters: Of each operation; empty for an identity, None for one that gives zeros.
        entering: The same for the edges that leave the cell's input, where they differ.
    """
    terms: list[tuple[str, ...]] = [("0",)]
    for target in (1, 2, 3):
        collected: list[str] = []
        for (source, to), operation in zip(EDGES, chosen, strict=True):
            letter = (letters if source or entering is None else entering)[operation]
            if to != target or letter is None or not terms[source]:
                continue
            collected += [f"({'+'.join(terms[source])}){letter}"] if letter else terms[source]
        terms.append(tuple(sorted(collected)))
    return "+".join(terms[3])


def write_cell(
    w: GraphWriter,
    x: Handle,
    operation: Callable[[Handle, int, str], Handle],
    chosen: Sequence[str],
) -> Handle:
    """The output node of a cell on x, each node the sum of the operations on those before it.

    Args:
        w: Writes the graph.
        x: The input node.
        operation: From a node, its number and the name of an operation to the result.
        chosen: The operation on each of `EDGES`.
    """
    nodes = [x]
    for target in (1, 2, 3):
        terms = [
            operation(nodes[source], source, name)
            for (source, to), name in zip(EDGES, chosen, strict=True)
            if to == target
        ]
        nodes.append(w.add(*terms))
    return nodes[3]


def relu_conv_norm(w: GraphWriter, x: Handle, channels: int, kernel: int, stride: int) -> Handle:
    """ReLU, a convolution without bias, batch normalisation."""
    return w.batch_norm(w.conv(w.relu(x), channels, kernel, stride=stride))
