"""The once-for-all MobileNetV3 space as an NNI ModelSpace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nni_aiop.engines._nni import importing_nni
from nni_aiop.search_spaces.mobilenetv3._codes import conditions, dimensions
from nni_aiop.search_spaces.mobilenetv3._network import MobileNetV3Net
from nni_aiop.search_spaces.mobilenetv3._space import code_space
from nni_aiop.spaces import CodeSpace

with importing_nni():
    from nni.mutable import Categorical, SampleValidationError, ensure_frozen
    from nni.nas.nn.pytorch import ModelSpace

__all__ = ["MobileNetV3Space"]


class MobileNetV3Space(ModelSpace):  # type: ignore[misc]
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
        smallest = {
            dimension.label: ensure_frozen(
                self.add_mutable(Categorical(list(dimension.values), label=dimension.label))
            )
            for dimension in dimensions()
        }
        self.net = MobileNetV3Net(smallest, width=width, n_classes=n_classes)
        self._conditions = conditions()

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.net(x)
        return scores

    def check_contains(self, sample: Mapping[str, Any]) -> SampleValidationError | None:
        """What is wrong with an active label of `sample`, or None."""
        for mutable in self.mutables:
            rule = self._conditions.get(mutable.label)
            # A parent stands before its children, so its own value has been checked by then.
            if rule is None or sample[rule.parent] in rule.values:
                error = mutable.check_contains(sample)
                if error is not None:
                    return error
        return None

    def freeze(self, sample: dict[str, Any]) -> MobileNetV3Net:
        """The network of a sample.

        Raises:
            nni.mutable.SampleValidationError: The sample is not of this space.
        """
        self.validate(sample)
        return MobileNetV3Net(sample, width=self.width, n_classes=self.n_classes)

    def code_space(self) -> CodeSpace:
        """The same space, free of NNI, with exact costs and features."""
        return code_space(width=self.width, resolution=self.resolution, n_classes=self.n_classes)
