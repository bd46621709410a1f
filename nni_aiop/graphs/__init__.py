"""Compute graphs: any PyTorch or ONNX network as a graph of atomic operations, with exact costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nni_aiop.graphs._graph import ComputeGraph, Node, Shape
from nni_aiop.graphs._vocabulary import ACTIVATIONS, COMMUTATIVE, OPERATIONS, OTHER
from nni_aiop.graphs._writer import Data, GraphWriter

if TYPE_CHECKING:
    from nni_aiop.graphs._onnx import from_onnx as from_onnx
    from nni_aiop.graphs._recorder import from_module as from_module

__all__ = [
    "ACTIVATIONS",
    "COMMUTATIVE",
    "OPERATIONS",
    "OTHER",
    "ComputeGraph",
    "Data",
    "GraphWriter",
    "Node",
    "Shape",
    "from_module",
    "from_onnx",
]

_LAZY = {"from_module": "_recorder", "from_onnx": "_onnx"}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _LAZY:
        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
