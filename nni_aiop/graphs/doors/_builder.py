"""What every door builds first: operations as the door reads them, constants apart from data.

A door calls `Builder.input`, `constant`, `apply` and `output`, and at last `finish`, which applies
the canonical rules (`graphs/rules`) and gives the compute graph. Beside the operations of the
vocabulary a door may apply these, which the rules do away with:

- `identity`: dropout, casts, copies, whatever returns its input;
- `reshape`: the same data in another shape; `transpose` with `order` over the axes;
- `clamp` with `low`, `high` (None where open); `binary` with `function` "add", "sub", "mul", "div"
  ...; `unary` with `function` "exp", "sqrt", "erf", "pow" with `exponent` ...;
- `matmul` of any ranks as numpy.matmul has it; `linear` of any rank;
- `attention` of any rank: inputs q, k, v (..., n, d) and masks, each added before the softmax;
- `slice` with `axis`, `start`, `stop`, `step`; `reduce` with `kind`, `axes`, `keep` (whether
  reduced axes stay with length 1).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import partial
from typing import Any

from nni_aiop.errors import GraphError
from nni_aiop.graphs._graph import ComputeGraph
from nni_aiop.graphs._types import Shape
from nni_aiop.graphs.doors._einsum import einsum
from nni_aiop.graphs.rules._assembly import assemble
from nni_aiop.graphs.rules._canonical import merge_twins, simplify
from nni_aiop.graphs.rules._folding import fold
from nni_aiop.graphs.rules._layout import without_layout
from nni_aiop.graphs.rules._regions import Picked, Region
from nni_aiop.graphs.rules._values import Value, constant, live

__all__ = ["Builder"]


_SAME_ENTRIES = frozenset({"identity", "reshape", "transpose", "slice", "expand"})
"""Operations whose result has no entries that its input has not."""


def _constant_of(
    op: str, inputs: Sequence[Value], shape: Shape, attributes: dict[str, Any]
) -> Value:
    """The result of an operation on constants; a slice of a learned tensor holds what it takes."""
    if not inputs:
        return constant(shape)
    x = inputs[0]
    learned = {key: n for v in inputs for key, n in v.learned.items()}
    number = x.number if op in _SAME_ENTRIES and len(inputs) == 1 else None
    region = x.region
    if region is not None and len(inputs) == 1:
        if op == "identity":
            return constant(shape, number=number, region=region)
        if op == "transpose":
            return constant(shape, number=number, region=region.transposed(attributes["order"]))
        if op == "slice":
            ends = (attributes[name] for name in ("axis", "start", "stop", "step"))
            return constant(shape, number=number, region=region.sliced(*ends))
        if op == "reshape" and (turned := region.reshaped(shape)):
            return constant(shape, number=number, region=turned)
    if region is not None and op == "gather":
        axis, index = attributes["axis"], inputs[1]
        size = region.sizes[axis]
        if index.number is not None:
            at = int(index.number) % size
            one = region.sliced(axis, at, at + 1, 1)
            return constant(shape, learned=one.learned(), region=one.reshaped(shape))
        taken = index.size * (region.taken // size)
        if taken < region.taken and not index.learned:
            learned = {Picked(region.key, region.whole, taken): taken}
    return constant(shape, learned=learned, number=number)


class Builder:
    """Collects the operations of one network in the order in which they run."""

    def __init__(self) -> None:
        self._inputs: list[Value] = []
        self._outputs: list[Value] = []

    def input(self, shape: Sequence[int], name: str = "input") -> Value:
        """An input of the network."""
        value = Value("input", (), tuple(shape), {}, name)
        self._inputs.append(value)
        return value

    def parameter(self, shape: Sequence[int], key: Hashable) -> Value:
        """A learned tensor; equal keys are one and the same tensor."""
        return constant(shape, region=Region.of(key, shape))

    def constant(self, shape: Sequence[int], number: float | None = None) -> Value:
        """A tensor that is not learned; `number` is its value where it has one entry."""
        return constant(shape, number=number)

    def apply(
        self,
        op: str,
        inputs: Sequence[Value],
        shape: Sequence[int],
        *,
        name: str = "",
        **attributes: Any,
    ) -> Value:
        """The result of an operation: a constant where all its inputs are.

        Args:
            op: A name of the vocabulary, one of this module's, or any other, which becomes
                "other:NAME".
            inputs: What it reads, weights included, in the order that the rules name.
            shape: Of the result.
            name: For people, such as a module's path.
            attributes: See `OPERATIONS` and this module.
        """
        shape = tuple(shape)
        if op == "linear" and not inputs[1].is_constant:
            return self._computed_linear(inputs, shape, name)
        if all(v.op == "constant" for v in inputs):
            made = _constant_of(op, inputs, shape, attributes)
            if op in _SAME_ENTRIES and len(inputs) == 1:
                made.shown = inputs[0].shown
            return made
        return Value(op, inputs, shape, attributes, name)

    def _computed_linear(self, inputs: Sequence[Value], shape: Shape, name: str) -> Value:
        """A `linear` whose weight is computed from data: a `matmul`, and the sum with a bias."""
        x, weight, *bias = inputs
        if len(weight.shape) > 1:
            turned = weight.shape[::-1]
            weight = self.apply("transpose", [weight], turned, name=name, order=(1, 0))
        value = self.apply("matmul", [x, weight], shape, name=name)
        if bias:
            value = self.apply("binary", [value, *bias], shape, name=name, function="add")
        return value

    def einsum(
        self,
        equation: str,
        values: Sequence[Value],
        *,
        path: Sequence[int] | None = None,
        name: str = "",
    ) -> Value | None:
        """A product by Einstein's convention, None where the equation does not fit the tensors.

        Args:
            equation: Such as "...ij,jk->...ik".
            values: The tensors, multiplied from left to right.
            path: Another order, as pairs of places among the tensors that are left.
            name: For people.
        """
        return einsum(partial(self.apply, name=name), equation, values, path)

    def recurrent(
        self,
        op: str,
        x: Value,
        weights: Sequence[Value],
        states: Sequence[Value],
        *,
        hidden: int,
        directions: int,
        bias: bool,
        projection: int | None = None,
        name: str = "",
    ) -> Value:
        """One recurrent layer: (length, batch, directions x hidden or projection).

        Args:
            op: "lstm", "gru" or "rnn".
            x: (length, batch, in).
            weights: Constants, the matrix that x is multiplied with first.
            states: The initial hidden state, and the cell's after it: (directions, batch, ...).
            hidden: Width of one direction.
            directions: 1 or 2.
            bias: Whether there are biases.
            projection: Width of the projected hidden state, None without.
            name: For people.
        """
        given = [v for v in states if v.learned or v.number != 0]
        options: dict[str, Any] = {"hidden": hidden, "directions": directions, "bias": bias}
        if projection is not None:
            options["projection"] = projection
        if x.is_constant:
            options["operand"] = "left"
        shape = (*x.shape[:2], directions * (projection or hidden))
        return self.apply(op, [x, *weights, *given], shape, name=name, **options)

    def packed(self, value: Value, lengths: Sequence[int], *, name: str = "") -> Value:
        """The rows (total, ...) of (length, batch, ...) that lie within their sequences."""
        steps, batch, *rest = value.shape
        flat = self.apply("reshape", [value], (steps * batch, *rest), name=name)
        rows = self.constant((sum(lengths),))
        shape = (*rows.shape, *rest)
        if shape == flat.shape:
            return flat
        return self.apply("gather", [flat, rows], shape, name=name, axis=0)

    def unpacked(
        self, rows: Value, steps: int, batch: int, number: float = 0.0, *, name: str = ""
    ) -> Value:
        """Packed rows as (length, batch, ...), a further row of a number where there is none."""
        total, *rest = rows.shape
        if total != steps * batch:
            padding = ((0, 0, 1),)
            rows = self.apply(
                "pad", [rows], (total + 1, *rest), name=name, padding=padding, mode="constant",
                number=number,
            )  # fmt: skip
            index = self.constant((steps * batch,))
            rows = self.apply("gather", [rows, index], (*index.shape, *rest), name=name, axis=0)
        return self.apply("reshape", [rows], (steps, batch, *rest), name=name)

    def last_rows(self, rows: Value, batch: int, *, name: str = "") -> Value:
        """The last row of each packed sequence."""
        index = self.constant((batch,))
        return self.apply("gather", [rows, index], (batch, *rows.shape[1:]), name=name, axis=0)

    def output(self, value: Value, name: str = "output") -> None:
        """Makes a tensor an output of the network; a constant is not one."""
        if not value.is_constant:
            self._outputs.append(Value("output", [value], value.shape, {}, name))

    def finish(self) -> ComputeGraph:
        """The compute graph of everything that an output depends on.

        Raises:
            GraphError: No output depends on an input.
        """

        if not self._outputs:
            raise GraphError(
                "an output of the network must depend on its input, but none of them does."
            )
        merge_twins(live(self._outputs))
        outputs = simplify(live(self._outputs), self._outputs)
        outputs = fold(live(outputs), outputs)
        merge_twins(live(outputs))
        outputs = without_layout(live(outputs), outputs)
        return assemble(live([*self._inputs, *outputs]))
