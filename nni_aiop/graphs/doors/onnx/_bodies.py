"""Nodes with bodies: If, whose condition must be known, and Loop and Scan, which are unrolled.

Each turn reads the body again on the state of the turn before; weights of the body are the same
in every turn, so that the graph ties them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto

from nni_aiop.errors import GraphError
from nni_aiop.graphs.doors.onnx._call import Operand
from nni_aiop.graphs.doors.onnx._folding import MOST_KNOWN
from nni_aiop.graphs.doors.onnx._model import called
from nni_aiop.graphs.doors.onnx._reading import Known, Reader

__all__ = ["BODIES", "demand_few"]

_MOST_OPERATIONS = 50_000

_HINT = "the value of an input can be given (values=)"


def _body(node: NodeProto, name: str) -> GraphProto:
    for attribute in node.attribute:
        if attribute.name == name:
            graph: GraphProto = attribute.g
            return graph
    raise GraphError(f"a node must have its body {name!r}, but {called(node)} has none.")


def _single(known: Known) -> Operand:
    if isinstance(known, list):
        raise GraphError("what is put side by side must be tensors, but a list was found.")
    return known


def demand_few(count: int, node: NodeProto) -> None:
    """Refuses loops that run too many operations.

    Raises:
        GraphError: They do.
    """
    if count > _MOST_OPERATIONS:
        raise GraphError(
            f"the loops of a model must run at most {_MOST_OPERATIONS} operations, but "
            f"{called(node)} runs more."
        )


def _branch(reader: Reader, node: NodeProto) -> None:
    known = reader.find(node.input[0]).data
    if known is None or known.size != 1:
        raise GraphError(
            f"what a network does must not depend on the values of its data, but "
            f"{called(node)} does; {_HINT}."
        )
    wanted = "then_branch" if bool(known.reshape(())) else "else_branch"
    results = reader.body(_body(node, wanted), node, [])
    for name, result in zip(node.output, results, strict=True):
        if name:
            reader.learn(name, result)


def _number(reader: Reader, node: NodeProto, place: int, what: str) -> int | None:
    """The only entry of an input; None where the node has none."""
    if place >= len(node.input) or not node.input[place]:
        return None
    data = reader.find(node.input[place]).data
    if data is None or data.size != 1:
        raise GraphError(f"{what} must be known, but {called(node)} has data; {_HINT}.")
    return int(data.reshape(()))


def _loop(reader: Reader, node: NodeProto) -> None:
    body = _body(node, "body")
    turns = _number(reader, node, 0, "how often a loop turns")
    goes_on = _number(reader, node, 1, "whether a loop turns")
    state = [reader.find_any(name) for name in node.input[2:]]
    stacks: list[list[Operand]] = [[] for _ in body.output[1 + len(state) :]]
    demand_few((turns or 0) * (1 + len(body.node)), node)
    turn = 0
    while (turns is None or turn < turns) and goes_on != 0:
        count = reader.constant((), TensorProto.INT64, np.asarray(turn, np.int64))
        going = reader.constant((), TensorProto.BOOL, np.asarray(True))
        given = [count, going][: len(body.input)]
        results = reader.body(body, node, [*given, *state])
        turn += 1
        after = _single(results[0]).data
        if turn != turns and (after is None or after.size != 1):
            raise GraphError(
                f"how often a loop turns must be known, but {called(node)} ends by its data; "
                f"{_HINT}."
            )
        goes_on = 1 if after is None else int(after.reshape(()))
        state = results[1 : 1 + len(state)]
        for stack, result in zip(stacks, results[1 + len(state) :], strict=True):
            stack.append(_single(result))
    stacked = [_stacked(reader, stack, 0, node) for stack in stacks]
    for name, result in zip(node.output, [*state, *stacked], strict=False):
        if name:
            reader.learn(name, result)


def _scan(reader: Reader, node: NodeProto) -> None:
    body = _body(node, "body")
    options: dict[str, Sequence[int]] = {a.name: list(a.ints) for a in node.attribute}
    scanned = next((a.i for a in node.attribute if a.name == "num_scan_inputs"), 0)
    first = len(node.input) - scanned
    if not 0 < scanned <= len(node.input):
        raise GraphError(f"a scan must read a tensor piece by piece, but {called(node)} has none.")
    state: list[Known] = [reader.find(name) for name in node.input[:first]]
    operands = [reader.find(name) for name in node.input[first:]]
    zeros = [0] * scanned
    axes = [
        axis % max(len(x.value.shape), 1)
        for axis, x in zip(options.get("scan_input_axes") or zeros, operands, strict=True)
    ]
    backwards = options.get("scan_input_directions") or zeros
    lengths = {x.value.shape[axis] for x, axis in zip(operands, axes, strict=True)}
    if len(lengths) != 1:
        raise GraphError(f"scanned axes must be of one length, but {called(node)} has {lengths}.")
    length = lengths.pop()
    demand_few(length * (1 + len(body.node)), node)
    made = len(body.output) - first
    out_axes = options.get("scan_output_axes") or [0] * made
    out_backwards = options.get("scan_output_directions") or [0] * made
    stacks: list[list[Operand]] = [[] for _ in range(made)]
    for turn in range(length):
        pieces = [
            _piece(reader, x, axis, length - 1 - turn if back else turn)
            for x, axis, back in zip(operands, axes, backwards, strict=True)
        ]
        results = reader.body(body, node, [*state, *pieces])
        state = results[:first]
        for stack, result in zip(stacks, results[first:], strict=True):
            stack.append(_single(result))
    stacked = [
        _stacked(reader, stack[::-1] if back else stack, axis, node)
        for stack, axis, back in zip(stacks, out_axes, out_backwards, strict=True)
    ]
    for name, result in zip(node.output, [*state, *stacked], strict=False):
        if name:
            reader.learn(name, result)


def _piece(reader: Reader, operand: Operand, axis: int, at: int) -> Operand:
    """One entry of a tensor along an axis."""
    x = operand.value
    if not x.learned and operand.data is not None:
        data = np.take(operand.data, at, axis)
        return reader.constant(data.shape, operand.elem_type, data)
    shape = (*x.shape[:axis], 1, *x.shape[axis + 1 :])
    cut = reader.builder.apply("slice", [x], shape, axis=axis, start=at, stop=at + 1, step=1)
    shape = (*x.shape[:axis], *x.shape[axis + 1 :])
    return Operand(reader.builder.apply("reshape", [cut], shape), operand.elem_type)


def _stacked(reader: Reader, parts: Sequence[Operand], axis: int, node: NodeProto) -> Operand:
    """The results of all turns side by side along a new axis."""
    if not parts:
        return reader.constant((0,), TensorProto.FLOAT, None)
    shape, kind = parts[0].value.shape, parts[0].elem_type
    if any(part.value.shape != shape for part in parts):
        raise GraphError(f"results of turns must be of one shape, but {called(node)} has others.")
    axis %= len(shape) + 1
    known = [part.data for part in parts if part.value.is_constant and not part.value.learned]
    whole = (*shape[:axis], len(parts), *shape[axis:])
    arrays = [data for data in known if data is not None]
    if len(arrays) == len(parts) and parts[0].value.size * len(parts) <= MOST_KNOWN:
        return reader.constant(whole, kind, np.stack(arrays, axis))
    wide = (*shape[:axis], 1, *shape[axis:])
    values = [reader.builder.apply("reshape", [part.value], wide) for part in parts]
    if len(values) == 1:
        return Operand(values[0], kind)
    return Operand(reader.builder.apply("concat", values, whole, axis=axis), kind)


BODIES: dict[str, Callable[[Reader, NodeProto], None]] = {
    "If": _branch,
    "Loop": _loop,
    "Scan": _scan,
}
"""Operators of the default domain with bodies."""
