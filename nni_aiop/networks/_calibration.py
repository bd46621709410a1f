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

from nni_aiop.networks._network import Network
from nni_aiop.networks._pass import packet_name
from nni_aiop.networks._surgery import arguments_of, follows_mode, parameter_of, set_arguments
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
    norms = [n for n in network.program.graph.nodes if _is_batch_norm(n)]
    if not norms:
        return network
    momenta = [arguments_of(node)["momentum"] for node in norms]
    buffers = [
        parameter_of(network.program, str(argument.target))
        for node in norms
        for argument in (node.args[3], node.args[4])
        if isinstance(argument, torch.fx.Node) and argument.op == "get_attr"
    ]
    before = [buffer.clone() for buffer in buffers]
    totals = [torch.zeros_like(buffer, dtype=torch.float64) for buffer in buffers]
    count = 0
    for node in norms:
        set_arguments(node, training=True, momentum=1.0)
    network.program.recompile()
    try:
        with torch.no_grad():
            for inputs in batches:
                network.program(*_several(inputs))
                count += 1
                for total, buffer in zip(totals, buffers, strict=True):
                    total += buffer
            before = [total / count for total in totals] if count else before
    finally:
        with torch.no_grad():
            for value, buffer in zip(before, buffers, strict=True):
                buffer.copy_(value)
        for node, momentum in zip(norms, momenta, strict=True):
            set_arguments(node, training=False, momentum=momentum)
        network.program.recompile()
    return network


def _is_batch_norm(node: torch.fx.Node) -> bool:
    """Whether an operation is a batch normalisation with statistics."""
    return follows_mode(node) and packet_name(node) == "batch_norm"


def _several(inputs: Any) -> tuple[Any, ...]:
    return tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)


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
        criterion = sample.get(CRITERION, "l2")
        edits = self.space.edits(sample)
        scores = {label: found for label in edits if (found := self._score(label, criterion))
                  is not None}  # fmt: skip
        small = self.network.edit(edits, scores=scores)
        return recalibrate(small, (inputs for inputs, _ in self.batches))

    def loss(self, sample: Mapping[str, Any]) -> float:
        """The mean loss on the batches after the edits of a sample; remembered."""
        key = self.space.key(sample)
        if key not in self._losses:
            self._losses[key] = self.measure(self.edit(sample))
        return self._losses[key]

    def measure(self, network: Network) -> float:
        """The mean loss of a network on the batches, in evaluation mode."""
        training = network.training
        network.train(False)
        total = 0.0
        with torch.no_grad():
            for inputs, targets in self.batches:
                total += float(self._loss(network(*_several(inputs)), targets))
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
            value = self._loss(network(*_several(inputs)), targets)
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
