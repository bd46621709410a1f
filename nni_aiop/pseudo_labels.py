"""Pseudo-labels of architectures on a new task, by one task head that all bodies share.

A network is a body, which turns images into one or several feature maps, and a head, which turns
feature maps into the task's output. One head is trained for all bodies of a search space that are
there already (trained on another task, or taken from a supernet); with any body it then needs
little or no fine-tuning to tell how good that body would be on the task.

Notation: x an image, S' the bodies in memory, f_B(x) a feature map of the body B, zeta standard
normal numbers, o a product element by element.

    mu(x) = mean over S' of f_B(x)               (AIO-P, Eq. 2)
    sigma^2(x) = variance over S' of f_B(x)      (AIO-P, Eq. 3)
    z(x) = mu(x) + zeta o sigma(x)               what the head is trained on

Source: Mills et al. 2023, "AIO-P: Expanding Neural Performance Predictors beyond Image
Classification", section "Training K-Adapters Based on Latent Sampling".
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

__all__ = [
    "METHODS",
    "BodyPool",
    "Loader",
    "NetworkOfBodyAndHead",
    "depth_bins",
    "feature_maps",
    "latent_sample",
    "latent_statistics",
    "pseudo_label",
    "train_shared_head",
]

T = TypeVar("T")

METHODS = ("latent_sampling", "body_swapping")
"""How a shared head is trained; the first is the paper's."""


class Loader(Protocol):
    """Mini-batches (images, targets), as often as they are asked for: a DataLoader, or a list."""

    def __iter__(self) -> Iterator[Any]: ...

    def __len__(self) -> int: ...


class NetworkOfBodyAndHead(nn.Module):
    """Images through a body, its feature maps through a head.

    Args:
        body: From images to a feature map, or to several in a sequence.
        head: From the list of feature maps to the task's output.
    """

    def __init__(self, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.head = head

    def forward(self, images: Tensor) -> Any:
        return self.head(feature_maps(self.body, images))


def feature_maps(body: nn.Module, images: Tensor) -> list[Tensor]:
    """The feature maps of a body, in a list even where there is one."""
    maps = body(images)
    return [maps] if isinstance(maps, Tensor) else list(maps)


def depth_bins(samples: Sequence[T], depth: Callable[[T], float], count: int = 5) -> list[list[T]]:
    """The samples in `count` bins of about equal size, by rising depth.

    Args:
        samples: Architectures of a space, at least one for each bin.
        depth: Any figure by which bodies differ much: layers, blocks, FLOPs.
        count: Number of bins.

    Raises:
        ValueError: There are fewer samples than bins, or no bin.
    """
    if not 1 <= count <= len(samples):
        raise ValueError(
            f"bins must number 1 to {len(samples)} as there are samples, but got {count}."
        )
    order = sorted(range(len(samples)), key=lambda i: depth(samples[i]))
    return [[samples[i] for i in part] for part in np.array_split(order, count)]


def latent_statistics(bodies: Sequence[nn.Module], images: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Mean and standard deviation over bodies of each feature map, for every image (Eqs. 2, 3).

    Args:
        bodies: At least one, all with feature maps of the same shapes.
        images: (batch, ...).

    Returns:
        For each feature map a pair of its shape (batch, ...).

    Raises:
        ValueError: There is no body, or the shapes differ.
    """
    if not bodies:
        raise ValueError("there must be at least one body, but got none.")
    maps = [feature_maps(body, images) for body in bodies]
    shapes = {tuple(tuple(part.shape) for part in one) for one in maps}
    if len(shapes) > 1:
        raise ValueError(
            f"feature maps of all bodies must have the same shapes, but got {sorted(shapes)}."
        )
    stacks = [torch.stack(parts) for parts in zip(*maps, strict=True)]
    return [(stack.mean(0), stack.std(0, correction=0)) for stack in stacks]


def latent_sample(
    statistics: Sequence[tuple[Tensor, Tensor]], generator: torch.Generator
) -> list[Tensor]:
    """z = mu + zeta o sigma of each feature map, with zeta drawn anew for every number."""
    return [
        mean + std * torch.randn(mean.shape, generator=generator).to(mean)
        for mean, std in statistics
    ]


class BodyPool(Generic[T]):
    """S': a few bodies of every depth bin in memory, the oldest replaced in turn (round robin).

    Args:
        bins: Architectures in bins, as `depth_bins` makes them.
        body_of: The trained body of an architecture; it is put in evaluation mode.
        per_bin: Bodies of each bin in memory.
        seed: Of the choice of bodies.
    """

    def __init__(
        self,
        bins: Sequence[Sequence[T]],
        body_of: Callable[[T], nn.Module],
        *,
        per_bin: int = 3,
        seed: int = 0,
    ) -> None:
        if not bins or not all(len(part) for part in bins):
            raise ValueError("there must be at least one bin and no empty one.")
        if per_bin < 1:
            raise ValueError(f"bodies of each bin must number at least 1, but got {per_bin}.")
        self.bins = bins
        self.body_of = body_of
        self._random = np.random.default_rng(seed)
        self._next = 0
        size = per_bin * len(bins)
        self.bodies: deque[nn.Module] = deque((self._draw() for _ in range(size)), maxlen=size)

    def replace_oldest(self) -> None:
        """The body that has been here longest makes room for a new one of its bin."""
        self.bodies.append(self._draw())

    def _draw(self) -> nn.Module:
        part = self.bins[self._next % len(self.bins)]
        self._next += 1
        return self.body_of(part[int(self._random.integers(len(part)))]).eval()


def train_shared_head(
    head: nn.Module,
    bins: Sequence[Sequence[T]],
    body_of: Callable[[T], nn.Module],
    loader: Loader,
    loss: Callable[[Any, Any], Tensor],
    *,
    method: str = "latent_sampling",
    epochs: int = 10,
    per_bin: int = 3,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.01,
    seed: int = 0,
    on_epoch: Callable[[int, float], None] | None = None,
) -> nn.Module:
    """A copy of the head, trained to work with every body of a search space; bodies stay as is.

    `body_swapping` shows the head the feature maps of one random body for each mini-batch.
    `latent_sampling` draws them, image by image, from the distribution over the bodies of a
    `BodyPool`, of which one is replaced after each mini-batch. AdamW with a one-cycle rate.

    Args:
        head: From the list of feature maps to the task's output; it stays as it is.
        bins: Architectures in bins, as `depth_bins` makes them; body swapping draws from all alike.
        body_of: The trained body of an architecture, on the device of the images. It is called
            once for each mini-batch and may remember what it made.
        loader: Mini-batches (images, targets).
        loss: Of the head's output and the targets, a scalar.
        method: One of `METHODS`.
        epochs: Passes over the loader.
        per_bin: Bodies of each bin in memory, for latent sampling.
        learning_rate: At its peak.
        weight_decay: Of AdamW.
        seed: Of the bodies, of zeta, and of what the head itself draws.
        on_epoch: Called after each epoch with its number, from 1, and its mean loss.

    Raises:
        ValueError: The method is unknown, a number is less than 1, a bin is empty, or bodies'
            feature maps differ in shape.
    """
    if method not in METHODS:
        raise ValueError(f"a method must be one of {', '.join(METHODS)}, but got {method!r}.")
    features = (
        _of_distribution(BodyPool(bins, body_of, per_bin=per_bin, seed=seed), seed)
        if method == "latent_sampling"
        else _of_one_body(BodyPool([[s for b in bins for s in b]], body_of, per_bin=1, seed=seed))
    )
    trained = copy.deepcopy(head)
    _train(
        trained,
        lambda images: trained(features(images)),
        loader,
        loss,
        epochs=epochs,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        seed=seed,
        on_epoch=on_epoch,
    )
    return trained.eval()


def pseudo_label(
    body: nn.Module,
    head: nn.Module,
    evaluate: Callable[[nn.Module], float],
    loader: Loader | None = None,
    loss: Callable[[Any, Any], Tensor] | None = None,
    *,
    epochs: int = 1,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.01,
    seed: int = 0,
) -> float:
    """The metric of a body with the shared head, after a brief fine-tuning of copies of both.

    Without a loader nothing is trained, and the body is judged as it is.

    Args:
        body: The body that is labelled; it stays as it is.
        head: What `train_shared_head` returned; it stays as it is.
        evaluate: From a network (images to the task's output), in evaluation mode, to its metric.
        loader: Mini-batches (images, targets) of the fine-tuning.
        loss: Of the output and the targets, a scalar.
        epochs: Passes over the loader.
        learning_rate: At its peak; AdamW with a one-cycle rate.
        weight_decay: Of AdamW.
        seed: Of what the network itself draws.

    Raises:
        ValueError: There is a loader but no loss, or not at least one epoch.
    """
    network = NetworkOfBodyAndHead(copy.deepcopy(body), copy.deepcopy(head))
    if loader is not None:
        if loss is None:
            raise ValueError("fine-tuning must have a loss, but got none.")
        _train(
            network,
            network,
            loader,
            loss,
            epochs=epochs,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            seed=seed,
        )
    return float(evaluate(network.eval()))


def _of_one_body(pool: BodyPool[T]) -> Callable[[Tensor], list[Tensor]]:
    @torch.no_grad()
    def features(images: Tensor) -> list[Tensor]:
        maps = feature_maps(pool.bodies[0], images)
        pool.replace_oldest()
        return maps

    return features


def _of_distribution(pool: BodyPool[T], seed: int) -> Callable[[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def features(images: Tensor) -> list[Tensor]:
        z = latent_sample(latent_statistics(pool.bodies, images), generator)
        pool.replace_oldest()
        return z

    return features


def _train(
    module: nn.Module,
    run: Callable[[Tensor], Any],
    loader: Loader,
    loss: Callable[[Any, Any], Tensor],
    *,
    epochs: int,
    learning_rate: float,
    weight_decay: float,
    seed: int,
    on_epoch: Callable[[int, float], None] | None = None,
) -> None:
    """Trains every parameter of the module, which `run` reads, in place."""
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, but got {epochs}.")
    module.train().requires_grad_()
    optimizer = torch.optim.AdamW(module.parameters(), lr=learning_rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=epochs * len(loader), pct_start=0.25
    )
    devices = {p.device for p in module.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=list(devices)):
        torch.manual_seed(seed)
        for epoch in range(1, epochs + 1):
            total = 0.0
            for images, targets in loader:
                value = loss(run(images), targets)
                optimizer.zero_grad()
                value.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                total += value.item()
            if on_epoch is not None:
                on_epoch(epoch, total / len(loader))
