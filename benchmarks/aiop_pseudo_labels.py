"""Pseudo-labels on the digits space: latent sampling beside body swapping, as AIO-P's table 1.

Bodies are networks of the digits space (widths 12 and 16) with the weights of one weight-sharing
network, trained on the digits' classes, as the paper takes them from once-for-all supernets. The
second task, on the same images, is to say of every pixel to which digit it belongs, or none; its
metric is the mean IoU of the 11 classes on the validation images. Ground truth: each architecture's
body with a head of its own, both trained on the task for 15 epochs. Pseudo-labels: the same bodies
with a head that was trained on the bodies of 300 other architectures, both fine-tuned for 2 epochs.

    python benchmarks/aiop_pseudo_labels.py --seeds 3

Printed are mean and spread of the metric over architectures and Spearman's rank correlation with
the ground truth (its mean over seeds), for both ways to train the shared head, with and without the
fine-tuning. Beside them: the same brief training with an untrained head, which a shared head has to
beat; what ranks without any label of the task; and how well the ground truth of one seed ranks that
of another, which bounds all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice, repeat
from pathlib import Path

import numpy as np
import torch
from _common import Figures, format_table, parse_arguments, parser, progress
from joblib import Parallel, delayed
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from nni_aiop.figures import new_figure, save_figure
from nni_aiop.predictors.metrics import spearman
from nni_aiop.pseudo_labels import METHODS, depth_bins, pseudo_label, train_shared_head
from nni_aiop.search_spaces import digits
from nni_aiop.spaces import Sample

WIDTHS = {"width_1": 12, "width_2": 16}
LARGEST_KERNEL = {f"kernel_{s}_{i}": 5 for s in (1, 2) for i in (1, 2)}
BATCH = 50
LEARNING_RATE = 0.01
CLASSES = 11  # of pixels: paper and ten digits


@dataclass(frozen=True)
class Plan:
    """How much is trained; an epoch is 10 mini-batches of 50 images.

    Attributes:
        architectures: That are labelled.
        others: Whose bodies train the shared head, and the shared weights.
        steps: Mini-batches that train the shared weights.
        head: Epochs of the shared head.
        truth: Epochs of individual training.
        tuning: Epochs of fine-tuning.
    """

    architectures: int = 80
    others: int = 300
    steps: int = 3000
    head: int = 15
    truth: int = 15
    tuning: int = 2


QUICK = Plan(architectures=8, others=30, steps=60, head=2, truth=3, tuning=1)


# --- bodies --------------------------------------------------------------------------------------


class Body(nn.Module):
    """A digits network without its classifier: maps of 12 x 8 x 8 and 16 x 4 x 4."""

    def __init__(self, network: digits.DigitsNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        n = self.network
        fine = n.stage_1(n.stem(images))
        return fine, n.stage_2(n.transition(fine))


class SharedWeights:
    """Weights of every architecture at once: those of a smaller kernel are the larger one's centre.

    A weight belongs to its place in the network and to the kind of the block or transition.
    """

    def __init__(self, seed: int) -> None:
        self.store: dict[str, nn.Parameter] = {}
        for op in ("conv", "separable", "residual", "inverted"):
            for pooling in ("max", "stride"):
                sample = {f"op_{s}_{i}": op for s in (1, 2) for i in (1, 2)}
                sample |= {"depth_1": 2, "depth_2": 2, "pooling": pooling, "activation": "relu"}
                sample |= WIDTHS | LARGEST_KERNEL
                network = digits.build(sample, seed=seed)
                for name, parameter in network.named_parameters():
                    self.store.setdefault(_key(name, sample), parameter)

    def of(self, network: nn.Module, sample: Sample) -> dict[str, Tensor]:
        found = {}
        for name, parameter in network.named_parameters():
            weight: Tensor = self.store[_key(name, sample)]
            if weight.dim() == 4:
                cut = (weight.shape[-1] - parameter.shape[-1]) // 2
                end = weight.shape[-1] - cut
                weight = weight[:, :, cut:end, cut:end]
            found[name] = weight
        return found

    def train(self, samples: list[Sample], steps: int, seed: int) -> None:
        """Each step trains the mean of two random architectures on one mini-batch."""
        random = np.random.default_rng(seed)
        data = Batches(*digits.load_split().train, seed=seed)
        optimizer = torch.optim.AdamW(self.store.values(), lr=5e-3, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=steps)
        for images, labels in islice(chain.from_iterable(repeat(data)), steps):
            optimizer.zero_grad()
            for i in random.integers(len(samples), size=2):
                network = digits.build(samples[i], seed=0)
                scores = functional_call(network, self.of(network, samples[i]), (images,))
                F.cross_entropy(scores, labels).backward()
            optimizer.step()
            schedule.step()

    def body(self, sample: Sample) -> Body:
        """The architecture's body, its normalisation set by the training images."""
        network = digits.build(sample, seed=0)
        with torch.no_grad():
            for name, weight in self.of(network, sample).items():
                network.get_parameter(name).copy_(weight)
            for part in network.modules():
                if isinstance(part, nn.BatchNorm2d):
                    part.momentum = None  # a plain mean over mini-batches
            for images in digits.load_split().train.images.split(100):
                network(images)
            for part in network.modules():
                if isinstance(part, nn.BatchNorm2d):
                    part.momentum = 0.1
        return Body(network).eval()


def _key(name: str, sample: Sample) -> str:
    part = name.split(".")
    if part[0] in ("stage_1", "stage_2"):
        kind = sample[f"op_{part[0][-1]}_{int(part[1]) + 1}"]
    elif part[0] == "transition":
        kind = "stride" if sample["pooling"] == "stride" else "pooled"
    else:
        kind = ""
    return f"{kind}/{name}"


def draw_architectures(count: int, seed: int) -> list[Sample]:
    """Distinct random architectures of the two widths."""
    space, random = digits.code_space(), np.random.default_rng(seed)
    found: dict[str, Sample] = {}
    while len(found) < count:
        sample = {**space.sample(1, random)[0], **WIDTHS}
        found.setdefault(space.key(sample), sample)
    return list(found.values())


def depth(sample: Sample) -> float:
    """Convolutions of the blocks."""
    each = {"conv": 1, "separable": 2, "residual": 2, "inverted": 3}
    return float(
        sum(each[sample[f"op_{s}_{i}"]] for s in (1, 2) for i in range(1, sample[f"depth_{s}"] + 1))
    )


# --- the task -------------------------------------------------------------------------------------


class Batches:
    """Mini-batches of 50 in a new order each time."""

    def __init__(self, images: Tensor, targets: Tensor, seed: int) -> None:
        self.images, self.targets = images, targets
        self.random = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self.images) // BATCH

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self.images), generator=self.random)
        for rows in order[: len(self) * BATCH].view(-1, BATCH):
            yield self.images[rows], self.targets[rows]


class Head(nn.Module):
    """Both maps at 8 x 8, through a small convolution to classes of pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Sequential(
            nn.Conv2d(sum(WIDTHS.values()), 32, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU()
        )
        self.last = nn.Conv2d(32, CLASSES, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        fine, coarse = maps
        upsampled = F.interpolate(coarse, scale_factor=2.0, mode="bilinear")
        scores: Tensor = self.last(self.mix(torch.cat([fine, upsampled], dim=1)))
        return scores


def segmented(data: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Images, and for every pixel 0 on paper, 1 + the digit on ink (above the mean of pixels)."""
    images, labels = data
    return images, torch.where(images[:, 0] > 0, labels[:, None, None] + 1, 0)


@torch.no_grad()
def mean_iou(network: nn.Module) -> float:
    """In percent, over the 11 classes of the pixels of the validation images."""
    images, targets = segmented(digits.load_split().validation)
    found = network(images).argmax(1)
    pairs = [(found == c, targets == c) for c in range(CLASSES)]
    return 100 * float(np.mean([float((a & b).sum() / (a | b).sum()) for a, b in pairs]))


def new_head(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Head()


# --- the runs, each in a process of its own ------------------------------------------------------


def label(body: Body, head: nn.Module, epochs: int, seed: int) -> float:
    """The metric after training body and head for some epochs; none leaves both as they are."""
    torch.set_num_threads(1)
    if not epochs:
        return pseudo_label(body, head, mean_iou)
    data = Batches(*segmented(digits.load_split().train), seed=seed)
    return pseudo_label(
        body,
        head,
        mean_iou,
        data,
        F.cross_entropy,
        epochs=epochs,
        learning_rate=LEARNING_RATE,
        seed=seed,
    )


def shared_head(
    weights: SharedWeights, bins: list[list[Sample]], method: str, epochs: int, seed: int
) -> nn.Module:
    torch.set_num_threads(1)
    space = digits.code_space()
    made: dict[str, Body] = {}

    def body_of(sample: Sample) -> Body:
        key = space.key(sample)
        if key not in made:
            made[key] = weights.body(sample)
        return made[key]

    return train_shared_head(
        new_head(seed),
        bins,
        body_of,
        Batches(*segmented(digits.load_split().train), seed=seed),
        F.cross_entropy,
        method=method,
        epochs=epochs,
        learning_rate=LEARNING_RATE,
        seed=seed,
    )


def draw(truth: np.ndarray, found: dict[str, np.ndarray], path: Path) -> None:
    figure = new_figure(5.0 * len(found), 4.6)
    for place, (title, values) in enumerate(found.items(), start=1):
        axes = figure.add_subplot(1, len(found), place)
        axes.scatter(truth, values, s=14)
        axes.set(
            xlabel="mean IoU of individual training (%)",
            ylabel="pseudo-label (%)",
            title=f"{title}: Spearman {spearman(truth, values):.3f}",
        )
        axes.grid(alpha=0.3)
    save_figure(figure, path)


def main() -> None:
    options = parse_arguments(parser(__doc__.splitlines()[0], name="aiop_pseudo_labels", seeds=3))
    plan = QUICK if options.quick else Plan()
    seeds = range(2 if options.quick else options.seeds)
    torch.set_num_threads(1)
    say = progress()
    everyone = draw_architectures(plan.architectures + plan.others, seed=1)
    judged, others = everyone[: plan.architectures], everyone[plan.architectures :]
    weights = SharedWeights(seed=0)
    weights.train(others, plan.steps, seed=0)
    bodies = [weights.body(sample) for sample in judged]
    images, labels = digits.load_split().validation
    with torch.no_grad():
        hits = [(body.network(images).argmax(1) == labels).float() for body in bodies]
    accuracy = np.array([100 * float(hit.mean()) for hit in hits])
    say(f"{len(bodies)} bodies; accuracy of classes {accuracy.mean():.1f} ± {accuracy.std():.1f} %")

    with Parallel(n_jobs=2) as pool:

        def labels_of(heads: list[nn.Module], epochs: int) -> np.ndarray:
            """(seeds, architectures) with one head for each seed."""
            found = pool(
                delayed(label)(body, head, epochs, seed)
                for seed, head in zip(seeds, heads, strict=True)
                for body in bodies
            )
            return np.array(found).reshape(len(seeds), -1)

        truths = labels_of([new_head(seed) for seed in seeds], plan.truth)
        say("individually trained")
        bins = depth_bins(others, depth)
        heads = {"untrained head": [new_head(seed) for seed in seeds]}
        for method in METHODS:
            heads[method.replace("_", " ")] = pool(
                delayed(shared_head)(weights, bins, method, plan.head, seed) for seed in seeds
            )
            say(f"shared heads by {method.replace('_', ' ')}")
        found = {}
        for name, some in heads.items():
            for epochs in (0, plan.tuning):
                found[name, epochs] = labels_of(some, epochs)
            say(f"pseudo-labels with {name}")

    truth = truths.mean(axis=0)
    figures = Figures(quick=options.quick)
    between = [spearman(truths[i], truths[j]) for i in seeds for j in range(i)]
    reliability = float(np.mean(between)) if between else math.nan
    figures.add("mean IoU, individually trained", float(truth.mean()))
    figures.add("SRCC between two seeds of individual training", reliability)
    rows: list[list[object]] = [["individually trained", truth.mean(), truth.std(), "1"]]
    srcc: dict[tuple[str, int], float] = {}
    for (name, epochs), values in found.items():
        by_seed = [spearman(truth, one) for one in values]
        srcc[name, epochs] = float(np.mean(by_seed))
        title = f"{name}, {'fine-tuned' if epochs else 'as it is'}"
        rank = f"{np.mean(by_seed):.3f} ± {np.std(by_seed):.3f}"
        rows.append([title, values.mean(), values.std(axis=1).mean(), rank])
        figures.add(f"mean IoU, {title}", float(values.mean()))
        figures.add(f"SRCC, {title}", srcc[name, epochs], detail=by_seed)
    space = digits.code_space()
    codes = space.encode(judged)
    free = {"accuracy of classes": accuracy} | {
        name: space.cost(name, codes) for name in space.costs
    }
    for name, values in free.items():
        rows.append([name, "", "", f"{spearman(truth, values):.3f}"])
        figures.add(f"SRCC, {name}", spearman(truth, values))
    print(format_table(["", "mean IoU (%)", "spread", "SRCC"], rows))

    for other in ("body swapping", "untrained head"):
        for epochs, when in ((0, "as it is"), (plan.tuning, "fine-tuned")):
            lead = srcc["latent sampling", epochs] - srcc[other, epochs]
            gain = (found["latent sampling", epochs] - found[other, epochs]).mean()
            figures.add(f"lead over {other} in SRCC, {when}", lead, at_least=0.0)
            figures.add(f"lead over {other} in mean IoU, {when}", float(gain), at_least=0.0)
    print(figures)
    figures.save(options.out / "results.json")
    pictured = {name: found[name, plan.tuning][0] for name in heads}
    draw(truth, pictured, options.out / "pseudo_labels.png")


if __name__ == "__main__":
    main()
