"""A space of which less matters than it says itself."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from nni_aiop.spaces._code_space import CodeSpace, Condition
from nni_aiop.spaces._coding import Sample

__all__ = ["narrowed"]


def narrowed(
    space: CodeSpace,
    absent: Collection[str] = (),
    conditions: Mapping[str, Sequence[Condition]] | None = None,
) -> CodeSpace:
    """The space with the same dimensions and codes, of which `absent` labels never matter.

    Args:
        space: Stays as it is.
        absent: Labels that are inactive in every sample.
        conditions: For further labels what their parents must be, beside the space's own rules.

    Raises:
        SpaceError: A label is unknown, or a parent does not stand before its child.
    """
    conditions = conditions or {}
    out = copy.copy(space)
    for name in ("fingerprint", "_sets"):
        out.__dict__.pop(name, None)
    out._activity_cache = {}
    out._network_cache = {}
    rules = [
        (space._at(label), *space._parent_points(label, condition))
        for label, given in conditions.items()
        for condition in given
    ]
    # A dimension that must have one of no values is never active.
    rules += [(space._at(label), space._at(label), np.array([])) for label in absent]
    rules.sort(key=lambda rule: rule[0])
    if space.activity is None:
        out._rules = sorted([*space._rules, *rules], key=lambda rule: rule[0])
        out.conditions = {
            label: (*space.conditions.get(label, ()), *conditions.get(label, ()))
            for label in space.labels
            if label in space.conditions or label in conditions
        }
        return out

    def activity(sample: Sample) -> set[str]:
        points = space.points([sample])
        active = space.active_points(points)[0]
        for child, parent, allowed in rules:
            active[child] &= active[parent] and points[0, parent] in allowed
        return {label for label, matters in zip(space.labels, active, strict=True) if matters}

    out.activity = activity
    return out
