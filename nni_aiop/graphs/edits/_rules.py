"""What every operation does to labels, one rule each, in one file: the label pass over a graph.

One rule an operation. It reads the marks of its inputs, in the shapes in which the operation sees
them, ties what must go together, and gives the marks of what comes out and of its weight. What has
no rule freezes what it touches, and its name is the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from nni_aiop.graphs._types import GraphLike, NodeLike, Shape
from nni_aiop.graphs._vocabulary import ACTIVATIONS, COMMUTATIVE, OPERATIONS
from nni_aiop.graphs.edits._coupler import Coupler
from nni_aiop.graphs.edits._marks import Labels, Marks, along

__all__ = ["Traced", "group_options", "joined", "product", "trace"]


@dataclass(slots=True)
class Traced:
    """The labels of one node.

    Attributes:
        out: Of what comes out.
        weight: Of the weight, None where it keeps its shape.
        groups: Of the channels that a grouped operation reads, (groups, each).
        inputs: Of what it reads, as it sees it.
        parts: Of further tensors that tell channels apart: what stands before and after others.
    """

    out: Marks
    weight: Marks | None = None
    groups: Marks | None = None
    inputs: tuple[Marks, ...] = ()
    parts: tuple[Marks, ...] = ()


Rule = Callable[[Coupler, NodeLike, Sequence[Marks]], Traced]


def trace(graph: GraphLike) -> tuple[Coupler, list[Traced]]:
    """The ties between the channels of a graph, and the labels of every node."""
    coupler = Coupler()
    found: list[Traced] = []
    for place, (node, sources) in enumerate(zip(graph.nodes, graph.inputs, strict=True)):
        coupler.begin(f"{graph.names[place]} ({node.op})".lstrip())
        seen: list[Marks] = []
        for source, shape in zip(sources, _seen_shapes(graph, place), strict=True):
            marks = found[source].out
            try:
                seen.append(marks.reshaped(shape))
            except ValueError as err:
                coupler.freeze(marks, str(err))
                seen.append(Marks(shape))
        rule = _RULES.get(node.op, _unknown)
        made = rule(coupler, node, seen)
        made.inputs = tuple(seen)
        for marks in (*seen, made.out):
            if marks.layers:
                coupler.watch(marks)
        found.append(made)
        if place in graph.tied:
            _share(coupler, made, found[graph.tied[place]])
    return coupler, found


def _seen_shapes(graph: GraphLike, place: int) -> Sequence[Shape]:
    """The shape in which a node sees each of its inputs, in the order of its inputs."""
    node, sources = graph.nodes[place], graph.inputs[place]
    if node.op not in COMMUTATIVE or len(set(node.input_shapes)) < 2:
        return node.input_shapes
    left = list(node.input_shapes)
    found: list[Shape | None] = []
    for source in sources:
        shape = graph.nodes[source].output_shape
        found.append(shape if shape in left else None)
        if shape in left:
            left.remove(shape)
    shapes: list[Shape] = []
    for source, own in zip(sources, found, strict=True):
        if own is None:
            size = prod(graph.nodes[source].output_shape)
            own = next((shape for shape in left if prod(shape) == size), left[0])
            left.remove(own)
        shapes.append(own)
    return shapes


def _share(c: Coupler, a: Traced, b: Traced) -> None:
    """Ties the labels of two nodes that have one weight."""
    for one, other in ((a, b), (b, a)):
        if one.weight is None and other.weight is not None:
            c.freeze(other.weight, "it shares its weight with a layer that keeps its own")
    if a.weight is not None and b.weight is not None and a.weight.shape == b.weight.shape:
        c.merged(a.weight.shape, (a.weight, b.weight))
    if a.groups is not None and b.groups is not None:
        c.merged(a.groups.shape, (a.groups, b.groups))


# --- products with weights ----------------------------------------------------------------------


def _conv(c: Coupler, node: NodeLike, ins: Sequence[Marks]) -> Traced:
    if node.weight_shape is None:
        return _unknown(c, node, ins)
    transposed = node.op == "conv_transpose"
    x, shape = ins[0], node.output_shape
    spatial = range(2, len(shape))
    c.freeze_axes(Marks(x.shape, x.constant([1])), list(spatial), "it slides over them")
    read = c.line(x, 1)
    groups = int(node["groups"])
    n_in, n_out = x.shape[1], shape[1]
    out, grid = _grouped(c, read, n_in, n_out, groups)
    rest = x.constant([1, *spatial])
    rank = len(shape)
    made = Marks(shape, [along(rank, 1, out), *rest])
    # The weight is (out, in / groups, ...), of a transposed convolution (in, out / groups, ...).
    first, second = (read, out) if transposed else (out, read)
    weight = [] if first is None else [along(rank, 0, first)]
    if groups == 1 and second is not None:
        weight.append(along(rank, 1, second))
    if transposed and groups > 1:
        grid = out.reshape(groups, -1)
    counted = None if grid is None else Marks(grid.shape, [grid])
    return Traced(made, Marks(node.weight_shape, weight), counted)


def _grouped(
    c: Coupler, read: Labels | None, n_in: int, n_out: int, groups: int
) -> tuple[Labels, Labels | None]:
    """(labels of the channels that come out, those that go in as (groups, each))."""
    if groups == 1:
        return c.fresh(n_out), None
    if read is None:
        return np.zeros(n_out, np.int64), None
    each = n_in // groups
    grid = read.reshape(groups, each)
    if each == 1:
        return np.repeat(read, n_out // groups), grid
    out = c.fresh(n_out)
    c.choose(group_options(grid, out.reshape(groups, -1)))
    return out, grid


def group_options(*grids: Labels) -> list[tuple[Labels, Labels]]:
    """Ties by which whole groups of several grids go, or else the same channel of every group."""
    first = grids[0][:, :1]
    wide = [np.broadcast_to(first, grid.shape).ravel() for grid in grids]
    whole = np.concatenate([grid.ravel() for grid in grids]), np.concatenate(wide)
    tall = [np.broadcast_to(grid[:1], grid.shape).ravel() for grid in grids]
    each = np.concatenate([grid.ravel() for grid in grids]), np.concatenate(tall)
    return [whole, each]


def _linear(c: Coupler, node: NodeLike, ins: Sequence[Marks]) -> Traced:
    if node.weight_shape is None:
        return _unknown(c, node, ins)
    x, (rows, n) = ins[0], node.output_shape
    read = c.line(x, 1)
    out = c.fresh(n)
    made = Marks((rows, n), [out.reshape(1, n), *x.constant([1])])
    if len(node.weight_shape) != 2:
        c.freeze(Marks((n,), [out]), "its weight has more than two axes")
        c.freeze(x, "it is read by a weight of more than two axes")
        return Traced(made)
    weight = [out.reshape(n, 1)]
    if read is not None:
        weight.append(read.reshape(1, -1))
    return Traced(made, Marks(node.weight_shape, weight))


def _embedding(c: Coupler, node: NodeLike, ins: Sequence[Marks]) -> Traced:
    for marks in ins:
        c.freeze(marks, "it picks rows")
    shape, table = node.output_shape, node.weight_shape
    if table is None or len(table) != 2 or not shape or shape[-1] != table[1]:
        return Traced(Marks(shape))
    out = c.fresh(shape[-1])
    return Traced(Marks.along(shape, len(shape) - 1, out), Marks.along(table, 1, out))


# --- norms and functions of entries --------------------------------------------------------------


def _batch_norm(c: Coupler, node: NodeLike, ins: Sequence[Marks]) -> Traced:
    x = ins[0]
    read = c.line(x, 1) if len(x.shape) > 1 else None
    layers = list(x.constant([1])) if len(x.shape) > 1 else list(x.layers)
    if read is not None:
        layers.insert(0, along(len(x.shape), 1, read))
    weight = None
    if node.weight_shape is not None:
        weight = Marks(node.weight_shape, [read] if read is not None else [])
    return _shown(c, node, Traced(Marks(x.shape, layers), weight))


def _group_norm(c: Coupler, node: NodeLike, ins: Sequence[Marks]) -> Traced:
    made = _batch_norm(c, node, ins)
    read = c.line(ins[0], 1)
    groups = int(node["groups"])
    if read is not None and groups > 1:
        grid = read.reshape(groups, -1)
        if grid.shape[1] > 1:
            c.choose(group_options(grid))
        made.groups = Marks(grid.shape, [grid])
    return made


def _layer_norm(c: Coupler, node: NodeLike, ins: Sequence[Marks]) -> Traced:
    x = ins[0]
    rank = len(x.shape)
    size = node.weight_shape if node.weight_shape is not None else x.shape[-1:]
    axes = range(rank - len(size), rank)
    if len(size) > rank or tuple(x.shape[a] for a in axes) != tuple(size):
        return _unknown(c, node, ins)
    layers, weight = [], []
    for layer in x.layers:
        if any(layer.shape[a] > 1 for a in axes):
            # Every row is normalised with the same weight.
            flat = c.flat(layer, range(rank - len(size)))
            layers.append(flat)
            weight.append(flat.reshape(flat.shape[rank - len(size) :]))
        else:
            layers.append(layer)
    made = Traced(Marks(x.shape, layers), None)
    if node.weight_shape is not None:
        made.weight = Marks(node.weight_shape, weight)
    return _shown(c, node, made)


def _same(c: Coupler, node: NodeLike, ins: Sequence[Marks]) -> Traced:
    return _shown(c, node, Traced(ins[0]))


def _shown(c: Coupler, node: NodeLike, made: Traced) -> Traced:
    """Marks in the shape of the output, which shows the same entries."""
    if made.out.shape != node.output_shape:
        try:
            made.out = made.out.reshaped(node.output_shape)
        except ValueError as err:
            c.freeze(made.out, str(err))
            made.out = Marks(node.output_shape)
    return made


def _prelu(c: Coupler, node: NodeLike, ins: Sequence[Marks]) -> Traced:
    if node.weight_shape is None or prod(node.weight_shape) == 1:
        return _same(c, node, ins)
    return _batch_norm(c, node, ins)


def _pointwise(c: Coupler, node: NodeLike, ins: Sequence[Marks]) -> Traced:
    shape = node.output_shape
    if len(ins) == 1 and node.get("operand") is None:
        return _same(c, node, ins)
    out = c.merged(shape, ins)
    weight = None
    if node.get("operand") is not None and node.weight_shape is not None:
        weight, out = _operand(c, node.weight_shape, out)
    return Traced(out, weight)


def _operand(c: Coupler, weight: Shape, out: Marks) -> tuple[Marks | None, Marks]:
    """Marks of a constant term, whose leading and trailing axes of length 1 are not known."""
    rank, size = len(out.shape), len(weight)
    places = [
        start
        for start in range(rank - size + 1)
        if all(n in (1, out.shape[start + axis]) for axis, n in enumerate(weight))
    ]
    if not places:
        if out.layers:
            c.freeze(out, "it meets a constant of unknown layout")
        return None, out

    def covered(start: int) -> tuple[int, int]:
        axes = [start + axis for axis, n in enumerate(weight) if n > 1]
        return sum(bool(out.varying(axis)) for axis in axes), start

    start = max(places, key=covered)
    layers = []
    for layer in out.layers:
        axes = [a for a, n in enumerate(layer.shape) if n > 1]
        inner = [a for a in axes if start <= a < start + size and weight[a - start] > 1]
        if not inner:
            continue
        flat = c.flat(layer, [a for a in axes if a not in inner])
        layers.append(flat.reshape(flat.shape[start : start + size]))
    return Marks(weight, layers), out


# --- layout --------------------------------------------------------------------------------------


def _concat(c: Coupler, node: NodeLike, ins: Sequence[Marks]) -> Traced:
    axis, shape = int(node["axis"]), node.output_shape
    if sum(x.shape[axis] for x in ins) == shape[axis]:
        return Traced(joined(c, shape, axis, ins))
    for x in ins:
        c.freeze_axes(x, [axis], "it stands beside constants")
    out = Marks(shape, _beside(c, shape, axis, ins).layers)
    if node.weight_shape is None:
        return Traced(out)
    return Traced(out, _operand(c, node.weight_shape, out)[0])


def joined(c: Coupler, shape: Shape, axis: int, parts: Sequence[Marks]) -> Marks:
    """The labels of tensors that are joined along an axis."""
    pieces: list[Labels] = []
    for x in parts:
        here = x.varying(axis)
        piece = here[0] if here else along(len(shape), axis, np.zeros(x.shape[axis], np.int64))
        for layer in here[1:]:
            c.tie(piece, layer)
        pieces.append(piece)
    layers = list(_beside(c, shape, axis, parts).layers)
    if any(piece.any() for piece in pieces):
        wide = [max(sizes) for sizes in zip(*(piece.shape for piece in pieces), strict=True)]
        full = [
            np.broadcast_to(piece, [*wide[:axis], piece.shape[axis], *wide[axis + 1 :]])
            for piece in pieces
        ]
        layers.insert(0, np.concatenate(full, axis))
    return Marks(shape, layers)


def _beside(c: Coupler, shape: Shape, axis: int, parts: Sequence[Marks]) -> Marks:
    """The labels that tensors which are joined along an axis have along the others."""

    def one(sizes: Shape) -> Shape:
        return (*sizes[:axis], 1, *sizes[axis + 1 :])

    return c.merged(one(shape), [Marks(one(x.shape), x.constant([axis])) for x in parts])


def _slice(c: Coupler, node: NodeLike, ins: Sequence[Marks]) -> Traced:
    x = ins[0]
    layers = list(x.layers)
    for axis, start, stop, step in node["ranges"]:
        if step != 1:
            c.freeze_axes(x, [axis], "it takes every so many of them")
        index = np.arange(start, stop, step)
        layers = [layer.take(index, axis) if layer.shape[axis] > 1 else layer for layer in layers]
    return Traced(Marks(node.output_shape, layers))


def _gather(c: Coupler, node: NodeLike, ins: Sequence[Marks]) -> Traced:
    x, axis, shape = ins[0], int(node["axis"]), node.output_shape
    for other in ins[1:]:
        c.freeze(other, "it says what is picked")
    c.freeze_axes(x, [axis], "they are picked by an index")
    kept = Marks(x.shape, x.constant([axis]))
    if len(shape) == len(x.shape):
        return Traced(Marks(shape, kept.layers))
    c.freeze(kept, "it changes the axes")
    return Traced(Marks(shape))


def _expand(c: Coupler, node: NodeLike, ins: Sequence[Marks]) -> Traced:
    x, shape = ins[0], node.output_shape
    lacks = len(shape) - len(x.shape)
    fits = lacks >= 0 and all(n in (1, m) for n, m in zip(x.shape, shape[lacks:], strict=True))
    if not fits:
        c.freeze(x, "it repeats them")
        return Traced(Marks(shape))
    more = (1,) * lacks
    return Traced(x.mapped(shape, lambda layer: layer.reshape((*more, *layer.shape))))


def _resize(c: Coupler, node: NodeLike, ins: Sequence[Marks]) -> Traced:
    x, shape = ins[0], node.output_shape
    resized = [a for a, n in enumerate(x.shape) if n != shape[a]]
    c.freeze_axes(x, resized, "it resizes them")
    return Traced(Marks(shape, x.constant(resized)))


def _pad(c: Coupler, node: NodeLike, ins: Sequence[Marks]) -> Traced:
    x, layers = ins[0], list(ins[0].layers)
    parts: list[Marks] = []
    for axis, before, after in node["padding"]:
        here = [layer for layer in layers if layer.shape[axis] > 1]
        if not here:
            continue
        if node["mode"] != "constant" or before < 0 or after < 0:
            c.freeze(Marks(x.shape, here), "it repeats them")
            layers = [layer for layer in layers if layer.shape[axis] == 1]
            continue
        padded = []
        for layer in here:
            line = c.line(Marks(x.shape, [layer]), axis)
            assert line is not None
            first, last = c.fresh(before), c.fresh(after)
            parts += [Marks.along((len(ends),), 0, ends) for ends in (first, last)]
            full = np.concatenate([first, line, last])
            padded.append(along(len(x.shape), axis, full))
        layers = [layer for layer in layers if layer.shape[axis] == 1] + padded
    return Traced(Marks(node.output_shape, layers), parts=tuple(parts))


def _reduce(c: Coupler, node: NodeLike, ins: Sequence[Marks]) -> Traced:
    x, axes = ins[0], [int(a) for a in node["axes"]]
    if str(node["kind"]).startswith("arg"):
        c.freeze_axes(x, axes, "it gives their places")
    layers = []
    for layer in x.layers:
        if all(n == 1 for a, n in enumerate(layer.shape) if a not in axes):
            continue  # fewer of them are reduced
        layers.append(c.flat(layer, axes))
    kept = tuple(n for a, n in enumerate(x.shape) if a not in axes)
    made = Marks(kept, [
        layer.reshape([n for a, n in enumerate(layer.shape) if a not in axes]) for layer in layers
    ])  # fmt: skip
    return _shown(c, node, Traced(made))


def _permute(c: Coupler, node: NodeLike, ins: Sequence[Marks]) -> Traced:
    return _shown(c, node, Traced(ins[0].permuted(node["order"])))


def _pool(c: Coupler, node: NodeLike, ins: Sequence[Marks]) -> Traced:
    x, shape = ins[0], node.output_shape
    axes = list(range(len(shape) - len(node["kernel"]), len(shape)))
    c.freeze_axes(x, axes, "it slides over them")
    return Traced(Marks(shape, x.constant(axes)))


def _global_pool(c: Coupler, node: NodeLike, ins: Sequence[Marks]) -> Traced:
    x = ins[0]
    layers = []
    for layer in x.layers:
        flat = c.flat(layer, range(2, len(x.shape)))
        layers.append(flat.reshape(flat.shape[:2]))
    return _shown(c, node, Traced(Marks(x.shape[:2], layers)))


# --- products of tensors -------------------------------------------------------------------------


def _matmul(c: Coupler, node: NodeLike, ins: Sequence[Marks]) -> Traced:
    if node.get("operand") is not None or len(ins) != 2:
        return _product_with_constant(c, node, ins)
    a, b = ins
    shape = node.output_shape
    if a.shape[0] != shape[0] or b.shape[0] != shape[0]:
        return _unknown(c, node, ins)  # groups that are broadcast
    return Traced(product(c, shape, a, b))


def product(c: Coupler, shape: Shape, a: Marks, b: Marks) -> Marks:
    """The labels of (g, m, k), (g, k, n) -> (g, m, n): inner channels go together, as do groups.

    Of a grid of groups and channels either the same channel of every group goes, or, where heads
    are to go, whole groups, and then of every tensor of the product.
    """
    inner = c.merged(
        a.shape[::2],
        [
            Marks(a.shape[::2], [x.reshape(x.shape[::2]) for x in _only(c, a, 2, 1)]),
            Marks(b.shape[:2], [x.reshape(x.shape[:2]) for x in _only(c, b, 1, 2)]),
        ],
    )
    rows, columns = _only(c, a, 1, 2), _only(c, b, 2, 1)
    grids = [x for x in inner.layers if x.shape[0] > 1 and x.shape[1] > 1]
    grids += [x.reshape(shape[0], -1) for x in (*rows, *columns) if x.shape[0] > 1]
    pure = [x for part in (a, b) for x in part.constant([1, 2])]
    layers = [*rows, *columns]
    if grids or pure:
        groups = _groups(c, shape[0], grids, pure, whole=all(
            n.shape[0] == 1 or n.varying(0) for n in (a, b)
        ))  # fmt: skip
        if not any(x.shape[0] > 1 for x in layers):
            layers.append(groups.reshape(-1, 1, 1))
    return Marks(shape, layers)


def _groups(
    c: Coupler, n: int, grids: Sequence[Labels], pure: Sequence[Labels], *, whole: bool
) -> Labels:
    """(n,) labels of the groups of a product: of one that goes everything goes."""
    groups = c.fresh(n)
    c.aside.append(groups)
    for layer in pure:
        c.tie(groups, layer.ravel())
    stays = (groups, np.zeros(n, np.int64))
    if not grids:
        if not whole:
            c.tie(*stays)
        return groups
    together = group_options(groups.reshape(-1, 1), *grids)[0]
    each = group_options(*grids)[1]
    widths = tuple(np.concatenate(pair) for pair in zip(each, stays, strict=True))
    heads = together if whole else tuple(
        np.concatenate(pair) for pair in zip(together, stays, strict=True)
    )  # fmt: skip
    c.choose([(heads[0], heads[1]), (widths[0], widths[1])], widths=1, heads=0)
    return groups


def _only(c: Coupler, marks: Marks, axis: int, other: int) -> list[Labels]:
    """The layers that change along an axis, tied along another one."""
    return [c.flat(layer, [other]) for layer in marks.varying(axis)]


def _product_with_constant(c: Coupler, node: NodeLike, ins: Sequence[Marks]) -> Traced:
    c.freeze(ins[0], "it is multiplied with a constant for each group")
    return Traced(Marks(node.output_shape))


def _attention(c: Coupler, node: NodeLike, ins: Sequence[Marks]) -> Traced:
    shape = node.output_shape
    if node.get("constant") or len(ins) < 3:
        return _unknown(c, node, ins)
    q, k, v = ins[:3]
    if not q.shape[0] == k.shape[0] == v.shape[0] == shape[0]:
        return _unknown(c, node, ins)
    for mask in ins[3:]:
        c.freeze(mask, "it is a mask of attention")
    g, n, _ = q.shape
    scores = (g, n, k.shape[1])
    turned = k.permuted((0, 2, 1))
    return Traced(product(c, shape, product(c, scores, q, turned), v))


# --- ends ----------------------------------------------------------------------------------------


def _input(c: Coupler, node: NodeLike, ins: Sequence[Marks]) -> Traced:
    return Traced(Marks(node.output_shape))


def _output(c: Coupler, node: NodeLike, ins: Sequence[Marks]) -> Traced:
    c.freeze(ins[0], "it leaves the network")
    return Traced(Marks(node.output_shape))


def _recurrent(c: Coupler, node: NodeLike, ins: Sequence[Marks]) -> Traced:
    for x in ins:
        c.freeze(x, "a recurrent layer keeps its widths")
    return Traced(Marks(node.output_shape))


def _unknown(c: Coupler, node: NodeLike, ins: Sequence[Marks]) -> Traced:
    for x in ins:
        c.freeze(x, f"there is no rule for {node.op} as it stands here")
    return Traced(Marks(node.output_shape))


_RULES: dict[str, Rule] = {
    "input": _input,
    "output": _output,
    "conv": _conv,
    "conv_transpose": _conv,
    "linear": _linear,
    "matmul": _matmul,
    "attention": _attention,
    "max_pool": _pool,
    "avg_pool": _pool,
    "global_avg_pool": _global_pool,
    "global_max_pool": _global_pool,
    "batch_norm": _batch_norm,
    "instance_norm": _batch_norm,
    "group_norm": _group_norm,
    "layer_norm": _layer_norm,
    "rms_norm": _layer_norm,
    "local_response_norm": _same,
    **dict.fromkeys(ACTIVATIONS, _same),
    "prelu": _prelu,
    "add": _pointwise,
    "mul": _pointwise,
    "elementwise": _pointwise,
    "concat": _concat,
    "slice": _slice,
    "gather": _gather,
    "expand": _expand,
    "resize": _resize,
    "pad": _pad,
    "reduce": _reduce,
    "permute": _permute,
    "embedding": _embedding,
    "lstm": _recurrent,
    "gru": _recurrent,
    "rnn": _recurrent,
    "cell_state": _recurrent,
}

assert set(_RULES) == set(OPERATIONS)
