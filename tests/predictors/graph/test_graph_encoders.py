"""Encoders and adapters against PyG, worked examples and the equations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch_geometric.nn import GraphConv

from nni_aiop.graphs import ComputeGraph, Node
from nni_aiop.predictors.graph import GraphEncoder, GraphSet, KAdapter, PublishedEncoder
from nni_aiop.predictors.graph._adapters import Backbone, Member
from nni_aiop.predictors.graph._collation import COLUMNS, POSITIONS, GraphBatch, bag_sum
from nni_aiop.predictors.graph._encoders import messages
from nni_aiop.search_spaces import get_space

SHAPE = (1, 4, 8, 8)


def conv(stride: int = 1, shape: tuple[int, ...] = SHAPE) -> Node:
    return Node.make(
        "conv",
        [SHAPE],
        shape,
        weight_shape=(4, 4, 3, 3),
        kernel=(3, 3),
        stride=(stride, stride),
        padding=((1, 1), (1, 1)),
        dilation=(1, 1),
        groups=1,
        bias=False,
    )


def function(op: str, inputs: int = 1, shape: tuple[int, ...] = SHAPE) -> Node:
    return Node.make(op, [shape] * inputs, shape)


@pytest.fixture
def residual() -> ComputeGraph:
    """input -> relu -> conv -> batch_norm -> conv -> add (with the relu) -> relu -> output."""
    nodes = [
        Node.make("input", [], SHAPE),
        function("relu"),
        conv(),
        function("batch_norm"),
        conv(),
        function("add", 2),
        function("relu"),
        function("output"),
    ]
    return ComputeGraph(nodes, [(), (0,), (1,), (2,), (3,), (1, 4), (5,), (6,)])


@pytest.fixture
def graphs() -> list[ComputeGraph]:
    space = get_space("digits")
    return [space.graph(sample) for sample in space.sample(6, np.random.default_rng(0))]


def edges(sources: Any) -> torch.Tensor:
    """(2, e) from and to of the bags of what each node reads."""
    counts = sources.offsets.diff().long()
    return torch.stack(
        [sources.indices.long(), torch.arange(len(counts)).repeat_interleave(counts)]
    )


class TestBatches:
    def test_a_graph_by_hand(self, residual: ComputeGraph) -> None:
        batch = GraphSet([residual]).batch([0])
        assert edges(batch.sources).T.tolist() == [
            [0, 1], [1, 2], [2, 3], [3, 4], [1, 5], [4, 5], [5, 6], [6, 7],
        ]  # fmt: skip
        ops = batch.table[batch.row.indices.long()][:, : COLUMNS.index("kernel_height")].argmax(1)
        assert [COLUMNS[op].removeprefix("op:") for op in ops] == [
            node.op for node in residual.nodes
        ]
        assert batch.counts.tolist() == [[8, 0, 0, 0, 0, 0, 0]]
        assert batch.sinks.indices.tolist() == [7]
        assert batch.table.shape == (7, len(COLUMNS))  # the two inner relus are one row

    def test_merged_nodes_by_hand(self, residual: ComputeGraph) -> None:
        # input + relu; conv + norm; conv (heavy again); add + relu + output.
        batch = GraphSet([residual]).batch([0], merged=True)
        assert edges(batch.sources).T.tolist() == [[0, 1], [1, 2], [0, 3], [2, 3]]
        assert batch.positions.shape == (4, len(POSITIONS))
        total, first, last = batch.table[batch.row.indices.long()].split(len(COLUMNS), dim=1)
        column = {name.removeprefix("op:"): place for place, name in enumerate(COLUMNS)}
        for group, members in enumerate(
            [["input", "relu"], ["conv", "batch_norm"], ["conv"], ["add", "relu", "output"]]
        ):
            assert total[group, : column["kernel_height"]].sum() == len(members)
            assert all(total[group, column[op]] == 1 for op in members)
            assert first[group, column[members[0]]] == 1
            assert last[group, column[members[-1]]] == 1

    def test_a_group_keeps_to_one_resolution(self) -> None:
        half = (1, 4, 4, 4)
        nodes = [
            Node.make("input", [], SHAPE),
            function("relu"),
            conv(2, half),
            function("relu", shape=half),
        ]
        batch = GraphSet([ComputeGraph(nodes, [(), (0,), (1,), (2,)])]).batch([0], merged=True)
        assert edges(batch.sources).tolist() == [[0], [1]]
        assert batch.counts[0, :2].tolist() == [1, 1]

    @pytest.mark.parametrize("merged", [False, True])
    def test_a_batch_is_its_graphs_side_by_side(
        self, graphs: list[ComputeGraph], merged: bool
    ) -> None:
        data = GraphSet(graphs)
        batch = data.batch([4, 1, 1], merged=merged)
        at = 0
        for place, graph in enumerate([4, 1, 1]):
            alone = data.batch([graph], merged=merged)
            n = len(alone.positions)
            inside = (edges(batch.sources)[1] >= at) & (edges(batch.sources)[1] < at + n)
            assert torch.equal(edges(batch.sources)[:, inside] - at, edges(alone.sources))
            features = batch.table[batch.row.indices.long()][at : at + n]
            assert torch.equal(features, alone.table[alone.row.indices.long()])
            assert torch.equal(batch.counts[place], alone.counts[0])
            at += n
        assert at == len(batch.positions)

    def test_taken_graphs_are_those(self, graphs: list[ComputeGraph]) -> None:
        data = GraphSet(graphs)
        assert data.take([3, 0]).digest == GraphSet([graphs[3], graphs[0]]).digest
        assert data.take([3, 0]).take([1]).flops == graphs[0].flops

    def test_sums_and_their_gradient(self, residual: ComputeGraph) -> None:
        sources = GraphSet([residual]).batch([0]).sources
        h = torch.randn(8, 3, dtype=torch.float64, requires_grad=True)
        total = bag_sum(h, sources)
        assert torch.allclose(total[5], h[1] + h[4])
        assert (total[0] == 0).all()
        assert torch.autograd.gradcheck(lambda x: bag_sum(x, sources), h)


class TestPublished:
    def test_layers_are_pygs_graph_conv(self, graphs: list[ComputeGraph]) -> None:
        encoder = PublishedEncoder()
        batch = GraphSet(graphs).batch(range(6))
        found = encoder(batch)
        h = found[0]
        assert len(found) == 7 and h.shape == (len(batch.positions), 32)
        for layer, expected in zip(encoder.layers, found[1:], strict=True):
            theirs = GraphConv(32, 32)
            with torch.no_grad():
                theirs.lin_root.weight.copy_(layer.linear.weight[:, :32])
                theirs.lin_rel.weight.copy_(layer.linear.weight[:, 32:])
                theirs.lin_rel.bias.copy_(layer.linear.bias)
            h = torch.tanh(theirs(h, edges(batch.sources)))
            assert torch.allclose(h, expected, atol=1e-5)
        first = encoder.read_out(batch, found[-1])[0]
        assert torch.allclose(first, found[-1][: len(graphs[0])].mean(0), atol=1e-6)

    def test_nodes_without_a_weight_have_no_kernel(self, residual: ComputeGraph) -> None:
        encoder = PublishedEncoder()
        with torch.no_grad():
            h = encoder.embed(GraphSet([residual]).batch([0]))
        assert (h[:, 24:] != 0).any(1).tolist() == [node.op == "conv" for node in residual.nodes]
        assert torch.equal(h[2, 24:28], encoder.kernel_height.weight[3])


class TestDefault:
    WHOLE = sum(
        p.numel()
        for encoder in [GraphEncoder(norm=True)]
        for part in (encoder, KAdapter(encoder))
        for p in part.parameters()
    )

    @pytest.mark.parametrize(
        "switch",
        [
            {"both_directions": False},
            {"residual": False},
            {"norm": False},
            {"positions": False},
            {"merged": False},
            {"global_features": False},
            {"read_outs": ("mean",)},
            {"read_outs": ("levels", "last")},
        ],
        ids=str,
    )
    def test_every_switch_makes_it_smaller_but_the_residual(
        self, graphs: list[ComputeGraph], switch: dict[str, Any]
    ) -> None:
        encoder = GraphEncoder(**{"norm": True, **switch})
        batch = GraphSet(graphs).batch(range(6), merged=encoder.merged)
        read_out = encoder.read_out(batch, encoder(batch)[-1])
        assert read_out.shape == (6, encoder.width)
        weights = sum(p.numel() for part in (encoder, KAdapter(encoder)) for p in part.parameters())
        assert (weights < self.WHOLE) == (switch != {"residual": False})

    @pytest.mark.parametrize("n", [2, 24])
    def test_more_than_two_neighbours_count_as_two(self, n: int) -> None:
        size = (1, n, 8, 8)
        nodes = [Node.make("input", [], SHAPE), *(conv(1, SHAPE) for _ in range(n))]
        nodes.append(Node.make("concat", [SHAPE] * n, size))
        inputs = [(), *[(0,)] * n, tuple(range(1, n + 1))]
        batch = GraphSet([ComputeGraph(nodes, inputs)]).batch([0])
        h = torch.ones(n + 2, 1)
        into, out = batch.bounds
        read = messages(h, batch.sources, into).flatten()
        assert read.tolist() == [0.0, *[1.0] * n, 2.0]
        assert messages(h, batch.sources.transposed, out).flatten().tolist()[0] == 2.0

    def test_a_batch_moves_as_a_whole_and_only_where_it_is_not(
        self, residual: ComputeGraph
    ) -> None:
        batch = GraphSet([residual]).batch([0])
        assert batch.to(torch.device("cpu")) is batch
        moved = batch.to(torch.device("meta"))

        def tensors(of: GraphBatch) -> list[torch.Tensor]:
            parts = vars(of).values()
            return [
                t
                for part in parts
                for t in (part if isinstance(part, tuple) else [part])
                if t is not None
            ]

        assert all(tensor.is_meta for tensor in tensors(moved))
        assert [t.shape for t in tensors(moved)] == [t.shape for t in tensors(batch)]

    def test_read_outs(self, residual: ComputeGraph) -> None:
        encoder = GraphEncoder(hidden=2)
        batch = GraphSet([residual]).batch([0], merged=True)
        h = torch.arange(8.0).view(4, 2)
        levels, mean, total, last = encoder.read_out(batch, h)[0].split([14, 2, 2, 2])
        assert levels.tolist() == [3, 4] + [0] * 12
        assert mean.tolist() == [3, 4]
        assert total.tolist() == pytest.approx([0.12, 0.16])
        assert last.tolist() == [6, 7]


@pytest.mark.parametrize("encoder", [GraphEncoder(hidden=8), PublishedEncoder(hidden=8)])
def test_adapters_follow_equation_1(
    encoder: GraphEncoder | PublishedEncoder, graphs: list[ComputeGraph]
) -> None:
    adapter = KAdapter(encoder)
    batch = GraphSet(graphs).batch(range(6), merged=encoder.merged)
    backbone = encoder(batch)
    h = backbone[0]
    for i, layer in enumerate(adapter.layers, start=1):
        assert layer.linear.in_features == 2 * encoder.layers[0].linear.in_features
        h = layer(batch, torch.cat([h, backbone[i]], dim=1), h)
    both = torch.cat([encoder.read_out(batch, backbone[-1]), encoder.read_out(batch, h)], dim=1)
    assert torch.equal(adapter.embedding(batch, encoder), both)
    adapter(batch, encoder).sum().backward()
    assert all(p.grad is None for p in encoder.parameters())
    assert all(p.grad is not None for p in adapter.parameters())


@pytest.mark.parametrize("encoder", [GraphEncoder(hidden=8), PublishedEncoder(hidden=8)])
def test_a_backbone_reads_what_the_last_layer_puts_out(
    encoder: GraphEncoder | PublishedEncoder, graphs: list[ComputeGraph]
) -> None:
    assert len(encoder.layers) > 1
    backbone = Backbone(encoder, 3)
    batch = GraphSet(graphs).batch(range(6), merged=encoder.merged)
    last = encoder.read_out(batch, encoder(batch)[-1])
    assert torch.equal(backbone.embedding(batch), last)
    found = backbone(batch)
    assert found.shape == (6, 3) and torch.equal(found, backbone.head(batch, last))
    member = Member(backbone)
    assert torch.equal(member(batch), found.mean(1, keepdim=True))
    assert member.merged == Member(KAdapter(encoder), (encoder,)).merged == encoder.merged
    changed = member.copy()
    for parameter in changed.module.parameters():
        parameter.data += 1
    assert torch.equal(backbone(batch), found)
