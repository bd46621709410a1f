"""A program under edit, its tensors, and how a program is built from it."""

from __future__ import annotations

import copy
import operator
from typing import Any

from torch import Tensor, fx, nn

__all__ = ["Draft", "homes", "parameter_of", "program_of", "set_parameter"]


class Draft(nn.Module):
    """A program's operations, to be edited, over tables of their own that hold its tensors.

    Args:
        program: Is left as it is.

    Attributes:
        graph: The operations.
    """

    def __init__(self, program: fx.GraphModule) -> None:
        super().__init__()
        for path, part in program.named_modules(remove_duplicate=False):
            own = self if not path else _made(self, path)
            own._parameters.update(part._parameters)
            own._buffers.update(part._buffers)
            own._non_persistent_buffers_set.update(part._non_persistent_buffers_set)
        self.graph = fx.Graph()
        values: dict[fx.Node, fx.Node] = {}
        end = self.graph.graph_copy(program.graph, values)
        self.graph.output(end)

    def drop_unused(self) -> None:
        """Forgets parameters and buffers that no operation reads, but for counters of batches."""
        paths = {str(node.target) for node in self.graph.nodes if node.op == "get_attr"}
        kept = {id(parameter_of(self, path)) for path in paths}
        layers = {path.rpartition(".")[0] for path in paths}
        for table in ("_parameters", "_buffers"):
            for prefix, part in self.named_modules():
                for name, value in list(getattr(part, table).items()):
                    counts = name == "num_batches_tracked" and prefix in layers
                    if id(value) not in kept and not counts:
                        del getattr(part, table)[name]

    def built(self, memo: dict[int, Any] | None = None) -> fx.GraphModule:
        """The program, with tensors of its own."""
        graph, self.graph = self.graph, fx.Graph()
        tables = copy.deepcopy(self, memo)
        self.graph = graph
        return program_of(tables, graph)


def program_of(tables: nn.Module, graph: fx.Graph) -> fx.GraphModule:
    """Operations over the tensors of a module, also over those that none of them reads."""
    made = fx.GraphModule(tables, graph)
    made._parameters, made._buffers = tables._parameters, tables._buffers
    made._modules = tables._modules
    made._non_persistent_buffers_set = tables._non_persistent_buffers_set
    made.meta.clear()
    return made


def _made(root: nn.Module, path: str) -> nn.Module:
    """A part of a module by its path, made where it is not there."""
    for name in path.split("."):
        part = root._modules.get(name)
        if part is None:
            part = nn.Module()
            root._modules[name] = part
        root = part
    return root


def parameter_of(module: nn.Module, path: str) -> Tensor:
    """A parameter or buffer by its path."""
    value = operator.attrgetter(path)(module)
    assert isinstance(value, Tensor)
    return value


def set_parameter(module: nn.Module, path: str, value: Tensor) -> None:
    """Sets a parameter or buffer by its path, and by every other path that it has."""
    *parents, name = path.split(".")
    owner = module
    for parent in parents:
        owner = getattr(owner, parent)
    old = owner._parameters.get(name, owner._buffers.get(name))
    if isinstance(value, nn.Parameter):
        owner._parameters[name] = value
    elif name in owner._buffers:
        owner._buffers[name] = value
    else:
        owner.register_buffer(name, value)
    if old is not None:
        for table, other in homes(module).get(id(old), ()):
            table[other] = value


def homes(module: nn.Module) -> dict[int, list[tuple[dict[str, Any], str]]]:
    """By identity of each parameter and buffer the tables that hold it, with its names there."""
    found: dict[int, list[tuple[dict[str, Any], str]]] = {}
    for part in module.modules():
        for table in (part._parameters, part._buffers):
            for name, held in table.items():
                found.setdefault(id(held), []).append((table, name))
    return found
