"""From ONNX models."""

from nni_aiop.graphs.doors.onnx._door import from_onnx

__all__ = ["from_onnx"]
