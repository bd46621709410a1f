"""The canonical rules: what makes one network one graph, whatever way it was written.

First, operations that do the same to the same tensors (weights included) become one, as exporters
do it. Then comes one pass from the inputs to the outputs; each rule looks at an operation whose
inputs are already in canonical form, so that a pattern is recognised at its last operation.

1. Identities vanish: dropout, casts, copies, x + 0, x * 1, slices of everything, resizing to the
   same size, means and maxima of single entries. What does not depend on the input of the network
   is a constant, and becomes part of the operation that reads it.
2. x - c is a sum, x / c a product; a sum of sums that nothing else reads is one sum, as is a sum
   over what was stacked; products with single numbers in a row are one, and so are clamps (to which
   max and min with a number belong); repeating entries for a broadcast is not an operation.
3. Functions have one name: clamp(x, 0, 6) is `relu6`, relu6(x + 3) / 6 `hard_sigmoid`, and x times
   it `hard_swish`; x * sigmoid(x) is `silu`; x / 2 * (1 + erf(x / sqrt 2)), its tanh approximation
   and x * sigmoid(1.702 x) are `gelu`; x * tanh(softplus(x)) is `mish`.
4. Normalisations written out in means and square roots are `layer_norm` or `rms_norm`; instance
   normalisation of grouped channels is `group_norm`. A learned scale or shift right behind them is
   theirs.
5. A product with a constant matrix is `linear`, over rows; adding a constant for each channel right
   behind a convolution or linear layer is its bias; zeros padded before a convolution or average
   pooling are its padding.
6. softmax(scale * q k^T + mask) v is `attention`; its scale is not kept.
7. Means and maxima over all axes from the third on, and pooling windows that cover their input, are
   `global_avg_pool` and `global_max_pool`.
8. Cuts of cuts are one `slice`, joints of joints along one axis one `concat`; rows of a constant
   table are an `embedding`.
9. Reshapes vanish, and chains of transposes are one `permute` or nothing (`_layout`).

Constants behind weights: an operation reads its weights after its data, in the order that its
PyTorch function has them: convolution weight, bias; `linear` weight (out, in), bias; norms scale,
shift, mean, variance; `prelu` slope; `embedding` index, table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from math import prod

from nni_aiop.graphs._builder import Value, constant
from nni_aiop.graphs._graph import Shape
from nni_aiop.graphs._layout import LAYOUT
from nni_aiop.graphs._vocabulary import OPERATIONS, OTHER

__all__ = ["merge_twins", "simplify"]

Rule = Callable[[Value], Value]


def merge_twins(order: Sequence[Value]) -> None:
    """Lets operations read the first of several that do the same to the same tensors.

    Args:
        order: Every data tensor in a topological order.
    """
    seen: dict[tuple[object, ...], Value] = {}
    first: dict[int, Value] = {}
    for value in order:
        value.inputs = [first.get(id(v), v) for v in value.inputs]
        if value.op in ("input", "output"):
            continue
        sources = tuple(
            id(v) if v.number is None or v.learned else (v.shape, v.number) for v in value.inputs
        )
        key = (value.op, value.shape, repr(value.attributes), sources)
        first[id(value)] = seen.setdefault(key, value)


def simplify(order: Sequence[Value], outputs: Sequence[Value]) -> list[Value]:
    """The outputs of the same network in canonical form, layout aside.

    Args:
        order: Every data tensor in a topological order, with its uses counted.
        outputs: Those of op "output".
    """
    final: dict[int, Value] = {}
    for value in order:
        value.inputs = [final.get(id(v), v) for v in value.inputs]
        rule = _RULES.get(value.op)
        result = value if rule is None else rule(value)
        if result is not value:
            # What the result takes the place of no longer reads it.
            reads = sum(v is result for v in value.inputs)
            result.uses += value.uses - min(reads, result.uses)
        final[id(value)] = result
    for value in {id(v): v for v in final.values()}.values():
        _tidy(value)
    return [final[id(v)] for v in outputs]


def _tidy(value: Value) -> None:
    """Leaves only the vocabulary's attributes; gives unknown operations their prefix."""
    if value.op in OPERATIONS:
        known = OPERATIONS[value.op]
        value.attributes = {k: v for k, v in value.attributes.items() if k in known}
    elif value.op not in LAYOUT:
        value.op = OTHER + value.op.removeprefix(OTHER)
        value.attributes = {}


# --- looking at values ---------------------------------------------------------------------------


def _close(number: float | None, target: float) -> bool:
    """Whether a number is the target, as exporters round it; zero is never rounded to."""
    return number is not None and math.isclose(number, target, rel_tol=1e-3)


def _with_constant(value: Value, op: str) -> tuple[Value, Value] | None:
    """(data, constant) of a sum or product of one tensor and a constant."""
    if value.op == op and len(value.inputs) == 2 and value.inputs[1].is_constant:
        return value.inputs[0], value.inputs[1]
    return None


def _is_function(value: Value, function: str) -> bool:
    return value.op == "elementwise" and value.attributes.get("function") == function


def _without_scale(value: Value) -> Value:
    """The tensor behind products with single numbers."""
    while (pair := _with_constant(value, "mul")) and pair[1].size == 1:
        value = pair[0]
    return value


def _replace(value: Value, op: str, inputs: Sequence[Value], **attributes: object) -> Value:
    """A new value in the place of one, for functions whose result has the shape of their input."""
    shapes = [value.shape] * len(inputs)
    return Value(op, inputs, value.shape, dict(attributes), value.name, input_shapes=shapes)


# --- functions entry by entry --------------------------------------------------------------------


def _first_input(value: Value) -> Value:
    return value.inputs[0]


_INVERSE = {"less": "greater_equal", "greater": "less_equal", "equal": "not_equal"}


def _unary(value: Value) -> Value:
    function = value.attributes["function"]
    if function == "pow":
        exponent = value.attributes.get("exponent")
        if _close(exponent, 1):
            return value.inputs[0]
        for number, name in ((2, "square"), (0.5, "sqrt"), (-0.5, "rsqrt"), (-1, "reciprocal")):
            if _close(exponent, number):
                function = name
    root = value.inputs[0]
    if function == "reciprocal" and _is_function(root, "sqrt") and root.uses == 1:
        value.inputs, function = [root.inputs[0]], "rsqrt"
    if function == "where" and len(value.inputs) == 3:
        condition, x, curve = value.inputs
        if curve.op == "softplus" and curve.inputs[0] is x and condition.op == "elementwise":
            return curve  # which is all but x where x is large
    if function == "logical_not" and root.op == "elementwise" and root.uses == 1:
        inverse = _INVERSE.get(root.attributes["function"])
        if inverse is not None:
            root.attributes["function"] = inverse
            return root
    value.op, value.attributes = "elementwise", {"function": function}
    return _hidden_norm(value)


def _bounds(value: Value) -> tuple[float | None, float | None] | None:
    """Between what a clamp holds its input."""
    if value.op in ("relu", "relu6"):
        return 0.0, 6.0 if value.op == "relu6" else None
    if _is_function(value, "clamp") and len(value.inputs) == 1:
        return value.attributes.get("low"), value.attributes.get("high")
    return None


def _clamp(value: Value) -> Value:
    low, high = value.attributes.get("low"), value.attributes.get("high")
    x = value.inputs[0]
    if len(value.inputs) == 1 and (bounds := _bounds(x)):
        low = max((n for n in (low, bounds[0]) if n is not None), default=None)
        high = min((n for n in (high, bounds[1]) if n is not None), default=None)
        value.inputs = [x.inputs[0]]
        x.uses -= 1
        x.inputs[0].uses += x.uses > 0
    if _close(low, 0) and (high is None or math.isinf(high)):
        value.op = "relu"
    elif _close(low, 0) and _close(high, 6):
        value.op = "relu6"
    elif _close(low, 0) and _close(high, 1) and (inner := _sixth(value.inputs[0])):
        return _replace(value, "hard_sigmoid", [inner])
    else:
        value.op = "elementwise"
        value.attributes = {"function": "clamp", "low": low, "high": high}
    return value


def _sixth(value: Value) -> Value | None:
    """x of x / 6 + 1 / 2."""
    if (
        (shifted := _with_constant(value, "add"))
        and _close(shifted[1].number, 0.5)
        and (scaled := _with_constant(shifted[0], "mul"))
        and _close(scaled[1].number, 1 / 6)
    ):
        return scaled[0]
    return None


def _binary(value: Value) -> Value:
    function = value.attributes["function"]
    for place, v in enumerate(value.inputs):
        if v.op == "expand":
            value.inputs[place], value.input_shapes[place] = v.inputs[0], v.input_shapes[0]
    a, b = value.inputs
    number = b.number if b.is_constant else None
    if function == "sub" and b.is_constant:
        function, number = "add", None if number is None else -number
        b = constant(b.shape, learned=b.learned, number=number)
    elif function == "div" and b.is_constant:
        function, number = "mul", None if not number else 1 / number
        b = constant(b.shape, learned=b.learned, number=number)
    elif function == "pow" and b.is_constant:
        value.inputs, value.input_shapes = [a], value.input_shapes[:1]
        value.attributes = {"function": "pow", "exponent": number}
        return _unary(value)
    elif function in ("max", "min") and (a.is_constant or b.is_constant):
        place = int(a.is_constant)
        data, other = value.inputs[place], value.inputs[1 - place]
        if other.number is not None and value.input_shapes[place] == value.shape:
            side = "low" if function == "max" else "high"
            return _clamp(_replace(value, "clamp", [data], **{side: other.number}))
    if function in ("add", "mul"):
        shapes = value.input_shapes
        if a.is_constant:
            a, b = b, a
            shapes = shapes[::-1]
        value.op, value.attributes = function, {}
        value.inputs, value.input_shapes = [a, b], list(shapes)
        return (_add if function == "add" else _mul)(value)
    value.op, value.attributes = "elementwise", {"function": function}
    if a.is_constant or b.is_constant:
        value.attributes["operand"] = "left" if a.is_constant else "right"
    if function == "div":
        if _close(a.number, 1):
            value.inputs, value.input_shapes = [b], value.input_shapes[1:]
            value.attributes = {"function": "reciprocal"}
            return _unary(value)
        return _hidden_norm(value)
    return value


def _add(value: Value) -> Value:
    pair = _with_constant(value, "add")
    if pair is not None:
        x, c = pair
        if _close(c.number, 0) and value.shape == value.input_shapes[0]:
            return x
        if x.uses == 1 and (absorbed := _with_shift(value, x, c)):
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
    pair = _with_constant(value, "mul")
    if pair is not None:
        x, c = pair
        if _close(c.number, 1) and value.shape == value.input_shapes[0]:
            return x
        if x.uses == 1 and (absorbed := _with_scale(value, x, c)):
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
    inner = _with_constant(x, "mul")
    if inner is None or x.uses != 1 or not c.size == inner[1].size == 1:
        return None
    known = c.number is not None and inner[1].number is not None
    number = c.number * inner[1].number if known else None  # type: ignore[operator]
    both = constant(c.shape, learned={**c.learned, **inner[1].learned}, number=number)
    return _mul(
        Value("mul", [inner[0], both], value.shape, {}, value.name, input_shapes=value.input_shapes)
    )


def _factors(value: Value, depth: int = 8) -> tuple[list[Value], float | None]:
    """Data and number that a tree of products multiplies; None where a number is not known."""
    data: list[Value] = []
    number: float | None = 1.0
    for v in value.inputs:
        if v.is_constant:
            number = None if number is None or v.number is None else number * v.number
        elif v.op == "mul" and v.uses == 1 and depth:
            inner, scale = _factors(v, depth - 1)
            data += inner
            number = None if number is None or scale is None else number * scale
        else:
            data.append(v)
    return data, number


def _named_product(value: Value) -> Value | None:
    """The function that a product is known under, such as silu."""
    data, number = _factors(value)
    if len(data) == 1 and _close(number, 1 / 6) and (x := _shifted_relu6(data[0])):
        return _replace(value, "hard_sigmoid", [x])
    if len(data) != 2:
        return None
    for x, gate in (data, data[::-1]):
        if _close(number, 1):
            name = _GATES.get(gate.op)
            if name is not None and gate.inputs[0] is x:
                return _replace(value, name, [x])
            if gate.op == "tanh" and gate.inputs[0].op == "softplus":
                return _replace(value, "mish", [x]) if gate.inputs[0].inputs[0] is x else None
            if gate.op == "sigmoid" and _is_multiple(gate.inputs[0], x, 1.702):
                return _replace(value, "gelu", [x])
            if norm := _norm_by_product(value, x, gate):
                return norm
        if _close(number, 1 / 6) and _shifted_relu6(gate) is x:
            return _replace(value, "hard_swish", [x])
        if _close(number, 0.5) and _is_gelu_gate(gate, x):
            return _replace(value, "gelu", [x])
    return None


_GATES = {"sigmoid": "silu", "hard_sigmoid": "hard_swish"}


def _is_multiple(value: Value, x: Value, number: float) -> bool:
    pair = _with_constant(value, "mul")
    return pair is not None and pair[0] is x and _close(pair[1].number, number)


def _is_gelu_gate(gate: Value, x: Value) -> bool:
    """Whether a value is 1 + erf or tanh of a function of x."""
    one = _with_constant(gate, "add")
    if one is None or not _close(one[1].number, 1):
        return False
    curve = one[0]
    return (_is_function(curve, "erf") or curve.op == "tanh") and _leaves(curve, x) == {id(x)}


def _shifted_relu6(value: Value) -> Value | None:
    """x of relu6(x + 3)."""
    if value.op == "relu6":
        pair = _with_constant(value.inputs[0], "add")
        if pair is not None and _close(pair[1].number, 3):
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


# --- normalisations ------------------------------------------------------------------------------


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
    return mean.inputs[0] if _is_function(mean, "square") else None


def _behind_epsilon(value: Value) -> Value:
    pair = _with_constant(value, "add")
    return value if pair is None else pair[0]


def _n_axes(mean: Value) -> int:
    return len(mean.attributes["axes"])


def _norm(value: Value, deviation: Value, spread: Value) -> Value | None:
    """layer_norm or rms_norm where `spread` is the mean square of `deviation` (plus epsilon)."""
    measured = _power_mean(spread)
    if measured is None:
        return None
    if _is_function(deviation, "sub") and len(deviation.inputs) == 2:
        x, mean = deviation.inputs
        twin = _is_function(measured, "sub") and measured.inputs[0] is x
        if _mean_of(mean) is x and (measured is deviation or twin):
            return _replace(value, "layer_norm", [x], over=_n_axes(mean))
    if measured is deviation:
        return _replace(value, "rms_norm", [deviation], over=_n_axes(_behind_epsilon(spread)))
    return None


def _norm_by_product(value: Value, x: Value, gate: Value) -> Value | None:
    """A norm written as x times one over a root."""
    if _is_function(gate, "rsqrt"):
        return _norm(value, x, gate.inputs[0])
    if _is_function(gate, "reciprocal") and _is_function(gate.inputs[0], "sqrt"):
        return _norm(value, x, gate.inputs[0].inputs[0])
    return None


def _hidden_norm(value: Value) -> Value:
    """A norm written as x divided by a root, or the value itself."""
    if _is_function(value, "div") and len(value.inputs) == 2:
        x, root = value.inputs
        if _is_function(root, "sqrt") and not x.is_constant:
            return _norm(value, x, root.inputs[0]) or value
    return value


_SCALED = ("layer_norm", "rms_norm", "group_norm")


def _channels_last(value: Value) -> bool:
    return value.op in ("layer_norm", "rms_norm", "linear")


def _fits_channels(value: Value, shape: Sequence[int], rank: int) -> Shape | None:
    """The shape of a constant without its axes of length 1, where it differs by channel alone.

    Args:
        value: The operation behind which it stands.
        shape: Of the constant, which is broadcast to `rank` axes.
    """
    if _channels_last(value):
        over = value.attributes.get("over", 1)
        channels = tuple(value.shape[-over:])
        wanted = (1,) * (rank - over) + channels
    else:
        channels = (value.shape[1],)
        wanted = (1, *channels) + (1,) * (rank - 2)
    return channels if (1,) * (rank - len(shape)) + tuple(shape) == wanted else None


def _with_scale(value: Value, x: Value, c: Value) -> Value | None:
    """A norm that takes the constant behind it as its scale."""
    if x.op not in _SCALED or len(x.inputs) != 1:
        return None
    channels = _fits_channels(x, c.shape, len(value.shape))
    if channels is None:
        return None
    scale = constant(channels, learned=c.learned)
    shapes = [x.input_shapes[0], scale.shape]
    return Value(x.op, [x.inputs[0], scale], x.shape, x.attributes, x.name, input_shapes=shapes)


def _with_shift(value: Value, x: Value, c: Value) -> Value | None:
    """A convolution, linear layer or norm that takes the constant behind it as its bias."""
    if x.op not in (*_SCALED, "conv", "conv_transpose", "linear") or len(x.inputs) != 2:
        return None
    channels = _fits_channels(x, c.shape, len(value.shape))
    if channels is None or not x.inputs[1].is_constant:
        return None
    shift = constant(channels, learned=c.learned)
    attributes = dict(x.attributes)
    if "bias" in attributes:
        attributes["bias"] = True
    return Value(
        x.op,
        [*x.inputs, shift],
        x.shape,
        attributes,
        x.name,
        input_shapes=[*x.input_shapes, shift.shape],
    )


def _reshape(value: Value) -> Value:
    x = value.inputs[0]
    if x.op == "instance_norm" and x.inputs[0].op == "reshape" and x.uses == 1:
        source = x.inputs[0].inputs[0]
        if source.shape == value.shape and len(value.shape) > 2:
            return _replace(value, "group_norm", [source], groups=x.shape[1])
    return value


# --- products and convolutions -------------------------------------------------------------------


def _linear(value: Value) -> Value:
    """`linear` over rows."""
    x, weight = value.inputs[:2]
    if x.is_constant or not weight.is_constant:
        value.op = "matmul"
        return _grouped_matmul(value, transposed=True)
    rows = prod(value.input_shapes[0][:-1])
    features, out = value.input_shapes[0][-1], value.shape[-1]
    value.input_shapes[0] = (rows, features)
    value.shape = (rows, out)
    value.attributes = {"bias": len(value.inputs) > 2}
    return value


def _grouped_matmul(value: Value, *, transposed: bool = False) -> Value:
    """`matmul` of groups: (g, m, k), (g, k, n) -> (g, m, n)."""
    value.attributes = {"q_shape": value.input_shapes[0], "k_shape": value.input_shapes[1]}
    a, b = ((1,) * (2 - len(s)) + tuple(s) for s in value.input_shapes[:2])
    if transposed:
        b = (*b[:-2], b[-1], b[-2])
    if len(value.input_shapes[1]) == 1:
        b = (value.input_shapes[1][0], 1)
    shapes = [(prod(s[:-2]), s[-2], s[-1]) for s in (a, b)]
    value.input_shapes[:2] = shapes
    groups = max(shape[0] for shape in shapes)
    value.shape = (groups, a[-2], b[-1])
    return value


def _matmul(value: Value) -> Value:
    a, b = value.inputs
    if b.is_constant and len(b.shape) == 2:
        weight = constant(b.shape[::-1], learned=b.learned)
        value.op, value.inputs = "linear", [a, weight]
        value.input_shapes = [value.input_shapes[0], weight.shape]
        return _linear(value)
    return _attention_of(value) or _grouped_matmul(value)


def _attention_of(value: Value) -> Value | None:
    """softmax(scale * q k^T + mask) v as one attention."""
    weights, v = value.inputs
    if weights.op != "softmax" or weights.uses != 1 or v.is_constant:
        return None
    if weights.attributes["axis"] != len(weights.shape) - 1:
        return None
    masks: list[Value] = []
    scores = _scores(weights.inputs[0], masks)
    if scores is None:
        return None
    q, k = scores.inputs
    rank = len(scores.attributes["k_shape"])
    order = (*range(rank - 2), rank - 1, rank - 2)
    q, k = _without_scale(q), _without_scale(k)
    k_shape = scores.attributes["k_shape"]
    turned = Value(
        "transpose",
        [k],
        tuple(k_shape[axis] for axis in order),
        {"order": order},
        input_shapes=[k_shape],
    )
    fused = Value(
        "attention",
        [q, turned, v, *masks],
        value.shape,
        {},
        value.name,
        input_shapes=[
            scores.attributes["q_shape"],
            turned.shape,
            value.input_shapes[1],
            *(mask.shape for mask in masks),
        ],
    )
    return _attention(fused)


def _scores(value: Value, masks: list[Value]) -> Value | None:
    """The product q k^T behind scaling, masks and reshapes; masks are added to the list."""
    if value.is_constant or value.uses != 1:
        return None
    if value.op == "matmul":
        return value if not any(v.is_constant for v in value.inputs) else None
    if value.op == "reshape":
        return _scores(value.inputs[0], masks)
    if pair := _with_constant(value, "mul"):
        return _scores(pair[0], masks) if pair[1].size == 1 else None
    if value.op == "add" or _is_function(value, "where"):
        for place, term in enumerate(value.inputs):
            behind: list[Value] = []
            if not term.is_constant and (found := _scores(term, behind)) is not None:
                masks += [*behind, *value.inputs[:place], *value.inputs[place + 1 :]]
                return found
    return None


def _attention(value: Value) -> Value:
    """`attention` over groups."""
    q, k, v = ((1,) * (3 - len(s)) + tuple(s) for s in value.input_shapes[:3])
    value.attributes = {"mask": len(value.inputs) > 3}
    value.input_shapes[:3] = [(prod(s[:-2]), s[-2], s[-1]) for s in (q, k, v)]
    value.shape = (prod(q[:-2]), q[-2], v[-1])
    value.inputs[:2] = [_without_scale(x) for x in value.inputs[:2]]
    return value


def _conv(value: Value) -> Value:
    value.attributes["bias"] = len(value.inputs) > 2
    return _with_padding(value, 0.0)


def _avg_pool(value: Value) -> Value:
    return _pool(_with_padding(value, 0.0), "global_avg_pool")


def _max_pool(value: Value) -> Value:
    return _pool(_with_padding(value, -math.inf), "global_max_pool")


def _with_padding(value: Value, number: float) -> Value:
    """The operation that does itself what a pad of its spatial axes by `number` does before it."""
    pad = value.inputs[0]
    if pad.op != "pad" or pad.attributes["mode"] != "constant":
        return value
    if pad.attributes.get("number") != number or pad.shape != value.input_shapes[0]:
        return value
    extra = {axis: (before, after) for axis, before, after in pad.attributes["padding"]}
    if min(extra) < 2 or any(n < 0 for pair in extra.values() for n in pair):
        return value
    value.attributes["padding"] = tuple(
        (before + extra.get(axis, (0, 0))[0], after + extra.get(axis, (0, 0))[1])
        for axis, (before, after) in enumerate(value.attributes["padding"], start=2)
    )
    value.inputs[0] = pad.inputs[0]
    value.input_shapes[0] = pad.input_shapes[0]
    return value


def _pool(value: Value, whole: str) -> Value:
    spatial = value.input_shapes[0][2:]
    if value.shape == value.input_shapes[0] and prod(value.attributes["kernel"]) == 1:
        return value.inputs[0]
    if (
        tuple(value.attributes["kernel"]) == tuple(spatial)
        and not any(n for pair in value.attributes["padding"] for n in pair)
        and prod(value.shape[2:]) == 1
    ):
        value.op, value.shape = whole, value.shape[:2]
    return value


def _reduce(value: Value) -> Value:
    shape = value.input_shapes[0]
    axes = tuple(sorted(axis % len(shape) for axis in value.attributes["axes"]))
    value.attributes["axes"] = axes
    value.shape = tuple(size for axis, size in enumerate(shape) if axis not in axes)
    kind = value.attributes["kind"]
    if prod(shape) == prod(value.shape) and kind in ("mean", "max", "min", "sum", "prod"):
        return _replace(value, "reshape", [value.inputs[0]])
    if kind == "sum" and (terms := _stacked(value)):
        return _add(_replace(value, "add", terms))
    if len(shape) > 2 and axes == tuple(range(2, len(shape))) and kind in ("mean", "max"):
        value.op = "global_avg_pool" if kind == "mean" else "global_max_pool"
    return value


def _stacked(value: Value) -> list[Value] | None:
    """The tensors that were stacked along the one axis that is now reduced."""
    stack, axes = value.inputs[0], value.attributes["axes"]
    if stack.op != "concat" or stack.uses != 1 or axes != (stack.attributes["axis"],):
        return None
    if any(v.is_constant for v in stack.inputs) or stack.shape != value.input_shapes[0]:
        return None
    if any(shape[axes[0]] != 1 for shape in stack.input_shapes):
        return None
    return [
        v.inputs[0] if v.op == "reshape" and v.inputs[0].shape == value.shape else v
        for v in stack.inputs
    ]


# --- cutting and joining -------------------------------------------------------------------------


def _slice(value: Value) -> Value:
    """One slice of the tensor behind slices; ranges that cut nothing are not kept."""
    x, shape = value.inputs[0], value.input_shapes[0]
    axis, start, stop, step = (value.attributes[k] for k in ("axis", "start", "stop", "step"))
    length = shape[axis]
    start, stop, step = slice(start, stop, step).indices(length)
    if (start, stop, step) == (0, length, 1):
        return x
    ranges = {axis: (start, stop, step)}
    if x.op == "slice" and x.shape == shape:
        inner = {a: (lo, hi, by) for a, lo, hi, by in x.attributes["ranges"]}
        if axis in inner:
            low, _, by = inner[axis]
            ranges[axis] = (low + start * by, low + stop * by, by * step)
        ranges = inner | ranges
        x, shape = x.inputs[0], x.input_shapes[0]
    # The last entry that is taken tells where a range ends, however far it was said to go.
    tight = []
    for a in sorted(ranges):
        low, high, by = ranges[a]
        count = max(0, -(-(high - low) // by))
        tight.append((a, low, low + (count - 1) * by + (1 if by > 0 else -1), by))
    return Value(
        "slice", [x], value.shape, {"ranges": tuple(tight)}, value.name, input_shapes=[shape]
    )


def _concat(value: Value) -> Value:
    axis = value.attributes["axis"] % len(value.shape)
    parts: list[Value] = []
    shapes = []
    for part, shape in zip(value.inputs, value.input_shapes, strict=True):
        if part.op == "concat" and part.uses == 1 and part.attributes["axis"] == axis:
            parts += part.inputs
            shapes += part.input_shapes
        else:
            parts.append(part)
            shapes.append(shape)
    value.inputs, value.input_shapes, value.attributes["axis"] = parts, shapes, axis
    return parts[0] if len(parts) == 1 else value


def _gather(value: Value) -> Value:
    """Rows of a constant table are an `embedding`."""
    x, index = value.inputs
    if x.is_constant and len(x.shape) == 2 and value.attributes["axis"] == 0:
        return Value("embedding", [index, x], value.shape, {}, value.name)
    return value


def _softmax(value: Value) -> Value:
    value.attributes["axis"] %= len(value.shape)
    return value


def _resize(value: Value) -> Value:
    return value.inputs[0] if value.shape == value.input_shapes[0] else value


def _pad(value: Value) -> Value:
    value.attributes["padding"] = tuple(
        (axis, before, after)
        for axis, before, after in value.attributes["padding"]
        if before or after
    )
    return value if value.attributes["padding"] else value.inputs[0]


_RULES: dict[str, Rule] = {
    "identity": _first_input,
    "unary": _unary,
    "clamp": _clamp,
    "binary": _binary,
    "reshape": _reshape,
    "linear": _linear,
    "matmul": _matmul,
    "attention": _attention,
    "conv": _conv,
    "conv_transpose": _conv,
    "avg_pool": _avg_pool,
    "max_pool": _max_pool,
    "reduce": _reduce,
    "slice": _slice,
    "concat": _concat,
    "gather": _gather,
    "softmax": _softmax,
    "log_softmax": _softmax,
    "resize": _resize,
    "pad": _pad,
}
