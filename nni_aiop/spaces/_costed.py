"""The exact costs of a space: functions of codes, of samples, and of compute graphs."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nni_aiop.errors import SpaceError
from nni_aiop.spaces._coding import Coding, Sample
from nni_aiop.spaces._dimensions import Array, Value
from nni_aiop.spaces._sample_cost import GraphCost, SampleCost, graph_costs

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import Self

    from nni_aiop.graphs import ComputeGraph

__all__ = ["CostFunction", "CostedSpace"]

CostFunction = Callable[["Tensor"], "Tensor"]
"""From codes (n, width) to costs (n,), differentiable."""


class CostedSpace(Coding):
    """A coding with costs. A subclass says what matters in a sample, and sets the costs.

    Attributes:
        costs: By name; those of the graph behind those that were given.
    """

    costs: dict[str, CostFunction | SampleCost]
    graph: Callable[[Mapping[str, Any]], ComputeGraph] | None

    @abstractmethod
    def active_points(self, points: Array) -> NDArray[np.bool_]:
        """(n, d) which dimensions matter at each point."""

    @abstractmethod
    def settled_points(self, samples: Sequence[Mapping[str, Value]]) -> Array:
        """(n, d) points of samples, inactive dimensions at their defaults."""

    @abstractmethod
    def violation(self, sample: Mapping[str, Value]) -> str | None:
        """One sentence on what makes the sample invalid, or None."""

    @abstractmethod
    def decode(self, codes: ArrayLike) -> list[Sample]:
        """The nearest valid sample (every label) of each of any real codes (n, width)."""

    def _set_costs(
        self,
        costs: Mapping[str, CostFunction | SampleCost],
        graph: Callable[[Mapping[str, Any]], ComputeGraph] | None,
    ) -> None:
        for name, cost in costs.items():
            _check_kind(name, cost)
        self.costs = dict(costs)
        if graph is not None:
            taken = {*costs, *self.labels}
            self.costs |= {k: c for k, c in graph_costs(graph).items() if k not in taken}

    def cost(self, name: str, codes: ArrayLike) -> Array:
        """(n,) exact cost `name` of codes (n, width); NaN where it is unknown.

        A `SampleCost` is that of the nearest valid sample.

        Raises:
            SpaceError: The space has no such cost.
        """
        if name not in self.costs:
            known = ", ".join(self.costs) or "none"
            raise SpaceError(f"{self.name} must have the cost, but got {name!r}; it has: {known}.")
        cost = self.costs[name]
        if isinstance(cost, SampleCost):
            return self.point_costs(name, self.points(self.decode(codes)))
        import torch

        with torch.no_grad():
            tensor = torch.as_tensor(np.asarray(codes, dtype=np.float64))
            return cost(tensor).numpy().astype(np.float64)

    def point_costs(self, name: str, points: Array) -> Array:
        """(n,) the `SampleCost` of that name at each of (n, d) points.

        NaN where it is unknown, or where the point breaks a constraint.
        """
        cost = self.costs[name]
        assert isinstance(cost, SampleCost)
        out = np.full(len(points), np.nan)
        samples, names = self.cost_samples(points)
        valid = [i for i, sample in enumerate(samples) if self.violation(sample) is None]
        out[valid] = cost.values([samples[i] for i in valid], [names[i] for i in valid])
        return out

    def cost_samples(self, points: Array) -> tuple[list[Sample], list[str]]:
        """What a `SampleCost` gets: `settled` samples of points, and a text for each network."""
        settled = self.settled_points(self.from_points(points))
        samples = self.from_points(settled)
        names = [
            repr(sorted((label, s[label]) for label, a in zip(self.labels, row, strict=True) if a))
            for s, row in zip(samples, self.active_points(settled).tolist(), strict=True)
        ]
        return samples, names

    def with_cost(self, name: str, cost: CostFunction | SampleCost) -> Self:
        """A copy of the space with one more cost, or another one of that name.

        Its fingerprint is the same: files and states fit both.

        Raises:
            SpaceError: The cost is no function.
        """
        _check_kind(name, cost)
        other = copy.copy(self)
        own = {k: c for k, c in self.costs.items() if not isinstance(c, GraphCost)}
        other.costs = {**own, name: cost}
        other.costs |= {k: c for k, c in self.costs.items() if k not in other.costs}
        return other

    def with_graph(self, graph: Callable[[Mapping[str, Any]], ComputeGraph]) -> Self:
        """A copy of the space that draws the graphs of its samples, and has their costs."""
        other = copy.copy(self)
        other.graph = graph
        given = {k: c for k, c in self.costs.items() if not isinstance(c, GraphCost)}
        other._set_costs(given, graph)
        return other

    def with_known(self, costs: Mapping[str, CostFunction | SampleCost]) -> Self:
        """A copy with further costs, those of graphs where no label or cost has their name."""
        taken = {*self.costs, *self.labels}
        other = self
        for name, cost in costs.items():
            if not (isinstance(cost, GraphCost) and name in taken):
                other = other.with_cost(name, cost)
        return other

    def shown_costs(self, asked: Iterable[str] = ()) -> list[str]:
        """Names of the costs that were given, and of those of `graph` that are asked for."""
        wanted = set(asked)
        return [
            name
            for name, cost in self.costs.items()
            if name in wanted or not isinstance(cost, GraphCost)
        ]


def _check_kind(name: str, cost: object) -> None:
    if not callable(cost) and not isinstance(cost, SampleCost):
        raise SpaceError(
            f"the cost {name!r} must be a function of codes, or a SampleCost or TableCost of "
            f"samples, but got {cost!r:.80}."
        )
