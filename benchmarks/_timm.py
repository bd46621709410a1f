"""timm without torchvision, whose wheels on the package index need CUDA beside a CPU torch.

timm reads a handful of names of torchvision when it is imported (transforms, datasets, the frozen
batch normalisation), and none of them builds a network. While timm is imported, they are empty
stand-ins; afterwards nothing of the name torchvision is left in `sys.modules`.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
from functools import cache
from types import ModuleType
from typing import Any, ClassVar

from torch import nn


class _Named(type):
    """A class any of whose attributes is its own name."""

    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class _StandInClass(metaclass=_Named):
    """What stands for a class or an enumeration."""


class _StandIn(ModuleType):
    """A module each of whose names is an empty class."""

    __path__: ClassVar[list[str]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        kind = _Named(name, (_StandInClass,), {"__module__": self.__name__})
        setattr(self, name, kind)
        return kind


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(
        self, name: str, path: Any = None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] == "torchvision":
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


@cache
def timm() -> Any:
    """The timm package.

    Raises:
        ModuleNotFoundError: timm is not installed.
    """
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        package = importlib.import_module("timm")
    finally:
        sys.meta_path.remove(finder)
        for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
    return package


def create(name: str, **options: Any) -> nn.Module:
    """A network of timm's, untrained, in evaluation mode."""
    model: nn.Module = timm().create_model(name, pretrained=False, **options).eval()
    return model


def input_shape(model: Any) -> tuple[int, int, int, int]:
    """Shape of one image as the network takes it."""
    channels, height, width = model.pretrained_cfg["input_size"]
    return (1, channels, height, width)
