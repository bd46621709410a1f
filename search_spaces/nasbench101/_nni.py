"""NAS-Bench-101's cells as an NNI ModelSpace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nni_aiop.engines._nni import importing_nni
from nni_aiop.search_spaces._nni_rules import add_dimensions, violation
from nni_aiop.search_spaces.nasbench101._matrices import from_matrix
from nni_aiop.search_spaces.nasbench101._network import NASBench101Net
from nni_aiop.search_spaces.nasbench101._space import code_space
from nni_aiop.spaces import CodeSpace

with importing_nni():
    from nni.mutable import SampleValidationError
    from nni.nas.nn.pytorch import ModelSpace

__all__ = ["NASBench101Space"]


class NASBench101Space(ModelSpace):  # type: ignore[misc]
    """The space of `NASBench101Net` for NNI: the 26 labels of the code space, in its order.

    A sample needs its active labels only. NNI's own `nni.nas.hub.pytorch.NasBench101` is the same
    space with other labels.
    """

    def __init__(self) -> None:
        super().__init__()
        add_dimensions(self, code_space())
        self.net = NASBench101Net(from_matrix([[0, 1], [0, 0]], []))

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.net(x)
        return scores

    def check_contains(self, sample: Mapping[str, Any]) -> SampleValidationError | None:
        """What makes a sample invalid, or None."""
        return violation(code_space(), sample)

    def freeze(self, sample: dict[str, Any]) -> NASBench101Net:
        """The network of a sample.

        Raises:
            nni.mutable.SampleValidationError: The sample is not of this space.
        """
        self.validate(sample)
        return NASBench101Net(sample)

    def code_space(self) -> CodeSpace:
        """The same space, free of NNI, with exact costs."""
        return code_space()
