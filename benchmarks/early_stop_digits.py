"""Random search of digits networks with and without the pruner that predicts where trials end.

    python benchmarks/early_stop_digits.py

Each study of Optuna's trains the same 100 random networks for up to 8 epochs: without a pruner,
with Optuna's median pruner, and with `EarlyStoppingPruner`, which reads the scheme and the
validation accuracies so far. Printed are the epochs that were trained and the test accuracy of the
network with the best validation accuracy.

A training is the same for the same network and seed, so the studies share what was trained: an
epoch counts for each study that asks for it. The pruner's options (confidence 0.9, the scheme alone
may rule a network out) were set on another seed, 0, which is not among those reported.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean, stdev
from typing import NamedTuple

import optuna
from _common import Figures, format_table, parse_arguments, parser, progress

from nni_aiop.engines.optuna_space import suggest
from nni_aiop.search_spaces import digits
from nni_aiop.spaces import CodeSpace, Sample
from nni_aiop.strategies import EarlyStoppingPruner

TRIALS = 100
STARTUP = 10


class Training(NamedTuple):
    """Validation accuracies in percent after each epoch, and the test accuracy at the end."""

    curve: list[float]
    test_accuracy: float


class Outcome(NamedTuple):
    """What a study trained and found."""

    epochs: int
    val_accuracy: float
    test_accuracy: float


class Trainings:
    """Networks of one seed, each trained once."""

    def __init__(self, space: CodeSpace, seed: int) -> None:
        self.space = space
        self.seed = seed
        self._done: dict[str, Training] = {}

    def __getitem__(self, sample: Sample) -> Training:
        key = self.space.key(sample)
        if key not in self._done:
            curve: list[float] = []
            metrics = digits.train_and_evaluate(
                sample, seed=self.seed, on_epoch=lambda epoch, value: curve.append(value)
            )
            self._done[key] = Training(curve, metrics["test_accuracy"])
        return self._done[key]


def run(trainings: Trainings, pruner: optuna.pruners.BasePruner, trials: int) -> Outcome:
    """One study; every pruner meets the same networks in the same order."""
    epochs = 0
    tested: dict[int, float] = {}

    def objective(trial: optuna.Trial) -> float:
        nonlocal epochs
        sample = suggest(trial, trainings.space)
        if trial.should_prune():
            raise optuna.TrialPruned
        trained = trainings[sample]
        for epoch, value in enumerate(trained.curve, start=1):
            epochs += 1
            trial.report(value, epoch)
            if epoch < len(trained.curve) and trial.should_prune():
                raise optuna.TrialPruned
        tested[trial.number] = trained.test_accuracy
        return trained.curve[-1]

    sampler = optuna.samplers.RandomSampler(seed=trainings.seed)
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
    study.optimize(objective, n_trials=trials)
    best = study.best_trial
    assert best.value is not None
    return Outcome(epochs, best.value, tested[best.number])


def error(values: list[float]) -> float:
    """Standard error of the mean."""
    return stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0


def main() -> None:
    given = parse_arguments(parser(__doc__.splitlines()[0], name="early_stop_digits", seeds=5))
    trials, startup = (16, 6) if given.quick else (TRIALS, STARTUP)
    seeds = range(1, 2 if given.quick else given.seeds + 1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    log = progress()
    space = digits.code_space()
    pruners: dict[str, Callable[[], optuna.pruners.BasePruner]] = {
        "none": optuna.pruners.NopPruner,
        "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=startup),
        "early stopping": lambda: EarlyStoppingPruner(
            space, min_epochs=0, confidence=0.9, startup=startup
        ),
    }
    found: dict[str, list[Outcome]] = {name: [] for name in pruners}
    for seed in seeds:
        trainings = Trainings(space, seed)
        for name, make in pruners.items():
            found[name].append(run(trainings, make(), trials))
        log(f"seed {seed}: " + ", ".join(f"{name} {found[name][-1]}" for name in pruners))
    rows = []
    for name, outcomes in found.items():
        tests = [outcome.test_accuracy for outcome in outcomes]
        rows.append(
            [
                name,
                f"{mean(outcome.epochs for outcome in outcomes):.0f}",
                f"{mean(outcome.val_accuracy for outcome in outcomes):.2f}",
                f"{mean(tests):.2f} ± {error(tests):.2f}",
            ]
        )
    print(format_table(["pruner", "epochs", "best validation", "its test accuracy"], rows), "\n")
    everything, ours = found["none"], found["early stopping"]
    share = mean(b.epochs / a.epochs for a, b in zip(everything, ours, strict=True))
    lost = [a.test_accuracy - b.test_accuracy for a, b in zip(everything, ours, strict=True)]
    figures = Figures(quick=given.quick)
    figures.add("share of the epochs", share, at_most=1 / 3, detail=[o.epochs for o in ours])
    figures.add(
        "test accuracy lost",
        mean(lost),
        at_most=error([o.test_accuracy for o in everything]),
        detail=lost,
    )
    print(figures)
    figures.save(given.out / "results.json")


if __name__ == "__main__":
    main()
