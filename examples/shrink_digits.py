"""Shrink a trained network by a third
===================================

Train, search, fine-tune, compare.

On the command line::

    python examples/shrink_digits.py

A small residual network learns scikit-learn's digits. Then its widths and branches are searched for
at most two thirds of its multiply-adds; each proposal is fine-tuned, and the validation images say
which one is best. The test images are looked at once, at the end: beside the network as it was and
beside uniform pruning, both fine-tuned equally.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from nni_aiop.networks import Calibration, Network
from nni_aiop.results import ShrinkReport, Shrunk
from nni_aiop.search import FlopsReduction


class Block(nn.Module):
    """A residual block of two convolutions."""

    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out)
        self.skip = nn.Identity()
        if stride > 1 or width != out:
            self.skip = nn.Sequential(
                nn.Conv2d(width, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(y)) + self.skip(x))


def residual_network() -> nn.Module:
    """An untrained network for images of 8 x 8."""
    stem = [nn.Conv2d(1, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    blocks = [Block(16, 16, 1), Block(16, 32, 2), Block(32, 32, 1), Block(32, 64, 2)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


Data = dict[str, tuple[Tensor, Tensor]]


def splits() -> Data:
    """Images and labels: to learn from, to choose by, and to be tested with once."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(digits.target)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    parts = {"train": order[:1000], "validation": order[1000:1300], "test": order[1300:]}
    return {name: (images[i], labels[i]) for name, i in parts.items()}


def fit(network: nn.Module, data: Data, epochs: int, rate: float, seed: int) -> None:
    """Trains a network in place."""
    images, labels = data["train"]
    torch.manual_seed(seed)
    network.train()
    steps = epochs * -(-len(images) // 50)
    optimiser = torch.optim.SGD(network.parameters(), rate, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(50):
            optimiser.zero_grad()
            functional.cross_entropy(network(images[batch]), labels[batch]).backward()
            optimiser.step()
            schedule.step()
    network.eval()


def accuracy(network: nn.Module, data: Data, part: str) -> float:
    """In percent."""
    images, labels = data[part]
    with torch.no_grad():
        return 100 * float((network(images).argmax(1) == labels).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", type=float, default=0.667, help="of the multiply-adds to keep")
    parser.add_argument("--trials", type=int, default=8, help="networks to fine-tune")
    parser.add_argument("--epochs", type=int, default=6, help="of the first training")
    parser.add_argument("--tuning", type=int, default=2, help="epochs of each fine-tune")
    parser.add_argument("--seed", type=int, default=0, help="of everything")
    parser.add_argument("--out", type=Path, default=Path("out/shrink_digits"))
    args = parser.parse_args()

    data = splits()
    torch.manual_seed(args.seed)
    model = residual_network()
    fit(model, data, args.epochs, 0.1, args.seed)
    network = Network.capture(model, (1, 1, 8, 8))

    images, labels = data["validation"]
    batches = list(zip(images.split(100), labels.split(100), strict=True))
    calibration = Calibration(network, batches, functional.cross_entropy)
    search = FlopsReduction(
        calibration.space,
        budgets=[args.part],
        score=calibration.loss,
        objectives=["accuracy"],
        seed=args.seed,
    )

    def tuned(edit: Callable[[], Network]) -> Network:
        small = edit()
        fit(small, data, args.tuning, 0.02, args.seed)
        return small

    networks: list[Network] = []
    for _ in tqdm(range(args.trials), unit="network"):
        for sample in search.ask(1):
            networks.append(tuned(lambda sample=sample: calibration.edit(sample)))
            search.tell(sample, {"accuracy": accuracy(networks[-1], data, "validation")})

    sample, metrics = search.best()
    best = networks[search.history.index((sample, metrics))]
    original = tuned(lambda: calibration.edit(calibration.space.original))
    compared = {
        "as it was, fine-tuned": original,
        "uniform pruning": networks[0],
        "searched": best,
    }
    print(f"{'':22} {'multiply-adds':>14} {'part':>6} {'validation':>11} {'test':>7}")
    for name, one in compared.items():
        part = one.graph.macs / network.graph.macs
        reached = [accuracy(one, data, split) for split in ("validation", "test")]
        print(f"{name:22} {one.graph.macs:14,} {part:6.3f} {reached[0]:10.2f}% {reached[1]:6.2f}%")

    files = [best.save(args.out / "small.safetensors"), best.to_onnx(args.out / "small.onnx")]
    report = ShrinkReport(
        calibration.space,
        search.objectives[0],
        [Shrunk(args.part, sample, metrics, files)],
        search.history,
        {"accuracy": accuracy(original, data, "validation")},
    )
    report.save(args.out)
    print(f"Results: {args.out}/report.md, front.png, layers.png, small.safetensors, small.onnx")


if __name__ == "__main__":
    main()
