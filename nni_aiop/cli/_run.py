"""`nni-aiop run`: an experiment file, on NNI or on Optuna."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nni_aiop.cli._app import KeepGoing, NothingWorked, bad_input
from nni_aiop.cli._names import names
from nni_aiop.cli._tell import note
from nni_aiop.errors import MissingPackageError

if TYPE_CHECKING:
    from nni_aiop.cli._evaluators import Watched
    from nni_aiop.cli._experiment import Experiment
    from nni_aiop.search import BaseSearch
    from nni_aiop.spaces import CodeSpace, Sample


def run(
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(help="The experiment file, in YAML; it is code, see above.")
    ],
    engine: Annotated[
        str | None,
        typer.Option(
            help="auto, nni or optuna, instead of what the file says.",
            autocompletion=names("auto", "nni", "optuna"),
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Instead of the file's.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results; out/NAME-OF-THE-FILE by default.")
    ] = None,
    restart: Annotated[
        bool,
        typer.Option(
            "--restart",
            help="Begin anew instead of going on with an earlier run, whose state is deleted: in "
            "the folder, and of this experiment in the file's storage.",
        ),
    ] = False,
    keep_going: KeepGoing = False,
) -> None:
    """Run an experiment file and write results.json, history.csv, search.png and report.html.

    It runs on NNI, or on Optuna where NNI is not installed, with the same proposals for the same
    seed. A run that was interrupted goes on when it is started again. Where the first five
    evaluations fail, it ends with the reason and exit code 1.

    The file has these of NNI's fields for a NAS experiment: experimentType, experimentName,
    trialConcurrency, maxTrialNumber, trialGpuNumber, executionEngine, and trainingService with
    platform, useActiveGpu, maxTrialNumberPerGpu and gpuIndices. maxExperimentDuration,
    maxTrialDuration, experimentWorkingDirectory, logLevel and debug are read and change nothing.
    Ours are space, evaluator, strategy, engine, seed, out, port, and storage: a URL for Optuna.

    A function of your own (module:function) is called with the sample. It returns a number, or a
    dict of metrics of which the strategy's `objectives` name what to improve. Without `objectives`
    the metric `default` is maximised: a function's bare number, the first metric of a table or a
    predictor, the validation accuracy of digits.

    An experiment file is code: space and evaluator import the modules that they name, also from
    the file's folder, and call what is in them. Run only files that you trust.

    \b
    An experiment file
      experimentType: nas
      maxTrialNumber: 40
      trialConcurrency: 1
      executionEngine: {name: sequential}    # or ts: NNI's local training service
      space: digits                          # or module:Class, a model space of your own
      evaluator: {name: digits, epochs: 8}   # table, predictor or supernet (with path), or
                                             # module:function
      strategy: {name: ncp, rounds: 6}       # pnag (targets: {flops: 2.0e5}), random, evolution,
                                             # topk, local, reduction; objectives: [acc]
      engine: auto                           # nni, optuna
      seed: 0

    \b
    Examples
      nni-aiop run examples/nni_ncp_digits.yml
      nni-aiop run examples/nni_ncp_digits.yml --engine optuna --seed 1 --out out/optuna
    """
    from nni_aiop.cli._claims import EXPERIMENT, JOURNAL, STATE, STATES, claimed
    from nni_aiop.cli._experiment import read_experiment
    from nni_aiop.cli._inputs import import_from, load_space, make_search
    from nni_aiop.cli._outputs import check_folder, digest, the_same
    from nni_aiop.cli._progress import Bar, finish, report
    from nni_aiop.results import ResultsRecorder, SearchResults

    experiment = read_experiment(file, engine=engine, seed=seed)
    folder = out or experiment.out or Path("out") / file.stem
    import_from(str(file.resolve().parent))
    name = _engine(experiment)
    idle = experiment.without_effect(name)
    if idle:
        note(f"Without effect here: {', '.join(idle)}.")
    space = load_space(experiment.space)

    def new_search() -> BaseSearch:
        return make_search(
            experiment.strategy.name,
            space,
            budget=experiment.maxTrialNumber,
            seed=experiment.seed,
            arguments=experiment.strategy.arguments,
        )

    search = new_search()
    if search.limits or search.bounds:  # what nothing meets is told before an engine starts
        new_search().ask(1)
    with bad_input():
        start, watch = (_prepare_nni if name == "nni" else _prepare_optuna)(
            experiment, space, search, folder, keep_going
        )
    read = {f"the evaluator's {k}": v for k, v in experiment.evaluator.arguments.items()}
    check_folder(
        folder,
        (*SearchResults.FILES, EXPERIMENT, *STATES, "nni.log"),
        inputs={"the command": file, **{k: Path(v) for k, v in read.items() if _names_file(v)}},
    )
    progress = _Progress(search)
    again = the_same(context) | {
        "then": f"A larger maxTrialNumber in {file.name} makes the run longer; then again:"
    }
    again["more"] = again["same"]

    def results() -> SearchResults:
        return SearchResults(
            space,
            progress.history(),
            search.objectives,
            limits={**search.bounds, **search.limits},
            settings={**experiment.record, "engine": name, "command_line": again},
        )

    settings = {**experiment.identity, "engine": name}
    if experiment.evaluator.name == "supernet":  # one that is trained anew has other labels
        settings["digest"] = digest(Path(experiment.evaluator.arguments["path"]))
    state = STATE if name == "nni" else JOURNAL if experiment.storage is None else None
    with claimed(folder, settings, kind="run", state=state, restart=restart):
        if restart and name == "optuna" and experiment.storage is not None:
            _delete_study(experiment)
        recorder = ResultsRecorder(folder, results)
        with Bar(
            experiment.maxTrialNumber, search, recorder.write, folder, recorder.write_page
        ) as bar:

            def on_result(sample: Sample, metrics: dict[str, float] | None) -> None:
                progress.add(sample, metrics)
                recorder.add(sample, metrics)
                bar.step()

            try:
                start(watch.before(on_result))
            except NothingWorked:
                report(recorder.results(), folder, watch.reasons)
                raise
    finish(recorder.results(), folder, watch)


@dataclass
class _Progress:
    """What is known of a run while it goes on."""

    search: BaseSearch

    def __post_init__(self) -> None:
        self._new: dict[str, tuple[Sample, dict[str, float] | None]] = {}
        self._told: set[str] = set()
        self._looked_at = 0  # results of the search whose keys are in `_told`
        self._lock = threading.Lock()

    def add(self, sample: Sample, metrics: dict[str, float] | None) -> None:
        key = self.search.space.key(sample)
        with self._lock:
            if key not in self._told:
                self._new[key] = (sample, metrics)

    def history(self) -> list[tuple[Sample, dict[str, float] | None]]:
        """What the search was told, and what an engine has not yet told it."""
        with self._lock:
            told = self.search.history
            if len(told) < self._looked_at:  # a state that was loaded may hold less
                self._told.clear()
                self._looked_at = 0
            for sample, _ in told[self._looked_at :]:
                key = self.search.space.key(sample)
                self._told.add(key)
                self._new.pop(key, None)
            self._looked_at = len(told)
            return told + list(self._new.values())


def _engine(experiment: Experiment) -> str:
    """nni or optuna; `auto` takes Optuna where NNI cannot be imported, and says so."""
    if experiment.engine == "optuna":
        return "optuna"
    try:
        import nni_aiop.engines.nni_experiment  # noqa: F401
    except MissingPackageError as err:
        if experiment.engine == "nni":
            raise
        note(f"NNI cannot be imported ({err.__cause__}): the search runs on Optuna.")
        return "optuna"
    return "nni"


def _names_file(value: object) -> bool:
    return isinstance(value, str) and os.path.exists(value)


def _delete_study(experiment: Experiment) -> None:
    """Delete the experiment's study, and no other, from its storage, if it is there."""
    import optuna

    from nni_aiop.engines.optuna_storage import open_storage

    storage = open_storage(experiment.storage)
    name = experiment.study_name
    if storage is not None and name is not None and name in optuna.get_all_study_names(storage):
        optuna.delete_study(study_name=name, storage=storage)


OnResult = Callable[["Sample", "dict[str, float] | None"], None]
Start = Callable[[OnResult], object]
"""Runs an experiment to its end, calling the given function after each evaluation."""


def _prepare_optuna(
    experiment: Experiment, space: CodeSpace, search: BaseSearch, folder: Path, keep_going: bool
) -> tuple[Start, Watched]:
    import optuna

    from nni_aiop.cli._claims import JOURNAL
    from nni_aiop.cli._evaluators import Watched, make_measure, told
    from nni_aiop.engines.optuna_experiment import run_optuna
    from nni_aiop.engines.optuna_storage import open_storage

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # it would trace every failed trial
    given = experiment.evaluator
    made = make_measure(given.name, space, given.arguments, *told(search))
    measure = Watched(made, search, keep_going=keep_going)
    # Opened here, so that nothing is begun where it cannot be; a folder's own one is begun in it.
    storage = open_storage(experiment.storage) if experiment.storage else None

    def start(on_result: OnResult) -> None:
        run_optuna(
            space,
            measure,
            search,
            max_trials=experiment.maxTrialNumber,
            storage=storage or folder / JOURNAL,
            study_name=experiment.study_name,
            n_jobs=experiment.trialConcurrency,
            on_result=on_result,
        )

    return start, measure


def _prepare_nni(
    experiment: Experiment, space: CodeSpace, search: BaseSearch, folder: Path, keep_going: bool
) -> tuple[Start, Watched]:
    from nni_aiop.cli._evaluators import Watched, make_nni_evaluator, told
    from nni_aiop.engines.nni_experiment import run_nni
    from nni_aiop.engines.nni_strategy import SearchStrategy
    from nni_aiop.search_spaces import SPACES

    given = experiment.evaluator
    evaluator, made = make_nni_evaluator(given.name, space, given.arguments, *told(search))
    sequential = experiment.executionEngine.name == "sequential"
    measure = Watched(
        made, search, keep_going=keep_going, logs=lambda: _last_error(folder / "nni", sequential)
    )
    if sequential and hasattr(evaluator, "measure"):
        evaluator.measure = measure  # the trials of the training service measure elsewhere

    def start(on_result: OnResult) -> None:
        # What trials of the training service report is first looked at when the search is told.
        with nullcontext() if sequential else bad_input():
            run_nni(
                SPACES.get(experiment.space, experiment.space),
                evaluator,
                SearchStrategy(search),
                engine=experiment.executionEngine.name,
                max_trials=experiment.maxTrialNumber,
                concurrency=experiment.trialConcurrency,
                out_dir=folder,
                port=experiment.port,
                training_service=experiment.service,
                on_result=on_result,
                results=False,
                progress=False,
            )

    return start, measure


def _last_error(folder: Path, sequential: bool) -> str | None:
    """Where to look for what went wrong in NNI, and the last line of it."""
    if sequential:
        return f"see {folder.with_name('nni.log')}"
    logs = folder.glob("*/environments/*/trials/*/trial.stderr")
    for path in sorted(logs, key=lambda path: path.stat().st_mtime, reverse=True):
        lines = path.read_text(errors="replace").split("\n")
        told = [line for line in lines if line.strip()]
        if told:
            return f"{told[-1].strip()} (see {path})"
    return f"see {folder}"
