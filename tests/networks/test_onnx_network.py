"""ONNX files edited as their compute graphs are: the graphs, the numbers, and the files."""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

from benchmarks._timm import create, input_shape
from nni_aiop.errors import FileFormatError, GraphError
from nni_aiop.graphs import from_onnx
from nni_aiop.graphs.edits import Site
from nni_aiop.networks import OnnxNetwork
from tests.networks.zoo import ZOO, batch_of, made

NEWER = ["next_block", "vit"]
"""Networks that the quick tests export by PyTorch's newer exporter, too, which takes seconds."""

NORMED = {"grouped", "next_block", "vit", "encoder", "language"}
"""Networks with norms over channels, which depend on how many there are."""


def exported(model: nn.Module, inputs: tuple[Tensor, ...], *, newer: bool, **options: Any) -> Any:
    """The ONNX model of a module for any batch size."""
    import io

    two = batch_of(inputs, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if newer:
            axes = tuple({0: torch.export.Dim("batch")} for _ in two)
            program = torch.onnx.export(
                model, two, dynamo=True, verbose=False, dynamic_shapes=axes, **options
            )
            assert program is not None
            return program.model_proto
        names = [f"input_{i}" for i in range(len(two))]
        file = io.BytesIO()
        torch.onnx.export(
            model, two, file, dynamo=False, input_names=names,
            dynamic_axes={name: {0: "batch"} for name in names}, **options,
        )  # fmt: skip
    return ModelProto.FromString(file.getvalue())


def of_zoo(name: str, *, newer: bool = False, **options: Any) -> OnnxNetwork:
    model, inputs = made(name)
    return OnnxNetwork(exported(model.eval(), inputs, newer=newer, **options))


def free(network: OnnxNetwork) -> list[Site]:
    return [site for site in network.sites() if site.reason is None]


def run(network: OnnxNetwork, batch: int) -> list[NDArray[Any]]:
    """What onnxruntime makes of random inputs."""
    session = onnxruntime.InferenceSession(network.model.SerializeToString())
    rng = np.random.default_rng(batch)
    feeds = {}
    for info in session.get_inputs():
        shape = (batch, *network.input_shapes.get(info.name, info.shape)[1:])
        numbers = rng.random(shape) if "float" in info.type else rng.integers(0, 30, shape)
        kind = {"tensor(float)": "f4", "tensor(float16)": "f2"}.get(info.type, "i8")
        feeds[info.name] = numbers.astype(kind)
    return list(session.run(None, feeds))


def check(network: OnnxNetwork, edits: dict[str, Any]) -> OnnxNetwork:
    """Edits, and compares the file with the edited graph."""
    small = network.edit(edits)
    expected = network.graph.edit(edits)
    shapes = network.input_shapes
    found = from_onnx(small.model, input_shapes=shapes)
    assert found == expected, (edits, str(found.diff(expected))[:2000])
    assert (found.macs, found.flops) == (expected.macs, expected.flops)
    assert found.peak_memory() == expected.peak_memory()
    assert found.cost == expected.cost
    onnx.checker.check_model(small.model, full_check=True)
    onnx.shape_inference.infer_shapes(small.model, strict_mode=True, data_prop=True)
    before, after = network.model, small.model
    assert [x.name for x in after.graph.input] == [x.name for x in before.graph.input]
    assert list(after.graph.output) == list(before.graph.output)
    assert list(after.opset_import) == list(before.opset_import)
    assert after.ir_version == before.ir_version
    assert list(after.metadata_props) == list(before.metadata_props)
    return small


def halves(sites: Sequence[Site]) -> dict[str, Any]:
    return {site.label: max(1, site.value // 2) for site in sites}


def at_random(sites: Sequence[Site], seed: int) -> dict[str, Any]:
    rng = random.Random(seed)
    return {site.label: rng.randint(1, site.value) for site in sites if rng.random() < 0.6}


def without(network: OnnxNetwork, sites: Sequence[Site]) -> tuple[OnnxNetwork, OnnxNetwork]:
    """The network with half of the units of some sites zero, and the one without these."""
    labels = network._labels
    removed = np.zeros(labels.coupler.count, bool)
    rng, edits = random.Random(0), {}
    for site in sites:
        gone = rng.sample(range(site.value), site.value // 2)
        for unit in gone:
            removed[network._units[site.index].labels[unit]] = True
        edits[site.label] = site.value - len(gone)
    model = ModelProto()
    model.CopyFrom(network.model)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for held in labels.held.values():
        if held.source in tensors:
            numbers = numpy_helper.to_array(tensors[held.source]).copy()
            for layer in held.marks.layers:
                numbers[np.broadcast_to(removed[layer], numbers.shape)] = 0
            tensors[held.source].CopyFrom(numpy_helper.from_array(numbers, held.source))
    blank = OnnxNetwork(model, network.input_shapes)
    return blank, blank.edit(edits)


def check_numbers(network: OnnxNetwork, sites: Sequence[Site]) -> None:
    blank, small = without(network, sites)
    for batch in (1, 3):
        for a, b in zip(run(blank, batch), run(small, batch), strict=True):
            assert a.shape == b.shape
            np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5 * max(1, np.abs(a).max()))


WAYS = [
    pytest.param(
        name,
        newer,
        marks=[pytest.mark.slow] if newer and name not in NEWER else [],
        id=f"{name}-{'newer' if newer else 'older'}",
    )
    for name in ZOO
    for newer in (False, True)
    if newer or name != "language"  # the older exporter has no rms_norm
]


@pytest.mark.parametrize(("name", "newer"), WAYS)
def test_the_graph_of_the_edited_file_is_the_edited_graph(name: str, newer: bool) -> None:
    """And what is zero can go; and without an edit the file is the file."""
    network = of_zoo(name, newer=newer)
    assert network.edit({}).model == network.model
    sites = free(network)
    of_graph = {s.label for s in network.graph.sites() if s.counts and s.reason is None}
    assert {site.label for site in sites} == of_graph, "nothing that the graph lets go is lost"
    check(network, halves(sites))
    for seed in range(3):
        small = check(network, at_random(sites, seed))
        shapes = [x.shape for x in run(network, 3)]
        assert [x.shape for x in run(small, 3)] == shapes
    if name not in NORMED:
        check_numbers(network, sites)


@pytest.mark.parametrize("newer", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_heads_and_dimensions_that_are_zero_go_from_attention(newer: bool) -> None:
    """The scale stays that of the full width, be it a number or computed from a shape."""
    network = of_zoo("vit", newer=newer)
    stream = network.graph.names[next(
        i for i, node in enumerate(network.graph.nodes) if node.op == "conv"
    )]  # fmt: skip
    sites = [site for site in free(network) if stream not in site.layers]
    assert {site.kind for site in sites} == {"width", "heads"}
    for site in sites:
        check_numbers(network, [site])


def test_channels_of_a_file_stay_by_their_squares_or_by_scores() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 2, 1))
    with torch.no_grad():
        for i in range(8):
            model[0].weight[i] = [3, 1, 4, 1.5, 9, 2, 6, 5][i]
    network = OnnxNetwork(exported(model, (torch.rand(1, 3, 4, 4),), newer=False))
    (site,) = free(network)

    def kept(small: OnnxNetwork) -> list[float]:
        weight = next(x for x in small.model.graph.initializer if x.name == "0.weight")
        return [float(row.ravel()[0]) for row in numpy_helper.to_array(weight)]

    assert kept(network.edit({site.label: 3})) == [9, 6, 5]
    scores = {site.label: [8, 7, 6, 5, 4, 3, 2, 1]}
    assert kept(network.edit({site.label: 3}, scores=scores)) == [3, 1, 4]
    with pytest.raises(GraphError, match="a score for each of its 8 units"):
        network.edit({site.label: 3}, scores={site.label: [1, 2]})
    with pytest.raises(GraphError, match="must be of a site of the graph"):
        network.edit({"width:nowhere": 3})


# --- networks of timm ----------------------------------------------------------------------------

TIMM = ["mobilenetv3_small_100", "resnet18"]
MORE = [
    "convnext_atto", "densenet121", "efficientnet_b0", "ghostnet_100", "levit_128s",
    "mobilenetv2_100", "mobilevitv2_050", "regnety_002", "repvit_m0_9", "res2net50_26w_4s",
    "swin_tiny_patch4_window7_224", "vit_tiny_patch16_224",
]  # fmt: skip


@pytest.mark.parametrize("name", [*TIMM, *(pytest.param(x, marks=pytest.mark.slow) for x in MORE)])
def test_the_same_for_networks_of_timm(name: str) -> None:
    model = create(name)
    inputs = (torch.rand(input_shape(model)),)
    network = OnnxNetwork(exported(model, inputs, newer=False))
    sites = free(network)
    check(network, halves(sites))
    small = check(network, at_random(sites, 0))
    assert [x.shape for x in run(small, 2)] == [(2, 1000)]


# --- how files are written -----------------------------------------------------------------------


class Cut(nn.Module):
    """A cut by numbers that are computed from the shape, padded channels, resized pixels."""

    def __init__(self, *, computed: bool) -> None:
        super().__init__()
        self.computed = computed
        self.first = nn.Conv2d(3, 24, 3, padding=1)
        self.norm = nn.BatchNorm2d(24)
        self.second = nn.Conv2d(20, 16, 3, padding=1, groups=2)
        self.third = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.last = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.first(x)).relu()
        half = y.shape[1] // 2 if self.computed else 12
        a, b, c = y[:, :8], y[:, 8:half], y[:, 12:]
        y = nn.functional.pad(torch.cat([c, a], 1) * 0.5, (0, 0, 0, 0, 0, 0)) + b.mean()
        z = nn.functional.interpolate(self.second(y), scale_factor=2.0)
        z = self.third(z).clamp(0, 6).view(x.shape[0], 8, -1)
        return self.last(z.transpose(1, 2)).softmax(-1)


@pytest.mark.parametrize("opset", [9, 10, 11, 12, 13, 16, 18, 20])
def test_every_opset(opset: int) -> None:
    torch.manual_seed(0)
    module = Cut(computed=opset > 9).eval()  # opset 9 has no cuts by computed numbers
    inputs = (torch.rand(1, 3, 8, 8),)
    network = OnnxNetwork(exported(module, inputs, newer=False, opset_version=opset))
    assert {o.version for o in network.model.opset_import} == {opset}
    sites = free(network)
    assert len(sites) >= 3
    for seed in range(4):
        check(network, at_random(sites, seed))
    check_numbers(network, sites)


def test_constants_in_nodes_and_equal_vectors_written_once() -> None:
    """Two layers read one bias of zeros, which stays shared by none of the smaller ones."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Constant", [], ["w1"], value=numbers(rng, 16, 3, 1, 1)),
        helper.make_node("Constant", [], ["zeros"], value=numpy_helper.from_array(
            np.zeros(16, np.float32))),
        helper.make_node("Conv", ["x", "w1", "zeros"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2", "zeros"], ["c"], name="second"),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Conv", ["d", "w3"], ["y"], name="last"),
    ]  # fmt: skip
    weights = [numbers(rng, 16, 16, 1, 1, name="w2"), numbers(rng, 4, 16, 1, 1, name="w3")]
    network = OnnxNetwork(model_of(nodes, weights, ["batch", 3, 5, 5]))
    assert [site.label for site in free(network)] == ["width:first", "width:second"]
    small = check(network, {"width:first": 3, "width:second": 7})
    assert [x.shape for x in run(small, 2)] == [(2, 4, 5, 5)]
    check(network, {"width:second": 7})
    check_numbers(network, free(network))


def numbers(rng: Any, *shape: int, name: str = "", kind: str = "f4") -> TensorProto:
    return numpy_helper.from_array(rng.standard_normal(shape).astype(kind), name)


def model_of(
    nodes: Sequence[onnx.NodeProto],
    weights: Sequence[TensorProto],
    shape: Sequence[int | str],
    *,
    kind: int = TensorProto.FLOAT,
    opset: int = 17,
    domains: Sequence[str] = (),
) -> ModelProto:
    graph = helper.make_graph(
        nodes, "net", [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, None)], weights,
    )  # fmt: skip
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    inferred = onnx.shape_inference.infer_shapes(model)
    if inferred.graph.output[0].type.tensor_type.HasField("shape"):
        model.graph.output[0].CopyFrom(inferred.graph.output[0])
    else:
        del model.graph.output[0].type.tensor_type.shape.dim[:]
    return model


def test_products_whichever_way_they_are_written() -> None:
    """Gemm with either matrix turned, MatMul with the weight turned by a node, a shared weight."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Transpose", ["x"], ["xt"], perm=[1, 0]),
        helper.make_node("Gemm", ["xt", "w1", "b1"], ["a"], name="one", transA=1, transB=1),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Gemm", ["b", "w2"], ["c"], name="two", alpha=0.5),
        helper.make_node("Transpose", ["w3"], ["w3t"], perm=[1, 0]),
        helper.make_node("MatMul", ["c", "w3t"], ["d"], name="three"),
        helper.make_node("Add", ["d", "b3"], ["e"], name="bias"),
        helper.make_node("Mul", ["e", "scale"], ["f"], name="scaled"),
        helper.make_node("MatMul", ["f", "w4"], ["y"], name="four"),
    ]
    weights = [
        numbers(rng, 16, 6, name="w1"), numbers(rng, 16, name="b1"),
        numbers(rng, 16, 12, name="w2"), numbers(rng, 24, 12, name="w3"),
        numbers(rng, 24, name="b3"), numbers(rng, 1, 24, name="scale"),
        numbers(rng, 24, 3, name="w4"),
    ]  # fmt: skip
    network = OnnxNetwork(model_of(nodes, weights, ["batch", 6]))
    sites = free(network)
    assert [site.label for site in sites] == ["width:one", "width:two", "width:three"]
    for seed in range(5):
        check(network, at_random(sites, seed))
    check_numbers(network, sites)


def test_channels_last_with_transposes_around_convolutions() -> None:
    """As tools write networks of TensorFlow."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Transpose", ["x"], ["a"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["a", "w1"], ["b"], name="first", auto_pad="SAME_UPPER"),
        helper.make_node("Transpose", ["b"], ["c"], perm=[0, 2, 3, 1]),
        helper.make_node("Add", ["c", "b1"], ["d"], name="bias"),
        helper.make_node("Relu", ["d"], ["e"]),
        helper.make_node("Transpose", ["e"], ["f"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["f", "w2"], ["g"], name="deep", group=16),
        helper.make_node("Transpose", ["g"], ["h"], perm=[0, 2, 3, 1]),
        helper.make_node("ReduceMean", ["h"], ["i"], axes=[1, 2], keepdims=0),
        helper.make_node("MatMul", ["i", "w3"], ["y"], name="head"),
    ]
    weights = [
        numbers(rng, 16, 3, 3, 3, name="w1"), numbers(rng, 1, 1, 1, 16, name="b1"),
        numbers(rng, 16, 1, 3, 3, name="w2"), numbers(rng, 16, 5, name="w3"),
    ]  # fmt: skip
    network = OnnxNetwork(model_of(nodes, weights, ["batch", 8, 8, 3]))
    (site,) = free(network)
    small = check(network, {site.label: 5})
    deep = next(node for node in small.model.graph.node if node.name == "deep")
    assert [a.i for a in deep.attribute if a.name == "group"] == [5]
    check_numbers(network, [site])


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_other_types_of_numbers(kind: int) -> None:
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"], name="one"),
        helper.make_node("Add", ["a", "b1"], ["b"], name="bias"),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("MatMul", ["c", "w2"], ["y"], name="two"),
    ]
    arrays = {"w1": (8, 16), "b1": (16,), "w2": (16, 4)}
    own = helper.tensor_dtype_to_np_dtype(kind)
    weights = [
        numpy_helper.from_array(rng.standard_normal(shape).astype(own), name)
        for name, shape in arrays.items()
    ]
    network = OnnxNetwork(model_of(nodes, weights, ["batch", 8], kind=kind))
    (site,) = free(network)
    small = check(network, {site.label: 5})
    assert {tensor.data_type for tensor in small.model.graph.initializer} == {kind}
    if kind == TensorProto.FLOAT16:
        blank, edited = without(network, [site])
        for a, b in zip(run(blank, 2), run(edited, 2), strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-2, atol=1e-2)


def test_weights_in_a_file_beside_the_model(tmp_path: Path) -> None:
    network = of_zoo("residual")
    source = tmp_path / "net.onnx"
    copy = ModelProto()
    copy.CopyFrom(network.model)
    onnx.save_model(copy, str(source), save_as_external_data=True, location="net.bin",
                    size_threshold=0)  # fmt: skip
    loaded = OnnxNetwork.load(source)
    assert loaded.graph == network.graph
    assert all(np.array_equal(a, b) for a, b in zip(run(loaded, 2), run(network, 2), strict=True))
    sites = free(loaded)
    small = loaded.edit(halves(sites))
    path = small.save(tmp_path / "out" / "small.onnx")
    assert sorted(p.name for p in path.parent.iterdir()) == ["small.onnx", "small.onnx.data"]
    assert path.stat().st_size < 30_000 < (tmp_path / "out" / "small.onnx.data").stat().st_size
    assert from_onnx(path, input_shapes=loaded.input_shapes) == loaded.graph.edit(halves(sites))
    again = OnnxNetwork.load(path)
    assert all(np.array_equal(a, b) for a, b in zip(run(again, 2), run(small, 2), strict=True))
    (tmp_path / "net.bin").unlink()
    with pytest.raises(FileFormatError, match="weights beside it"):
        OnnxNetwork.load(source)


def test_a_saved_file_is_the_model(tmp_path: Path) -> None:
    network = of_zoo("mobile")
    path = network.save(tmp_path / "net.onnx")
    assert path.read_bytes() == network.model.SerializeToString()
    assert OnnxNetwork.load(path).edit({}).model == network.model


# --- what stays, and why -------------------------------------------------------------------------


def test_what_has_no_rule_stays_and_its_node_is_the_reason() -> None:
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"], name="one"),
        helper.make_node("Strange", ["a"], ["b"], name="odd", domain="mine"),
        helper.make_node("MatMul", ["b", "w2"], ["c"], name="two"),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("MatMul", ["d", "w3"], ["y"], name="three"),
    ]
    weights = [numbers(rng, 8, 16, name="w1"), numbers(rng, 16, 16, name="w2"),
               numbers(rng, 16, 4, name="w3")]  # fmt: skip
    model = model_of(nodes, weights, ["batch", 8], domains=["mine"])
    info = helper.make_tensor_value_info("b", TensorProto.FLOAT, [1, 16])
    model.graph.value_info.append(info)
    network = OnnxNetwork(model)
    reasons = {site.label: site.reason for site in network.sites() if site.counts}
    assert reasons["width:two"] is None
    assert "odd" in str(reasons["width:one"])
    small = network.edit({"width:two": 4})
    assert small.graph == network.graph.edit({"width:two": 4})


def test_a_branch_of_control_flow_keeps_what_it_reads() -> None:
    rng = np.random.default_rng(0)

    def body(op: str) -> onnx.GraphProto:
        made = helper.make_node(op, ["a"], [f"{op}_out"], name=op)
        out = helper.make_tensor_value_info(f"{op}_out", TensorProto.FLOAT, None)
        return helper.make_graph([made], op, [], [out])

    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"], name="one"),
        helper.make_node("If", ["yes"], ["b"], name="choice", then_branch=body("Relu"),
                         else_branch=body("Sigmoid")),
        helper.make_node("MatMul", ["b", "w2"], ["c"], name="two"),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("MatMul", ["d", "w3"], ["y"], name="three"),
    ]  # fmt: skip
    weights = [numbers(rng, 8, 16, name="w1"), numbers(rng, 16, 16, name="w2")]
    weights += [numbers(rng, 16, 4, name="w3"), numpy_helper.from_array(np.array(True), "yes")]
    network = OnnxNetwork(model_of(nodes, weights, ["batch", 8]))
    reasons = {site.label: site.reason for site in network.sites() if site.counts}
    assert "choice (If)" in str(reasons["width:one"])
    small = check(network, {"width:two": 4})
    assert [x.shape for x in run(small, 3)] == [(3, 4)]


def test_structure_stays() -> None:
    network = of_zoo("residual")
    site = next(site for site in network.sites() if site.kind == "branch")
    assert site.reason == "an ONNX file is edited in its widths and heads only"
    with pytest.raises(GraphError, match="widths and heads only"):
        network.edit({site.label: "remove"})


def test_a_quantised_file_is_refused() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="quantise"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    scale = [numpy_helper.from_array(np.array(0.1, np.float32), "s"),
             numpy_helper.from_array(np.array(0, np.uint8), "z")]  # fmt: skip
    with pytest.raises(GraphError, match="'quantise' is a QuantizeLinear"):
        OnnxNetwork(model_of(nodes, scale, [1, 4]))


def test_shapes_that_are_not_known_must_be_given() -> None:
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="one"),
        helper.make_node("Conv", ["a", "w2"], ["y"], name="two"),
    ]
    weights = [numbers(rng, 16, 3, 3, 3, name="w1"), numbers(rng, 4, 16, 3, 3, name="w2")]
    model = model_of(nodes, weights, ["n", 3, "height", "width"])
    with pytest.raises(GraphError, match=r"\(n, 3, height, width\).*must be given"):
        OnnxNetwork(model)
    network = OnnxNetwork(model, {"x": (1, 3, 12, 12)})
    small = check(network, {"width:one": 3})
    dims = small.model.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param for d in dims] == ["n", "", "height", "width"]


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"no model at all")
    with pytest.raises(FileFormatError, match="must be an ONNX model"):
        OnnxNetwork.load(path)
    with pytest.raises(FileNotFoundError):
        OnnxNetwork.load(tmp_path / "nowhere.onnx")
