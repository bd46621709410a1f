"""The contract of networks: the graph of the edited network is the edited graph of the network."""

from __future__ import annotations

import random
from typing import Any

import pytest
from torch import Tensor
from torch.utils import _pytree as pytree

from benchmarks._timm import create, input_shape
from nni_aiop.graphs import ComputeGraph
from nni_aiop.graphs.edits import Site
from nni_aiop.networks import Network
from tests.networks.zoo import ZOO, batch_of, captured

COMPUTED = {
    "encoder": dict.fromkeys(("form:cross", "form:cross#2"), "its weight is computed, or shared")
}
"""Attention with keys of its own reads parts of one weight, which take no other form alone."""


def halves(sites: tuple[Site, ...]) -> dict[str, Any]:
    return {site.label: max(1, site.value // 2) for site in sites if site.counts}


def at_random(sites: tuple[Site, ...], rng: random.Random, share: float) -> dict[str, Any]:
    """Any number of units of a width, any option of what has options."""
    return {
        site.label: rng.randint(1, site.value) if site.counts else rng.choice(site.values)
        for site in sites
        if rng.random() < share
    }


def of_kind(sites: tuple[Site, ...], kind: str, rng: random.Random) -> dict[str, Any]:
    own = [site for site in sites if site.kind == kind]
    return {site.label: rng.choice(site.values[1:]) for site in own if rng.random() < 0.6}


def named(graph: ComputeGraph) -> list[tuple[str, str]]:
    """Operations with the names of their modules; branches may come in another order."""
    return sorted(
        (node.op, name)
        for node, name in zip(graph.nodes, graph.names, strict=True)
        if node.op not in ("input", "output")
    )


def check(network: Network, edits: dict[str, Any], inputs: tuple[Tensor, ...]) -> None:
    small = network.edit(edits)
    expected = network.graph.edit(edits)
    assert small.graph == expected, (edits, str(small.graph.diff(expected))[:2000])
    assert named(small.graph) == named(expected), edits
    shapes = [x.shape for x in pytree.tree_leaves(network(*inputs))]
    assert [x.shape for x in pytree.tree_leaves(small(*inputs))] == shapes
    learned = sum(p.numel() for p in small.parameters())
    assert small.graph.parameters == learned


@pytest.mark.parametrize("name", ZOO)
def test_the_graph_of_the_edited_network_is_the_edited_graph(name: str) -> None:
    network = captured(name)
    inputs = batch_of(network.example, 3)
    sites = tuple(site for site in network.sites() if site.reason is None)
    assert sites
    check(network, halves(sites), inputs)
    for seed in range(2):
        rng = random.Random(seed)
        check(network, at_random(sites, rng, 0.6), inputs)
        for kind in ("branch", "gate", "kernel", "form", "heads"):
            if any(site.kind == kind for site in sites):
                check(network, of_kind(sites, kind, rng), inputs)


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_the_same_over_many_edits(name: str) -> None:
    network = captured(name)
    inputs = batch_of(network.example, 3)
    sites = tuple(site for site in network.sites() if site.reason is None)
    for site in sites:
        for value in dict.fromkeys((1, *site.values[1:]) if not site.counts else (1, *site.values)):
            if site.counts or value in site.values:
                check(network, {site.label: value}, inputs)
    for seed in range(15):
        rng = random.Random(100 + seed)
        check(network, at_random(sites, rng, rng.choice([0.2, 0.5, 1.0])), inputs)


@pytest.mark.parametrize("name", ZOO)
def test_nothing_that_the_graph_lets_go_is_lost_in_the_network(name: str) -> None:
    """Every site of the graph is one of the network's, or says why it is not."""
    network = captured(name)
    of_graph = {site.label for site in network.graph.sites() if site.reason is None}
    of_network = {site.label: site.reason for site in network.sites()}
    lost = {label: of_network[label] for label in of_graph if of_network[label] is not None}
    assert lost == COMPUTED.get(name, {})


def test_a_recurrent_layer_stays_and_says_why() -> None:
    network = captured("recurrent")
    reasons = {site.layers[0]: site.reason for site in network.sites() if site.reason is not None}
    assert "a recurrent layer keeps its widths" in str(reasons["before.2"])
    assert {site.label for site in network.sites() if site.reason is None and site.counts} == {
        "width:before.0",
        "width:after.0",
    }


TIMM = ["resnet18", "mobilenetv3_small_100", "vit_tiny_patch16_224"]
MORE = [
    "convnext_atto", "densenet121", "ghostnet_100", "levit_128s", "regnety_002", "repvit_m0_9",
    "swin_tiny_patch4_window7_224",
]  # fmt: skip


@pytest.mark.parametrize("name", [*TIMM, *(pytest.param(x, marks=pytest.mark.slow) for x in MORE)])
def test_the_same_for_networks_of_timm(name: str) -> None:
    model = create(name)
    network = Network.capture(model, input_shape(model))
    sites = tuple(site for site in network.sites() if site.reason is None)
    inputs = batch_of(network.example, 3)
    check(network, halves(sites), inputs)
    check(network, at_random(sites, random.Random(0), 0.4), inputs)
