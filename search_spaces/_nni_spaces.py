"""What the ready spaces share as NNI ModelSpaces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from torch import Tensor, nn

from nni_aiop.engines._nni import importing_nni
from nni_aiop.spaces import CodeSpace, Nominal, Ordinal

with importing_nni():
    from nni.mutable import Categorical, ConstraintViolation, SampleValidationError
    from nni.nas.nn.pytorch import ModelSpace

__all__ = ["ConditionalSpace", "ReadySpace"]

Network = TypeVar("Network", bound=nn.Module)


# Generic comes first: NNI's `__init_subclass__` calls no further one. It wraps constructors, unless
# it is told not to.
class ReadySpace(Generic[Network], ModelSpace, disable_init_wrapper=True):  # type: ignore[misc, call-arg]
    """A ModelSpace whose labels are those of a code space, in its order.

    A subclass supplies `network` and `code_space`, and calls `fill` when it is made.
    """

    net: Network

    def fill(self, sample: Mapping[str, Any]) -> None:
        """Adds the dimensions of the code space, and the network of one sample as what is run."""
        for dimension in self.code_space().dimensions:
            assert isinstance(dimension, Nominal | Ordinal)
            self.add_mutable(Categorical(list(dimension.values), label=dimension.label))
        self.net = self.network(sample)

    def network(self, sample: Mapping[str, Any]) -> Network:
        """The network of a valid sample."""
        raise NotImplementedError

    def code_space(self) -> CodeSpace:
        """The same space, free of NNI, with exact costs and what else it knows."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net(x)
        return y

    @classmethod
    def create_fixed_module(cls, sample: dict[str, Any], *args: Any, **kwargs: Any) -> Network:
        """The network of a sample: what NNI gets when it makes the space for one model."""
        # Called as a class, the space would be made for one model again.
        space = nn.Module.__new__(cls)
        space.__init__(*args, **kwargs)  # type: ignore[misc]
        return space.freeze(sample)

    def freeze(self, sample: dict[str, Any]) -> Network:
        """The network of a sample.

        Raises:
            nni.mutable.SampleValidationError: The sample is not of this space.
        """
        self.validate(sample)
        return self.network(sample)


class ConditionalSpace(ReadySpace[Network], disable_init_wrapper=True):  # type: ignore[call-arg]
    """One whose samples need their active labels only."""

    def check_contains(self, sample: Mapping[str, Any]) -> SampleValidationError | None:
        """What makes a sample invalid, or None; inactive labels may be missing, others be there."""
        space = self.code_space()
        broken = space.violation({k: value for k, value in sample.items() if k in space.labels})
        return None if broken is None else ConstraintViolation(broken)
