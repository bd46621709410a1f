"""Branches, loops and scans of ONNX models, lists that loops fill, and values of inputs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from nni_aiop.errors import GraphError
from nni_aiop.graphs import ComputeGraph, from_onnx

node = helper.make_node
INT, FLOAT, BOOL = TensorProto.INT64, TensorProto.FLOAT, TensorProto.BOOL


def info(name: str, shape: Sequence[int | str] | None, kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def tensor(name: str, *shape: int) -> onnx.TensorProto:
    """A learned tensor."""
    values = np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32)
    return numpy_helper.from_array(values.reshape(shape), name)


def held(name: str, values: Any, kind: type = np.int64) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, kind), name)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    constants: Sequence[onnx.TensorProto] = (),
    outputs: Sequence[str] = ("y",),
    opset: int = 17,
) -> onnx.ModelProto:
    made = [info(name, None) for name in outputs]
    graph = helper.make_graph(list(nodes), "net", list(inputs), made, list(constants))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def run_shapes(proto: onnx.ModelProto, **feeds: Any) -> list[tuple[int, ...]]:
    """Shapes of the outputs as onnxruntime makes them."""
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return [np.shape(result) for result in session.run(None, feeds)]


# --- loops ---------------------------------------------------------------------------------------

CONV = tensor("w", 4, 4, 3, 3)
IMAGE = (1, 4, 8, 8)  # a 3x3 convolution with padding: 1 x 4 x 8 x 8 x 4 x 9 = 9,216 multiply-adds
ZEROS = np.zeros(IMAGE, np.float32)


def conv_body(weights_inside: bool = True) -> onnx.GraphProto:
    """One turn: the state goes through a convolution; its mean is put out."""
    return helper.make_graph(
        [
            node("Conv", ["s", "w"], ["c"], pads=[1, 1, 1, 1]),
            node("Relu", ["c"], ["t"]),
            node("ReduceMean", ["t"], ["mean"], axes=[2, 3], keepdims=0),
            node("Identity", ["go"], ["goes"]),
        ],
        "body",
        [info("i", (), INT), info("go", (), BOOL), info("s", None)],
        [info("goes", (), BOOL), info("t", None), info("mean", None)],
        [CONV] if weights_inside else [],
    )


@pytest.mark.parametrize("inside", [True, False])
def test_a_loop_costs_its_body_times_its_turns(inside: bool) -> None:
    proto = model(
        [node("Loop", ["n", "yes", "x"], ["y", "means"], body=conv_body(inside))],
        [info("x", IMAGE)],
        [held("n", 5), held("yes", True, bool), *([] if inside else [CONV])],
        ("y", "means"),
    )
    graph = from_onnx(proto)
    assert graph.macs == 46_080
    assert graph.parameters == 4 * 4 * 9, "the weights of all turns are the same"
    assert graph.operations["conv"] == graph.operations["relu"] == 5
    assert graph.output_shapes == tuple(run_shapes(proto, x=ZEROS)) == (IMAGE, (5, 1, 4))


def test_the_turns_of_a_loop_may_be_the_value_of_an_input() -> None:
    proto = model(
        [node("Loop", ["n", "", "x"], ["y", "means"], body=conv_body())],
        [info("x", IMAGE), info("n", (), INT)],
        outputs=("y", "means"),
    )
    assert from_onnx(proto, values={"n": 3}).macs == 3 * 9216
    assert from_onnx(proto, values={"n": np.array(7)}).macs == 7 * 9216
    with pytest.raises(GraphError, match=r"how often a loop turns must be known.*values="):
        from_onnx(proto)
    with pytest.raises(GraphError, match="at most 50000 operations"):
        from_onnx(proto, values={"n": 10**9})


def test_a_loop_ends_by_a_condition_on_its_state() -> None:
    """while n < 100: n = 3 n + 1; x = relu(x): 1, 4, 13, 40, 121 are four turns."""
    body = helper.make_graph(
        [
            node("Mul", ["n", "three"], ["m"]),
            node("Add", ["m", "one"], ["next"]),
            node("Less", ["next", "most"], ["goes"]),
            node("MatMul", ["s", "w"], ["t"]),
        ],
        "body",
        [info("i", (), INT), info("go", (), BOOL), info("n", (), INT), info("s", None)],
        [info("goes", (), BOOL), info("next", (), INT), info("t", None)],
        [held("three", 3), held("one", 1), held("most", 100)],
    )
    proto = model(
        [node("Loop", ["", "yes", "start", "x"], ["n", "y"], body=body)],
        [info("x", (2, 8))],
        [held("yes", True, bool), held("start", 1), tensor("w", 8, 8)],
    )
    graph = from_onnx(proto)
    assert (graph.macs, graph.parameters) == (4 * 2 * 64, 64)


def test_a_loop_in_a_loop() -> None:
    inner = conv_body(False)
    outer = helper.make_graph(
        [
            node("Loop", ["two", "", "a"], ["b", "means"], body=inner),
            node("Identity", ["outer_go"], ["outer_goes"]),
        ],
        "outer",
        [info("j", (), INT), info("outer_go", (), BOOL), info("a", None)],
        [info("outer_goes", (), BOOL), info("b", None)],
        [CONV],
    )
    proto = model(
        [node("Loop", ["three", "", "x"], ["y"], body=outer)],
        [info("x", IMAGE)],
        [held("two", 2), held("three", 3)],
    )
    graph = from_onnx(proto)
    assert (graph.macs, graph.parameters) == (6 * 9216, 144)


def test_a_loop_that_turns_no_time_is_its_state() -> None:
    proto = model(
        [node("Relu", ["x"], ["r"]), node("Loop", ["n", "", "r"], ["y"], body=conv_body())],
        [info("x", IMAGE)],
        [held("n", 0)],
    )
    del proto.graph.node[1].attribute[0].g.output[2]
    assert from_onnx(proto).operations == {"input": 1, "output": 1, "relu": 1}


def test_a_state_may_grow() -> None:
    body = helper.make_graph(
        [node("Concat", ["s", "x"], ["t"], axis=0), node("Identity", ["go"], ["goes"])],
        "body",
        [info("i", (), INT), info("go", (), BOOL), info("s", None)],
        [info("goes", (), BOOL), info("t", None)],
    )
    proto = model(
        [node("Loop", ["n", "", "x"], ["y"], body=body)],
        [info("x", (2, 3))],
        [held("n", 4)],
    )
    assert from_onnx(proto).output_shapes == ((10, 3),)


def test_a_loop_may_fill_a_list() -> None:
    body = helper.make_graph(
        [
            node("Mul", ["s", "w"], ["t"]),
            node("SequenceInsert", ["list", "t"], ["longer"]),
            node("Identity", ["go"], ["goes"]),
        ],
        "body",
        [info("i", (), INT), info("go", (), BOOL), info("s", None), info("list", None)],
        [info("goes", (), BOOL), info("t", None), info("longer", None)],
    )
    proto = model(
        [
            node("SequenceEmpty", [], ["empty"]),
            node("Loop", ["n", "", "x", "empty"], ["last", "list_out"], body=body),
            node("ConcatFromSequence", ["list_out"], ["y"], axis=0, new_axis=1),
        ],
        [info("x", (2, 3))],
        [held("n", 3), tensor("w", 3)],
    )
    graph = from_onnx(proto)
    assert graph.output_shapes == ((3, 2, 3),)
    assert graph.operations["mul"] == 3
    assert graph.parameters == 3


# --- scans ---------------------------------------------------------------------------------------


def scan_body() -> onnx.GraphProto:
    """A cell: state' = tanh(x w + state r), put out as well."""
    return helper.make_graph(
        [
            node("MatMul", ["piece", "w"], ["a"]),
            node("MatMul", ["s", "r"], ["b"]),
            node("Add", ["a", "b"], ["c"]),
            node("Tanh", ["c"], ["t"]),
            node("Identity", ["t"], ["out"]),
        ],
        "body",
        [info("s", (2, 6)), info("piece", (2, 4))],
        [info("t", (2, 6)), info("out", (2, 6))],
        [tensor("w", 4, 6), tensor("r", 6, 6)],
    )


@pytest.mark.parametrize(("axis", "out_axis", "shape"), [(0, 0, (5, 2, 4)), (1, 1, (2, 5, 4))])
@pytest.mark.parametrize("backwards", [0, 1])
def test_a_scan_costs_its_body_times_the_length(
    axis: int, out_axis: int, shape: tuple[int, ...], backwards: int
) -> None:
    proto = model(
        [
            node(
                "Scan",
                ["h", "x"],
                ["last", "y"],
                body=scan_body(),
                num_scan_inputs=1,
                scan_input_axes=[axis],
                scan_output_axes=[out_axis],
                scan_input_directions=[backwards],
                scan_output_directions=[backwards],
            )
        ],
        [info("x", shape), info("h", (2, 6))],
        outputs=("last", "y"),
    )
    graph = from_onnx(proto)
    assert graph.macs == 5 * 2 * (4 * 6 + 6 * 6)
    assert graph.parameters == 4 * 6 + 6 * 6
    feeds = {"x": np.zeros(shape, np.float32), "h": np.zeros((2, 6), np.float32)}
    assert graph.output_shapes == tuple(run_shapes(proto, **feeds))
    # The first step of the first turn reads the piece that the direction says.
    ranges = sorted(dict(n.attributes)["ranges"] for n in graph.nodes if n.op == "slice")
    assert len(ranges) == 5


def test_a_scan_without_a_length_is_refused() -> None:
    proto = model(
        [node("Scan", ["h", "x"], ["last", "y"], body=scan_body(), num_scan_inputs=1)],
        [info("x", ("length", 2, 4)), info("h", (2, 6))],
    )
    with pytest.raises(GraphError, match="name a shape for 'x'"):
        from_onnx(proto)
    assert from_onnx(proto, input_shapes={"x": (9, 2, 4)}).macs == 9 * 120


# --- branches and values -------------------------------------------------------------------------


def by_rate() -> onnx.ModelProto:
    """As voice detectors have it: another network for each sampling rate."""

    def branch(name: str, width: int) -> onnx.GraphProto:
        # Names inside the two are the same.
        return helper.make_graph(
            [node("MatMul", ["x", "w"], ["h"]), node("Relu", ["h"], ["out"])],
            name,
            [],
            [info("out", None)],
            [tensor("w", 8, width)],
        )

    return model(
        [
            node("Equal", ["sr", "rate"], ["is_wide"]),
            node("If", ["is_wide"], ["y"], then_branch=branch("a", 16), else_branch=branch("b", 4)),
        ],
        [info("x", (2, 8)), info("sr", (), INT)],
        [held("rate", 16000)],
    )


def test_a_branch_is_chosen_by_the_value_of_an_input() -> None:
    wide = from_onnx(by_rate(), values={"sr": 16000})
    assert (wide.macs, wide.parameters, wide.input_shapes) == (2 * 8 * 16, 128, ((2, 8),))
    narrow = from_onnx(by_rate(), values={"sr": 8000})
    assert (narrow.macs, narrow.parameters) == (2 * 8 * 4, 32)
    with pytest.raises(GraphError, match=r"'y' \(If\) does; .* \(values=\)"):
        from_onnx(by_rate())


def test_the_branches_of_two_nodes_may_share_names() -> None:
    proto = by_rate()
    first = proto.graph.node[1]
    second = onnx.NodeProto()
    second.CopyFrom(first)
    second.output[0] = "z"
    proto.graph.node.append(second)
    proto.graph.node.append(node("Add", ["y", "z"], ["sum"]))
    proto.graph.output[0].name = "sum"
    assert from_onnx(proto, values={"sr": 16000}).parameters == 2 * 128


def one_of(kind: str) -> tuple[onnx.ModelProto, dict[str, Any], dict[str, tuple[int, ...]]]:
    """A model whose shapes ask the value of an input, that value, and a value with a shape."""
    x = info("x", (2, 12))
    if kind == "Reshape":
        nodes = [node("Reshape", ["x", "v"], ["y"])]
        return model(nodes, [x, info("v", (3,), INT)]), {"v": [4, -1, 2]}, {"y": (4, 3, 2)}
    if kind == "Expand":
        nodes = [node("Expand", ["x", "v"], ["y"])]
        return model(nodes, [x, info("v", (3,), INT)]), {"v": [5, 2, 12]}, {"y": (5, 2, 12)}
    if kind == "TopK":
        nodes = [node("TopK", ["x", "v"], ["y", "places"], axis=1)]
        return model(nodes, [x, info("v", (1,), INT)]), {"v": 3}, {"y": (2, 3)}
    if kind == "Range":
        nodes = [
            node("Range", ["zero", "v", "one"], ["r"]),
            node("Cast", ["r"], ["f"], to=FLOAT),
            node("Add", ["x", "f"], ["y"]),
        ]
        constants = [held("zero", 0), held("one", 1)]
        return model(nodes, [x, info("v", (), INT)], constants), {"v": 12}, {"y": (2, 12)}
    if kind == "Slice":
        nodes = [node("Slice", ["x", "zero", "v", "one"], ["y"])]
        constants = [held("zero", [0]), held("one", [1])]
        return model(nodes, [x, info("v", (1,), INT)], constants), {"v": [5]}, {"y": (2, 5)}
    x = info("x", (1, 3, 8, 8))
    if kind == "sizes":
        nodes = [node("Resize", ["x", "", "", "v"], ["y"])]
        proto = model(nodes, [x, info("v", (4,), INT)])
        return proto, {"v": [1, 3, 20, 10]}, {"y": (1, 3, 20, 10)}
    nodes = [node("Resize", ["x", "", "v"], ["y"])]
    return model(nodes, [x, info("v", (4,))]), {"v": [1, 1, 2.5, 2]}, {"y": (1, 3, 20, 16)}


@pytest.mark.parametrize("kind", ["Reshape", "Expand", "TopK", "Range", "Slice", "sizes", "scales"])
def test_shapes_may_ask_the_value_of_an_input(kind: str) -> None:
    proto, values, shapes = one_of(kind)
    graph = from_onnx(proto, values=values)
    assert graph.output_shapes[0] == shapes["y"]
    (x, v) = proto.graph.input
    of_v = v.type.tensor_type
    feeds = {
        "x": np.zeros([d.dim_value for d in x.type.tensor_type.shape.dim], np.float32),
        "v": np.array(values["v"], helper.tensor_dtype_to_np_dtype(of_v.elem_type)).reshape(
            [d.dim_value for d in of_v.shape.dim]
        ),
    }
    assert run_shapes(proto, **feeds)[0] == shapes["y"]
    with pytest.raises(GraphError, match=r"values="):
        from_onnx(proto)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"rate": 1}, "values must name inputs of the model .* but got 'rate'"),
    "shape": ({"sr": [1, 2]}, r"the shape of input 'sr' must fit \(\), but got \(2,\)"),
    "type": ({"sr": 0.5}, "must be of type int64, but got 0.5"),
    "text": ({"sr": "fast"}, "must be numbers, but got 'fast'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_is_refused(name: str) -> None:
    values, sentence = WRONG[name]
    with pytest.raises(GraphError, match=sentence):
        from_onnx(by_rate(), values=values)


def test_a_value_may_be_of_a_floating_input() -> None:
    proto = model([node("Mul", ["x", "v"], ["y"])], [info("x", (2, 3)), info("v", (1,))])
    both: ComputeGraph = from_onnx(proto)
    assert sorted(both.input_shapes) == [(1,), (2, 3)]
    assert from_onnx(proto, values={"v": 1.0}).operations == {"input": 1, "output": 1}
