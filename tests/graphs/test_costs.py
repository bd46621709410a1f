"""Costs of compute graphs: by hand, against PyTorch's and fvcore's counters, as published."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks._timm import create, input_shape
from nni_aiop.benchmarks import load_nas_bench_201_csv, load_nas_bench_mr
from nni_aiop.benchmarks.ofa_mbv3 import load_ofa_mbv3
from nni_aiop.graphs import ComputeGraph, Cost, Node, _costs, from_module, short
from nni_aiop.search_spaces import mobilenetv3, multi_resolution, nasbench201

WINDOW = {"kernel": (3, 3), "stride": (1, 1), "padding": ((1, 1), (1, 1))}
CONV = WINDOW | {"dilation": (1, 1), "groups": 1}
X = (2, 8, 4, 4)  # 256 entries


def of(op: str, inputs: Any = (X,), output: Any = X, **more: Any) -> tuple[int, int]:
    cost = Node.make(op, inputs, output, **more).cost
    return cost.macs, cost.flops


# --- by hand ------------------------------------------------------------------------------------


def test_convolutions() -> None:
    out = (2, 6, 4, 4)
    macs = 2 * 6 * 16 * 8 * 9
    assert of("conv", output=out, weight_shape=(6, 8, 3, 3), **CONV) == (macs, 2 * macs)
    depthwise = CONV | {"groups": 8}
    assert of("conv", weight_shape=(8, 1, 3, 3), **depthwise) == (256 * 9, 2 * 256 * 9)
    # A weight that is computed from data is the last input.
    assert of("conv", [X, (6, 8, 3, 3)], out, **CONV) == (macs, 2 * macs)
    up = CONV | {"kernel": (2, 2), "stride": (2, 2)}
    macs = 256 * 5 * 4
    found = of("conv_transpose", output=(2, 5, 8, 8), weight_shape=(8, 5, 2, 2), **up)
    assert found == (macs, 2 * macs)


def test_products() -> None:
    assert of("linear", [(6, 8)], (6, 3), weight_shape=(3, 8)) == (144, 288)
    assert of("matmul", [(2, 3, 4), (2, 4, 5)], (2, 3, 5)) == (120, 240)
    assert of("matmul", [(2, 3, 4)], (2, 3, 5), weight_shape=(2, 4, 5)) == (120, 240)
    assert of("matmul", [(2, 4, 5)], (2, 3, 5), weight_shape=(2, 3, 4)) == (120, 240)
    # Where the first tensor is square to the output, the size of the constant tells its side.
    assert of("matmul", [(2, 3, 5)], (2, 3, 5), weight_shape=(5, 5)) == (150, 300)
    assert of("matmul", [(2, 3, 5)], (2, 3, 5), weight_shape=(3, 3)) == (90, 180)
    assert of("matmul", [(2, 3, 4)], (2, 3, 5)) == (120, 240)  # a constant that is not learned
    shapes = [(6, 5, 8), (6, 7, 8), (6, 7, 9)]
    scores = 6 * 5 * 7
    macs = scores * (8 + 9)
    found = of("attention", shapes, (6, 5, 9), mask=False)
    assert found == (macs, 2 * macs + 6 * scores)
    masked = of("attention", [*shapes, (5, 7)], (6, 5, 9), mask=True)
    assert masked == (macs, 2 * macs + 7 * scores)
    learned_queries = of("attention", shapes[1:], (6, 5, 9), mask=False)
    assert learned_queries == (macs, 2 * macs + 6 * scores)


def test_recurrent_layers() -> None:
    # 7 steps, batch 2, both directions, 5 hidden; reads 3 numbers a step.
    for op, gates, state in (("lstm", 4, 5), ("gru", 3, 5), ("rnn", 1, 0)):
        macs = 7 * 2 * 2 * gates * 5 * (3 + 5)
        extra = 7 * 2 * 2 * 5 * (4 * gates + state)
        attributes = {"hidden": 5, "directions": 2, "bias": True}
        found = of(op, [(7, 2, 3)], (7, 2, 10), weight_shape=(gates * 5, 3), **attributes)
        assert found == (macs, 2 * macs + extra)
        # Its weights are not learned, and have no biases.
        extra = 7 * 2 * 2 * 5 * (2 * gates + state)
        found = of(op, [(7, 2, 3)], (7, 2, 10), **attributes | {"bias": False})
        assert found == (macs, 2 * macs + extra)
    # 5 hidden numbers, of which 2 are handed on.
    macs = 7 * 2 * 2 * (4 * 5 * (3 + 2) + 5 * 2)
    attributes |= {"projection": 2}
    found = of("lstm", [(7, 2, 3)], (7, 2, 4), weight_shape=(20, 3), **attributes)
    assert found == (macs, 2 * macs + 7 * 2 * 2 * 5 * (4 * 4 + 5))


@pytest.mark.parametrize(
    ("flops", "op", "more"),
    [
        (256, "relu", {}),
        (256, "gelu", {}),
        (5 * 256, "softmax", {"axis": 1}),
        (2 * 256, "batch_norm", {"weight_shape": (8,)}),
        (5 * 256, "layer_norm", {}),
        (7 * 256, "layer_norm", {"weight_shape": (4,)}),
        (4 * 256, "rms_norm", {}),
        (9 * 256, "max_pool", WINDOW | {"dilation": (1, 1)}),
        (9 * 256, "avg_pool", WINDOW),
        (256, "global_avg_pool", {"output": (2, 8)}),
        (256, "reduce", {"output": (2, 8, 4), "kind": "mean", "axes": (3,)}),
        (2 * 256, "add", {"inputs": [X, X, X]}),
        (256, "add", {"operand": "constant"}),
        (256, "mul", {"inputs": [X, (2, 8, 1, 1)]}),
        (256, "elementwise", {"function": "exp"}),
        (0, "resize", {"output": (2, 8, 8, 8), "mode": "nearest"}),
        (2 * 4 * 1024, "resize", {"output": (2, 8, 8, 8), "mode": "linear"}),
        (2 * 16 * 1024, "resize", {"output": (2, 8, 8, 8), "mode": "cubic"}),
        (0, "concat", {"inputs": [X, X], "output": (2, 16, 4, 4), "axis": 1}),
        (0, "permute", {"order": (1, 0)}),
        (0, "other:sort", {}),
    ],
)
def test_single_operations(flops: int, op: str, more: dict[str, Any]) -> None:
    assert of(op, **more) == (0, flops)


def test_entries_written_and_moved() -> None:
    node = Node.make("batch_norm", [X], X, weight_shape=(8,), parameters=16)
    assert node.cost == Cost(0, 512, 16, 256, 256 + 16 + 256)
    assert Node.make("input", [], X).cost == Cost(activations=256)
    assert Node.make("output", [X], X).cost == Cost()
    assert Cost(1, 2, 3, 4, 5) + Cost(10, 20, 30, 40, 50) == Cost(11, 22, 33, 44, 55)


def test_peak_memory_of_a_schedule() -> None:
    # input (100) -> a (400) -> b (100) -> sum with the input (100) -> output; a tap reads a.
    small, large = (1, 100), (1, 400)
    nodes = [
        Node.make("input", [], small),
        Node.make("linear", [small], large, weight_shape=(400, 100), parameters=40_000),
        Node.make("linear", [large], small, weight_shape=(100, 400), parameters=40_000),
        Node.make("add", [small, small], small),
        Node.make("output", [small], small),
    ]
    graph = ComputeGraph(nodes, [(), (0,), (1,), (0, 2), (3,)])
    assert graph.peak_memory(1) == 100 + 400 + 100  # while the second layer runs
    assert graph.peak_memory() == 2400 and graph.peak_memory(2) == 1200
    assert graph.peak_memory(1, weights=True) == 80_600
    assert graph.activation_memory() == 4 * 700
    # An output stays to the end.
    tapped = ComputeGraph(
        [*nodes, Node.make("output", [large], large)], [(), (0,), (1,), (0, 2), (3,), (1,)]
    )
    assert tapped.peak_memory(1) == 700
    assert ComputeGraph([], []).peak_memory() == 0


def test_weights_that_nodes_share_are_counted_where_they_are_first() -> None:
    x = (2, 8)
    layer = Node.make("linear", [x], x, weight_shape=(8, 8), parameters=64)
    nodes = [Node.make("input", [], x), layer, layer, Node.make("output", [x], x)]
    graph = ComputeGraph(nodes, [(), (0,), (1,), (2,)], tied={2: 1})
    once = Cost(128, 256, 64, 16, 16 + 16 + 64)
    again = replace(once, parameters=0)  # it is read again all the same
    assert _costs.graph_costs(graph) == (Cost(activations=16), once, again, Cost())
    assert _costs.total(_costs.graph_costs(graph)) == Cost(256, 512, 64, 48, 192)
    assert graph.parameters == 64
    untied = ComputeGraph(nodes, graph.inputs)
    assert _costs.graph_costs(untied) == (Cost(activations=16), once, once, Cost())


def test_stages_of_a_network() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 3, 2, 1)
            self.gate = nn.Conv2d(4, 4, 1)
            self.down = nn.Conv2d(4, 8, 3, 2, 1)
            self.head = nn.Linear(8, 5)

        def forward(self, x: Any) -> Any:
            x = self.stem(x)
            x = x * self.gate(nn.functional.adaptive_avg_pool2d(x, 1)).sigmoid()
            x = self.down(x).flatten(2).transpose(1, 2).softmax(1)
            return self.head(x.mean(1))

    graph = from_module(Net(), (1, 3, 32, 32))
    level = dict(zip(graph.names, graph.levels, strict=True))
    assert level["gate"] == 1, "squeeze-and-excitation belongs to what it weighs"
    found = graph.stages()
    assert [stage.name for stage in found] == ["1/1", "1/2", "1/4", "head"]
    assert [stage.level for stage in found] == [0, 1, 2, None]
    assert [graph.nodes[p].op for p in found[2].nodes] == ["conv", "permute", "softmax"]
    assert [graph.nodes[p].op for p in found[3].nodes] == ["reduce", "linear", "output"]
    assert [stage.macs for stage in found] == [0, 256 * 108 + 16, 64 * 8 * 36, 40]
    assert found[1].output_shape == (1, 4, 16, 16) and found[3].output_shape == (1, 5)
    for what in ("macs", "flops", "parameters"):
        assert sum(getattr(stage, what) for stage in found) == getattr(graph, what)


@pytest.mark.parametrize(
    ("module", "shape", "levels"),
    [
        (nn.Conv1d(4, 4, 3, 4, 1), (1, 4, 64), [0, 2, 2]),
        (nn.Conv3d(3, 4, 3, 2, 1), (1, 3, 8, 32, 32), [0, 1, 1]),
        (nn.ConvTranspose2d(3, 3, 4, 4), (1, 3, 16, 16), [0, -2, -2]),
        (nn.Linear(8, 8), (3, 8), [None, None, None]),
        (nn.Linear(8, 8), (1, 49, 8), [0, 0, 0]),
        (nn.LSTM(8, 8), (12, 1, 8), [0, 0, 0]),
    ],
)
def test_levels_of_other_networks(module: nn.Module, shape: Any, levels: list[Any]) -> None:
    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, x: Any) -> Any:
            out = self.inner(x)
            return out[0] if isinstance(out, tuple) else out

    assert list(from_module(First(), shape).levels) == levels


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1 k"),
        (999_499, "999 k"),
        (999_999, "1 M"),
        (4.09e9, "4.09 G"),
    ],
)
def test_counts_for_people(count: float, text: str) -> None:
    assert short(count) == text


def test_costs_of_shared_nodes_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = nasbench201.graph(nasbench201.from_index(7000))
    whole_cost, nodes = (graph.macs, graph.flops), [replace(node) for node in graph.nodes]
    counted = []
    whole = _costs.node_cost
    monkeypatch.setattr(_costs, "node_cost", lambda n: counted.append(n) or whole(n))
    copies = [ComputeGraph(nodes, graph.inputs) for _ in range(3)]
    assert {(copy.macs, copy.flops) for copy in copies} == {whole_cost}
    assert len(counted) == len(nodes)


# --- against counters ----------------------------------------------------------------------------

QUICK = ("resnet18", "mobilenetv3_small_100", "convnext_atto", "vit_tiny_patch16_224")
MORE = (
    "resnet50", "resnext50_32x4d", "seresnet50", "regnetx_008", "regnety_008", "convnext_tiny",
    "deit_tiny_patch16_224", "beit_base_patch16_224", "swin_tiny_patch4_window7_224",
    "swin_s3_tiny_224", "efficientnet_b0", "tf_efficientnetv2_s", "tf_efficientnet_cc_b0_4e",
    "mobilenetv2_100", "mobilenetv3_large_100", "mnasnet_100", "inception_v3", "inception_v4",
    "inception_resnet_v2", "xception41", "densenet121", "vgg11_bn", "vgg16", "ghostnet_100",
    "mixer_s32_224", "gmlp_s16_224", "resmlp_12_224", "hrnet_w18_small", "dpn68", "dla34",
    "res2net50_26w_4s", "repvgg_a0", "nfnet_f0", "poolformer_s12", "levit_128", "coatnet_0_rw_224",
    "maxvit_tiny_rw_224", "mobilevit_s", "sequencer2d_s", "convmixer_768_32", "davit_tiny",
    "nasnetalarge",
)  # fmt: skip


def assert_counted_alike(name: str) -> None:
    with torch.device("meta"):
        net = create(name)
    shape = input_shape(net)
    graph = from_module(net, shape)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        net(torch.empty(shape, device="meta"))
    assert 2 * graph.macs == counter.get_total_flops()
    assert graph.parameters == sum(p.numel() for p in net.parameters())
    assert not graph.others


@pytest.mark.parametrize("name", QUICK)
def test_macs_and_parameters_equal_pytorchs(name: str) -> None:
    assert_counted_alike(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE)
def test_macs_and_parameters_of_timm_equal_pytorchs(name: str) -> None:
    assert_counted_alike(name)


@pytest.mark.parametrize(
    ("name", "constant"),
    [
        # What PyTorch's counter counts beside: products of constants alone.
        ("swinv2_cr_tiny_ns_224", "a network that makes position biases from constants"),
        ("edgenext_small", "a convolution of Fourier features of positions"),
    ],
)
@pytest.mark.slow
def test_what_does_not_depend_on_data_costs_nothing(name: str, constant: str) -> None:
    with torch.device("meta"):
        net = create(name)
    shape = input_shape(net)
    graph = from_module(net, shape)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        net(torch.empty(shape, device="meta"))
    assert 0.96 < 2 * graph.macs / counter.get_total_flops() < 1, constant
    assert graph.parameters == sum(p.numel() for p in net.parameters())


FVCORE = ("conv", "linear", "matmul", "addmm", "bmm", "mm", "einsum")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenetv3_small_100", "densenet121", "mixer_s32_224"]
)
def test_macs_equal_fvcores(name: str) -> None:
    from fvcore.nn import FlopCountAnalysis

    net = create(name)
    shape = input_shape(net)
    analysis = FlopCountAnalysis(net, torch.zeros(shape)).unsupported_ops_warnings(False)
    counted = sum(count for op, count in analysis.by_operator().items() if op in FVCORE)
    assert from_module(net, shape).macs == counted


def test_recurrent_layers_cost_what_pytorch_counts() -> None:
    for kind in (nn.LSTM, nn.GRU, nn.RNN):
        net = kind(6, 5, num_layers=2, bidirectional=True)
        graph = from_module(net, (7, 3, 6))
        net.to("meta")
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            net(torch.zeros(7, 3, 6, device="meta"))
        assert 2 * graph.macs == counter.get_total_flops()
        assert graph.parameters == sum(p.numel() for p in net.parameters())


# --- as published --------------------------------------------------------------------------------


def published_flops(graph: ComputeGraph) -> int:
    """NAS-Bench-MR's count: multiply-adds, two for each entry of a batch norm, the last bias."""
    extra = 0
    for node in graph.nodes:
        if node.op == "linear":
            extra += node.cost.activations
        elif node.op == "conv":
            # Each takes in a batch norm of two numbers a channel, unless it has a bias of one.
            taken_in = node.parameters - prod(node.weight_shape or ())
            extra += 2 * node.cost.activations * (taken_in == 2 * node.output_shape[1])
    return graph.macs + extra


def test_all_networks_of_nas_bench_mr(data_dir: Path) -> None:
    table = load_nas_bench_mr(data_dir / "nas_bench_mr", "cls-50-1000")
    assert len(table.embedding) == 2507
    rows = range(0, 2507, 25)
    for row in rows:
        numbers = table.embedding[row].tolist()
        graph = multi_resolution.graph(dict(zip(multi_resolution.LABELS, numbers, strict=True)))
        assert (graph.parameters, published_flops(graph)) == (table.params[row], table.flops[row])


@pytest.mark.slow
def test_every_network_of_nas_bench_mr(data_dir: Path) -> None:
    table = load_nas_bench_mr(data_dir / "nas_bench_mr", "cls-50-1000")
    for row, numbers in enumerate(table.embedding.tolist()):
        graph = multi_resolution.graph(dict(zip(multi_resolution.LABELS, numbers, strict=True)))
        assert (graph.parameters, published_flops(graph)) == (table.params[row], table.flops[row])


@pytest.mark.slow
def test_recorded_networks_of_nas_bench_mr(data_dir: Path) -> None:
    table = load_nas_bench_mr(data_dir / "nas_bench_mr", "cls-50-1000")
    for row in np.random.default_rng(0).choice(2507, 100, replace=False).tolist():
        with torch.device("meta"):
            net = multi_resolution.MultiResolutionNet(table.embedding[row].tolist())
        graph = from_module(net, (1, 3, 128, 128))
        assert (graph.parameters, published_flops(graph)) == (table.params[row], table.flops[row])
        assert sum(p.numel() for p in net.parameters()) == graph.parameters


def cells_and_params(data_dir: Path) -> list[tuple[dict[str, str], float, float]]:
    table = load_nas_bench_201_csv(data_dir / "nas_bench_201" / "nb201.csv.gz")
    space = nasbench201.code_space()
    samples = space.decode(table.embedding)
    return list(zip(samples, table.params.tolist(), table.flops.tolist(), strict=True))


def test_params_of_nas_bench_201(data_dir: Path) -> None:
    for sample, params, flops in cells_and_params(data_dir)[::500]:
        graph = nasbench201.graph(sample)
        assert graph.parameters == params
        assert round((graph.macs + 100) / 1e4) * 1e4 == flops


@pytest.mark.slow
def test_params_of_all_cells_of_nas_bench_201(data_dir: Path) -> None:
    rows = cells_and_params(data_dir)
    assert len(rows) == 15_625
    assert all(nasbench201.graph(sample).parameters == params for sample, params, _ in rows)


def test_rows_of_once_for_all(data_dir: Path) -> None:
    table = load_ofa_mbv3(data_dir / "ofa_mbv3" / "dynast_w1.0_measured.csv.gz")
    assert len(table) == 2373 and set(table.resolution.tolist()) == {224}
    for row in range(len(table)):
        graph = mobilenetv3.graph(table.samples[row])
        assert graph.macs == round(table.metrics["macs_m"][row] * 1e6)
        assert graph.parameters == round(table.metrics["params_m"][row] * 1e6)
