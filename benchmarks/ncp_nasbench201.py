"""Search on NAS-Bench-201: regret after B lookups, NCP in rounds beside five other methods.

Every method looks up ImageNet16-120 validation accuracy (`Acc` of NCP's own file, best 47.33 %) and
pays one lookup for each architecture; the regret is the best accuracy of the table minus the best
that was looked up, in points. Published NCP (one-hot relaxation, appendix C) is run beside:
predictor trained on the first 40 % of the lookups, 50 starts, and the best visited codes verified
with the rest.

    python benchmarks/ncp_nasbench201.py --data ../shared/data --seeds 20

With `--target c10_val` (or another accuracy column of nb201.csv.gz) the same search runs on another
data set.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import optuna
import torch
from _common import Figures, format_table, parse_arguments, parser, progress
from joblib import Parallel, delayed

from nni_aiop.benchmarks import load_nas_bench_201, load_nas_bench_201_csv
from nni_aiop.predictors import make_predictor
from nni_aiop.search import (
    BaseSearch,
    NCPSearch,
    PredictorTopK,
    RandomSearch,
    RegularizedEvolution,
    Task,
    propagate,
)
from nni_aiop.search_spaces import get_space
from nni_aiop.spaces import CodeSpace, Sample

BUDGETS = (100, 200, 500)
ASKED = {100: 0.30, 200: 0.13, 500: 0.01}
METHODS = (
    "NCP in rounds",
    "random search",
    "regularized evolution",
    "Optuna TPE",
    "predictor top-k",
    "NCP as published",
)


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


def by_tpe(table: Table, seed: int, budget: int) -> list[float]:
    """Optuna's TPE at its defaults; a repeated suggestion is answered from memory and costs
    nothing."""
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
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
        "NCP in rounds": lambda: by_ask_and_tell(
            table, NCPSearch(table.space, budget=budget, seed=seed), budget
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
        "Optuna TPE": partial(by_tpe, table, seed, budget),
        "NCP as published": partial(as_published, table, seed, budget),
    }
    found = makers[method]()
    assert len(found) == budget
    return table.best - max(found)


def draw(regrets: dict[tuple[str, int], list[float]], budgets: tuple[int, ...], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for method in METHODS:
        mean = [np.mean(regrets[method, b]) for b in budgets]
        error = [np.std(regrets[method, b]) / len(regrets[method, b]) ** 0.5 for b in budgets]
        axes.errorbar(budgets, mean, error, label=method, capsize=3, marker="o")
    axes.set(
        xlabel="lookups B", ylabel="mean regret (points)", xscale="log", xticks=budgets,
        title="NAS-Bench-201: regret of the best architecture looked up",
    )  # fmt: skip
    axes.set_yscale("symlog", linthresh=0.05)
    axes.set_ylim(bottom=0)
    axes.set_xticks(budgets, [str(b) for b in budgets])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)


def main() -> None:
    arguments = parser(__doc__.splitlines()[0], name="ncp_nasbench201", seeds=20)
    arguments.add_argument("--target", default="", help="an accuracy column of nb201.csv.gz")
    arguments.add_argument("--first-seed", type=int, default=0, help="seeds start here (0)")
    options = parse_arguments(arguments)
    space = get_space("nasbench201")
    root = options.data / "nas_bench_201"
    cells = (
        load_nas_bench_201_csv(root / "nb201.csv.gz")
        if options.target
        else load_nas_bench_201(root)
    )
    accuracy = cells.metrics[options.target or "Acc"]
    points = space.decode_points(cells.embedding)
    table = Table(space, accuracy, points)
    budgets = (40, 60) if options.quick else BUDGETS
    seeds = range(options.first_seed, options.first_seed + (2 if options.quick else options.seeds))
    say = progress()
    say(f"{len(points)} architectures, best {table.best:.2f} %")
    regrets: dict[tuple[str, int], list[float]] = {}
    with Parallel(n_jobs=2) as pool:
        for budget in budgets:
            for method in METHODS:
                regrets[method, budget] = pool(
                    delayed(run_one)(table, method, seed, budget) for seed in seeds
                )
                say(f"B={budget:4d}  {method:22s} {np.mean(regrets[method, budget]):.3f}")

    figures = Figures(quick=options.quick)
    rows = []
    for method in METHODS:
        row: list[object] = [method]
        for budget in budgets:
            values = regrets[method, budget]
            error = float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0
            row.append(f"{np.mean(values):.3f} ± {error:.3f}")
            asked = ASKED.get(budget) if method == METHODS[0] and not options.target else None
            figures.add(
                f"{method}: regret at B={budget}",
                float(np.mean(values)),
                at_most=asked,
                detail={"standard error": error, "by seed": values},
            )
        rows.append(row)
    for budget in budgets[:2]:
        ncp = float(np.mean(regrets[METHODS[0], budget]))
        for method in METHODS[1:]:
            ahead = float(np.mean(regrets[method, budget])) - ncp
            figures.add(f"lead over {method} at B={budget}", ahead, at_least=1e-9)
    print(format_table(["method", *(f"B={b}" for b in budgets)], rows))
    print(figures)
    figures.save(options.out / "results.json")
    draw(regrets, budgets, options.out / "regret.png")


if __name__ == "__main__":
    main()
