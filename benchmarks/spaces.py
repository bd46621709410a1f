"""How fast spaces encode, decode and cost: 10,000 samples of every ready space and of a wide one.

python benchmarks/spaces.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import numpy as np
from _common import Figures, format_table, parse_arguments, parser

from nni_aiop.search_spaces import SPACES, get_space
from nni_aiop.spaces import CodeSpace, Continuous, Nominal, Ordinal, Subset

ASKED_SECONDS = 1.0


def wide() -> CodeSpace:
    """A hundred dimensions, half of them one-hot."""
    return CodeSpace(
        [
            Ordinal(f"c{i}", range(8, 136, 8)) if i % 2 else Nominal(f"op{i}", tuple("abcde"))
            for i in range(100)
        ],
        name="100 dimensions by hand",
    )


def mixed() -> CodeSpace:
    """A hundred dimensions of every kind, 12 code columns for each subset."""
    kinds = [
        lambda i: Ordinal(f"c{i}", range(8, 136, 8)),
        lambda i: Nominal(f"op{i}", tuple("abcde")),
        lambda i: Continuous(f"lr{i}", 1e-5, 1.0, log=True),
        lambda i: Subset(f"in{i}", tuple(range(12)), 3),
    ]
    return CodeSpace([kinds[i % 4](i) for i in range(100)], name="100 of every kind")


def seconds(function: Callable[[], object], repeats: int) -> float:
    """Median seconds of a call."""
    taken = []
    for _ in range(repeats):
        begin = time.perf_counter()
        function()
        taken.append(time.perf_counter() - begin)
    return median(taken)


def main() -> None:
    options = parse_arguments(parser(__doc__.splitlines()[0], name="spaces", seeds=1))
    n = 1_000 if options.quick else 10_000
    figures = Figures(quick=options.quick)
    rows: list[list[object]] = []
    for space in [wide(), mixed(), *map(get_space, SPACES)]:
        samples = space.sample(n, np.random.default_rng(0))
        codes = space.encode(samples)
        assert space.decode(codes) == samples
        encode = seconds(lambda s=space, x=samples: s.encode(x), 5)  # type: ignore[misc]
        decode = seconds(lambda s=space, c=codes: s.decode(c), 5)  # type: ignore[misc]
        costs = {
            name: seconds(lambda s=space, c=codes, k=name: s.cost(k, c), 5) / n * 1e6  # type: ignore[misc]
            for name in space.costs
        }
        shown = ", ".join(f"{name} {v:.2f}" for name, v in costs.items()) or "-"
        rows.append([space.name, len(space), encode, decode, shown])
        for verb, value in (("encode", encode), ("decode", decode)):
            figures.add(
                f"seconds to {verb} {n} samples of {space.name}", value, at_most=ASKED_SECONDS
            )
    heads = ["space", "dimensions", "encode (s)", "decode (s)", "exact costs (µs a code)"]
    print(format_table(heads, rows))
    print(figures)
    figures.save(options.out / "results.json")


if __name__ == "__main__":
    main()
