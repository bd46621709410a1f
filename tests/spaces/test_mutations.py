"""The edits of a network as a search space."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nni_aiop.errors import GraphError, InfeasibleError, SpaceError
from nni_aiop.graphs import ComputeGraph, from_module
from nni_aiop.search import RandomSearch
from nni_aiop.spaces import MutationSpace, Nominal, Ordinal
from tests.spaces.mutation_spaces import graph, mutations


@pytest.fixture(scope="module")
def space() -> MutationSpace:
    return mutations()


def costs(graph: ComputeGraph) -> dict[str, int]:
    return {
        "flops": graph.macs,
        "macs": graph.macs,
        "params": graph.parameters,
        "peak_memory": graph.peak_memory(),
    }


def test_one_dimension_a_site(space: MutationSpace) -> None:
    by_label = {d.label: d for d in space.dimensions}
    editable = {s.label: s for s in space.sites if s.reason is None}
    assert set(space.labels) == set(editable)
    for label, site in editable.items():
        kind = Nominal if site.kind in ("branch", "gate", "form") else Ordinal
        assert isinstance(by_label[label], kind)
        assert set(by_label[label].values) == set(site.values)
    assert by_label["kernel:2.deep"].values == (3, 5)


def test_the_original_is_the_network(space: MutationSpace) -> None:
    assert space.violation(space.original) is None
    assert space.graph(space.original) == space.base == graph()
    code = space.encode([space.original])
    for name, true in costs(space.base).items():
        assert space.cost(name, code).tolist() == [true]


def test_costs_are_those_of_the_edited_graphs(space: MutationSpace) -> None:
    samples = space.sample(60, np.random.default_rng(0))
    codes = space.encode(samples)
    true = [costs(space.graph(sample)) for sample in samples]
    for name in space.costs:
        assert space.cost(name, codes).tolist() == [row[name] for row in true]


def test_what_is_inside_a_branch_that_is_gone_is_inactive(space: MutationSpace) -> None:
    sample = {**space.original, "branch:2": "remove"}
    inside = {"kernel:2.deep", "gate:2", "form:2.gate", "width:2.expand"}
    (active,) = space.active([sample])
    assert {label for label, on in zip(space.labels, active, strict=True) if not on} == inside
    other = {**sample, "kernel:2.deep": 3, "gate:2": "remove", "width:2.expand": 8}
    assert space.key(sample) == space.key(other)
    assert space.graph(sample) == space.graph(other) == space.graph(space.canonical(other))
    codes = space.encode([sample, other])
    for name in space.costs:
        assert len(set(space.cost(name, codes).tolist())) == 1


def test_what_is_inside_a_gate_that_is_gone_is_inactive(space: MutationSpace) -> None:
    sample = {**space.original, "gate:2": "remove", "form:2.gate": "rank 1/4"}
    (active,) = space.active([sample])
    assert [label for label, on in zip(space.labels, active, strict=True) if not on] == [
        "form:2.gate"
    ]
    assert space.key(sample) == space.key({**sample, "form:2.gate": "dense"})


def test_neighbours_are_one_edit_away(space: MutationSpace) -> None:
    beside = space.neighbours(space.original)
    # Both directions of an ordinal, all other values of a nominal: at the original, one step down.
    assert {next(k for k in s if s[k] != space.original[k]) for s in beside} == set(space.labels)
    for sample in beside:
        edited = space.graph(sample)
        assert edited != space.base
        assert ComputeGraph.from_json(edited.to_json()) == edited


def test_costs_in_codes_have_gradients(space: MutationSpace) -> None:
    rng = np.random.default_rng(1)
    codes = torch.tensor(rng.random((6, space.width)), requires_grad=True)
    for name in ("macs", "params"):
        (gradient,) = torch.autograd.grad(space.costs[name](codes).sum(), codes)
        step = 1e-6
        for column in range(space.width):
            move = torch.zeros(space.width).double()
            move[column] = step
            with torch.no_grad():
                up, down = (space.costs[name](codes + sign * move) for sign in (1, -1))
            slope = (up - down) / (2 * step)
            torch.testing.assert_close(gradient[:, column], slope, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("kinds", [["width"], ("branch", "gate"), ["kernel", "form"]])
def test_kinds_of_sites(kinds: Any) -> None:
    space = MutationSpace(graph(), kinds=kinds)
    assert {label.partition(":")[0] for label in space.labels} == set(kinds)
    samples = space.sample(10, np.random.default_rng(0))
    assert space.cost("macs", space.encode(samples)).tolist() == [
        space.graph(sample).macs for sample in samples
    ]


def test_layers_to_keep_and_rounding() -> None:
    space = MutationSpace(graph(), keep=["1", "2.gate"], round_to=16)
    assert {
        "branch:1",
        "branch:2",
        "gate:2",
        "form:2.gate",
        "width:1.expand",
        "width:2.expand",
    }.isdisjoint(space.labels)
    assert dict(zip(space.labels, space.dimensions, strict=True))["width:3.expand"].values == (
        16,
        32,
    )


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"kinds": ["widths"]}, SpaceError, "a kind of site must be one of .*, but got 'widths'"),
        ({"kinds": "width"}, SpaceError, "kinds must be a list of kinds of sites, but got 'width'"),
        ({"kinds": 3}, SpaceError, "kinds must be a list of kinds of sites, but got 3"),
        ({"kinds": []}, SpaceError, "must have a site that can be edited, but got none"),
        ({"kinds": ["heads"]}, SpaceError, "must have a site that can be edited, but got none"),
        ({"keep": ["nowhere"]}, GraphError, "must be that of a layer, but got 'nowhere'"),
        ({"keep": "1"}, GraphError, "keep must be a list of names, but got the text '1'"),
        ({"keep": ["*"]}, SpaceError, "must have a site that can be edited, but got none"),
        ({"round_to": 0}, GraphError, "round_to must be a positive whole number, but got 0"),
    ],
)
def test_a_wrong_option_is_one_sentence(
    options: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        MutationSpace(graph(), **options)


def test_a_network_without_sites_says_why() -> None:
    with pytest.raises(SpaceError, match=r"but got none: .*it leaves the network"):
        MutationSpace(from_module(nn.Conv2d(3, 8, 1), (1, 3, 4, 4)))


def test_an_impossible_limit_is_one_clear_error() -> None:
    with pytest.raises(InfeasibleError, match="the cheapest that was reached has flops = "):
        RandomSearch(mutations(), seed=5, limits={"flops": 1000}).ask(1)
