"""Cuts an ONNX model: its constants, and the numbers that say how many channels there are.

A count of channels stands as an attribute (`group`), as a constant (the target of a Reshape), or is
computed from the shape of a tensor while the model runs. The first two are written anew. What is
computed follows by itself where it comes from a channel axis; where it does not, such as a product
of the batch and a number, it is multiplied by the new number and divided by the old one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from nni_aiop.errors import GraphError
from nni_aiop.graphs._types import Shape
from nni_aiop.graphs.doors.onnx import ARITHMETIC, captured_by, computed, domain_of
from nni_aiop.graphs.edits import Marks
from nni_aiop.networks._pass import entry_of
from nni_aiop.networks._removal import Removal
from nni_aiop.networks.onnx._pass import Held, OnnxPass
from nni_aiop.networks.onnx._protos import (
    all_nodes,
    copied,
    in_the_order_of,
    names_in,
    names_read,
    option,
    refill,
    set_option,
    set_value,
    shown,
    tensor_copy,
)

__all__ = ["OnnxCut"]

Rewrite = Callable[["OnnxCut", int, NodeProto], None]
_REWRITES: dict[str, Rewrite] = {}
_rewrites = entry_of(_REWRITES)

Keeps = tuple["NDArray[np.bool_] | None", ...]
"""Of every axis of a tensor which entries stay, None where all do."""


class OnnxCut(Removal):
    """What goes from a model.

    Args:
        labels: Of the model as it is.
        removed: (labels,) whether a label goes.
        model: The model, which is changed.
    """

    def __init__(self, labels: OnnxPass, removed: NDArray[np.bool_], model: ModelProto) -> None:
        super().__init__(removed)
        self.labels = labels
        self.model = model
        graph = model.graph
        self._nodes = in_the_order_of(labels.nodes, graph)
        self._names = names_in(graph)
        self._changed: dict[str, NDArray[Any]] = {}
        self._before: dict[int, list[NodeProto]] = {}

    def apply(self) -> None:
        """Cuts the model."""
        for at, node in enumerate(self._nodes):
            self._follow(at, node)
        self._cut_constants()
        self._write_nodes()
        self._restate()

    # --- numbers ---------------------------------------------------------------------------------

    def new_shape(self, name: str) -> Shape:
        """The shape of a tensor after the cut."""
        marks = self.labels.marks.get(name)
        if not isinstance(marks, Marks):
            return self.labels.tensors[name].shape
        return tuple(self.length(marks, axis) for axis in range(len(marks.shape)))

    def now(self, name: str) -> NDArray[Any] | None:
        """What a tensor of numbers comes to be if nothing but sizes changes, None if not known."""
        if name in self._changed:
            return self._changed[name]
        known = self.labels.tensors.get(name)
        return None if known is None else known.read()

    def _follow(self, at: int, node: NodeProto) -> None:
        """Lets one node do with smaller tensors what it did before."""
        rewrite = None if domain_of(node.domain) else _REWRITES.get(node.op_type)
        if rewrite is not None:
            rewrite(self, at, node)
        if domain_of(node.domain) or not node.output:
            return
        if node.op_type in ("Shape", "Size"):
            self._computed_shape(node)
            return
        if rewrite is not None and not self._is_whole(node):
            return  # it has been told what to read
        touched = [place for place, name in enumerate(node.input) if name in self._changed]
        if not touched:
            return
        if node.op_type in ARITHMETIC and self._is_whole(node):
            self._recompute(node)
            return
        for place in touched:
            # Such as the scale of attention, which stays what it was.
            old = self.labels.tensors[node.input[place]].read()
            if old is not None and node.input[place] in self._changed:
                self.demand(at, node, place, old)

    def _computed_shape(self, node: NodeProto) -> None:
        known = self.labels.tensors[node.output[0]]
        old = known.read()
        if old is None:
            return
        new_shape = self.new_shape(node.input[0])
        if node.op_type == "Size":
            new = np.asarray(int(np.prod(new_shape)), old.dtype)
        else:
            part = {a.name: a.i for a in node.attribute}
            new = np.asarray(new_shape[slice(part.get("start", 0), part.get("end"))], old.dtype)
        if not np.array_equal(new, old):
            self._changed[node.output[0]] = new

    def _is_whole(self, node: NodeProto) -> bool:
        """Whether a node makes whole numbers that are known."""
        for name in node.output:
            known = self.labels.tensors.get(name) if name else None
            if known is None or not known.constant:
                return False
            data = known.read()
            if data is None or data.dtype.kind not in "iub":
                return False
        return True

    def _recompute(self, node: NodeProto) -> None:
        feeds = {}
        for name in node.input:
            if name:
                data = self.now(name)
                if data is None:
                    return
                feeds[name] = data
        results = computed(node, feeds, list(self.model.opset_import))
        if results is None:
            raise GraphError(
                f"a size must be one that onnx can work out, but that of {shown(node)} is not."
            )
        for name, new in zip(node.output, results, strict=False):
            old = self.labels.tensors[name].read()
            if old is not None and not np.array_equal(new, old):
                self._changed[name] = new

    def demand(
        self, at: int, node: NodeProto, place: int, wanted: NDArray[Any], *, fixed: bool = False
    ) -> None:
        """Lets an input of a node be these numbers.

        Args:
            at: The node's place.
            node: The node.
            place: Of the input.
            wanted: What it is to be, for the shapes that the model was read with.
            fixed: Whether it is that for any batch size.
        """
        name = node.input[place]
        now = self.now(name)
        if now is None or np.array_equal(now, wanted):
            return
        wanted = wanted.astype(now.dtype)
        if fixed or name not in self.labels.varying:
            node.input[place] = self.added(wanted, name)
            return
        if now.shape != wanted.shape or ((now == 0) & (wanted != 0)).any():
            raise GraphError(
                f"a size that is computed must be a multiple of what it is to be a multiple of, "
                f"but {shown(node)} reads {now.tolist()} for {wanted.tolist()}."
            )
        same = now == wanted
        times = self.added(np.where(same, 1, wanted).astype(now.dtype), name)
        by = self.added(np.where(same, 1, now).astype(now.dtype), name)
        product, quotient = self.free(name), self.free(name)
        self._before.setdefault(at, []).extend(
            [
                onnx.helper.make_node("Mul", [name, times], [product], name=product),
                onnx.helper.make_node("Div", [product, by], [quotient], name=quotient),
            ]
        )
        node.input[place] = quotient

    def sizes(self, at: int, node: NodeProto, place: int, axes: Sequence[int]) -> None:
        """Lets an input hold the lengths of some axes of the first output.

        Entries that say something else (0 and -1 of a Reshape, 1 of an Expand) stay.
        """
        if place >= len(node.input) or not node.input[place]:
            return
        marks, now = self.labels.marks.get(node.output[0]), self.now(node.input[place])
        old = self.labels.tensors[node.input[place]].read()
        if not isinstance(marks, Marks) or now is None or old is None:
            return
        wanted = now.copy()
        for entry, axis in enumerate(axes):
            if old[entry] == marks.shape[axis] and (old[entry] != 1 or marks.shape[axis] == 1):
                wanted[entry] = self.length(marks, axis)
        self.demand(at, node, place, wanted)

    # --- constants -------------------------------------------------------------------------------

    def free(self, like: str) -> str:
        """A name that no tensor has yet."""
        number = 1
        while (name := f"{like}_kept{number}") in self._names:
            number += 1
        self._names.add(name)
        return name

    def added(self, data: NDArray[Any], like: str) -> str:
        """The name of a new initialiser."""
        name = self.free(like)
        self.model.graph.initializer.append(numpy_helper.from_array(data, name))
        return name

    def _keeps(self, held: Held) -> Keeps:
        marks = held.marks
        return tuple(self.kept(marks, axis) for axis in range(len(marks.shape)))

    def _cut_constants(self) -> None:
        graph = self.model.graph
        readers = Counter(name for node in all_nodes(graph) for name in node.input)
        readers.update(name for node in graph.node for name in captured_by(node))
        readers.update(end.name for end in graph.output)
        wanted: dict[str, dict[tuple[bytes | None, ...], tuple[Keeps, list[Held]]]] = {}
        for held in self.labels.held.values():
            keeps = self._keeps(held)
            key = tuple(None if keep is None else keep.tobytes() for keep in keeps)
            own = wanted.setdefault(held.name, {}).setdefault(key, (keeps, []))
            own[1].append(held)
        initialisers = {tensor.name: tensor for tensor in graph.initializer}
        makers = {name: node for node in graph.node for name in node.output}
        for name, cuts in wanted.items():
            for key, (keeps, those) in cuts.items():
                if all(part is None for part in key):
                    continue
                source = initialisers.get(those[0].source)
                data = self._data(those[0], source, makers)
                for axis, keep in enumerate(keeps):
                    if keep is not None:
                        data = data.compress(keep, axis)
                places = [place for held in those for place in held.places]
                alone = readers[name] == len(places)
                if alone and name in initialisers:
                    refill(initialisers[name], data)
                elif alone and makers[name].op_type == "Constant":
                    set_value(makers[name], data)
                else:
                    made = self.added(data, name)
                    self._say_the_same(name, made)
                    for at, place in places:
                        self._nodes[at].input[place] = made

    def _say_the_same(self, name: str, made: str) -> None:
        """Says of a new tensor what the model says of another one, such as that it is learned."""
        for info in self.model.graph.value_info:
            if info.name == name:
                twin = self.model.graph.value_info.add()
                twin.CopyFrom(info)
                twin.name = made
                return

    def _data(
        self, held: Held, source: TensorProto | None, makers: dict[str, NodeProto]
    ) -> NDArray[Any]:
        if source is not None:
            return numpy_helper.to_array(source)
        maker = makers[held.source]
        if maker.op_type == "ConstantOfShape":
            values = [a.t for a in maker.attribute if a.name == "value"]
            fill = numpy_helper.to_array(values[0]).ravel()[0] if values else np.float32(0)
            return np.full(held.marks.shape, fill, np.asarray(fill).dtype)
        made = computed(maker, {}, list(self.model.opset_import))
        assert made is not None
        return made[0]

    # --- the model -------------------------------------------------------------------------------

    def _write_nodes(self) -> None:
        """Puts new nodes in their places, and leaves out what nobody reads any more."""
        graph = self.model.graph
        places = {id(node): at for at, node in enumerate(self._nodes)}
        before = {name for node in graph.node for name in node.output}
        nodes: list[NodeProto] = []
        for node in graph.node:
            nodes += self._before.get(places[id(node)], [])
            nodes.append(node)
        read = Counter(name for node in nodes for name in (*node.input, *captured_by(node)))
        read.update(end.name for end in graph.output)
        was_read = names_read(self.labels.nodes)
        while True:
            gone = [
                n for n in nodes
                if not any(read[name] for name in n.output)
                and any(name in was_read for name in n.output if name in before)
            ]  # fmt: skip
            if not gone:
                break
            for node in gone:
                read.subtract((*node.input, *captured_by(node)))
            held = {id(node) for node in gone}
            nodes = [node for node in nodes if id(node) not in held]
        copies = [copied(node) for node in nodes]
        del graph.node[:]
        graph.node.extend(copies)
        kept = [
            tensor_copy(tensor)
            for tensor in graph.initializer
            if read[tensor.name] > 0 or tensor.name not in was_read
        ]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        names = {tensor.name for tensor in kept}
        dropped = was_read - names - {name for node in copies for name in node.output}
        listed = [info for info in graph.input if info.name in dropped and not self._is_fed(info)]
        for info in listed:
            graph.input.remove(info)

    def _is_fed(self, info: onnx.ValueInfoProto) -> bool:
        return info.name in self.labels.varying

    def _restate(self) -> None:
        """Lets the shapes that the model states be those that there are."""
        graph = self.model.graph
        sizes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
        made = {name for node in graph.node for name in node.output}
        stays = []
        for info in (*graph.value_info, *graph.input):
            dims = info.type.tensor_type.shape.dim
            known = self.labels.tensors.get(info.name)
            new = sizes.get(info.name)
            if new is None and known is not None and len(known.shape) == len(dims):
                new = self.new_shape(info.name)
            old = known.shape if known is not None else new or ()
            for dim, size, before in zip(dims, new or (), old, strict=False):
                if dim.HasField("dim_value"):
                    dim.dim_value = size
                elif size != before:
                    dim.Clear()  # its name was that of the former size
        for info in graph.value_info:
            if info.name in made or info.name in sizes:
                copy = onnx.ValueInfoProto()
                copy.CopyFrom(info)
                stays.append(copy)
        del graph.value_info[:]
        graph.value_info.extend(stays)


# --- what says how many channels there are -------------------------------------------------------


@_rewrites("Reshape")
def _reshape(cut: OnnxCut, at: int, node: NodeProto) -> None:
    marks = cut.labels.marks.get(node.output[0])
    if not isinstance(marks, Marks):
        return
    if len(node.input) > 1:
        cut.sizes(at, node, 1, range(len(marks.shape)))


@_rewrites("Expand")
def _expand(cut: OnnxCut, at: int, node: NodeProto) -> None:
    marks = cut.labels.marks.get(node.output[0])
    target = cut.labels.tensors[node.input[1]]
    if isinstance(marks, Marks):
        first = len(marks.shape) - target.shape[0]
        cut.sizes(at, node, 1, range(first, len(marks.shape)))


@_rewrites("Resize", "Upsample")
def _resize(cut: OnnxCut, at: int, node: NodeProto) -> None:
    marks = cut.labels.marks.get(node.output[0])
    if isinstance(marks, Marks) and node.op_type == "Resize":
        axes = [int(a) for a in option(node, "axes", range(len(marks.shape)))]
        cut.sizes(at, node, 3, axes)


@_rewrites("Conv", "ConvTranspose")
def _conv(cut: OnnxCut, at: int, node: NodeProto) -> None:
    grid = cut.labels.groups.get(node.output[0])
    if grid is not None and cut.kept(grid, 0) is not None:
        set_option(node, "group", cut.length(grid, 0))


@_rewrites("GroupNormalization")
def _group_norm(cut: OnnxCut, at: int, node: NodeProto) -> None:
    grid = cut.labels.groups.get(node.output[0])
    if grid is not None and cut.kept(grid, 0) is not None:
        set_option(node, "num_groups", cut.length(grid, 0))


@_rewrites("Split")
def _split(cut: OnnxCut, at: int, node: NodeProto) -> None:
    source = cut.labels.of(at, 0)
    axis = int(option(node, "axis", 0)) % len(source.shape)
    if cut.kept(source, axis) is None:
        return
    sizes, start = [], 0
    for name in node.output:
        stop = start + cut.labels.tensors[name].shape[axis]
        sizes.append(cut.upto(source, axis, stop) - cut.upto(source, axis, start))
        start = stop
    if cut.labels.opset < 13:
        set_option(node, "split", sizes)
        return
    set_option(node, "num_outputs", None)
    name = cut.added(np.asarray(sizes, np.int64), node.output[0])
    del node.input[1:]
    node.input.append(name)


@_rewrites("Slice")
def _slice(cut: OnnxCut, at: int, node: NodeProto) -> None:
    source = cut.labels.of(at, 0)
    rank = len(source.shape)
    old = cut.labels.opset < 10
    ends = []
    for place, name in ((1, "starts"), (2, "ends")):
        if old:
            ends.append(np.asarray(option(node, name, ()), np.int64))
        else:
            ends.append(np.asarray(cut.labels.tensors[node.input[place]].read()))
    given = [int(n) for n in option(node, "axes", range(len(ends[0])))]
    if not old and len(node.input) > 3 and node.input[3]:
        given = np.asarray(cut.labels.tensors[node.input[3]].read()).ravel().tolist()
    axes = [axis % rank for axis in given]
    wide = [cut.kept(source, axis) is not None for axis in axes]
    new = [end.copy() for end in ends]
    for entry, axis in enumerate(axes):
        if wide[entry]:
            n = source.shape[axis]
            first, last, _ = slice(int(ends[0][entry]), int(ends[1][entry])).indices(n)
            new[0][entry] = cut.upto(source, axis, first)
            new[1][entry] = cut.upto(source, axis, max(first, last))
    for place, name in ((1, "starts"), (2, "ends")):
        if old:
            if any(wide):
                set_option(node, name, new[place - 1].tolist())
        else:
            cut.demand(at, node, place, new[place - 1], fixed=all(wide))


@_rewrites("Pad")
def _pad(cut: OnnxCut, at: int, node: NodeProto) -> None:
    marks = cut.labels.marks.get(node.output[0])
    if not isinstance(marks, Marks):
        return
    rank = len(marks.shape)
    old = cut.labels.opset < 11
    amounts = np.array(
        option(node, "pads", ()) if old else cut.labels.tensors[node.input[1]].read()
    )
    axes = list(range(rank))
    if not old and len(node.input) > 3 and node.input[3]:
        axes = np.asarray(cut.labels.tensors[node.input[3]].read()).ravel().tolist()
    changed = False
    for entry, axis in enumerate(axes):
        keep = cut.kept(marks, axis % rank)
        before, after = int(amounts[entry]), int(amounts[len(axes) + entry])
        if keep is not None and (before or after):
            amounts[entry] = int(keep[:before].sum())
            amounts[len(axes) + entry] = int(keep[len(keep) - after :].sum())
            changed = True
    if not changed:
        return
    if old:
        set_option(node, "pads", amounts.tolist())
    else:
        cut.demand(at, node, 1, amounts, fixed=True)


@_rewrites("Attention")
def _attention(cut: OnnxCut, at: int, node: NodeProto) -> None:
    """The scale stays that of the full width: what is left gives the same scores."""
    q = cut.labels.of(at, 0)
    axis = len(q.shape) - 1
    if cut.kept(q, axis) is not None and option(node, "scale", None) is None:
        set_option(node, "scale", float(q.shape[axis]) ** -0.5)
