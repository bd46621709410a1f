"""Layers that the networks of several spaces are made of."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from nni_aiop.search_spaces._four_nodes import EDGES

__all__ = ["FourNodeCell", "ReLUConvNorm"]


class ReLUConvNorm(nn.Sequential):
    """ReLU, a convolution without bias, batch normalisation."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(c_out),
        )


class FourNodeCell(nn.Module):
    """Four nodes, each the sum of operations on all before it.

    Args:
        edges: The operation on each of `EDGES`.
    """

    def __init__(self, edges: Iterable[nn.Module]) -> None:
        super().__init__()
        self.edges = nn.ModuleList(edges)

    def forward(self, x: Tensor) -> Tensor:
        nodes = [x]
        for target in (1, 2, 3):
            terms = [
                operation(nodes[source])
                for (source, to), operation in zip(EDGES, self.edges, strict=True)
                if to == target
            ]
            nodes.append(sum(terms[1:], terms[0]))
        return nodes[3]
