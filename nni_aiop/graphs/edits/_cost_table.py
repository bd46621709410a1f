"""Costs of thousands of candidates at once: every node's cost as a polynomial, evaluated together.

The formulas of `_costs` are run once on polynomials in place of numbers. What a candidate costs is
then a product of matrices: of the monomials of its widths with the coefficients of groups of nodes,
each weighted by whether its branch is there, and which form its layer has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from nni_aiop.graphs._costs import node_cost
from nni_aiop.graphs._types import GraphLike
from nni_aiop.graphs.edits._plan import Forms, NodePlan, variant
from nni_aiop.graphs.edits._polynomial import Monomial, Polynomial
from nni_aiop.graphs.edits._structure import Structure

if TYPE_CHECKING:
    import torch

__all__ = ["CostTable", "Merge"]

_SUMS = ("flops", "macs", "params")


class Merge(NamedTuple):
    """A sum that becomes terms of a later sum once nobody else reads it.

    Attributes:
        inner: The sum.
        outer: The later one.
        between: Sums and products between that must be gone.
        own: Structures of the later one that must be gone.
    """

    inner: int
    outer: int
    between: tuple[int, ...]
    own: tuple[int, ...]


class _Columns:
    """Polynomials as columns of one matrix."""

    def __init__(self) -> None:
        self._rows: dict[Monomial, int] = {}
        self._columns: list[Polynomial] = []
        self._matrix: Any = None

    def add(self, value: Any) -> int:
        polynomial = Polynomial.of(value)
        for monomial in polynomial.terms:
            self._rows.setdefault(monomial, len(self._rows))
        self._columns.append(polynomial)
        return len(self._columns) - 1

    def __len__(self) -> int:
        return len(self._columns)

    def values(self, forms: torch.Tensor, columns: Sequence[int]) -> torch.Tensor:
        """(n, columns) some columns, of (n, variables)."""
        import torch

        if self._matrix is None:
            matrix = torch.zeros(len(self._rows), len(self._columns), dtype=torch.float64)
            for column, polynomial in enumerate(self._columns):
                for monomial, factor in polynomial.terms.items():
                    matrix[self._rows[monomial], column] = float(factor)
            self._matrix = matrix
        ones = forms.new_ones(len(forms))
        wide = torch.cat([forms, ones[:, None]], 1)
        last = forms.shape[1]
        matrix = self._matrix[:, torch.tensor(columns)]
        used = matrix.ne(0).any(1)
        rows = [m for m, use in zip(self._rows, used.tolist(), strict=True) if use]
        product = wide.new_ones(len(wide), len(rows))
        for at in range(max((len(m) for m in rows), default=0)):
            product = product * wide[:, [m[at] if at < len(m) else last for m in rows]]
        values: torch.Tensor = product @ matrix[used].to(forms.dtype)
        return values


class CostTable:
    """The costs of a graph's edits.

    Args:
        graph: As it is.
        plans: Of every node.
        forms: Their sizes.
        structures: Where its structure can be edited.
        folds: Operations that go once certain sums are gone.
        merges: Sums that a later sum takes in.
        shared: Nodes that share their weights, in groups.
    """

    def __init__(
        self,
        graph: GraphLike,
        plans: Sequence[NodePlan],
        forms: Forms,
        structures: Sequence[Structure],
        folds: Mapping[int, tuple[int, ...]],
        merges: Sequence[Merge],
        shared: Sequence[Sequence[int]],
    ) -> None:
        self._graph, self._forms, self._structures, self._folds = graph, forms, structures, folds
        self._merges = merges
        self._removers: list[tuple[int, ...]] = [() for _ in plans]
        self._sums: dict[int, list[int]] = {}
        self._formed: dict[int, int] = {}
        for at, structure in enumerate(structures):
            if structure.kind in ("branch", "gate"):
                self._sums.setdefault(structure.place, []).append(at)
                for place in structure.nodes:
                    self._removers[place] = (*self._removers[place], at)
            else:
                self._formed[structure.place] = at
        # The second half of layers that are two has sizes of its own before this.
        parts = [
            [variant(plan, option) for option in structures[self._formed[place]].options]
            if place in self._formed
            else [[plan]]
            for place, plan in enumerate(plans)
        ]
        variables = [Polynomial.variable(at) for at in range(forms.count)]
        self._columns = _Columns()
        self._written: list[int] = []
        self._inner: dict[int, list[int | None]] = {}
        before = {member: group[:at] for group in shared for at, member in enumerate(group)}
        plain: dict[tuple[int, ...], list[Any]] = {}
        self._entries: list[tuple[int, int, int, Any]] = []
        for place, options in enumerate(parts):
            costs = [[node_cost(part.view(variables)) for part in option] for option in options]
            removers = self._removers[place]
            sums = [
                [
                    sum((Polynomial.of(getattr(c, name)) for c in found), Polynomial({}))
                    for name in ("flops", "macs", "parameters")
                ]
                for found in costs
            ]
            if before.get(place):
                self._enter((0, 0, sums[0][2]), ("shared", removers, before[place]))
                sums = [[flops, macs, Polynomial({})] for flops, macs, _ in sums]
            if place in self._formed:
                for i, made in enumerate(sums):
                    self._enter(made, ("form", removers, self._formed[place], i))
                self._inner[place] = [
                    self._columns.add(found[0].activations) if len(found) == 2 else None
                    for found in costs
                ]
            else:
                have = plain.setdefault(removers, [Polynomial({})] * 3)
                plain[removers] = [a + b for a, b in zip(have, sums[0], strict=True)]
            written = costs[0][-1].activations
            self._written.append(self._columns.add(written))
            if place in self._sums:
                self._enter((written, 0, 0), ("sum", removers, place))
            if place in folds:
                self._enter((sums[0][0], 0, 0), ("fold", removers, place))
        for removers, made in plain.items():
            self._enter(made, ("plain", removers))

    def _enter(self, made: Sequence[Any], weight: Any) -> None:
        flops, macs, params = (self._columns.add(one) for one in made)
        self._entries.append((flops, macs, params, weight))

    def costs(
        self, kept: torch.Tensor, options: Mapping[int, torch.Tensor], names: Sequence[str]
    ) -> dict[str, torch.Tensor]:
        """(n,) costs of candidates; see `EditPlan.costs`."""
        import torch

        forms = self._forms.tensors(kept)
        stacked = torch.stack(forms, 1) if forms else kept.new_zeros(len(kept), 0)
        weights = _Weights(self, kept, options)
        found: dict[str, torch.Tensor] = {}
        wanted = [name for name in _SUMS if name in names]
        if wanted:
            shares = torch.stack([weights.of(entry[3]) for entry in self._entries], 1)
            for name in wanted:
                index = [entry[_SUMS.index(name)] for entry in self._entries]
                found[name] = (self._columns.values(stacked, index) * shares).sum(1)
        if "peak_memory" in names:
            values = self._columns.values(stacked, range(len(self._columns)))
            found["peak_memory"] = self._peak(kept, options, weights, values)
        return {name: found[name] for name in names}

    def _peak(
        self,
        kept: torch.Tensor,
        options: Mapping[int, torch.Tensor],
        weights: _Weights,
        values: torch.Tensor,
    ) -> torch.Tensor:
        """(n,) bytes that live at once, as `_costs.peak_memory` counts them.

        The schedule has a slot for every node, and one before it for the first half of a layer that
        may be two.
        """
        import torch

        graph, n = self._graph, len(kept)
        formed = {place: at for place, at in self._formed.items() if at in options}
        slots: list[int] = []
        slot = -1
        for place in range(len(graph)):
            slot += 2 if place in formed else 1
            slots.append(slot)
        end = slot + 1
        vanishes: dict[int, Any] = {}
        for place in self._sums:
            if weights.gone(place) is not None and self._vanishes(place):
                vanishes[place] = weights.vanished(place)
        for place, chain in self._folds.items():
            if any(term in vanishes for term in chain):
                vanishes[place] = weights.folded(place)
        for merge in self._merges:
            share = weights.merged(merge)
            if share is not None:
                share = share * (1 - weights.vanished(merge.inner))
                vanishes[merge.inner] = vanishes.get(merge.inner, 0) + share
        dies: list[Any] = list(slots)
        for place in range(len(graph) - 1, -1, -1):
            read: Any = end if graph.nodes[place].op == "output" else slots[place]
            if place in formed:
                # The first of two layers reads the input, one slot earlier.
                share = options[formed[place]]
                inner = self._inner[place]
                one = [share[:, i] for i, column in enumerate(inner) if column is None]
                read = read - 1 + sum(one)
            if place in vanishes:
                read = _later(read, vanishes[place] * dies[place])
            if any(at in options for at in self._removers[place]):
                read = read * weights.alive(self._removers[place])
            for source in graph.inputs[place]:
                dies[source] = _later(dies[source], read)
        delta = kept.new_zeros(n, end + 2)
        for place, column in enumerate(self._written):
            size = values[:, column]
            if place in vanishes:
                size = size * (1 - vanishes[place])
            alive = weights.alive(self._removers[place])
            _lives(delta, slots[place], dies[place], size * alive)
            if place in formed:
                share = options[formed[place]]
                middle: Any = sum(
                    (
                        share[:, i] * values[:, inner_column]
                        for i, inner_column in enumerate(self._inner[place])
                        if inner_column is not None
                    ),
                    kept.new_zeros(n),
                )
                _lives(delta, slots[place] - 1, slots[place], middle * alive)
        return 4 * torch.cumsum(delta, 1).amax(1)

    def _vanishes(self, place: int) -> bool:
        """Whether a sum is its one term, once all others are gone."""
        return self._graph.nodes[place].get("operand") is None


class _Weights:
    """How much of every entry of a table is there in each candidate."""

    def __init__(
        self, table: CostTable, kept: torch.Tensor, options: Mapping[int, torch.Tensor]
    ) -> None:
        self._table, self._options = table, options
        self._ones = kept.new_ones(len(kept))
        self._alive: dict[tuple[int, ...], torch.Tensor] = {}

    def of(self, weight: Any) -> torch.Tensor:
        """(n,) the weight of an entry."""
        kind, removers, *rest = weight
        alive = self.alive(removers)
        if kind == "form":
            at, option = rest
            if at not in self._options:
                return alive if option == 0 else 0 * alive
            return alive * self._options[at][:, option]
        if kind == "sum":
            gone = self.gone(rest[0])
            return 0 * alive if gone is None else -gone * alive
        if kind == "fold":
            return -self.folded(rest[0]) * alive
        if kind == "shared":
            for member in rest[0]:  # they count once, as long as one of them is there
                alive = alive * (1 - self.alive(self._table._removers[member]))
        return alive

    def alive(self, removers: tuple[int, ...]) -> torch.Tensor:
        """(n,) whether none of several branches and gates is gone."""
        if removers not in self._alive:
            share = self._ones
            for at in removers:
                if at in self._options:
                    share = share * (1 - self._options[at][:, 1])
            self._alive[removers] = share
        return self._alive[removers]

    def gone(self, place: int) -> torch.Tensor | None:
        """(n,) how many terms of a sum are gone; None where none can be."""
        shares = [self._options[at][:, 1] for at in self._table._sums[place] if at in self._options]
        return sum(shares[1:], shares[0]) if shares else None

    def vanished(self, place: int) -> torch.Tensor:
        """(n,) whether a sum has one term left."""
        gone = self.gone(place) if place in self._table._sums else None
        if gone is None or not self._table._vanishes(place):
            return 0 * self._ones
        terms = len(self._table._graph.inputs[place])
        return (gone >= terms - 1).to(self._ones.dtype)

    def folded(self, place: int) -> torch.Tensor:
        """(n,) whether every sum before a normalisation is gone, so that a layer takes it in."""
        share = self._ones
        for term in self._table._folds[place]:
            share = share * self.vanished(term)
        return share

    def merged(self, merge: Merge) -> torch.Tensor | None:
        """(n,) whether a later sum takes a sum in; None where it cannot."""
        if any(self.gone(place) is None for place in merge.between) or any(
            at not in self._options for at in merge.own
        ):
            return None
        share = 1 - self.vanished(merge.outer)
        for place in merge.between:
            share = share * self.vanished(place)
        for at in merge.own:
            share = share * self._options[at][:, 1]
        return share


def _later(a: Any, b: Any) -> Any:
    import torch

    if isinstance(a, int) and isinstance(b, int):
        return max(a, b)
    either = a if isinstance(a, torch.Tensor) else b
    return torch.maximum(*(torch.as_tensor(x, dtype=either.dtype) for x in (a, b)))


def _lives(delta: torch.Tensor, first: int, last: Any, size: torch.Tensor) -> None:
    """Adds a tensor that lives from one slot to another."""
    delta[:, first] += size
    if isinstance(last, int):
        delta[:, last + 1] -= size
        return
    index = (last.detach().round().long() + 1).expand(len(delta))[:, None]
    delta.scatter_add_(1, index, -size[:, None])
