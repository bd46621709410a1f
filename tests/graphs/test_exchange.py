"""Compute graphs as JSON and networkx graphs: everything comes back, and bad content is refused."""

from __future__ import annotations

import copy
import gzip
import json
import random
from pathlib import Path
from typing import Any

import networkx
import pytest
from torch import nn

from nni_aiop.errors import FileFormatError, GraphError
from nni_aiop.graphs import ComputeGraph, Node, from_module


class Small(nn.Module):
    """A bit of everything, with a convolution that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.SiLU())
        self.shared = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.pool = nn.MaxPool2d(2)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear")
        self.norm = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.recurrent = nn.LSTM(8, 5, bidirectional=True)
        self.transposed = nn.ConvTranspose2d(8, 4, 2, 2)
        self.head = nn.Linear(10, 7)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        y = self.shared(self.shared(x)) + x * x
        y = nn.functional.pad(y, (1, 1, 0, 0), mode="reflect")[..., 1:-1]
        z = self.up(self.pool(y))
        tokens = self.norm((y + z).flatten(2).transpose(1, 2))
        tokens, _ = self.attention(tokens, tokens, tokens)
        sequence, _ = self.recurrent(tokens.transpose(0, 1))
        return self.head(sequence.mean(0)).softmax(-1), self.transposed(y.sigmoid())


@pytest.fixture(scope="module")
def graph() -> ComputeGraph:
    return from_module(Small(), (2, 3, 16, 16))


def assert_same(a: ComputeGraph, b: ComputeGraph) -> None:
    assert a == b
    assert (a.nodes, a.inputs, a.names, a.tied) == (b.nodes, b.inputs, b.names, b.tied)
    assert a.parameters == b.parameters and a.cost == b.cost


def test_json_there_and_back(graph: ComputeGraph) -> None:
    assert graph.tied and graph.parameters == sum(p.numel() for p in Small().parameters())
    text = json.dumps(graph.to_json(), allow_nan=False)
    assert_same(ComputeGraph.from_json(json.loads(text)), graph)


@pytest.mark.parametrize("name", ["graph.json", "graph.json.gz"])
def test_files_there_and_back(graph: ComputeGraph, tmp_path: Path, name: str) -> None:
    path = graph.save(tmp_path / "folder" / name)
    assert_same(ComputeGraph.load(path), graph)
    assert path.read_bytes()[:2] == (b"\x1f\x8b" if name.endswith("gz") else b'{"')
    first = path.read_bytes()
    graph.save(path)
    assert path.read_bytes() == first


def test_networkx_there_and_back(graph: ComputeGraph) -> None:
    found = graph.to_networkx()
    assert isinstance(found, networkx.MultiDiGraph) and networkx.is_directed_acyclic_graph(found)
    assert found.number_of_edges() == len(graph.edges)
    assert_same(ComputeGraph.from_networkx(found), graph)
    named = networkx.relabel_nodes(found, {place: f"n{place}" for place in found})
    for _, record in named.nodes(data=True):
        if "tied" in record:
            record["tied"] = f"n{record['tied']}"
    assert_same(ComputeGraph.from_networkx(named), graph)


def test_networkx_graphs_in_any_order_and_without_arguments() -> None:
    chain = from_module(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), (2, 4))
    mirrored = networkx.DiGraph()
    found = chain.to_networkx()
    mirrored.add_nodes_from(reversed(list(found.nodes(data=True))))
    mirrored.add_edges_from((a, b) for a, b, _ in found.edges)
    again = ComputeGraph.from_networkx(mirrored)
    assert again == chain and again.names == chain.names


def test_networkx_graphs_that_are_none_are_refused(graph: ComputeGraph) -> None:
    cyclic = graph.to_networkx()
    cyclic.add_edge(len(graph) - 1, 1, argument=0)
    with pytest.raises(GraphError, match="must have no cycles"):
        ComputeGraph.from_networkx(cyclic)
    with pytest.raises(GraphError, match=r"directed networkx graph, but got MultiGraph"):
        ComputeGraph.from_networkx(graph.to_networkx().to_undirected())
    shapeless = graph.to_networkx()
    del shapeless.nodes[1]["output_shape"]
    with pytest.raises(FileFormatError, match=r"node 1 must have the field 'output_shape'"):
        ComputeGraph.from_networkx(shapeless)
    untied = graph.to_networkx()
    untied.nodes[3]["tied"] = "nobody"
    with pytest.raises(GraphError, match="those of a node, but got 'nobody'"):
        ComputeGraph.from_networkx(untied)


def refused(data: Any) -> str:
    with pytest.raises((FileFormatError, GraphError)) as caught:
        ComputeGraph.from_json(data)
    text = str(caught.value)
    assert "\n" not in text and text.endswith(".")
    return text


def test_other_versions_and_formats_are_refused(graph: ComputeGraph) -> None:
    data = graph.to_json()
    assert "version of a compute graph must be 2, but got 1" in refused(data | {"version": 1})
    assert "format must be" in refused(data | {"format": "onnx"})
    assert "format must be" in refused([1, 2])
    assert "nodes must be a list" in refused(data | {"nodes": None})
    assert "tied weights must be a list of pairs" in refused(data | {"tied": [[1]]})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("op", "convolve", "of the vocabulary or other:NAME, but got 'convolve'"),
        ("op", "linear", "an attribute of node 1 (linear) must be absent"),
        ("attributes", [], "attributes of node 1 must be a record"),
        ("attributes", {}, "must be an operation whose shapes and attributes fit"),
        ("input_shapes", [[1, 3, None, 16]], "input shapes of node 1 must be lists of whole"),
        ("input_shapes", [[1, 3]], "must be an operation whose shapes and attributes fit"),
        ("output_shape", None, "output shape of node 1 must be a list"),
        ("output_shape", [2**40, 2**40], "output shape of node 1 must be a list"),
        ("weight_shape", [8, 3], "must be an operation whose shapes and attributes fit"),
        ("parameters", -1, "parameters of node 1 must be a whole number"),
        ("parameters", True, "parameters of node 1 must be a whole number"),
        ("inputs", [1], "node 1 (conv) reads node 1"),
        ("inputs", [5], "no cycles"),
        ("inputs", "0", "inputs of node 1 must be a list"),
        ("inputs", [0, 0], "one input shape for each input"),
        ("name", 7, "name of node 1 must be a text"),
    ],
)
def test_bad_fields_are_refused(graph: ComputeGraph, field: str, value: Any, message: str) -> None:
    data = copy.deepcopy(graph.to_json())
    assert data["nodes"][1]["op"] == "conv"
    data["nodes"][1][field] = value
    assert message in refused(data)
    del data["nodes"][1][field]
    refused(data)


def chain(*nodes: Node) -> dict[str, Any]:
    """JSON of operations, each of which reads the one before it."""
    first = Node.make("input", [], nodes[0].input_shapes[0])
    end = Node.make("output", [nodes[-1].output_shape], nodes[-1].output_shape)
    every = [first, *nodes, end]
    return ComputeGraph(every, [(), *[(i,) for i in range(len(every) - 1)]]).to_json()


X = (2, 6, 4, 4)
CONV = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1}
OPERATIONS_THAT_FIT = {
    "relu": Node.make("relu", [X], X),
    "seen otherwise": Node.make("sigmoid", [(12, 16)], (2, 96)),
    "permute": Node.make("permute", [X], (4, 4, 6, 2), order=(2, 3, 1, 0)),
    "softmax": Node.make("softmax", [X], X, axis=1),
    "batch_norm": Node.make("batch_norm", [X], X, weight_shape=(6,), parameters=12),
    "elementwise": Node.make("elementwise", [X], X, function="exp"),
    "grows": Node.make("elementwise", [(2, 1)], (2, 7), function="pow", operand="right"),
    "reduce": Node.make("reduce", [X], (2, 6), kind="mean", axes=(2, 3)),
    "global_avg_pool": Node.make("global_avg_pool", [X], (2, 6)),
    "slice": Node.make("slice", [X], (2, 3, 4, 4), ranges=((1, 0, 6, 2),)),
    "reversed": Node.make("slice", [X], X, ranges=((3, 3, -1, -1),)),
    "pad": Node.make("pad", [X], (2, 6, 4, 9), padding=((3, 2, 3),), mode="constant"),
    "expand": Node.make("expand", [X], (6, 6, 4, 4)),
    "concat": Node.make("concat", [X], (2, 7, 4, 4), axis=1, weight_shape=(1, 4, 4)),
    "add": Node.make("add", [(6, 1, 4)], (2, 6, 5, 4), operand="constant", weight_shape=X),
    "linear": Node.make("linear", [(2, 6)], (2, 3), weight_shape=(3, 6), parameters=18),
    "max_pool": Node.make("max_pool", [X], (2, 6, 2, 2), kernel=(2, 2), stride=(2, 2),
                          padding=((0, 0), (0, 0))),
    "conv": Node.make("conv", [X], (2, 5, 2, 2), weight_shape=(5, 6, 3, 3), kernel=(3, 3), **CONV),
    "conv_transpose": Node.make("conv_transpose", [X], (2, 5, 6, 6), weight_shape=(6, 5, 3, 3),
                                kernel=(3, 3), **CONV),
    "resize": Node.make("resize", [X], (2, 6, 9, 1), mode="linear"),
    "embedding": Node.make("embedding", [(2, 5)], (2, 5, 8), weight_shape=(100, 8),
                           parameters=800),
    "lstm": Node.make("lstm", [(5, 2, 8)], (5, 2, 4), weight_shape=(16, 8), hidden=4, directions=1),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATIONS_THAT_FIT)
def test_what_comes_out_must_come_from_the_entries_of_the_input(name: str) -> None:
    node = OPERATIONS_THAT_FIT[name]
    data = chain(node)
    assert ComputeGraph.from_json(data).nodes[1] == node
    shape = list(node.output_shape)
    axis = 1 if name == "add" else 0  # a constant term may bring further leading axes
    shape[axis] = 11 * shape[axis] + 1
    data["nodes"][1]["output_shape"] = shape
    data["nodes"][2]["input_shapes"] = [shape]
    data["nodes"][2]["output_shape"] = shape
    assert "must be an operation whose shapes and attributes fit" in refused(data)
    more = chain(node)
    more["nodes"][0]["output_shape"] = [7, *more["nodes"][0]["output_shape"]]
    assert "must read as many entries as its inputs have" in refused(more)


@pytest.mark.parametrize("name", ["relu", "permute", "slice", "max_pool", "expand", "softmax"])
def test_learned_numbers_of_what_has_none_are_refused(name: str) -> None:
    for field, value in (("parameters", 7), ("weight_shape", [3])):
        data = chain(OPERATIONS_THAT_FIT[name])
        data["nodes"][1][field] = value
        assert f"node 1 ({OPERATIONS_THAT_FIT[name].op}) must have no learned numbers" in refused(
            data
        )
        network = ComputeGraph.from_json(chain(OPERATIONS_THAT_FIT[name])).to_networkx()
        network.nodes[1][field] = value
        with pytest.raises(FileFormatError, match="must have no learned numbers"):
            ComputeGraph.from_networkx(network)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"1" * 5000, b"null", b'{"format": NaN}'],
    ids=["empty", "cut", "no text", "deep", "long", "null", "nan"],
)
@pytest.mark.parametrize("name", ["x.json", "x.json.gz"])
def test_broken_files_are_refused(tmp_path: Path, content: bytes, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    with pytest.raises(FileFormatError, match=r"must (hold|be)") as caught:
        ComputeGraph.load(path)
    assert "\n" not in str(caught.value)


def test_truncated_archives_are_refused(graph: ComputeGraph, tmp_path: Path) -> None:
    path = graph.save(tmp_path / "graph.json.gz")
    content = path.read_bytes()
    for length in range(0, len(content), 97):
        path.write_bytes(content[:length])
        with pytest.raises(FileFormatError, match="must hold a compute graph"):
            ComputeGraph.load(path)
    with pytest.raises(FileNotFoundError):
        ComputeGraph.load(tmp_path / "none.json")


VALUES = (
    None,
    True,
    -1,
    0,
    1,
    3,
    2**62,
    1e300,
    "",
    "conv",
    "slice",
    [],
    [0],
    [[1, 1]],
    {},
    {"a": 1},
)


def mutate(data: Any, generator: random.Random) -> None:
    """One random change somewhere in nested lists and dictionaries."""
    holder = data
    while True:
        if isinstance(holder, list):
            keys: list[Any] = list(range(len(holder)))
        else:
            keys = list(holder)
        key = generator.choice(keys)
        inner = holder[key]
        if isinstance(inner, (list, dict)) and inner and generator.random() < 0.85:
            holder = inner
            continue
        if generator.random() < 0.3:
            del holder[key]
        else:
            holder[key] = generator.choice(VALUES)
        return


def test_whatever_is_not_refused_can_be_used(graph: ComputeGraph) -> None:
    generator = random.Random(0)
    text = json.dumps(graph.to_json())
    accepted = 0
    for _ in range(3000):
        data = json.loads(text)
        for _ in range(generator.randint(1, 2)):
            mutate(data, generator)
        try:
            found = ComputeGraph.from_json(data)
        except (FileFormatError, GraphError) as err:
            assert "\n" not in str(err)
            continue
        accepted += 1
        assert found.flops >= 2 * found.macs and found.peak_memory() >= 0
        found.stages()
        assert found.to_pyg().validate()
        assert found.to_dot() and str(found.diff(graph)) and str(found.nodes)
        assert_same(ComputeGraph.from_json(json.loads(json.dumps(found.to_json()))), found)
    assert accepted > 50
