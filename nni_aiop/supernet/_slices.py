"""Parts of a shared tensor: leading channels, and the middle of a convolution's window."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import Tensor, nn

__all__ = ["Part", "parameters_of", "part_of"]


class Part(NamedTuple):
    """A parameter of a network, and what it takes of a shared tensor.

    Attributes:
        name: Of the parameter in the network, such as `stem.0.weight`.
        shape: Of the parameter.
        window: Its first dimension that is a convolution's window; those before it are channels.
    """

    name: str
    shape: tuple[int, ...]
    window: int

    def of(self, shared: Tensor) -> Tensor:
        """The part of a shared tensor, a view."""
        return part_of(shared, self.shape, window=self.window)


def part_of(shared: Tensor, shape: Sequence[int], *, window: int | None = None) -> Tensor:
    """A view of the shared tensor with this shape: its first channels, the middle of its window.

    The window is cropped as once-for-all crops kernels (Cai et al. 2020, section 3), without its
    transformation matrices. Of a grouped or depthwise convolution the first filters are taken.

    Args:
        shared: The tensor, in no dimension smaller than the shape.
        shape: Of the part.
        window: The first dimension that is a convolution's window; None where there is none.

    Example:
        >>> import torch
        >>> part_of(torch.arange(25.0).reshape(1, 1, 5, 5), (1, 1, 3, 3), window=2).flatten()
        tensor([ 6.,  7.,  8., 11., 12., 13., 16., 17., 18.])
    """
    part = shared
    for d, size in enumerate(shape):
        spare = shared.shape[d] - size
        if spare:
            part = part.narrow(d, spare // 2 if window is not None and d >= window else 0, size)
    return part


def parameters_of(network: nn.Module) -> Iterator[tuple[Part, Tensor]]:
    """Every parameter of a network once, as a part and as it is."""
    seen: set[int] = set()
    for prefix, module in network.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            shape = tuple(parameter.shape)
            windowed = isinstance(module, nn.modules.conv._ConvNd) and name == "weight"
            part = Part(
                f"{prefix}.{name}" if prefix else name, shape, 2 if windowed else len(shape)
            )
            yield part, parameter
