"""The multi-resolution network (NCP, section 3.2) that 27 numbers stand for.

Where the paper's text leaves a choice, the published parameter counts decide it: a fusion
gathers each neighbouring resolution by one convolution with batch normalisation and ReLU (3x3
from the same resolution, 3x3 of stride 2 from the higher one, 1x1 and upsampling from the lower
one), and only the parallel branches are residual units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nni_aiop.search_spaces.multi_resolution._codes import numbers_of
from nni_aiop.search_spaces.multi_resolution._costs import Head, check_head

__all__ = ["MultiResolutionNet"]


class ConvNormReLU(nn.Sequential):
    """A convolution without bias that keeps the resolution (or halves it), normalised, ReLU."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(c_out),
            nn.ReLU(inplace=True),
        )


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions with a shortcut (He et al., 2016), of constant width."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvNormReLU(channels, channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.second(self.first(x))) + x)


class Fusion(nn.Module):
    """Each resolution takes in its neighbours; a stage's first fusion adds the next lower one.

    Args:
        c_in: Channels of the resolutions that come in, the highest first.
        c_out: Channels of those that go out: as many, or one more.
    """

    def __init__(self, c_in: Sequence[int], c_out: Sequence[int]) -> None:
        super().__init__()
        n = len(c_in)
        self.same = nn.ModuleList(ConvNormReLU(c_in[i], c_out[i]) for i in range(n))
        self.down = nn.ModuleList(
            ConvNormReLU(c_in[i], c_out[i + 1], stride=2) for i in range(n - 1)
        )
        self.up = nn.ModuleList(ConvNormReLU(c_in[i + 1], c_out[i], kernel=1) for i in range(n - 1))
        self.grow = ConvNormReLU(c_out[n - 1], c_out[n], stride=2) if len(c_out) > n else None

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        fused = []
        for i, same in enumerate(self.same):
            y = same(x[i])
            if i > 0:
                y = y + self.down[i - 1](x[i - 1])
            if i + 1 < len(x):
                y = y + F.interpolate(self.up[i](x[i + 1]), size=y.shape[-2:], mode="nearest")
            fused.append(F.relu(y))
        if self.grow is not None:
            fused.append(self.grow(fused[-1]))
        return fused


class Block(nn.Module):
    """A modularised block: a fusion, then residual units on each resolution in parallel."""

    def __init__(self, c_in: Sequence[int], c_out: Sequence[int], n_units: Sequence[int]) -> None:
        super().__init__()
        self.fusion = Fusion(c_in, c_out)
        self.branches = nn.ModuleList(
            nn.Sequential(*(ResidualUnit(c) for _ in range(n)))
            for c, n in zip(c_out, n_units, strict=True)
        )

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        fused = self.fusion(x)
        return [branch(y) for branch, y in zip(self.branches, fused, strict=True)]


class MultiResolutionNet(nn.Module):
    """A network of the space, for one of three tasks.

    | head           | input            | output                                           |
    |----------------|------------------|--------------------------------------------------|
    | classification | (B, C, H, W)     | (B, n_classes) logits                            |
    | segmentation   | (B, C, H, W)     | (B, n_classes, H, W) logits, upsampled from H / 4|
    | video          | (B, C, T, H, W)  | (B, n_classes) logits                            |

    Args:
        code: The 27 numbers by label (a sample of the code space) or in the order of `LABELS`.
        head: The task. For video every frame passes through the network, and the output
            layer is a 3x3x3 convolution over the frames.
        n_classes: Number of classes.
        in_channels: Channels of the image.

    Raises:
        SpaceError: The code has not 27 numbers, or one is not a positive whole number.
        ValueError: The head is unknown.

    Example:
        >>> net = MultiResolutionNet([8, 8] + [1, 1, 8] + [1, 1, 1, 8, 8] + [1] * 4 + [8] * 3
        ...                          + [1] * 5 + [8] * 4 + [8], n_classes=10)
        >>> net(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        code: Mapping[str, int] | Sequence[int],
        *,
        head: Head = "classification",
        n_classes: int = 50,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        check_head(head)
        numbers = numbers_of(code)
        self.head = head
        stem_1, stem_2, *rest, out = numbers
        self.stem = nn.Sequential(
            ConvNormReLU(in_channels, stem_1, stride=2), ConvNormReLU(stem_1, stem_2, stride=2)
        )
        blocks = []
        channels = [stem_2]
        for stage in range(1, 5):
            n_blocks, *rest = rest
            n_units, c_out, rest = rest[:stage], rest[stage : 2 * stage], rest[2 * stage :]
            for _ in range(n_blocks):
                blocks.append(Block(channels, c_out, n_units))
                channels = c_out
        self.blocks = nn.ModuleList(blocks)
        joined = sum(channels)
        if head == "video":
            self.join: nn.Module = nn.Sequential(
                nn.Conv3d(joined, out, 3, padding=1, bias=False),
                nn.BatchNorm3d(out),
                nn.ReLU(inplace=True),
            )
        else:
            self.join = ConvNormReLU(joined, out, kernel=1)
        self.classifier: nn.Module = (
            nn.Conv2d(out, n_classes, 1) if head == "segmentation" else nn.Linear(out, n_classes)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def branches(self, images: Tensor) -> list[Tensor]:
        """(B, C, H, W) -> the four resolutions, the highest (H / 4) first."""
        features = [self.stem(images)]
        for block in self.blocks:
            features = block(features)
        return features

    def forward(self, x: Tensor) -> Tensor:
        if self.head == "segmentation":
            joined = _resized(self.branches(x), level=0)
            logits = self.classifier(self.join(joined))
            return F.interpolate(logits, size=x.shape[-2:], mode="bilinear", align_corners=False)
        if self.head == "classification":
            joined = self.join(_resized(self.branches(x), level=-1))
            scores: Tensor = self.classifier(joined.mean((2, 3)))
            return scores
        n_clips, _, n_frames = x.shape[:3]
        frames = x.transpose(1, 2).flatten(0, 1)
        joined = _resized(self.branches(frames), level=-1)
        clips = joined.reshape(n_clips, n_frames, *joined.shape[1:]).transpose(1, 2)
        scores = self.classifier(self.join(clips).mean((2, 3, 4)))
        return scores


def _resized(branches: list[Tensor], level: int) -> Tensor:
    """All resolutions side by side as channels, resized to one of them."""
    size = branches[level].shape[-2:]
    return torch.cat(
        [
            F.interpolate(branch, size=size, mode="bilinear", align_corners=False)
            for branch in branches
        ],
        dim=1,
    )
