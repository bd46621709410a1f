"""The 440 small networks of NAAP-440 (Hakim, 2022): schemes, exact costs, features, network.

`NAAPNet` (which needs PyTorch) and `NAAPSpace` (an NNI ModelSpace, which needs NNI) are imported
when they are first asked for.

Example:
    >>> from nni_aiop.search_spaces import naap
    >>> len(naap.schemes()), len(naap.code_space())
    (440, 11)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nni_aiop._lazy import lazy_names
from nni_aiop.search_spaces.naap._costs import SCHEME_COLUMNS, flops, num_macs, params, scheme
from nni_aiop.search_spaces.naap._graphs import graph
from nni_aiop.search_spaces.naap._schemes import LABELS, Layer, from_layers, layers, schemes
from nni_aiop.search_spaces.naap._space import code_space

if TYPE_CHECKING:
    from nni_aiop.search_spaces.naap._network import NAAPNet as NAAPNet
    from nni_aiop.search_spaces.naap._nni import NAAPSpace as NAAPSpace
    from nni_aiop.search_spaces.naap._supernet import supernet as supernet

__all__ = [
    "LABELS",
    "SCHEME_COLUMNS",
    "Layer",
    "code_space",
    "flops",
    "from_layers",
    "graph",
    "layers",
    "num_macs",
    "params",
    "scheme",
    "schemes",
]

_LAZY = {
    "NAAPNet": "nni_aiop.search_spaces.naap._network",
    "NAAPSpace": "nni_aiop.search_spaces.naap._nni",
    "supernet": "nni_aiop.search_spaces.naap._supernet",
}

__getattr__ = lazy_names(__name__, _LAZY)
