"""A small MutationSpace for contract suites."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nni_aiop.graphs import ComputeGraph, from_module
from nni_aiop.spaces import MutationSpace

__all__ = ["graph", "mutations"]


class _Block(nn.Module):
    """An inverted bottleneck, with a gate or without."""

    def __init__(self, w: int, v: int, k: int, *, gate: bool) -> None:
        super().__init__()
        self.expand = nn.Conv2d(w, v, 1)
        self.deep = nn.Conv2d(v, v, k, padding=k // 2, groups=v)
        self.gate = nn.Conv2d(v, v, 1) if gate else None
        self.project = nn.Conv2d(v, w, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.deep(F.relu(self.expand(x))))
        if self.gate is not None:
            y = y * torch.sigmoid(self.gate(y.mean((2, 3), keepdim=True)))
        out: Tensor = x + self.project(y)
        return out


@cache
def graph() -> ComputeGraph:
    """A residual network of four blocks."""
    blocks = [
        _Block(16, 32, k, gate=gate) for k, gate in ((3, False), (5, True), (5, False), (3, True))
    ]
    net = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), *blocks, nn.Conv2d(16, 8, 1))
    return from_module(net, (1, 3, 8, 8))


def mutations() -> MutationSpace:
    """What that network can be shrunk to."""
    return MutationSpace(graph())
