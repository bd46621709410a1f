"""Nodes and tensors of an ONNX model: their names, copies of them, and what they are given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, numpy_helper

from nni_aiop.errors import GraphError
from nni_aiop.graphs.doors.onnx import captured_by
from nni_aiop.networks.onnx._pass import called

__all__ = [
    "all_nodes",
    "copied",
    "in_the_order_of",
    "names_in",
    "names_read",
    "option",
    "refill",
    "set_option",
    "set_value",
    "shown",
    "tensor_copy",
]


def in_the_order_of(nodes: Sequence[NodeProto], graph: GraphProto) -> list[NodeProto]:
    """The nodes of a copy of a graph in the order that the nodes of the graph are given in."""
    by_output = {first_output(node): node for node in graph.node}
    return [by_output[first_output(node)] for node in nodes]


def first_output(node: NodeProto) -> str:
    return next((str(name) for name in node.output if name), "")


def shown(node: NodeProto) -> str:
    return f"node {called(node)!r} ({node.op_type})"


def all_nodes(graph: GraphProto) -> list[NodeProto]:
    return list(graph.node)


def names_read(nodes: Sequence[NodeProto]) -> set[str]:
    return {name for node in nodes for name in (*node.input, *captured_by(node)) if name}


def names_in(graph: GraphProto) -> set[str]:
    names = {x.name for x in (*graph.input, *graph.output, *graph.initializer)}
    for node in graph.node:
        names.update(node.input, node.output, captured_by(node))
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                names |= names_in(inner)
    return names


def copied(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy


def tensor_copy(tensor: TensorProto) -> TensorProto:
    copy = TensorProto()
    copy.CopyFrom(tensor)
    return copy


def refill(tensor: TensorProto, data: NDArray[Any]) -> None:
    """Gives an initialiser other numbers of its type."""
    made = numpy_helper.from_array(np.ascontiguousarray(data), tensor.name)
    if made.data_type != tensor.data_type:
        raise GraphError(f"numbers of {tensor.name!r} must stay of their type, but do not.")
    made.doc_string = tensor.doc_string
    tensor.CopyFrom(made)


def set_value(node: NodeProto, data: NDArray[Any]) -> None:
    """Gives a Constant node other numbers."""
    del node.attribute[:]
    made = numpy_helper.from_array(np.ascontiguousarray(data))
    node.attribute.append(onnx.helper.make_attribute("value", made))


def set_option(node: NodeProto, name: str, value: Any) -> None:
    for attribute in node.attribute:
        if attribute.name == name:
            node.attribute.remove(attribute)
            break
    if value is not None:
        node.attribute.append(onnx.helper.make_attribute(name, value))


def option(node: NodeProto, name: str, default: Any) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            return onnx.helper.get_attribute_value(attribute)
    return default
