"""The canonical rules: what makes one network one graph, whatever way it was written.

First, operations that do the same to the same tensors (weights included) become one, as exporters
do it. Then comes one pass from the inputs to the outputs; each rule looks at an operation whose
inputs are already in canonical form, so that a pattern is recognised at its last operation.

1. Identities vanish: dropout, casts, copies, x + 0, x * 1, slices of everything, resizing to the
   same size, means and maxima of single entries. What does not depend on the input of the network
   is a constant, and becomes part of the operation that reads it.
2. x - c is a sum, x / c a product; a sum of sums that nothing else reads is one sum, as is a sum
   over what was stacked; products with single numbers in a row are one, and so are clamps (to which
   max and min with a number belong); repeating entries for a broadcast is not an operation.
3. Functions have one name: clamp(x, 0, 6) is `relu6`, relu6(x + 3) / 6 `hard_sigmoid`, and x times
   it `hard_swish`; x * sigmoid(x) is `silu`; x / 2 * (1 + erf(x / sqrt 2)), its tanh approximation
   and x * sigmoid(1.702 x) are `gelu`; x * tanh(softplus(x)) is `mish`.
4. Normalisations written out in means and square roots are `layer_norm` or `rms_norm`; instance
   normalisation of grouped channels is `group_norm`. A learned scale or shift right behind them is
   theirs.
5. A product with a constant matrix is `linear`, over rows; adding a constant for each channel right
   behind a convolution or linear layer is its bias; zeros padded before a convolution or average
   pooling are its padding.
6. softmax(scale * q k^T + mask) v is `attention`; its scale is not kept.
7. Means and maxima over all axes from the third on, and pooling windows that cover their input, are
   `global_avg_pool` and `global_max_pool`.
8. Cuts of cuts are one `slice`, joints of joints along one axis one `concat`; a cut of something
   transposed is the transpose of a cut; rows of a constant table are an `embedding`.
9. What scales or shifts the channels right behind a convolution or linear layer by constants, batch
   normalisation above all, is part of that layer, as in files made for inference (`_folding`).
10. Reshapes vanish, and chains of transposes are one `permute` or nothing (`_layout`). A function
   of single entries of a linear layer is therefore one of rows, whatever axes they are
   (`_assembly`).

Constants behind weights: an operation reads its weights after its data, in the order that its
PyTorch function has them: convolution weight, bias; `linear` weight (out, in), bias; norms scale,
shift, mean, variance; `prelu` slope; `embedding` index, table.
"""

from __future__ import annotations

from collections.abc import Sequence

from nni_aiop.graphs._vocabulary import OPERATIONS, OTHER
from nni_aiop.graphs.rules._functions import binary, clamp, first_input, softmax, unary
from nni_aiop.graphs.rules._layout import LAYOUT
from nni_aiop.graphs.rules._patterns import Rule
from nni_aiop.graphs.rules._positions import (
    avg_pool,
    concat,
    cut,
    gather,
    max_pool,
    pad,
    reduce,
    reshape,
    resize,
)
from nni_aiop.graphs.rules._products import attention, conv, linear, matmul
from nni_aiop.graphs.rules._values import Value

__all__ = ["merge_twins", "simplify"]


def merge_twins(order: Sequence[Value]) -> None:
    """Lets operations read the first of several that do the same to the same tensors.

    Args:
        order: Every data tensor in a topological order.
    """
    seen: dict[tuple[object, ...], Value] = {}
    first: dict[int, Value] = {}
    for value in order:
        value.inputs = [first.get(id(v), v) for v in value.inputs]
        if value.op in ("input", "output"):
            continue
        sources = tuple(
            id(v) if v.number is None or v.learned else (v.shape, v.number) for v in value.inputs
        )
        key = (value.op, value.shape, repr(value.attributes), sources)
        first[id(value)] = seen.setdefault(key, value)


def simplify(order: Sequence[Value], outputs: Sequence[Value]) -> list[Value]:
    """The outputs of the same network in canonical form, layout aside.

    Args:
        order: Every data tensor in a topological order, with its uses counted.
        outputs: Those of op "output".
    """
    final: dict[int, Value] = {}
    for value in order:
        value.inputs = [final.get(id(v), v) for v in value.inputs]
        rule = _RULES.get(value.op)
        result = value if rule is None else rule(value)
        if result is not value:
            # What the result takes the place of no longer reads it.
            reads = sum(v is result for v in value.inputs)
            result.uses += value.uses - min(reads, result.uses)
        final[id(value)] = result
    for value in {id(v): v for v in final.values()}.values():
        _tidy(value)
    return [final[id(v)] for v in outputs]


def _tidy(value: Value) -> None:
    """Leaves only the vocabulary's attributes; gives unknown operations their prefix."""
    if value.op in OPERATIONS:
        known = OPERATIONS[value.op]
        value.attributes = {k: v for k, v in value.attributes.items() if k in known}
    elif value.op not in LAYOUT:
        value.op = OTHER + value.op.removeprefix(OTHER)
        value.attributes = {}


_RULES: dict[str, Rule] = {
    "identity": first_input,
    "unary": unary,
    "clamp": clamp,
    "binary": binary,
    "reshape": reshape,
    "linear": linear,
    "matmul": matmul,
    "attention": attention,
    "conv": conv,
    "conv_transpose": conv,
    "avg_pool": avg_pool,
    "max_pool": max_pool,
    "reduce": reduce,
    "slice": cut,
    "concat": concat,
    "gather": gather,
    "softmax": softmax,
    "log_softmax": softmax,
    "resize": resize,
    "pad": pad,
}
