"""Search in spaces that mix choices with real numbers: regret beside Optuna's samplers.

Three spaces stand for what people tune together: a network with a dropout rate (`floats`), a
network with the learning rate and weight decay that train it (`log floats`), and an optimizer and
layers whose own parameters exist only beside some choices (`conditions`). Their objectives are
formulas (not trainings) with a known optimum, so that the regret is exact: a smooth bowl in every
number, whose centre moves with the choices, and interactions between the choices.

    python benchmarks/mixed_spaces.py --seeds 10

Every method gets the same number of evaluations. The budget that NCP and top-k plan with is the
larger one of the two that are reported.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from _common import Figures, format_table, parse_arguments, parser, progress
from joblib import Parallel, delayed

from nni_aiop.search import (
    BaseSearch,
    LocalSearch,
    NCPSearch,
    PredictorTopK,
    RandomSearch,
    RegularizedEvolution,
)
from nni_aiop.spaces import CodeSpace, Condition, Continuous, Nominal, Ordinal, Sample
from nni_aiop.strategies import NCPSampler

LOOKS = (24, 40)
OURS = ("NCP", "NCP, Optuna")
METHODS = (
    *OURS,
    "predictor top-k",
    "local search",
    "regularized evolution",
    "random search",
    "Optuna TPE",
    "Optuna GPSampler",
)


@dataclass(frozen=True)
class Problem:
    """A space, and its objective: more is better, at most 0, which one architecture reaches."""

    space: CodeSpace
    objective: Callable[[Sample], float]


def _off(x: float, centre: float, width: float) -> float:
    """How far x is from a centre, squared, in widths."""
    return ((x - centre) / width) ** 2


def floats() -> Problem:
    """162 networks and a dropout rate, whose best value grows with the network."""
    space = CodeSpace(
        [
            Ordinal("width", (4, 8, 16)),
            Ordinal("depth", (1, 2, 3)),
            Ordinal("kernel", (1, 3, 5)),
            Nominal("activation", ("relu", "tanh", "silu")),
            Nominal("norm", (False, True)),
            Continuous("dropout", 0.0, 0.6),
        ]
    )

    def objective(s: Sample) -> float:
        short = math.log2(16 / s["width"]) / 2 + (3 - s["depth"]) / 4 + (5 - s["kernel"]) / 12
        loss = {"relu": 0.02, "tanh": 0.06, "silu": 0.0}[s["activation"]]
        loss += 0.0 if s["norm"] else 0.03 * s["depth"]
        return -(0.12 * short + loss + 0.04 * _off(s["dropout"], 0.35 - 0.15 * short, 0.2))

    return Problem(space, objective)


def log_floats() -> Problem:
    """Networks with the learning rate and weight decay that train them, on logarithmic scales."""
    space = CodeSpace(
        [
            Nominal("block", ("plain", "residual", "bottleneck", "dense")),
            Ordinal("depth", (2, 4, 8, 16)),
            Ordinal("batch", (16, 32, 64, 128, 256)),
            Continuous("lr", 1e-5, 1.0, log=True),
            Continuous("decay", 1e-7, 1e-1, log=True),
        ]
    )

    def objective(s: Sample) -> float:
        depth, batch = math.log2(s["depth"]) - 1, math.log2(s["batch"]) - 4
        best = {"plain": 1, "residual": 3, "bottleneck": 3, "dense": 2}[s["block"]]
        loss = {"plain": 0.05, "residual": 0.0, "bottleneck": 0.015, "dense": 0.03}[s["block"]]
        loss += 0.02 * abs(depth - best) + 0.01 * abs(batch - 2)
        # Larger batches want a larger rate, deeper networks a smaller one.
        loss += 0.02 * _off(math.log10(s["lr"]), -2.2 + 0.3 * (batch - 2) - 0.2 * (depth - 3), 0.5)
        return -(loss + 0.01 * _off(math.log10(s["decay"]), -3.6, 0.8))

    return Problem(space, objective)


def conditions() -> Problem:
    """An optimizer with parameters of its own, and as many layers as there are."""
    layers = [
        d
        for i in (1, 2, 3)
        for d in (
            Ordinal(f"width{i}", (16, 32, 64, 128)),
            Continuous(f"dropout{i}", 0.0, 0.5),
        )
    ]
    space = CodeSpace(
        [
            Nominal("optimizer", ("sgd", "adam", "rmsprop")),
            Continuous("momentum", 0.0, 0.99),
            Continuous("beta2", 0.9, 0.9999),
            Continuous("lr", 1e-5, 1.0, log=True),
            Ordinal("layers", (1, 2, 3)),
            *layers,
        ],
        conditions={
            "momentum": Condition("optimizer", ("sgd", "rmsprop")),
            "beta2": Condition("optimizer", ("adam",)),
            **{
                f"{name}{i}": Condition("layers", tuple(range(i, 4)))
                for i in (2, 3)
                for name in ("width", "dropout")
            },
        },
    )
    rate = {"sgd": -1.3, "adam": -3.0, "rmsprop": -3.4}

    def objective(s: Sample) -> float:
        loss = {"sgd": 0.0, "adam": 0.02, "rmsprop": 0.04}[s["optimizer"]]
        loss += 0.03 * _off(math.log10(s["lr"]), rate[s["optimizer"]], 0.7)
        if s["optimizer"] == "adam":
            loss += 0.01 * _off(math.log10(1 - s["beta2"]), -3, 1.0)
        else:
            loss += 0.02 * _off(s["momentum"], 0.9 if s["optimizer"] == "sgd" else 0.5, 0.25)
        loss += (0.06, 0.0, 0.01)[s["layers"] - 1]
        for i in range(1, s["layers"] + 1):
            loss += 0.01 * abs(math.log2(s[f"width{i}"] / (32, 64, 128)[i - 1]))
            loss += 0.01 * _off(s[f"dropout{i}"], 0.1 * i, 0.15)
        return -loss

    return Problem(space, objective)


PROBLEMS = {"floats": floats, "log floats": log_floats, "conditions": conditions}


def by_ask_and_tell(problem: Problem, search: BaseSearch, budget: int) -> list[float]:
    found: list[float] = []
    while len(found) < budget:
        for sample in search.ask(1):
            found.append(problem.objective(sample))
            search.tell(sample, found[-1])
    return found


def by_optuna(problem: Problem, sampler: optuna.samplers.BaseSampler, budget: int) -> list[float]:
    """A define-by-run study: the sampler sees what the objective asks for, and nothing else."""

    def run(trial: optuna.Trial) -> float:
        sample: Sample = {}
        for dimension in problem.space.dimensions:
            conditions = problem.space.conditions.get(dimension.label, ())
            if all(sample.get(c.parent) in c.values for c in conditions):
                sample[dimension.label] = _suggest(trial, dimension)
        return problem.objective(sample)

    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(run, n_trials=budget)
    return [trial.value for trial in study.trials]


def _suggest(trial: optuna.Trial, dimension: Any) -> Any:
    if isinstance(dimension, Continuous):
        return trial.suggest_float(
            dimension.label, dimension.low, dimension.high, log=dimension.log
        )
    values = tuple(dimension.values)
    if isinstance(dimension, Ordinal) and values == tuple(range(values[0], values[-1] + 1)):
        return trial.suggest_int(dimension.label, values[0], values[-1])
    return trial.suggest_categorical(dimension.label, values)


def run_one(name: str, method: str, seed: int, looks: tuple[int, ...] = LOOKS) -> list[float]:
    """Regret after each number of evaluations."""
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", category=optuna.exceptions.ExperimentalWarning)
    problem, budget = PROBLEMS[name](), looks[-1]
    ours: dict[str, Callable[[], BaseSearch]] = {
        "NCP": lambda: NCPSearch(problem.space, budget=budget, seed=seed),
        "predictor top-k": lambda: PredictorTopK(problem.space, budget=budget, seed=seed),
        "local search": lambda: LocalSearch(problem.space, seed=seed),
        "regularized evolution": lambda: RegularizedEvolution(problem.space, seed=seed),
        "random search": lambda: RandomSearch(problem.space, seed=seed),
    }
    samplers: dict[str, Callable[[], optuna.samplers.BaseSampler]] = {
        "NCP, Optuna": lambda: NCPSampler(budget=budget, seed=seed),
        "Optuna TPE": lambda: optuna.samplers.TPESampler(seed=seed),
        "Optuna GPSampler": lambda: optuna.samplers.GPSampler(
            seed=seed, warn_independent_sampling=False
        ),
    }
    if method in ours:
        found = by_ask_and_tell(problem, ours[method](), budget)
    else:
        found = by_optuna(problem, samplers[method](), budget)
    return [-max(found[:n]) for n in looks]


def draw(regrets: dict[tuple[str, str], np.ndarray], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    panels = figure.subplots(1, len(PROBLEMS), sharey=True)
    for axes, name in zip(panels, PROBLEMS, strict=True):
        for place, method in enumerate(METHODS):
            values = regrets[name, method]
            axes.plot(values[:, -1], np.full(len(values), place), "o", alpha=0.4, markersize=4)
            axes.plot(values[:, -1].mean(), place, "k|", markersize=14)
        axes.set(title=name, xlabel=f"regret after {LOOKS[-1]} evaluations")
        axes.set_xscale("symlog", linthresh=1e-3)
        axes.set_xlim(left=0)
        axes.grid(alpha=0.3)
    panels[0].set_yticks(range(len(METHODS)), METHODS)
    panels[0].invert_yaxis()
    figure.savefig(path, dpi=150)


def main() -> None:
    options = parse_arguments(parser(__doc__.splitlines()[0], name="mixed_spaces", seeds=10))
    seeds = range(2 if options.quick else options.seeds)
    names = list(PROBLEMS)[:1] if options.quick else list(PROBLEMS)
    looks = (10, 13) if options.quick else LOOKS
    say = progress()
    say(f"Optuna {optuna.__version__}")
    regrets: dict[tuple[str, str], np.ndarray] = {}
    with Parallel(n_jobs=2) as pool:
        for name in names:
            for method in METHODS:
                rows = pool(delayed(run_one)(name, method, seed, looks) for seed in seeds)
                regrets[name, method] = np.array(rows)
                say(f"{name:12s} {method:22s} {regrets[name, method].mean(axis=0).round(4)}")

    figures = Figures(quick=options.quick)
    rows = []
    for method in METHODS:
        row: list[object] = [method]
        for name in names:
            for place, n in enumerate(looks):
                values = regrets[name, method][:, place]
                best = min(
                    float(regrets[name, other][:, place].mean())
                    for other in ("Optuna TPE", "Optuna GPSampler")
                )
                figures.add(
                    f"{name}: {method} after {n}",
                    float(values.mean()),
                    at_most=best if method in OURS else None,
                    detail={"by seed": values.tolist()},
                )
                row.append(f"{values.mean():.4f} ± {values.std() / len(values) ** 0.5:.4f}")
        rows.append(row)
    print(format_table(["method", *(f"{name} @{n}" for name in names for n in looks)], rows))
    print(figures)
    figures.save(options.out / "results.json")
    if not options.quick:
        draw(regrets, options.out / "mixed_spaces.png")


if __name__ == "__main__":
    main()
