"""A graph predictor as a value, and what it predicts.

Notation: n graphs, m metrics of the backbone, k members (adapters, or the backbone's own head)
that predict together. Members return standardised labels (Eq. 4, after Eq. 5 with `by_flops`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import NotFittedError
from torch import Tensor, nn

from nni_aiop.predictors._base import Prediction
from nni_aiop.predictors.graph._adapters import Backbone, KAdapter, Member
from nni_aiop.predictors.graph._collation import GraphBatch, GraphSet, apply
from nni_aiop.predictors.graph._domain import Domain
from nni_aiop.predictors.graph._encoders import ENCODERS, Encoder
from nni_aiop.predictors.graph._scores import TaskLabels
from nni_aiop.predictors.graph.few_shot import GPHead

if TYPE_CHECKING:
    from nni_aiop.graphs import ComputeGraph

Array = NDArray[np.float64]


_Module = TypeVar("_Module", bound=nn.Module)


_OPTIONS = (
    "encoder",
    "by_flops",
    "normal_scores",
    "loss",
    "epochs",
    "learning_rate",
    "batch_size",
    "encoder_options",
    "seed",
)


_APART = 1.5  # 97 % of timm's networks of families that were held out keep within it


@dataclass(frozen=True)
class Adapter:
    """One task beside the backbone.

    Attributes:
        module: Its layers and its head.
        labels: What it learned of its labels' spread.
        std: Root mean square error of the targets that it did not learn from.
        n_rows: How many graphs it was given.
        domain: Where those graphs lie.
        head: Of the global features, where it predicts too: the mean of both counts.
    """

    module: KAdapter
    labels: TaskLabels
    std: float
    n_rows: int
    domain: Domain
    head: GPHead | None = None


def prediction(
    z: Array, s: Array, labels: Sequence[TaskLabels], metrics: tuple[str, ...], flops: Array
) -> Prediction:
    """The prediction, in the metrics' units, of standardised means (n, m) and stds ((n,) m)."""
    stds = np.broadcast_to(s, z.shape)
    columns = [
        task.inverse(mean, std, flops) for task, mean, std in zip(labels, z.T, stds.T, strict=True)
    ]
    means, errors = (np.stack(part, axis=1) for part in zip(*columns, strict=True))
    return Prediction(means, errors, metrics)


class GraphModel:
    """What every part of `GraphPredictor` reads; see there."""

    metrics_: tuple[str, ...]
    labels_: tuple[TaskLabels, ...]
    std_: Array
    losses_: list[float]
    adapters_: dict[str, Adapter]
    n_rows_: int
    domain_: Domain
    _backbone: Backbone

    def __init__(
        self,
        encoder: str = "default",
        *,
        by_flops: bool = False,
        normal_scores: bool | None = None,
        loss: str | None = None,
        epochs: int | None = None,
        learning_rate: float | None = None,
        batch_size: int | None = None,
        encoder_options: Mapping[str, Any] | None = None,
        seed: int = 0,
        device: str | torch.device | None = None,
    ) -> None:
        if encoder not in ENCODERS:
            raise ValueError(f"encoder must be one of {', '.join(ENCODERS)}, but got {encoder!r}.")
        self.encoder = encoder
        self.by_flops = by_flops
        self.normal_scores = encoder == "default" if normal_scores is None else normal_scores
        self.loss = loss
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.encoder_options = dict(encoder_options or {})
        self.seed = seed
        self.device = torch.device(device or "cpu")

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self._options().items())
        return f"GraphPredictor({options})"

    def _options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _OPTIONS}

    def _bare_backbone(self, outputs: int) -> Backbone:
        return Backbone(ENCODERS[self.encoder](**self.encoder_options), outputs)

    def _new_backbone(self, outputs: int) -> Backbone:
        return self._made(lambda: self._bare_backbone(outputs))

    def _made(self, make: Callable[[], _Module]) -> _Module:
        """A new module on the device; its weights follow from the seed alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return make().to(self.device)

    def predict(
        self,
        graphs: Iterable[ComputeGraph] | GraphSet,
        *,
        adapters: Sequence[str] | None = None,
    ) -> Prediction:
        """Metrics of networks: those of the backbone, or the task of one adapter.

        Args:
            graphs: n networks; of an iterator that makes them one after the other, some thousand
                are in memory at once.
            adapters: The one adapter; none for the backbone.

        Raises:
            NotFittedError: `fit` was not called.
            ValueError: More than one adapter: their tasks have different units (see `transfer`).
            KeyError: There is no such adapter.
        """
        self._require_fit()
        if adapters is None:
            found, flops = self._apply(self._backbone, graphs)
            return prediction(found, self.std_, self.labels_, self.metrics_, flops)
        if len(adapters) != 1:
            raise ValueError(
                f"predict must get one adapter, but got {len(adapters)}: predictions of several "
                "have a unit only after `transfer`."
            )
        adapter = self._adapter(adapters[0])
        found, flops = self._standardised(adapter, graphs)
        std = np.array([adapter.std])
        return prediction(found, std, (adapter.labels,), tuple(adapters), flops)

    def distance(
        self, graphs: Iterable[ComputeGraph] | GraphSet, *, adapter: str | None = None
    ) -> Array:
        """(n,) how far networks are from known ones; beyond 1 no prediction is to be trusted.

        By the domain of the backbone or of an adapter; where a head predicts beside the adapter,
        also by how far the two are apart, 1.5 standard deviations of the labels being too far.

        Raises:
            NotFittedError: `fit` was not called.
            KeyError: There is no such adapter.
        """
        self._require_fit()
        if adapter is None:
            return self.domain_.distance(self._apply(lambda batch: batch.u, graphs)[0])
        known = self._adapter(adapter)
        z, u, _ = self._opinions(known, graphs)
        return np.asarray(np.maximum(known.domain.distance(u), np.ptp(z, axis=1) / _APART))

    def embed(
        self,
        graphs: Iterable[ComputeGraph] | GraphSet,
        *,
        adapters: Sequence[str] | None = None,
    ) -> Array:
        """(n, d) frozen embeddings: the backbone's, those of adapters (all by default), globals.

        Raises:
            NotFittedError: `fit` was not called.
            KeyError: There is no such adapter.
        """
        self._require_fit()
        names = self.adapters_ if adapters is None else adapters
        return self.embed_and_vote(graphs, tuple(names))[0]

    def embed_and_vote(
        self, graphs: Iterable[ComputeGraph] | GraphSet, adapters: Sequence[str]
    ) -> tuple[Array, Array, Array]:
        """(n, d) what `embed` returns, (n, k) what each adapter predicts, and (n,) FLOPs."""
        encoder = self._backbone.encoder
        modules = [self._adapter(name).module for name in adapters]

        def call(batch: GraphBatch) -> Tensor:
            layers = encoder(batch)
            parts, votes = [encoder.read_out(batch, layers[-1])], []
            for module in modules:
                parts.append(encoder.read_out(batch, module.top(batch, layers)))
                votes.append(module.head(batch, torch.cat([parts[0], parts[-1]], dim=1)))
            return torch.cat([*parts, batch.u, *votes], dim=1)

        found, flops = self._apply(call, graphs)
        x, votes = np.split(found, [found.shape[1] - len(modules)], axis=1)
        return x, votes, flops

    def _apply(
        self, call: Callable[[GraphBatch], Tensor], graphs: Iterable[ComputeGraph] | GraphSet
    ) -> tuple[Array, Array]:
        return self._apply_to(self._backbone.encoder, call, graphs)

    def _apply_to(
        self,
        encoder: Encoder,
        call: Callable[[GraphBatch], Tensor],
        graphs: Iterable[ComputeGraph] | GraphSet,
    ) -> tuple[Array, Array]:
        return apply(call, graphs, merged=encoder.merged, device=self.device)

    def _opinions(
        self, adapter: Adapter, graphs: Iterable[ComputeGraph] | GraphSet
    ) -> tuple[Array, Array, Array]:
        """(n, 1) or, of the adapter and its head, (n, 2) standardised predictions, u and FLOPs."""
        member = Member(adapter.module, (self._backbone.encoder,))
        found, flops = self._apply(lambda x: torch.cat([member(x), x.u], dim=1), graphs)
        z, u = found[:, :1], found[:, 1:]
        if adapter.head is not None:
            z = np.stack([z[:, 0], adapter.head.predict(u)[0]], axis=1)
        return z, u, flops

    def _standardised(
        self, adapter: Adapter, graphs: Iterable[ComputeGraph] | GraphSet
    ) -> tuple[Array, Array]:
        """(n, 1) standardised predictions of an adapter, and the graphs' (n,) FLOPs."""
        z, _, flops = self._opinions(adapter, graphs)
        return z.mean(axis=1, keepdims=True), flops

    def _adapter(self, name: str) -> Adapter:
        if name not in self.adapters_:
            known = ", ".join(self.adapters_) or "none yet"
            raise KeyError(f"an adapter must be one of {known}, but got {name!r}.")
        return self.adapters_[name]

    def _require_fit(self) -> None:
        if not hasattr(self, "metrics_"):
            raise NotFittedError(
                "GraphPredictor must be fitted before it predicts: call fit first."
            )

    def _members(self, adapters: Sequence[str]) -> list[Member]:
        self._require_fit()
        if not adapters:
            return [Member(self._backbone)]
        encoder = self._backbone.encoder
        return [Member(self._adapter(name).module, (encoder,)) for name in adapters]
