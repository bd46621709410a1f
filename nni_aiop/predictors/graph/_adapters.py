"""The trainable modules: a backbone with its head, and K-Adapters beside it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from nni_aiop.predictors.graph._collation import GraphBatch
from nni_aiop.predictors.graph._encoders import Encoder, Head

__all__ = ["Backbone", "KAdapter", "Member"]


class Backbone(nn.Module):
    """An encoder with a regression head: what is pretrained."""

    def __init__(self, encoder: Encoder, outputs: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = Head(encoder, encoder.width, outputs)

    def forward(self, batch: GraphBatch) -> Tensor:
        """(g, outputs) standardised predictions."""
        result: Tensor = self.head(batch, self.embedding(batch))
        return result

    def embedding(self, batch: GraphBatch) -> Tensor:
        """(g, width) embeddings of graphs."""
        return self.encoder.read_out(batch, self.encoder(batch)[-1])


class KAdapter(nn.Module):
    """Layers beside those of a frozen backbone (AIO-P, Eq. 1), and a head on both embeddings.

    h^{k,i} = GNN^{k,i}(Concat[h^{k,i-1}, h^{b,i}]), where h^{b,i} comes from layer i of the
    backbone and h^{k,0} are its node embeddings. Layers are of the backbone's kind; a residual one
    adds h^{k,i-1}.

    Args:
        encoder: The backbone's, which is read and not held.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.layers = nn.ModuleList(encoder.layer(2 * encoder.hidden) for _ in encoder.layers)
        self.head = Head(encoder, 2 * encoder.width, 1)

    def forward(self, batch: GraphBatch, encoder: Encoder) -> Tensor:
        """(g, 1) standardised predictions."""
        result: Tensor = self.head(batch, self.embedding(batch, encoder))
        return result

    def embedding(self, batch: GraphBatch, encoder: Encoder) -> Tensor:
        """(g, 2 width) embeddings of the backbone and of the adapter, side by side."""
        with torch.no_grad():
            backbone = encoder(batch)
        top = self.top(batch, backbone)
        return torch.cat([encoder.read_out(batch, backbone[-1]), encoder.read_out(batch, top)], 1)

    def top(self, batch: GraphBatch, backbone: list[Tensor]) -> Tensor:
        """(n, d) what the last layer puts out, from h^{b,0} to h^{b,l} of the backbone."""
        h = backbone[0]
        for layer, beside in zip(self.layers, backbone[1:], strict=True):
            h = layer(batch, torch.cat([h, beside], dim=1), h)
        return h


@dataclass(frozen=True)
class Member:
    """What predicts standardised labels: a backbone with its head, or an adapter beside one.

    Attributes:
        module: With weights of its own.
        context: What the module reads too: for an adapter the frozen encoder.
    """

    module: Backbone | KAdapter
    context: tuple[Encoder, ...] = ()

    def __call__(self, batch: GraphBatch) -> Tensor:
        """(g, 1) standardised predictions, those of several metrics averaged."""
        result: Tensor = self.module(batch, *self.context).mean(1, keepdim=True)
        return result

    @property
    def merged(self) -> bool:
        """Whether it reads batches of merged nodes."""
        encoder, *_ = self.context or (cast(Backbone, self.module).encoder,)
        return encoder.merged

    def copy(self) -> Member:
        """The same with weights that may change."""
        return Member(copy.deepcopy(self.module), self.context)
