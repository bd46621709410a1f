"""What measures a sample: real training, a published table, a predictor, or the user's function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nni_aiop.cli._app import BadInput, bad_input
from nni_aiop.engines._nni import load_object
from nni_aiop.measures import FunctionMeasure, Measure, PredictedMeasure, TableMeasure
from nni_aiop.spaces import CodeSpace

_TRIED = 200  # random samples of which a table must hold one


def make_measure(
    name: str | None, space: CodeSpace, arguments: Mapping[str, Any], metrics: Sequence[str] = ()
) -> Measure:
    """The function from a sample to its metrics, among them `default`, that a name stands for.

    Args:
        name: digits, table, predictor, or `module:function`; None for the space's own.
        space: Where the samples come from.
        arguments: `path` and `metric` (which one is `default`) of the table or the predictor;
            `epochs` and `seed` of digits; any of a function.
        metrics: Which ones there must be; the first is `default` unless the arguments name it.

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
            return make(space, arguments, metrics)
    if ":" in name:
        return FunctionMeasure(_function(name), **arguments)
    raise BadInput(
        f"an evaluator must be one of {', '.join(_MEASURES)} or module:function, but got {name!r}."
    )


def make_nni_evaluator(name: str, space: CodeSpace, arguments: Mapping[str, Any]) -> Any:
    """The same as an NNI Evaluator, checked at the door as `make_measure` does.

    Raises:
        BadInput: The name or an argument is unknown, or does not suit the space.
        MissingPackageError: NNI cannot be imported.
    """
    from nni_aiop import evaluators

    make_measure(name, space, arguments)
    if name == "digits":
        return evaluators.DigitsEvaluator(**arguments)
    if name == "table":
        return evaluators.TableEvaluator(**arguments)
    if name == "predictor":
        return evaluators.PredictedEvaluator(**arguments)
    return evaluators.SampleEvaluator(name, **arguments)


def _digits(space: CodeSpace, arguments: Mapping[str, Any], metrics: Sequence[str]) -> Measure:
    from nni_aiop.search_spaces import digits

    if space.fingerprint != digits.code_space().fingerprint:
        raise BadInput(f"the evaluator digits trains the space digits, but got {space.name}.")
    epochs = int(arguments.get("epochs", digits.EPOCHS))
    if epochs < 1:
        raise BadInput(f"epochs must be at least 1, but got {epochs}.")
    seed = int(arguments.get("seed", 0))
    return FunctionMeasure(digits.train_and_evaluate, epochs=epochs, seed=seed)


def _table(space: CodeSpace, arguments: Mapping[str, Any], metrics: Sequence[str]) -> Measure:
    path = arguments["path"]
    table = TableMeasure(path, space, _default(arguments, metrics))
    _check(metrics, table.metrics, path)
    if not any(s in table for s in space.sample(_TRIED, np.random.default_rng(0))):
        raise BadInput(
            f"a table to search must hold a good part of {space.name}, but {path} has {len(table)} "
            f"of {space.size:.3g} points: train a predictor on it and search with that."
        )
    return table


def _predictor(space: CodeSpace, arguments: Mapping[str, Any], metrics: Sequence[str]) -> Measure:
    path = arguments["path"]
    predictor = PredictedMeasure(path, space, _default(arguments, metrics))
    _check(metrics, predictor.metrics, path)
    return predictor


_Make = Callable[[CodeSpace, Mapping[str, Any], Sequence[str]], Measure]
_MEASURES: dict[str, tuple[_Make, tuple[str, ...]]] = {
    "digits": (_digits, ("epochs", "seed")),
    "table": (_table, ("path", "metric")),
    "predictor": (_predictor, ("path", "metric")),
}


def _default(arguments: Mapping[str, Any], metrics: Sequence[str]) -> str | None:
    named = arguments.get("metric")
    return str(named) if named is not None else metrics[0] if metrics else None


def _check(metrics: Sequence[str], known: Sequence[str], path: object) -> None:
    for name in metrics:
        if name not in known:
            raise BadInput(f"{path} must have the metric {name!r}, but has {', '.join(known)}.")


def _function(reference: str) -> Callable[..., float | Mapping[str, float]]:
    found = load_object(reference)
    if not callable(found):
        raise BadInput(f"{reference!r} must be a function, but is a {type(found).__name__}.")
    function: Callable[..., float | Mapping[str, float]] = found
    return function
