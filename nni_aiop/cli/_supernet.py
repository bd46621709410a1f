"""`nni-aiop supernet`: train the shared weights of a space, label architectures with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from nni_aiop.cli._app import MOST, BadInput, bad_input, help_without_command, table
from nni_aiop.cli._names import names
from nni_aiop.cli._outputs import Overwrite, check_files
from nni_aiop.cli._tell import Commands, answer, answer_fields, interrupted, note, shows_bars

if TYPE_CHECKING:
    from nni_aiop.measures import SupernetMeasure
    from nni_aiop.spaces import CodeSpace
    from nni_aiop.supernet import Supernet, SupernetData

supernet = Commands(
    name="supernet",
    rich_markup_mode=None,
    help="Train the shared weights of a space, and label architectures with them.",
)
help_without_command(supernet)

FILES = Path("out/supernets")
"""Where supernets lie by default, as SPACE.safetensors."""

Space = Annotated[
    str,
    typer.Argument(
        autocompletion=names("digits", "mobilenetv3", "naap", "nasbench201"),
        help="digits, mobilenetv3, naap, nasbench201, or module:attribute: an NNI ModelSpace or a "
        "Supernet of your own.",
    ),
]

DataReference: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="module:function that returns two loaders of batches (inputs, targets), for training "
        "and for validation, or a SupernetData; by default the space's own (digits has some).",
    ),
]


def untrained(name: str, seed: int | None = None) -> Supernet:
    """The supernet of a space's name, or of the user's own by `module:attribute`."""
    import os

    from nni_aiop.cli._inputs import import_from
    from nni_aiop.search_spaces import get_supernet

    import_from(os.getcwd())
    with bad_input():
        return get_supernet(name, seed=seed)


def data_for(net: Supernet, reference: str | None) -> SupernetData:
    """What a reference gives, or the supernet's own data."""
    import os
    from dataclasses import replace

    from nni_aiop.cli._inputs import import_from
    from nni_aiop.engines._references import load_object

    if reference is None:
        if net.data is None:
            raise BadInput(f"a supernet of {net.space.name} needs --data, but got none.")
        return net.data_or(None)
    import_from(os.getcwd())
    with bad_input():
        return replace(net.data_or(load_object(reference)()), name=reference)


def measure_of(space: CodeSpace, arguments: Mapping[str, Any]) -> SupernetMeasure:
    """The measure that an evaluator's arguments name.

    Args:
        space: Where the samples come from.
        arguments: `path`, and maybe `supernet`, `data`, and options of `Labelling`.
    """
    from dataclasses import replace

    from nni_aiop.measures import SupernetMeasure
    from nni_aiop.search_spaces import SUPERNETS

    options = dict(arguments)
    path, name = options.pop("path"), options.pop("supernet", None)
    reference = options.pop("data", None)
    if name is None and space.name not in SUPERNETS:
        raise BadInput(
            f"a supernet of {space.name} must be named as module:attribute, but got none."
        )
    net = untrained(space.name if name is None else str(name), seed=0)
    if net.space.fingerprint != space.fingerprint:
        raise BadInput(f"a supernet must be of {space.name}, but is of {net.space.name}.")
    with bad_input():
        labelling = replace(net.labelling, **options)
        return SupernetMeasure(net, data_for(net, reference), labelling=labelling, path=path)


def train_file(
    name: str,
    file: Path,
    reference: str | None,
    *,
    options: Mapping[str, Any],
    seed: int,
    overwrite: bool,
    option: str = "--out",
) -> Supernet:
    """A trained supernet, which is now in the file; what was interrupted goes on.

    Args:
        name: Of the space, or module:attribute.
        file: Where to.
        reference: To the data, where the space has none.
        options: Of `SupernetTraining`; those that are None are the supernet's own.
        seed: Of weights and training.
        overwrite: Whether a file that is there is replaced.
        option: What names the file.
    """
    from dataclasses import replace

    from nni_aiop.supernet import train_supernet

    checkpoint = file.with_name(f"{file.name}.training")
    check_files([file], option=option, overwrite=overwrite)
    check_files([checkpoint], option=option)
    net = untrained(name, seed)
    data = data_for(net, reference)
    with bad_input():
        given = {k: v for k, v in options.items() if v is not None}
        recipe = replace(net.recipe, seed=seed, **given)
    try:
        with bad_input():
            losses = train_supernet(net, data, recipe, progress=shows_bars(), checkpoint=checkpoint)
    except KeyboardInterrupt:
        if checkpoint.exists():
            interrupted(f"Interrupted: the same command goes on from {checkpoint}.")
        raise
    except FloatingPointError as err:
        raise BadInput(str(err)) from err
    net.save(file)
    checkpoint.unlink(missing_ok=True)
    shown = f"Supernet: {file} (loss {losses[-1]:.4g}, epochs: {len(losses)})"
    answer(shown, supernet=file, losses=losses)
    return net


def write_labels(
    measure: SupernetMeasure,
    n: int,
    file: Path,
    *,
    seed: int,
    best: Callable[[str, dict[str, Any], float], None],
) -> int:
    """Labels random architectures, all different, into a CSV; how many there are.

    Args:
        measure: What labels.
        n: How many; fewer where the space has no more.
        file: Where to.
        seed: Of the architectures.
        best: Is told of the best: a table, its sample, its label.
    """
    import numpy as np
    from tqdm import tqdm

    from nni_aiop.history import check_names, write_history

    space = measure.space
    check_names(space, measure.metrics)
    rng = np.random.default_rng(seed)
    chosen: dict[str, Any] = {}
    for _ in range(20):
        for sample in space.sample(n, rng):
            if len(chosen) < n:
                chosen.setdefault(space.key(sample), sample)
        if len(chosen) == n:
            break
    name = measure.metrics[0]
    samples = list(chosen.values())
    bar = tqdm(samples, unit="network", disable=None if shows_bars() else True)
    labels = [measure(sample)[name] for sample in bar]
    write_history(file, space, samples, {name: np.array(labels)})
    if np.isnan(labels).all():
        raise BadInput(f"a label must be a number, but those of all in {file} are none.")
    first = int(np.nanargmax(labels))
    chosen_sample = space.canonical(samples[first])
    rows = [*chosen_sample.items(), (name, float(labels[first]))]
    best(table(["dimension", "value"], rows), chosen_sample, float(labels[first]))
    return len(samples)


@supernet.command()
def train(
    space: Space,
    out: Annotated[
        Path | None,
        typer.Option(help="The supernet's file, out/supernets/SPACE.safetensors by default."),
    ] = None,
    data: DataReference = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the data.")] = None,
    sampling: Annotated[
        str | None,
        typer.Option(
            help="sandwich, fair or uniform: the networks of a step.",
            autocompletion=names("sandwich", "fair", "uniform"),
        ),
    ] = None,
    count: Annotated[
        int | None, typer.Option(min=1, help="How many networks are drawn for a step.")
    ] = None,
    distill: Annotated[
        bool | None,
        typer.Option("--distill/--no-distill", help="The largest network teaches the others."),
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="At its peak.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, batches and networks.")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Train a supernet and write its weights; what was interrupted goes on.

    The options that are left out are the space's own.

    \b
    Examples
      nni-aiop supernet train digits
      nni-aiop supernet train nasbench201 --data my_module:cifar100 --epochs 50 --sampling fair
    """
    file = out or FILES / f"{space.replace(':', '.')}.safetensors"
    options = {
        "epochs": epochs,
        "sampling": sampling,
        "count": count,
        "distill": distill,
        "learning_rate": learning_rate,
    }
    train_file(space, file, data, options=options, seed=seed, overwrite=overwrite)


@supernet.command()
def label(
    space: Space,
    file: Annotated[
        Path | None,
        typer.Option(
            "--supernet",
            help="What `supernet train` wrote, out/supernets/SPACE.safetensors by default.",
        ),
    ] = None,
    n: Annotated[int, typer.Option("-n", min=1, max=MOST, help="How many architectures.")] = 100,
    out: Annotated[Path, typer.Option(help="The table, a CSV as history.csv.")] = Path(
        "out/labels.csv"
    ),
    data: DataReference = None,
    steps: Annotated[
        int | None,
        typer.Option(min=0, help="Steps of training of each network before it is measured."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the architectures.")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Label random architectures with a supernet, for whatever takes a table.

    \b
    Examples
      nni-aiop supernet label digits -n 200 --out labels.csv
      nni-aiop predictor train labels.csv --space digits
    """
    from dataclasses import replace

    from nni_aiop.measures import SupernetMeasure

    path = file or FILES / f"{space.replace(':', '.')}.safetensors"
    check_files([out], option="--out", inputs={"--supernet": path}, overwrite=overwrite)
    if file is None and not path.exists():
        raise BadInput(
            f"a supernet must be trained first, by `nni-aiop supernet train {space}`: "
            f"{path} is not there."
        )
    net = untrained(space, seed=0)
    how = None if steps is None else replace(net.labelling, steps=steps)
    with bad_input():
        measure = SupernetMeasure(net, data_for(net, data), labelling=how, path=path)
        found = write_labels(
            measure,
            n,
            out,
            seed=seed,
            best=lambda shown, sample, value: answer(shown + "\n", best=sample, label=value),
        )
    note(f"Labels of {found} architectures: {out}")
    answer_fields(labels=out, architectures=found)
