"""NAAP-440's schemes as an NNI ModelSpace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nni_aiop.search_spaces._nni_spaces import ConditionalSpace
from nni_aiop.search_spaces.naap._network import NAAPNet
from nni_aiop.search_spaces.naap._space import code_space
from nni_aiop.search_spaces.naap._supernet import supernet
from nni_aiop.spaces import CodeSpace
from nni_aiop.supernet import Supernet

__all__ = ["NAAPSpace"]


class NAAPSpace(ConditionalSpace[NAAPNet]):
    """The space of `NAAPNet` for NNI: the eleven labels of the code space, in its order.

    A sample needs its active labels only.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fill(code_space().complete({}))

    def network(self, sample: Mapping[str, Any]) -> NAAPNet:
        """The network of a valid sample."""
        return NAAPNet(sample)

    def code_space(self) -> CodeSpace:
        """The same space, free of NNI, with exact costs, features and graphs."""
        return code_space()

    def supernet(self, **options: Any) -> Supernet:
        """The shared weights of all networks; see the function `supernet` of the space."""
        return supernet(**options)
