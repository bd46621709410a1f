"""The operations of a compute graph: one name for each, from whatever door a network comes.

Every operation lists the attributes that its nodes carry. What is not listed here becomes
`other:NAME`, which users are shown (`ComputeGraph.others`).
"""

from __future__ import annotations

__all__ = [
    "ACTIVATIONS",
    "COMMUTATIVE",
    "ENTRYWISE",
    "MOVING",
    "OPERATIONS",
    "OTHER",
    "is_known",
]

OTHER = "other:"
"""Prefix of operations outside the vocabulary."""

MOVING = frozenset(
    {
        "argsort", "as_strided", "bincount", "col2im", "compress", "cumprod", "cumsum", "diagonal",
        "expand", "eye_like", "flip", "gather", "gather_elements", "gather_nd", "im2col", "index",
        "index_add", "index_copy", "index_fill", "index_put", "index_select", "masked_fill",
        "masked_scatter", "max_pool_indices", "nonzero", "one_hot", "put", "reverse_sequence",
        "roll", "scatter", "scatter_add", "scatter_reduce", "searchsorted", "select_scatter",
        "shape", "slice_scatter", "sort", "take", "topk", "tril", "tril_indices", "triu", "unfold",
        "unique", "unique_consecutive",
    }
)  # fmt: skip
"""Names of operations outside the vocabulary that move, count or order data: no multiply-adds.

Any other one may have some: `ComputeGraph.macs` warns of it.
"""

ACTIVATIONS: tuple[str, ...] = (
    "relu",
    "relu6",
    "leaky_relu",
    "prelu",
    "elu",
    "selu",
    "celu",
    "sigmoid",
    "hard_sigmoid",
    "tanh",
    "silu",
    "hard_swish",
    "gelu",
    "mish",
    "softplus",
    "softmax",
    "log_softmax",
)
"""Non-linear functions of one tensor. `softmax` and `log_softmax` carry the attribute `axis`."""

ENTRYWISE = frozenset(ACTIVATIONS) - {"softmax", "log_softmax", "prelu"} | {"elementwise"}
"""Functions that, of one tensor, give each entry by that entry alone."""

OPERATIONS: dict[str, tuple[str, ...]] = {
    "input": (),
    "output": (),
    "conv": ("kernel", "stride", "padding", "dilation", "groups"),
    "conv_transpose": ("kernel", "stride", "padding", "dilation", "groups"),
    "linear": (),
    "matmul": ("operand",),
    "attention": ("mask", "constant"),
    "max_pool": ("kernel", "stride", "padding", "dilation"),
    "avg_pool": ("kernel", "stride", "padding"),
    "global_avg_pool": (),
    "global_max_pool": (),
    "batch_norm": (),
    "layer_norm": (),
    "rms_norm": (),
    "group_norm": ("groups",),
    "instance_norm": (),
    "local_response_norm": (),
    **dict.fromkeys(ACTIVATIONS, ()),
    "softmax": ("axis",),
    "log_softmax": ("axis",),
    "add": ("operand",),
    "mul": ("operand", "value"),
    "elementwise": ("function", "operand"),
    "concat": ("axis",),
    "slice": ("ranges",),
    "gather": ("axis",),
    "expand": (),
    "resize": ("mode",),
    "pad": ("padding", "mode"),
    "reduce": ("kind", "axes"),
    "permute": ("order",),
    "embedding": (),
    "lstm": ("hidden", "directions", "bias", "projection", "operand"),
    "gru": ("hidden", "directions", "bias", "operand"),
    "rnn": ("hidden", "directions", "bias", "operand"),
    "cell_state": (),
}
"""Operation -> names of its attributes (an attribute may be absent where it does not apply).

- `conv`, `conv_transpose`: `kernel`, `stride`, `dilation` one number for each spatial axis,
  `padding` (before, after) for each; `groups`. Weight shape: (out, in / groups, *kernel), for
  `conv_transpose` (in, out / groups, *kernel). What scales or shifts the channels right behind
  them (a bias, batch normalisation) is theirs, as it is of `linear`.
- `linear`: a product with a learned matrix over rows: shapes (rows, in) -> (rows, out), all
  leading axes being rows. Weight shape (out, in).
- `matmul`: a product of two tensors: (g, m, k), (g, k, n) -> (g, m, n); a tensor that is the same
  for several groups has fewer. `operand` is "left" or "right" where that side is constant.
- `attention`: softmax(q k^T * scale + mask) v over groups (batch x heads): (g, n, d), (g, m, d),
  (g, m, e) -> (g, n, e). `mask`: whether something is added before the softmax; where it is
  computed from data it is a further input. `constant`: those of "qkv" that are constant; the
  shape of constant keys is the weight shape.
- pools: as `conv`. `global_avg_pool`, `global_max_pool`: over all axes from the third on.
- norms: weight shape: that of the scale, None without one (batch and instance normalisation always
  have one: ONNX does not tell ones from learned numbers).
- `add`, `mul`: of any number of tensors (a sum of sums is one sum); `operand` is "constant" where
  one term does not come from the input of the network (a learned scale, a position embedding);
  its shape is the weight shape unless it is a single number. `value` 0 marks a product with zero.
- `elementwise`: any other function of tensors entry by entry; `function` says which ("sub",
  "exp", "pow" ...). `operand` is "left" or "right" where that side is constant.
- `concat`: `axis`. `slice`: `ranges` of (axis, start, stop, step), only those that cut.
- `gather`: entries by index along `axis`. `expand`: data repeated, unless for a broadcast.
- `resize`: `mode` "nearest", "linear" (bilinear too) or "cubic".
- `pad`: `padding` (axis, before, after) of those axes that get some; `mode` "constant", "reflect",
  "replicate", "circular".
- `reduce`: `kind` "mean", "sum", "max", "min", "prod", "l1", "l2", "logsumexp", "argmax" ...,
  over `axes`; reduced axes are not kept in the output shape.
- `permute`: `order` over the axes that data keep together (neighbours that stay neighbours are
  one axis, axes of length 1 none).
- `lstm`, `gru`, `rnn`: one layer; (length, batch, in) -> (length, batch, directions x hidden).
  Initial states that are computed from data are further inputs, (directions, batch, hidden), the
  hidden one before the cell's; `operand` is "left" where the sequence itself is constant and a
  state is not. An `lstm` whose hidden state is projected has its width as `projection`, and that
  width stands for `hidden` in the shapes of its output and its hidden state.
- `cell_state`: the last cell state of an `lstm`, (directions, batch, hidden).
"""

COMMUTATIVE = frozenset({"add", "mul"})
"""Operations whose inputs have no order."""


def is_known(op: str) -> bool:
    """Whether an operation stands in the vocabulary."""
    return op in OPERATIONS
