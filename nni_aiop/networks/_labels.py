"""The label pass over an exported network: which channels of its tensors go together.

It is the pass of `graphs/edits` over ATen operations, in the layout of the real network: parameters
have labels, too, one layer an axis, so that what goes from a tensor goes from every parameter. What
has no rule freezes what it touches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import fx

from nni_aiop.graphs.edits import Coupler, Labels, Marks, group_options, product

__all__ = ["Pass", "packet_name"]

Rule = Callable[["Pass", fx.Node, tuple[Any, ...], dict[str, Any]], Any]


def packet_name(node: fx.Node) -> str:
    """The name of an ATen operation without overload and underscore, "getitem" and the like."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        name = str(target._overloadpacket.__name__)
        return name[:-1] if name.endswith("_") and not name.startswith("_") else name
    return str(getattr(target, "__name__", target))


class Pass:
    """The labels of every value of an exported network.

    Args:
        graph: Of the exported network.
        shapes: By name of a node the shape of its tensor, a tuple of shapes, or a number.

    Attributes:
        marks: By name of a node; a list where there are several results, None where it is no
            tensor.
        coupler: The ties.
    """

    def __init__(self, graph: fx.Graph, shapes: Mapping[str, Any]) -> None:
        self.coupler = Coupler()
        self.shapes = shapes
        self.marks: dict[str, Any] = {}
        self.groups: dict[str, Marks] = {}
        weights = _convolution_weights(graph)
        for node in graph.nodes:
            self.coupler.begin(f"{_path(node)} ({packet_name(node)})".lstrip())
            self.marks[node.name] = self._visit(node, node.name in weights)

    def of(self, argument: Any) -> Marks:
        """The marks of an argument; a number has none."""
        if isinstance(argument, fx.Node):
            marks = self.marks[argument.name]
            if isinstance(marks, Marks):
                return marks
        return Marks(())

    def shape(self, node: fx.Node) -> tuple[int, ...]:
        """The shape of a node's tensor."""
        return tuple(self.shapes[node.name])

    def number(self, argument: Any) -> Any:
        """The value of a whole number that may be computed from shapes."""
        return self.shapes[argument.name] if isinstance(argument, fx.Node) else argument

    def blank(self, node: fx.Node) -> Any:
        """Marks without labels."""
        shape = self.shapes.get(node.name)
        if isinstance(shape, tuple):
            return Marks(shape)
        if isinstance(shape, list):
            return [Marks(one) if isinstance(one, tuple) else None for one in shape]
        return None

    def freeze_all(self, node: fx.Node, why: str) -> Any:
        """Freezes what an operation reads."""
        for source in node.all_input_nodes:
            marks = self.marks[source.name]
            for one in marks if isinstance(marks, list) else [marks]:
                if isinstance(one, Marks):
                    self.coupler.freeze(one, why)
        return self.blank(node)

    def _visit(self, node: fx.Node, feeds_convolution: bool) -> Any:
        if node.op == "get_attr":
            return self._parameter(node, feeds_convolution)
        if node.op == "output":
            return self.freeze_all(node, "it leaves the network")
        if node.op != "call_function":
            return self.blank(node)
        name = packet_name(node)
        rule = RULES.get(name)
        if rule is None:
            return self.freeze_all(node, f"there is no rule for {name}")
        try:
            made = rule(self, node, node.args, dict(node.kwargs))
        except (ValueError, IndexError, KeyError, TypeError) as err:
            return self.freeze_all(node, f"{name} is not followed here: {str(err)[:80]}")
        for marks in made if isinstance(made, list) else [made]:
            if isinstance(marks, Marks) and marks.layers:
                self.coupler.watch(marks)
        return made

    def _parameter(self, node: fx.Node, feeds_convolution: bool) -> Any:
        shape = self.shapes.get(node.name)
        if not isinstance(shape, tuple):
            return None
        axes = range(len(shape))
        if feeds_convolution and len(shape) > 2:
            axes = range(2)
        layers = []
        for axis in axes:
            sizes = [1] * len(shape)
            sizes[axis] = shape[axis]
            if shape[axis] > 1:
                layers.append(self.coupler.fresh(shape[axis]).reshape(sizes))
        return Marks(shape, layers)


def _path(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values()]
    return str(paths[-1]) if paths else node.name


def _convolution_weights(graph: fx.Graph) -> set[str]:
    """Names of the nodes that weights of convolutions are, or are computed from."""
    found: set[str] = set()
    for node in graph.nodes:
        if node.op == "call_function" and packet_name(node).startswith("conv"):
            waiting = [node.args[1]] if len(node.args) > 1 else []
            while waiting:
                source = waiting.pop()
                if isinstance(source, fx.Node) and source.name not in found:
                    found.add(source.name)
                    waiting += source.all_input_nodes
    return found


RULES: dict[str, Rule] = {}


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def enter(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, rule))
        return rule

    return enter


def _get(
    args: Sequence[Any], kwargs: Mapping[str, Any], place: int, name: str, default: Any
) -> Any:
    return args[place] if place < len(args) else kwargs.get(name, default)


# --- functions of entries -----------------------------------------------------------------------


@_rule(
    "relu", "relu6", "hardswish", "hardsigmoid", "hardtanh", "sigmoid", "silu", "gelu", "tanh",
    "elu", "selu", "celu", "leaky_relu", "exp", "sqrt", "rsqrt", "neg", "abs", "clamp_min",
    "clamp_max",    "dropout", "feature_dropout", "alpha_dropout", "alias", "contiguous", "clone", "detach", "to",
    "_to_copy", "softplus", "mish", "erf", "log", "log1p", "expm1", "sin", "cos", "logical_not",
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


@_rule(
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


@_rule("prelu")
def _prelu(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, slope = p.of(args[0]), p.of(args[1])
    return _with_channels(p, node, x, [slope], 1)


def _with_channels(p: Pass, node: fx.Node, x: Marks, vectors: Sequence[Marks], axis: int) -> Marks:
    """Marks of what has vectors of numbers for its channels."""
    line = p.coupler.line(x, axis)
    for vector in vectors:
        own = p.coupler.line(vector, 0) if vector.shape else None
        if own is None:
            continue
        if line is None:
            p.coupler.freeze(vector, "its channels have no labels")
        else:
            p.coupler.tie(line, own)
    layers = list(x.constant([axis]))
    if line is not None:
        sizes = [1] * len(x.shape)
        sizes[axis] = len(line)
        layers.insert(0, line.reshape(sizes))
    return Marks(p.shape(node), layers)


@_rule("batch_norm", "_native_batch_norm_legit_no_training", "instance_norm")
def _batch_norm(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    vectors = [p.of(a) for a in args[1:5] if isinstance(a, fx.Node)]
    return _with_channels(p, node, p.of(args[0]), vectors, 1)


@_rule("group_norm")
def _group_norm(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    vectors = [p.of(a) for a in args[2:4] if isinstance(a, fx.Node)]
    made = _with_channels(p, node, p.of(args[0]), vectors, 1)
    line = p.coupler.line(p.of(args[0]), 1)
    groups = int(args[1])
    if line is not None and groups > 1:
        grid = line.reshape(groups, -1)
        if grid.shape[1] > 1:
            p.coupler.choose(group_options(grid))
        p.groups[node.name] = Marks(grid.shape, [grid])
    return made


@_rule("layer_norm", "rms_norm", "_fused_rms_norm")
def _layer_norm(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, normalised = p.of(args[0]), args[1]
    c, rank = p.coupler, len(x.shape)
    first = rank - len(normalised)
    vectors = [p.of(a) for a in args[2:4] if isinstance(a, fx.Node)]
    layers = []
    for layer in x.layers:
        if any(n > 1 for n in layer.shape[first:]):
            layer = c.flat(layer, range(first))
        layers.append(layer)
    over_rows = (1,) * first
    own = [layer for layer in layers if layer.shape[:first] == over_rows]
    inner = Marks(x.shape[first:], [layer.reshape(layer.shape[first:]) for layer in own])
    if vectors:
        c.merged(inner.shape, [inner, *vectors])
    return Marks(p.shape(node), layers)


# --- products with weights ----------------------------------------------------------------------


@_rule("conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d", "conv_transpose2d",
       "conv_transpose3d")  # fmt: skip
def _conv(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    name, c = packet_name(node), p.coupler
    x, weight = p.of(args[0]), p.of(args[1])
    bias = _get(args, kwargs, 2, "bias", None)
    transposed, place = "transpose" in name, 6
    if name == "convolution":
        transposed, place = bool(args[6]), 8
    groups = int(_get(args, kwargs, place, "groups", 1))
    shape = p.shape(node)
    rank = len(shape)
    spatial = list(range(2, rank))
    c.freeze_axes(Marks(x.shape, x.constant([1])), spatial, "it slides over them")
    for axis in spatial:
        c.freeze(Marks(weight.shape, weight.varying(axis)), "it is a kernel")
    read = c.line(x, 1)
    inner = c.line(weight, 0 if transposed else 1)
    out = c.line(weight, 1 if transposed else 0)
    n_in, n_out = x.shape[1], shape[1]
    made = out
    if groups == 1:
        _tied(c, read, inner, "it reads data that have no channels")
    else:
        grid_in = None if read is None else read.reshape(groups, -1)
        if transposed:
            # The weight is (in, out / groups): what comes out has a label for each group.
            _tied(c, read, inner, "it reads data that have no channels")
            if n_out == groups and read is not None:
                made = np.repeat(read.reshape(groups, -1)[:, 0], n_out // groups)
                grid_in = read.reshape(groups, -1)
                if grid_in.shape[1] > 1:
                    c.freeze(x, "groups of a transposed convolution stay")
            else:
                c.freeze(x, "groups of a transposed convolution stay")
                c.freeze(weight, "groups of a transposed convolution stay")
                made = None
        elif read is None or out is None:
            c.freeze(weight, "it reads data that have no channels")
            c.freeze(x, "it is read by a weight that has no channels")
        elif n_in == groups:
            c.tie(np.repeat(read, n_out // groups), out)
        else:
            own = out.reshape(groups, -1)
            assert grid_in is not None
            whole, each = group_options(grid_in, own)
            if inner is not None:
                # One axis of the weight has the same channel of every group.
                whole = _more(whole, inner, np.zeros_like(inner))
                each = _more(each, grid_in[0], inner)
            c.choose([whole, each])
        if grid_in is not None:
            p.groups[node.name] = Marks(grid_in.shape, [grid_in])
    if isinstance(bias, fx.Node):
        own_bias = c.line(p.of(bias), 0)
        _tied(c, made, own_bias, "it is a bias of channels that stay")
    layers = list(x.constant([1, *spatial]))
    if made is not None:
        sizes = [1] * rank
        sizes[1] = n_out
        layers.insert(0, made.reshape(sizes))
    return Marks(shape, layers)


def _more(pairs: tuple[Labels, Labels], a: Labels, b: Labels) -> tuple[Labels, Labels]:
    return np.concatenate([pairs[0], a]), np.concatenate([pairs[1], b])


def _tied(c: Coupler, a: Labels | None, b: Labels | None, why: str) -> None:
    if a is None and b is None:
        return
    if a is None or b is None:
        labels = b if a is None else a
        assert labels is not None
        c.tie(labels, np.zeros_like(labels), why)
    else:
        c.tie(a, b)


@_rule("linear")
def _linear(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, weight = p.of(args[0]), p.of(args[1])
    c, shape = p.coupler, p.shape(node)
    if len(weight.shape) != 2:
        return p.freeze_all(node, "its weight has other than two axes")
    _tied(c, c.line(x, len(x.shape) - 1), c.line(weight, 1), "it reads data that have no channels")
    out = c.line(weight, 0)
    bias = _get(args, kwargs, 2, "bias", None)
    if isinstance(bias, fx.Node):
        _tied(c, out, c.line(p.of(bias), 0), "it is a bias of channels that stay")
    layers = list(x.constant([len(x.shape) - 1]))
    if out is not None:
        layers.insert(0, out.reshape((*([1] * (len(shape) - 1)), len(out))))
    return Marks(shape, layers)


@_rule("addmm")
def _addmm(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    made = _products(p, p.shape(node), p.of(args[1]), p.of(args[2]))
    return p.coupler.merged(p.shape(node), [made, p.of(args[0])])


@_rule("matmul", "bmm", "mm")
def _matmul(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _products(p, p.shape(node), p.of(args[0]), p.of(args[1]))


@_rule("baddbmm")
def _baddbmm(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    made = _products(p, p.shape(node), p.of(args[1]), p.of(args[2]))
    return p.coupler.merged(p.shape(node), [made, p.of(args[0])])


def _products(p: Pass, shape: tuple[int, ...], a: Marks, b: Marks) -> Marks:
    """The labels of `numpy.matmul` of two tensors of at least two axes."""
    if min(len(a.shape), len(b.shape)) < 2:
        raise ValueError("a product with a vector")
    lead = shape[:-2]
    g = prod(lead)
    sides = []
    for x in (a, b):
        own = x.shape[:-2]
        if prod(own) == g:
            sides.append(x.reshaped((g, *x.shape[-2:])))
        elif prod(own) == 1:
            sides.append(x.reshaped((1, *x.shape[-2:])))
        else:
            raise ValueError("groups that are broadcast")
    made = product(p.coupler, (g, *shape[-2:]), *sides)
    return made.reshaped(shape)


@_rule("scaled_dot_product_attention")
def _attention(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    q, k, v = (p.of(a) for a in args[:3])
    mask = _get(args, kwargs, 3, "attn_mask", None)
    rank = len(q.shape)
    turned = k.permuted((*range(rank - 2), rank - 1, rank - 2))
    scores_shape = (*q.shape[:-1], k.shape[-2])
    if q.shape[:-2] != k.shape[:-2] or k.shape[:-2] != v.shape[:-2]:
        raise ValueError("keys have other heads")
    scores = _products(p, scores_shape, q, turned)
    if isinstance(mask, fx.Node):
        scores = p.coupler.merged(scores_shape, [scores, p.of(mask)])
    return _products(p, p.shape(node), scores, v)


@_rule("embedding")
def _embedding(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    table, c, shape = p.of(args[0]), p.coupler, p.shape(node)
    c.freeze(p.of(args[1]), "it picks rows")
    c.freeze_axes(table, [0], "they are rows of a table")
    line = c.line(table, 1)
    return Marks(shape) if line is None else Marks.along(shape, len(shape) - 1, line)


# --- layout --------------------------------------------------------------------------------------


@_rule("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as",
       "reshape_as")  # fmt: skip
def _reshape(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return p.of(args[0]).reshaped(p.shape(node))


@_rule("permute", "transpose", "t", "movedim", "swapaxes", "swapdims", "numpy_T")
def _permute(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x = p.of(args[0])
    # PyTorch itself says where every axis goes.
    probe = torch.empty(tuple(range(2, 2 + len(x.shape))), device="meta")
    assert callable(node.target)
    turned = node.target(probe, *args[1:], **kwargs)
    return x.permuted([n - 2 for n in turned.shape])


@_rule("expand", "expand_as", "broadcast_to")
def _expand(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, shape = p.of(args[0]), p.shape(node)
    more = (1,) * (len(shape) - len(x.shape))
    made = x.mapped(shape, lambda layer: layer.reshape((*more, *layer.shape)))
    if packet_name(node) == "expand_as" and isinstance(args[1], fx.Node):
        # It takes the shape of another tensor, whatever that comes to be.
        like = p.of(args[1])
        wide = [a for a, n in enumerate((*more, *x.shape)) if n == 1 and shape[a] > 1]
        free = [layer for layer in like.layers if any(layer.shape[a] > 1 for a in wide)]
        made = Marks(shape, [*made.layers, *free])
    return made


@_rule("cat", "concat", "concatenate")
def _cat(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    shape = p.shape(node)
    axis = int(_get(args, kwargs, 1, "dim", 0)) % len(shape)
    return joined(p.coupler, shape, axis, [p.of(a) for a in args[0]])


def joined(c: Coupler, shape: tuple[int, ...], axis: int, parts: Sequence[Marks]) -> Marks:
    """The labels of tensors that are joined along an axis."""
    pieces: list[Labels] = []
    others: list[Marks] = []
    for x in parts:
        here = x.varying(axis)
        sizes = [1] * len(shape)
        sizes[axis] = x.shape[axis]
        piece = here[0] if here else np.zeros(sizes, np.int64)
        for layer in here[1:]:
            c.tie(piece, layer)
        pieces.append(piece)
        one = tuple(1 if a == axis else n for a, n in enumerate(x.shape))
        others.append(Marks(one, x.constant([axis])))
    one = tuple(1 if a == axis else n for a, n in enumerate(shape))
    layers = list(c.merged(one, others).layers)
    if any(piece.any() for piece in pieces):
        wide = [max(piece.shape[a] for piece in pieces) for a in range(len(shape))]
        full = [
            np.broadcast_to(piece, [*wide[:axis], piece.shape[axis], *wide[axis + 1 :]])
            for piece in pieces
        ]
        layers.insert(0, np.concatenate(full, axis))
    return Marks(shape, layers)


@_rule("stack")
def _stack(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    shape = p.shape(node)
    axis = int(_get(args, kwargs, 1, "dim", 0)) % len(shape)
    parts = []
    for a in args[0]:
        x = p.of(a)
        parts.append(x.reshaped((*x.shape[:axis], 1, *x.shape[axis:])))
    one = tuple(1 if a == axis else n for a, n in enumerate(shape))
    return Marks(shape, p.coupler.merged(one, parts).layers)


@_rule("split", "split_with_sizes", "chunk", "tensor_split")
def _split(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, shapes = p.of(args[0]), p.shapes[node.name]
    axis = int(_get(args, kwargs, 2, "dim", 0)) % len(x.shape)
    made, start = [], 0
    for shape in shapes:
        made.append(Marks(shape, _part(x, axis, slice(start, start + shape[axis]))))
        start += shape[axis]
    return made


def _part(x: Marks, axis: int, index: slice) -> list[Labels]:
    layers = []
    for layer in x.layers:
        if layer.shape[axis] > 1:
            layer = layer[(*[slice(None)] * axis, index)]
        layers.append(layer)
    return layers


@_rule("unbind")
def _unbind(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x = p.of(args[0])
    axis = int(_get(args, kwargs, 1, "dim", 0)) % len(x.shape)
    return [_picked(p, x, axis, i) for i in range(x.shape[axis])]


def _picked(p: Pass, x: Marks, axis: int, index: int) -> Marks:
    """One entry of an axis, which is gone then."""
    layers = []
    for layer in x.layers:
        others = [n for a, n in enumerate(layer.shape) if a != axis]
        if layer.shape[axis] > 1:
            if prod(others) == 1:
                p.coupler.freeze(Marks(x.shape, [layer]), "they are taken one by one")
                continue
            layer = layer.take([index], axis)
        layers.append(layer.reshape(others))
    return Marks(tuple(n for a, n in enumerate(x.shape) if a != axis), layers)


@_rule("select")
def _select(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, axis, index = p.of(args[0]), int(args[1]), p.number(args[2])
    axis %= len(x.shape)
    return _picked(p, x, axis, int(index) % x.shape[axis])


@_rule("slice", "narrow")
def _slice(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, shape = p.of(args[0]), p.shape(node)
    axis = int(_get(args, kwargs, 1, "dim", 0)) % len(x.shape)
    n = x.shape[axis]
    start = p.number(_get(args, kwargs, 2, "start", 0)) or 0
    end, step = n, 1
    if packet_name(node) == "narrow":
        end = start + p.number(args[3])
    else:
        end = p.number(_get(args, kwargs, 3, "end", None))
        step = p.number(_get(args, kwargs, 4, "step", 1))
    index = slice(*slice(start, end, step).indices(n))
    if step != 1:
        p.coupler.freeze_axes(x, [axis], "it takes every so many of them")
    return Marks(shape, _part(x, axis, index))


@_rule("getitem")
def _getitem(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    marks = p.marks[args[0].name]
    return marks[args[1]] if isinstance(marks, list) else p.blank(node)


@_rule("roll", "flip")
def _roll(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x = p.of(args[0])
    place = 2 if packet_name(node) == "roll" else 1
    axes = [int(a) % len(x.shape) for a in _get(args, kwargs, place, "dims", ())]
    p.coupler.freeze_axes(x, axes or list(range(len(x.shape))), "it moves them")
    return Marks(p.shape(node), x.constant(axes))


@_rule("repeat", "tile")
def _repeat(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, shape = p.of(args[0]), p.shape(node)
    more = (1,) * (len(shape) - len(x.shape))
    layers = []
    for layer in x.layers:
        layer = layer.reshape((*more, *layer.shape))
        if any(n > 1 and n != shape[a] for a, n in enumerate(layer.shape)):
            p.coupler.freeze(Marks(shape, [layer]), "it repeats them")
            continue
        layers.append(layer)
    return Marks(shape, layers)


@_rule("index")
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


@_rule("index_select")
def _index_select(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x = p.of(args[0])
    axis = int(args[1]) % len(x.shape)
    p.coupler.freeze_axes(x, [axis], "they are picked by an index")
    return Marks(p.shape(node), x.constant([axis]))


@_rule("pad", "constant_pad_nd")
def _pad(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, shape, c = p.of(args[0]), p.shape(node), p.coupler
    amounts = [p.number(n) for n in args[1]]
    layers = list(x.layers)
    for place in range(len(amounts) // 2):
        axis = len(shape) - 1 - place
        before, after = amounts[2 * place], amounts[2 * place + 1]
        if not (before or after):
            continue
        here = [layer for layer in layers if layer.shape[axis] > 1]
        constant = _get(args, kwargs, 2, "mode", "constant") == "constant"
        if packet_name(node) == "constant_pad_nd":
            constant = True
        layers = [layer for layer in layers if layer.shape[axis] == 1]
        for layer in here:
            if not constant or before < 0 or after < 0:
                c.freeze(Marks(x.shape, [layer]), "it repeats them")
                continue
            line = c.line(Marks(x.shape, [layer]), axis)
            assert line is not None
            sizes = [1] * len(shape)
            sizes[axis] = shape[axis]
            full = np.concatenate([c.fresh(before), line, c.fresh(after)])
            layers.append(full.reshape(sizes))
    return Marks(shape, layers)


@_rule("pixel_shuffle", "pixel_unshuffle", "channel_shuffle")
def _shuffle(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, shape, r = p.of(args[0]), p.shape(node), int(args[1])
    lead, (channels, *sides) = x.shape[:-3], x.shape[-3:]
    n = len(lead)
    name = packet_name(node)
    if name == "channel_shuffle":
        split = x.reshaped((*lead, r, channels // r, *sides))
        order = [*range(n), n + 1, n, n + 2, n + 3]
    elif name == "pixel_shuffle":
        split = x.reshaped((*lead, channels // r**2, r, r, *sides))
        order = [*range(n), n, n + 3, n + 1, n + 4, n + 2]
    else:
        split = x.reshaped((*lead, channels, sides[0] // r, r, sides[1] // r, r))
        order = [*range(n), n, n + 2, n + 4, n + 1, n + 3]
    p.coupler.watch(split)
    return split.permuted(order).reshaped(shape)


# --- reductions ----------------------------------------------------------------------------------


@_rule(
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
    given = _get(args, kwargs, place, "dim", None)
    if given is None or given == []:
        axes = list(range(len(x.shape)))
    else:
        dims = given if isinstance(given, (list, tuple)) else [given]
        axes = [int(a) % len(x.shape) for a in dims]
    several = isinstance(shapes, list)
    if several or name.startswith("arg"):
        p.coupler.freeze_axes(x, axes, "it gives their places")
    shape = shapes[0] if several else p.shape(node)
    keep = len(shape) == len(x.shape)
    layers = []
    for layer in x.layers:
        if any(layer.shape[a] > 1 for a in axes):
            layer = p.coupler.flat(layer, axes)
        if not keep:
            layer = layer.reshape([n for a, n in enumerate(layer.shape) if a not in axes])
        layers.append(layer)
    made = Marks(shape, layers)
    return [made, *(Marks(made.shape, made.layers) for _ in shapes[1:])] if several else made


@_rule(
    "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "_adaptive_avg_pool2d",
    "max_pool2d_with_indices", "upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d",
    "upsample_nearest1d", "upsample_linear1d", "upsample_nearest3d", "upsample_trilinear3d",
    "_upsample_nearest_exact2d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa",
)  # fmt: skip
def _window(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, shapes = p.of(args[0]), p.shapes[node.name]
    shape = shapes[0] if isinstance(shapes, list) else tuple(shapes)
    spatial = list(range(2, len(shape)))
    p.coupler.freeze_axes(x, spatial, "it slides over them")
    made = Marks(shape, x.constant(spatial))
    return [made, *(Marks(made.shape, made.layers) for _ in shapes[1:])] if (
        isinstance(shapes, list)
    ) else made  # fmt: skip


@_rule(
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
