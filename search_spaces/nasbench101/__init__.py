"""The cell space of NAS-Bench-101 (Ying et al., 2019): codes, exact costs, network.

`NASBench101Net` (which needs PyTorch) and `NASBench101Space` (an NNI ModelSpace, which needs NNI)
are imported when they are first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nni_aiop._lazy import lazy_names
from nni_aiop.search_spaces.nasbench101._cells import (
    EDGES,
    LABELS,
    MAX_EDGES,
    N_VERTICES,
    OPERATIONS,
)
from nni_aiop.search_spaces.nasbench101._costs import flops, params
from nni_aiop.search_spaces.nasbench101._graphs import graph
from nni_aiop.search_spaces.nasbench101._matrices import (
    canonical_string,
    from_matrix,
    to_matrix,
)
from nni_aiop.search_spaces.nasbench101._space import code_space

if TYPE_CHECKING:
    from nni_aiop.search_spaces.nasbench101._network import NASBench101Net as NASBench101Net
    from nni_aiop.search_spaces.nasbench101._nni import NASBench101Space as NASBench101Space

__all__ = [
    "EDGES",
    "LABELS",
    "MAX_EDGES",
    "N_VERTICES",
    "OPERATIONS",
    "canonical_string",
    "code_space",
    "flops",
    "from_matrix",
    "graph",
    "params",
    "to_matrix",
]

_LAZY = {
    "NASBench101Net": "nni_aiop.search_spaces.nasbench101._network",
    "NASBench101Space": "nni_aiop.search_spaces.nasbench101._nni",
}

__getattr__ = lazy_names(__name__, _LAZY)
