"""The multi-resolution space of NAS-Bench-MR (NCP, section 3.2): codes, exact costs, network.

A network keeps up to four resolutions side by side, as HRNet does, and 27 numbers say how deep
and how wide each part is. `MultiResolutionNet` (which needs PyTorch) and `MultiResolutionSpace`
(an NNI ModelSpace, which needs NNI) are imported when they are first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nni_aiop._lazy import lazy_names
from nni_aiop.search_spaces.multi_resolution._codes import LABELS, values_of
from nni_aiop.search_spaces.multi_resolution._costs import Head, flops, params
from nni_aiop.search_spaces.multi_resolution._features import features
from nni_aiop.search_spaces.multi_resolution._graphs import graph
from nni_aiop.search_spaces.multi_resolution._space import code_space

if TYPE_CHECKING:
    from nni_aiop.search_spaces.multi_resolution._network import (
        MultiResolutionNet as MultiResolutionNet,
    )
    from nni_aiop.search_spaces.multi_resolution._nni import (
        MultiResolutionSpace as MultiResolutionSpace,
    )

__all__ = ["LABELS", "Head", "code_space", "features", "flops", "graph", "params", "values_of"]

_LAZY = {
    "MultiResolutionNet": "nni_aiop.search_spaces.multi_resolution._network",
    "MultiResolutionSpace": "nni_aiop.search_spaces.multi_resolution._nni",
}

__getattr__ = lazy_names(__name__, _LAZY)
