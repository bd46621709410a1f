"""Recurrent layers: states handed on, projections, packed sequences, cells, and their files."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.flop_counter import FlopCounterMode

from nni_aiop.errors import GraphError
from nni_aiop.graphs import ComputeGraph, from_module, from_onnx

Shape = tuple[int, ...]
KINDS = [nn.LSTM, nn.GRU, nn.RNN]
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def read(net: nn.Module, *shapes: Shape) -> ComputeGraph:
    """The graph, which says all, and survives being written."""
    graph = from_module(net, shapes)
    assert graph.others == ()
    assert graph.parameters == sum(p.numel() for p in net.parameters())
    assert ComputeGraph.from_json(json.loads(json.dumps(graph.to_json()))) == graph
    return graph


def counted(net: nn.Module, *shapes: Shape) -> float:
    """Multiply-adds as PyTorch counts them."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.to("meta")(*(torch.empty(shape, device="meta") for shape in shapes))
    return counter.get_total_flops() / 2


def state(kind: Any, h: Tensor, c: Tensor | None = None) -> Any:
    return (h, h if c is None else c) if kind in (nn.LSTM, nn.LSTMCell) else h


class Translator(nn.Module):
    """A decoder that starts where an encoder ends."""

    def __init__(self, kind: Any, *, batch_first: bool = True, **options: Any) -> None:
        super().__init__()
        self.encoder = kind(8, 16, batch_first=batch_first, **options)
        self.decoder = kind(8, 16, batch_first=batch_first, **options)
        width = options.get("proj_size", 16) * (1 + options.get("bidirectional", False))
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor, y: Tensor) -> Any:
        _, last = self.encoder(x)
        return self.head(self.decoder(y, last)[0])


def test_a_state_is_followed() -> None:
    graph = read(Translator(nn.LSTM), (2, 7, 8), (2, 5, 8))
    assert (graph.macs, graph.parameters) == (37_664, 3_413)
    assert graph.operations["cell_state"] == 1
    place = next(p for p, n in enumerate(graph.nodes) if n.op == "lstm" and len(n.input_shapes) > 1)
    assert graph.nodes[place].input_shapes == ((5, 2, 8), (1, 2, 16), (1, 2, 16))
    assert [graph.nodes[p].op for p in graph.inputs[place][1:]] == ["slice", "cell_state"]


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("kind", [*KINDS, "projected"])
def test_states_of_every_kind_are_followed(
    kind: Any, both: bool, layers: int, batch_first: bool, file_door: Callable[..., ComputeGraph]
) -> None:
    options: dict[str, Any] = {"num_layers": layers, "bidirectional": both}
    if kind == "projected":
        kind, options["proj_size"] = nn.LSTM, 3
    net = Translator(kind, batch_first=batch_first, **options)
    shapes = ((2, 7, 8), (2, 5, 8)) if batch_first else ((7, 2, 8), (5, 2, 8))
    graph = read(net, *shapes)
    ops = graph.operations
    assert ops[kind.__name__.lower()] == 2 * layers
    assert ops.get("cell_state", 0) == (layers if kind is nn.LSTM else 0)
    if "proj_size" not in options:
        assert file_door(net, *map(torch.zeros, shapes)) == graph
    assert graph.macs == counted(net, *shapes)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_sequences_without_a_batch(kind: Any, layers: int) -> None:
    net = Translator(kind, num_layers=layers, bidirectional=True)
    graph = read(net, (7, 8), (5, 8))
    assert graph.macs == counted(net, (7, 8), (5, 8))
    assert graph.nodes[-1].output_shape == (5, 5)


def test_projections() -> None:
    net = nn.LSTM(5, 16, proj_size=4)
    graph = read(net, (7, 3, 5))
    assert graph.macs == 13_440 == 21 * (4 * 16 * (5 + 4) + 16 * 4)
    node = next(node for node in graph.nodes if node.op == "lstm")
    assert (node["hidden"], node["projection"], node.output_shape) == (16, 4, (7, 3, 4))
    assert node.cost.flops == 2 * 13_440 + 21 * 16 * (4 * 4 + 5)
    shapes = [graph.nodes[p].output_shape for p in range(len(graph)) if graph.nodes[p].op != "lstm"]
    assert (1, 3, 16) in shapes and (1, 3, 4) in shapes
    deep = nn.LSTM(5, 16, 3, proj_size=4, bidirectional=True)
    assert read(deep, (7, 3, 5)).macs == counted(deep, (7, 3, 5))
    plain = next(node for node in read(nn.LSTM(5, 16), (7, 3, 5)).nodes if node.op == "lstm")
    assert plain.get("projection") is None


class Started(nn.Module):
    """Recurrent layers whose first state is given, learned, or zeros."""

    def __init__(self, kind: Any, how: str) -> None:
        super().__init__()
        self.how, self.kind = how, kind
        self.layers = kind(5, 16, 2)
        if how == "learned":
            self.h = nn.Parameter(torch.zeros(2, 1, 16))
            self.c = nn.Parameter(torch.zeros(2, 1, 16)) if kind is nn.LSTM else None

    def forward(self, x: Tensor, *given: Tensor) -> Any:
        if self.how == "zeros":
            h = c = x.new_zeros(2, x.shape[1], 16)
        elif self.how == "learned":
            h = self.h.expand(2, x.shape[1], 16).contiguous()
            c = None if self.c is None else self.c.expand(2, x.shape[1], 16).contiguous()
        else:
            h, c = given[0], given[-1]
        return self.layers(x, state(self.kind, h, c))


@pytest.mark.parametrize("kind", KINDS)
def test_states_that_are_constant_are_no_inputs(
    kind: Any, file_door: Callable[..., ComputeGraph]
) -> None:
    plain = read(kind(5, 16, 2), (7, 3, 5))
    assert read(Started(kind, "zeros"), (7, 3, 5)) == plain
    learned = read(Started(kind, "learned"), (7, 3, 5))
    assert learned == plain
    assert learned.parameters == plain.parameters + 32 * (1 + (kind is nn.LSTM))
    net = Started(kind, "given")
    shapes = [(7, 3, 5), (2, 3, 16), (2, 3, 16)][: 2 + (kind is nn.LSTM)]
    given = read(net, *shapes)
    assert given.operations["input"] == len(shapes) and given.macs == plain.macs
    assert file_door(net, *map(torch.zeros, shapes)) == given


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_sequence_behind_a_state(kind: Any) -> None:
    class Generator(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.start = nn.Parameter(torch.zeros(7, 1, 5))
            self.layer = kind(5, 16)

        def forward(self, h: Tensor) -> Any:
            return self.layer(self.start.expand(7, h.shape[1], 5), state(kind, h))[0]

    graph = read(Generator(), (1, 3, 16))
    assert graph.macs == 7 * 3 * GATES[kind.__name__] * 16 * (5 + 16)
    node = next(n for n in graph.nodes if n.op == kind.__name__.lower())
    assert node["operand"] == "left" and node.input_shapes[0] == (1, 3, 16)


class Packed(nn.Module):
    def __init__(self, kind: Any, lengths: list[int]) -> None:
        super().__init__()
        self.layers = kind(5, 16, 2, bidirectional=True, batch_first=True)
        self.lengths = lengths

    def forward(self, x: Tensor, *lengths: Tensor) -> Any:
        ends = lengths[0] if lengths else torch.tensor(self.lengths)
        rows = pack_padded_sequence(x, ends, batch_first=True)
        out, last = self.layers(rows)
        return pad_packed_sequence(out, batch_first=True, total_length=9)[0], last


@pytest.mark.parametrize("lengths", [[7, 5, 3], [7, 7, 7]])
@pytest.mark.parametrize("kind", KINDS)
def test_packed_sequences_have_no_padding(kind: Any, lengths: list[int]) -> None:
    graph = read(Packed(kind, lengths), (3, 7, 5))
    gates = GATES[kind.__name__] * 16
    assert graph.macs == sum(lengths) * 2 * gates * (5 + 16 + 32 + 16)
    shapes = [n.output_shape for n in graph.nodes if n.op == "output"]
    assert sorted(shapes)[:2] == [(3, 9, 32), (4, 3, 16)]
    with pytest.raises(GraphError, match="must not depend on the values of its data"):
        from_module(Packed(kind, []), [torch.zeros(3, 7, 5), torch.tensor(lengths)])


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_cells(kind: Any, file_door: Callable[..., ComputeGraph]) -> None:
    gates = GATES[kind.__name__.removesuffix("Cell")]

    class Loop(nn.Module):
        def __init__(self, given: bool) -> None:
            super().__init__()
            self.cell, self.given = kind(5, 16), given

        def forward(self, x: Tensor, *h: Tensor) -> Tensor:
            last = state(kind, h[0]) if h else None
            steps = []
            for step in range(x.shape[0]):
                last = self.cell(x[step], last)
                steps.append(last[0] if isinstance(last, tuple) else last)
            return torch.stack(steps)

    for steps in (1, 4):
        net = Loop(given=True)
        shapes = (steps, 3, 5), (3, 16)
        graph = read(net, *shapes)
        assert graph.macs == steps * 3 * gates * 16 * (5 + 16)
        if kind is not nn.GRUCell:
            assert file_door(net, *map(torch.zeros, shapes)) == graph
        assert graph.macs == counted(net, *shapes)
        # What is made of zeros alone does not depend on the input: one product less.
        assert read(Loop(given=False), (steps, 3, 5)).macs == graph.macs - 3 * gates * 16 * 16


# --- operators of files --------------------------------------------------------------------------


def model(
    kind: str,
    held: dict[str, Shape],
    data: dict[str, Shape],
    lengths: list[int] | None = None,
    **options: Any,
) -> Any:
    """A recurrent operator; places: x, w, r, b, lengths, h, c, p."""
    order = ["x", "w", "r", "b", "lengths", "h", "c", "p"][: 8 if kind == "LSTM" else 6]
    given = {*held, *data} | ({"lengths"} if lengths else set())
    inputs = [name if name in given else "" for name in order]
    outputs = ["y", "yh", "yc"][: 3 if kind == "LSTM" else 2]
    node = helper.make_node(kind, inputs, outputs, hidden_size=16, **options)
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in data.items()]
    outs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs]
    tensors = [numpy_helper.from_array(np.full(s, 0.5, np.float32), n) for n, s in held.items()]
    if lengths:
        tensors.append(numpy_helper.from_array(np.array(lengths, np.int32), "lengths"))
    graph = helper.make_graph([node], "net", infos, outs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


@pytest.mark.parametrize(
    ("place", "shape", "told"), [("b", (1, 96), "(1, 96)"), ("c", (1, 3, 24), "[16, 24]")]
)
def test_a_layer_whose_parts_do_not_fit_is_refused(place: str, shape: Shape, told: str) -> None:
    """Such as the newer exporter makes of an LSTM with projections, whose weights it leaves out."""
    held = {"w": (1, 64, 5), "r": (1, 64, 16), "b": (1, 128)}
    data = {"x": (7, 3, 5), "h": (1, 3, 16), "c": (1, 3, 16)}
    (held if place == "b" else data)[place] = shape
    with pytest.raises(GraphError, match=r"must fit 16 hidden units") as caught:
        from_onnx(model("LSTM", held, data))
    assert told in str(caught.value)


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_operators_read_their_states(kind: str, directions: int, layout: int) -> None:
    rows = GATES[kind] * 16
    held = {"w": (directions, rows, 5), "r": (directions, rows, 16), "b": (directions, 2 * rows)}
    start = (3, directions, 16) if layout else (directions, 3, 16)
    data = {"x": (3, 7, 5) if layout else (7, 3, 5), "h": start}
    if kind == "LSTM":
        data["c"] = start
    options = {"layout": layout, "direction": "bidirectional" if directions == 2 else "forward"}
    graph = from_onnx(model(kind, held, data, **options))
    assert graph.macs == 21 * directions * rows * (5 + 16)
    assert graph.parameters == directions * rows * (5 + 16 + 2)
    node = next(n for n in graph.nodes if n.op == kind.lower())
    assert node.input_shapes == ((7, 3, 5), *[(directions, 3, 16)] * (len(data) - 1))
    ends = [n.output_shape for n in graph.nodes if n.op == "output"]
    whole = (3, 7, directions, 16) if layout else (7, directions, 3, 16)
    assert sorted(ends) == sorted([whole, *[start] * (len(data) - 1)])
    if kind == "LSTM":
        assert graph.operations["cell_state"] == 1


def test_weights_that_do_not_fit_are_refused() -> None:
    held = {"w": (1, 64, 5), "r": (1, 64, 4)}
    with pytest.raises(GraphError, match="a row for each gate and hidden unit"):
        from_onnx(model("LSTM", held, {"x": (7, 3, 5)}))


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_sequences_that_end_early(kind: str, layout: int) -> None:
    rows = GATES[kind] * 16
    held = {"w": (2, rows, 5), "r": (2, rows, 16)}
    x = {"x": (3, 7, 5) if layout else (7, 3, 5)}
    options = {"direction": "bidirectional", "layout": layout}
    whole = from_onnx(model(kind, held, x, **options))
    assert from_onnx(model(kind, held, x, lengths=[7, 7, 7], **options)) == whole
    ended = from_onnx(model(kind, held, x, lengths=[7, 5, 3], **options))
    assert ended.macs == 15 * 2 * rows * 21
    shapes = [[n.output_shape for n in g.nodes if n.op == "output"] for g in (whole, ended)]
    assert sorted(shapes[0]) == sorted(shapes[1])


def test_peepholes_are_parameters() -> None:
    held = {"w": (1, 64, 5), "r": (1, 64, 16), "p": (1, 48), "h": (1, 3, 16)}
    graph = from_onnx(model("LSTM", held, {"x": (7, 3, 5)}))
    assert graph.parameters == 64 * 21 + 48 + 48
    assert graph.macs == 21 * 64 * 21
    node = next(n for n in graph.nodes if n.op == "lstm")
    assert (node["bias"], node.weight_shape, node.input_shapes) == (False, (64, 5), ((7, 3, 5),))


def test_weights_that_are_computed_are_said() -> None:
    class Hyper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.LSTM(5, 16)

        def forward(self, x: Tensor, scale: Tensor) -> Any:
            weights = {name: p * scale for name, p in self.layer.named_parameters()}
            return torch.func.functional_call(self.layer, weights, (x,))[0]

    graph = from_module(Hyper(), [(7, 3, 5), (1,)])
    # PyTorch writes such a layer out in products, which are counted.
    assert (graph.others, graph.macs) == ((), 21 * 64 * 21)
    data = {"x": (7, 3, 5), "w": (1, 64, 5), "r": (1, 64, 16)}
    assert from_onnx(model("LSTM", {}, data)).others == ("lstm",)
