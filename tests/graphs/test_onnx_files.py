"""Files as tools write them: weights as constants, old opsets, free dimensions, any order."""

import copy
import io
import logging
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from nni_aiop.errors import GraphError
from nni_aiop.graphs import from_module, from_onnx

node = helper.make_node
Shape = Sequence["int | str"]


def values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def held(name: str, array: object) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(array), name)


def constant(name: str, array: object) -> onnx.NodeProto:
    return node("Constant", [], [name], value=held(name, array))


def model(
    nodes: Sequence[onnx.NodeProto],
    constants: Sequence[onnx.TensorProto] = (),
    shape: Shape = (2, 4, 8, 8),
    *,
    opset: int = 17,
    producer: str = "",
    kind: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", kind, shape)
    y = onnx.ValueInfoProto(name="y")
    graph = helper.make_graph(list(nodes), "net", [x], [y], list(constants))
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, producer_name=producer)


# --- weights as constants ------------------------------------------------------------------------

CONV = node("Conv", ["x", "w"], ["y"])
W = values(6, 4, 3, 3)
AS_CONSTANTS: dict[str, tuple[onnx.ModelProto, int]] = {
    "conv": (
        model([constant("w", W), constant("b", values(6)), node("Conv", ["x", "w", "b"], ["y"])]),
        222,
    ),
    "conv filled": (model([constant("w", np.full_like(W, 0.5)), CONV]), 216),
    "bias of zeros": (
        model(
            [
                constant("w", W),
                constant("b", np.zeros(6, np.float32)),
                node("Conv", ["x", "w", "b"], ["y"]),
            ]
        ),
        222,
    ),
    "bias as a sum": (
        model(
            [
                constant("w", W),
                node("Conv", ["x", "w"], ["c"]),
                constant("b", np.zeros((1, 6, 1, 1), np.float32)),
                node("Add", ["c", "b"], ["y"]),
            ]
        ),
        222,
    ),
    "made by shape": (
        model([node("ConstantOfShape", ["s"], ["w"]), CONV], [held("s", np.array([6, 4, 3, 3]))]),
        216,
    ),
    "through identity": (model([constant("v", W), node("Identity", ["v"], ["w"]), CONV]), 216),
    "transposed": (
        model(
            [
                constant("v", values(3, 3, 4, 6)),
                node("Transpose", ["v"], ["w"], perm=[3, 2, 0, 1]),
                CONV,
            ]
        ),
        216,
    ),
    "reshaped": (
        model(
            [
                constant("v", values(6, 36)),
                constant("s", np.array([6, 4, 3, 3])),
                node("Reshape", ["v", "s"], ["w"]),
                CONV,
            ]
        ),
        216,
    ),
    "halves": (
        model([constant("v", W.astype(np.float16)), node("Cast", ["v"], ["w"], to=1), CONV]),
        216,
    ),
    "unsqueezed": (
        model(
            [
                constant("v", values(6, 4)),
                constant("a", np.array([2, 3])),
                node("Unsqueeze", ["v", "a"], ["w"]),
                CONV,
            ]
        ),
        24,
    ),
    "dequantised": (
        model(
            [
                constant("q", np.arange(216, dtype=np.uint8).reshape(6, 4, 3, 3)),
                constant("s", np.float32(0.1)),
                node("DequantizeLinear", ["q", "s"], ["w"]),
                CONV,
            ]
        ),
        216,
    ),
    "one channel": (
        model(
            [
                constant("w", values(1, 4, 1, 1)),
                constant("b", np.ones(1, np.float32)),
                node("Conv", ["x", "w", "b"], ["y"]),
            ]
        ),
        5,
    ),
    "matmul": (model([constant("w", values(8, 5)), node("MatMul", ["x", "w"], ["y"])]), 40),
    "gemm": (
        model(
            [
                constant("w", np.ones((5, 8), np.float32)),
                constant("b", np.zeros(5, np.float32)),
                node("Gemm", ["x", "w", "b"], ["y"], transB=1),
            ],
            shape=(3, 8),
        ),
        45,
    ),
    "batch norm": (
        model(
            [
                *(
                    constant(n, np.full(4, v, np.float32))
                    for n, v in zip("gbmv", (1, 0, 0, 1), strict=True)
                ),
                node("BatchNormalization", ["x", *"gbmv"], ["y"]),
            ]
        ),
        8,
    ),
    "layer norm": (
        model(
            [
                constant("g", np.ones(8, np.float32)),
                constant("b", np.zeros(8, np.float32)),
                node("LayerNormalization", ["x", "g", "b"], ["y"]),
            ]
        ),
        16,
    ),
    "prelu": (
        model(
            [constant("s", np.full((4, 1, 1), 0.25, np.float32)), node("PRelu", ["x", "s"], ["y"])]
        ),
        4,
    ),
    "table": (
        model(
            [constant("t", values(30, 8)), node("Gather", ["t", "x"], ["y"])],
            shape=(2, 6),
            kind=TensorProto.INT64,
        ),
        240,
    ),
    "lstm": (
        model(
            [
                constant("w", values(1, 24, 8)),
                constant("r", values(1, 24, 6)),
                node("LSTM", ["x", "w", "r"], ["y"], hidden_size=6),
            ],
            shape=(5, 2, 8),
        ),
        24 * 14,
    ),
    "position embedding": (
        model([constant("p", values(1, 8, 8)), node("Add", ["x", "p"], ["y"])]),
        64,
    ),
    "numbers": (
        model(
            [
                constant("a", np.float32(2)),
                constant("b", np.full((8, 8), 3, np.float32)),
                node("Mul", ["x", "a"], ["m"]),
                node("Max", ["m", "b"], ["y"]),
            ]
        ),
        0,
    ),
    "sizes": (
        model(
            [
                constant("s", np.array([1, 1, 2, 2.5], np.float32)),
                node("Resize", ["x", "", "s"], ["y"]),
            ]
        ),
        0,
    ),
}


@pytest.mark.parametrize("name", AS_CONSTANTS)
def test_weights_in_constant_nodes_are_learned(name: str) -> None:
    proto, parameters = AS_CONSTANTS[name]
    assert from_onnx(proto).parameters == parameters


def test_weights_in_constant_nodes_are_shared_by_name() -> None:
    twice = [constant("w", values(4, 4, 1, 1)), node("Conv", ["x", "w"], ["a"])]
    assert from_onnx(model([*twice, node("Conv", ["a", "w"], ["y"])])).parameters == 16


# --- what PyTorch exports, and what tools make of it ---------------------------------------------


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3)
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.GELU(), nn.SiLU())
                for _ in range(3)
            )
        )
        self.norms = nn.ModuleList(nn.LayerNorm(16) for _ in range(2))
        self.lines = nn.ModuleList(nn.Linear(16, 16) for _ in range(2))
        self.register_buffer("shift", torch.linspace(0, 1, 16))

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(nn.functional.hardswish(self.stem(x))).mean((2, 3))
        for norm, line in zip(self.norms, self.lines, strict=True):
            x = line(norm(x))
        return x * torch.tensor([1.0, 2.0] * 8)


def network(*, trained: bool) -> nn.Module:
    torch.manual_seed(0)
    module = Mixed().eval()
    for name, parameter in module.named_parameters():
        if trained:
            nn.init.normal_(parameter.data)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter.data)
    return module


def legacy(module: nn.Module) -> onnx.ModelProto:
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x = torch.zeros(1, 3, 8, 8)
        torch.onnx.export(module, (x,), content, dynamo=False, opset_version=17)
    return onnx.load_from_string(content.getvalue())


def newer(module: nn.Module) -> onnx.ModelProto:
    logging.getLogger("torch.export").setLevel(logging.ERROR)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        x = torch.zeros(1, 3, 8, 8)
        program = torch.onnx.export(module, (x,), dynamo=True, optimize=False, verbose=False)
    assert program is not None
    proto: onnx.ModelProto = program.model_proto
    return proto


def with_initializers(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Constant nodes become initializers, the producer stays, as optimisers do it."""
    changed = copy.deepcopy(proto)
    graph = changed.graph
    for made in [n for n in graph.node if n.op_type == "Constant"]:
        for attribute in made.attribute:
            if attribute.name == "value":
                tensor = onnx.TensorProto()
                tensor.CopyFrom(attribute.t)
                tensor.name = made.output[0]
                graph.initializer.append(tensor)
                graph.node.remove(made)
    return changed


def deduplicated(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Equal initializers become one, which all read, and copies vanish, as optimisers do it."""
    changed = with_initializers(proto)
    graph = changed.graph
    first: dict[tuple[object, ...], str] = {}
    renamed: dict[str, str] = {}
    for tensor in list(graph.initializer):
        key = (tensor.data_type, *tensor.dims, numpy_helper.to_array(tensor).tobytes())
        renamed[tensor.name] = first.setdefault(key, tensor.name)
        if renamed[tensor.name] != tensor.name:
            graph.initializer.remove(tensor)
    for copied in [n for n in graph.node if n.op_type == "Identity" and n.input[0] in renamed]:
        renamed[copied.output[0]] = renamed[copied.input[0]]
        graph.node.remove(copied)
    for reads in graph.node:
        names = [renamed.get(name, name) for name in reads.input]
        del reads.input[:]
        reads.input.extend(names)
    return changed


def with_constants(proto: onnx.ModelProto, producer: str | None = None) -> onnx.ModelProto:
    """Initializers become Constant nodes."""
    changed = copy.deepcopy(proto)
    graph = changed.graph
    nodes = [node("Constant", [], [t.name], value=t) for t in graph.initializer]
    nodes += list(graph.node)
    del graph.initializer[:], graph.node[:]
    graph.node.extend(nodes)
    if producer is not None:
        changed.producer_name = producer
    return changed


def by_onnxslim(proto: onnx.ModelProto) -> onnx.ModelProto:
    onnxslim = pytest.importorskip("onnxslim")
    slim: onnx.ModelProto = onnxslim.slim(copy.deepcopy(proto))
    return slim


TOOLS: dict[str, Callable[[onnx.ModelProto], onnx.ModelProto]] = {
    "as it is": lambda proto: proto,
    "initializers": with_initializers,
    "deduplicated": deduplicated,
    "constants": with_constants,
    "constants of another tool": lambda proto: with_constants(proto, ""),
    "onnxslim": by_onnxslim,
}


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("exporter", [legacy, newer])
@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_changes_neither_graph_nor_parameters(
    tool: str, exporter: Callable[[nn.Module], onnx.ModelProto], trained: bool
) -> None:
    module = network(trained=trained)
    graph = from_onnx(TOOLS[tool](exporter(module)))
    assert graph == from_module(module, (1, 3, 8, 8))
    # The vector of a formula is a constant, unless the tool hides that it is one.
    hides = {legacy: "constants of another tool", newer: "onnxslim"}
    hidden = 16 if tool == hides[exporter] else 0
    assert graph.parameters - hidden == sum(p.numel() for p in module.parameters())


def test_a_layer_that_is_called_twice_counts_its_bias_once() -> None:
    bias = np.zeros(4, np.float32)
    weights = [held(name, values(4, 4, 1, 1, seed=n)) for n, name in enumerate("vw")]

    def chain(*names: str) -> onnx.ModelProto:
        steps = ["x", "a", "y"]
        convs = [
            node("Conv", [steps[n], name, "b"], [steps[n + 1]]) for n, name in enumerate(names)
        ]
        return model(convs, [*weights, held("b", bias)])

    assert from_onnx(chain("v", "v")).parameters == 16 + 4
    assert from_onnx(chain("v", "w")).parameters == 2 * (16 + 4)
    trained = chain("v", "w")
    trained.graph.initializer[2].CopyFrom(held("b", values(4)))
    assert from_onnx(trained).parameters == 2 * 16 + 4


# --- functions written out -----------------------------------------------------------------------


def curve(name: str, how: Callable[[str, float], str]) -> list[onnx.NodeProto]:
    """A function of x written out; `how` names the tensor of a number."""
    half, one, root = how("half", 0.5), how("one", 1.0), how("root", 2**0.5)
    if name == "gelu":
        return [
            node("Div", ["x", root], ["a"]),
            node("Erf", ["a"], ["b"]),
            node("Add", ["b", one], ["c"]),
            node("Mul", ["x", "c"], ["d"]),
            node("Mul", ["d", half], ["y"]),
        ]
    if name == "gelu, half first":
        return [
            node("Mul", ["x", half], ["h"]),
            node("Mul", ["x", how("inverse", 0.5**0.5)], ["a"]),
            node("Erf", ["a"], ["b"]),
            node("Add", [one, "b"], ["c"]),
            node("Mul", ["h", "c"], ["y"]),
        ]
    if name == "gelu, half inside":
        return [
            node("Div", ["x", root], ["a"]),
            node("Erf", ["a"], ["b"]),
            node("Mul", ["b", half], ["c"]),
            node("Add", ["c", half], ["d"]),
            node("Mul", ["x", "d"], ["y"]),
        ]
    if name == "gelu by tanh":
        return [
            node("Pow", ["x", how("three", 3.0)], ["a"]),
            node("Mul", ["a", how("cube", 0.044715)], ["b"]),
            node("Add", ["x", "b"], ["c"]),
            node("Mul", ["c", how("scale", 0.7978845)], ["d"]),
            node("Tanh", ["d"], ["e"]),
            node("Add", ["e", one], ["f"]),
            node("Mul", ["x", half], ["g"]),
            node("Mul", ["g", "f"], ["y"]),
        ]
    if name == "gelu by sigmoid":
        return [
            node("Mul", ["x", how("steep", 1.702)], ["a"]),
            node("Sigmoid", ["a"], ["b"]),
            node("Mul", ["x", "b"], ["y"]),
        ]
    if name == "silu":
        return [node("Sigmoid", ["x"], ["a"]), node("Mul", ["x", "a"], ["y"])]
    if name == "silu as a quotient":
        return [
            node("Neg", ["x"], ["a"]),
            node("Exp", ["a"], ["b"]),
            node("Add", ["b", one], ["c"]),
            node("Div", ["x", "c"], ["y"]),
        ]
    return [
        node("Add", ["x", how("three", 3.0)], ["a"]),
        node("Clip", ["a", how("zero", 0.0), how("six", 6.0)], ["b"]),
        node("Mul", ["x", "b"], ["c"]),
        node("Div", ["c", how("sixth", 6.0)], ["y"]),
    ]


CURVES = (
    "gelu", "gelu, half first", "gelu, half inside", "gelu by tanh", "gelu by sigmoid", "silu",
    "silu as a quotient", "hard_swish",
)  # fmt: skip


@pytest.mark.parametrize("producer", ["pytorch", ""])
@pytest.mark.parametrize("as_nodes", [True, False])
@pytest.mark.parametrize("name", CURVES)
def test_functions_are_known_whoever_wrote_their_numbers(
    name: str, as_nodes: bool, producer: str
) -> None:
    numbers: dict[str, float] = {}

    def how(called: str, value: float) -> str:
        numbers[called] = value
        return called

    nodes = curve(name, how)
    if as_nodes:
        nodes = [*(constant(n, np.float32(v)) for n, v in numbers.items()), *nodes]
    constants = [] if as_nodes else [held(n, np.float32(v)) for n, v in numbers.items()]
    # PyTorch's own files have parameters beside.
    constants.append(held("w", values(8, 8)))
    nodes.append(node("MatMul", ["y", "w"], ["z"]))
    proto = model(nodes, constants, producer=producer)
    proto.graph.output[0].name = "z"
    graph = from_onnx(proto)
    operation = name.split(",")[0].split()[0]
    assert graph.operations == {operation: 1, "input": 1, "linear": 1, "output": 1}
    assert graph.parameters == 64


def test_a_learned_scale_of_one_is_no_number() -> None:
    nodes = [
        node("Sigmoid", ["x"], ["a"]),
        node("Mul", ["x", "a"], ["b"]),
        node("Mul", ["b", "s"], ["y"]),
    ]
    graph = from_onnx(model(nodes, [held("s", np.float32(1))], producer="pytorch"))
    assert graph.operations == {"input": 1, "mul": 1, "output": 1, "silu": 1}
    assert graph.parameters == 1


# --- old opsets, free dimensions, nodes in any order ---------------------------------------------

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"
PUBLISHED = {  # multiply-adds, parameters: as onnxruntime's shapes of the same files give them
    "bvlc_alexnet": (654_560_384, 60_965_224),
    "densenet121": (2_834_161_664, 8_020_808),
    "inception_v1": (1_431_556_352, 6_998_552),
    "inception_v2": (2_018_851_840, 11_205_736),
    "resnet50": (4_089_184_256, 25_557_032),
    "shufflenet": (124_664_528, 1_393_320),
    "squeezenet": (349_151_936, 1_235_496),
    "vgg19": (19_632_062_464, 143_667_240),
    "zfnet512": (1_481_727_008, 87_250_536),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_light_models_of_the_onnx_package(name: str) -> None:
    path = LIGHT / f"light_{name}.onnx"
    if not path.exists():
        pytest.skip("this release of onnx has no such file")
    graph = from_onnx(path)
    assert (graph.macs, graph.parameters) == PUBLISHED[name]
    assert not graph.others


@pytest.mark.parametrize("opset", [7, 8, 9, 10])
def test_old_opsets_are_converted(opset: int) -> None:
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("Softmax", ["c"], ["s"], axis=1),
        node("Flatten", ["s"], ["y"]),
    ]
    proto = model(nodes, [held("w", W)], opset=opset)
    before = proto.SerializeToString()
    graph = from_onnx(proto)
    assert (graph.macs, graph.parameters) == (2 * 6 * 36 * 36, 216)
    assert proto.SerializeToString() == before


def test_an_old_opset_that_cannot_be_converted_is_told() -> None:
    nodes = [node("Foo", ["x"], ["y"])]
    with pytest.raises(GraphError, match=r"one of opset 9 is not: .* with an opset of 11 or more"):
        from_onnx(model(nodes, opset=9))


@pytest.mark.parametrize("free", [-1, 0])
@pytest.mark.parametrize("opset", [9, 17])
def test_dimensions_that_are_not_positive_are_free(free: int, opset: int) -> None:
    proto = model([CONV], [held("w", W)], (free, 4, free, "width"), opset=opset)
    assert from_onnx(proto, input_shapes={"x": (1, 4, 8, 12)}).macs == 6 * 6 * 10 * 36
    shown = r"\?" if (free, opset) == (-1, 9) else free  # as the converter leaves it
    with pytest.raises(GraphError, match=rf"\({shown}, 4, {shown}, width\)"):
        from_onnx(proto)
    with pytest.raises(GraphError, match="must fit"):
        from_onnx(proto, input_shapes={"x": (1, 3, 8, 8)})


def test_nodes_may_stand_in_any_order() -> None:
    nodes = [
        node("Mul", ["c", "r"], ["y"]),
        node("Relu", ["c"], ["r"]),
        node("Conv", ["h", "w"], ["c"]),
        node("Cast", ["x"], ["h"], to=1),
    ]
    graph = from_onnx(model(nodes, [held("w", W)]))
    assert graph == from_onnx(model(nodes[::-1], [held("w", W)]))
    assert graph.macs == 2 * 6 * 36 * 36
    cycle = [node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"]), node("Relu", ["b"], ["y"])]
    with pytest.raises(GraphError, match=r"'a' \(Add\) reads 'b'"):
        from_onnx(model(cycle))


def test_operators_of_later_opsets_are_read_as_onnxruntime_runs_them() -> None:
    """LayerNormalization came with opset 17; onnxruntime writes it into any model."""
    nodes = [node("LayerNormalization", ["x", "g", "b"], ["y"])]
    constants = [held("g", values(8)), held("b", values(8))]
    graph = from_onnx(model(nodes, constants, opset=12))
    assert graph.operations["layer_norm"] == 1 and graph.parameters == 16


def test_small_tensors_beside_the_file_are_read(tmp_path: Path) -> None:
    """Sizes and indices are needed; of weights the shapes are enough."""
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["y"]),
    ]
    held = [
        numpy_helper.from_array(np.array([2, 8]), "shape"),
        numpy_helper.from_array(np.random.rand(8, 1024).astype(np.float32), "w"),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in
            (("x", (4, 4)), ("y", (2, 1024)))]  # fmt: skip
    model = helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], held))
    path = tmp_path / "net.onnx"
    onnx.save(model, path, save_as_external_data=True, location="net.data", size_threshold=0)
    graph = from_onnx(path)
    assert (graph.macs, graph.parameters) == (2 * 8 * 1024, 8 * 1024)
    (tmp_path / "net.data").unlink()
    with pytest.raises(GraphError, match=r"must be known|must not depend on the values"):
        from_onnx(path)


@pytest.mark.parametrize("name", ["val_7", "scalar_tensor_default", "scalar_tensor_default_2"])
def test_numbers_of_a_formula_keep_the_names_that_pytorch_gives_them(name: str) -> None:
    """Though a tool made initializers of them and dropped what PyTorch said of each."""
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, (2, 4)) for n in "xy")
    half = numpy_helper.from_array(np.float32(2.0).reshape(()), name)
    graph = helper.make_graph(
        [helper.make_node("Div", ["x", name], ["y"])],
        "g",
        [x],
        [y],
        [half],
    )
    assert from_onnx(helper.make_model(graph, producer_name="pytorch")).parameters == 0
