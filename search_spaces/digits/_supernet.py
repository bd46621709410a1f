"""The supernet of the digits space."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from torch import nn

from nni_aiop.search_spaces.digits._network import DigitsNetwork
from nni_aiop.search_spaces.digits._space import code_space
from nni_aiop.search_spaces.digits._training import load_split
from nni_aiop.supernet import (
    Batches,
    Labelling,
    Supernet,
    SupernetData,
    SupernetTraining,
    explained,
)

__all__ = ["supernet", "supernet_data"]

# Chosen on 80 architectures of another seed than those of benchmarks/supernet.py, so that training
# and labels of 100 architectures cost less than a tenth of their trainings.
_RECIPE = SupernetTraining(epochs=1, sampling="sandwich", count=2)
_LABELLING = Labelling(batches=1, steps=4)
_CALIBRATION = 150  # images


def supernet(*, apart: tuple[str, ...] = (), seed: int | None = None) -> Supernet:
    """The shared weights of all digits networks.

    Blocks of each kind have weights of their own at each place; widths and kernels are parts of the
    largest. A transition of stride 2 has its own convolution, the two poolings share one.

    Unless told otherwise it is trained briefly, and an architecture is labelled by what it reaches
    in four more steps with a head of its own: with so few seconds the steps tell more than the
    shared weights do (benchmarks/supernet.py has the figures). The label is no accuracy, but how
    much of the variance of the validation targets the head explains, in percent (`explained`,
    `val_explained`): it ranks networks better.

    Args:
        apart: Further labels each of whose values has weights of its own, such as `activation`.
        seed: Of the weights; None draws them from PyTorch's global generator.
    """
    return Supernet(
        code_space(),
        DigitsNetwork,
        place=place,
        apart=apart,
        head="head",
        data=supernet_data,
        recipe=_RECIPE,
        labelling=_LABELLING,
        seed=seed,
    )


def place(name: str, sample: Mapping[str, Any], network: nn.Module) -> str:
    """The shared tensor of a parameter of `DigitsNetwork`."""
    stage, rank, *rest = name.split(".")
    if stage.startswith("stage_"):
        op = sample[f"op_{stage[-1]}_{int(rank) + 1}"]
        return ".".join([stage, rank, op, *rest])
    if stage == "transition":
        kind = "stride" if sample["pooling"] == "stride" else "pool"
        return ".".join([stage, kind, rank, *rest])
    return name


@cache
def supernet_data() -> SupernetData:
    """The 500 training images in batches of 50, and every second of the validation images."""
    train, validation, _ = load_split()
    images, labels = validation.images[::2], validation.labels[::2]
    return SupernetData(
        train=Batches(*train, size=50, shuffle=True),
        validation=Batches(images, labels, size=len(labels)),
        calibration=Batches(*train, size=_CALIBRATION, shuffle=True),
        score=explained,
        metric="val_explained",
    )
