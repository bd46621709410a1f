"""What a supernet is trained on, and what its networks are measured on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nni_aiop.pseudo_labels import Loader

__all__ = [
    "SHARPNESS",
    "Batches",
    "Loader",
    "SupernetData",
    "accuracy",
    "as_data",
    "explained",
    "moved",
    "seed_generators",
]

SHARPNESS = 10.0
"""Factor of a fitted head's class scores, which least squares leaves between 0 and 1."""


class Batches:
    """Mini-batches of tensors in memory.

    Args:
        inputs: (n, ...).
        targets: (n, ...).
        size: Of a batch; the last one may be smaller, unless they are shuffled: then what would be
            left over waits for another pass.
        shuffle: Whether each pass has another order, drawn from PyTorch's global generator.

    Raises:
        ValueError: The tensors are not of one length, or a batch has no or too many inputs.
    """

    def __init__(
        self, inputs: Tensor, targets: Tensor, size: int = 50, *, shuffle: bool = False
    ) -> None:
        if len(inputs) != len(targets):
            raise ValueError(
                f"there must be as many targets as inputs, {len(inputs)}, but got {len(targets)}."
            )
        if not 1 <= size <= len(inputs):
            raise ValueError(
                f"a batch must have 1 to {len(inputs)} inputs, as there are, but got {size}."
            )
        self.inputs = inputs
        self.targets = targets
        self.size = size
        self.shuffle = shuffle

    def __len__(self) -> int:
        n = len(self.inputs)
        return n // self.size if self.shuffle else -(-n // self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        n = len(self.inputs)
        order = torch.randperm(n) if self.shuffle else torch.arange(n)
        for i in range(len(self)):
            batch = order[i * self.size : (i + 1) * self.size]
            yield self.inputs[batch], self.targets[batch]


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """(batch,) 100 where the largest output is the target's class, 0 elsewhere: percent."""
    return 100.0 * (outputs.argmax(dim=1) == targets)


def explained(outputs: Tensor, targets: Tensor) -> Tensor:
    """(batch,) percent of the variance of one-hot targets that a fitted head explains.

    Classes are taken as equally frequent. Each image gives a number, where `accuracy` only counts
    it: from few images networks are told apart better. The mean is 100 for perfect scores, 0 for
    scores that know nothing, and below 0 for misleading ones.

    Args:
        outputs: (batch, classes) scores of a head of least squares (`refit_head`).
        targets: (batch,) classes.
    """
    classes = outputs.shape[1]
    wanted = nn.functional.one_hot(targets, classes)
    missed = (outputs / SHARPNESS - wanted).square().sum(dim=1)
    return 100.0 * (1.0 - missed / (1.0 - 1.0 / classes))


@dataclass(frozen=True)
class SupernetData:
    """Data of a task, and how a network's outputs are judged.

    Args:
        train: Mini-batches (inputs, targets), as often as they are asked for: a DataLoader, or
            `Batches`.
        validation: The same to label networks by; nothing is learned from it.
        calibration: The same to take the statistics of batch normalisation from; by default
            `train`. Few and large ones are quickest.
        loss: Of outputs and targets, a scalar; cross entropy by default.
        score: Of outputs and targets, a number for each (batch,), whose mean is the label;
            accuracy in percent by default.
        metric: What the label is called, beside `default`.
        name: What tells this data from other: a checkpoint goes on with data of its name only.
    """

    train: Loader
    validation: Loader
    calibration: Loader | None = None
    loss: Callable[[Any, Any], Tensor] = nn.functional.cross_entropy
    score: Callable[[Any, Any], Tensor] = accuracy
    metric: str = "val_accuracy"
    name: str = ""


def as_data(given: Any) -> SupernetData:
    """The data that is meant by a SupernetData, or by a pair of loaders (train, validation).

    Raises:
        TypeError: It is neither.
    """
    if isinstance(given, SupernetData):
        return given
    if isinstance(given, tuple | list) and len(given) == 2:
        return SupernetData(*given)
    raise TypeError(
        "data must be a SupernetData, or a pair of loaders for training and validation, "
        f"but got {type(given).__name__}."
    )


def moved(given: Any, device: torch.device) -> Any:
    """Tensors, also those of a sequence, on a device; a sequence as a tuple."""
    if isinstance(given, Tensor):
        return given.to(device)
    if isinstance(given, tuple | list):
        return tuple(moved(part, device) for part in given)
    return given


def seed_generators(seed: int, device: torch.device) -> None:
    """`torch.manual_seed`, for the CPU's generator alone where nothing else computes.

    PyTorch notes a stack trace at every call for devices that are not used yet: for small networks
    that was a tenth of a label's time.
    """
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)
