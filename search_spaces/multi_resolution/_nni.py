"""The multi-resolution space as an NNI ModelSpace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nni_aiop.search_spaces._nni_spaces import ReadySpace
from nni_aiop.search_spaces.multi_resolution._codes import dimensions
from nni_aiop.search_spaces.multi_resolution._costs import Head
from nni_aiop.search_spaces.multi_resolution._network import MultiResolutionNet
from nni_aiop.search_spaces.multi_resolution._space import code_space
from nni_aiop.spaces import CodeSpace

__all__ = ["MultiResolutionSpace"]


class MultiResolutionSpace(ReadySpace[MultiResolutionNet]):
    """The space of `MultiResolutionNet` for NNI: the 27 labels of the code space, in its order.

    Args:
        head: The task, "classification", "segmentation" or "video".
        n_classes: Number of classes.
        input_size: Side of the image in pixels, for the costs of `code_space`.

    Raises:
        ValueError: The head is unknown.
    """

    def __init__(
        self, head: Head = "classification", n_classes: int = 50, input_size: int = 128
    ) -> None:
        super().__init__()
        self.head, self.n_classes, self.input_size = head, n_classes, input_size
        self.fill({dimension.label: dimension.values[0] for dimension in dimensions()})

    def network(self, sample: Mapping[str, Any]) -> MultiResolutionNet:
        """The network of a valid sample."""
        return MultiResolutionNet(sample, head=self.head, n_classes=self.n_classes)

    def code_space(self) -> CodeSpace:
        """The same space, free of NNI, with exact costs and features."""
        return code_space(input_size=self.input_size, n_classes=self.n_classes, head=self.head)
