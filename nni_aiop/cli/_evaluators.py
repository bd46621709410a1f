"""What measures a sample: real training, a published table, a predictor, or the user's function."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nni_aiop.cli._app import BadInput, bad_input
from nni_aiop.engines._nni import load_object
from nni_aiop.errors import AiopError
from nni_aiop.history import check_names
from nni_aiop.measures import FunctionMeasure, Measure, PredictedMeasure, TableMeasure
from nni_aiop.search import BaseSearch
from nni_aiop.spaces import CodeSpace, Sample

_DIGITS = ("val_accuracy", "test_accuracy", "flops", "params")
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
        name: digits, table, predictor, or `module:function`; None for the space's own.
        space: Where the samples come from.
        arguments: `path` and `metric` (which one is `default`) of the table or the predictor;
            `epochs` and `seed` of digits; any of a function.
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
        return FunctionMeasure(_function(name), **arguments)
    raise BadInput(
        f"an evaluator must be one of {', '.join(_MEASURES)} or module:function, but got {name!r}."
    )


def check_result(space: CodeSpace, metrics: Mapping[str, float], needed: Sequence[str]) -> None:
    """Refuse a result that the search could not learn from, or that its files could not hold.

    Args:
        space: Where the sample comes from.
        metrics: What a measure told of it.
        needed: What the search needs; see `BaseSearch.needed`.

    Raises:
        BadInput: A metric is missing.
        SpaceError: A metric is named as a dimension.
    """
    check_names(space, metrics)
    for name in needed:
        if name not in metrics:
            raise BadInput(
                f"the evaluator must tell the metric {name!r}, but tells {', '.join(metrics)}."
            )


class FirstResult:
    """A measure inside of an engine, which takes every exception for a failed evaluation.

    Where the first result is not what the search needs, it would fail to the end: the problem is
    kept and raised where the engine lets it pass, before the result is reported.

    Args:
        measure: What is called.
        check: Raises where metrics are not what the search needs.
    """

    def __init__(self, measure: Measure, check: Callable[[Mapping[str, float]], None]) -> None:
        self._measure = measure
        self._check = check
        self._checked = False
        self._problem: AiopError | None = None

    def __call__(self, sample: Sample) -> Mapping[str, float]:
        try:
            metrics = self._measure(sample)
        except AiopError as err:
            # A table may well lack the first samples.
            if not self._checked and isinstance(self._measure, FunctionMeasure):
                self._problem = err
            raise
        if not self._checked:
            try:
                self._check(metrics)
                self._checked = True
            except AiopError as err:  # not raised here: an engine would log it as a failure
                self._problem = err
                # The search would tell of it, too.
                warnings.filterwarnings("ignore", "a result must have", UserWarning)
        return metrics

    def before(
        self, on_result: Callable[[Sample, dict[str, float] | None], None]
    ) -> Callable[[Sample, dict[str, float] | None], None]:
        """The same function of a result, which first raises what was wrong."""

        def report(sample: Sample, metrics: dict[str, float] | None) -> None:
            if self._problem is not None:
                raise self._problem
            on_result(sample, metrics)

        return report


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


_Known = tuple[Measure, tuple[str, ...]]
"""A measure, and the metrics that it tells."""

_Make = Callable[[CodeSpace, Mapping[str, Any], Sequence[str]], _Known]
_MEASURES: dict[str, tuple[_Make, tuple[str, ...]]] = {
    "digits": (_digits, ("epochs", "seed")),
    "table": (_table, ("path", "metric")),
    "predictor": (_predictor, ("path", "metric")),
}


def _default(arguments: Mapping[str, Any], metrics: Sequence[str]) -> str | None:
    named = arguments.get("metric")
    return str(named) if named is not None else metrics[0] if metrics else None


def _function(reference: str) -> Callable[..., float | Mapping[str, float]]:
    found = load_object(reference)
    if not callable(found):
        raise BadInput(f"{reference!r} must be a function, but is a {type(found).__name__}.")
    function: Callable[..., float | Mapping[str, float]] = found
    return function
