"""How well the default predictor knows NAS-Bench-MR, beside the published recipe.

For each setting and each seed s: `np.random.RandomState(s).permutation(2507)`, the first 2,000 rows
train, the last 507 validate. Told are the mean absolute error in percentage points, Spearman's rank
correlation, and the share of validation rows in their 80 % intervals. What is asked (`GP`) is the
figure of a Gaussian process on engineered features that was measured before this package began.

    python benchmarks/nas_bench_mr.py --data ../shared/data --out out/nas_bench_mr --seeds 5

`--select` compares candidates for the default by cross-validation instead. It sees only training
rows of other splits (seeds from 1,000 on), and NAS-Bench-201 with few rows, so that the choice does
not lean on one benchmark.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from _common import Figures, format_table, parse_arguments, parser, progress
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor

from nni_aiop.benchmarks import SETTINGS, load_nas_bench_201, load_nas_bench_mr
from nni_aiop.figures import new_figure, save_figure
from nni_aiop.predictors import NCPMLP, CodeGP, CodePredictor, Prediction, default_predictor
from nni_aiop.predictors.metrics import coverage, kendall, mae, spearman
from nni_aiop.search_spaces import get_space
from nni_aiop.spaces import CodeSpace

Array = NDArray[np.float64]

GP = {
    "cls-50-1000": (0.539, 0.879),
    "cls-50-100": (1.105, 0.904),
    "cls-10c": (1.015, 0.952),
    "seg": (0.682, 0.929),
    "video": (1.192, 0.909),
}
"""MAE and Spearman that are asked for, by setting."""

COVERAGE = (0.75, 0.85)
LEVELS = np.linspace(0.05, 0.95, 19)


@dataclass(frozen=True)
class Table:
    """Codes (n, width) of a space with metrics (n,), the main one first."""

    space: CodeSpace
    codes: Array
    metrics: dict[str, Array]

    @property
    def main(self) -> tuple[str, Array]:
        return next(iter(self.metrics.items()))

    def rows(self, index: NDArray[np.int64]) -> tuple[Array, dict[str, Array]]:
        return self.codes[index], {name: column[index] for name, column in self.metrics.items()}


@dataclass(frozen=True)
class Score:
    """A prediction of the main metric on validation rows, and the seconds of its fit."""

    measured: Array
    prediction: Prediction
    seconds: float

    @property
    def mean(self) -> Array:
        return self.prediction.mean[:, 0]

    @property
    def mae(self) -> float:
        return mae(self.measured, self.mean)

    @property
    def spearman(self) -> float:
        return spearman(self.measured, self.mean)

    @property
    def kendall(self) -> float:
        return kendall(self.measured, self.mean)

    def coverage(self, level: float = 0.8) -> float:
        low, high = self.prediction.interval(level)
        return coverage(self.measured, low[:, 0], high[:, 0])


def load_setting(data: Path, setting: str) -> Table:
    """A setting of NAS-Bench-MR; with its costs, which the published recipe learns, too."""
    published = load_nas_bench_mr(data / "nas_bench_mr", setting)
    space = get_space("multi_resolution")
    samples = [dict(zip(space.labels, row, strict=True)) for row in published.embedding.tolist()]
    costs = {"flops": published.flops * 1e-9, "params": published.params * 1e-6}
    return Table(space, space.encode(samples), {**published.metrics, **costs})


def load_cells(data: Path) -> Table:
    """NAS-Bench-201 with the accuracy of NCP's file."""
    published = load_nas_bench_201(data / "nas_bench_201")
    space = get_space("nasbench201")
    samples = [dict(zip(space.labels, row, strict=True)) for row in published.operations]
    return Table(space, space.encode(samples), {"Acc": published.metrics["Acc"]})


def split(n: int, seed: int, train: int = 2000) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to train on and rows to validate on."""
    order = np.random.RandomState(seed).permutation(n)
    return order[:train], order[2000:]


def score(fit: CodePredictor, table: Table, train: Array, test: Array, *, every: bool) -> Score:
    """Fits on some rows, predicts the main metric of others; `every` metric is learned, or one."""
    codes, targets = table.rows(train)
    name, measured = table.main
    start = time.perf_counter()
    fit.fit(codes, targets if every else {name: targets[name]})
    seconds = time.perf_counter() - start
    return Score(measured[test], fit.predict(table.codes[test])[name], seconds)


def score_both(
    data: Path, setting: str, seed: int, *, train: int, epochs: int
) -> tuple[Score, Score]:
    """The default predictor and the published recipe on one split, in one thread."""
    torch.set_num_threads(1)
    table = load_setting(data, setting)
    rows, held = split(len(table.codes), seed, train)
    ours = score(default_predictor(table.space, seed), table, rows, held, every=False)
    recipe = NCPMLP(table.space, epochs=epochs, seed=seed)
    return ours, score(recipe, table, rows, held, every=True)


# --- the figures ---------------------------------------------------------------------------------


def measure(arguments: Namespace) -> None:
    quick: bool = arguments.quick
    seeds = 1 if quick else arguments.seeds
    settings = [
        name
        for name in SETTINGS
        if (arguments.data / "nas_bench_mr" / "data" / name / "trainval.pkl").is_file()
    ]
    if not settings:
        raise SystemExit(f"{arguments.data}/nas_bench_mr must hold a setting, but holds none.")
    settings = ["seg"] if quick and "seg" in settings else settings[:1] if quick else settings
    train, epochs = (500, 30) if quick else (2000, 200)
    if quick:
        print(f"A quick run: {settings[0]} only, 1 seed, {train} training rows, {epochs} epochs.")
    say = progress()
    found: dict[str, list[tuple[Score, Score]]] = {}
    jobs = [(setting, seed) for setting in settings for seed in range(seeds)]
    runs = Parallel(n_jobs=2, return_as="generator")(
        delayed(score_both)(arguments.data, *job, train=train, epochs=epochs) for job in jobs
    )
    for (setting, seed), (ours, theirs) in zip(jobs, runs, strict=True):
        found.setdefault(setting, []).append((ours, theirs))
        say(
            f"{setting} seed {seed}: default MAE {ours.mae:.3f} ({ours.seconds:.0f} s), "
            f"published recipe {theirs.mae:.3f} ({theirs.seconds:.0f} s)"
        )

    figures = Figures(quick=quick)
    rows_out = []
    for setting, pairs in found.items():
        values = {
            (who, what): [getattr(pair[i], what) for pair in pairs]
            for i, who in enumerate(("default", "recipe"))
            for what in ("mae", "spearman", "kendall", "seconds")
        }
        for i, who in enumerate(("default", "recipe")):
            values[who, "coverage"] = [pair[i].coverage() for pair in pairs]
        mean = {key: float(np.mean(value)) for key, value in values.items()}
        best_mae, best_spearman = GP.get(setting, (None, None))
        for who, what, low, high in (
            ("default", "mae", None, best_mae),
            ("default", "spearman", best_spearman, None),
            ("default", "coverage", *COVERAGE),
            ("default", "kendall", None, None),
            ("recipe", "mae", None, None),
            ("recipe", "spearman", None, None),
            ("recipe", "coverage", None, None),
        ):
            name = f"{setting}: {what} of {'default' if who == 'default' else 'published recipe'}"
            by_seed = [round(value, 5) for value in values[who, what]]
            figures.add(name, mean[who, what], at_least=low, at_most=high, detail=by_seed)
        rows_out.append(
            [
                setting,
                f"{mean['default', 'mae']:.3f}",
                f"{best_mae or '-'}",
                f"{mean['recipe', 'mae']:.3f}",
                f"{mean['default', 'spearman']:.3f}",
                f"{best_spearman or '-'}",
                f"{mean['recipe', 'spearman']:.3f}",
                f"{mean['default', 'coverage']:.3f}",
                f"{mean['recipe', 'coverage']:.3f}",
                f"{mean['default', 'seconds']:.0f}",
                f"{mean['recipe', 'seconds']:.0f}",
            ]
        )
    headers = ["setting", "MAE", "GP", "recipe", "Spearman", "GP", "recipe"]
    headers += ["coverage", "recipe", "fit s", "recipe"]
    text = format_table(headers, rows_out)
    print(f"\n{text}\n\n{figures}")
    (arguments.out / "table.txt").write_text(text + "\n")
    figures.save(arguments.out / "results.json")
    draw_scatter(arguments.out / "scatter.png", {k: pairs[0][0] for k, pairs in found.items()})
    draw_calibration(arguments.out / "calibration.png", found)
    print(f"\nResults: {arguments.out}/results.json, table.txt, scatter.png, calibration.png")


def draw_scatter(path: Path, scores: dict[str, Score]) -> None:
    """Predicted against measured values of each setting, with 80 % intervals."""
    figure = new_figure(4.2 * len(scores), 4.2)
    for i, (setting, one) in enumerate(scores.items()):
        axes = figure.add_subplot(1, len(scores), i + 1)
        low, high = one.prediction.interval()
        axes.vlines(one.measured, low[:, 0], high[:, 0], color="tab:blue", alpha=0.15)
        axes.scatter(one.measured, one.mean, s=6, color="tab:blue")
        ends = [min(one.measured.min(), one.mean.min()), max(one.measured.max(), one.mean.max())]
        axes.plot(ends, ends, color="0.3", lw=1, ls="--")
        axes.set_title(f"{setting}: MAE {one.mae:.2f}, Spearman {one.spearman:.3f}")
        axes.set_xlabel("measured (%)")
        axes.set_ylabel("predicted (%), 80 % intervals")
    save_figure(figure, path)


def draw_calibration(path: Path, found: dict[str, list[tuple[Score, Score]]]) -> None:
    """Share of validation rows within intervals against the probability the intervals promise."""
    figure = new_figure(9.0, 4.5)
    for i, title in enumerate(("default predictor", "published recipe")):
        axes = figure.add_subplot(1, 2, i + 1)
        for setting, pairs in found.items():
            shares = [np.mean([pair[i].coverage(level) for pair in pairs]) for level in LEVELS]
            axes.plot(LEVELS, shares, marker=".", label=setting)
        axes.plot([0, 1], [0, 1], color="0.3", lw=1, ls="--")
        axes.vlines(0.8, *COVERAGE, color="black", lw=3, alpha=0.5)
        axes.set_title(title)
        axes.set_xlabel("probability promised")
        axes.set_ylabel("share of rows within")
        axes.legend()
    save_figure(figure, path)


# --- the choice of the default -------------------------------------------------------------------


class CodeOnlyGP(CodeGP):
    """The Gaussian process without the space's features."""

    def _inputs(self, codes: torch.Tensor) -> torch.Tensor:
        return codes


class Boosting(CodeGP):
    """Gradient boosted trees on code and features (no gradient in the code): a yardstick only."""

    def _fit(self, codes: Array, targets: Array) -> None:
        x = self._inputs(torch.as_tensor(codes)).numpy()
        self._trees = HistGradientBoostingRegressor(
            learning_rate=0.05, max_iter=300, min_samples_leaf=10, random_state=self.seed
        ).fit(x, targets[:, 0])
        self._std = float((targets[:, 0] - self._trees.predict(x)).std())

    def _standardised(
        self, codes: torch.Tensor, *, with_std: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        mean = torch.as_tensor(self._trees.predict(self._inputs(codes).numpy()))[:, None]
        return mean, torch.full_like(mean, self._std)


CANDIDATES: dict[str, Callable[[CodeSpace, int], CodePredictor]] = {
    "gp": lambda space, seed: CodeGP(space, seed=seed),
    "gp, code only": lambda space, seed: CodeOnlyGP(space, seed=seed),
    "ncp-mlp": lambda space, seed: NCPMLP(space, seed=seed),
    "boosted trees": lambda space, seed: Boosting(space, seed=seed),
}


def select(arguments: Namespace) -> None:
    """Cross-validation of the candidates on training rows of splits that no figure is told of."""
    say = progress()
    tables = {name: load_setting(arguments.data, name) for name in GP}
    tables["NAS-Bench-201"] = load_cells(arguments.data)
    sizes = dict.fromkeys(GP, (100, 1600)) | {"NAS-Bench-201": (20, 50, 200)}
    results: dict[tuple[str, str, int], list[Score]] = {}
    for setting, table in tables.items():
        for seed in range(1000, 1000 + (1 if arguments.quick else arguments.seeds)):
            pool, _ = split(len(table.codes), seed)
            for size in sizes[setting][: 1 if arguments.quick else None]:
                for name, make in CANDIDATES.items():
                    held = pool[1600:]
                    one = score(make(table.space, seed), table, pool[:size], held, every=False)
                    results.setdefault((name, setting, size), []).append(one)
            say(f"{setting} seed {seed}")
    rows = []
    for setting in tables:
        for size in sizes[setting][: 1 if arguments.quick else None]:
            for name in CANDIDATES:
                scores = results[name, setting, size]
                whats = [[s.mae, s.spearman, s.coverage(), s.seconds] for s in scores]
                rows.append([setting, size, name, *np.mean(whats, axis=0).tolist()])
    text = format_table(
        ["table", "rows", "candidate", "MAE", "Spearman", "coverage", "fit s"], rows
    )
    print(f"\n{text}")
    (arguments.out / "selection.txt").write_text(text + "\n")


def main() -> None:
    result = parser("Predictors on NAS-Bench-MR.", name="nas_bench_mr", seeds=5)
    result.add_argument("--select", action="store_true", help="cross-validate candidates instead")
    arguments = parse_arguments(result)
    (select if arguments.select else measure)(arguments)


if __name__ == "__main__":
    main()
