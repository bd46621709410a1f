"""Many graphs at once: what sweeps tell of nodes is what each graph tells of its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nni_aiop.graphs import ComputeGraph, Node, from_module
from nni_aiop.graphs._flat import FlatGraphs, Sweep, depths
from nni_aiop.graphs._flat_stages import flat_levels, flat_positions
from nni_aiop.search_spaces import SPACES, get_space


class Gate(nn.Module):
    """Squeeze and excitation: a single position that returns to its grid."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y * self.gate(y.mean((2, 3), keepdim=True)).sigmoid()


class Tokens(nn.Module):
    """Words, whose positions their readers tell."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.block = nn.Embedding(20, 8), nn.TransformerEncoderLayer(8, 2, 16)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.block(self.words(x)).mean(1)
        return found


class Two(nn.Module):
    """Inputs of two sizes, of which a piece is cut."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(x, 2)[:, :, ::2] + y[:, :, :4]


def odd_graphs() -> list[ComputeGraph]:
    rows = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    return [
        from_module(Gate(), (2, 3, 18, 18)),
        from_module(Tokens(), torch.zeros(2, 5, dtype=torch.long)),
        from_module(Two(), (torch.zeros(1, 2, 16, 8), torch.zeros(1, 2, 8, 4))),
        from_module(nn.Conv1d(3, 4, 3, stride=2), (1, 3, 32)),
        from_module(nn.Conv3d(2, 4, 3), (1, 2, 6, 8, 8)),
        from_module(rows, (3, 6)),
        from_module(nn.LSTM(3, 5), (7, 2, 3)),
        ComputeGraph([], []),
        ComputeGraph([Node.make("input", [], ())], [()]),
    ]


def space_graphs(name: str) -> list[ComputeGraph]:
    space = get_space(name)
    return [space.graph(sample) for sample in space.sample(4, np.random.default_rng(0))]


@pytest.mark.parametrize("name", [*SPACES, "odd", "all"])
def test_it_tells_what_each_graph_does(name: str) -> None:
    if name == "all":
        graphs = [graph for name in SPACES for graph in space_graphs(name)[:1]]
        graphs += odd_graphs()
    else:
        graphs = odd_graphs() if name == "odd" else space_graphs(name)
    flat = FlatGraphs(graphs)
    positions, batch, axes = flat_positions(flat, graphs)
    levels = flat_levels(flat, positions, axes)
    for place, graph in enumerate(graphs):
        here = flat.graph == place
        own, n, of = graph.positions
        assert (positions[here].tolist(), batch[place]) == (own, n)
        if len(graph):
            assert axes[place] == of
        assert [None if np.isnan(x) else x for x in levels[here]] == [*graph.levels]
        assert flat.depth[here].tolist() == graph.depth


def test_a_sweep_reads_finished_nodes_only_and_every_edge_once() -> None:
    source, target = np.array([0, 0, 1, 1, 1, 2, 0]), np.array([1, 2, 2, 3, 3, 3, 4])
    depth = depths(6, source, target)
    assert depth.tolist() == [0, 1, 2, 3, 1, 0]
    seen = []
    for nodes, read, first in Sweep.by(depth, source, target).steps():
        assert (depth[read] < depth[nodes].min()).all()
        ends = np.repeat(nodes, np.diff(np.append(first, len(read))))
        seen += [*zip(read.tolist(), ends.tolist(), strict=True)]
    assert sorted(seen) == sorted(zip(source.tolist(), target.tolist(), strict=True))
    assert [*Sweep.by(depths(0, source[:0], target[:0]), source[:0], target[:0]).steps()] == []
