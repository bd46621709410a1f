"""How fast graph predictors learn and predict, on one thread of a CPU.

    python benchmarks/aiop_speed.py --data ../shared/data

Once: a backbone trained on 10,000 NAS-Bench-101 graphs, an adapter on 1,000 graphs of a task of
TransNAS-Bench-101 micro and one on 1,000 of a setting of NAS-Bench-MR, all as the constructor has
it and with the features of the graphs. Then for each seed, other graphs and that backbone: graphs a
second that are written from their codes, and that are predicted, features included (the median).
The graphs are those of architectures of the benchmarks' tables, of NAS-Bench-201 any.

    python benchmarks/aiop_speed.py --data ../shared/data --before 77be28c

times an older commit too: both predict the same networks with the shipped backbone, features
included, in processes of their own that take turns, and the figure is the median of ratios. Both
kept the features bit for bit; what sums of 32-bit numbers differ by is told beside.

    python benchmarks/aiop_speed.py --data ../shared/data --streamed 100000

tells by how many megabytes predicting so many networks, made one after the other, grows a process.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np
import torch
from _aiop_data import Benchmark, nas_bench_101, nas_bench_mr, transnas_micro
from _common import Figures, format_table, parse_arguments, parser, progress
from _older import ROOT, older_package, run_with
from numpy.typing import NDArray

from nni_aiop.graphs import ComputeGraph
from nni_aiop.predictors.graph import GraphPredictor
from nni_aiop.search_spaces import get_space
from nni_aiop.spaces import Sample

PRETRAINED, ADAPTED, PREDICTED = 10_000, 1_000, 2_000
BACKBONE_SECONDS, ADAPTER_SECONDS, GRAPHS_PER_SECOND = 900.0, 180.0, 1_000.0

COMPARED = {"nasbench201": 1000, "nasbench101": 1000, "multi_resolution": 200}
"""Spaces, and how many networks are predicted both ways."""

FASTER, MOST_MEGABYTES, CLOSE = 5.0, 1000.0, 1e-6

Result = TypeVar("Result")


def compare(revision: str, out: Path, seeds: int, quick: bool, figures: Figures) -> None:
    """Seconds of this package and of an older commit, which take turns."""
    try:
        older = older_package(revision, out)
    except LookupError as err:
        sys.exit(str(err))
    rows = []
    for name, most in COMPARED.items():
        n = 20 if quick else most
        ratios, seconds, apart = [], [], 0.0
        for seed in range(seeds):
            files = [out / f"{which}.npy" for which in ("before", "now")]
            before, now = (
                run_with(package, "_speed_worker.py", name, n, seed, 3, file)
                for package, file in zip((older, ROOT), files, strict=True)
            )
            ratios.append(before["seconds"] / now["seconds"])
            seconds.append((n / before["seconds"], n / now["seconds"]))
            old, new = map(np.load, files)
            apart = max(apart, float(np.abs(old - new).max() / old.std()))
        speeds = np.median(seconds, axis=0)
        rows.append([name, round(now["nodes"]), *speeds, median(ratios), f"{apart:.1e}"])
        figures.add(
            f"times the speed of {revision} on {name}",
            median(ratios),
            at_least=FASTER,
            detail=ratios,
        )
        figures.add(f"apart on {name}, of a standard deviation", apart, at_most=CLOSE)
    heads = ["space", "nodes", f"{revision} (graphs/s)", "now (graphs/s)", "ratio", "apart"]
    print(format_table(heads, rows), "\n")


def stream(n: int, figures: Figures) -> None:
    found = run_with(ROOT, "_speed_worker.py", "nasbench201", n, 0, "streamed", "-")
    grown = found["after"] - found["before"]
    print(f"{found['n']:,} networks: {found['before']:.0f} MB before, {found['after']:.0f} after\n")
    figures.add(f"megabytes of predicting {n:,} networks", grown, at_most=MOST_MEGABYTES)


def timed(function: Callable[[], Result]) -> tuple[Result, float]:
    """What a function returns, and its seconds."""
    begin = time.perf_counter()
    result = function()
    return result, time.perf_counter() - begin


def labelled(
    benchmark: Benchmark, task: str, n: int
) -> tuple[list[ComputeGraph], NDArray[np.float64]]:
    """Graphs and labels of n architectures."""
    rows = np.random.default_rng(0).permutation(len(benchmark))[:n]
    graphs = [benchmark.draw(task, benchmark.sample(row)) for row in rows.tolist()]
    return graphs, benchmark.labels[task][rows]


def main() -> None:
    arguments = parser(__doc__.splitlines()[0], name="aiop_speed", seeds=5)
    arguments.add_argument("--before", help="a commit to compare with, and nothing else")
    arguments.add_argument("--streamed", type=int, help="how many networks, and nothing else")
    options = parse_arguments(arguments)
    torch.set_num_threads(1)
    if options.before or options.streamed:
        figures = Figures(quick=options.quick)
        if options.before:
            compare(options.before, options.out, options.seeds, options.quick, figures)
        if options.streamed:
            stream(options.streamed, figures)
        print(figures)
        figures.save(options.out / "compared.json")
        return
    part = 50 if options.quick else 1
    say = progress()
    figures = Figures(quick=options.quick)
    predictor = GraphPredictor(epochs=2 if options.quick else None)

    pretraining = nas_bench_101(options.data)
    graphs, y = labelled(pretraining, "cifar10", PRETRAINED // part)
    _, seconds = timed(lambda: predictor.fit(graphs, y))
    figures.add(
        f"seconds of a backbone on {PRETRAINED:,} nasbench101 graphs",
        seconds,
        at_most=BACKBONE_SECONDS,
    )
    say(f"backbone of {len(graphs)} graphs: {seconds:.1f} s")
    adapted = {"class_object": transnas_micro(options.data), "seg": nas_bench_mr(options.data)}
    for task, benchmark in adapted.items():
        graphs, y = labelled(benchmark, task, ADAPTED // part)
        _, seconds = timed(lambda t=task, g=graphs, y=y: predictor.adapt(t, g, y))
        figures.add(
            f"seconds of an adapter on {ADAPTED:,} graphs of {task}",
            seconds,
            at_most=ADAPTER_SECONDS,
        )
        say(f"adapter of {len(graphs)} graphs of {task}: {seconds:.1f} s")

    def of_table(benchmark: Benchmark) -> Callable[[int, np.random.Generator], list[Sample]]:
        return lambda n, rng: [benchmark.sample(row) for row in rng.permutation(len(benchmark))[:n]]

    samplers = {
        "nasbench201": get_space("nasbench201").sample,
        "nasbench101": of_table(pretraining),
        "transnas101_micro": of_table(adapted["class_object"]),
    }
    rows = []
    for name, sample in samplers.items():
        written, predicted = [], []
        for seed in range(options.seeds):
            samples = sample(PREDICTED // part, np.random.default_rng(seed))
            graphs, seconds = timed(lambda n=name, s=samples: [*map(get_space(n).graph, s)])
            written.append(len(graphs) / seconds)
            _, seconds = timed(lambda g=graphs: predictor.predict(g))
            predicted.append(len(graphs) / seconds)
        nodes = sum(map(len, graphs)) / len(graphs)
        rows.append([name, round(nodes), median(written), median(predicted)])
        figures.add(f"graphs a second of {name} written", median(written), detail=written)
        figures.add(
            f"graphs a second of {name} predicted",
            median(predicted),
            at_least=GRAPHS_PER_SECOND,
            detail=predicted,
        )
        say(f"{name}: {median(predicted):.0f} graphs a second predicted")
    print(format_table(["space", "nodes", "written (graphs/s)", "predicted (graphs/s)"], rows))
    print()
    print(figures)
    figures.save(options.out / "results.json")
    print(f"\nResults: {options.out}/results.json")


if __name__ == "__main__":
    main()
