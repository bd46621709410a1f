"""Pictures of compute graphs: that they can be drawn, what is folded, Graphviz's language."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread
from torch import nn

from nni_aiop.errors import GraphError
from nni_aiop.graphs import ComputeGraph, Node, _picture, from_module


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Any) -> Any:
        return (x + self.norm(self.conv(x))).relu()


def network(blocks: int = 5) -> ComputeGraph:
    stem = [nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU()]
    body = [Block(8) for _ in range(blocks)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)]
    return from_module(nn.Sequential(*stem, *body, *head), (1, 3, 32, 32))


def drawn(graph: ComputeGraph, tmp_path: Path) -> tuple[int, int]:
    path = graph.draw(tmp_path / "folder" / "graph.png", title="a network")
    height, width, _ = imread(path).shape
    return width, height


def test_repeated_parts_are_drawn_once() -> None:
    graph = network()
    columns, boxes, box_of = _picture._columns(graph)
    assert [column.stage.name for column in columns] == ["1/1", "1/2", "head"]
    assert [len(column.boxes) for column in columns] == [1, 3, 3]
    ((first, last, times),) = columns[1].folds
    assert (first, last, times) == (1, 2, 5)
    assert [[graph.nodes[p].op for p in box.places] for box in columns[1].boxes] == [
        ["conv", "relu"],
        ["conv"],
        ["add", "relu"],
    ]
    assert len(boxes) == 7 and set(box_of) == set(range(7))


def test_repeats() -> None:
    assert _picture._repeats([1, 2, 1, 2, 1, 2, 3]) == [(0, 2, 3), (6, 1, 1)]
    assert _picture._repeats([1, 1, 1, 1]) == [(0, 1, 4)]
    assert _picture._repeats([1, 2, 3]) == [(0, 1, 1), (1, 1, 1), (2, 1, 1)]
    assert _picture._repeats([]) == []


def test_pictures(tmp_path: Path) -> None:
    width, height = drawn(network(), tmp_path)
    assert 600 < width < 2000 and 300 < height < 1500
    assert drawn(network(50), tmp_path) == (width, height), "repeats take no room"


def test_pictures_of_large_networks_count_operations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_picture, "_MOST_BOXES", 5)
    width, height = drawn(network(), tmp_path)
    assert 600 < width < 2000 and 300 < height < 1500


def test_pictures_of_odd_graphs(tmp_path: Path) -> None:
    x = (1, 4)
    nodes = [
        Node.make("input", [], x),
        Node.make("other:sort", [x], x),
        Node.make("add", [x, x], x),
        Node.make("output", [x], x),
    ]
    assert drawn(ComputeGraph(nodes, [(), (0,), (1, 1), (2,)]), tmp_path)
    with pytest.raises(GraphError, match="at least one node"):
        drawn(ComputeGraph([], []), tmp_path)
    assert "{" in ComputeGraph([], []).to_dot()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50", "swin_tiny_patch4_window7_224", "inception_v3"])
def test_pictures_of_timm(name: str, tmp_path: Path) -> None:
    from benchmarks._timm import create, input_shape

    net = create(name)
    width, height = drawn(from_module(net, input_shape(net)), tmp_path)
    assert width < 6000 and height < 3000


def test_graphviz() -> None:
    graph = network(1)
    text = graph.to_dot()
    assert text.startswith("digraph network {\n") and text.endswith("}\n")
    assert len(re.findall(r"^    n\d+ \[label=", text, flags=re.M)) == len(graph)
    assert len(re.findall(r"^  n\d+ -> n\d+;$", text, flags=re.M)) == len(graph.edges)
    assert text.count("subgraph cluster_") == len(graph.stages())
    assert 'label="conv 3×3 /2 3→8\\n1×8×16×16"' in text
    assert text.count("{") == text.count("}")


def test_graphviz_quotes_what_people_write() -> None:
    x = (1, 4)
    nodes = [Node.make("input", [], x), Node.make('other:"a\\b"\n', [x], x)]
    text = ComputeGraph(nodes, [(), (0,)], names=['"', "\\"]).to_dot()
    assert 'label="other:\\"a\\\\b\\"\\n\\n4"' in text.replace("1×4", "4")
    assert 'tooltip="\\": input' in text and 'tooltip="\\\\: other' in text


def test_svg_shows_each_box_once_with_its_fold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from xml.etree import ElementTree

    def texts(graph: ComputeGraph, title: str | None = None) -> list[str]:
        root = ElementTree.fromstring(graph.to_svg(title=title))
        return [str(e.text) for e in root.iter("{http://www.w3.org/2000/svg}text")]

    graph = network()
    shown = texts(graph, title="<a> & b")
    assert shown[0].startswith("<a> & b: ") and f"{len(graph)} nodes" in shown[0]
    assert shown.count("conv 3×3 8→8") == 1 and "×5" in shown
    assert shown.count("add") == 1 and "relu" in shown, "what follows stands in its box"
    assert {"1/1", "1/2", "head"} <= set(shown)
    assert graph.to_svg() == network().to_svg()
    monkeypatch.setattr("nni_aiop.graphs._picture._MOST_BOXES", 3)
    assert "conv ×6" in texts(network())
    with pytest.raises(GraphError, match="at least one node"):
        ComputeGraph([], []).to_svg()
