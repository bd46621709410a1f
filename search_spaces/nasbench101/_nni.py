"""NAS-Bench-101's cells as an NNI ModelSpace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nni_aiop.search_spaces._nni_spaces import ConditionalSpace
from nni_aiop.search_spaces.nasbench101._matrices import from_matrix
from nni_aiop.search_spaces.nasbench101._network import NASBench101Net
from nni_aiop.search_spaces.nasbench101._space import code_space
from nni_aiop.spaces import CodeSpace

__all__ = ["NASBench101Space"]


class NASBench101Space(ConditionalSpace[NASBench101Net]):
    """The space of `NASBench101Net` for NNI: the 26 labels of the code space, in its order.

    A sample needs its active labels only. NNI's own `nni.nas.hub.pytorch.NasBench101` is the same
    space with other labels.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fill(from_matrix([[0, 1], [0, 0]], []))

    def network(self, sample: Mapping[str, Any]) -> NASBench101Net:
        """The network of a valid sample."""
        return NASBench101Net(sample)

    def code_space(self) -> CodeSpace:
        """The same space, free of NNI, with exact costs."""
        return code_space()
