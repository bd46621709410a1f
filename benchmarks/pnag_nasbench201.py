"""PNAG on NAS-Bench-201: CIFAR-100 accuracy under measured latency, regret to the true optimum.

Test accuracy and the latency of five devices are tabulated for every cell (nb201.csv.gz,
latency_help.csv.gz), so the best cell of every budget is known. A lookup tells a cell's accuracy;
latency is known beforehand to every method, as an exact cost of the space. After 200 and 1,000
lookups the regret is the best accuracy within a budget minus the best that was looked up within it,
in points, averaged over five budgets from the 10th to the 90th percentile of latency.

    python benchmarks/pnag_nasbench201.py --data ../shared/data --seeds 5

PNAG, random search and NSGA-II serve all five budgets by one run; constrained regularized evolution
runs once for each budget with a fifth of the lookups, and beside it, for reference, with all of
them for each budget (five times as many). Isomorphic cells, which the space calls one network, have
latencies of their own: all of them may be looked up.

Finished parts are kept in the out folder: what is there is not done again, so that a stopped run
goes on. Take another out folder after a change of code.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import optuna
from _common import Figures, format_table, parse_arguments, parser, progress, run_part
from joblib import Parallel, delayed

from nni_aiop.benchmarks import load_nas_bench_201_csv
from nni_aiop.search import (
    BaseSearch,
    PNAGSearch,
    RandomSearch,
    RandomWarmup,
    RegularizedEvolution,
)
from nni_aiop.search_spaces import get_space
from nni_aiop.spaces import Sample, SampleCost

DEVICES = ("pixel3", "raspi4", "fpga", "titanx_1", "silver_4114")
LOOKUPS = (200, 1000)
PNAG, RANDOM, EVOLUTION, NSGA, FIVEFOLD = METHODS = (
    "PNAG",
    "random search",
    "constrained evolution",
    "Optuna NSGA-II",
    "evolution, 5x the lookups",
)


class Table:
    """Accuracy and latency of every cell, and the space that knows the latency."""

    def __init__(self, root: Path, device: str) -> None:
        folder = root / "nas_bench_201"
        cells = load_nas_bench_201_csv(
            folder / "nb201.csv.gz", latency=folder / "latency_help.csv.gz"
        )
        self.space = get_space("nasbench201")
        points = self.space.decode_points(cells.embedding)
        self.latency = cells.latency[device]
        self.accuracy = cells.metrics["c100_test"]
        self.rows = {key: i for i, key in enumerate(self.space.keys(points))}
        by_number = np.empty(len(points))
        by_number[_numbers(points)] = self.latency

        def latency(sample: Sample) -> float:
            return float(by_number[_numbers(self.space.points([sample]))[0]])

        self.space = self.space.with_cost("latency_ms", SampleCost(latency, quick=True))
        self.budgets = np.quantile(self.latency, np.linspace(0.1, 0.9, 5))
        self.best = [self.accuracy[self.latency <= b].max() for b in self.budgets]

    def look_up(self, sample: Sample) -> int:
        """The row of a cell."""
        return self.rows[self.space.key(sample)]

    def regret(self, rows: list[int]) -> list[float]:
        """Of what was looked up, at each budget; where none keeps it, to the worst cell."""
        out = []
        for budget, best in zip(self.budgets, self.best, strict=True):
            found = [self.accuracy[i] for i in rows if self.latency[i] <= budget]
            out.append(float(best - max(found, default=self.accuracy.min())))
        return out


def _numbers(points: np.ndarray) -> np.ndarray:
    """(n,) one number for each cell of (n, 6) points."""
    return points.astype(np.int64) @ 5 ** np.arange(6)


def by_search(table: Table, search: BaseSearch, lookups: int) -> list[int]:
    rows: list[int] = []
    while len(rows) < lookups and not search.exhausted:
        for sample in search.ask(1):
            rows.append(table.look_up(sample))
            search.tell(sample, {"default": float(table.accuracy[rows[-1]])})
    return rows


def by_pnag(table: Table, seed: int, lookups: int) -> list[int]:
    search = PNAGSearch(
        table.space,
        targets={"latency_ms": table.budgets.tolist()},
        budget=lookups,
        warmup=RandomWarmup(0.2),
        rounds=8,
        pool=2000,
        repeat_networks=True,
        seed=seed,
    )
    return by_search(table, search, lookups)


def by_evolution(table: Table, seed: int, lookups: int) -> list[int]:
    """One run under each budget's limit."""
    rows: list[int] = []
    for i, budget in enumerate(table.budgets):
        search = RegularizedEvolution(
            table.space,
            limits={"latency_ms": float(budget)},
            repeat_networks=True,
            population=min(30, max(10, lookups // 4)),
            seed=10 * seed + i,
        )
        rows += by_search(table, search, lookups)
    return rows


def by_nsga(table: Table, seed: int, lookups: int) -> list[int]:
    """Accuracy up, latency down; a cell that comes again is answered from memory."""
    study = optuna.create_study(
        directions=["maximize", "minimize"],
        sampler=optuna.samplers.NSGAIISampler(seed=seed, population_size=min(50, lookups // 5)),
    )
    seen: dict[int, None] = {}
    for _ in range(10 * lookups):
        trial = study.ask()
        row = table.look_up(
            {
                d.label: trial.suggest_categorical(d.label, d.values_of(d.options(1000)))
                for d in table.space.dimensions
            }
        )
        seen.setdefault(row)
        study.tell(trial, [float(table.accuracy[row]), float(table.latency[row])])
        if len(seen) == lookups:
            break
    return list(seen)


def run_one(root: Path, device: str, method: str, seed: int, lookups: int) -> list[float]:
    """Regret at each budget."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    table = Table(root, device)
    makers: dict[str, Callable[[], list[int]]] = {
        PNAG: partial(by_pnag, table, seed, lookups),
        RANDOM: lambda: by_search(
            table, RandomSearch(table.space, repeat_networks=True, seed=seed), lookups
        ),
        EVOLUTION: partial(by_evolution, table, seed, lookups // len(table.budgets)),
        NSGA: partial(by_nsga, table, seed, lookups),
        FIVEFOLD: partial(by_evolution, table, seed, lookups),
    }
    return table.regret(makers[method]())


def draw(regrets: dict[tuple[str, str, int], list[float]], lookups: int, path: Path) -> None:
    from matplotlib.figure import Figure

    devices = list(dict.fromkeys(device for device, _, _ in regrets))
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for i, method in enumerate(METHODS):
        means = [np.mean(regrets[device, method, lookups]) for device in devices]
        axes.bar(np.arange(len(devices)) + 0.16 * (i - 2), means, 0.16, label=method)
    axes.set_xticks(range(len(devices)), devices)
    axes.set(ylabel="mean regret (points)", title=f"CIFAR-100 under latency, {lookups} lookups")
    figure.legend(fontsize="small", loc="outside lower center", ncols=len(METHODS))
    figure.savefig(path, dpi=130)


def main() -> None:
    options = parse_arguments(parser(__doc__.splitlines()[0], name="pnag_nasbench201", seeds=5))
    lookups = (50,) if options.quick else LOOKUPS
    devices = DEVICES[:1] if options.quick else DEVICES
    seeds = range(1 if options.quick else options.seeds)
    say = progress()
    figures = Figures(quick=options.quick)
    parts = (options.out / "quick" if options.quick else options.out) / "parts"
    tasks = [
        (device, method, seed, number)
        for number in lookups
        for device in devices
        for method in METHODS
        for seed in seeds
    ]
    found = Parallel(n_jobs=1 if options.quick else 2, return_as="generator")(
        delayed(run_part)(
            run_one,
            parts / f"{'-'.join(map(str, task)).replace(' ', '_')}.json",
            options.data,
            *task,
        )
        for task in tasks
    )
    regrets: dict[tuple[str, str, int], list[float]] = {}
    for (device, method, seed, number), regret in zip(tasks, found, strict=True):
        regrets.setdefault((device, method, number), []).append(float(np.mean(regret)))
        if seed == seeds[-1]:
            mean = np.mean(regrets[device, method, number])
            say(f"{number:5d} {device:12s} {method:26s} {mean:.3f}")
    for number in lookups:
        rows: list[list[object]] = []
        for method in METHODS:
            means = [float(np.mean(regrets[device, method, number])) for device in devices]
            rows.append([method, *means, float(np.mean(means))])
            figures.add(f"{method}: regret after {number} lookups", float(np.mean(means)))
        print(f"\nMean regret (points) after {number} lookups")
        print(format_table(["method", *devices, "mean"], rows))
        for device in devices:
            for rival in (RANDOM, EVOLUTION, NSGA):
                leads = np.subtract(regrets[device, rival, number], regrets[device, PNAG, number])
                figures.add(
                    f"{device}, {number}: lead over {rival}",
                    float(leads.mean()),
                    at_least=1e-9,
                    detail=leads.tolist(),  # by seed
                )
        draw(regrets, number, options.out / f"regret_{number}.png")
    print(figures)
    figures.save(options.out / "results.json")


if __name__ == "__main__":
    main()
