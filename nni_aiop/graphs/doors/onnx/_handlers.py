"""What ONNX operators mean in the words of `Builder`: the whole table.

Its rows stand in `_functions`, `_layers` and `_layout`, which enter them when they are imported.
"""

from __future__ import annotations

from nni_aiop.graphs.doors.onnx import _functions, _layers, _layout
from nni_aiop.graphs.doors.onnx._call import HANDLERS

__all__ = ["HANDLERS"]

_ROWS = (_functions, _layers, _layout)
