"""Edits of an exported network: operations go, parameters are cut, and numbers follow."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from nni_aiop.graphs.edits import Marks
from nni_aiop.networks._draft import Draft, homes, parameter_of
from nni_aiop.networks._pass import Pass, entry_of, packet_name
from nni_aiop.networks._removal import Removal

__all__ = [
    "Cut",
    "ancestors",
    "arguments_of",
    "bypass",
    "follows_mode",
    "mark_modes",
    "mode_of",
    "set_arguments",
]

_aten = torch.ops.aten


class Cut(Removal):
    """What goes from a network.

    Args:
        labels: Of the network as it is.
        removed: (labels,) whether a label goes.
    """

    def __init__(self, labels: Pass, removed: NDArray[np.bool_]) -> None:
        super().__init__(removed)
        self._labels = labels

    def apply(self, draft: Draft) -> None:
        """Cuts the parameters of a draft of the network, and lets its numbers follow."""
        tables = homes(draft)
        for node in draft.graph.nodes:
            marks = self._labels.marks.get(node.name)
            if node.op == "get_attr" and isinstance(marks, Marks):
                old = parameter_of(draft, str(node.target))
                if old is not (new := self._cut(old, marks)):
                    for table, name in tables[id(old)]:
                        table[name] = new
            elif node.op == "call_function":
                rewrite = _REWRITES.get(packet_name(node))
                if rewrite is not None and node.name in self._labels.marks:
                    rewrite(self, node)

    def _cut(self, old: Tensor, marks: Marks) -> Tensor:
        """A parameter or buffer after the cut, itself where all of it stays."""
        if old.shape != marks.shape:
            return old  # it was cut by another of its names
        value = old.detach()
        for axis in range(value.dim()):
            keep = self.kept(marks, axis)
            if keep is not None:
                index = torch.from_numpy(np.flatnonzero(keep)).to(value.device)
                value = value.index_select(axis, index)
        if value.shape == old.shape:
            return old
        new = value.clone(memory_format=torch.contiguous_format)
        return nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new

    # --- numbers ---------------------------------------------------------------------------------

    def marks(self, node: Any) -> Marks:
        """The marks of a tensor of the network as it was."""
        return self._labels.of(node)

    def size(self, marks: Marks, axis: int, given: Any) -> Any:
        """A size argument for an axis after the cut."""
        keep = self.kept(marks, axis)
        if keep is None or given == -1:
            return given
        count = int(keep.sum())
        if not isinstance(given, fx.Node):
            return count
        # A size that is computed, such as batch x heads, changes in proportion.
        graph = given.graph
        with graph.inserting_after(given):
            times = graph.call_function(operator.mul, (given, count))
        with graph.inserting_after(times):
            return graph.call_function(operator.floordiv, (times, len(keep)))

    def groups(self, node: fx.Node, given: int) -> int:
        """The number of groups of a grouped operation after the cut."""
        grid = self._labels.groups.get(node.name)
        return given if grid is None else int(self.size(grid, 0, given))


def arguments_of(node: fx.Node) -> dict[str, Any]:
    """The arguments of an ATen operation by name, defaults included."""
    target = node.target
    assert isinstance(target, torch._ops.OpOverload)
    found: dict[str, Any] = {}
    for place, argument in enumerate(target._schema.arguments):
        if place < len(node.args):
            found[argument.name] = node.args[place]
        elif argument.name in node.kwargs:
            found[argument.name] = node.kwargs[argument.name]
        else:
            found[argument.name] = argument.default_value if argument.has_default_value() else None
    return found


def set_arguments(node: fx.Node, **values: Any) -> None:
    """Sets arguments of an ATen operation by name."""
    target = node.target
    assert isinstance(target, torch._ops.OpOverload)
    args, kwargs = list(node.args), dict(node.kwargs)
    names = [argument.name for argument in target._schema.arguments]
    for name, value in values.items():
        place = names.index(name)
        if place < len(args):
            args[place] = value
        else:
            kwargs[name] = value
    node.args, node.kwargs = tuple(args), kwargs


_MODES = {
    "batch_norm": "training",
    "instance_norm": "use_input_stats",
    "dropout": "train",
    "feature_dropout": "train",
    "alpha_dropout": "train",
    "feature_alpha_dropout": "train",
}
"""Operations that do otherwise in training, and the argument that says so."""


def mode_of(node: fx.Node) -> str | None:
    """The argument by which an operation does otherwise in training."""
    return _MODES.get(packet_name(node)) if node.op == "call_function" else None


def follows_mode(node: fx.Node) -> bool:
    """Whether an operation does otherwise in training, and not what it does there always."""
    return mode_of(node) is not None and not node.meta.get("always")


def mark_modes(graph: fx.Graph) -> None:
    """Marks what does in evaluation what others do in training: dropout, norms without memory."""
    for node in graph.nodes:
        flag = mode_of(node)
        if flag is not None and arguments_of(node)[flag]:
            node.meta["always"] = True


Rewrite = Callable[[Cut, fx.Node], None]
_REWRITES: dict[str, Rewrite] = {}


_rewrites = entry_of(_REWRITES)


@_rewrites("view", "reshape", "_unsafe_view", "expand", "broadcast_to")
def _sizes(cut: Cut, node: fx.Node) -> None:
    sizes = node.args[1]
    assert isinstance(sizes, (list, tuple))
    marks = cut.marks(node)
    new = [cut.size(marks, axis, size) for axis, size in enumerate(sizes)]
    node.args = (node.args[0], new, *node.args[2:])


@_rewrites("unflatten")
def _unflatten(cut: Cut, node: fx.Node) -> None:
    given = arguments_of(node)
    marks = cut.marks(node)
    lead = len(marks.shape) - len(given["sizes"])
    axis = given["dim"]
    axis = axis if axis >= 0 else axis + lead + 1
    sizes = [cut.size(marks, axis + i, size) for i, size in enumerate(given["sizes"])]
    set_arguments(node, sizes=sizes)


@_rewrites("layer_norm", "rms_norm", "_fused_rms_norm")
def _normalised(cut: Cut, node: fx.Node) -> None:
    given, marks = node.args[1], cut.marks(node)
    assert isinstance(given, (list, tuple))
    first = len(marks.shape) - len(given)
    new = [cut.size(marks, first + i, n) for i, n in enumerate(given)]
    node.args = (node.args[0], new, *node.args[2:])


@_rewrites("group_norm")
def _group_norm(cut: Cut, node: fx.Node) -> None:
    set_arguments(node, num_groups=cut.groups(node, arguments_of(node)["num_groups"]))


@_rewrites("conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d", "conv_transpose2d",
           "conv_transpose3d")  # fmt: skip
def _conv(cut: Cut, node: fx.Node) -> None:
    groups = arguments_of(node)["groups"]
    if groups > 1:
        set_arguments(node, groups=cut.groups(node, groups))


@_rewrites("split", "split_with_sizes", "chunk", "tensor_split")
def _split(cut: Cut, node: fx.Node) -> None:
    source = cut.marks(node.args[0])
    axis = int(arguments_of(node)["dim"]) % len(source.shape)
    if cut.kept(source, axis) is None:
        return
    parts = cut._labels.shapes[node.name]
    sizes, start = [], 0
    for shape in parts:
        stop = start + shape[axis]
        sizes.append(cut.upto(source, axis, stop) - cut.upto(source, axis, start))
        start = stop
    node.target = _aten.split_with_sizes.default
    node.args, node.kwargs = (node.args[0], sizes, axis), {}


@_rewrites("slice")
def _slice(cut: Cut, node: fx.Node) -> None:
    source, given = cut.marks(node.args[0]), arguments_of(node)
    axis = int(given["dim"]) % len(source.shape)
    if cut.kept(source, axis) is None:
        return
    n = source.shape[axis]
    start, end, _ = slice(given["start"], given["end"], given["step"]).indices(n)
    set_arguments(node, start=cut.upto(source, axis, start), end=cut.upto(source, axis, end))


@_rewrites("narrow")
def _narrow(cut: Cut, node: fx.Node) -> None:
    source, given = cut.marks(node.args[0]), arguments_of(node)
    axis = int(given["dim"]) % len(source.shape)
    if cut.kept(source, axis) is None:
        return
    first = cut.upto(source, axis, given["start"])
    last = cut.upto(source, axis, given["start"] + given["length"])
    set_arguments(node, start=first, length=last - first)


@_rewrites("pad", "constant_pad_nd")
def _pad(cut: Cut, node: fx.Node) -> None:
    marks = cut.marks(node)
    amounts = list(node.args[1])  # type: ignore[arg-type]
    for place in range(len(amounts) // 2):
        axis = len(marks.shape) - 1 - place
        keep = cut.kept(marks, axis)
        if keep is not None:
            before, after = amounts[2 * place], amounts[2 * place + 1]
            amounts[2 * place] = int(keep[:before].sum())
            amounts[2 * place + 1] = int(keep[len(keep) - after :].sum())
    node.args = (node.args[0], amounts, *node.args[2:])


@_rewrites("scaled_dot_product_attention")
def _attention(cut: Cut, node: fx.Node) -> None:
    """The scale stays that of the full width: what is left gives the same scores."""
    q = cut.marks(node.args[0])
    axis = len(q.shape) - 1
    if cut.kept(q, axis) is not None and node.kwargs.get("scale") is None:
        node.kwargs = {**node.kwargs, "scale": q.shape[axis] ** -0.5}


def ancestors(node: fx.Node) -> set[fx.Node]:
    """What a value depends on, itself included."""
    found: set[fx.Node] = set()
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += one.all_input_nodes
    return found


def bypass(graph: fx.Graph, last: fx.Node, term: str, inside: Sequence[str]) -> None:
    """Leaves a term out of a sum or product.

    Args:
        graph: Of the network.
        last: The sum, of which earlier ones may be a part.
        term: Name of the operation whose result is the term.
        inside: Names of the operations that go with it.
    """
    current = last
    while True:
        terms = [a for a in current.args[:2] if isinstance(a, fx.Node)]
        of = [term in {node.name for node in ancestors(a)} for a in terms]
        place = of.index(True)
        inner, other = terms[place], terms[1 - place]
        names = {node.name for node in ancestors(inner)}
        within = inner.name in inside or not _is_sum(inner)
        if within or not names - set(inside) or _all_inside(inner, term, inside):
            current.replace_all_uses_with(other)
            return
        current = inner


def _is_sum(node: fx.Node) -> bool:
    return node.op == "call_function" and packet_name(node) in ("add", "sub")


def _all_inside(node: fx.Node, term: str, inside: Sequence[str]) -> bool:
    """Whether a sum is computed from the term alone, beside constants."""
    return all(
        not isinstance(a, fx.Node) or a.op == "get_attr" or term in {n.name for n in ancestors(a)}
        for a in node.args[:2]
    )
