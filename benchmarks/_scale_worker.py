"""One part of one size, measured: a process of `scale.py`.

    python benchmarks/_scale_worker.py PART SIZE SEED
    python benchmarks/_scale_worker.py worker URL TRIALS OWN

Run with the package that is to be measured on the path, which may be an older one: it uses nothing
that was not there at the commit that `scale.py` compares with, or asks first. What is printed is
JSON: CPU seconds, and megabytes where memory is measured.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
import tracemalloc
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import torch

from nni_aiop.engines.optuna_space import distributions_of, params_of, suggest
from nni_aiop.predictors import CodeGP
from nni_aiop.results import SearchResults, pareto_front
from nni_aiop.search import NCPSearch, Objective, PNAGSearch
from nni_aiop.search_spaces import get_space
from nni_aiop.spaces import CodeSpace, Nominal, Ordinal, Sample
from nni_aiop.strategies import NCPSampler

TOLD = 60  # results of a search in many dimensions


def cells() -> CodeSpace:
    return get_space("nasbench201")


def wide(d: int) -> CodeSpace:
    """Half of the dimensions ordered, half not."""
    dimensions = [
        Ordinal(f"o{i}", (1, 2, 3, 4)) if i % 2 else Nominal(f"n{i}", ("a", "b", "c"))
        for i in range(d)
    ]
    return CodeSpace(dimensions, name=f"wide-{d}", costs={"flops": lambda codes: 1 + codes.sum(1)})


def results(space: CodeSpace, n: int, seed: int) -> tuple[list[Sample], np.ndarray]:
    """Distinct samples and a smooth metric of them (n,)."""
    rng = np.random.default_rng(seed)
    rows: dict[str, np.ndarray] = {}
    while len(rows) < n:
        points = space.sample_points(2 * n, rng)
        for point, key in zip(points, space.keys(points), strict=True):
            rows.setdefault(key, point)
    samples = space.from_points(np.array(list(rows.values())[:n]))
    codes = space.encode(samples)
    slopes = rng.normal(size=(space.width, 2))
    return samples, np.tanh(codes @ slopes[:, 0]) + 0.1 * np.sin(5 * codes @ slopes[:, 1])


def timed(work: Callable[[], Any]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def rss() -> float:
    """The largest resident set so far, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def fit(n: int, seed: int) -> dict[str, float]:
    space = cells()
    samples, values = results(space, n, seed)
    codes = space.encode(samples)
    CodeGP(space).fit(codes[:10], {"y": values[:10]})
    return {"seconds": timed(lambda: CodeGP(space).fit(codes, {"y": values}))}


def asked(search: Any, samples: list[Sample], values: np.ndarray) -> dict[str, float]:
    """The first proposal after results, and the next round's."""
    space = search.space
    codes = space.encode(samples)
    # What is imported on the way is not counted: an optimiser imports torch's compiler.
    CodeGP(space).fit(codes[:5], {"y": values[:5]}).predict(codes[:5])
    torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])
    for sample, value in zip(samples, values.tolist(), strict=True):
        search.tell(sample, {"default": value})
    before, found = rss(), []
    first = timed(lambda: found.extend(search.ask(1)))
    grown = rss() - before
    while getattr(search, "_queue", ()):
        found += search.ask(1)
    for sample in found:
        search.tell(sample, {"default": float(values.mean())})
    return {"seconds": first, "megabytes": grown, "next": timed(lambda: search.ask(1))}


def ask(n: int, seed: int) -> dict[str, float]:
    space = cells()
    return asked(NCPSearch(space, seed=seed), *results(space, n, seed))


def pnag_ask(n: int, seed: int) -> dict[str, float]:
    space = cells()
    return asked(PNAGSearch(space, cost="flops", seed=seed), *results(space, n, seed))


def ncp_wide(d: int, seed: int) -> dict[str, float]:
    space = wide(d)
    return asked(NCPSearch(space, seed=seed), *results(space, TOLD, seed))


def pnag_wide(d: int, seed: int) -> dict[str, float]:
    space = wide(d)
    return asked(PNAGSearch(space, cost="flops", seed=seed), *results(space, TOLD, seed))


def neighbours(d: int, seed: int) -> dict[str, float]:
    space = wide(d)
    (point,) = space.sample_points(1, np.random.default_rng(seed))
    (sample,) = space.from_points(point[None])
    streamed = getattr(space, "neighbour_points", None)

    def look() -> None:
        for block in streamed(point) if streamed else [space.neighbours(sample)]:
            len(block)

    look()
    seconds = timed(look)
    tracemalloc.start()
    look()
    return {"seconds": seconds, "megabytes": tracemalloc.get_traced_memory()[1] / 2**20}


def join(n: int, seed: int) -> dict[str, float]:
    """The first proposal of a worker that joins, and its next that takes a round of its own.

    Of the study's trials the last were proposed (100, or 20 in a long one), the others were added.
    """
    space = cells()
    proposed = min(n, 100) if n <= 1000 else 20
    samples, values = results(space, n, seed)
    storage = optuna.storages.InMemoryStorage()
    options = {"budget": 100, "seed": seed}
    study = optuna.create_study(
        storage=storage, direction="maximize", sampler=NCPSampler(space, **options)
    )
    distributions = distributions_of(space)
    added = zip(samples[: n - proposed], values.tolist(), strict=False)
    study.add_trials(
        [
            optuna.trial.create_trial(
                params=params_of(sample, space), distributions=distributions, value=value
            )
            for sample, value in added
        ]
    )

    def objective(trial: optuna.Trial) -> float:
        return float(np.tanh(space.encode([suggest(trial, space)]).sum()))

    study.optimize(objective, n_trials=proposed)
    study.sampler = NCPSampler(space, **options)
    return {
        "seconds": timed(lambda: study.optimize(objective, n_trials=1)),
        # Rounds are of two or three proposals.
        "next": max(timed(lambda: study.optimize(objective, n_trials=1)) for _ in range(3)),
    }


def save(n: int, seed: int) -> dict[str, float]:
    space = cells()
    rng = np.random.default_rng(seed)
    samples = space.from_points(space.sample_points(n, rng))
    history = [(s, {"default": v}) for s, v in zip(samples, rng.random(n).tolist(), strict=True)]
    found = SearchResults(space, history, [Objective("default")])
    with tempfile.TemporaryDirectory() as folder:
        return {"seconds": timed(lambda: found.save(folder))}


def record(n: int, seed: int) -> dict[str, float]:
    """What writing down one more evaluation takes, as `nni-aiop search` does it."""
    try:
        from nni_aiop.results import ResultsRecorder
    except ImportError:
        return save(n, seed)
    space = cells()
    rng = np.random.default_rng(seed)
    samples = space.from_points(space.sample_points(n + 100, rng))
    with tempfile.TemporaryDirectory() as folder:
        history: list[Any] = []
        recorder = ResultsRecorder(
            folder, lambda: SearchResults(space, history, [Objective("default")])
        )

        def more(samples: list[Sample]) -> None:
            for sample in samples:
                history.append((sample, {"default": 0.5}))
                recorder.add(*history[-1])

        more(samples[:n])
        seconds = timed(lambda: more(samples[n:]))
    return {"seconds": seconds / 100}


def front(n: int, seed: int) -> dict[str, float]:
    points = np.random.default_rng(seed).normal(size=(n, 2))
    pareto_front(points[:10])
    return {"seconds": timed(lambda: pareto_front(points))}


def front_of_three(n: int, seed: int) -> dict[str, float]:
    points = np.random.default_rng(seed).normal(size=(n, 3))
    return {"seconds": timed(lambda: pareto_front(points))}


def worker(url: str, n: int, own: int) -> dict[str, float]:
    """CPU seconds of a worker's own trials of the n of a study; how many it ran."""
    space = cells()
    storage = optuna.storages.get_storage(url)
    sampler = NCPSampler(space, budget=n, seed=0)
    study = optuna.load_study(study_name="s", storage=storage, sampler=sampler)
    slopes = np.random.default_rng(0).normal(size=space.width)
    CodeGP(space).fit(np.eye(5, space.width), {"y": slopes[:5]})

    def objective(trial: optuna.Trial) -> float:
        value = float(np.tanh(space.encode([suggest(trial, space)])[0] @ slopes))
        time.sleep(0.2)
        return value

    seconds = timed(lambda: study.optimize(objective, n_trials=own))
    return {"seconds": seconds, "trials": own}


def main(part: str, size: str, seed: str, own: str = "") -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if part == "worker":
        print(json.dumps(worker(size, int(seed), int(own))))
        return
    parts: dict[str, Callable[[int, int], dict[str, float]]] = {
        "fit": fit,
        "ask": ask,
        "pnag-ask": pnag_ask,
        "ncp-wide": ncp_wide,
        "pnag-wide": pnag_wide,
        "neighbours": neighbours,
        "join": join,
        "save": save,
        "record": record,
        "front": front,
        "front-of-three": front_of_three,
    }
    print(json.dumps(parts[part](int(size), int(seed))))


if __name__ == "__main__":
    main(*sys.argv[1:])
