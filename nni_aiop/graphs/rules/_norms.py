"""Rule 4: normalisations written out, and the scales and shifts behind them."""

from __future__ import annotations

from nni_aiop.graphs.rules._patterns import channels_of, is_function, replace, with_constant
from nni_aiop.graphs.rules._values import Value, constant

__all__ = ["hidden_norm", "norm_by_product", "with_scale", "with_shift"]


def _mean_of(value: Value) -> Value | None:
    """x of a mean of x over its last axes."""
    if value.attributes.get("kind") == "mean" and value.op in ("reduce", "global_avg_pool"):
        axes, rank = value.attributes["axes"], len(value.input_shapes[0])
        if tuple(axes) == tuple(range(rank - len(axes), rank)):
            return value.inputs[0]
    return None


def _power_mean(value: Value) -> Value | None:
    """d of mean(d^2) + epsilon."""
    mean = _mean_of(_behind_epsilon(value))
    if mean is None:
        return None
    return mean.inputs[0] if is_function(mean, "square") else None


def _behind_epsilon(value: Value) -> Value:
    pair = with_constant(value, "add")
    return value if pair is None else pair[0]


def _n_axes(mean: Value) -> int:
    return len(mean.attributes["axes"])


def _norm(value: Value, deviation: Value, spread: Value) -> Value | None:
    """layer_norm or rms_norm where `spread` is the mean square of `deviation` (plus epsilon)."""
    measured = _power_mean(spread)
    if measured is None:
        return None
    if is_function(deviation, "sub") and len(deviation.inputs) == 2:
        x, mean = deviation.inputs
        twin = is_function(measured, "sub") and measured.inputs[0] is x
        if _mean_of(mean) is x and (measured is deviation or twin):
            return replace(value, "layer_norm", [x], over=_n_axes(mean))
    if measured is deviation:
        return replace(value, "rms_norm", [deviation], over=_n_axes(_behind_epsilon(spread)))
    return None


def norm_by_product(value: Value, x: Value, gate: Value) -> Value | None:
    """A norm written as x times one over a root."""
    if is_function(gate, "rsqrt"):
        return _norm(value, x, gate.inputs[0])
    if is_function(gate, "reciprocal") and is_function(gate.inputs[0], "sqrt"):
        return _norm(value, x, gate.inputs[0].inputs[0])
    return None


def hidden_norm(value: Value) -> Value:
    """A norm written as x divided by a root, or the value itself."""
    if is_function(value, "div") and len(value.inputs) == 2:
        x, root = value.inputs
        if is_function(root, "sqrt") and not x.is_constant:
            return _norm(value, x, root.inputs[0]) or value
    return value


_SCALED = ("layer_norm", "rms_norm", "group_norm")


def with_scale(value: Value, x: Value, c: Value) -> Value | None:
    """A norm that takes the constant behind it as its scale."""
    if x.op not in _SCALED or len(x.inputs) != 1:
        return None
    channels = channels_of(x, c.shape, len(value.shape))
    if channels is None:
        return None
    scale = constant(channels, learned=c.learned)
    shapes = [x.input_shapes[0], scale.shape]
    return Value(x.op, [x.inputs[0], scale], x.shape, x.attributes, x.name, input_shapes=shapes)


def with_shift(value: Value, x: Value, c: Value) -> Value | None:
    """A convolution, linear layer or norm that takes the constant behind it as its bias."""
    if x.op not in (*_SCALED, "conv", "conv_transpose", "linear") or len(x.inputs) != 2:
        return None
    channels = channels_of(x, c.shape, len(value.shape))
    if channels is None or not x.inputs[1].is_constant:
        return None
    shift = constant(channels, learned=c.learned)
    return Value(
        x.op,
        [*x.inputs, shift],
        x.shape,
        x.attributes,
        x.name,
        input_shapes=[*x.input_shapes, shift.shape],
    )
