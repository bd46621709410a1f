"""Type and shape of what a node makes: by onnx's own inference, else as the model states it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import NodeProto, OperatorSetIdProto, TypeProto, ValueInfoProto

from nni_aiop.errors import GraphError
from nni_aiop.graphs._types import Shape
from nni_aiop.graphs.doors.onnx._call import Operand
from nni_aiop.graphs.doors.onnx._folding import MOST_KNOWN
from nni_aiop.graphs.doors.onnx._model import called, domain_of, static_shape
from nni_aiop.graphs.doors.onnx._tensors import FLOATING

__all__ = ["inferred_types", "schema_version"]

_READS_NUMBERS = frozenset({"Resize", "Upsample", "Range"})
"""Operators whose shape depends on the values of floating-point inputs."""

_LIKE_ITS_INPUTS = {"GroupNormalization": 1, "GreaterOrEqual": 2, "LessOrEqual": 2}
"""Operators that onnx infers no shape for: how many inputs broadcast to that of the output."""


def schema_version(node: NodeProto, opset: int) -> int:
    """The opset by which a node is read: the model's, or the first one that has its operator.

    onnxruntime runs some operators of later opsets, such as LayerNormalization, in any model.
    """
    domain = domain_of(node.domain)
    if onnx.defs.has(node.op_type, opset, domain) or not onnx.defs.has(node.op_type, domain=domain):
        return opset
    later = (
        schema.since_version
        for schema in onnx.defs.get_all_schemas_with_history()
        if schema.name == node.op_type and schema.domain == domain and schema.since_version > opset
    )
    return min(later, default=opset)


def inferred_types(
    node: NodeProto,
    inputs: Sequence[Operand | None],
    around: Mapping[str, Operand],
    stated: Mapping[str, ValueInfoProto],
    opset: int,
    imports: Sequence[OperatorSetIdProto],
) -> list[tuple[int, Shape | None]]:
    """Type and shape of each output; None where the shape is not known.

    Args:
        node: The node.
        inputs: What it reads.
        around: What its bodies read of the tensors around it.
        stated: What the model says of its tensors.
        opset: Of the operator's domain.
        imports: All opsets of the model.

    Raises:
        GraphError: A dimension is negative.
    """
    domain = domain_of(node.domain)
    inferred: Mapping[str, TypeProto] = {}
    schema = None
    if onnx.defs.has(node.op_type, opset, domain):
        schema = onnx.defs.get_schema(node.op_type, opset, domain)
    if schema is not None and not schema.deprecated:
        types, data = {}, {}
        for name, operand in zip(node.input, inputs, strict=True):
            if operand is None:
                continue
            types[name] = operand.type
            reads = node.op_type in _READS_NUMBERS or operand.elem_type not in FLOATING
            if reads and operand.value.size <= MOST_KNOWN and operand.data is not None:
                data[name] = onnx.numpy_helper.from_array(operand.data, name)
        types |= {name: operand.type for name, operand in around.items()}
        inferred = onnx.shape_inference.infer_node_outputs(
            schema, node, types, data, opset_imports=list(imports)
        )
    results = []
    for place, name in enumerate(node.output):
        kind = inferred.get(name)
        shape = None if kind is None else static_shape(kind)
        if shape is None and name in stated:
            shape = static_shape(stated[name].type)
        if shape is None and place == 0 and node.op_type in _LIKE_ITS_INPUTS:
            shapes = [operand.value.shape for operand in inputs if operand is not None]
            shape = np.broadcast_shapes(*shapes[: _LIKE_ITS_INPUTS[node.op_type]])
        if not name:
            shape = ()
        if shape is not None and any(n < 0 for n in shape):
            raise GraphError(f"dimensions must not be negative, but {called(node)} makes {shape}.")
        if kind is not None:
            elem_type = kind.tensor_type.elem_type
        elif name in stated and stated[name].type.HasField("tensor_type"):
            elem_type = stated[name].type.tensor_type.elem_type
        else:
            elem_type = next((operand.elem_type for operand in inputs if operand), 0)
        results.append((elem_type, shape))
    return results
