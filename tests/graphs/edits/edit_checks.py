"""What the tests of edits share."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nni_aiop.graphs import ComputeGraph, from_module
from nni_aiop.graphs.edits import COSTS, as_edit, find_sites, plan_of

IMAGE = (1, 3, 8, 8)


class Module(nn.Module):
    """A module whose forward is a function of its layers."""

    def __init__(self, forward: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        self._forward = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, *args: Tensor) -> Any:
        return self._forward(self, *args)


def words(*shape: int) -> Tensor:
    """Places of words, all of them the first."""
    return torch.zeros(shape, dtype=torch.long)


def true_costs(graph: ComputeGraph) -> dict[str, int]:
    """The costs that the graph counts itself."""
    return {
        "flops": graph.cost.flops,
        "macs": graph.cost.macs,
        "params": graph.cost.parameters,
        "peak_memory": graph.peak_memory(),
    }


def planned_costs(
    graph: ComputeGraph, candidates: Sequence[Mapping[str, Any]]
) -> list[dict[str, int]]:
    """The costs that the plan of a graph foretells of edits, computed together."""
    plan, sites = plan_of(graph), find_sites(graph)
    kept: list[list[int]] = []
    shares: dict[int, list[list[float]]] = {i: [] for i in range(len(plan.structures))}
    for edits in candidates:
        units, options = as_edit(sites, plan, edits)
        kept.append(units)
        for place, structure in enumerate(plan.structures):
            value = options.get(place, structure.options[0])
            shares[place].append([float(value == option) for option in structure.options])
    found = plan.costs(
        torch.tensor(kept, dtype=torch.float64),
        {place: torch.tensor(rows, dtype=torch.float64) for place, rows in shares.items()},
    )
    return [{name: int(found[name][i]) for name in COSTS} for i in range(len(candidates))]


def assert_valid(graph: ComputeGraph) -> None:
    """Its shapes fit one another."""
    assert ComputeGraph.from_json(graph.to_json()) == graph


def assert_same(edited: ComputeGraph, written: ComputeGraph) -> None:
    """Two graphs are equal, their learned numbers and costs included."""
    assert_valid(edited)
    assert edited == written, str(edited.diff(written))
    assert true_costs(edited) == true_costs(written)


def assert_edits_to(
    make: Callable[..., nn.Module],
    example: Any,
    edits: Mapping[str, Any],
    **smaller: Any,
) -> ComputeGraph:
    """The graph of `make()`, whose edit must equal the graph of `make(**smaller)`."""
    graph = from_module(make(), example)
    edited = graph.edit(edits)
    assert_same(edited, from_module(make(**smaller), example))
    assert planned_costs(graph, [edits, {}]) == [true_costs(edited), true_costs(graph)]
    assert graph.edit({}) == graph
    return graph


def editable(graph: ComputeGraph, **options: Any) -> list[str]:
    """Labels of the sites that can be edited."""
    return [site.label for site in graph.sites(**options) if site.reason is None]


def reasons(graph: ComputeGraph) -> dict[str, str]:
    """By label why a site cannot be edited."""
    return {site.label: site.reason for site in graph.sites() if site.reason is not None}
