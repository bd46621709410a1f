"""Training of a supernet: a few networks of each step share its batch."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nni_aiop.errors import FileFormatError
from nni_aiop.files import read_described, whole, write_described
from nni_aiop.supernet._data import SupernetData, moved
from nni_aiop.supernet._options import SupernetTraining
from nni_aiop.supernet._sampling import SAMPLINGS, Sampling
from nni_aiop.supernet._supernet import Supernet

__all__ = ["train_supernet"]

_CHECKPOINT = "nni_aiop.supernet.training"
_VERSION = 1
_SHARE = 0.05  # of the time that may go into checkpoints


def train_supernet(
    supernet: Supernet,
    data: SupernetData | None = None,
    training: SupernetTraining | None = None,
    *,
    progress: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    on_epoch: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Trains a supernet in place; the mean loss of each epoch.

    PyTorch's global generator is left as it was. A run that goes on from a checkpoint ends with
    the weights of an unbroken one, to the bit, where a loader's order comes from that generator
    (`Batches`, a DataLoader) and whatever else draws does, too.

    Args:
        supernet: Is trained where its weights are.
        data: By default the supernet's own.
        training: How; by default the supernet's own recipe.
        progress: Whether a terminal shows a bar.
        checkpoint: A file in which the training is kept after an epoch, unless that would take more
            than a twentieth of the time; where it is there already, training goes on from it.
        on_epoch: Called after each epoch with its number, from 1, and its mean loss.

    Raises:
        FileFormatError: The checkpoint is damaged, or of another training.
        FloatingPointError: The loss is no finite number any more.
        ValueError: There is no data, or distillation gets outputs that are no class scores.
    """
    options = training or supernet.recipe
    run = _Run(supernet, supernet.data_or(data), options)
    path = None if checkpoint is None else Path(checkpoint)
    if path is not None and path.exists():
        run.load(path)
    devices = [supernet.device] if supernet.device.type == "cuda" else []
    mode = supernet.training
    saved, spent = time.monotonic(), 0.0

    from tqdm import tqdm

    with tqdm(
        total=options.epochs, initial=run.done, unit="epoch", disable=None if progress else True
    ) as bar:
        try:
            supernet.train()
            while run.done < options.epochs:
                with torch.random.fork_rng(devices=devices):
                    run.epoch()
                bar.update()
                bar.set_postfix_str(f"loss {run.losses[-1]:.3f}", refresh=False)
                due = time.monotonic() - saved >= spent / _SHARE
                if path is not None and (due or run.done == options.epochs):
                    begun = time.monotonic()
                    run.save(path)
                    saved = time.monotonic()
                    spent = saved - begun
                if on_epoch is not None:
                    on_epoch(run.done, run.losses[-1])
        finally:
            supernet.train(mode)
    return list(run.losses)


@dataclass
class _Run:
    """A training under way."""

    supernet: Supernet
    data: SupernetData
    options: SupernetTraining
    losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        options = self.options
        steps = len(self.data.train)
        if steps < 1:
            raise ValueError("training data must have at least one batch, but has none.")
        self.sampling: Sampling = SAMPLINGS[options.sampling](
            self.supernet.space, options.count, options.seed
        )
        self._optimizer = torch.optim.AdamW(
            self.supernet.parameters(),
            lr=options.learning_rate,
            weight_decay=options.weight_decay,
            foreach=True,
        )
        total = max(options.epochs * steps, 4)  # a cycle has a rise and a fall
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimizer,
            options.learning_rate,
            total_steps=total,
            pct_start=max(0.25, 2 / total),
        )

    @property
    def done(self) -> int:
        """Number of epochs so far."""
        return len(self.losses)

    def epoch(self) -> None:
        """One pass over the training data, whatever is drawn from a seed of its own."""
        torch.manual_seed(hash_of(self.options.seed, self.done))
        total = 0.0
        count = 0
        for batch in self.data.train:
            total += self._step(*batch)
            count += 1
        mean = total / max(count, 1)
        if not math.isfinite(mean):
            raise FloatingPointError(
                f"the loss must be a finite number, but is {mean} after epoch {self.done + 1}: "
                "lower the learning rate."
            )
        self.losses.append(mean)

    def _step(self, inputs: Any, targets: Any) -> float:
        """One update; the mean loss of its networks."""
        device = self.supernet.device
        x, y = moved(inputs, device), moved(targets, device)
        samples = self.sampling.step()
        teacher: Tensor | None = None
        total = 0.0
        self._optimizer.zero_grad()
        for sample in samples:
            outputs = self.supernet(x, sample)
            if teacher is not None:
                loss = nn.functional.cross_entropy(outputs, teacher)
            else:
                loss = self.data.loss(outputs, y)
                if self.options.distill:
                    teacher = _probabilities(outputs)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        self._adopt()
        if self.options.clip is not None:
            nn.utils.clip_grad_norm_(self.supernet.parameters(), self.options.clip)
        self._optimizer.step()
        self._schedule.step()
        return total / len(samples)

    def _adopt(self) -> None:
        """Let the optimiser know the tensors that networks have needed since it was made."""
        known = self._optimizer.param_groups[0]["params"]
        known += list(self.supernet.weights.values())[len(known) :]

    # --- files ----------------------------------------------------------------------------------

    @property
    def _groups(self) -> list[dict[str, Any]]:
        groups: list[dict[str, Any]] = self._optimizer.state_dict()["param_groups"]
        return groups

    def _described(self) -> dict[str, Any]:
        return {
            "fingerprint": self.supernet.space.fingerprint,
            "options": asdict(self.options),
            "steps": len(self.data.train),
            "data": self.data.name,
        }

    def save(self, path: Path) -> None:
        """Write where it stands."""
        tensors: dict[str, NDArray[Any]] = {}
        names = list(self.supernet.weights)
        for name, value in self.supernet.arrays().items():
            tensors[f"weights.{name}"] = value
        for i, state in self._optimizer.state_dict()["state"].items():
            for key, value in state.items():
                tensors[f"adam.{names[i]}.{key}"] = torch.as_tensor(value).cpu().numpy()
        tensors["losses"] = np.array(self.losses)
        content = {
            "format": _CHECKPOINT,
            "version": _VERSION,
            **self._described(),
            "groups": [{k: v for k, v in g.items() if k != "params"} for g in self._groups],
            "schedule": self._schedule.state_dict(),
            "sampling": self.sampling.state(),
            "names": names,  # in the order of the optimiser
        }
        write_described(path, "supernet", content, tensors)

    def load(self, path: Path) -> None:
        """Go on exactly where a file was written.

        Raises:
            FileFormatError: It is damaged, or of another training.
        """
        content, tensors = read_described(
            path,
            "supernet",
            kind=_CHECKPOINT,
            version=_VERSION,
            what="a checkpoint of a supernet",
        )
        for name, value in self._described().items():
            if content.get(name) != value:
                raise FileFormatError(
                    f"{path} must be of the same training, but differs in its {name} "
                    f"({content.get(name)!r:.200}, not {value!r:.200}): delete it to train anew."
                )
        with whole(path, "a checkpoint", tensors):
            names = list(content["names"])
            self.supernet.load_arrays({name: tensors[f"weights.{name}"] for name in names})
            self._adopt()
            if list(self.supernet.weights) != names:
                raise ValueError("its tensors are in another order")
            moments: dict[int, dict[str, Tensor]] = {}
            for name, value in tensors.items():
                if name.startswith("adam."):
                    owner, _, key = name.removeprefix("adam.").rpartition(".")
                    moments.setdefault(names.index(owner), {})[key] = torch.as_tensor(value)
            groups = [
                {**own, **saved} for own, saved in zip(self._groups, content["groups"], strict=True)
            ]
            self._optimizer.load_state_dict({"state": moments, "param_groups": groups})
            self._schedule.load_state_dict(content["schedule"])
            self.sampling.restore(content["sampling"])
            self.losses = [float(loss) for loss in tensors["losses"]]
            if self.done > self.options.epochs:
                raise ValueError(f"it has {self.done} epochs, not {self.options.epochs} at most")


def hash_of(seed: int, epoch: int) -> int:
    """A seed of an epoch."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])


def _probabilities(outputs: Any) -> Tensor:
    """What the teacher teaches: its class probabilities, as they are."""
    if not isinstance(outputs, Tensor) or outputs.ndim < 2:
        shown = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ValueError(f"distillation needs class scores (batch, classes), but got {shown}.")
    return outputs.detach().softmax(dim=1)
