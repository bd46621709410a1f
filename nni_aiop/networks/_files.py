"""Networks as files: our own (tensors and a program as JSON, no pickle), ONNX and .pt2."""

from __future__ import annotations

import copy
import io
import math
import operator
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from keyword import iskeyword
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.onnx.errors import OnnxExporterError
from torch.utils import _pytree as pytree

from nni_aiop.errors import GraphError
from nni_aiop.files import brief, read_described, whole, write_atomically, write_described
from nni_aiop.networks._draft import parameter_of, program_of
from nni_aiop.networks._pass import packet_name, path_of
from nni_aiop.networks._program import batched
from nni_aiop.networks._surgery import mark_modes

__all__ = ["load", "save", "to_onnx", "to_pt2"]

_KIND, _VERSION = "nni-aiop network", 1
_PYTHON = {
    name: getattr(operator, name)
    for name in ("getitem", "add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "eq", "ne",
                 "lt", "le", "gt", "ge")
}  # fmt: skip
_SYMBOLIC = {name: getattr(torch, name) for name in ("sym_max", "sym_min", "sym_int", "sym_float")}
_REFUSED = frozenset({"from_file"})
"""ATen operations that do more than compute."""


def save(module: fx.GraphModule, example: Sequence[Tensor], path: Path | str) -> Path:
    """Writes a network; see `Network.save`."""
    tensors: dict[str, Tensor] = dict(module.state_dict(keep_vars=True))
    learned = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    shared: dict[int, str] = {}
    nodes = []
    for node in module.graph.nodes:
        if node.op == "get_attr":
            name = str(node.target)
            tensors.setdefault(name, parameter_of(module, name))
        nodes.append(_written(node))
    same = {}
    arrays, kinds = {}, {}
    for name, value in tensors.items():
        first = shared.setdefault(id(value), name)
        if first != name:
            same[name] = first
            continue
        kinds[name], arrays[name] = _array(value)
    given = [_array(x) for x in example]
    arrays.update({f"example:{place}": array for place, (_, array) in enumerate(given)})
    content = {
        "format": _KIND,
        "version": _VERSION,
        "nodes": nodes,
        "types": kinds,
        "same": same,
        "learned": sorted(learned),
        "fixed": sorted(name for name in learned if not tensors[name].requires_grad),
        "state": sorted(module.state_dict()),
        "examples": [kind for kind, _ in given],
    }
    write_described(path, "network", content, arrays)
    return Path(path)


def _array(value: Tensor) -> tuple[str, NDArray[Any]]:
    """(type, numbers) of a tensor; NumPy has no bfloat16."""
    plain = value.detach().cpu().contiguous()
    if value.dtype == torch.bfloat16:
        plain = plain.view(torch.int16)
    return str(value.dtype).removeprefix("torch."), plain.numpy()


def _tensor(array: NDArray[Any], kind: str, name: str) -> Tensor:
    """A tensor that `_array` wrote."""
    value = torch.from_numpy(array.copy())
    if kind == "bfloat16":
        value = value.view(torch.bfloat16)
    if str(value.dtype) != f"torch.{kind}":
        raise ValueError(f"{name} must be of type {kind}, not {value.dtype}")
    return value


def _written(node: fx.Node) -> dict[str, Any]:
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        text = str(target)
        if not _admitted(target):
            raise GraphError(
                f"an operation of a saved network must only compute, but {text} does more."
            )
    elif node.op == "call_function":
        text = str(getattr(target, "__name__", target))
        if text not in _PYTHON and text not in _SYMBOLIC:
            raise GraphError(f"an operation of a saved network must be PyTorch's, not {text!r}.")
    else:
        text = str(target)
    return {
        "op": node.op,
        "name": node.name,
        "target": text,
        "args": [_nest(node.args[0])] if node.op == "output" else _plain(node.args),
        "kwargs": {k: _plain(v) for k, v in node.kwargs.items()},
        "path": path_of(node),
    }


_NAMED = (torch.dtype, torch.memory_format, torch.layout, torch.device)


def _plain(value: Any) -> Any:
    """An argument as JSON."""
    if isinstance(value, fx.Node):
        return {"node": value.name}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, bool) or value is None or isinstance(value, (int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, torch.device):
        return {"device": "cpu"}
    if isinstance(value, _NAMED):
        return {"torch": str(value).removeprefix("torch.")}
    raise GraphError(
        f"an argument of a saved network must be a number or a text, not {value!r:.80}."
    )


def _nest(value: Any) -> Any:
    """What a network returns as JSON, which has no tuples."""
    if isinstance(value, tuple):
        return {"tuple": [_nest(v) for v in value]}
    if isinstance(value, dict):
        return {"record": {str(k): _nest(v) for k, v in value.items()}}
    return [_nest(v) for v in value] if isinstance(value, list) else _plain(value)


def load(path: Path | str) -> tuple[fx.GraphModule, list[Tensor]]:
    """Reads a network; see `Network.load`."""
    what = "a network"
    content, arrays = read_described(path, "network", kind=_KIND, version=_VERSION, what=what)
    with whole(path, what, {}):
        return _read(content, arrays)


def _read(
    content: Mapping[str, Any], arrays: Mapping[str, Any]
) -> tuple[fx.GraphModule, list[Tensor]]:
    root = nn.Module()
    tensors = _tensors(content, arrays)
    state = set(content["state"])
    for name, value in tensors.items():
        owner = root
        *parents, last = name.split(".")
        for parent in parents:
            if parent not in owner._modules:
                owner.add_module(parent, nn.Module())
            owner = owner._modules[parent]  # type: ignore[assignment]
        if isinstance(value, nn.Parameter):
            owner.register_parameter(last, value)
        else:
            owner.register_buffer(last, value, persistent=name in state)
    graph = _graph(content["nodes"], tensors)
    mark_modes(graph)
    examples = [
        _tensor(arrays[f"example:{place}"], kind, "an example")
        for place, kind in enumerate(content["examples"])
    ]
    module = program_of(root, graph)
    _check_sizes(module, examples)
    return module, examples


def _tensors(content: Mapping[str, Any], arrays: Mapping[str, Any]) -> dict[str, Tensor]:
    learned, fixed = set(content["learned"]), set(content["fixed"])
    tensors: dict[str, Tensor] = {}
    for name, kind in content["types"].items():
        value = _tensor(arrays[name], kind, name)
        tensors[name] = nn.Parameter(value, name not in fixed) if name in learned else value
    for name, first in content["same"].items():
        tensors[name] = tensors[first]
    for name in tensors:
        # The program becomes Python, in which these names stand.
        if not all(part.isprintable() and part for part in name.split(".")) or set(name) & set(
            "\"'\\"
        ):
            raise ValueError(f"{name!r:.80} is no name of a parameter")
    return tensors


def _graph(records: Sequence[Mapping[str, Any]], tensors: Mapping[str, Tensor]) -> fx.Graph:
    """The program, of which nothing but names, numbers and known operations is taken."""
    graph = fx.Graph()
    made: dict[str, fx.Node] = {}
    for place, record in enumerate(records):
        op, target, name = record["op"], record["target"], record["name"]
        if (op == "output") != (place == len(records) - 1):
            raise ValueError("a program must end with its one output")
        if name in made or not _is_name(name):
            raise ValueError(f"{name!r:.80} is no name of an operation, or one of two")
        args = _argument(record["args"], made)
        kwargs = {str(k): _argument(v, made) for k, v in record["kwargs"].items()}
        known: set[str] = set()
        function = target
        if op == "call_function":
            function = _function(target)
            if isinstance(function, torch._ops.OpOverload):
                known = {argument.name for argument in function._schema.arguments}
        elif op == "placeholder" and _is_name(target) and not args:
            pass
        elif op == "get_attr" and not args:
            if target not in tensors:
                raise ValueError(f"it lacks {target!r:.80}")
        elif op != "output":
            raise ValueError(f"{op!r:.80} of {target!r:.80} is no kind of operation")
        if not known.issuperset(kwargs):
            raise ValueError(f"{target!r:.80} has no argument {min(set(kwargs) - known)!r:.80}")
        node = graph.create_node(op, function, tuple(args), kwargs, name=name)
        node.meta["path"] = str(record["path"])
        made[name] = node
    graph.lint()
    return graph


def _is_name(text: Any) -> bool:
    return isinstance(text, str) and text.isidentifier() and not iskeyword(text)


def _check_sizes(module: fx.GraphModule, examples: Sequence[Tensor]) -> None:
    """Runs the program on its examples without any numbers."""
    inputs = sum(node.op == "placeholder" for node in module.graph.nodes)
    if len(examples) != inputs or not inputs:
        raise ValueError(f"it has {len(examples)} examples for {inputs} inputs")
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode, torch.no_grad(), suppress(DataDependentOutputException):
        module(*(mode.from_tensor(x) for x in examples))


def _function(target: Any) -> Any:
    if target in _PYTHON:
        return _PYTHON[target]
    if target in _SYMBOLIC:
        return _SYMBOLIC[target]
    space, _, rest = target.partition(".")
    name, _, overload = rest.partition(".")
    packet = getattr(torch.ops.aten, name, None) if space == "aten" and _is_name(name) else None
    if isinstance(packet, torch._ops.OpOverloadPacket):
        found = getattr(packet, overload, None)
        if isinstance(found, torch._ops.OpOverload) and _admitted(found):
            return found
    raise ValueError(f"{target!r:.80} is not an operation of PyTorch that a network may have")


def _admitted(operation: torch._ops.OpOverload[..., Any]) -> bool:
    """Whether an operation computes something new from what it is given, and does nothing else."""
    name = str(operation._overloadpacket.__name__)
    return (
        operation.namespace == "aten" and name not in _REFUSED and not operation._schema.is_mutable
    )


def _argument(value: Any, made: Mapping[str, fx.Node]) -> Any:
    if isinstance(value, list):
        return [_argument(v, made) for v in value]
    if isinstance(value, dict):
        ((kind, text),) = value.items()
        if kind == "node":
            return made[text]
        if kind == "tuple":
            return tuple(_argument(text, made))
        if kind == "record":
            return {str(k): _argument(v, made) for k, v in text.items()}
        if kind == "float":
            return float(text)
        if kind == "device":
            return torch.device("cpu")
        found = getattr(torch, text) if kind == "torch" else None
        if not isinstance(found, _NAMED):
            raise ValueError(f"{text!r:.80} is no type")
        return found
    return value


def to_onnx(module: fx.GraphModule, example: Sequence[Tensor], path: Path | str) -> Path:
    """Writes an ONNX file; see `Network.to_onnx`."""
    names = [f"input_{i}" for i in range(len(example))]
    twin = copy.deepcopy(module)
    _with_traced_sizes(twin)
    results = len(pytree.tree_leaves(twin.graph.output_node().args[0]))
    outputs = ["output"] if results == 1 else [f"output_{i}" for i in range(results)]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = Path(folder) / "network.onnx"
        try:
            torch.onnx.export(
                twin,
                batched(example),
                str(file),
                dynamo=False,
                input_names=names,
                output_names=outputs,
                dynamic_axes={name: {0: "batch"} for name in [*names, *outputs]},
                opset_version=17,
                do_constant_folding=False,  # weights keep their names, and stay shared
            )
        except (OnnxExporterError, RuntimeError) as err:
            said = (str(err).strip() or "nothing").splitlines()[0]
            raise GraphError(
                f"a network for an ONNX file must be one that PyTorch's exporter takes, but it "
                f"raised {type(err).__name__}: {brief(said).rstrip('.')}."
            ) from err
        content = file.read_bytes()
    return write_atomically(path, content)


_SIZED = {
    "sym_size": "size",
    "view": "view",
    "_unsafe_view": "reshape",
    "reshape": "reshape",
    "expand": "expand",
    "repeat": "repeat",
}


_FILLED: dict[str, Callable[..., Any]] = {
    "zeros": torch.zeros,
    "ones": torch.ones,
    "full": torch.full,
    "new_zeros": Tensor.new_zeros,
    "new_ones": Tensor.new_ones,
    "new_full": Tensor.new_full,
}


def _with_traced_sizes(module: fx.GraphModule) -> None:
    """Lets the exporter, which traces methods of tensors, see where sizes come from."""
    graph = module.graph
    for node in list(graph.nodes):
        name = packet_name(node) if node.op == "call_function" else ""
        if name not in _SIZED and name not in _FILLED and name != "rms_norm":
            continue
        with graph.inserting_before(node):
            if name in _SIZED:
                made = graph.call_method(_SIZED[name], tuple(node.args))
            elif name in _FILLED:
                made = graph.call_function(_FILLED[name], tuple(node.args), dict(node.kwargs))
            else:
                made = graph.call_function(_rms_norm, tuple(node.args), dict(node.kwargs))
        node.replace_all_uses_with(made)
        graph.erase_node(node)
    module.recompile()


def _rms_norm(
    x: Tensor, sizes: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """`torch.rms_norm` in operations that ONNX has (Zhang and Sennrich 2019, arXiv 1910.07467)."""
    axes = list(range(-len(sizes), 0))
    least = torch.finfo(x.dtype).eps if eps is None else eps
    y = x * torch.rsqrt(x.square().mean(axes, keepdim=True) + least)
    return y if weight is None else y * weight


def to_pt2(module: fx.GraphModule, example: Sequence[Tensor], path: Path | str) -> Path:
    """Writes a program that `torch.export.load` reads."""
    inputs = batched(example)
    dynamic = tuple({0: torch.export.Dim.AUTO} for _ in inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(module, inputs, dynamic_shapes=dynamic)
        content = io.BytesIO()
        torch.export.save(program, content)
    return write_atomically(path, content.getvalue())
