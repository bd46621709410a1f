"""Windows that slide over positions: how often they fit."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["same_padding", "window"]


def same_padding(kernel: Sequence[int], dilation: Sequence[int]) -> tuple[tuple[int, int], ...]:
    totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    return tuple((total // 2, total - total // 2) for total in totals)


def window(
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[tuple[int, int]],
    dilation: Sequence[int],
    *,
    ceil: bool = False,
) -> tuple[int, ...]:
    """How often a window fits along each axis."""
    out = []
    for size, k, s, (before, after), d in zip(
        sizes, kernel, stride, padding, dilation, strict=True
    ):
        room = size + before + after - d * (k - 1) - 1
        n = (room + (s - 1 if ceil else 0)) // s + 1
        if ceil and (n - 1) * s >= size + before:
            n -= 1  # the last window would start in the padding
        if n < 1:
            raise RuntimeError(
                f"kernel size can't be greater than actual input size: a window of "
                f"{d * (k - 1) + 1} on {size + before + after}"
            )
        out.append(n)
    return tuple(out)
