"""The once-for-all MobileNetV3 space (Cai et al., ICLR 2020) that PNAG searches.

Five units, each 2 to 4 inverted residual blocks deep, each block with a kernel of 3, 5 or 7 and an
expansion of 3, 4 or 6; two width multipliers and any image size. `MobileNetV3Net` (which needs
PyTorch) and `MobileNetV3Space` (an NNI ModelSpace, which needs NNI) are imported when they are
first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nni_aiop._lazy import lazy_names
from nni_aiop.search_spaces.mobilenetv3._codes import (
    DEPTHS,
    EXPANSIONS,
    KERNELS,
    LABELS,
    Resolution,
    arch_string,
    from_arch_string,
)
from nni_aiop.search_spaces.mobilenetv3._costs import macs, params
from nni_aiop.search_spaces.mobilenetv3._features import features
from nni_aiop.search_spaces.mobilenetv3._graphs import graph
from nni_aiop.search_spaces.mobilenetv3._latency import LatencyTable, load_latency_table
from nni_aiop.search_spaces.mobilenetv3._skeleton import UNITS, WIDTHS
from nni_aiop.search_spaces.mobilenetv3._space import code_space

if TYPE_CHECKING:
    from nni_aiop.search_spaces.mobilenetv3._network import MobileNetV3Net as MobileNetV3Net
    from nni_aiop.search_spaces.mobilenetv3._nni import MobileNetV3Space as MobileNetV3Space
    from nni_aiop.search_spaces.mobilenetv3._supernet import supernet as supernet

__all__ = [
    "DEPTHS",
    "EXPANSIONS",
    "KERNELS",
    "LABELS",
    "UNITS",
    "WIDTHS",
    "LatencyTable",
    "Resolution",
    "arch_string",
    "code_space",
    "features",
    "from_arch_string",
    "graph",
    "load_latency_table",
    "macs",
    "params",
]

_LAZY = {
    "MobileNetV3Net": "nni_aiop.search_spaces.mobilenetv3._network",
    "MobileNetV3Space": "nni_aiop.search_spaces.mobilenetv3._nni",
    "supernet": "nni_aiop.search_spaces.mobilenetv3._supernet",
}

__getattr__ = lazy_names(__name__, _LAZY)
