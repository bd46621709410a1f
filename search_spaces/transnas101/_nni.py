"""TransNAS-Bench-101's spaces as NNI ModelSpaces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nni_aiop.search_spaces._nni_spaces import ConditionalSpace, ReadySpace
from nni_aiop.search_spaces.transnas101 import _macro, _micro
from nni_aiop.search_spaces.transnas101._network import TransNASMacroNet, TransNASMicroNet
from nni_aiop.spaces import CodeSpace

__all__ = ["TransNASMacroSpace", "TransNASMicroSpace"]


class TransNASMicroSpace(ReadySpace[TransNASMicroNet]):
    """The space of `TransNASMicroNet` for NNI: the six labels of the code space, in its order.

    Args:
        task: A key of `TASKS`.

    Raises:
        ValueError: The task is unknown.
    """

    def __init__(self, task: str = "class_scene") -> None:
        super().__init__()
        self.task = task
        self.fill(dict.fromkeys(_micro.LABELS, "skip_connect"))

    def network(self, sample: Mapping[str, Any]) -> TransNASMicroNet:
        """The network of a valid sample."""
        return TransNASMicroNet(sample, task=self.task)

    def code_space(self) -> CodeSpace:
        """The same space, free of NNI, with exact costs."""
        return _micro.code_space(task=self.task)


class TransNASMacroSpace(ConditionalSpace[TransNASMacroNet]):
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
        self.fill(_macro.from_module_types([4, 1, 1, 1]))

    def network(self, sample: Mapping[str, Any]) -> TransNASMacroNet:
        """The network of a valid sample."""
        return TransNASMacroNet(sample, task=self.task)

    def code_space(self) -> CodeSpace:
        """The same space, free of NNI, with exact costs."""
        return _macro.code_space(task=self.task)
