"""Compute graphs: any PyTorch or ONNX network as a graph of atomic operations, with exact costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nni_aiop._lazy import lazy_names
from nni_aiop.graphs._families import FAMILIES
from nni_aiop.graphs._graph import ComputeGraph
from nni_aiop.graphs._node import Node
from nni_aiop.graphs._stages import Stage, short
from nni_aiop.graphs._types import Cost, Shape
from nni_aiop.graphs._vocabulary import ACTIVATIONS, COMMUTATIVE, OPERATIONS, OTHER
from nni_aiop.graphs.doors.codes import GraphWriter, Handle

if TYPE_CHECKING:
    from nni_aiop.graphs._diff import GraphDiff as GraphDiff
    from nni_aiop.graphs._feature_cache import FeatureCache as FeatureCache
    from nni_aiop.graphs._features import FEATURES_VERSION as FEATURES_VERSION
    from nni_aiop.graphs._features import GLOBAL_COLUMNS as GLOBAL_COLUMNS
    from nni_aiop.graphs._features import LEVELS as LEVELS
    from nni_aiop.graphs._features import NODE_COLUMNS as NODE_COLUMNS
    from nni_aiop.graphs._features import GraphFeatures as GraphFeatures
    from nni_aiop.graphs._features import global_features as global_features
    from nni_aiop.graphs._features import graph_features as graph_features
    from nni_aiop.graphs._features import node_features as node_features
    from nni_aiop.graphs.doors.modules import from_module as from_module
    from nni_aiop.graphs.doors.onnx import from_onnx as from_onnx

__all__ = [
    "ACTIVATIONS",
    "COMMUTATIVE",
    "FAMILIES",
    "FEATURES_VERSION",
    "GLOBAL_COLUMNS",
    "LEVELS",
    "NODE_COLUMNS",
    "OPERATIONS",
    "OTHER",
    "ComputeGraph",
    "Cost",
    "FeatureCache",
    "GraphDiff",
    "GraphFeatures",
    "GraphWriter",
    "Handle",
    "Node",
    "Shape",
    "Stage",
    "from_module",
    "from_onnx",
    "global_features",
    "graph_features",
    "node_features",
    "short",
]

_LAZY = {
    "from_module": "nni_aiop.graphs.doors.modules",
    "from_onnx": "nni_aiop.graphs.doors.onnx",
    "GraphDiff": "nni_aiop.graphs._diff",
    "FEATURES_VERSION": "nni_aiop.graphs._features",
    "GLOBAL_COLUMNS": "nni_aiop.graphs._features",
    "LEVELS": "nni_aiop.graphs._features",
    "NODE_COLUMNS": "nni_aiop.graphs._features",
    "FeatureCache": "nni_aiop.graphs._feature_cache",
    "GraphFeatures": "nni_aiop.graphs._features",
    "global_features": "nni_aiop.graphs._features",
    "graph_features": "nni_aiop.graphs._features",
    "node_features": "nni_aiop.graphs._features",
}

__getattr__ = lazy_names(__name__, _LAZY)
