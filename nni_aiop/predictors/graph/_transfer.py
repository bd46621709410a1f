"""Predictors of a task of which a few networks are labelled, made from a `GraphPredictor`.

Notation: n labelled graphs, z (n, k) standardised predictions of k members beside (n,) log FLOPs,
w (k + 1,) their weights, y (n,) standardised labels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import nn

from nni_aiop.predictors._base import Prediction
from nni_aiop.predictors.graph._adapters import Member
from nni_aiop.predictors.graph._collation import GraphSet, apply
from nni_aiop.predictors.graph._model import prediction
from nni_aiop.predictors.graph._scores import TaskLabels
from nni_aiop.predictors.graph.few_shot import HEADS, FewShotHead, rescale_last_layer

if TYPE_CHECKING:
    from nni_aiop.graphs import ComputeGraph
    from nni_aiop.predictors.graph._model import GraphModel

__all__ = [
    "FewShotPredictor",
    "TransferredPredictor",
    "ZeroShotPredictor",
    "rescaled_member",
    "zero_shot",
]

Array = NDArray[np.float64]

WEIGHTS = ("equal", "published", "fitted")
_LABELS_OF_A_VOTE = 10
# What the correlation of a vote with a new task is taken for before any label, for as many labels.
_EXPECTED, _LABELS_OF_IT = 0.5, 10
_LEAST_SLOPE = 0.1


class TransferredPredictor(ABC):
    """Predicts one metric of graphs; what `GraphPredictor.transfer` and its siblings return."""

    labels: TaskLabels
    metric: str

    @abstractmethod
    def _standardised(
        self, graphs: Iterable[ComputeGraph] | GraphSet
    ) -> tuple[Array, Array, Array]:
        """(n, 1) means and (n, 1) or (1,) stds of standardised labels, and (n,) FLOPs."""

    def predict(self, graphs: Iterable[ComputeGraph] | GraphSet) -> Prediction:
        """The metric of n graphs, in its own units."""
        z, s, flops = self._standardised(graphs)
        return prediction(z, s, (self.labels,), (self.metric,), flops)


@dataclass(frozen=True)
class Vote:
    """A weighted mean of members' standardised predictions, and of log FLOPs.

    Attributes:
        weights: w (k + 1,), the last that of log FLOPs.
        bias: Added to the weighted mean.
        std: Of the standardised labels about it.
    """

    weights: Array
    bias: float
    std: float

    @classmethod
    def measured(cls, z: Array, y: Array, w: Array, bias: float) -> Vote:
        """One whose std is that of labelled graphs."""
        # Two numbers, mean and standard deviation, were learned from the same labels.
        error = np.square(y - bias - z @ w).sum() / max(1, len(y) - 2)
        return cls(w, bias, float(np.sqrt(error)))

    def __call__(self, z: Array) -> Array:
        """(n,) standardised predictions."""
        return np.asarray(self.bias + z @ self.weights)


@dataclass(frozen=True)
class ZeroShotPredictor(TransferredPredictor):
    """What members, and with fitted weights log FLOPs, vote.

    Attributes:
        members: Adapters, or a backbone.
        vote: Of theirs.
    """

    members: tuple[Member, ...]
    vote: Vote
    labels: TaskLabels
    metric: str
    device: torch.device

    def _standardised(
        self, graphs: Iterable[ComputeGraph] | GraphSet
    ) -> tuple[Array, Array, Array]:
        z, flops = _votes(self.members, graphs, self.device)
        return self.vote(z)[:, None], np.array([self.vote.std]), flops


@dataclass(frozen=True)
class FewShotPredictor(TransferredPredictor):
    """The mean of a regressor on frozen embeddings and of the adapters' vote.

    The regressor errs little where embeddings tell much of the labels, the vote has few numbers to
    learn, and the two err apart: of few labels, their mean is better than either. The vote counts
    as ten labels would, 10 / (n + 10). Standard deviations are added up as if both erred together.

    Attributes:
        predictor: Whose embeddings.
        adapters: Of it, those that embed and vote too.
        head: The fitted regressor.
        vote: Of the adapters, if it agrees with any label.
        share: Of the vote in the mean.
    """

    predictor: GraphModel
    adapters: tuple[str, ...]
    head: FewShotHead
    labels: TaskLabels
    metric: str
    vote: Vote | None = None
    share: float = 0.0

    @classmethod
    def fit(
        cls,
        predictor: GraphModel,
        adapters: tuple[str, ...],
        data: GraphSet,
        y: Array,
        labels: TaskLabels,
        head: str,
        metric: str,
    ) -> FewShotPredictor:
        """One of labelled graphs; the regressor reads the votes too.

        Of its columns, the votes together count as much as all embeddings.
        """
        x, z, _ = _embeddings_and_votes(predictor, adapters, data)
        weights = np.ones(x.shape[1] + z.shape[1])
        weights[x.shape[1] :] = x.shape[1] / max(z.shape[1], 1)
        regressor = HEADS[head]().fit(np.hstack([x, z]), y, weights)
        found = fitted_weights(z, y)
        if found is None:
            return cls(predictor, adapters, regressor, labels, metric)
        vote = Vote.measured(z, y, *found)
        share = _LABELS_OF_A_VOTE / (len(y) + _LABELS_OF_A_VOTE)
        return cls(predictor, adapters, regressor, labels, metric, vote, share)

    def _standardised(
        self, graphs: Iterable[ComputeGraph] | GraphSet
    ) -> tuple[Array, Array, Array]:
        x, z, flops = _embeddings_and_votes(self.predictor, self.adapters, graphs)
        mean, std = self.head.predict(np.hstack([x, z]))
        if self.vote is not None:
            mean = (1 - self.share) * mean + self.share * self.vote(z)
            std = (1 - self.share) * std + self.share * self.vote.std
        return mean[:, None], std[:, None], flops


def _embeddings_and_votes(
    predictor: GraphModel,
    adapters: tuple[str, ...],
    graphs: Iterable[ComputeGraph] | GraphSet,
) -> tuple[Array, Array, Array]:
    """(n, d) embeddings, z (n, k + 1), or (n, 0) without adapters, and (n,) FLOPs."""
    x, z, flops = predictor.embed_and_vote(graphs, adapters)
    return x, _with_cost(z, flops) if adapters else z, flops


def _votes(
    members: Sequence[Member], graphs: Iterable[ComputeGraph] | GraphSet, device: torch.device
) -> tuple[Array, Array]:
    """z (n, k + 1), and (n,) FLOPs."""
    found, flops = apply(
        lambda batch: torch.cat([member(batch) for member in members], dim=1),
        graphs,
        merged=members[0].merged,
        device=device,
    )
    return _with_cost(found, flops), flops


def _with_cost(z: Array, flops: Array) -> Array:
    """z (n, k + 1) of predictions (n, k) and FLOPs, of which a network may have none."""
    return np.column_stack([z, np.log(np.maximum(flops, 1.0))])


def zero_shot(
    members: Sequence[Member],
    data: GraphSet,
    y: Array,
    labels: TaskLabels,
    weights: str,
    metric: str,
    device: torch.device,
) -> ZeroShotPredictor:
    """What members predict together of a task of which y (n,) are standardised labels.

    Raises:
        ValueError: Unknown weights.
    """
    if weights not in WEIGHTS:
        raise ValueError(f"weights must be one of {', '.join(WEIGHTS)}, but got {weights!r}.")
    z, _ = _votes(members, data, device)
    w, bias = np.append(np.full(len(members), 1 / len(members)), 0.0), 0.0
    if weights != "published":
        w, bias = scaled_vote(z, y, w)
    if weights == "fitted":
        w, bias = fitted_weights(z, y) or (w, bias)
    vote = Vote.measured(z, y, w, bias)
    return ZeroShotPredictor(tuple(members), vote, labels, metric, device)


def scaled_vote(z: Array, y: Array, w: Array) -> tuple[Array, float]:
    """Weights and a bias at which a vote has the mean of labels and errs little; its order stays.

    Predictions of another task have the mean and spread of that task. The least squares slope of
    standardised labels on a standardised vote is their correlation; that of a few labels is taken
    with what is expected of it.
    """
    vote = z @ w
    if np.ptp(vote) == 0 or np.ptp(y) == 0:
        return w, float(y.mean() - vote.mean())
    n, found = len(y), float(np.corrcoef(vote, y)[0, 1])
    r = (n * found + _LABELS_OF_IT * _EXPECTED) / (n + _LABELS_OF_IT)
    w = w * (max(r, _LEAST_SLOPE) * y.std() / vote.std())
    return w, float(y.mean() - z.mean(0) @ w)


def fitted_weights(z: Array, y: Array) -> tuple[Array, float] | None:
    """w (k + 1,) of at least 0, and a bias: each vote as far as it ranks these labels well.

    With r_j the Spearman correlation of vote j with the labels, it gets, standardised, the weight
    max(0, r_j)^2; their sum is scaled to the least squares for labels that it ranks so well. None
    where no vote agrees with the labels.
    """
    center, spread = z.mean(0), z.std(0)
    trust = np.array([max(_agreement(column, y), 0.0) ** 2 for column in z.T])
    if not trust.any():
        return None
    w = trust / np.where(spread > 0, spread, np.inf)
    vote = (z - center) @ w
    w *= max(_agreement(vote, y), 0.0) * y.std() / vote.std()
    return w, float(y.mean() - center @ w)


def _agreement(a: Array, b: Array) -> float:
    """Spearman's correlation; 0 with a constant."""
    return 0.0 if np.ptp(a) == 0 or np.ptp(b) == 0 else float(spearmanr(a, b).statistic)


def rescaled_member(
    member: Member, data: GraphSet, y: Array, penalty: float, device: torch.device
) -> Member:
    """A member whose last layer's weights AdaProxy rescaled to labels; all else is as it was."""
    result = member.copy()
    body = cast("nn.Sequential", result.module.head.body)
    last = cast("nn.Linear", body[-1])
    body[-1] = nn.Identity()
    inputs, _ = apply(
        lambda batch: result.module(batch, *result.context),
        data,
        merged=member.merged,
        device=device,
    )
    body[-1] = last
    # The mean of several outputs is one output with the mean of their weights.
    weights = last.weight.detach().mean(0).cpu().double().numpy()
    bias = float(last.bias.detach().mean())
    found = rescale_last_layer(inputs, weights, bias, y, penalty)
    with torch.no_grad():
        last.weight.copy_(torch.from_numpy(found).expand_as(last.weight))
    return result
