"""Files as people export them, with default options, are the graph of their module.

PyTorch's exporters fold batch normalisations, drop biases of zeros and write equal numbers once;
simplifiers and runtimes fold what is left.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nni_aiop.graphs import ComputeGraph, from_module, from_onnx


class Residual(nn.Module):
    """Convolutions whose results are read once and twice, a depthwise one, a transposed one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.SiLU()
        )
        self.depthwise = nn.Conv2d(8, 8, 5, 1, 2, groups=8, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.up = nn.ConvTranspose2d(8, 4, 2, 2)
        self.up_norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.depthwise(x)
        # What two read cannot take the norm in.
        x = F.relu(self.norm(y)) + y
        return F.hardswish(self.up_norm(self.up(x))).mean((2, 3))


class Scaled(nn.Module):
    """A learned scale, a fixed one and a shift behind a convolution, a norm before one."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.BatchNorm2d(3)
        self.conv = nn.Conv2d(3, 6, 3)
        self.gamma = nn.Parameter(torch.rand(6, 1, 1))
        self.last = nn.Conv2d(6, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.gamma * self.conv(F.relu(self.before(x))) + self.gamma / 3
        return x + 0.1 * self.last(F.gelu(x))


class Attention(nn.Module):
    """Queries, keys and values cut from one transposed tensor, as in vision transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.qkv = nn.Linear(16, 48)
        self.out = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, n, 3, 4, 4).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(y.transpose(1, 2).reshape(b, n, 16))


def _mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 8, bias=False),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Linear(8, 8),
        nn.BatchNorm1d(8),
        nn.Hardtanh(),
        nn.Linear(8, 3),
    )


def _volume() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(2, 4, 3, bias=False), nn.BatchNorm3d(4), nn.ELU(), nn.Conv3d(4, 2, 1)
    )


class Strided(nn.Module):
    """A view by strides, which the newer exporter writes as a look-up of all entries in order."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).mean((2, 3), keepdim=True)
        x = F.layer_norm(x.permute(0, 2, 3, 1), (6,), self.norm.weight, self.norm.bias)
        return self.head(x.permute(0, 3, 1, 2).flatten(1))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "residual": (Residual, (1, 3, 16, 16)),
    "scaled": (Scaled, (1, 3, 12, 12)),
    "attention": (Attention, (2, 5, 16)),
    "strided": (Strided, (1, 3, 12, 12)),
    "mlp": (_mlp, (4, 6)),
    "volume": (_volume, (1, 2, 6, 6, 6)),
    "signal": (
        lambda: nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.Tanh(), nn.Conv1d(4, 2, 1)),
        (1, 2, 12),
    ),
}


def made(name: str, *, trained: bool) -> tuple[nn.Module, tuple[int, ...]]:
    """A network in evaluation mode; a trained one has no two equal numbers."""
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    network = make().eval()
    if trained:
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) + 0.5)
    return network, shape


def exported(network: nn.Module, shape: tuple[int, ...], *, dynamo: bool) -> onnx.ModelProto:
    """The file of an exporter that is called without options."""
    example = (torch.randn(shape),)
    content = io.BytesIO()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        if dynamo:
            program = torch.onnx.export(network, example, dynamo=True, verbose=False)
            assert program is not None
            return program.model_proto
        torch.onnx.export(network, example, content, dynamo=False)
    return onnx.load_from_string(content.getvalue())


@pytest.mark.parametrize("trained", [False, True], ids=["untrained", "trained"])
@pytest.mark.parametrize("dynamo", [False, True], ids=["legacy", "dynamo"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_default_export_is_the_graph_of_its_module(
    name: str, dynamo: bool, trained: bool, tmp_path: Path
) -> None:
    network, shape = made(name, trained=trained)
    graph = from_module(network, shape)
    assert graph.parameters == sum(p.numel() for p in network.parameters())
    proto = exported(network, shape, dynamo=dynamo)
    same(graph, from_onnx(proto), "as exported")
    same(graph, from_onnx(basic(proto, tmp_path / "basic.onnx")), "by onnxruntime, basic")


def same(graph: ComputeGraph, found: ComputeGraph, what: str) -> None:
    assert found == graph, f"{what}:\n{graph.diff(found)}"
    assert found.content_hash == graph.content_hash
    assert (found.macs, found.flops, found.peak_memory()) == (
        graph.macs,
        graph.flops,
        graph.peak_memory(),
    )


def basic(proto: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """What onnxruntime makes of a model at its basic level."""
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 4
    runtime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(path)


@pytest.mark.parametrize("dynamo", [False, True], ids=["legacy", "dynamo"])
@pytest.mark.parametrize("name", NETWORKS)
def test_simplifiers_leave_the_graph_as_it_is(name: str, dynamo: bool) -> None:
    onnxslim = pytest.importorskip("onnxslim")
    onnxsim = pytest.importorskip("onnxsim")
    network, shape = made(name, trained=True)
    graph = from_module(network, shape)
    proto = exported(network, shape, dynamo=dynamo)
    slim = onnxslim.slim(onnx.ModelProto.FromString(proto.SerializeToString()))
    same(graph, from_onnx(slim), "by onnxslim")
    with redirect_stdout(io.StringIO()):
        simple, _ = onnxsim.simplify(proto)
    same(graph, from_onnx(simple), "by onnxsim")


# --- what is taken in, and what is not ------------------------------------------------------------


class Do(nn.Module):
    """A module from a function of the input and of its parts."""

    def __init__(self, function: Callable[..., Tensor], *parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.parts)


def operations(module: nn.Module, shape: tuple[int, ...]) -> list[str]:
    return [node.op for node in from_module(module, shape).nodes[1:-1]]


def test_what_a_layer_takes_in() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8))
    graph = from_module(net, (1, 3, 8, 8))
    assert operations(net, (1, 3, 8, 8)) == ["conv"]
    assert graph.parameters == 3 * 8 * 9 + 2 * 8
    assert graph.flops == 2 * graph.macs == 2 * 36 * 8 * 27
    assert graph == from_module(nn.Conv2d(3, 8, 3), (1, 3, 8, 8)), "a bias is no operation"
    assert operations(
        Do(lambda x, conv: conv(x) * 0.5 + 3.0, nn.Conv2d(3, 8, 1)), (1, 3, 4, 4)
    ) == ["conv"]


def test_a_norm_that_no_layer_can_take_in_stays() -> None:
    conv, norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
    shape = (1, 3, 4, 4)
    assert operations(Do(lambda x, norm, conv: conv(norm(x)), norm, conv), shape) == [
        "batch_norm",
        "conv",
    ]
    read_twice = Do(lambda x, norm, conv: norm(y := conv(x)) + y, norm, conv)
    assert sorted(operations(read_twice, shape)) == ["add", "batch_norm", "conv"]
    activated = Do(lambda x, norm, conv: norm(F.relu(conv(x))), norm, conv)
    assert operations(activated, shape) == ["conv", "relu", "batch_norm"]
    # A linear layer's channels are the last axis, those of this norm the second.
    tokens = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(5))
    assert operations(tokens, (2, 5, 4)) == ["linear", "batch_norm"]
    # A scale that differs by position is no channel's.
    scaled = Do(lambda x, conv: conv(x) * torch.rand(4, 4), conv)
    assert operations(scaled, shape) == ["conv", "mul"]
    zeroed = Do(lambda x, conv: conv(x) * 0.0, conv)
    assert operations(zeroed, shape) == ["conv", "mul"]


def test_a_function_behind_a_layer_is_recognised_first() -> None:
    conv, shape = nn.Conv2d(3, 3, 1), (1, 3, 4, 4)
    for function in (
        lambda x: F.relu6(x + 3) / 6,
        lambda x: torch.clamp(x / 6 + 0.5, 0, 1),
    ):
        assert operations(Do(lambda x, conv, f=function: f(conv(x)), conv), shape) == [
            "conv",
            "hard_sigmoid",
        ]
