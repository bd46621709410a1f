"""CodeSpace: any search space as a flat list of typed dimensions.

A *sample* is a dict from label to value. Its *point* row holds one number per dimension, its *code*
row is what a predictor reads, and its *key* is the same for two samples exactly when they describe
the same architecture.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nni_aiop.errors import InfeasibleError, SpaceError
from nni_aiop.spaces._coding import Sample
from nni_aiop.spaces._costed import CostedSpace, CostFunction
from nni_aiop.spaces._dimensions import Array, Continuous, Dimension, Value
from nni_aiop.spaces._groups import FEW
from nni_aiop.spaces._listed import Ordinal, Subset
from nni_aiop.spaces._neighbours import Moves, moves_from
from nni_aiop.spaces._sample_cost import SampleCost

if TYPE_CHECKING:
    from torch import Tensor

    from nni_aiop.graphs import ComputeGraph

_MAX_VISITS = 20_000  # grid points looked at for the nearest one that keeps the constraints
_MAX_TOKENS = 1_000  # values of an ordinal dimension that are a token each
_MAX_CACHE = 100_000  # architectures whose activity or network is remembered
_MAX_TRIES = 2_000  # rejections in a row before a space is called empty


@dataclass(frozen=True)
class Condition:
    """A dimension is active iff `parent` is active and its value is one of `values`."""

    parent: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Constraint:
    """A rule that every valid sample keeps; it should not depend on inactive labels.

    Args:
        name: The rule in words; it is quoted when a sample breaks it.
        check: From a sample (all labels) to whether it keeps the rule.
    """

    name: str
    check: Callable[[Sample], bool]


class CodeSpace(CostedSpace):
    """A search space, and the codes of its samples.

    Args:
        dimensions: The decisions, parents before the dimensions that depend on them.
        name: Name of the space, for messages and files.
        conditions: For each conditional label what its parents must be; several conditions must all
            hold.
        activity: Instead of `conditions`, a function from a full sample to its active labels.
        constraints: Rules that every valid sample keeps.
        costs: Exact costs by name: functions of codes, torch (n, width) -> (n,), differentiable in
            the code; or any function of a sample as a `SampleCost`, a table as a `TableCost`.
        features: What a predictor should see beside the code, torch (n, width) -> (n, f),
            differentiable.
        graph: The compute graph of a sample's network, which may lack inactive labels. It gives the
            space further costs, unless `costs` or labels have their names: `flops` and `macs` (both
            are multiply-adds), `params` (a number) and `peak_memory` (bytes of activations in
            single precision), all for the input that the graph was made for, its batch included.
            They are computed only where they are asked for.
        key: A text (or another value with a `repr` of its own) that two samples share exactly when
            they are the same network, where that is more than equal active labels: isomorphic
            cells. It is asked of samples whose inactive labels are at their defaults. `"graph"`
            takes the content hash of `graph`.

    Raises:
        SpaceError: Labels repeat, or a condition names an unknown or later parent or an illegal
            value; or a cost is no function.

    Example:
        >>> space = CodeSpace([Ordinal("depth", (1, 2, 3)), Ordinal("width", (8, 16, 32))])
        >>> space.encode([{"depth": 2, "width": 32}]).tolist()
        [[0.5, 1.0]]
        >>> space.decode([[0.6, 0.2]])
        [{'depth': 2, 'width': 8}]
    """

    def __init__(
        self,
        dimensions: Sequence[Dimension],
        *,
        name: str = "space",
        conditions: Mapping[str, Condition | Sequence[Condition]] | None = None,
        activity: Callable[[Sample], Collection[str]] | None = None,
        constraints: Sequence[Constraint] = (),
        costs: Mapping[str, CostFunction | SampleCost] | None = None,
        features: Callable[[Tensor], Tensor] | None = None,
        graph: Callable[[Mapping[str, Any]], ComputeGraph] | None = None,
        key: Callable[[Sample], object] | Literal["graph"] | None = None,
    ) -> None:
        super().__init__(dimensions, name=name)
        if not (key is None or key == "graph" or callable(key)):
            raise SpaceError(
                f"key must be a function of a sample, or 'graph', but got {key!r:.80}."
            )
        if key == "graph" and graph is None:
            raise SpaceError("a space whose key is its graph must be given graph, but got none.")
        self.network = key
        self._network_cache: dict[str, str] = {}
        self.activity = activity
        self.constraints = tuple(constraints)
        self._set_costs(costs or {}, graph)
        self.features = features
        self.graph = graph
        if conditions and activity:
            raise SpaceError("a space must be given conditions or activity, but got both.")
        self.conditions = {
            label: (given,) if isinstance(given, Condition) else tuple(given)
            for label, given in (conditions or {}).items()
        }
        self._rules = [
            (self._order[label], *self._parent_points(label, c))
            for label, given in sorted(self.conditions.items(), key=lambda item: self._at(item[0]))
            for c in given
        ]
        self._activity_cache: dict[bytes, NDArray[np.bool_]] = {}

    def __repr__(self) -> str:
        return (
            f"CodeSpace({self.name!r}, {len(self.dimensions)} dimensions, {self.size:.3g} points)"
        )

    def _parent_points(self, label: str, condition: Condition) -> tuple[int, Array]:
        child, parent = self._at(label), self._at(condition.parent)
        if parent >= child:
            raise SpaceError(
                f"a parent must stand before its child, but {condition.parent!r} "
                f"does not stand before {label!r}."
            )
        return parent, np.array(self.dimensions[parent].points_of(condition.values))

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the definition, by which files know their space again."""
        content = [
            [type(d).__name__, d.label]
            + [repr(getattr(d, a, None)) for a in ("values", "low", "high")]
            + [getattr(d, a, None) for a in ("scale", "log", "n_chosen")]
            + [getattr(d, "ppf", None) is not None]
            for d in self.dimensions
        ]
        rules = {k: [[c.parent, repr(c.values)] for c in v] for k, v in self.conditions.items()}
        rest = [self.activity is not None, [c.name for c in self.constraints]]
        text = json.dumps([content, rules, rest, self.features is not None], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def decode(self, codes: ArrayLike) -> list[Sample]:
        """The nearest valid sample (every label) of each of any real codes (n, width).

        Raises:
            SpaceError: The codes have another width, or one is not a finite number.
            InfeasibleError: No sample near a code keeps the constraints.
        """
        samples = self.from_points(self.decode_points(codes))
        if not self.constraints:
            return samples
        c = np.asarray(codes, dtype=np.float64)
        return [
            s if self._broken(s) is None else self._nearest_valid(row)
            for s, row in zip(samples, c, strict=True)
        ]

    def snap(self, codes: ArrayLike) -> Array:
        """(n, width) codes of the nearest points, normalised; constraints are not looked at."""
        return self.encode_points(self.normalise(self.decode_points(codes)))

    def normalise(self, points: Array) -> Array:
        """The points with every dimension that `conditions` make inactive at its default."""
        if not self._rules:
            return points
        active = self._active_by_rules(points)
        return np.where(active, points, self._groups.defaults)

    def _nearest_valid(self, code: Array) -> Sample:
        """The valid sample whose code is nearest: grid points in the order of their distance."""
        options, distances = [], []
        for d in self.dimensions:
            points = d.near(code[self.columns[d.label]])
            gap = ((d.encode(points) - code[self.columns[d.label]]) ** 2).sum(axis=1)
            order = np.argsort(gap, kind="stable")
            options.append(points[order])
            distances.append(gap[order])
        start = (0,) * len(self.dimensions)
        heap = [(float(sum(g[0] for g in distances)), start, 0)]
        for _ in range(_MAX_VISITS):
            if not heap:
                break
            total, ranks, first = heapq.heappop(heap)
            point = np.array([[o[r] for o, r in zip(options, ranks, strict=True)]])
            sample = self.from_points(point)[0]
            if self._broken(sample) is None:
                return sample
            # Raising only ranks from `first` on reaches every combination once.
            for j in range(first, len(ranks)):
                r = ranks[j] + 1
                if r < len(options[j]):
                    further = total + float(distances[j][r] - distances[j][r - 1])
                    heapq.heappush(heap, (further, (*ranks[:j], r, *ranks[j + 1 :]), j))
        raise InfeasibleError(
            f"a sample that keeps the constraints of {self.name} must be near the code, "
            f"but none of the {_MAX_VISITS} nearest (or of all, if fewer) does."
        )

    # --- activity, identity, validity -----------------------------------------------------------

    @cached_property
    def _sets(self) -> list[tuple[int, int, frozenset[float]]]:
        return [(child, parent, frozenset(p.tolist())) for child, parent, p in self._rules]

    def _active_by_rules(self, points: Array) -> NDArray[np.bool_]:
        if self._rules and 0 < len(points) <= FEW:
            return np.array([self._active_row(row) for row in points.tolist()], dtype=np.bool_)
        active = np.ones(points.shape, dtype=np.bool_)
        for child, parent, allowed in self._rules:
            # Few values, each compared with, are a tenth of the time of np.isin.
            matches = (points[:, parent, None] == allowed).any(axis=1)
            active[:, child] &= active[:, parent] & matches
        return active

    def _active_row(self, row: list[float]) -> list[bool]:
        active = [True] * len(row)
        for child, parent, allowed in self._sets:
            if not (active[parent] and row[parent] in allowed):
                active[child] = False
        return active

    def active_points(self, points: Array) -> NDArray[np.bool_]:
        """(n, d) which dimensions matter at each point."""
        if self.activity is None:
            return self._active_by_rules(points)
        out = np.empty(points.shape, dtype=np.bool_)
        for i, row in enumerate(points):
            key = row.tobytes()
            known = self._activity_cache.get(key)
            if known is None:
                labels = set(self.activity(self.from_points(row[None])[0]))
                known = np.array([label in labels for label in self.labels])
                if len(self._activity_cache) >= _MAX_CACHE:
                    self._activity_cache.clear()
                self._activity_cache[key] = known
            out[i] = known
        return out

    def active(self, samples: Sequence[Mapping[str, Value]]) -> NDArray[np.bool_]:
        """(n, d) which dimensions matter in each sample."""
        return self.active_points(self.points(samples))

    def canonical(self, sample: Mapping[str, Value]) -> Sample:
        """The sample with its active labels only."""
        points = self.points([sample])
        active = self.active_points(points)[0]
        full = self.from_points(points)[0]
        return {label: full[label] for label, a in zip(self.labels, active, strict=True) if a}

    def canonical_points(self, points: Array) -> Array:
        """(n, d) points with inactive dimensions at their default: equal rows, equal networks."""
        if self.activity is None and not self._rules:
            return np.array(points, dtype=np.float64)
        return np.where(self.active_points(points), points, self._groups.defaults)

    def settled(self, sample: Mapping[str, Value]) -> Sample:
        """The sample (every label), inactive dimensions at their defaults where constraints let.

        One architecture has one code. A constraint that reads inactive labels may refuse their
        defaults: the sample stays as it is then.
        """
        (plain,) = self.from_points(self.settled_points([sample]))
        return plain

    def settled_points(self, samples: Sequence[Mapping[str, Value]]) -> Array:
        """(n, d) points of `settled` samples."""
        points = self.points(samples)
        plain = self.canonical_points(points)
        for i, sample in enumerate(self.from_points(plain) if self.constraints else ()):
            if self.violation(sample) is not None:
                plain[i] = points[i]
        return plain

    def keys(self, points: Array) -> list[str]:
        """The key of each of (n, d) points."""
        return self._groups.keys(points, self.active_points(points))

    def key(self, sample: Mapping[str, Value]) -> str:
        """A text that two samples share exactly when their canonical samples are equal.

        Continuous values come out of `decode` and `sample` with twelve digits, which survive being
        encoded and decoded; a user's own value of more digits has another key until it is decoded.
        """
        return self.keys(self.points([sample]))[0]

    def network_keys(self, points: Array) -> list[str]:
        """The network of each of (n, d) points: equal where `key` was given and says so."""
        keys = self.keys(points)
        if self.network is None:
            return keys
        known = self._network_cache
        for i, key in enumerate(keys):
            if key not in known:
                (sample,) = self.from_points(self.canonical_points(points[i : i + 1]))
                if len(known) >= _MAX_CACHE:
                    known.clear()
                known[key] = self._network_of(sample)
            keys[i] = known[key]
        return keys

    def network_key(self, sample: Mapping[str, Value]) -> str:
        """A text that two samples share exactly when they are the same network."""
        return self.network_keys(self.points([sample]))[0]

    def _network_of(self, sample: Sample) -> str:
        if self.network == "graph":
            assert self.graph is not None
            return self.graph(sample).content_hash
        assert callable(self.network)
        return repr(self.network(sample))

    def _broken(self, sample: Sample) -> str | None:
        for constraint in self.constraints:
            if not constraint.check(sample):
                return constraint.name
        return None

    def violation(self, sample: Mapping[str, Value]) -> str | None:
        """One sentence on what makes the sample invalid, or None; it may lack inactive labels."""
        try:
            points = self.points([sample])
            missing = len(sample) < len(self.labels) and [
                label
                for label, a in zip(self.labels, self.active_points(points)[0], strict=True)
                if a and label not in sample
            ]
        except SpaceError as err:
            return str(err)
        if missing:
            return f"a sample of {self.name} must have every active label, but lacks {missing}."
        broken = self._broken(self.from_points(points)[0]) if self.constraints else None
        return None if broken is None else f"a sample of {self.name} must keep: {broken}."

    # --- sampling, neighbours, tokens, costs ----------------------------------------------------

    def sample(self, n: int, rng: np.random.Generator) -> list[Sample]:
        """`n` valid random samples (every label), by rejection where there are constraints.

        Raises:
            InfeasibleError: 2,000 samples in a row broke the constraints.
        """
        if not self.constraints:
            return self.from_points(self.sample_points(n, rng))
        out: list[Sample] = []
        failures = 0
        while len(out) < n:
            sample = self.from_points(self.sample_points(1, rng))[0]
            if self._broken(sample) is None:
                out.append(sample)
                failures = 0
            elif (failures := failures + 1) >= _MAX_TRIES:
                raise InfeasibleError(
                    f"{self.name} must have samples that keep its constraints, "
                    f"but {_MAX_TRIES} random ones in a row do not."
                )
        return out

    def neighbours(self, sample: Mapping[str, Value]) -> list[Sample]:
        """Valid samples (every label) that differ in one active dimension, each architecture
        once."""
        (point,) = self.points([sample])
        return [s for rows in self.neighbour_points(point) for s in self.from_points(rows)]

    def neighbour_points(self, point: Array) -> Iterator[Array]:
        """Points (b, d), b up to 256 at a time, of the neighbours of a point (d,), in their order.

        They are those of `neighbours`. A block is made when it is asked for: all of them together
        are d numbers for each of d or more neighbours.
        """
        return (moves.rows(point) for moves in moves_from(self, point) if len(moves.points))

    def neighbour_moves(self, point: Array) -> Moves:
        """The same neighbours, as the one dimension and its new point by which each differs."""
        blocks = list(moves_from(self, point))
        return Moves(
            np.concatenate([np.empty(0, np.intp), *(b.dimensions for b in blocks)]),
            np.concatenate([np.empty(0), *(b.points for b in blocks)]),
        )

    #: Bins in `tokens` of a continuous dimension, and of an ordinal one of more than 1,000 values.
    token_bins = 32

    def _binned(self, dimension: Dimension) -> bool:
        many = isinstance(dimension, Ordinal) and dimension.size > _MAX_TOKENS
        return many or isinstance(dimension, Continuous)

    @cached_property
    def vocabulary(self) -> tuple[int, ...]:
        """Number of tokens of each dimension, the 0 of an inactive one included.

        Raises:
            SpaceError: A subset dimension has too many choices to be a token.
        """
        sizes = []
        for d in self.dimensions:
            if isinstance(d, Subset) and d.size > 100_000:
                raise SpaceError(
                    f"a subset must have at most 100000 choices to be a token, "
                    f"but {d.label!r} has {d.size}."
                )
            sizes.append(1 + (self.token_bins if self._binned(d) else int(d.size)))
        return tuple(sizes)

    def tokens(self, samples: Sequence[Mapping[str, Value]]) -> NDArray[np.int64]:
        """(n, d) one token per dimension: 0 where inactive, else 1 + index of the value (of its
        bin)."""
        points = self.points(samples)
        out = np.empty(points.shape, dtype=np.int64)
        for j, d in enumerate(self.dimensions):
            column = points[:, j]
            if self._binned(d):
                code = d.encode(column)[:, 0]
                index = np.minimum((code * self.token_bins).astype(np.int64), self.token_bins - 1)
            elif isinstance(d, Subset):
                _ = self.vocabulary
                index = np.searchsorted(d.options(100_000), column)
            else:
                index = column.astype(np.int64)
            out[:, j] = index + 1
        return np.where(self.active_points(points), out, 0)

    def from_tokens(self, tokens: ArrayLike) -> list[Sample]:
        """Samples (every label) of (n, d) tokens; a 0 takes the dimension's default, a bin its
        middle.

        Raises:
            SpaceError: A token is outside its dimension's vocabulary.
        """
        t = np.asarray(tokens, dtype=np.int64)
        if t.ndim != 2 or t.shape[1] != len(self.dimensions):
            raise SpaceError(
                f"tokens must have shape (n, {len(self.dimensions)}), but got {t.shape}."
            )
        points = np.empty(t.shape)
        for j, (d, size) in enumerate(zip(self.dimensions, self.vocabulary, strict=True)):
            column = t[:, j]
            if ((column < 0) | (column >= size)).any():
                raise SpaceError(f"tokens of {d.label!r} must lie in 0..{size - 1}.")
            points[:, j] = self._read_tokens(j, column)
        return self.from_points(points)

    def token_points(self, place: int) -> Array:
        """(v,) points of all tokens of one dimension; the 0 of an inactive one has its default."""
        return self._read_tokens(place, np.arange(self.vocabulary[place]))

    def _read_tokens(self, place: int, column: NDArray[np.int64]) -> Array:
        d, index = self.dimensions[place], np.maximum(column - 1, 0)
        if self._binned(d):
            values = d.decode(((index + 0.5) / self.token_bins)[:, None])
        elif isinstance(d, Subset):
            values = d.options(100_000)[index]
        else:
            values = index.astype(np.float64)
        return np.where(column == 0, d.default, values)

    def table(self) -> Iterator[tuple[str, str, str, str]]:
        """For each dimension its label, kind, choices and when it is active, in words."""
        for d in self.dimensions:
            rules = [f"{c.parent} in {list(c.values)}" for c in self.conditions.get(d.label, ())]
            yield d.label, type(d).__name__.lower(), d.describe(), " and ".join(rules)
