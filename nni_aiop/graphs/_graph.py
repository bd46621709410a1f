"""ComputeGraph: a network as atomic operations and the data that flow between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nni_aiop.errors import GraphError
from nni_aiop.graphs import _costs, _stages
from nni_aiop.graphs._costs import Cost
from nni_aiop.graphs._stages import Stage
from nni_aiop.graphs._vocabulary import COMMUTATIVE, OTHER, is_known

if TYPE_CHECKING:
    import networkx
    import numpy as np
    from numpy.typing import NDArray
    from torch_geometric.data import Data

    from nni_aiop.graphs._diff import GraphDiff

__all__ = ["Attribute", "ComputeGraph", "Node", "Shape"]

Shape = tuple[int, ...]
Attribute = Any
"""A bool, a number, a text, or a tuple of such."""


_PLAIN = frozenset({bool, int, float, str})


def _freeze(value: Any) -> Any:
    """The value as plain numbers, texts and tuples (NumPy's numbers look otherwise when hashed)."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, (list, tuple)):
        return tuple(_freeze(v) for v in value)
    if isinstance(value, (np.generic, np.ndarray)):
        return _freeze(value.tolist())
    raise GraphError(
        f"an attribute must be a bool, a number, a text or a tuple of such, but got {value!r}."
    )


def _check_shape(shape: Any, what: str) -> None:
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise GraphError(f"{what} must be a tuple of whole numbers, but got {shape!r}.")


@dataclass(frozen=True)
class Node:
    """One atomic operation.

    Nodes are values: equal ones can be, and are, shared among graphs.

    Attributes:
        op: A name of the vocabulary, or "other:NAME".
        attributes: (name, value) pairs in the order of names; see `OPERATIONS`.
        input_shapes: Shape of each data input, as the operation sees it; sorted where the inputs
            have no order (`COMMUTATIVE`).
        output_shape: Shape of what comes out.
        weight_shape: Shape of the learned weight (not the bias), None where there is none.
        parameters: How many learned numbers the operation holds, bias included. It is known
            exactly from a module; an ONNX file does not tell learned numbers from constants, so
            that neither equality of graphs nor the content hash look at it.

    Raises:
        GraphError: The operation is neither known nor "other:NAME", or a shape is not one.
    """

    op: str
    attributes: tuple[tuple[str, Attribute], ...] = ()
    input_shapes: tuple[Shape, ...] = ()
    output_shape: Shape = ()
    weight_shape: Shape | None = None
    parameters: int = 0

    def __post_init__(self) -> None:
        if not is_known(self.op) and not self.op.startswith(OTHER):
            raise GraphError(
                f"an operation must be one of the vocabulary or {OTHER}NAME, but got {self.op!r}."
            )
        for shape in self.input_shapes:
            _check_shape(shape, f"an input shape of {self.op}")
        _check_shape(self.output_shape, f"the output shape of {self.op}")
        if self.weight_shape is not None:
            _check_shape(self.weight_shape, f"the weight shape of {self.op}")

    @classmethod
    def make(
        cls,
        op: str,
        input_shapes: Iterable[Sequence[int]] = (),
        output_shape: Sequence[int] = (),
        *,
        weight_shape: Sequence[int] | None = None,
        parameters: int = 0,
        **attributes: Attribute,
    ) -> Node:
        """A node from lists or tuples, its attributes by name.

        Example:
            >>> Node.make("relu", [(1, 8, 4, 4)], (1, 8, 4, 4)).output_shape
            (1, 8, 4, 4)
        """
        shapes = tuple(_freeze(tuple(shape)) for shape in input_shapes)
        return cls(
            op,
            tuple(sorted((name, _freeze(value)) for name, value in attributes.items())),
            tuple(sorted(shapes)) if op in COMMUTATIVE else shapes,
            _freeze(tuple(output_shape)),
            None if weight_shape is None else _freeze(tuple(weight_shape)),
            int(parameters),
        )

    def __getitem__(self, attribute: str) -> Attribute:
        """Value of an attribute; KeyError where the node has none of that name."""
        for name, value in self.attributes:
            if name == attribute:
                return value
        raise KeyError(attribute)

    def get(self, attribute: str, default: Any = None) -> Any:
        """Value of an attribute, or the default."""
        for name, value in self.attributes:
            if name == attribute:
                return value
        return default

    @cached_property
    def digest(self) -> bytes:
        """Hash of everything but `parameters`."""
        content = (
            self.op,
            self.attributes,
            self.input_shapes,
            self.output_shape,
            self.weight_shape,
        )
        return blake2b(repr(content).encode(), digest_size=16).digest()

    @cached_property
    def cost(self) -> Cost:
        """What the operation costs; see `Cost`."""
        return _costs.node_cost(self)

    @cached_property
    def features(self) -> NDArray[np.float32]:
        """The row of `node_features`, those columns 0 that only a graph can tell."""
        from nni_aiop.graphs._features import local_features

        return local_features(self)

    def __str__(self) -> str:
        details = " ".join(
            f"{name}={_text(value)}" for name, value in self.attributes if value is not False
        )
        shapes = ", ".join(_text(shape) for shape in self.input_shapes)
        return f"{self.op} {details} [{shapes} -> {_text(self.output_shape)}]".replace("  ", " ")


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        inner = [_text(v) for v in value]
        if len(set(inner)) == 1 and not isinstance(value[0], tuple) and len(inner) == 1:
            return inner[0]
        return (
            "x".join(inner) if all(type(v) is int for v in value) else "(" + ", ".join(inner) + ")"
        )
    return str(value)


class ComputeGraph:
    """A network as a directed acyclic graph of atomic operations; an immutable value.

    Two graphs are equal when they are isomorphic with equal nodes, whatever the order of nodes,
    their names, and whose weights are shared: `==` and `hash` follow `content_hash`.

    Args:
        nodes: The operations in a topological order.
        inputs: For each node the places of the nodes whose results it reads, in argument order.
        names: A name for each node (for people); by default its operation and place.
        tied: Place of a node -> place of an earlier one whose weights it uses too. Totals count
            such weights once.

    Raises:
        GraphError: The order is not topological (as in a cycle), or lengths differ.

    Example:
        >>> x = Node.make("input", [], (1, 3, 8, 8))
        >>> y = Node.make("relu", [(1, 3, 8, 8)], (1, 3, 8, 8))
        >>> z = Node.make("output", [(1, 3, 8, 8)], (1, 3, 8, 8))
        >>> ComputeGraph([x, y, z], [(), (0,), (1,)]).operations
        {'input': 1, 'output': 1, 'relu': 1}
    """

    def __init__(
        self,
        nodes: Iterable[Node],
        inputs: Iterable[Sequence[int]],
        *,
        names: Iterable[str] | None = None,
        tied: Mapping[int, int] | None = None,
    ) -> None:
        self.nodes: tuple[Node, ...] = tuple(nodes)
        self.inputs: tuple[tuple[int, ...], ...] = tuple(map(tuple, inputs))
        self._names = None if names is None else tuple(names)
        self.tied: dict[int, int] = dict(tied or {})
        if len(self.inputs) != len(self.nodes):
            raise GraphError(
                f"each of the {len(self.nodes)} nodes must have its inputs listed, "
                f"but got {len(self.inputs)} lists."
            )
        if self._names is not None and len(self._names) != len(self.nodes):
            raise GraphError(
                f"each of the {len(self.nodes)} nodes must have a name, but got {len(self._names)}."
            )
        for place, sources in enumerate(self.inputs):
            for source in sources:
                if not 0 <= source < place:
                    raise GraphError(
                        f"nodes must stand in a topological order (no cycles), but node {place} "
                        f"({self.nodes[place].op}) reads node {source}."
                    )
            if len(sources) != len(self.nodes[place].input_shapes):
                raise GraphError(
                    f"node {place} ({self.nodes[place].op}) must have one input shape for each "
                    f"input, but has {len(self.nodes[place].input_shapes)} for {len(sources)}."
                )
        for later, earlier in self.tied.items():
            if not 0 <= earlier < later < len(self.nodes):
                raise GraphError(
                    f"tied weights must point to an earlier node, but got {later} -> {earlier}."
                )

    # --- what it holds -------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.nodes)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """A name for each node."""
        if self._names is not None:
            return self._names
        return tuple(f"{node.op}_{place}" for place, node in enumerate(self.nodes))

    @property
    def edges(self) -> list[tuple[int, int]]:
        """(from, to) of each edge, ordered by target and argument."""
        return [(source, place) for place, row in enumerate(self.inputs) for source in row]

    @cached_property
    def depth(self) -> list[int]:
        """Edges on the longest way from a node without inputs to each node."""
        found: list[int] = []
        for sources in self.inputs:
            longest = -1
            for source in sources:
                if longest < found[source]:
                    longest = found[source]
            found.append(longest + 1)
        return found

    @cached_property
    def operations(self) -> dict[str, int]:
        """How often each operation occurs, by name."""
        return dict(sorted(Counter(node.op for node in self.nodes).items()))

    @property
    def others(self) -> tuple[str, ...]:
        """Operations outside the vocabulary; their costs are not known and count as nothing."""
        return tuple(op.removeprefix(OTHER) for op in self.operations if op.startswith(OTHER))

    @cached_property
    def parameters(self) -> int:
        """Learned numbers; weights that several nodes share count once."""
        return sum(
            node.parameters for place, node in enumerate(self.nodes) if place not in self.tied
        )

    @property
    def input_shapes(self) -> tuple[Shape, ...]:
        """Shape of each input of the network, in the order of nodes."""
        return tuple(node.output_shape for node in self.nodes if node.op == "input")

    @property
    def output_shapes(self) -> tuple[Shape, ...]:
        """Shape of each output of the network, in the order of nodes."""
        return tuple(node.output_shape for node in self.nodes if node.op == "output")

    def __repr__(self) -> str:
        return f"ComputeGraph({len(self)} nodes, {len(self.edges)} edges, {self.content_hash[:12]})"

    # --- costs ---------------------------------------------------------------------------------

    @cached_property
    def costs(self) -> tuple[Cost, ...]:
        """What each node costs; learned numbers that it shares count at the earliest node."""
        return _costs.graph_costs(self)

    @cached_property
    def cost(self) -> Cost:
        """What the whole network costs."""
        return _costs.total(self.costs)

    @property
    def macs(self) -> int:
        """Multiply-adds of convolutions, linear layers, products, attention, recurrent layers."""
        return self.cost.macs

    @property
    def flops(self) -> int:
        """Operations: two for each multiply-add, and those of all other functions (`Cost`)."""
        return self.cost.flops

    def activation_memory(self, entry_bytes: int = 4) -> int:
        """Bytes of all that the nodes put out, at 4 bytes a number by default."""
        return _costs.activation_memory(self, entry_bytes)

    def peak_memory(self, entry_bytes: int = 4, *, weights: bool = False) -> int:
        """Most bytes that live at once when the nodes run in their order, see `Cost`.

        Args:
            entry_bytes: Bytes of one number.
            weights: Whether the learned numbers count too.
        """
        return _costs.peak_memory(self, entry_bytes, weights=weights)

    @cached_property
    def positions(self) -> tuple[list[int], int, int]:
        """Pixels or tokens of each node's output; batch and spatial axes of the input."""
        return _stages.node_positions(self)

    @cached_property
    def levels(self) -> tuple[int | None, ...]:
        """log2(side of the input / side of a node) for each node, None for the head."""
        return _stages.node_levels(self)

    def stages(self) -> tuple[Stage, ...]:
        """The nodes grouped by resolution, from fine to coarse, the head last."""
        return _stages.stages(self)

    # --- other forms ---------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Plain data for `json.dumps`, which `from_json` reads."""
        from nni_aiop.graphs._exchange import to_json

        return to_json(self)

    @staticmethod
    def from_json(data: Any) -> ComputeGraph:
        """The graph that `to_json` wrote.

        Raises:
            FileFormatError: The data are of another format or version, or a field does not fit.
            GraphError: The nodes are no graph.
        """
        from nni_aiop.graphs._exchange import from_json

        return from_json(data)

    def save(self, path: Path | str) -> Path:
        """The path, which now holds the graph as JSON; packed where it ends in .gz."""
        from nni_aiop.graphs._exchange import save

        return save(self, path)

    @staticmethod
    def load(path: Path | str) -> ComputeGraph:
        """The graph of a file that `save` wrote.

        Raises:
            FileFormatError: The file is damaged, or of another format or version.
            GraphError: Its nodes are no graph.
            OSError: There is no such file.
        """
        from nni_aiop.graphs._exchange import load

        return load(path)

    def to_networkx(self) -> networkx.MultiDiGraph:
        """A networkx graph: nodes with the fields of `Node`, edges with `argument`."""
        from nni_aiop.graphs._exchange import to_networkx

        return to_networkx(self)

    @staticmethod
    def from_networkx(graph: networkx.DiGraph) -> ComputeGraph:
        """The graph of a networkx graph with the attributes that `to_networkx` gives.

        Raises:
            GraphError: It is undirected or has a cycle.
            FileFormatError: An attribute is missing or does not fit its operation.
        """
        from nni_aiop.graphs._exchange import from_networkx

        return from_networkx(graph)

    def to_dot(self) -> str:
        """The graph in Graphviz's language."""
        from nni_aiop.graphs._drawing import to_dot

        return to_dot(self)

    def draw(self, path: Path | str, *, title: str | None = None) -> Path:
        """The path of a PNG: the graph by stages, and the multiply-adds of each."""
        from nni_aiop.graphs._drawing import draw

        return draw(self, path, title=title)

    def to_pyg(self) -> Data:
        """The features of nodes, edges and graph for PyTorch Geometric; see `to_pyg`."""
        from nni_aiop.graphs._features import to_pyg

        return to_pyg(self)

    def diff(self, other: ComputeGraph) -> GraphDiff:
        """What one of two graphs has and the other has not: false where they are equal.

        Example:
            >>> x = Node.make("input", [], (1, 8))
            >>> y = Node.make("output", [(1, 8)], (1, 8))
            >>> graph = ComputeGraph([x, y], [(), (0,)])
            >>> print(graph.diff(graph))
            The graphs are equal: 2 nodes.
        """
        from nni_aiop.graphs._diff import diff

        return diff(self, other)

    # --- identity ------------------------------------------------------------------------------

    @cached_property
    def _colours(self) -> list[bytes]:
        """For each node a hash of itself, all that it depends on, and all that depends on it."""
        forward: list[bytes] = []
        for node, sources in zip(self.nodes, self.inputs, strict=True):
            seen = [forward[source] for source in sources]
            if node.op in COMMUTATIVE:
                seen.sort()
            forward.append(_hash(node.digest, *seen))
        readers: list[list[bytes]] = [[] for _ in self.nodes]
        colours = list(forward)
        for place in range(len(self.nodes) - 1, -1, -1):
            colours[place] = _hash(forward[place], *sorted(readers[place]))
            commutes = self.nodes[place].op in COMMUTATIVE
            for argument, source in enumerate(self.inputs[place]):
                at = b"*" if commutes else str(argument).encode()
                readers[source].append(at + colours[place])
        return colours

    @cached_property
    def content_hash(self) -> str:
        """32 hexadecimal digits that isomorphic graphs with equal nodes share."""
        return blake2b(b"".join(sorted(self._colours)), digest_size=16).hexdigest()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ComputeGraph):
            return NotImplemented
        return self.content_hash == other.content_hash

    def __hash__(self) -> int:
        return hash(self.content_hash)

    def canonical(self) -> ComputeGraph:
        """The same graph with its nodes in an order that isomorphic graphs share.

        A topological order, first by the number of operations on the longest way from an input,
        then by a hash of each node's surroundings; the terms of sums and products likewise.
        """
        return self.canonical_order()[0]

    def canonical_order(self) -> tuple[ComputeGraph, list[int]]:
        """`canonical()`, and the place here of each of its nodes."""
        depth, colours = self.depth, self._colours
        order = sorted(range(len(self)), key=lambda place: (depth[place], colours[place], place))
        return self._reordered(order), order

    def _reordered(self, order: Sequence[int]) -> ComputeGraph:
        """The same graph with its nodes in another topological order."""
        place = {old: new for new, old in enumerate(order)}
        inputs = []
        nodes = []
        for old in order:
            node, sources = self.nodes[old], [place[source] for source in self.inputs[old]]
            nodes.append(node)
            inputs.append(sorted(sources) if node.op in COMMUTATIVE else sources)
        groups: dict[int, list[int]] = {}
        for later, earlier in self.tied.items():
            groups.setdefault(earlier, [place[earlier]]).append(place[later])
        tied = {
            later: min(group) for group in groups.values() for later in group if later != min(group)
        }
        return ComputeGraph(nodes, inputs, names=[self.names[old] for old in order], tied=tied)


def _hash(*parts: bytes) -> bytes:
    return blake2b(b"|".join(parts), digest_size=16).digest()
