"""Real training of digits networks: the data, its fixed split, and a short seeded schedule.

The images are scikit-learn's digits (8 x 8 pixels, 1,797 images, in the installed package: nothing
is downloaded). The split is fixed and stratified: of each class 50 images train, 60 validate and
the rest (697 in all) test, drawn by NumPy's frozen `RandomState` stream with seed 0. Only the
validation accuracy may steer a search; the test accuracy is there to be reported.

The schedule is short on purpose (500 images, 8 epochs): random networks then lie between about 25
and 97 % with a median of 70 %, and seeds differ by 1 (among the best) to 4 percentage points; with
60 epochs they lie between about 84 and 98 %.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nni_aiop.search_spaces.digits._costs import CLASSES
from nni_aiop.search_spaces.digits._network import build
from nni_aiop.search_spaces.digits._space import code_space

__all__ = ["EPOCHS", "Images", "Split", "load_split", "split_indices", "train_and_evaluate"]

EPOCHS = 8
_BATCH = 50
_LEARNING_RATE = 0.01
_WEIGHT_DECAY = 0.01
_TRAIN_PER_CLASS = 50
_VALIDATION_PER_CLASS = 60
_SPLIT_SEED = 0
# Mean and standard deviation of the pixels (0 to 16) over the whole data set, rounded.
_PIXEL_MEAN, _PIXEL_STD = 4.9, 6.0


class Images(NamedTuple):
    """Images (n, 1, 8, 8) float32, standardised, and labels (n,) int64."""

    images: Tensor
    labels: Tensor


class Split(NamedTuple):
    """The three parts of the data, without an image in common."""

    train: Images
    validation: Images
    test: Images


def split_indices(labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
    """Indices of the training, validation and test images, class after class.

    Args:
        labels: (1797,) classes 0 to 9, in scikit-learn's order.
    """
    # RandomState's stream is frozen (NEP 19): the split is the same under every NumPy.
    random = np.random.RandomState(_SPLIT_SEED)
    cuts = (_TRAIN_PER_CLASS, _TRAIN_PER_CLASS + _VALIDATION_PER_CLASS)
    per_class = [
        np.split(random.permutation(np.flatnonzero(labels == c)), cuts) for c in range(CLASSES)
    ]
    return tuple(np.concatenate(part) for part in zip(*per_class, strict=True))


@cache
def load_split() -> Split:
    """Training (500), validation (600) and test (697) images."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = torch.from_numpy((pixels - _PIXEL_MEAN) / _PIXEL_STD).float().reshape(-1, 1, 8, 8)
    classes = torch.from_numpy(labels).long()
    return Split(*(Images(images[i], classes[i]) for i in split_indices(labels)))


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread inside: for tensors this small it is the fastest, and sums keep their order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@torch.no_grad()
def _accuracy(network: nn.Module, data: Images) -> float:
    """Accuracy in percent."""
    network.eval()
    hits = (network(data.images).argmax(dim=1) == data.labels).sum()
    return 100.0 * int(hits) / len(data.labels)


def train_and_evaluate(
    sample: Mapping[str, Any],
    *,
    epochs: int = EPOCHS,
    seed: int = 0,
    on_epoch: Callable[[int, float], None] | None = None,
) -> dict[str, float]:
    """Metrics of the network of `sample` after training it, the same for the same arguments.

    AdamW with a one-cycle learning rate (peak 0.01), batches of 50, cross-entropy. Weights and
    batches come from generators of their own: PyTorch's global one is neither read nor moved.

    Args:
        sample: A sample of the space, inactive labels present or not.
        epochs: Passes over the 500 training images.
        seed: Seed of the weights and of the batches.
        on_epoch: Called after each epoch with its number, from 1, and the validation accuracy in
            percent; what it raises (Optuna's TrialPruned, say) ends the training and passes
            through.

    Returns:
        `default` and `val_accuracy`: validation accuracy in percent; `test_accuracy` in percent;
        `flops`: MACs of one image; `params`.

    Raises:
        SpaceError: The sample breaks a rule of the space.
        ValueError: There is not at least one epoch.
    """
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, but got {epochs}.")
    space = code_space()
    network = build(sample, seed=seed)
    split = load_split()
    images, labels = split.train
    batches = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, _LEARNING_RATE, total_steps=epochs * (len(labels) // _BATCH), pct_start=0.25
    )
    accuracy = 0.0
    with _one_thread():
        for epoch in range(1, epochs + 1):
            network.train()
            for batch in torch.randperm(len(labels), generator=batches).view(-1, _BATCH):
                loss = nn.functional.cross_entropy(network(images[batch]), labels[batch])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
            if on_epoch is not None or epoch == epochs:
                accuracy = _accuracy(network, split.validation)
            if on_epoch is not None:
                on_epoch(epoch, accuracy)
        test_accuracy = _accuracy(network, split.test)
    codes = space.encode([sample])
    return {
        "default": accuracy,
        "val_accuracy": accuracy,
        "test_accuracy": test_accuracy,
        "flops": float(space.cost("flops", codes)[0]),
        "params": float(space.cost("params", codes)[0]),
    }
