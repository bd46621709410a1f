"""The cells of NAS-Bench-201: six edges among four nodes, each one of five operations."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

from nni_aiop.errors import SpaceError
from nni_aiop.search_spaces._four_nodes import EDGES, LABELS, chosen_operations, expression
from nni_aiop.spaces import Nominal

__all__ = [
    "EDGES",
    "LABELS",
    "N_CELLS",
    "OPERATIONS",
    "all_cells",
    "arch_string",
    "canonical_string",
    "dimensions",
    "from_arch_string",
    "from_index",
    "index",
    "operations_of",
]

OPERATIONS = ("avg_pool_3x3", "none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3")
"""Values of each edge, in the order in which NCP's file writes them one-hot."""

_LETTERS = dict(zip(OPERATIONS, ("p", None, "", "1", "3"), strict=True))

N_CELLS = len(OPERATIONS) ** len(LABELS)
"""15,625."""

Sample = Mapping[str, str]


def dimensions() -> list[Nominal]:
    """The six nominal dimensions; their one-hot code is the 30 numbers of NCP's file."""
    return [Nominal(label, OPERATIONS) for label in LABELS]


def index(sample: Sample) -> int:
    """Place of a sample among all 15,625: the last edge varies fastest.

    This is the order of `CodeSpace.from_points`, not that of NAS-Bench-201's files, which is
    random: join with those on `arch_string`.

    Raises:
        SpaceError: A label is missing or its operation unknown.

    Example:
        >>> index(from_index(1234))
        1234
    """
    place = 0
    for operation in operations_of(sample):
        place = place * len(OPERATIONS) + OPERATIONS.index(operation)
    return place


def from_index(place: int) -> dict[str, str]:
    """The sample at a place of `index`.

    Raises:
        SpaceError: The place is not in 0..15,624.
    """
    if not 0 <= place < N_CELLS:
        raise SpaceError(f"a cell's index must lie in 0..{N_CELLS - 1}, but got {place}.")
    operations = []
    for _ in LABELS:
        place, rest = divmod(place, len(OPERATIONS))
        operations.append(OPERATIONS[rest])
    return dict(zip(LABELS, reversed(operations), strict=True))


def arch_string(sample: Sample) -> str:
    """A sample in NAS-Bench-201's own notation.

    Example:
        >>> arch_string(dict.fromkeys(LABELS, "none"))
        '|none~0|+|none~0|none~1|+|none~0|none~1|none~2|'
    """
    operations = dict(zip(EDGES, operations_of(sample), strict=True))
    nodes = (
        "|" + "".join(f"{operations[source, target]}~{source}|" for source in range(target))
        for target in (1, 2, 3)
    )
    return "+".join(nodes)


def from_arch_string(text: str) -> dict[str, str]:
    """The sample that `arch_string` wrote.

    Raises:
        SpaceError: The text is not in that notation.
    """
    tokens = [token for token in text.replace("+", "").split("|") if token]
    operations = tuple(token.partition("~")[0] for token in tokens)
    sample = dict(zip(LABELS, operations, strict=False))
    if not set(operations) <= set(OPERATIONS) or len(tokens) != 6 or arch_string(sample) != text:
        raise SpaceError(f"a cell must read as '|op~0|+|op~0|op~1|+...', but got {text!r}.")
    return sample


def canonical_string(sample: Sample) -> str:
    """A text that isomorphic cells share: the expression that the cell computes.

    Zeroised edges and what hangs on them vanish, skip connections pass on the sum behind them,
    and the terms of a sum are sorted: `(0)3` is the 3x3 convolution of the cell's input, p the
    pooling. There are 4,930 such texts. Cells that share one differ at most in weights that
    nothing uses, and in whether a term that occurs twice is computed twice or once with its
    weights shared; so their published accuracies are close but their costs may differ.
    """
    return expression(operations_of(sample), _LETTERS)


def all_cells() -> list[dict[str, str]]:
    """Every sample, in the order of `index`."""
    return [
        dict(zip(LABELS, cell, strict=True)) for cell in product(OPERATIONS, repeat=len(LABELS))
    ]


def operations_of(sample: Sample) -> tuple[str, ...]:
    """The operations of a sample in the order of `LABELS`.

    Raises:
        SpaceError: A label is missing or its operation unknown.
    """
    return chosen_operations(sample, OPERATIONS)
