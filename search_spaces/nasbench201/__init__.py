"""The cell space of NAS-Bench-201 (Dong & Yang, 2020): codes, exact costs, network.

`NASBench201Net` (which needs PyTorch) and `NASBench201Space` (an NNI ModelSpace, which needs NNI)
are imported when they are first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nni_aiop._lazy import lazy_names
from nni_aiop.search_spaces.nasbench201._cells import (
    EDGES,
    LABELS,
    N_CELLS,
    OPERATIONS,
    all_cells,
    arch_string,
    canonical_string,
    from_arch_string,
    from_index,
    index,
)
from nni_aiop.search_spaces.nasbench201._costs import DATASETS, Dataset, flops, params
from nni_aiop.search_spaces.nasbench201._features import features
from nni_aiop.search_spaces.nasbench201._graphs import graph
from nni_aiop.search_spaces.nasbench201._space import code_space

if TYPE_CHECKING:
    from nni_aiop.search_spaces.nasbench201._network import NASBench201Net as NASBench201Net
    from nni_aiop.search_spaces.nasbench201._nni import NASBench201Space as NASBench201Space
    from nni_aiop.search_spaces.nasbench201._supernet import supernet as supernet

__all__ = [
    "DATASETS",
    "EDGES",
    "LABELS",
    "N_CELLS",
    "OPERATIONS",
    "Dataset",
    "all_cells",
    "arch_string",
    "canonical_string",
    "code_space",
    "features",
    "flops",
    "from_arch_string",
    "from_index",
    "graph",
    "index",
    "params",
]

_LAZY = {
    "NASBench201Net": "nni_aiop.search_spaces.nasbench201._network",
    "NASBench201Space": "nni_aiop.search_spaces.nasbench201._nni",
    "supernet": "nni_aiop.search_spaces.nasbench201._supernet",
}

__getattr__ = lazy_names(__name__, _LAZY)
