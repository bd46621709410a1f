"""The constraint set of NAAP-440 (section 2, figure 2) and the depth-first scan over it.

A network has three or four convolutions of kernel 1 or 3. The first two halve the image and have
kernel 3; of the others at most one halves it again. A convolution that changes neither width nor
resolution may be skipped around.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from nni_aiop.errors import SpaceError
from nni_aiop.spaces import CodeSpace, Ordinal

__all__ = ["LABELS", "Layer", "active_labels", "dimensions", "from_layers", "layers", "schemes"]

_KERNEL_OF_STEM = 3
_STEM_WIDTHS = ((12, 16), (16, 24))
_KERNELS = (1, 3)
_WIDTHS = ((16, 24, 32), (32, 40))  # of layers 3 and 4
_DEPTHS = (3, 4)

Sample = Mapping[str, Any]


class Layer(NamedTuple):
    """A convolution with batch normalisation and ReLU.

    Attributes:
        kernel: Side of its window, 1 or 3.
        width: Channels of its output.
        stride: 1 or 2.
        skip: Whether its input is added to its output.
    """

    kernel: int
    width: int
    stride: int
    skip: bool = False


def dimensions() -> list[Ordinal]:
    """The eleven decisions, in the order in which the scan takes them."""
    third, fourth = (
        [
            Ordinal(f"kernel_{number}", _KERNELS),
            Ordinal(f"width_{number}", widths),
            Ordinal(f"stride_{number}", (1, 2)),
            Ordinal(f"skip_{number}", (0, 1)),
        ]
        for number, widths in zip((3, 4), _WIDTHS, strict=True)
    )
    stem = [Ordinal(f"width_{i}", widths) for i, widths in enumerate(_STEM_WIDTHS, start=1)]
    return [*stem, *third, Ordinal("n_layers", _DEPTHS), *fourth]


LABELS = tuple(dimension.label for dimension in dimensions())
"""width_1, width_2, kernel_3, ..., skip_3, n_layers, kernel_4, ..., skip_4."""


def active_labels(sample: Sample) -> set[str]:
    """The labels that are a choice: skips need equal shapes, one stride of 2 excludes another."""
    active = set(LABELS)
    if sample["stride_3"] == 2 or sample["width_3"] != sample["width_2"]:
        active.remove("skip_3")
    if sample["n_layers"] == 3:
        return active - {"kernel_4", "width_4", "stride_4", "skip_4"}
    if sample["stride_3"] == 2:
        active.remove("stride_4")
    halves = sample["stride_3"] == 1 and sample["stride_4"] == 2
    if halves or sample["width_4"] != sample["width_3"]:
        active.remove("skip_4")
    return active


_SCHEMES = CodeSpace(dimensions(), name="naap", activity=active_labels)


def layers(sample: Sample) -> tuple[Layer, ...]:
    """The convolutions of a sample, which may lack inactive labels.

    Raises:
        SpaceError: The sample is not valid.

    Example:
        >>> [layer.width for layer in layers({"n_layers": 3, "width_1": 12, "width_2": 24,
        ...     "kernel_3": 1, "width_3": 24, "stride_3": 1, "skip_3": 1})]
        [12, 24, 24]
    """
    broken = _SCHEMES.violation(sample)
    if broken is not None:
        raise SpaceError(broken)
    own: dict[str, Any] = dict(_SCHEMES.canonical(sample))
    found = [Layer(_KERNEL_OF_STEM, own[f"width_{i}"], 2) for i in (1, 2)]
    for number in range(3, own["n_layers"] + 1):
        kernel, width = own[f"kernel_{number}"], own[f"width_{number}"]
        stride, skip = own.get(f"stride_{number}", 1), bool(own.get(f"skip_{number}", 0))
        found.append(Layer(kernel, width, stride, skip))
    return tuple(found)


def from_layers(found: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """The sample (active labels) of three or four layers.

    Raises:
        SpaceError: They are not a scheme of the constraint set.
    """
    given = tuple(Layer(*layer) for layer in found)
    sample: dict[str, Any] = {"n_layers": len(given)}
    for number, layer in enumerate(given[:4], start=1):
        sample[f"width_{number}"] = layer.width
        if number > 2:
            sample |= {f"kernel_{number}": layer.kernel, f"stride_{number}": layer.stride}
            sample[f"skip_{number}"] = int(layer.skip)
    own = {label: sample[label] for label in LABELS if label in sample}
    if _SCHEMES.violation(own) is not None or layers(own) != given:
        raise SpaceError(f"layers must keep the constraint set of NAAP-440, but got {given}.")
    return _SCHEMES.canonical(own)


def schemes() -> list[tuple[Layer, ...]]:
    """The 440 schemes in the publisher's order; model i of the table is entry i - 1."""
    found = []
    for first in _STEM_WIDTHS[0]:
        for second in _STEM_WIDTHS[1]:
            stem = (Layer(_KERNEL_OF_STEM, first, 2), Layer(_KERNEL_OF_STEM, second, 2))
            found += list(_deeper(stem))
    return found


def _deeper(above: tuple[Layer, ...]) -> Iterator[tuple[Layer, ...]]:
    """Every scheme that begins with these layers, each one before those that are deeper."""
    if len(above) in _DEPTHS:
        yield above
    if len(above) == _DEPTHS[-1]:
        return
    strides = (1, 2) if all(layer.stride == 1 for layer in above[2:]) else (1,)
    for kernel in _KERNELS:
        for width in _WIDTHS[len(above) - 2]:
            for stride in strides:
                may_skip = stride == 1 and width == above[-1].width
                for skip in (False, True) if may_skip else (False,):
                    yield from _deeper((*above, Layer(kernel, width, stride, skip)))
