"""GraphPredictor: a pretrained backbone, adapters for tasks, and transfer to other ones.

Notation: n graphs, m metrics of the backbone, k members (adapters, or the backbone's own head)
that predict together. Members return standardised labels (Eq. 4, after Eq. 5 with `by_flops`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, DTypeLike, NDArray
from scipy.stats import norm
from sklearn.exceptions import NotFittedError
from torch import Tensor, nn
from typing_extensions import Self

from nni_aiop.errors import FileFormatError
from nni_aiop.predictors._base import Prediction
from nni_aiop.predictors.graph._adapters import Backbone, KAdapter, Member
from nni_aiop.predictors.graph._collation import GraphBatch, GraphSet, apply
from nni_aiop.predictors.graph._domain import Domain
from nni_aiop.predictors.graph._encoders import ENCODERS, Encoder
from nni_aiop.predictors.graph._files import read_file, write_file
from nni_aiop.predictors.graph._scores import TaskLabels
from nni_aiop.predictors.graph._training import Recipe, train
from nni_aiop.predictors.graph._transfer import (
    FewShotPredictor,
    TransferredPredictor,
    prediction,
    rescaled_member,
    zero_shot,
)
from nni_aiop.predictors.graph.few_shot import HEADS, GPHead

if TYPE_CHECKING:
    from nni_aiop.graphs import ComputeGraph

__all__ = [
    "RECIPES",
    "Adapter",
    "GraphPredictor",
    "digest_of",
    "load_graph_predictor",
    "part_of",
]

Array = NDArray[np.float64]
Places = NDArray[np.int64]
_Module = TypeVar("_Module", bound=nn.Module)

RECIPES = {
    "default": Recipe(),
    "published": Recipe(
        epochs=40,
        learning_rate=1e-4,
        batch_size=32,
        loss="mse",
        schedule="constant",
        weight_decay=0.0,
    ),
}
"""How each encoder is trained unless the constructor says otherwise."""

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
_LEVEL = 0.8  # of the intervals that `calibrate` makes true
_APART = 1.5  # 97 % of timm's networks of families that were held out keep within it
_KIND = "nni-aiop graph predictor"
_ADAPTER_KIND = "nni-aiop adapter"
_DOMAIN, _HEAD = "domain.", "beside."


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


class GraphPredictor:
    """Predicts metrics of networks from their compute graphs (AIO-P, Mills et al. 2023).

    `fit` pretrains the backbone; `adapt` adds one K-Adapter for a task, any number of times, each
    apart; `transfer`, `fine_tune`, `rescale` and `few_shot` carry what they learned to another task
    of which only a few networks are labelled.

    Where a method takes graphs, it takes a `GraphSet` too: graphs collated once.

    Args:
        encoder: A key of `ENCODERS`; "published" is the paper's, with its way of training.
        by_flops: Whether labels are divided by the networks' size first (Eq. 5).
        normal_scores: Whether standardised labels are then turned into normal scores
            (`NormalScores`), against their long tails; not with the published encoder by default.
        loss: "mse", "rank" or "both"; this and the next three as `RECIPES` says by default.
        epochs: Passes over the graphs, of `fit` and of `adapt`.
        learning_rate: The highest of Adam.
        batch_size: Graphs in a step.
        encoder_options: Further arguments of the encoder, such as `hidden`.
        seed: Of initial weights, of the order of graphs, and of which ones validate.
        device: Where it trains and predicts; the CPU by default.

    Attributes:
        metrics_: Names of what the backbone predicts.
        labels_: Of each metric, how its labels become targets.
        std_: (m,) root mean square errors of the targets of graphs kept for validation.
        losses_: Mean training loss of each epoch of the last `fit` or `adapt`.
        adapters_: The adapter of each task.
        n_rows_: Number of graphs with a label.
        domain_: Where those graphs lie.
    """

    metrics_: tuple[str, ...]
    labels_: tuple[TaskLabels, ...]
    std_: Array
    losses_: list[float]
    adapters_: dict[str, Adapter]
    n_rows_: int
    domain_: Domain

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

    def _recipe(self, epochs: int | None = None) -> Recipe:
        given: dict[str, Any] = {
            "loss": self.loss,
            "epochs": epochs or self.epochs,
            "learning_rate": self.learning_rate,
            "batch_size": self.batch_size,
        }
        changes = {name: value for name, value in given.items() if value is not None}
        return replace(RECIPES[self.encoder], **changes)

    def _new_backbone(self, outputs: int) -> Backbone:
        kind = ENCODERS[self.encoder]
        return self._made(lambda: Backbone(kind(**self.encoder_options), outputs))

    def _made(self, make: Callable[[], _Module]) -> _Module:
        """A new module on the device; its weights follow from the seed alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return make().to(self.device)

    # --- learning -------------------------------------------------------------------------------

    def fit(
        self,
        graphs: Sequence[ComputeGraph] | GraphSet,
        y: Mapping[str, ArrayLike] | ArrayLike,
        *,
        validation: float = 0.1,
        checkpoint: str | os.PathLike[str] | None = None,
        progress: bool = False,
    ) -> Self:
        """This predictor with a pretrained backbone and no adapters.

        Args:
            graphs: n networks.
            y: (n,) measured values of each metric, in any units, or of one metric ("metric"); NaN
                where not known.
            validation: This fraction of the graphs is not trained on: its errors tell the standard
                deviation of predictions. Without any, which is too optimistic, training errors do.
            checkpoint: File written after every epoch, from which a stopped fit goes on.
            progress: Whether to show a bar.

        Raises:
            ValueError: No metric, lengths that differ, an infinity, fewer than 2 labels of a
                metric, or a fraction outside [0, 1).
            FileFormatError: The checkpoint is damaged or of another training.
        """
        columns = dict(y) if isinstance(y, Mapping) else {"metric": y}
        data, y_known = _labelled(graphs, columns)
        labels = tuple(self._task_labels(column, data.flops) for column in y_known.T)
        targets = np.stack(
            [
                task.transform(column, data.flops)
                for task, column in zip(labels, y_known.T, strict=True)
            ],
            axis=1,
        )
        module = self._new_backbone(len(columns))
        self.losses_, _, judged = self._train(
            module, data, targets, validation, (), "", None, checkpoint, progress
        )
        found, _ = self._apply_to(module.encoder, module, data.take(judged))
        std = _size(found - targets[judged])
        self.metrics_, self.labels_, self.std_ = tuple(columns), labels, std
        self.n_rows_, self.domain_, self._backbone = len(data), Domain.fit(data.u), module
        self.adapters_ = {}
        return self

    def adapt(
        self,
        task: str,
        graphs: Sequence[ComputeGraph] | GraphSet,
        y: ArrayLike,
        *,
        epochs: int | None = None,
        validation: float = 0.1,
        head: bool = False,
        checkpoint: str | os.PathLike[str] | None = None,
        progress: bool = False,
    ) -> Self:
        """This predictor with an adapter for a task, in place of one of that name.

        Args:
            task: A name.
            graphs: n networks, of any space.
            y: (n,) measured values, in any units; NaN where not known.
            epochs: Passes over the graphs; as the constructor says by default.
            validation: As in `fit`.
            head: Whether the mean is told of the adapter and of a Gaussian process on the global
                features (at most some thousand graphs): the two err on different networks.
            checkpoint: As in `fit`.
            progress: As in `fit`.

        Raises:
            NotFittedError: `fit` was not called.
            ValueError: As `fit`.
            FileFormatError: As `fit`.
        """
        self._require_fit()
        encoder = self._backbone.encoder
        data, known = _labelled(graphs, {task: y})
        labels = self._task_labels(known[:, 0], data.flops)
        targets = labels.transform(known[:, 0], data.flops)[:, None]
        module = self._made(lambda: KAdapter(encoder))
        self.losses_, learned, judged = self._train(
            module,
            data,
            targets,
            validation,
            (encoder,),
            digest_of(encoder),
            epochs,
            checkpoint,
            progress,
        )
        beside = GPHead().fit(data.u[learned], targets[learned, 0]) if head else None
        adapter = Adapter(module, labels, 0.0, len(data), Domain.fit(data.u), beside)
        found, _ = self._standardised(adapter, data.take(judged))
        std = float(_size(found - targets[judged])[0])
        self.adapters_[task] = replace(adapter, std=std)
        return self

    def calibrate(
        self,
        task: str,
        graphs: Sequence[ComputeGraph] | GraphSet,
        y: ArrayLike,
        predicted: ArrayLike,
        groups: ArrayLike,
    ) -> Self:
        """This predictor with an adapter whose std and domain hold for unknown groups of networks.

        Groups are families of networks, say. The std is such that the central 80 % intervals about
        these predictions hold 80 % of the labels; the domain is that of `Domain.fit` with groups.

        Args:
            task: Of the adapter.
            graphs: n networks.
            y: (n,) measured values.
            predicted: (n,) what was predicted of each by adapters that saw none of its group.
            groups: (n,) names.

        Raises:
            NotFittedError: `fit` was not called.
            KeyError: There is no such adapter.
            ValueError: Numbers that are not finite, lengths that differ, or fewer than 2 groups.
        """
        self._require_fit()
        adapter = self._adapter(task)
        data = graphs if isinstance(graphs, GraphSet) else GraphSet(graphs)
        columns = [np.asarray(column, np.float64) for column in (y, predicted)]
        for column in columns:
            if column.shape != (len(data),) or not np.isfinite(column).all():
                raise ValueError(
                    f"labels and predictions must be finite, of shape ({len(data)},), but one "
                    f"is not, of shape {column.shape}."
                )
        measured, held_out = (adapter.labels.transform(part, data.flops) for part in columns)
        half = np.quantile(np.abs(held_out - measured), _LEVEL, method="higher")
        self.adapters_[task] = replace(
            adapter,
            std=float(half / norm.ppf((1 + _LEVEL) / 2)),
            domain=Domain.fit(data.u, groups),
        )
        return self

    def _task_labels(self, y: Array, flops: Array) -> TaskLabels:
        return TaskLabels.fit(y, flops, by_flops=self.by_flops, normal_scores=self.normal_scores)

    def _train(
        self,
        module: Backbone | KAdapter,
        data: GraphSet,
        targets: Array,
        validation: float,
        context: Sequence[Encoder],
        identity: str,
        epochs: int | None,
        checkpoint: str | os.PathLike[str] | None,
        progress: bool,
    ) -> tuple[list[float], Places, Places]:
        """Losses of epochs, which graphs were learned from, and which tell errors."""
        if not 0 <= validation < 1:
            raise ValueError(f"validation must lie in [0, 1), but got {validation}.")
        order = np.random.default_rng(self.seed).permutation(len(data))
        kept, learned = np.split(order, [int(validation * len(data))])
        chosen, merged = data.take(learned), Member(module, tuple(context)).merged
        module.head.set_globals(torch.from_numpy(chosen.u).to(self.device))
        losses = train(
            module,
            chosen,
            targets[learned],
            self._recipe(epochs),
            seed=self.seed,
            merged=merged,
            context=context,
            identity=identity,
            checkpoint=None if checkpoint is None else Path(checkpoint),
            progress=progress,
        )
        return losses, learned, kept if len(kept) else learned

    # --- predicting -----------------------------------------------------------------------------

    def predict(
        self,
        graphs: Sequence[ComputeGraph] | GraphSet,
        *,
        adapters: Sequence[str] | None = None,
    ) -> Prediction:
        """Metrics of networks: those of the backbone, or the task of one adapter.

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
        self, graphs: Sequence[ComputeGraph] | GraphSet, *, adapter: str | None = None
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
        graphs: Sequence[ComputeGraph] | GraphSet,
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
        self, graphs: Sequence[ComputeGraph] | GraphSet, adapters: Sequence[str]
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
        self, call: Callable[[GraphBatch], Tensor], graphs: Sequence[ComputeGraph] | GraphSet
    ) -> tuple[Array, Array]:
        return self._apply_to(self._backbone.encoder, call, graphs)

    def _apply_to(
        self,
        encoder: Encoder,
        call: Callable[[GraphBatch], Tensor],
        graphs: Sequence[ComputeGraph] | GraphSet,
    ) -> tuple[Array, Array]:
        return apply(call, graphs, merged=encoder.merged, device=self.device)

    def _opinions(
        self, adapter: Adapter, graphs: Sequence[ComputeGraph] | GraphSet
    ) -> tuple[Array, Array, Array]:
        """(n, 1) or, of the adapter and its head, (n, 2) standardised predictions, u and FLOPs."""
        member = Member(adapter.module, (self._backbone.encoder,))
        found, flops = self._apply(lambda x: torch.cat([member(x), x.u], dim=1), graphs)
        z, u = found[:, :1], found[:, 1:]
        if adapter.head is not None:
            z = np.stack([z[:, 0], adapter.head.predict(u)[0]], axis=1)
        return z, u, flops

    def _standardised(
        self, adapter: Adapter, graphs: Sequence[ComputeGraph] | GraphSet
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

    # --- transfer -------------------------------------------------------------------------------

    def transfer(
        self,
        graphs: Sequence[ComputeGraph] | GraphSet,
        y: ArrayLike,
        *,
        adapters: Sequence[str] = (),
        weights: str = "equal",
        by_flops: bool | None = None,
        metric: str = "metric",
    ) -> TransferredPredictor:
        """Zero-shot: standardised predictions of adapters, turned back by a few labels.

        The labels of these graphs (20 in the paper) tell the mean and standard deviation of the
        new task; and with fitted weights, how far to trust each adapter.

        Args:
            graphs: n networks of the new task.
            y: (n,) their labels; NaN where not known.
            adapters: Which predict together; none for the backbone's own head.
            weights: "equal"; or "fitted": the squares of rank correlations with these labels, where
                log FLOPs vote too.
            by_flops: Whether Eq. 5 applies; as with this predictor's own labels by default.
            metric: Name of what is predicted.

        Raises:
            NotFittedError: `fit` was not called.
            KeyError: There is no such adapter.
            ValueError: Fewer than 2 labels, lengths that differ, an infinity, or unknown weights.
        """
        members = self._members(adapters)
        data, targets, labels = self._target(graphs, y, by_flops, metric)
        return zero_shot(members, data, targets, labels, weights, metric, self.device)

    def fine_tune(
        self,
        graphs: Sequence[ComputeGraph] | GraphSet,
        y: ArrayLike,
        *,
        adapters: Sequence[str] = (),
        epochs: int = 100,
        learning_rate: float | None = None,
        by_flops: bool | None = None,
        metric: str = "metric",
        progress: bool = False,
    ) -> TransferredPredictor:
        """As `transfer`, where each member learns from these labels first.

        Adapters and their heads learn while the backbone stays frozen; without adapters, the
        backbone and its head do. The standard deviation is that of `transfer`, since errors on
        the few labels that were learned say nothing of other networks.
        """
        members = self._members(adapters)
        data, targets, labels = self._target(graphs, y, by_flops, metric)
        before = zero_shot(members, data, targets, labels, "equal", metric, self.device)
        recipe = replace(self._recipe(epochs), batch_size=len(data))
        if learning_rate is not None:
            recipe = replace(recipe, learning_rate=learning_rate)
        tuned = [member.copy() for member in members]
        for member in tuned:
            width = 1 if member.context else len(self.metrics_)
            train(
                member.module,
                data,
                np.repeat(targets[:, None], width, axis=1),
                recipe,
                seed=self.seed,
                merged=member.merged,
                context=member.context,
                progress=progress,
            )
        return replace(before, members=tuple(tuned))

    def rescale(
        self,
        graphs: Sequence[ComputeGraph] | GraphSet,
        y: ArrayLike,
        *,
        adapters: Sequence[str] = (),
        penalty: float = 1.0,
        by_flops: bool | None = None,
        metric: str = "metric",
    ) -> TransferredPredictor:
        """As `transfer`, the weights of each member's last layer rescaled first (AdaProxy).

        See `rescale_last_layer`; `penalty` is its lambda, for standardised labels.
        """
        members = self._members(adapters)
        data, targets, labels = self._target(graphs, y, by_flops, metric)
        rescaled = [
            rescaled_member(member, data, targets, penalty, self.device) for member in members
        ]
        return zero_shot(rescaled, data, targets, labels, "equal", metric, self.device)

    def few_shot(
        self,
        graphs: Sequence[ComputeGraph] | GraphSet,
        y: ArrayLike,
        *,
        adapters: Sequence[str] | None = None,
        head: str = "ridge",
        by_flops: bool = False,
        metric: str = "metric",
    ) -> TransferredPredictor:
        """A regressor from frozen embeddings (`embed`) to a few labels, and the adapters' vote.

        The regressor reads what adapters predict, and log FLOPs, too; its mean is taken with that
        of `transfer` with fitted weights, which counts as ten labels do.

        Args:
            graphs: n networks of the new task.
            y: (n,) their labels; NaN where not known.
            adapters: Which embed and vote beside the backbone's embedding; all by default.
            head: "ridge" or "gp".
            by_flops: Whether Eq. 5 applies.
            metric: Name of what is predicted.

        Raises:
            NotFittedError: `fit` was not called.
            KeyError: There is no such adapter.
            ValueError: As `transfer`, or an unknown head.
        """
        if head not in HEADS:
            raise ValueError(f"head must be one of {', '.join(HEADS)}, but got {head!r}.")
        self._require_fit()
        names = tuple(self.adapters_ if adapters is None else adapters)
        data, targets, labels = self._target(graphs, y, by_flops, metric)
        return FewShotPredictor.fit(self, names, data, targets, labels, head, metric)

    def _members(self, adapters: Sequence[str]) -> list[Member]:
        self._require_fit()
        if not adapters:
            return [Member(self._backbone)]
        encoder = self._backbone.encoder
        return [Member(self._adapter(name).module, (encoder,)) for name in adapters]

    def _target(
        self,
        graphs: Sequence[ComputeGraph] | GraphSet,
        y: ArrayLike,
        by_flops: bool | None,
        metric: str,
    ) -> tuple[GraphSet, Array, TaskLabels]:
        """The labelled graphs, their (n,) standardised labels, and how they came to be."""
        self._require_fit()
        data, known = _labelled(graphs, {metric: y})
        flops = self.by_flops if by_flops is None else by_flops
        labels = TaskLabels.fit(known[:, 0], data.flops, by_flops=flops)
        return data, labels.transform(known[:, 0], data.flops), labels

    # --- files ----------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str], *, half: bool = False) -> None:
        """Writes the backbone, without adapters, to a file that `load_graph_predictor` reads.

        Args:
            path: The file.
            half: Whether weights are rounded to 16 bits, and all else to 32; adapters are then to
                be trained beside what is read from the file, not beside this.

        Raises:
            NotFittedError: `fit` was not called.
        """
        self._require_fit()
        content = {
            "options": self._options(),
            "metrics": list(self.metrics_),
            "labels": [labels.to_json() for labels in self.labels_],
            "std": self.std_.tolist(),
            "n_rows": self.n_rows_,
        }
        write_file(path, _KIND, content, _tensors(self._backbone, self.domain_, None, half))

    def save_adapter(self, task: str, path: str | os.PathLike[str], *, half: bool = False) -> None:
        """Writes one adapter to a file that `load_adapter` reads beside the same backbone.

        Args:
            task: Its name.
            path: The file.
            half: Whether weights are rounded to 16 bits, and all else to 32.

        Raises:
            NotFittedError: `fit` was not called.
            KeyError: There is no such adapter.
        """
        self._require_fit()
        adapter = self._adapter(task)
        content = {
            "task": task,
            "backbone": digest_of(self._backbone.encoder),
            "labels": adapter.labels.to_json(),
            "std": adapter.std,
            "n_rows": adapter.n_rows,
        }
        tensors = _tensors(adapter.module, adapter.domain, adapter.head, half)
        write_file(path, _ADAPTER_KIND, content, tensors)

    def load_adapter(self, path: str | os.PathLike[str]) -> str:
        """The task of the adapter in a file, which this predictor has from now on.

        Raises:
            NotFittedError: `fit` was not called.
            FileFormatError: The file is truncated, changed, of another version or backbone.
            OSError: There is no such file.
        """
        self._require_fit()
        content, tensors = read_file(path, _ADAPTER_KIND)
        if content.get("backbone") != digest_of(self._backbone.encoder):
            raise FileFormatError(
                f"{path} must hold an adapter of this backbone, but it was trained on another one."
            )
        module = self._made(lambda: KAdapter(self._backbone.encoder))
        with _whole(path, "adapter"):
            domain = _restore(module, tensors)
            task = str(content["task"])
            labels = TaskLabels.from_json(content["labels"])
            std, n_rows = float(content["std"]), int(content["n_rows"])
            beside = part_of(tensors, _HEAD)
            head = GPHead.from_arrays(beside) if beside else None
            self.adapters_[task] = Adapter(module, labels, std, n_rows, domain, head)
        return task


def load_graph_predictor(
    path: str | os.PathLike[str], *, device: str | torch.device | None = None
) -> GraphPredictor:
    """The predictor of a file that `GraphPredictor.save` wrote; it predicts the same to the bit.

    Raises:
        FileFormatError: The file is truncated, changed, of another version or other features.
        OSError: There is no such file.
    """
    content, tensors = read_file(path, _KIND)
    with _whole(path, "graph predictor"):
        predictor = GraphPredictor(**content["options"], device=device)
        predictor.metrics_ = tuple(content["metrics"])
        predictor.labels_ = tuple(map(TaskLabels.from_json, content["labels"]))
        predictor.std_ = np.array(content["std"], np.float64)
        predictor.n_rows_ = int(content["n_rows"])
        predictor._backbone = predictor._new_backbone(len(predictor.metrics_))
        predictor.domain_ = _restore(predictor._backbone, tensors)
    predictor.adapters_ = {}
    predictor.losses_ = []
    return predictor


@contextmanager
def _whole(path: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Turns what a wrong description raises into one sentence."""
    try:
        yield
    except (KeyError, TypeError, ValueError, RuntimeError) as err:
        raise FileFormatError(f"{path} must hold a whole {what}, but does not: {err}.") from err


def _tensors(
    module: nn.Module, domain: Domain, head: GPHead | None, half: bool
) -> dict[str, NDArray[Any]]:
    """What files hold: weights of a module, the domain of its training graphs, a head."""
    rest = {f"{_DOMAIN}{name}": array for name, array in domain.to_arrays().items()}
    if head is not None:
        rest |= {f"{_HEAD}{name}": array for name, array in head.to_arrays().items()}
    weights = {name: tensor.cpu().numpy() for name, tensor in module.state_dict().items()}
    if not half:
        return weights | rest
    return _rounded(weights, np.float16) | _rounded(rest, np.float32)


def _rounded(arrays: Mapping[str, NDArray[Any]], kind: DTypeLike) -> dict[str, NDArray[Any]]:
    return {name: array.astype(kind) for name, array in arrays.items()}


def _restore(module: nn.Module, tensors: Mapping[str, NDArray[Any]]) -> Domain:
    """The domain of a file; the module gets its weights."""
    weights = {n: array for n, array in tensors.items() if not n.startswith((_DOMAIN, _HEAD))}
    module.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    module.eval()
    return Domain.from_arrays(part_of(tensors, _DOMAIN))


def part_of(tensors: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, Array]:
    """Arrays whose names begin so, without that beginning, in full precision."""
    return {
        name.removeprefix(prefix): array.astype(np.float64)
        for name, array in tensors.items()
        if name.startswith(prefix)
    }


def _size(errors: Array) -> Array:
    """(m,) root mean squares of the columns (n, m), NaN left out."""
    known = ~np.isnan(errors)
    squares = np.where(known, errors, 0.0) ** 2
    return np.asarray(np.sqrt(squares.sum(0) / np.maximum(known.sum(0), 1)))


def digest_of(module: nn.Module) -> str:
    """SHA-256 of a module's tensors."""
    result = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        result.update(name.encode() + tensor.cpu().numpy().tobytes())
    return result.hexdigest()


# --- labels --------------------------------------------------------------------------------------


def _labelled(
    graphs: Sequence[ComputeGraph] | GraphSet, columns: Mapping[str, ArrayLike]
) -> tuple[GraphSet, Array]:
    """The graphs that have a label, and their labels (n, m), NaN where one is not known."""
    if not columns:
        raise ValueError("there must be at least one metric to learn, but got none.")
    labels = []
    for name, column in columns.items():
        values = np.asarray(column, dtype=np.float64)
        if values.shape != (len(graphs),):
            raise ValueError(
                f"labels of {name!r} must have shape ({len(graphs)},) as there are graphs, "
                f"but got {values.shape}."
            )
        if np.isinf(values).any():
            raise ValueError(f"labels of {name!r} must be finite (or NaN, left out), but got inf.")
        known = int((~np.isnan(values)).sum())
        if known < 2:
            raise ValueError(
                f"at least 2 graphs must have a label of {name!r}, but {known} of "
                f"{len(values)} have."
            )
        labels.append(values)
    y = np.stack(labels, axis=1)
    rows = np.flatnonzero(~np.isnan(y).all(axis=1))
    if isinstance(graphs, GraphSet):
        return graphs.take(rows), y[rows]
    return GraphSet([graphs[row] for row in rows.tolist()]), y[rows]
