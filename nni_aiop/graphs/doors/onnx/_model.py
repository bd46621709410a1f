"""Reading a model: its file, its functions, the shapes that it states."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from google.protobuf.message import DecodeError
from onnx import ModelProto, NodeProto, TypeProto, ValueInfoProto

from nni_aiop.errors import FileFormatError, GraphError
from nni_aiop.graphs._types import Shape

__all__ = [
    "called",
    "captured_by",
    "dims_of",
    "domain_of",
    "first_line",
    "inlined",
    "input_shape",
    "listed",
    "read_model",
    "static_shape",
]

_MOST_CALLS = 10**6


def read_model(model: str | Path | bytes | ModelProto) -> ModelProto:
    if isinstance(model, ModelProto):
        proto, what = model, "the model"
    else:
        what = "the content" if isinstance(model, bytes) else str(model)
        content = model if isinstance(model, bytes) else Path(model).read_bytes()
        try:
            proto = ModelProto.FromString(content)
        except DecodeError as err:
            raise FileFormatError(f"{what} must be an ONNX model, but is not: {err}.") from err
    missing = [name for name in ("ir_version", "graph") if not proto.HasField(name)]
    if not proto.opset_import:
        missing.append("opset_import")
    if missing:
        # An empty or foreign file may well parse, as a model that has nothing in it.
        raise FileFormatError(f"{what} must be an ONNX model, but lacks {' and '.join(missing)}.")
    return proto


def first_line(err: BaseException) -> str:
    lines = str(err).strip().splitlines()
    return lines[0] if lines else type(err).__name__


def inlined(model: ModelProto) -> ModelProto:
    """The model with the calls of its own functions replaced by their bodies."""
    if not model.functions:
        return model
    bodies = {(f.domain, f.name): f for f in model.functions}
    sizes: dict[tuple[str, str], int] = {}

    def size(nodes: Iterable[NodeProto], callers: tuple[tuple[str, str], ...]) -> int:
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type)
            total += 1
            if key in callers:
                raise GraphError(f"a function must not call itself, but {node.op_type!r} does.")
            if key in bodies:
                if key not in sizes:
                    sizes[key] = size(bodies[key].node, (*callers, key))
                total += sizes[key]
            for attribute in node.attribute:
                for graph in (attribute.g, *attribute.graphs):
                    total += size(graph.node, callers)
        return total

    total = size(model.graph.node, ())
    if total > _MOST_CALLS:
        raise GraphError(
            f"a model must have at most {_MOST_CALLS} operations once its functions are inlined, "
            f"but has {total}."
        )
    from onnx import inliner

    return inliner.inline_local_functions(model)


def domain_of(name: str) -> str:
    return "" if name == "ai.onnx" else name


def called(node: NodeProto) -> str:
    name = node.name or (node.output[0] if node.output else "")
    return f"node {name!r} ({node.op_type})"


def listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "none"


def dims_of(dims: Sequence[int], name: str) -> Shape:
    shape = tuple(dims)
    if any(n < 0 for n in shape):
        raise GraphError(f"dimensions must not be negative, but tensor {name!r} has {shape}.")
    return shape


def static_shape(kind: TypeProto) -> Shape | None:
    """The shape of a tensor type, None where a part of it is not known."""
    if not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
        return None
    dims = kind.tensor_type.shape.dim
    return tuple(d.dim_value for d in dims) if all(d.HasField("dim_value") for d in dims) else None


def input_shape(info: ValueInfoProto, given: Sequence[int] | None) -> Shape:
    if not info.type.HasField("tensor_type"):
        kind = info.type.WhichOneof("value")
        raise GraphError(f"an input must be a tensor, but {info.name!r} is of type {kind}.")
    tensor = info.type.tensor_type
    dims: list[int | str] | None = None
    if tensor.HasField("shape"):
        dims = [
            d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim
        ]
    if given is None:
        if dims is None or any(isinstance(d, str) for d in dims):
            shown = "none at all" if dims is None else f"({', '.join(map(str, dims))})"
            raise GraphError(
                f"every dimension of an input must be known: name a shape for {info.name!r} in "
                f"input_shapes, whose dimensions are {shown}."
            )
        given = [d for d in dims if isinstance(d, int)]
    shape = tuple(int(n) for n in given)
    fits = dims is None or (
        len(dims) == len(shape)
        and all(isinstance(d, str) or d == n for d, n in zip(dims, shape, strict=True))
    )
    if not fits:
        raise GraphError(
            f"the shape of input {info.name!r} must fit ({', '.join(map(str, dims or ()))}), but "
            f"got {shape}."
        )
    return dims_of(shape, info.name)


def captured_by(node: NodeProto) -> list[str]:
    """Names of the tensors around it that a node's subgraphs read."""
    names: list[str] = []
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            own = {v.name for v in graph.input} | {t.name for t in graph.initializer}
            for inner in graph.node:
                names += [name for name in (*inner.input, *captured_by(inner)) if name not in own]
                own.update(inner.output)
            names += [v.name for v in graph.output if v.name not in own]
    return list(dict.fromkeys(names))
