"""The cell space of NAS-Bench-201 (Dong & Yang, 2020): codes, exact costs, network."""

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
from nni_aiop.search_spaces.nasbench201._space import code_space

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
    "index",
    "params",
]
