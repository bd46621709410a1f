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

__all__ = ["Evaluation", "Statistics", "mean_statistics", "several"]

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
        if packet_name(n) == "batch_norm":
            statistics = None if self.statistics is None else self.statistics[n.name]
            if statistics is None:
                x = given["input"]
                mean, var = (x.new_zeros(x.shape[1]) for _ in range(2))
                own = {**given, "running_mean": mean, "running_var": var, "training": True,
                       "momentum": 1.0}  # fmt: skip
                result = n.target(*own.values())  # type: ignore[operator]
                statistics = self.found[n.name] = (mean, var)
                if not self.as_kept:
                    return result
            given["running_mean"], given["running_var"] = statistics
        return n.target(*given.values())  # type: ignore[operator]


def mean_statistics(
    tensors: nn.Module, graph: fx.Graph, batches: Iterable[Any]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Of every batch normalisation the mean over batches of inputs of the statistics it finds."""
    totals: dict[str, list[Tensor]] = {}
    if not any(follows_mode(n) and packet_name(n) == "batch_norm" for n in graph.nodes):
        return {}
    count = 0
    with torch.no_grad():
        for inputs in batches:
            run = Evaluation(tensors, graph)
            run.run(*several(inputs))
            count += 1
            for name, found in run.found.items():
                sums = totals.setdefault(name, [torch.zeros_like(f).double() for f in found])
                for total, value in zip(sums, found, strict=True):
                    total += value
    return {name: (mean / count, var / count) for name, (mean, var) in totals.items()}


def several(inputs: Any) -> tuple[Any, ...]:
    """Inputs as a tuple."""
    return tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
