"""The engine-free code space of NAS-Bench-201."""

from __future__ import annotations

from functools import partial

from nni_aiop.search_spaces.nasbench201._cells import canonical_string, dimensions
from nni_aiop.search_spaces.nasbench201._costs import dataset, flops, params
from nni_aiop.search_spaces.nasbench201._features import features
from nni_aiop.search_spaces.nasbench201._graphs import graph
from nni_aiop.spaces import CodeSpace

__all__ = ["code_space"]


def code_space(*, data: str = "cifar100") -> CodeSpace:
    """The cells as six nominal dimensions, 30 code columns, with costs, features and graphs.

    Its costs are `params` (a number) and `flops` (multiply-adds), unused edges included. Isomorphic
    cells (see `canonical_string`) are one network: 4,930 of the 15,625 differ.

    Args:
        data: The data set whose network is costed, a key of `DATASETS`. The default is the one
            whose costs NCP's file holds.

    Raises:
        ValueError: The data set is unknown.

    Example:
        >>> space = code_space()
        >>> space.width, space.size
        (30, 15625)
    """
    dataset(data)

    return CodeSpace(
        dimensions(),
        name="nasbench201",
        costs={"params": partial(params, data=data), "flops": partial(flops, data=data)},
        features=features,
        graph=partial(graph, data=data),
        key=canonical_string,
    )
