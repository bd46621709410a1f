"""What shrink.py trains on and shrinks: small real images, three kinds of networks, one trainer.

The images are made from what scikit-learn ships: digits (Alpaydin and Kaynak 1998), distorted,
noisy, on crops of its two photographs, 16 x 16. Digit instances and picture regions of the
training, calibration and test split are disjoint.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.datasets import load_digits, load_sample_images
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["BASES", "Split", "accuracy", "base", "splits", "tune"]

SIDE = 16
SIZES = {"train": 4000, "calibration": 1500, "test": 3000}


@dataclass(frozen=True)
class Split:
    """Images (n, 1, 16, 16) and their digits (n,)."""

    images: Tensor
    digits: Tensor

    def __len__(self) -> int:
        return len(self.digits)


@cache
def splits(scale: float = 1.0) -> dict[str, Split]:
    """The three splits; made once from one seed, whatever is run."""
    digits = load_digits()
    rng = np.random.default_rng(20261128)
    order = rng.permutation(len(digits.target))
    parts = dict(zip(SIZES, np.split(order, [1100, 1400]), strict=True))
    photographs = [image.mean(axis=2) / 255 for image in load_sample_images().images]
    found = {}
    for place, (name, size) in enumerate(SIZES.items()):
        rows = [_image(digits, parts[name], photographs, place, rng)
                for _ in range(max(100, int(size * scale)))]  # fmt: skip
        images = np.stack([image for image, _ in rows]).astype(np.float32)
        found[name] = Split(
            torch.from_numpy(images)[:, None], torch.tensor([digit for _, digit in rows])
        )
    return found


def _image(
    digits: Any,
    own: NDArray[np.int64],
    photographs: list[NDArray[np.float64]],
    place: int,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], int]:
    at = int(rng.choice(own))
    glyph = ndimage.zoom(digits.images[at] / 16, 1.5, order=1)
    glyph = ndimage.rotate(glyph, rng.uniform(-15, 15), reshape=False, order=1)
    canvas = np.zeros((SIDE, SIDE))
    y, x = rng.integers(0, SIDE - 12 + 1, 2)
    canvas[y : y + 12, x : x + 12] = np.clip(glyph, 0, 1) * rng.uniform(0.7, 1.0)
    photograph = photographs[int(rng.integers(2))]
    # A third of the width belongs to each split.
    third = photograph.shape[1] // 3
    top = int(rng.integers(photograph.shape[0] - SIDE))
    left = place * third + int(rng.integers(third - SIDE))
    behind = photograph[top : top + SIDE, left : left + SIDE] * 0.45
    image = np.maximum(behind, canvas) + rng.normal(0, 0.08, (SIDE, SIDE))
    return (image - 0.4) / 0.3, int(digits.target[at])


# --- networks ------------------------------------------------------------------------------------


def _conv(read: int, out: int, k: int = 3, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(read, out, k, stride, k // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out),
    ]


class _Residual(nn.Module):
    def __init__(self, read: int, out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*_conv(read, out, 3, stride), nn.ReLU(), *_conv(out, out))
        same = read == out and stride == 1
        self.skip = nn.Identity() if same else nn.Sequential(*_conv(read, out, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.skip(x))


def _resnet() -> nn.Module:
    sizes = ((16, 16, 1), (16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1))
    blocks = [_Residual(a, b, s) for a, b, s in sizes]
    return nn.Sequential(*_conv(1, 16, 3, 2), nn.ReLU(), *blocks, *_head(64))


def _head(width: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)]


class _Excite(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(width, width // 4, 1), nn.Conv2d(width // 4, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = F.relu(self.reduce(F.adaptive_avg_pool2d(x, 1)))
        return x * torch.sigmoid(self.expand(gate))


class _Inverted(nn.Module):
    def __init__(self, read: int, out: int, stride: int, k: int) -> None:
        super().__init__()
        wide = 4 * read
        self.body = nn.Sequential(
            *_conv(read, wide, 1), nn.Hardswish(), *_conv(wide, wide, k, stride, wide),
            nn.Hardswish(), _Excite(wide), *_conv(wide, out, 1),
        )  # fmt: skip
        self.skips = read == out and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return x + y if self.skips else y


def _mobilenet() -> nn.Module:
    sizes = ((16, 16, 1, 3), (16, 24, 2, 5), (24, 24, 1, 3), (24, 40, 2, 5), (40, 40, 1, 5))
    blocks = [_Inverted(a, b, s, k) for a, b, s, k in sizes]
    return nn.Sequential(*_conv(1, 16, 3, 2), nn.Hardswish(), *blocks, *_conv(40, 128, 1),
                         nn.Hardswish(), *_head(128))  # fmt: skip


class _ConvNextBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.down(F.gelu(self.up(y)))
        return x + y.permute(0, 3, 1, 2)


class _ChannelNorm(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _convnext() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 24, 2, 2), _ChannelNorm(24), *(_ConvNextBlock(24) for _ in range(2)),
        _ChannelNorm(24), nn.Conv2d(24, 48, 2, 2), *(_ConvNextBlock(48) for _ in range(3)),
        _ChannelNorm(48), *_head(48),
    )  # fmt: skip


BASES = {"resnet": _resnet, "mobilenet": _mobilenet, "convnext": _convnext}
"""Kinds of networks: like ResNet, like MobileNet (gates, 5 x 5), like ConvNeXt."""


# --- training ------------------------------------------------------------------------------------


def tune(
    model: nn.Module,
    split: Split,
    *,
    lr: float,
    seed: int,
    seconds: float = 0.0,
    epochs: float = 0.0,
    falls: bool = True,
) -> float:
    """CPU seconds that training took: SGD with momentum, the rate falling by a cosine to 0.

    Args:
        model: Trained in place; in evaluation mode afterwards.
        split: What it trains on.
        lr: The first learning rate.
        seed: Of the order.
        seconds: How long, in CPU seconds; the first steps tell how many there will be.
        epochs: How long, instead.
        falls: Whether the rate falls.
    """
    generator = torch.Generator().manual_seed(seed)
    adam = any(isinstance(part, nn.LayerNorm) for part in model.modules()) or "layer_norm" in str(
        getattr(getattr(model, "program", None), "graph", "")
    )
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser: torch.optim.Optimizer = (
        torch.optim.AdamW(parameters, lr / 20, weight_decay=0.01)
        if adam
        else torch.optim.SGD(parameters, lr, momentum=0.9, weight_decay=5e-4)
    )
    first = [group["lr"] for group in optimiser.param_groups]
    per_epoch = max(1, len(split) // 64)
    planned = int(epochs * per_epoch)
    model.train()
    start = time.process_time()
    step, order = 0, torch.empty(0, dtype=torch.long)
    while True:
        used = time.process_time() - start
        if seconds and step == 8:
            planned = max(8, int(seconds / max(used, 1e-6) * 8))
        if (planned and step >= planned) or (seconds and used >= seconds):
            break
        if len(order) < 64:
            order = torch.randperm(len(split), generator=generator)
        rows, order = order[:64], order[64:]
        part = step / planned if planned and falls else 0.0
        for group, rate in zip(optimiser.param_groups, first, strict=True):
            group["lr"] = rate * 0.5 * (1 + float(np.cos(np.pi * part)))
        optimiser.zero_grad()
        F.cross_entropy(model(split.images[rows]), split.digits[rows]).backward()
        optimiser.step()
        step += 1
    model.eval()
    return time.process_time() - start


def accuracy(model: nn.Module, split: Split) -> float:
    """Per cent right."""
    model.eval()
    with torch.no_grad():
        right = sum(
            int((model(x).argmax(1) == y).sum())
            for x, y in zip(split.images.split(500), split.digits.split(500), strict=True)
        )
    return 100 * right / len(split)


def base(kind: str, seed: int, epochs: float, scale: float) -> nn.Module:
    """A trained network of a kind."""
    torch.manual_seed(seed)
    model = BASES[kind]()
    tune(model, splits(scale)["train"], lr=0.1, seed=seed, epochs=epochs)
    return model
