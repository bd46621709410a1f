"""The engine-free code space of NAS-Bench-MR."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from nni_aiop.search_spaces.multi_resolution._codes import dimensions, values_of
from nni_aiop.search_spaces.multi_resolution._costs import Head, check_head, flops, params
from nni_aiop.search_spaces.multi_resolution._features import features
from nni_aiop.search_spaces.multi_resolution._graphs import graph
from nni_aiop.spaces import CodeSpace

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["code_space"]


def code_space(
    *,
    input_size: int | tuple[int, int] = 128,
    n_classes: int = 50,
    head: Head = "classification",
) -> CodeSpace:
    """The multi-resolution space as 27 ordinal dimensions, with exact costs, features and graphs.

    Its costs are `params` (a number) and `flops` (multiply-adds, two operations for each
    normalised element), by default those that NAS-Bench-MR publishes with every setting.

    Args:
        input_size: Side of the image, or (height, width), in pixels, for `flops`.
        n_classes: Outputs of the classifier, for both.
        head: The task of the network that is costed (one frame, for video).

    Raises:
        ValueError: The head is unknown.

    Example:
        >>> space = code_space()
        >>> sample = space.decode(space.encode([{"b1": 4, "c1": 128}]))[0]
        >>> sample["b1"], sample["c1"], sample["o1"]
        (4, 128, 64)
    """

    check_head(head)

    chosen: dict[str, Any] = {"n_classes": n_classes, "head": head}
    return CodeSpace(
        dimensions(),
        name="multi_resolution",
        costs={
            "params": partial(_counted, params, **chosen),
            "flops": partial(_counted, flops, input_size=input_size, **chosen),
        },
        features=features,
        graph=partial(graph, input_size=input_size, **chosen),
    )


def _counted(count: Callable[..., Tensor], codes: Tensor, **chosen: Any) -> Tensor:
    """(n,) what networks of codes cost."""
    return count(values_of(codes), **chosen)
