"""What every benchmark script shares: its arguments, its printed table and its results.json.

A script builds its arguments with `parse_arguments`, collects figures in `Figures`, prints with
`format_table`, and ends with `figures.save(out)`:

    figures = Figures(quick=arguments.quick)
    figures.add("regret at B=100", 0.27, at_most=0.30)
    print(figures)
    figures.save(arguments.out / "results.json")
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nni_aiop.files import write_json

__all__ = ["Figures", "Parser", "format_table", "parse_arguments", "parser", "progress", "run_part"]

Parser = argparse.ArgumentParser


def parser(description: str, *, name: str, seeds: int) -> Parser:
    """The arguments that all benchmarks take; a script may add its own before parsing.

    Args:
        description: One sentence for `--help`.
        name: The benchmark's name; results go to `out/NAME` unless `--out` says otherwise.
        seeds: Default of `--seeds`.
    """
    result = Parser(description=description)
    data = os.environ.get("NNI_AIOP_DATA", "../shared/data")
    result.add_argument("--data", type=Path, default=Path(data), help=f"data folder ({data})")
    result.add_argument(
        "--out", type=Path, default=Path("out") / name, help=f"results folder (out/{name})"
    )
    result.add_argument("--seeds", type=int, default=seeds, help=f"number of seeds ({seeds})")
    result.add_argument(
        "--quick",
        action="store_true",
        help="a smaller run in less than a minute, whose figures prove nothing",
    )
    return result


def parse_arguments(result: Parser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parsed arguments; the data folder exists, seeds are positive, the out folder is made.

    A broken rule ends the script with one sentence and exit code 2.
    """
    arguments = result.parse_args(argv)
    if not arguments.data.is_dir():
        result.error(f"--data must be a folder, but got {arguments.data}")
    if arguments.seeds < 1:
        result.error(f"--seeds must be at least 1, but got {arguments.seeds}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    return arguments


def format_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A plain text table: floats with four digits, the first column to the left."""
    cells = [list(headers), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headers))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def progress() -> Callable[[str], None]:
    """A function that prints a message after the seconds since now."""
    start = time.perf_counter()
    return lambda message: print(f"[{time.perf_counter() - start:6.1f} s] {message}", flush=True)


def run_part(work: Callable[..., Any], path: Path, *arguments: Any) -> Any:
    """What the work returns (JSON), or what its file holds where it was done before.

    For functions that run in other processes: they get one thread, and warn of nothing.
    """
    if not path.exists():
        import torch

        torch.set_num_threads(1)
        warnings.simplefilter("ignore")
        write_json(path, work(*arguments))
    return json.loads(path.read_text())


class Figures:
    """Measured figures beside what was asked of them.

    Args:
        quick: The run was a quick one: `holds` stays None for every figure.
    """

    def __init__(self, *, quick: bool = False) -> None:
        self.quick = quick
        self._figures: dict[str, dict[str, object]] = {}

    def add(
        self,
        name: str,
        value: float,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
        detail: object = None,
    ) -> bool | None:
        """Whether `value` keeps within the inclusive bounds (None: nothing asked, or quick).

        Args:
            detail: Further JSON to keep with the figure (values by seed, a standard error).
        """
        asked = {
            (False, False): None,
            (True, False): f">= {at_least}",
            (False, True): f"<= {at_most}",
            (True, True): f"{at_least} to {at_most}",
        }[at_least is not None, at_most is not None]
        holds = None
        if asked is not None and not self.quick:
            # A NaN holds nothing: both comparisons must be true.
            holds = bool(
                (at_least is None or value >= at_least) and (at_most is None or value <= at_most)
            )
        entry: dict[str, object] = {"value": float(value), "asked": asked, "holds": holds}
        if detail is not None:
            entry["detail"] = detail
        self._figures[name] = entry
        return holds

    def __str__(self) -> str:
        marks = {True: "yes", False: "NO", None: "-"}
        rows = [
            [name, entry["value"], entry["asked"] or "-", marks[entry["holds"]]]
            for name, entry in self._figures.items()
        ]
        note = "\nA quick run: these figures prove nothing." if self.quick else ""
        return format_table(["figure", "value", "asked", "holds"], rows) + note

    def save(self, path: Path) -> None:
        """Writes `{figure: {value, asked, holds}}` as JSON (NaN as null), whole or not at all."""
        write_json(path, self._figures)


def _cell(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
