"""Features of graphs by content, in memory and on disk."""

from __future__ import annotations

import copy
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

from nni_aiop.errors import FileFormatError
from nni_aiop.files import read_described, write_described
from nni_aiop.graphs._features import (
    FEATURES_VERSION,
    GraphFeatures,
    as_data,
    graph_features,
    to_pyg,
)
from nni_aiop.graphs._graph import ComputeGraph

if TYPE_CHECKING:
    from torch_geometric.data import Data

__all__ = ["FeatureCache"]

_FORMAT = "nni-aiop features"


class FeatureCache:
    """Features by content: equal graphs share them. Nodes stand in the canonical order.

    Args:
        size: How many graphs to keep in memory; the one not asked for longest goes first.
        folder: Where to keep them on disk too, as safetensors, under the content hash and
            `FEATURES_VERSION`, with a checksum; a damaged file counts as none, and is written anew.

    Example:
        >>> from nni_aiop.graphs import ComputeGraph, Node
        >>> x = Node.make("input", [], (1, 8))
        >>> y = Node.make("output", [(1, 8)], (1, 8))
        >>> cache = FeatureCache()
        >>> cache(ComputeGraph([x, y], [(), (0,)])).level.tolist()
        [6, 6]
    """

    def __init__(self, size: int = 10_000, folder: Path | str | None = None) -> None:
        if size < 1:
            raise ValueError(f"a cache must keep at least one graph, but got size={size}.")
        self.size = size
        self.folder = None if folder is None else Path(folder)
        self._kept: OrderedDict[str, Data] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def __call__(self, graph: ComputeGraph) -> Data:
        """`to_pyg` of `graph.canonical()`; a new record each time, whose tensors are shared."""
        key = graph.content_hash
        data = self._kept.get(key)
        if data is None:
            data = self._kept[key] = self._read(graph)
            if len(self._kept) > self.size:
                self._kept.popitem(last=False)
        else:
            self._kept.move_to_end(key)
        return copy.copy(data)

    def _read(self, graph: ComputeGraph) -> Data:
        if self.folder is None:
            return to_pyg(graph.canonical())
        key = graph.content_hash
        path = self.folder / key[:2] / f"{key}-{FEATURES_VERSION}.safetensors"
        kept = {"format": _FORMAT, "version": FEATURES_VERSION, "graph": key}
        try:
            found, tensors = read_described(
                path, "features", kind=_FORMAT, version=FEATURES_VERSION, what="features of a graph"
            )
            if found == kept:
                return as_data(GraphFeatures(**tensors))
        except (FileNotFoundError, FileFormatError, TypeError):
            pass
        features = graph_features(graph.canonical())
        write_described(path, "features", kept, vars(features), flush=False)
        return as_data(features)
