"""Encoders of compute graphs: node embeddings, layers that pass messages, read-outs.

Notation: h^0 (n, d) node embeddings; h^i (n, d) what layer i = 1..l puts out; In(v) the nodes that
v reads, Out(v) those that read it.

`PublishedEncoder` is the one of AIO-P (Mills et al., 2023): the k-GNN of Morris et al. (2019),
h^i_v = tanh(W_1 h^{i-1}_v + W_2 sum_{w in In(v)} h^{i-1}_w + b), read out as the mean.

`GraphEncoder`, the default, differs by switches, each of which can be turned:

    h^i_v = h^{i-1}_v + relu(W_1 h^{i-1}_v + W_2 sum_{w in In(v)} h^{i-1}_w
                             + W_3 sum_{w in Out(v)} h^{i-1}_w + b)

where a sum of more than two neighbours is twice their mean: networks such as DenseNets, whose nodes
read dozens of others, would otherwise be amplified layer by layer beyond all that is known.
and it reads out the mean of the nodes of each resolution level, beside those of all nodes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nni_aiop.graphs._features import GLOBAL_COLUMNS, LEVELS
from nni_aiop.predictors.graph._collation import COLUMNS, POSITIONS, Bags, GraphBatch, bag_sum

__all__ = ["ENCODERS", "READ_OUTS", "Encoder", "GraphEncoder", "PublishedEncoder"]

READ_OUTS = ("levels", "mean", "sum", "last")
"""Of a graph's nodes: mean by level, mean, sum / 100, mean of those that nothing reads."""

_SUM_SCALE = 100.0


class GraphLayer(nn.Module):
    """One round of messages: from (n, inputs) to (n, outputs)."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        both_directions: bool,
        residual: bool,
        norm: bool,
        bounded: bool,
        activation: type[nn.Module],
    ) -> None:
        super().__init__()
        self.both_directions, self.residual, self.bounded = both_directions, residual, bounded
        self.linear = nn.Linear((3 if both_directions else 2) * inputs, outputs)
        self.norm = nn.LayerNorm(outputs) if norm else nn.Identity()
        self.activation = activation()

    def forward(self, batch: GraphBatch, h: Tensor, previous: Tensor) -> Tensor:
        """What this layer makes of h (n, inputs); a residual one adds `previous` (n, outputs)."""
        into, out = batch.bounds if self.bounded else (None, None)
        own, *others = torch.split(self.linear.weight, h.shape[1], dim=1)
        result = torch.addmm(self.linear.bias, h, own.t())
        for weight, bags, bound in zip(
            others, (batch.sources, batch.sources.transposed), (into, out), strict=False
        ):
            result.addmm_(messages(h, bags, bound), weight.t())
        found: Tensor = self.activation(self.norm(result))
        return previous + found if self.residual else found


def messages(h: Tensor, bags: Bags, bound: Tensor | None) -> Tensor:
    """(n, d) sums over neighbours, bounded (`GraphBatch.bounds`)."""
    found = bag_sum(h, bags)
    return found if bound is None else found * bound


class Encoder(nn.Module, ABC):
    """Node embeddings, then layers; a subclass says which, and how a graph is read out.

    Args:
        hidden: Width d of every layer.
        layers: How many.
    """

    #: Width of `read_out`, without global features.
    width: int
    #: Whether it reads batches of merged nodes.
    merged: bool = False

    def __init__(self, hidden: int, layers: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.layers = nn.ModuleList(self.layer(hidden) for _ in range(layers))

    @abstractmethod
    def layer(self, inputs: int) -> GraphLayer:
        """A layer of this kind with weights of its own, from (n, inputs) to (n, d)."""

    @abstractmethod
    def head(self, inputs: int, outputs: int) -> nn.Module:
        """A head of this kind, from embeddings (g, inputs) to (g, outputs)."""

    @abstractmethod
    def embed(self, batch: GraphBatch) -> Tensor:
        """(n, d) node embeddings."""

    @abstractmethod
    def read_out(self, batch: GraphBatch, h: Tensor) -> Tensor:
        """(g, width) embeddings of graphs from h (n, d) of their nodes."""

    @property
    @abstractmethod
    def global_features(self) -> bool:
        """Whether heads read the global features too."""

    def forward(self, batch: GraphBatch) -> list[Tensor]:
        """h^0 to h^l, each (n, d)."""
        found = [self.embed(batch)]
        for layer in self.layers:
            found.append(layer(batch, found[-1], found[-1]))
        return found


class PublishedEncoder(Encoder):
    """The encoder of AIO-P: directed, tanh, mean read-out, a head of four linear layers.

    A node's embedding joins those of its operation, of its shapes (a linear map), and, where it has
    a weight, of the height and width of its kernel. Shapes are channels and pixels,
    in and out, where the paper has channels, height and width; and a bias, which the paper embeds,
    is nothing that a compute graph tells.
    """

    _SIZES = 16  # kernels of 15 or more share an embedding

    def __init__(self, *, hidden: int = 32, layers: int = 6) -> None:
        super().__init__(hidden, layers)
        self.width = hidden
        eighth = hidden // 8
        self.shape = nn.Linear(4, 2 * eighth)
        self.kernel_height = nn.Embedding(self._SIZES, eighth)
        self.kernel_width = nn.Embedding(self._SIZES, eighth)
        operations = sum(name.startswith("op:") for name in COLUMNS)
        self.operation = nn.Embedding(operations, hidden - 4 * eighth)
        column = {name: place for place, name in enumerate(COLUMNS)}
        shapes = ("channels_in", "channels_out", "positions_in", "positions_out")
        self._shapes = [column[name] for name in shapes]
        self._kernels = [column["kernel_height"], column["kernel_width"]]
        self._weight = column["weight"]

    def layer(self, inputs: int) -> GraphLayer:
        return GraphLayer(
            inputs,
            self.hidden,
            both_directions=False,
            residual=False,
            norm=False,
            bounded=False,
            activation=nn.Tanh,
        )

    def head(self, inputs: int, outputs: int) -> nn.Module:
        d = self.hidden
        return nn.Sequential(
            nn.Linear(inputs, d),
            nn.Linear(d, d),
            nn.ReLU(),
            nn.Linear(d, d),
            nn.Linear(d, outputs),
        )

    def embed(self, batch: GraphBatch) -> Tensor:
        x = batch.table
        operation = x[:, : self.operation.num_embeddings].argmax(1)
        kernels = (x[:, self._kernels] * 3).exp2().sub(1).round().long().clamp(0, self._SIZES - 1)
        weighted = torch.cat(
            [
                self.kernel_height(kernels[:, 0]),
                self.kernel_width(kernels[:, 1]),
            ],
            dim=1,
        )
        weighted = weighted * (x[:, self._weight] > 0)[:, None]
        parts = [self.operation(operation), self.shape(x[:, self._shapes]), weighted]
        return bag_sum(torch.cat(parts, dim=1), batch.row)

    def read_out(self, batch: GraphBatch, h: Tensor) -> Tensor:
        return _pool(batch, h)["mean"]

    @property
    def global_features(self) -> bool:
        return False


class GraphEncoder(Encoder):
    """The default encoder; every difference from the published one is a switch.

    Args:
        hidden: Width d of every layer.
        layers: How many.
        merged: Groups such as convolution, normalisation, activation are one node.
        both_directions: Messages against the data too, with weights of their own.
        residual: Each layer adds to what it reads.
        norm: Layer normalisation before the ReLU.
        positions: Nodes know how far they are from the input and the output.
        read_outs: Some of `READ_OUTS`.
        global_features: Heads read the global features too.
    """

    def __init__(
        self,
        *,
        hidden: int = 48,
        layers: int = 4,
        merged: bool = True,
        both_directions: bool = True,
        residual: bool = True,
        norm: bool = False,
        positions: bool = True,
        read_outs: Sequence[str] = READ_OUTS,
        global_features: bool = True,
    ) -> None:
        if not read_outs or not set(read_outs) <= set(READ_OUTS):
            raise ValueError(
                f"read_outs must be some of {', '.join(READ_OUTS)}, but got {tuple(read_outs)}."
            )
        self._layer_options: dict[str, Any] = {
            "bounded": True,
            "both_directions": both_directions,
            "residual": residual,
            "norm": norm,
        }
        self._global_features = global_features
        self.read_outs = tuple(read_outs)
        super().__init__(hidden, layers)
        self.merged = merged
        self.node = nn.Linear((3 if merged else 1) * len(COLUMNS), hidden)
        self.position = nn.Linear(len(POSITIONS), hidden) if positions else None
        self.width = hidden * sum(len(LEVELS) if name == "levels" else 1 for name in self.read_outs)

    def layer(self, inputs: int) -> GraphLayer:
        return GraphLayer(inputs, self.hidden, activation=nn.ReLU, **self._layer_options)

    def head(self, inputs: int, outputs: int) -> nn.Module:
        d = 2 * self.hidden
        return nn.Sequential(
            nn.Linear(inputs, d),
            nn.ReLU(),
            nn.Linear(d, d),
            nn.ReLU(),
            nn.Linear(d, outputs),
        )

    def embed(self, batch: GraphBatch) -> Tensor:
        result = bag_sum(self.node(batch.table), batch.row)
        return result if self.position is None else result + self.position(batch.positions)

    def read_out(self, batch: GraphBatch, h: Tensor) -> Tensor:
        found = _pool(batch, h)
        return torch.cat([found[name] for name in self.read_outs], dim=1)

    @property
    def global_features(self) -> bool:
        return self._global_features


ENCODERS: dict[str, type[Encoder]] = {"default": GraphEncoder, "published": PublishedEncoder}
"""Every encoder by its name; the first is the default."""


def _pool(batch: GraphBatch, h: Tensor) -> dict[str, Tensor]:
    """Every read-out of h (n, d), each (g, d), "levels" (g, L d)."""
    g, levels = batch.counts.shape
    by_level = bag_sum(h, batch.levels).view(g, levels, h.shape[1])
    total = by_level.sum(1)
    return {
        "levels": (by_level / batch.counts.clamp_min(1)[:, :, None]).flatten(1),
        "mean": total / batch.counts.sum(1, keepdim=True).clamp_min(1),
        "sum": total / _SUM_SCALE,
        "last": bag_sum(h, batch.sinks) / batch.sink_counts.clamp_min(1),
    }


class Head(nn.Module):
    """A regressor on the embedding of a graph, beside which it may read the global features.

    These are standardised as in the training data (`set_globals`). Columns that hardly vary there
    are not blown up elsewhere.
    """

    _LEAST = 0.02  # standard deviation of a column whose own is smaller

    def __init__(self, encoder: Encoder, inputs: int, outputs: int) -> None:
        super().__init__()
        self.global_features = encoder.global_features
        columns = len(GLOBAL_COLUMNS) if self.global_features else 0
        self.register_buffer("center", torch.zeros(columns))
        self.register_buffer("scale", torch.ones(columns))
        self.body = encoder.head(inputs + columns, outputs)

    def set_globals(self, u: Tensor) -> None:
        """Learns how the global features u (n, U) of the training data spread."""
        if self.global_features:
            self.center = u.mean(0)
            self.scale = u.std(0, correction=0).clamp_min(self._LEAST)

    def inputs(self, batch: GraphBatch, embedding: Tensor) -> Tensor:
        """(g, inputs) what the regressor reads."""
        if not self.global_features:
            return embedding
        u = ((batch.u - self.center) / self.scale).clamp(-5, 5)
        return torch.cat([embedding, u], dim=1)

    def forward(self, batch: GraphBatch, embedding: Tensor) -> Tensor:
        """(g, outputs) predictions from embeddings (g, inputs)."""
        result: Tensor = self.body(self.inputs(batch, embedding))
        return result
