"""The label pass over an ONNX model with the rules of all its operators."""

from __future__ import annotations

from nni_aiop.networks.onnx import _rules
from nni_aiop.networks.onnx._pass import RULES, OnnxPass, called

__all__ = ["OnnxPass", "called"]

assert RULES, _rules
