"""ATen operations of recurrent layers, and of the packed sequences that they read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nni_aiop.graphs.doors.modules._recorder import Recorder
from nni_aiop.graphs.doors.modules._table import handles
from nni_aiop.graphs.rules._values import Value


@handles("lstm", "gru", "rnn_tanh", "rnn_relu")
def _recurrent(rec: Recorder, func: Any, x: Tensor, *args: Any) -> Any:
    """One node for each layer; the last hidden states are slices of what the layers put out."""
    op = func._overloadpacket.__name__.split("_")[0]
    packed = func._overloadname == "data"
    given, params, biases, layers, _, _, bidirectional = args[packed : packed + 7]
    batch_first = not packed and args[-1]
    states = [rec.value(s) for s in (given if op == "lstm" else (given,))]
    weights = [rec.value(p) for p in params]
    if not all(w.is_constant for w in weights):
        return rec.unknown(func, (x, *args), {})
    directions = 2 if bidirectional else 1
    each = len(weights) // (layers * directions)
    projected = weights[1].shape[1]
    hidden = weights[0].shape[0] // {"lstm": 4, "gru": 3, "rnn": 1}[op]
    value = rec.value(x)
    if packed:
        # Rows of all steps one after the other, without padding.
        value = rec.apply("reshape", [value], (x.shape[0], 1, x.shape[1]))
    elif batch_first:
        value = rec.apply(
            "transpose", [value], (x.shape[1], x.shape[0], x.shape[2]), order=(1, 0, 2)
        )
    batch = states[0].shape[1]
    last: list[list[Value]] = [[] for _ in states]
    for layer in range(layers):
        own = slice(layer * directions * each, (layer + 1) * directions * each)
        value = rec.builder.recurrent(
            op,
            value,
            weights[own],
            [_rows(rec, s, layer * directions, directions) for s in states],
            hidden=hidden,
            directions=directions,
            bias=biases,
            projection=projected if projected != hidden else None,
            name=rec.scope[-1],
        )
        if packed:
            ends = rec.builder.last_rows(value, batch, name=rec.scope[-1])
        else:
            ends = _rows(rec, value, value.shape[0] - 1, 1)
        last[0].append(rec.apply("reshape", [ends], (directions, batch, projected)))
        if op == "lstm":
            last[1].append(rec.apply("cell_state", [value], (directions, batch, hidden)))
    length, _, width = value.shape
    if packed:
        out = rec.emit("reshape", [value], (length, width), x)
    elif batch_first:
        out = rec.emit("transpose", [value], (batch, length, width), x, order=(1, 0, 2))
    else:
        out = rec.emit("identity", [value], value.shape, x)
    results = [out]
    for rows in last:
        shape = (layers * directions, *rows[0].shape[1:])
        results.append(rec.emit("concat", rows, shape, x, axis=0))
    return tuple(results)


def _rows(rec: Recorder, value: Value, start: int, count: int) -> Value:
    """Rows of the first axis."""
    shape = (count, *value.shape[1:])
    return rec.apply("slice", [value], shape, axis=0, start=start, stop=start + count, step=1)


@handles("_pack_padded_sequence")
def _pack(rec: Recorder, func: Any, x: Tensor, lengths: Tensor, batch_first: bool) -> Any:
    """The rows of all steps, without padding, and how many each step has."""
    if lengths.is_meta:
        raise RuntimeError("lengths of sequences are data-dependent, unless they are constants")
    value = rec.value(x)
    steps, batch = (x.shape[1], x.shape[0]) if batch_first else x.shape[:2]
    rest = tuple(x.shape[2:])
    if batch_first:
        order = (1, 0, *range(2, x.ndim))
        value = rec.apply("transpose", [value], (steps, batch, *rest), order=order)
    known = [int(n) for n in lengths]
    value = rec.builder.packed(value, known, name=rec.scope[-1])
    counts = [sum(n > step for n in known) for step in range(max(known))]
    return rec.emit("identity", [value], value.shape, x), torch.tensor(counts)


@handles("_pad_packed_sequence")
def _unpack(
    rec: Recorder,
    func: Any,
    x: Tensor,
    counts: Tensor,
    batch_first: bool,
    number: float,
    total: int,
) -> Any:
    """The rows in their sequences, a further row of padding where there is none."""
    known = [int(n) for n in counts]
    steps, batch, rest = max(len(known), total), known[0], tuple(x.shape[1:])
    value = rec.builder.unpacked(rec.value(x), steps, batch, float(number), name=rec.scope[-1])
    lengths = torch.tensor([sum(n > place for n in known) for place in range(batch)])
    if not batch_first:
        return rec.emit("identity", [value], value.shape, x), lengths
    order = (1, 0, *range(2, x.ndim + 1))
    return rec.emit("transpose", [value], (batch, steps, *rest), x, order=order), lengths
