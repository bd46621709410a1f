"""Detection, segmentation and pose networks: what is predicted of published results.

    python benchmarks/task_zoo.py --data ../shared/data --packages out/task_zoo/packages

Five tasks of the task zoo (COCO box, mask and keypoint AP, ADE20K and Cityscapes mIoU). Whole
families of networks are held out, in five folds; each seed draws its own. Recipes differ, so what
counts is Spearman's rank correlation inside groups of rows that were trained alike, the mean over
groups of 15 rows or more; beside it that of all rows and the mean absolute error, which no reader
of graphs can bring much below the spread of one graph's figures.

Then tables 3 to 12 of the paper (AIO-P): 20 labels of the task, zero-shot through adapters on one
or two other tasks that share no networks with it, fine-tuned, with few-shot heads, with and without
Eq. 5, beside FLOPs and the 20 alone; means over seeds, each with its own 20.

    python benchmarks/task_zoo.py --parts weights --packages out/task_zoo/packages
    cp out/task_zoo/weights/* nni_aiop/weights/

writes the adapters that come with the package, of the tasks whose figures deserve it (`SHIPPED`),
and their part of the model card: learned without the networks of ultralytics, whose licence does
not allow it, beside the shipped backbone; std and domain from families that were held out.

What each network's package is, and how to install all: see `_task_zoo.py`. Those that are missing
are left out, by name. Graphs, and each finished part, are kept in the out folder.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from _common import Figures, format_table, parse_arguments, parser, progress, run_part
from _held_out import FOLDS, file_entry, folds_of, nested_coverage
from _task_zoo import graphs_of, imports_of
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesRegressor

from nni_aiop.benchmarks import TaskZoo, load_task_zoo
from nni_aiop.errors import UnknownCostWarning
from nni_aiop.files import write_json
from nni_aiop.graphs import ComputeGraph
from nni_aiop.predictors.graph import (
    GPHead,
    GraphSet,
    NetworkPool,
    RidgeHead,
    load_shipped,
    load_shipped_task,
)
from nni_aiop.predictors.metrics import coverage, mae, spearman
from nni_aiop.weights import adapter_file, model_card

Array = NDArray[np.float64]
Rows = NDArray[np.int64]

PARTS = ("families", "adapters", "few", "weights")
LEAST = 15  # rows of a group that is judged
EPOCHS = 15  # of an adapter
FEW = 20
ASKED, ASKED_ZERO_SHOT, ASKED_SPREAD = 0.75, 0.5, 1.5
OTHERS = {
    "coco-box-ap": ("ade20k-miou", "coco-keypoint-ap"),
    "coco-mask-ap": ("ade20k-miou", "coco-keypoint-ap"),
    "coco-keypoint-ap": ("coco-box-ap", "ade20k-miou"),
    "ade20k-miou": ("coco-box-ap", "coco-keypoint-ap"),
    "cityscapes-miou": ("coco-box-ap", "coco-keypoint-ap"),
}
"""Of each task the tasks of its adapters, which share no networks with it."""
SHIPPED = {
    "ade20k-miou": "mIoU at a single scale, in percent, on ADE20K's validation set",
    "coco-box-ap": "box AP, in percent, on COCO's validation set of 2017",
}
"""What comes with the package: inside groups ahead of sizes and of global features, or as good."""
COMMAND = (
    "python benchmarks/task_zoo.py --parts weights --data ../shared/data "
    "--packages out/task_zoo/packages"
)
BODIES = {
    "ResNet(depth=18)": "resnet18.tv_in1k", "ResNet(depth=50)": "resnet50.tv_in1k",
    "ResNet(depth=101)": "resnet101.tv_in1k", "ResNet(depth=152)": "resnet152.tv_in1k",
    "ResNetV1c(depth=18)": "resnet18.tv_in1k", "ResNetV1c(depth=50)": "resnet50.tv_in1k",
    "ResNetV1c(depth=101)": "resnet101.tv_in1k",
    "ResNeXt(depth=101, groups=32, base_width=4)": "resnext101_32x4d.gluon_in1k",
    "ResNeXt(depth=101, groups=64, base_width=4)": "resnext101_64x4d.gluon_in1k",
    "ResNeSt(depth=50)": "resnest50d.in1k", "ResNeSt(depth=101)": "resnest101e.in1k",
    "MobileNetV2(widen_factor=1.0)": "mobilenetv2_100.ra_in1k",
    "SwinTransformer(embed_dims=128)": "swin_base_patch4_window7_224.ms_in1k",
    "SwinTransformer(embed_dims=192)": "swin_large_patch4_window7_224.ms_in22k_ft_in1k",
}  # fmt: skip
"""The network of timm's table that a body is, where the body's words tell one."""


@dataclass(frozen=True)
class Networks:
    """The rows of one task that have a graph.

    Attributes:
        zoo: The rows.
        graphs: Of the rows.
        sizes: (n, 3) logarithms of parameters, multiply-adds, and their ratio.
        embeddings: (n, d) of the shipped backbone, global features included.
        ways: (n, w) what lies on the ways through each network (`NetworkPool`).
        top1: (n,) ImageNet accuracy in percent that is predicted of the graph.
        body: (n,) that of the body as timm measured it, NaN where not known.
        recipe: (n, r) one column for each schedule, pretraining, data and group of 5 rows or more.
        content: (n,) the same for equal graphs.
    """

    zoo: TaskZoo
    graphs: GraphSet
    sizes: Array
    embeddings: Array
    ways: Array
    top1: Array
    body: Array
    recipe: Array
    content: list[str]

    @property
    def y(self) -> Array:
        return self.zoo.metric

    @property
    def family(self) -> NDArray[Any]:
        return np.array(self.zoo.family)

    def take(self, rows: Rows) -> Networks:
        parts = {name: value[rows] for name, value in vars(self).items()
                 if isinstance(value, np.ndarray)}  # fmt: skip
        content = [self.content[row] for row in rows.tolist()]
        return replace(
            self, zoo=self.zoo.take(rows), graphs=self.graphs.take(rows), content=content, **parts
        )


def networks(zoo: TaskZoo, graphs: list[ComputeGraph | None], bodies: pd.Series) -> Networks:
    rows = [place for place, graph in enumerate(graphs) if graph is not None]
    known = [graph for graph in graphs if graph is not None]
    zoo = zoo.take(rows)
    data = GraphSet(known)
    with warnings.catch_warnings():
        # Sampling at computed places, and pools to sides that do not divide, cost no multiply-adds.
        warnings.simplefilter("ignore", UnknownCostWarning)
        macs = np.log([max(1, graph.macs) for graph in known])
    parameters = np.log([max(1, graph.parameters) for graph in known])
    columns = [*zoo.recipe.values(), zoo.group]
    recipe = [
        np.array(column) == value
        for column in columns
        for value, n in pd.Series(column).value_counts().sort_index().items()
        if 5 <= n < len(zoo)
    ]
    return Networks(
        zoo=zoo,
        graphs=data,
        sizes=np.column_stack([parameters, macs, macs - parameters]),
        embeddings=load_shipped().embed(data, adapters=()),
        ways=NetworkPool(known).ways,
        top1=load_shipped_task("imagenet-top1").predict(data).mean[:, 0],
        body=np.array([bodies.get(BODIES.get(body, ""), np.nan) for body in zoo.body]),
        recipe=np.array(recipe, np.float64).T.reshape(len(zoo), -1),
        content=[graph.content_hash for graph in known],
    )


# --- families held out ---------------------------------------------------------------------------

Predict = Callable[[Networks, Rows, Rows], Array]
"""From the networks, the rows to learn from, and those to predict, to what is predicted."""


def by_line(column: Callable[[Networks], Array]) -> Predict:
    """A line in one number; rows without it get the mean."""

    def predict(own: Networks, learn: Rows, test: Rows) -> Array:
        x = column(own)
        known = learn[np.isfinite(x[learn])]
        slope = (
            np.polyfit(x[known], own.y[known], 1) if len(known) > 2 else [0.0, own.y[learn].mean()]
        )
        slope[0] = max(slope[0], 1e-9)  # more is better, whatever a few rows say
        found = np.polyval(slope, x[test])
        return np.where(np.isfinite(found), found, own.y[learn].mean())

    return predict


def by_head(head: Callable[[], Any], column: Callable[[Networks], Array]) -> Predict:
    def predict(own: Networks, learn: Rows, test: Rows) -> Array:
        x = column(own)
        return np.asarray(head().fit(x[learn], own.y[learn]).predict(x[test])[0])

    return predict


def by_trees(column: Callable[[Networks], Array]) -> Predict:
    def predict(own: Networks, learn: Rows, test: Rows) -> Array:
        x = column(own)
        trees = ExtraTreesRegressor(300, min_samples_leaf=3, max_features=0.3, random_state=0)
        return np.asarray(trees.fit(x[learn], own.y[learn]).predict(x[test]))

    return predict


def mean_of(*members: Predict) -> Predict:
    return lambda own, learn, test: np.mean([one(own, learn, test) for one in members], axis=0)


def globals_of(own: Networks) -> Array:
    return np.column_stack([own.graphs.u, own.sizes])


def committee(more: Callable[[Networks], Array]) -> Predict:
    """Three that err on different networks, with equal weights: 200 rows are few to weigh by."""
    return mean_of(
        by_head(RidgeHead, lambda own: own.sizes),
        by_trees(lambda own: np.column_stack([globals_of(own), own.ways, more(own)])),
        by_head(GPHead, lambda own: np.column_stack([own.embeddings, own.ways, more(own)])),
    )


PARAMETERS, MACS, GLOBALS = "parameters", "multiply-adds", "GP on global features"
OURS, RECIPE = (
    "committee: ridge on sizes, trees and GP, both on ways too",
    "the same with the recipe",
)
ADAPTER = "AIO-P: adapter and GP"
METHODS: dict[str, Predict] = {
    "constant": lambda own, learn, test: np.full(len(test), own.y[learn].mean()),
    PARAMETERS: by_line(lambda own: own.sizes[:, 0]),
    MACS: by_line(lambda own: own.sizes[:, 1]),
    "body's ImageNet accuracy, where known": by_line(lambda own: own.body),
    "predicted ImageNet accuracy": by_line(lambda own: own.top1),
    GLOBALS: by_head(GPHead, lambda own: own.graphs.u),
    "GP on embeddings": by_head(GPHead, lambda own: own.embeddings),
    "trees on global features": by_trees(globals_of),
    OURS: committee(lambda own: np.empty((len(own.y), 0))),
    RECIPE: committee(lambda own: own.recipe),
}


def held_out(own: Networks, predict: Predict, seed: int) -> Array:
    """(n,) predictions by what saw nothing of a row's family."""
    fold, found = folds_of(own.family, seed), np.zeros(len(own.y))
    for k in range(FOLDS):
        learn, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        if len(test):
            found[test] = predict(own, learn, test)
    return found


def inside(own: Networks, predicted: Array) -> float:
    """Spearman's rank correlation inside groups of rows that were trained alike, their mean."""
    group = np.array(own.zoo.group)
    found = []
    for name in np.unique(group):
        rows = group == name
        if rows.sum() >= LEAST:
            found.append(spearman(own.y[rows], predicted[rows]))
    return float(np.mean(found)) if found else float("nan")


def spread_of_one(own: Networks) -> float:
    """The standard deviation of the figures of one graph under several recipes."""
    content = np.array(own.content)
    left = [own.y[content == c] - own.y[content == c].mean() for c in np.unique(content)
            if (content == c).sum() > 1]  # fmt: skip
    rows = np.concatenate(left) if left else np.zeros(1)
    return float(np.sqrt((rows**2).sum() / max(1, len(rows) - len(left))))


# --- AIO-P: adapters -----------------------------------------------------------------------------


def adapter_fold(own: Networks, seed: int, k: int, epochs: int) -> dict[str, Any]:
    """An adapter and a GP on global features, learned without the families of a fold."""
    fold = folds_of(own.family, seed)
    learn, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
    predictor = load_shipped()
    predictor.seed = seed
    predictor.adapt(
        "zoo", own.graphs.take(learn), own.y[learn], epochs=epochs, validation=0.0, head=True
    )
    found = predictor.predict(own.graphs.take(test), adapters=["zoo"]).mean[:, 0]
    own_found = predictor.predict(own.graphs.take(learn), adapters=["zoo"]).mean[:, 0]
    predictor.calibrate("zoo", own.graphs.take(learn), own.y[learn], own_found, own.family[learn])
    distance = predictor.distance(own.graphs.take(test), adapter="zoo")
    return {"rows": test.tolist(), "predicted": found.tolist(), "distance": distance.tolist()}


def adapted(task: str, own: Networks, path: Path, seed: int, epochs: int, by_flops: bool) -> None:
    """Writes an adapter for a task, learned from all of its rows."""
    predictor = load_shipped()
    predictor.seed, predictor.by_flops = seed, by_flops
    predictor.adapt(task, own.graphs, own.y, epochs=epochs).save_adapter(task, path)


def few_labels(own: Networks, task: str, folder: Path, seed: int, tuning: int) -> dict[str, Any]:
    """By method the predictions of the rows beyond 20 labelled ones, and what was measured."""
    order = np.random.default_rng(seed).permutation(len(own.y))
    few, test = np.sort(order[:FEW]), np.sort(order[FEW:])
    shots, labels, graphs = own.graphs.take(few), own.y[few], own.graphs.take(test)
    found: dict[str, Any] = {"rows": test.tolist()}

    def told(name: str, fit: Any) -> None:
        prediction = fit.predict(graphs)
        found[name] = prediction.mean[:, 0].tolist()
        if "GP" in name:
            half = 1.2816 * prediction.std[:, 0]
            low, high = prediction.mean[:, 0] - half, prediction.mean[:, 0] + half
            found["coverage"] = coverage(own.y[test], low, high)

    for place, name in ((0, "parameters, 20 labels"), (1, "multiply-adds, 20 labels")):
        x = own.sizes[:, place]
        spread = x[few].std() or 1.0
        found[name] = (labels.mean() + labels.std() * (x[test] - x[few].mean()) / spread).tolist()
    head = GPHead().fit(shots.u, labels)
    found["the 20 alone: GP on global features"] = head.predict(graphs.u)[0].tolist()
    classification = load_shipped()
    told("zero-shot, pretraining alone", classification.transfer(shots, labels))
    for suffix, by_flops in (("", False), (", Eq. 5", True)):
        predictor = load_shipped()
        predictor.by_flops = by_flops
        for name in OTHERS[task]:
            predictor.load_adapter(folder / f"{name}{'-flops' if by_flops else ''}.safetensors")
        first, both = OTHERS[task][:1], OTHERS[task]
        for what, names in (("single", first), ("double", both)):
            told(f"zero-shot, {what}{suffix}",
                 predictor.transfer(shots, labels, adapters=names, by_flops=by_flops))  # fmt: skip
        told(f"fine-tuned, double{suffix}",
             predictor.fine_tune(shots, labels, adapters=both, epochs=tuning,
                                 by_flops=by_flops))  # fmt: skip
        for head_name, shown in (("ridge", "ridge"), ("gp", "GP")):
            told(f"few-shot {shown}{suffix}",
                 predictor.few_shot(shots, labels, head=head_name, by_flops=by_flops))  # fmt: skip
    return found


# --- the weights that come with the package -------------------------------------------------------


def ship(task: str, own: Networks, options: Any, figures: Figures) -> dict[str, Any]:
    """Writes the adapter of a task; its part of the card."""
    own = own.take(np.flatnonzero([not p.startswith("ultralytics") for p in own.zoo.package]))
    found, distance = np.zeros(len(own.y)), np.zeros(len(own.y))
    fold = folds_of(own.family, 0)
    for k in range(FOLDS):
        path = options.out / f"shipped-{task}-{k}.json"
        part = run_part(adapter_fold, path, own, 0, k, EPOCHS)
        found[part["rows"]], distance[part["rows"]] = part["predicted"], part["distance"]
    predictor = load_shipped()
    predictor.adapt(task, own.graphs, own.y, epochs=EPOCHS, validation=0.0, head=True)
    covered = nested_coverage(predictor, task, own.graphs, own.y, own.family, fold, found)
    predictor.calibrate(task, own.graphs, own.y, found, own.family)
    predictor.save_adapter(task, options.out / "weights" / adapter_file(task), half=True)
    rows = {
        task: found,
        PARAMETERS: held_out(own, METHODS[PARAMETERS], 0),
        MACS: held_out(own, METHODS[MACS], 0),
    }
    scores = {
        name: {"srcc, inside groups": inside(own, one), "srcc": spearman(own.y, one),
               "mae": mae(own.y, one)}
        for name, one in rows.items()
    }  # fmt: skip
    scores[task] |= {
        "coverage of 80 % intervals": float(covered.mean()),
        "inside": float((distance <= 1).mean()),
        "mae of a constant": float(np.abs(own.y - own.y.mean()).mean()),
    }
    for what, value in scores[task].items():
        bounds = {"at_least": 0.75, "at_most": 0.85} if what.startswith("coverage") else {}
        figures.add(f"{task}, shipped: {what}", value, **bounds)
    return {
        "predicts": SHIPPED[task],
        "dataset": "results that OpenMMLab, Hugging Face and torchvision published",
        "rows": len(own.y),
        "families": len(set(own.zoo.family)),
        "learned": "a K-Adapter and a Gaussian process on global features, the mean of both",
        "held out": f"{FOLDS} folds of whole families of methods",
        "figures": scores,
        "std": "80 % intervals hold 80 % of the rows of families that were held out",
        "command": COMMAND,
        "limits": "Whole networks, heads included, at the size of image they are tested at. "
        "Schedule, pretraining and further data are not seen: one network's figures differ by "
        "about a point between recipes, and what a new kind of head adds is not known.",
    }


def write_weights(owns: Mapping[str, Networks], options: Any, figures: Figures) -> None:
    folder = options.out / "weights"
    folder.mkdir(exist_ok=True)
    card = model_card()
    for task in SHIPPED:
        card["tasks"][task] = ship(task, owns[task], options, figures)
        path = folder / adapter_file(task)
        card["files"][path.name] = file_entry(path)
    write_json(folder / "card.json", card)


# --- what is told --------------------------------------------------------------------------------


def judged(own: Networks, found: Array) -> tuple[float, float, float]:
    return inside(own, found), spearman(own.y, found), mae(own.y, found)


def tell(title: str, rows: Mapping[str, Mapping[str, list[tuple[float, ...]]]]) -> str:
    """A table: methods by tasks; (inside groups, all rows, MAE), means over seeds."""
    tasks = list(dict.fromkeys(task for row in rows.values() for task in row))
    lines = [
        [
            method,
            *(
                " / ".join(f"{value:.2f}" for value in np.mean(row[task], axis=0))
                if task in row
                else "-"
                for task in tasks
            ),
        ]
        for method, row in rows.items()
    ]
    return f"{title}\n{format_table(['', *tasks], lines)}\n"


def draw(shown: Mapping[str, tuple[Networks, Array]], path: Path) -> None:
    """Predicted against measured, families in colours."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4 * len(shown), 4.6), layout="constrained")
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, (task, (own, found)) in zip(panels, shown.items(), strict=True):
        common = pd.Series(own.zoo.family).value_counts().index[:8].tolist()
        for place, name in enumerate([*common, "others"]):
            rows = own.family == name if name != "others" else ~np.isin(own.family, common)
            colour = f"C{place}" if name != "others" else "0.75"
            axes.scatter(own.y[rows], found[rows], s=12, color=colour, label=name,
                         alpha=0.8, linewidths=0, zorder=2 if name != "others" else 1)  # fmt: skip
        ends = [min(own.y.min(), found.min()), max(own.y.max(), found.max())]
        axes.plot(ends, ends, color="0.4", lw=0.8, ls="--")
        axes.set_title(f"{task}: Spearman {spearman(own.y, found):.2f}", fontsize="medium")
        axes.set_xlabel("published (%)")
        axes.legend(fontsize="x-small", loc="upper left", frameon=False)
        axes.grid(alpha=0.25)
    panels[0].set_ylabel("predicted without the family (%)")
    figure.savefig(path, dpi=100)


def main() -> None:
    arguments = parser(__doc__.splitlines()[0], name="task_zoo", seeds=3)
    arguments.add_argument("--packages", type=Path, help="folder of the packages that build them")
    arguments.add_argument(
        "--parts", default="families,few", help="of families, adapters, few, weights"
    )
    options = parse_arguments(arguments)
    torch.set_num_threads(1)
    parts = options.parts.split(",")
    if unknown := set(parts) - {"families", "adapters", "few", "weights"}:
        arguments.error(
            f"--parts must be of families, adapters, few, weights, but got {min(unknown)}"
        )
    say, figures = progress(), Figures(quick=options.quick)
    whole = load_task_zoo(options.data / "task_zoo" / "task_zoo.csv")
    if options.quick:
        rows = [place for place, name in enumerate(whole.package) if name.startswith("mmpose")]
        whole = whole.take(rows[:40])
    builders = imports_of(options.packages, options.data)
    graphs = graphs_of(whole, builders, options.out / "graphs", say)
    table = pd.read_csv(options.data / "model_zoo" / "timm_results.csv", thousands=",")
    bodies = table.drop_duplicates("model").set_index("model")["top1"]
    owns: dict[str, Networks] = {}
    for task in whole.tasks:
        places = [p for p, name in enumerate(whole.task) if name == task]
        if sum(graphs[p] is not None for p in places) < (FEW if options.quick else 2 * FEW):
            say(f"{task}: too few networks could be built")
            continue
        owns[task] = networks(whole.take(places), [graphs[p] for p in places], bodies)
        say(f"{task}: {len(owns[task].y)} of {len(places)} rows have a graph")
    if not owns:
        print("No task has enough networks: see _task_zoo.py for what to install.")
    seeds = 1 if options.quick else options.seeds
    if "families" in parts and owns:
        tell_families(owns, seeds, options, "adapters" in parts, figures)
        say("families are done")
    if "few" in parts and set(owns) >= {*OTHERS}:
        tell_few(owns, seeds, options, figures)
        say("few labels are done")
    if "weights" in parts and set(owns) >= {*SHIPPED}:
        write_weights(owns, options, figures)
        say("weights are written")
    print(figures)
    figures.save(options.out / "results.json")


def tell_families(
    owns: Mapping[str, Networks], seeds: int, options: Any, adapters: bool, figures: Figures
) -> None:
    rows: dict[str, dict[str, list[tuple[float, ...]]]] = {}
    shown = {}
    for task, own in owns.items():
        for name, predict in METHODS.items():
            found = [held_out(own, predict, seed) for seed in range(seeds)]
            rows.setdefault(name, {})[task] = [judged(own, one) for one in found]
            if name == OURS:
                shown[task] = (own, found[0])
        if adapters:
            found = np.zeros(len(own.y))
            for k in range(FOLDS):
                path = options.out / f"adapter-{task}-{k}.json"
                part = run_part(adapter_fold, path, own, 0, k, EPOCHS)
                found[part["rows"]] = part["predicted"]
            rows.setdefault(ADAPTER, {})[task] = [judged(own, found)]
    title = "Families held out: Spearman inside groups / of all rows / MAE in points"
    print(tell(title, rows))
    spreads = {task: spread_of_one(own) for task, own in owns.items()}
    print(format_table(
        ["", *owns],
        [["spread of one graph's figures", *spreads.values()],
         ["body's accuracy is known, part", *(np.isfinite(o.body).mean() for o in owns.values())]],
    ))  # fmt: skip
    mean = {
        name: {task: np.mean(values, axis=0) for task, values in row.items()}
        for name, row in rows.items()
    }
    for task in owns:
        ours = mean[OURS][task]
        figures.add(f"{task}: Spearman inside groups", float(ours[0]), at_least=ASKED)
        for rival in (MACS, PARAMETERS, GLOBALS):
            lead = float(ours[0] - mean[rival][task][0])
            figures.add(f"{task}: the same less that of {rival}", lead, at_least=0.0)
        figures.add(f"{task}: MAE over the spread of one graph", float(ours[2]) / spreads[task],
                    at_most=ASKED_SPREAD)  # fmt: skip
        figures.add(f"{task}: Spearman inside groups, with the recipe",
                    float(mean[RECIPE][task][0]))  # fmt: skip
    draw(dict(list(shown.items())[:3]), options.out / "predicted.png")


def tell_few(owns: Mapping[str, Networks], seeds: int, options: Any, figures: Figures) -> None:
    folder = options.out / "adapters"
    folder.mkdir(exist_ok=True)
    for task in sorted({name for names in OTHERS.values() for name in names}):
        for by_flops in (False, True):
            path = folder / f"{task}{'-flops' if by_flops else ''}.safetensors"
            if not path.exists():
                adapted(task, owns[task], path, 0, EPOCHS, by_flops)
    rows: dict[str, dict[str, list[tuple[float, ...]]]] = {}
    inside_of: dict[str, list[float]] = {}
    for task, own in owns.items():
        for seed in range(seeds):
            path = options.out / f"few-{task}-{seed}.json"
            part = run_part(few_labels, path, own, task, folder, seed, 100)
            test = np.array(part.pop("rows"))
            inside_of.setdefault(task, []).append(part.pop("coverage"))
            part["a constant"] = [float(own.y[np.setdiff1d(np.arange(len(own.y)), test)].mean())
                                  ] * len(test)  # fmt: skip
            for name, found in part.items():
                # A constant ranks nothing.
                one = (np.nan_to_num(spearman(own.y[test], found)), mae(own.y[test], found))
                rows.setdefault(name, {}).setdefault(task, []).append(one)
    print(tell("20 labels: Spearman of all other rows / MAE in points", rows))
    for task in owns:
        for name in ("zero-shot, single", "zero-shot, double"):
            figures.add(f"{task}: {name}", float(np.mean(rows[name][task], axis=0)[0]),
                        at_least=ASKED_ZERO_SHOT)  # fmt: skip
        figures.add(f"{task}: part inside 80 % intervals", float(np.mean(inside_of[task])))


if __name__ == "__main__":
    main()
