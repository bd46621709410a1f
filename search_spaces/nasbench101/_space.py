"""The engine-free code space of NAS-Bench-101."""

from __future__ import annotations

from nni_aiop.search_spaces.nasbench101._cells import active_labels, constraints, dimensions
from nni_aiop.search_spaces.nasbench101._costs import flops, params
from nni_aiop.search_spaces.nasbench101._graphs import graph
from nni_aiop.search_spaces.nasbench101._matrices import canonical_string
from nni_aiop.spaces import CodeSpace

__all__ = ["code_space"]


def code_space() -> CodeSpace:
    """The cells as 21 binary edges and 5 operations, 57 code columns, with exact costs and graphs.

    Operations and edges that cannot matter are inactive. A pruned cell of less than seven vertices
    still has several samples, as any of the vertices may be spare, and isomorphic cells have
    several, too: `from_matrix(*to_matrix(sample))` is the same one for equal pruned cells, and
    `canonical_string` for isomorphic ones, which are one network. Its costs are `params` (a number)
    and `flops` (multiply-adds).

    Example:
        >>> space = code_space()
        >>> space.width, len(space)
        (57, 26)
    """
    return CodeSpace(
        dimensions(),
        name="nasbench101",
        activity=active_labels,
        constraints=constraints(),
        costs={"params": params, "flops": flops},
        graph=graph,
        key=canonical_string,
    )
