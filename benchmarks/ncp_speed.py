"""How fast propagation is: many starts with exact costs, beside one start that counts with thop.

Ours: 1,024 starts, 70 iterations on NAS-Bench-MR, straight-through, with the exact FLOPs and params
of every visited code, through the default predictor and through the published MLP. The publisher's
procedure: one start, 70 iterations, and at each the FLOPs of the rounded network counted with thop;
the stand-in for it times gradient steps and thop counts of our own network in this run.

    python benchmarks/ncp_speed.py --data ../shared/data
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from _common import Figures, format_table, parse_arguments, parser, progress

from nni_aiop.benchmarks import load_nas_bench_mr
from nni_aiop.predictors import CodePredictor, make_predictor
from nni_aiop.search import Propagation, Task, propagate
from nni_aiop.search_spaces import get_space
from nni_aiop.search_spaces.multi_resolution import MultiResolutionNet
from nni_aiop.spaces import CodeSpace, Sample

STARTS, STEPS, REPEATS = 1024, 70, 5


def timed(function: Callable[[], object], repeats: int) -> float:
    """Median seconds of a call, after one that warms up."""
    function()
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - begin)
    return median(seconds)


def ours(space: CodeSpace, predictor: CodePredictor, starts: int, steps: int) -> Propagation:
    return propagate(
        space,
        Task(predictor),
        space.encode(space.sample(starts, np.random.default_rng(0))),
        cost="flops",
        steps=steps,
        lr=0.3,
        optimiser="adam",
        rounding="straight-through",
    )


def count_with_thop(sample: Sample) -> float:
    """Multiply-adds of the network at 128 x 128, as the publisher's script counts them."""
    from thop import profile

    network = MultiResolutionNet(sample).eval()
    with torch.no_grad():
        return float(profile(network, inputs=(torch.zeros(1, 3, 128, 128),), verbose=False)[0])


def main() -> None:
    warnings.filterwarnings("ignore", message=".*distutils.*", category=DeprecationWarning)
    options = parse_arguments(parser(__doc__.splitlines()[0], name="ncp_speed", seeds=1))
    torch.set_num_threads(1)
    say = progress()
    space = get_space("multi_resolution")
    table = load_nas_bench_mr(options.data / "nas_bench_mr", "seg")
    codes = space.encode(
        [dict(zip(space.labels, row, strict=True)) for row in table.embedding.tolist()]
    )
    rows = np.random.RandomState(0).permutation(len(table))[: 300 if options.quick else 2000]
    targets = {"mIoU": table.metrics["mIoU"][rows], "flops": table.flops[rows]}
    predictors = {}
    for name in ("gp", "ncp-mlp"):
        chosen = targets if name == "ncp-mlp" else {"mIoU": targets["mIoU"]}
        predictors[name] = make_predictor(name, space, 0).fit(codes[rows], chosen)
        say(f"{name} fitted on {len(rows)} networks")
    torch.set_num_threads(2)
    starts, steps = (128, 10) if options.quick else (STARTS, STEPS)
    repeats = 1 if options.quick else REPEATS

    figures = Figures(quick=options.quick)
    lines: list[list[object]] = []
    for name, predictor in predictors.items():
        run = ours(space, predictor, starts, steps)
        assert run.costs["flops"].shape == (steps + 1, starts)
        seconds = timed(lambda p=predictor: ours(space, p, starts, steps), repeats)  # type: ignore[misc]
        one = timed(lambda p=predictor: ours(space, p, 1, steps), repeats)  # type: ignore[misc]
        lines += [
            [f"ours, {name}: {starts} starts x {steps} iterations", seconds],
            [f"ours, {name}: 1 start x {steps} iterations", one],
        ]
        figures.add(f"seconds, {name}, {starts} x {steps}", seconds, at_most=5.0)
        predictors[name] = predictor
    samples = space.sample(3, np.random.default_rng(1))
    thop = median([timed(lambda s=s: count_with_thop(s), 1) for s in samples])  # type: ignore[misc]
    published = timed(
        lambda: propagate(space, Task(predictors["ncp-mlp"], "mIoU"), cost=None, steps=steps),
        repeats,
    )
    procedure = published + steps * thop
    lines += [
        ["one thop count (median of three networks)", thop],
        [f"publisher's procedure: 1 start x {steps} iterations + {steps} thop counts", procedure],
    ]
    for name in predictors:
        seconds = float(lines[0 if name == "gp" else 2][1])  # type: ignore[arg-type]
        figures.add(f"ratio per start to the procedure, {name}", procedure * starts / seconds)
        one = float(lines[1 if name == "gp" else 3][1])  # type: ignore[arg-type]
        figures.add(f"ratio for one start to the procedure, {name}", procedure / one)
    print(format_table(["what", "seconds"], lines))
    print(figures)
    figures.save(options.out / "results.json")


if __name__ == "__main__":
    main()
