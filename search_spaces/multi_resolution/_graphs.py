"""Compute graphs of multi-resolution networks, straight from their 27 numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from nni_aiop.graphs import ComputeGraph, GraphWriter, Handle, Node, Shape
from nni_aiop.search_spaces.multi_resolution._codes import numbers_of
from nni_aiop.search_spaces.multi_resolution._costs import Head, check_head

__all__ = ["graph"]


def graph(
    code: Mapping[str, int] | Sequence[int],
    *,
    input_size: int | tuple[int, int] = 128,
    n_classes: int = 50,
    head: Head = "classification",
    in_channels: int = 3,
    frames: int = 1,
) -> ComputeGraph:
    """The compute graph of `MultiResolutionNet` on one image, or one clip for video.

    Args:
        code: The 27 numbers by label (a sample of the code space) or in the order of `LABELS`.
        input_size: Side of the image, or (height, width), in pixels.
        n_classes: Number of classes.
        head: The task.
        in_channels: Channels of the image.
        frames: Frames of a clip.

    Raises:
        SpaceError: The code has not 27 numbers, or one is not a positive whole number.
        ValueError: The head is unknown.

    Example:
        >>> smallest = [8 if label[0] in "ico" else 1 for label in LABELS]
        >>> graph(smallest).output_shapes
        ((1, 50),)
    """
    check_head(head)
    stem_1, stem_2, *rest, out = numbers_of(code)
    size = (input_size, input_size) if isinstance(input_size, int) else input_size
    w = GraphWriter()
    if head == "video":
        x = w.input((1, in_channels, frames, *size))
        x = _swapped(w, x, in_channels, frames, (frames, in_channels, *size))
    else:
        x = w.input((1, in_channels, *size))
    w.scope = "stem"
    branches = [_conv(w, _conv(w, x, stem_1, stride=2), stem_2, stride=2)]
    place = 0
    for stage in range(1, 5):
        n_blocks, *rest = rest
        n_units, channels, rest = rest[:stage], rest[stage : 2 * stage], rest[2 * stage :]
        for _ in range(n_blocks):
            w.scope = f"blocks.{place}"
            fused = _fused(w, branches, channels)
            branches = [_residual(w, y, n) for y, n in zip(fused, n_units, strict=True)]
            place += 1
    w.scope = "join"
    joined = branches[0 if head == "segmentation" else -1].shape[2:]
    x = w.concat([w.resize(branch, joined, "linear") for branch in branches])
    if head == "video":
        x = _swapped(w, x, frames, x.shape[1], (1, x.shape[1], frames, *joined))
    x = _conv(w, x, out, 3 if head == "video" else 1)
    w.scope = "classifier"
    if head == "segmentation":
        x = w.resize(w.conv(x, n_classes, 1, bias=True), size, "linear")
    else:
        x = w.linear(w.global_avg_pool(x), n_classes)
    w.output(x)
    return w.graph()


def _conv(w: GraphWriter, x: Handle, out: int, kernel: int = 3, *, stride: int = 1) -> Handle:
    """A convolution, normalised, ReLU."""
    return w.relu(w.batch_norm(w.conv(x, out, kernel, stride=stride)))


def _fused(w: GraphWriter, branches: Sequence[Handle], channels: Sequence[int]) -> list[Handle]:
    """Each resolution with its neighbours; where there are more channels, one resolution more."""
    fused: list[Handle] = []
    for place, branch in enumerate(branches):
        out = channels[place]
        terms = [_conv(w, branch, out)]
        if place > 0:
            terms.append(_conv(w, branches[place - 1], out, stride=2))
        if place + 1 < len(branches):
            low = _conv(w, branches[place + 1], out, 1)
            terms.append(w.resize(low, terms[0].shape[2:], "nearest"))
        fused.append(w.relu(w.add(*terms)))
    if len(channels) > len(fused):
        fused.append(_conv(w, fused[-1], channels[-1], stride=2))
    return fused


def _residual(w: GraphWriter, x: Handle, n_units: int) -> Handle:
    """Residual units of two convolutions."""
    for _ in range(n_units):
        y = _conv(w, x, x.shape[1])
        x = w.relu(w.add(w.batch_norm(w.conv(y, x.shape[1], 3)), x))
    return x


def _swapped(w: GraphWriter, x: Handle, rows: int, columns: int, shape: Shape) -> Handle:
    """x as (rows, columns, ...) with these two axes swapped, in a shape."""
    if rows > 1 and columns > 1:
        area = prod(shape) // (rows * columns)
        rest = (area,) * (area > 1)
        before, after = (rows, columns, *rest), (columns, rows, *rest)
        x = w.write(Node.make("permute", [before], after, order=(1, 0, 2)[: len(before)]), x)
    return w.reshape(x, shape)
