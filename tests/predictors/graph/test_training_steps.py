"""Steps of the training loop: which graphs, which learning rate, which loss is told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nni_aiop.predictors.graph import _training
from nni_aiop.predictors.graph._training import Recipe, _rate, train


class Numbers:
    """Stands in for a set of graphs: graph i is the number i."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.asked: list[list[int]] = []

    def __len__(self) -> int:
        return self.n

    def batch(self, places: np.ndarray, *, merged: bool) -> torch.Tensor:
        self.asked.append(places.tolist())
        return torch.as_tensor(places, dtype=torch.float32)[:, None]


class Recording(torch.optim.AdamW):
    rates: list[float]

    def step(self, closure: Any = None) -> Any:
        self.rates.append(self.param_groups[0]["lr"])
        return super().step(closure)


def test_every_step_has_its_rate_and_every_epoch_each_graph_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Recording.rates = []
    monkeypatch.setattr(_training.torch.optim, "AdamW", Recording)
    data, recipe = Numbers(11), Recipe(epochs=3, batch_size=5, learning_rate=0.5)
    train(nn.Linear(1, 1), data, np.zeros((11, 1)), recipe, seed=0)
    assert [len(places) for places in data.asked] == [6, 5] * 3
    epochs = [sorted(data.asked[2 * e] + data.asked[2 * e + 1]) for e in range(3)]
    assert epochs == [list(range(11))] * 3
    assert data.asked[0] != data.asked[2]
    assert Recording.rates == pytest.approx([_rate(recipe, step / 6) for step in range(6)])


def test_the_loss_of_an_epoch_is_the_mean_of_its_steps() -> None:
    model = nn.Linear(1, 1)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    recipe = Recipe(epochs=2, batch_size=2, learning_rate=1e-12, loss="mse", weight_decay=0.0)
    targets = np.array([[1.0], [2.0], [3.0], [4.0]])
    losses = train(model, Numbers(4), targets, recipe, seed=0)
    assert losses == pytest.approx([(1 + 4 + 9 + 16) / 4] * 2)
    assert not model.training


def test_fewer_graphs_than_a_batch_are_one_step() -> None:
    data = Numbers(3)
    train(nn.Linear(1, 1), data, np.zeros((3, 1)), Recipe(epochs=2, batch_size=8), seed=0)
    assert [sorted(places) for places in data.asked] == [[0, 1, 2]] * 2
