"""The networks of NAS-Bench-101 (Ying et al., 2019, sections 2.1 and 2.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nni_aiop.search_spaces.nasbench101._costs import CELLS_PER_STACK, N_CLASSES, STEM, WIDTHS
from nni_aiop.search_spaces.nasbench101._matrices import to_matrix, vertex_channels

__all__ = ["NASBench101Net"]


class ConvNormReLU(nn.Sequential):
    """A convolution without bias, batch normalisation, ReLU."""

    def __init__(self, c_in: int, c_out: int, kernel: int) -> None:
        super().__init__(
            nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, bias=False),
            # TensorFlow's momentum is one minus PyTorch's.
            nn.BatchNorm2d(c_out, eps=1e-5, momentum=1 - 0.997),
            nn.ReLU(),
        )


def _operation(name: str, channels: int) -> nn.Module:
    if name == "maxpool3x3":
        return nn.MaxPool2d(3, stride=1, padding=1)
    return ConvNormReLU(channels, channels, kernel=3 if name == "conv3x3-bn-relu" else 1)


class Cell(nn.Module):
    """A pruned cell: inner vertices add what they read, the output concatenates.

    What a vertex reads of the cell's input is projected to its channels; of another vertex, which
    may have a channel more, it takes the first ones. An edge from input to output adds another
    projection to the concatenation.
    """

    def __init__(
        self,
        matrix: Sequence[Sequence[int]],
        operations: Sequence[str],
        c_in: int,
        width: int,
    ) -> None:
        super().__init__()
        self.matrix = matrix
        self.channels = [*vertex_channels(matrix, width), width]
        self.operations = nn.ModuleList(
            _operation(name, channels)
            for name, channels in zip(operations, self.channels[1:], strict=False)
        )
        self.projections = nn.ModuleDict(
            {
                str(vertex): ConvNormReLU(c_in, self.channels[vertex], kernel=1)
                for vertex in range(1, len(matrix))
                if matrix[0][vertex]
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        output = len(self.matrix) - 1
        vertices = [x]
        for vertex, operation in enumerate(self.operations, start=1):
            terms = [
                vertices[source][:, : self.channels[vertex]]
                if self.channels[source] > self.channels[vertex]
                else vertices[source]
                for source in range(1, vertex)
                if self.matrix[source][vertex]
            ]
            terms += self._projected(x, vertex)
            vertices.append(operation(sum(terms[1:], terms[0])))
        joined = [vertices[v] for v in range(1, output) if self.matrix[v][output]]
        terms = [torch.cat(joined, dim=1) if len(joined) > 1 else joined[0]] if joined else []
        terms += self._projected(x, output)
        return sum(terms[1:], terms[0])

    def _projected(self, x: Tensor, vertex: int) -> list[Tensor]:
        return [self.projections[str(vertex)](x)] if self.matrix[0][vertex] else []


class NASBench101Net(nn.Module):
    """The network of a cell: a stem, three stacks of three cells, a classifier of ten classes.

    The stem is a 3x3 convolution of 128 channels; from stack to stack a 2x2 max pooling halves the
    image and the channels double. Takes (B, 3, 32, 32) images and gives (B, 10) logits.

    Args:
        sample: A valid sample of the space.

    Raises:
        SpaceError: The sample is not valid.

    Example:
        >>> from nni_aiop.search_spaces.nasbench101 import from_matrix
        >>> sample = from_matrix([[0, 1, 0], [0, 0, 1], [0, 0, 0]], ["conv1x1-bn-relu"])
        >>> NASBench101Net(sample)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(self, sample: Mapping[str, Any]) -> None:
        super().__init__()
        matrix, operations = to_matrix(sample)
        self.stem = ConvNormReLU(3, STEM, kernel=3)
        layers: list[nn.Module] = []
        before = STEM
        for stack, width in enumerate(WIDTHS):
            if stack > 0:
                layers.append(nn.MaxPool2d(2, stride=2))
            for _ in range(CELLS_PER_STACK):
                layers.append(Cell(matrix, operations, before, width))
                before = width
        self.layers = nn.Sequential(*layers)
        self.classifier = nn.Linear(WIDTHS[-1], N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.classifier(self.layers(self.stem(x)).mean((2, 3)))
        return scores
