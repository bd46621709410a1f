"""The rule for layout: reshapes vanish, and a chain of transposes is one `permute` or nothing.

A chain of reshapes and transposes only moves data: it vanishes where nothing has moved, and is one
`permute` otherwise (`AxisChain`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nni_aiop.graphs._axes import AxisChain
from nni_aiop.graphs.rules._values import Value

__all__ = ["LAYOUT", "without_layout"]

LAYOUT = frozenset({"reshape", "transpose"})


@dataclass(frozen=True)
class _Chain:
    """Where a chain started, and what it has come to."""

    source: Value
    axes: AxisChain


def _started(source: Value, shape: Sequence[int]) -> _Chain:
    return _Chain(source, AxisChain.start(shape))


def _finished(chain: _Chain, name: str, made: dict[tuple[object, ...], Value]) -> Value:
    """The source itself where nothing has moved, else a permute of it."""
    moved = chain.axes.permutation()
    if moved is None:
        return chain.source
    shape_in, order = moved
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
        chain = chains.get(id(source)) or _started(source, value.input_shapes[0])
        if value.op == "transpose":
            chains[id(value)] = _Chain(
                chain.source, chain.axes.transposed(value.attributes["order"])
            )
            continue
        axes = chain.axes.reshaped(value.shape)
        if axes is None:
            chain = _started(end(source), source.shape)
            axes = chain.axes.reshaped(value.shape) or AxisChain.start(value.shape)
        chains[id(value)] = _Chain(chain.source, axes)
    return list(outputs)
