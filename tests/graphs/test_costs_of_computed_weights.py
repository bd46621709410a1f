"""Costs of operations whose weight is computed from data, by hand."""

from __future__ import annotations

from nni_aiop.graphs import Node

WINDOW = {"kernel": (2, 2), "stride": (2, 2), "padding": ((0, 0), (0, 0)), "dilation": (1, 1)}


def test_a_transposed_convolution_multiplies_every_entry_of_its_first_input() -> None:
    x, weight, output = (2, 8, 4, 4), (8, 5, 2, 2), (2, 5, 8, 8)
    cost = Node.make("conv_transpose", [x, weight], output, groups=1, **WINDOW).cost
    assert cost.macs == 256 * 5 * 4
    assert cost.flops == 2 * cost.macs
    assert cost.traffic == 256 + 160 + 640
