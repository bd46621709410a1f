"""Searches under a FLOPs limit on one's own PyTorch class: compute graphs made, and seconds.

A space of 1.7 million small convolutional networks, none of whose costs is a formula: `flops` come
from `from_module` of each network. The limits are the median of 100 random networks, their tenth
part, and half of the least of them. What is asked for is checked against the graph of its network.

    python benchmarks/cost_limits.py
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from _common import Figures, format_table, parse_arguments, parser, progress
from torch import nn

from nni_aiop.graphs import ComputeGraph, from_module
from nni_aiop.search import BaseSearch, NCPSearch, PredictorTopK, RandomSearch, RegularizedEvolution
from nni_aiop.spaces import CodeSpace, Ordinal, Sample

STAGES, ASKS = 4, 30


def build(sample: Sample) -> nn.Module:
    layers: list[nn.Module] = []
    channels = 3
    for i in range(STAGES):
        width, kernel = sample[f"width{i}"], sample[f"kernel{i}"]
        for _ in range(sample[f"depth{i}"]):
            layers += [nn.Conv2d(channels, width, kernel, padding=kernel // 2)]
            layers += [nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        layers += [nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def graph(sample: Any) -> ComputeGraph:
    return from_module(build(sample), (1, 3, 32, 32))


class Counted:
    """`graph`, and how often it was called."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, sample: Any) -> ComputeGraph:
        self.calls += 1
        return graph(sample)


def space(draw: Callable[[Any], ComputeGraph]) -> CodeSpace:
    dimensions = []
    for i in range(STAGES):
        dimensions += [
            Ordinal(f"depth{i}", (1, 2, 3)),
            Ordinal(f"width{i}", (16, 24, 32, 48)),
            Ordinal(f"kernel{i}", (1, 3, 5)),
        ]
    return CodeSpace(dimensions, name="small", graph=draw)


def searches(
    limits: dict[str, float], seed: int, asks: int
) -> dict[str, Callable[..., BaseSearch]]:
    options: dict[str, Any] = {"limits": limits, "seed": seed}
    return {
        "random": lambda s: RandomSearch(s, **options),
        "evolution": lambda s: RegularizedEvolution(s, population=10, tournament=4, **options),
        "NCP": lambda s: NCPSearch(s, budget=asks, **options),
        "top-k": lambda s: PredictorTopK(s, budget=asks, **options),
    }


def main() -> None:
    options = parse_arguments(parser(str(__doc__).split("\n")[0], name="cost_limits", seeds=3))
    figures = Figures(quick=options.quick)
    say = progress()
    seeds, asks = (1, 8) if options.quick else (options.seeds, ASKS)
    plain = space(graph)
    drawn = plain.encode(plain.sample(100, np.random.default_rng(0)))
    flops = plain.cost("flops", drawn)
    limits = {
        "half": float(np.median(flops)),
        "a tenth": float(np.quantile(flops, 0.1)),
        "hardly any": float(flops.min() / 2),
    }
    rows: list[list[object]] = []
    for left, limit in limits.items():
        for name in searches({"flops": limit}, 0, asks):
            calls, seconds, worst = [], [], 0.0
            for seed in range(seeds):
                count = Counted()
                search = searches({"flops": limit}, seed, asks)[name](space(count))
                begin = time.perf_counter()
                for _ in range(asks):
                    (sample,) = search.ask(1)
                    macs = graph(sample).macs
                    worst = max(worst, macs / limit)
                    search.tell(sample, math.log(macs) + 0.1 * sample["depth0"])
                seconds.append(time.perf_counter() - begin)
                calls.append(count.calls)
            rows.append([left, name, float(np.mean(calls)), float(np.mean(seconds)), worst])
            figures.add(f"{left}, {name}: largest share of the limit", worst, at_most=1.0)
            figures.add(f"{left}, {name}: graphs for {asks} proposals", float(np.mean(calls)))
            figures.add(f"{left}, {name}: seconds", float(np.mean(seconds)), at_most=60.0)
        say(f"limit that leaves {left}: {limit:,.0f}")
    print(format_table(["limit leaves", "search", "graphs", "seconds", "largest / limit"], rows))
    print(figures)
    figures.save(options.out / "results.json")


if __name__ == "__main__":
    main()
