"""Operations without weights: the edited graph is that of the module at the smaller widths."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nni_aiop.graphs import ComputeGraph, Node, from_module
from tests.graphs.edits.edit_checks import (
    IMAGE,
    Module,
    assert_edits_to,
    assert_same,
    editable,
    reasons,
)


def between(forward: Callable[[Tensor], Tensor], w: int, read: int | None = None) -> nn.Module:
    """A function between two convolutions."""
    return Module(
        lambda m, x: m.head(forward(m.stem(x))),
        stem=nn.Conv2d(3, w, 1),
        head=nn.Conv2d(w if read is None else read, 4, 1),
    )


# --- entry by entry -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "function",
    [F.relu, F.hardswish, torch.sigmoid, lambda x: x * 2.0, lambda x: 1 - x, lambda x: x.pow(2)],
    ids=["relu", "hardswish", "sigmoid", "times", "minus", "power"],
)
def test_functions_of_entries(function: Callable[[Tensor], Tensor]) -> None:
    assert_edits_to(lambda w=16: between(function, w), IMAGE, {"width:stem": 12}, w=12)


@pytest.mark.parametrize("shape", [(-1, 1, 1), (1, -1, 1, 1)])
def test_a_scale_for_every_channel(shape: tuple[int, ...]) -> None:
    def make(w: int = 16) -> nn.Module:
        module = Module(
            lambda m, x: m.head(F.relu(m.stem(x)) * m.scale),
            stem=nn.Conv2d(3, w, 1),
            head=nn.Conv2d(w, 4, 1),
        )
        module.scale = nn.Parameter(torch.ones(w).reshape(shape))
        return module

    assert_edits_to(make, IMAGE, {"width:stem": 12}, w=12)


def test_a_layer_scale_over_the_last_axis_in_a_residual_branch() -> None:
    def make(w: int = 16, v: int = 32) -> nn.Module:
        module = Module(
            lambda m, x: m.head(m.b(F.gelu(m.a(y := m.stem(x)))) * m.scale + y),
            stem=nn.Linear(6, w),
            a=nn.Linear(w, v),
            b=nn.Linear(v, w),
            head=nn.Linear(w, 4),
        )
        module.scale = nn.Parameter(torch.full((w,), 0.5))
        return module

    assert_edits_to(make, (1, 5, 6), {"width:stem": 12, "width:a": 24}, w=12, v=24)


def test_a_position_embedding() -> None:
    def make(w: int = 16) -> nn.Module:
        module = Module(
            lambda m, x: m.head(F.relu(m.stem(x) + m.places)),
            stem=nn.Linear(6, w),
            head=nn.Linear(w, 4),
        )
        module.places = nn.Parameter(torch.rand(1, 5, w))
        return module

    assert_edits_to(make, (1, 5, 6), {"width:stem": 12}, w=12)


def test_a_class_token_that_stands_before_the_others() -> None:
    def make(w: int = 16) -> nn.Module:
        module = Module(
            lambda m, x: m.head(m.norm(torch.cat([m.token, m.stem(x)], 1) + m.places)[:, 0]),
            stem=nn.Linear(6, w),
            norm=nn.LayerNorm(w),
            head=nn.Linear(w, 4),
        )
        module.token = nn.Parameter(torch.rand(1, 1, w))
        module.places = nn.Parameter(torch.rand(1, 6, w))
        return module

    assert_edits_to(make, (1, 5, 6), {"width:stem": 12}, w=12)


def test_terms_that_broadcast_over_positions_and_over_channels() -> None:
    def make(w: int = 16) -> nn.Module:
        def forward(m: Any, x: Tensor) -> Tensor:
            y = m.stem(x)
            over_positions = y * m.one(y)  # (1, 1, 8, 8)
            over_channels = y.mean((2, 3), keepdim=True)
            return m.head(over_positions + over_channels)

        return Module(
            forward, stem=nn.Conv2d(3, w, 1), one=nn.Conv2d(w, 1, 1), head=nn.Conv2d(w, 4, 1)
        )

    assert_edits_to(make, IMAGE, {"width:stem": 12}, w=12)


def test_channels_that_meet_the_input_stay() -> None:
    module = Module(
        lambda m, x: m.head(m.stem(x) + x), stem=nn.Conv2d(8, 8, 1), head=nn.Conv2d(8, 4, 1)
    )
    graph = from_module(module, (1, 8, 6, 6))
    assert reasons(graph)["width:stem"] == "(add): it meets data that have no channels"


# --- concat, slices -----------------------------------------------------------------------------


def test_concatenated_channels() -> None:
    def make(a: int = 16, b: int = 8) -> nn.Module:
        return Module(
            lambda m, x: m.head(F.relu(torch.cat([m.a(x), m.b(x), x], 1))),
            a=nn.Conv2d(3, a, 1),
            b=nn.Conv2d(3, b, 1),
            head=nn.Conv2d(a + b + 3, 4, 1),
        )

    assert_edits_to(make, IMAGE, {"width:a": 12, "width:b": 4}, a=12, b=4)


def test_a_norm_over_concatenated_channels() -> None:
    def make(a: int = 16, b: int = 8) -> nn.Module:
        return Module(
            lambda m, x: m.head(F.relu(m.norm(torch.cat([m.a(x), m.b(x)], 1)))),
            a=nn.Conv2d(3, a, 1),
            b=nn.Conv2d(3, b, 1),
            norm=nn.BatchNorm2d(a + b),
            head=nn.Conv2d(a + b, 4, 1),
        ).eval()

    assert_edits_to(make, IMAGE, {"width:a": 12, "width:b": 4}, a=12, b=4)


def test_concatenated_positions_lose_the_same_channels() -> None:
    def make(w: int = 16) -> nn.Module:
        return Module(
            lambda m, x: m.head(F.relu(torch.cat([m.a(x), m.b(x)], 2))),
            a=nn.Conv2d(3, w, 1),
            b=nn.Conv2d(3, w, 1),
            head=nn.Conv2d(w, 4, 1),
        )

    assert_edits_to(make, IMAGE, {"width:a": 12}, w=12)


def test_channels_that_are_split_evenly_and_multiplied() -> None:
    def make(w: int = 16) -> nn.Module:
        def forward(m: Any, x: Tensor) -> Tensor:
            a, b = m.stem(x).chunk(2, 1)
            return m.head(a * torch.sigmoid(b))

        return Module(forward, stem=nn.Conv2d(3, 2 * w, 1), head=nn.Conv2d(w, 4, 1))

    graph = assert_edits_to(make, IMAGE, {"width:stem": 12}, w=12)
    (site,) = (s for s in graph.sites() if s.label == "width:stem")
    assert (site.value, site.channels) == (16, 2)


def test_channels_that_are_split_unevenly() -> None:
    def make(a: int = 16, b: int = 8) -> nn.Module:
        def forward(m: Any, x: Tensor) -> Tensor:
            p, q = m.stem(x).split([a, b], 1)
            return m.head(torch.cat([F.relu(p), torch.sigmoid(q)], 1))

        return Module(forward, stem=nn.Conv2d(3, a + b, 1), head=nn.Conv2d(a + b, 4, 1))

    edits = {"width:stem": 12, "width:stem#2": 4}
    assert_edits_to(make, IMAGE, edits, a=12, b=4)


def test_a_slice_of_channels_that_is_used_beside_all_of_them() -> None:
    def make(a: int = 16, b: int = 8) -> nn.Module:
        def forward(m: Any, x: Tensor) -> Tensor:
            y = m.stem(x)
            return m.head(torch.cat([y, m.deep(y[:, :a])], 1))

        return Module(
            forward,
            stem=nn.Conv2d(3, a + b, 1),
            deep=nn.Conv2d(a, a, 3, padding=1, groups=a),
            head=nn.Conv2d(2 * a + b, 4, 1),
        )

    assert_edits_to(make, IMAGE, {"width:stem": 12, "width:stem#2": 4}, a=12, b=4)


def test_every_other_channel_stays() -> None:
    graph = from_module(between(lambda x: x[:, ::2], 16, 8), IMAGE)
    assert "it takes every so many of them" in reasons(graph)["width:stem"]


def test_picked_channels_stay() -> None:
    index = torch.tensor([3, 1, 2, 0])
    graph = from_module(between(lambda x: x.index_select(1, index), 8, 4), IMAGE)
    assert "width:stem" not in editable(graph)


# --- permute, reshape ---------------------------------------------------------------------------


def test_a_flatten_before_a_classifier() -> None:
    def make(w: int = 16) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, w, 3), nn.Flatten(), nn.Linear(36 * w, 4))

    graph = assert_edits_to(make, IMAGE, {"width:0": 12}, w=12)
    (site,) = (s for s in graph.sites() if s.label == "width:0")
    assert (site.value, site.channels) == (16, 1)


def test_a_flatten_of_channels_that_are_last() -> None:
    def make(w: int = 16) -> nn.Module:
        return Module(
            lambda m, x: m.head(m.stem(x).permute(0, 2, 3, 1).flatten(1)),
            stem=nn.Conv2d(3, w, 3),
            head=nn.Linear(36 * w, 4),
        )

    assert_edits_to(make, IMAGE, {"width:stem": 12}, w=12)


def test_positions_as_tokens_and_back() -> None:
    def make(w: int = 16, v: int = 8) -> nn.Module:
        def forward(m: Any, x: Tensor) -> Tensor:
            y = m.stem(x)
            y = m.inner(y.flatten(2).transpose(1, 2))
            return m.head(y.transpose(1, 2).reshape(1, -1, 8, 8))

        return Module(
            forward, stem=nn.Conv2d(3, w, 1), inner=nn.Linear(w, v), head=nn.Conv2d(v, 4, 1)
        )

    assert_edits_to(make, IMAGE, {"width:stem": 12, "width:inner": 4}, w=12, v=4)


def test_a_channel_shuffle() -> None:
    def make(each: int = 8) -> nn.Module:
        w = 2 * each
        return nn.Sequential(
            nn.Conv2d(3, w, 1), nn.ChannelShuffle(2), nn.Conv2d(w, 16, 1, groups=2),
            nn.Conv2d(16, 4, 1),
        )  # fmt: skip

    # Of both halves, and of both groups that are read, the same channels: units of four.
    graph = assert_edits_to(make, IMAGE, {"width:0": 3}, each=6)
    assert next(s.channels for s in graph.sites() if s.label == "width:0") == 4


def test_a_shuffle_unit() -> None:
    def make(w: int = 8, v: int = 16) -> nn.Module:
        def forward(m: Any, x: Tensor) -> Tensor:
            a, b = m.stem(x).chunk(2, 1)
            y = torch.cat([a, m.b(F.relu(m.a(b)))], 1)
            y = y.reshape(1, 2, w, 8, 8).transpose(1, 2).reshape(1, 2 * w, 8, 8)
            return m.head(y)

        return Module(
            forward,
            stem=nn.Conv2d(3, 2 * w, 1),
            a=nn.Conv2d(w, v, 1),
            b=nn.Conv2d(v, w, 1),
            head=nn.Conv2d(2 * w, 4, 1),
        )

    assert_edits_to(make, IMAGE, {"width:stem": 4, "width:stem#2": 4, "width:a": 12}, w=4, v=12)


def test_a_pixel_shuffle() -> None:
    def make(w: int = 8) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4 * w, 1), nn.PixelShuffle(2), nn.Conv2d(w, 4, 1))

    graph = assert_edits_to(make, IMAGE, {"width:0": 4}, w=4)
    assert next(s.channels for s in graph.sites() if s.label == "width:0") == 4


def test_a_pixel_unshuffle() -> None:
    def make(w: int = 8) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, w, 1), nn.PixelUnshuffle(2), nn.Conv2d(4 * w, 4, 1))

    assert_edits_to(make, IMAGE, {"width:0": 4}, w=4)


def test_patches_that_are_merged() -> None:
    def make(w: int = 8) -> nn.Module:
        def forward(m: Any, x: Tensor) -> Tensor:
            y = m.stem(x).permute(0, 2, 3, 1)
            y = torch.cat([y[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], -1)
            return m.head(m.norm(y))

        return Module(
            forward,
            stem=nn.Conv2d(3, w, 1),
            norm=nn.LayerNorm(4 * w),
            head=nn.Linear(4 * w, 4),
        )

    assert_edits_to(make, IMAGE, {"width:stem": 4}, w=4)


# --- pads, pools, resizes, reductions -----------------------------------------------------------


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate"])
def test_pads_around_positions(mode: str) -> None:
    def make(w: int = 16) -> nn.Module:
        return between(lambda x: F.pad(x, (1, 1, 1, 1), mode=mode), w)

    assert_edits_to(make, IMAGE, {"width:stem": 12}, w=12)


def test_a_shortcut_that_is_padded_with_channels_of_zeros() -> None:
    def make(w: int = 16, more: int = 8) -> nn.Module:
        def forward(m: Any, x: Tensor) -> Tensor:
            y = m.stem(x)
            return m.head(F.pad(y, (0, 0, 0, 0, 0, more)) + m.inner(y))

        return Module(
            forward,
            stem=nn.Conv2d(3, w, 1),
            inner=nn.Conv2d(w, w + more, 1),
            head=nn.Conv2d(w + more, 4, 1),
        )

    edits = {"width:stem": 12, "width:inner": 4}
    graph = from_module(make(), IMAGE)
    assert editable(graph)[:2] == ["width:stem", "width:inner"]
    assert_edits_to(make, IMAGE, edits, w=12, more=4)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.max_pool2d(x, 2),
        lambda x: F.avg_pool2d(x, 3, 1, 1),
        lambda x: F.adaptive_avg_pool2d(x, 1),
        lambda x: F.adaptive_avg_pool2d(x, 4),
        lambda x: F.adaptive_max_pool2d(x, 1),
        lambda x: F.interpolate(x, scale_factor=2.0),
        lambda x: F.interpolate(x, size=(5, 7), mode="bilinear"),
        lambda x: x.mean((2, 3), keepdim=True),
        lambda x: x.amax(3, keepdim=True),
        lambda x: x.expand(-1, -1, 8, 8),
        lambda x: torch.softmax(x, 1),
        lambda x: torch.log_softmax(x, 2),
        lambda x: x / x.norm(dim=1, keepdim=True),
        lambda x: x.roll((1, 1), (2, 3)),
    ],
    ids=[
        "max", "avg", "global avg", "adaptive", "global max", "nearest", "bilinear", "mean", "amax",
        "expand", "softmax", "log softmax of rows", "unit length", "roll",
    ],
)  # fmt: skip
def test_functions_of_positions(function: Callable[[Tensor], Tensor]) -> None:
    def make(w: int = 16) -> nn.Module:
        return between(function, w)

    assert_edits_to(make, IMAGE, {"width:stem": 12}, w=12)


def test_a_mean_over_channels_and_positions() -> None:
    def make(w: int = 16) -> nn.Module:
        return Module(
            lambda m, x: m.head((y := m.stem(x)) * torch.sigmoid(m.one(y.mean(1, keepdim=True)))),
            stem=nn.Conv2d(3, w, 1),
            one=nn.Conv2d(1, 1, 7, padding=3),
            head=nn.Conv2d(w, 4, 1),
        )

    assert_edits_to(make, IMAGE, {"width:stem": 12}, w=12)


def test_a_pool_over_channels_stays() -> None:
    graph = from_module(
        between(lambda x: F.max_pool3d(x[:, None], (3, 1, 1), 1, (1, 0, 0))[:, 0], 16), IMAGE
    )
    assert "slides over them" in reasons(graph)["width:stem"]


def test_the_place_of_the_largest_channel_stays() -> None:
    module = Module(lambda m, x: m.stem(x).argmax(1), stem=nn.Conv2d(3, 16, 1))
    graph = from_module(module, IMAGE)
    assert "it gives their places" in reasons(graph)["width:stem"]


# --- gates --------------------------------------------------------------------------------------


def test_squeeze_and_excitation() -> None:
    def make(w: int = 16, v: int = 8) -> nn.Module:
        def forward(m: Any, x: Tensor) -> Tensor:
            y = F.relu(m.stem(x))
            gate = torch.sigmoid(m.up(F.relu(m.down(y.mean((2, 3), keepdim=True)))))
            return m.head(y * gate)

        return Module(
            forward,
            stem=nn.Conv2d(3, w, 1),
            down=nn.Conv2d(w, v, 1),
            up=nn.Conv2d(v, w, 1),
            head=nn.Conv2d(w, 4, 1),
        )

    graph = assert_edits_to(make, IMAGE, {"width:stem": 12, "width:down": 4}, w=12, v=4)
    (site,) = (s for s in graph.sites() if s.label == "width:down")
    (gate,) = (s for s in graph.sites() if s.kind == "gate")
    assert site.parents == (gate.label,)


def test_squeeze_and_excitation_of_linear_layers() -> None:
    def make(w: int = 16, v: int = 8) -> nn.Module:
        def forward(m: Any, x: Tensor) -> Tensor:
            y = m.stem(x)
            gate = torch.sigmoid(m.up(F.relu(m.down(y.mean((2, 3))))))
            return m.head(y * gate.reshape(1, -1, 1, 1))

        return Module(
            forward,
            stem=nn.Conv2d(3, w, 1),
            down=nn.Linear(w, v),
            up=nn.Linear(v, w),
            head=nn.Conv2d(w, 4, 1),
        )

    assert_edits_to(make, IMAGE, {"width:stem": 12, "width:down": 4}, w=12, v=4)


# --- a norm that only files have ----------------------------------------------------------------


def test_a_local_response_norm() -> None:
    def make(w: int) -> ComputeGraph:
        inner = (1, w, 8, 8)
        conv = {
            "kernel": (1, 1), "stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1),
            "groups": 1,
        }  # fmt: skip
        nodes = [
            Node.make("input", [], IMAGE),
            Node.make("conv", [IMAGE], inner, weight_shape=(w, 3, 1, 1), parameters=4 * w, **conv),
            Node.make("local_response_norm", [inner], inner),
            Node.make(
                "conv", [inner], (1, 4, 8, 8),
                weight_shape=(4, w, 1, 1), parameters=4 * w + 4, **conv,
            ),
            Node.make("output", [(1, 4, 8, 8)], (1, 4, 8, 8)),
        ]  # fmt: skip
        return ComputeGraph(
            nodes, [(), (0,), (1,), (2,), (3,)], names=["", "stem", "norm", "head", ""]
        )

    assert_same(make(16).edit({"width:stem": 12}), make(12))
