"""The body: a stem, and modules of two blocks or cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from nni_aiop.search_spaces._four_nodes import EDGES

__all__ = [
    "BASE",
    "BLOCKS_PER_MODULE",
    "EDGES",
    "MODULE_TYPES",
    "SKELETON",
    "Block",
    "blocks",
    "doubles",
    "halves",
]

BASE = 64
"""Channels behind the stem, which has half of them between its two convolutions."""

BLOCKS_PER_MODULE = 2

MODULE_TYPES = (1, 2, 3, 4)
"""1 changes nothing, 2 doubles the channels, 3 halves the image, 4 does both."""

SKELETON = (4, 1, 4, 1, 4)
"""Types of the modules of the micro space."""


class Block(NamedTuple):
    """A block's channels and stride."""

    c_in: int
    c_out: int
    stride: int


def doubles(module_type: int) -> bool:
    """Whether a module of that type doubles the channels."""
    return module_type in (2, 4)


def halves(module_type: int) -> bool:
    """Whether a module of that type halves the image."""
    return module_type in (3, 4)


def blocks(module_types: Sequence[int]) -> list[Block]:
    """The blocks of a body; the first of each module does what its type says."""
    found = []
    channels = BASE
    for module_type in module_types:
        wider = channels * 2 if doubles(module_type) else channels
        found.append(Block(channels, wider, 2 if halves(module_type) else 1))
        found += [Block(wider, wider, 1)] * (BLOCKS_PER_MODULE - 1)
        channels = wider
    return found
