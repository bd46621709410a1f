"""The networks of NAS-Bench-201 (Dong & Yang, 2020, section 2)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from nni_aiop.search_spaces._layers import FourNodeCell, ReLUConvNorm
from nni_aiop.search_spaces.nasbench201._cells import operations_of
from nni_aiop.search_spaces.nasbench201._costs import CELLS_PER_STAGE, WIDTHS, dataset

__all__ = ["NASBench201Net"]


class Zeroise(nn.Module):
    """Zeros of the input's shape."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 0.0


def _operation(name: str, channels: int) -> nn.Module:
    if name == "none":
        return Zeroise()
    if name == "skip_connect":
        return nn.Identity()
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    return ReLUConvNorm(channels, channels, kernel=3 if name == "nor_conv_3x3" else 1)


def cell_of(operations: Mapping[str, str], channels: int) -> FourNodeCell:
    """The cell with these operations, by label."""
    return FourNodeCell(_operation(name, channels) for name in operations_of(operations))


class Reduction(nn.Module):
    """A residual unit of stride 2; its shortcut is an average pooling and a 1x1 convolution."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ReLUConvNorm(c_in, c_out, kernel=3, stride=2), ReLUConvNorm(c_out, c_out, kernel=3)
        )
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, stride=2), nn.Conv2d(c_in, c_out, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x) + self.shortcut(x)
        return y


class NASBench201Net(nn.Module):
    """The network of a cell: a stem, three stages of five cells with 16, 32, 64 channels, a head.

    Takes (B, 3, S, S) images and gives (B, n_classes) logits; S is the data set's image size.

    Args:
        operations: The operation on each of the six edges, by label.
        data: "cifar10", "cifar100" or "imagenet16-120", which sets the number of classes.

    Raises:
        SpaceError: A label is missing or its operation unknown.
        ValueError: The data set is unknown.

    Example:
        >>> import torch
        >>> from nni_aiop.search_spaces.nasbench201 import from_index
        >>> NASBench201Net(from_index(7777))(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 100])
    """

    def __init__(self, operations: Mapping[str, str], *, data: str = "cifar100") -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False), nn.BatchNorm2d(WIDTHS[0])
        )
        layers: list[nn.Module] = []
        for stage, width in enumerate(WIDTHS):
            if stage > 0:
                layers.append(Reduction(WIDTHS[stage - 1], width))
            layers += [cell_of(operations, width) for _ in range(CELLS_PER_STAGE)]
        self.layers = nn.Sequential(*layers)
        self.norm = nn.BatchNorm2d(WIDTHS[-1])
        self.classifier = nn.Linear(WIDTHS[-1], dataset(data).n_classes)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm(self.layers(self.stem(x))))
        scores: Tensor = self.classifier(y.mean((2, 3)))
        return scores
