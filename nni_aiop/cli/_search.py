"""`nni-aiop search`: one search in this process, with no engine in between."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nni_aiop.cli._app import MOST, BadInput, KeepGoing, NothingWorked, Restart
from nni_aiop.cli._names import SEARCHES, names, spaces
from nni_aiop.cli._supernet import DataReference

if TYPE_CHECKING:
    from nni_aiop.search import BaseSearch


def search(
    context: typer.Context,
    space: Annotated[
        str,
        typer.Argument(
            help="A name from `spaces list`, or module:attribute.", autocompletion=spaces
        ),
    ],
    search: Annotated[
        str,
        typer.Option(
            help="ncp, random, evolution, topk, pnag or local; reduction for edits of a network.",
            autocompletion=names(*SEARCHES),
        ),
    ] = "ncp",
    evaluator: Annotated[
        str | None,
        typer.Option(
            help="digits (really trains), table, predictor, supernet, or module:function from a "
            "sample to a number or a dict of metrics; by default what --table, --predictor or "
            "--supernet says, else the space's own.",
            autocompletion=names("digits", "table", "predictor", "supernet"),
        ),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            help="A benchmark's original file, or a CSV of samples and metrics, to look up. Where "
            "it holds a part of the space, the search stays within its rows."
        ),
    ] = None,
    predictor: Annotated[
        Path | None, typer.Option(help="A file that `predictor train` wrote.")
    ] = None,
    supernet: Annotated[
        Path | None, typer.Option(help="A file that `supernet train` wrote.")
    ] = None,
    data: DataReference = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="What to improve: NAME to maximise it, NAME:minimize to minimise it; repeat it "
            "for several objectives. By default the metric `default` is maximised: a function's "
            "bare number (or what its dict calls so), the first metric of a table or a predictor, "
            "the validation accuracy of digits."
        ),
    ] = None,
    budget: Annotated[
        int,
        typer.Option(
            "--evaluations", "--budget", min=1, max=MOST, help="How many architectures to evaluate."
        ),
    ] = 40,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            help="An upper limit on an exact cost, which each architecture keeps, such as "
            "flops=2e5 or macs=2e5 (multiply-adds; the flops of a published space are its "
            "publisher's count); repeatable."
        ),
    ] = None,
    cost: Annotated[str | None, typer.Option(help="A cost to hold down, weighed by --lam.")] = None,
    lam: Annotated[float, typer.Option(help="Weight of --cost (lambda in NCP's Eq. 3).")] = 0.5,
    seed: Annotated[int, typer.Option(min=0, help="Of every random choice.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("out/search"),
    restart: Restart = False,
    keep_going: KeepGoing = False,
) -> None:
    """Search a space and write results.json, history.csv, search.png and report.html.

    A search that was interrupted, by Ctrl-C too, leaves the results so far and goes on when the
    same command is given again, with more --evaluations too. A folder that holds anything else is
    refused. An evaluation that fails is counted and left behind; where the first five fail, the
    search ends with the reason and exit code 1. What is named module:attribute is imported and
    called: it is code.

    \b
    Examples
      nni-aiop search digits --evaluations 40 --out out/digits
      nni-aiop search digits --search random --limit flops=2e5
      nni-aiop search nasbench201 --table trainval.pkl --cost flops --lam 0.3
      nni-aiop search digits --supernet out/supernets/digits.safetensors --evaluations 200
      nni-aiop search my_module:MySpace --evaluator my_module:train --metric acc \\
          --metric ms:minimize
      nni-aiop search multi_resolution --predictor out/predictor/predictor.safetensors \\
          --limit flops=3e9 --evaluations 200
    """
    from nni_aiop.cli._claims import EXPERIMENT, STATE, STATES, claimed
    from nni_aiop.cli._evaluators import Watched, make_measure, told
    from nni_aiop.cli._inputs import load_space, make_search, parse_limits, parse_objectives
    from nni_aiop.cli._keeping import take_up
    from nni_aiop.cli._outputs import check_folder, digest, the_same
    from nni_aiop.cli._progress import evaluate_all, finish, report
    from nni_aiop.cli._rows import Rows, rows_of
    from nni_aiop.results import ResultsRecorder, SearchResults
    from nni_aiop.search import Objective

    files = {"table": table, "predictor": predictor, "supernet": supernet}
    named = [name for name, file in files.items() if file is not None]
    if len(named) > 1:
        raise BadInput(
            f"a search must be given one file to measure by, but got --{' and --'.join(named)}."
        )
    if evaluator is None and named:
        (evaluator,) = named
    path = files[named[0]] if named else None
    arguments: dict[str, object] = {} if path is None else {"path": path}
    if data is not None:
        arguments["data"] = data
    if evaluator == "supernet" and ":" in space:
        arguments["supernet"] = space
    code_space = load_space(space)
    objectives = parse_objectives(metric or []) or [Objective("default")]
    limits = parse_limits(limit or [])

    def new_search() -> BaseSearch:
        return make_search(
            search,
            code_space,
            objectives=objectives,
            budget=budget,
            seed=seed,
            arguments={"limits": limits} | ({} if cost is None else {"cost": cost, "lam": lam}),
        )

    searcher = new_search()
    measure = make_measure(
        evaluator,
        code_space,
        arguments,
        *told(searcher),
    )
    watch = Watched(measure, searcher, keep_going=keep_going)
    check_folder(
        out,
        (*SearchResults.FILES, EXPERIMENT, *STATES),
        inputs={f"--{name}": file for name, file in files.items()},
    )
    if limits:  # what nothing meets is told before the folder is touched
        new_search().ask(1)
    settings = {
        "search": search,
        "evaluator": evaluator,
        "path": None if path is None else str(path),
        "budget": budget,
        "cost": cost,
        "lam": lam,
        "seed": seed,
        **({} if data is None else {"data": data}),
    }

    again = the_same(context, budget=min(MOST, 2 * budget))
    rows: Rows | None = None

    def results() -> SearchResults:
        history = searcher.history
        return SearchResults(
            code_space,
            history if rows is None else rows.looked_up(history),
            objectives,
            limits=limits,
            settings=settings | {"command_line": again},
            cost=cost if cost in code_space.costs else None,
        )

    same = {
        "command": "search",
        "space": code_space.name,
        "fingerprint": code_space.fingerprint,
        "metrics": [[o.metric, o.direction] for o in objectives],
        "limits": limits,
        **{name: value for name, value in settings.items() if name != "budget"},
    }
    if evaluator == "supernet" and path is not None:  # one that is trained anew has other labels
        same["digest"] = digest(path)
    state = out / STATE
    with claimed(out, same, kind="search", state=STATE, restart=restart):
        if state.exists():
            take_up(searcher, state)
        rows = rows_of(measure, searcher)
        recorder = ResultsRecorder(out, results)
        try:
            evaluate_all(searcher, watch, budget, recorder, out, rows)
        except NothingWorked:
            report(recorder.results(), out, watch.reasons)
            raise
    finish(recorder.results(), out, watch)
