"""A space of twelve tiny networks, and data on which they learn in a few steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from nni_aiop.spaces import CodeSpace, Condition, Nominal, Ordinal
from nni_aiop.supernet import Batches, Supernet, SupernetData


def space() -> CodeSpace:
    return CodeSpace(
        [Ordinal("depth", (1, 2)), Ordinal("width", (2, 4)), Nominal("op", ("conv", "pool"))],
        name="toy",
        conditions={"op": Condition("depth", (2,))},
    )


class Net(nn.Module):
    def __init__(self, sample: Any) -> None:
        super().__init__()
        width = sample["width"]
        self.stem = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.block: nn.Module = nn.Identity()
        if sample["depth"] == 2:
            conv = sample["op"] == "conv"
            self.block = nn.Conv2d(width, width, 3, padding=1) if conv else nn.MaxPool2d(3, 1, 1)
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.block(torch.relu(self.norm(self.stem(x))))
        y: torch.Tensor = self.head(self.drop(x.mean((2, 3))))
        return y


def data(n: int = 32) -> SupernetData:
    """Bright images are of class 1."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 1, 6, 6, generator=generator)
    y = (x.mean((1, 2, 3)) > 0).long()
    return SupernetData(Batches(x, y, 8, shuffle=True), Batches(x, y, 16))


def supernet(seed: int = 0, **options: Any) -> Supernet:
    return Supernet(space(), Net, head="head", data=data, seed=seed, **options)
