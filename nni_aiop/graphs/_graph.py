"""ComputeGraph: a network as atomic operations and the data that flow between them."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nni_aiop.errors import GraphError, UnknownCostWarning
from nni_aiop.graphs import _costs, _stages
from nni_aiop.graphs._node import Node
from nni_aiop.graphs._stages import Stage
from nni_aiop.graphs._types import Cost, Shape
from nni_aiop.graphs._vocabulary import COMMUTATIVE, MOVING, OTHER

if TYPE_CHECKING:
    import networkx
    from torch_geometric.data import Data

    from nni_aiop.graphs._diff import GraphDiff
    from nni_aiop.graphs._exchange import GraphParts
    from nni_aiop.graphs.edits import Site

__all__ = ["ComputeGraph"]


class ComputeGraph:
    """A network as a directed acyclic graph of atomic operations; an immutable value.

    Two graphs are equal when they are isomorphic with equal nodes that share their weights alike,
    whatever the order of nodes and their names: `==` and `hash` follow `content_hash`. How many
    numbers a node learned beside its weight (a bias, a normalisation that it took in) is no part of
    that, since files of one network differ there; `diff` tells it.

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
        self._warned = False
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
    def uncounted(self) -> dict[str, int]:
        """How often each of `others` occurs that may cost multiply-adds, which nobody counts.

        Those are all but the ones that only move, count or order data, such as "scatter" or "topk".
        """
        counts = ((name, self.operations[OTHER + name]) for name in self.others)
        return {name: count for name, count in counts if name.rstrip("_") not in MOVING}

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
        """Multiply-adds of convolutions, linear layers, products, attention, recurrent layers.

        Warns once of operations that it leaves out (`uncounted`).
        """
        self._warn_once()
        return self.cost.macs

    @property
    def flops(self) -> int:
        """Operations: two for each multiply-add, and those of all other functions (`Cost`).

        Warns once of operations that it leaves out (`uncounted`).
        """
        self._warn_once()
        return self.cost.flops

    def _warn_once(self) -> None:
        if self._warned or not self.uncounted:
            return
        self._warned = True
        names = ", ".join(f"{name} x{count}" for name, count in self.uncounted.items())
        warnings.warn(
            f"the costs of a graph must be those of all its operations, but {names} are not known "
            f"and count as nothing.",
            UnknownCostWarning,
            stacklevel=3,
        )

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

        return ComputeGraph._of(from_json(data))

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

        return ComputeGraph._of(load(path))

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

        return ComputeGraph._of(from_networkx(graph))

    def to_dot(self) -> str:
        """The graph in Graphviz's language."""
        from nni_aiop.graphs._drawing import to_dot

        return to_dot(self)

    def draw(self, path: Path | str, *, title: str | None = None) -> Path:
        """The path of a PNG: the graph by stages, and the multiply-adds of each."""
        from nni_aiop.graphs._drawing import draw

        return draw(self, path, title=title)

    def to_svg(self, *, title: str | None = None) -> str:
        """The same picture as SVG, which takes a hundredth of the time."""
        from nni_aiop.graphs._svg import to_svg

        return to_svg(self, title=title)

    def to_pyg(self) -> Data:
        """The features of nodes, edges and graph for PyTorch Geometric; see `to_pyg`."""
        from nni_aiop.graphs._features import to_pyg

        return to_pyg(self)

    def diff(self, other: ComputeGraph) -> GraphDiff[ComputeGraph]:
        """What one of two graphs has and the other has not: false where nothing differs.

        Example:
            >>> x = Node.make("input", [], (1, 8))
            >>> y = Node.make("output", [(1, 8)], (1, 8))
            >>> graph = ComputeGraph([x, y], [(), (0,)])
            >>> print(graph.diff(graph))
            The graphs are equal: 2 nodes.
        """
        from nni_aiop.graphs._diff import diff

        return diff(self, other)

    # --- edits ---------------------------------------------------------------------------------

    def sites(self, *, keep: Sequence[str] = (), round_to: int | None = None) -> tuple[Site, ...]:
        """What can be edited, and what cannot with the reason.

        Args:
            keep: Names of layers to leave as they are, with wildcards: "head", "layer1.*".
            round_to: Widths are multiples of so many channels; 8 or 4 by default, see `find_sites`.

        Raises:
            GraphError: A pattern fits no layer, or `round_to` is not positive.
        """
        from nni_aiop.graphs.edits import find_sites

        return find_sites(self, keep=keep, round_to=round_to)

    def edit(self, edits: Mapping[str, Any]) -> ComputeGraph:
        """The graph with fewer channels, branches, gates or smaller kernels.

        Args:
            edits: By label of a site (`sites`) what it is to be: how many units it keeps, or one of
                its options. What is inside a branch that goes is not looked at.

        Raises:
            GraphError: There is no such site, it cannot be edited, or not in that way.

        Example:
            >>> x = Node.make("input", [], (1, 8))
            >>> a = Node.make("linear", [(1, 8)], (1, 64), weight_shape=(64, 8), parameters=512)
            >>> b = Node.make("linear", [(1, 64)], (1, 2), weight_shape=(2, 64), parameters=128)
            >>> y = Node.make("output", [(1, 2)], (1, 2))
            >>> graph = ComputeGraph([x, a, b, y], [(), (0,), (1,), (2,)], names=["", "a", "b", ""])
            >>> graph.edit({"width:a": 32}).parameters
            320
        """
        from nni_aiop.graphs.edits import as_edit, find_sites, plan_of

        plan = plan_of(self)
        return ComputeGraph._of(plan.edited(*as_edit(find_sites(self), plan, edits)))

    @staticmethod
    def _of(parts: GraphParts) -> ComputeGraph:
        return ComputeGraph(parts.nodes, parts.inputs, names=parts.names, tied=parts.tied)

    # --- identity ------------------------------------------------------------------------------

    @cached_property
    def colours(self) -> list[bytes]:
        """Of each node a hash of itself, all that it depends on, and all that depends on it."""
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
        """32 hexadecimal digits that equal graphs share."""
        content = [*sorted(self.colours), *sorted(set(self.sharing.values()))]
        return blake2b(b"".join(content), digest_size=16).hexdigest()

    @cached_property
    def sharing(self) -> dict[int, bytes]:
        """Of each node that shares its weights a hash of all the nodes that do."""
        groups: dict[int, list[int]] = {}
        first: dict[int, int] = {}
        for later, earlier in sorted(self.tied.items()):
            if self.nodes[later].parameters:
                first[later] = first.get(earlier, earlier)
                groups.setdefault(first[later], [first[later]]).append(later)
        return {
            place: _hash(b"shared", *sorted(self.colours[member] for member in group))
            for group in groups.values()
            for place in group
        }

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
        depth, colours = self.depth, self.colours
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
