"""Every shape of a graph as a function of kept widths: edited graphs, and costs by the thousand.

The shapes of an edited graph follow from how many units of each group are kept (`Coupling.form`).
With whole numbers the plan writes the edited graph; with a tensor of candidates it writes every
node's cost by the same formulas (`_costs.node_cost`), differentiable in the widths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd, prod
from typing import TYPE_CHECKING, Any

from nni_aiop.graphs._node import Node
from nni_aiop.graphs._types import GraphLike, NodeLike
from nni_aiop.graphs.edits._coupling import Coupling, Form
from nni_aiop.graphs.edits._polynomial import Polynomial
from nni_aiop.graphs.edits._rules import Traced
from nni_aiop.graphs.edits._structure import DENSE, LAYERS, rank_of

if TYPE_CHECKING:
    import torch

__all__ = ["Forms", "NodePlan", "Size", "node_plan", "variant"]

Size = Any
"""A whole number, or place of a form, as `_Place`."""


@dataclass(frozen=True)
class _Place:
    """A size that depends on widths: the place of its form."""

    at: int


class Forms:
    """The different forms of a graph, evaluated together."""

    def __init__(self) -> None:
        self._places: dict[tuple[tuple[tuple[int, ...], int], ...], int] = {}
        self._forms: list[Form] = []

    def size(self, form: Form) -> Size:
        """The number where a form is constant, else its place."""
        if set(form) <= {()}:
            return form.get((), 0)
        key = tuple(sorted(form.items()))
        if key not in self._places:
            self._places[key] = len(self._forms)
            self._forms.append(form)
        return _Place(self._places[key])

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._forms)

    def numbers(self, kept: Sequence[int]) -> list[int]:
        """Every form for one candidate: kept units of each group."""
        return [
            sum(factor * prod(kept[group] for group in groups) for groups, factor in form.items())
            for form in self._forms
        ]

    def tensors(self, kept: torch.Tensor) -> list[torch.Tensor]:
        """Every form (n,) for candidates (n, groups)."""
        found = []
        for form in self._forms:
            total: Any = 0
            for groups, factor in form.items():
                term: Any = factor
                for group in groups:
                    term = kept[:, group] * term
                total = total + term
            found.append(total)
        return found


def _filled(sizes: Any, values: Sequence[Any]) -> Any:
    if isinstance(sizes, tuple):
        return tuple(_filled(size, values) for size in sizes)
    return values[sizes.at] if isinstance(sizes, _Place) else sizes


def _varies(sizes: Any) -> bool:
    if isinstance(sizes, tuple):
        return any(map(_varies, sizes))
    return isinstance(sizes, _Place)


@dataclass(frozen=True)
class NodePlan:
    """One node, its numbers being sizes.

    Attributes:
        node: As it is.
        input_shapes: As the node sees its inputs, in the order of `Node.input_shapes`.
        output_shape: Of what comes out.
        weight_shape: Of the weight.
        attributes: By name.
        bare: Whether it holds its weight and nothing else: the first half of what was one layer.
        heads: Of attention, how many may go one by one.
        changed: Whether it is another one than the node even at full widths.
    """

    node: NodeLike
    input_shapes: tuple[tuple[Size, ...], ...]
    output_shape: tuple[Size, ...]
    weight_shape: tuple[Size, ...] | None
    attributes: tuple[tuple[str, Any], ...]
    bare: bool = False
    heads: int = 0
    changed: bool = False

    @property
    def varies(self) -> bool:
        """Whether anything depends on widths."""
        return _varies((self.input_shapes, self.output_shape, self.weight_shape or ())) or (
            _varies(tuple(value for _, value in self.attributes))
        )

    def view(self, values: Sequence[Any]) -> Any:
        """The node with numbers or tensors for sizes: what cost formulas read (`NodeView`)."""
        node = self.node
        output = _filled(self.output_shape, values)
        weight = None if self.weight_shape is None else _filled(self.weight_shape, values)
        return NodeView(
            node.op,
            _filled(self.attributes, values),
            _filled(self.input_shapes, values),
            output,
            weight,
            prod(weight or ()) if self.bare else _parameters(node, output, weight, self.heads),
        )

    def made(self, values: Sequence[int]) -> Node:
        """The node for one candidate's numbers."""
        if not self.varies and not self.changed:
            assert isinstance(self.node, Node)
            return self.node
        view = self.view(values)
        return Node.make(
            view.op,
            view.input_shapes,
            view.output_shape,
            weight_shape=_shown(view.op, view.weight_shape),
            parameters=view.parameters,
            **dict(view.attributes),
        )


def _shown(op: str, weight: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """The shape of a weight as a graph shows it: that of a term without lengths of 1 around it."""
    if weight is None or op not in ("add", "mul", "elementwise", "concat"):
        return weight
    wide = [axis for axis, n in enumerate(weight) if n > 1]
    return weight[wide[0] : wide[-1] + 1] if wide else None


@dataclass(frozen=True)
class NodeView:
    """What cost formulas read of a node, numbers being tensors where they depend on widths."""

    op: str
    attributes: tuple[tuple[str, Any], ...]
    input_shapes: tuple[Any, ...]
    output_shape: Any
    weight_shape: Any
    parameters: Any

    def __getitem__(self, attribute: str) -> Any:
        return dict(self.attributes)[attribute]

    def get(self, attribute: str, default: Any = None) -> Any:
        return dict(self.attributes).get(attribute, default)


def _parameters(node: NodeLike, output: Any, weight: Any, heads: int) -> Any:
    """Learned numbers: of the weight, and as many for each channel as there were beside it."""
    old, before = node.parameters, node.weight_shape
    if not old:
        return 0
    if before is None or weight is None:
        if heads and old % heads == 0:
            return _scaled(old, output[-3], node.output_shape[-3])  # a position bias of each head
        return old
    count = prod(before)
    if node.op in LAYERS and old >= count:
        axis = 1 if node.op != "linear" else -1
        channels = node.output_shape[axis]
        each, rest = divmod(old - count, channels)
        return prod(weight) + each * output[axis] + rest
    times, rest = divmod(old, count)
    if times or not rest:
        return prod(weight) * times + rest
    return old


def _scaled(count: int, now: Any, before: int) -> Any:
    """A count in proportion to a size, which may be that of several axes in one."""
    if isinstance(now, Polynomial):
        return now.scaled(count, before)
    return count * now // before if isinstance(now, int) else count * now / before


def _heads(node: NodeLike, out: Any, coupling: Coupling) -> int:
    """How many heads of attention may go one by one; beside them windows may stand in one axis."""
    if node.op != "attention" or len(node.output_shape) < 3 or not out.layers:
        return 0
    axis = len(node.output_shape) - 3
    return node.output_shape[axis] // gcd(*coupling.form(out, axis).values())


def node_plan(
    graph: GraphLike, place: int, traced: Traced, coupling: Coupling, forms: Forms
) -> NodePlan:
    """The plan of one node."""
    node = graph.nodes[place]
    form = coupling.form

    def sizes(marks: Any) -> tuple[Size, ...]:
        if not marks.layers:
            return tuple(marks.shape)
        return tuple(forms.size(form(marks, axis)) for axis in range(len(marks.shape)))

    inputs = [sizes(marks) for marks in traced.inputs]
    attributes = dict(node.attributes)
    weight: tuple[Size, ...] | None = node.weight_shape
    if traced.weight is not None:
        weight = sizes(traced.weight)
    if traced.groups is not None:
        groups, each = (forms.size(form(traced.groups, axis)) for axis in (0, 1))
        attributes["groups"] = groups
        if node.op in ("conv", "conv_transpose") and weight is not None:
            weight = (weight[0], each, *weight[2:])
            if node.op == "conv_transpose":
                weight = (inputs[0][1], each, *weight[2:])
    if node.op == "slice":
        attributes["ranges"] = tuple(
            _range(row, traced, coupling, forms) for row in attributes["ranges"]
        )
    if node.op == "pad":
        attributes["padding"] = tuple(
            _ends(row, traced, coupling, forms) for row in attributes["padding"]
        )
    return NodePlan(
        node,
        tuple(inputs),
        sizes(traced.out),
        weight,
        tuple(sorted(attributes.items())),
        heads=_heads(node, traced.out, coupling),
    )


def variant(plan: NodePlan, option: object) -> list[NodePlan]:
    """One or two layers that take the place of a layer, see `Structure.options`."""
    if option in (DENSE, plan.node.get("kernel", (None,))[0]):
        return [plan]
    weight, attributes = plan.weight_shape, dict(plan.attributes)
    assert weight is not None
    if option == "1x1" or isinstance(option, int):
        return [_cropped(plan, 1 if option == "1x1" else int(option))]
    inner = plan.input_shapes[0][1] if option == "separable" else rank_of(
        plan.node.weight_shape or (), str(option)
    )  # fmt: skip
    ones = (1,) * (len(weight) - 2)
    if plan.node.op == "linear":
        middle = (plan.output_shape[0], inner)
        first = replace(plan, output_shape=middle, weight_shape=(inner, weight[1]), bare=True)
        last = replace(plan, input_shapes=(middle,), weight_shape=(weight[0], inner))
        return [replace(part, changed=True) for part in (first, last)]
    middle = (plan.output_shape[0], inner, *plan.output_shape[2:])
    each = 1 if option == "separable" else weight[1]
    groups = inner if option == "separable" else 1
    first = replace(
        plan,
        output_shape=middle,
        weight_shape=(inner, each, *weight[2:]),
        attributes=tuple(sorted({**attributes, "groups": groups}.items())),
        bare=True,
    )
    plain = {
        "kernel": ones, "stride": ones, "dilation": ones, "groups": 1,
        "padding": tuple((0, 0) for _ in ones),
    }  # fmt: skip
    last = replace(
        plan,
        input_shapes=(middle,),
        weight_shape=(weight[0], inner, *ones),
        attributes=tuple(sorted(plain.items())),
    )
    return [replace(part, changed=True) for part in (first, last)]


def _cropped(plan: NodePlan, size: int) -> NodePlan:
    attributes, weight = dict(plan.attributes), plan.weight_shape
    assert weight is not None
    cut = [
        d * (k - size) // 2
        for k, d in zip(attributes["kernel"], attributes["dilation"], strict=True)
    ]
    attributes["kernel"] = (size,) * len(cut)
    attributes["padding"] = tuple(
        (before - n, after - n)
        for (before, after), n in zip(attributes["padding"], cut, strict=True)
    )
    return replace(
        plan,
        weight_shape=(*weight[:2], *attributes["kernel"]),
        attributes=tuple(sorted(attributes.items())),
        changed=True,
    )


def _range(row: Sequence[int], traced: Traced, coupling: Coupling, forms: Forms) -> Any:
    axis, start, stop, step = row
    marks = traced.inputs[0]
    if step != 1 or not marks.varying(axis):
        return tuple(row)
    first, last = (forms.size(coupling.form(marks, axis, n)) for n in (start, stop))
    return (axis, first, last, step)


def _ends(row: Sequence[int], traced: Traced, coupling: Coupling, forms: Forms) -> Any:
    axis, before, after = row
    marks = traced.out
    if not marks.varying(axis):
        return tuple(row)
    inner = marks.shape[axis] - after
    first = coupling.form(marks, axis, before)
    whole, most = coupling.form(marks, axis), coupling.form(marks, axis, inner)
    last = {key: whole.get(key, 0) - most.get(key, 0) for key in {*whole, *most}}
    return (axis, forms.size(first), forms.size({k: n for k, n in last.items() if n}))
