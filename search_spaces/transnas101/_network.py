"""The networks of both spaces of TransNAS-Bench-101."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nni_aiop.search_spaces._layers import FourNodeCell, ReLUConvNorm
from nni_aiop.search_spaces.transnas101._body import BASE, EDGES, SKELETON, Block, blocks, halves
from nni_aiop.search_spaces.transnas101._macro import module_types
from nni_aiop.search_spaces.transnas101._micro import operations_of
from nni_aiop.search_spaces.transnas101._tasks import Task, decoder_layers, task_of

__all__ = ["TransNASMacroNet", "TransNASMicroNet"]


class Zeroise(nn.Module):
    """Zeros of the block's output shape."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        stride = self.block.stride
        if stride > 1:
            x = x[:, :, ::stride, ::stride]
        zeros = x * 0.0
        copies = self.block.c_out // self.block.c_in
        return torch.cat([zeros] * copies, dim=1) if copies > 1 else zeros


class FactorisedReduction(nn.Module):
    """ReLU, two 1x1 convolutions of stride 2 on shifted grids, joined, batch normalisation."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.halves = nn.ModuleList(
            nn.Conv2d(block.c_in, block.c_out // 2, 1, block.stride, bias=False) for _ in range(2)
        )
        self.norm = nn.BatchNorm2d(block.c_out)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        shifted = F.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
        y: Tensor = self.norm(torch.cat([self.halves[0](x), self.halves[1](shifted)], dim=1))
        return y


def _operation(name: str, block: Block) -> nn.Module:
    if name == "none":
        return Zeroise(block)
    if name == "skip_connect":
        same = block.stride == 1 and block.c_in == block.c_out
        return nn.Identity() if same else FactorisedReduction(block)
    return ReLUConvNorm(
        block.c_in, block.c_out, kernel=3 if name == "conv_3x3" else 1, stride=block.stride
    )


def _cell(operations: Sequence[str], block: Block) -> FourNodeCell:
    """A cell, of whose edges those from the input may stride."""
    inner = Block(block.c_out, block.c_out, 1)
    return FourNodeCell(
        _operation(name, block if source == 0 else inner)
        for name, (source, _) in zip(operations, EDGES, strict=True)
    )


class BasicBlock(nn.Module):
    """ResNet's block of two 3x3 convolutions, each behind its ReLU."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ReLUConvNorm(block.c_in, block.c_out, kernel=3, stride=block.stride),
            ReLUConvNorm(block.c_out, block.c_out, kernel=3),
        )
        same = block.stride == 1 and block.c_in == block.c_out
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(
                nn.Conv2d(block.c_in, block.c_out, 1, block.stride, bias=False),
                nn.BatchNorm2d(block.c_out),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.shortcut(x) + self.body(x)
        return y


def _body(layers: Sequence[nn.Module]) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, BASE // 2, 3, 2, padding=1, bias=False),
        nn.BatchNorm2d(BASE // 2),
        ReLUConvNorm(BASE // 2, BASE, kernel=3, stride=2),
        *layers,
    )


class LinearHead(nn.Module):
    """A linear layer on the mean of the features."""

    def __init__(self, channels: int, n_outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return scores


def _decoder(task: Task, channels: int, n_halvings: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for layer in decoder_layers(task, n_halvings):
        if layer.doubles:
            layers.append(
                nn.ConvTranspose2d(channels, layer.channels, 3, 2, padding=1, output_padding=1)
            )
        else:
            layers.append(nn.Conv2d(channels, layer.channels, 3, padding=1))
        layers += [nn.BatchNorm2d(layer.channels), nn.LeakyReLU(0.2)]
        channels = layer.channels
    return nn.Sequential(*layers[:-2], *([nn.Tanh()] if task.head == "generative" else []))


class _TaskNet(nn.Module):
    """A body with the head of a task.

    Takes (B, 3, 256, 256) images, or (B, 9, 3, 64, 64) tiles for the jigsaw; gives (B, outputs)
    numbers, or (B, outputs, 256, 256) images.
    """

    def __init__(self, layers: Sequence[nn.Module], types: Sequence[int], task: str) -> None:
        super().__init__()
        self.task = task_of(task)
        self.body = _body(layers)
        channels = blocks(types)[-1].c_out
        self.head = (
            LinearHead(channels * self.task.n_pieces, self.task.n_outputs)
            if self.task.head == "linear"
            else _decoder(self.task, channels, sum(halves(t) for t in types))
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.task.n_pieces > 1:
            features = torch.cat([self.body(piece) for piece in x.unbind(1)], dim=1)
        else:
            features = self.body(x)
        y: Tensor = self.head(features)
        return y


class TransNASMicroNet(_TaskNet):
    """The network of a cell: the skeleton 41414, two cells in each of its modules.

    Args:
        sample: The operation on each of the six edges, by label.
        task: A key of `TASKS`.

    Raises:
        SpaceError: A label is missing or its operation unknown.
        ValueError: The task is unknown.

    Example:
        >>> from nni_aiop.search_spaces.transnas101.micro import from_arch_string
        >>> net = TransNASMicroNet(from_arch_string("64-41414-1_02_333"))
        >>> net(torch.zeros(2, 3, 256, 256)).shape
        torch.Size([2, 47])
    """

    def __init__(self, sample: Mapping[str, Any], *, task: str = "class_scene") -> None:
        operations = operations_of(sample)
        super().__init__([_cell(operations, block) for block in blocks(SKELETON)], SKELETON, task)


class TransNASMacroNet(_TaskNet):
    """The network of a skeleton: four to six modules of two ResNet blocks.

    Args:
        sample: The number of modules, and the type of each by label.
        task: A key of `TASKS`.

    Raises:
        SpaceError: The sample is not valid.
        ValueError: The task is unknown.

    Example:
        >>> from nni_aiop.search_spaces.transnas101.macro import from_arch_string
        >>> net = TransNASMacroNet(from_arch_string("64-1234-basic"))
        >>> net(torch.zeros(2, 3, 256, 256)).shape
        torch.Size([2, 47])
    """

    def __init__(self, sample: Mapping[str, Any], *, task: str = "class_scene") -> None:
        types = module_types(sample)
        super().__init__([BasicBlock(block) for block in blocks(types)], types, task)
