"""The digits space: its dimensions, exact costs and features, as functions of the code.

14 dimensions, 5,546,025 distinct networks: in each of two stages a width, a depth of 0 to 2 blocks,
and for each block that the depth reaches its kind and its kernel; over the whole network one
activation and one pooling (`_network` draws the picture).

Notation: a *gate* is 1 where the depth reaches a block and 0 where not, with a slope between two
depths; a *kernel* is the side of the square window; MACs are multiply-adds of convolutions and the
linear layer.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from nni_aiop.spaces import CodeSpace, Condition, Nominal, Ordinal

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["dimensions", "features", "flops", "params", "rules"]

CLASSES = 10
EXPANSION = 4
KERNEL_OF_STEM = 3
MAX_DEPTH = 2
STAGES = (1, 2)

ACTIVATIONS = ("relu", "hardswish", "tanh")
POOLINGS = ("max", "avg", "stride")
OPS = ("conv", "separable", "residual", "inverted")
# Evenly spaced, with 2**n gaps: the codes are exact in binary, and so are the costs.
WIDTHS = range(4, 21, 4)
KERNELS = range(1, 6, 2)

_POSITIONS = {1: 64, 2: 16}


@cache
def dimensions() -> tuple[Nominal | Ordinal, ...]:
    """The 14 dimensions."""
    out: list[Nominal | Ordinal] = [
        Nominal("activation", ACTIVATIONS),
        Nominal("pooling", POOLINGS),
    ]
    for s in STAGES:
        out += [
            Ordinal(f"width_{s}", WIDTHS),
            Ordinal(f"depth_{s}", range(MAX_DEPTH + 1)),
        ]
        for i in range(1, MAX_DEPTH + 1):
            out += [
                Nominal(f"op_{s}_{i}", OPS),
                Ordinal(f"kernel_{s}_{i}", KERNELS),
            ]
    return tuple(out)


@cache
def rules() -> CodeSpace:
    """The dimensions and when each matters, without costs, features and graphs."""
    conditions = {
        f"{decision}_{s}_{i}": Condition(f"depth_{s}", tuple(range(i, MAX_DEPTH + 1)))
        for decision in ("op", "kernel")
        for s in STAGES
        for i in range(1, MAX_DEPTH + 1)
    }
    return CodeSpace(dimensions(), name="digits", conditions=conditions)


class _Block(NamedTuple):
    gate: Tensor  # (n,)
    op: Tensor  # (n, 4) one-hot, in the order of OPS
    kernel: Tensor  # (n,)


class _Parts(NamedTuple):
    activation: Tensor  # (n, 3)
    pooling: Tensor  # (n, 3)
    widths: dict[int, Tensor]  # (n,) of each stage
    depths: dict[int, Tensor]
    blocks: dict[int, list[_Block]]


def _read(codes: Tensor) -> _Parts:
    """The decisions of codes (n, 28), as real numbers where a code lies between two values."""
    columns = rules().columns

    def number(label: str, values: range) -> Tensor:
        return values[0] + (values[-1] - values[0]) * codes[:, columns[label]].squeeze(1)

    depths = {s: number(f"depth_{s}", range(MAX_DEPTH + 1)) for s in STAGES}
    return _Parts(
        activation=codes[:, columns["activation"]],
        pooling=codes[:, columns["pooling"]],
        widths={s: number(f"width_{s}", WIDTHS) for s in STAGES},
        depths=depths,
        blocks={
            s: [
                _Block(
                    gate=(depths[s] - (i - 1)).clamp(0.0, 1.0),
                    op=codes[:, columns[f"op_{s}_{i}"]],
                    kernel=number(f"kernel_{s}_{i}", KERNELS),
                )
                for i in range(1, MAX_DEPTH + 1)
            ]
            for s in STAGES
        },
    )


def _block_weights(block: _Block, width: Tensor) -> Tensor:
    """(n,) convolution weights of a block; each is used once per position."""
    import torch

    window, square = block.kernel**2, width**2
    inner = EXPANSION * width
    of_ops = torch.stack(
        [
            window * square,
            window * width + square,
            2 * window * square,
            window * inner + 2 * inner * width,
        ],
        dim=1,
    )
    return block.gate * (block.op * of_ops).sum(dim=1)


def _block_norms(block: _Block, width: Tensor) -> Tensor:
    """(n,) channels that a block normalises."""
    channels = block.op.new_tensor([1, 2, 2, 2 * EXPANSION + 1])
    return block.gate * (block.op @ channels) * width


def _transition_weights(parts: _Parts) -> Tensor:
    """(n,) weights of the change from width_1 to width_2: 1x1 after pooling, 2x2 where strided."""
    windows = parts.pooling.new_tensor([1, 1, 4])
    return (parts.pooling @ windows) * parts.widths[1] * parts.widths[2]


def flops(codes: Tensor) -> Tensor:
    """MACs of one image: multiply-adds of the convolutions and the linear layer.

    Normalisation, activations, pooling and additions are not counted. Exact on the code of a
    sample; in between, linear in one-hot columns and in the gate that follows a depth.

    Args:
        codes: (n, 28) codes of the space.

    Returns:
        (n,) MACs.
    """
    parts = _read(codes)
    total = _POSITIONS[1] * KERNEL_OF_STEM**2 * parts.widths[1]
    total = total + _POSITIONS[2] * _transition_weights(parts) + CLASSES * parts.widths[2]
    for s in STAGES:
        for block in parts.blocks[s]:
            total = total + _POSITIONS[s] * _block_weights(block, parts.widths[s])
    return total


def params(codes: Tensor) -> Tensor:
    """Trainable numbers of the network: weights, and two per normalised channel.

    Args:
        codes: (n, 28) codes of the space.

    Returns:
        (n,) parameters; exact on the code of a sample.
    """
    parts = _read(codes)
    total = (KERNEL_OF_STEM**2 + 2) * parts.widths[1] + _transition_weights(parts)
    total = total + (2 + CLASSES) * parts.widths[2] + CLASSES
    for s in STAGES:
        for block in parts.blocks[s]:
            total = total + _block_weights(block, parts.widths[s])
            total = total + 2 * _block_norms(block, parts.widths[s])
    return total


def _receptive_field(parts: _Parts) -> Tensor:
    """(n,) side of the window of the image that one position of stage 2 sees, in pixels."""
    convolutions = parts.pooling.new_tensor([1, 1, 2, 1])
    # The stem sees its own kernel, pooling two of stage 1's positions; stage 2 then strides over
    # two pixels.
    side = KERNEL_OF_STEM + 1 + 0.0 * parts.widths[1]
    for s, stride in zip(STAGES, (1, 2), strict=True):
        for block in parts.blocks[s]:
            side = side + stride * block.gate * (block.op @ convolutions) * (block.kernel - 1)
    return side


def features(codes: Tensor) -> Tensor:
    """What a predictor may read beside the code, differentiable in it.

    Args:
        codes: (n, 28) codes of the space.

    Returns:
        (n, 23) of each of the four blocks the kind and the kernel, zero where the depth does not
        reach it; the receptive field, and the logarithms of MACs and parameters, each scaled to
        about [0, 1].
    """
    import torch

    parts = _read(codes)
    blocks = [block for s in STAGES for block in parts.blocks[s]]
    scalars = [block.gate * block.kernel / KERNELS[-1] for block in blocks]
    # The space spans 2.6e3 to 3.3e6 MACs and 1.2e2 to 8.3e4 parameters.
    scalars += [
        _receptive_field(parts) / 52,
        (flops(codes).clamp(min=1.0).log10() - 3) / 4,
        (params(codes).clamp(min=1.0).log10() - 2) / 3,
    ]
    kinds = [block.gate[:, None] * block.op for block in blocks]
    return torch.cat([*kinds, torch.stack(scalars, dim=1)], dim=1)
