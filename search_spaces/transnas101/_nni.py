"""TransNAS-Bench-101's spaces as NNI ModelSpaces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nni_aiop.engines._nni import importing_nni
from nni_aiop.search_spaces._nni_rules import add_dimensions, violation
from nni_aiop.search_spaces.transnas101 import macro, micro
from nni_aiop.search_spaces.transnas101._network import TransNASMacroNet, TransNASMicroNet
from nni_aiop.spaces import CodeSpace

with importing_nni():
    from nni.mutable import SampleValidationError
    from nni.nas.nn.pytorch import ModelSpace

__all__ = ["TransNASMacroSpace", "TransNASMicroSpace"]


class TransNASMicroSpace(ModelSpace):  # type: ignore[misc]
    """The space of `TransNASMicroNet` for NNI: the six labels of the code space, in its order.

    Args:
        task: A key of `TASKS`.

    Raises:
        ValueError: The task is unknown.
    """

    def __init__(self, task: str = "class_scene") -> None:
        super().__init__()
        self.task = task
        add_dimensions(self, micro.code_space(task=task))
        self.net = TransNASMicroNet(dict.fromkeys(micro.LABELS, "skip_connect"), task=task)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net(x)
        return y

    def freeze(self, sample: dict[str, Any]) -> TransNASMicroNet:
        """The network of a sample.

        Raises:
            nni.mutable.SampleValidationError: The sample is not of this space.
        """
        self.validate(sample)
        return TransNASMicroNet(sample, task=self.task)

    def code_space(self) -> CodeSpace:
        """The same space, free of NNI, with exact costs."""
        return micro.code_space(task=self.task)


class TransNASMacroSpace(ModelSpace):  # type: ignore[misc]
    """The space of `TransNASMacroNet` for NNI: the seven labels of the code space, in its order.

    A sample needs its active labels only.

    Args:
        task: A key of `TASKS`.

    Raises:
        ValueError: The task is unknown.
    """

    def __init__(self, task: str = "class_scene") -> None:
        super().__init__()
        self.task = task
        add_dimensions(self, macro.code_space(task=task))
        self.net = TransNASMacroNet(macro.from_module_types([4, 1, 1, 1]), task=task)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net(x)
        return y

    def check_contains(self, sample: Mapping[str, Any]) -> SampleValidationError | None:
        """What makes a sample invalid, or None."""
        return violation(macro.code_space(), sample)

    def freeze(self, sample: dict[str, Any]) -> TransNASMacroNet:
        """The network of a sample.

        Raises:
            nni.mutable.SampleValidationError: The sample is not of this space.
        """
        self.validate(sample)
        return TransNASMacroNet(sample, task=self.task)

    def code_space(self) -> CodeSpace:
        """The same space, free of NNI, with exact costs."""
        return macro.code_space(task=self.task)
