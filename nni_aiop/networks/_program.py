"""An exported network as a program of ATen operations: cleaned, run step by step, and recorded."""

from __future__ import annotations

import logging
import operator
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils import _pytree as pytree

from nni_aiop.errors import GraphError
from nni_aiop.files import brief
from nni_aiop.graphs import ComputeGraph, from_module
from nni_aiop.networks._draft import program_of
from nni_aiop.networks._pass import packet_name, path_of
from nni_aiop.networks._surgery import mark_modes

__all__ = ["batched", "cleaned", "exported", "record", "with_momentum", "without_unread"]

_ASSERTIONS = frozenset(
    {"_assert_tensor_metadata", "_assert_scalar", "sym_constrain_range_for_size",
     "sym_constrain_range", "_guards_fn"}
)  # fmt: skip


def exported(model: nn.Module, example: Sequence[Tensor]) -> fx.GraphModule:
    """A copy of a model as ATen operations, in evaluation mode, for any batch size.

    Raises:
        GraphError: PyTorch cannot export the model, or only for the example's batch size.
    """
    inputs = batched(example)
    try:
        return _plain(cleaned(_traced(model, inputs, strict=False)))
    except GraphError as err:
        # The other way reads the model's Python, and follows a batch size through `len` and `int`.
        try:
            return _plain(cleaned(_traced(model, inputs, strict=True)))
        except GraphError:
            raise err from err.__cause__


def with_momentum(model: nn.Module) -> None:
    """Gives norms that average over all batches a momentum: their step is no constant."""
    for path, part in model.named_modules():
        if isinstance(part, _NormBase) and part.track_running_stats and part.momentum is None:
            part.momentum = 0.1
            warnings.warn(
                f"{path} averages its statistics over all batches (momentum=None): in the network "
                "they follow with a momentum of 0.1.",
                stacklevel=3,
            )


def _traced(model: nn.Module, inputs: tuple[Tensor, ...], *, strict: bool) -> fx.GraphModule:
    """The program of a model for any batch size, by one of the two ways of torch.export."""
    dynamic = tuple({0: torch.export.Dim.AUTO} for _ in inputs)
    log = logging.getLogger("torch.export")  # it repeats there what it raises
    level, fast = log.level, torch.backends.mha.get_fastpath_enabled()
    log.setLevel(logging.CRITICAL)
    # PyTorch's transformer layers else become one operation of inference only.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")
            program = torch.export.export(model, inputs, dynamic_shapes=dynamic, strict=strict)
            module = program.module(check_guards=False)
    except Exception as err:
        said = (str(err).strip() or "nothing").splitlines()[0]
        raise GraphError(
            f"a network to edit must be one that torch.export takes, but {type(model).__name__} "
            f"raised {type(err).__name__}: {brief(said).rstrip('.')}."
        ) from err
    finally:
        log.setLevel(level)
        torch.backends.mha.set_fastpath_enabled(fast)
    assert isinstance(module, fx.GraphModule)
    fixed = _fixed_batch(module)
    if fixed is not None:
        raise GraphError(
            f"a network to edit must take any batch size, but {type(model).__name__} only "
            f"takes {fixed}: its forward turns the batch size into a constant."
        )
    return module


def _fixed_batch(module: fx.GraphModule) -> int | None:
    """The one batch size that a program takes, None where it takes any."""
    for node in module.graph.nodes:
        value = node.meta.get("val") if node.op == "placeholder" else None
        if isinstance(value, Tensor) and value.dim():
            length: Any = value.shape[0]
            if isinstance(length, torch.SymInt):
                length = length.node.maybe_as_int()
            if length is not None:
                return int(length)
    return None


def _plain(module: fx.GraphModule) -> fx.GraphModule:
    """The same program without what an export leaves on it, which copies would drag along."""
    for node in module.graph.nodes:
        always = {"always": True} if node.meta.get("always") else {}
        node.meta = {"path": path_of(node), **always}
    return program_of(module, module.graph)


def batched(example: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Inputs of at least two of a batch: an export takes a length of 1 for a constant."""
    return tuple(x.repeat((2,) + (1,) * (x.dim() - 1)) if x.shape[0] == 1 else x for x in example)


def cleaned(module: fx.GraphModule) -> fx.GraphModule:
    """The module without assertions, operations in place written as such that return a result."""
    graph = module.graph
    _inline(module)
    for node in list(graph.nodes):
        name = packet_name(node) if node.op == "call_function" else str(node.target)
        if node.op in ("call_function", "call_module") and name in _ASSERTIONS:
            graph.erase_node(node)
        elif node.op == "call_function":
            _without_place(graph, node)
    without_unread(graph)
    for node in graph.nodes:
        if node.op == "get_attr":
            _register(module, str(node.target))
    _plain_ends(graph)
    mark_modes(graph)
    module.recompile()
    return module


_REGIONS = {"wrap_with_autocast": 4, "wrap_with_set_grad_enabled": 1}
"""Operations that run a part of the network in another mode, and the place of that part."""


def _inline(module: fx.GraphModule) -> None:
    """Writes parts that run without autocast, or with other gradients, into the network itself.

    Raises:
        GraphError: A part turns autocast on.
    """
    graph = module.graph
    for node in list(graph.nodes):
        name = str(getattr(node.target, "_name", "")) if node.op == "call_function" else ""
        if name not in _REGIONS:
            continue
        place = _REGIONS[name]
        if name == "wrap_with_autocast" and node.args[2]:
            raise GraphError("a network to edit must not turn on autocast in its forward.")
        part = attribute_of(module, str(node.args[place].target))
        cleaned(part)
        inner = [n for n in part.graph.nodes if n.op == "placeholder"]
        made: dict[fx.Node, fx.Node] = dict(zip(inner, node.args[place + 1 :], strict=True))
        with graph.inserting_before(node):
            for own in part.graph.nodes:
                if own.op == "get_attr":
                    value = attribute_of(part, str(own.target))
                    path = f"{node.name}_{str(own.target).replace('.', '_')}"
                    module.register_buffer(path, value, persistent=False)
                    made[own] = graph.get_attr(path)
                elif own.op == "call_function":
                    made[own] = graph.node_copy(own, made.__getitem__)
        results = part.graph.output_node().args[0]
        for user in list(node.users):
            user.replace_all_uses_with(made[results[user.args[1]]])
            graph.erase_node(user)
        graph.erase_node(node)


def without_unread(graph: fx.Graph) -> None:
    """Forgets operations whose results nobody reads, those that draw random numbers included."""
    for node in reversed(list(graph.nodes)):
        if node.op in ("get_attr", "call_function") and not node.users:
            graph.erase_node(node)


def _plain_ends(graph: fx.Graph) -> None:
    """Lets the graph return its nest of tensors itself, without PyTorch's description of it."""
    codegen = graph._codegen
    if isinstance(codegen, fx.graph._PyTreeCodeGen):
        end = graph.output_node()
        spec = codegen.pytree_info.out_spec
        if spec is not None:
            end.args = (pytree.tree_unflatten(list(end.args[0]), spec),)  # type: ignore[arg-type]
        graph.set_codegen(fx.graph.CodeGen())


def _register(module: nn.Module, path: str) -> None:
    """Makes a constant tensor a buffer, outside the state."""
    prefix, _, name = path.rpartition(".")
    owner = module.get_submodule(prefix)
    if name in owner.__dict__ and isinstance(owner.__dict__[name], Tensor):
        value = owner.__dict__.pop(name)
        owner.register_buffer(name, value, persistent=False)


_VIEWS = frozenset(
    {"alias", "chunk", "contiguous", "detach", "diagonal", "dropout", "expand", "expand_as",
     "flatten", "getitem", "movedim", "narrow", "permute", "reshape", "reshape_as", "select",
     "slice", "split", "split_with_sizes", "squeeze", "swapaxes", "swapdims", "t", "tensor_split",
     "to", "transpose", "unbind", "unflatten", "unfold", "unsqueeze", "view", "view_as"}
)  # fmt: skip
"""Operations whose result may share its numbers with what they read."""

_WRITES = {
    "slice": torch.ops.aten.slice_scatter.default,
    "select": torch.ops.aten.select_scatter.default,
}
"""How a part of a tensor is written: as a new tensor with another part."""


def _without_place(graph: fx.Graph, node: fx.Node) -> None:
    """Lets an operation in place return what it writes, for all that read it afterwards.

    Raises:
        GraphError: It changes a tensor that is also read in another layout, or the network itself.
    """
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return
    name = str(target._overloadpacket.__name__)
    if not name.endswith("_") or name.startswith("_"):
        return
    packet = getattr(torch.ops.aten, name[:-1], None)
    source = node.args[0]
    if packet is None or target._overloadname not in packet.overloads():
        raise GraphError(
            f"a network to edit must compute without {name}, but {_at(node)} does not."
        )
    assert isinstance(source, fx.Node)
    links, root = [], source
    while root.op == "call_function" and packet_name(root) in _VIEWS:
        links.append(root)
        assert isinstance(root.args[0], fx.Node)
        root = root.args[0]
    if root.op == "get_attr":
        raise GraphError(
            f"a network to edit must not change its own tensors in evaluation, but {_at(node)} "
            f"changes {root.target}."
        )
    late = {one for one in _aliases(root, node) if any(node < user for user in one.users)}
    late.discard(source)
    on_the_way = {root, *links[1:]}
    if late and not (late <= on_the_way and all(packet_name(link) in _WRITES for link in links)):
        raise GraphError(
            f"a network to edit must not write into a tensor that it reads in another layout, but "
            f"{_at(node)} does."
        )
    node.target = getattr(packet, target._overloadname)
    _read_instead(source, node, node)
    if late:
        value = node
        for link in links:
            whole = link.args[0]
            assert isinstance(whole, fx.Node)
            with graph.inserting_after(value):
                written = graph.call_function(
                    _WRITES[packet_name(link)], (whole, value, *link.args[1:]), dict(link.kwargs)
                )
            written.meta.update({k: v for k, v in node.meta.items() if k != "val"})
            _read_instead(whole, written, written)
            value = written


def _at(node: fx.Node) -> str:
    return f"{path_of(node)} ({packet_name(node)})"


def _aliases(root: fx.Node, node: fx.Node) -> set[fx.Node]:
    """What may share its numbers with a tensor, up to an operation."""
    found, waiting = set(), [root]
    while waiting:
        one = waiting.pop()
        found.add(one)
        waiting += [
            user
            for user in one.users
            if user.op == "call_function"
            and user < node
            and packet_name(user) in _VIEWS
            and user not in found
        ]
    return found


def _read_instead(old: fx.Node, new: fx.Node, place: fx.Node) -> None:
    """Lets all that stands behind a place read another value."""
    after = {user for user in old.users if user is not new and place < user}
    old.replace_all_uses_with(new, delete_user_cb=lambda user: user in after)


_OP = "op_"  # names such as "to" are methods of modules


class _Opaque:
    """What a copy of a module shares with it."""

    def __init__(self, graph: fx.Graph) -> None:
        self.graph = graph
        self.shapes: dict[str, Any] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> _Opaque:
        return self


class _Step(nn.Module):
    """One operation; its path tells which."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self._function = function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)


class _Steps(nn.Module):
    """An exported network of which every operation is a module of its own."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__()
        self.net = nn.Module()
        self.net._parameters = module._parameters
        self.net._buffers = module._buffers
        self.net._modules = module._modules
        self.shown = _Opaque(module.graph)
        self.steps = nn.ModuleDict(
            {
                f"{_OP}{node.name}": _Step(node.target)
                for node in module.graph.nodes
                if node.op == "call_function" and callable(node.target)
            }
        )

    def forward(self, *inputs: Tensor) -> Any:
        values: dict[fx.Node, Any] = {}
        given = iter(inputs)
        for node in self.shown.graph.nodes:
            if node.op == "placeholder":
                values[node] = next(given)
            elif node.op == "get_attr":
                values[node] = attribute_of(self.net, str(node.target))
            elif node.op == "output":
                return fx.node.map_arg(node.args[0], values.__getitem__)
            else:
                args = fx.node.map_arg(node.args, values.__getitem__)
                kwargs = fx.node.map_arg(node.kwargs, values.__getitem__)
                values[node] = self.steps[_OP + node.name](*args, **kwargs)
            self.shown.shapes[node.name] = _shape(values[node])
        raise AssertionError("a graph ends with its output")


def attribute_of(module: nn.Module, path: str) -> Any:
    """A parameter, buffer or module by its path."""
    return operator.attrgetter(path)(module)


def _shape(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tuple(value.shape)
    if isinstance(value, (tuple, list)):
        return [_shape(one) for one in value]
    return value


def record(
    module: fx.GraphModule, example: Sequence[Tensor]
) -> tuple[ComputeGraph, tuple[str, ...], dict[str, Any]]:
    """(the compute graph, of every node the name of its operation, of every operation its shape).

    The graph's names are the paths of the modules that operations came from.
    """
    steps = _Steps(module)
    graph = from_module(steps, tuple(example))
    operations = tuple(name.removeprefix(f"steps.{_OP}") for name in graph.names)
    paths = {node.name: path_of(node) for node in module.graph.nodes}
    names = [paths.get(name, name) for name in operations]
    named = ComputeGraph(graph.nodes, graph.inputs, names=names, tied=graph.tied)
    return named, operations, steps.shown.shapes
