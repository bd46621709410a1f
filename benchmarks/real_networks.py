"""How from_module and from_onnx read real networks and files, against independent counts.

python benchmarks/real_networks.py

Modules: timm (one network of each module file, and the newest), torchvision, transformers (from
configs), segmentation_models_pytorch. Files: a dozen networks exported by both exporters of PyTorch
with default options, trained and untrained, then optimised, quantised and of half precision. A
package that is not installed is named and its set left out; none of these is required.

A network is read, or refused in one true sentence: a GraphError of one line, of a module that does
not run on the meta device either and, where values are said to be asked for, asks for some that
depend on its input. Multiply-adds are compared
with half of what PyTorch's `FlopCounterMode` counts, less what does not depend on the input, and
parameters with those that the forward pass reads; torchvision's published figures to their digits.
Of a file, learned entries are compared with the module's or with those that the file itself holds
(an export that merges batch normalisation holds fewer). `differences.csv` names every network that
is refused, not exact or not equal.

Each network is a part of its own, read in another process: one that crashes or never ends is a row
of the table. Parts belong to the code of nni_aiop.graphs; a stopped run goes on with what is left.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import io
import multiprocessing
import re
from collections.abc import Callable, Iterator
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

from _common import Figures, format_table, parse_arguments, parser, progress, run_part
from _network_files import EXPORTS, MADE, NETWORKS
from _network_rows import FILES, LONGEST, read_files, read_module, sentence
from _networks import SETS, missing, names

from nni_aiop import graphs
from nni_aiop.files import write_atomically, write_json

PATIENCE = 400.0
"""Seconds that one network may take."""

QUICK_FILES = (("mlp by hand", "dynamo"), ("unet by hand", "legacy"))

Row = dict[str, Any]


# --- many, each in another process ---------------------------------------------------------------


class Reader:
    """Runs parts in one other process, which is replaced where it crashes or takes too long."""

    def __init__(self) -> None:
        self._pool: Pool | None = None

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._pool is not None:
            if kind is None:
                self._pool.close()
            else:
                self._pool.terminate()
            self._pool.join()

    def ask(self, work: Callable[..., Any], *arguments: Any, seconds: float = PATIENCE) -> Any:
        """What the work returns or raises there.

        Raises:
            TimeoutError: It has not returned; its process is gone.
        """
        if self._pool is None:
            self._pool = multiprocessing.get_context("spawn").Pool(1)
        try:
            return self._pool.apply_async(work, arguments).get(seconds)
        except multiprocessing.TimeoutError as err:
            self._pool.terminate()
            self._pool.join()
            self._pool = None
            text = f"no answer in {seconds:.0f} s: it crashed or takes too long"
            raise TimeoutError(text) from err

    def read(self, work: Callable[..., Any], path: Path, head: Row, *arguments: Any) -> list[Row]:
        """The rows of a part, from its file where it was done before."""
        if not path.exists():
            try:
                self.ask(run_part, work, path, *arguments)
            except Exception as err:  # noqa: BLE001 (one network never ends the run)
                write_json(path, {**head, "state": "failed", "said": sentence(err)})
        rows = run_part(_nothing, path)
        return rows if isinstance(rows, list) else [rows]


def _nothing() -> None:
    raise AssertionError("the part must be there")


def code_digest() -> str:
    """What the code that reads is, in eight digits: parts of other code are not taken."""
    digest = hashlib.sha256()
    here = Path(__file__).parent
    for path in [
        *sorted(Path(graphs.__file__).parent.rglob("*.py")),
        *sorted(here.glob("_network*.py")),
    ]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


def parts(
    reader: Reader, quick: bool, chosen: list[str]
) -> Iterator[tuple[str, Callable[..., Any], Row, Any]]:
    """Name, work, head of a row and arguments of every part of the chosen sets."""
    for one in SETS:
        if one not in chosen:
            continue
        lacking = missing(one)
        if lacking:
            print(f"left out: {one}, without {', '.join(lacking)}")
            continue
        try:
            wanted = reader.ask(names, one, quick)
        except Exception as err:  # noqa: BLE001 (a package that does not import is left out)
            print(f"left out: {one}: {sentence(err)[:LONGEST]}")
            continue
        for name in wanted:
            yield f"{one}-{name}", read_module, {"set": one, "name": name}, (one, name)
    if FILES in chosen:
        yield from _file_parts(quick)


def _file_parts(quick: bool) -> Iterator[tuple[str, Callable[..., Any], Row, Any]]:
    lacking = sorted({p for p, *_ in MADE.values() if importlib.util.find_spec(p) is None})
    if lacking:
        print(f"left out: files made by {', '.join(lacking)}")
    by_timm = importlib.util.find_spec("timm") is not None
    if not by_timm:
        print("left out: files of networks of timm")
    for name in NETWORKS:
        if not by_timm and "by hand" not in name:
            continue
        for how in EXPORTS:
            for is_trained in (True, False):
                if quick and ((name, how) not in QUICK_FILES or not is_trained):
                    continue
                state = "trained" if is_trained else "untrained"
                head = {"set": FILES, "name": name, "kind": f"{how}, {state}"}
                yield f"{FILES}-{name}-{how}-{state}", read_files, head, (name, how, is_trained)


# --- the report ---------------------------------------------------------------------------------


def share(marks: list[bool]) -> float:
    """The share of true ones in percent (NaN of none)."""
    return 100.0 * sum(marks) / len(marks) if marks else float("nan")


def exact(rows: list[Row]) -> list[bool]:
    """Whether each row that was read and has an independent count is exact."""
    return [row["unlike"] == "" for row in rows if "unlike" in row]


def equal(rows: list[Row]) -> list[bool]:
    """Whether each file that holds its module's network has the module's hash."""
    return [row["equal"] for row in rows if row["state"] == "read" and row.get("same")]


def of_states(rows: list[Row], *states: str) -> list[Row]:
    return [row for row in rows if row["state"] in states]


def table_row(title: str, rows: list[Row]) -> list[object]:
    """A set or a kind of files in numbers."""
    tried = of_states(rows, "read", "refused", "failed")
    compared = [row["unlike"] for row in tried if "unlike" in row]
    exacts, equals, every = exact(tried), equal(tried), [r for r in tried if "equal" in r]
    published = [row for row in tried if row.get("published") is not None]
    return [
        title,
        len(tried),
        len(of_states(tried, "read")),
        len(of_states(tried, "refused")),
        len(of_states(tried, "failed")),
        f"{sum(exacts)}/{len(exacts)}" if exacts else "-",
        sum("macs" not in what and "constants" not in what for what in compared),
        sum("parameters" not in what for what in compared),
        f"{sum(r['published'] == '' for r in published)}/{len(published)}" if published else "-",
        f"{sum(r['equal'] for r in every)}/{len(every)}" + ("" if equals else " *")
        if every
        else "-",
        sum(bool(row.get("others")) for row in tried),
        len(of_states(rows, "not built", "not made")),
    ]


HEADS = [
    *("set", "tried", "read", "refused truly", "failed", "exact", "MACs", "parameters"),
    *("published", "equal", "with others", "not made"),
]

COLUMNS = [
    *("set", "name", "kind", "what", "macs", "expected_macs", "constants"),
    *("parameters", "expected_parameters", "held_parameters", "nodes", "module_nodes"),
    *("others", "part_macs", "said"),
]


def differences(rows: list[Row]) -> list[Row]:
    """A line for each row with something to say, in the order of the rows."""
    found = []
    for row in rows:
        counts, module = row.get("counts", {}), row.get("module", {})
        what = [row["state"]] if row["state"] != "read" else []
        what += [row["unlike"]] if row.get("unlike") else []
        what += ["unequal"] if row.get("equal") is False else []
        what += ["published"] if row.get("published") else []
        what += ["no reference"] if row["state"] == "read" and not counts else []
        what += ["others"] if row.get("others") else []
        if not what:
            continue
        said = (
            row.get("said") or row.get("published") or (row.get("reference") if not counts else "")
        )
        known = {
            "what": " ".join(what),
            "expected_macs": counts["macs"] - counts["constants"] if counts else None,
            "constants": counts.get("constants"),
            "expected_parameters": counts.get("parameters"),
            "held_parameters": counts.get("held"),
            "module_nodes": module.get("nodes"),
            "others": " ".join(row.get("others", [])),
            "part_macs": (row.get("part") or {}).get("macs"),
            "said": said,
        }
        found.append({column: known.get(column, row.get(column)) for column in COLUMNS})
    return found


def as_csv(rows: list[Row], columns: list[str]) -> str:
    """The rows as CSV with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def sections(rows: list[Row]) -> dict[str, list[Row]]:
    """Rows by set, those of files by kind."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        title = row["set"] if row["set"] != FILES else f"{FILES}: {row['kind']}"
        found.setdefault(title, []).append(row)
    return found


def add_figures(figures: Figures, title: str, rows: list[Row]) -> None:
    """The three shares of a set or of all files, with what is asked of them."""
    tried = of_states(rows, "read", "refused", "failed")
    heard = [row["state"] != "failed" for row in tried]
    if not tried:
        return
    figures.add(f"{title}: % read", share([row["state"] == "read" for row in tried]))
    figures.add(f"{title}: % read or truly refused", share(heard), at_least=100.0)
    if exact(tried):
        figures.add(f"{title}: % exact where read", share(exact(tried)), at_least=100.0)
    parts = [row["part"] is not None and row["part"]["macs"] > 0 for row in tried if "part" in row]
    if parts:
        figures.add(f"{title}: % read in part of those that ask for values", share(parts))
    published = [row["published"] == "" for row in tried if row.get("published") is not None]
    if published:
        figures.add(f"{title}: % as published", share(published))
    if equal(tried):
        figures.add(f"{title}: % equal to the module", share(equal(tried)), at_least=100.0)


def main() -> None:
    options = parser(__doc__.splitlines()[0], name="real_networks", seeds=1)
    every = [*SETS, FILES]
    options.add_argument("--sets", nargs="+", choices=every, default=every, help="sets to read")
    arguments = parse_arguments(options)
    say = progress()
    folder = arguments.out / f"parts-{code_digest()}"
    rows: list[Row] = []
    with Reader() as reader:
        for title, work, head, values in parts(reader, arguments.quick, arguments.sets):
            path = folder / (re.sub(r"[^\w-]+", "_", title) + ".json")
            known = path.exists()
            found = reader.read(work, path, head, *values)
            rows += found
            if not known:
                states = ", ".join(row["state"] for row in found)
                say(f"{title}: {states}" if len(found) == 1 else f"{title}: {len(found)} files")

    figures = Figures(quick=arguments.quick)
    print(format_table(HEADS, [table_row(*pair) for pair in sections(rows).items()]))
    print("equal *: not asked, since the file holds another network (quantised, or untrained)\n")
    for one in every:
        add_figures(figures, one, [row for row in rows if row["set"] == one])
    unlike_rows = differences(rows)
    for row in unlike_rows:
        print(_line(row))
    write_atomically(arguments.out / "differences.csv", as_csv(unlike_rows, COLUMNS))
    print()
    print(figures)
    figures.save(arguments.out / "results.json")
    print(f"\nResults: {arguments.out}/results.json, differences.csv")


def _line(row: Row) -> str:
    """A difference with both numbers."""
    name = ", ".join(str(row[key]) for key in ("set", "name", "kind") if row[key])
    text = f"{name}: {row['what']}"
    if row["macs"] is not None and row["macs"] != row["expected_macs"]:
        text += f"; {row['macs']} MACs, expected {row['expected_macs']} (+ {row['constants']})"
    if row["parameters"] is not None and row["parameters"] != row["expected_parameters"]:
        text += f"; {row['parameters']} parameters, expected {row['expected_parameters']}"
        text += f" or {row['held_parameters']}" if row["held_parameters"] is not None else ""
    if row["module_nodes"] is not None and row["nodes"] != row["module_nodes"]:
        text += f"; {row['nodes']} nodes, the module {row['module_nodes']}"
    text += f"; {row['others']}" if row["others"] else ""
    text += f"; in part {row['part_macs']} MACs" if row["part_macs"] else ""
    return f"{text}; {row['said']}" if row["said"] else text


if __name__ == "__main__":
    main()
