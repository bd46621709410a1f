"""Labels of a supernet against real training: how they rank, what they cost, what searches gain.

    python benchmarks/supernet.py

On the digits, 100 random architectures are really trained with each of three seeds (8 epochs, by
the space's own `train_and_evaluate`). For each seed a supernet is trained and labels the same
architectures. Printed are the rank correlation of its labels with the validation accuracies of the
same seed, that of two seeds of real training (what no label can surpass), of one epoch of real
training, of a supernet that nobody trained, and of sizes; and the seconds of this process (CPU, one
thread) that training and labelling took, as a share of those of the real trainings.

Then NCP and PNAG search with either kind of evaluation for the same seconds, their own included. A
search on supernet labels pays for the supernet, and in the end for the real training of its best
three; what is compared is the test accuracy of the network with the best validation accuracy that
was really trained. PNAG keeps 200,000 multiply-adds.

How the supernet is trained and labels (`digits.supernet`'s own way) was chosen on 80 architectures
of another seed than those reported here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import numpy as np
import torch
from _common import Figures, format_table, parse_arguments, parser, progress

from nni_aiop.figures import new_figure, save_figure
from nni_aiop.predictors.metrics import spearman
from nni_aiop.search import BaseSearch, NCPSearch, PNAGSearch
from nni_aiop.search_spaces import digits
from nni_aiop.spaces import Sample
from nni_aiop.supernet import Supernet, train_supernet

ARCHITECTURES = 100
EVALUATIONS = 25  # real trainings whose seconds a search has
FINAL = 3  # architectures that a search on labels really trains in the end
LIMIT = 2e5  # multiply-adds, for PNAG
_OF_ARCHITECTURES = 7  # seed; the supernet's settings were chosen on architectures of seed 1000


class Labels(NamedTuple):
    """(n,) figures of each architecture, and the seconds that they took."""

    values: np.ndarray
    seconds: float


def timed(work: Callable[[], list[float]]) -> Labels:
    """What the work returns, with the CPU seconds of this process."""
    begun = time.process_time()
    values = np.array(work())
    return Labels(values, time.process_time() - begun)


def trained(samples: list[Sample], seed: int, epochs: int = digits.EPOCHS) -> Labels:
    """Validation accuracies of real training."""
    return timed(
        lambda: [
            digits.train_and_evaluate(s, seed=seed, epochs=epochs)["val_accuracy"] for s in samples
        ]
    )


def labelled(samples: list[Sample], seed: int) -> Labels:
    """Labels of a supernet, whose training counts."""

    def work() -> list[float]:
        supernet = new_supernet(seed)
        return [supernet.evaluate(sample) for sample in samples]

    return timed(work)


def new_supernet(seed: int) -> Supernet:
    supernet = digits.supernet(seed=seed)
    train_supernet(supernet, training=replace(supernet.recipe, seed=seed))
    return supernet


SEARCHES: dict[str, Callable[[int, int], BaseSearch]] = {
    "NCP": lambda budget, seed: NCPSearch(digits.code_space(), budget=budget, seed=seed),
    "PNAG": lambda budget, seed: PNAGSearch(
        digits.code_space(), budget=budget, rounds=4, targets={"flops": LIMIT}, seed=seed
    ),
}


def search_on_training(name: str, seed: int, seconds: float) -> dict[str, float]:
    """The best network that was found in so many seconds, each evaluation a real training."""
    begun = time.process_time()
    search = SEARCHES[name](EVALUATIONS, seed)
    best: dict[str, float] = {}
    evaluated = 0
    while time.process_time() - begun < seconds:
        proposed = search.ask(1)
        if not proposed:
            break
        metrics = digits.train_and_evaluate(proposed[0], seed=seed)
        search.tell(proposed[0], metrics)
        evaluated += 1
        if is_better(metrics, best, name):
            best = metrics
    return {**best, "evaluated": evaluated, "seconds": time.process_time() - begun}


def search_on_labels(name: str, seed: int, seconds: float, one: float) -> dict[str, float]:
    """The same with a supernet's labels, and real training of the best of them in the end."""
    begun = time.process_time()
    supernet = new_supernet(seed)
    left = seconds - (time.process_time() - begun) - FINAL * one
    search = SEARCHES[name](max(int(left / (0.2 * one)), 12), seed)
    while len(search.history) < FINAL or time.process_time() - begun < seconds - FINAL * one:
        proposed = search.ask(1)
        if not proposed:
            break
        search.tell(proposed[0], {"default": supernet.evaluate(proposed[0])})
    space = digits.code_space()
    found = [
        (metrics["default"], sample)
        for sample, metrics in search.history
        if metrics is not None
        and (name == "NCP" or space.cost("flops", space.encode([sample]))[0] <= LIMIT)
    ]
    assert found, "a search proposes what keeps the limit"
    best: dict[str, float] = {}
    for _, sample in sorted(found, key=lambda pair: -pair[0])[:FINAL]:
        metrics = digits.train_and_evaluate(sample, seed=seed)
        if is_better(metrics, best, name):
            best = metrics
    return {**best, "evaluated": len(search.history), "seconds": time.process_time() - begun}


def is_better(metrics: dict[str, float], best: dict[str, float], name: str) -> bool:
    if name == "PNAG" and metrics["flops"] > LIMIT:
        return False
    return metrics["val_accuracy"] > best.get("val_accuracy", -1.0)


def main() -> None:
    given = parse_arguments(parser(__doc__.splitlines()[0], name="supernet", seeds=3))
    torch.set_num_threads(1)
    n, evaluations = (8, 4) if given.quick else (ARCHITECTURES, EVALUATIONS)
    seeds = range(1, 2 if given.quick else given.seeds + 1)
    log = progress()
    space = digits.code_space()
    drawn = space.sample(2 * n, np.random.default_rng(_OF_ARCHITECTURES))
    samples = list({space.key(sample): sample for sample in drawn}.values())[:n]
    # What is imported when it is first needed costs neither side anything.
    digits.train_and_evaluate(samples[0], epochs=1)
    digits.supernet(seed=0).evaluate(samples[0])

    truth: dict[int, Labels] = {}
    labels: dict[int, Labels] = {}
    kinds = ("supernet", "one epoch", "untrained supernet", "parameters", "multiply-adds")
    rho: dict[str, list[float]] = {name: [] for name in kinds}
    shares: dict[str, list[float]] = {name: [] for name in kinds}
    codes = space.encode(samples)
    for seed in seeds:
        truth[seed] = trained(samples, seed)
        labels[seed] = labelled(samples, seed)
        plain = digits.supernet(seed=seed)
        rivals = {
            "supernet": labels[seed],
            "one epoch": trained(samples, seed, epochs=1),
            "untrained supernet": timed(lambda net=plain: [net.evaluate(s) for s in samples]),
            # What costs nothing and knows nothing of the data.
            "parameters": Labels(np.asarray(space.cost("params", codes)), 0.0),
            "multiply-adds": Labels(np.asarray(space.cost("flops", codes)), 0.0),
        }
        for name, rival in rivals.items():
            rho[name].append(spearman(truth[seed].values, rival.values))
            shares[name].append(rival.seconds / truth[seed].seconds)
        log(f"seed {seed}: " + ", ".join(f"{k} {v[-1]:.3f}" for k, v in rho.items()))
    pairs = [(a, b) for a in seeds for b in seeds if a < b] or [(1, 1)]
    ceiling = [spearman(truth[a].values, truth[b].values) for a, b in pairs]
    one = mean(t.seconds for t in truth.values()) / n

    found: dict[str, list[tuple[dict[str, float], dict[str, float]]]] = {}
    for name in SEARCHES:
        found[name] = []
        for seed in seeds:
            seconds = evaluations * one
            on_training = search_on_training(name, seed, seconds)
            on_labels = search_on_labels(name, seed, seconds, one)
            found[name].append((on_training, on_labels))
            log(f"{name}, seed {seed}: on training {on_training}, on labels {on_labels}")

    print(
        format_table(
            ["labels", "Spearman, by seed", "mean", "share of the seconds"],
            [
                [name, " ".join(f"{r:.3f}" for r in values), mean(values), mean(shares[name])]
                for name, values in rho.items()
            ]
            + [["another seed", " ".join(f"{r:.3f}" for r in ceiling), mean(ceiling), 1.0]],
        ),
        "\n",
    )
    rows = []
    for name, outcomes in found.items():
        for kind, i in (("training", 0), ("labels", 1)):
            of = [outcome[i] for outcome in outcomes]
            rows.append(
                [
                    f"{name} on {kind}",
                    f"{mean(o['evaluated'] for o in of):.0f}",
                    mean(o["seconds"] for o in of),
                    mean(o["val_accuracy"] for o in of),
                    mean(o["test_accuracy"] for o in of),
                ]
            )
    print(
        format_table(["search", "evaluations", "seconds", "validation", "test accuracy"], rows),
        "\n",
    )
    figures = Figures(quick=given.quick)
    figures.add(
        "Spearman of supernet labels", mean(rho["supernet"]), at_least=0.7, detail=rho["supernet"]
    )
    figures.add(
        "least of the seeds", min(rho["supernet"]), at_least=0.7, detail=rho["untrained supernet"]
    )
    figures.add("Spearman of two real trainings", mean(ceiling), detail=ceiling)
    figures.add("Spearman of one epoch", mean(rho["one epoch"]), detail=rho["one epoch"])
    figures.add(
        "Spearman, supernet untrained",
        mean(rho["untrained supernet"]),
        detail=rho["untrained supernet"],
    )
    for name in ("parameters", "multiply-adds"):
        figures.add(f"Spearman of {name}", mean(rho[name]), detail=rho[name])
    figures.add(
        "share of the seconds", mean(shares["supernet"]), at_most=0.1, detail=shares["supernet"]
    )
    for name, outcomes in found.items():
        gains = [b["test_accuracy"] - a["test_accuracy"] for a, b in outcomes]
        figures.add(f"{name}: test accuracy gained by labels", mean(gains), detail=gains)
    print(figures)
    figures.save(given.out / "results.json")
    draw(given.out / "supernet.png", truth, labels)


def draw(path: Path, truth: dict[int, Labels], labels: dict[int, Labels]) -> None:
    """Labels against validation accuracies, a colour for each seed."""
    figure = new_figure(5.0, 4.0)
    axes = figure.add_subplot()
    for seed in truth:
        axes.scatter(truth[seed].values, labels[seed].values, s=12, label=f"seed {seed}")
    axes.set_xlabel("validation accuracy after real training (%)")
    axes.set_ylabel("label of the supernet (variance explained, %)")
    axes.legend()
    save_figure(figure, path)


if __name__ == "__main__":
    main()
