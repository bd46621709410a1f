"""From PyTorch modules."""

from nni_aiop.graphs.doors.modules._door import from_module

__all__ = ["from_module"]
