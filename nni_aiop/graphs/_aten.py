"""What ATen operations mean in the words of `Builder`: the whole table.

Its rows stand in `_aten_functions`, `_aten_layers`, `_aten_reductions` and `_aten_layout`, which
enter them when they are imported.
"""

from __future__ import annotations

from nni_aiop.graphs import _aten_functions, _aten_layers, _aten_layout, _aten_reductions
from nni_aiop.graphs._aten_table import FACTORIES, HANDLERS

__all__ = ["FACTORIES", "HANDLERS"]

_ROWS = (_aten_functions, _aten_layers, _aten_layout, _aten_reductions)
