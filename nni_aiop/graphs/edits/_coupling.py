"""Sites of channels: which channels of a graph can go together, and what follows for every shape.

Channels that go together are a *unit*; units that appear in the same tensors are exchangeable and
make one *site*: how many of its units are kept decides every shape of the edited graph, whichever
units they are. Where heads of attention can go, they are a site of their own beside that of the
channels within heads: the kept part is the product of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import gcd

import numpy as np
from numpy.typing import NDArray

from nni_aiop.graphs._types import GraphLike
from nni_aiop.graphs.edits._coupler import Classes, Coupler
from nni_aiop.graphs.edits._marks import Labels, Marks
from nni_aiop.graphs.edits._rules import Traced, trace

__all__ = ["Coupling", "Form", "Group", "couple"]

_ATTENTION = frozenset({"attention", "matmul"})


@dataclass(frozen=True)
class Group:
    """Exchangeable units of channels.

    Attributes:
        kind: "width" or "heads".
        size: Number of units.
        layers: Names of the layers whose output they are, in the order of nodes.
        places: Their nodes.
        channels: Channels of a layer in one unit.
        reason: Why they cannot go, None where they can.
        units: Of each unit its labels, for the network that is edited; (size, labels of a unit).
    """

    kind: str
    size: int
    layers: tuple[str, ...]
    places: tuple[int, ...]
    channels: int
    reason: str | None = None
    labels: Labels = field(default_factory=lambda: np.empty(0, np.int64), compare=False, repr=False)
    units: Labels = field(default_factory=lambda: np.empty(0, np.int64), compare=False, repr=False)


Form = dict[tuple[int, ...], int]
"""A size as a polynomial in the kept units of groups: {(): constant, (group,): factor, ...}."""


@dataclass
class Coupling:
    """The groups of a graph, and its sizes as functions of how many of their units are kept.

    Attributes:
        traced: The labels of every node.
        groups: Those that can be edited before those that are frozen.
        widths: (labels,) the place of the group of every label, -1 for none that can be edited.
        heads: Likewise of the groups of heads.
        width_classes: (labels,) the unit of every label where widths go.
        head_classes: Likewise where heads go.
    """

    traced: list[Traced]
    groups: tuple[Group, ...]
    widths: NDArray[np.int64]
    heads: NDArray[np.int64]
    width_classes: NDArray[np.int64]
    head_classes: NDArray[np.int64]

    @cached_property
    def _forms(self) -> dict[tuple[int, int, int], tuple[Labels, Form]]:
        return {}

    def form(self, marks: Marks, axis: int, stop: int | None = None) -> Form:
        """How long an axis of a tensor is, or its first `stop` entries, after an edit."""
        n = marks.shape[axis] if stop is None else stop
        layers = marks.varying(axis)
        if not layers:
            return {(): n}
        key = (id(layers[0]), axis, n)
        known = self._forms.get(key)
        if known is None:
            # The layer is kept, so that its identity stays its own.
            known = self._forms[key] = (layers[0], self._form(layers[0], axis, n))
        return known[1]

    def _form(self, layer: Labels, axis: int, n: int) -> Form:
        slabs = np.moveaxis(layer, axis, 0).reshape(layer.shape[axis], -1)[:n]
        first = slabs[:, 0]
        width, head = self.widths[first], self.heads[first]
        if slabs.shape[1] > 1:
            for found, classes in ((width, self.width_classes), (head, self.head_classes)):
                of = classes[slabs]
                found[(of != of[:, :1]).any(axis=1)] = -1
        form: Form = {}
        code = (width + 1) * (len(self.groups) + 1) + head + 1
        for pair, count in zip(
            *(x.tolist() for x in np.unique(code, return_counts=True)), strict=True
        ):
            a, b = divmod(pair, len(self.groups) + 1)
            names = tuple(place - 1 for place in (a, b) if place)
            whole = 1
            for name in names:
                whole *= self.groups[name].size
            if count % whole:
                raise AssertionError(f"{count} entries are not of {whole} equal units")
            form[names] = form.get(names, 0) + count // whole
        return form


def couple(graph: GraphLike) -> Coupling:
    """The groups of a graph's channels."""
    coupler, traced = trace(graph)
    widths = coupler.solve()
    heads = coupler.solve(heads=True) if _ATTENTION & {n.op for n in graph.nodes} else None
    starts = coupler.starts
    signature, channels = _signatures(traced, widths, coupler)
    groups: list[Group] = []
    frozen: list[Group] = []
    of_width = np.full(coupler.count, -1)
    aside = np.zeros(coupler.count, np.bool_)
    for given in coupler.aside:
        aside[given] = True
    for labels, units, reason in _exchangeable(widths, signature):
        if aside[labels].all():
            continue
        group = _group(graph, "width", labels, units, starts, channels, reason, traced)
        if reason is not None or group.size < 2:
            frozen.append(group)
        else:
            of_width[labels] = len(groups)
            groups.append(group)
    of_head = np.full(coupler.count, -1)
    if heads is not None:
        signature, channels = _signatures(traced, heads, coupler)
        other = _not_of(heads, widths)
        for labels, units, reason in _exchangeable(heads, signature):
            real = ~aside[labels]
            labels, units = labels[real], units[real]
            if reason is not None or not other[labels].all() or len(np.unique(units)) < 2:
                continue
            of_head[labels] = len(groups)
            group = _group(graph, "heads", labels, units, starts, channels, None, traced)
            groups.append(group)
    order = sorted(range(len(groups)), key=lambda i: (groups[i].places[:1], i))
    rank = np.full(len(groups) + 1, -1)
    rank[order] = np.arange(len(groups))
    return Coupling(
        traced,
        (*(groups[i] for i in order), *frozen),
        rank[of_width],
        rank[of_head],
        widths.of,
        (heads or widths).of,
    )


def _signatures(
    traced: Sequence[Traced], classes: Classes, coupler: Coupler
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(labels, 2) of every class in which tensors it is and how often, as sums of hashes; (labels,)
    how many channels of the layer that gave a label out go with it."""
    layers: list[Labels] = []
    for node in traced:
        for marks in (node.out, *node.parts):
            layers += [layer.ravel() for layer in marks.layers]
    n = int(classes.of.max()) + 1
    if not layers:
        return np.zeros((n, 2)), np.ones(coupler.count, np.int64)
    sizes = [len(layer) for layer in layers]
    of = classes.of[np.concatenate(layers)]
    rng = np.random.default_rng(0)
    hashes = rng.integers(1 << 30, size=(2, len(layers))).astype(np.float64)
    found = np.stack(
        [np.bincount(of, np.repeat(row, sizes), minlength=n) for row in hashes], axis=1
    )
    # Channels of the same layer in the same class, by the first label of each.
    giver = np.searchsorted(coupler.starts, np.arange(coupler.count), "right")
    _, inverse, counts = np.unique(giver * n + classes.of, return_inverse=True, return_counts=True)
    return found.astype(np.float64), counts[inverse].astype(np.int64)


def _exchangeable(
    classes: Classes, signature: NDArray[np.float64]
) -> list[tuple[Labels, Labels, str | None]]:
    """(labels, their units, the reason for which they stay) of every set of equal classes."""
    labels = np.arange(1, len(classes.of))
    of = classes.of[labels]
    frozen = np.zeros(int(classes.of.max()) + 1, np.bool_)
    frozen[list(classes.reasons)] = True
    key = np.where(frozen, -1.0, 1.0) * (signature[:, 0] + np.sqrt(2) * signature[:, 1])
    _, inverse = np.unique(key[of], return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    cuts = np.flatnonzero(np.diff(inverse[order])) + 1
    found = []
    for part in np.split(order, cuts) if len(order) else []:
        own = labels[part]
        reason = classes.reasons.get(int(classes.of[own[0]]))
        found.append((own, classes.of[own], reason))
    return sorted(found, key=lambda item: int(item[0][0]))


def _not_of(heads: Classes, widths: Classes) -> NDArray[np.bool_]:
    """(labels,) whether the class of a label differs between the two."""
    n = len(heads.of)
    a = np.bincount(heads.of, minlength=n)[heads.of]
    b = np.bincount(widths.of, minlength=n)[widths.of]
    pairs = heads.of * n + widths.of
    _, inverse, both = np.unique(pairs, return_inverse=True, return_counts=True)
    return np.asarray((both[inverse] != a) | (both[inverse] != b))


def _group(
    graph: GraphLike,
    kind: str,
    labels: Labels,
    units: Labels,
    starts: NDArray[np.int64],
    channels: NDArray[np.int64],
    reason: str | None,
    traced: Sequence[Traced],
) -> Group:
    places = np.unique(np.searchsorted(starts, labels, "right") - 1).tolist()
    # Zeros that pad channels are no layer's output.
    layers = [place for place in places if graph.nodes[place].op != "pad"] or places
    names = tuple(dict.fromkeys(graph.names[place] or graph.nodes[place].op for place in layers))
    size = len(np.unique(units))
    return Group(
        kind, size, names, tuple(places), int(channels[labels].min()), reason, labels, units
    )


def step_of(group: Group, round_to: int | None) -> int:
    """Units between two widths of a group."""
    if group.kind == "heads":
        return 1
    whole = group.size * group.channels
    step = (8 if whole >= 32 else 4) if round_to is None else round_to
    return step // gcd(step, group.channels)
