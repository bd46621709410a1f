"""Predicts networks of a space with the shipped backbone, timed: a process of `aiop_speed.py`.

    python benchmarks/_speed_worker.py SPACE NUMBER SEED TIMES FILE

Run from the folder of the package that is to be timed, which may be an older one: it uses nothing
that is not there since the backbone is. The file gets the predictions; what is printed is JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from nni_aiop.predictors.graph import load_shipped
from nni_aiop.search_spaces import get_space


def main(name: str, number: str, seed: str, times: str, file: str) -> None:
    torch.set_num_threads(1)
    space, rng = get_space(name), np.random.default_rng(int(seed))
    predictor = load_shipped()
    if times == "streamed":
        print(json.dumps(streamed(predictor, space, int(number), rng)))
        return
    samples = space.sample(int(number), rng)
    predictor.predict([space.graph(sample) for sample in samples[:20]])
    seconds = []
    for _ in range(int(times)):
        graphs = [space.graph(sample) for sample in samples]  # nothing is worked out of them yet
        begin = time.perf_counter()
        found = predictor.predict(graphs)
        seconds.append(time.perf_counter() - begin)
    np.save(file, found.mean)
    nodes = sum(map(len, graphs)) / len(graphs)
    print(json.dumps({"seconds": min(seconds), "nodes": nodes}))


def streamed(predictor: Any, space: Any, number: int, rng: np.random.Generator) -> dict[str, float]:
    """Peak megabytes before and after, of graphs that are made while they are predicted."""

    def graphs() -> Iterator[Any]:
        for _ in range(0, number, 1000):
            yield from map(space.graph, space.sample(1000, rng))

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found = predictor.predict(graphs())
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"before": before, "after": after, "n": len(found.mean)}


if __name__ == "__main__":
    main(*sys.argv[1:])
