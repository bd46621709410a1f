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
from itertools import combinations

import numpy as np
import torch
from _common import Figures, format_table, parse_arguments, parser, progress
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


def main() -> None:
    options = parse_arguments(parser(__doc__.splitlines()[0], name="ncp_nas_bench_mr", seeds=3))
    torch.set_num_threads(2)
    say = progress()
    space = get_space("multi_resolution")
    settings = SETTINGS[3:] if options.quick else SETTINGS
    tables = {s: load_nas_bench_mr(options.data / "nas_bench_mr", s) for s in settings}
    codes = space.encode(
        [dict(zip(space.labels, r, strict=True)) for r in tables["seg"].embedding.tolist()]
    )
    figures = Figures(quick=options.quick)
    budgets: dict[str, list[Metrics]] = {}
    joint: dict[str, list[Metrics]] = {}
    transfer: dict[str, list[Metrics]] = {}
    ways: dict[str, list[Metrics]] = {}
    errors: dict[str, list[tuple[float, float]]] = {s: [] for s in settings}
    n = STARTS
    for seed in range(1 if options.quick else options.seeds):
        order = np.random.RandomState(seed).permutation(len(codes))
        size = 300 if options.quick else len(codes) // 2
        mine, other = order[:size], order[-size:]
        half = Half(space, codes, tables, mine, "gp", seed)
        oracle = Half(space, codes, tables, other, "gp", seed + 1000)
        published = Half(space, codes, {"seg": tables["seg"]}, mine, "ncp-mlp", seed)
        say(f"seed {seed}: predictors and oracle fitted on {size} networks each")
        for s in settings:
            truth = tables[s].metrics[tables[s].main_metric][mine]
            guess = oracle.predict(s, codes[mine])
            errors[s].append((mae(truth, guess), spearman(truth, guess)))
        starts = starts_of(space, seed, n)

        for name, lam in BUDGETS.items():
            run = search(half, ["seg"], lam, starts)
            found = judged(space, run.best()[0], half, oracle, settings)
            budgets.setdefault(f"{name} (lambda {lam})", []).append(found)
            if seed == 0:
                column = int(run.merit.max(axis=0).argmax())
                draw_propagation(
                    run, options.out / f"trajectory_{name}.png", start=column, groups=GROUPS
                )
        say(f"seed {seed}: S, M, L")

        singles: dict[str, Sample] = {}
        groups = [(s,) for s in settings]
        groups += list(combinations(settings, 2))
        if len(settings) > 2:
            groups.append(tuple(settings))
        for group in groups:
            best = search(half, group, LAMBDA, starts).best()[0]
            name = " + ".join(group) if len(group) < 3 else f"all {len(group)}"
            joint.setdefault(name, []).append(judged(space, best, half, oracle, settings))
            if len(group) == 1:
                singles[group[0]] = best
        say(f"seed {seed}: {len(groups)} single and joint searches")
        for source, sample in singles.items():
            for target in settings:
                if source != target:
                    moved = search(half, [target], LAMBDA, [sample]).best()[0]
                    key = f"{source} -> {target}"
                    transfer.setdefault(key, []).append(
                        judged(space, moved, half, oracle, settings)
                    )

        plain = propagate(space, published.task("seg"), cost="flops", lam=LAMBDA)
        winner = propagate(
            space, half.task("seg"), cost="flops", lam=LAMBDA, strategy="winner-takes-all"
        )
        pool = space.encode(space.sample(n * 70, np.random.default_rng(seed + 500)))
        flops = space.cost("flops", pool)
        z = (half.predict("seg", pool) - half.predict("seg", pool).mean()) / tables["seg"].metrics[
            "mIoU"
        ].std() - LAMBDA * (flops - flops.mean()) / flops.std()
        compared = {
            "NCP as published (MLP, continuous, 1 start)": plain.final()[0],
            "NCP winner-takes-all (1 start)": winner.final()[0],
            f"NCP straight-through ({n} starts)": search(half, ["seg"], LAMBDA, starts).best()[0],
            f"best of {n * 70} random by predictor": space.decode(pool[z.argmax()][None])[0],
        }
        scale_flops = flops.std()
        for name, sample in compared.items():
            found = judged(space, sample, half, oracle, settings)
            miou = tables["seg"].metrics["mIoU"]
            found["J"] = (found["oracle seg"] - miou.mean()) / miou.std() - LAMBDA * (
                found["flops"] - flops.mean()
            ) / scale_flops
            ways.setdefault(name, []).append(found)

    report(figures, settings, errors, budgets, joint, transfer, ways)
    print(figures)
    figures.save(options.out / "results.json")


def report(
    figures: Figures,
    settings: Sequence[str],
    errors: dict[str, list[tuple[float, float]]],
    budgets: dict[str, list[Metrics]],
    joint: dict[str, list[Metrics]],
    transfer: dict[str, list[Metrics]],
    ways: dict[str, list[Metrics]],
) -> None:
    """Prints the tables and notes what was asked."""
    scale = {"flops": 1e9, "params": 1e6}
    print("\nThe oracle's own error on the half it never saw")
    rows: list[list[object]] = [
        [s, float(np.mean([e[0] for e in found])), float(np.mean([e[1] for e in found]))]
        for s, found in errors.items()
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
    print(format_table(["way", *heads, "J"], mean_rows(ways, [*columns, "J"], scale)))
    for name, found in ways.items():
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
    for name, found in transfer.items():
        source, target = name.split(" -> ")
        before = float(np.mean([m[f"oracle {target}"] for m in joint[source]]))
        after = float(np.mean([m[f"oracle {target}"] for m in found]))
        scratch = float(np.mean([m[f"oracle {target}"] for m in joint[target]]))
        rows.append([name, before, after, scratch])
        figures.add(f"transfer {name}: gain", after - before)
    print(format_table(["transfer", "before", "after", "from scratch"], rows))


if __name__ == "__main__":
    main()
