"""Running a search on NNI from Python, so that nothing is left behind.

NNI's manager, which the local training service needs, listens on all network interfaces of the
machine and asks nobody for a password: whoever reaches its port can read the experiment and start
commands through it. Run it behind a firewall. It is stopped when the run ends, by whatever end: by
itself, by an exception, by Ctrl-C or SIGTERM; and a second process stops it after a SIGKILL.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from nni_aiop.engines._folder_lock import locked
from nni_aiop.engines._nni import importing_nni, nni_log
from nni_aiop.engines._progress import EvaluationBar, log_result
from nni_aiop.engines._references import made
from nni_aiop.engines._results import Result, check_results, save_results
from nni_aiop.engines.nni_strategy import SearchStrategy
from nni_aiop.errors import AiopError, SpaceError
from nni_aiop.spaces import Sample

with importing_nni():
    import nni.trial
    from nni.experiment import launcher, rest
    from nni.nas.evaluator import Evaluator
    from nni.nas.execution import SequentialExecutionEngine
    from nni.nas.experiment import NasExperiment, NasExperimentConfig
    from nni.nas.space import BaseModelSpace, SimplifiedModelSpace

    from nni_aiop.engines import _nni_reaper

__all__ = ["run_nni"]

_logger = logging.getLogger(__name__)

_PATIENCE = 20.0  # seconds that NNI's manager gets to stop by itself
_STARTING = 60  # seconds that it gets to answer for the first time


def run_nni(
    space: str | type | BaseModelSpace,
    evaluator: Evaluator,
    strategy: SearchStrategy,
    *,
    engine: Literal["sequential", "ts"] = "sequential",
    max_trials: int,
    concurrency: int = 1,
    out_dir: str | os.PathLike[str],
    port: int | None = None,
    training_service: Mapping[str, Any] | None = None,
    on_result: Callable[[Sample, dict[str, float] | None], None] | None = None,
    results: bool = True,
    progress: bool = True,
) -> list[Result]:
    """Samples (every label) and metrics (None where failed) of `max_trials` evaluations.

    Called again with the same `out_dir`, also after a SIGKILL, it goes on where it was: results
    are kept, and what was under way is evaluated first.

    Args:
        space: An NNI ModelSpace, its class, or the text `module:attribute` that leads to either.
        evaluator: What measures a model; on the training service it must be traced (`nni.trace`)
            and importable, and have scalar arguments.
        strategy: What proposes. Its `max_trials` and `on_result` give way to those given here, and
            its `state` is `out_dir/state.json` unless it has one.
        engine: "sequential" evaluates in this process, about a millisecond beside the evaluation
            itself; "ts" runs every trial as a process of the local training service, some seconds
            each, several at once.
        max_trials: Number of evaluations, those of earlier runs included.
        concurrency: Number of trials at once; 1 on the sequential engine.
        out_dir: Folder for the state, the results, the log (a line for each evaluation, beside
            NNI's) and NNI's own files; it is made where missing.
        port: Of NNI's manager; a free one by default. Not used by the sequential engine.
        training_service: Fields of NNI's `LocalConfig`, such as `use_active_gpu`, and
            `trial_gpu_number`. Not used by the sequential engine.
        on_result: Called after each evaluation.
        results: Whether to leave results.json, history.csv and search.png in `out_dir`.
        progress: Whether a terminal shows a bar.

    Raises:
        ValueError: The engine is unknown, or `concurrency` does not suit it.
        SpaceError: `space` is not an NNI ModelSpace.
        FileFormatError: `out_dir` holds the state of another search or space.
        AiopError: Another process runs in `out_dir`, or it holds results of something else; NNI's
            manager stopped with an error, the port is not free, or the evaluator cannot get ready.
    """
    if engine not in ("sequential", "ts"):
        raise ValueError(f"engine must be sequential or ts, but got {engine!r}.")
    if concurrency < 1 or (engine == "sequential" and concurrency > 1):
        raise ValueError(
            f"the engine {engine} must have concurrency "
            f"{'1' if engine == 'sequential' else 'of at least 1'}, but got {concurrency}."
        )
    model_space = _model_space(space)
    if hasattr(evaluator, "prepare"):
        evaluator.prepare(model_space)
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    strategy.max_trials = max_trials
    strategy.state = strategy.state or out / "state.json"
    if results:
        check_results(out, strategy.state)
    told = on_result or strategy.on_result
    with (
        locked(out),
        nni_log(out / "nni.log"),
        _ended_by_sigterm(),
        _results_saved(strategy, out, results, engine=engine, max_trials=max_trials),
        EvaluationBar(max_trials, _Searching(strategy), shown=progress) as bar,
    ):

        def report(sample: Sample, metrics: dict[str, float] | None) -> None:
            log_result(strategy.search_, max_trials, sample, metrics)
            bar.step()
            if told is not None:
                told(sample, metrics)

        strategy.on_result = report
        if engine == "sequential":
            _run_here(model_space, evaluator, strategy)
        else:
            config = NasExperimentConfig("ts", "simplified", "local")
            config.trial_concurrency = concurrency
            config.experiment_working_directory = str((out / "nni").resolve())
            for name, value in (training_service or {}).items():
                on_top = name == "trial_gpu_number"
                setattr(config if on_top else config.training_service, name, value)
            _run_in_trials(_Experiment(model_space, evaluator, strategy, config), port)
    return strategy.results


class _Searching:
    """A strategy's search, which is made when the strategy is run."""

    def __init__(self, strategy: SearchStrategy) -> None:
        self._strategy = strategy

    def __getattr__(self, name: str) -> Any:
        return getattr(self._strategy.search_, name)


@contextlib.contextmanager
def _results_saved(
    strategy: SearchStrategy, out: Path, wanted: bool, **settings: Any
) -> Iterator[None]:
    """What the block found is saved behind it, by whatever exception it ends."""
    try:
        yield
    finally:
        if wanted:
            search = strategy.search_
            more = {"search": type(search).__name__, "seed": getattr(search, "seed", None)}
            save_results(search, out, {**settings, **more})


def _model_space(given: str | type | BaseModelSpace) -> BaseModelSpace:
    found: Any = made(given)
    if not isinstance(found, BaseModelSpace):
        raise SpaceError(f"{given!r} must be an NNI ModelSpace, but is a {type(found).__name__}.")
    return found


def _run_here(space: BaseModelSpace, evaluator: Evaluator, strategy: SearchStrategy) -> None:
    # NNI keeps the last trial's parameter and goes on believing that it is inside a trial.
    before = nni.trial._params, nni.trial._intermediate_seq
    try:
        strategy(
            SimplifiedModelSpace.from_model(space, evaluator),
            SequentialExecutionEngine(continue_on_failure=True),
        )
    finally:
        nni.trial._params, nni.trial._intermediate_seq = before


class _Experiment(NasExperiment):  # type: ignore[misc]
    """NNI's experiment with a manager that finds the modules of this process, and ends."""

    _proc: subprocess.Popen[bytes] | None
    port: int | None

    def _start_nni_manager(self, *args: Any, **kwargs: Any) -> None:
        # Trials inherit the manager's environment: what is importable here is importable there.
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join(p or os.getcwd() for p in sys.path)
        # NNI takes a manager that does not answer within three seconds for dead, and kills it: on a
        # busy machine none would ever start.
        check = launcher._check_rest_server
        launcher._check_rest_server = partial(check, retry=_STARTING)
        try:
            super()._start_nni_manager(*args, **kwargs)
        finally:
            launcher._check_rest_server = check
            if before is None:
                del os.environ["PYTHONPATH"]
            else:
                os.environ["PYTHONPATH"] = before

    def _stop_nni_manager(self) -> None:
        if self._proc is not None:
            try:
                rest.delete(self.port, "/experiment", self.url_prefix)
                self._proc.wait(_PATIENCE)
            except Exception:  # whatever it was, the manager has to go
                _logger.warning("NNI's manager did not stop by itself.", exc_info=True)
        _nni_reaper.stop_managers_of(self.id)
        self.port = None
        self._proc = None


def _run_in_trials(experiment: _Experiment, port: int | None) -> None:
    port = _free_port(port)
    reaper = subprocess.Popen(
        [sys.executable, _nni_reaper.__file__, str(os.getpid()), experiment.id],
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # a Ctrl-C in the terminal is not meant for it
    )
    try:
        experiment.start(port)
    finally:
        with _deaf():
            try:
                experiment.stop()
            finally:
                _nni_reaper.stop_managers_of(experiment.id)
                reaper.terminate()
                reaper.wait()


def _free_port(wanted: int | None) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as NNI's manager will
        try:
            probe.bind(("", wanted or 0))
        except OSError as err:
            raise AiopError(f"the port must be free, but {wanted} is not: {err}.") from err
        return int(probe.getsockname()[1])


class _Terminated(KeyboardInterrupt):
    """SIGTERM. A KeyboardInterrupt, because NNI takes every other exception for a failed trial."""


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM leaves the block as an exception does, and is passed on behind it."""
    before = signal.getsignal(signal.SIGTERM)
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or before in (signal.SIG_IGN, None):  # None: set by a C library
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise _Terminated

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    except _Terminated:
        signal.signal(signal.SIGTERM, before)
        signal.raise_signal(signal.SIGTERM)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Neither SIGTERM nor Ctrl-C disturbs the block, which is short."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {n: signal.signal(n, signal.SIG_IGN) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
