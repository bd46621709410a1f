"""Labels of architectures by a supernet: what one network reaches with the shared weights.

Every architecture needs statistics of batch normalisation of its own. What else shared weights
lack most is a classifier that fits them: it is one for all networks, whose features differ. Where
the supernet knows it (`head`), it is replaced by the classifier of least squares, which costs
nothing beside the pass that takes the statistics. A few steps of training then tell how well the
network learns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nni_aiop.supernet._data import SHARPNESS, Loader, SupernetData, moved, seed_generators

__all__ = ["Labelling", "make_ready", "mean_score", "recalibrate", "refit_head"]

_RIDGE = 0.01  # of standardised features


@dataclass(frozen=True)
class Labelling:
    """How a network of a supernet is made ready to be measured.

    Args:
        batches: Mini-batches of the calibration (or training) data from which the statistics of
            batch normalisation are taken, and a head is fitted.
        refit: Whether the head is replaced by the classifier of least squares; by default where
            the supernet has one.
        steps: Updates of the network's copy of the weights, each on a batch of the training data;
            0 labels the shared weights as they are.
        learning_rate: Of these steps (AdamW).
        weight_decay: Of these steps.
        seed: Of the order of a loader that shuffles: it is the same for every architecture.

    Raises:
        ValueError: A number is out of range.
    """

    batches: int = 10
    refit: bool | None = None
    steps: int = 0
    learning_rate: float = 0.01
    weight_decay: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("batches", 1), ("steps", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, but got {getattr(self, name)}.")
        for name in ("learning_rate", "weight_decay"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be a number of 0 or more, but got {value}.")


def make_ready(
    network: nn.Module, data: SupernetData, how: Labelling, head: str | None = None
) -> nn.Module:
    """The network itself, which has the weights of a supernet, ready to predict.

    Args:
        network: It is changed.
        data: What it learns from; the validation data are not looked at.
        how: What is done.
        head: Name of the linear layer that gives the class scores, where there is one.

    Raises:
        ValueError: A head is to be fitted, but there is none.
    """
    refit = head is not None if how.refit is None else how.refit
    if refit and head is None:
        raise ValueError("a head can be fitted where the supernet names one, but it names none.")
    if how.steps:
        if refit:
            _calibrate(network, data, how, head)
        _train(network, data, how)
    _calibrate(network, data, how, head if refit else None)
    return network


def recalibrate(
    network: nn.Module, loader: Loader, *, batches: int = 10, seed: int = 0
) -> nn.Module:
    """The network itself, in evaluation mode, with new statistics of its batch normalisation.

    They are the means over the first mini-batches, each weighing the same. Those of a network whose
    weights are shared fit no other (Yu & Huang 2019, section 3.4).

    Args:
        network: Its parameters stay as they are.
        loader: Mini-batches (inputs, targets).
        batches: How many to take.
        seed: Of the loader's order, where it shuffles.

    Raises:
        ValueError: The number is not at least 1.
    """
    if batches < 1:
        raise ValueError(f"batches must be at least 1, but got {batches}.")
    for _ in _calibration(network, loader, batches, seed):
        pass
    return network.eval()


def refit_head(
    network: nn.Module, head: str, loader: Loader, *, batches: int = 10, seed: int = 0
) -> nn.Module:
    """`recalibrate`, and a head that is fitted by least squares to what comes to it.

    The features of each mini-batch are those that its own statistics give. Targets that are classes
    are fitted one-hot, with a small ridge; the scores are then spread so that their softmax is
    a sensible distribution.

    Args:
        network: Its other parameters stay as they are.
        head: Name of the linear layer whose outputs are the network's.
        loader: Mini-batches (inputs, targets).
        batches: How many to take.
        seed: Of the loader's order, where it shuffles.

    Raises:
        ValueError: There is no such linear layer, or the targets are no classes or vectors.
    """
    layer = dict(network.named_modules()).get(head)
    if not isinstance(layer, nn.Linear):
        raise ValueError(f"a head must be the name of a linear layer, but got {head!r}.")
    seen: list[Tensor] = []
    wanted: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    try:
        for targets in _calibration(network, loader, batches, seed):
            wanted.append(targets)
    finally:
        handle.remove()
    _fit(layer, torch.cat(seen), torch.cat(wanted))
    return network.eval()


@torch.no_grad()
def mean_score(network: nn.Module, loader: Loader, score: Callable[[Any, Any], Tensor]) -> float:
    """The mean of the score over all inputs of a loader, the network in evaluation mode.

    Raises:
        ValueError: There is no input.
    """
    device = next(network.parameters()).device
    network.eval()
    total, count = 0.0, 0
    with torch.random.fork_rng(devices=[]):
        seed_generators(0, device)
        for inputs, targets in loader:
            scores = score(_run(network, inputs, device), moved(targets, device))
            total += float(scores.sum())
            count += scores.numel()
    if not count:
        raise ValueError("validation data must have at least one input, but has none.")
    return total / count


def _calibrate(network: nn.Module, data: SupernetData, how: Labelling, head: str | None) -> None:
    loader = data.train if data.calibration is None else data.calibration
    if head is None:
        recalibrate(network, loader, batches=how.batches, seed=how.seed)
    else:
        refit_head(network, head, loader, batches=how.batches, seed=how.seed)


@torch.no_grad()
def _calibration(network: nn.Module, loader: Loader, batches: int, seed: int) -> Iterator[Tensor]:
    """Pass the first mini-batches through, for new statistics; the targets of each."""
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.train().reset_running_stats()
        norm.momentum = None  # PyTorch's name for the plain mean
    device = next(network.parameters()).device
    with torch.random.fork_rng(devices=[]):
        seed_generators(seed, device)
        for inputs, targets in islice(loader, batches):
            _run(network, inputs, device)
            yield moved(targets, device)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@torch.no_grad()
def _fit(layer: nn.Linear, features: Tensor, targets: Tensor) -> None:
    """Fit weight and bias by least squares, with a ridge on standardised features."""
    classes = layer.out_features
    spread = 1.0
    if targets.ndim == 1 and not targets.is_floating_point():
        targets = nn.functional.one_hot(targets, classes)
        spread = SHARPNESS
    if features.ndim != 2 or targets.shape != (len(features), classes):
        raise ValueError(
            f"a head of {classes} outputs is fitted to features (n, d) and classes (n,), "
            f"but got {tuple(features.shape)} and {tuple(targets.shape)}."
        )
    x, y = features.double(), targets.double()
    mean, std = x.mean(0), x.std(0, correction=0) + 1e-6
    x = (x - mean) / std
    centre = y.mean(0)
    ridge = _RIDGE * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    solved = torch.linalg.solve(x.T @ x / len(x) + ridge, x.T @ (y - centre) / len(x))
    weight = (solved / std[:, None]).T
    layer.weight.copy_(spread * weight)
    if layer.bias is not None:
        layer.bias.copy_(spread * (centre - weight @ mean))


def _train(network: nn.Module, data: SupernetData, how: Labelling) -> None:
    """A few updates on batches of the training data, of all parameters."""
    device = next(network.parameters()).device
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=how.learning_rate, weight_decay=how.weight_decay, foreach=True
    )
    network.train()
    done = 0
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        seed_generators(how.seed, device)
        while done < how.steps:
            before = done
            for inputs, targets in islice(data.train, how.steps - done):
                loss = data.loss(_run(network, inputs, device), moved(targets, device))
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                done += 1
            if done == before:
                raise ValueError("training data must have at least one batch, but has none.")


def _run(network: nn.Module, inputs: Any, device: torch.device) -> Any:
    given = moved(inputs, device)
    return network(*given) if isinstance(given, tuple) else network(given)
