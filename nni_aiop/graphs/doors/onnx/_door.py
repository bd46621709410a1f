"""The ONNX door: reads a model's operations one by one, shapes by onnx's own inference.

Weights are looked at by their shapes alone, so that data outside the file are never loaded. Integer
arithmetic on shapes is evaluated (`onnx.reference`) as long as its tensors are small; `_handlers`
says what each operator means, `_tensors` what of the constants is learned, `_bodies` how loops are
unrolled, `_rewrites` and `_foreign` as which nodes of onnx the quantised, fused and blocked
operators of onnxruntime are read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

from nni_aiop.errors import AiopError, GraphError
from nni_aiop.graphs._graph import ComputeGraph
from nni_aiop.graphs._types import Shape
from nni_aiop.graphs.doors._builder import Builder
from nni_aiop.graphs.doors.onnx._bodies import BODIES, demand_few
from nni_aiop.graphs.doors.onnx._call import Call, Operand, handle_other
from nni_aiop.graphs.doors.onnx._folding import evaluated, folded
from nni_aiop.graphs.doors.onnx._handlers import HANDLERS
from nni_aiop.graphs.doors.onnx._inference import inferred_types, schema_version
from nni_aiop.graphs.doors.onnx._model import (
    called,
    captured_by,
    converted,
    dims_of,
    domain_of,
    first_line,
    given_data,
    in_order,
    inlined,
    input_shape,
    listed,
    read_model,
    static_shape,
)
from nni_aiop.graphs.doors.onnx._reading import Known
from nni_aiop.graphs.doors.onnx._rewrites import rewritten
from nni_aiop.graphs.doors.onnx._sequences import SEQUENCES, read_sequence
from nni_aiop.graphs.doors.onnx._tensors import Tensors, same_number
from nni_aiop.graphs.doors.onnx._weights import VECTORS, Places

__all__ = ["Recorded", "from_onnx", "record_onnx"]

_MOST_ENTRIES = 2**48


def from_onnx(
    model: str | Path | bytes | ModelProto,
    *,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    values: Mapping[str, ArrayLike] | None = None,
) -> ComputeGraph:
    """The compute graph of an ONNX model: the same as of the module that it was exported from.

    Quantised models are read as the float models that they stand for, loops are unrolled. A
    one-dimensional scale or bias whose entries are all equal counts for each layer that reads it:
    tools write equal tensors once, which is no sharing of what was learned.

    Args:
        model: A file, its content, or the model itself (which is not changed). Opsets 7 and up;
            those before 11 are converted by onnx.
        input_shapes: Name of an input -> its shape, for inputs with symbolic or unknown
            dimensions (the batch included).
        values: Name of an input -> its value, for inputs that say what the network does: the
            condition of a branch, a new shape, how often a loop turns. Such an input is a constant.

    Raises:
        FileFormatError: What is given is not an ONNX model.
        GraphError: The model breaks a rule: its opset is too old or unknown, a shape is not known
            or not admissible, a tensor is missing or read before it is made (as in a cycle), a
            branch depends on data, or no output depends on an input.

    Example:
        >>> from onnx import helper, TensorProto
        >>> x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ("batch", 8))
        >>> y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ("batch", 8))
        >>> graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "net", [x], [y])
        >>> from_onnx(helper.make_model(graph), input_shapes={"x": (4, 8)}).operations
        {'input': 1, 'output': 1, 'relu': 1}
    """
    proto = converted(read_model(model))
    with _valid():
        return _Door(inlined(proto)).graph(input_shapes or {}, values or {})


@contextlib.contextmanager
def _valid() -> Iterator[None]:
    """Says of whatever is raised that a model must be valid."""
    try:
        yield
    except AiopError:
        raise
    except Exception as err:
        raise GraphError(
            f"a model must be valid ONNX, but {type(err).__name__} was raised: {first_line(err)}"
        ) from err


@dataclass(frozen=True)
class ModelTensor:
    """One tensor of a model.

    Attributes:
        shape: Of the tensor.
        elem_type: As onnx numbers types.
        constant: Whether it does not depend on the inputs of the model.
        learned: Whether it holds learned numbers.
        read: Gives its entries, None where they are not known.
    """

    shape: Shape
    elem_type: int
    constant: bool
    learned: bool
    read: Callable[[], NDArray[Any] | None]

    @classmethod
    def of(cls, operand: Operand) -> ModelTensor:
        """What an operand is before the rules change it."""
        value = operand.value
        return cls(
            value.shape,
            operand.elem_type,
            value.is_constant,
            bool(value.learned),
            lambda: operand.data,
        )


@dataclass(frozen=True)
class Recorded:
    """A compute graph, and what it was made of.

    Attributes:
        graph: As `from_onnx` gives it.
        operations: Of every node of the graph the tensor that its operation puts out first; "" for
            one that no operation of the model stands for alone.
        tensors: By name every tensor of the model itself, those of bodies left out.
    """

    graph: ComputeGraph
    operations: tuple[str, ...]
    tensors: Mapping[str, ModelTensor]


def record_onnx(model: ModelProto, input_shapes: Mapping[str, Sequence[int]]) -> Recorded:
    """The compute graph of a model, and which of its operations and tensors it was made of.

    Args:
        model: One without functions of its own.
        input_shapes: As of `from_onnx`.

    Raises:
        FileFormatError, GraphError: As of `from_onnx`.
    """
    plain = ModelProto()
    plain.CopyFrom(read_model(model))
    names: dict[str, str] = {}
    for node in plain.graph.node:
        first = next((name for name in node.output if name), "")
        names[first] = node.name or first
        node.name = first  # which no other node has
    newer = converted(plain)
    with _valid():
        door = _Door(newer)
        door.read(input_shapes, {})
        tensors = door.tensors
        if newer is not plain:
            tensors = _named_otherwise(plain, input_shapes) | tensors
        graph = door.builder.finish()
    ends = [node.op in ("input", "output") for node in graph.nodes]
    shown = [
        name if end else names.get(name, name) for name, end in zip(graph.names, ends, strict=True)
    ]
    named = ComputeGraph(graph.nodes, graph.inputs, names=shown, tied=graph.tied)
    return Recorded(named, graph.names, tensors)


def _named_otherwise(
    model: ModelProto, input_shapes: Mapping[str, Sequence[int]]
) -> dict[str, ModelTensor]:
    """What onnx says of the tensors of a model, whose conversion may have given them other names.

    Args:
        model: It is changed.
        input_shapes: Of its inputs.
    """
    for info in model.graph.input:
        shape = input_shapes.get(info.name)
        for dim, size in zip(info.type.tensor_type.shape.dim, shape or (), strict=False):
            dim.dim_value = size
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    found = {}
    for info in inferred.graph.value_info:
        shape = static_shape(info.type)
        if shape is not None:
            kind = info.type.tensor_type.elem_type
            found[info.name] = ModelTensor(shape, kind, False, False, lambda: None)
    return found


class _Door:
    """Reads one model."""

    def __init__(self, model: ModelProto) -> None:
        self.builder = Builder()
        self._model = model
        self._opsets = {domain_of(o.domain): o.version for o in model.opset_import}
        self._places = Places(in_order(model.graph.node, lambda _: False))
        self._tensors = Tensors(model, self.builder, self._places)
        self._scopes: list[dict[str, Known]] = [{}]
        self._owner = ""
        self._in_bodies = 0
        self._stated: dict[str, ValueInfoProto] = {}

    def graph(
        self, input_shapes: Mapping[str, Sequence[int]], values: Mapping[str, ArrayLike]
    ) -> ComputeGraph:
        """The compute graph."""
        self.read(input_shapes, values)
        return self.builder.finish()

    def read(
        self, input_shapes: Mapping[str, Sequence[int]], values: Mapping[str, ArrayLike]
    ) -> None:
        """Reads every node."""
        graph = self._model.graph
        self._state(graph)
        inputs = [v for v in graph.input if not self._holds(v.name)]
        names = {v.name for v in inputs}
        for what, given in (("input_shapes", input_shapes), ("values", values)):
            if unknown := sorted(set(given) - names):
                raise GraphError(
                    f"{what} must name inputs of the model ({listed(v.name for v in inputs)}), "
                    f"but got {listed(unknown)}."
                )
        for info in inputs:
            kind = info.type.tensor_type.elem_type
            if info.name in values:
                data = given_data(info, values[info.name], input_shapes.get(info.name))
                self.learn(info.name, self.constant(data.shape, kind, data))
                continue
            shape = input_shape(info, input_shapes.get(info.name))
            self.learn(info.name, Operand(self.builder.input(shape, info.name), kind))
        self.run(graph.node)
        for info in graph.output:
            if not self._holds(info.name):
                raise GraphError(
                    f"an output must be a tensor of the model, but {info.name!r} is none."
                )
            known = self.find_any(info.name)
            for operand in known if isinstance(known, list) else [known]:
                self.builder.output(operand.value, info.name)

    # --- tensors -------------------------------------------------------------------------------

    @property
    def tensors(self) -> dict[str, ModelTensor]:
        """The tensors of the model itself, by name."""
        scope = self._scopes[0]
        return {name: ModelTensor.of(x) for name, x in scope.items() if isinstance(x, Operand)}

    def _holds(self, name: str) -> bool:
        return any(name in scope for scope in self._scopes)

    def find_any(self, name: str) -> Known:
        for scope in reversed(self._scopes):
            if name in scope:
                return scope[name]
        raise GraphError(f"a tensor must be made before it is read, but {name!r} is not.")

    def find(self, name: str) -> Operand:
        known = self.find_any(name)
        if isinstance(known, list):
            raise GraphError(f"a tensor must be read here, but {name!r} is a list of tensors.")
        return known

    def find_list(self, name: str) -> list[Operand]:
        known = self.find_any(name)
        if isinstance(known, Operand):
            raise GraphError(f"a list of tensors must be read here, but {name!r} is a tensor.")
        return known

    def learn(self, name: str, known: Known) -> None:
        if name in self._scopes[-1]:
            raise GraphError(f"each tensor must be made once, but {name!r} is made twice.")
        if isinstance(known, Operand) and known.value.size >= _MOST_ENTRIES:
            raise GraphError(
                f"a tensor must have fewer than 2^48 entries, but {name!r} has the shape "
                f"{known.value.shape}."
            )
        self._scopes[-1][name] = known

    def constant(self, shape: Shape, elem_type: int, data: NDArray[Any] | None) -> Operand:
        return self._tensors.constant(shape, elem_type, data)

    def _state(self, graph: GraphProto) -> None:
        """Learns the initializers of a graph or body, and what it states."""
        stated = (v for v in (*graph.output, *graph.value_info) if static_shape(v.type) is not None)
        self._stated |= {v.name: v for v in stated}
        for tensor in graph.initializer:
            key = self._owner + tensor.name
            self.learn(tensor.name, self._tensors.initializer(tensor, key))
        for sparse in graph.sparse_initializer:
            name = sparse.values.name
            value = self.builder.parameter(dims_of(sparse.dims, name), self._owner + name)
            self.learn(name, Operand(value, sparse.values.data_type))

    def _apart(self, node: NodeProto, inputs: list[Operand | None]) -> None:
        """Gives a layer its own scale and bias where several layers read one, as tools write it."""
        for place in VECTORS.get(node.op_type, ()):
            operand = inputs[place] if place < len(inputs) else None
            if operand is None or node.input[place] not in self._places.shared:
                continue
            vector = operand.value
            if not vector.learned or len(vector.shape) != 1 or vector.size == 1:
                continue
            if same_number(operand.data) is None:
                continue
            # Layers that share their weight are one layer, whose bias is one.
            others = [x.value for at, x in enumerate(inputs) if x is not None and at != place]
            if node.op_type == "Add":
                others = [v for x in others for v in x.inputs]
            weights = frozenset(key for v in others if len(v.shape) > 1 for key in v.learned)
            reader = weights or self._owner + node.output[0]
            key = (node.input[place], reader)
            inputs[place] = Operand(
                self.builder.parameter(vector.shape, key), operand.elem_type, lambda: None
            )

    # --- operations ----------------------------------------------------------------------------

    def run(self, nodes: Iterable[NodeProto], opset: int | None = None) -> None:
        for node in in_order(nodes, self._holds):
            try:
                self.node(node, opset)
            except AiopError:
                raise
            except Exception as err:
                raise GraphError(
                    f"{called(node)} must be as its operator's schema has it, but "
                    f"{type(err).__name__} was raised: {first_line(err)}"
                ) from err

    def body(self, graph: GraphProto, owner: NodeProto, given: Sequence[Known]) -> list[Known]:
        self._in_bodies += 1 + len(graph.node)
        demand_few(self._in_bodies, owner)
        around = self._owner
        self._owner = f"{around}{owner.output[0]}/"
        self._scopes.append({})
        try:
            for info, known in zip(graph.input, given, strict=True):
                self.learn(info.name, known)
            self._state(graph)
            self.run(graph.node)
            for info in graph.output:
                if not self._holds(info.name):
                    raise GraphError(
                        f"an output must be a tensor of its graph, but {info.name!r} of "
                        f"{called(owner)} is none."
                    )
            return [self.find_any(info.name) for info in graph.output]
        finally:
            self._scopes.pop()
            self._owner = around

    def node(self, node: NodeProto, opset: int | None = None) -> None:
        own = domain_of(node.domain) == ""
        for name in node.input:
            if name and not self._holds(name):
                raise GraphError(
                    f"a node must read tensors that come before it, but {called(node)} reads "
                    f"{name!r}."
                )
        if own and node.op_type in SEQUENCES:
            read_sequence(self, node)
            return
        if own and node.op_type == "Constant":
            key = self._owner + node.output[0]
            self.learn(node.output[0], self._tensors.constant_node(node, key))
            return
        if own and node.op_type in BODIES:
            BODIES[node.op_type](self, node)
            return
        if own and node.op_type == "Identity" and isinstance(self.find_any(node.input[0]), list):
            self.learn(node.output[0], self.find_any(node.input[0]))
            return
        if rewritten(self, node):
            return
        self._operation(node, own, opset)

    def _operation(self, node: NodeProto, own: bool, opset: int | None) -> None:
        """An operation of tensors."""
        inputs = [self.find(name) if name else None for name in node.input]
        around = {name: self.find(name) for name in captured_by(node) if self._holds(name)}
        version = opset if opset and own else self._opsets.get(domain_of(node.domain), 1)
        version = schema_version(node, version)
        imports = [
            onnx.helper.make_opsetid(
                domain, version if domain == domain_of(node.domain) else number
            )
            for domain, number in self._opsets.items()
        ]
        types = inferred_types(node, inputs, around, self._stated, version, imports)
        kind, shape = types[0] if types else (0, None)
        if own and node.op_type == "ConstantOfShape" and shape is not None:
            name = node.output[0]
            filled = self._tensors.filled(name, self._owner + name, shape, kind)
            if filled is not None:
                self.learn(name, filled)
                return
        known = folded(node, inputs, types, imports) if own else None
        if known is not None:
            for name, data, (elem_type, _) in zip(node.output, known, types, strict=False):
                if name:
                    self.learn(name, self.constant(data.shape, elem_type, data))
            return
        shapes = self._shapes(node, types)
        if own:
            self._apart(node, inputs)
        call = Call(
            self.builder,
            node,
            version,
            [*inputs, *around.values()],
            shapes,
            {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute},
            self._owner,
        )
        handler = HANDLERS.get(node.op_type, handle_other) if own else handle_other
        results = handler(call)
        values = results if isinstance(results, Sequence) else [results]
        outputs = zip(node.output, values, types, strict=False)
        for place, (name, value, (elem_type, shape)) in enumerate(outputs):
            if name:
                if value.shape != shape:
                    value = self.builder.apply("reshape", [value], shape or (), name=call.name)
                read = evaluated(node, inputs, types, imports, place) if value.is_constant else None
                self.learn(name, Operand(value, elem_type, read))

    def _shapes(self, node: NodeProto, types: Sequence[tuple[int, Shape | None]]) -> list[Shape]:
        shapes = []
        for name, (_, shape) in zip(node.output, types, strict=True):
            if shape is None:
                domain = domain_of(node.domain)
                if domain:
                    raise GraphError(
                        f"an operator must be one of onnx or have the shapes of its outputs "
                        f"stated, but {called(node)} is of the domain {domain!r} and makes "
                        f"{name!r}: where a tool such as onnxruntime has optimised or quantised "
                        f"the model, give the original file."
                    )
                raise GraphError(
                    f"the shape of every tensor must be known, but that of {name!r}, made by "
                    f"{called(node)}, is not; if it is asked of an input of the model, give the "
                    f"value of that input (values=)."
                )
            shapes.append(shape)
        return shapes
