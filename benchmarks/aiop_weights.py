"""The weights that come with the package: trained, cross-validated, written with a model card.

    python benchmarks/aiop_weights.py --data ../shared/data --out out/aiop_weights
    cp out/aiop_weights/weights/* nni_aiop/weights/

A backbone is pretrained on NAS-Bench-101; beside it an adapter is trained for each task: ImageNet
top-1 of timm's networks, and tasks of three benchmarks (`ADAPTERS`), the figures of which are of
architectures that the adapter did not see.

`imagenet-top1` is cross-validated with whole families held out (a family is a module of timm), in
five folds: the card has the figures of those predictions, beside a mean predictor and lines in log
FLOPs and log parameters. The std of the adapter and its domain follow from the held-out families
(`GraphPredictor.calibrate`). The coverage that is told is nested: each fold's intervals follow from
the errors of the other folds.

More seeds (--seeds) repeat the cross-validation, for its spread; what is written is of seed 0. The
graphs of timm's networks, the backbone and adapters are kept in the out folder and not made again:
take another one after a change of code.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _aiop_data import (
    FILTER,
    Array,
    Benchmark,
    Rows,
    Subset,
    Zoo,
    nas_bench_201,
    transnas_micro,
    zoo,
    zoo_graph,
    zoo_table,
)
from _aiop_methods import FLOPS, KINDS, PARAMETERS, QUICK, Sizes
from _aiop_parts import load, pretrained, score, split
from _common import Figures, format_table, parse_arguments, parser, progress, run_part
from _held_out import FOLDS, LEVEL, file_entry, folds_of, nested_coverage
from joblib import Parallel, delayed

from nni_aiop.files import write_json
from nni_aiop.graphs import FEATURES_VERSION
from nni_aiop.predictors.graph import GraphPredictor, load_graph_predictor
from nni_aiop.predictors.metrics import coverage, spearman
from nni_aiop.weights import BACKBONE, adapter_file, model_card

ADAPTERS: dict[str, tuple[Callable[[Path], Benchmark], str, str]] = {
    "transnas-class-object": (transnas_micro, "class_object", "top-1 accuracy in percent"),
    "cifar100-nasbench201": (nas_bench_201, "cifar100", "top-1 accuracy in percent"),
    "transnas-autoencoder": (transnas_micro, "autoencoder", "SSIM"),
}
"""The benchmark of each adapter but imagenet-top1, its task there, and what it predicts."""

IMAGENET, PRETRAINING, MEAN = "imagenet-top1", "cifar10-nasbench101", "mean predictor"
EPOCHS = 15  # of imagenet-top1: 40 rank the families that are held out no better
FEWEST_MEMBERS = 5
LARGEST_MB = 5.0
QUICK_FAMILIES = ("dla", "dpn", "rexnet")
COMMAND = "python benchmarks/aiop_weights.py --data ../shared/data --out out/aiop_weights"

Card = dict[str, Any]


# --- imagenet-top1 -------------------------------------------------------------------------------


def timm_networks(arguments: Namespace) -> Zoo:
    folder = arguments.work / "timm"
    folder.mkdir(parents=True, exist_ok=True)
    table = zoo_table(arguments.data)
    if arguments.quick:
        table = table[table["family"].isin(QUICK_FAMILIES)]
    wanted = zip(table["arch"], table["img_size"], strict=True)
    missing = [(a, size) for a, size in wanted if not (folder / f"{a}-{size}.json.gz").exists()]
    problems = Parallel(n_jobs=2)(delayed(zoo_graph)(*one, folder) for one in missing)
    for problem in filter(None, problems):
        print(f"no graph: {problem}")
    return zoo(table, folder)


def learn_imagenet(predictor: GraphPredictor, networks: Subset, sizes: Sizes) -> None:
    epochs = sizes.epochs or EPOCHS
    predictor.adapt(IMAGENET, networks.graphs, networks.y, epochs=epochs, validation=0.0, head=True)


def held_out(
    backbone: Path, networks: Subset, families: Any, fold: Rows, k: int, seed: int, sizes: Sizes
) -> Card:
    """Predictions of the networks of a fold by what saw none of their families, and distances."""
    rows, new = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
    train, test = networks.take(rows), networks.take(new)
    predictor = load_graph_predictor(backbone)
    predictor.seed = seed
    learn_imagenet(predictor, train, sizes)
    found = {
        IMAGENET: predictor.predict(test.graphs, adapters=[IMAGENET]).mean[:, 0],
        MEAN: np.full(len(test.y), train.y.mean()),
    }
    for name, pick in (
        (FLOPS, lambda part: part.graphs.flops),
        (PARAMETERS, lambda part: part.parameters),
    ):
        line = np.polyfit(np.log(pick(train)), train.y, 1)
        found[name] = np.polyval(line, np.log(pick(test)))
    # The domain alone is of use here: errors on what was learned say nothing.
    own = predictor.predict(train.graphs, adapters=[IMAGENET]).mean[:, 0]
    predictor.calibrate(IMAGENET, train.graphs, train.y, own, families[rows])
    found["distance"] = predictor.distance(test.graphs, adapter=IMAGENET)
    return {"rows": new.tolist()} | {name: values.tolist() for name, values in found.items()}


def scores_of(networks: Subset, families: Any, found: dict[str, Array]) -> dict[str, Card]:
    """Figures of each method: over all networks, and the mean SRCC inside families."""
    names, sizes = np.unique(families, return_counts=True)
    large = names[sizes >= FEWEST_MEMBERS]
    result = {}
    for name, values in found.items():
        inside = [
            np.nan_to_num(spearman(networks.y[families == f], values[families == f])) for f in large
        ]
        # A mean that differs by fold ranks nothing.
        ranks = {"srcc": 0.0} if name == MEAN else {"srcc, mean family": float(np.mean(inside))}
        result[name] = {**score(networks.y, values), **ranks}
    return result


def imagenet(
    backbone: Path, arguments: Namespace, sizes: Sizes, weights: Path, figures: Figures, say: Any
) -> Card:
    """Trains, cross-validates and writes the adapter; its part of the card."""
    found = timm_networks(arguments)
    networks, families = found.networks, found.table["family"].to_numpy(str)
    runs, checks = [], []
    predictor = load_graph_predictor(backbone)
    path = weights / adapter_file(IMAGENET)
    if path.exists():
        predictor.load_adapter(path)
    else:
        learn_imagenet(predictor, networks, sizes)
        predictor.save_adapter(IMAGENET, path, half=True)
    say(f"{IMAGENET}: learned from {len(networks.y)} networks")
    for seed in reversed(range(arguments.seeds)):  # seed 0, of what is written, comes last
        fold = folds_of(families, seed)
        predicted: dict[str, Array] = {}
        for k in range(FOLDS):
            part = run_part(
                held_out,
                arguments.work / "parts" / f"{IMAGENET}-{seed}-{k}.json",
                *(backbone, networks, families, fold, k, seed, sizes),
            )
            rows = part.pop("rows")
            for name, values in part.items():
                predicted.setdefault(name, np.empty(len(networks.y)))[rows] = values
            say(f"{IMAGENET}: fold {k} of families held out, seed {seed}")
        inside = predicted.pop("distance") <= 1
        runs.append(scores_of(networks, families, predicted))
        covered = nested_coverage(
            predictor, IMAGENET, networks.graphs, networks.y, families, fold, predicted[IMAGENET]
        )
        wrong = np.abs(networks.y - predicted[IMAGENET])
        checks.append(
            {
                "coverage of 80 % intervals": covered.mean(),
                "inside": inside.mean(),
                "mae, inside": wrong[inside].mean(),
            }
        )
    predictor.calibrate(IMAGENET, networks.graphs, networks.y, predicted[IMAGENET], families)
    predictor.save_adapter(IMAGENET, path, half=True)
    held: Card = {
        name: {what: _mean([run[name][what] for run in runs]) for what in row}
        for name, row in runs[-1].items()
    }
    held[IMAGENET] |= {what: _mean([check[what] for check in checks]) for what in checks[-1]}
    for name, row in held.items():
        for what, value in row.items():
            bounds = {"at_least": 0.75, "at_most": 0.85} if what.startswith("coverage") else {}
            figures.add(f"{name}, families held out: {what}", value, **bounds)
    for rival in (FLOPS, PARAMETERS):
        for what in ("srcc", "srcc, mean family"):
            gap = held[IMAGENET][what] - held[rival][what]
            figures.add(f"{IMAGENET} less {rival}: {what}", gap, at_least=0.0)
    return {
        "predicts": "ImageNet-1k top-1 accuracy in percent",
        "dataset": "ImageNet-1k validation set, as timm's results list it",
        "rows": len(networks.y),
        "families": len(set(families)),
        "filter": FILTER,
        "learned": "a K-Adapter and a Gaussian process on global features, the mean of both",
        "held out": f"{FOLDS} folds of whole families (a family is a module of timm)",
        "seeds": arguments.seeds,
        "figures": held,
        "std": "80 % intervals hold 80 % of the networks of families that were held out",
        "limits": "Networks for classifying images of 96 to 320 pixels into 1,000 classes, trained "
        "on ImageNet-1k alone: what recipes, other data, teachers or pruned weights add is not "
        "seen. Differences of less than a point between networks say little.",
    }


# --- the other adapters --------------------------------------------------------------------------


def adapter(
    name: str, backbone: Path, arguments: Namespace, sizes: Sizes, weights: Path, figures: Figures
) -> Card:
    """Trains and writes the adapter of a benchmark's task; its part of the card."""
    make, task, unit = ADAPTERS[name]
    benchmark = load(make, arguments.data)
    counts = {"adapters": sizes.adapters, "test": sizes.test}
    rows = split(f"{make.__name__}-weights", len(benchmark), 0, arguments.work, **counts)
    predictor = load_graph_predictor(backbone)
    path = weights / adapter_file(name)
    if not path.exists():
        train = benchmark.rows(task, rows["adapters"])
        predictor.adapt(name, train.graphs, train.y, epochs=sizes.epochs)
        predictor.save_adapter(name, path, half=True)
    predictor.load_adapter(path)
    test = benchmark.rows(task, rows["test"])
    found = predictor.predict(test.graphs, adapters=[name])
    low, high = found.interval(LEVEL)
    scores = score(test.y, found.mean[:, 0]) | {
        "mae of a mean predictor": float(np.abs(test.y - test.y.mean()).mean()),
        "srcc of FLOPs": float(np.nan_to_num(spearman(test.y, test.graphs.flops))),
        "coverage of 80 % intervals": coverage(test.y, low[:, 0], high[:, 0]),
    }
    for what, value in scores.items():
        figures.add(f"{name}: {what}", value)
    return {
        "predicts": unit,
        "dataset": f"{benchmark.name}, {task}",
        "rows": len(rows["adapters"]),
        "tested on": f"{len(rows['test'])} other architectures of the space",
        "figures": scores,
        "limits": "Networks of this space and their like.",
    }


# --- all of it -----------------------------------------------------------------------------------


def _mean(values: list[float]) -> float:
    return float(np.mean(values))


def write_card(weights: Path, n_rows: int, tasks: dict[str, Card]) -> Card:
    """The files of the tasks, with their sizes and digests; the card is written.

    What another command made stays on the card; beside a new backbone it is to be made anew.
    """
    shipped = model_card()
    others = {name: told for name, told in shipped["tasks"].items() if "command" in told}
    names = [BACKBONE, *map(adapter_file, tasks)]
    files = {name: file_entry(weights / name) for name in names}
    card = {
        "format": "nni-aiop weights",
        "version": 1,
        "features_version": FEATURES_VERSION,
        "command": COMMAND,
        "seed": 0,
        "backbone": {
            "learned": f"{PRETRAINING}: validation accuracy in percent after 108 epochs",
            "dataset": "NAS-Bench-101",
            "rows": n_rows,
            "weights": "rounded to 16 bits",
        },
        "tasks": tasks | others,
        "files": files
        | {adapter_file(name): shipped["files"][adapter_file(name)] for name in others},
    }
    write_json(weights / "card.json", card)
    return files


def main() -> None:
    arguments = parse_arguments(parser("The shipped weights.", name="aiop_weights", seeds=1))
    torch.set_num_threads(1)
    arguments.work = arguments.out / "quick" if arguments.quick else arguments.out
    sizes = QUICK if arguments.quick else Sizes()
    say, figures = progress(), Figures(quick=arguments.quick)
    weights = arguments.work / "weights"
    weights.mkdir(parents=True, exist_ok=True)
    trained = pretrained(KINDS["default"], arguments.data, arguments.work, sizes)
    trained.metrics_ = (PRETRAINING,)
    backbone = weights / BACKBONE
    trained.save(backbone, half=True)
    say(f"backbone of {trained.n_rows_} graphs")
    tasks: dict[str, Card] = {IMAGENET: imagenet(backbone, arguments, sizes, weights, figures, say)}
    for name in list(ADAPTERS)[: 1 if arguments.quick else None]:
        write_card(weights, trained.n_rows_, tasks)
        tasks[name] = adapter(name, backbone, arguments, sizes, weights, figures)
        say(f"{name}: tested")
    files = write_card(weights, trained.n_rows_, tasks)
    megabytes = sum(file["bytes"] for file in files.values()) / 1e6
    figures.add("megabytes", megabytes, at_most=LARGEST_MB)
    rows = [[name, *row.values()] for name, row in tasks[IMAGENET]["figures"].items()]
    columns = list(tasks[IMAGENET]["figures"][IMAGENET])
    rows = [row + ["-"] * (len(columns) + 1 - len(row)) for row in rows]
    print(f"\n{format_table(['families held out', *columns], rows)}\n\n{figures}")
    figures.save(arguments.out / "results.json")
    print(f"\nWeights: {weights}; results: {arguments.out}/results.json")


if __name__ == "__main__":
    main()
