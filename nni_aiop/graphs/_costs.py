"""What the operations of a compute graph cost, and the memory that its schedule takes.

**MACs** are the multiply-adds of products with weights and of tensors with each other:

    conv            output entries × (input channels / groups) × kernel entries
    conv_transpose  input entries × (output channels / groups) × kernel entries
    linear          rows × in × out
    matmul          g × m × k × n
    attention       g × n × m × (d + e): both products
    lstm, gru, rnn  steps × batch × directions × gates × hidden × (in + hidden), 4, 3 and 1 gates;
                    with a projection × (4 × hidden × (in + projected) + hidden × projected)

and nothing for everything else. Places that lie in the padding count, as everywhere.

Functions that hide products are written out in these: a bilinear layer is a linear one from the
first input to out × second, and a matmul of that with the second (batch × out × in1 × in2 + batch
× out × in2); Euclidean distances of n points to m are one matmul (n × m × d), other distances are
differences alone; einsum multiplies its tensors from left to right, letters of one tensor alone
being summed before and products that sum nothing being `mul`, which has no multiply-adds.

**FLOPs** are 2 × MACs (a sum of k products takes k - 1 additions, its bias one more) and, of single
operations:

    activations but softmax                 1 for each entry: a function is one operation
    softmax, log_softmax                    5: maximum, difference, exponential, sum, quotient
    softmax inside attention                5 for each of g × n × m scores, 1 for its scale, and
                                            1 for its mask
    batch_norm                              2 for each entry: scale and shift of inference, where no
                                            convolution or linear layer takes them in
    layer_norm, group_norm, instance_norm   7: mean, difference, square and its mean, quotient, and
                                            scale and shift (5 without learned ones)
    rms_norm                                4: square and its mean, quotient, scale
    local_response_norm                     4
    add, mul                                (terms - 1) for each entry, a constant being a term
    elementwise                             1 for each entry
    max_pool, avg_pool                      kernel entries for each entry of the output
    global pools, reduce                    1 for each entry of the input
    resize                                  2 for each neighbour and entry: 2 neighbours an axis
                                            that is resized linearly, 4 cubically; none for nearest
    lstm, gru, rnn                          2 for each gate's entry (the sum of both products, the
                                            function), 2 more where there are biases, and 5, 5 and
                                            0 for each entry of the new state; peepholes count as
                                            parameters only

Moving data is free: input, output, concat, slice, gather, expand, pad, permute, embedding,
cell_state. So are the operations that nobody knows, "other:NAME": `ComputeGraph.others` lists them.

**Activations** are the entries of what a node puts out; an output of the network is the tensor that
it reads, and takes no room of its own. **Traffic** is the entries that a node reads, learned ones
included, and writes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from nni_aiop.graphs._types import Cost, GraphLike, NodeLike
from nni_aiop.graphs._vocabulary import ACTIVATIONS

__all__ = ["activation_memory", "graph_costs", "node_cost", "peak_memory", "total"]


def _weight(node: NodeLike) -> Sequence[int]:
    """Shape of a weight, which may be computed from data, as may the bias behind it."""
    rank = len(node.output_shape)
    return node.weight_shape or next(s for s in reversed(node.input_shapes) if len(s) == rank)


def _conv_macs(node: NodeLike) -> int:
    return prod(node.output_shape) * prod(_weight(node)[1:])


def _conv_transpose_macs(node: NodeLike) -> int:
    return prod(node.input_shapes[0]) * prod(_weight(node)[1:])


def _linear_macs(node: NodeLike) -> int:
    return prod(node.output_shape) * node.input_shapes[0][-1]


def _matmul_macs(node: NodeLike) -> int:
    _, m, n = node.output_shape
    first, operand = node.input_shapes[0], node.get("operand")
    if operand is None and len(node.input_shapes) == 1:
        # Written before nodes told which side is constant: the sizes tell, where they can.
        left = prod(node.weight_shape or ()) % max(1, first[-1] * n) == 0
        operand = "right" if first[-2] == m and (left or first[-1] != n) else "left"
    inner = first[-2] if operand == "left" else first[-1]
    return prod(node.output_shape) * inner


def _scores(node: NodeLike) -> tuple[int, int]:
    """(g × n × m scores, d) of an attention; constants are not among its inputs."""
    constant = node.get("constant", "q" if len(node.input_shapes) == 2 else "")
    groups, queries, _ = node.output_shape
    keys = node.input_shapes[0 if "q" in constant else 1] if "k" not in constant else _weight(node)
    return groups * queries * keys[-2], keys[-1]


def _attention_macs(node: NodeLike) -> int:
    scores, depth = _scores(node)
    return scores * (depth + node.output_shape[-1])


_GATES = {"lstm": 4, "gru": 3, "rnn": 1}


_STATE = {"lstm": 5, "gru": 5, "rnn": 0}


def _recurrent_sizes(node: NodeLike) -> tuple[int, int, int]:
    """Steps × batch × directions, the hidden size, and the projected one (0 without)."""
    rows = prod(node.output_shape[:-1]) * int(node["directions"])
    return rows, int(node["hidden"]), int(node.get("projection", 0))


def _recurrent_macs(node: NodeLike) -> int:
    rows, hidden, projected = _recurrent_sizes(node)
    read = node.weight_shape or node.input_shapes[0]
    gates = _GATES[node.op] * hidden * (read[-1] + (projected or hidden))
    return rows * (gates + hidden * projected)


_MACS: dict[str, Callable[[NodeLike], int]] = {
    "conv": _conv_macs,
    "conv_transpose": _conv_transpose_macs,
    "linear": _linear_macs,
    "matmul": _matmul_macs,
    "attention": _attention_macs,
    **dict.fromkeys(_GATES, _recurrent_macs),
}


def _attention_rest(node: NodeLike) -> int:
    return _scores(node)[0] * (6 + bool(node.get("mask")))


def _norm(node: NodeLike) -> int:
    return prod(node.output_shape) * (5 if node.weight_shape is None else 7)


def _terms(node: NodeLike) -> int:
    terms = len(node.input_shapes) + ("operand" in dict(node.attributes))
    return prod(node.output_shape) * max(0, terms - 1)


def _window(node: NodeLike) -> int:
    return prod(node.output_shape) * int(prod(node["kernel"]))


def _each_read(node: NodeLike) -> int:
    return prod(node.input_shapes[0])


def _resize(node: NodeLike) -> int:
    reach = {"linear": 2, "cubic": 4}.get(node["mode"])
    if reach is None:
        return 0
    pairs = zip(node.input_shapes[0], node.output_shape, strict=True)
    # What depends on widths is the same on both sides; it may be a tensor of them (`graphs/edits`).
    axes: int = sum(before is not after and before != after for before, after in pairs)
    return 2 * prod(node.output_shape) * int(reach**axes)


def _recurrent_rest(node: NodeLike) -> int:
    rows, hidden, _ = _recurrent_sizes(node)
    return rows * hidden * (_GATES[node.op] * (4 if node.get("bias") else 2) + _STATE[node.op])


def _times(number: int) -> Callable[[NodeLike], int]:
    return lambda node: number * prod(node.output_shape)


_SINGLE: dict[str, Callable[[NodeLike], int]] = {
    **dict.fromkeys(ACTIVATIONS, _times(1)),
    **dict.fromkeys(("softmax", "log_softmax"), _times(5)),
    "attention": _attention_rest,
    "batch_norm": _times(2),
    **dict.fromkeys(("layer_norm", "group_norm", "instance_norm"), _norm),
    **dict.fromkeys(("rms_norm", "local_response_norm"), _times(4)),
    **dict.fromkeys(("add", "mul"), _terms),
    "elementwise": _times(1),
    **dict.fromkeys(("max_pool", "avg_pool"), _window),
    **dict.fromkeys(("global_avg_pool", "global_max_pool", "reduce"), _each_read),
    "resize": _resize,
    **dict.fromkeys(_GATES, _recurrent_rest),
}


def node_cost(node: NodeLike) -> Cost:
    """What one operation costs."""
    macs, single = _MACS.get(node.op), _SINGLE.get(node.op)
    products = 0 if macs is None else macs(node)
    written = 0 if node.op == "output" else prod(node.output_shape)
    moves = node.op not in ("input", "output")
    read = sum(map(prod, node.input_shapes)) if moves else 0
    return Cost(
        macs=products,
        flops=2 * products + (0 if single is None else single(node)),
        parameters=node.parameters,
        activations=written,
        traffic=read + written + node.parameters if moves else 0,
    )


def graph_costs(graph: GraphLike) -> tuple[Cost, ...]:
    """What each node costs; weights that it shares with an earlier one are counted there."""
    costs = [node.cost for node in graph.nodes]
    for place in graph.tied:
        cost = costs[place]
        costs[place] = Cost(cost.macs, cost.flops, 0, cost.activations, cost.traffic)
    return tuple(costs)


def total(costs: Sequence[Cost]) -> Cost:
    """What several operations cost together."""
    return Cost(
        sum(cost.macs for cost in costs),
        sum(cost.flops for cost in costs),
        sum(cost.parameters for cost in costs),
        sum(cost.activations for cost in costs),
        sum(cost.traffic for cost in costs),
    )


def activation_memory(graph: GraphLike, entry_bytes: int = 4) -> int:
    """Bytes of all that the nodes put out: what training keeps for the backward pass."""
    return entry_bytes * sum(node.cost.activations for node in graph.nodes)


def peak_memory(graph: GraphLike, entry_bytes: int = 4, *, weights: bool = False) -> int:
    """Most bytes that live at once when the nodes run in their order.

    A tensor lives from the node that writes it to the last one that reads it, and outputs of the
    network to the end; nothing is written in place.

    Args:
        graph: The schedule.
        entry_bytes: Bytes of one number: 4 for float32.
        weights: Whether all learned numbers are there throughout.
    """
    last = list(range(len(graph)))
    for place, sources in enumerate(graph.inputs):
        end = len(graph) if graph.nodes[place].op == "output" else place
        for source in sources:
            last[source] = max(last[source], end)
    dies: list[int] = [0] * (len(graph) + 1)
    live = peak = 0
    for place, node in enumerate(graph.nodes):
        size = node.cost.activations
        live += size
        dies[last[place]] += size
        peak = max(peak, live)
        live -= dies[place]
    return entry_bytes * (peak + (graph.parameters if weights else 0))
