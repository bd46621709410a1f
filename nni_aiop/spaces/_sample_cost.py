"""Exact costs that are functions of a sample: of any Python function, a table, a compute graph."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nni_aiop.errors import SpaceError, UnknownCostWarning
from nni_aiop.spaces._coding import Sample

if TYPE_CHECKING:
    from nni_aiop.graphs import ComputeGraph

__all__ = ["GRAPH_COSTS", "GraphCost", "SampleCost", "TableCost", "graph_costs", "sample_costs"]

Array = NDArray[np.float64]

GRAPH_COSTS = ("flops", "macs", "params", "peak_memory")
"""Costs of every space that draws graphs, see `CodeSpace`."""


class SampleCost:
    """An exact cost of a space that is any function of a sample, evaluated once per architecture.

    Searches evaluate it where it decides: for each architecture that they are about to ask for, and
    for some that a search learns from. What stands between, the ranking of thousands of candidates
    and the gradient of propagation, is learned from the values that are known. What a search asks
    for, and what propagation, generators and repair return, keeps its limit by this function.

    Args:
        function: From a sample (every label, inactive ones at their defaults) to a number. None,
            NaN and infinity say that the cost is unknown, which is not within any limit; so does an
            exception, of which the first is warned of.
        quick: Whether it may be evaluated for every candidate (some microseconds each); nothing but
            a gradient is learned then.
        batched: Whether the function takes a list of samples, and returns as many numbers.
        noisy: Whether another evaluation gives another number, as a measurement does. The first one
            counts; states of searches keep it.
        initial: Evaluations of random architectures before anything is learned.

    Example:
        >>> from nni_aiop.spaces import CodeSpace, Ordinal
        >>> dimensions = [Ordinal("depth", (1, 2, 3)), Ordinal("width", (8, 16, 32))]
        >>> area = SampleCost(lambda sample: sample["depth"] * sample["width"] ** 2)
        >>> space = CodeSpace(dimensions, costs={"area": area})
        >>> space.cost("area", space.encode([{"depth": 2, "width": 32}])).tolist()
        [2048.0]
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        *,
        quick: bool = False,
        batched: bool = False,
        noisy: bool = False,
        initial: int = 48,
    ) -> None:
        if not callable(function):
            raise SpaceError(
                f"a sample cost must be a function of a sample, but got {function!r:.80}."
            )
        if not (isinstance(initial, (int, np.integer)) and initial >= 8):
            raise SpaceError(f"initial must be at least 8, but got {initial!r}.")
        self.function = function
        self.quick = quick
        self.batched = batched
        self.noisy = noisy
        self.initial = int(initial)
        self.problem: str | None = None  # why the last unknown value is unknown
        self._known: dict[str, float] = {}
        self._warned = False

    def values(self, samples: Sequence[Sample], names: Sequence[str]) -> Array:
        """(n,) the cost of each sample, NaN where unknown.

        Args:
            samples: Samples with every label.
            names: A text for each of them, equal where the architectures are.
        """
        new = {n: s for n, s in zip(names, samples, strict=True) if n not in self._known}
        if new:
            for name, value in zip(new, self._evaluated(new), strict=True):
                self._known[name] = value
        return np.array([self._known[name] for name in names])

    def is_known(self, name: str) -> bool:
        """Whether the architecture of that text has been evaluated."""
        return name in self._known

    def remember(self, name: str, value: float) -> None:
        """Take a value that was measured earlier; one that is known already stays."""
        self._known.setdefault(name, value)

    def _evaluated(self, new: Mapping[str, Sample]) -> list[float]:
        if self.batched:
            return self._of_batch(list(new.values()))
        return [self._of_one(name, sample) for name, sample in new.items()]

    def _of_one(self, name: str, sample: Sample) -> float:
        try:
            with _random_state_kept():
                return self._number(self._compute(name, dict(sample)))
        except Exception as err:  # noqa: BLE001 (whatever a user's function raises)
            return self._unknown(f"{type(err).__name__}: {_line(err)}", sample)

    def _compute(self, name: str, sample: Sample) -> Any:
        return self.function(sample)

    def _of_batch(self, samples: list[Sample]) -> list[float]:
        try:
            with _random_state_kept():
                found = list(self.function([dict(s) for s in samples]))
            if len(found) != len(samples):
                raise ValueError(f"{len(found)} numbers for {len(samples)} samples")
            return [self._number(value) for value in found]
        except Exception as err:  # noqa: BLE001 (whatever a user's function raises)
            unknown = self._unknown(f"{type(err).__name__}: {_line(err)}", samples[0])
            return [unknown] * len(samples)

    @staticmethod
    def _number(value: Any) -> float:
        number = math.nan if value is None else float(value)
        return number if math.isfinite(number) else math.nan

    def _unknown(self, problem: str, sample: Sample) -> float:
        self.problem = problem
        if not self._warned:
            self._warned = True
            shown = ", ".join(f"{k}={v!r}" for k, v in sample.items())
            warnings.warn(
                f"a cost must be known to be within a limit, but of a sample it is not "
                f"({problem:.300}): {shown:.300}. More such samples are not warned of.",
                stacklevel=2,
            )
        return math.nan


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """What makes networks to look at them leaves PyTorch's random numbers as they were."""
    torch: Any = sys.modules.get("torch")
    with nullcontext() if torch is None else torch.random.fork_rng(devices=[]):
        yield


def _line(err: Exception) -> str:
    return " ".join(str(err).split())


class TableCost(SampleCost):
    """A cost that a table holds; what the table lacks is unknown, and not within any limit.

    Args:
        space: The space of the samples.
        rows: (sample, number) of each row, samples with or without their inactive labels; or the
            numbers by the keys of samples (`CodeSpace.network_key`). None and NaN are unknown.

    Raises:
        SpaceError: A sample is not of the space, an architecture has two numbers, what is given is
            no number, or nothing is known.

    Example:
        >>> from nni_aiop.spaces import CodeSpace, Ordinal
        >>> space = CodeSpace([Ordinal("depth", (1, 2, 3))])
        >>> space = space.with_cost("ms", TableCost(space, [({"depth": 1}, 2.5)]))
        >>> space.cost("ms", [[0.0], [0.5]]).tolist()
        [2.5, nan]
    """

    def __init__(
        self, space: Any, rows: Mapping[str, float] | Iterable[tuple[Mapping[str, Any], float]]
    ) -> None:
        super().__init__(self._looked_up, quick=True)
        self.space = space
        pairs = rows.items() if isinstance(rows, Mapping) else rows
        self.rows: dict[str, float] = {}
        self.samples: list[Sample] = []  # of the rows that are given by them
        for row in pairs:
            try:
                given, value = row
                key = given if isinstance(given, str) else space.network_key(given)
                number = self._number(value)
            except SpaceError:
                raise
            except (TypeError, ValueError) as err:
                raise SpaceError(
                    "a table of costs must be pairs of a sample and a number, or numbers by the "
                    f"keys of samples, but got {row!r:.200}."
                ) from err
            if self.rows.get(key, number) != number and not math.isnan(number):
                raise SpaceError(
                    f"an architecture must have one number in a table of costs, but {given!r:.200} "
                    f"has {self.rows[key]} and {number}."
                )
            if not math.isnan(number):
                self.rows[key] = number
                if not isinstance(given, str):
                    self.samples.append(space.settled(given))
        if not self.rows:
            raise SpaceError("a table of costs must hold at least one number, but holds none.")

    def _looked_up(self, sample: Sample) -> float | None:
        return self.rows.get(self.space.network_key(sample))


class _Figures:
    """What the graphs of samples cost; each is made once for all of its costs."""

    def __init__(self, graph: Callable[[Mapping[str, Any]], ComputeGraph]) -> None:
        self.graph = graph
        self._known: dict[str, dict[str, float]] = {}
        self._warned = False

    def of(self, name: str, sample: Sample) -> dict[str, float]:
        found = self._known.get(name)
        if found is None:
            graph = self.graph(sample)
            cost = graph.cost
            if graph.uncounted and not self._warned:
                self._warned = True
                left_out = ", ".join(f"{k} x{v}" for k, v in graph.uncounted.items())
                warnings.warn(
                    f"the costs of a network must be those of all its operations, but {left_out} "
                    "are not known and count as nothing in its flops.",
                    UnknownCostWarning,
                    stacklevel=2,
                )
            found = {
                "flops": float(cost.macs),
                "macs": float(cost.macs),
                "params": float(graph.parameters),
                "peak_memory": float(graph.peak_memory()),
            }
            self._known[name] = found
        return found


class GraphCost(SampleCost):
    """One of `GRAPH_COSTS`, from the compute graph of a sample."""

    def __init__(self, figures: _Figures, cost: str) -> None:
        super().__init__(figures.graph)
        self.figures = figures
        self.cost = cost

    def _compute(self, name: str, sample: Sample) -> float:
        return self.figures.of(name, sample)[self.cost]


def sample_costs(
    costs: Mapping[str, SampleCost | Callable[[Sample], Any]],
) -> dict[str, SampleCost]:
    """Costs by name, in which plain functions of a sample have become a `SampleCost` each."""
    return {k: c if isinstance(c, SampleCost) else SampleCost(c) for k, c in costs.items()}


def graph_costs(graph: Callable[[Mapping[str, Any]], ComputeGraph]) -> dict[str, GraphCost]:
    """Each of `GRAPH_COSTS` of the networks whose graphs the function makes."""
    figures = _Figures(graph)
    return {name: GraphCost(figures, name) for name in GRAPH_COSTS}
