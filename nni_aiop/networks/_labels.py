"""The label pass over an exported network with the rules of all its operations."""

from __future__ import annotations

from nni_aiop.networks import _layout_rules, _product_rules
from nni_aiop.networks._pass import RULES, Pass, packet_name

__all__ = ["Pass", "packet_name"]

assert RULES, (_layout_rules, _product_rules)
