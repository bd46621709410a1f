"""The cells of NAS-Bench-101: seven vertices, edges that run forwards, an operation per vertex.

Vertex 0 is the cell's input and vertex 6 its output. A vertex *counts* if it lies on a path from
the one to the other, and an edge if both of its ends do; the rest is pruned, so that a cell has two
to seven vertices and at most nine edges that count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nni_aiop.spaces import Constraint, Nominal

__all__ = [
    "EDGES",
    "LABELS",
    "MAX_EDGES",
    "N_VERTICES",
    "OPERATIONS",
    "OUTPUT",
    "active_labels",
    "constraints",
    "counting",
    "dimensions",
]

N_VERTICES = 7
"""Input and output included."""

MAX_EDGES = 9
"""Of the edges that count."""

OUTPUT = N_VERTICES - 1
_INNER = tuple(range(1, OUTPUT))

EDGES: tuple[tuple[int, int], ...] = tuple(
    (source, target) for source in range(OUTPUT) for target in range(source + 1, N_VERTICES)
)
"""(from, to) of the 21 possible edges: the upper triangle of the adjacency matrix by rows."""

OPERATIONS = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")
"""Values of each inner vertex, in the publisher's words."""

LABELS = (
    *(f"edge_{source}{target}" for source, target in EDGES),
    *(f"op_{vertex}" for vertex in _INNER),
)
"""edge_01, edge_02, ..., edge_56, op_1, ..., op_5."""

Sample = Mapping[str, Any]


def dimensions() -> list[Nominal]:
    """The 21 binary edges and the 5 operations."""
    # A spare vertex reads the input by default, so that one edge more takes it into the cell.
    edges = [
        Nominal(f"edge_{i}{j}", (1, 0) if i == 0 and j != OUTPUT else (0, 1)) for i, j in EDGES
    ]
    return [*edges, *(Nominal(f"op_{vertex}", OPERATIONS) for vertex in _INNER)]


def leading(sample: Sample) -> set[int]:
    """The vertices from which the output can be reached, itself included."""
    found = {OUTPUT}
    for source in range(OUTPUT - 1, -1, -1):
        if any(sample[f"edge_{source}{target}"] for target in found):
            found.add(source)
    return found


def counting(sample: Sample) -> list[int]:
    """The vertices on a path from input to output, in order; none if there is no path.

    Args:
        sample: Values of all labels that are active.
    """
    to_output = leading(sample)
    found: list[int] = []
    for target in sorted(to_output):
        if target == 0 or any(sample[f"edge_{source}{target}"] for source in found):
            found.append(target)
    return found if OUTPUT in found else []


def active_labels(sample: Sample) -> set[str]:
    """The labels of what leads to the output: its operations and incoming edges.

    They decide which vertices count. An edge that leaves a spare vertex is active and absent, so
    that a neighbour of the sample may take the vertex in.
    """
    used = leading(sample)
    edges = {f"edge_{i}{j}" for i, j in EDGES if j in used}
    return edges | {f"op_{vertex}" for vertex in _INNER if vertex in used}


def _is_connected(sample: Sample) -> bool:
    return bool(counting(sample))


def _is_sparse(sample: Sample) -> bool:
    used = counting(sample)
    n_edges: int = sum(sample[f"edge_{i}{j}"] for i, j in EDGES if i in used and j in used)
    return n_edges <= MAX_EDGES


def constraints() -> list[Constraint]:
    """What makes a sample valid."""
    return [
        Constraint("the input leads to the output", _is_connected),
        Constraint(f"at most {MAX_EDGES} edges that count", _is_sparse),
    ]
