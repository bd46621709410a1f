"""The skeletons of TransNAS-Bench-101: codes, costs, graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from nni_aiop.errors import SpaceError
from nni_aiop.graphs import ComputeGraph
from nni_aiop.search_spaces.transnas101._body import BASE, MODULE_TYPES, doubles, halves
from nni_aiop.search_spaces.transnas101._costs import (
    head_flops,
    head_params,
    stem_flops,
    stem_params,
)
from nni_aiop.search_spaces.transnas101._graphs import skeleton_graph
from nni_aiop.search_spaces.transnas101._tasks import Task, task_of
from nni_aiop.spaces import CodeSpace, Condition, Constraint, Nominal, Ordinal

if TYPE_CHECKING:
    from torch import Tensor


__all__ = [
    "DEPTHS",
    "LABELS",
    "MODULE_TYPES",
    "arch_string",
    "code_space",
    "from_arch_string",
    "from_module_types",
    "graph",
    "module_types",
]

DEPTHS = (4, 5, 6)
"""Numbers of modules."""

LABELS = ("n_modules", *(f"module_{number}" for number in range(1, DEPTHS[-1] + 1)))
"""n_modules, module_1, ..., module_6."""

Sample = Mapping[str, Any]


def _types(sample: Sample) -> list[int]:
    return [sample[label] for label in LABELS[1 : 1 + sample["n_modules"]]]


def _constraints() -> list[Constraint]:
    return [
        Constraint("1 to 3 modules double the channels", partial(_between, doubles, 3)),
        Constraint("1 to 4 modules halve the image", partial(_between, halves, 4)),
    ]


def _between(what: Callable[[int], bool], most: int, sample: Sample) -> bool:
    return 1 <= sum(map(what, _types(sample))) <= most


def module_types(sample: Sample) -> tuple[int, ...]:
    """The types of the modules that a sample has.

    Raises:
        SpaceError: The sample is not valid.
    """
    broken = _SPACE.violation(sample)
    if broken is not None:
        raise SpaceError(broken)
    return tuple(_types(sample))


def from_module_types(types: Sequence[int]) -> dict[str, Any]:
    """The sample of four to six module types.

    Raises:
        SpaceError: They are not those of a valid sample.
    """
    sample = {"n_modules": len(types), **dict(zip(LABELS[1:], types, strict=False))}
    module_types(sample)
    return sample


def arch_string(sample: Sample) -> str:
    """A sample in the benchmark's own notation.

    Raises:
        SpaceError: The sample is not valid.

    Example:
        >>> arch_string(from_module_types([1, 2, 3, 4]))
        '64-1234-basic'
    """
    return f"{BASE}-{''.join(map(str, module_types(sample)))}-basic"


def from_arch_string(text: str) -> dict[str, Any]:
    """The sample that `arch_string` wrote.

    Raises:
        SpaceError: The text is not in that notation.
    """
    digits = text.removeprefix(f"{BASE}-").removesuffix("-basic")
    if text != f"{BASE}-{digits}-basic" or not set(digits) <= set("1234"):
        raise SpaceError(f"a skeleton must read as '{BASE}-1234-basic', but got {text!r}.")
    return from_module_types([int(digit) for digit in digits])


def code_space(*, task: str = "class_scene") -> CodeSpace:
    """The skeletons as a depth and the type of each module, 25 code columns, with costs and graphs.

    Its costs are `params` (a number) and `flops` (multiply-adds of a sample). A relaxed code is
    costed by the expected number of doublings and halvings before each block.

    Args:
        task: The task whose network is costed, a key of `TASKS`.

    Raises:
        ValueError: The task is unknown.

    Example:
        >>> space = code_space()
        >>> space.width, len(space)
        (25, 7)
    """
    chosen = task_of(task)
    return CodeSpace(
        [
            Ordinal(LABELS[0], DEPTHS),
            *(Nominal(label, MODULE_TYPES) for label in LABELS[1:]),
        ],
        name="transnas101_macro",
        conditions={
            LABELS[depth]: Condition("n_modules", DEPTHS[DEPTHS.index(depth) :])
            for depth in DEPTHS[1:]
        },
        constraints=_constraints(),
        costs={"params": partial(_params, chosen), "flops": partial(_flops, chosen)},
        graph=partial(graph, task=task),
    )


def _params(chosen: Task, codes: Tensor) -> Tensor:
    total = codes.new_full((len(codes),), float(stem_params()))
    for module in _modules(codes):
        total = total + module.weights + module.normalised
    return total + head_params(chosen, module.channels)


def _flops(chosen: Task, codes: Tensor) -> Tensor:
    total = codes.new_full((len(codes),), float(stem_flops(chosen.image_size)))
    for module in _modules(codes):
        total = total + module.weights * (chosen.image_size / 4) ** 2 / 4**module.halvings
    total = total * chosen.n_pieces
    return total + head_flops(chosen, module.channels, module.halvings)


def graph(sample: Sample, *, task: str = "class_scene") -> ComputeGraph:
    """The compute graph of `TransNASMacroNet`, equal to what `from_module` makes of the network.

    Args:
        sample: The number of modules, and the type of each by label.
        task: A key of `TASKS`.

    Raises:
        SpaceError: The sample is not valid.
        ValueError: The task is unknown.
    """
    return skeleton_graph(module_types(sample), task)


class _Module(NamedTuple):
    """What a module costs, (n,) each.

    Attributes:
        channels: Of its output.
        halvings: Of the image by it and all before it.
        weights: Of its convolutions.
        normalised: Parameters of its normalisations.
    """

    channels: Tensor
    halvings: Tensor
    weights: Tensor
    normalised: Tensor


def _modules(codes: Tensor) -> Iterator[_Module]:
    """Each module of each code; one beyond the depth costs nothing."""
    doublings = halvings = codes[:, 0] * 0
    channels = BASE * 2**doublings
    for number, types in enumerate(
        codes[:, 1:].reshape(len(codes), -1, len(MODULE_TYPES)).unbind(1), start=1
    ):
        # The depth's column is 0, 0.5, 1 for 4, 5, 6 modules.
        there = (2 * codes[:, 0] + DEPTHS[0] + 1 - number).clamp(0, 1)
        share = dict(zip(MODULE_TYPES, types.unbind(1), strict=True))
        doublings = doublings + there * sum(p for t, p in share.items() if doubles(t))
        halvings = halvings + there * sum(p for t, p in share.items() if halves(t))
        before, channels = channels, BASE * 2**doublings
        shortcut = 1 - share[1]
        weights = (9 + shortcut) * before * channels + 27 * channels**2
        normalised = (8 + 2 * shortcut) * channels
        yield _Module(channels, halvings, there * weights, there * normalised)


_SPACE = code_space()
