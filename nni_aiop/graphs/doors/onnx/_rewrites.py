"""Operators that are read as nodes of onnx: those of quantised arithmetic.

A quantised network stands for the float network that it approximates: steps between integers and
real numbers are nothing, scales and zero points are no learned numbers, and a product of integers
is that product. Where quantisation cuts off all that is negative, tools leave out the `relu`
before it; it is read as being there (`_functions`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import NodeProto, TensorProto

from nni_aiop.errors import GraphError
from nni_aiop.graphs._types import Shape
from nni_aiop.graphs.doors.onnx._call import Operand
from nni_aiop.graphs.doors.onnx._model import called, domain_of
from nni_aiop.graphs.doors.onnx._reading import Reader
from nni_aiop.graphs.doors.onnx._tensors import FLOATING

__all__ = ["BLOCKED", "FOREIGN", "Parts", "Rewrite", "foreign", "rewritten"]


class Parts:
    """The nodes that one node stands for, which are read one by one as they are added."""

    def __init__(self, reader: Reader, node: NodeProto) -> None:
        self.reader = reader
        self.node = node
        self._options = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        self._count = 0

    def given(self, place: int) -> bool:
        """Whether the node has an input in that place."""
        return place < len(self.node.input) and bool(self.node.input[place])

    def input(self, place: int) -> str:
        """The name of an input; empty where it is not there."""
        return self.node.input[place] if self.given(place) else ""

    def wants(self, place: int) -> bool:
        """Whether the node makes an output in that place."""
        return place < len(self.node.output) and bool(self.node.output[place])

    def operand(self, name: str) -> Operand:
        return self.reader.find(name)

    def shape(self, name: str) -> Shape:
        return self.reader.find(name).value.shape

    def option(self, name: str, default: Any = None) -> Any:
        """An attribute, text decoded."""
        value = self._options.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def options(self, *without: str) -> dict[str, Any]:
        """All attributes but some."""
        return {name: value for name, value in self._options.items() if name not in without}

    def demand(self, holds: bool, rule: str) -> None:
        """Refuses the node where a rule does not hold.

        Raises:
            GraphError: It does not.
        """
        if not holds:
            raise GraphError(
                f"{rule}, but {called(self.node)} of the domain {domain_of(self.node.domain)!r} "
                f"is otherwise; where a tool has optimised or quantised the model, give the "
                f"original file."
            )

    def _name(self) -> str:
        self._count += 1
        return f"{self._result()}~{self._count}"

    def _result(self) -> str:
        return str(next(name for name in self.node.output if name))

    def add(self, op: str, *inputs: str, outputs: int = 1, **options: Any) -> str:
        """Reads a node of onnx; the name of its first output, whose others end in +1, +2 ..."""
        first = self._name()
        names = [first, *(f"{first}+{place}" for place in range(1, outputs))]
        while inputs and not inputs[-1]:
            inputs = inputs[:-1]
        options = {name: value for name, value in options.items() if value is not None}
        made = onnx.helper.make_node(op, list(inputs), names, self.node.name, **options)
        self.reader.run([made], onnx.defs.onnx_opset_version())
        return first

    def tensor(self, operand: Operand) -> str:
        """A tensor that no node makes."""
        name = self._name()
        self.reader.learn(name, operand)
        return name

    def numbers(self, data: ArrayLike, kind: int = TensorProto.INT64) -> str:
        """A known tensor."""
        array = np.asarray(data, onnx.helper.tensor_dtype_to_np_dtype(kind))
        return self.tensor(self.reader.constant(array.shape, kind, array))

    def parameter(self, shape: Sequence[int], of: str) -> str:
        """A learned tensor that is packed in another one."""
        key = next(iter(self.operand(of).value.learned), of)
        value = self.reader.builder.parameter(shape, ("unpacked", key))
        return self.tensor(Operand(value, TensorProto.FLOAT))

    def integers(self, name: str) -> str:
        """A product of integers, marked so that the scale behind it is known as one."""
        x = self.operand(name).value
        marked = self.reader.builder.apply("identity", [x], x.shape, integers=True)
        return self.tensor(Operand(marked, TensorProto.FLOAT))

    def real(self, place: int, scale: int | None = None) -> str:
        """An input as real numbers; where its scale is an input, its zero point is the next one."""
        name = self.input(place)
        if not name or self.operand(name).elem_type in FLOATING:
            return name
        if scale is not None and self.given(scale):
            return self.add("DequantizeLinear", name, self.input(scale), self.input(scale + 1))
        return self.tensor(Operand(self.operand(name).value, TensorProto.FLOAT))

    def quantized(self, name: str, scale: int, zero: int) -> str:
        """What comes out of quantisation."""
        return self.add("QuantizeLinear", name, self.input(scale), self.input(zero))


Rewrite = Callable[[Parts], "Sequence[str]"]

FOREIGN: dict[str, Rewrite] = {}
"""Operators of onnx and onnxruntime -> names of the tensors that come out of the nodes instead."""

BLOCKED: dict[str, Rewrite] = {}
"""Those of the domain in which onnxruntime keeps channels in blocks."""

_OF_ONNX = frozenset(
    {
        "ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul",
        "SimplifiedLayerNormalization",
    }
)  # fmt: skip
"""Rewritten operators of the default domain; onnxruntime keeps the last one there, too."""

_DOMAINS = ("com.microsoft", "com.ms.internal.nhwc")


def foreign(*names: str) -> Callable[[Rewrite], Rewrite]:
    def add(rewrite: Rewrite) -> Rewrite:
        FOREIGN.update(dict.fromkeys(names, rewrite))
        return rewrite

    return add


def rewritten(reader: Reader, node: NodeProto) -> bool:
    """Whether a node was read as other nodes, which are done with now."""
    domain = domain_of(node.domain)
    if domain == "com.microsoft.nchwc":
        rewrite = BLOCKED.get(node.op_type)
    elif domain in _DOMAINS or (domain == "" and node.op_type in _OF_ONNX):
        rewrite = FOREIGN.get(node.op_type)
    else:
        return False
    if rewrite is None:
        return False
    results = rewrite(Parts(reader, node))
    for name, result in zip(node.output, results, strict=False):
        if name:
            reader.learn(name, reader.find(result))
    return True


# --- quantised arithmetic ------------------------------------------------------------------------


@foreign("QLinearConv")
def _qlinear_conv(parts: Parts) -> Sequence[str]:
    x, last = parts.real(0, 1), bool(parts.option("channels_last", 0))
    if last:
        x = moved(parts, x, first=True)
    options = parts.options("channels_last")
    made = parts.add("Conv", x, parts.real(3), parts.real(8), **options)
    if last:
        made = moved(parts, made, first=False)
    return [parts.quantized(made, 6, 7)]


def moved(parts: Parts, name: str, *, first: bool) -> str:
    """Channels moved from the last axis to the second, or back."""
    rank = len(parts.shape(name))
    order = [0, rank - 1, *range(1, rank - 1)] if first else [0, *range(2, rank), 1]
    return parts.add("Transpose", name, perm=order)


@foreign("QLinearMatMul")
def _qlinear_matmul(parts: Parts) -> Sequence[str]:
    return [parts.quantized(parts.add("MatMul", parts.real(0, 1), parts.real(3, 4)), 6, 7)]


@foreign("ConvInteger")
def _conv_integer(parts: Parts) -> Sequence[str]:
    made = parts.add("Conv", parts.real(0), parts.real(1), **parts.options("channels_last"))
    return [parts.integers(made)]


@foreign("MatMulInteger", "MatMulInteger16")
def _matmul_integer(parts: Parts) -> Sequence[str]:
    return [parts.integers(parts.add("MatMul", parts.real(0), parts.real(1)))]


@foreign("DynamicQuantizeLinear")
def _dynamic_quantize(parts: Parts) -> Sequence[str]:
    zero = parts.numbers(0, TensorProto.UINT8)
    scale = parts.numbers(1.0, TensorProto.FLOAT)
    return [parts.add("Identity", parts.input(0)), scale, zero]


@foreign("QuantizeLinear", "DequantizeLinear")
def _quantize(parts: Parts) -> Sequence[str]:
    inputs = [parts.input(place) for place in range(3)]
    options = {name: parts.option(name) for name in ("axis", "block_size")}
    return [parts.add(parts.node.op_type, *inputs, **options)]


@foreign("DynamicQuantizeMatMul")
def _dynamic_matmul(parts: Parts) -> Sequence[str]:
    made = parts.add("MatMul", parts.input(0), parts.real(1))
    return [parts.add("Add", made, parts.input(4)) if parts.given(4) else made]


@foreign("MatMulIntegerToFloat")
def _matmul_to_float(parts: Parts) -> Sequence[str]:
    made = parts.add("MatMul", parts.real(0), parts.real(1))
    return [parts.add("Add", made, parts.input(6)) if parts.given(6) else made]


@foreign("QGemm")
def _qgemm(parts: Parts) -> Sequence[str]:
    options = parts.options()
    made = parts.add("Gemm", parts.real(0, 1), parts.real(3), parts.real(6), **options)
    return [parts.quantized(made, 7, 8) if parts.given(7) else made]


@foreign("QLinearAdd", "QLinearMul")
def _qlinear_binary(parts: Parts) -> Sequence[str]:
    op = parts.node.op_type.removeprefix("QLinear")
    return [parts.quantized(parts.add(op, parts.real(0, 1), parts.real(3, 4)), 6, 7)]


@foreign("QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax")
def _qlinear_function(parts: Parts) -> Sequence[str]:
    op = parts.node.op_type.removeprefix("QLinear")
    options = parts.options("opset")
    if op == "Softmax" and parts.option("opset", 13) < 13:
        rank = len(parts.shape(parts.input(0)))
        axis = parts.option("axis", 1) % rank
        parts.demand(axis == rank - 1, "a softmax must be over the last axis")
    return [parts.quantized(parts.add(op, parts.real(0, 1), **options), 3, 4)]


@foreign("QLinearGlobalAveragePool", "QLinearAveragePool")
def _qlinear_pool(parts: Parts) -> Sequence[str]:
    made = _pooled(parts, parts.node.op_type.removeprefix("QLinear"))
    return [parts.quantized(made, 3, 4)]


@foreign("NhwcMaxPool")
def _nhwc_pool(parts: Parts) -> Sequence[str]:
    made = parts.add("MaxPool", moved(parts, parts.input(0), first=True), **parts.options())
    return [moved(parts, made, first=False)]


def _pooled(parts: Parts, op: str) -> str:
    last = bool(parts.option("channels_last", 0))
    x = moved(parts, parts.real(0, 1), first=True) if last else parts.real(0, 1)
    made = parts.add(op, x, **parts.options("channels_last"))
    return moved(parts, made, first=False) if last else made


@foreign("QLinearConcat")
def _qlinear_concat(parts: Parts) -> Sequence[str]:
    names = [parts.real(place, place + 1) for place in range(2, len(parts.node.input), 3)]
    return [parts.quantized(parts.add("Concat", *names, axis=parts.option("axis")), 0, 1)]


@foreign("QLinearReduceMean")
def _qlinear_mean(parts: Parts) -> Sequence[str]:
    axes = parts.option("axes")
    named = [] if axes is None else [parts.numbers(axes)]
    keep = parts.option("keepdims", 1)
    made = parts.add("ReduceMean", parts.real(0, 1), *named, keepdims=keep)
    return [parts.quantized(made, 3, 4)]


@foreign("QLinearWhere")
def _qlinear_where(parts: Parts) -> Sequence[str]:
    made = parts.add("Where", parts.input(0), parts.real(1, 2), parts.real(4, 5))
    return [parts.quantized(made, 7, 8)]


@foreign("DynamicQuantizeLSTM")
def _dynamic_lstm(parts: Parts) -> Sequence[str]:
    # Its weights are the transposes of those that LSTM reads.
    weights = [parts.add("Transpose", parts.real(place), perm=[0, 2, 1]) for place in (1, 2)]
    rest = [parts.input(place) for place in range(3, 8)]
    made = parts.add("LSTM", parts.input(0), *weights, *rest, outputs=3, **parts.options())
    return [made, f"{made}+1", f"{made}+2"]


@foreign("MatMulNBits")
def _matmul_of_bits(parts: Parts) -> Sequence[str]:
    k, n = parts.option("K"), parts.option("N")
    parts.demand(parts.operand(parts.input(1)).value.is_constant, "packed weights must be constant")
    made = parts.add("MatMul", parts.input(0), parts.parameter((k, n), parts.input(1)))
    return [parts.add("Add", made, parts.input(5)) if parts.given(5) else made]
