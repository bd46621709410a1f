"""The once-for-all MobileNetV3 space as an NNI ModelSpace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nni_aiop.search_spaces._nni_spaces import ConditionalSpace
from nni_aiop.search_spaces.mobilenetv3._codes import dimensions
from nni_aiop.search_spaces.mobilenetv3._network import MobileNetV3Net
from nni_aiop.search_spaces.mobilenetv3._space import code_space
from nni_aiop.search_spaces.mobilenetv3._supernet import supernet
from nni_aiop.spaces import CodeSpace
from nni_aiop.supernet import Supernet

__all__ = ["MobileNetV3Space"]


class MobileNetV3Space(ConditionalSpace[MobileNetV3Net]):
    """The space of `MobileNetV3Net` for NNI: the 45 labels of the code space, in its order.

    A sample needs its active labels only. NNI's own `nni.nas.hub.pytorch.MobileNetV3Space` is
    another space: it also searches widths and has other depths.

    Args:
        width: Width multiplier, 1.0 or 1.2.
        n_classes: Number of classes.
        resolution: Side of the square image in pixels, for the costs of `code_space`.

    Raises:
        ValueError: The width or the resolution is wrong.
    """

    def __init__(self, width: float = 1.0, n_classes: int = 1000, resolution: int = 224) -> None:
        super().__init__()
        self.width, self.n_classes, self.resolution = width, n_classes, resolution
        self.fill({dimension.label: dimension.values[0] for dimension in dimensions()})

    def network(self, sample: Mapping[str, Any]) -> MobileNetV3Net:
        """The network of a valid sample."""
        return MobileNetV3Net(sample, width=self.width, n_classes=self.n_classes)

    def code_space(self) -> CodeSpace:
        """The same space, free of NNI, with exact costs and features."""
        return code_space(width=self.width, resolution=self.resolution, n_classes=self.n_classes)

    def supernet(self, **options: Any) -> Supernet:
        """The shared weights of all networks; see the function `supernet` of the space."""
        return supernet(
            width=self.width, n_classes=self.n_classes, resolution=self.resolution, **options
        )
