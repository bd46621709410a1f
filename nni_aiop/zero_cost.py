"""Zero-cost proxies: figures of an untrained network, from one mini-batch, that rank architectures.

Notation: L the loss of the batch, w the weights of the network's convolutions and linear layers
(those that prune whole connections are left out: biases and normalisation)::

    grad_norm  sum over layers of |dL/dw|_2
    snip       sum over w of |dL/dw w|                          (Lee et al. 2019)
    synflow    sum over w of |dR/dw w|, R the sum of outputs    (Tanaka et al. 2020)
               of the network of |w| without normalisation, for an input of ones
    fisher     sum over channels of mean over images of         (Theis et al. 2018;
               (sum over positions of dL/da a)^2 / 2,            Turner et al. 2020)
               a the outputs of those layers
    jacov      - sum over i of log(v_i + k) + 1 / (v_i + k),    (Mellor et al. 2020)
               v_i the eigenvalues of the correlations between the images' Jacobians, k = 1e-5

All are worked out as Abdelfattah et al. 2021, "Zero-Cost Proxies for Lightweight NAS", section 3,
do, higher is better, on a copy of the module in training mode (normalisation by the batch) with
dropout off: the module itself keeps its weights, statistics, gradients, hooks and modes. A proxy
that cannot be worked out (an overflow, a Jacobian of zeros) is NaN, never infinite.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd

__all__ = ["ZERO_COST", "Loss", "fisher", "grad_norm", "jacov", "snip", "synflow"]

Loss = Callable[[Any, Any], Tensor]
"""From a module's output and the targets to a scalar."""

_JACOBIAN_FLOOR = 1e-5
_NORMALISATIONS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm)


def grad_norm(
    module: nn.Module, inputs: Tensor, targets: Any, loss: Loss, *, seed: int = 0
) -> float:
    """Sum over layers of the Euclidean norm of the loss's gradient in the layer's weight.

    Args:
        module: Any network with a convolution or a linear layer; see the module's text.
        inputs: (batch, ...) on the module's device, at least two for jacov.
        targets: Of these inputs, as the loss takes them (classes, or a map for every pixel).
        loss: Of the module's output, whatever its structure, and the targets.
        seed: Of what the network itself draws at random, such as stochastic depth.

    Raises:
        ValueError: The module has no such layer, or the loss is no scalar.
    """
    with _copied(module, seed) as network:
        _loss(network, inputs, targets, loss).backward()  # type: ignore[no-untyped-call]
        return _finite(sum(g.norm().item() for _, g in _weights_and_gradients(network)))


def snip(module: nn.Module, inputs: Tensor, targets: Any, loss: Loss, *, seed: int = 0) -> float:
    """Sum of absolute gradient x weight: how much the loss would feel each weight's removal.

    Source: Lee et al. 2019, "SNIP: Single-shot Network Pruning based on Connection Sensitivity".
    Arguments and errors as `grad_norm`.
    """
    with _copied(module, seed) as network:
        _loss(network, inputs, targets, loss).backward()  # type: ignore[no-untyped-call]
        return _finite(sum((g * w).abs().sum().item() for w, g in _weights_and_gradients(network)))


def synflow(
    module: nn.Module,
    inputs: Tensor,
    targets: Any = None,
    loss: Loss | None = None,
    *,
    seed: int = 0,
) -> float:
    """Sum of absolute gradient x weight, for the summed outputs of absolute weights.

    Normalisation passes its input on, and one input of ones stands for the data: only the shape of
    `inputs` is read. Worked out in float64, in which products over many layers seldom overflow.

    Source: Tanaka et al. 2020, "Pruning neural networks without any data by iteratively conserving
    synaptic flow", section 5. Arguments and errors as `grad_norm`; targets and loss are not read.
    """
    with _copied(module, seed) as network:
        network.double()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.abs_()
        for part in network.modules():
            if isinstance(part, _NORMALISATIONS):
                part.eval()  # one image is not enough for statistics, which it would ask for
                part.register_forward_hook(lambda _part, given, _out: given[0])
        ones = torch.ones_like(inputs[:1], dtype=torch.float64)
        _sum(network(ones)).backward()  # type: ignore[no-untyped-call]
        return _finite(sum((g * w).abs().sum().item() for w, g in _weights_and_gradients(network)))


def fisher(module: nn.Module, inputs: Tensor, targets: Any, loss: Loss, *, seed: int = 0) -> float:
    """Sum over channels of the loss's estimated change when the channel's output is removed.

    Source: Turner et al. 2020, "BlockSwap: Fisher-guided Block Substitution for Network
    Compression", Eq. 5, after Theis et al. 2018. Arguments and errors as `grad_norm`.
    """
    with _copied(module, seed) as network:
        found: list[tuple[bool, Tensor]] = []

        def keep(layer: nn.Module, _given: object, out: Tensor) -> Tensor:
            out.retain_grad()
            found.append((isinstance(layer, _ConvNd), out))
            return out.clone()  # which a later operation may change in place

        for layer in _layers(network):
            layer.register_forward_hook(keep)
        _loss(network, inputs, targets, loss).backward()  # type: ignore[no-untyped-call]
        total = 0.0
        for convolution, out in found:
            if out.grad is None:  # the loss does not depend on it
                continue
            # Channels are the second axis of convolutions, the last of linear layers.
            product = (out.grad * out.detach()).movedim(1 if convolution else -1, 1)
            of_images = product.flatten(2).sum(2) if product.dim() > 2 else product
            total += of_images.square().mean(0).sum().item() / 2
        return _finite(total)


def jacov(
    module: nn.Module,
    inputs: Tensor,
    targets: Any = None,
    loss: Loss | None = None,
    *,
    seed: int = 0,
) -> float:
    """How different the network's slopes are at different images.

    Source: Mellor et al. 2020, "Neural Architecture Search without Training" (version 1, section
    3). Arguments and errors as `grad_norm`; targets and loss are not read.
    """
    with _copied(module, seed) as network:
        images = inputs.detach().clone().requires_grad_()
        _sum(network(images)).backward()  # type: ignore[no-untyped-call]
        if images.grad is None:
            return math.nan
        slopes = images.grad.flatten(1).double()
        slopes = slopes - slopes.mean(1, keepdim=True)
        lengths = slopes.norm(dim=1, keepdim=True)
        if not (torch.isfinite(lengths).all() and (lengths > 0).all()):
            return math.nan
        slopes = slopes / lengths
        values = torch.linalg.eigvalsh(slopes @ slopes.T) + _JACOBIAN_FLOOR
        return _finite(-(values.log() + 1 / values).sum().item())


ZERO_COST: dict[str, Callable[..., float]] = {
    "synflow": synflow,
    "jacov": jacov,
    "fisher": fisher,
    "grad_norm": grad_norm,
    "snip": snip,
}
"""Every proxy by its name: `(module, inputs, targets, loss, *, seed) -> float`."""


@contextmanager
def _copied(module: nn.Module, seed: int) -> Iterator[nn.Module]:
    """A copy to work on, every weight trainable; random numbers inside come from the seed."""
    if not any(True for _ in _layers(module)):
        raise ValueError(
            "a module must have a convolution or a linear layer to be measured, "
            f"but {type(module).__name__} has none."
        )
    network = copy.deepcopy(module).train().requires_grad_()
    network.zero_grad()
    for part in network.modules():
        if isinstance(part, _DropoutNd):
            part.eval()
    devices = {p.device for p in network.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=list(devices)), torch.enable_grad():
        torch.manual_seed(seed)
        yield network


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    return (part for part in module.modules() if isinstance(part, (_ConvNd, nn.Linear)))


def _weights_and_gradients(network: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    """The weight of each layer and its gradient; weights that several layers share count once."""
    weights = {layer.weight: None for layer in _layers(network)}
    for weight in weights:
        assert isinstance(weight, Tensor)
        if weight.grad is not None:
            yield weight.detach(), weight.grad


def _loss(network: nn.Module, inputs: Tensor, targets: Any, loss: Loss) -> Tensor:
    value = loss(network(inputs), targets)
    if value.dim() != 0:
        raise ValueError(f"a loss must be a scalar, but got the shape {tuple(value.shape)}.")
    return value


def _sum(output: Any) -> Tensor:
    """The sum of every tensor of real numbers in an output, whatever its structure."""
    return torch.stack([part.sum() for part in _tensors(output)]).sum()


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield output
    elif isinstance(output, Mapping):
        for part in output.values():
            yield from _tensors(part)
    elif isinstance(output, Sequence) and not isinstance(output, str):
        for part in output:
            yield from _tensors(part)


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.nan
