"""`nni-aiop generate`: architectures for a budget, from a generator that was trained once."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nni_aiop.cli._app import MOST, BadInput, bad_input, table
from nni_aiop.cli._names import spaces
from nni_aiop.cli._supernet import DataReference
from nni_aiop.cli._tell import answer, interrupted, note, shows_bars

if TYPE_CHECKING:
    from nni_aiop.generators import ParetoGenerator
    from nni_aiop.results import SearchResults
    from nni_aiop.spaces import CodeSpace, Sample

# What trains a generator, which is then there.
_TRAINS = {"train", "metric", "label", "supernet", "data", "steps", "levels"}
_MANY = 1000  # architectures, which take more than a moment


def generate(
    context: typer.Context,
    space: Annotated[
        str,
        typer.Option(help="A name from `spaces list`, or module:attribute.", autocompletion=spaces),
    ],
    budget: Annotated[
        list[str],
        typer.Option(
            "--limit",
            "--budget",
            help="An upper limit on an exact cost of the space, which each architecture keeps, "
            "such as flops=2e6 or macs=2e6 (multiply-adds; the flops of a published space are its "
            "publisher's count); repeatable.",
        ),
    ],
    generator: Annotated[
        Path | None,
        typer.Option(
            help="The generator's file, out/generators/SPACE.safetensors by default; with --table "
            "it is trained and written first, and must not be there yet."
        ),
    ] = None,
    train: Annotated[
        Path | None,
        typer.Option(
            "--table",
            help="Train on a benchmark's original file, or on a CSV of samples and metrics; what "
            "was interrupted goes on.",
        ),
    ] = None,
    label: Annotated[
        int | None,
        typer.Option(
            min=2,
            max=MOST,
            help="Train on so many random architectures, labelled by a supernet, which is trained "
            "first; the labels are written beside the generator as a table for --table.",
        ),
    ] = None,
    supernet: Annotated[
        Path | None,
        typer.Option(
            help="The supernet of --label, out/supernets/SPACE.safetensors by default; where the "
            "file is there, nothing is trained."
        ),
    ] = None,
    data: DataReference = None,
    metric: Annotated[
        str | None, typer.Option(help="The metric of --table to maximise; its first by default.")
    ] = None,
    n: Annotated[int, typer.Option("-n", min=1, max=MOST, help="How many architectures.")] = 1,
    levels: Annotated[int, typer.Option(min=2, help="How many limits to train at.")] = 10,
    steps: Annotated[int, typer.Option(min=1, help="Updates of the generator.")] = 800,
    extrapolate: Annotated[
        bool, typer.Option(help="Allow a limit outside the range of training.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of training and of draws.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the results; by default a folder of out/generate that has the names "
            "of the space and the limits."
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Let --table replace a generator that is there, and replace results of another "
            "generator or limit in --out.",
        ),
    ] = False,
) -> None:
    """Generate architectures that keep a limit exactly, the best first, in milliseconds.

    Train once with --table or --label; the file then serves every limit. The costs to limit are
    those that --limit names, and the file serves those only. What is generated is printed, and
    lies as results.json, history.csv, search.png and report.html in the folder of the results.

    \b
    Examples
      nni-aiop generate --space nasbench201 --table nb201.csv.gz --metric c100_val \\
          --limit flops=5e7
      nni-aiop generate --space nasbench201 --limit flops=8e7 -n 5
      nni-aiop generate --space digits --label 200 --limit flops=1e5
      nni-aiop generate --space phone_space:space --limit latency_ms=40

    The last one is a module of your own, as examples/phone_space.py: a space with a further cost.
    """
    import numpy as np

    from nni_aiop.cli._inputs import complete_rows, load_space, parse_limits
    from nni_aiop.cli._outputs import check_files, check_folder, digest, the_same
    from nni_aiop.cli._progress import Spinner

    if label is not None and train is not None:
        raise BadInput("a generator must be trained with --table or --label, but got both.")
    if label is None and (supernet is not None or data is not None):
        raise BadInput("--supernet and --data must stand beside --label, but there is none.")
    limits = parse_limits(budget)
    code_space = load_space(space)
    from nni_aiop.benchmarks import load_table
    from nni_aiop.errors import SpaceError
    from nni_aiop.generators import BudgetGrid, ParetoGenerator, TrainingOptions, load_generator
    from nni_aiop.results import SearchResults
    from nni_aiop.spaces import check_limits

    check_limits(code_space, limits)
    file = generator or Path("out/generators") / f"{code_space.name}.safetensors"
    checkpoint = file.with_name(f"{file.name}.training")
    folder = out or Path("out/generate") / _named(code_space, limits)
    check_folder(folder, SearchResults.FILES, inputs={"--table": train, "--generator": file})
    if os.path.isdir(file):
        raise BadInput(f"--generator must be a file, but {file} is a folder.")
    settings: dict[str, Any] = {
        "command": "generate",
        "generator": str(file),
        "budget": dict(limits),
        "extrapolate": extrapolate,
        "seed": seed,
    }
    anew = train is not None or label is not None  # then it is none of before
    if anew:
        inputs = {"--table": train}
        check_files([file], option="--generator", inputs=inputs, overwrite=overwrite)
        check_files([checkpoint], option="--generator", inputs=inputs)
    if not overwrite and (anew or file.exists()):
        _check_kept(folder, settings | ({} if anew else {"digest": digest(file)}))
    if label is not None:
        train = _labelled(space, label, file, supernet, data, seed=seed)
    if train is None:
        if metric is not None:
            raise BadInput("--metric must stand beside a --table to train on, but there is none.")
        if not os.path.exists(file):
            raise BadInput(
                f"a generator must be trained first, with --table or --label: {file} is not there."
            )
        trained = load_generator(file, code_space)
        if set(trained.grid.names) != set(limits):
            raise BadInput(
                f"--limit must name {', '.join(trained.grid.names)}, which {file} was trained "
                f"for, but got {', '.join(limits)}: --table trains another one."
            )
    else:
        codes, columns = load_table(train, code_space, [metric] if metric else [])
        name = metric or next(iter(columns))
        known = complete_rows({name: columns[name]}, f"rows of {train}")
        note(f"Training on {known.sum()} of {len(known)} rows of {train}, {name}")
        codes, accuracy = codes[known], np.asarray(columns[name])[known]
        codes = code_space.encode_points(
            code_space.canonical_points(code_space.decode_points(codes))
        )
        costs = {name: code_space.cost(name, codes) for name in limits}
        with bad_input():
            trained = ParetoGenerator(
                code_space,
                BudgetGrid.spread(costs, levels, low=0.005, high=0.995),
                training=TrainingOptions(steps=steps),
                seed=seed,
            )
    if not extrapolate:
        try:
            trained.check_budget(limits)
        except SpaceError as err:
            raise BadInput(f"{err} --extrapolate allows it.") from err
    if train is not None:
        try:
            with bad_input():
                trained.fit(codes, accuracy, progress=shows_bars(), checkpoint=checkpoint)
        except KeyboardInterrupt:
            if checkpoint.exists():
                interrupted(f"Interrupted: the same command goes on from {checkpoint}.")
            raise
        trained.save(file)
        checkpoint.unlink()
        note(f"Generator: {file}\n")
    settings["digest"] = digest(file)
    again = the_same(context, without=_TRAINS, n=min(MOST, max(10, 2 * n)))
    if n > _MANY:
        note(f"Generating {n} architectures, which takes a while", err=True)
    with bad_input(), Spinner(f"Generating {n}"):
        found = trained.generate(limits, n, extrapolate=extrapolate, seed=seed)
    codes = code_space.encode([code_space.complete(code_space.canonical(s)) for s in found])
    costs = {name: code_space.cost(name, codes) for name in limits}
    rows: list[list[object]] = []
    told: list[dict[str, object]] = []
    for i, sample in enumerate(found):
        chosen = code_space.canonical(sample)
        own = {name: float(costs[name][i]) for name in limits}
        rows.append([i, *own.values(), ", ".join(f"{k}={v}" for k, v in chosen.items())])
        told.append({"sample": chosen, "point": code_space.to_json(sample), "costs": own})
    answer(
        table(["", *limits, "architecture"], rows),
        space=code_space.name,
        limits=limits,
        generator=file,
        architectures=told,
    )
    results = _results(trained, found, limits, settings | {"n": n, "command_line": again})
    results.save(folder)
    files = [folder / name for name in results.FILES]
    answer(f"\nResults: {', '.join(map(str, files))}", out=folder, results=files)


def _named(space: CodeSpace, limits: Mapping[str, float]) -> str:
    """The name of the folder of a budget."""
    budget = [f"{name}-{limit:g}" for name, limit in sorted(limits.items())]
    name = "-".join([space.name, *budget])
    return re.sub(r"[^\w.-]", "_", re.sub(r"e\+0*", "e", name))


def _check_kept(folder: Path, settings: Mapping[str, Any]) -> None:
    """Refuse a folder with results of something else than the same command with another -n.

    Raises:
        BadInput: It has them.
    """
    from nni_aiop.files import parse_json
    from nni_aiop.results import SearchResults

    held = [name for name in SearchResults.FILES if (folder / name).exists()]
    if not held:
        return
    try:
        path = folder / "results.json"
        kept = parse_json(path.read_text(encoding="utf-8"), str(path))["settings"]
        same = all(kept.get(name) == value for name, value in settings.items())
    except (AttributeError, LookupError, OSError, TypeError, ValueError):
        same = False
    if not same:
        raise BadInput(
            f"{folder} must be empty or hold what the same generator made for the same limits, but "
            f"holds {held[0]} of something else: take another --out, or --overwrite to replace it."
        )


def _results(
    trained: ParetoGenerator,
    found: Sequence[Sample],
    limits: Mapping[str, float],
    settings: Mapping[str, Any],
) -> SearchResults:
    """What was generated, with the evaluator's score as its metric, or else its place."""
    from nni_aiop.results import SearchResults
    from nni_aiop.search import Objective

    space = trained.space
    if trained.evaluator_ is None:
        objective = Objective("place", "minimize")
        values = [float(place) for place in range(len(found))]
    else:
        objective = Objective("score")
        codes = space.encode_points(space.settled_points(found))
        values = trained.evaluator_.score(codes, trained.grid.vector(limits)).tolist()
    history = [(s, {objective.metric: v}) for s, v in zip(found, values, strict=True)]
    return SearchResults(
        space, history, [objective], limits=limits, settings=settings, cost=next(iter(limits))
    )


def _labelled(
    space: str, n: int, generator: Path, supernet: Path | None, data: str | None, *, seed: int
) -> Path:
    """The table of labelled architectures, which is kept beside the generator for a second try."""
    from nni_aiop.cli._outputs import check_files, digest
    from nni_aiop.cli._supernet import FILES, data_for, train_file, untrained, write_labels
    from nni_aiop.measures import SupernetMeasure

    path = supernet or FILES / f"{space.replace(':', '.')}.safetensors"
    if path.exists():
        net = untrained(space, seed=0)
    else:
        net = train_file(
            space, path, data, options={}, seed=seed, overwrite=False, option="--supernet"
        )
    # Labels of another supernet, or by other data, are others.
    mark = hashlib.sha256(f"{digest(path)} {data}".encode()).hexdigest()[:8]
    labels = generator.with_name(f"{generator.stem}.labels-{n}-{seed}-{mark}.csv")
    if labels.exists():
        note(f"Labels: {labels}, which is there already")
        return labels
    check_files([labels], option="--generator")
    with bad_input():
        measure = SupernetMeasure(net, data_for(net, data), path=path)
        found = write_labels(measure, n, labels, seed=seed, best=lambda table, sample, label: None)
    note(f"Labels of {found} architectures: {labels}")
    return labels
