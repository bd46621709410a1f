"""The skeleton space of TransNAS-Bench-101: four to six modules, each of one of four types.

One to three modules double the channels and one to four halve the image: these are the 3,256
skeletons of the benchmark. `TransNASMacroNet` (which needs PyTorch) and `TransNASMacroSpace` (an
NNI ModelSpace, which needs NNI) are imported when they are first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nni_aiop._lazy import lazy_names
from nni_aiop.search_spaces.transnas101._macro import (
    DEPTHS,
    LABELS,
    MODULE_TYPES,
    arch_string,
    code_space,
    from_arch_string,
    from_module_types,
    graph,
    module_types,
)

if TYPE_CHECKING:
    from nni_aiop.search_spaces.transnas101._network import TransNASMacroNet as TransNASMacroNet
    from nni_aiop.search_spaces.transnas101._nni import TransNASMacroSpace as TransNASMacroSpace

__all__ = [
    "DEPTHS",
    "LABELS",
    "MODULE_TYPES",
    "arch_string",
    "code_space",
    "from_arch_string",
    "from_module_types",
    "graph",
    "module_types",
]

_LAZY = {
    "TransNASMacroNet": "nni_aiop.search_spaces.transnas101._network",
    "TransNASMacroSpace": "nni_aiop.search_spaces.transnas101._nni",
}

__getattr__ = lazy_names(__name__, _LAZY)
