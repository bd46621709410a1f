"""NNI's search spaces of hyper-parameters, which are JSON, as CodeSpaces."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nni_aiop.engines._nni import importing_nni
from nni_aiop.engines.nni_space import categorical, numerical
from nni_aiop.errors import SpaceError
from nni_aiop.spaces import CodeSpace, Condition, Dimension, Nominal, Ordinal, Sample, Value

__all__ = ["code_space_from_json", "nest", "unnest"]


def code_space_from_json(space: Mapping[str, Any]) -> CodeSpace:
    """The CodeSpace of an HPO search space in NNI's JSON (`_type`, `_value`).

    A nested choice becomes a nominal dimension of its `_name`s, and its inner parameters become
    dimensions with labels such as `layer/conv/width`, active where that name is chosen.

    Args:
        space: From names to `{"_type": ..., "_value": [...]}`: choice, randint, and uniform,
            loguniform, normal, lognormal with or without the q of quantised ones.

    Raises:
        SpaceError: A parameter is of another type, or its values are illegal.
        MissingPackageError: NNI cannot be imported.
    """
    dimensions: list[Dimension] = []
    conditions: dict[str, Condition] = {}
    for dimension, condition in _json_dimensions("", space, None):
        dimensions.append(dimension)
        if condition is not None:
            conditions[dimension.label] = condition
    return CodeSpace(dimensions, name="search_space", conditions=conditions)


def _json_dimensions(
    prefix: str, space: Mapping[str, Any], condition: Condition | None
) -> Iterator[tuple[Dimension, Condition | None]]:
    for name, spec in space.items():
        if name == "_name":
            continue
        label = f"{prefix}{name}"
        if not isinstance(spec, Mapping) or not {"_type", "_value"} <= spec.keys():
            raise SpaceError(f"{label!r} must have _type and _value, but got {spec!r}.")
        kind, values = spec["_type"], spec["_value"]
        if kind == "choice" and _is_nested(values):
            yield Nominal(label, tuple(v["_name"] for v in values)), condition
            for inner in values:
                chosen = Condition(label, (inner["_name"],))
                yield from _json_dimensions(f"{label}/{inner['_name']}/", inner, chosen)
        else:
            yield _json_dimension(label, kind, values), condition


def _is_nested(values: Sequence[Any]) -> bool:
    return all(isinstance(v, Mapping) and "_name" in v for v in values)


def _json_dimension(label: str, kind: str, values: Sequence[Any]) -> Dimension:
    with importing_nni():
        from nni.mutable import Numerical

    try:
        if kind == "choice":
            return categorical(label, list(values), is_layer_choice=False)
        if kind == "randint":
            return Ordinal(label, range(math.ceil(values[0]), math.ceil(values[1])))
        q = {"quantize": values[2]} if kind.startswith("q") else {}
        shape = kind.removeprefix("q")
        log = {"log_distributed": True} if shape.startswith("log") else {}
        if shape.removeprefix("log") == "uniform":
            return numerical(label, Numerical(*values[:2], **q, **log, label="value"))
        if shape.removeprefix("log") == "normal":
            mu, sigma = values[:2]
            return numerical(label, Numerical(mu=mu, sigma=sigma, **q, **log, label="value"))
    except (IndexError, TypeError, ValueError) as err:
        if isinstance(err, SpaceError):
            raise
        raise SpaceError(f"{label!r} must be a legal {kind}, but got {values!r}: {err}.") from err
    raise SpaceError(
        f"{label!r} must be a choice, randint, [q](log)uniform or [q](log)normal, but is a {kind}."
    )


def nest(sample: Mapping[str, Value], space: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters, as a trial gets them, of a sample of `code_space_from_json(space)`."""
    return _nest("", sample, space)


def _nest(prefix: str, sample: Mapping[str, Value], space: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, spec in space.items():
        if name == "_name":
            continue
        label = f"{prefix}{name}"
        value = sample[label]
        if spec["_type"] == "choice" and _is_nested(spec["_value"]):
            inner = next(v for v in spec["_value"] if v["_name"] == value)
            value = {"_name": value, **_nest(f"{label}/{value}/", sample, inner)}
        out[name] = value
    return out


def unnest(parameters: Mapping[str, Any]) -> Sample:
    """The sample (active labels) of parameters that `nest` made."""
    out: Sample = {}
    for name, value in parameters.items():
        if isinstance(value, Mapping) and "_name" in value:
            out[name] = value["_name"]
            inner = {k: v for k, v in value.items() if k != "_name"}
            out.update({f"{name}/{out[name]}/{k}": v for k, v in unnest(inner).items()})
        else:
            out[name] = value
    return out
