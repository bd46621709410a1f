"""The digits space with all that is known of it."""

from __future__ import annotations

from functools import cache

from nni_aiop.search_spaces.digits._costs import dimensions, features, flops, params, rules
from nni_aiop.search_spaces.digits._graphs import graph
from nni_aiop.spaces import CodeSpace

__all__ = ["code_space"]


@cache
def code_space() -> CodeSpace:
    """The digits space, with exact costs `flops` (MACs) and `params`, features, and graphs."""
    return CodeSpace(
        dimensions(),
        name="digits",
        conditions=rules().conditions,
        costs={"flops": flops, "params": params},
        features=features,
        graph=graph,
    )
