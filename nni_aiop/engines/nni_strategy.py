"""Any search as a NAS strategy of NNI.

What NNI 3.0 leaves to a strategy, and where it is handled here:

- A model is referenced weakly by the engine and loses its events when nobody else holds it: every
  submitted model is held until the run ends.
- The local training service hands parameters to trials first-in-first-out, whatever trial they
  were meant for. Only the `FinalMetric` event names the right model; the pairs recorded from it are
  what `results` and `list_models` return. `TrainingEnd` may name another model, so it is only
  counted: which models failed is settled when no trial is under way.
- An exception in a callback, NNI's own included, ends the engine's listener thread and the
  experiment hangs: ours are caught, stop the search and are raised from `run`; metrics that NNI
  would choke on are put right before it sees them.
- NNI's checkpoints cannot be resumed on the training service: the strategy writes its own state.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nni_aiop.engines._nni import importing_nni, numbers
from nni_aiop.engines._results import Result, recorded, settled
from nni_aiop.engines._state import read_state, write_state
from nni_aiop.engines.nni_space import code_space_from_nni
from nni_aiop.errors import AiopError, FileFormatError
from nni_aiop.search import Objective, Search
from nni_aiop.search._options import check_options
from nni_aiop.spaces import CodeSpace, Sample, SampleCost

with importing_nni():
    from nni.mutable import SampleValidationError
    from nni.nas.execution import ExecutionEngine
    from nni.nas.execution.event import FinalMetricEvent, ModelEventType, TrainingEndEvent
    from nni.nas.space import ExecutableModelSpace, ModelStatus
    from nni.nas.strategy import Strategy
    from nni.nas.strategy.base import StrategyStatus

__all__ = ["SearchStrategy"]

_logger = logging.getLogger(__name__)

_FORMAT = 1
_POLL = 0.5  # seconds between looks for a free worker, which NNI does not announce
_REFUSED = 100  # samples in a row that NNI's space refuses before the search is given up
_GONE = ("DONE", "STOPPED", "ERROR")  # states of NNI's manager in which no trial is under way


class SearchStrategy(Strategy):  # type: ignore[misc]
    """A strategy that evaluates what a search asks for and tells it the results.

    Trials that fail, report nothing, or whose objective is NaN or infinite count as failed; metrics
    that lack an objective end the run with an error that names both. With a
    `state` file the search can be killed at any moment and started again in the same way: results
    that were told are kept, and what was under way is evaluated first.

    Args:
        search: What makes the search from the space's CodeSpace, a class such as `RandomSearch`
            included, or a search that already is at its beginning.
        state: A JSON file that holds the state after every event. Where it exists, the search goes
            on from it.
        max_trials: Number of evaluations, those of earlier runs included, at which the strategy
            ends by itself; by default it goes on until the engine's budget or the space ends.
        example: Input of the networks, such as the shape (1, 3, 32, 32): `limits` may then name
            their exact `flops` (multiply-adds), `params` and `peak_memory`, see
            `code_space_from_nni`.
        costs: Further costs by name: functions of a sample, or each a `SampleCost`.
        on_result: Called after each evaluation with the sample (every label) and its metrics, None
            where it failed.

    Attributes:
        search_: The search, once the strategy is initialised.
        space_: Its CodeSpace.

    Example:
        >>> from nni.nas.execution import SequentialExecutionEngine
        >>> from nni.nas.space import SimplifiedModelSpace
        >>> from nni_aiop.search import RandomSearch
        >>> strategy = SearchStrategy(RandomSearch)
        >>> strategy(SimplifiedModelSpace.from_model(space, evaluator),
        ...          SequentialExecutionEngine(max_model_count=20))  # doctest: +SKIP
    """

    def __init__(
        self,
        search: Search | Callable[[CodeSpace], Search],
        *,
        state: str | os.PathLike[str] | None = None,
        max_trials: int | None = None,
        on_result: Callable[[Sample, dict[str, float] | None], None] | None = None,
        example: Any = None,
        costs: Mapping[str, SampleCost | Callable[[Sample], Any]] | None = None,
    ) -> None:
        super().__init__()
        if not (hasattr(search, "ask") or callable(search)):
            raise TypeError(f"a search, or what makes one, must be given, but got {search!r:.80}.")
        if max_trials is not None and not (isinstance(max_trials, int) and max_trials >= 1):
            raise ValueError(f"max_trials must be at least 1, but got {max_trials!r}.")
        if not (on_result is None or callable(on_result)):
            raise TypeError(f"on_result must be a function, but got {on_result!r:.80}.")
        self._is_made = hasattr(search, "ask") and not isinstance(search, type)
        if self._is_made and getattr(search, "space", None) and not (example is costs is None):
            raise ValueError("a search brings its own space, but got also example or costs.")
        check_options(search, {})
        self.search = search
        self.example = example
        self.costs = costs
        self.state = None if state is None else Path(state)
        self.max_trials = max_trials
        self.on_result = on_result
        self.search_: Any = None
        self.space_: CodeSpace | None = None
        self._results: list[Result] = []
        self._errors: list[Exception] = []
        # What is under way. Events come from another thread on the training service.
        self._changed = threading.Condition(threading.RLock())
        self._models: list[Any] = []
        self._samples: dict[int, Sample] = {}  # by the id of the model, in order of submission
        self._unsettled: dict[int, Sample] = {}
        self._ended = 0

    def extra_repr(self) -> str:
        made = self.search_ if self.search_ is not None else self.search
        return getattr(made, "__name__", type(made).__name__)

    @property
    def results(self) -> list[Result]:
        """Samples (every label) and metrics in the order in which they came; None where failed."""
        with self._changed:
            history = getattr(self.search_, "history", None)
            return list(self._results if history is None else history)

    # --- what NNI calls -------------------------------------------------------------------------

    def _initialize(
        self, model_space: ExecutableModelSpace, engine: ExecutionEngine
    ) -> ExecutableModelSpace:
        search: Any = self.search
        space = getattr(search, "space", None) if self._is_made else None
        if space is None:
            space = code_space_from_nni(model_space, example=self.example, costs=self.costs)
        self.space_ = space
        self.search_ = search if self._is_made else search(space)
        if self.state is not None and self.state.exists():
            self.load_state_dict(read_state(self.state))
        engine.register_model_event_callback(ModelEventType.FinalMetric, self._on_final)
        engine.register_model_event_callback(ModelEventType.TrainingEnd, self._on_end)
        return model_space

    def _run(self) -> None:
        left_over = deque(getattr(self.search_, "pending", list)())
        refused = 0
        while self._worker_is_free():
            sample = left_over.popleft() if left_over else self._ask()
            if sample is None:
                if not self._wait_for_event():
                    break  # nothing under way could still change the search's mind
                continue
            try:
                # A copy: NNI's NASBench101 writes into the sample that it checks.
                model = self.model_space.freeze(dict(sample))
            except SampleValidationError as err:
                refused += 1
                _logger.warning("NNI's space refuses the sample %s: %s", sample, err)
                self._settle(sample, None)
                if refused == _REFUSED:
                    raise AiopError(
                        f"NNI's space must accept what its CodeSpace allows, but refused "
                        f"{_REFUSED} samples in a row; the last: {err}."
                    ) from err
                continue
            refused = 0
            with self._changed:
                self._models.append(model)
                self._samples[id(model)] = sample
                self._unsettled[id(model)] = sample
            self.engine.submit_models(model)
        self._wait_for_the_rest()
        if self._errors:
            raise self._errors[0]

    def _cleanup(self) -> None:
        self.engine.unregister_model_event_callback(ModelEventType.FinalMetric, self._on_final)
        self.engine.unregister_model_event_callback(ModelEventType.TrainingEnd, self._on_end)

    def list_models(
        self, sort: bool = True, limit: int | None = None
    ) -> Iterator[ExecutableModelSpace]:
        """Models of the right (sample, metric) pairs, the best by the search's objectives first.

        Where the search has targets, models that keep them go before those that do not.

        Args:
            sort: Order by merit and leave out what failed; else all that ended, as they came.
            limit: Number of models.

        Raises:
            RuntimeError: The strategy has not been run.
        """
        if self._status in (StrategyStatus.INITIALIZED, StrategyStatus.EMPTY):
            raise RuntimeError("a strategy must have run before its models are listed.")
        results = self.results
        if sort:
            good = [(s, m) for s, m in results if m is not None]
            keeps = getattr(self.search_, "keeps_bounds", lambda sample, metrics: True)
            good.sort(key=lambda one: (keeps(*one), self._merit(one[1])), reverse=True)
            results = [*good]
        for sample, metrics in results[:limit]:
            if metrics is None and not self.model_space.contains(dict(sample)):
                continue  # it failed because NNI refused it
            model = self.model_space.freeze(dict(sample))
            model.status = ModelStatus.Failed if metrics is None else ModelStatus.Trained
            if metrics is not None:
                model.metrics.final = metrics.get("default", self._merit(metrics))
            yield model

    def state_dict(self) -> dict[str, Any]:
        """The search's state, in plain JSON types only."""
        if self.search_ is None:
            return {}
        with self._changed:
            return {"format": _FORMAT, "search": self.search_.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state; called between `initialize` and `run`.

        Raises:
            FileFormatError: The state is of another search, space or version.
        """
        given, state = state_dict.get("format"), state_dict.get("search")
        if given != _FORMAT or not isinstance(state, Mapping):
            raise FileFormatError(
                f"a strategy's state must have format {_FORMAT} and the search's state as a "
                f"mapping, but got format {given!r} and {state!r:.80}."
            )
        with self._changed:
            self.search_.load_state_dict(state)

    # --- asking, submitting, waiting ------------------------------------------------------------

    def _worker_is_free(self) -> bool:
        """Waits for a free worker; False when the search is over."""
        while True:
            with self._changed:
                if self._errors:
                    return False
                spent = len(self.results) + len(self._unsettled)
                if self.max_trials is not None and spent >= self.max_trials:
                    return False
            self._check_manager()
            if not self.engine.budget_available():
                return False
            if self.engine.idle_worker_available():
                return True
            with self._changed:
                self._changed.wait(_POLL)

    def _ask(self) -> Sample | None:
        with self._changed:
            asked = self.search_.ask(1)
            self._save()
        return asked[0] if asked else None

    def _wait_for_event(self) -> bool:
        """Waits until something that is under way comes in; False where nothing is."""
        with self._changed:
            if self._ended >= len(self._models) or self._errors:
                return False
            self._changed.wait(_POLL)
        self._check_manager()
        return True

    def _wait_for_the_rest(self) -> None:
        """Waits for all trials. NNI's own wait gives up a few seconds too early for the slow."""
        while self._wait_for_event():
            if self._manager_status() in _GONE:
                # Its last events may still be on their way through the channel.
                with self._changed:
                    self._changed.wait(2.0)
                break
        with self._changed:
            if not self._errors:
                # Parameters are handed out in order, so the first `_ended` models had their trial.
                begun = list(self._samples)[: self._ended]
                for key in begun:
                    if key in self._unsettled:
                        self._settle(self._unsettled[key], None, key)

    def _manager_status(self) -> str | None:
        manager = getattr(self.engine, "nodejs_binding", None)
        return None if manager is None else str(manager.get_status())

    def _check_manager(self) -> None:
        if self._manager_status() == "ERROR":
            raise AiopError(
                "NNI's manager must be running, but stopped with an error; see its log."
            )

    # --- events ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Keeps an exception away from NNI's listener thread; `_run` stops and raises it."""
        with self._changed:
            try:
                yield
            except Exception as err:  # noqa: BLE001 (raised again by `_run`)
                self._errors.append(err)
            finally:
                self._changed.notify_all()

    def _on_final(self, event: FinalMetricEvent) -> None:
        with self._guarded():
            sample = self._samples.get(id(event.model))
            if sample is None:
                return
            metrics = numbers(event.metric)
            needed: tuple[str, ...] = getattr(self.search_, "needed", ())
            if len(needed) == 1 and set(metrics) == {"default"}:  # NNI's name for a bare number
                metrics[needed[0]] = metrics["default"]
            if "default" in metrics:
                event.metric = metrics  # plain floats, which NNI accepts
            else:
                event.prevent_default()
            self._settle(sample, metrics or None, id(event.model))

    def _on_end(self, event: TrainingEndEvent) -> None:
        with self._guarded():
            if event.status == ModelStatus.Interrupted:
                return  # stopped by hand: it stays pending and is evaluated when the run goes on
            self._ended += 1
            if self._ended == len(self._models):
                for key, sample in list(self._unsettled.items()):
                    self._settle(sample, None, key)

    def _settle(
        self, sample: Sample, metrics: dict[str, float] | None, key: int | None = None
    ) -> None:
        with self._changed:
            if key is not None:
                self._unsettled.pop(key, None)
            self.search_.tell(sample, settled(metrics))
            self._results.append((sample, metrics))
            (result,) = recorded(self.search_, [(sample, metrics)])
            self._save()
        if self.on_result is not None:
            self.on_result(*result)

    def _save(self) -> None:
        if self.state is not None:
            write_state(self.state, self.state_dict())

    def _merit(self, metrics: Mapping[str, float]) -> float:
        objectives = getattr(self.search_, "objectives", (Objective("default"),))
        return sum(o.weight * o.sign * metrics[o.metric] for o in objectives)
