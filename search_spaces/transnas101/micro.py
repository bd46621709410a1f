"""The cell space of TransNAS-Bench-101: six edges among four nodes, each one of four operations.

`TransNASMicroNet` (which needs PyTorch) and `TransNASMicroSpace` (an NNI ModelSpace, which needs
NNI) are imported when they are first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nni_aiop._lazy import lazy_names
from nni_aiop.search_spaces.transnas101._micro import (
    EDGES,
    LABELS,
    OPERATIONS,
    SKELETON,
    arch_string,
    canonical_string,
    code_space,
    from_arch_string,
    graph,
    operations_of,
)

if TYPE_CHECKING:
    from nni_aiop.search_spaces.transnas101._network import TransNASMicroNet as TransNASMicroNet
    from nni_aiop.search_spaces.transnas101._nni import TransNASMicroSpace as TransNASMicroSpace

__all__ = [
    "EDGES",
    "LABELS",
    "OPERATIONS",
    "SKELETON",
    "arch_string",
    "canonical_string",
    "code_space",
    "from_arch_string",
    "graph",
    "operations_of",
]

_LAZY = {
    "TransNASMicroNet": "nni_aiop.search_spaces.transnas101._network",
    "TransNASMicroSpace": "nni_aiop.search_spaces.transnas101._nni",
}

__getattr__ = lazy_names(__name__, _LAZY)
