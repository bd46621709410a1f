"""What of a model's constants is learned, and what is a known number.

Files say it in different ways, and these are the rules:

1. PyTorch's newer exporter says of each initializer what it is; that holds.
2. PyTorch's older exporter writes parameters as initializers and the numbers of a formula as
   Constant nodes. Optimisers turn the latter into initializers, but keep their names, by which they
   are known; where a name is lost, a learned single number still has its content
   (`Value.shown`), by which patterns such as that of `gelu` know it.
3. Other tools write both as initializers or both as Constant nodes. Of these a floating-point
   tensor is learned where it stands as a weight (`_weights`), or has several entries that differ
   (as an initializer, several entries); single numbers elsewhere are known numbers. So are the
   Constant nodes of a PyTorch file that has no initializers left.
4. Integers are learned where they are dequantised, or where a quantised product reads them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto

from nni_aiop.graphs._types import Shape
from nni_aiop.graphs.doors._builder import Builder
from nni_aiop.graphs.doors.onnx._call import Operand
from nni_aiop.graphs.doors.onnx._folding import MOST_KNOWN
from nni_aiop.graphs.doors.onnx._model import dims_of
from nni_aiop.graphs.doors.onnx._weights import Places

__all__ = ["FLOATING", "Tensors", "same_number"]

FLOATING = frozenset(
    {
        TensorProto.FLOAT,
        TensorProto.FLOAT16,
        TensorProto.DOUBLE,
        TensorProto.BFLOAT16,
    }
)
"""Element types of learned numbers that are not quantised."""

_KIND = "pkg.torch.export.graph_signature.InputSpec.kind"

_FORMULA = re.compile(r"^(/.*)?/?Constant(_\d+)?_output_0$")
"""What PyTorch's older exporter calls the numbers of a formula."""

_COUNTED = re.compile(r"^((val_|onnx::\w+_)?\d+|scalar_tensor_default(_\d+)?)$")
"""Names without a meaning, which PyTorch's exporters give to what they make themselves."""

_MOST_COMPARED = 2**24


class Tensors:
    """Makes operands of the constants of one model."""

    def __init__(self, model: ModelProto, builder: Builder, places: Places) -> None:
        self._builder = builder
        self._places = places
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
        self._has_initializers = any(
            tensor.data_type in FLOATING and prod(tensor.dims) > 1
            for tensor in model.graph.initializer
        )

    def initializer(self, tensor: TensorProto, key: str) -> Operand:
        """An initializer; `key` is its name, and that of the body that it belongs to."""
        name, kind = tensor.name, tensor.data_type
        shape = dims_of(tensor.dims, name)
        read = reader(tensor)
        if kind not in FLOATING:
            if name in self._places.integers and (shape or name in self._places.floats):
                return self._learned(shape, kind, key, read)
            return self.constant(
                shape, kind, read() if read and prod(shape) <= MOST_KNOWN else None
            )
        said = self._kinds.get(name)
        if said not in (None, "PARAMETER") or (self._by_pytorch and _FORMULA.search(name)):
            data = read() if read and prod(shape) <= MOST_KNOWN else None
            if said is None or prod(shape) == 1:
                return self.constant(shape, kind, data)
            return Operand(self._builder.constant(shape), kind, read)
        if self._by_pytorch:
            # The bias of a layer of one channel stands where no number of a formula does.
            single = prod(shape) == 1 and not (shape and name in self._places.floats)
            may_be_number = (single and bool(_COUNTED.search(name))) or (
                self._says_kinds and prod(shape) <= MOST_KNOWN
            )
        else:
            may_be_number = prod(shape) == 1 and not (shape and name in self._places.floats)
        if said is None and may_be_number and read and same_number(data := read()) is not None:
            return self.constant(shape, kind, data)
        return self._learned(shape, kind, key, read)

    def constant_node(self, node: NodeProto, key: str) -> Operand:
        """What a Constant node makes."""
        attribute = node.attribute[0]
        if attribute.type == AttributeProto.TENSOR:
            return self._constant_tensor(attribute.t, node.output[0], key)
        if attribute.type == AttributeProto.SPARSE_TENSOR:
            shape = dims_of(attribute.sparse_tensor.dims, node.output[0])
            return self.constant(shape, attribute.sparse_tensor.values.data_type, None)
        content = onnx.helper.get_attribute_value(attribute)
        if attribute.type in (AttributeProto.STRING, AttributeProto.STRINGS):
            shape = () if attribute.type == AttributeProto.STRING else (len(content),)
            return self.constant(shape, TensorProto.STRING, None)
        if attribute.type in (AttributeProto.INT, AttributeProto.INTS):
            return self.constant_of(np.asarray(content, np.int64), TensorProto.INT64)
        numbers = onnx.helper.make_tensor(
            "", TensorProto.FLOAT, np.shape(content), np.ravel(content)
        )
        return self._constant_tensor(numbers, node.output[0], key)

    def _constant_tensor(self, tensor: TensorProto, name: str, key: str) -> Operand:
        shape, kind = dims_of(tensor.dims, name), tensor.data_type
        read = reader(tensor)
        if self._is_weight(name, shape, kind, read):
            return self._learned(shape, kind, key, read)
        known = read is not None and prod(shape) <= MOST_KNOWN
        return self.constant(shape, kind, read() if read and known else None)

    def filled(self, name: str, key: str, shape: Shape, kind: int) -> Operand | None:
        """What ConstantOfShape makes where it is a weight, else None."""
        # PyTorch's exporters fill the zeros that stand for no bias.
        if not self._by_pytorch and self._is_weight(name, shape, kind, None):
            return self._learned(shape, kind, key, None)
        return None

    def _is_weight(
        self, name: str, shape: Shape, kind: int, read: Callable[[], NDArray[Any]] | None
    ) -> bool:
        """Whether what a node makes of nothing is learned."""
        places, several = self._places, prod(shape) > 1
        if kind not in FLOATING:
            return name in places.integers and (several or name in places.floats) and bool(shape)
        said = self._kinds.get(name)
        if said is not None:
            return bool(said == "PARAMETER")
        stands = (bool(shape) and name in places.floats) or (several and name in places.sums)
        if self._by_pytorch:
            if self._has_initializers or _FORMULA.search(name):
                return False
            if self._says_kinds:
                return stands and read is not None and same_number(read()) is None
            if _COUNTED.search(name):
                return stands
        if stands or not several:
            return stands
        return read is not None and prod(shape) <= _MOST_COMPARED and same_number(read()) is None

    def constant(self, shape: Shape, elem_type: int, data: NDArray[Any] | None) -> Operand:
        """A tensor that is not learned."""
        value = self._builder.constant(shape, same_number(data))
        return Operand(value, elem_type, None if data is None else lambda: data)

    def constant_of(self, data: NDArray[Any], elem_type: int) -> Operand:
        """A tensor that is not learned, of known entries."""
        return self.constant(data.shape, elem_type, data)

    def _learned(
        self, shape: Shape, kind: int, key: str, read: Callable[[], NDArray[Any]] | None
    ) -> Operand:
        value = self._builder.parameter(shape, key)
        if prod(shape) == 1 and read is not None and kind in FLOATING:
            value.shown = float(read().reshape(()))
        return Operand(value, kind, read)


def reader(tensor: TensorProto) -> Callable[[], NDArray[Any]] | None:
    """What reads the entries of a tensor; None where they lie outside the file, or are text."""
    if tensor.data_type == TensorProto.STRING or tensor.data_location == TensorProto.EXTERNAL:
        return None
    return lambda: onnx.numpy_helper.to_array(tensor)


def same_number(data: NDArray[Any] | None) -> float | None:
    """The value that all entries share."""
    if data is None or data.size == 0 or not (data == data.flat[0]).all():
        return None
    return float(data.flat[0])
