"""Real networks with their weights, edited as their compute graphs are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nni_aiop._lazy import lazy_names
from nni_aiop.networks._calibration import CRITERIA, Calibration, recalibrate
from nni_aiop.networks._in_place import edit_in_place
from nni_aiop.networks._network import Network

if TYPE_CHECKING:
    from nni_aiop.networks.onnx import OnnxNetwork as OnnxNetwork

__all__ = ["CRITERIA", "Calibration", "Network", "OnnxNetwork", "edit_in_place", "recalibrate"]

__getattr__ = lazy_names(__name__, {"OnnxNetwork": "nni_aiop.networks.onnx"})
