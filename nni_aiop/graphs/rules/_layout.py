"""The rule for layout: reshapes vanish, and a chain of transposes is one `permute` or nothing.

A chain of reshapes and transposes only moves data. Its normal form follows the axes of its source,
split as finely as the chain splits them: where they come out in the order in which they went in,
nothing has moved and the chain vanishes; otherwise it is one `permute`, over axes as coarse as they
can be (neighbours that stay neighbours are one, axes of length 1 none).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from nni_aiop.graphs.rules._values import Value

__all__ = ["LAYOUT", "without_layout"]

LAYOUT = frozenset({"reshape", "transpose"})


class _Axis:
    """A part of an axis of the source; the object is its identity."""

    __slots__ = ("size",)

    def __init__(self, size: int) -> None:
        self.size = size


@dataclass(frozen=True)
class _Chain:
    """Where a chain started, its parts of axes in the source's order, and grouped as they stand."""

    source: Value
    parts: list[_Axis]
    groups: list[list[_Axis]]

    @classmethod
    def start(cls, source: Value, shape: Sequence[int]) -> _Chain:
        parts = [_Axis(size) for size in shape]
        return cls(source, parts, [[part] for part in parts])


def _transposed(chain: _Chain, order: Sequence[int]) -> _Chain:
    return _Chain(chain.source, chain.parts, [chain.groups[axis] for axis in order])


def _reshaped(chain: _Chain, shape: Sequence[int]) -> _Chain | None:
    """The chain after a reshape, None where the new axes cut across parts that have moved."""
    if 0 in shape:
        return None
    waiting = [part for group in chain.groups for part in group][::-1]
    split: dict[_Axis, list[_Axis]] = {}
    groups: list[list[_Axis]] = []
    for size in shape:
        group: list[_Axis] = []
        have = 1
        while have < size:
            if not waiting:
                return None
            part = waiting.pop()
            want, rest = divmod(size, have)
            if rest:
                return None
            if part.size > want:
                if part.size % want:
                    return None
                left, right = _Axis(want), _Axis(part.size // want)
                origin = next((k for k, v in split.items() if part in v), part)
                pieces = split.get(origin, [part])
                at = pieces.index(part)
                split[origin] = [*pieces[:at], left, right, *pieces[at + 1 :]]
                waiting.append(right)
                part = left
            group.append(part)
            have *= part.size
        if have != size:
            return None
        groups.append(group)
    if any(part.size != 1 for part in waiting):
        return None
    parts = [piece for part in chain.parts for piece in split.get(part, [part])]
    return _Chain(chain.source, parts, groups)


def _finished(chain: _Chain, name: str, made: dict[tuple[object, ...], Value]) -> Value:
    """The source itself where nothing has moved, else a permute of it."""
    before = [part for part in chain.parts if part.size != 1]
    after = [part for group in chain.groups for part in group if part.size != 1]
    position = {part: place for place, part in enumerate(before)}
    sequence = [position[part] for part in after]
    if sequence == sorted(sequence):
        return chain.source
    runs: list[list[int]] = []
    for place in sequence:
        if runs and runs[-1][-1] + 1 == place:
            runs[-1].append(place)
        else:
            runs.append([place])
    sizes = {run[0]: prod(before[place].size for place in run) for run in runs}
    starts = sorted(sizes)
    order = tuple(starts.index(run[0]) for run in runs)
    shape_in = tuple(sizes[start] for start in starts)
    shape_out = tuple(shape_in[axis] for axis in order)
    key = (id(chain.source), shape_in, order)
    if key not in made:
        made[key] = Value(
            "permute",
            [chain.source],
            shape_out,
            {"order": order},
            name,
            input_shapes=[shape_in],
        )
    return made[key]


def without_layout(order: Sequence[Value], outputs: Sequence[Value]) -> list[Value]:
    """The outputs of the same network without reshapes, its transposes merged."""
    chains: dict[int, _Chain] = {}
    ends: dict[int, Value] = {}
    made: dict[tuple[object, ...], Value] = {}

    def end(value: Value) -> Value:
        if value.op not in LAYOUT:
            return value
        if id(value) not in ends:
            ends[id(value)] = _finished(chains[id(value)], value.name, made)
        return ends[id(value)]

    for value in order:
        if value.op not in LAYOUT:
            value.inputs = [end(v) for v in value.inputs]
            continue
        source = value.inputs[0]
        chain = chains.get(id(source)) or _Chain.start(source, value.input_shapes[0])
        if value.op == "transpose":
            chains[id(value)] = _transposed(chain, value.attributes["order"])
            continue
        reshaped = _reshaped(chain, value.shape)
        if reshaped is None:
            stop = end(source)
            flat = _reshaped(_Chain.start(stop, source.shape), value.shape)
            reshaped = flat or _Chain.start(stop, value.shape)
        chains[id(value)] = reshaped
    return list(outputs)
