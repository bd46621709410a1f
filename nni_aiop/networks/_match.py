"""Which channels of the real network the groups of its compute graph are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nni_aiop.graphs import ComputeGraph
from nni_aiop.graphs.edits import Classes, Coupler, Coupling, Group, Labels, Marks

__all__ = ["Labelled", "Units", "match"]


class Labelled(Protocol):
    """The label pass over a real network."""

    @property
    def coupler(self) -> Coupler:
        """The ties."""

    @property
    def marks(self) -> Mapping[str, Any]:
        """By name of an operation the marks of what it puts out."""


@dataclass(frozen=True)
class Units:
    """The units of a group in the real network.

    Attributes:
        labels: Of each unit the labels that go with it.
        reason: Why they cannot go, None where they can.
    """

    labels: tuple[Labels, ...]
    reason: str | None = None


def match(
    graph: ComputeGraph, coupling: Coupling, operations: Sequence[str], labels: Labelled
) -> list[Units]:
    """The units of every group of a graph in the network that it was recorded from."""
    widths = labels.coupler.solve()
    heads = labels.coupler.solve(heads=True)
    members = {id(classes): _members(classes) for classes in (widths, heads)}
    where = _correspondence(coupling, operations, labels)
    owners: dict[tuple[str, int], tuple[int, int]] = {}
    found: list[Units] = []
    for place, group in enumerate(coupling.groups):
        classes = heads if group.kind == "heads" else widths
        found.append(_units(group, place, where, classes, members[id(classes)], owners))
    shared = {place for places in owners.values() if places[0] != places[1] for place in places}
    return [
        Units((), "in the network its channels go together with others")
        if place in shared and units.reason is None
        else units
        for place, units in enumerate(found)
    ]


def _units(
    group: Group,
    place: int,
    where: NDArray[np.int64],
    classes: Classes,
    members: list[Labels],
    owners: dict[tuple[str, int], tuple[int, int]],
) -> Units:
    if group.reason is not None:
        return Units((), group.reason)
    own = where[group.labels]
    if (own < 0).any():
        return Units((), "the operation that it comes from was not found in the network")
    of = classes.of[own]
    for cls in np.unique(of).tolist():
        if cls in classes.reasons:
            return Units((), classes.reasons[cls])
    units = []
    seen: dict[int, int] = {}
    for number, unit in enumerate(np.unique(group.units).tolist()):
        mine = np.unique(of[group.units == unit])
        for cls in mine.tolist():
            if seen.setdefault(cls, number) != number:
                return Units((), "in the network its channels go together with each other")
            first = owners.setdefault((group.kind, cls), (place, place))
            if first[0] != place:
                owners[group.kind, cls] = (first[0], place)
        units.append(np.sort(np.concatenate([members[cls] for cls in mine.tolist()])))
    return Units(tuple(units))


def _members(classes: Classes) -> list[Labels]:
    """The labels of every class."""
    order = np.argsort(classes.of, kind="stable")
    sizes = np.bincount(classes.of)
    return np.split(order, np.cumsum(sizes)[:-1])


def _correspondence(
    coupling: Coupling, operations: Sequence[str], labels: Labelled
) -> NDArray[np.int64]:
    """(labels of the graph,) the label of the network, -1 where there is none."""
    where = np.full(len(coupling.widths), -1)
    for place, traced in enumerate(coupling.traced):
        marks = labels.marks.get(operations[place])
        if not isinstance(marks, Marks) or not traced.out.layers:
            continue
        try:
            seen = marks.reshaped(traced.out.shape)
        except ValueError:
            continue
        for layer in traced.out.layers:
            varies = [n > 1 for n in layer.shape]
            for other in seen.layers:
                if [n > 1 for n in other.shape] == varies:
                    fresh = where[layer] < 0
                    where[layer[fresh]] = other[fresh]
                    break
    return where
