"""What ONNX operators mean in the words of `Builder`: a table, and a function where one must be.

A handler gets a `Call` and returns the value of each output, or of the first alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TypeProto

from nni_aiop.errors import GraphError
from nni_aiop.graphs._builder import Builder, Value
from nni_aiop.graphs._graph import Shape

__all__ = ["HANDLERS", "Call", "Operand", "handle_other"]


class Operand:
    """A tensor of a model: its value, its type, and its entries where they are few and known."""

    __slots__ = ("_data", "_read", "_type", "elem_type", "value")

    def __init__(
        self, value: Value, elem_type: int, read: Callable[[], NDArray[Any]] | None = None
    ) -> None:
        self.value = value
        self.elem_type = elem_type
        self._read = read
        self._data: NDArray[Any] | None = None
        self._type: TypeProto | None = None

    @property
    def data(self) -> NDArray[Any] | None:
        """The entries, None where they are many or not known."""
        if self._data is None and self._read is not None:
            self._data = self._read()
        return self._data

    @property
    def type(self) -> TypeProto:
        """As onnx writes it."""
        if self._type is None:
            self._type = onnx.helper.make_tensor_type_proto(self.elem_type, self.value.shape)
        return self._type


@dataclass
class Call:
    """One node: what it reads, and the shapes of what it makes."""

    builder: Builder
    node: NodeProto
    opset: int
    inputs: Sequence[Operand | None]
    shapes: Sequence[Shape]
    attributes: dict[str, Any]

    @property
    def name(self) -> str:
        return self.node.name or self.node.output[0]

    @property
    def shape(self) -> Shape:
        """Of the first output."""
        return self.shapes[0]

    def given(self, place: int) -> bool:
        """Whether the node has an input in that place."""
        return place < len(self.inputs) and self.inputs[place] is not None

    def value(self, place: int) -> Value:
        """The input in that place."""
        operand = self.inputs[place] if place < len(self.inputs) else None
        if operand is None:
            raise GraphError(
                f"{self.node.op_type} must have an input {place}, but node {self.name!r} has none."
            )
        return operand.value

    @property
    def x(self) -> Value:
        """The first input."""
        return self.value(0)

    def values(self) -> list[Value]:
        """All inputs that are there."""
        return [operand.value for operand in self.inputs if operand is not None]

    def data(self, place: int) -> NDArray[Any] | None:
        """The entries of an input, None where it is not there or they are not known."""
        operand = self.inputs[place] if place < len(self.inputs) else None
        return None if operand is None else operand.data

    def number(self, place: int) -> float | None:
        """The only entry of an input, where it is known."""
        data = self.data(place)
        return None if data is None or data.size != 1 else float(data.reshape(()))

    def integers(self, place: int) -> tuple[int, ...] | None:
        """The entries of an input that a shape depends on, None where it is not there.

        Raises:
            GraphError: They are not known.
        """
        if not self.given(place):
            return None
        data = self.data(place)
        if data is None:
            raise GraphError(
                f"what a network does must not depend on the values of its data, but node "
                f"{self.name!r} ({self.node.op_type}) reads its input {place} so."
            )
        return tuple(int(n) for n in data.reshape(-1))

    def option(self, name: str, default: Any = None) -> Any:
        """An attribute, text decoded."""
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def apply(
        self, op: str, inputs: Sequence[Value], shape: Sequence[int] | None = None, **options: Any
    ) -> Value:
        """`Builder.apply` with the node's name; the shape is that of the first output."""
        return self.builder.apply(
            op, inputs, self.shape if shape is None else shape, name=self.name, **options
        )

    def demand(self, holds: bool, rule: str, got: object) -> None:
        """Refuses the node where a rule does not hold.

        Raises:
            GraphError: It does not.
        """
        if not holds:
            raise GraphError(f"{rule}, but node {self.name!r} ({self.node.op_type}) has {got}.")

    def binary(
        self, function: str, a: Value, b: Value | float, shape: Shape | None = None
    ) -> Value:
        """A function of two tensors, or a tensor and a number."""
        if not isinstance(b, Value):
            b = self.builder.constant((), float(b))
        return self.apply("binary", [a, b], shape, function=function)


Handler = Callable[[Call], "Value | Sequence[Value]"]

HANDLERS: dict[str, Handler] = {}
"""Handler of each operator of the default domain."""


def _handles(*names: str) -> Callable[[Handler], Handler]:
    def add(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return add


_OTHER_NAMES = {
    "GridSample": "grid_sampler_2d",
    "ScatterElements": "scatter",
    "ScatterND": "scatter",
    "TopK": "topk",
    "CumSum": "cumsum",
    "NonZero": "nonzero",
}
"""Operators outside the vocabulary that PyTorch has another name for."""


def handle_other(call: Call) -> list[Value]:
    """An operator outside the table, by its name in small letters, words apart."""
    kind = call.node.op_type
    name = _OTHER_NAMES.get(kind) or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind).lower()
    return [call.apply(name, call.values(), shape) for shape in call.shapes]


# --- entry by entry ------------------------------------------------------------------------------

_SAME = {
    "Relu": "relu",
    "LeakyRelu": "leaky_relu",
    "Elu": "elu",
    "Selu": "selu",
    "Celu": "celu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Softplus": "softplus",
    "Mish": "mish",
    "Gelu": "gelu",
    "HardSwish": "hard_swish",
}

_UNARY = {
    **{
        name: name.lower()
        for name in (
            "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Cos", "Cosh", "Erf",
            "Exp", "Floor", "IsInf", "IsNaN", "Log", "Neg", "Reciprocal", "Round", "Sign", "Sin",
            "Sinh", "Sqrt", "Tan",
        )
    },
    "Not": "logical_not",
    "BitwiseNot": "bitwise_not",
}  # fmt: skip

_BINARY = {
    "Add": "add",
    "Sub": "sub",
    "Mul": "mul",
    "Div": "div",
    "Pow": "pow",
    "Mod": "mod",
    "Equal": "equal",
    "Less": "less",
    "LessOrEqual": "less_equal",
    "Greater": "greater",
    "GreaterOrEqual": "greater_equal",
    "And": "and",
    "Or": "or",
    "Xor": "xor",
    "BitwiseAnd": "and",
    "BitwiseOr": "or",
    "BitwiseXor": "xor",
}

_CHAINED = {"Sum": "add", "Mean": "add", "Max": "max", "Min": "min"}


def _activation(call: Call) -> Value:
    return call.apply(_SAME[call.node.op_type], [call.x])


def _unary(call: Call) -> Value:
    return call.apply("unary", [call.x], function=_UNARY[call.node.op_type])


def _binary(call: Call) -> Value:
    return call.binary(_BINARY[call.node.op_type], call.x, call.value(1))


def _chained(call: Call) -> Value:
    """A function of any number of tensors, two by two."""
    kind = call.node.op_type
    values = call.values()
    result = values[0]
    for value in values[1:]:
        shape = _broadcast(result.shape, value.shape)
        result = call.binary(_CHAINED[kind], result, value, shape)
    return call.binary("mul", result, 1 / len(values)) if kind == "Mean" else result


def _broadcast(a: Shape, b: Shape) -> Shape:
    rank = max(len(a), len(b))
    a, b = ((1,) * (rank - len(s)) + s for s in (a, b))
    return tuple(m if n == 1 else n for m, n in zip(a, b, strict=True))


@_handles("Identity")
def _identity(call: Call) -> Value:
    x = call.x
    if x.is_constant and x.learned:
        # PyTorch's exporter writes tensors of equal values once, and copies them.
        return call.builder.parameter(x.shape, call.node.output[0])
    return call.apply("identity", [x])


@_handles("Cast", "CastLike", "QuantizeLinear", "DequantizeLinear")
def _cast(call: Call) -> Value:
    return call.apply("identity", [call.x])


@_handles("Dropout")
def _dropout(call: Call) -> list[Value]:
    value = call.apply("identity", [call.x])
    return [value, *(call.builder.constant(shape, 1.0) for shape in call.shapes[1:])]


@_handles("ConstantOfShape")
def _filled(call: Call) -> Value:
    fill = call.option("value")
    number = 0.0 if fill is None else float(onnx.numpy_helper.to_array(fill).reshape(-1)[0])
    return call.builder.constant(call.shape, number)


@_handles("Clip")
def _clip(call: Call) -> Value:
    bounds = [call.option("min"), call.option("max")]
    tensors = []
    for place in (1, 2):
        if call.given(place):
            bounds[place - 1] = call.number(place)
            if bounds[place - 1] is None:
                tensors.append(call.value(place))
    # The widest numbers mean that a side is open.
    low, high = (None if b is None or abs(b) > 3.4e38 else float(b) for b in bounds)
    return call.apply("clamp", [call.x, *tensors], low=low, high=high)


@_handles("HardSigmoid")
def _hard_sigmoid(call: Call) -> Value:
    alpha, beta = call.option("alpha", 0.2), call.option("beta", 0.5)
    if math.isclose(alpha, 1 / 6, rel_tol=1e-3) and math.isclose(beta, 0.5, rel_tol=1e-3):
        return call.apply("hard_sigmoid", [call.x])
    line = call.binary("add", call.binary("mul", call.x, alpha), beta)
    return call.apply("clamp", [line], low=0.0, high=1.0)


@_handles("Swish")
def _swish(call: Call) -> Value:
    alpha = call.option("alpha", 1.0)
    scaled = call.x if alpha == 1 else call.binary("mul", call.x, alpha)
    return call.binary("mul", call.x, call.apply("sigmoid", [scaled]))


@_handles("Softsign")
def _softsign(call: Call) -> Value:
    size = call.apply("unary", [call.x], function="abs")
    return call.binary("div", call.x, call.binary("add", size, 1.0))


@_handles("PRelu")
def _prelu(call: Call) -> Value:
    slope = call.value(1)
    return call.apply("prelu", [call.x, call.apply("reshape", [slope], (slope.size,))])


@_handles("Softmax", "LogSoftmax")
def _softmax(call: Call) -> Value:
    op = "softmax" if call.node.op_type == "Softmax" else "log_softmax"
    shape = call.x.shape
    axis = call.option("axis", 1 if call.opset < 13 else -1)
    axis %= max(len(shape), 1)
    if call.opset < 13 and prod(shape[axis + 1 :]) > 1:
        # Up to opset 12 all axes from this one on are one.
        flat = (prod(shape[:axis]), prod(shape[axis:]))
        value = call.apply("reshape", [call.x], flat)
        return call.apply("reshape", [call.apply(op, [value], flat, axis=1)])
    return call.apply(op, [call.x], axis=axis)


@_handles("Trilu")
def _triangle(call: Call) -> Value:
    return call.apply("triu" if call.option("upper", 1) else "tril", [call.x])


@_handles("Where")
def _where(call: Call) -> Value:
    return call.apply("unary", call.values(), function="where")


# --- convolutions, linear layers, products -------------------------------------------------------


def _padding(
    call: Call,
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> tuple[tuple[int, int], ...]:
    """(before, after) of each spatial axis."""
    n = len(sizes)
    mode = call.option("auto_pad", "NOTSET")
    if mode == "VALID":
        return ((0, 0),) * n
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        pads = call.option("pads", (0,) * 2 * n)
        return tuple(zip(pads[:n], pads[n:], strict=True))
    totals = [
        max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
        for size, k, s, d in zip(sizes, kernel, stride, dilation, strict=True)
    ]
    return _halves(totals, more_after=mode == "SAME_UPPER")


def _halves(totals: Sequence[int], *, more_after: bool) -> tuple[tuple[int, int], ...]:
    halves = [(total // 2, total - total // 2) for total in totals]
    return tuple(half if more_after else half[::-1] for half in halves)


def _with_bias(call: Call) -> list[Value]:
    """Data, weight and bias, unless that is the zeros that stand for none."""
    values = call.values()
    return values[:2] if values[-1].number == 0 else values


@_handles("Conv")
def _conv(call: Call) -> Value:
    weight = call.value(1).shape
    kernel, groups = weight[2:], call.option("group", 1)
    channels = call.x.shape[1]
    call.demand(
        groups > 0 and channels == weight[1] * groups and weight[0] % groups == 0,
        "channels must be those of the weight times the groups",
        f"{channels} channels, {groups} groups and a weight of {weight}",
    )
    n = len(kernel)
    stride = tuple(call.option("strides", (1,) * n))
    dilation = tuple(call.option("dilations", (1,) * n))
    return call.apply(
        "conv",
        _with_bias(call),
        kernel=kernel,
        stride=stride,
        padding=_padding(call, call.x.shape[2:], kernel, stride, dilation),
        dilation=dilation,
        groups=groups,
    )


@_handles("ConvTranspose")
def _conv_transpose(call: Call) -> Value:
    kernel = call.value(1).shape[2:]
    n = len(kernel)
    stride = tuple(call.option("strides", (1,) * n))
    dilation = tuple(call.option("dilations", (1,) * n))
    extra = call.option("output_padding", (0,) * n)
    mode = call.option("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER") or call.option("output_shape"):
        totals = [
            max(s * (size - 1) + e + d * (k - 1) + 1 - out, 0)
            for size, out, k, s, d, e in zip(
                call.x.shape[2:], call.shape[2:], kernel, stride, dilation, extra, strict=True
            )
        ]
        padding = _halves(totals, more_after=mode == "SAME_UPPER")
    else:
        padding = _padding(call, call.x.shape[2:], kernel, stride, dilation)
    return call.apply(
        "conv_transpose",
        _with_bias(call),
        kernel=kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=call.option("group", 1),
    )


def _turned(call: Call, value: Value) -> Value:
    """The transpose of a matrix."""
    return call.apply("transpose", [value], value.shape[::-1], order=(1, 0))


@_handles("Gemm")
def _gemm(call: Call) -> Value:
    a, b = call.x, call.value(1)
    if call.option("transA", 0):
        a = _turned(call, a)
    if call.option("transB", 0):
        b = _turned(call, b)
    result = call.apply("matmul", [a, b])
    alpha, beta = call.option("alpha", 1.0), call.option("beta", 1.0)
    if alpha != 1:
        result = call.binary("mul", result, alpha)
    if call.given(2) and beta != 0:
        shift = call.value(2)
        if beta != 1:
            shift = call.binary("mul", shift, beta, shift.shape)
        result = call.binary("add", result, shift)
    return result


@_handles("MatMul")
def _matmul(call: Call) -> Value:
    return call.apply("matmul", call.values())


@_handles("Einsum")
def _einsum(call: Call) -> Value | list[Value]:
    value = call.builder.einsum(call.option("equation", ""), call.values(), name=call.name)
    return handle_other(call) if value is None else value


@_handles("Attention")
def _attention(call: Call) -> list[Value]:
    q, k, v = (call.value(place) for place in range(3))
    flat = len(q.shape) == 3
    if flat:
        heads = call.option("q_num_heads"), *(call.option("kv_num_heads"),) * 2
        q, k, v = (_heads(call, x, n) for x, n in zip((q, k, v), heads, strict=True))
    for place in (4, 5):
        if call.given(place):
            past, now = call.value(place), (k, v)[place - 4]
            length = past.shape[2] + now.shape[2]
            shape = (*now.shape[:2], length, now.shape[3])
            joined = call.apply("concat", [past, now], shape, axis=2)
            k, v = (joined, v) if place == 4 else (k, joined)
    masks = [call.value(3)] if call.given(3) else []
    if call.option("is_causal", 0):
        masks.append(call.builder.constant((q.shape[2], k.shape[2])))
    shape = (*q.shape[:3], v.shape[3])
    value = call.apply("attention", [q, k, v, *masks], shape)
    if flat:
        moved = tuple(shape[axis] for axis in (0, 2, 1, 3))
        value = call.apply("transpose", [value], moved, order=(0, 2, 1, 3))
        value = call.apply("reshape", [value])
    if len(call.shapes) > 3:
        raise GraphError(
            f"Attention must have no output qk_matmul_output, but node {call.name!r} has it."
        )
    return [value, k, v][: len(call.shapes)]


def _heads(call: Call, value: Value, heads: int) -> Value:
    """(b, n, h d) as (b, h, n, d)."""
    b, n, width = value.shape
    split = call.apply("reshape", [value], (b, n, heads, width // heads))
    return call.apply("transpose", [split], (b, heads, n, width // heads), order=(0, 2, 1, 3))


# --- normalisations ------------------------------------------------------------------------------


@_handles("BatchNormalization")
def _batch_norm(call: Call) -> Value:
    statistics = [call.builder.constant(call.value(place).shape) for place in (3, 4)]
    return call.apply("batch_norm", [call.x, call.value(1), call.value(2), *statistics])


@_handles("InstanceNormalization")
def _instance_norm(call: Call) -> Value:
    return call.apply("instance_norm", call.values())


_NORMS = {
    "LayerNormalization": "layer_norm",
    "RMSNormalization": "rms_norm",
    "GroupNormalization": "group_norm",
}


def _norm(call: Call) -> Value:
    """A norm, without the ones and zeros that stand for no scale and no shift."""
    inputs = call.values()
    if len(inputs) == 3 and inputs[2].number == 0:
        inputs.pop()
    if len(inputs) == 2 and inputs[1].number == 1:
        inputs.pop()
    groups = call.option("num_groups")
    options = {} if groups is None else {"groups": groups}
    return call.apply(_NORMS[call.node.op_type], inputs, **options)


@_handles("LRN")
def _local_response_norm(call: Call) -> Value:
    return call.apply("local_response_norm", [call.x])


# --- pooling and reductions ----------------------------------------------------------------------


@_handles("MaxPool", "AveragePool")
def _pool(call: Call) -> list[Value]:
    kernel = tuple(call.option("kernel_shape"))
    n = len(kernel)
    stride = tuple(call.option("strides", (1,) * n))
    dilation = tuple(call.option("dilations", (1,) * n))
    options = {
        "kernel": kernel,
        "stride": stride,
        "padding": _padding(call, call.x.shape[2:], kernel, stride, dilation),
    }
    if call.node.op_type == "AveragePool":
        return [call.apply("avg_pool", [call.x], **options)]
    value = call.apply("max_pool", [call.x], **options, dilation=dilation)
    return [value, *(call.apply("max_pool_indices", [call.x], s) for s in call.shapes[1:])]


@_handles("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(call: Call) -> Value:
    axes = tuple(range(2, len(call.shape)))
    if prod(call.x.shape[2:]) == 1:
        return call.apply("identity", [call.x])
    kind = "mean" if call.node.op_type == "GlobalAveragePool" else "max"
    return call.apply("reduce", [call.x], kind=kind, axes=axes, keep=True)


_REDUCE = {
    "ReduceMean": "mean",
    "ReduceSum": "sum",
    "ReduceMax": "max",
    "ReduceMin": "min",
    "ReduceProd": "prod",
    "ReduceL1": "l1",
    "ReduceL2": "l2",
    "ReduceLogSumExp": "logsumexp",
    "ReduceLogSum": "sum",
    "ReduceSumSquare": "sum",
}


def _reduce(call: Call) -> Value:
    kind, x = call.node.op_type, call.x
    axes = call.integers(1) if call.given(1) else call.option("axes")
    if not axes:
        if call.option("noop_with_empty_axes", 0):
            return call.apply("identity", [x])
        axes = range(len(x.shape))
    axes = tuple(axis % len(x.shape) for axis in axes)
    if kind == "ReduceSumSquare":
        x = call.apply("unary", [x], x.shape, function="square")
    keep = bool(call.option("keepdims", 1))
    value = call.apply("reduce", [x], kind=_REDUCE[kind], axes=axes, keep=keep)
    return call.apply("unary", [value], function="log") if kind == "ReduceLogSum" else value


@_handles("ArgMax", "ArgMin")
def _place_of_extreme(call: Call) -> Value:
    axes = (call.option("axis", 0) % len(call.x.shape),)
    keep = bool(call.option("keepdims", 1))
    return call.apply("reduce", [call.x], kind=call.node.op_type.lower(), axes=axes, keep=keep)


# --- layout --------------------------------------------------------------------------------------


@_handles("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def _reshape(call: Call) -> Value:
    call.demand(
        call.x.size == prod(call.shape),
        "a reshape must keep the number of entries",
        f"{call.x.shape} -> {call.shape}",
    )
    return call.apply("reshape", [call.x])


@_handles("Transpose")
def _transpose(call: Call) -> Value:
    x = call.x
    order = tuple(call.option("perm", range(len(x.shape) - 1, -1, -1)))
    call.demand(
        sorted(order) == list(range(len(x.shape))), f"perm must order {len(x.shape)} axes", order
    )
    if call.opset < 13 and x.op in ("softmax", "log_softmax") and x.inputs[0].op == "transpose":
        # How PyTorch's exporter writes a softmax over any axis but the last up to opset 12.
        there = x.inputs[0].attributes["order"]
        if [there[axis] for axis in order] == sorted(order):
            return call.apply(x.op, x.inputs[0].inputs, axis=there[x.attributes["axis"]])
    return call.apply("transpose", [x], order=order)


@_handles("Expand", "Tile")
def _expand(call: Call) -> Value:
    return call.apply("reshape" if call.x.size == prod(call.shape) else "expand", [call.x])


def _shuffled(call: Call, split: Sequence[int], order: Sequence[int]) -> Value:
    """A tensor split into axes, permuted, and put together again."""
    value = call.apply("reshape", [call.x], split)
    moved = [split[axis] for axis in order]
    value = call.apply("transpose", [value], moved, order=tuple(order))
    return call.apply("reshape", [value])


@_handles("DepthToSpace")
def _depth_to_space(call: Call) -> Value:
    b, c, h, w = call.x.shape
    r = call.option("blocksize")
    if call.option("mode", "DCR") == "CRD":
        return _shuffled(call, [b, c // (r * r), r, r, h, w], [0, 1, 4, 2, 5, 3])
    return _shuffled(call, [b, r, r, c // (r * r), h, w], [0, 3, 4, 1, 5, 2])


@_handles("SpaceToDepth")
def _space_to_depth(call: Call) -> Value:
    b, c, h, w = call.x.shape
    r = call.option("blocksize")
    return _shuffled(call, [b, c, h // r, r, w // r, r], [0, 3, 5, 1, 2, 4])


# --- cutting and joining -------------------------------------------------------------------------


def _cut(call: Call, x: Value, axis: int, start: int, stop: int, step: int = 1) -> Value:
    shape = list(x.shape)
    shape[axis] = len(range(start, stop, step))
    if stop < 0:  # before the first entry, which -1 would not say
        stop = -x.shape[axis] - 1
    return call.apply("slice", [x], shape, axis=axis, start=start, stop=stop, step=step)


@_handles("Slice")
def _slice(call: Call) -> Value:
    starts, stops = call.integers(1) or (), call.integers(2) or ()
    axes = call.integers(3) or tuple(range(len(starts)))
    steps = call.integers(4) or (1,) * len(starts)
    value = call.x
    for axis, start, stop, step in zip(axes, starts, stops, steps, strict=True):
        axis %= len(value.shape)
        value = _cut(call, value, axis, *slice(start, stop, step).indices(value.shape[axis]))
    return value


@_handles("Split")
def _split(call: Call) -> list[Value]:
    axis = call.option("axis", 0) % len(call.x.shape)
    parts, at = [], 0
    for shape in call.shapes:
        parts.append(_cut(call, call.x, axis, at, at + shape[axis]))
        at += shape[axis]
    return parts


@_handles("Concat")
def _concat(call: Call) -> Value:
    used = [value for value in call.values() if value.shape != (0,)]
    return call.apply("concat", used, axis=call.option("axis"))


@_handles("Gather")
def _gather(call: Call) -> Value:
    x, index = call.x, call.value(1)
    axis = call.option("axis", 0) % len(x.shape)
    place = call.number(1)
    if index.is_constant and index.shape == () and place is not None and not x.is_constant:
        at, size = int(place), x.shape[axis]
        call.demand(-size <= at < size, f"an index must lie within {size}", at)
        at %= size
        return call.apply("reshape", [_cut(call, x, axis, at, at + 1)])
    return call.apply("gather", [x, index], axis=axis)


@_handles("GatherND")
def _gather_entries(call: Call) -> Value | list[Value]:
    """Indices along one axis are a gather, through the transpose that brings the axis to front."""
    x, index = call.x, call.value(1)
    if call.option("batch_dims", 0) or index.shape[-1] != 1 or x.is_constant == index.is_constant:
        return handle_other(call)
    index = call.apply("reshape", [index], index.shape[:-1])
    if x.op != "transpose" or len(index.shape) != 1:
        return call.apply("gather", [x, index], axis=0)
    order = x.attributes["order"]
    source = x.inputs[0]
    shape = list(source.shape)
    shape[order[0]] = index.shape[0]
    value = call.apply("gather", [source, index], shape, axis=order[0])
    return call.apply("transpose", [value], order=order)


_PAD_MODES = {"edge": "replicate", "wrap": "circular"}


@_handles("Pad")
def _pad(call: Call) -> Value:
    rank = len(call.x.shape)
    amounts = call.integers(1) or ()
    axes = call.integers(3) or tuple(range(rank))
    padding = tuple(
        sorted(
            (axis % rank, before, after)
            for axis, before, after in zip(
                axes, amounts[: len(axes)], amounts[len(axes) :], strict=True
            )
        )
    )
    mode = call.option("mode", "constant")
    number = call.number(2) if call.given(2) else 0.0
    return call.apply(
        "pad",
        [call.x],
        padding=padding,
        mode=_PAD_MODES.get(mode, mode),
        number=number if mode == "constant" else None,
    )


@_handles("Resize", "Upsample")
def _resize(call: Call) -> Value:
    return call.apply("resize", [call.x], mode=call.option("mode", "nearest"))


# --- recurrent layers ----------------------------------------------------------------------------


@_handles("LSTM", "GRU", "RNN")
def _recurrent(call: Call) -> list[Value]:
    """One layer; the last states are slices of what it puts out."""
    weights = [call.value(1), call.value(2)] + ([call.value(3)] if call.given(3) else [])
    if not all(w.is_constant for w in weights):
        return handle_other(call)
    x, directions, hidden = call.x, weights[0].shape[0], weights[1].shape[-1]
    batch_first = call.option("layout", 0) == 1
    if batch_first:
        x = call.apply("transpose", [x], (x.shape[1], x.shape[0], x.shape[2]), order=(1, 0, 2))
    length, batch, _ = x.shape
    # The weights of the directions lie in one tensor: the shape is that of one.
    one = [call.apply("slice", [w], w.shape[1:]) for w in weights]
    value = call.apply(
        call.node.op_type.lower(),
        [x, *one],
        (length, batch, directions * hidden),
        hidden=hidden,
        directions=directions,
        bias=len(weights) > 2,
    )
    apart = call.apply("reshape", [value], (length, batch, directions, hidden))
    order = (1, 0, 2, 3) if batch_first else (0, 2, 1, 3)
    shape = tuple(apart.shape[axis] for axis in order)
    results = [call.apply("transpose", [apart], shape, order=order)]
    last = _cut(call, value, 0, length - 1, length)
    last = call.apply("reshape", [last], (directions, batch, hidden))
    if batch_first:
        last = call.apply("transpose", [last], (batch, directions, hidden), order=(1, 0, 2))
    return [*results, *(last for _ in call.shapes[1:])]


HANDLERS |= {
    **dict.fromkeys(_SAME, _activation),
    **dict.fromkeys(_UNARY, _unary),
    **dict.fromkeys(_BINARY, _binary),
    **dict.fromkeys(_CHAINED, _chained),
    **dict.fromkeys(_NORMS, _norm),
    **dict.fromkeys(_REDUCE, _reduce),
}
