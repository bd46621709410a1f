"""The ONNX door: reads a model's operations one by one, shapes by onnx's own inference.

Weights are looked at by their shapes alone, so that data outside the file are never loaded. Integer
arithmetic on shapes is evaluated (`onnx.reference`) as long as its tensors are small; `_onnx_ops`
says what each operator means.

PyTorch's exporters write the numbers of a formula as Constant nodes and parameters as initializers,
or say of each initializer which it is; other tools write both as initializers. Single numbers among
those are therefore known numbers unless the file says that PyTorch made it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    TypeProto,
    ValueInfoProto,
)

from nni_aiop.errors import AiopError, GraphError
from nni_aiop.graphs._graph import ComputeGraph
from nni_aiop.graphs._types import Shape
from nni_aiop.graphs.doors._builder import Builder
from nni_aiop.graphs.doors.onnx._call import Call, Operand, handle_other
from nni_aiop.graphs.doors.onnx._folding import MOST_KNOWN, folded
from nni_aiop.graphs.doors.onnx._handlers import HANDLERS
from nni_aiop.graphs.doors.onnx._model import (
    called,
    captured_by,
    dims_of,
    domain_of,
    first_line,
    inlined,
    input_shape,
    listed,
    read_model,
    static_shape,
)

__all__ = ["from_onnx"]

OLDEST_OPSET = 11


_MOST_ENTRIES = 2**48


_FLOATING = frozenset(
    {
        TensorProto.FLOAT,
        TensorProto.FLOAT16,
        TensorProto.DOUBLE,
        TensorProto.BFLOAT16,
    }
)


_SEQUENCES = frozenset(
    {
        "ConcatFromSequence", "SequenceAt", "SequenceConstruct", "SequenceLength",
        "SplitToSequence",
    }
)  # fmt: skip


_KIND = "pkg.torch.export.graph_signature.InputSpec.kind"


_READS_NUMBERS = frozenset({"Resize", "Upsample", "Range"})
"""Operators whose shape depends on the values of floating-point inputs."""


_LIKE_ITS_INPUTS = {"GroupNormalization": 1, "GreaterOrEqual": 2, "LessOrEqual": 2}
"""Operators that onnx infers no shape for: how many inputs broadcast to that of the output."""


def from_onnx(
    model: str | Path | bytes | ModelProto,
    *,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
) -> ComputeGraph:
    """The compute graph of an ONNX model: the same as of the module that it was exported from.

    Args:
        model: A file, its content, or the model itself (which is not changed). Opsets 11 and up.
        input_shapes: Name of an input -> its shape, for inputs with symbolic or unknown
            dimensions (the batch included).

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
    proto = read_model(model)
    try:
        return _Door(proto).graph(input_shapes or {})
    except AiopError:
        raise
    except Exception as err:
        raise GraphError(
            f"a model must be valid ONNX, but {type(err).__name__} was raised: {first_line(err)}"
        ) from err


class _Door:
    """Reads one model."""

    def __init__(self, model: ModelProto) -> None:
        self._opsets = {domain_of(o.domain): o.version for o in model.opset_import}
        opset, newest = self._opsets.get("", OLDEST_OPSET), onnx.defs.onnx_opset_version()
        if not OLDEST_OPSET <= opset <= newest:
            raise GraphError(
                f"the opset of a model must be one of {OLDEST_OPSET} to {newest}, but got {opset}."
            )
        self._model = inlined(model)
        self._builder = Builder()
        self._known: dict[str, Operand] = {}
        self._sequences: dict[str, list[str]] = {}
        self._stated: dict[str, ValueInfoProto] = {v.name: v for v in self._model.graph.value_info}
        self._stated |= {v.name: v for v in self._model.graph.output}
        self._by_pytorch = model.producer_name == "pytorch"
        # What torch.export says of an initializer: PARAMETER, BUFFER, CONSTANT_TENSOR.
        self._kinds = {
            info.name: entry.value
            for info in model.graph.value_info
            for entry in info.metadata_props
            if entry.key == _KIND
        }
        self._says_kinds = bool(self._kinds) or any(
            entry.key.startswith("pkg.torch.")
            for node in model.graph.node
            for entry in node.metadata_props
        )
        self._imports = [onnx.helper.make_opsetid(d, v) for d, v in self._opsets.items()]

    def graph(self, input_shapes: Mapping[str, Sequence[int]]) -> ComputeGraph:
        """The compute graph."""
        graph = self._model.graph
        self._initializers(graph)
        inputs = [v for v in graph.input if v.name not in self._known]
        unknown = sorted(set(input_shapes) - {v.name for v in inputs})
        if unknown:
            raise GraphError(
                f"input_shapes must name inputs of the model ({listed(v.name for v in inputs)}), "
                f"but got {listed(unknown)}."
            )
        for info in inputs:
            shape = input_shape(info, input_shapes.get(info.name))
            value = self._builder.input(shape, info.name)
            self._learn(info.name, Operand(value, info.type.tensor_type.elem_type))
        self._run(graph.node)
        for info in graph.output:
            if info.name not in self._known:
                raise GraphError(
                    f"an output must be a tensor of the model, but {info.name!r} is none."
                )
            self._builder.output(self._known[info.name].value, info.name)
        return self._builder.finish()

    # --- tensors -------------------------------------------------------------------------------

    def _learn(self, name: str, operand: Operand) -> None:
        if name in self._known:
            raise GraphError(f"each tensor must be made once, but {name!r} is made twice.")
        if operand.value.size >= _MOST_ENTRIES:
            raise GraphError(
                f"a tensor must have fewer than 2^48 entries, but {name!r} has the shape "
                f"{operand.value.shape}."
            )
        self._known[name] = operand

    def _initializers(self, graph: GraphProto) -> None:
        for tensor in graph.initializer:
            self._learn(tensor.name, self._tensor(tensor, learned=True))
        for sparse in graph.sparse_initializer:
            shape = dims_of(sparse.dims, sparse.values.name)
            value = self._builder.parameter(shape, sparse.values.name)
            self._learn(sparse.values.name, Operand(value, sparse.values.data_type))

    def _tensor(self, tensor: TensorProto, *, learned: bool) -> Operand:
        shape = dims_of(tensor.dims, tensor.name)
        small = prod(shape) <= MOST_KNOWN and tensor.data_location != TensorProto.EXTERNAL
        read = _reader(tensor) if small and tensor.data_type != TensorProto.STRING else None
        if not learned or tensor.data_type not in _FLOATING:
            return self._constant(shape, tensor.data_type, read() if read else None)
        kind = self._kinds.get(tensor.name)
        if kind not in (None, "PARAMETER"):
            return Operand(self._builder.constant(shape), tensor.data_type, read)
        may_be_number = self._says_kinds if self._by_pytorch else prod(shape) == 1
        if kind is None and may_be_number and read and _number(data := read()) is not None:
            return self._constant(shape, tensor.data_type, data)
        return Operand(self._builder.parameter(shape, tensor.name), tensor.data_type, read)

    def _constant(self, shape: Shape, elem_type: int, data: NDArray[Any] | None) -> Operand:
        value = self._builder.constant(shape, _number(data))
        return Operand(value, elem_type, None if data is None else lambda: data)

    # --- operations ----------------------------------------------------------------------------

    def _run(self, nodes: Iterable[NodeProto]) -> None:
        for node in nodes:
            try:
                self._node(node)
            except AiopError:
                raise
            except Exception as err:
                raise GraphError(
                    f"{called(node)} must be as its operator's schema has it, but "
                    f"{type(err).__name__} was raised: {first_line(err)}"
                ) from err

    def _node(self, node: NodeProto) -> None:
        own = domain_of(node.domain) == ""
        if own and node.op_type in _SEQUENCES:
            self._sequence(node)
            return
        inputs: list[Operand | None] = []
        for name in node.input:
            if name and name not in self._known:
                raise GraphError(
                    f"a node must read tensors that come before it, but {called(node)} reads "
                    f"{name!r}."
                )
            inputs.append(self._known[name] if name else None)
        if own and node.op_type == "Constant":
            self._learn(node.output[0], self._constant_node(node))
            return
        if own and node.op_type == "If":
            self._branch(node, inputs[0])
            return
        captured = [self._known[name] for name in captured_by(node) if name in self._known]
        types = self._infer(node, inputs)
        known = folded(node, inputs, types, self._imports) if own else None
        if known is not None:
            for name, data, (elem_type, _) in zip(node.output, known, types, strict=False):
                if name:
                    self._learn(name, self._constant(data.shape, elem_type, data))
            return
        shapes = []
        for name, (_, shape) in zip(node.output, types, strict=True):
            if shape is None:
                raise GraphError(
                    f"the shape of every tensor must be known, but that of {name!r}, made by "
                    f"{called(node)}, is not."
                )
            shapes.append(shape)
        call = Call(
            self._builder,
            node,
            self._opsets.get(domain_of(node.domain), 1),
            [*inputs, *captured],
            shapes,
            {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute},
        )
        handler = HANDLERS.get(node.op_type, handle_other) if own else handle_other
        results = handler(call)
        values = results if isinstance(results, Sequence) else [results]
        for name, value, (elem_type, shape) in zip(node.output, values, types, strict=False):
            if name:
                if value.shape != shape:
                    value = self._builder.apply("reshape", [value], shape or (), name=call.name)
                self._learn(name, Operand(value, elem_type))

    def _constant_node(self, node: NodeProto) -> Operand:
        attribute = node.attribute[0]
        if attribute.type == AttributeProto.TENSOR:
            return self._tensor(attribute.t, learned=False)
        if attribute.type == AttributeProto.SPARSE_TENSOR:
            shape = dims_of(attribute.sparse_tensor.dims, node.output[0])
            return self._constant(shape, attribute.sparse_tensor.values.data_type, None)
        content = onnx.helper.get_attribute_value(attribute)
        if attribute.type in (AttributeProto.STRING, AttributeProto.STRINGS):
            shape = () if attribute.type == AttributeProto.STRING else (len(content),)
            return self._constant(shape, TensorProto.STRING, None)
        whole = attribute.type in (AttributeProto.INT, AttributeProto.INTS)
        data = np.asarray(content, np.int64 if whole else np.float32)
        return self._constant(data.shape, TensorProto.INT64 if whole else TensorProto.FLOAT, data)

    def _sequence(self, node: NodeProto) -> None:
        """Lists of tensors, by the operators that make them one by one."""
        kind, out = node.op_type, node.output[0]
        options = {a.name: a.i for a in node.attribute}
        axis = options.get("axis", 0)
        if kind == "SequenceConstruct":
            self._sequences[out] = list(node.input)
        elif kind == "SplitToSequence":
            shape = self._known[node.input[0]].value.shape
            sizes = self._pieces(node, shape[axis])
            parts = [f"{out}[{place}]" for place in range(len(sizes))]
            if len(node.input) > 1 or options.get("keepdims", 1):
                self._sequences[out] = parts
            else:
                self._sequences[out] = [f"{part}.squeezed" for part in parts]
            self._insert("Split", [node.input[0]], parts, sizes, "split", axis=axis)
            for part, name in zip(parts, self._sequences[out], strict=True):
                if part != name:
                    self._insert("Squeeze", [part], [name], [axis], "axes")
        elif kind == "ConcatFromSequence":
            names = self._sequences[node.input[0]]
            if options.get("new_axis"):
                wide = [f"{out}[{place}]" for place in range(len(names))]
                for name, part in zip(names, wide, strict=True):
                    self._insert("Unsqueeze", [name], [part], [axis], "axes")
                names = wide
            self._node(onnx.helper.make_node("Concat", names, [out], node.name, axis=axis))
        elif kind == "SequenceLength":
            data = np.asarray(len(self._sequences[node.input[0]]), np.int64)
            self._learn(out, self._constant((), TensorProto.INT64, data))
        else:
            place = self._known[node.input[1]].data
            if place is None:
                raise GraphError(f"the place in a list must be known, but {called(node)} asks it.")
            names = self._sequences[node.input[0]]
            self._learn(out, self._known[names[int(place.reshape(()))]])

    def _pieces(self, node: NodeProto, length: int) -> list[int]:
        sizes = None
        if len(node.input) > 1:
            sizes = self._known[node.input[1]].data
            if sizes is None:
                raise GraphError(f"sizes of pieces must be known, but {called(node)} asks them.")
        if sizes is not None and sizes.ndim:
            return [int(n) for n in sizes]
        each = 1 if sizes is None else int(sizes)
        if each < 1 or length // each > MOST_KNOWN:
            raise GraphError(
                f"a tensor must be cut into at most {MOST_KNOWN} pieces, but {called(node)} cuts "
                f"{length} into pieces of {each}."
            )
        return [min(each, length - at) for at in range(0, length, each)]

    def _insert(
        self,
        kind: str,
        inputs: list[str],
        outputs: list[str],
        numbers: Sequence[int],
        name: str,
        **options: Any,
    ) -> None:
        """Runs a node whose numbers are an attribute up to opset 12, and an input from then on."""
        if self._opsets.get("", OLDEST_OPSET) < 13:
            options[name] = list(numbers)
        else:
            constant = f"{outputs[0]}.{name}"
            data = np.asarray(numbers, np.int64)
            self._learn(constant, self._constant(data.shape, TensorProto.INT64, data))
            inputs = [*inputs, constant]
        self._node(onnx.helper.make_node(kind, inputs, outputs, **options))

    def _branch(self, node: NodeProto, condition: Operand | None) -> None:
        known = None if condition is None else condition.data
        if known is None or known.size != 1:
            raise GraphError(
                f"what a network does must not depend on the values of its data, but "
                f"{called(node)} does."
            )
        wanted = "then_branch" if bool(known.reshape(())) else "else_branch"
        graph = next(a.g for a in node.attribute if a.name == wanted)
        self._initializers(graph)
        self._stated |= {v.name: v for v in graph.value_info}
        self._run(graph.node)
        for name, info in zip(node.output, graph.output, strict=True):
            if info.name not in self._known:
                raise GraphError(
                    f"an output must be a tensor of its graph, but {info.name!r} of "
                    f"{called(node)} is none."
                )
            self._learn(name, self._known[info.name])

    def _infer(
        self, node: NodeProto, inputs: Sequence[Operand | None]
    ) -> list[tuple[int, Shape | None]]:
        """Type and shape of each output; None where it is not known."""
        domain = domain_of(node.domain)
        inferred: Mapping[str, TypeProto] = {}
        schema = None
        if onnx.defs.has(node.op_type, domain=domain):
            schema = onnx.defs.get_schema(node.op_type, self._opsets.get(domain, 1), domain)
        if schema is not None and not schema.deprecated:
            types, data = {}, {}
            for name, operand in zip(node.input, inputs, strict=True):
                if operand is None:
                    continue
                types[name] = operand.type
                reads = node.op_type in _READS_NUMBERS or operand.elem_type not in _FLOATING
                if reads and operand.data is not None:
                    data[name] = onnx.numpy_helper.from_array(operand.data, name)
            for name in captured_by(node):
                if name in self._known:
                    types[name] = self._known[name].type
            inferred = onnx.shape_inference.infer_node_outputs(
                schema, node, types, data, opset_imports=self._imports
            )
        results = []
        for place, name in enumerate(node.output):
            kind = inferred.get(name)
            shape = None if kind is None else static_shape(kind)
            if shape is None and name in self._stated:
                shape = static_shape(self._stated[name].type)
            if shape is None and place == 0 and node.op_type in _LIKE_ITS_INPUTS:
                shapes = [operand.value.shape for operand in inputs if operand is not None]
                shape = np.broadcast_shapes(*shapes[: _LIKE_ITS_INPUTS[node.op_type]])
            if not name:
                shape = ()
            if shape is not None and any(n < 0 for n in shape):
                raise GraphError(
                    f"dimensions must not be negative, but {called(node)} makes {shape}."
                )
            if kind is not None:
                elem_type = kind.tensor_type.elem_type
            else:
                elem_type = next((operand.elem_type for operand in inputs if operand), 0)
            results.append((elem_type, shape))
        return results


def _reader(tensor: TensorProto) -> Any:
    return lambda: onnx.numpy_helper.to_array(tensor)


def _number(data: NDArray[Any] | None) -> float | None:
    """The value that all entries share."""
    if data is None or data.size == 0 or not (data == data.flat[0]).all():
        return None
    return float(data.flat[0])
