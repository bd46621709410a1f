"""How the cost of a proposal, and of what surrounds it, grows with a study: before and now.

    python benchmarks/scale.py --data ../shared/data --before 43c438b

CPU seconds of one thread, in processes of their own that take turns, this package's and that of an
older commit; ratios of medians over the seeds, and exponents fitted to their logarithms. Sizes that
take the older one minutes are this package's alone. What is measured:

    fit             `CodeGP.fit` on n rows of NAS-Bench-201's space, a made metric
    ask             NCP's first proposal after n results there, which makes a round; PNAG's
    dimensions      the same after 60 results in a space of d dimensions, half of them ordered, and
                    by how much the process grows
    neighbours      looking at all neighbours of a sample of d dimensions, and the memory it takes
    join            the first proposal of a worker that joins a study of n trials
    save, record    writing the results of n evaluations; writing down one more
    front           `pareto_front` of n points, of two and three objectives

    python benchmarks/scale.py --data ../shared/data --workers 1,2,4,6 --storage postgresql://...

also runs so many workers with NCPSampler on one study (200 trials whose evaluation sleeps for 0.2
seconds) and tells the CPU seconds of a trial; without `--storage` on a SQLite file.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import optuna
from _common import Figures, format_table, parse_arguments, parser, progress
from _older import ROOT, older_package, run_with

from nni_aiop.engines.optuna_space import sample_of
from nni_aiop.engines.optuna_storage import open_storage
from nni_aiop.figures import new_figure, save_figure
from nni_aiop.search_spaces import get_space

SIZES = {
    "fit": (100, 300, 1000, 5000),
    "ask": (100, 300, 1000, 5000),
    "pnag-ask": (100, 300, 1000, 5000),
    "ncp-wide": (20, 100, 500),
    "pnag-wide": (20, 100, 500),
    "neighbours": (100, 500, 2000),
    "join": (100, 200, 400, 5000),
    "save": (1000, 5000, 15000),
    "record": (100, 1000, 5000),
    "front": (300, 1000, 10_000),
    "front-of-three": (300, 1000, 10_000),
}
LARGEST_BEFORE = {"fit": 1000, "ask": 1000, "pnag-ask": 1000, "join": 400}
"""Above these sizes the older package would take minutes."""

QUICK = {"fit": (100,), "ask": (60,), "neighbours": (100,), "front": (1000,)}

TITLES = {
    "fit": "CodeGP.fit, rows", "ask": "NCP ask, results", "pnag-ask": "PNAG ask, results",
    "ncp-wide": "NCP ask, dimensions", "pnag-wide": "PNAG ask, dimensions",
    "neighbours": "neighbours, dimensions", "join": "first proposal, trials",
    "save": "save, evaluations", "record": "one more row, evaluations",
    "front": "pareto_front of two, points", "front-of-three": "pareto_front of three, points",
}  # fmt: skip

Found = dict[str, float]
Measured = dict[tuple[str, int, str], list[Found]]


def measure(options: Namespace, say: Any) -> Measured:
    """By part, size and package what each seed took."""
    packages = {"now": ROOT}
    try:
        packages["before"] = older_package(options.before, options.out)
    except LookupError as err:
        say(f"Only this package is measured: {err}")
    found: Measured = {}
    for part, sizes in (QUICK if options.quick else SIZES).items():
        if options.parts and part not in options.parts.split(","):
            continue
        for size in sizes:
            for seed in range(1 if options.quick else options.seeds):
                for which, package in packages.items():
                    if which == "before" and size > LARGEST_BEFORE.get(part, size):
                        continue
                    one = run_with(package, "_scale_worker.py", part, size, seed)
                    found.setdefault((part, size, which), []).append(one)
            took = {w: middle(found, part, size, w) for w in packages}
            told = [f"{which} {s:.3g} s" for which, s in took.items() if not math.isnan(s)]
            say(f"{TITLES[part]} {size}: {', '.join(told)}")
    return found


def middle(found: Measured, part: str, size: int, which: str, what: str = "seconds") -> float:
    values = [one[what] for one in found.get((part, size, which), ()) if what in one]
    return median(values) if values else math.nan


def exponent(found: Measured, part: str, which: str) -> float:
    """The slope of the logarithm of seconds over that of size, between the largest two."""
    sizes = sorted(size for p, size, w in found if (p, w) == (part, which))[-2:]
    if len(sizes) < 2:
        return math.nan
    seconds = [max(middle(found, part, size, which), 1e-6) for size in sizes]
    return math.log(seconds[1] / seconds[0]) / math.log(sizes[1] / sizes[0])


def draw(found: Measured, path: Path) -> None:
    parts = list(dict.fromkeys(part for part, _, _ in found))
    figure = new_figure(11.0, 2.6 * -(-len(parts) // 4) + 0.4)
    rows = -(-len(parts) // 4)
    for place, part in enumerate(parts):
        axes = figure.add_subplot(rows, min(4, len(parts)), place + 1)
        for which, colour in (("before", "0.55"), ("now", "tab:blue")):
            sizes = sorted(size for p, size, w in found if (p, w) == (part, which))
            seconds = [max(middle(found, part, size, which), 1e-6) for size in sizes]
            slope = exponent(found, part, which)
            label = which if math.isnan(slope) else f"{which}, exponent {slope:.1f}"
            axes.plot(sizes, seconds, marker="o", markersize=4, color=colour, label=label)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_title(TITLES[part], fontsize="small")
        axes.tick_params(labelsize="x-small")
        axes.grid(alpha=0.3, which="both")
        axes.legend(fontsize=6)
    figure.supylabel("CPU seconds", fontsize="small")
    save_figure(figure, path)


def judge(found: Measured, figures: Figures, before: str) -> None:
    def ratio(part: str, size: int) -> float:
        return middle(found, part, size, "before") / middle(found, part, size, "now")

    for part, size, least in (
        ("fit", 1000, None), ("ask", 1000, 10.0), ("pnag-ask", 1000, 10.0),
        ("ncp-wide", 500, 5.0), ("pnag-wide", 500, 5.0), ("neighbours", 2000, None),
        ("join", 400, None), ("save", 15000, None), ("front", 10_000, None),
        ("front-of-three", 10_000, None),
    ):  # fmt: skip
        if not math.isnan(ratio(part, size)):
            name = f"times the speed of {before}: {TITLES[part]} {size}"
            figures.add(name, ratio(part, size), at_least=least)
    for part in ("ask", "pnag-ask"):
        if (part, 5000, "now") in found:
            seconds = middle(found, part, 5000, "now")
            figures.add(f"seconds of {TITLES[part]} 5000", seconds, at_most=5.0)
    for part, size in (("ncp-wide", 500), ("pnag-wide", 500), ("neighbours", 2000)):
        if (part, size, "now") in found:
            more = middle(found, part, size, "now", "megabytes")
            figures.add(f"megabytes of {TITLES[part]} {size}", more, at_most=200.0)
    for part, most in (("neighbours", 1.3), ("save", 1.2), ("front", 1.3), ("record", 0.3)):
        slope = exponent(found, part, "now")
        if not math.isnan(slope):
            figures.add(f"exponent of {TITLES[part]}", slope, at_most=most)
    if ("join", 5000, "now") in found:
        first = middle(found, "join", 5000, "now") / middle(found, "join", 5000, "now", "next")
        figures.add(
            "first proposal of a worker at 5000 trials / its next round", first, at_most=2.0
        )


def workers(options: Namespace, figures: Figures, say: Any) -> None:
    """CPU seconds of a trial with several workers on one study."""
    rows, alone = [], math.nan
    space = get_space("nasbench201")
    for n in (int(text) for text in options.workers.split(",")):
        url = options.storage or f"sqlite:///{options.out.resolve()}/workers-{n}.db"
        (options.out / f"workers-{n}.db").unlink(missing_ok=True)
        storage = open_storage(url)
        if "s" in optuna.get_all_study_names(storage):
            optuna.delete_study(study_name="s", storage=storage)
        study = optuna.create_study(storage=storage, study_name="s", direction="maximize")
        trials = 20 if options.quick else 200
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        script = str(ROOT / "benchmarks" / "_scale_worker.py")
        command = [sys.executable, script, "worker", url, str(trials)]
        running = [
            subprocess.Popen(
                [*command, str(len(range(i, trials, n)))],
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
            )
            for i in range(n)
        ]
        said = [process.communicate()[0] for process in running]
        if any(process.returncode for process in running):
            sys.exit(f"a worker of {n} failed")
        found = [json.loads(text.strip().splitlines()[-1]) for text in said]
        seconds = sum(one["seconds"] for one in found) / sum(one["trials"] for one in found)
        alone = seconds if n == 1 else alone
        done = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
        keys = [space.network_key(sample_of(trial, space)) for trial in done]
        rows.append([n, len(keys), len(keys) - len(set(keys)), seconds, seconds / alone])
        say(f"{n} workers: {seconds:.3f} s of CPU a trial")
        figures.add(f"duplicates with {n} workers", rows[-1][2], at_most=0)
        if n > 1 and not math.isnan(alone):
            figures.add(f"CPU of a trial, {n} workers / 1", seconds / alone, at_most=1.3)
    print(
        format_table(["workers", "trials", "duplicates", "CPU of a trial (s)", "/ 1"], rows), "\n"
    )


def main() -> None:
    arguments = parser(__doc__.splitlines()[0], name="scale", seeds=3)
    arguments.add_argument("--before", default="43c438b", help="the commit to compare with")
    arguments.add_argument("--parts", help=f"of {', '.join(SIZES)}; all by default")
    arguments.add_argument("--workers", help="numbers of workers, and nothing else")
    arguments.add_argument("--storage", help="Optuna's URL for the workers; SQLite by default")
    options = parse_arguments(arguments)
    say, figures = progress(), Figures(quick=options.quick)
    if options.workers:
        workers(options, figures, say)
    else:
        found = measure(options, say)
        rows = []
        for part, size in dict.fromkeys((part, size) for part, size, _ in found):
            before, now = (middle(found, part, size, which) for which in ("before", "now"))
            memory = [middle(found, part, size, w, "megabytes") for w in ("before", "now")]
            slopes = [exponent(found, part, which) for which in ("before", "now")]
            cells = [before, now, before / now, *memory, *slopes]
            rows.append([f"{TITLES[part]} {size}", *("" if np.isnan(c) else c for c in cells)])
        heads = ["", f"{options.before} (s)", "now (s)", "ratio", "MB", "MB now", "exponent", "now"]
        print(format_table(heads, rows), "\n")
        judge(found, figures, options.before)
        draw(found, options.out / "scale.png")
    print(figures)
    figures.save(options.out / "results.json")


if __name__ == "__main__":
    main()
