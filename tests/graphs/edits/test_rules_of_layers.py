"""Layers with weights: the edited graph is that of the module written at the smaller widths."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nni_aiop.graphs import from_module
from tests.graphs.edits.edit_checks import (
    IMAGE,
    Module,
    assert_edits_to,
    assert_same,
    editable,
    reasons,
    words,
)

# --- convolutions -------------------------------------------------------------------------------


def plain(w: int = 16) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, w, 3), nn.ReLU(), nn.Conv2d(w, 8, 3, bias=False))


def test_a_convolution() -> None:
    graph = assert_edits_to(plain, IMAGE, {"width:0": 5}, w=5)
    assert editable(graph)[0] == "width:0"
    assert reasons(graph) == {"width:2": "output_0 (output): it leaves the network"}


def test_a_convolution_of_one_axis_and_of_three() -> None:
    def line(w: int = 16) -> nn.Module:
        return nn.Sequential(nn.Conv1d(3, w, 3), nn.Conv1d(w, 8, 3))

    def cube(w: int = 16) -> nn.Module:
        return nn.Sequential(nn.Conv3d(3, w, 3), nn.Conv3d(w, 8, 3))

    assert_edits_to(line, (1, 3, 9), {"width:0": 12}, w=12)
    assert_edits_to(cube, (1, 3, 6, 6, 6), {"width:0": 12}, w=12)


def grouped(a: int = 4, b: int = 8) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4 * a, 3), nn.Conv2d(4 * a, 4 * b, 3, groups=4), nn.Conv2d(4 * b, 8, 1)
    )


def test_a_grouped_convolution_loses_the_same_channel_of_every_group() -> None:
    graph = assert_edits_to(grouped, IMAGE, {"width:0": 3, "width:1": 5}, a=3, b=5)
    assert [(s.label, s.values, s.channels) for s in graph.sites() if s.kind == "width"][:2] == [
        ("width:0", (1, 2, 3, 4), 4),
        ("width:1", (2, 4, 6, 8), 4),
    ]


def test_a_convolution_of_many_groups_of_two_loses_whole_groups() -> None:
    def make(g: int = 16) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 2 * g, 3), nn.Conv2d(2 * g, 2 * g, 3, groups=g), nn.Conv2d(2 * g, 8, 1)
        )

    graph = assert_edits_to(make, IMAGE, {"width:0": 10}, g=10)
    assert "width:1" not in editable(graph)


@pytest.mark.parametrize("multiplier", [1, 2])
def test_a_depthwise_convolution_goes_with_what_it_reads(multiplier: int) -> None:
    def make(w: int = 16) -> nn.Module:
        deep = nn.Conv2d(w, multiplier * w, 3, groups=w, padding=1)
        return nn.Sequential(nn.Conv2d(3, w, 1), deep, nn.Conv2d(multiplier * w, 8, 1))

    graph = assert_edits_to(make, IMAGE, {"width:0": 12}, w=12)
    assert editable(graph) == ["width:0"]


def test_a_depthwise_convolution_that_is_left_with_one_channel() -> None:
    def make(w: int = 16) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, w, 1), nn.Conv2d(w, w, 3, groups=w), nn.Conv2d(w, 8, 1))

    assert_edits_to(make, IMAGE, {"width:0": 1}, w=1)


def test_a_depthwise_convolution_of_the_input_stays() -> None:
    module = nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.Conv2d(6, 8, 1))
    graph = from_module(module, IMAGE)
    assert "width:0" not in editable(graph)


@pytest.mark.parametrize("groups", [1, 4])
def test_a_transposed_convolution(groups: int) -> None:
    def make(a: int = 4, b: int = 8) -> nn.Module:
        return nn.Sequential(
            nn.ConvTranspose2d(3, 4 * a, 2),
            nn.ConvTranspose2d(4 * a, 4 * b, 2, stride=2, groups=groups),
            nn.ConvTranspose2d(4 * b, 8, 2),
        )

    units = 4 if groups == 1 else 1
    edits = {"width:0": 3 * units, "width:1": 5 * units}
    assert_edits_to(make, IMAGE, edits, a=3, b=5)


def test_a_depthwise_transposed_convolution() -> None:
    def make(w: int = 16) -> nn.Module:
        deep = nn.ConvTranspose2d(w, w, 3, groups=w)
        return nn.Sequential(nn.Conv2d(3, w, 1), deep, nn.Conv2d(w, 8, 1))

    assert_edits_to(make, IMAGE, {"width:0": 12}, w=12)


def test_two_convolutions_that_are_added_lose_the_same_channels() -> None:
    def make(w: int = 16, v: int = 16) -> nn.Module:
        def forward(m: Any, x: Tensor) -> Tensor:
            x = m.stem(x)
            return m.head(x + m.b(m.a(x)))

        return Module(
            forward,
            stem=nn.Conv2d(3, w, 1),
            a=nn.Conv2d(w, v, 1),
            b=nn.Conv2d(v, w, 1),
            head=nn.Conv2d(w, 4, 1),
        )

    graph = assert_edits_to(make, IMAGE, {"width:stem": 12, "width:a": 8}, w=12, v=8)
    (stem,) = (s for s in graph.sites() if s.label == "width:stem")
    assert stem.layers == ("stem", "b")


# --- linear layers and embeddings ---------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 6), (1, 5, 6), (1, 2, 3, 6)])
def test_a_linear_layer_over_rows(shape: tuple[int, ...]) -> None:
    def make(w: int = 16) -> nn.Module:
        return nn.Sequential(nn.Linear(6, w), nn.GELU(), nn.Linear(w, 4))

    assert_edits_to(make, shape, {"width:0": 9}, w=9)


def test_a_linear_layer_that_reads_rows_of_channels_as_a_mixer_does() -> None:
    def make(w: int = 16, t: int = 8) -> nn.Module:
        def forward(m: Any, x: Tensor) -> Tensor:
            x = m.stem(x)
            x = x + m.b(m.a(x.transpose(1, 2))).transpose(1, 2)
            return m.head(x)

        return Module(
            forward,
            stem=nn.Linear(6, w),
            a=nn.Linear(5, t),
            b=nn.Linear(t, 5),
            head=nn.Linear(w, 4),
        )

    assert_edits_to(make, (1, 5, 6), {"width:stem": 12, "width:a": 4}, w=12, t=4)


def test_an_embedding() -> None:
    def make(w: int = 16) -> nn.Module:
        return nn.Sequential(nn.Embedding(11, w), nn.LayerNorm(w), nn.Linear(w, 4))

    assert_edits_to(make, words(1, 5), {"width:0": 12}, w=12)


def test_an_embedding_that_the_output_layer_shares() -> None:
    def make(w: int = 16) -> nn.Module:
        module = Module(
            lambda m, x: m.out(F.relu(m.words(x))),
            words=nn.Embedding(11, w),
            out=nn.Linear(w, 11, bias=False),
        )
        module.out.weight = module.words.weight
        return module

    graph = assert_edits_to(make, words(1, 5), {"width:words": 12}, w=12)
    assert graph.tied and graph.edit({"width:words": 12}).tied


def test_a_layer_that_is_used_twice() -> None:
    def make(w: int = 16) -> nn.Module:
        return Module(
            lambda m, x: m.head(m.inner(F.relu(m.inner(m.stem(x))))),
            stem=nn.Conv2d(3, w, 1),
            inner=nn.Conv2d(w, w, 3, padding=1),
            head=nn.Conv2d(w, 4, 1),
        )

    assert_edits_to(make, IMAGE, {"width:stem": 12}, w=12)


# --- norms, and functions that learn ------------------------------------------------------------


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm2d,
        lambda w: nn.BatchNorm2d(w, affine=False),
        lambda w: nn.InstanceNorm2d(w, affine=True),
        nn.InstanceNorm2d,
        lambda w: nn.GroupNorm(1, w),
        nn.PReLU,
        lambda w: nn.PReLU(),
    ],
    ids=["batch", "batch-plain", "instance", "instance-plain", "group-1", "prelu", "prelu-1"],
)
def test_a_norm_over_channels(norm: Callable[[int], nn.Module]) -> None:
    def make(w: int = 16) -> nn.Module:
        # A sum before it, so that no convolution takes a batch normalisation in.
        return Module(
            lambda m, x: m.head(F.relu(m.norm(m.a(x) + m.b(x)))),
            a=nn.Conv2d(3, w, 1),
            b=nn.Conv2d(3, w, 1),
            norm=norm(w),
            head=nn.Conv2d(w, 4, 1),
        ).eval()

    assert_edits_to(make, IMAGE, {"width:a": 12}, w=12)


def test_a_batch_norm_that_its_convolution_takes_in() -> None:
    def make(w: int = 16) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, w, 3, bias=False), nn.BatchNorm2d(w), nn.ReLU(), nn.Conv2d(w, 4, 1)
        ).eval()

    assert_edits_to(make, IMAGE, {"width:0": 12}, w=12)


def test_a_group_norm_of_few_groups_keeps_them() -> None:
    def make(each: int = 8) -> nn.Module:
        w = 4 * each
        return nn.Sequential(nn.Conv2d(3, w, 3), nn.GroupNorm(4, w), nn.Conv2d(w, 4, 1))

    assert_edits_to(make, IMAGE, {"width:0": 5}, each=5)


def test_a_group_norm_of_many_groups_loses_whole_ones() -> None:
    def make(groups: int = 16) -> nn.Module:
        w = 2 * groups
        return nn.Sequential(nn.Conv2d(3, w, 3), nn.GroupNorm(groups, w), nn.Conv2d(w, 4, 1))

    assert_edits_to(make, IMAGE, {"width:0": 10}, groups=10)


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm])
def test_a_norm_over_the_last_axis(norm: Callable[[int], nn.Module]) -> None:
    def make(w: int = 16) -> nn.Module:
        return nn.Sequential(nn.Linear(6, w), norm(w), nn.Linear(w, 4))

    assert_edits_to(make, (1, 5, 6), {"width:0": 12}, w=12)


def test_a_layer_norm_over_channels_that_were_last() -> None:
    def make(w: int = 16) -> nn.Module:
        return Module(
            lambda m, x: m.head(m.norm(m.stem(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)),
            stem=nn.Conv2d(3, w, 1),
            norm=nn.LayerNorm(w),
            head=nn.Conv2d(w, 4, 1),
        )

    assert_edits_to(make, IMAGE, {"width:stem": 12}, w=12)


def test_a_layer_norm_over_whole_feature_maps() -> None:
    def make(w: int = 16) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, w, 1), nn.LayerNorm((w, 8, 8)), nn.Conv2d(w, 4, 1))

    assert_edits_to(make, IMAGE, {"width:0": 12}, w=12)


# --- what is frozen -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_recurrent_layer_is_frozen_with_a_reason(kind: Callable[..., nn.Module]) -> None:
    module = Module(
        lambda m, x: m.head(m.rnn(m.stem(x))[0]),
        stem=nn.Linear(6, 16),
        rnn=kind(16, 16, batch_first=True),
        head=nn.Linear(16, 4),
    )
    graph = from_module(module, (1, 5, 6))
    assert "width:stem" not in editable(graph)
    assert "a recurrent layer keeps its widths" in reasons(graph)["width:stem"]
    assert reasons(graph)["width:stem"].startswith("rnn")


def test_an_operation_outside_the_vocabulary_is_frozen_by_name() -> None:
    module = Module(
        lambda m, x: m.head(torch.cumsum(m.stem(x), 1)),
        stem=nn.Conv2d(3, 16, 1),
        head=nn.Conv2d(16, 4, 1),
    )
    graph = from_module(module, IMAGE)
    assert graph.others == ("cumsum",)
    assert "width:stem" not in editable(graph)
    assert "other:cumsum" in reasons(graph)["width:stem"]


def test_what_is_frozen_leaves_the_rest_free() -> None:
    def make(w: int = 16) -> nn.Module:
        return Module(
            lambda m, x: m.head(m.b(torch.cumsum(m.a(x), 1))),
            a=nn.Conv2d(3, 16, 1),
            b=nn.Conv2d(16, w, 1),
            head=nn.Conv2d(w, 4, 1),
        )

    graph = from_module(make(), IMAGE)
    assert "width:b" in editable(graph)
    assert_same(graph.edit({"width:b": 12}), from_module(make(w=12), IMAGE))
