"""When a label of an NNI model space is active: by conditions where they can be told, else asked.

By NNI's own rule a label is active exactly when the space refuses a sample that lacks it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from nni_aiop.engines._nni import importing_nni
from nni_aiop.spaces import Condition, Sample, Value

__all__ = ["activity_of", "conditions_of"]

Path = tuple[Condition, ...]
"""What must hold for a module to be part of the network."""


def activity_of(model: Any, always: Collection[str] = ()) -> Callable[[Sample], set[str]]:
    """From a full sample to its active labels: those that the model space reads when it checks it.

    A space refuses a sample because it looks for a label that is not there, so one check that
    records what it looks for gives the same set as one check for each label left out.

    Args:
        model: A `nni.nas.nn.pytorch.ModelSpace`.
        always: Labels that do not belong to the model and are always active.
    """

    def active(sample: Sample) -> set[str]:
        reading = _Reading(sample)
        model.check_contains(reading)
        return reading.read.union(always)

    return active


class _Reading(dict[str, Value]):
    """A sample that records which labels are read from it."""

    def __init__(self, sample: Mapping[str, Value]) -> None:
        super().__init__(sample)
        self.read: set[str] = set()

    def __getitem__(self, label: str) -> Value:
        self.read.add(label)
        return super().__getitem__(label)

    def __contains__(self, label: object) -> bool:
        self.read.add(str(label))
        return super().__contains__(label)

    def get(self, label: str, default: Value = None) -> Value:
        self.read.add(label)
        return super().get(label, default)


def conditions_of(model: Any, labels: Sequence[str]) -> dict[str, Path] | None:
    """The conditions of each conditional label, from the nesting of the model space's modules.

    None where they cannot be told: a module checks samples in its own way, a label stands in places
    whose conditions do not combine, or a depth follows from several choices at once.

    Args:
        model: A `nni.nas.nn.pytorch.ModelSpace`.
        labels: Its labels in order; a condition's parent must stand before its child.
    """
    found: dict[str, list[Path]] = {}
    try:
        for label, path in _places(model, ()):
            found.setdefault(label, []).append(path)
        combined = {label: _either(paths) for label, paths in found.items()}
    except _CannotTellError:
        return None
    order = {label: j for j, label in enumerate(labels)}
    conditions = {label: path for label, path in combined.items() if path and label in order}
    for label, path in conditions.items():
        if any(order.get(c.parent, len(order)) >= order[label] for c in path):
            return None
    return conditions if combined.keys() >= order.keys() else None


class _CannotTellError(Exception):
    pass


def _places(module: Any, path: Path) -> Iterator[tuple[str, Path]]:
    """Every place where a label is looked for below a module, as `check_contains` would."""
    with importing_nni():
        from nni.nas.nn.pytorch import LayerChoice, MutableModule, Repeat

    if not isinstance(module, MutableModule):
        for _, child in MutableModule.named_mutable_descendants(module):
            yield from _places(child, path)
        return
    check = type(module).check_contains
    if check not in (m.check_contains for m in (MutableModule, LayerChoice, Repeat)):
        raise _CannotTellError
    for mutable in module.mutables:
        yield from ((label, path) for label in _looked_for(mutable))
    if check is LayerChoice.check_contains:
        for name in module.names:
            yield from _places(module[name], _and(path, Condition(str(module.label), (name,))))
    elif check is Repeat.check_contains:
        for i, block in enumerate(module.blocks):
            deep_enough = _deeper_than(module.depth_choice, i)
            inner = path if deep_enough is None else _and(path, deep_enough)
            if inner is not None:
                yield from _places(block, inner)
    else:
        for child in module.mutable_descendants():
            yield from _places(child, path)


def _looked_for(mutable: Any) -> list[str]:
    from nni.mutable.annotation import ExpressionConstraint, MutableAnnotation

    leaves = mutable.simplify()
    for leaf in leaves.values():
        if isinstance(leaf, MutableAnnotation) and not isinstance(leaf, ExpressionConstraint):
            raise _CannotTellError
    return [label for label, leaf in leaves.items() if not isinstance(leaf, MutableAnnotation)]


def _deeper_than(depth: Any, i: int) -> Condition | None:
    """What makes a `Repeat` have its block `i`; None where it always has."""
    from nni.mutable import Categorical, Mutable

    if not isinstance(depth, Mutable):
        return None
    leaves = list(depth.simplify().values())
    if len(leaves) != 1 or not isinstance(leaves[0], Categorical):
        raise _CannotTellError
    (symbol,) = leaves
    values = tuple(v for v in symbol.values if depth.freeze({symbol.label: v}) > i)
    return None if len(values) == len(symbol.values) else Condition(str(symbol.label), values)


def _and(path: Path, condition: Condition) -> Path:
    """The path with one more condition; two on one parent become one."""
    for known in path:
        if known.parent == condition.parent:
            both = tuple(v for v in known.values if v in condition.values)
            return tuple(Condition(known.parent, both) if c is known else c for c in path)
    return (*path, condition)


def _either(paths: Sequence[Path]) -> Path:
    """One path that holds when one of several does."""
    weakest: list[Path] = []
    for path in paths:
        if any(not c.values for c in path):
            continue  # never
        if not any(_follows(path, known) for known in weakest):
            weakest = [known for known in weakest if not _follows(known, path)] + [path]
    if len(weakest) > 1:
        rests = {frozenset(_key(c) for c in path[:-1]) for path in weakest}
        parents = {path[-1].parent for path in weakest if path}
        if len(rests) != 1 or len(parents) != 1:
            raise _CannotTellError
        values = tuple({repr(v): v for path in weakest for v in path[-1].values}.values())
        return (*weakest[0][:-1], Condition(parents.pop(), values))
    if not weakest:
        raise _CannotTellError
    return weakest[0]


def _follows(strong: Path, weak: Path) -> bool:
    """Whether `weak` holds wherever `strong` does."""
    return all(
        any(s.parent == w.parent and all(v in w.values for v in s.values) for s in strong)
        for w in weak
    )


def _key(condition: Condition) -> tuple[str, frozenset[str]]:
    return condition.parent, frozenset(repr(v) for v in condition.values)
