"""CodeSpace and Optuna's distributions, one as the other, and suggestion of any space.

A parameter holds the value itself wherever Optuna can store it, so that `study.best_params` reads
as a sample does. Optuna stores numbers and plain choices: a tuple would come back as a list, and
`True` beside `1` as either. There the parameter holds the name of the value's place instead;
`sample_of` and `params_of` translate both ways.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any
from weakref import WeakKeyDictionary

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import BaseTrial, FrozenTrial

from nni_aiop.engines._optuna_parameters import _MAX_GRID, Parameter, _plain, _same, parameters_of
from nni_aiop.engines._ordered import is_ordered
from nni_aiop.errors import SpaceError
from nni_aiop.spaces import (
    CodeSpace,
    Condition,
    Continuous,
    Dimension,
    Nominal,
    Ordinal,
    Sample,
    Value,
)

__all__ = [
    "code_space_from_distributions",
    "distributions_of",
    "params_of",
    "sample_of",
    "suggest",
    "suggest_nni",
]


def distributions_of(space: CodeSpace) -> dict[str, BaseDistribution]:
    """For each label of the space a distribution that every Optuna sampler and storage handles.

    Evenly spaced numbers are ranges with a step, other scalars are choices, and anything else is a
    choice between names. A subset is a choice between its combinations, a continuous dimension of
    another shape than Optuna's its quantile.
    """
    return {label: p.distribution for label, p in parameters_of(space).items()}


def params_of(sample: Mapping[str, Value], space: CodeSpace) -> dict[str, Any]:
    """The sample as Optuna parameters, for `study.enqueue_trial`.

    Raises:
        SpaceError: A label is unknown or a value is not one of its dimension's.
    """
    parameters = parameters_of(space)
    space.points([sample])  # refuses strangers with a sentence
    return {label: parameters[label].to_param(value) for label, value in sample.items()}


def sample_of(trial: FrozenTrial, space: CodeSpace) -> Sample:
    """The sample that a trial evaluated: its active labels; those never suggested at their default.

    Raises:
        SpaceError: The trial has a value that the space does not have.
    """
    sample: Sample = {}
    for label, parameter in parameters_of(space).items():
        if label in trial.params:
            try:
                sample[label] = parameter.read(trial.params[label], trial.distributions[label])
            except LookupError as err:
                raise SpaceError(
                    f"{label!r} must be one of {parameter.dimension.describe()}, "
                    f"but trial {trial.number} has {trial.params[label]!r}."
                ) from err
    return space.canonical(sample)


def code_space_from_distributions(
    distributions: Mapping[str, BaseDistribution],
    *,
    conditions: Mapping[str, Condition | Sequence[Condition]] | None = None,
    name: str = "optuna",
) -> CodeSpace:
    """The CodeSpace of Optuna distributions, its dimensions in their order.

    Ranges with a step, integers and choices between increasing numbers are ordinal, other choices
    nominal, other floats continuous; `log` is kept.

    Args:
        distributions: For each label what is suggested.
        conditions: For each conditional label what its parents must be.
        name: Name of the space.

    Raises:
        SpaceError: There are no distributions, one is of an unknown kind, or a condition is wrong.
    """
    dimensions = [_dimension(label, d) for label, d in distributions.items()]
    return CodeSpace(dimensions, name=name, conditions=conditions)


def _dimension(label: str, distribution: BaseDistribution) -> Dimension:
    if isinstance(distribution, CategoricalDistribution):
        choices = tuple(_plain(c) for c in distribution.choices)
        return Ordinal(label, choices) if is_ordered(choices) else Nominal(label, choices)
    if isinstance(distribution, IntDistribution):
        values = range(distribution.low, distribution.high + 1, distribution.step)
        if not distribution.log:
            return Ordinal(label, values, scale="linear")
        if len(values) <= _MAX_GRID:
            return Ordinal(label, values, scale="log")
        return Continuous(label, float(distribution.low), float(distribution.high), log=True)
    if isinstance(distribution, FloatDistribution):
        low, high, step = distribution.low, distribution.high, distribution.step
        if step is not None and (high - low) / step < _MAX_GRID:
            # In decimals, as Optuna counts the steps: 0.3, not 0.30000000000000004.
            first, width = Decimal(str(low)), Decimal(str(step))
            count = round((high - low) / step) + 1
            grid = tuple(float(first + k * width) for k in range(count))
            return Ordinal(label, grid, scale="linear")
        return Continuous(label, low, high, log=distribution.log)
    raise SpaceError(
        f"{label!r} must have a float, int or categorical distribution, "
        f"but has a {type(distribution).__name__}."
    )


def _suggested(trial: BaseTrial, label: str, parameter: Parameter) -> Value:
    d = parameter.distribution
    param: Any
    if isinstance(d, CategoricalDistribution):
        param = trial.suggest_categorical(label, d.choices)
    elif isinstance(d, IntDistribution):
        param = trial.suggest_int(label, d.low, d.high, step=d.step, log=d.log)
    else:
        assert isinstance(d, FloatDistribution)
        param = trial.suggest_float(label, d.low, d.high, step=d.step, log=d.log)
    try:
        return parameter.read(param, d)
    except LookupError as err:
        raise SpaceError(
            f"{label!r} must be one of {parameter.dimension.describe()}, but got {param!r}."
        ) from err


def suggest(trial: BaseTrial, space: CodeSpace) -> Sample:
    """A sample of the space (its active labels), suggested by the study's sampler.

    Labels that the values suggested so far make inactive are not suggested.

    Raises:
        optuna.TrialPruned: The suggested sample breaks a constraint of the space.
        SpaceError: An enqueued value is not one of its dimension's.

    Example:
        >>> space = CodeSpace([Ordinal("depth", (1, 2, 3)), Nominal("op", ("conv", "pool"))])
        >>> suggest(optuna.trial.FixedTrial({"depth": 2, "op": "pool"}), space)
        {'depth': 2, 'op': 'pool'}
    """
    parameters = parameters_of(space)
    conditional = bool(space.conditions) or space.activity is not None
    full = space.complete({})
    active = space.canonical(full).keys()
    suggested: set[str] = set()
    while True:
        label = next((x for x in space.labels if x in active and x not in suggested), None)
        if label is None:
            break
        value = _suggested(trial, label, parameters[label])
        suggested.add(label)
        if not _same(value, full[label]):
            full[label] = value
            if conditional:
                active = space.canonical(full).keys()
    problem = space.violation(full)
    if problem is not None:
        raise optuna.TrialPruned(problem)
    return {x: full[x] for x in space.labels if x in active}


class _AskedSample(dict[str, Value]):
    """An NNI sample whose values are suggested when they are first read."""

    def __init__(self, trial: BaseTrial, parameters: Mapping[str, Parameter]) -> None:
        super().__init__()
        self._trial = trial
        self._parameters = parameters

    def __contains__(self, label: object) -> bool:
        return label in self._parameters

    def __missing__(self, label: str) -> Value:
        value = _suggested(self._trial, label, self._parameters[label])
        self[label] = value
        return value

    def get(self, label: str, default: Value = None) -> Value:
        return self[label] if label in self._parameters else default


_known_spaces: WeakKeyDictionary[Any, CodeSpace] = WeakKeyDictionary()


def suggest_nni(trial: BaseTrial, model_space: Any) -> Sample:
    """A sample of an NNI ModelSpace (its live labels), suggested by the study's sampler.

    The space itself decides what is live: it checks a sample whose values are suggested when it
    reads them. `model_space.freeze(sample)` then makes the network.

    Raises:
        optuna.TrialPruned: The suggested sample breaks a constraint of the space.
        MissingPackageError: NNI cannot be imported.
    """
    from nni_aiop.engines.nni_space import code_space_from_nni

    space = _known_spaces.get(model_space)
    if space is None:
        space = code_space_from_nni(model_space)
        _known_spaces[model_space] = space
    parameters = parameters_of(space)
    asked = _AskedSample(trial, parameters)
    problem = model_space.check_contains(asked)
    if problem is not None:
        raise optuna.TrialPruned(f"a sample of {space.name} must be valid, but: {problem}")
    # NASBench101's constraint writes its own result into the sample that it checks.
    return {label: value for label, value in asked.items() if label in parameters}
