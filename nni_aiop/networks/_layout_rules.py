"""Rules of the label pass for functions of entries, layout and reductions."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from nni_aiop.graphs.edits import Marks, joined
from nni_aiop.networks._mark_rules import (
    expanded,
    padded,
    part,
    picked,
    reduced,
    repeated,
    shuffled,
    sliced,
    windowed,
)
from nni_aiop.networks._pass import Pass, argument, packet_name, rule_of

__all__: list[str] = []


# --- functions of entries -----------------------------------------------------------------------


@rule_of(
    "relu", "relu6", "hardswish", "hardsigmoid", "hardtanh", "sigmoid", "silu", "gelu", "tanh",
    "elu", "selu", "celu", "leaky_relu", "exp", "sqrt", "rsqrt", "neg", "abs", "clamp_min",
    "clamp_max", "dropout", "feature_dropout", "alpha_dropout", "alias", "contiguous", "clone",
    "detach", "to", "_to_copy", "softplus", "mish", "erf", "log", "log1p",
    "expm1", "sin", "cos", "logical_not",
    "bitwise_not", "softmax", "log_softmax", "_softmax", "_log_softmax", "type_as", "zeros_like",
    "ones_like", "full_like", "rand_like", "empty_like", "lift_fresh_copy", "square", "reciprocal",
    "sign", "floor", "round", "float", "half", "isnan", "isinf", "rms_scale", "normal", "bernoulli",
    "lift_fresh", "log_sigmoid", "softsign", "tanhshrink", "hardshrink", "softshrink", "threshold",
    "logical_and", "fill", "cumsum", "_assert_tensor_metadata", "nan_to_num",
)  # fmt: skip
def _same(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if p.blank(node) is None:
        return None
    marks = p.of(args[0])
    return Marks(p.shape(node), marks.layers)


@rule_of(
    "add", "sub", "rsub", "mul", "div", "maximum", "minimum", "pow", "eq", "ne", "gt", "ge", "lt",
    "le", "where", "masked_fill", "addcmul", "addcdiv", "lerp", "atan2", "remainder", "fmod",
    "floor_divide", "clamp", "bitwise_and", "bitwise_or", "logical_or", "logical_xor", "copy",
    "true_divide", "multiply", "subtract", "divide",
)  # fmt: skip
def _pointwise(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if p.blank(node) is None:
        return None
    terms = [p.of(a) for a in (*args, *kwargs.values()) if isinstance(a, fx.Node)]
    return p.coupler.merged(p.shape(node), terms)


# --- layout --------------------------------------------------------------------------------------


@rule_of("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze",
         "view_as", "reshape_as")  # fmt: skip
def _reshape(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return p.of(args[0]).reshaped(p.shape(node))


@rule_of("permute", "transpose", "t", "movedim", "swapaxes", "swapdims", "numpy_T")
def _permute(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x = p.of(args[0])
    # PyTorch itself says where every axis goes.
    probe = torch.empty(tuple(range(2, 2 + len(x.shape))), device="meta")
    assert callable(node.target)
    turned = node.target(probe, *args[1:], **kwargs)
    return x.permuted([n - 2 for n in turned.shape])


@rule_of("expand", "expand_as", "broadcast_to")
def _expand(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, shape = p.of(args[0]), p.shape(node)
    made = expanded(shape, x)
    if packet_name(node) == "expand_as" and isinstance(args[1], fx.Node):
        # It takes the shape of another tensor, whatever that comes to be.
        like = p.of(args[1])
        more = (1,) * (len(shape) - len(x.shape))
        wide = [a for a, n in enumerate((*more, *x.shape)) if n == 1 and shape[a] > 1]
        free = [layer for layer in like.layers if any(layer.shape[a] > 1 for a in wide)]
        made = Marks(shape, [*made.layers, *free])
    return made


@rule_of("cat", "concat", "concatenate")
def _cat(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    shape = p.shape(node)
    axis = int(argument(args, kwargs, 1, "dim", 0)) % len(shape)
    return joined(p.coupler, shape, axis, [p.of(a) for a in args[0]])


@rule_of("stack")
def _stack(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    shape = p.shape(node)
    axis = int(argument(args, kwargs, 1, "dim", 0)) % len(shape)
    parts = []
    for a in args[0]:
        x = p.of(a)
        parts.append(x.reshaped((*x.shape[:axis], 1, *x.shape[axis:])))
    one = tuple(1 if a == axis else n for a, n in enumerate(shape))
    return Marks(shape, p.coupler.merged(one, parts).layers)


@rule_of("split", "split_with_sizes", "chunk", "tensor_split")
def _split(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, shapes = p.of(args[0]), p.shapes[node.name]
    axis = int(argument(args, kwargs, 2, "dim", 0)) % len(x.shape)
    made, start = [], 0
    for shape in shapes:
        made.append(Marks(shape, part(x, axis, slice(start, start + shape[axis]))))
        start += shape[axis]
    return made


@rule_of("glu")
def _glu(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, shape = p.of(args[0]), p.shape(node)
    axis = int(argument(args, kwargs, 1, "dim", -1)) % len(x.shape)
    n = shape[axis]
    halves = [Marks(shape, part(x, axis, slice(i * n, i * n + n))) for i in (0, 1)]
    return p.coupler.merged(shape, halves)


@rule_of("unbind")
def _unbind(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x = p.of(args[0])
    axis = int(argument(args, kwargs, 1, "dim", 0)) % len(x.shape)
    return [picked(p.coupler, x, axis, i) for i in range(x.shape[axis])]


@rule_of("select")
def _select(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, axis, index = p.of(args[0]), int(args[1]), p.number(args[2])
    axis %= len(x.shape)
    return picked(p.coupler, x, axis, int(index) % x.shape[axis])


@rule_of("slice", "narrow")
def _slice(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x = p.of(args[0])
    axis = int(argument(args, kwargs, 1, "dim", 0)) % len(x.shape)
    n = x.shape[axis]
    start = p.number(argument(args, kwargs, 2, "start", 0)) or 0
    end, step = n, 1
    if packet_name(node) == "narrow":
        end = start + p.number(args[3])
    else:
        end = p.number(argument(args, kwargs, 3, "end", None))
        step = p.number(argument(args, kwargs, 4, "step", 1))
    return sliced(p.coupler, x, axis, slice(*slice(start, end, step).indices(n)))


@rule_of("getitem")
def _getitem(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    marks = p.marks[args[0].name]
    return marks[args[1]] if isinstance(marks, list) else p.blank(node)


@rule_of("roll", "flip")
def _roll(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x = p.of(args[0])
    place = 2 if packet_name(node) == "roll" else 1
    axes = [int(a) % len(x.shape) for a in argument(args, kwargs, place, "dims", ())]
    p.coupler.freeze_axes(x, axes or list(range(len(x.shape))), "it moves them")
    return Marks(p.shape(node), x.constant(axes))


@rule_of("repeat", "tile")
def _repeat(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return repeated(p.coupler, p.shape(node), p.of(args[0]))


@rule_of("index")
def _index(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, shape = p.of(args[0]), p.shape(node)
    axes = [a for a, i in enumerate(args[1]) if i is not None]
    for i in args[1]:
        if isinstance(i, fx.Node):
            p.coupler.freeze(p.of(i), "it says what is picked")
    p.coupler.freeze_axes(x, axes, "they are picked by an index")
    # One index, or several side by side, put their axes in the place of those they pick from.
    if axes != list(range(axes[0], axes[0] + len(axes))):
        raise ValueError("indices apart from each other")
    added = len(shape) - (len(x.shape) - len(axes))
    first, last = axes[0], axes[-1] + 1
    layers = [
        layer.reshape((*layer.shape[:first], *([1] * added), *layer.shape[last:]))
        for layer in x.constant(axes)
    ]
    return Marks(shape, layers)


@rule_of("index_select")
def _index_select(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x = p.of(args[0])
    axis = int(args[1]) % len(x.shape)
    p.coupler.freeze_axes(x, [axis], "they are picked by an index")
    return Marks(p.shape(node), x.constant([axis]))


@rule_of("pad", "constant_pad_nd")
def _pad(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    shape = p.shape(node)
    numbers = [p.number(n) for n in args[1]]
    pairs = zip(numbers[::2], numbers[1::2], strict=True)
    amounts = {len(shape) - 1 - place: pair for place, pair in enumerate(pairs)}
    constant = packet_name(node) == "constant_pad_nd" or (
        argument(args, kwargs, 2, "mode", "constant") == "constant"
    )
    return padded(p.coupler, shape, p.of(args[0]), amounts, constant=constant)


@rule_of("pixel_shuffle", "pixel_unshuffle", "channel_shuffle")
def _shuffle(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, shape, r = p.of(args[0]), p.shape(node), int(args[1])
    lead, (channels, *sides) = x.shape[:-3], x.shape[-3:]
    n = len(lead)
    name = packet_name(node)
    if name == "channel_shuffle":
        split = (*lead, r, channels // r, *sides)
        order = [*range(n), n + 1, n, n + 2, n + 3]
    elif name == "pixel_shuffle":
        split = (*lead, channels // r**2, r, r, *sides)
        order = [*range(n), n, n + 3, n + 1, n + 4, n + 2]
    else:
        split = (*lead, channels, sides[0] // r, r, sides[1] // r, r)
        order = [*range(n), n, n + 2, n + 4, n + 1, n + 3]
    return shuffled(p.coupler, shape, x, split, order)


# --- reductions ----------------------------------------------------------------------------------


@rule_of(
    "mean", "sum", "amax", "amin", "linalg_vector_norm", "norm", "logsumexp", "var", "std", "max",
    "min", "argmax", "argmin", "prod", "any", "all",
)  # fmt: skip
def _reduce(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    name = packet_name(node)
    shapes = p.shapes[node.name]
    if name in ("max", "min") and isinstance(args[1] if len(args) > 1 else None, fx.Node):
        return _pointwise(p, node, args, kwargs)
    x = p.of(args[0])
    place = {"linalg_vector_norm": 2, "norm": 2}.get(name, 1)
    given = argument(args, kwargs, place, "dim", None)
    if given is None or given == []:
        axes = list(range(len(x.shape)))
    else:
        dims = given if isinstance(given, (list, tuple)) else [given]
        axes = [int(a) % len(x.shape) for a in dims]
    several = isinstance(shapes, list)
    shape = shapes[0] if several else p.shape(node)
    made = reduced(p.coupler, shape, x, axes, places=several or name.startswith("arg"))
    return [made, *(Marks(made.shape, made.layers) for _ in shapes[1:])] if several else made


@rule_of(
    "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "_adaptive_avg_pool2d",
    "max_pool2d_with_indices", "upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d",
    "upsample_nearest1d", "upsample_linear1d", "upsample_nearest3d", "upsample_trilinear3d",
    "_upsample_nearest_exact2d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa",
)  # fmt: skip
def _window(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, shapes = p.of(args[0]), p.shapes[node.name]
    shape = shapes[0] if isinstance(shapes, list) else tuple(shapes)
    made = windowed(p.coupler, shape, x)
    return [made, *(Marks(made.shape, made.layers) for _ in shapes[1:])] if (
        isinstance(shapes, list)
    ) else made  # fmt: skip


@rule_of(
    "sym_size", "arange", "zeros", "ones", "full", "empty", "scalar_tensor", "linspace", "eye",
    "rand", "randn", "new_zeros", "new_ones", "new_full", "new_empty", "sym_constrain_range",
    "_assert_scalar", "sym_constrain_range_for_size", "meshgrid", "randint", "tril", "triu",
    "floordiv", "truediv", "mod", "and_", "or_", "not_", "sym_max", "sym_min",
)  # fmt: skip
def _made(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    for source in node.all_input_nodes:
        marks = p.marks[source.name]
        if isinstance(marks, Marks) and packet_name(node) in ("tril", "triu", "meshgrid"):
            p.coupler.freeze(marks, "it is a mask")
    return p.blank(node)
