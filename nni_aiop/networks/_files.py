"""Networks as files: our own (tensors and a program as JSON, no pickle), ONNX and .pt2."""

from __future__ import annotations

import copy
import math
import operator
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from nni_aiop.errors import GraphError
from nni_aiop.files import read_described, whole, write_atomically, write_described
from nni_aiop.networks._pass import packet_name
from nni_aiop.networks._program import batched, path_of
from nni_aiop.networks._surgery import parameter_of

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
    tensors: dict[str, Tensor] = dict(module.state_dict())
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
        first = shared.setdefault(id(_attribute(module, name)), name)
        if first != name:
            same[name] = first
            continue
        kinds[name] = str(value.dtype).removeprefix("torch.")
        plain = value.detach().cpu().contiguous()
        arrays[name] = (plain.view(torch.int16) if value.dtype == torch.bfloat16 else plain).numpy()
    for place, x in enumerate(example):
        arrays[f"example:{place}"] = x.detach().cpu().contiguous().numpy()
    content = {
        "format": _KIND,
        "version": _VERSION,
        "nodes": nodes,
        "types": kinds,
        "same": same,
        "learned": sorted(learned),
        "state": sorted(module.state_dict()),
        "examples": len(example),
    }
    write_described(path, "network", content, arrays)
    return Path(path)


def _attribute(module: nn.Module, path: str) -> Any:
    return operator.attrgetter(path)(module)


def _written(node: fx.Node) -> dict[str, Any]:
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        text = str(target)
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
    learned, state = set(content["learned"]), set(content["state"])
    tensors: dict[str, Tensor] = {}
    for name, kind in content["types"].items():
        value = torch.from_numpy(arrays[name].copy())
        if kind == "bfloat16":
            value = value.view(torch.bfloat16)
        if str(value.dtype) != f"torch.{kind}":
            raise ValueError(f"{name} must be of type {kind}, not {value.dtype}")
        tensors[name] = nn.Parameter(value) if name in learned else value
    for name, first in content["same"].items():
        tensors[name] = tensors[first]
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
    graph = fx.Graph()
    made: dict[str, fx.Node] = {}
    for record in content["nodes"]:
        args = _argument(record["args"], made)
        kwargs = {str(k): _argument(v, made) for k, v in record["kwargs"].items()}
        op, target = record["op"], record["target"]
        if op == "call_function":
            function = _function(target)
        elif op in ("placeholder", "get_attr", "output"):
            function = target
            if op == "get_attr" and target not in tensors:
                raise ValueError(f"it lacks {target}")
        else:
            raise ValueError(f"{op!r} is no kind of operation")
        node = graph.create_node(op, function, tuple(args), kwargs, name=record["name"])
        node.meta["path"] = str(record["path"])
        made[record["name"]] = node
    graph.lint()
    examples = [torch.from_numpy(arrays[f"example:{i}"].copy()) for i in range(content["examples"])]
    module = fx.GraphModule(root, graph)
    # A GraphModule takes over what its operations read; counters of batches are read by none.
    module._parameters, module._buffers = root._parameters, root._buffers
    module._modules = root._modules
    return module, examples


def _function(target: str) -> Any:
    if target in _PYTHON:
        return _PYTHON[target]
    if target in _SYMBOLIC:
        return _SYMBOLIC[target]
    space, _, rest = target.partition(".")
    name, _, overload = rest.partition(".")
    if space != "aten" or name in _REFUSED or not hasattr(torch.ops.aten, name):
        raise ValueError(f"{target!r} is not an operation of PyTorch that a network may have")
    return getattr(getattr(torch.ops.aten, name), overload)


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
        found = getattr(torch, str(text))
        if not isinstance(found, _NAMED):
            raise ValueError(f"{text!r} is no type")
        return found
    return value


def to_onnx(module: fx.GraphModule, example: Sequence[Tensor], path: Path | str) -> Path:
    """Writes an ONNX file; see `Network.to_onnx`."""
    names = [f"input_{i}" for i in range(len(example))]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        twin = copy.deepcopy(module)
        _with_traced_sizes(twin)
        file = Path(folder) / "network.onnx"
        torch.onnx.export(
            twin,
            batched(example),
            str(file),
            dynamo=False,
            input_names=names,
            output_names=["output"],
            dynamic_axes={name: {0: "batch"} for name in [*names, "output"]},
            opset_version=17,
        )
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


def _with_traced_sizes(module: fx.GraphModule) -> None:
    """Lets the exporter, which traces methods of tensors, see where sizes come from."""
    for node in list(module.graph.nodes):
        method = _SIZED.get(packet_name(node)) if node.op == "call_function" else None
        if method is not None:
            with module.graph.inserting_before(node):
                made = module.graph.call_method(method, tuple(node.args))
            node.replace_all_uses_with(made)
            module.graph.erase_node(node)
    module.recompile()


def to_pt2(module: fx.GraphModule, example: Sequence[Tensor], path: Path | str) -> Path:
    """Writes a program that `torch.export.load` reads."""
    inputs = batched(example)
    dynamic = tuple({0: torch.export.Dim.AUTO} for _ in inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(module, inputs, dynamic_shapes=dynamic)
        torch.export.save(program, str(path))
    return Path(path)
