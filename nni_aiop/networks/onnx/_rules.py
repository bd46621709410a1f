"""Rules of the label pass for ONNX operators; what they say to labels stands in `_mark_rules`."""

from __future__ import annotations

import numpy as np

from nni_aiop.graphs.edits import Labels, Marks, joined
from nni_aiop.networks import _mark_rules as marks_of
from nni_aiop.networks.onnx._pass import Call, rule_of

__all__: list[str] = []


# --- functions of entries -----------------------------------------------------------------------


@rule_of(
    "Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Sigmoid", "Tanh", "Softplus", "Softsign", "Mish",
    "Gelu", "HardSwish", "HardSigmoid", "Swish", "ThresholdedRelu", "Shrink", "Abs", "Ceil", "Cos",
    "Erf", "Exp", "Floor", "Log", "Neg", "Reciprocal", "Round", "Sign", "Sin", "Sqrt", "Not",
    "IsNaN", "IsInf", "Cast", "CastLike", "Identity", "Clip", "Softmax", "LogSoftmax", "LRN",
    "CumSum", "Trilu",
)  # fmt: skip
def _same(call: Call) -> Marks:
    return Marks(call.shape, call.x.layers)


@rule_of("Dropout")
def _dropout(call: Call) -> list[Marks]:
    return [Marks(call.x.shape, call.x.layers) for _ in call.node.output]


@rule_of(
    "Add", "Sub", "Mul", "Div", "Pow", "Mod", "Equal", "Less", "LessOrEqual", "Greater",
    "GreaterOrEqual", "And", "Or", "Xor", "Where", "Max", "Min", "Sum", "Mean", "PRelu",
)  # fmt: skip
def _pointwise(call: Call) -> Marks:
    return call.coupler.merged(call.shape, call.some(*range(len(call.node.input))))


# --- layout --------------------------------------------------------------------------------------


@rule_of("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def _reshape(call: Call) -> Marks:
    return call.x.reshaped(call.shape)


@rule_of("Transpose")
def _transpose(call: Call) -> Marks:
    rank = len(call.x.shape)
    return call.x.permuted([int(a) for a in call.option("perm", range(rank - 1, -1, -1))])


@rule_of("Expand")
def _expand(call: Call) -> Marks:
    return marks_of.expanded(call.shape, call.x)


@rule_of("Tile")
def _tile(call: Call) -> Marks:
    return marks_of.repeated(call.coupler, call.shape, call.x)


@rule_of("Concat")
def _concat(call: Call) -> Marks:
    axis = int(call.option("axis")) % len(call.shape)
    parts = call.some(*range(len(call.node.input)))
    return joined(call.coupler, call.shape, axis, [x for x in parts if x.shape != (0,)])


@rule_of("Split")
def _split(call: Call) -> list[Marks]:
    axis = int(call.option("axis", 0)) % len(call.x.shape)
    made, start = [], 0
    for place in range(len(call.node.output)):
        shape = call.shape_of(place)
        made.append(Marks(shape, marks_of.part(call.x, axis, slice(start, start + shape[axis]))))
        start += shape[axis]
    return made


@rule_of("Slice")
def _slice(call: Call) -> Marks:
    starts = call.integers(1, "starts", ())
    ends = call.integers(2, "ends", ())
    axes = call.integers(3, "axes", range(len(starts)))
    steps = call.integers(4, "steps", [1] * len(starts))
    x = call.x
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        axis %= len(x.shape)
        first, last, by = slice(start, end, step).indices(x.shape[axis])
        # Before the first entry, which -1 would not say.
        stop = None if last < 0 else last
        x = marks_of.sliced(call.coupler, x, axis, slice(first, stop, by))
    return x


@rule_of("Gather")
def _gather(call: Call) -> Marks:
    x, index = call.x, call.marks(1)
    axis = int(call.option("axis", 0)) % len(x.shape)
    if call.constant(0) and len(x.shape) == 2 and axis == 0 and index.shape:
        return marks_of.embedding(call.coupler, call.shape, index, x)
    if not index.shape and call.constant(1):
        at = int(call.data(1)) % x.shape[axis]
        return marks_of.picked(call.coupler, x, axis, at)
    call.coupler.freeze(index, "it says what is picked")
    call.coupler.freeze_axes(x, [axis], "they are picked by an index")
    added = (1,) * len(index.shape)
    layers = [
        layer.reshape((*layer.shape[:axis], *added, *layer.shape[axis + 1 :]))
        for layer in x.constant([axis])
    ]
    return Marks(call.shape, layers)


@rule_of("Pad")
def _pad(call: Call) -> Marks:
    rank = len(call.x.shape)
    amounts = call.integers(1, "pads", ())
    axes = call.integers(3, "axes", range(rank))
    pairs = zip(amounts[: len(axes)], amounts[len(axes) :], strict=True)
    by_axis = {axis % rank: pair for axis, pair in zip(axes, pairs, strict=True)}
    constant = call.option("mode", "constant") == "constant"
    order = {axis: by_axis[axis] for axis in sorted(by_axis)}
    return marks_of.padded(call.coupler, call.shape, call.x, order, constant=constant)


@rule_of("DepthToSpace")
def _depth_to_space(call: Call) -> Marks:
    b, c, h, w = call.x.shape
    r = int(call.option("blocksize"))
    if call.option("mode", "DCR") == "CRD":
        split, order = (b, c // (r * r), r, r, h, w), (0, 1, 4, 2, 5, 3)
    else:
        split, order = (b, r, r, c // (r * r), h, w), (0, 3, 4, 1, 5, 2)
    return marks_of.shuffled(call.coupler, call.shape, call.x, split, order)


@rule_of("SpaceToDepth")
def _space_to_depth(call: Call) -> Marks:
    b, c, h, w = call.x.shape
    r = int(call.option("blocksize"))
    split, order = (b, c, h // r, r, w // r, r), (0, 3, 5, 1, 2, 4)
    return marks_of.shuffled(call.coupler, call.shape, call.x, split, order)


# --- reductions ----------------------------------------------------------------------------------


@rule_of(
    "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
    "ReduceLogSumExp", "ReduceLogSum", "ReduceSumSquare",
)  # fmt: skip
def _reduce(call: Call) -> Marks:
    rank = len(call.x.shape)
    axes = call.integers(1, "axes", ())
    if not axes:
        if call.option("noop_with_empty_axes", 0):
            return Marks(call.shape, call.x.layers)
        axes = list(range(rank))
    axes = [axis % rank for axis in axes]
    return marks_of.reduced(call.coupler, call.shape, call.x, axes, places=False)


@rule_of("ArgMax", "ArgMin")
def _extreme(call: Call) -> Marks:
    axes = [int(call.option("axis", 0)) % len(call.x.shape)]
    return marks_of.reduced(call.coupler, call.shape, call.x, axes, places=True)


@rule_of("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(call: Call) -> Marks:
    axes = list(range(2, len(call.shape)))
    return marks_of.reduced(call.coupler, call.shape, call.x, axes, places=False)


@rule_of("MaxPool", "AveragePool", "LpPool", "Resize", "Upsample")
def _window(call: Call) -> list[Marks]:
    made = marks_of.windowed(call.coupler, call.shape, call.x)
    return [made, *(Marks(made.shape, made.layers) for _ in call.node.output[1:])]


# --- norms ---------------------------------------------------------------------------------------


@rule_of("BatchNormalization")
def _batch_norm(call: Call) -> Marks:
    vectors = call.some(1, 2, 3, 4)
    return marks_of.with_channels(call.coupler, call.shape, call.x, vectors)


@rule_of("InstanceNormalization")
def _instance_norm(call: Call) -> Marks:
    x, vectors = call.x, call.some(1, 2)
    if len(x.shape) == 3 and any(layer.shape[2] > 1 for layer in x.layers):
        # How exporters write a group normalisation: (batch, groups, channels x positions).
        grids = [layer[0] for layer in x.layers if layer.shape[1] > 1 and layer.shape[0] == 1]
        if grids:
            _of_groups(call, grids, vectors)
        return Marks(call.shape, x.layers)
    call.coupler.freeze_axes(x, range(2, len(x.shape)), "it is normalised over them")
    return marks_of.with_channels(call.coupler, call.shape, x, vectors)


def _of_groups(call: Call, grids: list[Labels], vectors: list[Marks]) -> None:
    """Lets whole groups go with their entries of vectors, or the same channel of every group."""
    c = call.coupler
    lines = [line for marks in vectors if (line := c.line(marks, 0)) is not None]
    whole: list[tuple[Labels, Labels]] = []
    each: list[tuple[Labels, Labels]] = []
    for grid in grids:
        first = np.broadcast_to(grids[0][:, :1], grid.shape)
        whole.append((grid.ravel(), first.ravel()))
        each.append((grid.ravel(), np.broadcast_to(grid[:1], grid.shape).ravel()))
    for line in lines:
        whole.append((line, grids[0][:, 0]))
        each.append((line, np.zeros_like(line)))
    c.choose([_together(whole), _together(each)])


def _together(pairs: list[tuple[Labels, Labels]]) -> tuple[Labels, Labels]:
    return np.concatenate([a for a, _ in pairs]), np.concatenate([b for _, b in pairs])


@rule_of("LayerNormalization", "RMSNormalization")
def _layer_norm(call: Call) -> Marks:
    rank = len(call.x.shape)
    first = int(call.option("axis", -1)) % rank
    return marks_of.layer_norm(call.coupler, call.shape, call.x, call.some(1, 2), first)


@rule_of("GroupNormalization")
def _group_norm(call: Call) -> Marks:
    x, c, groups = call.x, call.coupler, int(call.option("num_groups"))
    if call.labels.opset >= 21 or groups == 1:
        made = marks_of.with_channels(c, call.shape, x, call.some(1, 2))
        grid = marks_of.grouped(c, x, groups)
    else:  # its vectors are of groups there
        made = marks_of.with_channels(c, call.shape, x, [])
        line = c.line(x, 1)
        grid = None
        if line is not None:
            grid = Marks((groups, len(line) // groups), [line.reshape(groups, -1)])
            _of_groups(call, list(grid.layers), call.some(1, 2))
    if grid is not None:
        call.labels.groups[call.node.output[0]] = grid
    return made


# --- products ------------------------------------------------------------------------------------


@rule_of("Conv", "ConvTranspose")
def _conv(call: Call) -> Marks:
    made, grid = marks_of.convolution(
        call.coupler,
        call.shape,
        call.x,
        call.marks(1),
        call.marks(2) if call.given(2) else None,
        groups=int(call.option("group", 1)),
        transposed=call.node.op_type == "ConvTranspose",
    )
    if grid is not None:
        call.labels.groups[call.node.output[0]] = grid
    return made


@rule_of("Gemm")
def _gemm(call: Call) -> Marks:
    a, b = call.x, call.marks(1)
    if call.option("transA", 0):
        a = a.permuted((1, 0))
    if call.option("transB", 0):
        b = b.permuted((1, 0))
    made = _product(call, a, b)
    return call.coupler.merged(call.shape, [made, *call.some(2)])


@rule_of("MatMul")
def _matmul(call: Call) -> Marks:
    return _product(call, call.x, call.marks(1))


def _product(call: Call, a: Marks, b: Marks) -> Marks:
    if call.constant(1) and len(b.shape) == 2 and not call.constant(0):
        return marks_of.linear(call.coupler, call.shape, a, b.permuted((1, 0)), None)
    return marks_of.products(call.coupler, call.shape, a, b)


@rule_of("Attention")
def _attention(call: Call) -> Marks:
    q, k, v = (call.marks(place) for place in range(3))
    if len(q.shape) != 4 or len(call.node.input) > 4 or len(call.node.output) > 1:
        raise ValueError("it has flat inputs, or a cache")
    mask = call.marks(3) if call.given(3) else None
    return marks_of.attention(call.coupler, call.shape, q, k, v, mask)
