"""Features of compute graphs: exact values, invariance, PyG's batches, the cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric.data import Batch
from torch_geometric.loader import DataLoader

from nni_aiop.graphs import (
    FEATURES_VERSION,
    GLOBAL_COLUMNS,
    LEVELS,
    NODE_COLUMNS,
    OPERATIONS,
    ComputeGraph,
    FeatureCache,
    Node,
    _features,
    from_module,
    global_features,
    graph_features,
    node_features,
)
from nni_aiop.graphs._features import FlatFeatures
from nni_aiop.search_spaces import nasbench201


@pytest.fixture(scope="module")
def graph() -> ComputeGraph:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 5, 1, 2, groups=8, bias=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )
    return from_module(net, (2, 3, 16, 16))


def reordered(graph: ComputeGraph, seed: int) -> tuple[ComputeGraph, list[int]]:
    """The graph in a random topological order, and the old place of each node."""
    generator = np.random.default_rng(seed)
    order: list[int] = []
    while len(order) < len(graph):
        ready = [
            place
            for place, sources in enumerate(graph.inputs)
            if place not in order and set(sources) <= set(order)
        ]
        order.append(int(generator.choice(ready)))
    new = {old: place for place, old in enumerate(order)}
    inputs = [[new[source] for source in graph.inputs[old]] for old in order]
    return ComputeGraph([graph.nodes[old] for old in order], inputs), order


def column(graph: ComputeGraph, name: str) -> list[float]:
    return node_features(graph)[:, NODE_COLUMNS.index(name)].tolist()


def log(size: float, scale: float) -> Any:
    return pytest.approx(np.log2(1 + size) / scale, rel=1e-6)


COLUMNS = tuple(op for op in OPERATIONS if op != "cell_state")
"""The operations with a column, those that the predictors that come with the package know."""


def test_columns_have_one_name_each() -> None:
    assert len(set(NODE_COLUMNS)) == len(NODE_COLUMNS)
    assert len(set(GLOBAL_COLUMNS)) == len(GLOBAL_COLUMNS)
    assert NODE_COLUMNS[: len(COLUMNS) + 1] == (*(f"op:{op}" for op in COLUMNS), "op:other")
    assert FEATURES_VERSION == 1, "change the test with the version"
    assert (len(NODE_COLUMNS), len(GLOBAL_COLUMNS)) == (len(COLUMNS) + 23, 9 + 11 + 21)


def test_features_of_nodes(graph: ComputeGraph) -> None:
    x = node_features(graph)
    assert x.dtype == np.float32 and x.shape == (len(graph), len(NODE_COLUMNS))
    assert np.isfinite(x).all() and x.min() >= 0 and x.max() < 2
    one_hot = x[:, : len(COLUMNS) + 1]
    assert one_hot.sum(1).tolist() == [1] * len(graph)
    names = [NODE_COLUMNS[place] for place in one_hot.argmax(1)]
    assert names == [f"op:{node.op}" for node in graph.nodes]
    conv, depthwise, head = (graph.names.index(name) for name in ("0", "3", "6"))
    assert column(graph, "kernel_width")[conv] == log(3, 3)
    assert column(graph, "kernel_height")[depthwise] == log(5, 3)
    assert column(graph, "stride")[conv] == log(2, 2)
    assert column(graph, "groups")[depthwise] == log(8, 10)
    assert column(graph, "weight")[conv] == log(8 * 27, 24)
    assert column(graph, "macs")[conv] == log(2 * 64 * 8 * 27, 30)
    assert [column(graph, "bias")[p] for p in (conv, depthwise, head)] == [1, 0, 1]
    assert column(graph, "channels_in")[conv] == log(3, 10)
    assert column(graph, "channels_out")[conv] == log(8, 10)
    assert column(graph, "positions_in")[conv] == log(256, 16)
    assert column(graph, "positions_out")[conv] == log(64, 16)
    assert column(graph, "level")[conv] == 1 / 8 and column(graph, "head")[head] == 1
    assert column(graph, "depth")[0] == 0 and column(graph, "height")[-1] == 0
    assert column(graph, "progress")[-1] == 1
    assert column(graph, "read_by")[conv] == log(1, 3)


def test_unknown_operations_have_a_column() -> None:
    x = (1, 3, 4, 4)
    nodes = [Node.make("input", [], x), Node.make("other:fft", [x], x)]
    found = ComputeGraph(nodes, [(), (0,)])
    assert column(found, "op:other") == [0, 1]


def test_features_of_graphs(graph: ComputeGraph) -> None:
    u = dict(zip(GLOBAL_COLUMNS, global_features(graph).tolist(), strict=True))
    assert u["macs"] == log(graph.macs, 36) and u["flops"] == log(graph.flops, 36)
    assert u["nodes"] == log(len(graph), 10) and u["depth"] == log(len(graph) - 1, 8)
    assert u["input_side"] == log(16, 10) and u["input_channels"] == log(3, 10)
    assert u["nodes:convolution"] == log(2, 10) and u["nodes:product"] == 0
    assert u["nodes@1"] == log(4, 10) and u["nodes@head"] == log(3, 10) and u["nodes@2"] == 0
    assert u["macs@head"] == log(2 * 80, 36) and u["weights@head"] == log(80, 28)


def test_the_order_of_nodes_only_permutes_rows() -> None:
    graph = nasbench201.graph(nasbench201.from_index(9_876))
    x, u = node_features(graph), global_features(graph)
    for seed in range(5):
        other, order = reordered(graph, seed)
        assert other == graph
        np.testing.assert_array_equal(node_features(other), x[order])
        np.testing.assert_array_equal(global_features(other), u)


def test_what_equality_does_not_see_features_do_not_show(graph: ComputeGraph) -> None:
    bare = [
        Node(n.op, n.attributes, n.input_shapes, n.output_shape, n.weight_shape)
        for n in graph.nodes
    ]
    same = ComputeGraph(bare, graph.inputs)
    assert same == graph and same.parameters != graph.parameters
    np.testing.assert_array_equal(node_features(same), node_features(graph))
    np.testing.assert_array_equal(global_features(same), global_features(graph))


def test_edges_run_both_ways(graph: ComputeGraph) -> None:
    found = graph_features(graph)
    n = len(graph.edges)
    assert found.edges[:, :n].T.tolist() == [list(edge) for edge in graph.edges]
    np.testing.assert_array_equal(found.edges[:, n:], found.edges[::-1, :n])
    assert found.edge_type.tolist() == [0] * n + [1] * n
    assert [LEVELS[place] for place in found.level] == ["0", *["1"] * 4, *["head"] * 3]


def test_batches_without_padding(graph: ComputeGraph) -> None:
    graphs = [graph, *(nasbench201.graph(nasbench201.from_index(i)) for i in (3, 15_000))]
    data = [g.to_pyg() for g in graphs]
    assert all(d.validate() and d.x.dtype == torch.float32 for d in data)
    batch = Batch.from_data_list(data)
    assert batch.x.shape == (sum(map(len, graphs)), len(NODE_COLUMNS))
    assert batch.u.shape == (3, len(GLOBAL_COLUMNS)) and batch.level.shape == batch.batch.shape
    assert batch.edge_index.max() < len(batch.x) and batch.edge_type.shape[0] == batch.num_edges
    for place, one in enumerate(batch.to_data_list()):
        torch.testing.assert_close(one.x, data[place].x, rtol=0, atol=0)
        assert torch.equal(one.edge_index, data[place].edge_index)
    sizes = [b.num_graphs for b in DataLoader(data, batch_size=2)]
    assert sizes == [2, 1]


def test_features_of_many_graphs_are_those_of_each(graph: ComputeGraph) -> None:
    graphs = [graph, ComputeGraph([], []), nasbench201.graph(nasbench201.from_index(5)), graph]
    flat = FlatFeatures(graphs)
    found = [graph_features(g) for g in graphs]
    np.testing.assert_array_equal(flat.rows(), np.concatenate([f.x for f in found]))
    np.testing.assert_array_equal(flat.level, np.concatenate([f.level for f in found]))
    np.testing.assert_array_equal(flat.u, [f.u for f in found])
    assert flat.nodes.tolist() == list(map(len, graphs))
    assert flat.flops.tolist() == [g.flops for g in graphs]
    first = np.repeat(np.cumsum(flat.nodes) - flat.nodes, [len(g.edges) for g in graphs])
    edges = np.stack([flat.source, flat.target], axis=1) - first[:, None]
    assert edges.tolist() == [list(edge) for g in graphs for edge in g.edges]


def test_an_empty_graph_has_features() -> None:
    found = graph_features(ComputeGraph([], []))
    assert found.x.shape == (0, len(NODE_COLUMNS)) and found.edges.shape == (2, 0)
    assert not found.u.any()


# --- cache --------------------------------------------------------------------------------------


def test_equal_graphs_share_features(graph: ComputeGraph) -> None:
    cache = FeatureCache()
    other, _ = reordered(graph, 1)
    a, b = cache(graph), cache(other)
    assert a is not b and a.x is b.x and len(cache) == 1
    assert torch.equal(a.x, torch.from_numpy(node_features(graph.canonical())))
    a.y = torch.zeros(1)
    assert "y" not in cache(graph)


def test_the_cache_keeps_the_latest() -> None:
    cache = FeatureCache(size=2)
    graphs = [nasbench201.graph(nasbench201.from_index(i)) for i in (1, 2, 3)]
    first = cache(graphs[0])
    cache(graphs[1])
    assert cache(graphs[0]).x is first.x
    cache(graphs[2])
    assert len(cache) == 2 and cache(graphs[0]).x is first.x
    with pytest.raises(ValueError, match="at least one graph, but got size=0"):
        FeatureCache(size=0)


@pytest.mark.parametrize("damage", [lambda path: None, lambda path: path.write_bytes(b"no")])
def test_the_cache_on_disk(
    graph: ComputeGraph, tmp_path: Path, damage: Callable[[Path], Any]
) -> None:
    before = FeatureCache(folder=tmp_path)(graph)
    (path,) = tmp_path.rglob("*.safetensors")
    assert path.stem == f"{graph.content_hash}-{FEATURES_VERSION}"
    damage(path)
    after = FeatureCache(folder=tmp_path)(graph)
    assert set(after.keys()) == set(before.keys())
    for name in before.keys():  # noqa: SIM118 (a Data is no dict)
        assert torch.equal(after[name], before[name])


def test_nodes_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = nasbench201.graph(nasbench201.from_index(7000))
    copies = {id(node): replace(node) for node in graph.nodes}
    nodes = [copies[id(node)] for node in graph.nodes]
    read = []
    whole = _features.local_features
    monkeypatch.setattr(_features, "local_features", lambda n: read.append(n) or whole(n))
    for _ in range(2):
        FlatFeatures([ComputeGraph(nodes, graph.inputs) for _ in range(3)])
    assert len(read) == len(copies) < len(graph) / 3
