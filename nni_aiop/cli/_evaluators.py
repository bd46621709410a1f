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
        arguments: `path` of the table or the predictor; `epochs` and `seed` of digits.
        metrics: Which ones are searched for, the first as `default`; all by default.

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
    path = _path(arguments, "table")
    codes, columns = load_table(path, space)
    for name in metrics:
        if name not in columns:
            raise BadInput(f"{path} must have the metric {name!r}, but has {', '.join(columns)}.")
    row_of = {key: i for i, key in enumerate(space.keys(space.decode_points(codes)))}
    first = next(iter([*metrics, *columns]))

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

    path = _path(arguments, "predictor")
    predictor = load_predictor(path, space)
    for name in metrics:
        if name not in predictor.metrics_:
            raise BadInput(
                f"{path} must predict {name!r}, but predicts {', '.join(predictor.metrics_)}."
            )
    names = [*metrics, *(m for m in predictor.metrics_ if m not in metrics)]

    def evaluate(sample: Sample) -> dict[str, float]:
        prediction = predictor.predict(space.encode([sample]))
        found = {name: float(prediction[name].mean[0, 0]) for name in names}
        return {"default": found[names[0]], **found}

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


def _path(arguments: dict[str, Any], name: str) -> Path:
    given = arguments.pop("path", None)
    _nothing_left(arguments, name, "path")
    if given is None:
        raise BadInput(f"the evaluator {name} needs the path of a file, but got none.")
    return Path(given)


def _nothing_left(arguments: Mapping[str, Any], name: str, known: str) -> None:
    if arguments:
        raise BadInput(f"the evaluator {name} takes {known}, but got {sorted(arguments)[0]!r}.")
