"""The rule for what a convolution or linear layer can take in: scales and shifts right behind it.

A network that is run for inference, as exporters, simplifiers and runtimes write it, has its batch
normalisations folded into the weights before them; so has the canonical form. Whatever scales or
shifts each channel of the result of a convolution or linear layer by constants belongs to that
layer: batch normalisation, a learned scale, one number, a bias. Only what nothing else reads is
taken in, and only by a layer whose weight is constant; else there is nothing to fold into.

It comes after all other rules: a function written out, such as relu6(x + 3) / 6, is recognised
before its sums and products are taken in.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from nni_aiop.graphs.rules._patterns import channels_of, with_constant
from nni_aiop.graphs.rules._values import Value, constant

__all__ = ["fold"]

_LAYERS = ("conv", "conv_transpose", "linear")


def fold(order: Sequence[Value], outputs: Sequence[Value]) -> list[Value]:
    """The outputs of the same network, scales and shifts of channels taken in.

    Args:
        order: Every data tensor in a topological order, with its uses counted.
        outputs: Those of op "output".
    """
    final: dict[int, Value] = {}
    for value in order:
        value.inputs = [final.get(id(v), v) for v in value.inputs]
        taken = _taken_in(value)
        if taken is not None:
            taken.uses = value.uses
            final[id(value)] = taken
    return [final.get(id(v), v) for v in outputs]


def _taken_in(value: Value) -> Value | None:
    """The layer that a value is part of, None where it is none's."""
    x = value.inputs[0] if value.inputs else None
    if x is None or x.op not in _LAYERS or x.uses != 1 or not x.inputs[1].is_constant:
        return None
    if value.op == "batch_norm":
        # Its channels are the second axis; those of a linear layer the last.
        constants = value.inputs[1:] if x.op != "linear" or len(value.shape) == 2 else []
    elif pair := with_constant(value, "mul") or with_constant(value, "add"):
        c = pair[1]
        fits = c.size == 1 or channels_of(x, c.shape, len(value.shape)) is not None
        # A product with zero is one of its own: networks are written so that an edge is none.
        whole = value.input_shapes[0] == value.shape and "value" not in value.attributes
        constants = [c] if fits and whole else []
    else:
        return None
    if not constants or not all(c.is_constant for c in constants):
        return None
    learned: dict[Hashable, int] = {}
    for c in (*x.inputs[2:], *constants):
        learned.update(c.learned)
    channels = x.shape[1] if x.op != "linear" else x.shape[-1]
    bias = constant((channels,), learned=learned)
    return Value(
        x.op,
        [*x.inputs[:2], bias],
        x.shape,
        x.attributes,
        x.name,
        input_shapes=[*x.input_shapes[:2], bias.shape],
    )
