"""Sites: what can be edited in a graph, by label, and what cannot, with the reason."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from nni_aiop.errors import GraphError, the_nearest
from nni_aiop.graphs._types import GraphLike
from nni_aiop.graphs.edits._coupling import Group, step_of
from nni_aiop.graphs.edits._edit_plan import EditPlan

__all__ = ["Site", "as_edit", "find_sites", "plan_of"]


@dataclass(frozen=True)
class Site:
    """One place of a graph that can be edited, or cannot.

    Attributes:
        label: Its name in an edit: the kind, and the layer that it begins with.
        kind: "width" (channels), "heads" (of attention), "branch", "gate", "kernel", "form".
        layers: Names of the layers whose output channels, branch, gate or weight it is.
        values: What it can be, in the order of sizes; of widths and heads how many units are kept.
        value: What it is.
        channels: Channels of a layer that one unit has, 1 but for groups; 0 for other kinds.
        reason: Why it cannot be edited, None where it can.
        index: Place among the groups (widths, heads) or structures of the plan.
        parents: Labels of branches and gates that it is a part of.
    """

    label: str
    kind: str
    layers: tuple[str, ...]
    values: tuple[Any, ...]
    value: Any
    channels: int
    reason: str | None
    index: int
    parents: tuple[str, ...] = ()

    @property
    def counts(self) -> bool:
        """Whether its values are numbers of units."""
        return self.kind in ("width", "heads")


def plan_of(graph: GraphLike) -> EditPlan:
    """The plan of a graph, made once."""
    plan = graph.__dict__.get("_edit_plan")
    if plan is None:
        plan = graph.__dict__["_edit_plan"] = EditPlan(graph)
    assert isinstance(plan, EditPlan)
    return plan


def find_sites(
    graph: GraphLike, *, keep: Sequence[str] = (), round_to: int | None = None
) -> tuple[Site, ...]:
    """What can be edited in a graph, and what cannot.

    Args:
        graph: Any graph.
        keep: Names of layers to leave as they are, with wildcards: "head", "layer1.*". A name means
            what is inside it, too. Their output channels, their branch and their form stay; that
            they read fewer channels may still follow from the layers before.
        round_to: Widths are multiples of so many channels. By default of 8 where the layer has at
            least 32, else of 4; a site's full width is always among its values.

    Returns:
        Those that can be edited in the order of nodes, then those that cannot.

    Raises:
        GraphError: A pattern fits no layer, or `round_to` is not positive.
    """
    if round_to is not None and not (type(round_to) is int and round_to > 0):
        raise GraphError(f"round_to must be a positive whole number, but got {round_to!r}.")
    _check_keep(graph, keep)
    plan = plan_of(graph)
    names = _Names()
    removals: list[tuple[str, frozenset[int]]] = []
    found: list[tuple[int, Site]] = []
    for index, structure in enumerate(plan.structures):
        nodes = structure.nodes or frozenset({structure.place})
        layers = tuple(dict.fromkeys(graph.names[n] for n in sorted(nodes)))
        label = names.label(structure.kind, structure.name or graph.nodes[structure.place].op)
        reason = "it is to be kept" if _kept(layers, keep) else None
        if structure.nodes and reason is None:
            removals.append((label, structure.nodes))
        site = Site(
            label, structure.kind, layers, structure.options, structure.options[0], 0, reason, index
        )
        found.append((min(nodes), site))
    for index, group in enumerate(plan.coupling.groups):
        name = group.layers[0] if group.layers else "channels"
        values = _values(group, round_to)
        reason = group.reason
        if reason is None and _kept(group.layers, keep):
            reason = "it is to be kept"
        if reason is None and len(values) < 2:
            reason = f"it has {group.size * group.channels} channels, too few to be a site"
        site = Site(
            names.label(group.kind, name),
            group.kind,
            group.layers,
            values,
            group.size,
            group.channels,
            reason,
            index,
        )
        found.append((min(group.places, default=0), site))
    found.sort(key=lambda item: (item[1].reason is not None, item[0]))
    return tuple(_with_parents(site, plan, removals) for _, site in found)


def _with_parents(
    site: Site, plan: EditPlan, removals: Sequence[tuple[str, frozenset[int]]]
) -> Site:
    if site.counts:
        own = frozenset(plan.coupling.groups[site.index].places)
    else:
        structure = plan.structures[site.index]
        own = structure.nodes or frozenset({structure.place})
    parents = tuple(
        label for label, nodes in removals if label != site.label and own and own <= nodes
    )
    return replace(site, parents=parents) if parents else site


class _Names:
    """Labels that differ."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def label(self, kind: str, name: str) -> str:
        label = f"{kind}:{name}"
        count = self._seen[label] = self._seen.get(label, 0) + 1
        return label if count == 1 else f"{label}#{count}"


def _values(group: Group, round_to: int | None) -> tuple[int, ...]:
    step = step_of(group, round_to)
    return (*range(step, group.size, step), group.size)


def _kept(layers: Sequence[str], keep: Sequence[str]) -> bool:
    return any(_fits(name, pattern) for name in layers for pattern in keep)


def _fits(name: str, pattern: str) -> bool:
    # What is inside a module is named "module.part", in ONNX files "/module/part".
    return any(fnmatchcase(name, f"{pattern}{rest}") for rest in ("", ".*", "/*"))


def _check_keep(graph: GraphLike, keep: Sequence[str]) -> None:
    if isinstance(keep, str):
        raise GraphError(f"keep must be a list of names, but got the text {keep!r}.")
    if not isinstance(keep, Collection) or not all(isinstance(name, str) for name in keep):
        raise GraphError(f"keep must be a list of names, but got {keep!r}.")
    names = list(
        dict.fromkeys(
            name
            for name, node in zip(graph.names, graph.nodes, strict=True)
            if name and node.op not in ("input", "output")
        )
    )
    for pattern in keep:
        if not any(_fits(name, pattern) for name in names):
            hint = the_nearest(pattern, names, "name")
            raise GraphError(f"a name to keep must be that of a layer, but got {pattern!r}{hint}.")


def as_edit(
    sites: Sequence[Site], plan: EditPlan, edits: Mapping[str, Any]
) -> tuple[list[int], dict[int, object]]:
    """(units that every group keeps, options of structures) of an edit by labels.

    Raises:
        GraphError: A label is not a site's, the site cannot be edited, or not in that way.
    """
    if not isinstance(edits, Mapping):
        raise GraphError(f"edits must be values by label, but got {edits!r}.")
    by_label = {site.label: site for site in sites}
    kept = [group.size for group in plan.coupling.groups]
    options: dict[int, object] = {}
    for label, value in edits.items():
        site = by_label.get(label)
        if site is None:
            hint = the_nearest(label, by_label)
            raise GraphError(f"an edit must be of a site of the graph, but got {label!r}{hint}.")
        if value == site.value and type(value) is type(site.value):
            continue
        if site.reason is not None:
            raise GraphError(f"{label!r} must stay as it is, since {site.reason}.")
        if site.counts:
            if type(value) is not int or not 1 <= value <= site.value:
                raise GraphError(
                    f"{label!r} must keep 1 to {site.value} of its units, but got {value!r}."
                )
            kept[site.index] = value
        elif any(value == known and type(value) is type(known) for known in site.values):
            options[site.index] = value
        else:
            shown = ", ".join(repr(v) for v in site.values)
            raise GraphError(f"{label!r} must be one of {shown}, but got {value!r}.")
    return kept, options
