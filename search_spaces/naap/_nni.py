"""NAAP-440's schemes as an NNI ModelSpace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nni_aiop.engines._nni import importing_nni
from nni_aiop.search_spaces._nni_rules import add_dimensions, violation
from nni_aiop.search_spaces.naap._network import NAAPNet
from nni_aiop.search_spaces.naap._space import code_space
from nni_aiop.spaces import CodeSpace

with importing_nni():
    from nni.mutable import SampleValidationError
    from nni.nas.nn.pytorch import ModelSpace

__all__ = ["NAAPSpace"]


class NAAPSpace(ModelSpace):  # type: ignore[misc]
    """The space of `NAAPNet` for NNI: the eleven labels of the code space, in its order.

    A sample needs its active labels only.
    """

    def __init__(self) -> None:
        super().__init__()
        add_dimensions(self, code_space())
        self.net = NAAPNet(code_space().complete({}))

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.net(x)
        return scores

    def check_contains(self, sample: Mapping[str, Any]) -> SampleValidationError | None:
        """What makes a sample invalid, or None."""
        return violation(code_space(), sample)

    def freeze(self, sample: dict[str, Any]) -> NAAPNet:
        """The network of a sample.

        Raises:
            nni.mutable.SampleValidationError: The sample is not of this space.
        """
        self.validate(sample)
        return NAAPNet(sample)

    def code_space(self) -> CodeSpace:
        """The same space, free of NNI, with exact costs, features and graphs."""
        return code_space()
