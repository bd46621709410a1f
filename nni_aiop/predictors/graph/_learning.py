"""How a graph predictor learns: its backbone, and adapters beside it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm
from typing_extensions import Self

from nni_aiop.predictors.graph._adapters import Backbone, KAdapter, Member
from nni_aiop.predictors.graph._collation import GraphSet
from nni_aiop.predictors.graph._domain import Domain
from nni_aiop.predictors.graph._encoders import Encoder
from nni_aiop.predictors.graph._model import Adapter, Array
from nni_aiop.predictors.graph._scores import TaskLabels
from nni_aiop.predictors.graph._stored import StoredModel, digest_of
from nni_aiop.predictors.graph._training import Recipe, train
from nni_aiop.predictors.graph.few_shot import GPHead

if TYPE_CHECKING:
    from nni_aiop.graphs import ComputeGraph

Places = NDArray[np.int64]


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


_LEVEL = 0.8  # of the intervals that `calibrate` makes true


def _size(errors: Array) -> Array:
    """(m,) root mean squares of the columns (n, m), NaN left out."""
    known = ~np.isnan(errors)
    squares = np.where(known, errors, 0.0) ** 2
    return np.asarray(np.sqrt(squares.sum(0) / np.maximum(known.sum(0), 1)))


def labelled(
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


class LearningModel(StoredModel):
    """A graph predictor that learns; see `GraphPredictor`."""

    def _recipe(self, epochs: int | None = None) -> Recipe:
        given: dict[str, Any] = {
            "loss": self.loss,
            "epochs": epochs or self.epochs,
            "learning_rate": self.learning_rate,
            "batch_size": self.batch_size,
        }
        changes = {name: value for name, value in given.items() if value is not None}
        return replace(RECIPES[self.encoder], **changes)

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
        data, y_known = labelled(graphs, columns)
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
        data, known = labelled(graphs, {task: y})
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
