"""GraphPredictor: a pretrained backbone, adapters for tasks, and transfer to other ones."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike

from nni_aiop.predictors.graph._collation import GraphSet
from nni_aiop.predictors.graph._learning import LearningModel, labelled
from nni_aiop.predictors.graph._model import Array
from nni_aiop.predictors.graph._scores import TaskLabels
from nni_aiop.predictors.graph._training import train
from nni_aiop.predictors.graph._transfer import (
    FewShotPredictor,
    TransferredPredictor,
    rescaled_member,
    zero_shot,
)
from nni_aiop.predictors.graph.few_shot import HEADS

if TYPE_CHECKING:
    from nni_aiop.graphs import ComputeGraph


class GraphPredictor(LearningModel):
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
            weights: "equal", the mean of the predictions, centred and scaled to these labels;
                "published", their mean as it is (Mills et al. 2023, Eq. 4); or "fitted": the
                squares of rank correlations with these labels, where log FLOPs vote too.
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

    def _target(
        self,
        graphs: Sequence[ComputeGraph] | GraphSet,
        y: ArrayLike,
        by_flops: bool | None,
        metric: str,
    ) -> tuple[GraphSet, Array, TaskLabels]:
        """The labelled graphs, their (n,) standardised labels, and how they came to be."""
        self._require_fit()
        data, known = labelled(graphs, {metric: y})
        flops = self.by_flops if by_flops is None else by_flops
        labels = TaskLabels.fit(known[:, 0], data.flops, by_flops=flops)
        return data, labels.transform(known[:, 0], data.flops), labels


def load_graph_predictor(
    path: str | os.PathLike[str], *, device: str | torch.device | None = None
) -> GraphPredictor:
    """The predictor of a file that `GraphPredictor.save` wrote; it predicts the same to the bit.

    Raises:
        FileFormatError: The file is truncated, changed, of another version or other features.
        OSError: There is no such file.
    """
    return GraphPredictor._of_file(path, device)
