"""Attention: widths within heads, whole heads, and what is tied with them."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nni_aiop.graphs import from_module
from tests.graphs.edits.edit_checks import Module, assert_edits_to, editable, reasons

TOKENS = (1, 5, 6)


def heads_of(x: Tensor, heads: int) -> Tensor:
    rows = x.reshape(x.shape[0], x.shape[1], heads, x.shape[2] // heads)
    return rows.transpose(1, 2)


def joined(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def attention(
    w: int = 16, heads: int = 4, qk: int = 8, v: int = 8, *, mask: bool = False
) -> nn.Module:
    """Queries, keys and values by layers of their own."""

    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.stem(x)
        q, k, value = (heads_of(layer(x), heads) for layer in (m.q, m.k, m.v))
        shown = m.mask.expand(1, heads, 5, 5) if mask else None
        y = F.scaled_dot_product_attention(q, k, value, attn_mask=shown)
        return m.head(x + m.out(joined(y)))

    module = Module(
        forward,
        stem=nn.Linear(6, w),
        q=nn.Linear(w, heads * qk),
        k=nn.Linear(w, heads * qk),
        v=nn.Linear(w, heads * v),
        out=nn.Linear(heads * v, w),
        head=nn.Linear(w, 4),
    )
    module.register_buffer("mask", torch.rand(1, 1, 5, 5))
    return module


def test_widths_within_heads() -> None:
    edits = {"width:stem": 12, "width:k": 4, "width:v": 6}
    graph = assert_edits_to(attention, TOKENS, edits, w=12, qk=4, v=6)
    by_label = {site.label: site for site in graph.sites()}
    assert by_label["width:k"].layers == ("k", "q")
    assert (by_label["width:k"].value, by_label["width:k"].channels) == (8, 4)
    # Multiples of eight channels over the four heads.
    assert by_label["width:k"].values == (2, 4, 6, 8)
    assert by_label["width:v"].layers == ("v",)


def test_whole_heads() -> None:
    graph = assert_edits_to(attention, TOKENS, {"heads:k": 3}, heads=3)
    (site,) = (s for s in graph.sites() if s.kind == "heads")
    assert site.layers == ("k", "q", "v")
    assert site.values == (1, 2, 3, 4)


def test_heads_and_widths_together() -> None:
    edits = {"heads:k": 2, "width:k": 6, "width:v": 4, "width:stem": 8}
    assert_edits_to(attention, TOKENS, edits, heads=2, qk=6, v=4, w=8)


def test_one_head_that_is_left() -> None:
    assert_edits_to(attention, TOKENS, {"heads:k": 1}, heads=1)


def test_a_mask_that_all_heads_share() -> None:
    def make(**options: int) -> nn.Module:
        return attention(mask=True, **options)

    assert_edits_to(make, TOKENS, {"width:q": 4, "width:v": 6}, qk=4, v=6)
    assert_edits_to(make, TOKENS, {"heads:q": 3, "width:v": 6}, heads=3, v=6)


def test_a_learned_bias_for_every_head() -> None:
    def make(heads: int = 4, d: int = 8) -> nn.Module:
        def forward(m: Any, x: Tensor) -> Tensor:
            q, k, v = (heads_of(layer(x), heads) for layer in (m.q, m.k, m.v))
            return m.out(joined(((q @ k.transpose(-2, -1)) + m.bias).softmax(-1) @ v))

        module = Module(
            forward,
            q=nn.Linear(6, heads * d),
            k=nn.Linear(6, heads * d),
            v=nn.Linear(6, heads * d),
            out=nn.Linear(heads * d, 4),
        )
        module.bias = nn.Parameter(torch.rand(heads, 5, 5))
        return module

    graph = from_module(make(), TOKENS)
    (heads,) = (s.label for s in graph.sites() if s.kind == "heads")
    assert_edits_to(make, TOKENS, {heads: 3}, heads=3)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("shared", [False, True])
def test_a_bias_of_each_head_goes_with_it_and_one_of_all_stays(batch: int, shared: bool) -> None:
    """Heads and examples, or windows, may stand in one axis."""

    def make(heads: int = 3) -> nn.Module:
        def forward(m: Any, x: Tensor) -> Tensor:
            q, k, v = (heads_of(layer(x), heads) for layer in (m.q, m.k, m.v))
            return m.out(joined(F.scaled_dot_product_attention(q, k, v, attn_mask=m.bias)))

        module = Module(
            forward,
            q=nn.Linear(6, heads * 8),
            k=nn.Linear(6, heads * 8),
            v=nn.Linear(6, heads * 8),
            out=nn.Linear(heads * 8, 4),
        )
        module.bias = nn.Parameter(torch.rand(1, 1 if shared else heads, 5, 5))
        return module

    shape = (batch, 5, 6)
    (heads,) = (s.label for s in from_module(make(), shape).sites() if s.kind == "heads")
    for n in (1, 2):
        assert_edits_to(make, shape, {heads: n}, heads=n)


def packed(w: int = 16, heads: int = 4, d: int = 8) -> nn.Module:
    """Queries, keys and values by one layer, as vision transformers have them."""

    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.stem(x)
        q, k, v = m.qkv(x).reshape(1, 5, 3, heads, d).permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(-2, -1)).softmax(-1)
        return m.head(x + m.out(joined(scores @ v)))

    return Module(
        forward,
        stem=nn.Linear(6, w),
        qkv=nn.Linear(w, 3 * heads * d),
        out=nn.Linear(heads * d, w),
        head=nn.Linear(w, 4),
    )


def test_a_layer_of_queries_keys_and_values() -> None:
    graph = from_module(packed(), TOKENS)
    widths = [s for s in graph.sites() if s.label.startswith("width:qkv")]
    # They are one tensor of (3, heads, 8): of all heads of all three the same channels go.
    assert [(s.value, s.channels) for s in widths] == [(8, 12)]
    edits = {site.label: 6 for site in widths}
    assert_edits_to(packed, TOKENS, edits, d=6)
    assert_edits_to(packed, TOKENS, {"heads:qkv": 3}, heads=3)
    assert_edits_to(packed, TOKENS, {**edits, "heads:qkv": 2, "width:stem": 8}, d=6, heads=2, w=8)


def test_torchs_own_attention() -> None:
    def make(w: int = 16) -> nn.Module:
        return Module(
            lambda m, x: m.head(m.inner(y := m.stem(x), y, y, need_weights=False)[0]),
            stem=nn.Linear(6, 16),
            inner=nn.MultiheadAttention(16, 4, batch_first=True),
            head=nn.Linear(16, w),
        ).eval()

    graph = from_module(make(), TOKENS)
    assert {"heads:inner", "width:stem"} <= set(editable(graph))


def test_queries_of_one_head_for_all_keys() -> None:
    """Multi-query attention: one head of keys and values, which only widths can change."""

    def make(qk: int = 8, v: int = 8, heads: int = 4) -> nn.Module:
        def forward(m: Any, x: Tensor) -> Tensor:
            q = heads_of(m.q(x), heads)
            k, value = (heads_of(layer(x), 1) for layer in (m.k, m.v))
            scores = (q @ k.transpose(-2, -1)).softmax(-1)
            return m.out(joined(scores @ value))

        return Module(
            forward,
            q=nn.Linear(6, heads * qk),
            k=nn.Linear(6, qk),
            v=nn.Linear(6, v),
            out=nn.Linear(heads * v, 4),
        )

    graph = from_module(make(), TOKENS)
    for site in graph.sites():
        if site.reason is None and site.counts:
            graph.edit({site.label: site.values[0]})


def test_channels_that_attend_to_each_other_are_tied_or_stay() -> None:
    """Attention between channels: what stays has a reason, and what goes leaves a valid graph."""

    def forward(m: Any, x: Tensor) -> Tensor:
        q, k, v = m.q(x), m.k(x), m.v(x)
        scores = (q.transpose(1, 2) @ k).softmax(-1)
        return m.out(v @ scores.transpose(1, 2))

    def make(w: int = 16, v: int = 16) -> nn.Module:
        return Module(
            forward,
            q=nn.Linear(6, w),
            k=nn.Linear(6, v),
            v=nn.Linear(6, v),
            out=nn.Linear(w, 4),
        )

    assert_edits_to(make, TOKENS, {"width:q": 8, "width:k": 12}, w=8, v=12)


def test_a_constant_for_every_head_keeps_widths() -> None:
    def make() -> nn.Module:
        module = Module(
            lambda m, x: m.out(joined(heads_of(m.q(x), 4) @ m.mix)),
            q=nn.Linear(6, 32),
            out=nn.Linear(32, 4),
        )
        module.mix = nn.Parameter(torch.rand(4, 8, 8))
        return module

    graph = from_module(make(), TOKENS)
    assert "width:q" not in editable(graph)
    assert reasons(graph)
