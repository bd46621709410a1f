"""NAS-Bench-201's cells as an NNI ModelSpace."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from nni_aiop.engines._nni import importing_nni
from nni_aiop.search_spaces.nasbench201._cells import dimensions
from nni_aiop.search_spaces.nasbench201._network import NASBench201Net
from nni_aiop.search_spaces.nasbench201._space import code_space
from nni_aiop.spaces import CodeSpace

with importing_nni():
    from nni.mutable import Categorical, ensure_frozen
    from nni.nas.nn.pytorch import ModelSpace

__all__ = ["NASBench201Space"]


class NASBench201Space(ModelSpace):  # type: ignore[misc]
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
        cell = {
            dimension.label: ensure_frozen(
                self.add_mutable(Categorical(list(dimension.values), label=dimension.label))
            )
            for dimension in dimensions()
        }
        self.net = NASBench201Net(cell, data=data)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.net(x)
        return scores

    def freeze(self, sample: dict[str, Any]) -> NASBench201Net:
        """The network of a sample.

        Raises:
            nni.mutable.SampleValidationError: The sample is not of this space.
        """
        self.validate(sample)
        return NASBench201Net(sample, data=self.data)

    def code_space(self) -> CodeSpace:
        """The same space, free of NNI, with exact costs and features."""
        return code_space(data=self.data)
