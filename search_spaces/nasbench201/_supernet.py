"""The supernet of NAS-Bench-201's cells."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import nn

from nni_aiop.search_spaces.nasbench201._cells import LABELS, OPERATIONS
from nni_aiop.search_spaces.nasbench201._network import NASBench201Net
from nni_aiop.search_spaces.nasbench201._space import code_space
from nni_aiop.supernet import Supernet

__all__ = ["supernet"]


def supernet(
    data: str = "cifar100", *, apart: tuple[str, ...] = (), seed: int | None = None
) -> Supernet:
    """The shared weights of all cells: on each edge of each cell those of both convolutions.

    It comes without data: `train_supernet` needs batches of images and classes.

    Args:
        data: "cifar10", "cifar100" or "imagenet16-120", which sets the number of classes.
        apart: Labels each of whose values has weights of its own.
        seed: Of the weights; None draws them from PyTorch's global generator.

    Raises:
        ValueError: The data set is unknown.
    """
    return Supernet(
        code_space(data=data),
        partial(NASBench201Net, data=data),
        place=place,
        reach=[dict.fromkeys(LABELS, operation) for operation in OPERATIONS],
        apart=apart,
        head="classifier",
        seed=seed,
    )


def place(name: str, sample: Mapping[str, Any], network: nn.Module) -> str:
    """The shared tensor of a parameter of `NASBench201Net`."""
    before, edges, rest = name.partition(".edges.")
    if not edges:
        return name
    edge, _, own = rest.partition(".")
    return f"{before}.edges.{edge}.{sample[LABELS[int(edge)]]}.{own}"
