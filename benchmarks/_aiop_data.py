"""Architectures of each benchmark as compute graphs, with what was measured of them.

Every architecture has a row; a task has one graph and one label a row. Graphs are built when they
are asked for, straight from the codes; those of timm's networks are kept in the out folder.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from _timm import create, timm
from numpy.typing import NDArray
from torch import nn

from nni_aiop.benchmarks import (
    load_nas_bench_101,
    load_nas_bench_201_csv,
    load_nas_bench_mr,
    load_transnas_bench_101,
)
from nni_aiop.graphs import ComputeGraph, from_module
from nni_aiop.predictors.graph import GraphSet
from nni_aiop.search_spaces import get_space, multi_resolution, nasbench101, nasbench201
from nni_aiop.search_spaces.transnas101 import TASKS, micro
from nni_aiop.spaces import CodeSpace, Sample

Array = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Subset:
    """Some architectures under one task.

    Attributes:
        graphs: Collated.
        y: (n,) labels.
        codes: (n, width) codes, or none where there is no space.
        parameters: (n,) of each network.
    """

    graphs: GraphSet
    y: Array
    codes: Array
    parameters: Array

    def take(self, places: Rows | slice) -> Subset:
        at = np.arange(len(self.y))[places]
        return Subset(self.graphs.take(at), self.y[at], self.codes[at], self.parameters[at])


def subset(graphs: Sequence[ComputeGraph], y: Array, codes: Array | None = None) -> Subset:
    parameters = np.array([graph.parameters for graph in graphs], np.float64)
    codes = np.empty((len(graphs), 0)) if codes is None else codes
    return Subset(GraphSet(graphs), y, codes, parameters)


@dataclass(frozen=True)
class Benchmark:
    """The architectures of one space.

    Attributes:
        name: For tables.
        labels: (n,) of each task, more is better.
        space: Of the samples.
        sample: That of a row.
        draw: The graph of a sample under a task.
        network: The network of a sample under a task, untrained, and the shape of one input, whose
            images have so many pixels a side.
    """

    name: str
    labels: Mapping[str, Array]
    space: CodeSpace
    sample: Callable[[int], Sample]
    draw: Callable[[str, Sample], ComputeGraph]
    network: Callable[[str, Sample, int], tuple[nn.Module, tuple[int, ...]]] | None = None

    def __len__(self) -> int:
        return len(next(iter(self.labels.values())))

    def rows(self, task: str, rows: Rows) -> Subset:
        """Some rows under a task."""
        samples = [self.sample(row) for row in rows.tolist()]
        graphs = [self.draw(task, sample) for sample in samples]
        return subset(graphs, self.labels[task][rows], self.space.encode(samples))

    def correlation(self) -> pd.DataFrame:
        """Spearman's rank correlation between tasks."""
        return pd.DataFrame(dict(self.labels)).corr("spearman")


def nas_bench_101(data: Path) -> Benchmark:
    """Accuracy in percent after 108 epochs, on validation data."""
    table = load_nas_bench_101(data / "nas_bench_101" / "nb101_30k.csv.gz")
    return Benchmark(
        "NAS-Bench-101",
        {"cifar10": 100 * table.metrics["val108"]},
        get_space("nasbench101"),
        lambda row: nasbench101.from_matrix(table.adjacency[row], table.operations[row]),
        lambda _, sample: nasbench101.graph(sample),
    )


def nas_bench_201(data: Path) -> Benchmark:
    """Test accuracy in percent on CIFAR-100."""
    table = load_nas_bench_201_csv(data / "nas_bench_201" / "nb201.csv.gz")
    space = get_space("nasbench201")
    return Benchmark(
        "NAS-Bench-201",
        {"cifar100": table.metrics["c100_test"]},
        space,
        lambda row: dict(zip(space.labels, table.operations[row], strict=True)),
        lambda _, sample: nasbench201.graph(sample),
    )


def transnas_micro(data: Path) -> Benchmark:
    """The validation metric of each task of the micro space."""
    table = load_transnas_bench_101(data / "transnas_bench_101" / "tnb101_micro.csv.gz")

    def sample(row: int) -> Sample:
        operations = (micro.OPERATIONS[digit] for digit in table.codes[row])
        return dict(zip(micro.LABELS, operations, strict=True))

    def network(task: str, sample: Sample, side: int) -> tuple[nn.Module, tuple[int, ...]]:
        module = micro.TransNASMicroNet(sample, task=task)
        tiles = TASKS[task].n_pieces
        return module, (3, side, side) if tiles == 1 else (tiles, 3, side // 2, side // 2)

    return Benchmark(
        "TransNAS-Bench-101 micro",
        table.metrics,
        get_space("transnas101_micro"),
        sample,
        lambda task, sample: micro.graph(sample, task=task),
        network,
    )


_CLASSIFIED: dict[str, Any] = {"input_size": 224, "n_classes": 50}
MR_NETWORKS: dict[str, dict[str, Any]] = {
    "cls-50-1000": _CLASSIFIED,
    "cls-50-100": _CLASSIFIED,
    "cls-10c": _CLASSIFIED,
    "seg": {"input_size": (512, 1024), "n_classes": 19, "head": "segmentation"},
    "video": {"input_size": 112, "n_classes": 51, "head": "video", "frames": 16},
}
"""Networks of the settings as their paper's Table 6 has them (16 frames are our reading)."""


def nas_bench_mr(data: Path) -> Benchmark:
    """The main metric of each setting."""
    tables = {name: load_nas_bench_mr(data / "nas_bench_mr", name) for name in MR_NETWORKS}
    codes = next(iter(tables.values())).embedding
    space = get_space("multi_resolution")

    def network(task: str, sample: Sample, side: int) -> tuple[nn.Module, tuple[int, ...]]:
        options = {k: v for k, v in MR_NETWORKS[task].items() if k in ("head", "n_classes")}
        module = multi_resolution.MultiResolutionNet(sample, **options)
        return module, (3, 4, side, side) if task == "video" else (3, side, side)

    return Benchmark(
        "NAS-Bench-MR",
        {setting: next(iter(table.metrics.values())) for setting, table in tables.items()},
        space,
        lambda row: dict(zip(space.labels, codes[row].tolist(), strict=True)),
        lambda task, sample: multi_resolution.graph(sample, **MR_NETWORKS[task]),
        network,
    )


# --- timm ----------------------------------------------------------------------------------------

OTHER_DATA = (
    *("in21k", "in22k", "in12k", "ig1b", "ig100m", "yfcc", "laion", "openai", "clip", "datacomp"),
    *("swsl", "ssl", "jft", "ns_", "seer", "mim", "mae", "dino", "beit", "swag", "goog", "lvd"),
    *("dist", "ssld", "usi", "e3600", "_ft_"),
)
"""Parts of names of weights that saw other data, a teacher, or ten times the epochs."""

LARGEST_SIDE = 320
LARGEST_NETWORK = 100.0  # millions of parameters

FILTER = (
    "rows whose weights' name ends in in1k and holds none of "
    f"{', '.join(OTHER_DATA)}; images of at most {LARGEST_SIDE} pixels a side; at most "
    f"{LARGEST_NETWORK:.0f} M parameters; no test_ networks; of each architecture the row with the "
    "highest top-1"
)


@dataclass(frozen=True)
class Zoo:
    """ImageNet networks.

    Attributes:
        table: Columns model, arch, family, img_size, top1; a row a network.
        networks: In the same order.
    """

    table: pd.DataFrame
    networks: Subset


def zoo_table(data: Path) -> pd.DataFrame:
    """The rows of timm's results that `FILTER` keeps."""
    timm()
    from timm.models._registry import _model_to_module

    table = pd.read_csv(data / "model_zoo" / "timm_results.csv", thousands=",")
    table["family"] = table["arch"].map(_model_to_module)
    kept = (
        table["model"].str.endswith("in1k")
        & ~table["model"].str.contains("|".join(map(re.escape, OTHER_DATA)))
        & ~table["arch"].str.startswith("test_")
        & (table["img_size"] <= LARGEST_SIDE)
        & (table["param_count"] <= LARGEST_NETWORK)
        & table["family"].notna()
    )
    best = table[kept].sort_values("top1", ascending=False).drop_duplicates("arch")
    columns = ["model", "arch", "family", "img_size", "top1"]
    return best[columns].sort_values("model").reset_index(drop=True)


def zoo_graph(arch: str, size: int, folder: Path) -> str:
    """The graph of one network in a file of the folder; "" or why there is none."""
    path = folder / f"{arch}-{size}.json.gz"
    if path.exists():
        return ""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    try:
        with torch.device("meta"):
            try:
                model = create(arch, img_size=size)
            except TypeError:  # a network for images of any size
                model = create(arch)
        from_module(model, (1, 3, size, size)).save(path)
    except Exception as err:  # noqa: BLE001 (what cannot be read is part of the result)
        return f"{arch}: {type(err).__name__}: {str(err).splitlines()[0] if str(err) else ''}"
    return ""


def zoo(table: pd.DataFrame, folder: Path) -> Zoo:
    """The networks of a table whose graphs the folder holds."""
    paths = [
        folder / f"{arch}-{size}.json.gz"
        for arch, size in zip(table["arch"], table["img_size"], strict=True)
    ]
    there = np.array([path.exists() for path in paths])
    graphs = [ComputeGraph.load(path) for path in paths if path.exists()]
    table = table[there].reset_index(drop=True)
    return Zoo(table, subset(graphs, table["top1"].to_numpy(np.float64)))
