"""Quantised, fused and blocked operators: read as the float networks that they stand for."""

import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import quantization
from torch import Tensor, nn

from nni_aiop.errors import GraphError
from nni_aiop.graphs import ComputeGraph, from_module, from_onnx

node = helper.make_node
FLOAT, UINT8, INT8, INT32 = (
    TensorProto.FLOAT,
    TensorProto.UINT8,
    TensorProto.INT8,
    TensorProto.INT32,
)


# --- files that onnxruntime makes of a float model -----------------------------------------------


class Small(nn.Module):
    """A network with what quantisers touch; relu6 reaches its bound."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.depth = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.point = nn.Conv2d(8, 16, 1)
        self.deep = nn.Conv2d(16, 16, 3, padding=1)
        self.gate = nn.Conv2d(16, 16, 1)
        self.mask = nn.Conv2d(16, 1, 1)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu6(self.depth(torch.relu(self.stem(x))))
        x = self.point(x)
        x = x + torch.relu(self.deep(x))
        x = nn.functional.max_pool2d(x, 2)
        x = x * torch.sigmoid(self.gate(x)) * self.mask(x)
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, activation="gelu")
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.layers(self.table(x)))
        return logits


class Steps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(16, 32, 2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(64, 5)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.lstm(x)[0])
        return logits


class Up(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(4, 6, 3, 2)
        self.slope = nn.PReLU(6)
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Conv2d(6, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.leaky_relu(self.norm(self.slope(self.up(x))))
        return torch.softmax(torch.cat([x, self.head(x)], 1), 1)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "small": (Small, (1, 3, 32, 32)),
    "tokens": (Tokens, (2, 7)),
    "steps": (Steps, (2, 5, 16)),
    "up": (Up, (1, 4, 8, 8)),
}


def float_model(name: str, path: Path, opset: int) -> Tensor:
    """Writes a network with random weights; an example of its input."""
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    module = make().eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter.data)
    x = torch.randint(0, 50, shape) if name == "tokens" else torch.randn(shape)
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (x,), content, dynamo=False, opset_version=opset)
    path.write_bytes(content.getvalue())
    return x


class Examples(quantization.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, path: Path, x: Tensor) -> None:
        name = onnx.load(path).graph.input[0].name
        torch.manual_seed(1)
        wide = [x if x.dtype == torch.int64 else torch.randn_like(x) * 3 for _ in range(4)]
        self.rows = iter([{name: row.numpy()} for row in wide])

    def get_next(self) -> Any:
        return next(self.rows, None)


def statically(path: Path, x: Tensor, out: Path, **options: Any) -> None:
    quantization.quantize_static(path, out, Examples(path, x), **options)


def optimised(path: Path, out: Path, level: str) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(out)
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


QDQ, OPERATOR = quantization.QuantFormat.QDQ, quantization.QuantFormat.QOperator
Q8, QU8 = quantization.QuantType.QInt8, quantization.QuantType.QUInt8

WAYS: dict[str, Callable[[Path, Tensor, Path], None]] = {
    "qdq": lambda path, x, out: statically(path, x, out, quant_format=QDQ),
    "qdq by channel": lambda path, x, out: statically(
        path, x, out, quant_format=QDQ, per_channel=True, activation_type=QU8, weight_type=Q8
    ),
    "operators": lambda path, x, out: statically(path, x, out, quant_format=OPERATOR),
    "operators by channel": lambda path, x, out: statically(
        path, x, out, quant_format=OPERATOR, per_channel=True, activation_type=QU8, weight_type=Q8
    ),
    "dynamic": lambda path, x, out: quantization.quantize_dynamic(path, out),
    "dynamic by channel": lambda path, x, out: quantization.quantize_dynamic(
        path, out, per_channel=True, weight_type=QU8
    ),
    "basic": lambda path, x, out: optimised(path, out, "ORT_ENABLE_BASIC"),
    "extended": lambda path, x, out: optimised(path, out, "ORT_ENABLE_EXTENDED"),
    "all": lambda path, x, out: optimised(path, out, "ORT_ENABLE_ALL"),
}


@pytest.mark.filterwarnings("ignore")  # of the quantiser
@pytest.mark.parametrize("opset", [17, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_quantised_or_optimised_file_is_its_network(
    name: str, way: str, opset: int, tmp_path: Path
) -> None:
    plain, changed = tmp_path / "plain.onnx", tmp_path / "changed.onnx"
    x = float_model(name, plain, opset)
    WAYS[way](plain, x, changed)
    one, other = from_onnx(plain), from_onnx(changed)
    assert (one.macs, one.parameters) == (other.macs, other.parameters)
    assert not other.others
    assert one == other, str(one.diff(other))
    torch.manual_seed(0)
    module = NETWORKS[name][0]().eval()
    if name != "up":  # whose batch norm the exporter folds
        assert one.parameters == sum(p.numel() for p in module.parameters())
        assert one.macs == from_module(module, x).macs


# --- operators, one by one -----------------------------------------------------------------------


def floats(name: str, *shape: int) -> onnx.TensorProto:
    values = np.linspace(0.1, 1, int(np.prod(shape)), dtype=np.float32)
    return numpy_helper.from_array(values.reshape(shape), name)


def integers(name: str, *shape: int, kind: Any = np.int8) -> onnx.TensorProto:
    values = (np.arange(int(np.prod(shape))) % 100).astype(kind)
    return numpy_helper.from_array(values.reshape(shape), name)


SCALE = numpy_helper.from_array(np.float32(0.05), "s")
ZERO = numpy_helper.from_array(np.uint8(100), "z")
ZERO_S = numpy_helper.from_array(np.int8(0), "zs")


def model(
    nodes: Sequence[onnx.NodeProto],
    constants: Sequence[onnx.TensorProto] = (),
    shape: Sequence[int] = (1, 4, 8, 8),
    *,
    kind: int = FLOAT,
    opset: int = 17,
    outputs: Sequence[str] = ("y",),
    **inputs: tuple[int, Sequence[int]],
) -> onnx.ModelProto:
    given = [helper.make_tensor_value_info("x", kind, shape)]
    given += [helper.make_tensor_value_info(n, k, s) for n, (k, s) in inputs.items()]
    made = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph(list(nodes), "net", given, made, list(constants))
    domains = ("com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc")
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def ms(kind: str, inputs: Sequence[str], outputs: Sequence[str], **options: Any) -> onnx.NodeProto:
    return node(kind, inputs, outputs, domain="com.microsoft", **options)


Q = ["x", "s", "z"]
TO = ["s", "z"]
WHOLE = numpy_helper.from_array(np.arange(12, dtype=np.int64).reshape(2, 6) % 5, "ids")

# Name -> model, multiply-adds, parameters, operations beside input and output.
OPERATORS: dict[str, tuple[onnx.ModelProto, int, int, dict[str, int]]] = {
    "QLinearConv": (
        model(
            [node("QLinearConv", [*Q, "w", "s", "zs", *TO, "b"], ["y"], strides=[2, 2])],
            [integers("w", 6, 4, 3, 3), integers("b", 6, kind=np.int32), SCALE, ZERO, ZERO_S],
            kind=UINT8,
        ),
        6 * 3 * 3 * 4 * 9,
        6 * 4 * 9 + 6,
        {"conv": 1},
    ),
    "QLinearConv of the last axis": (
        model(
            [
                ms(
                    "QLinearConv",
                    [*Q, "w", "s", "zs", *TO],
                    ["y"],
                    channels_last=1,
                    group=4,
                    pads=[1] * 4,
                )
            ],
            [integers("w", 4, 1, 3, 3), SCALE, ZERO, ZERO_S],
            (1, 8, 8, 4),
            kind=UINT8,
        ),
        64 * 4 * 9,
        36,
        {"conv": 1, "permute": 2},
    ),
    "QLinearMatMul": (
        model(
            [node("QLinearMatMul", [*Q, "w", "s", "zs", *TO], ["y"])],
            [integers("w", 8, 5), SCALE, ZERO, ZERO_S],
            (2, 3, 8),
            kind=UINT8,
        ),
        6 * 40,
        40,
        {"linear": 1},
    ),
    "ConvInteger": (
        model(
            [node("ConvInteger", ["x", "w", "z"], ["y"], pads=[1] * 4)],
            [integers("w", 6, 4, 3, 3), ZERO],
            kind=UINT8,
        ),
        6 * 64 * 36,
        216,
        {"conv": 1},
    ),
    "MatMulInteger": (
        model(
            [node("MatMulInteger", ["x", "w"], ["y"])], [integers("w", 8, 5)], (3, 8), kind=UINT8
        ),
        3 * 40,
        40,
        {"linear": 1},
    ),
    "MatMulInteger of data": (
        model(
            [node("MatMulInteger", ["x", "x2"], ["y"])], (), (3, 8), kind=UINT8, x2=(INT8, (8, 5))
        ),
        3 * 40,
        0,
        {"matmul": 1},
    ),
    "QGemm": (
        model(
            [ms("QGemm", [*Q, "w", "s", "zs", "b", *TO], ["y"], transB=1)],
            [integers("w", 5, 8), integers("b", 5, kind=np.int32), SCALE, ZERO, ZERO_S],
            (3, 8),
            kind=UINT8,
        ),
        3 * 40,
        45,
        {"linear": 1},
    ),
    "QGemm to floats": (
        model(
            [ms("QGemm", [*Q, "w", "s", "zs"], ["y"])],
            [integers("w", 8, 5), SCALE, ZERO, ZERO_S],
            (3, 8),
            kind=UINT8,
        ),
        3 * 40,
        40,
        {"linear": 1},
    ),
    "QLinearAdd and others": (
        model(
            [
                ms("QLinearSigmoid", [*Q, *TO], ["a"]),
                ms("QLinearLeakyRelu", [*Q, *TO], ["b"], alpha=0.1),
                ms("QLinearAdd", ["a", "s", "z", "b", "s", "z", *TO], ["c"]),
                ms("QLinearMul", ["c", "s", "z", "b", "s", "z", *TO], ["d"]),
                ms("QLinearConcat", [*TO, "d", "s", "z", "a", "s", "z"], ["e"], axis=1),
                ms("QLinearSoftmax", ["e", "s", "z", *TO], ["f"], axis=-1, opset=13),
                ms("QLinearAveragePool", ["f", *TO, *TO], ["g"], kernel_shape=[2, 2]),
                ms("QLinearGlobalAveragePool", ["g", *TO, *TO], ["y"]),
            ],
            [SCALE, ZERO],
            kind=UINT8,
        ),
        0,
        0,
        {
            "sigmoid": 1,
            "leaky_relu": 1,
            "add": 1,
            "mul": 1,
            "concat": 1,
            "softmax": 1,
            "avg_pool": 1,
            "global_avg_pool": 1,
        },
    ),
    "a sum with a quantised vector": (
        model(
            [ms("QLinearAdd", [*Q, "w", "s", "zs", *TO], ["y"])],
            [integers("w", 4, 1, 1), SCALE, ZERO, ZERO_S],
            kind=UINT8,
        ),
        0,
        4,
        {"add": 1},
    ),
    "NhwcMaxPool": (
        model(
            [ms("NhwcMaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2])],
            (),
            (1, 8, 8, 4),
            kind=UINT8,
        ),
        0,
        0,
        {"max_pool": 1, "permute": 2},
    ),
    "DynamicQuantizeMatMul": (
        model(
            [ms("DynamicQuantizeMatMul", ["x", "w", "s", "zs", "b"], ["y"])],
            [integers("w", 8, 5), floats("b", 5), SCALE, ZERO_S],
            (2, 3, 8),
        ),
        6 * 40,
        45,
        {"linear": 1},
    ),
    "MatMulIntegerToFloat": (
        model(
            [ms("MatMulIntegerToFloat", ["x", "w", "s", "s", "z", "zs", "b"], ["y"])],
            [integers("w", 8, 5), floats("b", 5), SCALE, ZERO, ZERO_S],
            (3, 8),
            kind=UINT8,
        ),
        3 * 40,
        45,
        {"linear": 1},
    ),
    "MatMulNBits": (
        model(
            [ms("MatMulNBits", ["x", "w", "c"], ["y"], K=64, N=48, bits=4, block_size=32)],
            [integers("w", 48, 2, 16, kind=np.uint8), floats("c", 96)],
            (2, 3, 64),
        ),
        6 * 64 * 48,
        64 * 48,
        {"linear": 1},
    ),
    "DynamicQuantizeLSTM": (
        model(
            [
                ms(
                    "DynamicQuantizeLSTM",
                    ["x", "w", "r", "b", "", "", "", "", "c", "zw", "c", "zw"],
                    ["y"],
                    hidden_size=6,
                )
            ],
            [
                integers("w", 1, 8, 24),
                integers("r", 1, 6, 24),
                floats("b", 1, 48),
                floats("c", 1),
                integers("zw", 1),
            ],
            (5, 2, 8),
        ),
        10 * 24 * 14,
        24 * 14 + 48,
        {"lstm": 1},
    ),
    "FusedConv": (
        model(
            [
                ms(
                    "FusedConv",
                    ["x", "w", "b", "x"],
                    ["y"],
                    activation="LeakyRelu",
                    activation_params=[0.1],
                    pads=[1] * 4,
                )
            ],
            [floats("w", 4, 4, 3, 3), floats("b", 4)],
        ),
        4 * 64 * 36,
        148,
        {"conv": 1, "add": 1, "leaky_relu": 1},
    ),
    "FusedConv with bounds": (
        model(
            [
                ms(
                    "FusedConv",
                    ["x", "w"],
                    ["y"],
                    activation="Clip",
                    activation_params=[0.0, 6.0],
                )
            ],
            [floats("w", 4, 4, 3, 3)],
        ),
        4 * 36 * 36,
        144,
        {"conv": 1, "relu6": 1},
    ),
    "FusedMatMul": (
        model(
            [ms("FusedMatMul", ["x", "x2"], ["y"], transA=1, transB=1, alpha=0.5)],
            (),
            (2, 8, 3),
            x2=(FLOAT, (2, 5, 8)),
        ),
        2 * 3 * 8 * 5,
        0,
        {"permute": 2, "matmul": 1, "mul": 1},
    ),
    "FusedMatMul of batches": (
        model(
            [ms("FusedMatMul", ["x", "x2"], ["y"], transBatchA=1)],
            (),
            (3, 2, 4, 8),
            x2=(FLOAT, (2, 4, 8, 5)),
        ),
        24 * 40,
        0,
        {"permute": 1, "matmul": 1},
    ),
    "FusedGemm": (
        model(
            [ms("FusedGemm", ["x", "w", "b"], ["y"], transB=1, activation="Relu")],
            [floats("w", 5, 8), floats("b", 5)],
            (3, 8),
        ),
        3 * 40,
        45,
        {"linear": 1, "relu": 1},
    ),
    "SkipLayerNormalization": (
        model(
            [ms("SkipLayerNormalization", ["x", "x2", "g", "b", "c"], ["y", "", "", "t"])],
            [floats("g", 8), floats("b", 8), floats("c", 8)],
            (2, 3, 8),
            outputs=("y", "t"),
            x2=(FLOAT, (2, 3, 8)),
        ),
        0,
        24,
        {"add": 2, "layer_norm": 1},
    ),
    "SkipSimplifiedLayerNormalization": (
        model(
            [ms("SkipSimplifiedLayerNormalization", ["x", "x2", "g"], ["y"])],
            [floats("g", 8)],
            (2, 3, 8),
            x2=(FLOAT, (2, 3, 8)),
        ),
        0,
        8,
        {"add": 1, "rms_norm": 1},
    ),
    "SimplifiedLayerNormalization": (
        model(
            [node("SimplifiedLayerNormalization", ["x", "g"], ["y"], axis=-1)],
            [floats("g", 8)],
            (2, 3, 8),
        ),
        0,
        8,
        {"rms_norm": 1},
    ),
    "EmbedLayerNormalization": (
        model(
            [
                ms(
                    "EmbedLayerNormalization",
                    ["x", "x2", "words", "places", "parts", "g", "b"],
                    ["y", "m"],
                )
            ],
            [
                floats("words", 30, 8),
                floats("places", 12, 8),
                floats("parts", 2, 8),
                floats("g", 8),
                floats("b", 8),
            ],
            (2, 6),
            kind=INT32,
            x2=(INT32, (2, 6)),
        ),
        0,
        (30 + 12 + 2 + 2) * 8,
        {"embedding": 2, "add": 2, "layer_norm": 1},
    ),
    "gelus": (
        model(
            [
                ms("BiasGelu", ["x", "b"], ["p"]),
                ms("FastGelu", ["p", "b"], ["q"]),
                ms("QuickGelu", ["q"], ["r"], alpha=1.702),
                ms("Gelu", ["r"], ["t"]),
                ms("QuickGelu", ["t"], ["y"], alpha=1.0),
            ],
            [floats("b", 8)],
            (2, 3, 8),
        ),
        0,
        8,
        {"add": 2, "gelu": 4, "silu": 1},
    ),
    "Attention": (
        model(
            [ms("Attention", ["x", "w", "b"], ["y"], num_heads=2)],
            [floats("w", 8, 24), floats("b", 24)],
            (2, 5, 8),
        ),
        10 * 8 * 24 + 2 * 2 * 25 * (4 + 4),
        8 * 24 + 24,
        {"linear": 1, "slice": 3, "attention": 1},
    ),
    "MultiHeadAttention": (
        model(
            [ms("MultiHeadAttention", ["x", "x2", "x2", "b"], ["y"], num_heads=2)],
            [floats("b", 24)],
            (2, 5, 8),
            x2=(FLOAT, (2, 7, 8)),
        ),
        2 * 2 * 35 * (4 + 4),
        24,
        {"add": 3, "attention": 1},
    ),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_of_onnxruntime(name: str) -> None:
    proto, macs, parameters, operations = OPERATORS[name]
    graph = from_onnx(proto)
    # Transposes of heads belong to an attention.
    found = {op: n for op, n in graph.operations.items() if op not in ("input", "output")}
    if "attention" in found:
        found.pop("permute", None)
    assert found == operations
    assert (graph.macs, graph.parameters) == (macs, parameters)


@pytest.mark.parametrize("name", OPERATORS)
def test_its_shapes_are_those_of_onnxruntime(name: str) -> None:
    proto = OPERATORS[name][0]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as err:  # noqa: BLE001 (an operator that this build has no kernel for)
        pytest.skip(str(err)[:120])
    feeds = {
        x.name: np.zeros(
            [d.dim_value for d in x.type.tensor_type.shape.dim],
            helper.tensor_dtype_to_np_dtype(x.type.tensor_type.elem_type),
        )
        for x in proto.graph.input
    }
    shapes = sorted(np.shape(result) for result in session.run(None, feeds))
    assert sorted(from_onnx(proto).output_shapes) == shapes


# --- parameters behind DequantizeLinear, and what is refused -------------------------------------


def test_integers_behind_a_dequantisation_are_learned() -> None:
    per_channel = floats("c", 6)
    graph = from_onnx(
        model(
            [
                node("DequantizeLinear", ["w", "c"], ["wf"], axis=0),
                node("DequantizeLinear", ["b", "c"], ["bf"], axis=0),
                node("Conv", ["x", "wf", "bf"], ["y"]),
            ],
            [integers("w", 6, 4, 3, 3), integers("b", 6, kind=np.int32), per_channel],
        )
    )
    assert graph.parameters == 6 * 36 + 6


def test_a_quantised_table_is_learned() -> None:
    graph = from_onnx(
        model(
            [
                node("Gather", ["t", "x"], ["rows"]),
                node("DequantizeLinear", ["rows", "s", "zs"], ["y"]),
            ],
            [integers("t", 30, 8), SCALE, ZERO_S],
            (2, 6),
            kind=TensorProto.INT64,
        )
    )
    assert graph.parameters == 240 and graph.operations["embedding"] == 1


def test_weights_that_are_quantised_in_the_file_are_learned() -> None:
    graph = from_onnx(
        model(
            [
                node("QuantizeLinear", ["w", "s", "zs"], ["q"]),
                node("DequantizeLinear", ["q", "s", "zs"], ["d"]),
                node("Conv", ["x", "d"], ["y"]),
            ],
            [floats("w", 6, 4, 3, 3), SCALE, ZERO_S],
        )
    )
    assert graph.parameters == 216


@pytest.mark.parametrize(
    ("zero", "scale", "operation"),
    [
        (np.uint8(0), 0.1, "relu"),
        (np.int8(-128), 0.1, "relu"),
        (np.uint8(0), 6 / 255, "relu6"),
        (np.uint8(1), 0.1, None),
        (np.int8(0), 0.1, None),
    ],
)
def test_a_relu_that_the_quantisation_does_is_read(
    zero: Any, scale: float, operation: str | None
) -> None:
    graph = from_onnx(
        model(
            [
                node("Conv", ["x", "w"], ["c"]),
                node("QuantizeLinear", ["c", "k", "n"], ["q"]),
                node("DequantizeLinear", ["q", "k", "n"], ["y"]),
            ],
            [
                floats("w", 6, 4, 3, 3),
                numpy_helper.from_array(np.float32(scale), "k"),
                numpy_helper.from_array(np.array(zero), "n"),
            ],
        )
    )
    assert set(graph.operations) - {"input", "output", "conv"} == ({operation} - {None})


def test_what_is_not_negative_gets_no_relu() -> None:
    zero = numpy_helper.from_array(np.uint8(0), "n")
    for kind in ("Relu", "Sigmoid"):
        graph = from_onnx(
            model(
                [
                    node("QuantizeLinear", ["x", "s", "n"], ["xq"]),
                    node("DequantizeLinear", ["xq", "s", "n"], ["xd"]),
                    node(kind, ["xd"], ["a"]),
                    node("MaxPool", ["a"], ["m"], kernel_shape=[2, 2]),
                    node("Add", ["m", "m"], ["t"]),
                    node("QuantizeLinear", ["t", "s", "n"], ["q"]),
                    node("DequantizeLinear", ["q", "s", "n"], ["y"]),
                ],
                [SCALE, zero],
            )
        )
        expected = {kind.lower(), "max_pool", "add"}
        assert set(graph.operations) == {"input", "output", *expected}


def test_an_unknown_operator_of_another_domain_names_it() -> None:
    strange = ms("GatedRelativePositionBias", ["x"], ["y"])
    with pytest.raises(GraphError, match=r"of the domain 'com.microsoft' .* the original file"):
        from_onnx(model([strange]))
    stated = model([strange])
    stated.graph.value_info.append(helper.make_tensor_value_info("y", FLOAT, (1, 2)))
    graph: ComputeGraph = from_onnx(stated)
    assert graph.others == ("gated_relative_position_bias",)
    assert list(graph.uncounted) == ["gated_relative_position_bias"]
    past = ms("Attention", ["x", "w", "", "", "x"], ["y"], num_heads=2)
    with pytest.raises(GraphError, match="keep no keys and values"):
        from_onnx(model([past], [floats("w", 8, 24)], (2, 5, 8)))
