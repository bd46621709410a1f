"""The engine-free code space of NAAP-440."""

from __future__ import annotations

from nni_aiop.search_spaces.naap._costs import features, flops, num_macs, params
from nni_aiop.search_spaces.naap._graphs import graph
from nni_aiop.search_spaces.naap._schemes import active_labels, dimensions
from nni_aiop.spaces import CodeSpace

__all__ = ["code_space"]


def code_space() -> CodeSpace:
    """The 440 schemes as eleven ordinal dimensions, with costs, features and graphs.

    Every sample is valid: a skip or a stride that the constraint set rules out is inactive. In the
    order of `enumerate_points` the distinct architectures are the publisher's models. The costs are
    `params` (a number), `flops` (multiply-adds) and `num_macs` (the publisher's count).

    Example:
        >>> space = code_space()
        >>> len(set(space.keys(space.enumerate_points())))
        440
    """
    return CodeSpace(
        dimensions(),
        name="naap",
        activity=active_labels,
        costs={"params": params, "flops": flops, "num_macs": num_macs},
        features=features,
        graph=graph,
    )
