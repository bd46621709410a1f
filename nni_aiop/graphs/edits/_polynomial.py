"""Polynomials with rational coefficients: costs of nodes as functions of sizes."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

__all__ = ["Polynomial"]

Monomial = tuple[int, ...]
"""Places of the variables whose product it is, in increasing order; () is 1."""


class Polynomial:
    """A sum of products of variables. It takes sums and products, which is all that costs need.

    Args:
        terms: The coefficient of each monomial.
    """

    __slots__ = ("terms",)

    def __init__(self, terms: dict[Monomial, int | Fraction]) -> None:
        self.terms = terms

    @classmethod
    def variable(cls, place: int) -> Polynomial:
        """One variable."""
        return cls({(place,): 1})

    @classmethod
    def of(cls, value: Any) -> Polynomial:
        """A polynomial, or a number as one."""
        return value if isinstance(value, Polynomial) else cls({(): int(value)} if value else {})

    def __add__(self, other: Any) -> Polynomial:
        terms = dict(self.terms)
        for monomial, factor in Polynomial.of(other).terms.items():
            terms[monomial] = terms.get(monomial, 0) + factor
        return Polynomial({k: v for k, v in terms.items() if v})

    __radd__ = __add__

    def __mul__(self, other: Any) -> Polynomial:
        if isinstance(other, (int, bool)):
            return Polynomial({k: v * other for k, v in self.terms.items()} if other else {})
        terms: dict[Monomial, int | Fraction] = {}
        for a, x in self.terms.items():
            for b, y in Polynomial.of(other).terms.items():
                key = tuple(sorted((*a, *b)))
                terms[key] = terms.get(key, 0) + x * y
        return Polynomial({k: v for k, v in terms.items() if v})

    __rmul__ = __mul__

    def scaled(self, times: int, by: int) -> Polynomial:
        """The polynomial times a fraction."""
        return Polynomial({k: v * Fraction(times, by) for k, v in self.terms.items() if times})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (Polynomial, int)) and self.terms == Polynomial.of(other).terms

    def __hash__(self) -> int:
        return hash(frozenset(self.terms.items()))
