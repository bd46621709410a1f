"""NCP on NAS-Bench-MR: budgets S, M, L, one to five tasks at once, transfer; judged by an oracle.

The search's predictors are fitted on one half of the 2,507 networks (seeded), the oracle's on the
other half, which the search never sees; its error on the search's half is printed. FLOPs and params
are exact (FLOPs: multiply-adds of the 50-class network at 128 x 128, the published column).
Reproduced in kind: the S, M, L rows of the paper's table 2 (lambda 0.7, 0.3, 0.1), table 3 (single
tasks, pairs, all) and table 4 (transfer from a found code).

    python benchmarks/ncp_nas_bench_mr.py --data ../shared/data --seeds 3
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from _common import Figures, format_table, parse_arguments, parser, progress
from joblib import Parallel, delayed
from numpy.typing import NDArray

from nni_aiop.benchmarks import NASBenchMR, load_nas_bench_mr
from nni_aiop.predictors import CodePredictor, make_predictor
from nni_aiop.predictors.metrics import mae, spearman
from nni_aiop.search import Propagation, Task, draw_propagation, propagate
from nni_aiop.search_spaces import get_space
from nni_aiop.spaces import CodeSpace, Sample

SETTINGS = ("cls-50-1000", "cls-50-100", "cls-10c", "seg", "video")
BUDGETS = {"S": 0.7, "M": 0.3, "L": 0.1}
LAMBDA = 0.5
STARTS = 30
GROUPS = {
    "channels of stem and output": ["i1", "i2", "o1"],
    "blocks": ["b1", "b2", "b3", "b4"],
    "units, stages 1 and 2": ["n1", "n2_1", "n2_2"],
    "units, stage 3": ["n3_1", "n3_2", "n3_3"],
    "units, stage 4": ["n4_1", "n4_2", "n4_3", "n4_4"],
    "channels, stages 1 and 2": ["c1", "c2_1", "c2_2"],
    "channels, stage 3": ["c3_1", "c3_2", "c3_3"],
    "channels, stage 4": ["c4_1", "c4_2", "c4_3", "c4_4"],
}
Metrics = dict[str, float]


class Half:
    """Fitted predictors of every setting on one half of the networks."""

    def __init__(
        self,
        space: CodeSpace,
        codes: NDArray[np.float64],
        tables: dict[str, NASBenchMR],
        rows: NDArray[np.int64],
        predictor: str,
        seed: int,
    ) -> None:
        self.space = space
        self.predictors: dict[str, CodePredictor] = {}
        for setting, table in tables.items():
            targets = {table.main_metric: table.metrics[table.main_metric][rows]}
            if predictor == "ncp-mlp":  # which learns the FLOPs, too (Eq. 2)
                targets["flops"] = table.flops[rows]
            fitted = make_predictor(predictor, space, seed).fit(codes[rows], targets)
            self.predictors[setting] = fitted

    def predict(self, setting: str, codes: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(self.predictors[setting].predict(codes).mean[:, 0])

    def task(self, setting: str) -> Task:
        return Task(self.predictors[setting], name=setting)


def search(
    half: Half, settings: Sequence[str], lam: float, starts: NDArray[np.float64] | list[Sample]
) -> Propagation:
    """Straight-through propagation with Adam from the paper's start and from others."""
    return propagate(
        half.space,
        [half.task(s) for s in settings],
        starts,
        cost="flops",
        lam=lam,
        lr=0.3,
        optimiser="adam",
        rounding="straight-through",
    )


def starts_of(space: CodeSpace, seed: int, n: int) -> list[Sample]:
    """The paper's initial code (b, n = 2 and c, i, o = 64) and random ones."""
    return [space.complete({}), *space.sample(n - 1, np.random.default_rng(seed))]


def judged(
    space: CodeSpace, sample: Sample, half: Half, oracle: Half, settings: Sequence[str]
) -> Metrics:
    code = space.encode([sample])
    out = {f"oracle {s}": float(oracle.predict(s, code)[0]) for s in settings}
    out |= {f"predicted {s}": float(half.predict(s, code)[0]) for s in settings}
    return out | {name: float(space.cost(name, code)[0]) for name in ("flops", "params")}


def mean_rows(
    rows: dict[str, list[Metrics]], columns: Sequence[str], scale: dict[str, float]
) -> list[list[object]]:
    return [
        [
            name,
            *(float(np.mean([m[c] for m in found])) / scale.get(c, 1.0) for c in columns),
        ]
        for name, found in rows.items()
    ]


@dataclass
class Outcome:
    """What one or more seeds found: by table and row, the metrics of each seed."""

    errors: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    budgets: dict[str, list[Metrics]] = field(default_factory=dict)
    joint: dict[str, list[Metrics]] = field(default_factory=dict)
    transfer: dict[str, list[Metrics]] = field(default_factory=dict)
    ways: dict[str, list[Metrics]] = field(default_factory=dict)

    def add(self, other: Outcome) -> None:
        """Appends another seed's rows."""
        for name, mine in vars(self).items():
            for row, found in getattr(other, name).items():
                mine.setdefault(row, []).extend(found)


def one_seed(seed: int, data: Path, settings: Sequence[str], n_train: int | None) -> Outcome:
    """All searches on one split; `n_train` networks in each half, all of them by default."""
    torch.set_num_threads(1)
    space = get_space("multi_resolution")
    tables = {s: load_nas_bench_mr(data / "nas_bench_mr", s) for s in settings}
    codes = space.encode(
        [dict(zip(space.labels, r, strict=True)) for r in tables["seg"].embedding.tolist()]
    )
    order = np.random.RandomState(seed).permutation(len(codes))
    size = n_train or len(codes) // 2
    mine, other = order[:size], order[-size:]
    half = Half(space, codes, tables, mine, "gp", seed)
    oracle = Half(space, codes, tables, other, "gp", seed + 1000)
    published = Half(space, codes, {"seg": tables["seg"]}, mine, "ncp-mlp", seed)
    out = Outcome()
    for s in settings:
        truth = tables[s].metrics[tables[s].main_metric][mine]
        guess = oracle.predict(s, codes[mine])
        out.errors[s] = [(mae(truth, guess), spearman(truth, guess))]
    starts = starts_of(space, seed, STARTS)

    for name, lam in BUDGETS.items():
        best = search(half, ["seg"], lam, starts).best()[0]
        out.budgets[f"{name} (lambda {lam})"] = [judged(space, best, half, oracle, settings)]

    singles: dict[str, Sample] = {}
    groups: list[tuple[str, ...]] = [(s,) for s in settings]
    groups += list(combinations(settings, 2))
    if len(settings) > 2:
        groups.append(tuple(settings))
    for group in groups:
        best = search(half, group, LAMBDA, starts).best()[0]
        name = " + ".join(group) if len(group) < 3 else f"all {len(group)}"
        out.joint[name] = [judged(space, best, half, oracle, settings)]
        if len(group) == 1:
            singles[group[0]] = best
    for source, sample in singles.items():
        for target in settings:
            if source != target:
                moved = search(half, [target], LAMBDA, [sample]).best()[0]
                found = judged(space, moved, half, oracle, settings)
                out.transfer[f"{source} -> {target}"] = [found]

    plain = propagate(space, published.task("seg"), cost="flops", lam=LAMBDA)
    winner = propagate(
        space, half.task("seg"), cost="flops", lam=LAMBDA, strategy="winner-takes-all"
    )
    pool = space.encode(space.sample(STARTS * 70, np.random.default_rng(seed + 500)))
    flops = space.cost("flops", pool)
    miou = tables["seg"].metrics["mIoU"]

    def merit(accuracy: NDArray[np.float64], spent: NDArray[np.float64]) -> NDArray[np.float64]:
        z_flops = (spent - flops.mean()) / flops.std()
        return np.asarray((accuracy - miou.mean()) / miou.std() - LAMBDA * z_flops)

    random = pool[merit(half.predict("seg", pool), flops).argmax()][None]
    compared = {
        "NCP as published (MLP, continuous, 1 start)": plain.final()[0],
        "NCP winner-takes-all (1 start)": winner.final()[0],
        f"NCP straight-through ({STARTS} starts)": search(half, ["seg"], LAMBDA, starts).best()[0],
        f"best of {STARTS * 70} random by predictor": space.decode(random)[0],
    }
    for name, sample in compared.items():
        found = judged(space, sample, half, oracle, settings)
        found["J"] = float(merit(np.array(found["oracle seg"]), np.array(found["flops"])))
        out.ways[name] = [found]
    return out


def draw(data: Path, out: Path, n_train: int | None) -> None:
    """The ways to S, M and L of seed 0, as figure 3."""
    space = get_space("multi_resolution")
    table = load_nas_bench_mr(data / "nas_bench_mr", "seg")
    codes = space.encode(
        [dict(zip(space.labels, r, strict=True)) for r in table.embedding.tolist()]
    )
    order = np.random.RandomState(0).permutation(len(codes))[: n_train or len(codes) // 2]
    half = Half(space, codes, {"seg": table}, order, "gp", 0)
    for name, lam in BUDGETS.items():
        run = search(half, ["seg"], lam, [space.complete({})])
        draw_propagation(run, out / f"trajectory_{name}.png", groups=GROUPS)


def main() -> None:
    options = parse_arguments(parser(__doc__.splitlines()[0], name="ncp_nas_bench_mr", seeds=3))
    say = progress()
    settings = SETTINGS[3:] if options.quick else SETTINGS
    n_train = 300 if options.quick else None
    seeds = range(1 if options.quick else options.seeds)
    outcome = Outcome()
    runs = Parallel(n_jobs=2, return_as="generator")(
        delayed(one_seed)(seed, options.data, settings, n_train) for seed in seeds
    )
    for seed, found in zip(seeds, runs, strict=True):
        outcome.add(found)
        say(f"seed {seed} of {list(seeds)}")
    draw(options.data, options.out, n_train)
    figures = Figures(quick=options.quick)
    report(figures, settings, outcome)
    print(figures)
    figures.save(options.out / "results.json")


def report(
    figures: Figures,
    settings: Sequence[str],
    outcome: Outcome,
) -> None:
    """Prints the tables and notes what was asked."""
    budgets, joint = outcome.budgets, outcome.joint
    scale = {"flops": 1e9, "params": 1e6}
    print("\nThe oracle's own error on the half it never saw")
    rows: list[list[object]] = [
        [s, float(np.mean([e[0] for e in found])), float(np.mean([e[1] for e in found]))]
        for s, found in outcome.errors.items()
    ]
    print(format_table(["setting", "MAE (points)", "Spearman"], rows))
    columns = ["params", "flops", "predicted seg", "oracle seg"]
    heads = ["params (M)", "FLOPs (G)", "predicted mIoU", "oracle mIoU"]
    print("\nTable 2 in kind: seg, three budgets")
    print(format_table(["network", *heads], mean_rows(budgets, columns, scale)))
    seeds = len(next(iter(budgets.values())))
    for quantity in ("flops", "predicted seg"):
        rising = [
            found[0] < found[1] < found[2]
            for found in zip(*([m[quantity] for m in b] for b in budgets.values()), strict=True)
        ]
        figures.add(
            f"S < M < L in {quantity}, share of {seeds} seeds", float(np.mean(rising)), at_least=1.0
        )
    print(f"\nWays to search seg (lambda {LAMBDA}; J = standardised oracle mIoU - lambda z(FLOPs))")
    print(format_table(["way", *heads, "J"], mean_rows(outcome.ways, [*columns, "J"], scale)))
    for name, found in outcome.ways.items():
        figures.add(f"J, {name}", float(np.mean([m["J"] for m in found])))
    oracle_columns = ["params", "flops", *(f"oracle {s}" for s in settings)]
    oracle_heads = ["params (M)", "FLOPs (G)", *settings]
    print(f"\nTable 3 in kind: searched for (lambda {LAMBDA}), judged by the oracle (%)")
    print(format_table(["searched for", *oracle_heads], mean_rows(joint, oracle_columns, scale)))
    for s in settings:
        own = float(np.mean([m[f"oracle {s}"] for m in joint[s]]))
        others = [float(np.mean([m[f"oracle {s}"] for m in joint[o]])) for o in settings if o != s]
        figures.add(f"{s}: lead of its own network over other single tasks'", own - max(others))
    print("\nTable 4 in kind: transfer from the code found for one task to another (oracle, %)")
    rows = []
    for name, found in outcome.transfer.items():
        source, target = name.split(" -> ")
        before = float(np.mean([m[f"oracle {target}"] for m in joint[source]]))
        after = float(np.mean([m[f"oracle {target}"] for m in found]))
        scratch = float(np.mean([m[f"oracle {target}"] for m in joint[target]]))
        rows.append([name, before, after, scratch])
        figures.add(f"transfer {name}: gain", after - before)
    print(format_table(["transfer", "before", "after", "from scratch"], rows))


if __name__ == "__main__":
    main()
