"""Families of operations: what counts together in features and has one colour in pictures."""

from __future__ import annotations

from nni_aiop.graphs._vocabulary import ACTIVATIONS

__all__ = ["FAMILIES", "family"]

FAMILIES: dict[str, tuple[str, ...]] = {
    "ends": ("input", "output"),
    "convolution": ("conv", "conv_transpose"),
    "linear": ("linear",),
    "product": ("matmul", "attention"),
    "recurrent": ("lstm", "gru", "rnn", "embedding"),
    "pooling": ("max_pool", "avg_pool", "global_avg_pool", "global_max_pool", "reduce"),
    "normalisation": (
        "batch_norm",
        "layer_norm",
        "rms_norm",
        "group_norm",
        "instance_norm",
        "local_response_norm",
    ),
    "activation": ACTIVATIONS,
    "arithmetic": ("add", "mul", "elementwise"),
    "layout": (
        "concat",
        "slice",
        "cell_state",
        "gather",
        "expand",
        "resize",
        "pad",
        "permute",
    ),
    "other": (),
}
"""Family -> its operations; what is outside the vocabulary is "other"."""

_FAMILY = {op: name for name, ops in FAMILIES.items() for op in ops}


def family(op: str) -> str:
    """The family of an operation."""
    return _FAMILY.get(op, "other")
