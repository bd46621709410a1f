"""What measures a sample: real training, a table, a predictor, a supernet, the user's function."""

from __future__ import annotations

import inspect
import math
import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nni_aiop.cli._app import BadInput, NothingWorked, bad_input, sentence
from nni_aiop.engines._references import load_object, raised
from nni_aiop.errors import AiopError
from nni_aiop.history import check_names
from nni_aiop.measures import FunctionMeasure, Measure, PredictedMeasure, TableMeasure
from nni_aiop.search import BaseSearch
from nni_aiop.spaces import CodeSpace, Sample

_DIGITS = ("val_accuracy", "test_accuracy", "flops", "params")
_FEW = 5  # evaluations that fail in a row, from the start, before a search is given up
_TRIED = 200  # random samples of which a table must hold one


def make_measure(
    name: str | None,
    space: CodeSpace,
    arguments: Mapping[str, Any],
    metrics: Sequence[str] = (),
    costs: Sequence[str] = (),
) -> Measure:
    """The function from a sample to its metrics, among them `default`, that a name stands for.

    Args:
        name: digits, table, predictor, supernet, or `module:function`; None for the space's own.
        space: Where the samples come from.
        arguments: `path` and `metric` (which one is `default`) of the table or the predictor;
            `epochs` and `seed` of digits; `path`, `supernet`, `data` and options of `Labelling` of
            a supernet; any of a function.
        metrics: Which ones there must be; the first is `default` unless the arguments name it. Of
            a function they are not known before it is called: see `check_result`.
        costs: What is to be held down: exact costs of the space, or else metrics.

    Raises:
        BadInput: The name or an argument is unknown, or does not suit the space.
        AiopError: A file or a function is not what it must be.
        OSError: A file cannot be read.
    """
    if name is None:
        if space.name not in _MEASURES:
            raise BadInput(
                f"{space.name} cannot be trained here and needs --table or --predictor, "
                "but got none."
            )
        name = space.name
    if name in _MEASURES:
        make, known = _MEASURES[name]
        for argument in arguments:
            if argument not in known:
                raise BadInput(
                    f"the evaluator {name} takes {', '.join(known)}, but got {argument!r}."
                )
        if "path" in known and "path" not in arguments:
            raise BadInput(f"the evaluator {name} needs the path of a file, but got none.")
        if not isinstance(arguments.get("path", ""), (str, os.PathLike)):
            raise BadInput(
                f"the path of the evaluator {name} must be a text, but got {arguments['path']!r}."
            )
        with bad_input():
            measure, known = make(space, arguments, metrics)
        check_names(space, known)
        for wanted in metrics:
            if wanted not in known:
                raise BadInput(f"a metric must be one of {', '.join(known)}, but got {wanted!r}.")
        held = dict.fromkeys([*space.costs, *known])
        for cost in costs:
            if cost not in held:
                raise BadInput(f"a cost must be one of {', '.join(held)}, but got {cost!r}.")
        return measure
    if ":" in name:
        check_names(space)
        return FunctionMeasure(_function(name, arguments), **arguments)
    raise BadInput(
        f"an evaluator must be one of {', '.join(_MEASURES)} or module:function, but got {name!r}."
    )


def check_result(
    space: CodeSpace,
    metrics: Mapping[str, float],
    needed: Sequence[str],
    name: str = "the evaluator",
) -> None:
    """Refuse a result that the search could not learn from, or that its files could not hold.

    Args:
        space: Where the sample comes from.
        metrics: What a measure told of it.
        needed: What the search needs; see `BaseSearch.needed`.
        name: Of what told it.

    Raises:
        BadInput: A metric is missing.
        SpaceError: A metric is named as a dimension.
    """
    check_names(space, metrics)
    given = ", ".join(metrics)
    for wanted in needed:
        if wanted not in metrics and wanted == "default":
            raise BadInput(
                f"{name} must return a number or a dict with 'default', which a search improves "
                "unless --metric, or `objectives` of an experiment file's strategy, names others, "
                f"but the numbers that it returned are {given}."
            )
        if wanted not in metrics:
            raise BadInput(f"the evaluator must tell the metric {wanted!r}, but tells {given}.")


class Watched:
    """A measure that keeps in mind why evaluations fail, and ends a search in which all of them do.

    Engines take every exception for a failed evaluation. Where a result is not what the search
    needs, or nothing succeeds at first, it would go on so to the end: the problem is kept and
    raised where the engine lets it pass, behind the report of the result.

    Args:
        measure: What is called. A bare number of a function is the search's objective, where that
            is one.
        search: What is told the results.
        keep_going: Whether to go on however many evaluations fail.
        logs: Where to look for the reason of a failure in another process.
    """

    def __init__(
        self,
        measure: Measure,
        search: BaseSearch,
        *,
        keep_going: bool,
        logs: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._measure = measure
        self._search = search
        self._name = "the evaluator"
        if isinstance(measure, FunctionMeasure):
            self._name = measure.name
            if len(search.objectives) == 1:
                measure.metric = search.objectives[0].metric
        self._logs = logs
        self._checked = False
        self._problem: AiopError | None = None
        self._why = threading.local()
        self._lock = threading.Lock()
        self.keep_going = keep_going
        self.reasons: Counter[str] = Counter()

    @property
    def quick(self) -> bool:
        """Whether an evaluation costs nothing."""
        return isinstance(self._measure, (TableMeasure, PredictedMeasure))

    def __call__(self, sample: Sample) -> Mapping[str, float]:
        """The metrics of a sample, all of those needed among them."""
        try:
            return self._measured(sample)
        except Exception as err:
            self._why.reason = sentence(err) if isinstance(err, AiopError) else raised(err)
            raise

    def attempt(self, sample: Sample) -> Mapping[str, float] | None:
        """The same, None where it failed.

        Raises:
            AiopError: The metrics are not what the search needs.
        """
        try:
            return self(sample)
        except Exception as err:
            if self._problem is not None:
                raise self._problem from err
            return None

    def _measured(self, sample: Sample) -> Mapping[str, float]:
        try:
            if isinstance(self._measure, TableMeasure) and sample not in self._measure:
                raise AiopError(f"{self._measure.path} lacks the architecture.")
            metrics = self._measure(sample)
        except SystemExit as err:  # it would end the engine
            raise AiopError(f"the evaluator must return, but left by {err!r}.") from err
        if not self._checked:
            try:
                check_result(self._search.space, metrics, self._search.needed, self._name)
            except AiopError as err:
                self._problem = err
                raise
            self._checked = True
        for name in self._search.needed:
            if name not in metrics:
                raise AiopError(f"the evaluator told no {name}, but {', '.join(metrics)}.")
            if not math.isfinite(metrics[name]):
                raise AiopError(f"the evaluator told {name} = {metrics[name]}.")
        return metrics

    def before(
        self, on_result: Callable[[Sample, dict[str, float] | None], None]
    ) -> Callable[[Sample, dict[str, float] | None], None]:
        """The same function of a result; what is wrong is raised before it, or behind it."""

        def report(sample: Sample, metrics: dict[str, float] | None) -> None:
            if self._problem is not None:
                raise self._problem
            if metrics is None:
                with self._lock:
                    self._failed()
            on_result(sample, metrics)
            failures = self.reasons.total()
            table = isinstance(self._measure, TableMeasure)  # which may well lack the first samples
            stops = not (table or self.keep_going)
            if metrics is None and failures >= _FEW and stops and self.in_vain:
                raise self.given_up(failures)

        return report

    @property
    def in_vain(self) -> bool:
        """Whether there were evaluations, and none has ever succeeded."""
        history = self._search.history
        return bool(history) and all(metrics is None for _, metrics in history)

    def _failed(self) -> None:
        reason = getattr(self._why, "reason", None) or self._logs() or "the reason is not known"
        self._why.reason = None
        self.reasons[reason] += 1

    def given_up(self, failures: int) -> NothingWorked:
        """What ends a search in which so many evaluations failed and none succeeded."""
        reason = next(iter(reversed(self.reasons)), "the reason is in the earlier output")
        first = "the first " if failures == _FEW else ""
        return NothingWorked(
            f"an evaluation must succeed now and then, but {first}{failures} failed: "
            f"{reason.rstrip('.')} (--keep-going goes on all the same)."
        )


def told(search: BaseSearch) -> tuple[list[str], list[str]]:
    """What a measure must tell a search: objectives that have a name of their own, and costs."""
    objectives = [o.metric for o in search.objectives]
    named = [name for name in objectives if name != "default"]
    return named, [name for name in search.needed if name not in objectives]


def make_nni_evaluator(
    name: str,
    space: CodeSpace,
    arguments: Mapping[str, Any],
    metrics: Sequence[str] = (),
    costs: Sequence[str] = (),
) -> tuple[Any, Measure]:
    """The same as an NNI Evaluator, and as the measure that `make_measure` made of it.

    Raises:
        BadInput: The name or an argument is unknown, or does not suit the space.
        MissingPackageError: NNI cannot be imported.
    """
    from nni_aiop import evaluators

    measure = make_measure(name, space, arguments, metrics, costs)
    if name == "digits":
        return evaluators.DigitsEvaluator(**arguments), measure
    if name == "table":
        evaluator = evaluators.TableEvaluator(**arguments)
    elif name == "predictor":
        evaluator = evaluators.PredictedEvaluator(**arguments)
    elif name == "supernet":
        evaluator = evaluators.SupernetEvaluator(**arguments)
    else:
        evaluator = evaluators.SampleEvaluator(name, **arguments)
    evaluator.measure = measure
    return evaluator, measure


def _digits(space: CodeSpace, arguments: Mapping[str, Any], metrics: Sequence[str]) -> _Known:
    from nni_aiop.search_spaces import digits

    if space.fingerprint != digits.code_space().fingerprint:
        raise BadInput(f"the evaluator digits trains the space digits, but got {space.name}.")
    epochs = int(arguments.get("epochs", digits.EPOCHS))
    if epochs < 1:
        raise BadInput(f"epochs must be at least 1, but got {epochs}.")
    seed = int(arguments.get("seed", 0))
    measure = FunctionMeasure(digits.train_and_evaluate, epochs=epochs, seed=seed)
    return measure, ("default", *_DIGITS)


def _table(space: CodeSpace, arguments: Mapping[str, Any], metrics: Sequence[str]) -> _Known:
    path = arguments["path"]
    table = TableMeasure(path, space, _default(arguments, metrics))
    if not any(s in table for s in space.sample(_TRIED, np.random.default_rng(0))):
        raise BadInput(
            f"a table to search must hold a good part of {space.name}, but {path} has {len(table)} "
            f"of {space.size:.3g} points: train a predictor on it and search with that."
        )
    return table, ("default", *table.metrics)


def _predictor(space: CodeSpace, arguments: Mapping[str, Any], metrics: Sequence[str]) -> _Known:
    path = arguments["path"]
    predictor = PredictedMeasure(path, space, _default(arguments, metrics))
    deviations = (f"{name}_std" for name in predictor.metrics)
    return predictor, ("default", *predictor.metrics, *deviations)


def _supernet(space: CodeSpace, arguments: Mapping[str, Any], metrics: Sequence[str]) -> _Known:
    from nni_aiop.cli._supernet import measure_of

    measure = measure_of(space, arguments)
    return measure, ("default", *measure.metrics)


_Known = tuple[Measure, tuple[str, ...]]
"""A measure, and the metrics that it tells."""

_Make = Callable[[CodeSpace, Mapping[str, Any], Sequence[str]], _Known]
_MEASURES: dict[str, tuple[_Make, tuple[str, ...]]] = {
    "digits": (_digits, ("epochs", "seed")),
    "table": (_table, ("path", "metric")),
    "predictor": (_predictor, ("path", "metric")),
    "supernet": (_supernet, ("path", "supernet", "data", "batches", "refit", "steps", "seed")),
}


def _default(arguments: Mapping[str, Any], metrics: Sequence[str]) -> str | None:
    named = arguments.get("metric")
    return str(named) if named is not None else metrics[0] if metrics else None


def _function(
    reference: str, arguments: Mapping[str, Any]
) -> Callable[..., float | Mapping[str, float]]:
    function: Any = load_object(reference)
    if not callable(function):
        raise BadInput(f"{reference!r} must be a function, but is a {type(function).__name__}.")
    try:
        signature = inspect.signature(function)
    except ValueError:  # of some functions written in C
        return function  # type: ignore[no-any-return]
    try:
        signature.bind({}, **arguments)
    except TypeError as err:
        given = ", ".join(["a sample", *arguments])
        raise BadInput(f"{reference!r} must take {given}, but does not: {err}.") from err
    return function  # type: ignore[no-any-return]
