"""Products: which side is constant, Einstein's convention, and functions that hide products."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nni_aiop.errors import FileFormatError
from nni_aiop.graphs import ComputeGraph, Node, from_module, from_onnx

Shape = tuple[int, ...]


class Net(nn.Module):
    """A function of learned tensors, by name, and of its inputs."""

    def __init__(self, function: Callable[..., Any], **learned: Shape) -> None:
        super().__init__()
        self.function = function
        for name, shape in learned.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*self.parameters(), *inputs)


def counted(net: nn.Module, *shapes: Shape) -> float:
    """Multiply-adds as PyTorch counts them."""
    net = net.to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(*(torch.empty(shape, device="meta") for shape in shapes))
    return counter.get_total_flops() / 2


def read(net: nn.Module, *shapes: Shape, parameters: int | None = None) -> ComputeGraph:
    """The graph, which says all, and survives being written."""
    graph = from_module(net, shapes)
    assert graph.others == ()
    if parameters is None:
        parameters = sum(p.numel() for p in net.parameters())
    assert graph.parameters == parameters
    assert ComputeGraph.from_json(json.loads(json.dumps(graph.to_json()))) == graph
    return graph


def file(kind: str, constants: dict[str, Shape], inputs: dict[str, Shape], **options: Any) -> Any:
    """An ONNX model of one operator, whose inputs stand in the order of their names."""
    made = helper.make_node(kind, sorted({**constants, **inputs}), ["y"], **options)
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    held = [numpy_helper.from_array(np.full(s, 0.5, np.float32), n) for n, s in constants.items()]
    graph = helper.make_graph([made], "net", values, [out], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


# --- which side is constant ----------------------------------------------------------------------


sizes = st.integers(1, 6)


@settings(max_examples=60, deadline=None)
@given(
    g=sizes, m=sizes, k=sizes, n=sizes, side=st.sampled_from(["left", "right", None]),
    shared=st.sampled_from(["neither", "left", "right", "crossed"]),
)  # fmt: skip
def test_a_product_costs_the_same_whichever_side_is_constant(
    g: int, m: int, k: int, n: int, side: str | None, shared: str
) -> None:
    leads: dict[str, tuple[Shape, Shape]] = {
        "neither": ((g,), (g,)),
        "left": ((1,), (g,)),
        "right": ((g,), (1,)),
        "crossed": ((g, 1), (1, 2)),
    }
    first, second = leads[shared]
    a, b = (*first, m, k), (*second, k, n)
    groups = prod(np.broadcast_shapes(first, second))
    if side is None:
        net, shapes = Net(torch.matmul), (a, b)
        model = file("MatMul", {}, {"a": a, "b": b})
    elif side == "left":
        net, shapes = Net(torch.matmul, w=a), (b,)
        model = file("MatMul", {"a": a}, {"b": b})
    else:
        net, shapes = Net(lambda w, x: x @ w, w=b), (a,)
        model = file("MatMul", {"b": b}, {"a": a})
    graph = read(net, *shapes)
    assert graph.macs == groups * m * k * n == counted(net, *shapes)
    node = next(node for node in graph.nodes if node.op == "matmul")
    assert node.get("operand") == side
    assert from_onnx(model) == graph


@pytest.mark.parametrize(
    ("macs", "a", "b"),
    [
        (90, (5,), (3, 5, 6)),
        (60, (3, 4, 5), (5,)),
        (90, (5,), (3, 5, 6)),
        (30, (5,), (5, 6)),
        (5, (5,), (5,)),
        (384, (3, 8, 8), (3, 8, 2)),
        (175, (1, 7, 5), (1, 5, 5)),
    ],
)
def test_products_of_any_ranks(macs: int, a: Shape, b: Shape) -> None:
    for net, shapes, model in (
        (Net(torch.matmul), (a, b), file("MatMul", {}, {"a": a, "b": b})),
        (Net(torch.matmul, w=a), (b,), file("MatMul", {"a": a}, {"b": b})),
        (Net(lambda w, x: x @ w, w=b), (a,), file("MatMul", {"b": b}, {"a": a})),
    ):
        graph = read(net, *shapes)
        assert graph.macs == macs
        assert from_onnx(model) == graph


def test_a_product_says_what_it_multiplies() -> None:
    def fits(inputs: list[Shape], output: Shape, **more: Any) -> bool:
        parts = [Node.make("input", [], shape) for shape in inputs]
        nodes = [*parts, Node.make("matmul", inputs, output, **more)]
        data = ComputeGraph(nodes, [*(() for _ in parts), tuple(range(len(parts)))]).to_json()
        try:
            ComputeGraph.from_json(data)
        except FileFormatError:
            return False
        return True

    assert fits([(2, 3, 4), (2, 4, 5)], (2, 3, 5))
    assert fits([(2, 4, 5)], (2, 3, 5), operand="left")
    assert fits([(2, 3, 4)], (2, 3, 5), operand="right")
    assert fits([(2, 3, 4)], (2, 3, 5))  # as files before had it
    assert not fits([(2, 3, 4), (2, 3, 5)], (2, 3, 5))
    assert not fits([(2, 3, 4)], (2, 3, 5), operand="left")
    assert not fits([(2, 4, 5)], (2, 3, 5), operand="right")
    assert not fits([(2, 4, 5)], (2, 3, 5), operand="both")


def test_layers_whose_weight_is_computed() -> None:
    linear = Net(F.linear)
    graph = read(linear, (2, 6, 8), (3, 8), (3,))
    assert graph.macs == 288 == counted(linear, (2, 6, 8), (3, 8), (3,))
    assert (graph.operations["matmul"], graph.operations["add"]) == (1, 1)
    same = read(Net(lambda x, w, b: x @ w.T + b), (2, 6, 8), (3, 8), (3,))
    assert graph == same
    learned = Net(lambda b, x, w: F.linear(x, w, b), b=(3,))
    assert read(learned, (2, 6, 8), (3, 8)).macs == 288
    assert read(Net(lambda w, x: F.linear(x, w), w=(8,)), (2, 6, 8)).macs == 96
    attended = read(Net(lambda q, k, v: F.linear(q, k).softmax(-1) @ v), (5, 8), (6, 8), (6, 3))
    assert attended.macs == 5 * 6 * (8 + 3)
    conv = Net(F.conv2d)
    shapes = (2, 3, 8, 8), (4, 3, 3, 3), (4,)
    assert read(conv, *shapes).macs == 7776 == counted(conv, *shapes)


@pytest.mark.parametrize("constant", ["", "q", "k", "v", "qk", "qv", "kv"])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_over_constants(constant: str, masked: bool) -> None:
    shapes = {"q": (2, 2, 5, 8), "k": (2, 2, 9, 8), "v": (2, 2, 9, 4)}
    learned = {name: shapes[name] for name in constant}
    order = [*constant, *(name for name in "qkv" if name not in constant)]

    def attend(*tensors: Tensor) -> Tensor:
        named = dict(zip(order, tensors, strict=False))
        mask = tensors[3] if masked else None
        return F.scaled_dot_product_attention(named["q"], named["k"], named["v"], mask)

    net = Net(attend, **learned)
    given = [shapes[name] for name in order[len(constant) :]] + [(2, 2, 5, 9)] * masked
    assert read(net, *given).macs == 2 * 2 * 5 * 9 * 12 == counted(net, *given)


# --- Einstein's convention -----------------------------------------------------------------------


EQUATIONS: list[tuple[str, list[Shape]]] = [
    ("...ij,jk->...ik", [(2, 3, 4, 5), (5, 6)]),
    ("...d,de->...e", [(2, 6, 8), (8, 3)]),
    ("...id,...jd->...ij", [(2, 3, 4, 5), (3, 6, 5)]),
    ("...id,...jd->...ij", [(2, 1, 4, 5), (1, 3, 6, 5)]),
    ("b...d,d...->b...", [(2, 3, 4), (4, 3)]),
    ("ij...,jk...->ik...", [(3, 4, 2), (4, 5, 2)]),
    ("...,...->...", [(2, 1, 4), (3, 1)]),
    ("...,...", [(2, 1, 4), (3, 1)]),
    ("...ij->...ji", [(2, 3, 4)]),
    ("...i->", [(2, 3, 4)]),
    ("bi,bi->bi", [(3, 4), (3, 4)]),
    ("bi,bi->ib", [(3, 4), (3, 4)]),
    ("bi,bi->b", [(3, 4), (3, 4)]),
    ("bi,i->bi", [(3, 4), (4,)]),
    ("ij->i", [(3, 4)]),
    ("ii->i", [(4, 4)]),
    ("ii", [(4, 4)]),
    ("bii->b", [(2, 4, 4)]),
    ("iii->i", [(3, 3, 3)]),
    ("iij,jk->ik", [(3, 3, 4), (4, 5)]),
    ("i,j->ij", [(3,), (4,)]),
    ("a,b,c->abc", [(2,), (3,), (4,)]),
    ("i,i", [(4,), (4,)]),
    ("ij,jk", [(3, 4), (4, 5)]),
    ("ba,ca", [(3, 4), (5, 4)]),
    ("ij,k->i", [(3, 4), (5,)]),
    ("ij,j->", [(3, 4), (4,)]),
    ("ij,jk->k", [(3, 4), (4, 5)]),
    ("bi,ij,jk->bk", [(2, 3), (3, 4), (4, 5)]),
    ("bi,ij,jk", [(2, 3), (3, 4), (4, 5)]),
    ("ab,bc,cd,de->ae", [(2, 3), (3, 4), (4, 5), (5, 6)]),
    ("bi,oij,bj->bo", [(2, 3), (5, 3, 4), (2, 4)]),
    ("ij,ij,ij->j", [(3, 4), (3, 4), (3, 4)]),
    ("bij,jik->bk", [(2, 3, 4), (4, 3, 5)]),
    ("bi,ij->bj", [(3, 1), (1, 4)]),
    ("bi,ij->bj", [(3, 1), (4, 5)]),
    ("b i, i j -> b j", [(2, 3), (3, 4)]),
    ("bhqd,bhkd->bhqk", [(2, 3, 4, 5), (2, 3, 6, 5)]),
    ("ibnd,jbnd->ijbn", [(4, 2, 3, 5), (6, 2, 3, 5)]),
    ("Ba,aC->BC", [(3, 4), (4, 5)]),
]  # fmt: skip


@pytest.mark.parametrize(("equation", "shapes"), EQUATIONS)
@pytest.mark.parametrize("constant", [None, 0, -1])
def test_einsum_costs_what_pytorch_counts(
    equation: str, shapes: list[Shape], constant: int | None
) -> None:
    if constant is not None and len(shapes) == 1:
        pytest.skip("a constant alone is no network")
    at = None if constant is None else constant % len(shapes)
    names = [f"x{place}" for place in range(len(shapes))]

    def multiply(*tensors: Tensor) -> Tensor:
        left = list(tensors)
        if at is not None:
            left.insert(at, left.pop(0))
        return torch.einsum(equation, *left)

    held = {} if at is None else {names[at]: shapes[at]}
    data = {n: s for n, s in zip(names, shapes, strict=True) if n not in held}
    net = Net(multiply, **held)
    # A diagonal of a constant is all that is used of it.
    used = 12 if (equation, at) == ("iij,jk->ik", 0) else None
    graph = read(net, *data.values(), parameters=used)
    assert graph.macs == counted(net, *data.values())
    assert graph.nodes[-1].output_shape == torch.einsum(equation, *map(torch.zeros, shapes)).shape
    if len({len(shape) for shape in shapes}) > 1 and "..." in equation:
        return  # which onnx may refuse: an ellipsis has as many axes in every tensor
    assert from_onnx(file("Einsum", held, data, equation=equation)) == graph


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_einsum_of_any_two_or_three_tensors(data: st.DataObject) -> None:
    letters = "abcde"
    size = {c: data.draw(st.integers(1, 4)) for c in letters}
    terms = data.draw(st.lists(st.permutations(letters), min_size=2, max_size=3))
    terms = ["".join(term[: data.draw(st.integers(0, 4))]) for term in terms]
    used = sorted(set("".join(terms)))
    chosen = data.draw(st.permutations(used))
    result = "".join(chosen[: data.draw(st.integers(0, len(used)))])
    equation = ",".join(terms) + "->" + result
    shapes = [tuple(size[c] for c in term) for term in terms]
    net = Net(lambda *tensors: torch.einsum(equation, *tensors))
    examples = [torch.zeros(shape) for shape in shapes]
    graph = from_module(net, examples)
    assert graph.others == ()
    with FlopCounterMode(display=False) as counter:
        net(*(x.to("meta") for x in examples))
    assert 2 * graph.macs == counter.get_total_flops()


def test_an_einsum_written_for_a_linear_layer_is_one() -> None:
    plain = read(Net(lambda w, x: F.linear(x, w), w=(3, 8)), (2, 6, 8))
    for equation, shape, first in (
        ("...d,ed->...e", (3, 8), False),
        ("bnd,de->bne", (8, 3), False),
        ("ed,bnd->bne", (3, 8), True),
    ):
        net = Net(
            lambda w, x, e=equation, f=first: torch.einsum(e, *((w, x) if f else (x, w))), w=shape
        )
        assert read(net, (2, 6, 8)) == plain


def test_einsum_keeps_to_a_path() -> None:
    def multiply(*x: Tensor) -> Any:
        return torch.ops.aten.einsum("ij,jk,kl->il", x, path=[1, 2, 0, 1])

    assert read(Net(multiply), (2, 30), (30, 4), (4, 2)).macs == 30 * 4 * 2 + 2 * 30 * 2


# --- functions that hide products ----------------------------------------------------------------


HIDDEN: dict[str, tuple[int, nn.Module, list[Shape]]] = {
    "baddbmm": (120, Net(torch.baddbmm), [(2, 3, 5), (2, 3, 4), (2, 4, 5)]),
    "baddbmm scaled": (
        120, Net(lambda *x: torch.baddbmm(*x, beta=0.5, alpha=2)), [(2, 3, 5), (2, 3, 4), (2, 4, 5)]
    ),
    "addbmm": (120, Net(torch.addbmm), [(3, 5), (2, 3, 4), (2, 4, 5)]),
    "addmm": (60, Net(torch.addmm, b=(5,)), [(3, 4), (4, 5)]),
    "addmm in place": (60, Net(lambda x, *y: (x * 2).addmm_(*y)), [(3, 5), (3, 4), (4, 5)]),
    "addmv": (12, Net(torch.addmv), [(3,), (3, 4), (4,)]),
    "addr": (0, Net(torch.addr), [(3, 4), (3,), (4,)]),
    "outer": (0, Net(torch.outer), [(3,), (4,)]),
    "ger": (0, Net(torch.ger), [(3,), (4,)]),
    "multi_dot": (
        6090, Net(lambda *x: torch.linalg.multi_dot(x)), [(3, 400), (400, 5), (5, 6)]
    ),
    "tensordot": (360, Net(lambda *x: torch.tensordot(*x, dims=2)), [(3, 4, 5), (4, 5, 6)]),
    "tensordot crossed": (
        360,
        Net(lambda w, x: torch.tensordot(x, w, dims=([1, 2], [1, 0])), w=(5, 4, 6)),
        [(3, 4, 5)],
    ),
    "kron": (0, Net(torch.kron), [(3, 4), (5, 6)]),
    "inner": (60, Net(torch.inner), [(3, 4), (5, 4)]),
    "inner of vectors": (4, Net(torch.inner), [(4,), (4,)]),
    "dot": (4, Net(torch.dot), [(4,), (4,)]),
    "vdot": (4, Net(torch.vdot, w=(4,)), [(4,)]),
    "mv": (12, Net(torch.mv), [(3, 4), (4,)]),
    "matrix_power": (384, Net(lambda x: torch.matrix_power(x, 3)), [(3, 4, 4)]),
    # batch x out x in1 x in2 + batch x out x in2
    "bilinear": (2 * 5 * 3 * 4 + 2 * 5 * 4, nn.Bilinear(3, 4, 5), [(2, 3), (2, 4)]),
    "bilinear of tokens": (
        14 * (60 + 20), nn.Bilinear(3, 4, 5, bias=False), [(2, 7, 3), (2, 7, 4)]
    ),
    "conv_tbc": (
        10 * 2 * 6 * 3 * 4, Net(lambda w, b, x: torch.conv_tbc(x, w, b, 1), w=(3, 4, 6), b=(6,)),
        [(10, 2, 4)],
    ),
    "cdist": (2 * 30 * 40 * 3, Net(torch.cdist), [(2, 30, 3), (2, 40, 3)]),
    "cdist of few": (5 * 5 * 3, Net(lambda x: torch.cdist(x, x)), [(5, 3)]),
    "cdist to a codebook": (
        2 * 5 * 7 * 3, Net(lambda w, x: torch.cdist(x, w), w=(7, 3)), [(2, 5, 3)]
    ),
    "cdist of sums": (0, Net(lambda *x: torch.cdist(*x, p=1.0)), [(2, 30, 3), (2, 40, 3)]),
}  # fmt: skip
BY_HAND = (
    "addbmm", "addmm in place", "addmv", "inner of vectors", "dot", "vdot", "mv", "bilinear",
    "bilinear of tokens", "conv_tbc", "cdist", "cdist of few", "cdist to a codebook",
)  # fmt: skip
"""What PyTorch counts as nothing, or where it has another way."""


@pytest.mark.parametrize("name", HIDDEN)
def test_functions_that_hide_products(name: str) -> None:
    macs, net, shapes = HIDDEN[name]
    assert read(net, *shapes).macs == macs
    if name not in BY_HAND:
        assert macs == counted(net, *shapes)


@pytest.mark.skipif(not hasattr(F, "grouped_mm"), reason="this PyTorch has no grouped_mm")
def test_every_row_is_multiplied_by_the_weights_of_its_expert() -> None:
    """A mixture of experts: 6 x 16 x 3 of the router, 6 x 16 x 8 of whichever experts."""

    def experts(router: Tensor, weights: Tensor, x: Tensor) -> Tensor:
        best = F.linear(x, router).argmax(-1)
        ends = (best[:, None] == torch.arange(3)).sum(0).cumsum(0)
        return F.grouped_mm(x[best], weights, offs=ends.to(torch.int32))

    graph = from_module(Net(experts, router=(3, 16), weights=(3, 16, 8)), (6, 16))
    assert graph.others == ("cumsum",)
    assert (graph.macs, graph.parameters) == (6 * 16 * 3 + 6 * 16 * 8, 3 * 16 + 3 * 16 * 8)
    of_each = read(Net(lambda w, x: F.grouped_mm(x, w), weights=(3, 16, 8)), (3, 5, 16))
    assert (of_each.macs, of_each.parameters) == (3 * 5 * 16 * 8, 3 * 16 * 8)


@pytest.mark.parametrize("name", ["addmm", "tensordot crossed", "baddbmm", "mv"])
def test_products_are_the_same_from_a_file(
    name: str, file_door: Callable[..., ComputeGraph]
) -> None:
    _, net, shapes = HIDDEN[name]
    graph = read(net, *shapes)
    assert file_door(net.to_empty(device="cpu"), *map(torch.zeros, shapes)) == graph


def test_a_gemm_costs_its_product() -> None:
    for options, a, b in (({}, (3, 4), (4, 5)), ({"transA": 1, "transB": 1}, (4, 3), (5, 4))):
        for held, data in (({"b": b}, {"a": a}), ({"a": a}, {"b": b}), ({}, {"a": a, "b": b})):
            graph = from_onnx(file("Gemm", held, data, alpha=1.0, **options))
            assert (graph.macs, graph.parameters) == (60, sum(map(prod, held.values())))


def test_a_product_whose_inner_side_equals_one_outer_side() -> None:
    # (1, 7, 5) x (1, 5, 5): n = 7, k = m = 5, and 7 * 5 * 5 multiply-adds.
    for left, right, macs in (
        ((1, 7, 5), (1, 5, 5), 175),
        ((1, 5, 5), (1, 5, 7), 175),
        ((1, 5, 7), (1, 7, 7), 245),
        ((2, 3, 4), (2, 4, 5), 120),
    ):
        graph = from_module(Net(torch.bmm), [torch.zeros(left), torch.zeros(right)])
        assert graph.macs == macs == prod(left) * right[-1]


def test_products_of_leading_axes_that_cross_are_read_from_json() -> None:
    for left, right, groups in (((2, 1), (1, 2), 4), ((3, 1, 2), (1, 4, 2), 24), ((2,), (1,), 2)):
        graph = read(Net(torch.matmul), (*left, 3, 5), (*right, 5, 4))
        assert graph.macs == groups * 3 * 5 * 4
    stated = graph.to_json()
    (place,) = [i for i, node in enumerate(stated["nodes"]) if node["op"] == "matmul"]
    stated["nodes"][place]["output_shape"] = [3, 3, 4]
    with pytest.raises(FileFormatError, match="matmul"):
        ComputeGraph.from_json(stated)
