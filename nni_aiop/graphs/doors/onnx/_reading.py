"""What reads a model node by node, as far as the parts that read lists and bodies need to know."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeAlias

from numpy.typing import NDArray
from onnx import GraphProto, NodeProto

from nni_aiop.graphs._types import Shape
from nni_aiop.graphs.doors._builder import Builder
from nni_aiop.graphs.doors.onnx._call import Operand

__all__ = ["Known", "Reader"]

Known: TypeAlias = "Operand | list[Operand]"
"""A tensor, or a list of tensors."""


class Reader(Protocol):
    """Reads nodes in their order; names belong to the graph or body that is being read."""

    builder: Builder

    def find(self, name: str) -> Operand:
        """A tensor by its name."""

    def find_list(self, name: str) -> list[Operand]:
        """A list of tensors by its name."""

    def find_any(self, name: str) -> Known:
        """A tensor or a list of tensors by its name."""

    def learn(self, name: str, known: Known) -> None:
        """Gives a tensor or a list of tensors a name."""

    def constant(self, shape: Shape, elem_type: int, data: NDArray[Any] | None) -> Operand:
        """A tensor that is not learned."""

    def node(self, node: NodeProto, opset: int | None = None) -> None:
        """Reads one node, by another opset than the model's where one is given."""

    def run(self, nodes: Iterable[NodeProto], opset: int | None = None) -> None:
        """Reads nodes."""

    def body(self, graph: GraphProto, owner: NodeProto, given: Sequence[Known]) -> list[Known]:
        """Reads the body of a node on its inputs; what it puts out."""
