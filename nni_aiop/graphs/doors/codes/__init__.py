"""From the codes of search spaces, operation by operation."""

from nni_aiop.graphs.doors.codes._writer import GraphWriter, Handle

__all__ = ["GraphWriter", "Handle"]
