"""The canonical rules, each on a network of a few operations written out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from nni_aiop.errors import GraphError
from nni_aiop.graphs import ComputeGraph
from nni_aiop.graphs.doors._builder import Builder
from nni_aiop.graphs.rules._values import Value

IMAGE = (1, 8, 4, 4)
TOKENS = (1, 6, 8)


def read(build: Callable[[Builder, Value], Value], shape: tuple[int, ...] = IMAGE) -> ComputeGraph:
    builder = Builder()
    builder.output(build(builder, builder.input(shape)))
    return builder.finish()


def operations(
    build: Callable[[Builder, Value], Value], shape: tuple[int, ...] = IMAGE
) -> list[str]:
    """The operations between input and output, in order."""
    return [node.op for node in read(build, shape).nodes[1:-1]]


def unary(b: Builder, x: Value, function: str, **attributes: object) -> Value:
    return b.apply("unary", [x], x.shape, function=function, **attributes)


def binary(b: Builder, function: str, x: Value | float, y: Value | float) -> Value:
    x, y = (b.constant((), v) if isinstance(v, (int, float)) else v for v in (x, y))
    shape = x.shape if len(x.shape) >= len(y.shape) else y.shape
    return b.apply("binary", [x, y], shape, function=function)


def mean(b: Builder, x: Value, axes: tuple[int, ...]) -> Value:
    kept = tuple(1 if a in axes else n for a, n in enumerate(x.shape))
    return b.apply("reduce", [x], kept, kind="mean", axes=axes, keep=True)


# --- identities ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "build",
    [
        lambda b, x: b.apply("identity", [x], x.shape),
        lambda b, x: binary(b, "add", x, 0.0),
        lambda b, x: binary(b, "sub", x, 0.0),
        lambda b, x: binary(b, "mul", 1.0, x),
        lambda b, x: binary(b, "div", x, 1.0),
        lambda b, x: binary(b, "pow", x, 1.0),
        lambda b, x: binary(b, "mul", binary(b, "mul", x, 4.0), 0.25),
        lambda b, x: b.apply("slice", [x], x.shape, axis=1, start=0, stop=99, step=1),
        lambda b, x: b.apply("resize", [x], x.shape, mode="nearest"),
        lambda b, x: b.apply("pad", [x], x.shape, padding=((2, 0, 0),), mode="constant"),
        lambda b, x: b.apply("concat", [x], x.shape, axis=1),
        lambda b, x: b.apply("reshape", [b.apply("reshape", [x], (8, 16))], (2, 64)),
    ],
)
def test_what_does_nothing_vanishes(build: Callable[[Builder, Value], Value]) -> None:
    assert operations(build) == []


def test_nothing_from_the_input_is_an_error() -> None:
    builder = Builder()
    builder.input(IMAGE)
    builder.output(builder.constant((1,), 3.0))
    with pytest.raises(GraphError, match="must depend on its input"):
        builder.finish()


def test_what_no_output_reads_vanishes_but_inputs_stay() -> None:
    builder = Builder()
    x, _ = builder.input((1, 2)), builder.input((1, 3), "unused")
    builder.apply("relu", [x], (1, 2))
    builder.output(builder.apply("tanh", [x], (1, 2)))
    graph = builder.finish()
    assert graph.operations == {"input": 2, "output": 1, "tanh": 1}


def test_what_comes_from_constants_is_part_of_its_reader() -> None:
    """A weight that is standardised first is still that convolution's weight."""

    def build(b: Builder, x: Value) -> Value:
        weight = b.parameter((8, 8, 1, 1), "w")
        gain = b.parameter((8, 1, 1, 1), "g")
        scaled = binary(b, "mul", weight, gain)
        return b.apply(
            "conv",
            [x, scaled],
            IMAGE,
            kernel=(1, 1),
            stride=(1, 1),
            padding=((0, 0), (0, 0)),
            dilation=(1, 1),
            groups=1,
        )

    graph = read(build)
    assert [n.op for n in graph.nodes] == ["input", "conv", "output"]
    assert graph.nodes[1].weight_shape == (8, 8, 1, 1)
    assert graph.parameters == 72


# --- functions -----------------------------------------------------------------------------------


def erf_gelu(b: Builder, x: Value) -> Value:
    gate = binary(b, "add", unary(b, binary(b, "div", x, math.sqrt(2)), "erf"), 1.0)
    return binary(b, "mul", binary(b, "mul", x, 0.5), gate)


def erf_gelu_half_last(b: Builder, x: Value) -> Value:
    gate = binary(b, "add", 1.0, unary(b, binary(b, "mul", x, math.sqrt(0.5)), "erf"))
    return binary(b, "mul", 0.5, binary(b, "mul", x, gate))


def tanh_gelu(b: Builder, x: Value) -> Value:
    cube = binary(b, "mul", binary(b, "pow", x, 3.0), 0.044715)
    inner = binary(b, "mul", binary(b, "add", x, cube), math.sqrt(2 / math.pi))
    gate = binary(b, "add", b.apply("tanh", [inner], x.shape), 1.0)
    return binary(b, "mul", binary(b, "mul", x, 0.5), gate)


def quick_gelu(b: Builder, x: Value) -> Value:
    gate = b.apply("sigmoid", [binary(b, "mul", x, 1.702)], x.shape)
    return binary(b, "mul", x, gate)


def shifted_relu6(b: Builder, x: Value) -> Value:
    return b.apply("clamp", [binary(b, "add", x, 3.0)], x.shape, low=0.0, high=6.0)


@pytest.mark.parametrize(
    ("build", "op"),
    [
        (lambda b, x: b.apply("clamp", [x], x.shape, low=0, high=None), "relu"),
        (lambda b, x: b.apply("clamp", [x], x.shape, low=0, high=6), "relu6"),
        (lambda b, x: binary(b, "max", x, 0.0), "relu"),
        (lambda b, x: binary(b, "mul", x, b.apply("sigmoid", [x], x.shape)), "silu"),
        (lambda b, x: binary(b, "div", shifted_relu6(b, x), 6.0), "hard_sigmoid"),
        (
            lambda b, x: b.apply(
                "clamp",
                [binary(b, "add", binary(b, "mul", x, 1 / 6), 0.5)],
                x.shape,
                low=0,
                high=1,
            ),
            "hard_sigmoid",
        ),
        (lambda b, x: binary(b, "mul", x, b.apply("hard_sigmoid", [x], x.shape)), "hard_swish"),
        (
            lambda b, x: binary(b, "div", binary(b, "mul", x, shifted_relu6(b, x)), 6.0),
            "hard_swish",
        ),
        (
            lambda b, x: binary(b, "mul", x, binary(b, "div", shifted_relu6(b, x), 6.0)),
            "hard_swish",
        ),
        (
            lambda b, x: binary(
                b, "mul", x, b.apply("tanh", [b.apply("softplus", [x], x.shape)], x.shape)
            ),
            "mish",
        ),
        (erf_gelu, "gelu"),
        (erf_gelu_half_last, "gelu"),
        (tanh_gelu, "gelu"),
        (quick_gelu, "gelu"),
    ],
)
def test_functions_have_one_name(build: Callable[[Builder, Value], Value], op: str) -> None:
    assert operations(build) == [op]


def test_a_gate_of_another_tensor_stays_a_product() -> None:
    def build(b: Builder, x: Value) -> Value:
        return binary(b, "mul", x, b.apply("sigmoid", [b.apply("relu", [x], x.shape)], x.shape))

    assert operations(build) == ["relu", "sigmoid", "mul"]


@pytest.mark.parametrize(
    ("written_out", "op"),
    [
        (lambda b, x: binary(b, "mul", x, b.apply("sigmoid", [x], x.shape)), "silu"),
        (lambda b, x: binary(b, "max", x, 0.0), "relu"),
        (erf_gelu, "gelu"),
    ],
)
def test_a_function_of_what_a_linear_layer_gives_is_over_rows(
    written_out: Callable[[Builder, Value], Value], op: str
) -> None:
    """As the layer is: whatever leading axes the rows are seen with, the network is the same."""

    def linear(b: Builder, x: Value) -> Value:
        return b.apply("linear", [x, b.parameter((8, 8), "w")], TOKENS)

    graph = read(lambda b, x: written_out(b, linear(b, x)), TOKENS)
    assert graph == read(lambda b, x: b.apply(op, [linear(b, x)], TOKENS), TOKENS)
    assert graph.nodes[2].input_shapes == (graph.nodes[1].output_shape,) == ((6, 8),)

    def flat(b: Builder, x: Value) -> Value:
        rows = b.apply("reshape", [linear(b, x)], (6, 8))
        return b.apply("reshape", [b.apply(op, [rows], (6, 8))], TOKENS)

    assert graph == read(flat, TOKENS)


def test_a_product_with_zero_says_so() -> None:
    graph = read(lambda b, x: binary(b, "mul", x, 0.0))
    assert graph.nodes[1].attributes == (("operand", "constant"), ("value", 0))


# --- norms ---------------------------------------------------------------------------------------


def written_out_layer_norm(b: Builder, x: Value, *, by: str = "div") -> Value:
    axes = (len(x.shape) - 1,)
    deviation = binary(b, "sub", x, mean(b, x, axes))
    variance = mean(b, binary(b, "pow", deviation, 2.0), axes)
    spread = binary(b, "add", variance, 1e-5)
    if by == "div":
        normal = binary(b, "div", deviation, unary(b, spread, "sqrt"))
    else:
        normal = binary(b, "mul", deviation, unary(b, spread, "rsqrt"))
    scaled = binary(b, "mul", normal, b.parameter((8,), "scale"))
    return binary(b, "add", scaled, b.parameter((8,), "shift"))


def test_layer_norm_written_out() -> None:
    plain = read(
        lambda b, x: b.apply(
            "layer_norm", [x, b.parameter((8,), "scale"), b.parameter((8,), "shift")], x.shape
        ),
        TOKENS,
    )
    assert plain.nodes[1].weight_shape == (8,)
    for by in ("div", "mul"):
        graph = read(lambda b, x, by=by: written_out_layer_norm(b, x, by=by), TOKENS)
        assert graph == plain
        assert graph.parameters == plain.parameters == 16


def test_rms_norm_written_out() -> None:
    def build(b: Builder, x: Value) -> Value:
        spread = binary(b, "add", mean(b, binary(b, "mul", x, x), (2,)), 1e-6)
        normal = binary(b, "mul", x, unary(b, spread, "rsqrt"))
        return binary(b, "mul", normal, b.parameter((8,), "scale"))

    graph = read(build, TOKENS)
    assert [n.op for n in graph.nodes] == ["input", "rms_norm", "output"]
    assert graph.nodes[1].weight_shape == (8,)


def test_group_norm_as_instance_norm_of_groups() -> None:
    def build(b: Builder, x: Value) -> Value:
        folded = b.apply("reshape", [x], (1, 2, 64))
        ones = b.constant((2,), 1.0)
        normal = b.apply("instance_norm", [folded, ones], (1, 2, 64))
        back = b.apply("reshape", [normal], IMAGE)
        scaled = binary(b, "mul", back, b.parameter((8, 1, 1), "scale"))
        return binary(b, "add", scaled, b.parameter((8, 1, 1), "shift"))

    plain = read(
        lambda b, x: b.apply(
            "group_norm",
            [x, b.parameter((8,), "scale"), b.parameter((8,), "shift")],
            IMAGE,
            groups=2,
        )
    )
    assert read(build) == plain


# --- linear layers, convolutions, attention ------------------------------------------------------


def test_a_product_with_a_matrix_is_linear_over_rows() -> None:
    def build(b: Builder, x: Value) -> Value:
        product = b.apply("matmul", [x, b.parameter((8, 5), "w")], (1, 6, 5))
        return binary(b, "add", product, b.parameter((5,), "b"))

    graph = read(build, TOKENS)
    plain = read(
        lambda b, x: b.apply(
            "linear", [x, b.parameter((5, 8), "w"), b.parameter((5,), "b")], (1, 6, 5)
        ),
        TOKENS,
    )
    assert graph == plain
    node = graph.nodes[1]
    assert (node.input_shapes, node.output_shape) == (((6, 8),), (6, 5))
    assert (node.weight_shape, node.parameters) == ((5, 8), 45)


def test_a_constant_that_is_no_bias_stays_a_sum() -> None:
    def build(b: Builder, x: Value) -> Value:
        product = b.apply("matmul", [x, b.parameter((8, 5), "w")], (1, 6, 5))
        return binary(b, "add", product, b.parameter((1, 6, 5), "positions"))

    graph = read(build, TOKENS)
    assert [n.op for n in graph.nodes[1:-1]] == ["linear", "add"]
    assert graph.nodes[2].weight_shape == (6, 5)


def conv(b: Builder, x: Value, pad: int = 0) -> Value:
    side = x.shape[2] + 2 * pad - 2
    return b.apply(
        "conv",
        [x, b.parameter((8, 8, 3, 3), "w")],
        (1, 8, side, side),
        kernel=(3, 3),
        stride=(1, 1),
        padding=((pad, pad), (pad, pad)),
        dilation=(1, 1),
        groups=1,
    )


def test_zeros_padded_before_a_convolution_are_its_padding() -> None:
    def build(b: Builder, x: Value) -> Value:
        amounts = ((2, 1, 1), (3, 1, 1))
        padded = b.apply("pad", [x], (1, 8, 6, 6), padding=amounts, mode="constant", number=0.0)
        return conv(b, padded)

    assert read(build) == read(lambda b, x: conv(b, x, pad=1))


def attention(b: Builder, x: Value, *, scale_at: str, mask: bool) -> Value:
    """Two heads of width 4 over six tokens, written out."""
    q, k, v = (
        b.apply(
            "transpose",
            [
                b.apply(
                    "reshape",
                    [b.apply("linear", [x, b.parameter((8, 8), n)], TOKENS)],
                    (1, 6, 2, 4),
                )
            ],
            (1, 2, 6, 4),
            order=(0, 2, 1, 3),
        )
        for n in "qkv"
    )
    if scale_at == "fused":
        masks = [b.constant((6, 6))] if mask else []
        return b.apply("attention", [q, k, v, *masks], (1, 2, 6, 4))
    if scale_at == "q":
        q = binary(b, "mul", q, 0.5)
    turned = b.apply("transpose", [k], (1, 2, 4, 6), order=(0, 1, 3, 2))
    scores = b.apply("matmul", [q, turned], (1, 2, 6, 6))
    if scale_at == "scores":
        scores = binary(b, "div", scores, 2.0)
    if mask:
        scores = binary(b, "add", scores, b.constant((6, 6)))
    weights = b.apply("softmax", [scores], (1, 2, 6, 6), axis=-1)
    return b.apply("matmul", [weights, v], (1, 2, 6, 4))


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("scale_at", ["q", "scores"])
def test_attention_written_out(scale_at: str, mask: bool) -> None:
    fused = read(lambda b, x: attention(b, x, scale_at="fused", mask=mask), TOKENS)
    assert read(lambda b, x: attention(b, x, scale_at=scale_at, mask=mask), TOKENS) == fused
    (node,) = (n for n in fused.nodes if n.op == "attention")
    assert node.input_shapes == ((2, 6, 4),) * 3
    assert node.output_shape == (2, 6, 4)
    assert node["mask"] is mask
    assert fused.operations["permute"] == 3


def test_weights_that_are_read_elsewhere_keep_attention_apart() -> None:
    builder = Builder()
    x = builder.input(TOKENS)
    turned = builder.apply("transpose", [x], (1, 8, 6), order=(0, 2, 1))
    weights = builder.apply(
        "softmax", [builder.apply("matmul", [x, turned], (1, 6, 6))], (1, 6, 6), axis=2
    )
    builder.output(builder.apply("matmul", [weights, x], TOKENS))
    builder.output(weights)
    assert builder.finish().operations == {
        "input": 1,
        "matmul": 2,
        "output": 2,
        "permute": 1,
        "softmax": 1,
    }


# --- pooling, cutting, sums ----------------------------------------------------------------------


def test_global_pooling_has_one_form() -> None:
    by_mean = read(lambda b, x: mean(b, x, (2, 3)))
    by_window = read(
        lambda b, x: b.apply(
            "avg_pool",
            [x],
            (1, 8, 1, 1),
            kernel=(4, 4),
            stride=(4, 4),
            padding=((0, 0), (0, 0)),
        )
    )
    assert by_mean == by_window
    assert by_mean.nodes[1].op == "global_avg_pool"
    assert by_mean.nodes[1].output_shape == (1, 8)


def test_cuts_of_cuts_are_one_slice() -> None:
    def cut(b: Builder, x: Value, axis: int, start: int, stop: int, step: int = 1) -> Value:
        length = len(range(*slice(start, stop, step).indices(x.shape[axis])))
        shape = tuple(length if a == axis else n for a, n in enumerate(x.shape))
        return b.apply("slice", [x], shape, axis=axis, start=start, stop=stop, step=step)

    graph = read(lambda b, x: cut(b, cut(b, cut(b, x, 2, 0, 99, 2), 3, 1, 4), 2, 1, 2))
    (node,) = graph.nodes[1:-1]
    assert node["ranges"] == ((2, 2, 3, 2), (3, 1, 4, 1))
    assert node.output_shape == (1, 8, 1, 3)


def test_a_sum_of_sums_is_one_sum() -> None:
    def build(b: Builder, x: Value, left: bool) -> Value:
        parts = [b.apply(op, [x], x.shape) for op in ("relu", "tanh", "sigmoid")]
        if left:
            return binary(b, "add", binary(b, "add", parts[0], parts[1]), parts[2])
        return binary(b, "add", parts[2], binary(b, "add", parts[1], parts[0]))

    graph = read(lambda b, x: build(b, x, True))
    assert graph == read(lambda b, x: build(b, x, False))
    assert graph.operations["add"] == 1


# --- layout --------------------------------------------------------------------------------------


def test_reshapes_between_transposes_merge_into_one_permute() -> None:
    """Channel shuffle, and its undoing."""

    def shuffle(b: Builder, x: Value, groups: int) -> Value:
        split = b.apply("reshape", [x], (1, groups, 8 // groups, 4, 4))
        moved = b.apply("transpose", [split], (1, 8 // groups, groups, 4, 4), order=(0, 2, 1, 3, 4))
        return b.apply("reshape", [moved], IMAGE)

    graph = read(lambda b, x: shuffle(b, x, 2))
    (node,) = graph.nodes[1:-1]
    assert (node.op, node["order"]) == ("permute", (1, 0, 2))
    assert (node.input_shapes, node.output_shape) == (((2, 4, 16),), (4, 2, 16))
    assert operations(lambda b, x: shuffle(b, shuffle(b, x, 2), 4)) == []


def test_neighbours_that_stay_neighbours_are_one_axis() -> None:
    def build(b: Builder, x: Value) -> Value:
        return b.apply("transpose", [x], (1, 4, 4, 8), order=(0, 2, 3, 1))

    (node,) = read(build).nodes[1:-1]
    assert (node.input_shapes, node["order"]) == (((8, 16),), (1, 0))


def test_a_reshape_across_moved_axes_starts_anew() -> None:
    def build(b: Builder, x: Value) -> Value:
        turned = b.apply("transpose", [x], (6, 4), order=(1, 0))
        crossed = b.apply("reshape", [turned], (8, 3))
        return b.apply("transpose", [crossed], (3, 8), order=(1, 0))

    graph = read(build, (4, 6))
    assert [(n.op, n.output_shape) for n in graph.nodes[1:-1]] == [
        ("permute", (6, 4)),
        ("permute", (3, 8)),
    ]
