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
from math import prod
from typing import Any

from nni_aiop.errors import GraphError
from nni_aiop.graphs._graph import ComputeGraph
from nni_aiop.graphs.rules._assembly import assemble
from nni_aiop.graphs.rules._canonical import merge_twins, simplify
from nni_aiop.graphs.rules._layout import without_layout
from nni_aiop.graphs.rules._values import Value, constant, live

__all__ = ["Builder"]


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
        return constant(shape, learned={key: prod(shape)})

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
        if all(v.op == "constant" for v in inputs):
            learned: dict[Hashable, int] = {}
            for v in inputs:
                learned.update(v.learned)
            same = op in ("identity", "reshape") and len(inputs) == 1
            made = constant(shape, learned=learned, number=inputs[0].number if same else None)
            made.shown = inputs[0].shown if same else None
            return made
        return Value(op, inputs, shape, attributes, name)

    def einsum(self, equation: str, values: Sequence[Value], *, name: str = "") -> Value | None:
        """A product of two tensors by Einstein's convention, as transposes and a `matmul`.

        None where it is not one: other than two tensors, an ellipsis, a letter twice in a term,
        or one that is summed within a single tensor.
        """
        terms, _, result = equation.replace(" ", "").partition("->")
        if len(values) != 2 or "." in equation or terms.count(",") != 1:
            return None
        a, b = terms.split(",")
        if "->" not in equation:
            result = "".join(sorted(c for c in set(a + b) if (a + b).count(c) == 1))
        if any(len(set(term)) != len(term) for term in (a, b, result)):
            return None
        batch = [c for c in result if c in a and c in b]
        rows = [c for c in result if c in a and c not in b]
        columns = [c for c in result if c in b and c not in a]
        inner = [c for c in a if c in b and c not in result]
        if set(a + b) != {*batch, *rows, *columns, *inner}:
            return None
        size = dict(zip(a + b, values[0].shape + values[1].shape, strict=True))

        def laid(value: Value, term: str, groups: Sequence[Sequence[str]]) -> Value:
            letters = [c for group in groups for c in group]
            order = tuple(term.index(c) for c in letters)
            moved = tuple(size[c] for c in letters)
            value = self.apply("transpose", [value], moved, name=name, order=order)
            shape = tuple(prod(size[c] for c in group) for group in groups)
            return self.apply("reshape", [value], shape, name=name)

        lead = [] if values[1].is_constant and not batch else [batch]
        left = laid(values[0], a, [*lead, rows, inner])
        right = laid(values[1], b, [*lead, inner, columns])
        product = self.apply(
            "matmul", [left, right], (*left.shape[:-1], right.shape[-1]), name=name
        )
        letters = [*batch, *rows, *columns]
        product = self.apply("reshape", [product], tuple(size[c] for c in letters), name=name)
        order = tuple(letters.index(c) for c in result)
        return self.apply(
            "transpose", [product], tuple(size[c] for c in result), name=name, order=order
        )

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
        merge_twins(live(outputs))
        outputs = without_layout(live(outputs), outputs)
        return assemble(live([*self._inputs, *outputs]))
