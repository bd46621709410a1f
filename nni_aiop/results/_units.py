"""Exact costs in words."""

from __future__ import annotations

__all__ = ["spelled"]

_UNITS = {
    "flops": "flops (multiply-adds)",
    "macs": "macs (multiply-adds)",
    "params": "params (parameters)",
    "peak_memory": "peak_memory (bytes of activations)",
}


def spelled(name: str) -> str:
    """A cost's name with its unit, where that is known."""
    return _UNITS.get(name, name)
