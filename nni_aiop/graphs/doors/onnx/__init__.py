"""From ONNX models."""

from nni_aiop.graphs.doors.onnx._door import ModelTensor, Recorded, from_onnx, record_onnx
from nni_aiop.graphs.doors.onnx._folding import ARITHMETIC, computed
from nni_aiop.graphs.doors.onnx._model import (
    captured_by,
    domain_of,
    in_order,
    inlined,
    listed,
    read_model,
)
from nni_aiop.graphs.doors.onnx._tensors import FLOATING, same_number

__all__ = [
    "ARITHMETIC",
    "FLOATING",
    "ModelTensor",
    "Recorded",
    "captured_by",
    "computed",
    "domain_of",
    "from_onnx",
    "in_order",
    "inlined",
    "listed",
    "read_model",
    "record_onnx",
    "same_number",
]
