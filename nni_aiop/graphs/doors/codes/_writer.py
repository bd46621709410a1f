"""The quick door: graphs written operation by operation, by spaces that know their networks.

Each operation is written in the form that the canonical rules (`_rules`) would give it, and equal
nodes are one object, so that a space of cells writes some thousand graphs a second. Sums of sums
become one, and so do operations that do the same to the same tensors. The other rules are left to
the caller: a product is never one of the named functions, a padding stands in the convolution, and
neither a slice nor a concatenation is of another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

from nni_aiop.errors import GraphError
from nni_aiop.graphs._graph import ComputeGraph
from nni_aiop.graphs._node import Node
from nni_aiop.graphs._types import Shape
from nni_aiop.graphs._vocabulary import ENTRYWISE

__all__ = ["GraphWriter", "Handle"]

_MOST_NODES = 2**14
_cached = lru_cache(maxsize=_MOST_NODES)
_TAKING_IN = frozenset({"conv", "conv_transpose", "linear"})


class Handle(NamedTuple):
    """What an operation gives: the place of its node, and the shape in which it is read."""

    place: int
    shape: Shape


class GraphWriter:
    """Writes a compute graph; every method that takes `Handle` gives the operation's result.

    Attributes:
        scope: Name of the nodes that are written next, such as "stages.2".

    Example:
        >>> w = GraphWriter()
        >>> x = w.input((1, 3, 32, 32))
        >>> x = w.relu(w.batch_norm(w.conv(x, 16, 3)))
        >>> w.output(w.linear(w.global_avg_pool(x), 10))
        >>> graph = w.graph()
        >>> graph.parameters, graph.output_shapes
        (634, ((1, 10),))
    """

    def __init__(self) -> None:
        self.scope = ""
        self._nodes: list[Node] = []
        self._inputs: list[tuple[int, ...]] = []
        self._names: list[str] = []
        self._tied: dict[int, int] = {}
        self._known: dict[tuple[int, tuple[int, ...]], int] = {}
        self._nested: dict[int, list[int]] = {}
        self._n_inputs = self._n_outputs = 0

    def __len__(self) -> int:
        return len(self._nodes)

    def write(self, node: Node, *sources: Handle, shape: Shape | None = None) -> Handle:
        """Any node; `shape` is that of the result where it is not the node's output shape."""
        return self._write(_interned(node), *sources, shape=shape)

    def _write(self, node: Node, *sources: Handle, shape: Shape | None = None) -> Handle:
        place = self._place(node, tuple([source[0] for source in sources]), self.scope)
        return Handle(place, node.output_shape if shape is None else shape)

    def _place(self, node: Node, sources: tuple[int, ...], name: str) -> int:
        """Where a node stands: what does the same to the same tensors is one node."""
        place = len(self._nodes)
        if not node.parameters:
            earlier = self._known.setdefault((id(node), sources), place)
            if earlier < place:
                return earlier
        return self._append(node, sources, name)

    def _append(self, node: Node, sources: tuple[int, ...], name: str) -> int:
        self._nodes.append(node)
        self._inputs.append(sources)
        self._names.append(name)
        return len(self._nodes) - 1

    # --- in and out ----------------------------------------------------------------------------

    def input(self, shape: Shape) -> Handle:
        """An input of the network."""
        shape = tuple(shape)
        name = f"input_{self._n_inputs}"
        self._n_inputs += 1
        return Handle(self._append(_input(shape), (), name), shape)

    def output(self, x: Handle) -> None:
        """Makes data an output of the network."""
        name = f"output_{self._n_outputs}"
        self._n_outputs += 1
        self._append(_plain("output", x.shape), (x.place,), name)

    def reshape(self, x: Handle, shape: Shape) -> Handle:
        """The same data in another shape, which is no operation."""
        return Handle(x.place, shape)

    def repeat(self, written: range, x: Handle, other: Handle, result: Handle) -> Handle:
        """The result of a range of operations once more, with the same weights, on other data.

        Args:
            written: Places of the operations; `len` of the writer tells where one begins.
            x: What the operations read that was written before them.
            other: What they shall read instead.
            result: Of the operations, or x itself.

        Example:
            >>> w = GraphWriter()
            >>> x = w.input((1, 8, 4, 4))
            >>> start = len(w)
            >>> y = w.relu(w.conv(x, 8, 3))
            >>> w.output(w.repeat(range(start, len(w)), x, y, y))
            >>> w.graph().operations, w.graph().parameters
            ({'conv': 2, 'input': 1, 'output': 1, 'relu': 2}, 576)
        """
        moved = {x.place: other.place}
        for earlier in written:
            node = self._nodes[earlier]
            places = tuple([moved.get(source, source) for source in self._inputs[earlier]])
            moved[earlier] = self._place(node, places, self._names[earlier])
            if node.parameters:
                self._tied[moved[earlier]] = self._tied.get(earlier, earlier)
            if earlier in self._nested:
                self._nested[moved[earlier]] = [moved.get(p, p) for p in self._nested[earlier]]
        return Handle(moved[result.place], result.shape)

    # --- operations with weights ---------------------------------------------------------------

    def conv(
        self,
        x: Handle,
        out: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: int | None = None,
        groups: int = 1,
        bias: bool = False,
    ) -> Handle:
        """A convolution over all axes from the third on; its padding is half its kernel."""
        padding = kernel // 2 if padding is None else padding
        return self._write(_conv(x[1], out, kernel, stride, padding, groups, bias), x)

    def conv_transpose(
        self,
        x: Handle,
        out: int,
        kernel: int,
        *,
        stride: int,
        padding: int,
        output_padding: int = 0,
        bias: bool = True,
    ) -> Handle:
        """A transposed convolution over all axes from the third on."""
        return self._write(
            _conv_transpose(x.shape, out, kernel, stride, padding, output_padding, bias), x
        )

    def linear(self, x: Handle, out: int, *, bias: bool = True) -> Handle:
        """A product with a learned matrix over the last axis."""
        return self._write(_linear(x.shape, out, bias), x, shape=(*x.shape[:-1], out))

    def batch_norm(self, x: Handle) -> Handle:
        """Batch normalisation with learned scale and shift.

        Right behind a convolution or linear layer that nothing else reads it is part of that one.
        """
        node = self._nodes[x[0]]
        normed = self._write(_batch_norm(x[1]), x)
        if node.op in _TAKING_IN and node.output_shape == x[1]:
            self._nested[normed[0]] = [x[0]]
        return normed

    # --- operations without weights ------------------------------------------------------------

    def activation(self, x: Handle, op: str) -> Handle:
        """A function entry by entry that the vocabulary names, such as "hard_swish"."""
        return self._write(_plain(op, self._seen(op, x)), x, shape=x[1])

    def relu(self, x: Handle) -> Handle:
        """max(x, 0)."""
        return self._write(_plain("relu", self._seen("relu", x)), x, shape=x[1])

    def _seen(self, op: str, x: Handle) -> Shape:
        """The shape in which an operation reads x: functions of a linear layer's entries, rows."""
        node = self._nodes[x[0]]
        rows = op in ENTRYWISE and (node.op == "linear" or node.op in ENTRYWISE)
        return node.output_shape if rows else x[1]

    def add(self, *terms: Handle) -> Handle:
        """The sum of tensors, broadcast, one after the other; one tensor is its own sum."""
        total = terms[0]
        for term in terms[1:]:
            node = _combined("add", (total[1], term[1]))
            sums = [x[0] for x in (total, term) if self._is_sum(x, node.output_shape)]
            total = self._write(node, total, term)
            if sums:
                self._nested[total.place] = sums
        return total

    def _is_sum(self, x: Handle, shape: Shape) -> bool:
        """Whether x is a sum of this shape that may become part of another."""
        node = self._nodes[x[0]]
        return node.op == "add" and not node.attributes and node.output_shape == x[1] == shape

    def mul(self, *factors: Handle) -> Handle:
        """The product of tensors, broadcast."""
        return self._write(_combined("mul", tuple([factor[1] for factor in factors])), *factors)

    def zeros(self, x: Handle) -> Handle:
        """x * 0."""
        product = self._write(_zeros(x[1]), x)
        if self._nodes[x[0]] is self._nodes[product[0]]:
            self._nested[product[0]] = [x[0]]
        return product

    def max_pool(self, x: Handle, kernel: int, *, stride: int, padding: int = 0) -> Handle:
        """Max pooling over all axes from the third on."""
        return self._pool("max", x, kernel, stride, padding)

    def avg_pool(self, x: Handle, kernel: int, *, stride: int, padding: int = 0) -> Handle:
        """Average pooling over all axes from the third on."""
        return self._pool("avg", x, kernel, stride, padding)

    def _pool(self, kind: str, x: Handle, kernel: int, stride: int, padding: int) -> Handle:
        shape = (*x.shape[:2], *_spatial(x.shape, kernel, stride, padding))
        return self._write(_pool(kind, x.shape, kernel, stride, padding), x, shape=shape)

    def global_avg_pool(self, x: Handle, *, keep: bool = False) -> Handle:
        """The mean over all axes from the third on, which stay with length 1 on demand."""
        shape = x.shape[:2] + (1,) * (len(x.shape) - 2) * keep
        if prod(x.shape) == prod(shape):
            return self.reshape(x, shape)
        return self._write(_plain_to("global_avg_pool", x.shape, x.shape[:2]), x, shape=shape)

    def concat(self, parts: Sequence[Handle], axis: int = 1) -> Handle:
        """Tensors joined along an axis; one tensor is itself."""
        if len(parts) == 1:
            return parts[0]
        return self._write(_concat(tuple([part[1] for part in parts]), axis), *parts)

    def slice(self, x: Handle, *ranges: tuple[int, int, int, int]) -> Handle:
        """The part of x in (axis, start, stop, step) ranges; `stop` is one past the last taken."""
        return self._write(_slice(x.shape, ranges), x)

    def pad(self, x: Handle, *amounts: tuple[int, int, int]) -> Handle:
        """x with (axis, before, after) zeros."""
        return self._write(_pad(x.shape, amounts), x)

    def resize(self, x: Handle, size: Sequence[int], mode: str) -> Handle:
        """x with its axes from the third on resized; as it is where it has the size already."""
        if x.shape[2:] == tuple(size):
            return x
        return self._write(_resize(x.shape, tuple(size), mode), x)

    # --- the end -------------------------------------------------------------------------------

    def graph(self) -> ComputeGraph:
        """The graph of what the outputs depend on.

        A sum that only a sum reads is part of that one, x * 0 that only its product with 0 reads is
        that one, and a convolution or linear layer that its normalisation alone reads takes it in.

        Raises:
            GraphError: There is no output.
        """
        if not self._n_outputs:
            raise GraphError("a graph must have an output, but none was written.")
        nodes, inputs = self._nodes, self._inputs
        uses = [0] * len(nodes)
        for place in range(len(nodes) - 1, -1, -1):
            if uses[place] or nodes[place].op == "output":
                for source in inputs[place]:
                    uses[source] += 1
        gone = {p for p, n in enumerate(uses) if not n and nodes[p].op not in ("input", "output")}
        joined = {
            place: inner
            for place, nested in sorted(self._nested.items())
            if place not in gone and (inner := {p for p in nested if uses[p] == 1})
        }
        if not gone and not joined:
            return ComputeGraph(nodes, inputs, names=self._names, tied=self._tied)
        nodes, inputs = nodes.copy(), inputs.copy()
        for place, inner in joined.items():
            if nodes[place].op == "batch_norm":
                (layer,) = inner
                nodes[place], inputs[place] = _normed(nodes[layer]), inputs[layer]
                gone.add(layer)
                continue
            shapes = list(nodes[place].input_shapes)
            read: list[int] = []
            for source in inputs[place]:
                if source in inner:
                    shapes.remove(nodes[source].output_shape)
                    shapes += nodes[source].input_shapes
                    read += inputs[source]
                else:
                    read.append(source)
            inputs[place] = tuple(read)
            if nodes[place].op == "add":
                nodes[place] = _combined("add", tuple(shapes))
            gone |= inner
        kept = [place for place in range(len(nodes)) if place not in gone]
        moved = dict(zip(kept, range(len(kept)), strict=True))
        tied: dict[int, int] = {}
        heirs: dict[int, int] = {}
        for place, first in self._tied.items():
            if place not in gone:
                holder = heirs.setdefault(first, place) if first in gone else first
                if holder != place:
                    tied[moved[place]] = moved[holder]
        return ComputeGraph(
            [nodes[place] for place in kept],
            [tuple([moved[source] for source in inputs[place]]) for place in kept],
            names=[self._names[place] for place in kept],
            tied=tied,
        )


# --- nodes: equal ones are one object ------------------------------------------------------------


def _spatial(shape: Shape, kernel: int, stride: int, padding: int) -> Shape:
    """Places of a window along the axes from the third on."""
    return tuple([(size + 2 * padding - kernel) // stride + 1 for size in shape[2:]])


@_cached
def _interned(node: Node) -> Node:
    return node


@_cached
def _conv(
    shape: Shape, out: int, kernel: int, stride: int, padding: int, groups: int, bias: bool
) -> Node:
    n = len(shape) - 2
    weight = (out, shape[1] // groups, *(kernel,) * n)
    return Node.make(
        "conv",
        [shape],
        (shape[0], out, *_spatial(shape, kernel, stride, padding)),
        weight_shape=weight,
        parameters=prod(weight) + bias * out,
        kernel=(kernel,) * n,
        stride=(stride,) * n,
        padding=((padding, padding),) * n,
        dilation=(1,) * n,
        groups=groups,
    )


@_cached
def _conv_transpose(
    shape: Shape, out: int, kernel: int, stride: int, padding: int, extra: int, bias: bool
) -> Node:
    n = len(shape) - 2
    weight = (shape[1], out, *(kernel,) * n)
    sides = [(size - 1) * stride - 2 * padding + kernel + extra for size in shape[2:]]
    return Node.make(
        "conv_transpose",
        [shape],
        (shape[0], out, *sides),
        weight_shape=weight,
        parameters=prod(weight) + bias * out,
        kernel=(kernel,) * n,
        stride=(stride,) * n,
        padding=((padding, padding),) * n,
        dilation=(1,) * n,
        groups=1,
    )


@_cached
def _linear(shape: Shape, out: int, bias: bool) -> Node:
    rows, features = prod(shape[:-1]), shape[-1]
    return Node.make(
        "linear",
        [(rows, features)],
        (rows, out),
        weight_shape=(out, features),
        parameters=(features + bias) * out,
    )


_NORMED: dict[int, tuple[Node, Node]] = {}
"""By its identity a layer, which is thereby kept alive, and the layer with its normalisation."""


def _normed(node: Node) -> Node:
    """A convolution or linear layer that has taken in its batch normalisation."""
    found = _NORMED.get(id(node))  # to hash a node takes longer than all the rest
    if found is None:
        if len(_NORMED) >= _MOST_NODES:
            _NORMED.clear()
        normed = replace(node, parameters=node.parameters + 2 * node.output_shape[1])
        found = _NORMED[id(node)] = (node, normed)
    return found[1]


@_cached
def _batch_norm(shape: Shape) -> Node:
    channels = shape[1]
    return Node("batch_norm", (), (shape,), shape, (channels,), 2 * channels)


@_cached
def _plain(op: str, shape: Shape) -> Node:
    return Node(op, (), (shape,), shape)


@_cached
def _combined(op: str, shapes: tuple[Shape, ...]) -> Node:
    rank = max(map(len, shapes))
    full = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return Node.make(op, shapes, [max(sizes) for sizes in zip(*full, strict=True)])


@_cached
def _input(shape: Shape) -> Node:
    return Node("input", output_shape=shape)


@_cached
def _zeros(shape: Shape) -> Node:
    return Node.make("mul", [shape], shape, operand="constant", value=0)


@_cached
def _pool(kind: str, shape: Shape, kernel: int, stride: int, padding: int) -> Node:
    n = len(shape) - 2
    out = (*shape[:2], *_spatial(shape, kernel, stride, padding))
    if shape[2:] == (kernel,) * n and not padding:
        return _plain_to(f"global_{kind}_pool", shape, shape[:2])
    attributes: dict[str, Any] = {
        "kernel": (kernel,) * n,
        "stride": (stride,) * n,
        "padding": ((padding, padding),) * n,
    }
    if kind == "max":
        attributes["dilation"] = (1,) * n
    return Node.make(f"{kind}_pool", [shape], out, **attributes)


@_cached
def _plain_to(op: str, shape: Shape, out: Shape) -> Node:
    return Node(op, (), (shape,), out)


@_cached
def _resize(shape: Shape, size: Shape, mode: str) -> Node:
    return Node("resize", (("mode", mode),), (shape,), (*shape[:2], *size))


@_cached
def _concat(shapes: tuple[Shape, ...], axis: int) -> Node:
    out = list(shapes[0])
    out[axis] = sum(shape[axis] for shape in shapes)
    return Node.make("concat", shapes, out, axis=axis)


@_cached
def _slice(shape: Shape, ranges: tuple[tuple[int, int, int, int], ...]) -> Node:
    out, tight = list(shape), []
    for axis, start, stop, step in ranges:
        taken = range(start, stop, step)
        out[axis] = len(taken)
        tight.append((axis, start, taken[-1] + 1, step))
    return Node.make("slice", [shape], out, ranges=tuple(tight))


@_cached
def _pad(shape: Shape, amounts: tuple[tuple[int, int, int], ...]) -> Node:
    out = list(shape)
    for axis, before, after in amounts:
        out[axis] += before + after
    return Node.make("pad", [shape], out, padding=amounts, mode="constant")
