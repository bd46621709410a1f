"""A graph with all that can be edited in it: its edited graphs, and their costs by the thousand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from nni_aiop.graphs._exchange import GraphParts
from nni_aiop.graphs._node import Node
from nni_aiop.graphs._types import GraphLike
from nni_aiop.graphs.edits._cost_table import CostTable, Merge
from nni_aiop.graphs.edits._coupling import Coupling, couple
from nni_aiop.graphs.edits._plan import Forms, NodePlan, node_plan, variant
from nni_aiop.graphs.edits._structure import Structure, find_structures
from nni_aiop.graphs.edits._tidy import takes_in, tidied

if TYPE_CHECKING:
    import torch

__all__ = ["COSTS", "EditPlan"]

COSTS = ("flops", "macs", "params", "peak_memory")


class EditPlan:
    """What can be edited in a graph.

    Attributes:
        graph: As it is.
        coupling: Its groups of channels.
        structures: Where its structure can be edited.
    """

    def __init__(self, graph: GraphLike) -> None:
        self.graph = graph
        self.coupling: Coupling = couple(graph)
        self.structures: list[Structure] = find_structures(graph)
        self._forms = Forms()

    @cached_property
    def plans(self) -> list[NodePlan]:
        """The plan of every node."""
        return [
            node_plan(self.graph, place, traced, self.coupling, self._forms)
            for place, traced in enumerate(self.coupling.traced)
        ]

    @cached_property
    def folds(self) -> dict[int, tuple[int, ...]]:
        """Operations that go once certain sums or products are gone: the places of those.

        A layer takes in the normalisation that follows it, and a clamp the clamp before it.
        """
        readers, sums = self._readers, self._sums
        found: dict[int, tuple[int, ...]] = {}
        for place, node in enumerate(self.graph.nodes):
            if node.op not in ("batch_norm", "relu6"):
                continue
            chain: list[int] = []
            passed: list[int] = []
            at, inner = self.graph.inputs[place][0], {place}
            while at in sums or (
                at in found and node.op == self.graph.nodes[at].op == "batch_norm"
            ):
                passed.append(at)
                inner.add(at)
                if at in sums:
                    inner |= {n for i in sums[at] for n in self.structures[i].nodes}
                    chain.append(at)
                    at = self.structures[sums[at][0]].source
                else:  # a normalisation that is taken in before this one
                    at = self.graph.inputs[at][0]
            before = self.graph.nodes[at]
            alone = all(readers[n] <= inner for n in (at, *passed))
            if not chain:
                continue
            if node.op == before.op == "relu6" or (
                alone and node.op == "batch_norm" and takes_in(before, node)
            ):
                found[place] = tuple(chain)
            elif alone and node.op == "relu6" and before.op == "relu":
                found[at] = tuple(chain)
        return found

    @cached_property
    def _readers(self) -> list[set[int]]:
        readers: list[set[int]] = [set() for _ in self.graph.nodes]
        for place, sources in enumerate(self.graph.inputs):
            for source in sources:
                readers[source].add(place)
        return readers

    @cached_property
    def _sums(self) -> dict[int, list[int]]:
        """By sum or product that may lose terms the structures that are these."""
        sums: dict[int, list[int]] = {}
        for i, structure in enumerate(self.structures):
            if structure.kind in ("branch", "gate"):
                sums.setdefault(structure.place, []).append(i)
        return sums

    @cached_property
    def merges(self) -> list[Merge]:
        """Sums that become terms of a later sum once nobody else reads them."""
        graph, readers, sums = self.graph, self._readers, self._sums
        plain = [n.op == "add" and n.get("operand") is None for n in graph.nodes]
        found = []
        for outer, node in enumerate(graph.nodes):
            for source in graph.inputs[outer] if plain[outer] else ():
                at, chain = source, list[int]()
                while True:
                    if plain[at] and graph.nodes[at].output_shape == node.output_shape:
                        others = {r for n in (at, *chain) for r in readers[n]} - {outer, *chain}
                        inside = [self.structures[i].nodes for c in chain for i in sums[c]]
                        between = frozenset().union(*inside)
                        own = [
                            i
                            for i in sums.get(outer, ())
                            if self.structures[i].nodes & (others - between)
                        ]
                        gone = between.union(*(self.structures[i].nodes for i in own))
                        if others <= gone and (chain or own):
                            found.append(Merge(at, outer, tuple(chain), tuple(own)))
                    if at not in sums:
                        break
                    chain.append(at)
                    at = self.structures[sums[at][0]].source
        return found

    @cached_property
    def _shared(self) -> list[list[int]]:
        """Nodes that share their weights, in groups."""
        groups: dict[int, list[int]] = {}
        first: dict[int, int] = {}
        for later, earlier in sorted(self.graph.tied.items()):
            first[later] = first.get(earlier, earlier)
            groups.setdefault(first[later], [first[later]]).append(later)
        return list(groups.values())

    # --- one edited graph ----------------------------------------------------------------------

    def edited(self, kept: Sequence[int], options: Mapping[int, object]) -> GraphParts:
        """The parts of the graph after an edit.

        Args:
            kept: Units that every group keeps.
            options: By place in `structures` what is to be other than it is.
        """
        plans = self.plans
        values = self._forms.numbers(kept)
        gone: set[int] = set()
        met: set[int] = set()
        alias: set[int] = set()
        dropped: dict[int, set[int]] = {}
        forms: dict[int, object] = {}
        for at, option in options.items():
            structure = self.structures[at]
            if option == structure.options[0]:
                continue
            if structure.kind in ("branch", "gate"):
                gone |= structure.nodes
                terms = structure.nodes & set(self.graph.inputs[structure.place])
                dropped.setdefault(structure.place, set()).update(terms)
            else:
                forms[structure.place] = option
        nodes: list[Node] = []
        inputs: list[list[int]] = []
        names: list[str] = []
        where: dict[int, int] = {}
        for place, sources in enumerate(self.graph.inputs):
            if place in gone:
                continue
            plan, name = plans[place], self.graph.names[place]
            stays = [s for s in sources if s not in dropped.get(place, ())]
            if len(stays) < len(sources):
                if len(stays) == 1 and plan.node.get("operand") is None:
                    alias.add(place)
                    where[place] = where[stays[0]]
                    continue
                plan = _with_terms(plan, len(stays))
            if len(stays) < len(sources) or any(s in alias for s in stays):
                met.add(len(nodes))
            sources = tuple(where[s] for s in stays)
            for part in variant(plan, forms[place]) if place in forms else [plan]:
                nodes.append(part.made(values))
                inputs.append(list(sources))
                names.append(name)
                sources = (len(nodes) - 1,)
            where[place] = len(nodes) - 1
        tied: dict[int, int] = {}
        for group in self._shared:
            stay = [where[member] for member in group if member not in gone]
            tied.update(dict.fromkeys(stay[1:], stay[0]) if stay else {})
        return tidied(nodes, inputs, names, tied, met)

    # --- costs of many -------------------------------------------------------------------------

    def costs(
        self,
        kept: torch.Tensor,
        options: Mapping[int, torch.Tensor] | None = None,
        names: Sequence[str] = COSTS,
    ) -> dict[str, torch.Tensor]:
        """(n,) costs of candidates, differentiable.

        Args:
            kept: (n, groups) kept units.
            options: By place in `structures` (n, options) how much of each option: 0 or 1, or
                anything between where a gradient is wanted.
            names: Of the costs.
        """
        found = self._table.costs(kept, options or {}, names)
        return {name: found[name].expand(len(kept)) for name in names}

    @cached_property
    def _table(self) -> CostTable:
        return CostTable(
            self.graph,
            self.plans,
            self._forms,
            self.structures,
            self.folds,
            self.merges,
            self._shared,
        )


def _with_terms(plan: NodePlan, terms: int) -> NodePlan:
    """A sum or product of fewer terms."""
    return replace(plan, input_shapes=tuple(plan.output_shape for _ in range(terms)), changed=True)
