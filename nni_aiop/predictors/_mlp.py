"""The published predictor of network coding propagation.

Source: Ding et al., "Learning Versatile Neural Architectures by Propagating Network Codes", ICLR
2022, appendix E.1; what it leaves open (Swish, batch normalisation, standardised inputs and
targets, the shape of the one-cycle schedule) follows the published configuration.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nni_aiop.files import checked_tensors
from nni_aiop.predictors._base import Array, CodePredictor

if TYPE_CHECKING:
    from nni_aiop.spaces import CodeSpace


class NCPMLP(CodePredictor):
    """A multi-layer perceptron with one shared layer and a head for each metric.

    It reads the code only, standardised by its training rows. Its standard deviation is one number
    for each metric: the root mean square of the training residuals under dropout, which stands in
    for the error on new codes.

    Args:
        space: Whose codes it reads.
        shared: Width of the layer that all metrics share.
        separate: Width of the layer that each metric has of its own.
        dropout: Share of activations dropped after each of the two.
        lr: Peak of the one-cycle learning rate of Adam.
        weight_decay: Of Adam.
        epochs: Passes over the training rows.
        batch_size: Rows of a step.
        seed: Of weights, dropout and the order of rows.
    """

    _options = (
        "shared",
        "separate",
        "dropout",
        "lr",
        "weight_decay",
        "epochs",
        "batch_size",
        "seed",
    )

    def __init__(
        self,
        space: CodeSpace,
        *,
        shared: int = 256,
        separate: int = 128,
        dropout: float = 0.5,
        lr: float = 0.01,
        weight_decay: float = 1e-7,
        epochs: int = 200,
        batch_size: int = 128,
        seed: int = 0,
    ) -> None:
        super().__init__(space, seed=seed)
        self.shared = shared
        self.separate = separate
        self.dropout = dropout
        self.lr = lr
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.batch_size = batch_size

    def _network(self) -> nn.ModuleDict:
        trunk = nn.Sequential(
            nn.BatchNorm1d(self.space.width),
            nn.Linear(self.space.width, self.shared),
            nn.BatchNorm1d(self.shared),
            nn.SiLU(),
            nn.Dropout(self.dropout),
        )
        heads = [
            nn.Sequential(
                nn.Linear(self.shared, self.separate),
                nn.BatchNorm1d(self.separate),
                nn.SiLU(),
                nn.Dropout(self.dropout),
                nn.Linear(self.separate, 1),
            )
            for _ in self.metrics_
        ]
        return nn.ModuleDict({"trunk": trunk, "heads": nn.ModuleList(heads)})

    def _fit(self, codes: Array, targets: Array) -> None:
        self._input_center = codes.mean(axis=0)
        spread = codes.std(axis=0)
        self._input_scale = np.where(spread > 0, spread, 1.0)
        x = torch.as_tensor((codes - self._input_center) / self._input_scale).float()
        y = torch.as_tensor(targets).float()
        # torch draws weights and dropout from its global generator only: lend it a fork.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            net = self._network()
            optimiser = torch.optim.Adam(
                net.parameters(), lr=self.lr, weight_decay=self.weight_decay
            )
            # A batch of one row has no statistics to normalise by: it joins the one before.
            n = len(x)
            starts = [i for i in range(0, n, self.batch_size) if i == 0 or n - i > 1]
            ends = [*starts[1:], n]
            schedule = torch.optim.lr_scheduler.OneCycleLR(
                optimiser,
                max_lr=self.lr,
                total_steps=self.epochs * len(starts),
                pct_start=0.3,
                div_factor=10,
                base_momentum=0.85,
                max_momentum=0.95,
            )
            for _ in range(self.epochs):
                order = torch.randperm(n)
                for start, end in zip(starts, ends, strict=True):
                    rows = order[start:end]
                    loss = nn.functional.smooth_l1_loss(_outputs(net, x[rows]), y[rows])
                    optimiser.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimiser.step()
                    schedule.step()
            with torch.no_grad():
                residuals = torch.stack([_outputs(net, x) - y for _ in range(10)])
        self._std = residuals.square().mean(dim=(0, 1)).sqrt().double().numpy()
        self._keep(net)

    def _keep(self, net: nn.ModuleDict) -> None:
        """Freezes the network, in both of the precisions that codes may have."""
        net.eval().requires_grad_(False)
        self._nets = {torch.float32: net, torch.float64: copy.deepcopy(net).double()}

    def _standardised(self, codes: Tensor, *, with_std: bool) -> tuple[Tensor, Tensor | None]:
        x = (codes - codes.new_tensor(self._input_center)) / codes.new_tensor(self._input_scale)
        mean = _outputs(self._nets[codes.dtype], x)
        return mean, codes.new_tensor(self._std).expand_as(mean) if with_std else None

    def _tensors(self) -> dict[str, NDArray[Any]]:
        learned = self._nets[torch.float32].state_dict()
        own = {"input_center": self._input_center, "input_scale": self._input_scale}
        return own | {"std": self._std} | {k: v.numpy() for k, v in learned.items()}

    def _restore(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        width, m = self.space.width, len(self.metrics_)
        checked_tensors(tensors, {"input_center": (width,), "input_scale": (width,), "std": (m,)})
        # Before a network of their size is made.
        sizes = {"trunk.1.weight": (self.shared, width)}
        sizes |= {f"heads.{j}.0.weight": (self.separate, self.shared) for j in range(m)}
        checked_tensors(tensors, sizes, "float32")
        if not ((tensors["input_scale"] > 0).all() and (tensors["std"] >= 0).all()):
            raise ValueError("scales must be positive, and deviations not negative")
        net = self._network()
        for name, own in net.state_dict().items():
            checked_tensors(tensors, {name: tuple(own.shape)}, str(own.numpy().dtype))
            if name.endswith("running_var") and (tensors[name] < 0).any():
                raise ValueError(f"{name} must not be negative, as variances are")
        self._input_center, self._input_scale = tensors["input_center"], tensors["input_scale"]
        self._std = tensors["std"]
        net.load_state_dict({k: torch.as_tensor(tensors[k]) for k in net.state_dict()})
        self._keep(net)


def _outputs(net: nn.ModuleDict, x: Tensor) -> Tensor:
    hidden = net["trunk"](x)
    heads: Any = net["heads"]
    return torch.cat([head(hidden) for head in heads], dim=1)
