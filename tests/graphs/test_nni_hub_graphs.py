"""Frozen samples of the eleven spaces of NNI's hub: exact costs, the same graph by any door."""

import copy
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

pytest.importorskip("nni", reason="NNI is not installed")

from nni_aiop.engines._nni import importing_nni
from nni_aiop.engines.nni_space import code_space_from_nni
from nni_aiop.graphs import ComputeGraph, from_module
from nni_aiop.spaces import Sample

with importing_nni():
    from nni.nas.hub import pytorch as hub

Door = Callable[[nn.Module, torch.Tensor], ComputeGraph]

IMAGENET = ("ProxylessNAS", "ShuffleNetSpace", "MobileNetV3Space", "AutoFormer")
CELLS = ("NasBench101", "NasBench201", "NASNet", "ENAS", "AmoebaNet", "PNAS", "DARTS")
QUICK = ("NasBench201", "MobileNetV3Space", "ShuffleNetSpace", "DARTS")
N_SAMPLES = 2
SAMPLES = [
    pytest.param(name, seed, marks=[] if name in QUICK and seed == 0 else pytest.mark.slow)
    for name in (*IMAGENET, *CELLS)
    for seed in range(N_SAMPLES)
]


@cache
def samples(name: str) -> list[Sample]:
    codes = code_space_from_nni(getattr(hub, name)())
    return codes.sample(N_SAMPLES, np.random.default_rng(0))


@cache
def frozen(name: str, seed: int) -> tuple[nn.Module, torch.Tensor]:
    """The network of a sample, and an image for it."""
    sample = samples(name)[seed]
    torch.manual_seed(0)
    side = 224 if name in IMAGENET else 32
    return getattr(hub, name)().freeze(dict(sample)).eval(), torch.zeros(1, 3, side, side)


@cache
def graph(name: str, seed: int) -> ComputeGraph:
    return from_module(*frozen(name, seed))


def used(module: nn.Module, image: torch.Tensor) -> tuple[int, int]:
    """Parameters and FLOPs that the output depends on.

    The cells of NASNet and its kin preprocess inputs that no operation may read.
    """
    twin = copy.deepcopy(module).to("meta")
    image = image.to("meta")
    with FlopCounterMode(display=False) as counter:
        scores = twin(image)
    scores.sum().backward()
    flops = counter.get_total_flops()
    counts = counter.get_flop_counts()
    root = type(twin).__name__
    for path, part in twin.named_modules():
        if isinstance(part, nn.Conv2d) and part.weight.grad is None:
            flops -= sum(counts.get(f"{root}.{path}", {}).values())
    return sum(p.numel() for p in twin.parameters() if p.grad is not None), flops


@pytest.mark.parametrize(("name", "seed"), SAMPLES)
def test_costs_are_exact(name: str, seed: int) -> None:
    parameters, flops = used(*frozen(name, seed))
    assert graph(name, seed).parameters == parameters > 0
    assert 2 * graph(name, seed).macs == flops > 0
    assert graph(name, seed).others == ()


@pytest.mark.parametrize(("name", "seed"), SAMPLES)
def test_other_doors_give_the_same_graph(name: str, seed: int, other_door: Door) -> None:
    other = other_door(*frozen(name, seed))
    assert other == graph(name, seed)
    assert other.macs == graph(name, seed).macs
