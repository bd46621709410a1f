"""What each part of the AIO-P benchmark does; results are JSON.

These functions run in other processes: they take folders, sizes and a seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _aiop_data import (
    Array,
    Benchmark,
    Rows,
    Subset,
    nas_bench_101,
    nas_bench_mr,
    transnas_micro,
    zoo,
    zoo_table,
)
from _aiop_methods import (
    FLOPS,
    HEADS,
    KINDS,
    METHODS,
    PARAMETERS,
    QUICK,
    Case,
    Kind,
    Sizes,
    Trainer,
    ablations,
    proxies,
)
from scipy.stats import norm

from nni_aiop.files import write_json
from nni_aiop.predictors import default_predictor
from nni_aiop.predictors.graph import GPHead, GraphPredictor
from nni_aiop.predictors.metrics import kendall, mae, spearman

Scores = dict[str, dict[str, float]]
"""Figures of each method."""

TRANSFERS: dict[str, tuple[Callable[[Path], Benchmark], tuple[str, str]]] = {
    "a": (transnas_micro, ("class_object", "autoencoder")),
    "b": (nas_bench_mr, ("seg", "cls-50-100")),
}
"""Of tables a and b: the benchmark, and the tasks of adapters: one that gives classes, one that
gives images (a), or the two that agree least but for video (b). The rest are targets."""


# --- what is shared ------------------------------------------------------------------------------


@cache
def load(make: Callable[[Path], Benchmark], data: Path) -> Benchmark:
    return make(data)


def split(benchmark: str, n: int, seed: int, out: Path, **counts: int) -> dict[str, Rows]:
    """Disjoint rows under each name, drawn by the seed and written down."""
    order = np.random.default_rng(seed).permutation(n)
    ends = np.minimum(np.cumsum(list(counts.values())), n)
    parts = dict(zip(counts, np.split(order, ends)[: len(counts)], strict=True))
    rows = {name: part.tolist() for name, part in parts.items()}
    write_json(out / "splits" / f"{benchmark}-{seed}.json", rows)
    return parts


def score(measured: Array, predicted: Array) -> dict[str, float]:
    """MAE and SRCC; a constant ranks nothing."""
    return {
        "mae": mae(measured, predicted),
        "srcc": float(np.nan_to_num(spearman(measured, predicted))),
    }


# --- a, b, e: transfer ---------------------------------------------------------------------------


def transfer_rows(table: str, data: Path, out: Path, sizes: Sizes, seed: int) -> dict[str, Rows]:
    make, _ = TRANSFERS[table]
    counts = {"adapters": sizes.adapters, "few": sizes.few, "test": sizes.test}
    return split(make.__name__, len(load(make, data)), seed, out, **counts)


def pretrained(kind: Kind, data: Path, out: Path, sizes: Sizes) -> GraphPredictor:
    """The backbone, trained on NAS-Bench-101: one for all seeds, which vary what follows."""

    def source() -> Subset:
        benchmark = load(nas_bench_101, data)
        counts = {"pretraining": sizes.pretraining}
        rows = split("nas_bench_101", len(benchmark), 0, out, **counts)["pretraining"]
        return benchmark.rows("cifar10", rows)

    return Trainer(out / "trained", sizes, 0).backbone(kind, source)


def train_backbone(kind: Kind, data: Path, out: Path, sizes: Sizes) -> None:
    torch.set_num_threads(1)
    pretrained(kind, data, out, sizes)


def train_adapters(
    kind: Kind, table: str, data: Path, out: Path, sizes: Sizes, seed: int
) -> GraphPredictor:
    """A backbone with the adapters of a table, if its kind has any."""
    torch.set_num_threads(1)
    make, tasks = TRANSFERS[table]
    benchmark = load(make, data)
    rows = transfer_rows(table, data, out, sizes, seed)["adapters"]
    predictor = pretrained(kind, data, out, sizes)
    predictor.seed = seed
    for task in tasks if kind.adapted else ():
        trainer = Trainer(out / "trained", sizes, seed)
        trainer.adapt(predictor, kind, make.__name__, task, lambda t=task: benchmark.rows(t, rows))
    return predictor


def cases(
    table: str, kinds: Mapping[str, Kind], data: Path, out: Path, sizes: Sizes, seed: int
) -> Iterator[Case]:
    """Each target of a table."""
    make, adapters = TRANSFERS[table]
    benchmark = load(make, data)
    rows = transfer_rows(table, data, out, sizes, seed)
    predictors = {
        name: train_adapters(kind, table, data, out, sizes, seed) for name, kind in kinds.items()
    }
    targets = [task for task in benchmark.labels if task not in adapters]
    for task in targets[: sizes.targets]:
        few, test = (benchmark.rows(task, rows[name]) for name in ("few", "test"))
        yield Case(predictors, benchmark, task, adapters, few, test, seed, sizes.tuning)


def compared(table: str, seed: int) -> dict[str, Kind]:
    """What tables a and b compare; of b, whose graphs are large, the published with seed 0 only."""
    whole = table == "a" or seed == 0
    names = ("default", "published", "published, own units") if whole else ("default",)
    return {name: KINDS[name] for name in names}


ABLATED = {name: KINDS[name] for name in ("default", "default, Eq. 5")}
BOUND = "bound: mean of the adapters' true labels"


def compare(table: str, data: Path, out: Path, sizes: Sizes, seed: int) -> dict[str, Scores]:
    """Of each target: every method, the proxies, and what the adapters' true labels would do."""
    found: dict[str, Scores] = {}
    kinds = compared(table, seed)
    for case in cases(table, kinds, data, out, sizes, seed):
        scores = {
            name: score(case.test.y, method(case))
            for name, method in METHODS.items()
            if "published" in kinds or "published" not in name
        }
        rows = transfer_rows(table, data, out, sizes, seed)["test"]
        known = [case.benchmark.labels[name] for name in case.adapters]
        ideal = np.mean([(y[rows] - y.mean()) / y.std() for y in known], axis=0)
        scores[BOUND] = {"srcc": spearman(case.test.y, ideal)}
        few = slice(sizes.proxies)
        worked_out = proxies(case.benchmark, case.task, rows[few], seed, sizes.proxy_side)
        for name, values in worked_out.items():
            ranked = spearman(case.test.y[few], np.nan_to_num(values, nan=-np.inf))
            scores[f"{name} (on {sizes.proxies})"] = {"srcc": float(np.nan_to_num(ranked))}
        found[case.task] = scores
    return found


def coverage(table: str, data: Path, out: Path, sizes: Sizes, seed: int) -> dict[str, Scores]:
    """Of each target: the share of networks inside each head's 80 % intervals."""
    half = norm.ppf(0.9)
    found: dict[str, Scores] = {}
    for case in cases(table, {"default": KINDS["default"]}, data, out, sizes, seed):
        for head, name in HEADS.items():
            fit = case.predictors["default"].few_shot(case.few.graphs, case.few.y, head=head)
            predicted = fit.predict(case.test.graphs)
            inside = np.abs(case.test.y - predicted.mean[:, 0]) <= half * predicted.std[:, 0]
            found.setdefault(case.task, {})[name] = {"coverage": float(inside.mean())}
    return found


def ablate(table: str, data: Path, out: Path, sizes: Sizes, seed: int) -> dict[str, Scores]:
    return {
        case.task: {name: score(case.test.y, found) for name, found in ablations(case).items()}
        for case in cases(table, ABLATED, data, out, sizes, seed)
    }


# --- c: inside one space -------------------------------------------------------------------------


def in_space(
    make: Callable[[Path], Benchmark], task: str, data: Path, out: Path, sizes: Sizes, seed: int
) -> Scores:
    """GNNs without pretraining beside the code predictor, on the same split."""
    benchmark = load(make, data)
    mr = make is nas_bench_mr
    if mr:
        # The split of benchmarks/nas_bench_mr.py.
        order = np.random.RandomState(seed).permutation(len(benchmark))
        rows = {"train": order[: sizes.resolutions], "test": order[2000 : 2000 + sizes.test]}
    else:
        counts = {"train": sizes.in_space, "test": 5 * sizes.test}
        rows = split(f"{make.__name__}-in-space", len(benchmark), seed, out, **counts)
    train, test = (benchmark.rows(task, rows[name]) for name in ("train", "test"))
    found = {}
    for encoder in ("default",) if mr else ("default", "published"):
        fit = GraphPredictor(encoder, epochs=sizes.epochs, seed=seed).fit(train.graphs, train.y)
        found[f"GNN, {encoder} encoder"] = fit.predict(test.graphs).mean[:, 0]
    codes = default_predictor(benchmark.space, seed).fit(train.codes, {"metric": train.y})
    found["code predictor"] = codes.predict(test.codes).mean[:, 0]
    found[FLOPS], found[PARAMETERS] = test.graphs.flops, test.parameters
    scores = {
        name: {**score(test.y, values), "kendall": float(np.nan_to_num(kendall(test.y, values)))}
        for name, values in found.items()
    }
    for name in (FLOPS, PARAMETERS):  # in other units
        del scores[name]["mae"]
    return scores


# --- d: timm -------------------------------------------------------------------------------------


def rank_family(family: str, data: Path, out: Path, sizes: Sizes, seed: int) -> dict[str, Any]:
    """Predictions of a family by what was trained on the others."""
    networks, families = _zoo(data, out)
    held = families == family
    train = networks.take(np.flatnonzero(~held)[:: 20 if sizes is QUICK else 1])
    test = networks.take(np.flatnonzero(held))
    found: dict[str, Array] = {"mean predictor": np.full(len(test.y), train.y.mean())}
    for name, pick in (
        (FLOPS, lambda part: part.graphs.flops),
        (PARAMETERS, lambda part: part.parameters),
    ):
        line = np.polyfit(np.log(pick(train)), train.y, 1)
        found[name] = np.polyval(line, np.log(pick(test)))
    found["GP on global features"] = GPHead().fit(train.graphs.u, train.y).predict(test.graphs.u)[0]
    kinds = {"GNN, default encoder, Eq. 4": KINDS["default"]}
    if seed == 0:  # each takes as long as the default
        kinds = {
            "GNN as published + Eqs. 4 & 5": KINDS["published"],
            "GNN, default encoder, Eqs. 4 & 5": Kind("default", True, True),
            **kinds,
        }
    for name, kind in kinds.items():
        fit = GraphPredictor(
            kind.encoder, by_flops=kind.by_flops, epochs=sizes.epochs, seed=seed
        ).fit(train.graphs, train.y)
        found[name] = fit.predict(test.graphs).mean[:, 0]
    head = fit.few_shot(train.graphs, train.y, head="gp")
    found["GP on the default encoder's embeddings"] = head.predict(test.graphs).mean[:, 0]
    return {
        "measured": test.y.tolist(),
        "predicted": {name: values.tolist() for name, values in found.items()},
    }


# --- f: the default encoder's switches -----------------------------------------------------------

SWITCHES: dict[str, dict[str, Any]] = {
    "default": {},
    "messages along the data only": {"encoder_options": {"both_directions": False}},
    "not residual": {"encoder_options": {"residual": False}},
    "layer norm": {"encoder_options": {"norm": True}},
    "no positions": {"encoder_options": {"positions": False}},
    "nodes not merged": {"encoder_options": {"merged": False}},
    "no global features": {"encoder_options": {"global_features": False}},
    "read out by mean only": {"encoder_options": {"read_outs": ("mean",)}},
    "loss: squares only": {"loss": "mse"},
    "loss: ranks only": {"loss": "rank"},
    "labels as they are": {"normal_scores": False},
    "published encoder": {"encoder": "published"},
}
"""Arguments of `GraphPredictor` that change one choice of the default, and the published one."""


def turn_switches(part: str, data: Path, out: Path, sizes: Sizes, seed: int) -> Scores:
    """Every choice on rows, or on families of timm, that were not trained on."""
    if part == "timm":
        networks, families = _zoo(data, out)
        order = np.random.default_rng(seed).permutation(np.unique(families))
        held = np.isin(families, order[::4])
        train, test = (networks.take(np.flatnonzero(rows)) for rows in (~held, held))
    else:
        make, task, n = SWITCHED[part]
        benchmark = load(make, data)
        counts = {"train": min(n, sizes.in_space), "test": sizes.test}
        rows = split(f"{make.__name__}-switches", len(benchmark), seed, out, **counts)
        train, test = (benchmark.rows(task, rows[name]) for name in counts)
    found = {}
    for name, options in SWITCHES.items():
        fit = GraphPredictor(**{"epochs": sizes.epochs, "seed": seed, **options})
        fit.fit(train.graphs, train.y)
        found[name] = score(test.y, fit.predict(test.graphs).mean[:, 0])
    return found


SWITCHED = {
    "nas_bench_101": (nas_bench_101, "cifar10", 1000),
    "nas_bench_mr": (nas_bench_mr, "seg", 500),
}


@cache
def _zoo(data: Path, out: Path) -> tuple[Subset, Any]:
    found = zoo(zoo_table(data), out / "timm")
    return found.networks, found.table["family"].to_numpy()
