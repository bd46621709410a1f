"""What ONNX operators mean in the words of `Builder`: the whole table.

Its rows stand in `_functions`, `_layers` and `_layout`, those of operators that are read as others
in `_rewrites` and `_foreign`; these enter them when they are imported.
"""

from __future__ import annotations

from nni_aiop.graphs.doors.onnx import _foreign, _functions, _layers, _layout
from nni_aiop.graphs.doors.onnx._call import HANDLERS

__all__ = ["HANDLERS"]

_ROWS = (_foreign, _functions, _layers, _layout)
