"""PNAG on the once-for-all MobileNetV3 space: one generator for every budget (tables 2, 3 and 5).

All accuracies are surrogate: 14,000 rows of surrogate_16k (seeded) are what methods know, with
latency from the Note10 table, and again MACs. A judge that no method saw compares what they choose:
the mean of a Gaussian process of the other 2,000 rows and one of the measured rows of dynast_w1.0
(mapped linearly onto the first one's scale).

    python benchmarks/pnag_ofa.py --data ../shared/data --seeds 3

EVO is regularized evolution under the exact limit, which asks as many accuracies as PNAG was given
labels: 14,000 divided by the number of budgets for each. It and the rewards of MnasNet and TuNAS
read accuracies from a network that was fitted on the 14,000. MnasNet's reward is there twice: as
published, of which the best architecture is the same for every budget, and hard, where only what
exceeds the budget is charged. Each method names one architecture per budget by what it knows.

Training and generation are timed at the end, one after the other, with nothing beside them.

Judges and finished parts are kept in the out folder: what is there is not done again, so that a
stopped run goes on. Take another out folder after a change of code.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import Figures, format_table, parse_arguments, parser, progress, run_part
from joblib import Parallel, delayed
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nni_aiop.benchmarks import load_ofa_mbv3
from nni_aiop.generators import (
    BudgetGrid,
    ParetoGenerator,
    Reward,
    TrainingOptions,
    absolute_reward,
    multi_objective_reward,
)
from nni_aiop.generators._training import PolicyTraining
from nni_aiop.predictors import load_predictor, make_predictor
from nni_aiop.search import RegularizedEvolution
from nni_aiop.search_spaces.mobilenetv3 import code_space, load_latency_table
from nni_aiop.spaces import CodeSpace

COSTS = {"latency_ms": "latency (ms)", "macs": "MACs"}
PNAG, EVO, MNAS, HARD, TUNAS, NO_ACCURACY, TRAINING = (
    "PNAG",
    "EVO",
    "multi-objective reward",
    "multi-objective reward, hard",
    "absolute reward",
    "Pareto without accuracy rule",
    "best of training",
)
REWARDS = (PNAG, MNAS, HARD, TUNAS, NO_ACCURACY)
LEVELS = (1, 2, 5, 10, 30)


@dataclass(frozen=True)
class Size:
    """How much of everything a run does."""

    train: int = 14_000
    judge: int = 2_000
    evaluator_steps: int = 2_500
    steps: int = 800
    samples: int = 32
    evolution: int = 14_000
    front: int = 20
    drawn: int = 1_000


QUICK = Size(400, 150, 60, 12, 4, 100, 3, 50)


Labels = tuple[np.ndarray, np.ndarray]


@dataclass
class Data:
    """Architectures with labels, what methods know and what the judge knows."""

    space: CodeSpace
    codes: np.ndarray
    accuracy: np.ndarray
    held_out: Labels
    judge: Callable[[np.ndarray], np.ndarray]
    labeler: Callable[[np.ndarray], np.ndarray]


def read(root: Path, judges: Path, seed: int, size: Size) -> Data:
    space, codes, accuracy = surrogate(root)
    train, rest = split(len(codes), seed, size)
    labeler = fitted_labeler(space, codes, accuracy, train)
    held_out = codes[rest], accuracy[rest]
    judge = joint_judge(space, judges, seed, held_out)
    return Data(space, codes[train], accuracy[train], held_out, judge, labeler)


def surrogate(root: Path) -> tuple[CodeSpace, np.ndarray, np.ndarray]:
    """The space, and codes and accuracies of surrogate_16k."""
    table = load_latency_table(root / "ofa_mbv3" / "lut_note10_w1.2.csv.gz")
    space = code_space(width=1.2, latency={"latency_ms": table})
    rows = load_ofa_mbv3(root / "ofa_mbv3" / "surrogate_16k.csv.gz")
    return space, space.encode(rows.samples), rows.metrics["autobuild_top1"]


def split(n: int, seed: int, size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Rows that methods know, and those that only a judge does."""
    order = np.random.default_rng(seed).permutation(n)
    return order[: size.train], order[14_000 : 14_000 + size.judge]


def fit_judge(root: Path, judges: Path, seed: int | None, size: Size) -> None:
    """Puts a judge into its file: of the rows that no method of this seed knows, or measured."""
    path = judge_path(judges, seed)
    if path.exists():
        return
    torch.set_num_threads(1)
    space, codes, accuracy = surrogate(root)
    if seed is None:
        measured = load_ofa_mbv3(root / "ofa_mbv3" / "dynast_w1.0_measured.csv.gz")
        rows = slice(2 * size.judge)
        codes, accuracy = space.encode(measured.samples)[rows], measured.metrics["top1"][rows]
    else:
        rest = split(len(codes), seed, size)[1]
        codes, accuracy = codes[rest], accuracy[rest]
    make_predictor("gp", space, 0).fit(codes, {"accuracy": accuracy}).save(path)


def judge_path(judges: Path, seed: int | None) -> Path:
    return judges / f"{'measured' if seed is None else seed}.safetensors"


def joint_judge(
    space: CodeSpace, judges: Path, seed: int, held_out: Labels
) -> Callable[[np.ndarray], np.ndarray]:
    one, other = (load_predictor(judge_path(judges, which), space) for which in (seed, None))
    on_held_out = other.predict(held_out[0]).mean[:, 0]
    slope, shift = np.polyfit(on_held_out, held_out[1], 1)

    def judge(codes: np.ndarray) -> np.ndarray:
        first, second = (p.predict(codes).mean[:, 0] for p in (one, other))
        return (first + slope * second + shift) / 2

    return judge


def fitted_labeler(
    space: CodeSpace, codes: np.ndarray, accuracy: np.ndarray, train: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    def inputs(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return np.concatenate([x, space.features(torch.as_tensor(x)).numpy()], axis=1)

    center, scale = accuracy[train].mean(), accuracy[train].std()
    network = make_pipeline(
        StandardScaler(),
        MLPRegressor(
            hidden_layer_sizes=(128, 128), max_iter=60, early_stopping=True, random_state=0
        ),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it may stop at the last pass
        network.fit(inputs(codes[train]), (accuracy[train] - center) / scale)
    return lambda x: network.predict(inputs(x)) * scale + center


def trained(
    data: Data,
    cost: str,
    grid: BudgetGrid,
    size: Size,
    seed: int,
    method: str = PNAG,
    steps: int | None = None,
) -> ParetoGenerator:
    """A generator by one of the rewards; all draw as many architectures in an update."""
    generator = ParetoGenerator(
        data.space,
        grid,
        training=TrainingOptions(
            steps=steps or size.steps, samples=max(2, 10 * size.samples // grid.k)
        ),
        evaluator={"steps": size.evaluator_steps, "by_accuracy": method != NO_ACCURACY},
        seed=seed,
    )
    rewards: dict[str, Callable[..., Reward]] = {
        MNAS: multi_objective_reward,
        HARD: partial(multi_objective_reward, alpha=0.0, beta=-1.0),
        TUNAS: absolute_reward,
    }
    if method in rewards:
        return generator.fit_policy(rewards[method](lambda codes: data.labeler(codes) / 100))
    return generator.fit(data.codes, data.accuracy)


def chosen(
    data: Data, generator: ParetoGenerator, cost: str, budget: float, drawn: int
) -> tuple[np.ndarray, float]:
    """(1, width) the code a trained generator stands for, and the share of draws in the budget."""
    codes = data.space.encode_points(generator.draw(budget, drawn))
    kept = data.space.cost(cost, codes) <= budget
    if generator.evaluator_ is not None or not kept.any():
        pool = generator.generate(budget, pool=drawn, extrapolate=True)
        return data.space.encode(pool), float(kept.mean())
    within = codes[kept]
    return within[[int(data.labeler(within).argmax())]], float(kept.mean())


def evolved(data: Data, cost: str, budget: float, evaluations: int, seed: int) -> np.ndarray:
    search = RegularizedEvolution(
        data.space, limits={cost: budget}, population=50, tournament=10, seed=seed
    )
    for _ in range(evaluations):
        for sample in search.ask(1):
            code = data.space.encode([sample])
            search.tell(sample, {"default": float(data.labeler(code)[0])})
    best = search.best()
    assert best is not None
    return data.space.encode([best[0]])


def hypervolume(costs: np.ndarray, accuracy: np.ndarray, worst: tuple[float, float]) -> float:
    """Area that the points dominate, with the reference point as the unit of cost."""
    order = np.argsort(costs)
    area, best = 0.0, worst[1]
    ends = np.append(costs[order][1:], worst[0])
    for c, end, a in zip(costs[order], ends, accuracy[order], strict=True):
        best = max(best, a)
        area += max(0.0, min(end, worst[0]) - min(c, worst[0])) * (best - worst[1])
    return area / worst[0]


def speed_ratio(data: Data, grid: BudgetGrid, generator: ParetoGenerator, size: Size) -> float:
    """Architectures a second of the batched training over one that draws one at each step."""
    from nni_aiop.generators import pareto_reward

    assert generator.evaluator_ is not None
    reward = pareto_reward(generator.evaluator_)
    rates = []
    for samples, levels, repeats in ((size.samples, grid, 5), (None, None, 30)):
        training = PolicyTraining(
            generator._tables,
            levels or BudgetGrid({n: v[:1] for n, v in grid.levels.items()}),
            generator._new_policy() if levels else _narrow(generator),
            TrainingOptions(steps=1000, samples=samples or 2),
            seed=0,
        )
        training.update(reward)
        start = time.perf_counter()
        for _ in range(repeats):
            training.update(reward)
        spent = time.perf_counter() - start
        # The smallest batch is of two: counted as the one that its step costs.
        rates.append(repeats * (size.samples * grid.k if samples else 1) / spent)
    return rates[0] / rates[1]


def _narrow(generator: ParetoGenerator) -> Any:
    one = BudgetGrid({n: v[:1] for n, v in generator.grid.levels.items()})
    return ParetoGenerator(generator.space, one, hidden=generator.hidden)._new_policy()


def budgets_of(cost: str, spent: np.ndarray) -> tuple[np.ndarray, BudgetGrid]:
    """The five budgets that are looked at, and those that are trained for."""
    budgets = np.quantile(spent, np.linspace(0.05, 0.95, 5))
    return budgets, BudgetGrid.spread({cost: spent}, 10, low=0.005, high=0.995)


def time_one(root: Path, judges: Path, cost: str, size: Size) -> dict[str, float]:
    """What training and generation take on one core, with nothing beside them."""
    data = read(root, judges, 0, size)
    budgets, grid = budgets_of(cost, data.space.cost(cost, data.codes))
    start = time.perf_counter()
    pnag = trained(data, cost, grid, size, 0)
    training = time.perf_counter() - start
    lasting = []
    for budget in np.repeat(budgets, 4):
        start = time.perf_counter()
        pnag.generate(budget)
        lasting.append(time.perf_counter() - start)
    return {
        "training seconds": training,
        "generation ms": 1e3 * float(np.median(lasting)),
        "speed ratio": speed_ratio(data, grid, pnag, size),
    }


def run_one(
    root: Path, judges: Path, cost: str, seed: int, size: Size, ablate: bool
) -> dict[str, Any]:
    """Everything for one cost and one seed."""
    data = read(root, judges, seed, size)
    space, spent = data.space, data.space.cost(cost, data.codes)
    budgets, grid = budgets_of(cost, spent)
    out: dict[str, Any] = {"budgets": budgets.tolist(), "kept": {}, "accuracy": {}, "cost": {}}
    generators = {}
    for method in REWARDS:
        generators[method] = trained(data, cost, grid, size, seed, method)
    picks: dict[str, list[np.ndarray]] = {method: [] for method in (*REWARDS, EVO, TRAINING)}
    drawn: dict[str, list[list[float]]] = {method: [] for method in (PNAG, MNAS, HARD)}
    for i, budget in enumerate(budgets):
        for method in REWARDS:
            code, kept = chosen(data, generators[method], cost, budget, size.drawn)
            picks[method].append(code)
            out["kept"].setdefault(method, []).append(kept)
        for method, costs in drawn.items():
            points = generators[method].draw(budget, size.drawn)
            costs.append(space.cost(cost, space.encode_points(points)).tolist())
        share = size.evolution // len(budgets)
        picks[EVO].append(evolved(data, cost, budget, share, seed * 100 + i))
        within = np.flatnonzero(spent <= budget)
        picks[TRAINING].append(data.codes[[within[data.accuracy[within].argmax()]]])
    out["drawn"] = drawn
    for method, codes in picks.items():
        found = np.concatenate(codes)
        out["accuracy"][method] = data.judge(found).tolist()
        out["cost"][method] = space.cost(cost, found).tolist()

    pnag = generators[PNAG]
    hundred = [pnag.generate(budget, 100) for budget in budgets]
    codes = [space.encode(samples) for samples in hundred]
    out["kept after"] = float(
        np.mean([space.cost(cost, c) <= b for c, b in zip(codes, budgets, strict=True)])
    )
    out["kendall"] = pnag.evaluator_.kendall(*data.held_out)

    front = np.linspace(budgets[0], budgets[-1], size.front)
    worst = (float(budgets[-1]), float(np.quantile(data.accuracy, 0.01)))
    out["front"] = {}
    for method in (PNAG, EVO):
        codes = [
            chosen(data, pnag, cost, b, size.drawn)[0]
            if method == PNAG
            else evolved(data, cost, b, size.evolution // size.front, seed * 100 + 50 + i)
            for i, b in enumerate(front)
        ]
        found = np.concatenate(codes)
        costs, accuracy = space.cost(cost, found), data.judge(found)
        out["front"][method] = [
            costs.tolist(),
            accuracy.tolist(),
            hypervolume(costs, accuracy, worst),
        ]
    if ablate:
        out["levels"] = {}
        for k in LEVELS:
            levels = BudgetGrid.spread({cost: spent}, k, low=0.005, high=0.995)
            by_k = pnag if k == 10 else trained(data, cost, levels, size, seed)
            code, _ = chosen(data, by_k, cost, budgets[2], size.drawn)
            out["levels"][str(k)] = float(data.judge(code)[0])
        out["independent"] = []
        for budget in budgets:
            alone = trained(
                data, cost, BudgetGrid({cost: (budget,)}), size, seed, steps=max(1, size.steps // 5)
            )
            code, _ = chosen(data, alone, cost, budget, size.drawn)
            out["independent"].append(float(data.judge(code)[0]))
    return out


def draw(runs: list[dict[str, Any]], label: str, path: Path) -> None:
    """Figures 3 to 5 of the paper: accuracy by budget, the front, costs of draws by budget."""
    from matplotlib.figure import Figure

    run = runs[0]
    figure = Figure(figsize=(15, 4.2), layout="constrained")
    best, front, counts = figure.subplots(1, 3)
    for method in (PNAG, EVO, MNAS, HARD, TUNAS, TRAINING):
        accuracy = np.mean([r["accuracy"][method] for r in runs], axis=0)
        best.plot(run["budgets"], accuracy, marker="o", label=method)
    best.set(xlabel=f"budget: {label}", ylabel="judged accuracy (%, surrogate)")
    best.set_title("Best architecture at each budget")
    best.legend(fontsize="small", loc="lower right", bbox_to_anchor=(1.0, 0.08))
    for method, (costs, accuracy, _) in run["front"].items():
        order = np.argsort(costs)
        front.plot(np.array(costs)[order], np.array(accuracy)[order], marker=".", label=method)
    front.set(xlabel=label, ylabel="judged accuracy (%, surrogate)")
    front.set_title("Front over interpolated budgets (seed 0)")
    front.legend(fontsize="small")
    bins = np.linspace(0.8 * run["budgets"][0], 1.15 * run["budgets"][-1], 70)
    for i, style in ((1, "tab:blue"), (3, "tab:red")):
        budget = run["budgets"][i]
        counts.hist(
            run["drawn"][PNAG][i], bins, color=style, alpha=0.7, label=f"PNAG, {budget:.3g}"
        )
        for method, line in ((MNAS, "-"), (HARD, ":")):
            counts.hist(
                run["drawn"][method][i],
                bins,
                color=style,
                histtype="step",
                linestyle=line,
                label=f"{method}, {budget:.3g}",
            )
        counts.axvline(budget, color=style, linestyle="--")
    counts.set(xlabel=label, ylabel="draws")
    counts.set_title("Costs of draws; dashed: the budget")
    counts.margins(y=1.1)  # room for the legend
    counts.legend(fontsize="small")
    figure.savefig(path, dpi=130)


def report(
    cost: str, runs: list[dict[str, Any]], times: dict[str, float], figures: Figures
) -> None:
    label = COSTS[cost]
    budgets = np.mean([r["budgets"] for r in runs], axis=0)
    headers = ["method", *(f"{b:.4g}" for b in budgets)]
    accuracy = {m: np.mean([r["accuracy"][m] for r in runs], axis=0) for m in runs[0]["accuracy"]}
    costs = {m: np.mean([r["cost"][m] for r in runs], axis=0) for m in runs[0]["cost"]}
    kept = {m: np.mean([r["kept"][m] for r in runs], axis=0) for m in REWARDS}
    print(f"\nJudged accuracy (%, surrogate) of the best architecture by budget, {label}")
    print(format_table(headers, [[m, *map(float, row)] for m, row in accuracy.items()]))
    print(f"\nIts {label}")
    print(format_table(headers, [[m, *map(float, row)] for m, row in costs.items()]))
    print("\nShare of draws that keep the budget, before any repair")
    print(format_table(headers, [[m, *map(float, row)] for m, row in kept.items()]))
    for i, budget in enumerate(budgets):
        at = f"{label} <= {budget:.4g}"
        figures.add(f"{at}: draws that keep it", float(kept[PNAG][i]), at_least=0.9)
        for rival in (TRAINING, EVO, MNAS, HARD):
            lead = float(accuracy[PNAG][i] - accuracy[rival][i])
            figures.add(f"{at}: lead over {rival}", lead, at_least=0.0)
    for rival in (MNAS, HARD):
        more = float(kept[PNAG].mean() - kept[rival].mean())
        figures.add(f"{label}: keeps budgets more often than {rival}", more, at_least=1e-9)
    after = min(r["kept after"] for r in runs)
    figures.add(f"{label}: kept after repair", after, at_least=1.0)
    volumes = [r["front"][PNAG][2] - r["front"][EVO][2] for r in runs]
    figures.add(
        f"{label}: hypervolume lead over EVO", float(np.mean(volumes)), at_least=0.0, detail=volumes
    )
    figures.add(f"{label}: one generation, ms", times["generation ms"], at_most=50.0)
    figures.add(f"{label}: training, s", times["training seconds"], at_most=600.0)
    figures.add(f"{label}: speed over one architecture a step", times["speed ratio"])
    taus = {k: float(np.mean([r["kendall"][k] for r in runs])) for k in runs[0]["kendall"]}
    figures.add(f"{label}: least Kendall tau of the evaluator", min(taus.values()), detail=taus)
    if "levels" in runs[0]:
        print(f"\nNumber of budgets K: judged accuracy at {budgets[2]:.4g} (seed 0)")
        levels = runs[0]["levels"]
        print(format_table(["K", *levels], [["accuracy", *levels.values()]]))
        print("\nIndependent searches beside the joint one (seed 0)")
        rows = [["independent", *runs[0]["independent"]], ["joint", *runs[0]["accuracy"][PNAG]]]
        print(format_table(headers, rows))
        gain = float(np.mean(runs[0]["accuracy"][PNAG]) - np.mean(runs[0]["independent"]))
        figures.add(f"{label}: joint over independent search", gain, detail=levels)


def main() -> None:
    options = parse_arguments(parser(__doc__.splitlines()[0], name="pnag_ofa", seeds=3))
    size = QUICK if options.quick else Size()
    seeds = range(1 if options.quick else options.seeds)
    costs = ("latency_ms",) if options.quick else tuple(COSTS)
    say = progress()
    tasks = [(cost, seed) for seed in seeds for cost in costs]
    work = options.out / "quick" if options.quick else options.out
    judges, parts = work / "judges", work / "parts"
    judges.mkdir(parents=True, exist_ok=True)
    n_jobs = 1 if options.quick else 2
    Parallel(n_jobs)(
        delayed(fit_judge)(options.data, judges, seed, size) for seed in (None, *seeds)
    )
    say("judges are fitted")
    done = []
    runs = Parallel(n_jobs, return_as="generator")(
        delayed(run_part)(
            run_one,
            parts / f"{cost}-{seed}.json",
            *(options.data, judges, cost, seed, size, seed == 0 and not options.quick),
        )
        for cost, seed in tasks
    )
    for (cost, seed), run in zip(tasks, runs, strict=True):
        done.append(run)
        say(f"{cost}, seed {seed}")
    figures = Figures(quick=options.quick)
    for cost in costs:
        runs = [run for (name, _), run in zip(tasks, done, strict=True) if name == cost]
        times = run_part(time_one, parts / f"{cost}-times.json", options.data, judges, cost, size)
        report(cost, runs, times, figures)
        draw(runs, COSTS[cost], options.out / f"pnag_{cost}.png")
    print(figures)
    figures.save(options.out / "results.json")


if __name__ == "__main__":
    main()
