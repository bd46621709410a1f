"""What ATen operations mean in the words of `Builder`: the whole table.

Its rows stand in `_functions`, `_layers`, `_recurrent`, `_reductions` and `_layout`, which enter
them when they are imported.
"""

from __future__ import annotations

from nni_aiop.graphs.doors.modules import (
    _functions,
    _layers,
    _layout,
    _recurrent,
    _reductions,
)
from nni_aiop.graphs.doors.modules._table import HANDLERS

__all__ = ["HANDLERS"]

_ROWS = (_functions, _layers, _layout, _recurrent, _reductions)
