"""NAS-Bench-201's cells as an NNI ModelSpace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nni_aiop.search_spaces._nni_spaces import ReadySpace
from nni_aiop.search_spaces.nasbench201._cells import from_index
from nni_aiop.search_spaces.nasbench201._network import NASBench201Net
from nni_aiop.search_spaces.nasbench201._space import code_space
from nni_aiop.search_spaces.nasbench201._supernet import supernet
from nni_aiop.spaces import CodeSpace
from nni_aiop.supernet import Supernet

__all__ = ["NASBench201Space"]


class NASBench201Space(ReadySpace[NASBench201Net]):
    """The space of `NASBench201Net` for NNI: the six labels of the code space, in its order.

    NNI's own `nni.nas.hub.pytorch.NasBench201` is the same space with other labels.

    Args:
        data: "cifar10", "cifar100" or "imagenet16-120".

    Raises:
        ValueError: The data set is unknown.
    """

    def __init__(self, data: str = "cifar100") -> None:
        super().__init__()
        self.data = data
        self.fill(from_index(0))

    def network(self, sample: Mapping[str, Any]) -> NASBench201Net:
        """The network of a valid sample."""
        return NASBench201Net(sample, data=self.data)

    def code_space(self) -> CodeSpace:
        """The same space, free of NNI, with exact costs and features."""
        return code_space(data=self.data)

    def supernet(self, **options: Any) -> Supernet:
        """The shared weights of all networks; see the function `supernet` of the space."""
        return supernet(self.data, **options)
