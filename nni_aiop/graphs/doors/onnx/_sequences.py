"""Lists of tensors, by the operators that make them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto

from nni_aiop.errors import GraphError
from nni_aiop.graphs.doors.onnx._call import Operand
from nni_aiop.graphs.doors.onnx._folding import MOST_KNOWN
from nni_aiop.graphs.doors.onnx._model import called
from nni_aiop.graphs.doors.onnx._reading import Reader

__all__ = ["SEQUENCES", "read_sequence"]

SEQUENCES = frozenset(
    {
        "ConcatFromSequence", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase",
        "SequenceInsert", "SequenceLength", "SplitToSequence",
    }
)  # fmt: skip
"""Operators of the default domain that make or read lists."""

_AT = 13
"""The opset by which the nodes that stand for a list are read: axes and sizes are inputs."""


def read_sequence(reader: Reader, node: NodeProto) -> None:
    """Reads one of `SEQUENCES`.

    Raises:
        GraphError: A place, or the sizes of pieces, are not known.
    """
    kind, out = node.op_type, node.output[0]
    options = {a.name: a.i for a in node.attribute}
    axis = options.get("axis", 0)
    if kind == "SequenceEmpty":
        reader.learn(out, [])
    elif kind == "SequenceConstruct":
        reader.learn(out, [reader.find(name) for name in node.input])
    elif kind == "SplitToSequence":
        keep = len(node.input) > 1 or bool(options.get("keepdims", 1))
        reader.learn(out, _pieces(reader, node, axis, keep))
    elif kind == "ConcatFromSequence":
        parts = []
        for place, operand in enumerate(reader.find_list(node.input[0])):
            part = f"{out}[{place}]"
            reader.learn(part, operand)
            if options.get("new_axis"):
                part = _with_numbers(reader, "Unsqueeze", [part], [f"{part}.wide"], [axis])[0]
            parts.append(part)
        joined = onnx.helper.make_node("Concat", parts, [out], node.name, axis=axis)
        reader.node(joined, _AT)
    elif kind == "SequenceLength":
        data = np.asarray(len(reader.find_list(node.input[0])), np.int64)
        reader.learn(out, reader.constant((), TensorProto.INT64, data))
    elif kind == "SequenceInsert":
        held = list(reader.find_list(node.input[0]))
        at = _place(reader, node, 2)
        held.insert(len(held) if at is None else at, reader.find(node.input[1]))
        reader.learn(out, held)
    else:
        held = list(reader.find_list(node.input[0]))
        at = _place(reader, node, 1)
        if kind == "SequenceErase":
            held.pop(-1 if at is None else at)
            reader.learn(out, held)
        else:
            reader.learn(out, held[0 if at is None else at])


def _place(reader: Reader, node: NodeProto, argument: int) -> int | None:
    """A place in a list; None where the node names none."""
    if len(node.input) <= argument or not node.input[argument]:
        return None
    data = reader.find(node.input[argument]).data
    if data is None:
        raise GraphError(f"the place in a list must be known, but {called(node)} asks it.")
    return int(data.reshape(()))


def _pieces(reader: Reader, node: NodeProto, axis: int, keep: bool) -> list[Operand]:
    sizes = _sizes(reader, node, reader.find(node.input[0]).value.shape[axis])
    parts = [f"{node.output[0]}[{place}]" for place in range(len(sizes))]
    _with_numbers(reader, "Split", [node.input[0]], parts, sizes, axis=axis)
    if not keep:
        parts = [
            _with_numbers(reader, "Squeeze", [part], [f"{part}.squeezed"], [axis])[0]
            for part in parts
        ]
    return [reader.find(part) for part in parts]


def _sizes(reader: Reader, node: NodeProto, length: int) -> list[int]:
    sizes = None
    if len(node.input) > 1:
        sizes = reader.find(node.input[1]).data
        if sizes is None:
            raise GraphError(f"sizes of pieces must be known, but {called(node)} asks them.")
    if sizes is not None and sizes.ndim:
        return [int(n) for n in sizes]
    each = 1 if sizes is None else int(sizes)
    if each < 1 or length // each > MOST_KNOWN:
        raise GraphError(
            f"a tensor must be cut into at most {MOST_KNOWN} pieces, but {called(node)} cuts "
            f"{length} into pieces of {each}."
        )
    return [min(each, length - at) for at in range(0, length, each)]


def _with_numbers(
    reader: Reader,
    kind: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    numbers: Sequence[int],
    **options: Any,
) -> Sequence[str]:
    """The outputs of a node whose last input is a list of numbers."""
    data = np.asarray(numbers, np.int64)
    name = f"{outputs[0]}.numbers"
    reader.learn(name, reader.constant(data.shape, TensorProto.INT64, data))
    reader.node(onnx.helper.make_node(kind, [*inputs, name], outputs, **options), _AT)
    return outputs
