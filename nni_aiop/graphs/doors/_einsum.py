"""Products by Einstein's convention, written as transposes, `matmul`, `mul` and sums.

Tensors are multiplied two at a time, from left to right unless a path says otherwise. A letter
that only one of the two has, and that nothing further needs, is summed before; what is left of a
pair is a `matmul` where letters are summed, and a product entry by entry where none is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from nni_aiop.graphs.rules._values import Value

__all__ = ["einsum"]

_ELLIPSIS = 0xE000
"""The letters that stand for the axes of an ellipsis start here, in Unicode's private area."""


@dataclass
class _Term:
    """A tensor and the letter of each of its axes."""

    value: Value
    letters: list[str]


@dataclass
class _Sum:
    """How the operations of one product are written, and the sizes of its letters."""

    apply: Callable[..., Value]
    size: dict[str, int]

    def laid(self, term: _Term, groups: Sequence[Sequence[str]]) -> Value:
        """The tensor with these axes, each of them several letters."""
        letters = [c for group in groups for c in group]
        order = tuple(term.letters.index(c) for c in letters)
        shape = tuple(self.size[c] for c in letters)
        value = self.apply("transpose", [term.value], shape, order=order)
        merged = tuple(prod(self.size[c] for c in group) for group in groups)
        return self.apply("reshape", [value], merged)

    def without(self, term: _Term, letters: Sequence[str]) -> _Term:
        """The sum over some letters."""
        if not letters:
            return term
        rest = [c for c in term.letters if c not in letters]
        axes = tuple(term.letters.index(c) for c in letters)
        shape = tuple(self.size[c] for c in rest)
        value = self.apply(
            "reduce", [term.value], shape, kind="sum", axes=tuple(sorted(axes)), keep=False
        )
        return _Term(value, rest)

    def diagonal(self, term: _Term) -> _Term:
        """The tensor where axes of the same letter have the same place."""
        while twice := [c for c in term.letters if term.letters.count(c) > 1]:
            letter, n = twice[0], self.size[twice[0]]
            own = [axis for axis, c in enumerate(term.letters) if c == letter][:2]
            rest = [axis for axis in range(len(term.letters)) if axis not in own]
            lead = tuple(term.value.shape[axis] for axis in rest)
            value = self.apply("transpose", [term.value], (*lead, n, n), order=(*rest, *own))
            value = self.apply("reshape", [value], (*lead, n * n))
            ends = {"axis": len(rest), "start": 0, "stop": n * n, "step": n + 1}
            value = self.apply("slice", [value], (*lead, n), **ends)
            term = _Term(value, [*(term.letters[axis] for axis in rest), letter])
        return term

    def stretched(self, term: _Term) -> _Term:
        """The tensor without axes of length 1 that others stretch."""
        shape = term.value.shape
        kept = [a for a, c in enumerate(term.letters) if shape[a] == self.size[c]]
        if len(kept) == len(shape):
            return term
        value = self.apply("reshape", [term.value], tuple(shape[a] for a in kept))
        return _Term(value, [term.letters[a] for a in kept])

    def product(self, a: _Term, b: _Term, wanted: Sequence[str]) -> _Term:
        """The product of two tensors, summed over the letters that are not wanted."""
        a = self.without(a, [c for c in a.letters if c not in b.letters and c not in wanted])
        b = self.without(b, [c for c in b.letters if c not in a.letters and c not in wanted])
        batch = [c for c in wanted if c in a.letters and c in b.letters]
        inner = [c for c in a.letters if c in b.letters and c not in wanted]
        if prod(self.size[c] for c in inner) == 1:
            return self.entry_by_entry(a, b, inner, wanted)
        if a.value.is_constant and not b.value.is_constant and not batch:
            a, b = b, a
        rows = [c for c in wanted if c in a.letters and c not in b.letters]
        columns = [c for c in wanted if c in b.letters and c not in a.letters]
        lead = [] if b.value.is_constant and not batch else [batch]
        left, right = self.laid(a, [*lead, rows, inner]), self.laid(b, [*lead, inner, columns])
        value = self.apply("matmul", [left, right], (*left.shape[:-1], right.shape[-1]))
        letters = [*batch, *rows, *columns]
        value = self.apply("reshape", [value], tuple(self.size[c] for c in letters))
        return _Term(value, letters)

    def entry_by_entry(
        self, a: _Term, b: _Term, inner: Sequence[str], wanted: Sequence[str]
    ) -> _Term:
        """The product of two tensors whose common letters that are not wanted have one place."""
        letters = [c for c in wanted if c in a.letters or c in b.letters]
        for term in (a, b):
            own = [c for c in term.letters if c not in inner]
            if len(own) == len(letters):
                letters = own  # a tensor with all axes keeps their order
                break
        sides = []
        for term in (a, b):
            value = self.laid(term, [[c] for c in (*letters, *inner) if c in term.letters])
            shape = tuple(self.size[c] if c in term.letters else 1 for c in letters)
            sides.append(self.apply("reshape", [value], shape))
        shape = tuple(self.size[c] for c in letters)
        return _Term(self.apply("binary", sides, shape, function="mul"), letters)


def _written_out(equation: str, ranks: Sequence[int]) -> tuple[list[list[str]], list[str]] | None:
    """The letters of each tensor and of the result, those of ellipses included."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        return None
    hidden = [
        rank - len(term.replace("...", "")) if "..." in term else 0
        for term, rank in zip(terms, ranks, strict=True)
    ]
    most = max(hidden)
    axes = [chr(_ELLIPSIS + axis) for axis in range(most)]
    if min(hidden) < 0:
        return None
    letters = [
        list(term.replace("...", "".join(axes[most - n :])))
        for term, n in zip(terms, hidden, strict=True)
    ]
    if arrow:
        result = list(right.replace("...", "".join(axes)))
    else:
        every = [c for term in letters for c in term if c not in axes]
        result = [*axes, *sorted(c for c in every if every.count(c) == 1)]
    return letters, result


def _sizes(terms: Sequence[_Term], result: Sequence[str]) -> dict[str, int] | None:
    """The size of each letter, None where the tensors do not agree on one."""
    size: dict[str, int] = {}
    for term in terms:
        if len(term.letters) != len(term.value.shape):
            return None
        for c, n in zip(term.letters, term.value.shape, strict=True):
            if n != 1 and size.setdefault(c, n) not in (1, n):
                return None
            size[c] = max(size.get(c, 1), n) if n else 0
    good = all(c.isalpha() or ord(c) >= _ELLIPSIS for c in (*size, *result))
    known = len(set(result)) == len(result) and set(result) <= set(size)
    return size if good and known else None


def einsum(
    apply: Callable[..., Value],
    equation: str,
    values: Sequence[Value],
    path: Sequence[int] | None = None,
) -> Value | None:
    """The product that an equation such as "...ij,jk->...ik" describes, None where it is not one.

    Args:
        apply: Writes an operation down: its name, inputs, shape and attributes.
        equation: As torch.einsum and ONNX have it; without "->" the result has the letters that
            stand once, in order, behind the axes of an ellipsis.
        values: The tensors.
        path: The places of the next two tensors, pair by pair, among those that are left; their
            product is the last from then on.
    """
    written = _written_out(equation, [len(v.shape) for v in values])
    if written is None:
        return None
    letters, result = written
    terms = [_Term(value, own) for value, own in zip(values, letters, strict=True)]
    size = _sizes(terms, result)
    if size is None:
        return None
    task = _Sum(apply, size)
    terms = [task.stretched(task.diagonal(term)) for term in terms]
    places = list(path or ())
    while len(terms) > 1:
        first, second = (places.pop(0), places.pop(0)) if places else (0, 1)
        pair = terms[first], terms[second]
        terms = [term for place, term in enumerate(terms) if place not in (first, second)]
        further = dict.fromkeys(c for term in terms for c in term.letters)
        wanted = [*result, *(c for c in further if c not in result)]
        product = task.product(*pair, wanted)
        terms = [*terms, product] if path else [product, *terms]
    last = terms[0]
    last = task.without(last, [c for c in last.letters if c not in result])
    return task.laid(last, [[c] for c in result])
