"""The label pass over an exported network: which channels of its tensors go together.

It is the pass of `graphs/edits` over ATen operations, in the layout of the real network: parameters
have labels, too, one layer an axis, so that what goes from a tensor goes from every parameter. What
has no rule freezes what it touches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import fx

from nni_aiop.graphs.edits import Coupler, Marks, along

__all__ = ["RULES", "Pass", "argument", "entry_of", "packet_name", "path_of", "rule_of"]

Rule = Callable[["Pass", fx.Node, tuple[Any, ...], dict[str, Any]], Any]
T = TypeVar("T")


def packet_name(node: fx.Node) -> str:
    """The name of an ATen operation without overload and underscore, "getitem" and the like."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        name = str(target._overloadpacket.__name__)
        return name[:-1] if name.endswith("_") and not name.startswith("_") else name
    return str(getattr(target, "__name__", target))


def path_of(node: fx.Node) -> str:
    """The path of the module that an operation comes from, its own name where there is none."""
    path = node.meta.get("path")
    if isinstance(path, str):
        return path
    stack = node.meta.get("nn_module_stack") or {}
    paths = [str(entry[0]) for entry in stack.values() if str(entry[0])]
    return paths[-1] if paths else node.name


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
            self.coupler.begin(f"{path_of(node)} ({packet_name(node)})")
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
            if shape[axis] > 1:
                layers.append(along(len(shape), axis, self.coupler.fresh(shape[axis])))
        return Marks(shape, layers)


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


def entry_of(table: dict[str, T]) -> Callable[..., Callable[[T], T]]:
    """A decorator that enters a function into a table by names of operations."""

    def names_of(*names: str) -> Callable[[T], T]:
        def enter(function: T) -> T:
            table.update(dict.fromkeys(names, function))
            return function

        return enter

    return names_of


rule_of = entry_of(RULES)


def argument(
    args: Sequence[Any], kwargs: Mapping[str, Any], place: int, name: str, default: Any
) -> Any:
    return args[place] if place < len(args) else kwargs.get(name, default)
