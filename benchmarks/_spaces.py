"""Eight search spaces: their networks as compute graphs, and what was measured of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from _aiop_data import (
    nas_bench_101,
    nas_bench_201,
    nas_bench_mr,
    transnas_micro,
    zoo,
    zoo_graph,
    zoo_table,
)
from numpy.typing import NDArray

from nni_aiop.benchmarks import (
    load_naap440,
    load_nas_bench_201_csv,
    load_ofa_mbv3,
    load_transnas_bench_101,
)
from nni_aiop.graphs import ComputeGraph
from nni_aiop.predictors.graph import GraphSet, NetworkPool
from nni_aiop.search_spaces import mobilenetv3, naap
from nni_aiop.search_spaces.transnas101 import macro

__all__ = ["SPACES", "Space", "read_space"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Space:
    """Networks of one space.

    Attributes:
        pool: The networks.
        labels: (n,) of each task, more is better.
        classified: The tasks that rankers learn: those of classification.
        parameters: (n,) of each network.
        graphs: The networks for graph neural networks, where they were asked for.
    """

    pool: NetworkPool
    labels: dict[str, Array]
    classified: tuple[str, ...]
    parameters: Array
    graphs: GraphSet | None = None

    def __len__(self) -> int:
        return len(self.pool)

    @property
    def learned(self) -> Array:
        """(n, m) labels that rankers learn."""
        return np.stack([self.labels[task] for task in self.classified], axis=1)

    def take(self, rows: NDArray[np.int64]) -> Space:
        labels = {task: y[rows] for task, y in self.labels.items()}
        graphs = None if self.graphs is None else self.graphs.take(rows)
        return replace(
            self,
            pool=self.pool.take(rows),
            labels=labels,
            parameters=self.parameters[rows],
            graphs=graphs,
        )


Rows = tuple[dict[str, Array], Callable[[int], ComputeGraph]]


def _of(benchmark: Any, task: str) -> Rows:
    labels = {name: np.asarray(y, np.float64) for name, y in benchmark.labels.items()}
    return labels, lambda row: benchmark.draw(task, benchmark.sample(row))


def _nas_bench_101(data: Path, out: Path) -> Rows:
    return _of(nas_bench_101(data), "cifar10")


def _nas_bench_201(data: Path, out: Path) -> Rows:
    table = load_nas_bench_201_csv(data / "nas_bench_201" / "nb201.csv.gz")
    tasks = {"cifar10": "c10_test", "cifar100": "c100_test", "imagenet16-120": "in16_test"}
    labels = {task: table.metrics[column] for task, column in tasks.items()}
    return _of(replace(nas_bench_201(data), labels=labels), "cifar100")


def _micro(data: Path, out: Path) -> Rows:
    return _of(transnas_micro(data), "class_object")


def _macro(data: Path, out: Path) -> Rows:
    table = load_transnas_bench_101(data / "transnas_bench_101" / "tnb101_macro.csv.gz")
    return dict(table.metrics), lambda row: macro.graph(macro.from_module_types(table.codes[row]))


def _nas_bench_mr(data: Path, out: Path) -> Rows:
    return _of(nas_bench_mr(data), "cls-50-1000")


def _once_for_all(data: Path, out: Path) -> Rows:
    table = load_ofa_mbv3(data / "ofa_mbv3" / "dynast_w1.0_measured.csv.gz")
    return {"top1": table.metrics["top1"]}, lambda row: mobilenetv3.graph(table.samples[row])


def _naap(data: Path, out: Path) -> Rows:
    table = load_naap440(data / "naap440" / "naap440.csv")
    schemes = naap.schemes()
    return {"accuracy": table.max_accuracy}, lambda row: naap.graph(
        naap.from_layers(schemes[int(table.model_id[row]) - 1])
    )


def _timm(data: Path, out: Path) -> Rows:
    table = zoo_table(data)
    for arch, size in zip(table["arch"], table["img_size"], strict=True):
        zoo_graph(arch, size, out / "timm")
    found = zoo(table, out / "timm").table
    paths = [
        out / "timm" / f"{arch}-{size}.json.gz"
        for arch, size in zip(found["arch"], found["img_size"], strict=True)
    ]
    labels = {"top1": found["top1"].to_numpy(np.float64)}
    return labels, lambda row: ComputeGraph.load(paths[row])


SPACES: dict[str, tuple[Callable[[Path, Path], Rows], tuple[str, ...]]] = {
    "NAS-Bench-101": (_nas_bench_101, ("cifar10",)),
    "NAS-Bench-201": (_nas_bench_201, ("cifar10", "cifar100", "imagenet16-120")),
    "TransNAS micro": (_micro, ("class_scene", "class_object", "jigsaw")),
    "TransNAS macro": (_macro, ("class_scene", "jigsaw")),
    "NAS-Bench-MR": (_nas_bench_mr, ("cls-50-1000", "cls-50-100", "cls-10c")),
    "once-for-all": (_once_for_all, ("top1",)),
    "NAAP-440": (_naap, ("accuracy",)),
    "timm": (_timm, ("top1",)),
}
"""Each space's reader, and its tasks of classification."""


@cache
def read_space(
    name: str, data: Path, out: Path, *, most: int | None = None, graphs: bool = False
) -> Space:
    """The networks of a space.

    Args:
        name: A key of `SPACES`.
        data: Folder of the tables.
        out: Where timm's graphs are kept.
        most: So many of its networks at most, drawn with seed 0; all by default.
        graphs: Whether features for graph neural networks are worked out too.
    """
    read, classified = SPACES[name]
    labels, draw = read(data, out)
    n = len(next(iter(labels.values())))
    rows = np.arange(n) if most is None else np.random.default_rng(0).permutation(n)[:most]
    pools, parameters, sets = [], [], []
    for at in range(0, len(rows), 2048):
        chunk = [draw(row) for row in rows[at : at + 2048].tolist()]
        pools.append(NetworkPool(chunk))
        parameters.append([graph.parameters for graph in chunk])
        sets += chunk if graphs else []
    return Space(
        _joined(pools),
        {task: np.asarray(y, np.float64)[rows] for task, y in labels.items()},
        classified,
        np.concatenate(parameters).astype(np.float64),
        GraphSet(sets) if graphs else None,
    )


def _joined(pools: Iterable[NetworkPool]) -> NetworkPool:
    parts = list(pools)
    result = parts[0].take(np.arange(0))
    for name in vars(result):
        setattr(result, name, np.concatenate([getattr(part, name) for part in parts]))
    return result
