"""Networks of a space that no label is known of: rankings, and what 20 labels add.

    python benchmarks/zero_shot.py --data ../shared/data --seeds 3

a  Everything is trained on NAS-Bench-101 alone (30,001 rows; the graph neural networks on 10,000 of
   them) and ranks all of NAS-Bench-201, of which no label is used: `CrossSpaceRanker`, both graph
   neural networks, FLOPs, parameters, and zero-cost figures (Zen-NAS's as the table has
   it for all; those of this package, one mini-batch of noise, for a part).
b  Each of eight spaces is left out: what the ranker that learned the seven others, or NAS-Bench-101
   alone, makes of it, beside FLOPs and parameters, by Kendall's and Spearman's correlation,
   means over the space's tasks.
c  Each space left out again, of which 20 networks are labelled, five draws: the order without
   labels, the 20 alone (a Gaussian process on global features, on those of the ways, on both), and
   `CrossSpaceRanker.estimate`, with the share of networks inside its 80 % intervals and mean
   absolute errors beside a constant's; and the shipped backbone in some of the draws, zero-shot,
   fine-tuned, and with a Gaussian process on its embeddings.

    python benchmarks/zero_shot.py --parts b,weights --data ../shared/data
    cp out/zero_shot/weights/* nni_aiop/weights/

writes the ranker that comes with the package, which learned all spaces but NAS-Bench-MR, whose data
are for academic use, and its part of the model card, with the figures of b.

What the ranker is made of was chosen by b on the spaces other than NAS-Bench-201, whose figures
were seen meanwhile. Finished parts and timm's graphs are kept in the out folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from _common import Figures, format_table, parse_arguments, parser, progress, run_part
from _held_out import file_entry
from _spaces import SPACES, Space, read_space
from numpy.typing import NDArray
from scipy.stats import norm

from nni_aiop.figures import new_figure, save_figure
from nni_aiop.files import write_json
from nni_aiop.predictors.graph import CrossSpaceRanker, GPHead, GraphPredictor, load_shipped
from nni_aiop.predictors.metrics import coverage, kendall, mae, spearman
from nni_aiop.weights import RANKER, model_card

Array = NDArray[np.float64]

SOURCE, TARGET = "NAS-Bench-101", "NAS-Bench-201"
AGREEMENT = "agreement"
SINGLE = "ranker of NAS-Bench-101"
FEW, DRAWS, POOL = 20, 5, 2000
ASKED, CLOSE = 0.85, 0.03
METHOD, FLOPS, PARAMETERS, ZEN = "cross-space ranker", "FLOPs", "parameters", "Zen-NAS"
GNN = {"default": "GNN, default encoder", "published": "GNN as published"}
ALONE = ("20 alone: global features", "20 alone: ways", "20 alone: both")
NEURAL = ("GNN, zero-shot", "GNN, fine-tuned", "GP on the GNN's embeddings")
NEURAL_DRAWS = 3
ORDER, ESTIMATE = "no label", "ranker's estimate"


def learned_of(spaces: dict[str, Space], names: list[str], seed: int) -> CrossSpaceRanker:
    known = {name: (spaces[name].pool, spaces[name].learned) for name in names}
    return CrossSpaceRanker(seed=seed).fit(known)


# --- a -------------------------------------------------------------------------------------------


def across(data: str, out: str, quick: bool, seed: int) -> dict[str, dict[str, float]]:
    """Spearman's correlation of everything with each task of the target."""
    rows = 300 if quick else None
    spaces = {name: read_space(name, Path(data), Path(out), most=rows) for name in (SOURCE, TARGET)}
    target = spaces[TARGET]
    ranking = learned_of(spaces, [SOURCE], seed).rank(target.pool)
    found = {METHOD: ranking.score, FLOPS: target.pool.flops, PARAMETERS: target.parameters}
    table = _zen(Path(data))
    if rows is None:
        found[ZEN] = table
    return {name: _each(target, values) for name, values in found.items()}


def _zen(data: Path) -> Array:
    import pandas as pd

    return pd.read_csv(data / "nas_bench_201" / "nb201.csv.gz")["zen_c10"].to_numpy(np.float64)


def neural(data: str, out: str, quick: bool, encoder: str, seed: int) -> dict[str, float]:
    """The same of a graph neural network."""
    source, target = (
        read_space(name, Path(data), Path(out), most=rows, graphs=True)
        for name, rows in ((SOURCE, 100 if quick else 10_000), (TARGET, 100 if quick else None))
    )
    predictor = GraphPredictor(encoder, epochs=1 if quick else None, seed=seed)
    predictor.fit(source.graphs, source.labels["cifar10"])
    return _each(target, predictor.predict(target.graphs).mean[:, 0])


def zero_cost(data: str, out: str, n: int, seed: int) -> dict[str, dict[str, float]]:
    """The same of zero-cost figures, for some networks of the target."""
    import torch
    from torch.nn.functional import cross_entropy

    from nni_aiop.benchmarks import load_nas_bench_201_csv
    from nni_aiop.search_spaces.nasbench201 import LABELS, NASBench201Net
    from nni_aiop.zero_cost import ZERO_COST

    table = load_nas_bench_201_csv(Path(data) / "nas_bench_201" / "nb201.csv.gz")
    rows = np.random.default_rng(seed).permutation(len(table.operations))[:n]
    images = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    classes = torch.arange(16) % 10
    figures: dict[str, list[float]] = {name: [] for name in ZERO_COST}
    for row in rows.tolist():
        torch.manual_seed(seed)
        network = NASBench201Net(dict(zip(LABELS, table.operations[row], strict=True)))
        for name, proxy in ZERO_COST.items():
            figures[name].append(proxy(network, images, classes, cross_entropy, seed=seed))
    columns = {"cifar10": "c10_test", "cifar100": "c100_test", "imagenet16-120": "in16_test"}
    return {
        name: {
            task: float(np.nan_to_num(spearman(table.metrics[column][rows], _ranked(values))))
            for task, column in columns.items()
        }
        for name, values in figures.items()
    }


def _ranked(values: list[float]) -> Array:
    """A figure that cannot be worked out ranks last."""
    return np.nan_to_num(np.array(values), nan=-1e30)


def _each(space: Space, values: Array) -> dict[str, float]:
    return {task: spearman(y, values) for task, y in space.labels.items()}


# --- b, c ----------------------------------------------------------------------------------------


def left_out(
    data: str, out: str, quick: bool, seed: int
) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Of each space: Kendall's and Spearman's correlation of everything with each task."""
    spaces = _all(Path(data), Path(out), quick, 4000)
    alone = learned_of(spaces, [SOURCE], seed)
    result = {}
    for name, space in spaces.items():
        others = learned_of(spaces, [other for other in spaces if other != name], seed)
        ranking = others.rank(space.pool)
        values = {
            METHOD: ranking.score,
            SINGLE: alone.rank(space.pool).score,
            FLOPS: space.pool.flops,
            PARAMETERS: space.parameters,
        }
        if name == SOURCE:
            del values[SINGLE]
        result[name] = {
            method: {
                task: [kendall(y, found), spearman(y, found)] for task, y in space.labels.items()
            }
            for method, found in values.items()
        }
        result[name][AGREEMENT] = {"": [ranking.agreement] * 2}
    return result


def few(data: str, out: str, quick: bool, seed: int) -> dict[str, dict[str, Any]]:
    """Of each space and task: every method's figures in each draw."""
    spaces = _all(Path(data), Path(out), quick, POOL)
    result: dict[str, dict[str, Any]] = {}
    for name, space in spaces.items():
        ranker = learned_of(spaces, [other for other in spaces if other != name], seed)
        order = ranker.rank(space.pool).score
        for task, y in space.labels.items():
            draws = [
                _draw(ranker, space, order, y, [seed, draw])
                for draw in range(1 if quick else DRAWS)
            ]
            methods = draws[0]
            result[f"{name}: {task}"] = {
                method: {key: [d[method][key] for d in draws] for key in methods[method]}
                for method in methods
            }
    return result


def _draw(
    ranker: CrossSpaceRanker, space: Space, order: Array, y: Array, seed: list[int]
) -> dict[str, dict[str, float]]:
    rows = np.random.default_rng(seed).permutation(len(y))
    known, test = rows[:FEW], rows[FEW:]
    labels = np.full(len(y), np.nan)
    labels[known] = y[known]
    estimate = ranker.estimate(space.pool, labels)
    found = {ORDER: order, ESTIMATE: estimate.mean[:, 0]}
    both = np.column_stack([space.pool.u, space.pool.ways])
    for method, x in zip(ALONE, (space.pool.u, space.pool.ways, both), strict=True):
        found[method] = GPHead().fit(x[known], y[known]).predict(x)[0]
    constant = mae(y[test], np.full(len(test), y[known].mean()))
    result = {
        method: {"spearman": spearman(y[test], values[test])} for method, values in found.items()
    }
    for method in (ESTIMATE, *ALONE):
        result[method]["mae"] = mae(y[test], found[method][test]) / constant
    mean, half = estimate.mean[test, 0], norm.ppf(0.9) * estimate.std[test, 0]
    result[ESTIMATE]["coverage"] = coverage(y[test], mean - half, mean + half)
    return result


def few_neural(data: str, out: str, quick: bool, seed: int) -> dict[str, dict[str, list[float]]]:
    """Spearman's correlation of what the shipped backbone makes of the same 20, in some draws.

    It learned NAS-Bench-101, which is left out here.
    """
    backbone = load_shipped()
    result: dict[str, dict[str, list[float]]] = {}
    for name, space in _all(Path(data), Path(out), quick, POOL, graphs=True).items():
        if name == SOURCE or space.graphs is None:
            continue
        for task, y in space.labels.items():
            found: dict[str, list[float]] = {method: [] for method in NEURAL}
            for draw in range(1 if quick else NEURAL_DRAWS):
                rows = np.random.default_rng([seed, draw]).permutation(len(y))
                known, test = rows[:FEW], rows[FEW:]
                shots, graphs = space.graphs.take(known), space.graphs.take(test)
                fits = (
                    backbone.transfer(shots, y[known]),
                    backbone.fine_tune(shots, y[known], epochs=2 if quick else 100),
                    backbone.few_shot(shots, y[known], head="gp"),
                )
                for method, fit in zip(NEURAL, fits, strict=True):
                    found[method].append(spearman(y[test], fit.predict(graphs).mean[:, 0]))
            result[f"{name}: {task}"] = found
    return result


def _all(
    data: Path, out: Path, quick: bool, most: int, *, graphs: bool = False
) -> dict[str, Space]:
    names = [name for name in SPACES if not (quick and name in ("timm", "NAS-Bench-MR"))]
    return {
        name: read_space(name, data, out, most=60 if quick else most, graphs=graphs)
        for name in names
    }


# --- what is shown -------------------------------------------------------------------------------


def show_across(parts: list[dict[str, Any]], others: dict[str, Any], figures: Figures) -> None:
    tasks = list(parts[0][METHOD])
    methods: dict[str, list[dict[str, float]]] = {
        name: [part[name] for part in parts] for name in parts[0]
    }
    methods |= others
    means = {
        name: {task: float(np.mean([part[task] for part in found])) for task in tasks}
        for name, found in methods.items()
    }
    rows = [[name, *(means[name][task] for task in tasks)] for name in means]
    print(f"\na. Trained on {SOURCE}, ranks {TARGET}: Spearman, mean of seeds\n")
    print(format_table(["", *tasks], rows))
    for task in tasks:
        worst = min(part[METHOD][task] for part in parts)
        figures.add(f"a: worst seed on {task}", worst, at_least=ASKED)
        rest = max(found[task] for name, found in means.items() if name != METHOD)
        figures.add(f"a: above all else on {task} by", worst - rest, at_least=0.0)


def draw(means: dict[str, dict[str, Array]], path: Path) -> None:
    """Kendall's correlation in each space, a dot a method."""
    figure = new_figure(7.0, 3.6)
    axes = figure.add_subplot()
    names = list(means)[::-1]
    for method, marker in ((METHOD, "o"), (SINGLE, "D"), (FLOPS, "s"), (PARAMETERS, "^")):
        known = [
            (means[name][method][0], y) for y, name in enumerate(names) if method in means[name]
        ]
        axes.plot(*zip(*known, strict=True), marker, label=method, markersize=7, alpha=0.8)
    axes.set_yticks(range(len(names)), names)
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("Kendall's correlation with what was measured, mean over tasks; space left out")
    axes.legend(loc="lower left", fontsize=8)
    save_figure(figure, path)


def show_left_out(parts: list[dict[str, Any]], figures: Figures, picture: Path) -> dict[str, float]:
    """Mean Kendall's correlation of each method."""
    shown: dict[str, dict[str, Array]] = {}
    rows = []
    methods = [method for method in parts[0][TARGET] if method != AGREEMENT]
    over: dict[str, list[float]] = {}
    for name in parts[0]:
        means = {
            method: np.mean([[*part[name][method].values()] for part in parts], axis=(0, 1))
            for method in parts[0][name]
        }
        shown[name] = means
        agreement = means.pop(AGREEMENT)[0]
        for method, found in means.items():
            over.setdefault(method, []).append(float(found[0]))
        rows.append([name, *(_pair(means.get(method)) for method in methods), agreement])
        rest = max(means[FLOPS][0], means[PARAMETERS][0])
        figures.add(
            f"b: Kendall in {name} above sizes by", float(means[METHOD][0] - rest), at_least=0.0
        )
    draw(shown, picture)
    print("\nb. Left out: Kendall and Spearman, means over tasks and seeds\n")
    print(format_table(["", *methods, "agreement"], rows))
    means_of_all = {method: float(np.mean(values)) for method, values in over.items()}
    for method, value in means_of_all.items():
        figures.add(f"b: mean Kendall, {method}", value)
    return means_of_all


def show_neural(
    neural: dict[str, dict[str, list[float]]], few: dict[str, Any], figures: Figures
) -> None:
    """The estimate beside graph neural networks, in the draws that these saw."""
    rows, short = [], []
    for name, found in neural.items():
        draws = few[name][ESTIMATE]["spearman"][: len(found[NEURAL[0]])]
        means = [float(np.mean(found[method])) for method in NEURAL]
        rows.append([name, *means, float(np.mean(draws)), min(draws)])
        short.append(max(means) - float(np.mean(draws)))
    print(f"\nc. The same {FEW} labels and the shipped backbone: Spearman, first draws\n")
    print(format_table(["", *NEURAL, ESTIMATE, "its worst draw"], rows))
    figures.add("c: furthest below a GNN", float(np.max(short)), at_most=CLOSE)
    held = int(np.sum(np.array(short) <= CLOSE))
    n = len(rows)
    figures.add(f"c: tasks of {n} no more than {CLOSE} below a GNN", held, at_least=n)


def _pair(found: Array | None) -> str:
    return "" if found is None else f"{found[0]:.2f} {found[1]:.2f}"


def show_few(parts: list[dict[str, Any]], figures: Figures) -> None:
    methods = [ORDER, *ALONE, ESTIMATE]
    rows = []
    all_draws: dict[str, list[Array]] = {}
    short, above, inside = [], [], []
    for name in parts[0]:
        draws = {
            method: np.concatenate([part[name][method]["spearman"] for part in parts])
            for method in methods
        }
        for method, values in draws.items():
            all_draws.setdefault(method, []).append(values)
        means = {method: float(values.mean()) for method, values in draws.items()}
        errors = {
            method: np.mean([part[name][method]["mae"] for part in parts])
            for method in (*ALONE, ESTIMATE)
        }
        held = float(np.mean([part[name][ESTIMATE]["coverage"] for part in parts]))
        rows.append(
            [
                name,
                *(f"{means[method]:.2f} {draws[method].min():.2f}" for method in methods),
                f"{errors[ESTIMATE]:.2f}",
                f"{errors[ALONE[0]]:.2f}",
                f"{100 * held:.0f} %",
            ]
        )
        short.append(max(means.values()) - means[ESTIMATE])
        above.append(means[ESTIMATE] - means[ALONE[0]])
        inside.append(held)
    print(f"\nc. {FEW} labels: Spearman, mean and worst draw; MAE / a constant's; coverage\n")
    heads = [*methods, "MAE", "MAE, 20 alone", "80 %"]
    print(format_table(["", *heads], rows))
    n = len(rows)
    for method, values in all_draws.items():
        figures.add(f"c: mean, {method}", float(np.mean([x.mean() for x in values])))
        figures.add(f"c: mean of worst draws, {method}", float(np.mean([x.min() for x in values])))
    figures.add(f"c: tasks of {n} above the 20 alone", int(np.sum(np.array(above) > 0)), at_least=n)
    figures.add("c: furthest below the best method", float(np.max(short)), at_most=CLOSE)
    figures.add(
        f"c: tasks of {n} no more than {CLOSE} below",
        int(np.sum(np.array(short) <= CLOSE)),
        at_least=n,
    )
    held_well = int(np.sum((np.array(inside) >= 0.75) & (np.array(inside) <= 0.85)))
    figures.add(f"c: tasks of {n} with coverage from 75 to 85 %", held_well, at_least=n)
    figures.add("c: mean coverage", float(np.mean(inside)))


# --- the ranker that comes with the package ------------------------------------------------------

COMMAND = "python benchmarks/zero_shot.py --parts b,weights --data ../shared/data"
NOT_SHIPPED = ("NAS-Bench-MR",)


def write_weights(data: Path, out: Path, quick: bool, held_out: dict[str, float]) -> None:
    """The ranker, and the model card with its part."""
    spaces = _all(data, out, quick, 4000)
    for name in NOT_SHIPPED:
        spaces.pop(name, None)
    folder = out / "weights"
    folder.mkdir(exist_ok=True)
    path = folder / RANKER
    learned_of(spaces, list(spaces), 0).save(path)
    card = model_card()
    card["ranker"] = {
        "predicts": "the order of networks of one space, which nothing is known of",
        "learned": {name: len(space) for name, space in spaces.items()},
        "held out": "each space once, by rankers of the others and of NAS-Bench-MR",
        "figures": {f"mean Kendall, {name}": round(held_out[name], 3) for name in (METHOD, FLOPS)},
        "command": COMMAND,
        "limits": "Ranks no better than FLOPs where its members contradict each other.",
    }
    card["files"][RANKER] = file_entry(path)
    write_json(folder / "card.json", card)


def main() -> None:
    arguments = parser(__doc__.splitlines()[0], name="zero_shot", seeds=3)
    arguments.add_argument("--parts", default="a,b,c", help="some of a, b, c, weights, with commas")
    options = parse_arguments(arguments)
    quick, out = options.quick, options.out
    parts = options.parts.split(",")
    seeds = range(1 if quick else options.seeds)
    say = progress()
    figures = Figures(quick=quick)
    where = (str(options.data), str(out), quick)
    folder = out / ("quick" if quick else "parts")

    def done(work: Any, name: str, *rest: Any, first: tuple[Any, ...] = where) -> Any:
        found = run_part(work, folder / f"{name}.json", *first, *rest)
        say(f"{name} done")
        return found

    if "a" in parts:
        found = [done(across, f"a-{seed}", seed) for seed in seeds]
        others = {
            GNN[encoder]: [
                done(neural, f"a-{encoder}-{seed}", encoder, seed)
                for seed in (seeds if encoder == "default" else range(1))
            ]
            for encoder in GNN
        }
        n = 4 if quick else 100
        proxies = [done(zero_cost, f"a-proxies-{seed}", n, seed, first=where[:2]) for seed in seeds]
        others |= {f"{name} (on {n})": [part[name] for part in proxies] for name in proxies[0]}
        show_across(found, others, figures)
    held_out = {}
    if "b" in parts:
        found = [done(left_out, f"b-{seed}", seed) for seed in seeds]
        held_out = show_left_out(found, figures, out / "left_out.png")
    if "c" in parts:
        parts_of_c = [done(few, f"c-{seed}", seed) for seed in seeds]
        show_few(parts_of_c, figures)
        show_neural(done(few_neural, "c-neural", 0), parts_of_c[0], figures)
    if "weights" in parts:
        if not held_out:
            arguments.error("--parts weights needs b too: the model card tells its figures")
        write_weights(options.data, out, quick, held_out)
        say(f"weights in {out / 'weights'}")
    print()
    print(figures)
    figures.save(out / "results.json")
    print(f"\nResults: {out}/results.json")


if __name__ == "__main__":
    main()
