"""What is measured of a network on data: which channels matter, and what an edit costs in loss.

Of a site those channels stay whose weights are largest (`l2`), or without which the loss would
change most to first order (`taylor`; Molchanov et al. 2019, arXiv 1906.10771, equation 8, summed
over the tensors that a channel goes from), or whichever of the two lost less where it was tried on
the site (`measured`). Batch normalisation is
recalibrated before anything is measured: statistics of a wider network fit no narrower one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nni_aiop.networks._draft import Draft, parameter_of
from nni_aiop.networks._evaluation import STATISTICS, Evaluation, mean_statistics, several
from nni_aiop.networks._network import Network
from nni_aiop.networks._surgery import arguments_of
from nni_aiop.spaces import CRITERION, MutationSpace

__all__ = ["CRITERIA", "Calibration", "recalibrate"]

CRITERIA = ("l2", "taylor", "measured")
"""How the channels that stay can be chosen."""

Batch = tuple[Any, Any]
"""Inputs, a tensor or a tuple of several, and targets."""

Loss = Callable[[Any, Any], Tensor]


def recalibrate(network: Network, batches: Iterable[Any]) -> Network:
    """The network, its batch normalisations with the mean statistics of some batches of inputs.

    Args:
        network: Changed in place; in evaluation mode afterwards.
        batches: Inputs, a tensor or a tuple of several; without any the statistics stay.
    """
    network.train(False)
    program = network.program
    found = mean_statistics(program, program.graph, batches)
    with torch.no_grad():
        for node in program.graph.nodes:
            if node.name in found:
                given = arguments_of(node)
                for place, value in zip(STATISTICS, found[node.name], strict=True):
                    if given[place].op == "get_attr":
                        parameter_of(program, str(given[place].target)).copy_(value)
    return network


class Calibration:
    """Edits of a network that are measured on data which neither trains nor tests it.

    Args:
        network: The network to shrink.
        batches: Inputs and targets, such as a few hundred examples.
        loss: From what the network returns and the targets to a mean loss, less is better.
        keep: Names of layers to leave as they are.
        round_to: Widths are multiples of so many channels.
        kinds: Of sites that are searched, all by default.

    Attributes:
        space: Its edits; the dimension "criterion" says which channels stay.
    """

    def __init__(
        self,
        network: Network,
        batches: Sequence[Batch],
        loss: Loss,
        *,
        keep: Sequence[str] = (),
        round_to: int | None = None,
        kinds: Sequence[str] | None = None,
    ) -> None:
        self.network = network
        self.batches = list(batches)
        self._loss = loss
        self.space = MutationSpace(
            network.graph,
            sites=network.sites(keep=keep, round_to=round_to),
            kinds=kinds,
            criteria=CRITERIA if self.batches else CRITERIA[:1],
        )
        self._taylor: dict[str, NDArray[np.float64]] | None = None
        self._losses: dict[str, float] = {}
        self._chosen: dict[str, str] = {}

    def edit(self, sample: Mapping[str, Any]) -> Network:
        """The network after the edits of a sample, recalibrated."""
        edits, scores = self._edits(sample)
        small = self.network.edit(edits, scores=scores)
        return recalibrate(small, (inputs for inputs, _ in self.batches))

    def _edits(
        self, sample: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, NDArray[np.float64]]]:
        """The edits of a sample, and how much the units of its sites matter."""
        criterion = sample.get(CRITERION, "l2")
        edits = self.space.edits(sample)
        found = {label: self._score(label, criterion) for label in edits}
        return edits, {label: score for label, score in found.items() if score is not None}

    def loss(self, sample: Mapping[str, Any]) -> float:
        """The mean loss on the batches after the edits of a sample; remembered."""
        key = self.space.key(sample)
        if key not in self._losses:
            self._losses[key] = self._measured(self._draft(sample))
        return self._losses[key]

    def _draft(self, sample: Mapping[str, Any]) -> Draft:
        edits, scores = self._edits(sample)
        return self.network.draft(edits, scores=scores)

    def _measured(self, draft: Draft) -> float:
        """The mean loss of an edited program, its batch normalisations recalibrated."""
        alone = len(self.batches) == 1  # its statistics are found on the way
        inputs = (inputs for inputs, _ in self.batches)
        statistics = None if alone else mean_statistics(draft, draft.graph, inputs)
        total = 0.0
        with torch.no_grad():
            for inputs, targets in self.batches:
                run = Evaluation(draft, draft.graph, statistics, as_kept=alone)
                total += float(self._loss(run.run(*several(inputs)), targets))
        return total / max(1, len(self.batches))

    def measure(self, network: Network) -> float:
        """The mean loss of a network on the batches, in evaluation mode."""
        training = network.training
        network.train(False)
        total = 0.0
        with torch.no_grad():
            for inputs, targets in self.batches:
                total += float(self._loss(network(*several(inputs)), targets))
        network.train(training)
        return total / max(1, len(self.batches))

    def _score(self, label: str, criterion: str) -> NDArray[np.float64] | None:
        """How much the units of a site matter; None for the sum of squares."""
        if criterion == "measured":
            criterion = self.criterion_of(label)
        if criterion == "l2":
            return None
        if self._taylor is None:
            self._taylor = self._gradients()
        return self._taylor.get(label)

    def criterion_of(self, label: str) -> str:
        """Which criterion lost less where half of a site went; remembered."""
        if label not in self._chosen:
            (site,) = (s for s in self.space.sites if s.label == label)
            if not site.counts:
                return "l2"
            half = min(site.values, key=lambda n: (abs(n - site.value / 2), n))
            plain = self.space.original
            lost = {
                name: self.loss({**plain, label: half, CRITERION: name}) for name in CRITERIA[:2]
            }
            self._chosen[label] = min(lost, key=lost.__getitem__)
        return self._chosen[label]

    def _gradients(self) -> dict[str, NDArray[np.float64]]:
        """By site the squared first-order change of the loss without each unit, by its tensors."""
        network = self.network
        training = network.training
        network.train(False)
        total: NDArray[np.float64] | None = None
        learned = {k: p for k, p in network.named_parameters() if p.requires_grad}
        for inputs, targets in self.batches:
            value = self._loss(network(*several(inputs)), targets)
            gradients = dict(
                zip(
                    learned,
                    torch.autograd.grad(value, list(learned.values()), allow_unused=True),
                    strict=True,
                )
            )

            def change(
                path: str, weight: Tensor, known: Mapping[str, Tensor | None] = gradients
            ) -> Tensor:
                found = known.get(path)
                plain = weight.detach().double()
                return torch.zeros_like(plain) if found is None else plain * found.double()

            sums = network.label_sums(change)
            total = sums**2 if total is None else total + sums**2
        network.train(training)
        assert total is not None
        return {
            site.label: np.array([total[unit].sum() for unit in network.units_of(site)])
            for site in self.space.sites
            if site.counts and site.reason is None
        }

    # --- state -----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What was measured, as plain JSON."""
        return {"losses": dict(self._losses), "criteria": dict(self._chosen)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
        self._losses = {str(k): float(v) for k, v in state["losses"].items()}
        self._chosen = {str(k): str(v) for k, v in state["criteria"].items() if v in CRITERIA}
