"""The cells of TransNAS-Bench-101: codes, costs, graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from nni_aiop.errors import SpaceError
from nni_aiop.graphs import ComputeGraph
from nni_aiop.search_spaces._four_nodes import LABELS, chosen_operations, expression
from nni_aiop.search_spaces.transnas101._body import (
    BASE,
    EDGES,
    SKELETON,
    Block,
    blocks,
    halves,
)
from nni_aiop.search_spaces.transnas101._costs import (
    head_flops,
    head_params,
    stem_flops,
    stem_params,
)
from nni_aiop.search_spaces.transnas101._graphs import cell_graph
from nni_aiop.search_spaces.transnas101._tasks import Task, task_of
from nni_aiop.spaces import CodeSpace, Nominal

if TYPE_CHECKING:
    from torch import Tensor


__all__ = [
    "EDGES",
    "LABELS",
    "OPERATIONS",
    "SKELETON",
    "arch_string",
    "canonical_string",
    "code_space",
    "from_arch_string",
    "graph",
    "operations_of",
]

OPERATIONS = ("none", "skip_connect", "conv_1x1", "conv_3x3")
"""Values of each edge; the place of each is its digit in the benchmark's strings."""

Sample = Mapping[str, Any]


def operations_of(sample: Sample) -> tuple[str, ...]:
    """The operations of a sample in the order of `LABELS`.

    Raises:
        SpaceError: A label is missing or its operation unknown.
    """
    return chosen_operations(sample, OPERATIONS)


def arch_string(sample: Sample) -> str:
    """A sample in the benchmark's own notation.

    Raises:
        SpaceError: A label is missing or its operation unknown.

    Example:
        >>> arch_string(dict.fromkeys(LABELS, "conv_3x3"))
        '64-41414-3_33_333'
    """
    digits = "".join(str(OPERATIONS.index(operation)) for operation in operations_of(sample))
    return f"{_PREFIX}{digits[0]}_{digits[1:3]}_{digits[3:]}"


def from_arch_string(text: str) -> dict[str, str]:
    """The sample that `arch_string` wrote.

    Raises:
        SpaceError: The text is not in that notation.
    """
    digits = text.removeprefix(_PREFIX).replace("_", "")
    if set(digits) <= set("0123") and len(digits) == len(LABELS):
        operations = (OPERATIONS[int(digit)] for digit in digits)
        sample = dict(zip(LABELS, operations, strict=True))
        if arch_string(sample) == text:
            return sample
    raise SpaceError(f"a cell must read as '{_PREFIX}1_02_333', but got {text!r}.")


def canonical_string(sample: Sample) -> str:
    """A text that isomorphic cells share: the expression that the cell computes.

    As that of NAS-Bench-201, but for a skip connection from the cell's input, which is an operation
    (`s`): in cells that change the shape it has weights.
    """
    letters = dict(zip(OPERATIONS, (None, "", "1", "3"), strict=True))
    entering = letters | {"skip_connect": "s"}
    return expression(operations_of(sample), letters, entering=entering)


_PREFIX = f"{BASE}-{''.join(map(str, SKELETON))}-"


def code_space(*, task: str = "class_scene") -> CodeSpace:
    """The cells as six nominal dimensions, 24 code columns, with costs and graphs.

    Its costs are `params` (a number) and `flops` (multiply-adds of a sample), unused edges
    included; both are linear in the code. Isomorphic cells are one network (`canonical_string`).

    Args:
        task: The task whose network is costed, a key of `TASKS`.

    Raises:
        ValueError: The task is unknown.

    Example:
        >>> space = code_space()
        >>> space.width, space.size
        (24, 4096)
    """
    chosen = task_of(task)
    return CodeSpace(
        [Nominal(label, OPERATIONS) for label in LABELS],
        name="transnas101_micro",
        costs={"params": partial(_params, chosen), "flops": partial(_flops, chosen)},
        graph=partial(graph, task=task),
        key=canonical_string,
    )


def _params(chosen: Task, codes: Tensor) -> Tensor:
    cells = blocks(SKELETON)
    channels = codes.new_tensor([cells[-1].c_out])
    shared = stem_params() + head_params(chosen, channels)
    return _linear(codes, [1] * len(cells), _operation_params) + shared


def _flops(chosen: Task, codes: Tensor) -> Tensor:
    cells = blocks(SKELETON)
    side = chosen.image_size // 4
    areas = []
    for cell in cells:
        side //= cell.stride
        areas.append(side**2 * chosen.n_pieces)
    halvings = codes.new_tensor([sum(halves(module) for module in SKELETON)])
    shared = head_flops(chosen, codes.new_tensor([cells[-1].c_out]), halvings)
    shared = shared + stem_flops(chosen.image_size) * chosen.n_pieces
    return _linear(codes, areas, _operation_weights) + shared


def graph(sample: Sample, *, task: str = "class_scene") -> ComputeGraph:
    """The compute graph of `TransNASMicroNet`, equal to what `from_module` makes of the network.

    Args:
        sample: The operation on each of the six edges, by label.
        task: A key of `TASKS`.

    Raises:
        SpaceError: A label is missing or its operation unknown.
        ValueError: The task is unknown.
    """
    return cell_graph(operations_of(sample), task)


def _linear(codes: Tensor, positions: list[int], cost_of: Callable[[str, Block], int]) -> Tensor:
    """(n,) what the cells cost, each cell's operations at so many positions."""
    import torch

    columns = np.zeros((len(EDGES), len(OPERATIONS)))
    for cell, times in zip(blocks(SKELETON), positions, strict=True):
        inner = Block(cell.c_out, cell.c_out, 1)
        for edge, (source, _) in enumerate(EDGES):
            for place, operation in enumerate(OPERATIONS):
                columns[edge, place] += times * cost_of(operation, inner if source else cell)
    weights = torch.as_tensor(columns.ravel(), dtype=codes.dtype, device=codes.device)
    return codes @ weights


def _operation_weights(operation: str, block: Block) -> int:
    """Weights of an operation's convolutions."""
    if operation == "none" or (operation == "skip_connect" and block.c_in == block.c_out):
        return 0
    # A skip connection that changes the shape is two 1x1 convolutions of half the channels each.
    return block.c_in * block.c_out * (9 if operation == "conv_3x3" else 1)


def _operation_params(operation: str, block: Block) -> int:
    weights = _operation_weights(operation, block)
    return weights + 2 * block.c_out if weights else 0
