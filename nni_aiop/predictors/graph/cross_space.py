"""Ranks networks of a search space of which no label is known, by what labelled spaces teach.

A graph neural network that learned one space does badly in another: it reads sizes that it never
saw. What lies on the ways through a network (`path_features`) means the same anywhere, so that
small trees on it are carried over far better; and where they are not, they contradict each other.

Notation: z_m (n,) what member m = 1..M predicts of the n networks of a pool, standardised over the
pool; c (n,) their log multiply-adds, standardised alike; r_ml Spearman's correlation of members.

    a = mean of r_ml over pairs m < l, at least 0
    score = 2 a^2 z + c,  z the standardised sum of z_m

The members are gradient boosted trees (Friedman, 2001), half of them bound to rise with learned
layers on the ways and to fall with pools, each on all columns or on the few most telling ones, each
as they are or standardised over the pool. Members, columns and the two numbers of the score were
chosen by leaving out one space at a time (`benchmarks/zero_shot.py`).

With labels y (k,) of a few of the pool, their mean squared leave-one-out errors e_j weigh four
predictors j: the score on the labels' scale (`scaled_vote`), and Gaussian processes (`GPHead`) on
the global features, on these and the ways', and on all that, the score and log FLOPs.

    weight_j ~ e_j^(-k / 20)

The exponent, a tenth of a likelihood's, leaves the four nearly equal at first: twenty labels are
few to choose by. Standard deviations are the mean of the processes', as much smaller as the root
mean squared leave-one-out error of the weighted mean is than its parts'.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import NotFittedError
from typing_extensions import Self

from nni_aiop.files import read_described, whole, write_described
from nni_aiop.graphs._features import FlatFeatures
from nni_aiop.graphs._paths import PATH_COLUMNS, path_features
from nni_aiop.predictors._base import Prediction
from nni_aiop.predictors.graph._scores import normal_scores
from nni_aiop.predictors.graph._transfer import scaled_vote
from nni_aiop.predictors.graph._trees import Trees
from nni_aiop.predictors.graph.few_shot import GPHead
from nni_aiop.predictors.metrics import spearman

if TYPE_CHECKING:
    from nni_aiop.graphs import ComputeGraph

__all__ = ["CrossSpaceRanker", "NetworkPool", "Ranking", "load_cross_space_ranker"]

Array = NDArray[np.float64]

_KIND, _VERSION = "nni-aiop cross-space ranker", 1
_FEW = (
    *("most:spatial", "most:learned", "mean:spatial", "mean:learned", "mean:pooling"),
    *("mean:pointwise", "all:spatial", "all:pointwise", "all:pooling", "ways"),
)
_COLUMNS = {"all": PATH_COLUMNS, "few": _FEW}
_RISING = ("spatial", "pointwise", "learned", "window")
_FURTHEST = 3.0  # standard deviations of the pool
_CHUNK = 512  # graphs whose features are worked out at once
_TRUST = 2.0
_FEWEST = 5  # networks of a pool, and labels
_TEMPER = 0.1  # of a likelihood
_LEAST_ERROR = 1e-6  # mean square of standardised labels that counts as none
_SCORE_COUNTS = 10.0  # as so many columns, with log FLOPs


def _sign(column: str) -> int:
    how, _, what = column.partition(":")
    if what == "pooling":
        return -1
    return int(how != "fewest" and what in _RISING)


class NetworkPool:
    """Networks of one space, whose features are worked out once for any number of calls.

    Args:
        graphs: n networks.

    Attributes:
        ways: (n, len(PATH_COLUMNS)) of `path_features`.
        macs: (n,) log2(1 + multiply-adds) of what is in effect.
        constant: (n,) whether the output reads products with zero alone.
        u: (n, len(GLOBAL_COLUMNS)) global features.
        flops: (n,) operations of each network.
    """

    def __init__(self, graphs: Sequence[ComputeGraph]) -> None:
        starts = range(0, max(len(graphs), 1), _CHUNK)
        chunks = [graphs[at : at + _CHUNK] for at in starts]
        parts = [(path_features(flat), flat) for flat in map(FlatFeatures, chunks)]
        self.ways: Array = np.concatenate([found.columns for found, _ in parts])
        self.macs: Array = np.concatenate([found.macs for found, _ in parts])
        self.constant = np.concatenate([found.constant for found, _ in parts])
        self.u: Array = np.concatenate([flat.u for _, flat in parts]).astype(np.float64)
        self.flops: Array = np.concatenate([flat.flops for _, flat in parts])

    def __len__(self) -> int:
        return len(self.ways)

    def take(self, places: NDArray[Any] | Sequence[int]) -> NetworkPool:
        """The networks at some places."""
        result = copy.copy(self)
        for name, array in vars(self).items():
            setattr(result, name, array[np.asarray(places)])
        return result

    @property
    def forms(self) -> dict[str, Array]:
        """`ways` as they are ("own") and standardised over the pool ("pool")."""
        pool = np.column_stack([_standardised(column, ~self.constant) for column in self.ways.T])
        return {"own": self.ways, "pool": pool.clip(-_FURTHEST, _FURTHEST)}


@dataclass(frozen=True)
class Ranking:
    """How networks of one space rank.

    Attributes:
        score: (n,) higher is better; without unit, comparable inside this pool only.
        agreement: a, from 0 to 1: how far the members agree that tell the networks apart. Near 0
            the score is the order of multiply-adds.
        constant: (n,) networks whose output reads products with zero alone; they come last.
    """

    score: Array
    agreement: float
    constant: NDArray[np.bool_]


class CrossSpaceRanker:
    """Ranks networks of unknown spaces; see the module's text.

    Args:
        rows: Each member learns at most so many networks of a space, drawn anew; spaces count
            alike, however many networks each has.
        seed: Of the draws.

    Attributes:
        spaces_: Names of the spaces it learned, with how many networks.

    Example:
        >>> import numpy as np
        >>> from nni_aiop.search_spaces import get_space
        >>> known, unknown = get_space("nasbench201"), get_space("transnas101_micro")
        >>> rng = np.random.default_rng(0)
        >>> samples = known.sample(40, rng)
        >>> y = [sum(op == "nor_conv_3x3" for op in sample.values()) for sample in samples]
        >>> ranker = CrossSpaceRanker().fit({"201": ([*map(known.graph, samples)], y)})
        >>> ranker.rank([*map(unknown.graph, unknown.sample(10, rng))]).score.shape
        (10,)
    """

    spaces_: dict[str, int]
    _members: dict[str, Trees]

    def __init__(self, *, rows: int = 3000, seed: int = 0) -> None:
        if rows < 2:
            raise ValueError(f"rows must be at least 2, but got {rows}.")
        self.rows = rows
        self.seed = seed

    def __repr__(self) -> str:
        return f"CrossSpaceRanker(rows={self.rows}, seed={self.seed})"

    def fit(
        self, spaces: Mapping[str, tuple[Sequence[ComputeGraph] | NetworkPool, ArrayLike]]
    ) -> Self:
        """This ranker, with members that learned labelled spaces.

        Args:
            spaces: By name the networks of a space and their labels, more is better, (n,) or, of
                several tasks, (n, m), whose normal scores are averaged. Units do not matter.

        Raises:
            ValueError: No space, or one with fewer than 5 networks, lengths that differ,
                or a label that is not finite.
        """
        if not spaces:
            raise ValueError("there must be at least one space to learn, but got none.")
        known = {}
        for name, (graphs, y) in spaces.items():
            labels = _labels(name, y, len(graphs))
            pool = _pool(graphs)
            learned = ~pool.constant
            if learned.sum() < _FEWEST:
                raise ValueError(
                    f"{name!r} must have at least {_FEWEST} networks whose output depends on their "
                    f"input, but has {int(learned.sum())}."
                )
            both = {form: x[learned] for form, x in pool.forms.items()}
            known[name] = (both, _scores(labels[learned]))
        self.spaces_ = {name: len(y) for name, (_, y) in known.items()}
        rng = np.random.default_rng(self.seed)
        self._members = {}
        for choice, form, rising in product(_COLUMNS, ("own", "pool"), (False, True)):
            parts = [
                (x[form][drawn], y[drawn])
                for x, y in known.values()
                for drawn in [rng.permutation(len(y))[: self.rows]]
            ]
            x = np.concatenate([part for part, _ in parts])[:, _places(choice)]
            y = np.concatenate([part for _, part in parts])
            weights = np.concatenate([np.full(len(part), 1e3 / len(part)) for _, part in parts])
            signs = [_sign(column) for column in _COLUMNS[choice]] if rising else None
            name = "-".join([choice, form, "rising" if rising else "free"])
            self._members[name] = Trees.fit(x, y, weights, signs, self.seed)
        return self

    def rank(self, graphs: Sequence[ComputeGraph] | NetworkPool) -> Ranking:
        """How n networks of one space rank, of which no label is known.

        Scores are relative to the pool: networks that are to be compared are to be ranked together.

        Raises:
            NotFittedError: `fit` was not called.
            ValueError: Fewer than 5 networks.
        """
        self._require_fit()
        if len(graphs) < _FEWEST:
            raise ValueError(
                f"at least {_FEWEST} networks of a space must be ranked together, "
                f"but got {len(graphs)}."
            )
        pool = _pool(graphs)
        forms, lives = pool.forms, ~pool.constant
        opinions = []
        for name, trees in self._members.items():
            choice, form, _ = name.split("-")
            opinions.append(_standardised(trees.predict(forms[form][:, _places(choice)]), lives))
        # A member for which all networks are the same has no opinion.
        told = [z[lives] for z in opinions if lives.any() and np.ptp(z[lives]) > 0]
        pairs = [spearman(a, b) for a, b in combinations(told, 2)]
        agreement = float(np.clip(np.mean(pairs or [0.0]), 0.0, 1.0))
        joint = _standardised(np.sum(opinions, axis=0), lives)
        score = _TRUST * agreement**2 * joint + _standardised(pool.macs, lives)
        score[pool.constant] = score.min() - 1.0
        return Ranking(score, agreement, pool.constant)

    def estimate(
        self,
        graphs: Sequence[ComputeGraph] | NetworkPool,
        y: ArrayLike,
        *,
        metric: str = "metric",
    ) -> Prediction:
        """A metric of n networks of one space, of which a few are labelled.

        Args:
            graphs: The networks.
            y: (n,) labels in any unit, more is better, at least 5; NaN where not known. The time
                grows with the cube of their number (some seconds of 1,000).
            metric: Name of what is predicted.

        Returns:
            Means and standard deviations of all n, the labelled ones included.

        Raises:
            NotFittedError: `fit` was not called.
            ValueError: Fewer than 5 labels, another number than networks, or an infinity.
        """
        labels = np.asarray(y, np.float64)
        if labels.shape != (len(graphs),):
            raise ValueError(
                f"labels must be of shape ({len(graphs)},) as there are networks, "
                f"but are of shape {labels.shape}."
            )
        if np.isinf(labels).any():
            raise ValueError("labels must be finite, or NaN where not known, but one is infinite.")
        known = np.flatnonzero(~np.isnan(labels))
        if len(known) < _FEWEST:
            raise ValueError(
                f"at least {_FEWEST} networks must be labelled, but {len(known)} of "
                f"{len(labels)} are."
            )
        pool = _pool(graphs)
        return _stacked(pool, self.rank(pool).score, labels, known, metric)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the ranker to a file that `load_cross_space_ranker` reads.

        Raises:
            NotFittedError: `fit` was not called.
        """
        self._require_fit()
        content = {
            "format": _KIND,
            "version": _VERSION,
            "options": {"rows": self.rows, "seed": self.seed},
            "columns": list(PATH_COLUMNS),
            "spaces": self.spaces_,
            "members": list(self._members),
        }
        arrays = {
            f"{name}.{part}": array
            for name, trees in self._members.items()
            for part, array in trees.to_arrays().items()
        }
        write_described(path, "description", content, arrays)

    def _require_fit(self) -> None:
        if not hasattr(self, "spaces_"):
            raise NotFittedError("CrossSpaceRanker must be fitted before it ranks: call fit first.")


def load_cross_space_ranker(path: str | os.PathLike[str]) -> CrossSpaceRanker:
    """The ranker of a file that `CrossSpaceRanker.save` wrote; it ranks the same.

    Raises:
        FileFormatError: The file is truncated, changed, of another version or other columns.
        OSError: There is no such file.
    """
    content, arrays = read_described(
        path, "description", kind=_KIND, version=_VERSION, what="a cross-space ranker"
    )
    with whole(path, "a cross-space ranker", arrays):
        if content["columns"] != list(PATH_COLUMNS):
            raise ValueError("it must read the columns that this version works out")
        ranker = CrossSpaceRanker(**content["options"])
        ranker.spaces_ = {str(name): int(n) for name, n in content["spaces"].items()}
        ranker._members = {}
        for name in content["members"]:
            choice, form, _ = name.split("-")
            if form not in ("own", "pool"):
                raise ValueError(f"a member must read columns as own or pool, not {form!r:.80}")
            parts = {
                key.removeprefix(f"{name}."): array
                for key, array in arrays.items()
                if key.startswith(f"{name}.")
            }
            ranker._members[name] = Trees.from_arrays(parts, len(_COLUMNS[choice]))
        if len(ranker._members) < 2:
            raise ValueError("there must be two members or more")
    return ranker


def _stacked(
    pool: NetworkPool, score: Array, labels: Array, known: NDArray[np.int64], metric: str
) -> Prediction:
    """What `CrossSpaceRanker.estimate` returns; see the module's text."""
    y = labels[known]
    if np.ptp(y) == 0:  # no process has anything to learn
        same = np.full((len(labels), 1), y[0])
        return Prediction(same, np.zeros_like(same), (metric,))
    center, spread = y.mean(), y.std(ddof=1)
    z = (y - center) / spread
    vote = score[:, None]
    w, bias = scaled_vote(vote[known], z, np.ones(1))
    means, stds, errors = [bias + vote @ w], [], [_errors_of_vote(vote[known], z)]
    ways = np.column_stack([pool.ways, pool.u])
    costs = np.log(np.maximum(pool.flops, 1.0))
    votes = np.full(ways.shape[1] + 2, 1.0)
    votes[-2:] = _SCORE_COUNTS / 2
    for x, weights in (
        (pool.u, None),
        (ways, None),
        (np.column_stack([ways, score, costs]), votes),
    ):
        head = GPHead().fit(x[known], z, weights)
        mean, std = head.predict(x)
        means.append(mean)
        stds.append(std)
        errors.append(head.left_out_errors())
    size = np.maximum([np.mean(np.square(error)) for error in errors], _LEAST_ERROR)
    logs = -len(y) / 2 * _TEMPER * np.log(size)
    share = np.exp(logs - logs.max())
    share /= share.sum()
    mean = share @ np.array(means)
    # They err apart, so that their mean errs less than they do.
    joint = float(np.sqrt(np.mean((share @ np.array(errors)) ** 2) / (share @ size)))
    std = joint * (share[1:] / share[1:].sum()) @ np.array(stds)
    return Prediction(
        (center + spread * mean)[:, None], np.asarray(spread * std)[:, None], (metric,)
    )


def _errors_of_vote(vote: Array, z: Array) -> Array:
    """(k,) label less prediction of a vote (k, 1), each by all the others."""
    errors = []
    for place in range(len(z)):
        others = np.arange(len(z)) != place
        w, bias = scaled_vote(vote[others], z[others], np.ones(1))
        errors.append(z[place] - bias - float(vote[place] @ w))
    return np.array(errors)


def _pool(graphs: Sequence[ComputeGraph] | NetworkPool) -> NetworkPool:
    return graphs if isinstance(graphs, NetworkPool) else NetworkPool(graphs)


def _standardised(values: Array, counted: NDArray[np.bool_]) -> Array:
    """(n,) values less their mean, over their standard deviation; 0 where they are all the same."""
    if not counted.any():
        return np.zeros_like(values)
    center, spread = values[counted].mean(), values[counted].std()
    return (values - center) / spread if spread > 1e-9 else np.zeros_like(values)


def _places(choice: str) -> list[int]:
    return [PATH_COLUMNS.index(column) for column in _COLUMNS[choice]]


def _scores(y: Array) -> Array:
    """(n,) normal scores of labels (n, m): of the mean of those of each column."""
    return normal_scores(np.mean([normal_scores(column) for column in y.T], axis=0))


def _labels(name: str, y: Any, n: int) -> Array:
    """(n, m) labels.

    Raises:
        ValueError: They are none.
    """
    labels = np.asarray(y, np.float64)
    labels = labels[:, None] if labels.ndim == 1 else labels
    if labels.ndim != 2 or len(labels) != n or not labels.shape[1]:
        raise ValueError(
            f"labels of {name!r} must have shape ({n},) or ({n}, m) as there are graphs, "
            f"but got {np.shape(y)}."
        )
    if not np.isfinite(labels).all():
        raise ValueError(f"labels of {name!r} must be finite, but one is not.")
    return labels
