"""Reading a model: its file, its functions, the shapes that it states."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import ArrayLike, NDArray
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    TypeProto,
    ValueInfoProto,
    external_data_helper,
)

from nni_aiop.errors import FileFormatError, GraphError
from nni_aiop.graphs._types import Shape
from nni_aiop.graphs.doors.onnx._folding import MOST_KNOWN

__all__ = [
    "called",
    "captured_by",
    "converted",
    "dims_of",
    "domain_of",
    "first_line",
    "given_data",
    "in_order",
    "inlined",
    "input_shape",
    "listed",
    "read_model",
    "static_shape",
]

OLDEST_OPSET = 7

_WITHOUT_CONVERSION = 11
"""The oldest opset whose operators are read as they are."""

_CONVERTED_TO = 13

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
        if not isinstance(model, bytes):
            _load_small_tensors(proto, Path(model).parent)
    missing = [name for name in ("ir_version", "graph") if not proto.HasField(name)]
    if not proto.opset_import:
        missing.append("opset_import")
    if missing:
        # An empty or foreign file may well parse, as a model that has nothing in it.
        raise FileFormatError(f"{what} must be an ONNX model, but lacks {' and '.join(missing)}.")
    return proto


def _load_small_tensors(model: ModelProto, folder: Path) -> None:
    """Reads the small tensors that lie in files beside the model, such as sizes and indices.

    Of large ones only the shapes are looked at. Where the file is not there, or not one beside the
    model, a tensor stays unknown.
    """
    for tensor in _tensors_in(model.graph):
        if external_data_helper.uses_external_data(tensor) and prod(tensor.dims) <= MOST_KNOWN:
            try:
                external_data_helper.load_external_data_for_tensor(tensor, str(folder))
            except (OSError, ValueError, onnx.checker.ValidationError):
                continue
            tensor.data_location = TensorProto.DEFAULT
            del tensor.external_data[:]


def _tensors_in(graph: GraphProto) -> Iterator[TensorProto]:
    """The initializers and constants of a graph and of the graphs inside it."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _tensors_in(inner)


def converted(model: ModelProto) -> ModelProto:
    """The model by an opset that is read as it is.

    Raises:
        GraphError: The opset is too old or not known yet, or onnx cannot convert the model.
    """
    opsets = [o.version for o in model.opset_import if domain_of(o.domain) == ""]
    opset, newest = max(opsets, default=_WITHOUT_CONVERSION), onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        raise GraphError(
            f"the opset of a model must be one of {OLDEST_OPSET} to {newest}, but got {opset}."
        )
    if opset >= _WITHOUT_CONVERSION:
        return model
    from onnx import version_converter

    plain = ModelProto()
    plain.CopyFrom(model)
    for info in (*plain.graph.input, *plain.graph.output, *plain.graph.value_info):
        for dim in info.type.tensor_type.shape.dim:
            if dim.dim_value < 0:
                dim.ClearField("dim_value")
    try:
        return version_converter.convert_version(plain, _CONVERTED_TO)
    except Exception as err:
        raise GraphError(
            f"a model of an opset before {_WITHOUT_CONVERSION} must be convertible by "
            f"onnx.version_converter, but one of opset {opset} is not: {first_line(err)} Export it "
            f"again with an opset of {_WITHOUT_CONVERSION} or more."
        ) from err


def in_order(nodes: Iterable[NodeProto], held: Callable[[str], bool]) -> list[NodeProto]:
    """Nodes so that each stands behind those whose tensors it reads.

    Nodes that stand so keep their places. Those that read what no node before them can make, as in
    a cycle, come last.

    Args:
        nodes: Of one graph or body.
        held: Whether a tensor of a name is there before.
    """
    nodes = list(nodes)
    if len(nodes) < 2:
        return nodes
    makers = {name: place for place, node in enumerate(nodes) for name in node.output if name}
    needs: list[set[int]] = []
    sorted_already = True
    for place, node in enumerate(nodes):
        names = (*node.input, *captured_by(node))
        needs.append({makers[name] for name in names if name in makers and not held(name)})
        sorted_already = sorted_already and all(source < place for source in needs[-1])
    if sorted_already:
        return nodes
    readers: list[list[int]] = [[] for _ in nodes]
    for place, sources in enumerate(needs):
        for source in sources:
            readers[source].append(place)
    ready = [place for place, sources in enumerate(needs) if not sources]
    heapq.heapify(ready)
    order: list[int] = []
    while ready:
        place = heapq.heappop(ready)
        order.append(place)
        for reader in readers[place]:
            needs[reader].discard(place)
            if not needs[reader]:
                heapq.heappush(ready, reader)
    done = set(order)
    order += [place for place in range(len(nodes)) if place not in done]
    return [nodes[place] for place in order]


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
    """The shape of a tensor type, None where a part of it is not known; -1 says that, too."""
    if not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
        return None
    dims = kind.tensor_type.shape.dim
    known = all(d.HasField("dim_value") and d.dim_value != -1 for d in dims)
    return tuple(d.dim_value for d in dims) if known else None


def input_shape(info: ValueInfoProto, given: Sequence[int] | None) -> Shape:
    """The shape of an input; dimensions that are not positive are free, as symbolic ones are."""
    if not info.type.HasField("tensor_type"):
        kind = info.type.WhichOneof("value")
        raise GraphError(f"an input must be a tensor, but {info.name!r} is of type {kind}.")
    tensor = info.type.tensor_type
    dims: list[int | str] | None = None
    if tensor.HasField("shape"):
        dims = [_dim(d) for d in tensor.shape.dim]
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


def _dim(dim: Any) -> int | str:
    """A dimension, or what stands for one that is free."""
    if not dim.HasField("dim_value"):
        return dim.dim_param or "?"
    return dim.dim_value if dim.dim_value > 0 else str(dim.dim_value)


def given_data(info: ValueInfoProto, value: ArrayLike, given: Sequence[int] | None) -> NDArray[Any]:
    """The entries of an input whose value is given, in its type and shape."""
    if not info.type.HasField("tensor_type"):
        raise GraphError(f"a value must be that of a tensor, but {info.name!r} is none.")
    tensor = info.type.tensor_type
    data = np.asarray(value)
    if data.dtype.kind not in "biuf":
        raise GraphError(f"the value of input {info.name!r} must be numbers, but got {value!r}.")
    kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    cast = data.astype(kind)
    if kind.kind in "iub" and not (cast == data).all():
        raise GraphError(
            f"the value of input {info.name!r} must be of type {kind}, but got {value!r}."
        )
    if cast.ndim == 0 and tensor.HasField("shape"):
        cast = cast.reshape((1,) * len(tensor.shape.dim))
    shape = input_shape(info, cast.shape)
    if given is not None and tuple(given) != shape:
        raise GraphError(
            f"the value of input {info.name!r} must have its shape {tuple(given)}, but has {shape}."
        )
    return cast


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
