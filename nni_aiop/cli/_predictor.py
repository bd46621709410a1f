"""`nni-aiop predictor`: fit a predictor on a table, measure one, teach one a new task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nni_aiop.cli import _names as names
from nni_aiop.cli._app import BadInput, bad_input, help_without_command, table
from nni_aiop.cli._outputs import Overwrite, check_folder
from nni_aiop.cli._tell import Commands, answer, note
from nni_aiop.errors import AiopError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nni_aiop.graphs import ComputeGraph
    from nni_aiop.predictors import CodePredictor

predictor = Commands(
    name="predictor",
    rich_markup_mode=None,
    help="Fit a predictor on a table of measured architectures, and measure how good it is.",
)
help_without_command(predictor)

_FEWEST = 3  # networks that a task is learned from
_LEVEL = 0.8  # of the prediction intervals whose coverage is told

_FIGURES = ("results.json", "predictions.csv", "predictor.png")

Data = Annotated[
    Path,
    typer.Argument(
        help="A benchmark's original file (NAS-Bench-MR, NAS-Bench-201), or a CSV as history.csv."
    ),
]


@predictor.command()
def train(
    data: Data,
    space: Annotated[
        str,
        typer.Option(
            help="What was measured: a space from `spaces list`.", autocompletion=names.spaces
        ),
    ],
    metric: Annotated[
        list[str] | None, typer.Option(help="A column to learn; repeatable; all by default.")
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            help="gp (a Gaussian process), or ncp-mlp (the published MLP).",
            autocompletion=names.names("gp", "ncp-mlp"),
        ),
    ] = "gp",
    holdout: Annotated[
        float, typer.Option(help="Share of the rows that is kept out of the fit, to measure it.")
    ] = 0.2,
    seed: Annotated[int, typer.Option(min=0, help="Of the split and of the fit.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("out/predictor"),
    overwrite: Overwrite = False,
) -> None:
    """Fit a predictor and write predictor.safetensors, results.json, predictions.csv and a figure.

    \b
    Examples
      nni-aiop predictor train NCP/data/seg/trainval.pkl --space multi_resolution --metric mIoU
      nni-aiop predictor train out/search/history.csv --space digits --metric val_accuracy
    """
    import numpy as np

    from nni_aiop.benchmarks import load_table
    from nni_aiop.cli._inputs import complete_rows, load_space
    from nni_aiop.cli._progress import Spinner
    from nni_aiop.predictors import PREDICTORS, make_predictor

    if model not in PREDICTORS:
        raise BadInput(f"a model must be one of {', '.join(PREDICTORS)}, but got {model!r}.")
    if not 0 <= holdout < 1:
        raise BadInput(f"the held-out share must lie in [0, 1), but got {holdout}.")
    check_folder(
        out, ("predictor.safetensors", *_FIGURES), inputs={"DATA": data}, overwrite=overwrite
    )
    code_space = load_space(space)
    codes, targets = load_table(data, code_space, metric or [])
    known = complete_rows(targets, "rows")
    if not known.all():
        note(f"Left out: {(~known).sum()} of {len(known)} rows, which lack a metric")
    codes, targets = codes[known], {name: column[known] for name, column in targets.items()}
    networks = code_space.network_keys(code_space.decode_points(codes))
    _warn_of_rows(networks, targets)
    kept_out, fitted = _split(networks, holdout, np.random.default_rng(seed))
    held = len(kept_out)
    if held:
        complete_rows(
            {name: column[kept_out] for name, column in targets.items()},
            "rows held out (--holdout)",
        )
    note(f"Fitting {len(fitted)} architectures, {held} held out: {', '.join(targets)}")
    with bad_input(), Spinner(f"Fitting {model}"):
        fit = make_predictor(model, code_space, seed).fit(
            codes[fitted], {name: column[fitted] for name, column in targets.items()}
        )
    fit.save(out / "predictor.safetensors")
    if held:
        measured = {name: column[kept_out] for name, column in targets.items()}
        _measure(fit, codes[kept_out], measured, out)
    file = out / "predictor.safetensors"
    answer(f"\nThe predictor: {file}", predictor=file, fitted=len(fitted), held_out=held)


def _split(
    networks: Sequence[str], share: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows that are held out, and the others; rows of one network stay together."""
    import numpy as np

    order = rng.permutation(len(networks))
    wanted = round(share * len(order))
    rows_of: dict[str, list[int]] = {}
    for row in order.tolist():
        rows_of.setdefault(networks[row], []).append(row)
    held: list[int] = []
    for rows in rows_of.values():
        if len(held) + len(rows) <= wanted:
            held += rows
    rest = [row for row in order.tolist() if row not in {*held}]
    return np.array(held, np.int64), np.array(rest, np.int64)


def _warn_of_rows(networks: Sequence[str], targets: Mapping[str, NDArray[np.float64]]) -> None:
    """Tell of networks that stand in several rows, and of labels that are all the same."""
    repeated = len(networks) - len({*networks})
    if repeated:
        note(f"Warning: {repeated} of {len(networks)} rows repeat a network.", err=True)
    for name, column in targets.items():
        if len(column) > 1 and (column == column[0]).all():
            note(
                f"Warning: all {len(column)} values of {name} are {column[0]:g}: "
                "nothing tells networks apart.",
                err=True,
            )


@predictor.command("eval")
def evaluate(
    predictor: Annotated[Path, typer.Argument(help="A file that `predictor train` wrote.")],
    data: Data,
    space: Annotated[
        str,
        typer.Option(
            help="The space of the predictor, from `spaces list`.", autocompletion=names.spaces
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("out/predictor-eval"),
    overwrite: Overwrite = False,
) -> None:
    """Measure a predictor on a table: mean absolute error, Spearman's rank correlation, coverage.

    \b
    Example
      nni-aiop predictor eval out/predictor/predictor.safetensors out/search/history.csv \\
          --space digits
    """
    from nni_aiop.benchmarks import load_table
    from nni_aiop.cli._inputs import load_space
    from nni_aiop.predictors import load_predictor

    check_folder(out, _FIGURES, inputs={"PREDICTOR": predictor, "DATA": data}, overwrite=overwrite)
    code_space = load_space(space)
    fit = load_predictor(predictor, code_space)
    codes, targets = load_table(data, code_space, fit.metrics_)
    _measure(fit, codes, targets, out)


@predictor.command()
def adapt(
    data: Annotated[
        Path,
        typer.Argument(
            help="A CSV with the column `model` (a file .onnx or .json, as seen from the CSV, or a "
            "sample of --space as JSON) and one of measured values."
        ),
    ],
    backbone: Annotated[
        Path | None,
        typer.Option(
            help="A file of GraphPredictor.save; by default the one that comes with the package."
        ),
    ] = None,
    task: Annotated[str | None, typer.Option(help="Its column; the second one by default.")] = None,
    model: Annotated[
        str,
        typer.Option(
            help="gp or ridge (few rows), or adapter (hundreds of rows).",
            autocompletion=names.names("gp", "ridge", "adapter"),
        ),
    ] = "gp",
    space: Annotated[
        str | None,
        typer.Option(help="Of samples, from `spaces list`.", autocompletion=names.spaces),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Of an adapter.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of tasks, to which it is added.")] = Path(
        "out/tasks"
    ),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a task of that name in the folder.")
    ] = False,
) -> None:
    """Teach a graph predictor a task by a CSV of networks, for `nni-aiop predict`.

    \b
    Examples
      nni-aiop predictor adapt measured.csv
      nni-aiop predictor adapt history.csv --backbone predictor.safetensors --space nasbench201
    """
    from nni_aiop.cli._progress import Spinner
    from nni_aiop.predictors.graph import load_graph_predictor, load_shipped
    from nni_aiop.predictors.graph._tasks import MODELS, learn_task, task_files

    if model not in MODELS:
        raise BadInput(f"a model must be one of {', '.join(MODELS)}, but got {model!r}.")
    if epochs is not None and model != "adapter":
        note(f"Without effect here: --epochs, which are an adapter's, not of {model}.")
    heading, rows, name = _measured_rows(data, task)
    with bad_input():
        files = [path.name for path in task_files(out, name, model)]
    inputs = {"DATA": data, "--backbone": backbone}
    check_folder(out, files, inputs=inputs, overwrite=overwrite)
    graphs, values = _measured_networks(data, heading, rows, name, space)
    fit = load_shipped() if backbone is None else load_graph_predictor(backbone)
    with bad_input(), Spinner(f"Learning {name}"):
        learn_task(fit, name, graphs, values, out, model=model, epochs=epochs)
    answer(
        f"{name} learned from {len(graphs)} networks ({model}): {out}",
        task=name,
        networks=len(graphs),
        model=model,
        out=out,
    )


def _measured_rows(
    data: Path, task: str | None
) -> tuple[list[str], list[tuple[int, list[str]]], str]:
    """The heading and the rows of a CSV of networks, and the task: one of its columns."""
    from nni_aiop.files import read_csv_rows

    heading, rows = read_csv_rows(data)
    columns = [name for name in heading if name != "model"]
    if not columns or "model" not in heading:
        raise BadInput(
            f"{data} must have the column model and one of values, but has {heading!s:.200}."
        )
    name = task or columns[0]
    if name not in columns:
        raise BadInput(f"a column must be one of {', '.join(columns)}, but got {name!r}.")
    return heading, rows, name


def _measured_networks(
    data: Path,
    heading: Sequence[str],
    rows: Sequence[tuple[int, Sequence[str]]],
    name: str,
    space: str | None,
) -> tuple[list[ComputeGraph], list[float]]:
    """The networks of the rows, and their measured values."""
    from nni_aiop.cli._graph import read_graph
    from nni_aiop.cli._inputs import load_space
    from nni_aiop.files import brief, csv_number, parse_json

    draw = None if space is None else load_space(space).graph
    if space is not None and draw is None:
        raise BadInput(f"a space must draw the graphs of its samples, but {space} does not.")
    networks: dict[ComputeGraph, list[float]] = {}
    without = 0
    for line, row in rows:
        model, text = row[heading.index("model")], row[heading.index(name)]
        value = csv_number(text, f"{data}, line {line}, column {name!r:.80}")
        if math.isnan(value):
            without += 1
            continue
        try:
            graph = (
                read_graph(str(data.parent / model))
                if draw is None
                else draw(parse_json(model, "model"))
            )
        except (AiopError, BadInput, OSError) as err:
            raise BadInput(f"{data}, line {line}: {brief(err)}") from err
        networks.setdefault(graph, []).append(value)
    if without:
        note(f"Left out: {without} of {len(rows)} rows, which have no {name}")
    if len(networks) < _FEWEST:
        raise BadInput(
            f"at least {_FEWEST} different networks must have a value of {name}, "
            f"but {len(networks)} of {data}'s {len(rows)} rows have."
        )
    every = [value for values in networks.values() for value in values]
    repeated = len(every) - len(networks)
    if repeated:
        note(
            f"Warning: {repeated} of {len(every)} rows repeat a network, "
            "whose values are averaged.",
            err=True,
        )
    if len({*every}) == 1:
        note(
            f"Warning: all {len(every)} values of {name} are {every[0]:g}: "
            "nothing tells networks apart.",
            err=True,
        )
    return [*networks], [sum(values) / len(values) for values in networks.values()]


def _measure(
    fit: CodePredictor,
    codes: NDArray[np.float64],
    targets: dict[str, NDArray[np.float64]],
    out: Path,
) -> None:
    """Print and write how well a predictor does on (n, width) codes with (n,) measured targets."""
    from nni_aiop.cli._inputs import complete_rows
    from nni_aiop.files import write_atomically, write_json
    from nni_aiop.predictors.metrics import coverage, mae, spearman
    from nni_aiop.results import draw_prediction

    known = complete_rows(targets, "rows")
    codes = codes[known]
    targets = {name: column[known] for name, column in targets.items()}
    prediction = fit.predict(codes)
    figures = {}
    lines = ["metric,measured,predicted,std"]
    for name, measured in targets.items():
        one = prediction[name]
        mean, std = one.mean[:, 0], one.std[:, 0]
        low, high = one.interval(_LEVEL)
        figures[name] = {
            "mae": mae(measured, mean),
            "spearman": spearman(measured, mean),
            "coverage": coverage(measured, low[:, 0], high[:, 0]),
        }
        rows = zip(measured.tolist(), mean.tolist(), std.tolist(), strict=True)
        lines += [f"{name},{m!r},{p!r},{s!r}" for m, p, s in rows]
    heading = ["metric", "MAE", "Spearman", f"in {_LEVEL:.0%} interval"]
    written = [out / name for name in _FIGURES]
    answer(
        table(heading, [[name, *row.values()] for name, row in figures.items()]),
        rows=len(codes),
        level=_LEVEL,
        metrics=figures,
        results=written,
    )
    write_json(out / "results.json", {"rows": len(codes), "level": _LEVEL, "metrics": figures})
    write_atomically(out / "predictions.csv", "\n".join(lines) + "\n")
    draw_prediction(out / "predictor.png", prediction, targets, level=_LEVEL)
    note(f"\nResults: {', '.join(map(str, written))}")
