"""ONNX operators entry by entry."""

from __future__ import annotations

import math
from math import prod

import onnx
from onnx import TensorProto

from nni_aiop.graphs._types import Shape
from nni_aiop.graphs.doors.onnx._call import Call, handles
from nni_aiop.graphs.rules._values import Value

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


@handles(*_SAME)
def _activation(call: Call) -> Value:
    return call.apply(_SAME[call.node.op_type], [call.x])


@handles(*_UNARY)
def _unary(call: Call) -> Value:
    return call.apply("unary", [call.x], function=_UNARY[call.node.op_type])


@handles(*_BINARY)
def _binary(call: Call) -> Value:
    if call.node.op_type == "Mul":
        for x, scale in (call.values(), call.values()[::-1]):
            if scale.is_constant and x.shape == call.shape and _is_of_integers(x):
                return call.apply("identity", [x])  # back to real numbers
    return call.binary(_BINARY[call.node.op_type], call.x, call.value(1))


def _is_of_integers(x: Value) -> bool:
    """Whether a tensor is a product of integers, as `_rewrites` marks it."""
    while x.op == "identity":
        if x.attributes.get("integers"):
            return True
        x = x.inputs[0]
    return False


@handles(*_CHAINED)
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


@handles("Identity")
def _identity(call: Call) -> Value:
    x = call.x
    if x.is_constant and x.learned:
        # PyTorch's exporter writes tensors of equal values once, and copies them.
        copy = call.builder.parameter(x.shape, call.owner + call.node.output[0])
        copy.shown = x.shown
        return copy
    return call.apply("identity", [x])


@handles("Cast", "CastLike", "DequantizeLinear")
def _cast(call: Call) -> Value:
    return call.apply("identity", [call.x])


_LEAST: dict[int, int] = {
    TensorProto.UINT4: 0,
    TensorProto.UINT8: 0,
    TensorProto.UINT16: 0,
    TensorProto.INT4: -8,
    TensorProto.INT8: -(2**7),
    TensorProto.INT16: -(2**15),
}
"""Type of quantised numbers -> the least of them."""

_BEFORE_RELU = frozenset({"conv", "conv_transpose", "matmul", "linear", "batch_norm"})

_NOT_NEGATIVE = frozenset({"relu", "sigmoid", "hard_sigmoid", "softmax", "input"})
"""Operations whose results are not negative; inputs are quantised as they are."""

_DEEP = 64


@handles("QuantizeLinear")
def _quantize(call: Call) -> Value:
    """Nothing; a `relu` where that is what cutting off at the least number does.

    Tools leave out the relu or relu6 before a quantisation whose least number stands for zero.
    """
    x = call.x
    if not call.given(2):
        lowest = call.option("output_dtype", TensorProto.UINT8) in _UNSIGNED
    else:
        operand, zero = call.inputs[2], call.number(2)
        lowest = zero is not None and operand is not None and _LEAST.get(operand.elem_type) == zero
    if not lowest or x.is_constant or not _may_need_relu(x):
        return call.apply("identity", [x])
    scale = call.number(1)
    if scale is not None and math.isclose(255 * scale, 6, rel_tol=1e-3):
        return call.apply("clamp", [x], low=0.0, high=6.0)
    return call.apply("relu", [x])


_UNSIGNED = (TensorProto.UNDEFINED, TensorProto.UINT4, TensorProto.UINT8, TensorProto.UINT16)


def _may_need_relu(x: Value) -> bool:
    """Whether a tensor is what tools put a relu behind, and may be negative."""
    while x.op in ("identity", "reshape", "transpose"):
        x = x.inputs[0]
    is_sum = x.op == "binary" and x.attributes.get("function") == "add"
    is_sum = is_sum and not any(v.is_constant and v.size == 1 for v in x.inputs)
    return (is_sum or x.op in _BEFORE_RELU) and _may_be_negative(x, _DEEP)


def _may_be_negative(x: Value, depth: int) -> bool:
    if x.is_constant:
        return x.number is None or x.number < 0
    if x.op in _NOT_NEGATIVE or depth == 0:
        return False
    if x.op == "clamp":
        low = x.attributes.get("low")
        return low is None or low < 0
    passed = x.op in ("identity", "reshape", "transpose", "slice", "concat", "max_pool", "avg_pool")
    if passed or x.op in ("reduce", "matmul") or x.attributes.get("function") in ("add", "mul"):
        return any(_may_be_negative(v, depth - 1) for v in x.inputs)
    return True


@handles("Dropout")
def _dropout(call: Call) -> list[Value]:
    value = call.apply("identity", [call.x])
    return [value, *(call.builder.constant(shape, 1.0) for shape in call.shapes[1:])]


@handles("ConstantOfShape")
def _filled(call: Call) -> Value:
    fill = call.option("value")
    number = 0.0 if fill is None else float(onnx.numpy_helper.to_array(fill).reshape(-1)[0])
    return call.builder.constant(call.shape, number)


@handles("Clip")
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


@handles("HardSigmoid")
def _hard_sigmoid(call: Call) -> Value:
    alpha, beta = call.option("alpha", 0.2), call.option("beta", 0.5)
    if math.isclose(alpha, 1 / 6, rel_tol=1e-3) and math.isclose(beta, 0.5, rel_tol=1e-3):
        return call.apply("hard_sigmoid", [call.x])
    line = call.binary("add", call.binary("mul", call.x, alpha), beta)
    return call.apply("clamp", [line], low=0.0, high=1.0)


@handles("Swish")
def _swish(call: Call) -> Value:
    alpha = call.option("alpha", 1.0)
    scaled = call.x if alpha == 1 else call.binary("mul", call.x, alpha)
    return call.binary("mul", call.x, call.apply("sigmoid", [scaled]))


@handles("Softsign")
def _softsign(call: Call) -> Value:
    size = call.apply("unary", [call.x], function="abs")
    return call.binary("div", call.x, call.binary("add", size, 1.0))


@handles("PRelu")
def _prelu(call: Call) -> Value:
    slope = call.value(1)
    return call.apply("prelu", [call.x, call.apply("reshape", [slope], (slope.size,))])


@handles("Softmax", "LogSoftmax")
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


@handles("Trilu")
def _triangle(call: Call) -> Value:
    return call.apply("triu" if call.option("upper", 1) else "tril", [call.x])


@handles("Where")
def _where(call: Call) -> Value:
    return call.apply("unary", call.values(), function="where")
