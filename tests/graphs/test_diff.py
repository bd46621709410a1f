"""ComputeGraph.diff: what one graph has and the other has not."""

from __future__ import annotations

import importlib.util
import io
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from nni_aiop.graphs import ComputeGraph, Node, from_module, from_onnx


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


def exported(module: nn.Module, shape: tuple[int, ...], dynamo: bool) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (torch.zeros(shape),), file, dynamo=dynamo, verbose=False)
    return file.getvalue()


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


class Twice(nn.Module):
    """Two layers of one kind, or one layer used twice."""

    def __init__(self, layer: Callable[[], nn.Module], *, tied: bool) -> None:
        super().__init__()
        self.first = layer()
        self.second = self.first if tied else layer()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.second(self.first(x).relu())
        return found


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(8, 8), (2, 8)),
    "linear of tokens": (lambda: nn.Linear(8, 8, bias=False), (2, 5, 8)),
    "conv": (lambda: nn.Conv2d(8, 8, 3, padding=1), (1, 8, 6, 6)),
    "conv and norm": (
        lambda: nn.Sequential(nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8)),
        (1, 8, 6, 6),
    ),
    "norm": (lambda: nn.LayerNorm(8), (2, 8)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_shared_weights_are_a_difference(name: str) -> None:
    layer, shape = LAYERS[name]
    tied, two = (from_module(Twice(layer, tied=tied), shape) for tied in (True, False))
    assert two.parameters == 2 * tied.parameters
    assert tied != two and len({tied, two, tied.canonical()}) == 2
    found = tied.diff(two)
    assert found and len(found.learned) == 2 and len(found.matched) == len(tied)
    assert "equal" not in str(found).replace("of them equal", "")
    assert f"{tied.parameters} learned numbers against {two.parameters}" in str(found)
    assert "shared with" in str(found) and two.diff(tied)
    assert not tied.diff(from_module(Twice(layer, tied=True), shape))
    again = [ComputeGraph.from_json(tied.to_json()), ComputeGraph.from_networkx(tied.to_networkx())]
    for other in again:
        assert other == tied and not other.diff(tied)


@pytest.mark.parametrize("name", ["linear", "conv"])
@pytest.mark.parametrize("dynamo", [False, True])
def test_shared_weights_are_a_difference_in_a_file_too(name: str, dynamo: bool) -> None:
    layer, shape = LAYERS[name]
    modules = [Twice(layer, tied=tied).eval() for tied in (True, False)]
    tied, two = (from_onnx(exported(module, shape, dynamo)) for module in modules)
    assert tied == from_module(modules[0], shape) and two == from_module(modules[1], shape)
    assert tied != two and tied.diff(two).learned
    assert two.parameters == 2 * tied.parameters


def test_who_shares_with_whom_is_a_difference() -> None:
    x = (1, 4)

    def graph(tied: dict[int, int]) -> ComputeGraph:
        layer = Node.make("linear", [x], x, weight_shape=(4, 4), parameters=16)
        ends = Node.make("input", [], x), Node.make("output", [x], x)
        nodes = [ends[0], *[layer] * 4, ends[1]]
        return ComputeGraph(nodes, [(), *[(i,) for i in range(5)]], tied=tied)

    pairs, crossed = graph({2: 1, 4: 3}), graph({3: 1, 4: 2})
    assert pairs.parameters == crossed.parameters == 32
    assert pairs != crossed and len(pairs.diff(crossed).learned) == 4
    # One group, however it is written.
    assert graph({2: 1, 3: 1}) == graph({2: 1, 3: 2}) != graph({2: 1})
    relu = [*pairs.nodes[:1], *[Node.make("relu", [x], x)] * 4, *pairs.nodes[5:]]
    assert ComputeGraph(relu, pairs.inputs, tied={2: 1}) == ComputeGraph(relu, pairs.inputs)


def test_counts_of_learned_numbers_are_told_where_graphs_are_equal() -> None:
    bare, whole = (
        from_module(nn.Sequential(nn.Conv2d(3, 4, 1, bias=bias)), (1, 3, 8, 8))
        for bias in (False, True)
    )
    assert bare == whole  # a bias is no operation
    found = bare.diff(whole)
    assert found and found.learned == ((1, 1),)
    assert str(found).splitlines() == [
        "3 nodes against 3, 3 of them equal; 12 learned numbers against 16",
        "# conv '0' learned 16 instead of 12",
    ]
