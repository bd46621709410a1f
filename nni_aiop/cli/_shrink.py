"""`nni-aiop shrink`: a trained network with fewer multiply-adds, fine-tuned and measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nni_aiop.cli._app import MOST, BadInput, KeepGoing, NothingWorked

if TYPE_CHECKING:
    from nni_aiop.networks import Calibration, Network
    from nni_aiop.search import FlopsReduction

_ORIGINAL = "original.safetensors"
_REPORT, _LAYERS = "report.md", "layers.png"


def shrink(
    model: Annotated[
        str,
        typer.Argument(help="module:function that returns the trained PyTorch module."),
    ],
    train: Annotated[
        str,
        typer.Option(
            help="module:function that fine-tunes the network that it is given, in place, and "
            "returns a number or a dict of metrics, measured on data that did not train it."
        ),
    ],
    input: Annotated[
        str, typer.Option(help="Shape of the input, the batch first, such as 1x3x224x224.")
    ] = "1x3x224x224",
    flops: Annotated[
        str,
        typer.Option(
            help="Part of the multiply-adds to stay within, such as 0.865; several, such as "
            "0.8,0.5, take turns and give a front."
        ),
    ] = "0.865",
    calibrate: Annotated[
        str | None,
        typer.Option(
            help="module:function that returns a list of (inputs, targets), a few hundred examples "
            "that neither train nor test: edits are measured on them by cross entropy, and batch "
            "normalisation is recalibrated. Without it the largest weights stay."
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="What to improve: NAME, or NAME:minimize. By default `default`."),
    ] = None,
    budget: Annotated[int, typer.Option(min=1, max=MOST, help="Number of fine-tunes.")] = 8,
    keep: Annotated[
        list[str] | None,
        typer.Option(help="A layer to leave as it is, such as head or layer1.*; repeatable."),
    ] = None,
    round_to: Annotated[
        int | None, typer.Option(min=1, help="Widths are multiples of so many channels.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of every random choice.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("out/shrink"),
    restart: Annotated[
        bool,
        typer.Option("--restart", help="Begin anew instead of going on in the folder."),
    ] = False,
    keep_going: KeepGoing = False,
) -> None:
    """Shrink a trained network and write the best for each budget, a report and pictures.

    Uniform pruning is tried first, then what a measured descent over channels, heads, branches,
    gates, kernels and forms of layers finds, then mutations of the best. Every try is fine-tuned
    by your function. The best network of each budget is written as .safetensors (for
    nni_aiop.networks.Network.load), .pt2 and .onnx. An interrupted command goes on when it is
    given again, with a larger --budget too. What is named module:function is imported and called:
    it is code.

    \b
    Examples
      nni-aiop shrink net:make --input 1x3x224x224 --flops 0.865 --train net:fine_tune
      nni-aiop shrink net:make --input 1x1x8x8 --flops 0.7,0.5 --train net:fine_tune \\
          --calibrate net:batches --keep head --budget 12 --out out/small
    """
    from nni_aiop.cli._claims import EXPERIMENT, STATE, STATES, claimed
    from nni_aiop.cli._evaluators import Watched
    from nni_aiop.cli._inputs import parse_objectives
    from nni_aiop.cli._outputs import check_folder
    from nni_aiop.cli._progress import evaluate_all, finish, report
    from nni_aiop.engines._state import read_state
    from nni_aiop.measures import FunctionMeasure
    from nni_aiop.networks import Network
    from nni_aiop.results import SearchResults
    from nni_aiop.search import FlopsReduction, Objective

    shape, budgets = _shape(input), _budgets(flops)
    objectives = parse_objectives(metric or []) or [Objective("default")]
    fine_tune = _function(train)
    names = [f"best-{share:g}.{end}" for share in budgets for end in _ENDS]
    files = (*SearchResults.FILES, EXPERIMENT, *STATES, _ORIGINAL, _REPORT, _LAYERS, *names)
    check_folder(out, files)
    stored = out / _ORIGINAL
    if stored.exists() and not restart:
        network = Network.load(stored)
    else:
        network = Network.capture(_made(model), shape)
    batches = None if calibrate is None else _call(calibrate)
    calibration = _calibration(network, batches, keep or (), round_to)
    searcher = FlopsReduction(
        calibration.space,
        budgets=budgets,
        score=calibration.loss if batches is not None else None,
        objectives=objectives,
        seed=seed,
    )
    settings = {
        "model": model,
        "train": train,
        "calibrate": calibrate,
        "input": input,
        "keep": list(keep or ()),
        "round_to": round_to,
        "seed": seed,
        "budgets": list(budgets),
        "budget": budget,
    }
    measure = FunctionMeasure(_Best(searcher, calibration, fine_tune, out))
    watch = Watched(measure, searcher, keep_going=keep_going)

    def results() -> SearchResults:
        return SearchResults(
            calibration.space, searcher.history, objectives, settings=settings, cost="flops"
        )

    same = {
        "command": "shrink",
        "fingerprint": calibration.space.fingerprint,
        "metrics": [[o.metric, o.direction] for o in objectives],
        **{name: value for name, value in settings.items() if name != "budget"},
    }
    state = out / STATE
    with claimed(out, same, kind="search", state=STATE, restart=restart):
        if not stored.exists() or restart:
            network.save(stored)
        if state.exists():
            searcher.load_state_dict(read_state(state))
        if calibrate is None:
            typer.echo("No --calibrate: the largest weights stay, and nothing is recalibrated.")
        try:
            evaluate_all(searcher, watch, budget, lambda: results().save(out), out, None)
        except NothingWorked:
            report(results(), out, watch.reasons)
            raise
        if searcher.front():
            _write(searcher, calibration, out, shape)
            typer.echo(f"The best networks, {_REPORT} and {_LAYERS} are in {out}.")
    finish(results(), out, watch)


_ENDS = ("safetensors", "pt2", "onnx")


class _Best:
    """Fine-tunes the network of a sample, and keeps the best of each budget as it was trained."""

    def __init__(
        self,
        search: FlopsReduction,
        calibration: Calibration,
        fine_tune: Callable[[Network], Any],
        out: Path,
    ) -> None:
        self._search, self._calibration = search, calibration
        self._fine_tune, self._out = fine_tune, out
        self.__qualname__ = getattr(fine_tune, "__qualname__", "the function of --train")

    def __call__(self, sample: Mapping[str, Any]) -> Any:
        from nni_aiop.measures import numbers

        network = self._calibration.edit(sample)
        found = self._fine_tune(network)
        objective = self._search.objectives[0]
        metrics = numbers(found, objective.metric)
        if objective.metric not in metrics:
            return found  # who called says what is missing
        budget = self._search.budget_of(sample)
        best = None if budget is None else self._search.best_within(budget)
        value = objective.sign * metrics[objective.metric]
        if budget is not None and (
            best is None or value > objective.sign * best[1][objective.metric]
        ):
            network.train(False)
            network.save(self._out / f"best-{budget:g}.safetensors")
        return found


def _write(
    search: FlopsReduction, calibration: Calibration, out: Path, shape: Sequence[int]
) -> None:
    """The other forms of the best networks, the report, and the picture of what was cut where."""
    from nni_aiop.files import write_atomically
    from nni_aiop.networks import Network

    whole = calibration.network
    lines = ["# Shrunk network", "", "Multiply-adds are what `--flops` counts.", ""]
    lines += [
        "| network | multiply-adds | part | parameters | peak memory (bytes) | median ms |",
        "|---|---|---|---|---|---|",
    ]
    lines.append(_row("as it was", whole, whole, shape))
    found: dict[float, Mapping[str, Any]] = {}
    for budget, (sample, metrics) in search.front().items():
        path = out / f"best-{budget:g}.safetensors"
        if not path.exists():
            continue
        network = Network.load(path)
        network.to_pt2(path.with_suffix(".pt2"))
        network.to_onnx(path.with_suffix(".onnx"))
        told = ", ".join(f"{name} {value:.6g}" for name, value in metrics.items())
        lines.append(_row(f"best within {budget:g} ({told})", network, whole, shape))
        found[budget] = calibration.space.edits(sample)
    for budget, edits in found.items():
        lines += [
            "",
            f"## Edits within {budget:g}",
            "",
            "| site | before | after |",
            "|---|---|---|",
        ]
        before = calibration.space.original
        lines += [f"| {label} | {before[label]} | {value} |" for label, value in edits.items()]
    write_atomically(out / _REPORT, "\n".join(lines) + "\n")
    _draw(calibration, found, out / _LAYERS)


def _row(name: str, network: Network, whole: Network, shape: Sequence[int]) -> str:
    graph = network.graph
    return (
        f"| {name} | {graph.macs} | {graph.macs / whole.graph.macs:.4f} | {graph.parameters} "
        f"| {graph.peak_memory()} | {_latency(network, shape)} |"
    )


def _latency(network: Network, shape: Sequence[int]) -> str:
    """Median milliseconds by onnxruntime, a dash where it is not installed."""
    import tempfile

    from nni_aiop.errors import MissingPackageError
    from nni_aiop.latency import measure_latency

    with tempfile.TemporaryDirectory() as folder:
        path = network.to_onnx(Path(folder) / "network.onnx")
        try:
            return f"{measure_latency(path, tuple(shape)).median:.3g}"
        except MissingPackageError:
            return "- (needs the extra `latency`)"


def _draw(calibration: Calibration, found: Mapping[float, Mapping[str, Any]], path: Path) -> None:
    """The kept part of every width, before and after, from the input on."""
    from nni_aiop.figures import new_figure, save_figure

    sites = [s for s in calibration.space.sites if s.counts and s.reason is None]
    figure = new_figure(9, max(2.0, 0.22 * len(sites) + 1))
    axes = figure.subplots()
    places = range(len(sites))
    axes.barh(places, [s.value for s in sites], color="0.85", label="before")
    for number, (budget, edits) in enumerate(found.items()):
        kept = [edits.get(s.label, s.value) for s in sites]
        axes.plot(kept, places, "o", ms=4, color=f"C{number}", label=f"within {budget:g}")
    axes.set_yticks(places, [s.label for s in sites], fontsize="x-small")
    axes.invert_yaxis()
    axes.set_xlabel("units kept (channels, or heads)")
    axes.legend(fontsize="x-small")
    save_figure(figure, path)


# --- input ---------------------------------------------------------------------------------------


def _shape(text: str) -> tuple[int, ...]:
    parts = text.lower().split("x")
    if len(parts) < 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise BadInput(f"an input must be a shape such as 1x3x224x224, but got {text!r:.80}.")
    return tuple(int(part) for part in parts)


def _budgets(text: str) -> tuple[float, ...]:
    found = []
    for part in text.split(","):
        try:
            share = float(part)
        except ValueError:
            share = 0.0
        if not 0 < share <= 1:
            raise BadInput(f"--flops must be parts in (0, 1], such as 0.865, but got {text!r:.80}.")
        found.append(share)
    return tuple(found)


def _function(reference: str) -> Callable[..., Any]:
    import os

    from nni_aiop.cli._inputs import import_from
    from nni_aiop.engines._references import load_object

    import_from(os.getcwd())
    found = load_object(reference)
    if not callable(found):
        raise BadInput(f"{reference!r} must be a function, but is a {type(found).__name__}.")
    return found  # type: ignore[no-any-return]


def _call(reference: str) -> Any:
    from nni_aiop.engines._references import raised

    try:
        return _function(reference)()
    except (Exception, SystemExit) as err:
        from nni_aiop.errors import AiopError

        if isinstance(err, AiopError):
            raise
        raise BadInput(f"{reference!r} must return when called, but raised {raised(err)}.") from err


def _made(reference: str) -> Any:
    from torch import nn

    if reference.endswith(".onnx"):
        raise BadInput(
            f"a network to shrink must be a PyTorch module, module:function, but got "
            f"{reference!r}: ONNX files cannot be edited yet."
        )
    module = _call(reference)
    if not isinstance(module, nn.Module):
        raise BadInput(
            f"{reference!r} must return a torch.nn.Module, but returned a {type(module).__name__}."
        )
    return module


def _calibration(
    network: Network, batches: Any, keep: Sequence[str], round_to: int | None
) -> Calibration:
    from torch import Tensor
    from torch.nn.functional import cross_entropy

    from nni_aiop.networks import Calibration

    rows = [] if batches is None else batches
    pairs = isinstance(rows, (list, tuple)) and all(
        isinstance(row, (list, tuple)) and len(row) == 2 for row in rows
    )
    if not pairs or (batches is not None and not rows):
        raise BadInput(
            f"what --calibrate names must return a list of (inputs, targets), but returned "
            f"{type(batches).__name__}."
        )

    def loss(outputs: Any, targets: Any) -> Tensor:
        return cross_entropy(outputs, targets)

    return Calibration(network, list(rows), loss, keep=keep, round_to=round_to)
