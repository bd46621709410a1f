"""What functions read of a node and of a graph: values, and protocols that `Node` and
`ComputeGraph` keep.

Costs, stages, features, pictures and differences are functions of these protocols, so that the
classes may have methods that call the functions, and imports run one way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Attribute", "Cost", "GraphLike", "NodeLike", "Shape"]

Shape = tuple[int, ...]
Attribute = Any
"""A bool, a number, a text, or a tuple of such."""


@dataclass(frozen=True)
class Cost:
    """What an operation, or several together, cost; `_costs` says how each is counted.

    Attributes:
        macs: Multiply-adds of convolutions, linear layers, products, attention, recurrent layers.
        flops: Operations: two for each multiply-add, and those of all other functions.
        parameters: Learned numbers.
        activations: Entries of the output.
        traffic: Entries read (learned ones included) and written.
    """

    macs: int = 0
    flops: int = 0
    parameters: int = 0
    activations: int = 0
    traffic: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.macs + other.macs,
            self.flops + other.flops,
            self.parameters + other.parameters,
            self.activations + other.activations,
            self.traffic + other.traffic,
        )


class NodeLike(Protocol):
    """One operation; see `Node`."""

    @property
    def op(self) -> str: ...

    @property
    def attributes(self) -> tuple[tuple[str, Attribute], ...]: ...

    @property
    def input_shapes(self) -> tuple[Shape, ...]: ...

    @property
    def output_shape(self) -> Shape: ...

    @property
    def weight_shape(self) -> Shape | None: ...

    @property
    def parameters(self) -> int: ...

    @property
    def digest(self) -> bytes: ...

    @property
    def cost(self) -> Cost: ...

    @property
    def features(self) -> NDArray[np.float32]: ...

    def __getitem__(self, attribute: str, /) -> Attribute: ...

    def get(self, attribute: str, default: Any = None) -> Any: ...


class GraphLike(Protocol):
    """A graph of operations; see `ComputeGraph`."""

    @property
    def nodes(self) -> tuple[NodeLike, ...]: ...

    @property
    def inputs(self) -> tuple[tuple[int, ...], ...]: ...

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def tied(self) -> Mapping[int, int]: ...

    @property
    def edges(self) -> list[tuple[int, int]]: ...

    @property
    def depth(self) -> list[int]: ...

    @property
    def costs(self) -> tuple[Cost, ...]: ...

    @property
    def cost(self) -> Cost: ...

    @property
    def parameters(self) -> int: ...

    @property
    def positions(self) -> tuple[list[int], int, int]: ...

    @property
    def levels(self) -> tuple[int | None, ...]: ...

    @property
    def colours(self) -> list[bytes]: ...

    @property
    def content_hash(self) -> str: ...

    @property
    def sharing(self) -> Mapping[int, bytes]: ...

    def __len__(self) -> int: ...
