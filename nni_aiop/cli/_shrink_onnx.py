"""`nni-aiop shrink` of an ONNX file: every width cut alike, nothing trained, nothing measured."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from nni_aiop.cli._app import BadInput, NothingWorked, bad_input
from nni_aiop.errors import FileFormatError, GraphError, MissingPackageError

if TYPE_CHECKING:
    from nni_aiop.networks import OnnxNetwork
    from nni_aiop.results import ShrinkReport
    from nni_aiop.search import FlopsReduction
    from nni_aiop.spaces import Sample

__all__ = ["TRAINED", "UNMEASURED", "given_options", "shrink_onnx"]

TRAINED = {
    "train": "--train",
    "budget": "--fine-tunes",
    "calibrate": "--calibrate",
    "loss": "--loss",
    "metric": "--metric",
    "minimise": "--minimise",
    "baseline": "--baseline",
}
"""Options that need a network which trains, by the names of the command's parameters."""

UNMEASURED = (
    "No accuracy was measured: the largest weights chose the channels, and fine-tuning needs the "
    "framework that the network was trained in."
)

_WIDTHS = (
    "Widths and heads were cut; branches, gates, kernels and forms of layers stay in an ONNX file."
)

_TURNS = 8  # of narrower networks until one keeps the latency
_ROUNDS = 3  # of latency, the two networks in turn


def shrink_onnx(
    path: Path,
    budgets: Sequence[float],
    shapes: Sequence[tuple[int, ...]] | None,
    *,
    given: Iterable[str],
    keep: Sequence[str],
    round_to: int | None,
    latency: float | None,
    out: Path,
    restart: bool,
) -> ShrinkReport:
    """Writes the smaller networks of an ONNX file with their report, which comes back.

    Args:
        path: The file.
        budgets: Parts of the multiply-adds, the largest first.
        shapes: Of the inputs, in the order of the file.
        given: Names of the command's parameters that were given.
        keep: Layers to leave as they are.
        round_to: Widths are multiples of it.
        latency: The part of the measured latency to stay within.
        out: Folder of the results.
        restart: Whether results that are there may be overwritten.

    Raises:
        BadInput: The file is not there, an option does not fit one, or the folder holds results.
    """
    from nni_aiop.cli._progress import Spinner
    from nni_aiop.networks import OnnxNetwork
    from nni_aiop.results import ShrinkReport, Shrunk, write_report
    from nni_aiop.search import FlopsReduction
    from nni_aiop.spaces import MutationSpace

    wrong = [TRAINED[name] for name in given if name in TRAINED]
    if wrong:
        raise BadInput(
            f"an ONNX file cannot be trained here, so that {wrong[0]} must not be given with one; "
            "module:function, which gives a torch module, can be."
        )
    names = [f"small-{part:g}.onnx" for part in budgets]
    _check_folder(out, path, names, restart)
    with bad_input(), Spinner("Reading the network"):
        try:
            network = OnnxNetwork.load(path, _named(path, shapes))
            network.graph  # noqa: B018 (which says what is wrong with a shape)
        except GraphError as err:
            raise BadInput(str(err).replace("in input_shapes", "by --input")
                           .replace("input_shapes", "--input")) from err  # fmt: skip
        sites = [site for site in network.sites(keep=keep, round_to=round_to) if site.counts]
        space = MutationSpace(network.graph, sites=sites)
        search = FlopsReduction(space, budgets=budgets)
    found, notes = [], [UNMEASURED, _WIDTHS]
    for part, name in zip(budgets, names, strict=True):
        sample = search.steps.uniform(part, None)
        if sample is None:
            notes.append(
                f"No widths lie within {part:g} of the FLOPs: what can be edited has not so many."
            )
            continue
        with Spinner("Cutting and measuring"):
            small, times = network.edit(space.edits(sample)), None
            try:
                if latency is not None:
                    sample = _within(search, network, part, latency) or sample
                    small = network.edit(space.edits(sample))
                times = _milliseconds(network, small)
            except (MissingPackageError, FileFormatError) as err:
                if latency is not None:
                    raise
                notes.append(f"Latency was not measured: {str(err).split(chr(10))[0]}")
            beside = out / _data_of(name)
            beside.unlink(missing_ok=True)  # of a run before, whose results may go
            files = [small.save(out / name), *([beside] if beside.exists() else [])]
        if latency is not None and times is not None and times[1] > latency * times[0]:
            notes.append(
                f"Within {part:g} of the FLOPs the network has {times[1] / times[0]:.3g} of the "
                f"latency, not {latency:g}: cutting its widths alike did not come there."
            )
        found.append(Shrunk(part, sample, {}, files, times))
    if not found:
        raise NothingWorked(notes[-1])
    report = ShrinkReport(space, None, found, [], None, list(dict.fromkeys(notes)))
    report.save(out)
    write_report(out)
    return report


def _data_of(name: str) -> str:
    """The name of the file that holds the weights of a model which has them beside it."""
    return f"{name}.data"


def _check_folder(out: Path, source: Path, names: Sequence[str], restart: bool) -> None:
    """Refuse a folder that holds what the command would overwrite, or that is another search's."""
    from nni_aiop.cli._claims import EXPERIMENT
    from nni_aiop.cli._outputs import check_folder
    from nni_aiop.results import REPORT, ShrinkReport

    own = [*ShrinkReport.FILES_OF_CUTS, REPORT, *names, *map(_data_of, names)]
    check_folder(out, own, inputs={"the command": source})
    if (out / EXPERIMENT).exists():
        raise BadInput(f"{out} must not be the folder of a search, but is: take another --out.")
    held = [name for name in own if (out / name).exists()]
    if held and not restart:
        raise BadInput(
            f"{out} must not hold results already, but holds {held[0]}: take another --out, or "
            "--restart to overwrite them."
        )


def _named(
    path: Path, shapes: Sequence[tuple[int, ...]] | None
) -> dict[str, tuple[int, ...]] | None:
    """Shapes by the names of the inputs of a file."""
    from nni_aiop.networks.onnx import inputs_of

    if shapes is None:
        return None
    names = inputs_of(path)
    if len(shapes) != len(names):
        raise BadInput(
            f"--input must give a shape for each input of {path} ({', '.join(names)}), but gives "
            f"{len(shapes)}."
        )
    return dict(zip(names, shapes, strict=True))


def _within(
    search: FlopsReduction, network: OnnxNetwork, part: float, latency: float
) -> Sample | None:
    """The widest sample within a budget that was found to keep the latency, else the narrowest."""
    space, sample = search.steps.space, None
    for _ in range(_TURNS):
        narrower = search.steps.uniform(part, None)
        if narrower is None:
            break
        sample = narrower
        before, after = _milliseconds(network, network.edit(space.edits(sample)))
        if after <= latency * before:
            break
        part *= min(0.97, max(0.5, latency * before / after))
    return sample


def _milliseconds(network: OnnxNetwork, small: OnnxNetwork) -> tuple[float, float]:
    """The latency of both on this machine, measured in turns.

    Raises:
        MissingPackageError: onnxruntime is not installed.
        FileFormatError: The network has several inputs, or does not take images.
    """
    from nni_aiop.latency import measure_latency

    (shape,) = network.graph.input_shapes[:1]
    with tempfile.TemporaryDirectory() as folder:
        files = [x.save(Path(folder) / f"{i}.onnx") for i, x in enumerate((network, small))]
        turns = [
            [measure_latency(file, shape, warmup=3, runs=15).median for file in files]
            for _ in range(_ROUNDS)
        ]
    before, after = (min(turn[i] for turn in turns) for i in range(2))
    return before, after


def given_options(context: typer.Context) -> list[str]:
    """Names of the parameters that stand on the command line."""
    return [
        name
        for name in context.params
        if getattr(context.get_parameter_source(name), "name", "") != "DEFAULT"
    ]
