"""What measures a sample: real training, a published table, a predictor, or the user's function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nni_aiop.benchmarks import load_table
from nni_aiop.cli._app import BadInput, bad_input
from nni_aiop.spaces import CodeSpace, Sample

Evaluate = Callable[[Sample], Mapping[str, float] | None]

_TRIED = 200  # random samples of which a table must hold one


def make_evaluate(
    name: str | None, space: CodeSpace, arguments: Mapping[str, Any], metrics: Sequence[str] = ()
) -> Evaluate:
    """The function from a sample to its metrics, among them `default`, that a name stands for.

    Args:
        name: digits, table, predictor, or `module:function`; None for what the arguments or the
            space suggest.
        space: Where the samples come from.
        arguments: `path` and `metric` (which one is `default`) of the table or the predictor;
            `epochs` and `seed` of digits; any of a function.
        metrics: Which ones there must be; the first is `default` unless the arguments name it.

    Raises:
        BadInput: The name or an argument is unknown, or does not suit the space.
    """
    if name is None:
        name = space.name if space.name in _EVALUATORS else None
    if name is None:
        raise BadInput(
            f"{space.name} cannot be trained here and needs --table or --predictor, but got none."
        )
    if name in _EVALUATORS:
        with bad_input():
            return _EVALUATORS[name](space, dict(arguments), metrics)
    if ":" in name:
        return _own(name, arguments)
    raise BadInput(
        f"an evaluator must be one of {', '.join(_EVALUATORS)} or module:function, "
        f"but got {name!r}."
    )


def _digits(space: CodeSpace, arguments: dict[str, Any], metrics: Sequence[str]) -> Evaluate:
    from nni_aiop.search_spaces import digits

    if space.fingerprint != digits.code_space().fingerprint:
        raise BadInput(f"the evaluator digits trains the space digits, but got {space.name}.")
    epochs = int(arguments.pop("epochs", digits.EPOCHS))
    seed = int(arguments.pop("seed", 0))
    _nothing_left(arguments, "digits", "epochs, seed")
    if epochs < 1:
        raise BadInput(f"epochs must be at least 1, but got {epochs}.")
    return lambda sample: digits.train_and_evaluate(sample, epochs=epochs, seed=seed)


def _table(space: CodeSpace, arguments: dict[str, Any], metrics: Sequence[str]) -> Evaluate:
    path, chosen = _file(arguments, "table")
    codes, columns = load_table(path, space)
    first = _default(path, list(columns), chosen, metrics)
    row_of = {key: i for i, key in enumerate(space.keys(space.decode_points(codes)))}

    def evaluate(sample: Sample) -> dict[str, float] | None:
        row = row_of.get(space.key(sample))
        if row is None:
            return None
        found = {name: float(column[row]) for name, column in columns.items()}
        return {"default": found[first], **found}

    if all(evaluate(s) is None for s in space.sample(_TRIED, np.random.default_rng(0))):
        raise BadInput(
            f"a table to search must hold a good part of {space.name}, but {path} has {len(codes)} "
            f"of {space.size:.3g} points: train a predictor on it and search with that."
        )
    return evaluate


def _predictor(space: CodeSpace, arguments: dict[str, Any], metrics: Sequence[str]) -> Evaluate:
    from nni_aiop.predictors import load_predictor

    path, chosen = _file(arguments, "predictor")
    predictor = load_predictor(path, space)
    first = _default(path, predictor.metrics_, chosen, metrics)

    def evaluate(sample: Sample) -> dict[str, float]:
        prediction = predictor.predict(space.encode([sample]))
        found = {name: float(prediction[name].mean[0, 0]) for name in predictor.metrics_}
        return {"default": found[first], **found}

    return evaluate


_EVALUATORS: dict[str, Callable[[CodeSpace, dict[str, Any], Sequence[str]], Evaluate]] = {
    "digits": _digits,
    "table": _table,
    "predictor": _predictor,
}


def _own(name: str, arguments: Mapping[str, Any]) -> Evaluate:
    from importlib import import_module

    module, _, attribute = name.partition(":")
    try:
        function = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as err:
        raise BadInput(f"an evaluator must be importable, but got {name!r} ({err}).") from err
    if not callable(function):
        raise BadInput(f"{name!r} must be a function, but is a {type(function).__name__}.")

    def evaluate(sample: Sample) -> Mapping[str, float]:
        found: Mapping[str, float] | float = function(sample, **arguments)
        return found if isinstance(found, Mapping) else {"default": float(found)}

    return evaluate


def _file(arguments: dict[str, Any], name: str) -> tuple[Path, str | None]:
    path, metric = arguments.pop("path", None), arguments.pop("metric", None)
    _nothing_left(arguments, name, "path, metric")
    if path is None:
        raise BadInput(f"the evaluator {name} needs the path of a file, but got none.")
    return Path(path), metric


def _default(path: Path, known: Sequence[str], chosen: str | None, metrics: Sequence[str]) -> str:
    """The metric of a file that is `default`: the chosen, else the first searched for or known."""
    wanted = [*([] if chosen is None else [chosen]), *metrics]
    for name in wanted:
        if name not in known:
            raise BadInput(f"{path} must have the metric {name!r}, but has {', '.join(known)}.")
    return [*wanted, *known][0]


def _nothing_left(arguments: Mapping[str, Any], name: str, known: str) -> None:
    if arguments:
        raise BadInput(f"the evaluator {name} takes {known}, but got {sorted(arguments)[0]!r}.")


def make_nni_evaluator(name: str, space: CodeSpace, arguments: Mapping[str, Any]) -> Any:
    """The same as an NNI Evaluator, checked at the door as `make_evaluate` does.

    Raises:
        BadInput: The name or an argument is unknown, or does not suit the space.
        MissingPackageError: NNI cannot be imported.
    """
    from nni_aiop import evaluators

    make_evaluate(name, space, arguments)
    if name == "digits":
        return evaluators.DigitsEvaluator(**arguments)
    if name == "table":
        return evaluators.TableEvaluator(**arguments)
    if name == "predictor":
        return evaluators.PredictedEvaluator(**arguments)
    return evaluators.SampleEvaluator(name, **arguments)
