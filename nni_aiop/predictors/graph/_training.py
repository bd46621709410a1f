"""The training loop: plain, reproducible, resumable, on any number of processes.

Nothing depends on the state of a random generator: the order of each epoch follows from the seed
and its number, so that a checkpoint is the module, the optimiser and a count of epochs. Where
`torch.distributed` is initialised, each process takes its share of every batch and gradients are
averaged (DistributedDataParallel).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import softplus

from nni_aiop.errors import FileFormatError
from nni_aiop.files import whole
from nni_aiop.predictors.graph._collation import GraphSet
from nni_aiop.predictors.graph._files import read_file, write_file

__all__ = ["LOSSES", "SCHEDULES", "Recipe", "train"]

LOSSES = ("mse", "rank", "both")
SCHEDULES = ("cosine", "constant")

_WARM_UP = 0.1  # of all steps
_LARGEST_GRADIENT = 1.0
_CHECKPOINT = "nni-aiop checkpoint"


@dataclass(frozen=True)
class Recipe:
    """How a module is trained.

    Attributes:
        epochs: Passes over the data.
        learning_rate: Of Adam, the highest one.
        batch_size: Graphs in a step, over all processes.
        loss: "mse"; "rank", the mean of -log sigmoid(s (p_i - p_j)) of predictions p over pairs
            with y_i > y_j; or "both", the first and `rank_weight` times the second.
        rank_weight: Of the second where there are both.
        rank_sharpness: s, so that pairs a little apart are left alone.
        schedule: "constant", or "cosine": up for a tenth of the steps, then down to 0.
        weight_decay: Decoupled, as in AdamW.
    """

    epochs: int = 40
    learning_rate: float = 6e-3
    batch_size: int = 32
    loss: str = "both"
    rank_weight: float = 1.0
    rank_sharpness: float = 5.0
    schedule: str = "cosine"
    weight_decay: float = 0.3

    def __post_init__(self) -> None:
        for name, choices in (("loss", LOSSES), ("schedule", SCHEDULES)):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} must be one of {', '.join(choices)}, but got {getattr(self, name)!r}."
                )
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, but got {getattr(self, name)}.")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, but got {self.learning_rate}.")


def train(
    module: nn.Module,
    data: GraphSet,
    targets: NDArray[np.float64],
    recipe: Recipe,
    *,
    seed: int,
    merged: bool = False,
    context: Sequence[Any] = (),
    identity: str = "",
    checkpoint: Path | str | None = None,
    progress: bool = False,
) -> list[float]:
    """The mean loss of each epoch; the module is trained in place.

    Args:
        module: Called as `module(batch, *context)`, returns (g, m).
        data: The graphs.
        targets: (G, m) standardised; NaN where not known.
        recipe: How.
        seed: Of the order of graphs.
        merged: Whether the module reads batches of merged nodes.
        context: Further arguments of the module.
        identity: Digest of what else the result depends on.
        checkpoint: File that is written after every epoch; where it is there already, training
            goes on from it, to the same result as without interruption.
        progress: Whether to show a bar.

    Raises:
        FileFormatError: The checkpoint is damaged, or of another training.
        ValueError: There are fewer graphs than processes.
    """
    rank, world = _place()
    if len(data) < world:
        raise ValueError(f"each of {world} processes must get a graph, but there are {len(data)}.")
    parameters = [p for p in module.parameters() if p.requires_grad]
    device = parameters[0].device
    optimiser = torch.optim.AdamW(
        parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    identity = _identity(data, targets, recipe, seed, identity) if checkpoint else ""
    losses: list[float] = []
    if checkpoint and Path(checkpoint).exists():
        losses = _resume(Path(checkpoint), identity, module, optimiser)
    called = nn.parallel.DistributedDataParallel(module) if world > 1 else module
    steps = max(1, len(data) // recipe.batch_size)
    known = torch.as_tensor(targets, dtype=torch.float32, device=device)
    module.train()
    for epoch in _bar(range(len(losses), recipe.epochs), recipe.epochs, progress and rank == 0):
        order = np.random.default_rng([seed, epoch]).permutation(len(data))
        total = 0.0
        for step, places in enumerate(np.array_split(order, steps)):
            share = np.array_split(places, world)[rank]
            rate = _rate(recipe, (epoch * steps + step) / (recipe.epochs * steps))
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.zero_grad()
            batch = data.batch(share, merged=merged).to(device)
            loss = _loss(called(batch, *context), known[share], recipe)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parameters, _LARGEST_GRADIENT)
            optimiser.step()
            total += float(loss.detach())
        losses.append(total / steps)
        if checkpoint and rank == 0:
            _write(Path(checkpoint), identity, module, optimiser, losses)
    module.eval()
    return losses


def _place() -> tuple[int, int]:
    """Which process this is, and of how many."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def _bar(epochs: range, total: int, show: bool) -> Any:
    from tqdm import tqdm

    return tqdm(
        epochs, total=total, initial=epochs.start, desc="training", unit="epoch", disable=not show
    )


def _rate(recipe: Recipe, done: float) -> float:
    """The learning rate when this fraction of all steps is done."""
    if recipe.schedule == "constant":
        return recipe.learning_rate
    if done < _WARM_UP:
        return recipe.learning_rate * (0.05 + 0.95 * done / _WARM_UP)
    return recipe.learning_rate * (1 + math.cos(math.pi * (done - _WARM_UP) / (1 - _WARM_UP))) / 2


def _loss(found: Tensor, targets: Tensor, recipe: Recipe) -> Tensor:
    """Loss of predictions (g, m) for standardised targets (g, m), NaN where not known."""
    known = ~targets.isnan()
    zero = found.sum() * 0.0
    square = zero
    if recipe.loss != "rank":
        error = torch.where(known, found - targets, 0.0)
        square = error.square().sum() / known.sum().clamp_min(1)
    if recipe.loss == "mse":
        return square
    # A comparison with NaN is false.
    above = (targets[:, None] - targets[None]) > 0
    margins = (found[:, None] - found[None])[above]
    pairs = softplus(-recipe.rank_sharpness * margins).mean() if len(margins) else zero
    return pairs if recipe.loss == "rank" else square + recipe.rank_weight * pairs


# --- checkpoints ---------------------------------------------------------------------------------


def _identity(
    data: GraphSet, targets: NDArray[np.float64], recipe: Recipe, seed: int, more: str
) -> str:
    result = hashlib.sha256(json.dumps([asdict(recipe), seed, more, data.digest]).encode())
    result.update(targets.tobytes())
    return result.hexdigest()


def _state(module: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}
    for place, entries in optimiser.state_dict()["state"].items():
        state |= {f"optimiser.{place}.{name}": tensor for name, tensor in entries.items()}
    return state


def _write(
    path: Path,
    identity: str,
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    losses: list[float],
) -> None:
    tensors = {name: t.detach().cpu().numpy() for name, t in _state(module, optimiser).items()}
    write_file(path, _CHECKPOINT, {"training": identity, "losses": losses}, tensors)


def _resume(
    path: Path, identity: str, module: nn.Module, optimiser: torch.optim.Optimizer
) -> list[float]:
    """Losses so far; module and optimiser get the state of the file."""
    content, arrays = read_file(path, _CHECKPOINT)
    if content.get("training") != identity:
        raise FileFormatError(
            f"{path} must be a checkpoint of this training, but is of other data or settings."
        )
    with whole(path, "a checkpoint", arrays):
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        entries: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimiser."):
                _, place, entry = name.split(".")
                entries.setdefault(int(place), {})[entry] = tensor
        module.load_state_dict(
            {n.removeprefix("module."): t for n, t in tensors.items() if n.startswith("module.")}
        )
        optimiser.load_state_dict({**optimiser.state_dict(), "state": entries})
        return [float(loss) for loss in content["losses"]]
