"""How a supernet is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nni_aiop.errors import did_you_mean
from nni_aiop.supernet._sampling import SAMPLINGS

__all__ = ["SupernetTraining"]


@dataclass(frozen=True)
class SupernetTraining:
    """How a supernet is trained; the defaults suit small images and spaces of some ten dimensions.

    Args:
        epochs: Passes over the training data.
        sampling: Which networks share a step's batch: "sandwich" (the largest, `count` random ones
            and the smallest), "fair" (`count` networks; every value of every dimension equally
            often) or "uniform" (`count` random ones).
        count: Networks drawn for a step.
        distill: Whether the first network of a step (the largest, in a sandwich) teaches the
            others by its class probabilities, which then need no targets (in-place distillation,
            Yu & Huang 2019, section 3.3). For classifiers.
        learning_rate: At its peak; AdamW with a one-cycle rate.
        weight_decay: Of AdamW.
        clip: Largest norm of a step's gradients; None leaves them.
        seed: Of the networks, of a loader's order, and of what the networks draw.

    Raises:
        ValueError: A number is out of range, or the sampling is unknown.
    """

    epochs: int = 30
    sampling: str = "sandwich"
    count: int = 2
    distill: bool = False
    learning_rate: float = 0.01
    weight_decay: float = 0.01
    clip: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "count"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, but got {getattr(self, name)}.")
        if self.sampling not in SAMPLINGS:
            raise ValueError(
                f"sampling must be one of {', '.join(SAMPLINGS)}, but got {self.sampling!r}"
                f"{did_you_mean(self.sampling, SAMPLINGS)}."
            )
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise ValueError(f"learning_rate must be positive, but got {self.learning_rate}.")
        if not (self.weight_decay >= 0 and math.isfinite(self.weight_decay)):
            raise ValueError(f"weight_decay must be 0 or more, but got {self.weight_decay}.")
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip must be positive or None, but got {self.clip}.")
        if self.seed < 0:
            raise ValueError(f"seed must be 0 or more, but got {self.seed}.")
        if self.distill and self.sampling != "sandwich" and self.count < 2:
            raise ValueError(f"distillation needs a pupil: count must be 2, but got {self.count}.")
