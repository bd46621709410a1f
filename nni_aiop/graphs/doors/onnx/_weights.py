"""Which tensors stand where weights stand, as the nodes that read them tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from onnx import NodeProto

__all__ = ["VECTORS", "Places"]

_PRODUCTS = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "MatMul": (0, 1),
    "Gemm": (0, 1, 2),
    "Einsum": (0, 1),
    "BatchNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "RMSNormalization": (1,),
    "GroupNormalization": (1, 2),
    "PRelu": (1,),
    "LSTM": (1, 2, 3),
    "GRU": (1, 2, 3),
    "RNN": (1, 2, 3),
    "FusedConv": (1, 2),
    "NhwcFusedConv": (1, 2),
    "FusedMatMul": (0, 1),
    "FusedGemm": (0, 1, 2),
    "SkipLayerNormalization": (2, 3, 4),
    "SkipSimplifiedLayerNormalization": (2, 3),
    "SimplifiedLayerNormalization": (1,),
    "EmbedLayerNormalization": (2, 3, 4, 5, 6),
    "BiasGelu": (1,),
    "FastGelu": (1,),
    "Attention": (1, 2),
    "MultiHeadAttention": (3,),
}
"""Operator -> the inputs that are its weights, of floating-point numbers."""

_INTEGERS = {
    "QLinearConv": (3, 8),
    "QLinearMatMul": (0, 3),
    "QLinearAdd": (0, 3),
    "QLinearMul": (0, 3),
    "ConvInteger": (1,),
    "MatMulInteger": (0, 1),
    "QGemm": (3, 6),
    "QAttention": (1, 2),
    "DynamicQuantizeMatMul": (1, 4),
    "MatMulIntegerToFloat": (0, 1, 6),
    "DynamicQuantizeLSTM": (1, 2, 3),
    "QEmbedLayerNormalization": (2, 3, 4, 5, 6),
    "DequantizeLinear": (0,),
}
"""Operator -> the inputs that are its weights, quantised or not."""

VECTORS = {
    "Conv": (2,),
    "ConvTranspose": (2,),
    "Gemm": (2,),
    "FusedConv": (2,),
    "FusedGemm": (2,),
    "QLinearConv": (8,),
    "QGemm": (6,),
    "BatchNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "RMSNormalization": (1,),
    "GroupNormalization": (1, 2),
    "SkipLayerNormalization": (2, 3, 4),
    "SkipSimplifiedLayerNormalization": (2, 3),
    "SimplifiedLayerNormalization": (1,),
    "BiasGelu": (1,),
    "FastGelu": (1,),
    "Add": (0, 1),
}
"""Operator -> the inputs that are its scales and biases."""

_PASSED = frozenset(
    {
        "Concat", "Flatten", "Identity", "QuantizeLinear", "Reshape", "Slice", "Split", "Squeeze",
        "Transpose", "Unsqueeze",
    }
)  # fmt: skip
"""Operators whose input is a weight where their output is one."""

_BIASED = frozenset(
    {"Conv", "ConvTranspose", "MatMul", "Gemm", "MatMulInteger", "ConvInteger", "Mul", "Cast"}
)
"""Operators behind which a sum with a constant is a bias, and a product a scale."""


class Places:
    """Names of a model by where they stand.

    Attributes:
        floats: What a product, a norm, a table or a recurrent layer reads as its weight.
        sums: What is added to a product or multiplies it.
        integers: Integers that are dequantised, or that a quantised product reads as its weight.
        shared: What several nodes read as their scale or bias.
    """

    def __init__(self, nodes: Iterable[NodeProto]) -> None:
        self.floats: set[str] = set()
        self.sums: set[str] = set()
        self.integers: set[str] = set()
        every = list(_all(nodes))
        made_by = {name: node.op_type for node in every for name in node.output if name}
        for node in reversed(every):
            self._look(node, made_by)
        readers = Counter(
            name for node in every for name in {*_at(node, VECTORS.get(node.op_type, ()))}
        )
        self.shared = {name for name, count in readers.items() if count > 1}

    def _look(self, node: NodeProto, made_by: dict[str, str]) -> None:
        kind = node.op_type
        places = _INTEGERS.get(kind)
        if places is not None:
            self.integers.update(_at(node, places))
            self.floats.update(_at(node, places))
        self.floats.update(_at(node, _PRODUCTS.get(kind, ())))
        if kind in ("Add", "Mul", "Sub") and any(made_by.get(n) in _BIASED for n in node.input):
            self.sums.update(node.input)
        inputs = node.input[:1] if kind != "Concat" else node.input
        if kind in _PASSED:
            for names in (self.floats, self.sums, self.integers):
                if names.intersection(node.output):
                    names.update(inputs)
            if kind == "Reshape" and self.sums.intersection(node.output):
                # A number that is laid out for a sum is a bias, be it of one channel.
                self.floats.update(inputs)
        elif kind in ("Cast", "CastLike"):
            for names in (self.floats, self.sums):
                if names.intersection(node.output):
                    names.update(inputs)
        elif kind == "Gather":
            self.floats.update(inputs)
            if self.integers.intersection(node.output):
                self.integers.update(inputs)


def _at(node: NodeProto, places: Iterable[int]) -> Iterator[str]:
    for place in places:
        if place < len(node.input) and node.input[place]:
            yield node.input[place]


def _all(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """All nodes, those of bodies before the node that has them."""
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _all(attribute.g.node)
            for graph in attribute.graphs:
                yield from _all(graph.node)
        yield node
