"""`nni-aiop shrink`: a trained network with fewer multiply-adds, at the same quality."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nni_aiop.cli._app import MOST, BadInput, NothingWorked, Restart, bad_input, table
from nni_aiop.cli._names import names
from nni_aiop.cli._tell import answer, note

if TYPE_CHECKING:
    from nni_aiop.cli._shrink_inputs import Batch
    from nni_aiop.cli._shrinking import Shrinking
    from nni_aiop.networks import Calibration, Network
    from nni_aiop.results import ShrinkReport, Shrunk
    from nni_aiop.search import Objective
    from nni_aiop.spaces import MutationSpace


def shrink(
    context: typer.Context,
    network: Annotated[
        str,
        typer.Argument(
            help="module:function, which gives a trained torch module, or a module and calibration "
            "batches, a list of (inputs, targets); or an ONNX file, whose widths are cut alike."
        ),
    ],
    train: Annotated[
        str | None,
        typer.Option(
            help="module:function, which fine-tunes the network that it is given, in place, and "
            "returns a number or a dict of metrics."
        ),
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(
            "--input",
            help="Shape of the input, such as 1x3x224x224; several between commas. By default that "
            "of the first calibration batch; of an ONNX file its own, with a batch of one.",
        ),
    ] = None,
    flops: Annotated[
        str,
        typer.Option(
            help="The part of the FLOPs (multiply-adds) to stay within; several between commas "
            "give a front."
        ),
    ] = "0.865",
    budget: Annotated[
        int,
        typer.Option("--fine-tunes", "--budget", min=1, max=MOST, help="How many fine-tunes."),
    ] = 8,
    calibrate: Annotated[
        str | None,
        typer.Option(
            help="module:function, which gives the calibration batches; data that is neither for "
            "training nor for the test."
        ),
    ] = None,
    loss: Annotated[
        str,
        typer.Option(
            help="The loss on calibration batches: cross_entropy, mse, l1, bce (of logits), or "
            "module:function from outputs and targets.",
            autocompletion=names("cross_entropy", "mse", "l1", "bce"),
        ),
    ] = "cross_entropy",
    metric: Annotated[
        str | None,
        typer.Option(
            help="The metric to maximise, or NAME:minimize; a bare number has no need of a name."
        ),
    ] = None,
    minimise: Annotated[
        bool, typer.Option("--minimise", help="Less of the metric is better.")
    ] = False,
    keep: Annotated[
        list[str] | None,
        typer.Option(help="A layer to leave as it is, such as head or 'layer1.*'; repeatable."),
    ] = None,
    round_to: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Widths are multiples of it; by default of 8 where a layer has at least 32 "
            "channels, else of 4.",
        ),
    ] = None,
    latency: Annotated[
        float | None,
        typer.Option(
            help="The part of the latency, measured with onnxruntime on one thread, to stay within."
        ),
    ] = None,
    baseline: Annotated[
        bool,
        typer.Option(
            "--baseline",
            help="Fine-tune the network as it is, too, once, for the comparison in the report.",
        ),
    ] = False,
    seed: Annotated[
        int,
        typer.Option(
            min=0,
            max=2**32 - 1,
            help="Of every random choice, and of PyTorch's generator before each fine-tune.",
        ),
    ] = 0,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("out/shrink"),
    restart: Restart = False,
) -> None:
    """Shrink a trained network to a part of its FLOPs, and write it with a report.

    Uniform pruning is tried first, then what a descent by measured loss finds, then mutations of
    what was best; each proposal keeps its budget exactly, and is fine-tuned by the function of
    --train, whose result decides. For each budget the best network is written as .safetensors (for
    `Network.load`), .pt2 (for torch.export.load) and .onnx, beside report.html, report.md,
    front.png, layers.png and the results of the search.

    A search that was interrupted goes on when the same command is given again, with more
    --fine-tunes too; a fine-tune that was under way is run again. A fine-tune that fails is counted
    and left behind, once one has succeeded. What is named module:function is imported and called:
    it is code.

    An ONNX file is shrunk without training: every width is cut by one ratio, the largest weights
    stay, and ONNX comes out. No accuracy is measured then, and a line says so.

    \b
    Examples
      nni-aiop shrink net:make --input 1x3x224x224 --flops 0.865 --train net:fine_tune \\
          --calibrate net:batches --out out/small
      nni-aiop shrink net:make --train net:fine_tune --flops 0.8,0.65,0.5 --fine-tunes 12 --baseline
      nni-aiop shrink net:make --train net:fine_tune --metric acc --keep head --latency 0.8
      nni-aiop shrink net.onnx --flops 0.865 --out out/small
    """
    from nni_aiop.cli._claims import EXPERIMENT, STATES, claimed
    from nni_aiop.cli._outputs import check_folder, the_same
    from nni_aiop.cli._progress import Spinner
    from nni_aiop.cli._shrink_inputs import (
        load_batches,
        load_loss,
        load_model,
        load_training,
        parse_parts,
        parse_shapes,
    )
    from nni_aiop.cli._shrinking import LATENCY, NETWORKS, ORIGINAL, Shrinking, milliseconds
    from nni_aiop.networks import Network
    from nni_aiop.results import SearchResults, ShrinkReport, write_report
    from nni_aiop.search import FlopsReduction

    budgets = parse_parts(flops, "--flops")
    shapes = None if shape is None else parse_shapes(shape)
    objective = _objective(metric, minimise)
    if latency is not None and not 0 < latency <= 1:
        raise BadInput(f"--latency must be above 0 and at most 1, but got {latency}.")
    if network.endswith(".onnx"):
        from nni_aiop.cli._shrink_onnx import given_options, shrink_onnx

        report = shrink_onnx(
            Path(network),
            budgets,
            shapes,
            given=given_options(context),
            keep=keep or [],
            round_to=round_to,
            latency=latency,
            out=out,
            restart=restart,
        )
        _show(report, out)
        return
    if train is None:
        raise BadInput("--train must name a function that fine-tunes a network, but is missing.")
    fine_tune, measured_by = load_training(train), load_loss(loss)
    stems = [f"small-{part:g}.{kind}" for part in budgets for kind in _KINDS]
    own = (ORIGINAL, *ShrinkReport.FILES, *stems)
    check_folder(out, (*SearchResults.FILES, EXPERIMENT, *STATES, *own))
    module, batches = load_model(network)
    if calibrate is not None:
        batches = load_batches(calibrate)
    if batches is None:
        note(
            "Without calibration batches the largest weights choose the channels, and no edit is "
            "measured before it is fine-tuned (--calibrate names a function that gives them)."
        )
    example = shapes or _example(batches)
    with bad_input(), Spinner("Capturing the network"):
        captured = Network.capture(module, example)

    def edits_of(original: Network) -> tuple[MutationSpace, Calibration | None]:
        return _edits(original, batches, measured_by, keep or [], round_to)

    space, calibration = edits_of(captured)
    if latency is not None:
        milliseconds(captured)  # a network that cannot be measured is told of before the work
    same = {
        "command": "shrink",
        "network": network,
        "train": train,
        "input": [list(x.shape) for x in captured.example],
        "fingerprint": space.fingerprint,
        "flops": list(budgets),
        "calibrate": calibrate,
        "batches": None if batches is None else len(batches),
        "loss": loss,
        "metrics": [[objective.metric, objective.direction]],
        "keep": keep or [],
        "round_to": round_to,
        "latency": latency,
        "seed": seed,
    }
    with claimed(out, same, kind="search", state=STATES[0], restart=restart) as goes_on:
        if goes_on and (out / ORIGINAL).exists():
            original = _taken_up(out / ORIGINAL, captured)
            space, calibration = edits_of(original)
        else:
            held = [name for name in (*own, NETWORKS) if (out / name).exists()]
            if held and not (restart or goes_on):
                raise BadInput(
                    f"{out} must be empty or hold a search with the same settings, but holds "
                    f"{held[0]}: take another --out, or --restart to begin anew."
                )
            original = captured
            original.save(out / ORIGINAL)
            for file in (out / NETWORKS).glob("*.safetensors"):
                file.unlink()
        with bad_input():
            search = FlopsReduction(space, budgets=budgets, objectives=[objective], seed=seed)
        work = Shrinking(
            original, space, calibration, search, fine_tune, out, seed, latency=latency
        )
        work.load()
        again = the_same(context, budget=min(MOST, 2 * budget))

        def results() -> SearchResults:
            return SearchResults(
                space,
                search.history,
                [objective],
                limits=search.limits | ({} if latency is None else {LATENCY: latency}),
                settings=same | {"budget": budget, "command_line": again},
                cost="flops",
            )

        try:
            if baseline:
                work.measure_baseline()
            work.run(budget, lambda: results().save(out, page=False))
        except Exception:
            if not search.history:
                work.leave()
            raise
        if search.best() is None:
            reason = next(iter(work.reasons), "the space holds no network within the budgets")
            raise NothingWorked(
                f"a network must be fine-tuned with success now and then, but none of "
                f"{len(search.history)} was: {reason}"
            )
        report = _report(work, results(), budgets)
        report.save(out)
        write_report(out, space=space)
    _show(report, out)


_KINDS = ("safetensors", "pt2", "onnx")


def _objective(metric: str | None, minimise: bool) -> Objective:
    from nni_aiop.cli._inputs import parse_objectives
    from nni_aiop.search import Objective

    (objective,) = parse_objectives([metric] if metric else []) or [Objective("default")]
    return Objective(objective.metric, "minimize") if minimise else objective


def _example(batches: Sequence[Batch] | None) -> Any:
    """Inputs of one example, from the first batch."""
    from torch import Tensor

    if batches is None:
        raise BadInput(
            "--input must give the input's shape, such as 1x3x224x224, where there are no "
            "calibration batches, but is missing."
        )
    inputs = batches[0][0]
    several = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
    if not all(isinstance(x, Tensor) and x.dim() and len(x) for x in several):
        raise BadInput(
            "inputs of calibration batches must be tensors, the batch first, but got "
            f"{type(inputs).__name__}."
        )
    return tuple(x[:1].clone() for x in several)


def _edits(
    original: Network,
    batches: Sequence[Batch] | None,
    loss: Any,
    keep: Sequence[str],
    round_to: int | None,
) -> tuple[MutationSpace, Calibration | None]:
    """The edits of a network, and what measures them on batches.

    Raises:
        BadInput: The network or the loss does not take the batches.
    """
    from nni_aiop.engines._references import raised
    from nni_aiop.networks import Calibration
    from nni_aiop.spaces import MutationSpace

    if batches is None:
        sites = original.sites(keep=keep, round_to=round_to)
        return MutationSpace(original.graph, sites=sites), None
    calibration = Calibration(original, batches, loss, keep=keep, round_to=round_to)
    try:
        found = calibration.measure(original)
    except Exception as err:
        raise BadInput(
            "the network and the loss must take the calibration batches, but on them they raised "
            f"{raised(err):.300}."
        ) from err
    if not abs(found) < float("inf"):
        raise BadInput(f"the loss on the calibration batches must be finite, but is {found}.")
    return calibration.space, calibration


def _taken_up(path: Path, captured: Network) -> Network:
    """The network that the search in a folder began with."""
    import torch

    from nni_aiop.networks import Network

    original = Network.load(path)
    mine, other = original.state_dict(), captured.state_dict()
    if mine.keys() != other.keys() or not all(torch.equal(mine[k], other[k]) for k in mine):
        note(f"The network has other weights than {path}, with which the search goes on.")
    return original


def _report(work: Shrinking, results: Any, budgets: Sequence[float]) -> ShrinkReport:
    """The report of what was found, whose networks are written on the way."""
    from nni_aiop.cli._progress import Spinner
    from nni_aiop.cli._shrinking import LATENCY, export, milliseconds
    from nni_aiop.errors import FileFormatError, MissingPackageError
    from nni_aiop.networks import Network
    from nni_aiop.results import ShrinkReport, Shrunk

    found, notes = [], []
    for part in budgets:
        best = work.search.best_within(part)
        if best is None:
            notes.append(
                f"No network within {part:g} of the FLOPs was fine-tuned with success: more "
                "--fine-tunes go on."
            )
            continue
        sample, metrics = best
        small = Network.load(work.network(sample))
        times = None
        with Spinner("Writing and measuring"):
            files = export(small, work.out / f"small-{part:g}")
            try:
                before, after = milliseconds(work.original, small)
                times = (before, after)
            except (MissingPackageError, FileFormatError) as err:
                notes.append(f"Latency was not measured: {str(err).split(chr(10))[0]}")
        if work.latency is not None and metrics[LATENCY] > work.latency:
            notes.append(
                f"Within {part:g} of the FLOPs no network kept {work.latency:g} of the latency: "
                f"the best has {metrics[LATENCY]:.3g}."
            )
        found.append(Shrunk(part, sample, metrics, files, times))
    if work.calibration is None:
        notes.append("There were no calibration batches: the largest weights chose the channels.")
    failed = [metrics for _, metrics in work.search.history if metrics is None]
    if failed:
        why = "; ".join(work.reasons) or "in an earlier run"
        notes.append(f"Fine-tunes that failed: {len(failed)} of {len(results.history)}: {why}")
    return ShrinkReport(
        work.space,
        work.search.objectives[0],
        found,
        results.history,
        work.baseline,
        list(dict.fromkeys(notes)),
    )


def _show(report: ShrinkReport, out: Path) -> None:
    """Print what was found."""
    for shrunk in report.found:
        answer(f"At most {shrunk.budget:g} of the FLOPs (multiply-adds):\n")
        answer(table(["", "before", "after", "ratio"], report.rows(shrunk)) + "\n")
    for said in report.notes:
        note(said)
    files = [str(path) for shrunk in report.found for path in shrunk.files]
    answer(f"Networks: {', '.join(files)}", networks=[_record(report, one) for one in report.found])
    answer(
        f"Report: {out / 'report.html'}, {out / 'report.md'}",
        report=out / "report.md",
        page=out / "report.html",
        baseline=report.baseline,
    )


def _record(report: ShrinkReport, shrunk: Shrunk) -> dict[str, object]:
    """The same of one network for programs; latency is in milliseconds."""
    space = report.space
    codes = space.encode([space.original, space.complete(shrunk.sample)])
    costs = {name: [float(v) for v in space.cost(name, codes)] for name in ("macs", "params")}
    return {
        "budget": shrunk.budget,
        "metrics": dict(shrunk.metrics),
        **{name: {"before": pair[0], "after": pair[1]} for name, pair in costs.items()},
        "latency_ms": shrunk.latency and {"before": shrunk.latency[0], "after": shrunk.latency[1]},
        "edits": [
            {"site": site, "before": before, "after": after}
            for site, before, after in report.edits(shrunk)
        ],
        "files": list(shrunk.files),
    }
