"""ComputeGraph.diff: what one graph has and the other has not."""

from __future__ import annotations

import importlib.util
from itertools import pairwise
from pathlib import Path
from types import ModuleType

from torch import nn

from nni_aiop.graphs import ComputeGraph, Node, from_module


def sibling(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


VALUE = sibling("test_graph_value")


def chain(*widths: int, kernel: int = 3) -> ComputeGraph:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Conv2d(before, after, kernel, padding=kernel // 2), nn.ReLU()]
    return from_module(nn.Sequential(*layers), (1, widths[0], 8, 8))


def test_equal_graphs_have_no_difference() -> None:
    graph = VALUE.residual()
    for seed in range(10):
        found = graph.diff(VALUE.shuffled(graph, seed))
        assert not found and len(found.matched) == len(graph)
        assert str(found) == "The graphs are equal: 6 nodes."
        assert all(graph.nodes[i] == found.b.nodes[j] for i, j in found.matched)


def test_a_layer_more() -> None:
    found = chain(3, 4, 4, 4).diff(chain(3, 4, 4, 4, 4))
    assert found and not found.only_a and not found.changed
    assert [found.b.nodes[j].op for j in found.only_b] == ["conv", "relu"]
    assert len(found.matched) == len(found.a)
    assert str(found).splitlines()[0] == "8 nodes against 10, 8 of them equal"
    back = found.b.diff(found.a)
    assert len(back.only_a) == 2 and not back.only_b and not back.changed


def test_a_layer_of_another_kind() -> None:
    a, b = VALUE.residual(3), VALUE.residual(1)
    found = a.diff(b)
    assert found.changed == ((3, 3),) and len(found.matched) == 5
    assert not (found.only_a or found.only_b or found.rewired)
    assert str(found).splitlines()[1] == (
        "~ conv 'conv_3': kernel (3, 3) -> (1, 1), "
        "padding ((1, 1), (1, 1)) -> ((0, 0), (0, 0)), weight (4, 4, 3, 3) -> (4, 4, 1, 1)"
    )


def test_other_wiring() -> None:
    graph = VALUE.residual()
    rewired = ComputeGraph(graph.nodes, [*graph.inputs[:4], (2, 3), graph.inputs[5]])
    found = graph.diff(rewired)
    assert found.rewired == ((4, 4),) and len(found.matched) == 6
    assert str(found).splitlines()[1:] == [
        "> add 'add_4' reads relu 'relu_2', conv 'conv_3' instead of conv 'conv_1', conv 'conv_3'"
    ]


def test_nothing_in_common() -> None:
    x, y = (1, 8), (2, 9)
    a = ComputeGraph([Node.make("input", [], x), Node.make("output", [x], x)], [(), (0,)])
    b = ComputeGraph([Node.make("input", [], y), Node.make("relu", [y], y)], [(), (0,)])
    found = a.diff(b)
    assert not found.matched and found.only_a == (0, 1) and found.only_b == (0, 1)
    assert not ComputeGraph([], []).diff(ComputeGraph([], []))
    assert ComputeGraph([], []).diff(a).only_b == (0, 1)


def test_the_names_of_modules_are_told() -> None:
    shown = str(chain(3, 4, 4).diff(chain(3, 4, 6)))
    assert "~ conv '2': output (1, 4, 8, 8) -> (1, 6, 8, 8)" in shown
    assert "~ relu '3': inputs" in shown
