"""`from_module(..., partial=True)`: the graph up to where a network asks for values of its data."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nni_aiop.errors import GraphError
from nni_aiop.graphs import from_module


class Do(nn.Module):
    def __init__(self, function: Callable[..., Any], **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.parts = nn.ModuleDict(parts)

    def forward(self, *args: Any) -> Any:
        return self.function(*args, **dict(self.parts))


class Proposals(nn.Module):
    """The first stage of a detector: a head on every level, anchors, the best, a filter."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.scores = nn.Conv2d(8, 3, 1)
        self.boxes = nn.Conv2d(8, 12, 1)

    def forward(self, levels: list[Tensor]) -> tuple[Tensor, Tensor]:
        scores, boxes = [], []
        for x in levels:
            y = F.relu(self.conv(x))
            b, _, h, w = x.shape
            places = torch.meshgrid(
                torch.arange(h, device=x.device), torch.arange(w, device=x.device), indexing="ij"
            )
            corners = torch.stack(places, -1).reshape(-1, 2)
            sizes = torch.tensor([4, 4], device=x.device)
            anchors = torch.cat([corners, corners + sizes], 1).repeat(3, 1)
            scores.append(self.scores(y).permute(0, 2, 3, 1).flatten(1))
            deltas = self.boxes(y).view(b, 3, 4, h, w).permute(0, 3, 4, 1, 2)
            boxes.append(deltas.reshape(b, -1, 4) + anchors)
        best, places = torch.cat(scores, 1).topk(20, 1)
        chosen = torch.cat(boxes, 1).gather(1, places[..., None].expand(-1, -1, 4))
        kept = torch.where(best[0].sigmoid() > 0.5)[0]
        return chosen[0][kept], best[0][kept]


class Detector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Conv2d(3, 8, 3, 2, 1)
        self.coarse = nn.Conv2d(8, 8, 3, 2, 1)
        self.proposals = Proposals()
        self.head = nn.Linear(4, 2)

    def forward(self, images: list[Tensor]) -> Tensor:
        fine = F.relu(self.fine(torch.stack(images)))
        coarse = F.relu(self.coarse(fine))
        levels = [fine + F.interpolate(coarse, scale_factor=2.0), coarse]
        boxes, _ = self.proposals(levels)
        scores: Tensor = self.head(boxes)
        return scores


def test_a_detector_ends_where_its_shapes_depend_on_data() -> None:
    images = [torch.rand(3, 16, 16)]
    asked = r"Detector \(in proposals\) asks for one: the shape of what where returns"
    with pytest.raises(GraphError, match=asked + "; partial=True gives the graph up to there"):
        from_module(Detector(), (images,))
    with pytest.warns(UserWarning, match=f"the graph ends early: .*{asked}") as caught:
        graph = from_module(Detector(), (images,), partial=True)
    assert caught[0].filename == __file__
    stem = 64 * 27 * 8 + 16 * 72 * 8
    assert graph.macs == stem + (64 + 16) * (72 * 8 + 8 * 3 + 8 * 12)
    assert sorted(graph.output_shapes) == [(1, 20, 4), (20,)]
    kept = sum(p.numel() for p in Detector().parameters()) - 10  # without the head
    assert graph.parameters == kept


def test_a_graph_that_need_not_end_early_is_the_same() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert from_module(net, (2, 4), partial=True) == from_module(net, (2, 4))


def test_every_tensor_that_is_not_read_yet_is_an_output() -> None:
    def forward(x: Tensor, layer: nn.Module) -> Tensor:
        a = layer(x)
        b, c = torch.relu(a), torch.tanh(a)
        return b if c.sum().item() > 0 else a

    with pytest.warns(UserWarning, match="asks for one: item"):
        graph = from_module(Do(forward, layer=nn.Linear(4, 4)), (2, 4), partial=True)
    assert graph.operations["relu"] == graph.operations["reduce"] == 1
    assert sorted(graph.output_shapes) == [(), (2, 4)]


@torch.library.custom_op(
    "nni_aiop_tests::keep", mutates_args=(), schema="(Tensor boxes, Tensor scores) -> Tensor"
)
def keep(boxes: Tensor, scores: Tensor) -> Tensor:
    """As torchvision's `nms`, which returns as many places as it keeps."""
    return torch.arange(2)


@torch.library.custom_op("nni_aiop_tests::bare", mutates_args=(), schema="(Tensor x) -> Tensor")
def bare(x: Tensor) -> Tensor:
    return x.clone()


@keep.register_fake
def _(boxes: Tensor, scores: Tensor) -> Tensor:
    return boxes.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.long)


@pytest.mark.parametrize("operation", [keep, lambda y, x: bare(y)])
def test_operations_of_others_end_a_graph(operation: Any) -> None:
    net = Do(lambda x, layer: operation(torch.tanh(layer(x)), x), layer=nn.Linear(4, 4))
    with pytest.raises(GraphError, match="partial=True gives the graph up to there"):
        from_module(net, (2, 4))
    with pytest.warns(UserWarning, match="the graph ends early"):
        graph = from_module(net, (2, 4), partial=True)
    assert graph.operations == {"input": 1, "linear": 1, "output": 1, "tanh": 1}
