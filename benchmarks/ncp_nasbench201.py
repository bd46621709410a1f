"""Search on NAS-Bench-201: regret after B lookups, NCP in rounds beside eight other methods.

Every method looks up one accuracy of the table (of three data sets, validation or test) and pays
one lookup for each architecture; the regret is the best accuracy of the table minus the best that
was looked up, in points. Our own searches never look up two isomorphic cells, which the space calls
one network. Published NCP (one-hot relaxation, appendix C) is run beside: predictor trained on the
first 40 % of the lookups, 50 starts, and the best visited codes verified with the rest.

    python benchmarks/ncp_nasbench201.py --data ../shared/data --seeds 20

Optuna's GPSampler takes minutes where the others take seconds: it has fewer seeds (`--gp-seeds`)
and no budget above 100.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import torch
from _common import Figures, format_table, parse_arguments, parser, progress
from joblib import Parallel, delayed

from nni_aiop.benchmarks import load_nas_bench_201_csv
from nni_aiop.predictors import make_predictor
from nni_aiop.search import (
    BaseSearch,
    LocalSearch,
    NCPSearch,
    PredictorTopK,
    RandomSearch,
    RegularizedEvolution,
    Task,
    propagate,
)
from nni_aiop.search_spaces import get_space
from nni_aiop.spaces import CodeSpace, Sample

COLUMNS = ("c10_val", "c10_test", "c100_val", "c100_test", "in16_val", "in16_test")
NCP, GP = "NCP in rounds", "Optuna GPSampler"
METHODS = (
    NCP,
    "local search",
    "local search, greedy",
    "random search",
    "regularized evolution",
    "predictor top-k",
    "Optuna TPE",
    GP,
    "NCP as published",
)
MOST_BY_GP = 100
ASKED = {100: 0.05}


class Table:
    """Looked-up accuracy of every architecture, and how many were looked up."""

    def __init__(self, space: CodeSpace, accuracy: np.ndarray, points: np.ndarray) -> None:
        self.space = space
        self.accuracy = dict(zip(space.keys(points), accuracy.tolist(), strict=True))
        self.best = float(accuracy.max())

    def look_up(self, sample: Sample) -> float:
        return self.accuracy[self.space.key(sample)]


def by_ask_and_tell(table: Table, search: BaseSearch, budget: int) -> list[float]:
    found: list[float] = []
    while len(found) < budget:
        for sample in search.ask(1):
            found.append(table.look_up(sample))
            search.tell(sample, {"default": found[-1]})
    return found


def by_optuna(table: Table, sampler: optuna.samplers.BaseSampler, budget: int) -> list[float]:
    """One of Optuna's samplers at its defaults; a repeated suggestion is answered from memory and
    costs nothing."""
    study = optuna.create_study(direction="maximize", sampler=sampler)
    seen: dict[str, float] = {}
    for _ in range(4 * budget):
        trial = study.ask()
        sample = {
            d.label: trial.suggest_categorical(d.label, d.values_of(d.options(1000)))
            for d in table.space.dimensions
        }
        seen.setdefault(table.space.key(sample), table.look_up(sample))
        study.tell(trial, table.look_up(sample))
        if len(seen) == budget:
            break
    return list(seen.values())


def as_published(table: Table, seed: int, budget: int) -> list[float]:
    """One predictor (appendix E.1), plain one-hot relaxation with an argmax each 10 steps, top
    visited verified."""
    space, rng = table.space, np.random.default_rng(seed)
    search = RandomSearch(space, seed=seed)
    train = search.ask(round(0.4 * budget))
    found = [table.look_up(s) for s in train]
    predictor = make_predictor("ncp-mlp", space, seed).fit(
        space.encode(train), {"default": np.array(found)}
    )
    run = propagate(space, Task(predictor), space.sample(50, rng), rounding=10)
    seen = {space.key(s) for s in train}
    visited = [s for s in space.from_points(run.visited[0]) if space.key(s) not in seen]
    verified = visited[: budget - len(found)]
    found += [table.look_up(s) for s in verified]
    return found + [max(found)] * (budget - len(found))


def run_one(table: Table, method: str, seed: int, budget: int) -> float:
    """Regret after `budget` lookups."""
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    makers: dict[str, Callable[[], list[float]]] = {
        NCP: lambda: by_ask_and_tell(
            table, NCPSearch(table.space, budget=budget, seed=seed), budget
        ),
        "local search": lambda: by_ask_and_tell(table, LocalSearch(table.space, seed=seed), budget),
        "local search, greedy": lambda: by_ask_and_tell(
            table, LocalSearch(table.space, seed=seed, greedy=True), budget
        ),
        "random search": lambda: by_ask_and_tell(
            table, RandomSearch(table.space, seed=seed), budget
        ),
        "regularized evolution": lambda: by_ask_and_tell(
            table, RegularizedEvolution(table.space, seed=seed), budget
        ),
        "predictor top-k": lambda: by_ask_and_tell(
            table, PredictorTopK(table.space, budget=budget, seed=seed), budget
        ),
        "Optuna TPE": lambda: by_optuna(table, optuna.samplers.TPESampler(seed=seed), budget),
        GP: lambda: by_optuna(table, optuna.samplers.GPSampler(seed=seed), budget),
        "NCP as published": lambda: as_published(table, seed, budget),
    }
    found = makers[method]()
    assert 0 < len(found) <= budget
    return table.best - max(found)


Regrets = dict[tuple[str, str, int], list[float]]


def draw(regrets: Regrets, columns: list[str], budgets: tuple[int, ...], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6), layout="constrained")
    panels = figure.subplots(-(-len(columns) // 3), min(3, len(columns)), squeeze=False)
    for axes, column in zip(panels.flat, columns, strict=False):
        for place, method in enumerate(METHODS):
            known = [b for b in budgets if (column, method, b) in regrets]
            mean = [np.mean(regrets[column, method, b]) for b in known]
            axes.plot(known, mean, color=f"C{place}", label=method, marker="o", markersize=4)
        axes.set_title(column, fontsize="medium")
        axes.set_yscale("symlog", linthresh=0.01)
        axes.set_ylim(bottom=0)
        axes.set_xticks(budgets, [str(b) for b in budgets])
        axes.grid(alpha=0.3)
    figure.supxlabel("lookups B")
    figure.supylabel("mean regret (points)")
    panels.flat[0].legend(fontsize="x-small")
    figure.savefig(path, dpi=150)


def main() -> None:
    arguments = parser(__doc__.splitlines()[0], name="ncp_nasbench201", seeds=20)
    arguments.add_argument("--columns", default=",".join(COLUMNS), help="of nb201.csv.gz")
    arguments.add_argument("--budgets", default="50,100,200", help="lookups B (50,100,200)")
    arguments.add_argument("--gp-seeds", type=int, default=5, help="seeds of GPSampler (5)")
    options = parse_arguments(arguments)
    space = get_space("nasbench201")
    cells = load_nas_bench_201_csv(options.data / "nas_bench_201" / "nb201.csv.gz")
    points = space.decode_points(cells.embedding)
    columns = options.columns.split(",")[: 1 if options.quick else None]
    budgets = (30,) if options.quick else tuple(int(b) for b in options.budgets.split(","))
    say = progress()
    say(f"{len(points)} architectures, Optuna {optuna.__version__}")
    regrets: Regrets = {}
    with Parallel(n_jobs=2) as pool:
        for column in columns:
            table = Table(space, cells.metrics[column], points)
            for budget in budgets:
                for method in METHODS:
                    seeds = 2 if options.quick else options.seeds
                    if method == GP:
                        seeds = min(seeds, options.gp_seeds)
                        if budget > MOST_BY_GP:
                            continue
                    found = pool(
                        delayed(run_one)(table, method, seed, budget) for seed in range(seeds)
                    )
                    regrets[column, method, budget] = found
                    say(f"{column:9s} B={budget:3d}  {method:22s} {np.mean(found):.3f}")

    figures = Figures(quick=options.quick)
    for budget in budgets:
        rows = []
        for method in METHODS:
            row: list[object] = [method]
            for column in columns:
                values = regrets.get((column, method, budget))
                if values is None:
                    row.append("-")
                    continue
                mean, worst = float(np.mean(values)), int(np.argmax(values))
                error = float(np.std(values, ddof=1) / len(values) ** 0.5)
                row.append(f"{mean:.3f} ± {error:.3f}")
                figures.add(
                    f"{column}, B={budget}: {method}",
                    mean,
                    at_most=ASKED.get(budget) if method == NCP else None,
                    detail={"standard error": error, "by seed": values, "worst seed": worst},
                )
            rows.append(row)
        for column in columns:
            ncp = float(np.mean(regrets[column, NCP, budget]))
            others = {
                method: float(np.mean(regrets[column, method, budget]))
                for method in METHODS[1:]
                if (column, method, budget) in regrets
            }
            best = min(others, key=lambda method: others[method])
            figures.add(
                f"{column}, B={budget}: NCP less the best other ({best})",
                ncp - others[best],
                at_most=0.0 if budget > 50 else None,
            )
        print(format_table([f"B={budget}", *columns], rows))
    print(figures)
    figures.save(options.out / "results.json")
    draw(regrets, columns, budgets, options.out / "regret.png")


if __name__ == "__main__":
    main()
