"""The ONNX door: operators one by one, the same graph as from the module, and models that lie."""

import io
import random
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from nni_aiop.errors import FileFormatError, GraphError
from nni_aiop.graphs import ComputeGraph, from_module, from_onnx

IMAGE = (2, 4, 8, 8)
TOKENS = (2, 6, 8)

node = helper.make_node


def tensor(name: str, *shape: int) -> onnx.TensorProto:
    """A learned tensor."""
    return numpy_helper.from_array(np.full(shape, 0.25, np.float32), name)


def numbers(name: str, *values: float) -> onnx.TensorProto:
    kind = np.float32 if any(isinstance(v, float) for v in values) else np.int64
    return numpy_helper.from_array(np.array(values, kind), name)


def number(name: str, value: float) -> onnx.TensorProto:
    return numpy_helper.from_array(
        np.array(value, np.float32 if isinstance(value, float) else np.int64), name
    )


def model(
    nodes: Sequence[onnx.NodeProto],
    constants: Sequence[onnx.TensorProto] = (),
    shape: Sequence[int | str] | None = IMAGE,
    *,
    opset: int = 18,
    kind: int = TensorProto.FLOAT,
    **options: Any,
) -> onnx.ModelProto:
    """A model that makes "y" of "x"."""
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        list(constants),
    )
    opsets = [helper.make_opsetid("", opset), *options.pop("opsets", [])]
    return helper.make_model(graph, opset_imports=opsets, **options)


def shown(graph: ComputeGraph) -> list[str]:
    return [str(n) for n in graph.nodes if n.op not in ("input", "output")]


# --- operators, one by one -----------------------------------------------------------------------

W = tensor("w", 8, 4, 3, 3)
PLAIN = "dilation=1x1 groups=1 kernel=3x3"
OPERATORS: dict[str, tuple[onnx.ModelProto, list[str]]] = {
    "conv": (
        model(
            [node("Conv", ["x", "w", "b"], ["y"], strides=[2, 2], pads=[1, 1, 1, 1])],
            [W, tensor("b", 8)],
        ),
        [f"conv {PLAIN} padding=(1x1, 1x1) stride=2x2 [2x4x8x8 -> 2x8x4x4]"],
    ),
    "conv same upper": (
        model([node("Conv", ["x", "w"], ["y"], strides=[2, 2], auto_pad="SAME_UPPER")], [W]),
        [f"conv {PLAIN} padding=(0x1, 0x1) stride=2x2 [2x4x8x8 -> 2x8x4x4]"],
    ),
    "conv same lower": (
        model([node("Conv", ["x", "w"], ["y"], strides=[2, 2], auto_pad="SAME_LOWER")], [W]),
        [f"conv {PLAIN} padding=(1x0, 1x0) stride=2x2 [2x4x8x8 -> 2x8x4x4]"],
    ),
    "conv valid": (
        model([node("Conv", ["x", "w"], ["y"], auto_pad="VALID", dilations=[2, 2])], [W]),
        [
            "conv dilation=2x2 groups=1 kernel=3x3 padding=(0x0, 0x0) stride=1x1 "
            "[2x4x8x8 -> 2x8x4x4]"
        ],
    ),
    "conv asymmetric": (
        model([node("Conv", ["x", "w"], ["y"], pads=[0, 1, 2, 3])], [W]),
        [f"conv {PLAIN} padding=(0x2, 1x3) stride=1x1 [2x4x8x8 -> 2x8x8x10]"],
    ),
    "conv of weights": (
        model([node("Tanh", ["w"], ["t"]), node("Conv", ["x", "t"], ["y"])], [W]),
        [f"conv {PLAIN} padding=(0x0, 0x0) stride=1x1 [2x4x8x8 -> 2x8x6x6]"],
    ),
    "conv transpose": (
        model(
            [
                node(
                    "ConvTranspose",
                    ["x", "w"],
                    ["y"],
                    strides=[2, 2],
                    pads=[1, 1, 1, 1],
                    output_padding=[1, 1],
                )
            ],
            [tensor("w", 4, 6, 3, 3)],
        ),
        [f"conv_transpose {PLAIN} padding=(1x1, 1x1) stride=2x2 [2x4x8x8 -> 2x6x16x16]"],
    ),
    "conv transpose to a size": (
        model(
            [
                node(
                    "ConvTranspose",
                    ["x", "w"],
                    ["y"],
                    strides=[2, 2],
                    output_shape=[16, 16],
                    auto_pad="SAME_UPPER",
                )
            ],
            [tensor("w", 4, 6, 3, 3)],
        ),
        [f"conv_transpose {PLAIN} padding=(0x1, 0x1) stride=2x2 [2x4x8x8 -> 2x6x16x16]"],
    ),
    "gemm": (
        model(
            [node("Gemm", ["x", "w", "b"], ["y"], transB=1)],
            [tensor("w", 5, 8), tensor("b", 5)],
            (3, 8),
        ),
        ["linear [3x8 -> 3x5]"],
    ),
    "gemm scaled": (
        model(
            [node("Gemm", ["x", "w", "b"], ["y"], transA=1, alpha=0.5, beta=2.0)],
            [tensor("w", 3, 5), tensor("b", 1)],
            (3, 8),
        ),
        [
            "permute order=1x0 [3x8 -> 8x3]",
            "linear [8x3 -> 8x5]",
        ],
    ),
    "matmul left": (
        model([node("MatMul", ["w", "x"], ["y"])], [tensor("w", 5, 6)], TOKENS),
        ["matmul operand=left [2x6x8 -> 2x5x8]"],
    ),
    "clip": (
        model([node("Clip", ["x", "l", "h"], ["y"])], [number("l", 0.0), number("h", 6.0)]),
        ["relu6 [2x4x8x8 -> 2x4x8x8]"],
    ),
    "clip open": (
        model([node("Clip", ["x", "", "h"], ["y"])], [number("h", 3.0)]),
        ["elementwise function=clamp [2x4x8x8 -> 2x4x8x8]"],
    ),
    "hard sigmoid": (
        model([node("HardSigmoid", ["x"], ["y"], alpha=1 / 6)]),
        ["hard_sigmoid [2x4x8x8 -> 2x4x8x8]"],
    ),
    "hard sigmoid by default": (
        model([node("HardSigmoid", ["x"], ["y"])]),
        [
            "mul operand=constant [2x4x8x8 -> 2x4x8x8]",
            "add operand=constant [2x4x8x8 -> 2x4x8x8]",
            "elementwise function=clamp [2x4x8x8 -> 2x4x8x8]",
        ],
    ),
    "hard swish": (
        model([node("HardSigmoid", ["x"], ["s"], alpha=1 / 6), node("Mul", ["s", "x"], ["y"])]),
        ["hard_swish [2x4x8x8 -> 2x4x8x8]"],
    ),
    "prelu": (
        model([node("PRelu", ["x", "s"], ["y"])], [tensor("s", 4, 1, 1)]),
        ["prelu [2x4x8x8 -> 2x4x8x8]"],
    ),
    "softmax": (
        model([node("Softmax", ["x"], ["y"], axis=1)]),
        ["softmax axis=1 [2x4x8x8 -> 2x4x8x8]"],
    ),
    "softmax up to opset 12": (
        model([node("Softmax", ["x"], ["y"], axis=1)], opset=11),
        ["softmax axis=1 [2x256 -> 2x256]"],
    ),
    "softmax of vectors up to opset 12": (
        model([node("Softmax", ["x"], ["y"])], (), (2, 8), opset=11),
        ["softmax axis=1 [2x8 -> 2x8]"],
    ),
    "gelu": (
        model([node("Gelu", ["x"], ["y"], approximate="tanh")], opset=20),
        ["gelu [2x4x8x8 -> 2x4x8x8]"],
    ),
    "swish": (model([node("Swish", ["x"], ["y"])], opset=24), ["silu [2x4x8x8 -> 2x4x8x8]"]),
    "swish steep": (
        model([node("Swish", ["x"], ["y"], alpha=1.702)], opset=24),
        ["gelu [2x4x8x8 -> 2x4x8x8]"],
    ),
    "sum": (
        model([node("Relu", ["x"], ["r"]), node("Sum", ["x", "r", "r"], ["y"])]),
        ["relu [2x4x8x8 -> 2x4x8x8]", "add [2x4x8x8, 2x4x8x8, 2x4x8x8 -> 2x4x8x8]"],
    ),
    "mean": (
        model([node("Relu", ["x"], ["r"]), node("Mean", ["x", "r"], ["y"])]),
        [
            "relu [2x4x8x8 -> 2x4x8x8]",
            "add [2x4x8x8, 2x4x8x8 -> 2x4x8x8]",
            "mul operand=constant [2x4x8x8 -> 2x4x8x8]",
        ],
    ),
    "max": (
        model(
            [
                node("Relu", ["x"], ["r"]),
                node("Tanh", ["x"], ["t"]),
                node("Max", ["x", "r", "t"], ["y"]),
            ]
        ),
        [
            "tanh [2x4x8x8 -> 2x4x8x8]",
            "relu [2x4x8x8 -> 2x4x8x8]",
            "elementwise function=max [2x4x8x8, 2x4x8x8 -> 2x4x8x8]",
            "elementwise function=max [2x4x8x8, 2x4x8x8 -> 2x4x8x8]",
        ],
    ),
    "max pool": (
        model([node("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)]),
        ["max_pool dilation=1x1 kernel=3x3 padding=(0x0, 0x0) stride=2x2 [2x4x8x8 -> 2x4x4x4]"],
    ),
    "average pool": (
        model(
            [
                node(
                    "AveragePool",
                    ["x"],
                    ["y"],
                    kernel_shape=[3, 3],
                    strides=[2, 2],
                    pads=[0, 0, 1, 1],
                )
            ]
        ),
        ["avg_pool kernel=3x3 padding=(0x1, 0x1) stride=2x2 [2x4x8x8 -> 2x4x4x4]"],
    ),
    "average pool same": (
        model([node("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], auto_pad="SAME_UPPER")]),
        ["avg_pool kernel=3x3 padding=(1x1, 1x1) stride=1x1 [2x4x8x8 -> 2x4x8x8]"],
    ),
    "global pools": (
        model(
            [
                node("GlobalAveragePool", ["x"], ["a"]),
                node("GlobalMaxPool", ["x"], ["m"]),
                node("Add", ["a", "m"], ["y"]),
            ]
        ),
        [
            "global_avg_pool [2x4x8x8 -> 2x4]",
            "global_max_pool [2x4x8x8 -> 2x4]",
            "add [2x4x1x1, 2x4x1x1 -> 2x4x1x1]",
        ],
    ),
    "reduce by attribute": (
        model([node("ReduceMean", ["x"], ["y"], axes=[-2, -1], keepdims=0)], opset=13),
        ["global_avg_pool [2x4x8x8 -> 2x4]"],
    ),
    "reduce by input": (
        model([node("ReduceMax", ["x", "a"], ["y"])], [numbers("a", 1)]),
        ["reduce axes=1 kind=max [2x4x8x8 -> 2x8x8]"],
    ),
    "reduce everything": (
        model([node("ReduceSum", ["x"], ["y"], keepdims=0)]),
        ["reduce axes=0x1x2x3 kind=sum [2x4x8x8 -> ]"],
    ),
    "reduce nothing": (
        model(
            [node("ReduceSum", ["x"], ["r"], noop_with_empty_axes=1), node("Relu", ["r"], ["y"])]
        ),
        ["relu [2x4x8x8 -> 2x4x8x8]"],
    ),
    "reduce squares": (
        model([node("ReduceSumSquare", ["x", "a"], ["y"])], [numbers("a", 1)]),
        [
            "elementwise function=square [2x4x8x8 -> 2x4x8x8]",
            "reduce axes=1 kind=sum [2x4x8x8 -> 2x8x8]",
        ],
    ),
    "batch norm": (
        model([node("BatchNormalization", ["x", "s", "s", "s", "s"], ["y"])], [tensor("s", 4)]),
        ["batch_norm [2x4x8x8 -> 2x4x8x8]"],
    ),
    "instance norm": (
        model([node("InstanceNormalization", ["x", "s", "s"], ["y"])], [tensor("s", 4)]),
        ["instance_norm [2x4x8x8 -> 2x4x8x8]"],
    ),
    "layer norm": (
        model([node("LayerNormalization", ["x", "s", "s"], ["y"])], [tensor("s", 8)]),
        ["layer_norm [2x4x8x8 -> 2x4x8x8]"],
    ),
    "group norm of groups": (
        model([node("GroupNormalization", ["x", "s", "s"], ["y"], num_groups=2)], [tensor("s", 2)]),
        ["group_norm groups=2 [2x4x8x8 -> 2x4x8x8]"],
    ),
    "group norm of channels": (
        model(
            [node("GroupNormalization", ["x", "s", "s"], ["y"], num_groups=2)],
            [tensor("s", 4)],
            opset=21,
        ),
        ["group_norm groups=2 [2x4x8x8 -> 2x4x8x8]"],
    ),
    "rms norm": (
        model([node("RMSNormalization", ["x", "s"], ["y"])], [tensor("s", 8)], opset=23),
        ["rms_norm [2x4x8x8 -> 2x4x8x8]"],
    ),
    "local response": (
        model([node("LRN", ["x"], ["y"], size=3)]),
        ["local_response_norm [2x4x8x8 -> 2x4x8x8]"],
    ),
    "flatten": (
        model([node("Flatten", ["x"], ["f"]), node("Relu", ["f"], ["y"])]),
        ["relu [2x256 -> 2x256]"],
    ),
    "transpose": (
        model([node("Transpose", ["x"], ["t"]), node("Relu", ["t"], ["y"])]),
        ["permute order=3x2x1x0 [2x4x8x8 -> 8x8x4x2]", "relu [8x8x4x2 -> 8x8x4x2]"],
    ),
    "expand": (
        model([node("Expand", ["x", "s"], ["y"])], [numbers("s", 2, 2, 4, 8, 8)]),
        ["expand [2x4x8x8 -> 2x2x4x8x8]"],
    ),
    "tile": (
        model([node("Tile", ["x", "s"], ["y"])], [numbers("s", 1, 1, 2, 2)]),
        ["expand [2x4x8x8 -> 2x4x16x16]"],
    ),
    "concat": (
        model([node("Relu", ["x"], ["r"]), node("Concat", ["x", "r"], ["y"], axis=-3)]),
        ["relu [2x4x8x8 -> 2x4x8x8]", "concat axis=1 [2x4x8x8, 2x4x8x8 -> 2x8x8x8]"],
    ),
    "split": (
        model(
            [
                node("Split", ["x"], ["a", "b"], axis=1, num_outputs=2),
                node("Mul", ["a", "b"], ["y"]),
            ]
        ),
        [
            "slice ranges=(1x0x2x1) [2x4x8x8 -> 2x2x8x8]",
            "slice ranges=(1x2x4x1) [2x4x8x8 -> 2x2x8x8]",
            "mul [2x2x8x8, 2x2x8x8 -> 2x2x8x8]",
        ],
    ),
    "split by sizes": (
        model(
            [node("Split", ["x", "n"], ["a", "b"], axis=1), node("Relu", ["b"], ["y"])],
            [numbers("n", 1, 3)],
        ),
        ["slice ranges=(1x1x4x1) [2x4x8x8 -> 2x3x8x8]", "relu [2x3x8x8 -> 2x3x8x8]"],
    ),
    "split by attribute": (
        model(
            [node("Split", ["x"], ["a", "b"], axis=1, split=[1, 3]), node("Relu", ["b"], ["y"])],
            opset=11,
        ),
        ["slice ranges=(1x1x4x1) [2x4x8x8 -> 2x3x8x8]", "relu [2x3x8x8 -> 2x3x8x8]"],
    ),
    "slice": (
        model(
            [node("Slice", ["x", "a", "b", "c", "d"], ["y"])],
            [
                numbers("a", 1, -1),
                numbers("b", 2**62, -(2**62)),
                numbers("c", 1, 3),
                numbers("d", 2, -1),
            ],
        ),
        ["slice ranges=(1x1x4x2, 3x7x-1x-1) [2x4x8x8 -> 2x2x8x8]"],
    ),
    "select": (
        model([node("Gather", ["x", "i"], ["y"], axis=1)], [number("i", -1)]),
        ["slice ranges=(1x3x4x1) [2x4x8x8 -> 2x1x8x8]"],
    ),
    "gather": (
        model([node("Gather", ["x", "i"], ["y"], axis=1)], [numbers("i", 2, 0)]),
        ["gather axis=1 [2x4x8x8 -> 2x2x8x8]"],
    ),
    "embedding": (
        model(
            [node("Gather", ["w", "x"], ["y"])],
            [tensor("w", 10, 8)],
            (2, 5),
            kind=TensorProto.INT64,
        ),
        ["embedding [2x5 -> 2x5x8]"],
    ),
    "list of tensors": (
        model(
            [
                node("SplitToSequence", ["x"], ["q"], axis=1, keepdims=0),
                node("SequenceAt", ["q", "i"], ["y"]),
            ],
            [number("i", 2)],
        ),
        ["slice ranges=(1x2x3x1) [2x4x8x8 -> 2x1x8x8]"],
    ),
    "resize": (
        model(
            [node("Resize", ["x", "", "s"], ["y"], mode="linear")],
            [numbers("s", 1.0, 1.0, 2.0, 2.0)],
        ),
        ["resize mode=linear [2x4x8x8 -> 2x4x16x16]"],
    ),
    "resize to a size": (
        model([node("Resize", ["x", "", "", "n"], ["y"])], [numbers("n", 2, 4, 5, 5)]),
        ["resize mode=nearest [2x4x8x8 -> 2x4x5x5]"],
    ),
    "pad": (
        model(
            [node("Pad", ["x", "p", "v", "a"], ["y"])],
            [numbers("p", 1, 2), number("v", 3.0), numbers("a", -1)],
        ),
        ["pad mode=constant padding=(3x1x2) [2x4x8x8 -> 2x4x8x11]"],
    ),
    "pad edge": (
        model(
            [node("Pad", ["x", "p"], ["y"], mode="edge")], [numbers("p", 0, 0, 1, 1, 0, 0, 1, 1)]
        ),
        ["pad mode=replicate padding=(2x1x1, 3x1x1) [2x4x8x8 -> 2x4x10x10]"],
    ),
    "depth to space": (
        model(
            [
                node("DepthToSpace", ["x"], ["d"], blocksize=2, mode="CRD"),
                node("Relu", ["d"], ["y"]),
            ]
        ),
        ["permute order=0x3x1x4x2 [2x2x2x8x8 -> 2x8x2x8x2]", "relu [2x1x16x16 -> 2x1x16x16]"],
    ),
    "depth to space by columns": (
        model(
            [node("DepthToSpace", ["x"], ["d"], blocksize=2), node("Relu", ["d"], ["y"])],
            shape=(1, 8, 4, 4),
        ),
        ["permute order=2x0x3x1 [2x2x8x4 -> 8x2x4x2]", "relu [1x2x8x8 -> 1x2x8x8]"],
    ),
    "space to depth": (
        model([node("SpaceToDepth", ["x"], ["d"], blocksize=2), node("Relu", ["d"], ["y"])]),
        ["permute order=0x2x4x1x3 [2x16x2x4x2 -> 2x2x2x16x4]", "relu [2x16x4x4 -> 2x16x4x4]"],
    ),
    "einsum": (
        model(
            [node("Einsum", ["x", "w"], ["y"], equation="bnd,de->bne")], [tensor("w", 8, 3)], TOKENS
        ),
        ["linear [12x8 -> 12x3]"],
    ),
    "attention": (
        model([node("Attention", ["x", "x", "x", "m"], ["y"])], [tensor("m", 8, 8)], opset=23),
        ["attention mask=True [8x8x8, 8x8x8, 8x8x8 -> 8x8x8]"],
    ),
    "attention of heads": (
        model(
            [node("Attention", ["x", "x", "x"], ["y"], q_num_heads=2, kv_num_heads=2)],
            (),
            TOKENS,
            opset=23,
        ),
        [
            "permute order=0x2x1x3 [2x6x2x4 -> 2x2x6x4]",
            "attention [4x6x4, 4x6x4, 4x6x4 -> 4x6x4]",
            "permute order=0x2x1x3 [2x2x6x4 -> 2x6x2x4]",
        ],
    ),
    "lstm": (
        model(
            [
                node("LSTM", ["x", "w", "r", "b"], ["l"], hidden_size=5),
                node("Squeeze", ["l", "a"], ["y"]),
            ],
            [tensor("w", 1, 20, 8), tensor("r", 1, 20, 5), tensor("b", 1, 40), numbers("a", 1)],
            TOKENS,
        ),
        ["lstm bias=True directions=1 hidden=5 [2x6x8 -> 2x6x5]"],
    ),
    "gru of both directions": (
        model(
            [
                node("GRU", ["x", "w", "r"], ["g"], hidden_size=5, direction="bidirectional"),
                node("Transpose", ["g"], ["t"], perm=[0, 2, 1, 3]),
                node("Reshape", ["t", "s"], ["y"]),
            ],
            [tensor("w", 2, 15, 8), tensor("r", 2, 15, 5), numbers("s", 2, 6, 10)],
            TOKENS,
        ),
        ["gru directions=2 hidden=5 [2x6x8 -> 2x6x10]"],
    ),
    "where": (
        model(
            [node("Greater", ["x", "c"], ["g"]), node("Where", ["g", "x", "c"], ["y"])],
            [number("c", 2.0)],
        ),
        [
            "elementwise function=greater operand=right [2x4x8x8 -> 2x4x8x8]",
            "elementwise function=where [2x4x8x8, 2x4x8x8 -> 2x4x8x8]",
        ],
    ),
    "casts": (
        model(
            [
                node("Cast", ["x"], ["h"], to=10),
                node("Dropout", ["h"], ["d"]),
                node("Relu", ["d"], ["y"]),
            ]
        ),
        ["relu [2x4x8x8 -> 2x4x8x8]"],
    ),
    "learned scale": (
        model(
            [node("Mul", ["x", "s"], ["m"]), node("Add", ["m", "b"], ["y"])],
            [tensor("s", 4, 1, 1), number("b", 1.0)],
        ),
        ["mul operand=constant [2x4x8x8 -> 2x4x8x8]", "add operand=constant [2x4x8x8 -> 2x4x8x8]"],
    ),
    "top k": (
        model([node("TopK", ["x", "k"], ["y", "i"])], [numbers("k", 3)]),
        ["other:topk [2x4x8x8 -> 2x4x8x3]"],
    ),
    "cumulative sum": (
        model([node("CumSum", ["x", "a"], ["y"])], [number("a", 1)]),
        ["other:cumsum [2x4x8x8 -> 2x4x8x8]"],
    ),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_is_read_as_written(name: str) -> None:
    proto, expected = OPERATORS[name]
    assert shown(from_onnx(proto)) == expected


def test_parameters_are_initializers_and_statistics_are_not() -> None:
    norm = node("BatchNormalization", ["c", "s", "b", "m", "v"], ["y"])
    copies = [node("Identity", ["s"], [name]) for name in "bmv"]
    graph = from_onnx(model([node("Conv", ["x", "w"], ["c"]), *copies, norm], [W, tensor("s", 8)]))
    assert [n.parameters for n in graph.nodes] == [0, 8 * 4 * 9 + 16, 0]
    assert graph.parameters == 8 * 4 * 9 + 16


def test_names_are_those_of_the_model() -> None:
    nodes = [node("Relu", ["x"], ["r"], name="first"), node("Sigmoid", ["r"], ["y"])]
    assert from_onnx(model(nodes)).names == ("x", "first", "y", "y")


def test_symbolic_dimensions_are_named_by_the_user() -> None:
    proto = model([node("Flatten", ["x"], ["f"]), node("Relu", ["f"], ["y"])], shape=("n", 4, "s"))
    graph = from_onnx(proto, input_shapes={"x": (2, 4, 3)})
    assert shown(graph) == ["relu [2x12 -> 2x12]"]
    with pytest.raises(GraphError, match=r"'x' in input_shapes, whose dimensions are \(n, 4, s\)"):
        from_onnx(proto)
    with pytest.raises(GraphError, match=r"must fit \(n, 4, s\), but got \(2, 5, 3\)"):
        from_onnx(proto, input_shapes={"x": (2, 5, 3)})
    with pytest.raises(GraphError, match=r"\('x'\), but got 'z'"):
        from_onnx(proto, input_shapes={"z": (1,)})


def test_data_outside_the_file_are_not_read(tmp_path: Path) -> None:
    proto = model([node("Conv", ["x", "w"], ["y"])], [W])
    onnx.save_model(
        proto, tmp_path / "net.onnx", save_as_external_data=True, location="w", size_threshold=0
    )
    (tmp_path / "w").unlink()
    assert from_onnx(tmp_path / "net.onnx") == from_onnx(str(tmp_path / "net.onnx"))
    assert from_onnx(tmp_path / "net.onnx") == from_onnx(
        model([node("Conv", ["x", "w"], ["y"])], [W])
    )


def test_a_function_of_the_model_is_its_body() -> None:
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    body = [node("Sigmoid", ["a"], ["s"]), node("Mul", ["a", "s"], ["b"])]
    gate = helper.make_function("own", "Gate", ["a"], ["b"], body, opsets)
    call = node("Gate", ["x"], ["y"], domain="own")
    graph = from_onnx(model([call], opsets=opsets[1:], functions=[gate]))
    assert shown(graph) == ["silu [2x4x8x8 -> 2x4x8x8]"]


def test_a_branch_with_a_known_condition_is_taken() -> None:
    def branch(op: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(op, TensorProto.FLOAT, IMAGE)
        return helper.make_graph([node(op, ["x"], [op])], op, [], [out])

    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Size", ["s"], ["n"]),
        node("Equal", ["n", "four"], ["c"]),
        node("If", ["c"], ["y"], then_branch=branch("Relu"), else_branch=branch("Tanh")),
    ]
    assert shown(from_onnx(model(nodes, [number("four", 4)]))) == ["relu [2x4x8x8 -> 2x4x8x8]"]
    assert shown(from_onnx(model(nodes, [number("four", 5)]))) == ["tanh [2x4x8x8 -> 2x4x8x8]"]


def test_shapes_are_worked_out() -> None:
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["b"]),
        node("Unsqueeze", ["b", "axis"], ["b1"]),
        node("Concat", ["b1", "rest"], ["to"], axis=0),
        node("Reshape", ["x", "to"], ["r"]),
        node("MatMul", ["r", "w"], ["y"]),
    ]
    constants = [number("zero", 0), numbers("axis", 0), numbers("rest", 16, 16)]
    graph = from_onnx(model(nodes, [*constants, tensor("w", 16, 5)]))
    assert shown(graph) == ["linear [32x16 -> 32x5]"]
    older = [
        node("Unsqueeze", ["b"], ["b1"], axes=[0]) if n.op_type == "Unsqueeze" else n for n in nodes
    ]
    assert from_onnx(model(older, [*constants, tensor("w", 16, 5)], opset=11)) == graph


# --- the same graph from both doors --------------------------------------------------------------


class Module(nn.Module):
    """What a function of the module's parts, a parameter and the inputs computes."""

    def __init__(self, function: Callable[..., Any], *parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.parts = nn.ModuleList(parts)
        self.scale = nn.Parameter(torch.rand(4, 1, 1))

    def forward(self, *x: Tensor) -> Any:
        return self.function(self, *x)


def f(function: Callable[..., Any], *parts: nn.Module) -> Module:
    return Module(function, *parts)


def seq(*parts: nn.Module) -> nn.Sequential:
    return nn.Sequential(*parts)


def in_place(m: Module, x: Tensor) -> Tensor:
    x = x.clone()
    x[:, 0] = 0
    return x


WHOLE = torch.int64
MODULES: dict[str, tuple[Any, ...]] = {
    "conv": (
        seq(
            nn.Conv2d(4, 8, 3, 2, 1, groups=2),
            nn.ReLU6(),
            nn.Conv2d(8, 4, (1, 3), padding=(0, 1), dilation=(1, 1), bias=False),
        ),
        IMAGE,
    ),
    "conv1d": (seq(nn.Conv1d(6, 4, 3, padding=1)), TOKENS),
    "conv3d": (seq(nn.Conv3d(2, 4, 3, padding=1)), (1, 2, 4, 4, 4)),
    "same_padding": (nn.Conv2d(4, 4, 3, padding="same"), IMAGE),
    "deconv": (nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1), IMAGE),
    "linear2": (nn.Linear(8, 5), (3, 8)),
    "linear3": (nn.Linear(8, 5), TOKENS),
    "linear_nobias": (nn.Linear(8, 5, bias=False), TOKENS),
    "linear4": (nn.Linear(8, 5), IMAGE),
    "bilinear_mm": (f(lambda m, x: x @ x.transpose(-1, -2)), TOKENS),
    "bmm": (f(lambda m, x: torch.bmm(x, x.permute(0, 2, 1))), TOKENS),
    "baddbmm": (f(lambda m, x: torch.baddbmm(x @ x.mT, x, x.mT)), TOKENS),
    "activations": (
        seq(
            nn.ReLU(),
            nn.LeakyReLU(),
            nn.ELU(),
            nn.SELU(),
            nn.CELU(),
            nn.Sigmoid(),
            nn.Tanh(),
            nn.Softplus(),
            nn.Hardtanh(),
            nn.Softsign(),
        ),
        IMAGE,
    ),
    "hard_swish": (seq(nn.Conv2d(4, 4, 1), nn.Hardswish(), nn.Hardsigmoid()), IMAGE),
    "silu": (seq(nn.Conv2d(4, 4, 1), nn.SiLU()), IMAGE),
    "mish": (seq(nn.Conv2d(4, 4, 1), nn.Mish()), IMAGE),
    "gelu": (seq(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8), nn.GELU("tanh")), TOKENS),
    "gelu_sum": (f(lambda m, x: F.gelu(x + x.relu())), TOKENS),
    "prelu": (seq(nn.PReLU(), nn.PReLU(4)), IMAGE),
    "softmax": (seq(nn.Softmax(-1), nn.LogSoftmax(-1)), TOKENS),
    "softmax1": (nn.Softmax(1), IMAGE),
    "glu": (nn.GLU(1), IMAGE),
    "log_sigmoid": (nn.LogSigmoid(), IMAGE),
    "clamps": (
        f(lambda m, x: x.clamp(min=0) + x.clamp(0, 6) + x.clamp(-1, 2) + x.clamp(max=3)),
        IMAGE,
    ),
    "maxpool": (seq(nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(2)), IMAGE),
    "maxpool_ceil": (nn.MaxPool2d(3, 2, ceil_mode=True), IMAGE),
    "avgpool": (seq(nn.AvgPool2d(3, 2, 1)), IMAGE),
    "avgpool_nopad": (nn.AvgPool2d(3, 1, 1, count_include_pad=False), IMAGE),
    "avgpool_ceil": (nn.AvgPool2d(3, 2, ceil_mode=True), IMAGE),
    "adaptive": (seq(nn.AdaptiveAvgPool2d(4), nn.AdaptiveMaxPool2d(2)), IMAGE),
    "global": (seq(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)), IMAGE),
    "global_max": (nn.AdaptiveMaxPool2d(1), IMAGE),
    "gem": (f(lambda m, x: F.avg_pool2d(x.clamp(min=1e-06).pow(3), (8, 8)).pow(1 / 3)), IMAGE),
    "pool1d": (seq(nn.MaxPool1d(2), nn.AvgPool1d(2)), TOKENS),
    "pool3d": (nn.MaxPool3d(2), (1, 2, 4, 4, 4)),
    "squeeze_excite": (
        f(
            lambda m, x: x * m.parts[1](m.parts[0](x.mean((2, 3), keepdim=True))).sigmoid(),
            nn.Conv2d(4, 2, 1),
            nn.Conv2d(2, 4, 1),
        ),
        IMAGE,
    ),
    "reduce": (
        f(
            lambda m, x: (
                x.mean(1)
                + x.sum(1)
                + x.amax(1)
                + x.amin(1)
                + x.prod(1)
                + x.logsumexp(1)
                + x.norm(dim=1)
                + x.norm(1, dim=1)
            )
        ),
        IMAGE,
    ),
    "argmax": (f(lambda m, x: x.argmax(1)), IMAGE),
    "max_dim": (f(lambda m, x: x.max(1)[0]), IMAGE),
    "var": (
        f(
            lambda m, x: (
                (x - x.mean(1, keepdim=True))
                / (x.var(1, keepdim=True, unbiased=False) + 1e-05).sqrt()
            )
        ),
        IMAGE,
    ),
    "std": (f(lambda m, x: x.std(1)), IMAGE),
    "sumall": (f(lambda m, x: x.mean()), IMAGE),
    "norms": (
        seq(
            nn.Conv2d(4, 4, 1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.BatchNorm2d(4, affine=False),
        ),
        IMAGE,
    ),
    "bn1d": (nn.BatchNorm1d(6), TOKENS),
    "instance": (nn.InstanceNorm2d(4), IMAGE),
    "instance_affine": (nn.InstanceNorm2d(4, affine=True), IMAGE),
    "layer_norm": (nn.LayerNorm(8), TOKENS),
    "layer_norm_plain": (nn.LayerNorm(8, elementwise_affine=False), TOKENS),
    "layer_norm_no_bias": (nn.LayerNorm(8, bias=False), TOKENS),
    "layer_norm_image": (nn.LayerNorm((4, 8, 8)), IMAGE),
    "group": (nn.GroupNorm(2, 4), IMAGE),
    "group_plain": (nn.GroupNorm(2, 4, affine=False), IMAGE),
    "group_1d": (nn.GroupNorm(2, 6), TOKENS),
    "rms_norm": (nn.RMSNorm(8), TOKENS),
    "local_response": (nn.LocalResponseNorm(3), IMAGE),
    "layer_norm_2d": (
        f(lambda m, x: m.parts[0](x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), nn.LayerNorm(4)),
        IMAGE,
    ),
    "reshape": (
        f(lambda m, x: x.flatten(2).transpose(1, 2).reshape(2, 8, 8, 4).permute(0, 3, 1, 2)),
        IMAGE,
    ),
    "expand": (f(lambda m, x: x[:, :1].expand(2, 4, 8, 8) + x), IMAGE),
    "expand2": (f(lambda m, x: x[:, :1].expand(2, 4, 8, 8).contiguous()), IMAGE),
    "repeat": (f(lambda m, x: x.repeat(1, 2, 1, 1)), IMAGE),
    "tile": (f(lambda m, x: x.tile((1, 1, 2, 2))), IMAGE),
    "squeeze": (f(lambda m, x: x.mean(1, keepdim=True).squeeze(1).unsqueeze(-1)), IMAGE),
    "cat": (f(lambda m, x: torch.cat([x, x.relu()], 1)), IMAGE),
    "stack": (f(lambda m, x: torch.stack([x, x.relu()], 1)), IMAGE),
    "split": (f(lambda m, x: torch.cat(x.split([1, 3], 1)[::-1], 1)), IMAGE),
    "chunk": (f(lambda m, x: x.chunk(2, 1)[0] * x.chunk(2, 1)[1]), IMAGE),
    "unbind": (f(lambda m, x: sum(x.unbind(1))), IMAGE),
    "select": (f(lambda m, x: x[:, 0] + x[:, -1]), IMAGE),
    "cuts": (f(lambda m, x: x[:, 1:3, ::2, -4:]), IMAGE),
    "strided": (
        f(
            lambda m, x: torch.cat(
                [
                    x[:, :, 0::2, 0::2],
                    x[:, :, 1::2, 0::2],
                    x[:, :, 0::2, 1::2],
                    x[:, :, 1::2, 1::2],
                ],
                1,
            )
        ),
        IMAGE,
    ),
    "flip": (f(lambda m, x: x.flip(2)), IMAGE),
    "roll": (f(lambda m, x: x.roll((1, 2), (2, 3))), IMAGE),
    "index_select": (f(lambda m, x: x.index_select(1, torch.tensor([2, 0]))), IMAGE),
    "index": (f(lambda m, x: x[:, [2, 0, 1]]), IMAGE),
    "gather": (f(lambda m, x, i: x.gather(1, i)), [(2, 4), (2, 3)], torch.float32, WHOLE),
    "embedding": (seq(nn.Embedding(10, 8), nn.Linear(8, 4)), (2, 5), WHOLE),
    "table": (f(lambda m, i: m.parts[0].weight[i], nn.Embedding(10, 8)), (2, 5), WHOLE),
    "up_nearest": (nn.Upsample(scale_factor=2), IMAGE),
    "up": (nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False), IMAGE),
    "up_corners": (nn.Upsample(size=(12, 12), mode="bilinear", align_corners=True), IMAGE),
    "up_bicubic": (nn.Upsample(size=(12, 12), mode="bicubic"), IMAGE),
    "up_same": (nn.Upsample(size=(8, 8)), IMAGE),
    "up_like": (
        f(lambda m, x: F.interpolate(x[:, :, :4, :4], size=x.shape[2:], mode="nearest") + x),
        IMAGE,
    ),
    "pad": (f(lambda m, x: F.pad(x, (1, 2, 0, 1), value=3.0)), IMAGE),
    "pad_reflect": (nn.ReflectionPad2d(1), IMAGE),
    "pad_replicate": (nn.ReplicationPad2d(1), IMAGE),
    "circular": (f(lambda m, x: F.pad(x, (1, 1, 1, 1), mode="circular")), IMAGE),
    "zeropad_conv": (seq(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(4, 4, 3, 2)), IMAGE),
    "pad_maxpool": (
        f(lambda m, x: F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-float("inf")), 3, 2)),
        IMAGE,
    ),
    "pixel_shuffle": (nn.PixelShuffle(2), IMAGE),
    "pixel_unshuffle": (nn.PixelUnshuffle(2), IMAGE),
    "channel_shuffle": (nn.ChannelShuffle(2), IMAGE),
    "einsum": (f(lambda m, x: torch.einsum("bchw,bdhw->bcd", x, x.relu())), IMAGE),
    "einsum2": (
        f(lambda m, x: torch.einsum("bnd,de->bne", x, m.parts[0].weight), nn.Linear(8, 8)),
        TOKENS,
    ),
    "attention": (
        f(
            lambda m, x: m.parts[0](x, x, x, need_weights=False)[0],
            nn.MultiheadAttention(8, 2, batch_first=True),
        ),
        TOKENS,
    ),
    "attention_weights": (
        f(lambda m, x: m.parts[0](x, x, x)[0], nn.MultiheadAttention(8, 2)),
        TOKENS,
    ),
    "encoder": (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), TOKENS),
    "encoder_norm_first": (
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True, activation="gelu"),
        TOKENS,
    ),
    "decoder": (nn.TransformerDecoderLayer(8, 2, 16, batch_first=True), [TOKENS, TOKENS]),
    "transformer": (nn.Transformer(8, 2, 1, 1, 16, batch_first=True), [TOKENS, TOKENS]),
    "sdpa": (f(lambda m, x: F.scaled_dot_product_attention(x, x, x)), (2, 2, 6, 8)),
    "sdpa_causal": (
        f(lambda m, x: F.scaled_dot_product_attention(x, x, x, is_causal=True)),
        (2, 2, 6, 8),
    ),
    "sdpa_mask": (
        f(lambda m, x, a: F.scaled_dot_product_attention(x, x, x, attn_mask=a)),
        [(2, 2, 6, 8), (6, 6)],
    ),
    "sdpa_bias": (
        f(
            lambda m, x: F.scaled_dot_product_attention(x, x, x, attn_mask=m.parts[0].weight),
            nn.Linear(6, 6),
        ),
        (2, 2, 6, 8),
    ),
    "lstm_two": (f(lambda m, x: m.parts[0](x)[0], nn.LSTM(8, 5, 2)), TOKENS),
    "lstm": (
        f(lambda m, x: m.parts[0](x)[0], nn.LSTM(8, 5, 2, bidirectional=True, batch_first=True)),
        TOKENS,
    ),
    "gru": (f(lambda m, x: m.parts[0](x)[0], nn.GRU(8, 5, batch_first=True)), TOKENS),
    "rnn": (f(lambda m, x: m.parts[0](x)[0], nn.RNN(8, 5, bias=False)), TOKENS),
    "lstm_h": (f(lambda m, x: m.parts[0](x)[1][0], nn.LSTM(8, 5, 2)), TOKENS),
    "lstm_all": (f(lambda m, x: m.parts[0](x), nn.LSTM(8, 5, 1, bidirectional=True)), TOKENS),
    "where": (f(lambda m, x: torch.where(x > 0, x, x * 2)), IMAGE),
    "masked_fill": (f(lambda m, x: x.masked_fill(x > 0, 0.5)), IMAGE),
    "compare": (f(lambda m, x: (x >= 1) & (x < 2) | ~(x == 3)), IMAGE),
    "unary": (
        f(
            lambda m, x: (
                x.exp()
                + x.log()
                + x.sqrt()
                + x.abs()
                + x.neg()
                + x.sin()
                + x.cos()
                + x.floor()
                + x.ceil()
                + x.round()
                + x.erf()
                + x.sign()
                + x.reciprocal()
            )
        ),
        IMAGE,
    ),
    "rsqrt": (f(lambda m, x: x.rsqrt()), IMAGE),
    "square": (f(lambda m, x: x.square() + x**3 + x * x), IMAGE),
    "minmax": (f(lambda m, x: torch.maximum(x, x.relu()) + torch.minimum(x, x.relu())), IMAGE),
    "scale": (f(lambda m, x: x * m.scale + m.scale), IMAGE),
    "arith": (f(lambda m, x: (x * 2 - 1) / 3 + 1 / (x + 4) - (1 - x)), IMAGE),
    "subdiv": (f(lambda m, x: x.sub(x.relu(), alpha=2) / x.sigmoid()), IMAGE),
    "normalize": (f(lambda m, x: F.normalize(x, dim=1)), IMAGE),
    "cosine": (
        f(
            lambda m, x: F.normalize(x, dim=-1) @ F.normalize(m.parts[0].weight, dim=-1).T,
            nn.Linear(8, 3),
        ),
        TOKENS,
    ),
    "dropout": (seq(nn.Dropout(), nn.Conv2d(4, 4, 1), nn.Dropout2d()), IMAGE),
    "cast": (f(lambda m, x: x.half().float() * 2), IMAGE),
    "posemb": (
        f(lambda m, x: x + m.parts[0](torch.arange(x.shape[1]))[None], nn.Embedding(6, 8)),
        TOKENS,
    ),
    "two_out": (f(lambda m, x: (x.relu(), x.sigmoid())), IMAGE),
    "cumsum": (f(lambda m, x: x.cumsum(1)), IMAGE),
    "topk": (f(lambda m, x: x.topk(2, 1)[0]), IMAGE),
    "grid": (f(lambda m, x, g: F.grid_sample(x, g, align_corners=False)), [IMAGE, (2, 4, 4, 2)]),
    "tril": (f(lambda m, x: x.tril()), IMAGE),
    "scatter": (f(lambda m, x, i: x.scatter(1, i, x)), [(2, 4), (2, 4)], torch.float32, WHOLE),
    "unfold": (nn.Unfold(2, stride=2), IMAGE),
    "distances": (f(lambda m, x: torch.cdist(x, x)), TOKENS),
    "assign": (f(lambda m, x: in_place(m, x)), IMAGE),
    "tokens": (
        f(
            lambda m, x: torch.cat([m.parts[0].weight[None].expand(x.shape[0], -1, -1), x], 1),
            nn.Linear(8, 1),
        ),
        TOKENS,
    ),
    "boolmask": (
        f(lambda m, x, mask: F.scaled_dot_product_attention(x, x + 1, x, attn_mask=mask)),
        [(2, 2, 6, 8), (6, 6)],
        torch.float32,
        torch.bool,
    ),
    "causalmask": (
        f(
            lambda m, x: F.scaled_dot_product_attention(
                x, x + 1, x, attn_mask=torch.ones(6, 6, dtype=torch.bool).tril()
            )
        ),
        (2, 2, 6, 8),
    ),
    "swinmask": (
        f(lambda m, x: (x @ x.mT + torch.ones(6, 6).triu(1) * -100).softmax(-1) @ x),
        TOKENS,
    ),
}

UNEQUAL = {
    "circular": "the exporter writes circular padding as slices and concats",
    "unfold": "the exporter writes im2col as gathers",
    "distances": "the exporter writes cdist as differences and sums",
}
"""Modules whose graphs differ, and why."""

UNEQUAL_NEWER = {
    "unfold": UNEQUAL["unfold"],
    "rnn": "the newer exporter writes out the steps of an RNN",
    "assign": "the newer exporter scatters by index tensors of the data's shape",
}

UNEQUAL_OPTIMISED = UNEQUAL_NEWER | {
    "norms": "the optimiser folds batch norms into convolutions",
    "clamps": "the optimiser leaves a model in which a bound is missing",
}


def example(case: tuple[Any, ...]) -> tuple[Tensor, ...]:
    shapes = case[1] if isinstance(case[1], list) else [case[1]]
    kinds = case[2:] or (torch.float32,) * len(shapes)
    return tuple(torch.zeros(s, dtype=k) for s, k in zip(shapes, kinds, strict=True))


def exported(module: nn.Module, inputs: tuple[Tensor, ...], opset: int) -> bytes | None:
    """By PyTorch's older exporter; None where it cannot."""
    content = io.BytesIO()
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                module.eval(),
                inputs,
                content,
                dynamo=False,
                opset_version=opset,
                training=torch.onnx.TrainingMode.PRESERVE,
                do_constant_folding=False,
            )
        except (torch.onnx.errors.OnnxExporterError, TypeError):
            return None
    return content.getvalue()


def newly_exported(name: str) -> tuple[bytes, bytes] | None:
    """By PyTorch's newer exporter, as it writes and optimised; None where it cannot."""
    module = MODULES[name][0]
    for parameter in module.parameters():
        # The optimiser drops zeros that are added, even those of a fresh network's biases.
        nn.init.uniform_(parameter.data)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(
                module.eval(), example(MODULES[name]), dynamo=True, optimize=False, verbose=False
            )
        except torch.onnx.errors.OnnxExporterError:
            return None
        assert program is not None
        plain: bytes = program.model_proto.SerializeToString()
        program.optimize()
        return plain, program.model_proto.SerializeToString()


def check_equal(name: str, content: bytes | None, unequal: dict[str, str]) -> None:
    module, inputs = MODULES[name][0], example(MODULES[name])
    if content is None:
        pytest.skip("this exporter does not export it")
    if name in unequal:
        pytest.skip(unequal[name])
    one, other = from_module(module, inputs), from_onnx(content)
    assert shown(one) == shown(other)
    assert one == other


@pytest.mark.parametrize("name", MODULES)
def test_a_module_gives_the_same_graph_from_both_doors(name: str) -> None:
    content = exported(MODULES[name][0], example(MODULES[name]), 17)
    check_equal(name, content, UNEQUAL)


@pytest.mark.slow
@pytest.mark.parametrize("opset", [11, 13, 18, 20])
@pytest.mark.parametrize("name", MODULES)
def test_a_module_gives_the_same_graph_whatever_the_opset(name: str, opset: int) -> None:
    check_equal(name, exported(MODULES[name][0], example(MODULES[name]), opset), UNEQUAL)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_a_module_gives_the_same_graph_by_the_newer_exporter(name: str) -> None:
    plain, optimised = newly_exported(name) or (None, None)
    if name not in UNEQUAL_OPTIMISED:
        check_equal(name, optimised, UNEQUAL_OPTIMISED)
    check_equal(name, plain, UNEQUAL_NEWER)


def test_both_doors_count_the_same_parameters() -> None:
    module = seq(
        nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 1)
    )
    content = exported(module, (torch.zeros(IMAGE),), 17)
    assert content is not None
    count = sum(p.numel() for p in module.parameters())
    assert from_onnx(content).parameters == from_module(module, IMAGE).parameters == count


# --- models that break a rule --------------------------------------------------------------------


def calls(name: str, inner: str, times: int = 1) -> onnx.FunctionProto:
    """A function that calls another so many times in a row."""
    tensors = ["a", *(f"t{place}" for place in range(1, times)), "b"]
    domain = "" if inner == "Relu" else "own"
    body = [node(inner, [before], [after], domain=domain) for before, after in pairwise(tensors)]
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    return helper.make_function("own", name, ["a"], ["b"], body, opsets)


def with_functions(first: str, functions: Sequence[onnx.FunctionProto]) -> onnx.ModelProto:
    call = node(first, ["x"], ["y"], domain="own")
    return model([call], opsets=[helper.make_opsetid("own", 1)], functions=functions)


RELU = [node("Relu", ["x"], ["y"])]
BROKEN: dict[str, tuple[onnx.ModelProto, str]] = {
    "old": (model(RELU, opset=6), "one of 7 to .* but got 6"),
    "new": (model(RELU, opset=999), "but got 999"),
    "symbolic": (model(RELU, shape=("batch", 4)), r"'x' in input_shapes, .* \(batch, 4\)"),
    "no shape": (model(RELU, shape=None), "none at all"),
    "negative": (model(RELU, shape=(-1, 4)), r"'x' in input_shapes, .* \(-1, 4\)"),
    "absurd": (model(RELU, shape=(2**40, 2**20)), "fewer than 2"),
    "cycle": (
        model([node("Add", ["x", "z"], ["y"]), node("Relu", ["y"], ["z"])]),
        r"node 'y' \(Add\) reads 'z'",
    ),
    "missing": (model([node("Add", ["x", "z"], ["y"])]), r"reads 'z'"),
    "twice": (model([*RELU, *RELU]), "made twice"),
    "no output": (model([node("Relu", ["x"], ["z"])]), "'y' is none"),
    "constant": (model([node("Shape", ["x"], ["y"])]), "must depend on its input"),
    "unknown": (model([node("Foo", ["x"], ["y"])]), r"made by node 'y' \(Foo\), is not"),
    "data": (model([node("NonZero", ["x"], ["y"])]), r"made by node 'y' \(NonZero\)"),
    "stride": (model([node("Conv", ["x", "w"], ["y"], strides=[0, 0])], [W]), "positive"),
    "groups": (model([node("Conv", ["x", "w"], ["y"], group=0)], [W]), "times the groups"),
    "entries": (
        model([node("Reshape", ["x", "s"], ["y"])], [numbers("s", 3, 5)]),
        "keep the number of entries",
    ),
    "order": (model([node("Transpose", ["x"], ["y"], perm=[0, 1])]), "must order 4 axes"),
    "index": (
        model([node("Gather", ["x", "i"], ["y"], axis=1)], [number("i", 9)]),
        "must lie within 4",
    ),
    "filled": (
        model(
            [node("ConstantOfShape", ["s"], ["c"]), node("Add", ["x", "c"], ["y"])],
            [numbers("s", 2**40, 2**20)],
        ),
        "fewer than 2",
    ),
    "range": (
        model(
            [
                node("Range", ["a", "b", "c"], ["r"]),
                node("Cast", ["r"], ["q"], to=1),
                node("Add", ["x", "q"], ["y"]),
            ],
            [number("a", 0), number("b", 2**45), number("c", 1)],
        ),
        "Incompatible",
    ),
    "repeated": (model([node("Tile", ["x", "s"], ["y"])], [numbers("s", *[2**40] * 4)]), "fewer"),
    "nan": (
        model([node("Resize", ["x", "", "s"], ["y"])], [numbers("s", *[float("nan")] * 4)]),
        "not be negative",
    ),
    "pieces": (
        model([node("SplitToSequence", ["x", "n"], ["y"])], [number("n", 0)]),
        "at most 4096 pieces",
    ),
    "itself": (with_functions("a", [calls("a", "a")]), "must not call itself"),
    "many": (
        with_functions("f30", [calls(f"f{n}", f"f{n - 1}" if n else "Relu", 2) for n in range(31)]),
        "at most 1000000 operations",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_model_is_refused_in_one_sentence(name: str) -> None:
    proto, sentence = BROKEN[name]
    with pytest.raises(GraphError, match=sentence) as refusal:
        from_onnx(proto)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("content", [b"", b"\x00", b"not a model", b"PK\x03\x04" + bytes(100)])
def test_what_is_not_onnx_is_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="must be an ONNX model"):
        from_onnx(content)
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(FileFormatError, match=r"net\.onnx must be an ONNX model"):
        from_onnx(tmp_path / "net.onnx")


def mutated(seed: int, count: int) -> dict[str, int]:
    """How models with flipped bits, or cut short, come out."""
    names = ("squeeze_excite", "lstm", "attention", "up", "strided", "group", "assign", "cuts")
    whole = [exported(MODULES[n][0], example(MODULES[n]), 17) for n in names]
    rng = random.Random(seed)
    outcomes = dict.fromkeys(("read", "FileFormatError", "GraphError"), 0)
    for _ in range(count):
        content = bytearray(rng.choice(whole) or b"")
        if rng.random() < 0.2:
            del content[rng.randrange(len(content)) :]
        else:
            for _ in range(rng.choice((1, 1, 2, 8))):
                content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        before = time.process_time()
        try:
            from_onnx(bytes(content))
            outcomes["read"] += 1
        except (FileFormatError, GraphError) as err:
            outcomes[type(err).__name__] += 1
        assert time.process_time() - before < 60, "no file may keep the reader busy"
    return outcomes


def test_mutated_models_are_read_or_refused() -> None:
    assert all(mutated(0, 60).values())


@pytest.mark.slow
def test_500_mutated_models_are_read_or_refused() -> None:
    assert sum(mutated(1, 500).values()) == 500
