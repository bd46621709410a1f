"""Whether a cost is what a search needs, told before anything is paid for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from nni_aiop.errors import InfeasibleError, SpaceError
from nni_aiop.spaces._code_space import CodeSpace
from nni_aiop.spaces._coding import Sample
from nni_aiop.spaces._learned_cost import LearnedCost
from nni_aiop.spaces._sample_cost import SampleCost, TableCost

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["check_cost"]

Array = NDArray[np.float64]

_PROBES = 8  # samples, of which the cost of one must be known

_checked: WeakKeyDictionary[CodeSpace, dict[str, object]] = WeakKeyDictionary()
"""The costs of each space that were found to be in order."""


def check_cost(space: CodeSpace, name: str) -> None:
    """Refuse a cost that no search can use: asked once, at a few samples.

    A function of codes must be one of torch, with a gradient, in single precision as in double; a
    function of a sample must give a number for one of the samples at least.

    Raises:
        SpaceError: The space has no such cost, or it is not in order; the message says what to do.
    """
    if name not in space.costs:
        known = ", ".join(space.costs) or "none"
        raise SpaceError(
            f"a limit must name an exact cost of {space.name}, but got {name!r}; it has: {known}."
        )
    cost = space.costs[name]
    passed = _checked.setdefault(space, {})
    if passed.get(name) is cost or isinstance(cost, LearnedCost):
        return
    try:
        samples = space.sample(_PROBES, np.random.default_rng(0))
    except InfeasibleError:  # told of by what samples, or looks at all points of the space
        return
    if isinstance(cost, SampleCost):
        _check_sample_cost(space, name, cost, samples)
    else:
        _check_function(space, name, cost, space.settled_points(samples))
    passed[name] = cost


def _check_sample_cost(
    space: CodeSpace, name: str, cost: SampleCost, samples: list[Sample]
) -> None:
    if isinstance(cost, TableCost):  # may have few rows
        return
    for point in space.points(samples):
        if not np.isnan(space.point_costs(name, point[None])).all():
            return
    why = cost.problem or "no number"
    raise SpaceError(
        f"the cost {name!r} of {space.name} must be a number for some sample, "
        f"but of {_PROBES} random ones it gives {why:.300}."
    )


def _check_function(
    space: CodeSpace, name: str, cost: Callable[[Tensor], object], points: Array
) -> None:
    import torch

    codes = space.encode_points(points)
    problem: str | None = None
    for dtype in (torch.float64, torch.float32):
        leaf = torch.as_tensor(codes, dtype=dtype).requires_grad_()
        try:
            problem = _problem(cost(leaf), leaf)
        except Exception as err:  # noqa: BLE001 (whatever a user's function raises)
            problem = f"it raises {type(err).__name__}: {' '.join(str(err).split()):.200}"
        if problem is not None:
            break
    if problem is not None:
        raise SpaceError(
            f"the cost {name!r} of {space.name} must be a function of codes in torch, (n, width) "
            f"-> (n,), with a gradient, but {problem}: give any other function as "
            "SampleCost(function), which is called with samples and learned where a gradient is "
            "needed."
        )


def _problem(found: object, leaf: Tensor) -> str | None:
    """What is wrong with the costs of codes, in a few words."""
    import torch

    if not isinstance(found, torch.Tensor):
        return f"it returns {type(found).__name__}"
    if found.shape != leaf.shape[:1]:
        return f"its result for codes {tuple(leaf.shape)} has the shape {tuple(found.shape)}"
    if not found.is_floating_point():
        return f"its result is of {found.dtype}"
    if found.isnan().all():
        return "it is NaN at all of a few random codes"
    if not found.requires_grad:
        return "its result does not depend on the codes by torch (.numpy() or .detach() inside?)"
    gradients: tuple[Tensor | None, ...] = torch.autograd.grad(found.sum(), leaf, allow_unused=True)
    gradient = gradients[0]
    if gradient is None:
        return "its result does not depend on the codes"
    known = found.detach()[~found.detach().isnan()]
    if not gradient.any() and float(known.max() - known.min()) > 0:
        return "its gradient is 0 everywhere, though it is not constant (rounding inside?)"
    return None
