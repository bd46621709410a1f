"""An exported network run operation by operation, its norms with statistics of the data.

Nothing of the network is changed, and nothing compiled: so it is measured on a draft of a network
what a single edit costs in loss.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from nni_aiop.networks._pass import packet_name
from nni_aiop.networks._surgery import arguments_of, follows_mode, mode_of

__all__ = ["STATISTICS", "Evaluation", "Statistics", "mean_statistics", "several"]

STATISTICS = ("running_mean", "running_var")
"""The arguments of a batch normalisation that say what it keeps of what it reads."""

Statistics = Mapping[str, tuple[Tensor, Tensor]]
"""By name of a batch normalisation the mean and variance (channels,) of what it reads."""


class Evaluation(fx.Interpreter):
    """A program in evaluation, whatever mode it is in.

    Args:
        tensors: Of the program.
        graph: Of the program.
        statistics: Of the batch normalisations; None where they take those of what they read.
        as_kept: Whether, without `statistics`, a norm returns what it would with those that it
            found as its kept ones: the variance of a sample, as in evaluation. Else that of the
            batch itself, as in training.

    Attributes:
        found: The statistics of what the batch normalisations read, without `statistics`.
    """

    def __init__(
        self,
        tensors: nn.Module,
        graph: fx.Graph,
        statistics: Statistics | None = None,
        *,
        as_kept: bool = False,
    ) -> None:
        super().__init__(tensors, graph=graph)
        self.statistics = statistics
        self.as_kept = as_kept
        self.found: dict[str, tuple[Tensor, Tensor]] = {}

    def run_node(self, n: fx.Node) -> Any:
        flag = mode_of(n) if follows_mode(n) else None
        if flag is None:
            return super().run_node(n)
        given = {**fx.node.map_arg(arguments_of(n), self.env.__getitem__), flag: False}
        if _is_batch_norm(n):
            if self.statistics is None:
                mean, var = (torch.zeros_like(given[name]) for name in STATISTICS)
                self.found[n.name] = (mean, var)
                own = {**given, "running_mean": mean, "running_var": var, "training": True,
                       "momentum": 1.0}  # fmt: skip
                result = n.target(*own.values())  # type: ignore[operator]
                if not self.as_kept:
                    return result
            statistics = self.found if self.statistics is None else self.statistics
            given["running_mean"], given["running_var"] = statistics[n.name]
        return n.target(*given.values())  # type: ignore[operator]


def mean_statistics(
    tensors: nn.Module, graph: fx.Graph, batches: Iterable[Any]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Of every batch normalisation the mean over batches of inputs of the statistics it finds."""
    totals: dict[str, list[Tensor]] = {}
    count = 0
    if not any(map(_is_batch_norm, graph.nodes)):
        return {}
    with torch.no_grad():
        for inputs in batches:
            run = Evaluation(tensors, graph)
            run.run(*several(inputs))
            count += 1
            for name, found in run.found.items():
                sums = totals.setdefault(name, [torch.zeros_like(f).double() for f in found])
                for total, value in zip(sums, found, strict=True):
                    total += value
            kinds = {name: mean.dtype for name, (mean, _) in run.found.items()}
    return {
        name: ((mean / count).to(kinds[name]), (var / count).to(kinds[name]))
        for name, (mean, var) in totals.items()
    }


def _is_batch_norm(node: fx.Node) -> bool:
    """Whether an operation is a batch normalisation with statistics."""
    return follows_mode(node) and packet_name(node) == "batch_norm"


def several(inputs: Any) -> tuple[Any, ...]:
    """Inputs as a tuple."""
    return tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
