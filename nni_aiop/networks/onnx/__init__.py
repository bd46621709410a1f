"""ONNX files, edited as their compute graphs are."""

from __future__ import annotations

from nni_aiop.networks.onnx._network import OnnxNetwork, inputs_of

__all__ = ["OnnxNetwork", "inputs_of"]
