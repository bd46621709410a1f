"""Real networks with their weights, edited as their compute graphs are."""

from __future__ import annotations

from nni_aiop.networks._calibration import CRITERIA, Calibration, recalibrate
from nni_aiop.networks._in_place import edit_in_place
from nni_aiop.networks._network import Network

__all__ = ["CRITERIA", "Calibration", "Network", "edit_in_place", "recalibrate"]
