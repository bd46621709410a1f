"""ComputeGraph and Node as values: their rules, and what makes two graphs equal."""

from __future__ import annotations

import random
from typing import Any

import pytest

from nni_aiop.errors import GraphError, UnknownCostWarning
from nni_aiop.graphs import ComputeGraph, Node

IMAGE = (1, 3, 8, 8)


def conv(source: tuple[int, ...], out: int, kernel: int = 3, **more: Any) -> Node:
    shape = (source[0], out, *source[2:])
    return Node.make(
        "conv",
        [source],
        shape,
        weight_shape=(out, source[1], kernel, kernel),
        parameters=out * source[1] * kernel**2,
        **{
            "kernel": (kernel, kernel),
            "stride": (1, 1),
            "padding": [(kernel // 2, kernel // 2)] * 2,
            "dilation": (1, 1),
            "groups": 1,
            "bias": False,
        }
        | more,
    )


def residual(kernel: int = 3) -> ComputeGraph:
    """input -> conv -> relu -> conv -> add with the first conv -> output."""
    x = (1, 4, 8, 8)
    nodes = [
        Node.make("input", [], IMAGE),
        conv(IMAGE, 4),
        Node.make("relu", [x], x),
        conv(x, 4, kernel),
        Node.make("add", [x, x], x),
        Node.make("output", [x], x),
    ]
    return ComputeGraph(nodes, [(), (0,), (1,), (2,), (1, 3), (4,)])


def shuffled(graph: ComputeGraph, seed: int) -> ComputeGraph:
    """The graph in a random topological order, the terms of sums in a random order."""
    generator = random.Random(seed)
    waiting = {place: len(set(sources)) for place, sources in enumerate(graph.inputs)}
    order: list[int] = []
    while waiting:
        place = generator.choice([p for p, left in waiting.items() if not left])
        del waiting[place]
        order.append(place)
        for reader, sources in enumerate(graph.inputs):
            if place in sources and reader in waiting:
                waiting[reader] -= 1
    new = {old: place for place, old in enumerate(order)}
    inputs = []
    for old in order:
        sources = [new[source] for source in graph.inputs[old]]
        if graph.nodes[old].op in ("add", "mul"):
            generator.shuffle(sources)
        inputs.append(sources)
    return ComputeGraph([graph.nodes[old] for old in order], inputs)


def test_attributes_are_in_the_order_of_names_and_frozen() -> None:
    node = conv(IMAGE, 4)
    assert [name for name, _ in node.attributes] == sorted(name for name, _ in node.attributes)
    assert node["padding"] == ((1, 1), (1, 1)) and node.get("scale", 7) == 7
    assert hash(node) == hash(conv(IMAGE, 4)) and node == conv(IMAGE, 4)
    with pytest.raises(KeyError):
        node["scale"]
    assert str(node).startswith("conv dilation=1x1 groups=1 kernel=3x3")


def test_terms_of_sums_have_no_order() -> None:
    small, large = (1, 4, 1, 1), (1, 4, 8, 8)
    assert Node.make("add", [small, large], large) == Node.make("add", [large, small], large)
    assert Node.make("concat", [small, large], large, axis=2) != Node.make(
        "concat", [large, small], large, axis=2
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Node.make("convolve", [], (1,)), "one of the vocabulary or other:NAME"),
        (lambda: Node.make("relu", [(1, 2.5)], (1, 2)), "input shape of relu must be a tuple"),
        (lambda: Node.make("relu", [], (-1,)), r"whole numbers, but got \(-1,\)"),
        (lambda: Node.make("linear", [], (1,), weight_shape=("a",)), "weight shape of linear"),
    ],
)
def test_nodes_that_break_a_rule_are_refused(make: Any, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        make()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": [(), (2,), (1,), (2,), (1, 3), (4,)]}, "topological order .* node 1 .* node 2"),
        ({"inputs": [(), (1,), (1,), (2,), (1, 3), (4,)]}, "node 1 .* reads node 1"),
        ({"inputs": [(), (-1,), (1,), (2,), (1, 3), (4,)]}, "reads node -1"),
        ({"inputs": [()]}, "each of the 6 nodes must have its inputs listed"),
        ({"inputs": [(), (0, 0), (1,), (2,), (1, 3), (4,)]}, "one input shape for each input"),
        ({"names": ["x"]}, "must have a name, but got 1"),
        ({"tied": {1: 3}}, "earlier node, but got 1 -> 3"),
    ],
)
def test_graphs_that_break_a_rule_are_refused(change: dict[str, Any], message: str) -> None:
    graph = residual()
    arguments = {"inputs": graph.inputs, "names": None, "tied": None} | change
    with pytest.raises(GraphError, match=message):
        ComputeGraph(graph.nodes, **arguments)


def test_what_a_graph_says_of_itself() -> None:
    graph = residual()
    assert len(graph) == 6 and graph.edges == [(0, 1), (1, 2), (2, 3), (1, 4), (3, 4), (4, 5)]
    assert graph.operations == {"add": 1, "conv": 2, "input": 1, "output": 1, "relu": 1}
    assert graph.depth == [0, 1, 2, 3, 4, 5]
    assert graph.names[1] == "conv_1" and graph.others == ()
    assert graph.input_shapes == (IMAGE,) and graph.output_shapes == ((1, 4, 8, 8),)
    assert graph.parameters == 3 * 4 * 9 + 4 * 4 * 9
    strange = Node.make("other:fft", [IMAGE], IMAGE)
    assert ComputeGraph([graph.nodes[0], strange], [(), (0,)]).others == ("fft",)


def test_costs_that_leave_something_out_warn_once() -> None:
    x = Node.make("input", [], IMAGE)
    names = ("other:grid_sampler_2d", "other:grid_sampler_2d", "other:fft", "other:topk")
    steps = [Node.make(name, [IMAGE], IMAGE) for name in names]
    graph = ComputeGraph([x, *steps], [(), *((place,) for place in range(4))])
    assert graph.uncounted == {"fft": 1, "grid_sampler_2d": 2}
    with pytest.warns(UnknownCostWarning, match="fft x1, grid_sampler_2d x2 are not known"):
        assert graph.macs == 0
    assert graph.macs == graph.flops == 0  # warnings are errors here: there is no second one
    moves = ComputeGraph([x, Node.make("other:scatter", [IMAGE], IMAGE)], [(), (0,)])
    assert moves.others == ("scatter",) and not moves.uncounted and moves.macs == 0
    with pytest.warns(UnknownCostWarning):
        assert ComputeGraph(graph.nodes[:4], graph.inputs[:4]).flops == 0


def test_the_order_of_nodes_plays_no_part() -> None:
    graph = residual()
    branch = ComputeGraph(
        [*graph.nodes, conv((1, 4, 8, 8), 2, 1), Node.make("output", [(1, 2, 8, 8)], (1, 2, 8, 8))],
        [*graph.inputs, (2,), (6,)],
    )
    canonical = branch.canonical()
    for seed in range(30):
        other = shuffled(branch, seed)
        assert other == branch and hash(other) == hash(branch)
        again = other.canonical()
        assert again.nodes == canonical.nodes and again.inputs == canonical.inputs
    assert graph != branch and graph != "a graph"


def test_wiring_attributes_and_shapes_play_a_part() -> None:
    graph = residual()
    rewired = ComputeGraph(graph.nodes, [*graph.inputs[:4], (2, 3), graph.inputs[5]])
    assert len({graph, rewired, residual(kernel=1)}) == 3


def test_names_and_counts_of_parameters_play_no_part() -> None:
    graph = residual()
    fewer = [
        Node(n.op, n.attributes, n.input_shapes, n.output_shape, n.weight_shape)
        for n in graph.nodes
    ]
    same = ComputeGraph(fewer, graph.inputs, names="abcdef")
    assert same == graph and same.parameters == 0


def test_tied_weights_count_once_and_follow_a_new_order() -> None:
    x = (1, 4, 8, 8)
    nodes = [Node.make("input", [], x), conv(x, 4), conv(x, 4), Node.make("output", [x], x)]
    graph = ComputeGraph(nodes, [(), (0,), (1,), (2,)], tied={2: 1})
    assert graph.parameters == 4 * 4 * 9
    assert [cost.parameters for cost in graph.costs] == [0, 144, 0, 0]
    assert graph.canonical().tied == {2: 1} and graph.canonical().parameters == 144
