"""Random edits of random networks: the graph of the network written that way, and its costs."""

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nni_aiop.graphs import ComputeGraph, from_module
from nni_aiop.graphs.edits import COSTS, Site, plan_of
from nni_aiop.spaces import MutationSpace
from tests.graphs.edits.edit_checks import (
    IMAGE,
    assert_same,
    assert_valid,
    planned_costs,
    true_costs,
)


@dataclass(frozen=True)
class Block:
    """One step of a network.

    Attributes:
        kind: "plain" (a convolution), "residual" (an inverted bottleneck), "sum" (of two
            convolutions), "concat" (of two convolutions and what they read).
        w: Channels.
        v: Channels within a gate.
        k: Kernel of a depthwise convolution, 0 for none.
        norm: Whether batch normalisation follows.
        act: Behind a sum: "", "relu" or "relu6".
    """

    kind: str
    w: int
    v: int = 0
    k: int = 0
    norm: bool = False
    act: str = ""


@dataclass
class Written:
    """How a network is written smaller: widths by layer, and names of what is gone."""

    widths: dict[str, int] = field(default_factory=dict)
    kernels: dict[str, int] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)


class Net(nn.Module):
    """A network of blocks."""

    def __init__(self, stem: int, blocks: list[Block], written: Written) -> None:
        super().__init__()
        self.blocks, self.gone = blocks, written.gone
        wide = written.widths
        self.layers = layers = nn.ModuleDict()
        c = wide.get("layers.stem", stem)
        layers["stem"] = nn.Conv2d(3, c, 1)
        for i, block in enumerate(blocks):
            a = wide.get(f"layers.a{i}", block.w)
            b = wide.get(f"layers.b{i}", block.w + 4)
            v = wide.get(f"layers.down{i}", block.v)
            if block.kind == "residual":
                layers[f"a{i}"] = nn.Conv2d(c, a, 1)
                if block.k:
                    k = written.kernels.get(f"layers.deep{i}", block.k)
                    layers[f"deep{i}"] = nn.Conv2d(a, a, k, padding=k // 2, groups=a)
                if block.v:
                    layers[f"down{i}"], layers[f"up{i}"] = nn.Conv2d(a, v, 1), nn.Conv2d(v, a, 1)
                layers[f"out{i}"] = nn.Conv2d(a, c, 1)
            elif block.kind == "sum":
                a = wide.get(f"layers.b{i}", a)
                layers[f"a{i}"] = nn.Conv2d(c, a, 3, padding=1)
                layers[f"b{i}"] = nn.Conv2d(c, a, 1)
                c = a
            else:
                layers[f"a{i}"] = nn.Conv2d(c, a, 3, padding=1)
                if block.kind == "concat":
                    layers[f"b{i}"] = nn.Conv2d(c, b, 1)
                c = a if block.kind == "plain" else a + b + c
            if block.norm:
                layers[f"norm{i}"] = nn.BatchNorm2d(c)
        layers["head"] = nn.Conv2d(c, 4, 1)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        layers = self.layers
        x = layers["stem"](x)
        for i, block in enumerate(self.blocks):
            if block.kind == "residual":
                if f"branch{i}" not in self.gone:
                    x = x + self._branch(x, i, block)
            elif block.kind == "sum":
                x = layers[f"a{i}"](x) + layers[f"b{i}"](x)
            elif block.kind == "plain":
                x = layers[f"a{i}"](x)
            else:
                x = torch.cat([layers[f"a{i}"](x), layers[f"b{i}"](x), x], 1)
            if block.norm:
                x = layers[f"norm{i}"](x)
            if block.act:
                x = getattr(F, block.act)(x)
        y: Tensor = layers["head"](x)
        return y

    def _branch(self, x: Tensor, i: int, block: Block) -> Tensor:
        layers = self.layers
        y = F.relu(layers[f"a{i}"](x))
        if block.k:
            y = F.relu(layers[f"deep{i}"](y))
        if block.v and f"gate{i}" not in self.gone:
            z = F.relu(layers[f"down{i}"](y.mean((2, 3), keepdim=True)))
            y = y * torch.sigmoid(layers[f"up{i}"](z))
        out: Tensor = layers[f"out{i}"](y)
        return out


BLOCKS = st.builds(
    Block,
    st.sampled_from(["plain", "residual", "residual", "sum", "concat"]),
    st.sampled_from([8, 12, 16, 24]),
    st.sampled_from([0, 8]),
    st.sampled_from([0, 3, 5, 7]),
    st.booleans(),
    st.sampled_from(["", "relu", "relu6"]),
)

NETWORKS = st.tuples(st.sampled_from([8, 16]), st.lists(BLOCKS, min_size=1, max_size=5))


def drawn(data: st.DataObject, sites: list[Site]) -> dict[str, Any]:
    """Edits of some of the sites."""
    edits: dict[str, Any] = {}
    for site in sites:
        if site.kind in ("width", "branch", "gate", "kernel") and data.draw(st.booleans()):
            values = range(1, site.value + 1) if site.counts else site.values
            edits[site.label] = data.draw(st.sampled_from(list(values)))
    return edits


def written(sites: list[Site], edits: dict[str, Any]) -> Written:
    """The same, as the network is written."""
    found = Written()
    by_label = {site.label: site for site in sites}
    for label, value in edits.items():
        site = by_label[label]
        name = label.partition(":")[2]
        if site.kind == "width":
            found.widths[name] = value
        elif site.kind == "kernel":
            found.kernels[name] = value
        elif value == "remove":
            number = "".join(filter(str.isdigit, site.layers[-1]))
            found.gone.add(site.kind + number)
    return found


def free(graph: ComputeGraph) -> list[Site]:
    return [site for site in graph.sites() if site.reason is None]


@settings(max_examples=60, deadline=None)
@given(NETWORKS, st.data())
def test_an_edited_network_is_the_network_written_that_way(
    network: tuple[int, list[Block]], data: st.DataObject
) -> None:
    graph = from_module(Net(*network, Written()), IMAGE)
    sites = free(graph)
    edits = drawn(data, sites)
    assert_same(graph.edit(edits), from_module(Net(*network, written(sites, edits)), IMAGE))


@settings(max_examples=40, deadline=None)
@given(NETWORKS, st.data())
def test_costs_of_many_edits_are_those_of_the_edited_graphs(
    network: tuple[int, list[Block]], data: st.DataObject
) -> None:
    graph = from_module(Net(*network, Written()), IMAGE)
    sites = free(graph)
    candidates = [drawn(data, sites) for _ in range(4)]
    graphs = [graph.edit(edits) for edits in candidates]
    for edited in graphs:
        assert_valid(edited)
    assert planned_costs(graph, candidates) == [true_costs(edited) for edited in graphs]


@settings(max_examples=40, deadline=None)
@given(NETWORKS, st.data())
def test_edits_commute(network: tuple[int, list[Block]], data: st.DataObject) -> None:
    graph = from_module(Net(*network, Written()), IMAGE)
    edits = drawn(data, free(graph))
    first = {label: value for label, value in edits.items() if data.draw(st.booleans())}
    later = {label: value for label, value in edits.items() if label not in first}
    once = graph.edit(first)
    there = {site.label for site in free(once)}
    later = {label: value for label, value in later.items() if label in there}
    assert once.edit(later) == graph.edit({**first, **later})


@settings(max_examples=25, deadline=None)
@given(NETWORKS, st.integers(0, 1000))
def test_a_space_of_the_edits_costs_what_its_graphs_cost(
    network: tuple[int, list[Block]], seed: int
) -> None:
    import numpy as np

    space = MutationSpace(from_module(Net(*network, Written()), IMAGE))
    samples = space.sample(4, np.random.default_rng(seed))
    codes = space.encode(samples)
    graphs = [true_costs(space.graph(sample)) for sample in samples]
    for name in space.costs:
        true = [costs["macs" if name == "flops" else name] for costs in graphs]
        assert space.cost(name, codes).tolist() == true


@settings(max_examples=25, deadline=None)
@given(NETWORKS, st.integers(0, 1000))
def test_the_gradient_of_costs_is_that_of_finite_differences(
    network: tuple[int, list[Block]], seed: int
) -> None:
    plan = plan_of(from_module(Net(*network, Written()), IMAGE))
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.tensor([float(group.size) for group in plan.coupling.groups]).double()
    kept = 1 + (sizes - 1) * torch.rand(len(sizes), generator=generator, dtype=torch.float64)
    kept = kept[None].requires_grad_()
    step = 1e-5
    for name in COSTS:
        (gradient,) = torch.autograd.grad(
            plan.costs(kept, names=(name,))[name].sum(), kept, allow_unused=True
        )
        moves = step * torch.eye(len(sizes), dtype=torch.float64)
        with torch.no_grad():
            up, down = (plan.costs(kept + sign * moves, names=(name,))[name] for sign in (1, -1))
        slopes = (up - down) / (2 * step)
        found = torch.zeros(len(sizes)).double() if gradient is None else gradient[0]
        torch.testing.assert_close(found, slopes, rtol=1e-4, atol=0.05)
