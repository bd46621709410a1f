"""An NNI model space as a CodeSpace."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nni_aiop.engines._nni import importing_nni
from nni_aiop.engines._nni_activity import activity_of, conditions_of
from nni_aiop.engines._ordered import is_ordered
from nni_aiop.engines._references import made
from nni_aiop.errors import AiopError, MissingPackageError, SpaceError
from nni_aiop.spaces import (
    CodeSpace,
    Constraint,
    Continuous,
    CostFunction,
    Dimension,
    Nominal,
    Ordinal,
    Sample,
    SampleCost,
    Subset,
    Value,
    sample_costs,
)

if TYPE_CHECKING:
    from nni_aiop.graphs import ComputeGraph

__all__ = ["as_code_space", "categorical", "code_space_from_nni", "numerical"]

_TAIL = 5e-4  # cut off each end of a distribution with infinite tails: codes run over 99.9 %
_MAX_VALUES = 1_000_000  # of a quantised number


def as_code_space(given: Any) -> CodeSpace:
    """The CodeSpace that is meant by a CodeSpace, an NNI space, or a reference to either.

    Args:
        given: A CodeSpace, any of NNI's spaces, what has a method `code_space()`, a class or
            function that makes one of these without arguments, or the text `module:attribute` that
            leads to one of these. The module is imported: name only modules that you trust.

    Raises:
        SpaceError: The reference leads nowhere, or what is given is no space.
        MissingPackageError: The space needs a package that is not installed.
    """
    try:
        found = made(given)
    except MissingPackageError:
        raise
    except AiopError as err:
        raise SpaceError(str(err)) from err
    if hasattr(found, "simplify"):
        return code_space_from_nni(found)
    if callable(getattr(found, "code_space", None)):
        found = found.code_space()
    if not isinstance(found, CodeSpace):
        raise SpaceError(
            f"{given!r} must lead to a CodeSpace, but gives an object of type "
            f"{type(found).__name__}."
        )
    return found


def code_space_from_nni(
    space: Any,
    *,
    example: Any = None,
    costs: Mapping[str, SampleCost | Callable[[Sample], Any]] | None = None,
) -> CodeSpace:
    """The CodeSpace of an NNI space; its labels are those of `space.simplify()`, in that order.

    A `Categorical` is ordinal where its values are sorted numbers, but not where they number the
    candidates of a `LayerChoice`; `CategoricalMultiple` (an `InputChoice`) is a subset; `Numerical`
    is continuous, or ordinal where quantised. Constraints are kept. When a label is active follows
    from the nesting of `LayerChoice` and `Repeat`, or, where a module checks samples in its own
    way, from what one `check_contains` reads. A space that has a method `code_space()` is asked
    instead. Choices inside a mutable evaluator follow behind those of the model.

    Args:
        space: A `nni.nas.nn.pytorch.ModelSpace`, or the `SimplifiedModelSpace` or
            `RawFormatModelSpace` that an experiment makes of it.
        example: Input of the networks, a shape such as (1, 3, 32, 32) for one; see
            `graphs.from_module`. The CodeSpace then has the exact costs of each sample's network:
            `flops` (multiply-adds), `params`, `peak_memory` (`CodeSpace.graph`).
        costs: Further costs by name: functions of a sample, or each a `SampleCost`.

    Raises:
        SpaceError: The space has a mutable of an unknown kind, or none at all; or it draws graphs
            by itself, and an example is given.
        MissingPackageError: NNI cannot be imported.
    """
    model = _model_of(space)
    found = _code_space_of(model, space)
    if example is not None:
        if found.graph is not None:
            raise SpaceError(
                f"{found.name} draws the graphs of its networks by itself: example must be left "
                f"out, but got {example!r:.80}."
            )
        found = found.with_graph(_graph_of(model, example, found.labels))
    for name, cost in sample_costs(costs or {}).items():
        found = found.with_cost(name, cost)
    return found


def _graph_of(
    model: Any, example: Any, labels: Sequence[str]
) -> Callable[[Mapping[str, Value]], ComputeGraph]:
    """From a sample to the compute graph of the frozen model."""
    own = {str(label) for label in model.simplify()}
    wanted = [label for label in labels if label in own]

    def graph(sample: Mapping[str, Value]) -> ComputeGraph:
        from nni_aiop.graphs import from_module

        network = model.freeze({label: sample[label] for label in wanted if label in sample})
        return from_module(network, example)

    return graph


def _code_space_of(model: Any, space: Any) -> CodeSpace:
    with importing_nni():
        from nni.mutable import Mutable

    evaluator = getattr(space, "evaluator", None)
    extra = evaluator.simplify() if isinstance(evaluator, Mutable) else {}
    if callable(getattr(model, "code_space", None)):
        own = model.code_space()
        return _extended(own, extra) if extra else own

    mutables = {**model.simplify(), **extra}
    candidates = _layer_choice_labels(model)
    dimensions = [d for m in mutables.values() for d in _dimension(m, candidates)]
    if not dimensions:
        raise SpaceError(f"{type(model).__name__} must have choices to search, but has none.")
    conditions = conditions_of(model, [d.label for d in dimensions if d.label not in extra])
    return CodeSpace(
        dimensions,
        name=type(model).__name__,
        conditions=conditions,
        activity=activity_of(model, extra.keys()) if conditions is None else None,
        constraints=[c for m in mutables.values() for c in _constraint(m)],
    )


def _model_of(space: Any) -> Any:
    """The ModelSpace behind a space in any of NNI's formats."""
    with importing_nni():
        from nni.nas.space import ExecutableModelSpace, RawFormatModelSpace, SimplifiedModelSpace

    if isinstance(space, SimplifiedModelSpace):
        # It keeps only how the model space is made; the made one knows kinds and activity.
        return space.model.trace_copy().get(traceable=False)
    if isinstance(space, RawFormatModelSpace):
        return space.model_space
    if isinstance(space, ExecutableModelSpace) or not hasattr(space, "simplify"):
        raise SpaceError(f"an NNI model space must be given, but got {type(space).__name__}.")
    return space


def _layer_choice_labels(model: Any) -> set[str]:
    """Labels whose values name or number the candidates of a LayerChoice: they have no order."""
    with importing_nni():
        from nni.nas.nn.pytorch import LayerChoice

    modules = model.modules() if hasattr(model, "modules") else ()
    return {str(m.label) for m in modules if isinstance(m, LayerChoice)}


def _dimension(mutable: Any, candidates: Collection[str]) -> Iterator[Dimension]:
    from nni.mutable import Categorical, CategoricalMultiple, Numerical
    from nni.mutable.annotation import MutableAnnotation

    label = str(mutable.label)
    if isinstance(mutable, Categorical):
        yield categorical(label, mutable.values, is_layer_choice=label in candidates)
    elif isinstance(mutable, CategoricalMultiple):
        yield Subset(label, tuple(mutable.values), mutable.n_chosen)
    elif isinstance(mutable, Numerical):
        yield numerical(label, mutable)
    elif not isinstance(mutable, MutableAnnotation):
        raise SpaceError(
            f"{label!r} must be a Categorical, CategoricalMultiple or Numerical, "
            f"but is a {type(mutable).__name__}."
        )


def categorical(label: str, values: Sequence[Value], *, is_layer_choice: bool) -> Dimension:
    """One of several values: ordinal where they are sorted numbers and mean what they say."""
    for ordered in (tuple(values), tuple(reversed(values))):
        if not is_layer_choice and is_ordered(ordered):
            return Ordinal(label, ordered)
    return Nominal(label, tuple(values))


def numerical(label: str, mutable: Any) -> Dimension:
    """A `nni.mutable.Numerical`: continuous by its distribution, or ordinal where quantised."""
    distribution = mutable.distribution

    def quantile(p: float) -> float:
        return float(min(max(distribution.ppf(p), mutable.low), mutable.high))

    finite = math.isfinite(quantile(0.0)) and math.isfinite(quantile(1.0))
    start, stop = (0.0, 1.0) if finite else (_TAIL, 1.0 - _TAIL)
    low, high = quantile(start), quantile(stop)
    if mutable.quantize is not None:
        return _quantised(label, mutable, low, high)
    kind = distribution.dist.name
    if kind in ("uniform", "loguniform", "reciprocal") and (low, high) == (
        mutable.low,
        mutable.high,
    ):
        return Continuous(label, low, high, log=kind != "uniform")

    def ppf(p: float) -> float:
        return quantile(start + p * (stop - start))

    def cdf(value: float) -> float:
        return float((distribution.cdf(value) - start) / (stop - start))

    return Continuous(label, low, high, ppf=ppf, cdf=cdf)


def _quantised(label: str, mutable: Any, low: float, high: float) -> Dimension:
    """The multiples of the quantum from low to high, and these two where NNI clips to them."""
    q = mutable.quantize
    first, last = round(low / q), round(high / q)
    if last - first >= _MAX_VALUES:
        raise SpaceError(
            f"{label!r} must have at most {_MAX_VALUES} steps, but has {last - first + 1}."
        )
    values = {float(mutable.qclip(k * q)) for k in range(first, last + 1)}
    legal = sorted(v for v in values if mutable.check_contains({mutable.label: v}) is None)
    if not legal:
        raise SpaceError(f"{label!r} must have at least one value, but got {mutable!r}.")
    log = mutable.log_distributed and legal[0] > 0
    return Ordinal(label, tuple(legal), scale="log" if log else "linear")


def _constraint(mutable: Any) -> Iterator[Constraint]:
    from nni.mutable.annotation import Constraint as NniConstraint

    if isinstance(mutable, NniConstraint):
        # A copy, because NNI's constraint of NASBench101 writes into the sample that it checks.
        yield Constraint(
            str(mutable.label), lambda sample: mutable.check_contains(dict(sample)) is None
        )


def _extended(own: CodeSpace, extra: Mapping[str, Any]) -> CodeSpace:
    """A space that supplies its own codes, with the choices of a mutable evaluator behind them."""
    dimensions = [d for m in extra.values() for d in _dimension(m, ())]
    activity: Callable[[Sample], Collection[str]] | None = None
    if own.activity is not None:
        inner = own.activity
        labels = set(extra)

        def activity(sample: Sample) -> Collection[str]:
            return set(inner({k: v for k, v in sample.items() if k not in labels})) | labels

    def first(function: CostFunction) -> CostFunction:
        return lambda codes: function(codes[:, : own.width])

    def without(sample: Mapping[str, Value]) -> Sample:
        return {k: v for k, v in sample.items() if k not in extra}

    def of_own(name: str) -> CostFunction | SampleCost:
        cost = own.costs[name]
        if not isinstance(cost, SampleCost):
            return first(cost)
        return SampleCost(
            lambda sample: own.point_costs(name, own.points([without(sample)]))[0],
            quick=cost.quick,
            noisy=cost.noisy,
            initial=cost.initial,
        )

    def key(sample: Sample) -> object:
        return own.network_key(without(sample)), [sample.get(label) for label in extra]

    draw = own.graph

    return CodeSpace(
        [*own.dimensions, *dimensions],
        name=own.name,
        conditions=own.conditions,
        activity=activity,
        constraints=[*own.constraints, *(c for m in extra.values() for c in _constraint(m))],
        costs={name: of_own(name) for name in own.shown_costs()},
        features=first(own.features) if own.features is not None else None,
        graph=None if draw is None else lambda sample: draw(without(sample)),
        key=None if own.network is None else key,
    )
