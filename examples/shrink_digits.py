"""Shrinks a network that was trained on scikit-learn's digits by a third, and compares.

python examples/shrink_digits.py

Trains a small residual network, searches edits of it within 67 % of its multiply-adds, fine-tunes
every try for one epoch and the best for three more, and compares with the unshrunk network and with
uniform pruning, fine-tuned for as long. The channels to cut are chosen on calibration images, the
best try on validation images; the test images are read once, for the table at the end.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from nni_aiop.networks import Calibration, Network
from nni_aiop.results import SearchResults
from nni_aiop.search import FlopsReduction


class Block(nn.Module):
    """Two convolutions beside a way around them."""

    def __init__(self, read: int, out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(read, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU(),
            nn.Conv2d(out, out, 3, padding=1, bias=False), nn.BatchNorm2d(out),
        )  # fmt: skip
        same = read == out and stride == 1
        self.around = nn.Identity() if same else nn.Conv2d(read, out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.around(x))


def make() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), Block(16, 16, 1), Block(16, 32, 2),
        Block(32, 32, 1), Block(32, 64, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(64, 10),
    )  # fmt: skip


def splits() -> dict[str, tuple[Tensor, Tensor]]:
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    names = ("train", "calibration", "validation", "test")
    parts = order.split([900, 250, 250, len(images) - 1400])
    targets = torch.tensor(digits.target)
    return {name: (images[i], targets[i]) for name, i in zip(names, parts, strict=True)}


def train(model: nn.Module, data: tuple[Tensor, Tensor], epochs: int, lr: float, seed: int) -> None:
    images, targets = data
    torch.manual_seed(seed)
    steps = epochs * -(-len(images) // 50)
    optimiser = torch.optim.SGD(model.parameters(), lr, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(50):
            optimiser.zero_grad()
            F.cross_entropy(model(images[rows]), targets[rows]).backward()
            optimiser.step()
            schedule.step()
    model.eval()


def accuracy(model: nn.Module, data: tuple[Tensor, Tensor]) -> float:
    model.eval()
    with torch.no_grad():
        return 100 * float((model(data[0]).argmax(1) == data[1]).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tries", type=int, default=6, help="networks to fine-tune")
    parser.add_argument("--epochs", type=int, default=8, help="of the unshrunk network")
    parser.add_argument("--seed", type=int, default=0, help="of every random choice")
    parser.add_argument("--out", type=Path, default=Path("out/shrink_digits"))
    args = parser.parse_args()

    data = splits()
    torch.manual_seed(args.seed)
    model = make()
    train(model, data["train"], args.epochs, 0.1, args.seed)

    network = Network.capture(model, (1, 1, 8, 8))
    calibration = Calibration(network, [data["calibration"]], F.cross_entropy)
    search = FlopsReduction(
        calibration.space,
        budgets=(2 / 3,),
        score=calibration.loss,
        objectives=["accuracy"],
        seed=args.seed,
    )
    tried: dict[str, Network] = {}
    for _ in range(args.tries):
        (sample,) = search.ask(1)
        small = calibration.edit(sample)
        train(small, data["train"], 1, 0.02, args.seed)
        search.tell(sample, {"accuracy": accuracy(small, data["validation"])})
        tried[calibration.space.key(sample)] = small
    best = search.best()
    assert best is not None

    uniform = next(iter(tried.values()))
    shrunk = tried[calibration.space.key(best[0])]
    unshrunk = Network.capture(model, (1, 1, 8, 8))
    train(unshrunk, data["train"], 1, 0.02, args.seed)
    print(f"{'network':24} {'multiply-adds':>14} {'parameters':>11} {'test accuracy':>14}")
    rows = {"unshrunk": unshrunk, "uniform pruning": uniform, "best of the search": shrunk}
    for one in {id(one): one for one in rows.values()}.values():
        train(one, data["train"], 3, 0.02, args.seed)
    for name, one in rows.items():
        graph = one.graph
        print(
            f"{name:24} {graph.macs:>14,} {graph.parameters:>11,} "
            f"{accuracy(one, data['test']):>13.1f}%"
        )
    print("What was cut:")
    for label, value in calibration.space.edits(best[0]).items():
        print(f"  {label:28} {calibration.space.original[label]} -> {value}")
    args.out.mkdir(parents=True, exist_ok=True)
    shrunk.save(args.out / "shrunk.safetensors")
    shrunk.to_onnx(args.out / "shrunk.onnx")
    SearchResults(search.space, search.history, search.objectives, cost="flops").save(args.out)
    print(f"Results: {args.out}/shrunk.safetensors, shrunk.onnx, results.json, search.png")


if __name__ == "__main__":
    main()
