"""Trained networks with fewer multiply-adds: FlopsReduction beside torch-pruning, at equal time.

Three kinds of networks (like ResNet, MobileNet and ConvNeXt) trained on small real images are cut
to 86.5, 70 and 50 % of their multiply-adds. Every method has the same CPU seconds, those of some
epochs of the unpruned network, for its search and its fine-tuning together. The test split is read
once, at the end of each run. Further parts: how many of 40 timm networks can be edited without a
line of user code, speed, and latency of widths that are multiples of 8 and not.

    python benchmarks/shrink.py --seeds 3
    python benchmarks/shrink.py --parts coverage,speed,latency
"""

from __future__ import annotations

import resource
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import Figures, format_table, parse_arguments, parser, progress, run_part
from _shrink_data import BASES, base, splits, tune
from _shrink_methods import run_method
from _timm import create, input_shape
from joblib import Parallel, delayed
from torch import nn

from nni_aiop.graphs import ComputeGraph, from_module
from nni_aiop.graphs.edits import EditPlan, plan_of
from nni_aiop.networks import Network

PARTS = ("quality", "coverage", "speed", "latency")
BUDGETS = (0.865, 0.7, 0.5)
RATES = {"strong": 0.05, "gentle": 0.01}
EPOCHS = 12  # of the unpruned network: the seconds of every method
ZOO = (
    "resnet18",
    "mobilenetv2_100",
    "mobilenetv3_small_100",
    "efficientnet_b0",
    "densenet121",
    "regnety_002",
    "resnext50_32x4d",
    "convnext_atto",
    "vit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224",
    "repvit_m0_9",
    "ghostnet_100",
    "mobilevitv2_050",
    "levit_128s",
    "res2net50_26w_4s",
    "hrnet_w18_small",
    "mixer_s32_224",
    "poolformer_s12",
    "inception_v3",
    "vgg11_bn",
    "dla34",
    "efficientformer_l1",
    "edgenext_xx_small",
    "fastvit_t8",
    "mobileone_s0",
    "repvgg_a0",
    "cspresnet50",
    "dpn68",
    "selecsls42b",
    "resnest14d",
    "pit_ti_224",
    "crossvit_tiny_240",
    "xcit_nano_12_p16_224",
    "coat_tiny",
    "nextvit_small",
    "tiny_vit_5m_224",
    "efficientvit_b0",
    "starnet_s1",
    "mambaout_femto",
    "hgnetv2_b0",
)


# --- quality -------------------------------------------------------------------------------------


def plan(seeds: int, quick: bool) -> list[tuple[str, str, float, int]]:
    """(method, rate, budget, seed) of every run on one network."""
    rates, budgets = (("strong",), (0.7,)) if quick else (tuple(RATES), BUDGETS)
    found: list[tuple[str, str, float, int]] = []
    for seed in range(seeds):
        for rate in rates:
            found.append(("original", rate, 1.0, seed))
            for budget in budgets if rate == "strong" else budgets[1:]:
                methods = ["FlopsReduction", "torch-pruning uniform", "torch-pruning global"]
                if rate == "strong" and budget == 0.7:
                    methods += ["uniform L2", "random edits", "AIO-P alone"]
                    methods += ["eight trials", "with AIO-P"]
                if quick:
                    methods = ["FlopsReduction", "torch-pruning uniform"]
                found += [(method, rate, budget, seed) for method in methods]
    return found


def quality(out: Path, seeds: int, quick: bool, figures: Figures, workers: int) -> None:
    say = progress()
    scale, epochs = (0.15, 2) if quick else (1.0, 15)
    kinds = ("resnet",) if quick else tuple(BASES)
    jobs: list[Any] = []
    for kind in kinds:
        path = out / f"{kind}.pt"
        if not path.exists():
            model = base(kind, 0, epochs, scale)
            torch.save(model.state_dict(), path)
        model = BASES[kind]()
        model.load_state_dict(torch.load(path, weights_only=True))
        trained = splits(scale)["train"]
        each = np.median([tune(model, trained, lr=0.0, seed=0, epochs=1) for _ in range(3)])
        say(f"{kind}: {each:.2f} CPU seconds an epoch")
        for method, rate, budget, seed in plan(seeds, quick):
            name = f"{kind}-{method}-{rate}-{budget}-{seed}".replace(" ", "_")
            jobs.append((kind, method, rate, budget, seed, out / f"{name}.json", (
                method, f"{kind}|{path}", budget, float((2 if quick else EPOCHS) * each),
                RATES[rate], seed, scale,
            )))  # fmt: skip
    jobs.sort(key=lambda job: job[4])  # a run that is cut off has fewer seeds, not fewer networks
    with Parallel(n_jobs=workers) as pool:
        results = pool(delayed(run_part)(run_method, job[5], *job[6]) for job in jobs)
    found: dict[tuple[str, str, str, float], list[dict[str, float]]] = {}
    for (kind, method, rate, budget, *_), result in zip(jobs, results, strict=True):
        found.setdefault((kind, method, rate, budget), []).append(result)
    _report(found, kinds, figures, quick)
    _draw(found, kinds, out / "front.png")


def _mean(rows: list[dict[str, float]], name: str = "accuracy") -> float:
    return float(np.mean([row[name] for row in rows]))


def _report(found: Any, kinds: tuple[str, ...], figures: Figures, quick: bool) -> None:
    keys = sorted({(m, r, b) for _, m, r, b in found}, key=lambda k: (k[1], -k[2], k[0]))
    rows = []
    for method, rate, budget in keys:
        row: list[object] = [f"{rate} {budget:g} {method}"]
        for kind in kinds:
            own = found[kind, method, rate, budget]
            values = [one["accuracy"] for one in own]
            row.append(f"{np.mean(values):.2f} ({min(values):.1f} to {max(values):.1f})")
            row.append(f"{_mean(own, 'share'):.3f}")
        rows.append(row)
    head = ["test accuracy, part kept"]
    for kind in kinds:
        head += [kind, "kept"]
    print(format_table(head, rows))
    kept, leads, mobile = [], [], []
    for rate in dict.fromkeys(k[1] for k in keys):
        for budget in dict.fromkeys(k[2] for k in keys if k[2] < 1):
            for kind in kinds:
                mine = found.get((kind, "FlopsReduction", rate, budget), [])
                if not mine:
                    continue
                kept += [row["share"] / budget for row in mine]
                if budget == 0.865:
                    continue
                peers = [
                    _mean(found[key])
                    for method in ("torch-pruning uniform", "torch-pruning global")
                    if (key := (kind, method, rate, budget)) in found
                ]
                lead = _mean(mine) - max(peers)
                leads.append(lead)
                if kind == "mobilenet":
                    mobile.append(lead)
                figures.add(
                    f"{kind}, {rate}, {budget:g}: points ahead of torch-pruning's better",
                    lead,
                    at_least=-0.3,
                )
    for rate in dict.fromkeys(k[1] for k in keys):
        losses = [
            _mean(found[kind, "original", rate, 1.0])
            - _mean(found[kind, "FlopsReduction", rate, 0.865])
            for kind in kinds
            if (kind, "FlopsReduction", rate, 0.865) in found
        ]
        if losses:
            figures.add(f"{rate}: points lost at 0.865", float(np.mean(losses)), at_most=0.3)
    if leads:
        figures.add("points ahead of torch-pruning's better, mean", float(np.mean(leads)),
                    at_least=0.0)  # fmt: skip
    if mobile:
        figures.add("the same on mobilenet", float(np.mean(mobile)), at_least=1.0)
    if kept and not quick:
        figures.add("least part of a budget that is used", min(kept), at_least=0.985)
        figures.add("largest part of a budget that is used", max(kept), at_most=1.0)
    with_predictor = [
        _mean(found[kind, "with AIO-P", "strong", 0.7])
        - _mean(found[kind, "eight trials", "strong", 0.7])
        for kind in kinds
        if (kind, "with AIO-P", "strong", 0.7) in found
    ]
    if with_predictor:
        figures.add("points that AIO-P adds by its weight rule", float(np.mean(with_predictor)),
                    at_least=-0.3)  # fmt: skip


def _draw(found: Any, kinds: tuple[str, ...], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(kinds), 3.4), layout="constrained")
    panels = figure.subplots(1, len(kinds), squeeze=False)[0]
    for axes, kind in zip(panels, kinds, strict=True):
        methods = dict.fromkeys(m for k, m, r, _ in found if k == kind and r == "strong")
        for place, method in enumerate(methods):
            own = sorted(
                (_mean(rows, "share"), _mean(rows))
                for (k, m, r, _), rows in found.items()
                if (k, m, r) == (kind, method, "strong")
            )
            axes.plot(*zip(*own, strict=True), marker="o", ms=4, color=f"C{place}", label=method)
        axes.set_title(kind, fontsize="medium")
        axes.grid(alpha=0.3)
    figure.supxlabel("part of the multiply-adds kept")
    figure.supylabel("test accuracy (%)")
    panels[-1].legend(fontsize="x-small")
    figure.savefig(path, dpi=150)


# --- coverage, speed, latency --------------------------------------------------------------------


def covered(name: str) -> dict[str, Any]:
    """Whether halves of all sites of a network are valid, and equal on the real network."""
    model = create(name)
    shape = input_shape(model)
    graph = from_module(model, shape)
    sites = graph.sites()
    half = {s.label: max(1, s.value // 2) for s in sites if s.counts and s.reason is None}
    row: dict[str, Any] = {"sites": len(half), "graph": False, "network": False, "why": ""}
    try:
        small = graph.edit(half)
        type(graph).from_json(small.to_json())
        row |= {"graph": True, "kept": small.macs / graph.macs}
        network = Network.capture(model, shape)
        own = {s.label: max(1, s.value // 2) for s in network.sites()
               if s.counts and s.reason is None}  # fmt: skip
        edited = network.edit(own)
        edited(torch.rand(2, *shape[1:]))
        row["network"] = edited.graph == network.graph.edit(own)
    except Exception as err:  # noqa: BLE001 (whatever a network raises is its row)
        row["why"] = f"{type(err).__name__}: {str(err)[:120]}"
    return row


def coverage(out: Path, quick: bool, figures: Figures) -> None:
    names = ZOO[:2] if quick else ZOO
    with Parallel(n_jobs=2) as pool:
        rows = pool(delayed(run_part)(covered, out / f"zoo-{name}.json", name) for name in names)
    print(format_table(
        ["network", "sites", "graph", "real network", "kept", "why not"],
        [[n, r["sites"], r["graph"], r["network"], r.get("kept", float("nan")), r["why"]]
         for n, r in zip(names, rows, strict=True)],
    ))  # fmt: skip
    asked = 0 if quick else 40
    figures.add("graphs valid", sum(r["graph"] for r in rows), at_least=asked)
    figures.add("real networks with equal graphs", sum(r["network"] for r in rows),
                at_least=0 if quick else 38)  # fmt: skip


def _median_ms(work: Any, times: int = 5) -> float:
    work()
    found = []
    for _ in range(times):
        start = time.process_time()
        work()
        found.append(1000 * (time.process_time() - start))
    return float(np.median(found))


def _costs_a_second(graph: ComputeGraph) -> float:
    plan, n = plan_of(graph), 4000
    kept = torch.tensor([[float(g.size) for g in plan.coupling.groups]] * n).double()
    return 1000 * n / _median_ms(lambda: plan.costs(kept, {}, ("macs",)), 3)


def speed(quick: bool, figures: Figures) -> None:
    import torch_pruning as tp

    names = ZOO[:4] if quick else ZOO
    rows, times = [], []
    for name in names:
        model = create(name)
        graph = from_module(model, input_shape(model))
        ours = _median_ms(lambda graph=graph: EditPlan(graph), 3)
        times.append(ours)
        if name == "efficientnet_b0":
            figures.add("coupling of efficientnet_b0, ms", ours, at_most=30)
            figures.add("candidates' costs a second", _costs_a_second(graph), at_least=20_000)
        peer: object = "-"
        if name in ("resnet18", "mobilenetv2_100", "efficientnet_b0", "convnext_atto"):
            example = torch.rand(input_shape(model))
            peer = _median_ms(
                lambda model=model, example=example: tp.DependencyGraph().build_dependency(
                    model, example_inputs=example
                ),
                3,
            )
        rows.append([name, len(graph), ours, peer])
    print(format_table(["network", "nodes", "coupling ms", "torch-pruning graph ms"], rows))
    figures.add("coupling, median, ms", float(np.median(times)), at_most=50)
    if not quick:
        model = create("coat_tiny")
        graph = from_module(model, input_shape(model))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        EditPlan(graph)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        figures.add("memory of the pass on coat_tiny, MB", (after - before) / 1024, at_most=200)


def latency(quick: bool, figures: Figures) -> None:
    """onnxruntime on one thread: a layer's width in multiples of 8, and one less."""
    import io

    import onnxruntime

    rows = []
    for width in (56, 55, 64, 60, 62):
        layers = [nn.Conv2d(3, width, 3, padding=1)]
        for _ in range(4):
            layers += [nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)]  # type: ignore[list-item]
        content = io.BytesIO()
        x = torch.rand(1, 3, 56, 56)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(nn.Sequential(*layers).eval(), (x,), content, dynamo=False)  # type: ignore[arg-type]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(content.getvalue(), options)
        given = {session.get_inputs()[0].name: x.numpy()}
        rows.append((width, _median_ms(lambda s=session, g=given: s.run(None, g),
                                       5 if quick else 41)))  # fmt: skip
    took = dict(rows)
    print(format_table(["width", "ms", "ms for each million multiply-adds"],
                       [[w, t, t / (4 * 9 * w * w * 56 * 56 / 1e6)] for w, t in rows]))  # fmt: skip
    figures.add("latency, width 55 against 56", took[55] / took[56])
    figures.add("latency, width 60 against 64", took[60] / took[64])


def main() -> None:
    arguments = parser(__doc__.splitlines()[0], name="shrink", seeds=3)
    arguments.add_argument("--workers", type=int, default=2, help="processes of the quality part")
    arguments.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    options = parse_arguments(arguments)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    figures = Figures(quick=options.quick)
    parts = options.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        arguments.error(f"--parts must be of {', '.join(PARTS)}, but got {min(unknown)}")
    if "coverage" in parts:
        coverage(options.out, options.quick, figures)
    if "speed" in parts:
        speed(options.quick, figures)
    if "latency" in parts:
        latency(options.quick, figures)
    if "quality" in parts:
        seeds = 1 if options.quick else options.seeds
        quality(options.out, seeds, options.quick, figures, options.workers)
    print(figures)
    figures.save(options.out / "results.json")


if __name__ == "__main__":
    main()
