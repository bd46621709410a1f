"""A graph with all that can be edited in it: its edited graphs, and their costs by the thousand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from nni_aiop.graphs._costs import node_cost
from nni_aiop.graphs._exchange import GraphParts
from nni_aiop.graphs._node import Node
from nni_aiop.graphs._types import Cost, GraphLike
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
        """Normalisations that a layer takes in once certain sums are gone: the places of those."""
        readers: list[set[int]] = [set() for _ in self.graph.nodes]
        for place, sources in enumerate(self.graph.inputs):
            for source in sources:
                readers[source].add(place)
        sums: dict[int, list[Structure]] = {}
        for structure in self.structures:
            if structure.kind in ("branch", "gate"):
                sums.setdefault(structure.place, []).append(structure)
        found: dict[int, tuple[int, ...]] = {}
        for place, node in enumerate(self.graph.nodes):
            if node.op != "batch_norm":
                continue
            chain, at, inner = [], self.graph.inputs[place][0], {place}
            while at in sums:
                inner |= {at, *(n for structure in sums[at] for n in structure.nodes)}
                chain.append(at)
                at = sums[at][0].source
            nodes = [at, *chain]
            if (
                chain
                and takes_in(self.graph.nodes[at], node)
                and all(readers[n] <= inner for n in nodes)
            ):
                found[place] = tuple(chain)
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
        import torch

        options = options or {}
        values = self._forms_of(kept)
        n = len(kept)
        zero = kept.new_zeros(n)
        totals = dict.fromkeys(("flops", "macs", "parameters"), zero)
        constant = Cost()
        factor: dict[int, Any] = {}
        gone: dict[int, Any] = {}
        forms: dict[int, tuple[Structure, torch.Tensor]] = {}
        for at, share in options.items():
            structure = self.structures[at]
            if structure.kind in ("branch", "gate"):
                for node in structure.nodes:
                    factor[node] = factor.get(node, 1.0) * (1 - share[:, 1])
                gone[structure.place] = gone.get(structure.place, 0.0) + share[:, 1]
            else:
                forms[structure.place] = (structure, share)
        vanishes = {
            place: (number >= len(self.graph.inputs[place]) - 1).to(kept.dtype)
            for place, number in gone.items()
            if self.plans[place].node.get("operand") is None
        }
        activations: list[Any] = []
        before = {member: group[:at] for group in self._shared for at, member in enumerate(group)}
        for place, plan in enumerate(self.plans):
            alone = place not in factor and place not in gone and place not in forms
            alone = (
                alone
                and place not in self.folds
                and not any(member in factor for member in before.get(place, ()))
            )
            if alone and not plan.varies:
                cost = plan.node.cost
                constant += Cost(
                    cost.macs, cost.flops, 0 if place in self.graph.tied else cost.parameters
                )
                activations.append(cost.activations)
                continue
            if place in forms:
                structure, share = forms[place]
                parts = [
                    (share[:, i], [node_cost(part.view(values)) for part in variant(plan, option)])
                    for i, option in enumerate(structure.options)
                ]
                made = {
                    name: sum(w * sum(getattr(c, name) for c in found) for w, found in parts)
                    for name in ("flops", "macs", "parameters")
                }
                written = parts[0][1][-1].activations
            else:
                cost = node_cost(plan.view(values))
                made = {name: getattr(cost, name) for name in ("flops", "macs", "parameters")}
                written = cost.activations
            if place in gone:
                made["flops"] = made["flops"] - gone[place] * written
            for member in before.get(place, ()):  # they count once, as long as one of them is there
                made["parameters"] = made["parameters"] * (1 - factor.get(member, 1))
            if place in self.folds and any(term in gone for term in self.folds[place]):
                made["flops"] = made["flops"] * (1 - _folded(self.folds[place], vanishes))
            scale = factor.get(place)
            for name, number in made.items():
                totals[name] = totals[name] + (number if scale is None else scale * number)
            activations.append(written)
        found = {
            "flops": totals["flops"] + constant.flops,
            "macs": totals["macs"] + constant.macs,
            "params": totals["parameters"] + constant.parameters,
        }
        if "peak_memory" in names:
            found["peak_memory"] = self._peak(kept, factor, vanishes, forms, activations)
        return {name: torch.broadcast_to(found[name], (n,)) for name in names}

    def _forms_of(self, kept: torch.Tensor) -> list[torch.Tensor]:
        assert self.plans
        return self._forms.tensors(kept)

    def _peak(
        self,
        kept: torch.Tensor,
        factor: Mapping[int, Any],
        vanishes: Mapping[int, Any],
        forms: Mapping[int, tuple[Structure, torch.Tensor]],
        written: Sequence[Any],
    ) -> torch.Tensor:
        """(n,) bytes that live at once, as `_costs.peak_memory` counts them.

        The schedule has a slot for every node, and one before it for the first half of a layer that
        may be two.
        """
        import torch

        values, graph, n = self._forms_of(kept), self.graph, len(kept)
        slots: list[int] = []
        slot = -1
        for place in range(len(graph)):
            slot += 2 if place in forms else 1
            slots.append(slot)
        end = slot + 1
        vanishes = {
            **vanishes,
            **{
                place: _folded(chain, vanishes)
                for place, chain in self.folds.items()
                if any(term in vanishes for term in chain)
            },
        }
        dies: list[Any] = list(slots)
        for place in range(len(graph) - 1, -1, -1):
            node = graph.nodes[place]
            alive = factor.get(place)
            read: Any = end if node.op == "output" else slots[place]
            if place in forms:
                read = read - 1 + forms[place][1][:, 0]  # two layers read their input earlier
                structure = forms[place][0]
                for i, option in enumerate(structure.options):
                    if i and len(variant(self.plans[place], option)) == 1:
                        read = read + forms[place][1][:, i]
            if place in vanishes:
                read = _later(read, vanishes[place] * dies[place])
            if alive is not None:
                read = read * alive
            for source in graph.inputs[place]:
                dies[source] = _later(dies[source], read)
        delta = kept.new_zeros(n, end + 2)
        for place, size in enumerate(written):
            if place in vanishes:
                size = size * (1 - vanishes[place])
            if place in factor:
                size = size * factor[place]
            _lives(delta, slots[place], dies[place], size)
            if place in forms:
                structure, share = forms[place]
                inner: Any = 0
                for i, option in enumerate(structure.options):
                    parts = variant(self.plans[place], option)
                    if len(parts) == 2:
                        made = node_cost(parts[0].view(values)).activations
                        inner = inner + share[:, i] * made
                _lives(delta, slots[place] - 1, slots[place], inner * factor.get(place, 1))
        return 4 * torch.cumsum(delta, 1).amax(1)


def _folded(chain: Sequence[int], vanishes: Mapping[int, Any]) -> Any:
    """How much of a normalisation is taken in: all of it where every sum before it is gone."""
    share: Any = 1
    for place in chain:
        share = share * vanishes.get(place, 0)
    return share


def _later(a: Any, b: Any) -> Any:
    import torch

    if isinstance(a, int) and isinstance(b, int):
        return max(a, b)
    either = a if isinstance(a, torch.Tensor) else b
    return torch.maximum(*(torch.as_tensor(x, dtype=either.dtype) for x in (a, b)))


def _lives(delta: torch.Tensor, first: int, last: Any, size: Any) -> None:
    """Adds a tensor that lives from one slot to another."""
    import torch

    if isinstance(size, int) and not size:
        return
    delta[:, first] += size
    if isinstance(last, int):
        delta[:, last + 1] -= size
        return
    index = (last.detach().round().long() + 1).expand(len(delta))[:, None]
    sizes = torch.broadcast_to(torch.as_tensor(size, dtype=delta.dtype), (len(delta),))
    delta.scatter_add_(1, index, -sizes[:, None])


def _with_terms(plan: NodePlan, terms: int) -> NodePlan:
    """A sum or product of fewer terms."""
    return replace(plan, input_shapes=tuple(plan.output_shape for _ in range(terms)), changed=True)
