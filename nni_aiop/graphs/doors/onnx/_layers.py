"""ONNX operators of layers: convolutions, products, normalisation, pooling, recurrence."""

from __future__ import annotations

from collections.abc import Sequence

from nni_aiop.errors import GraphError
from nni_aiop.graphs.doors.onnx._call import Call, handle_other, handles
from nni_aiop.graphs.doors.onnx._layout import cut
from nni_aiop.graphs.rules._values import Value, constant


def padding_of(
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
    return halved(totals, more_after=mode == "SAME_UPPER")


def halved(totals: Sequence[int], *, more_after: bool) -> tuple[tuple[int, int], ...]:
    halves = [(total // 2, total - total // 2) for total in totals]
    return tuple(half if more_after else half[::-1] for half in halves)


def _with_bias(call: Call) -> list[Value]:
    """Data, weight and bias, unless that is the zeros that stand for none."""
    values = call.values()
    return values[:2] if values[-1].number == 0 else values


@handles("Conv")
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
        padding=padding_of(call, call.x.shape[2:], kernel, stride, dilation),
        dilation=dilation,
        groups=groups,
    )


@handles("ConvTranspose")
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
        padding = halved(totals, more_after=mode == "SAME_UPPER")
    else:
        padding = padding_of(call, call.x.shape[2:], kernel, stride, dilation)
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


@handles("Gemm")
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


@handles("MatMul")
def _matmul(call: Call) -> Value:
    return call.apply("matmul", call.values())


@handles("Einsum")
def _einsum(call: Call) -> Value | list[Value]:
    equation = call.option("equation", "")
    value = call.builder.einsum(equation, call.values(), name=call.name)
    return handle_other(call) if value is None else value


@handles("Attention")
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


@handles("BatchNormalization")
def _batch_norm(call: Call) -> Value:
    statistics = [call.builder.constant(call.value(place).shape) for place in (3, 4)]
    return call.apply("batch_norm", [call.x, call.value(1), call.value(2), *statistics])


@handles("InstanceNormalization")
def _instance_norm(call: Call) -> Value:
    return call.apply("instance_norm", call.values())


_NORMS = {
    "LayerNormalization": "layer_norm",
    "RMSNormalization": "rms_norm",
    "GroupNormalization": "group_norm",
}


@handles(*_NORMS)
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


@handles("LRN")
def _local_response_norm(call: Call) -> Value:
    return call.apply("local_response_norm", [call.x])


@handles("MaxPool", "AveragePool")
def _pool(call: Call) -> list[Value]:
    kernel = tuple(call.option("kernel_shape"))
    n = len(kernel)
    stride = tuple(call.option("strides", (1,) * n))
    dilation = tuple(call.option("dilations", (1,) * n))
    options = {
        "kernel": kernel,
        "stride": stride,
        "padding": padding_of(call, call.x.shape[2:], kernel, stride, dilation),
    }
    if call.node.op_type == "AveragePool":
        return [call.apply("avg_pool", [call.x], **options)]
    value = call.apply("max_pool", [call.x], **options, dilation=dilation)
    return [value, *(call.apply("max_pool_indices", [call.x], s) for s in call.shapes[1:])]


def _state(call: Call, place: int) -> Value:
    """An initial state; one of zeros is what a layer begins with anyway, and not learned."""
    state, entries = call.value(place), call.data(place)
    begins_anyway = state.is_constant and entries is not None and not entries.any()
    return call.builder.constant(state.shape, 0.0) if begins_anyway else state


@handles("LSTM", "GRU", "RNN")
def _recurrent(call: Call) -> list[Value]:
    """One layer; the last hidden states are slices of what it puts out.

    Steps behind the end of a sequence are left out where `sequence_lens` is known.
    """
    op = call.node.op_type.lower()
    places = [place for place in (1, 2, 3, 7) if call.given(place)]
    weights = [call.value(place) for place in places]
    if not all(w.is_constant for w in weights):
        return handle_other(call)
    states = [_state(call, place) for place in (5, 6) if call.given(place)]
    x, directions, hidden = call.x, weights[0].shape[0], weights[1].shape[-1]
    rows = {"lstm": 4, "gru": 3, "rnn": 1}[op] * hidden
    call.demand(
        weights[0].shape == (directions, rows, call.x.shape[-1])
        and weights[1].shape == (directions, rows, hidden),
        "weights must have a row for each gate and hidden unit",
        f"W of {weights[0].shape} and R of {weights[1].shape}",
    )
    # PyTorch 2.13 writes an LSTM with projections so, without the weights of its projection.
    widths = {state.shape[-1] for state in states} | {call.option("hidden_size", hidden)}
    call.demand(
        widths == {hidden} and (not call.given(3) or weights[2].shape == (directions, 2 * rows)),
        f"hidden_size, biases and states must fit {hidden} hidden units",
        f"widths {sorted(widths)} and biases {weights[2].shape if call.given(3) else 'none'}",
    )
    batch_first = call.option("layout", 0) == 1
    if batch_first:
        x, *states = (_batch_second(call, v) for v in (x, *states))
    length, batch, _ = x.shape
    ends = call.data(4) if call.given(4) else None
    lengths = [length] * batch if ends is None else [int(n) for n in ends.reshape(-1)]
    call.demand(
        len(lengths) == batch and all(0 <= n <= length for n in lengths),
        f"sequence_lens must be {batch} lengths of at most {length}",
        lengths[:8],
    )
    cut_short = sum(lengths) < length * batch
    if cut_short:
        rows_of_x = call.builder.packed(x, lengths, name=call.name)
        x = call.apply("reshape", [rows_of_x], (sum(lengths), 1, x.shape[2]))
    value = call.builder.recurrent(
        op,
        x,
        # The weights of the directions lie in one tensor: the shape is that of one.
        [constant(w.shape[1:], learned=w.learned) for w in weights],
        states,
        hidden=hidden,
        directions=directions,
        bias=call.given(3),
        name=call.name,
    )
    layer, ends_shape = value, (directions, batch, hidden)
    if cut_short:
        last = [call.builder.last_rows(value, batch, name=call.name)]
        value = call.apply("reshape", [value], (sum(lengths), directions * hidden))
        value = call.builder.unpacked(value, length, batch, name=call.name)
    else:
        last = [cut(call, value, 0, length - 1, length)]
    last = [call.apply("reshape", last, ends_shape)]
    if len(call.shapes) > 2:
        last.append(call.apply("cell_state", [layer], ends_shape))
    apart = call.apply("reshape", [value], (length, batch, directions, hidden))
    order = (1, 0, 2, 3) if batch_first else (0, 2, 1, 3)
    shape = tuple(apart.shape[axis] for axis in order)
    results = [call.apply("transpose", [apart], shape, order=order)]
    if batch_first:
        last = [_batch_second(call, v) for v in last]
    return [*results, *last]


def _batch_second(call: Call, value: Value) -> Value:
    """The tensor with its first two axes exchanged."""
    first, second, width = value.shape
    return call.apply("transpose", [value], (second, first, width), order=(1, 0, 2))
