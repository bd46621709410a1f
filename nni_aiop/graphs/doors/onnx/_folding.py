"""Arithmetic on few known numbers, which is evaluated while a model is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, OperatorSetIdProto, TypeProto

from nni_aiop.graphs._types import Shape
from nni_aiop.graphs.doors.onnx._call import Operand

__all__ = ["ARITHMETIC", "MOST_KNOWN", "computed", "evaluated", "folded"]

MOST_KNOWN = 4096
"""Entries of the largest tensor whose content is looked at."""

ARITHMETIC = frozenset(
    {
        "Abs", "Add", "And", "Cast", "CastLike", "Ceil", "Clip", "Concat", "ConstantOfShape",
        "DequantizeLinear",
        "Cos", "CumSum", "Div", "Equal", "Erf", "Exp", "Expand", "Flatten", "Floor", "Gather",
        "GatherElements", "GatherND", "Greater", "GreaterOrEqual", "Identity", "IsInf", "IsNaN",
        "Less", "LessOrEqual", "Log", "Max", "Mean", "Min", "Mod", "Mul", "Neg", "NonZero", "Not",
        "OneHot", "Or", "Pow", "Range", "Reciprocal", "ReduceMax", "ReduceMean", "ReduceMin",
        "ReduceProd", "ReduceSum", "Reshape", "Round", "ScatterElements", "ScatterND", "Sign",
        "Sin", "Slice", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tile", "Transpose", "Trilu",
        "Unsqueeze", "Where", "Xor",
    }
)  # fmt: skip
"""Operators that are evaluated on small tensors whose content is known."""


def folded(
    node: NodeProto,
    inputs: Sequence[Operand | None],
    types: Sequence[tuple[int, Shape | None]],
    opsets: Sequence[OperatorSetIdProto],
) -> list[NDArray[Any]] | None:
    """What comes out where it can be worked out from few numbers, else None."""
    if node.op_type in ("Shape", "Size") and inputs[0] is not None:
        of = inputs[0].value.shape
        if node.op_type == "Size":
            return [np.asarray(prod(of), np.int64)]
        part = {a.name: a.i for a in node.attribute}
        return [np.asarray(of[slice(part.get("start", 0), part.get("end"))], np.int64)]
    read = inputs[:1] if node.op_type == "CastLike" else inputs  # of the other it takes the type
    if any(x is not None and (not x.value.is_constant or x.value.learned) for x in read):
        return None
    return _run(node, inputs, types, opsets)


def evaluated(
    node: NodeProto,
    inputs: Sequence[Operand | None],
    types: Sequence[tuple[int, Shape | None]],
    opsets: Sequence[OperatorSetIdProto],
    place: int,
) -> Callable[[], NDArray[Any] | None] | None:
    """What works out one output where it is asked for: numbers that may be learned."""
    if any(x is None or not x.has_data for x in inputs):
        return None

    def read() -> NDArray[Any] | None:
        results = _run(node, inputs, types, opsets)
        return None if results is None else results[place]

    return read


def _run(
    node: NodeProto,
    inputs: Sequence[Operand | None],
    types: Sequence[tuple[int, Shape | None]],
    opsets: Sequence[OperatorSetIdProto],
) -> list[NDArray[Any]] | None:
    if node.op_type not in ARITHMETIC:
        return None
    for _, shape in types:
        if node.op_type != "NonZero" and (shape is None or prod(shape) > MOST_KNOWN):
            return None
    feeds = {}
    count = 1 if node.op_type == "CastLike" else len(inputs)
    for name, operand in zip(node.input[:count], inputs[:count], strict=True):
        if operand is None:
            continue
        if operand.value.size > MOST_KNOWN or operand.data is None:
            return None
        feeds[name] = operand.data
    if node.op_type == "CastLike":
        kind = onnx.helper.tensor_dtype_to_np_dtype(types[0][0])
        return [feeds[node.input[0]].astype(kind)]
    return computed(node, feeds, opsets)


def computed(
    node: NodeProto, feeds: Mapping[str, NDArray[Any]], opsets: Sequence[OperatorSetIdProto]
) -> list[NDArray[Any]] | None:
    """What a node makes of numbers by name, None where onnx cannot evaluate it."""
    from onnx.reference import ReferenceEvaluator

    # A node alone would be evaluated by its newest version.
    ends, made = (
        [onnx.helper.make_value_info(name, TypeProto()) for name in names if name]
        for names in (feeds, node.output)
    )
    alone = onnx.helper.make_model(
        onnx.helper.make_graph([node], "alone", ends, made), opset_imports=opsets
    )
    try:
        with np.errstate(all="ignore"):
            results = ReferenceEvaluator(alone).run(None, dict(feeds))
    except Exception:  # noqa: BLE001 (what cannot be evaluated is a constant of unknown content)
        return None
    return [np.asarray(result) for result in results]
