"""The supernet of the once-for-all MobileNetV3 space."""

from __future__ import annotations

from functools import partial

from nni_aiop.search_spaces.mobilenetv3._codes import Resolution, dimensions
from nni_aiop.search_spaces.mobilenetv3._network import MobileNetV3Net
from nni_aiop.search_spaces.mobilenetv3._space import code_space
from nni_aiop.supernet import Supernet

__all__ = ["supernet"]


def supernet(
    *,
    width: float = 1.0,
    n_classes: int = 1000,
    resolution: Resolution = 224,
    apart: tuple[str, ...] = (),
    seed: int | None = None,
) -> Supernet:
    """The shared weights of all networks: the deepest, with the largest kernels and expansions.

    As in once-for-all a shallower unit keeps its first blocks, a smaller kernel is the middle of
    the largest, and a smaller expansion keeps the first channels; kernels are not transformed. It
    comes without data: `train_supernet` needs batches of (B, 3, H, W) images and classes. Where the
    space chooses the resolution, the images are what decides.

    Args:
        width: Width multiplier, 1.0 or 1.2.
        n_classes: Outputs of the classifier.
        resolution: Side of the square image in pixels, or several, for the costs of the space.
        apart: Labels each of whose values has weights of its own.
        seed: Of the weights; None draws them from PyTorch's global generator.

    Raises:
        ValueError: The width or the resolution is wrong.
    """
    return Supernet(
        code_space(width=width, resolution=resolution, n_classes=n_classes),
        partial(MobileNetV3Net, width=width, n_classes=n_classes),
        reach=[{d.label: d.values[-1] for d in dimensions(resolution)}],
        apart=apart,
        head="head.5",
        seed=seed,
    )
