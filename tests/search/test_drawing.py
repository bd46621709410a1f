"""A propagation's picture is a PNG with a panel for each group."""

import numpy as np
import torch

from nni_aiop.search import Task, draw_propagation, propagate
from nni_aiop.spaces import CodeSpace, Nominal, Ordinal


class Linear:
    metrics_ = ("accuracy",)
    center_ = np.array([0.0])
    scale_ = np.array([1.0])

    def forward(self, codes):
        return codes.sum(dim=1, keepdim=True)


def test_a_trajectory_is_drawn(tmp_path):
    space = CodeSpace(
        [Ordinal("a", range(5)), Ordinal("b", range(5)), Nominal("op", "xy")],
        costs={"flops": lambda c: 1 + c[:, 0]},
    )
    run = propagate(space, Task(Linear()), torch.rand(3, 4).numpy(), steps=4)
    path = draw_propagation(run, tmp_path / "way.png", start=2)
    assert path.read_bytes().startswith(b"\x89PNG")
    grouped = draw_propagation(run, tmp_path / "grouped.png", groups={"depths": ["a", "b"]})
    assert grouped.read_bytes() != path.read_bytes()
