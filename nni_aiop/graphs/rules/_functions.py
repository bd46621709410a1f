"""Rules 1 to 3: functions entry by entry, sums and products."""

from __future__ import annotations

import math
from collections.abc import Callable

from nni_aiop.graphs.rules._norms import hidden_norm, norm_by_product, with_scale, with_shift
from nni_aiop.graphs.rules._patterns import is_close, is_function, replace, with_constant
from nni_aiop.graphs.rules._values import Value, constant

__all__ = ["add", "binary", "clamp", "first_input", "softmax", "unary"]


def _shown(value: Value) -> float | None:
    """The number that a constant is, or has in the file: what a pattern may know it by."""
    return value.shown if value.number is None else value.number


def first_input(value: Value) -> Value:
    return value.inputs[0]


_INVERSE = {"less": "greater_equal", "greater": "less_equal", "equal": "not_equal"}


def unary(value: Value) -> Value:
    function = value.attributes["function"]
    if function == "pow":
        exponent = value.attributes.get("exponent")
        if is_close(exponent, 1):
            return value.inputs[0]
        for number, name in ((2, "square"), (0.5, "sqrt"), (-0.5, "rsqrt"), (-1, "reciprocal")):
            if is_close(exponent, number):
                function = name
    root = value.inputs[0]
    if function == "reciprocal" and is_function(root, "sqrt") and root.uses == 1:
        value.inputs, function = [root.inputs[0]], "rsqrt"
    if function == "where" and len(value.inputs) == 3:
        condition, x, curve = value.inputs
        if curve.op == "softplus" and curve.inputs[0] is x and condition.op == "elementwise":
            return curve  # which is all but x where x is large
        guards = is_function(condition, "isnan") and condition.inputs[0] is curve
        if guards and curve.op == "softmax" and x.number == 0:
            curve.uses -= condition.uses == 1
            return curve  # exporters put zeros where a mask leaves nothing of a row
    if function == "logical_not" and root.op == "elementwise" and root.uses == 1:
        inverse = _INVERSE.get(root.attributes["function"])
        if inverse is not None:
            root.attributes["function"] = inverse
            return root
    value.op, value.attributes = "elementwise", {"function": function}
    return hidden_norm(value)


def _bounds(value: Value) -> tuple[float | None, float | None] | None:
    """Between what a clamp holds its input."""
    if value.op in ("relu", "relu6"):
        return 0.0, 6.0 if value.op == "relu6" else None
    if is_function(value, "clamp") and len(value.inputs) == 1:
        return value.attributes.get("low"), value.attributes.get("high")
    return None


def clamp(value: Value) -> Value:
    low, high = value.attributes.get("low"), value.attributes.get("high")
    x = value.inputs[0]
    if len(value.inputs) == 1 and (bounds := _bounds(x)):
        low = max((n for n in (low, bounds[0]) if n is not None), default=None)
        high = min((n for n in (high, bounds[1]) if n is not None), default=None)
        value.inputs = [x.inputs[0]]
        x.uses -= 1
        x.inputs[0].uses += x.uses > 0
    if is_close(low, 0) and (high is None or math.isinf(high)):
        value.op = "relu"
    elif is_close(low, 0) and is_close(high, 6):
        value.op = "relu6"
    elif is_close(low, 0) and is_close(high, 1) and (inner := _sixth(value.inputs[0])):
        return replace(value, "hard_sigmoid", [inner])
    else:
        value.op = "elementwise"
        value.attributes = {"function": "clamp", "low": low, "high": high}
    return value


def _sixth(value: Value) -> Value | None:
    """x of x / 6 + 1 / 2."""
    if (
        (shifted := with_constant(value, "add"))
        and is_close(_shown(shifted[1]), 0.5)
        and (scaled := with_constant(shifted[0], "mul"))
        and is_close(_shown(scaled[1]), 1 / 6)
    ):
        return scaled[0]
    return None


def binary(value: Value) -> Value:
    function = value.attributes["function"]
    for place, v in enumerate(value.inputs):
        if v.op == "expand":
            value.inputs[place], value.input_shapes[place] = v.inputs[0], v.input_shapes[0]
    a, b = value.inputs
    number = b.number if b.is_constant else None
    if function == "sub" and b.is_constant:
        function, number = "add", None if number is None else -number
        b = _constant(b, number, lambda n: -n)
    elif function == "div" and b.is_constant:
        function, number = "mul", None if not number else 1 / number
        b = _constant(b, number, lambda n: 1 / n if n else None)
    elif function == "pow" and b.is_constant:
        value.inputs, value.input_shapes = [a], value.input_shapes[:1]
        known = number is not None or not (is_close(b.shown, 2) or is_close(b.shown, 0.5))
        value.attributes = {"function": "pow", "exponent": number if known else b.shown}
        return unary(value)
    elif function in ("max", "min") and (a.is_constant or b.is_constant):
        place = int(a.is_constant)
        data, other = value.inputs[place], value.inputs[1 - place]
        if other.number is not None and value.input_shapes[place] == value.shape:
            side = "low" if function == "max" else "high"
            return clamp(replace(value, "clamp", [data], **{side: other.number}))
    if function in ("add", "mul"):
        shapes = value.input_shapes
        if a.is_constant:
            a, b = b, a
            shapes = shapes[::-1]
        value.op, value.attributes = function, {}
        value.inputs, value.input_shapes = [a, b], list(shapes)
        return (add if function == "add" else _mul)(value)
    value.op, value.attributes = "elementwise", {"function": function}
    if a.is_constant or b.is_constant:
        value.attributes["operand"] = "left" if a.is_constant else "right"
    if function == "div":
        if is_close(a.number, 1):
            value.inputs, value.input_shapes = [b], value.input_shapes[1:]
            value.attributes = {"function": "reciprocal"}
            return unary(value)
        if not a.is_constant and _is_one_and_exponential(b, a):
            return replace(value, "silu", [a])
        return hidden_norm(value)
    return value


def _constant(c: Value, number: float | None, change: Callable[[float], float | None]) -> Value:
    """A constant whose entries are changed."""
    changed = constant(c.shape, learned=c.learned, number=number)
    changed.shown = None if c.shown is None else change(c.shown)
    return changed


def add(value: Value) -> Value:
    pair = with_constant(value, "add")
    if pair is not None:
        x, c = pair
        if is_close(c.number, 0) and value.shape == value.input_shapes[0]:
            return x
        if x.uses == 1 and (absorbed := with_shift(value, x, c)):
            return absorbed
        value.attributes = {"operand": "constant"}
        return value
    terms: list[Value] = []
    shapes = []
    for term, shape in zip(value.inputs, value.input_shapes, strict=True):
        if (
            term.op == "add"
            and term.uses == 1
            and "operand" not in term.attributes
            and term.shape == shape == value.shape
        ):
            terms += term.inputs
            shapes += term.input_shapes
        else:
            terms.append(term)
            shapes.append(shape)
    value.inputs, value.input_shapes = terms, shapes
    return value


def _mul(value: Value) -> Value:
    pair = with_constant(value, "mul")
    if pair is not None:
        x, c = pair
        if is_close(c.number, 1) and value.shape == value.input_shapes[0]:
            return x
        if x.uses == 1 and (absorbed := with_scale(value, x, c)):
            return absorbed
        if merged := _one_number(value, x, c):
            return merged
    named = _named_product(value)
    if named is not None:
        return named
    if pair is not None:
        value.attributes = {"operand": "constant"}
        if c.number == 0:
            value.attributes["value"] = 0
    elif len(value.inputs) == 2 and value.inputs[0] is value.inputs[1]:
        value.op, value.attributes = "elementwise", {"function": "square"}
        value.inputs, value.input_shapes = value.inputs[:1], value.input_shapes[:1]
    return value


def _one_number(value: Value, x: Value, c: Value) -> Value | None:
    """Products with single numbers in a row as one."""
    inner = with_constant(x, "mul")
    if inner is None or x.uses != 1 or not c.size == inner[1].size == 1:
        return None
    known = c.number is not None and inner[1].number is not None
    number = c.number * inner[1].number if known else None  # type: ignore[operator]
    both = constant(c.shape, learned={**c.learned, **inner[1].learned}, number=number)
    factors = _shown(c), _shown(inner[1])
    if factors[0] is not None and factors[1] is not None:
        both.shown = factors[0] * factors[1]
    return _mul(
        Value("mul", [inner[0], both], value.shape, {}, value.name, input_shapes=value.input_shapes)
    )


def _factors(value: Value, depth: int = 8) -> tuple[list[Value], float | None, float | None]:
    """Data and number that a tree of products multiplies, and the number that the file shows.

    None where a number is not known.
    """
    data: list[Value] = []
    number: float | None = 1.0
    shown: float | None = 1.0
    for v in value.inputs:
        if v.is_constant:
            number, shown = _product(number, v.number), _product(shown, _shown(v))
        elif v.op == "mul" and v.uses == 1 and depth:
            inner, scale, shown_scale = _factors(v, depth - 1)
            data += inner
            number, shown = _product(number, scale), _product(shown, shown_scale)
        else:
            data.append(v)
    return data, number, shown


def _product(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a * b


def _named_product(value: Value) -> Value | None:
    """The function that a product is known under, such as silu."""
    data, number, shown = _factors(value)
    if len(data) == 1 and is_close(shown, 1 / 6) and (x := _shifted_relu6(data[0])):
        return replace(value, "hard_sigmoid", [x])
    if len(data) != 2:
        return None
    for x, gate in (data, data[::-1]):
        # A learned number that is 1 scales; 1/2 and 1/6 are a formula's.
        if is_close(number, 1):
            name = _GATES.get(gate.op)
            if name is not None and gate.inputs[0] is x:
                return replace(value, name, [x])
            if gate.op == "tanh" and gate.inputs[0].op == "softplus":
                return replace(value, "mish", [x]) if gate.inputs[0].inputs[0] is x else None
            if gate.op == "sigmoid" and _is_multiple(gate.inputs[0], x, 1.702):
                return replace(value, "gelu", [x])
            if norm := norm_by_product(value, x, gate):
                return norm
            if _is_sigmoid_of(gate, x):
                return replace(value, "silu", [x])
        if is_close(shown, 1 / 6) and _shifted_relu6(gate) is x:
            return replace(value, "hard_swish", [x])
        if is_close(shown, 0.5) and _is_gelu_gate(gate, x, 1):
            return replace(value, "gelu", [x])
        if is_close(shown, 1) and _is_gelu_gate(gate, x, 0.5):
            return replace(value, "gelu", [x])
    return None


_GATES = {"sigmoid": "silu", "hard_sigmoid": "hard_swish"}


def _is_multiple(value: Value, x: Value, number: float) -> bool:
    pair = with_constant(value, "mul")
    return pair is not None and pair[0] is x and is_close(_shown(pair[1]), number)


def _is_sigmoid_of(value: Value, x: Value) -> bool:
    """Whether a value is 1 / (1 + exp(-x))."""
    return is_function(value, "reciprocal") and _is_one_and_exponential(value.inputs[0], x)


def _is_one_and_exponential(value: Value, x: Value) -> bool:
    """Whether a value is 1 + exp(-x)."""
    one = with_constant(value, "add")
    if one is None or not is_close(_shown(one[1]), 1) or not is_function(one[0], "exp"):
        return False
    power = one[0].inputs[0]
    return (is_function(power, "neg") and power.inputs[0] is x) or _is_multiple(power, x, -1)


def _is_gelu_gate(gate: Value, x: Value, scale: float) -> bool:
    """Whether a value is a number plus so many times erf or tanh of a function of x."""
    one = with_constant(gate, "add")
    if one is None or not is_close(_shown(one[1]), scale):
        return False
    curve = one[0]
    if scale != 1:
        scaled = with_constant(curve, "mul")
        if scaled is None or not is_close(_shown(scaled[1]), scale):
            return False
        curve = scaled[0]
    return (is_function(curve, "erf") or curve.op == "tanh") and _leaves(curve, x) == {id(x)}


def _shifted_relu6(value: Value) -> Value | None:
    """x of relu6(x + 3)."""
    if value.op == "relu6":
        pair = with_constant(value.inputs[0], "add")
        if pair is not None and is_close(_shown(pair[1]), 3):
            return pair[0]
    return None


def _leaves(curve: Value, x: Value, depth: int = 8) -> set[int]:
    """The tensors that a function entry by entry is a function of, x being one of them."""
    arithmetic = curve.op in ("add", "mul", "tanh") or (
        curve.op == "elementwise" and curve.attributes.get("function") in ("erf", "pow", "square")
    )
    if not arithmetic or curve is x or depth == 0:
        return {id(curve)}
    return set().union(*(_leaves(v, x, depth - 1) for v in curve.inputs if not v.is_constant))


def softmax(value: Value) -> Value:
    value.attributes["axis"] %= len(value.shape)
    return value
