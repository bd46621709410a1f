"""Graphs of the ready spaces: written from codes, read from networks and from their exports."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from nni_aiop.errors import SpaceError
from nni_aiop.graphs import ComputeGraph, from_module
from nni_aiop.search_spaces import (
    SPACES,
    digits,
    get_space,
    mobilenetv3,
    multi_resolution,
    naap,
    nasbench101,
    nasbench201,
)
from nni_aiop.search_spaces.transnas101 import macro, micro
from nni_aiop.spaces import CodeSpace, Sample

Door = Callable[[nn.Module, torch.Tensor], ComputeGraph]


class Case(NamedTuple):
    """A space, the network of a sample, and the shape of what it reads."""

    space: CodeSpace
    network: Callable[[Mapping[str, Any]], nn.Module]
    shape: tuple[int, ...]


READY = {
    "digits": Case(digits.code_space(), digits.build, (1, 1, 8, 8)),
    "mobilenetv3": Case(
        mobilenetv3.code_space(), lambda s: mobilenetv3.MobileNetV3Net(s), (1, 3, 224, 224)
    ),
    "multi_resolution": Case(
        multi_resolution.code_space(),
        lambda s: multi_resolution.MultiResolutionNet(s),
        (1, 3, 128, 128),
    ),
    "naap": Case(naap.code_space(), lambda s: naap.NAAPNet(s), (1, 3, 32, 32)),
    "nasbench101": Case(
        nasbench101.code_space(), lambda s: nasbench101.NASBench101Net(s), (1, 3, 32, 32)
    ),
    "nasbench201": Case(
        nasbench201.code_space(), lambda s: nasbench201.NASBench201Net(s), (1, 3, 32, 32)
    ),
    "transnas101_macro": Case(
        macro.code_space(), lambda s: macro.TransNASMacroNet(s), (1, 3, 256, 256)
    ),
    "transnas101_micro": Case(
        micro.code_space(), lambda s: micro.TransNASMicroNet(s), (1, 3, 256, 256)
    ),
}


def _wide(sample: Mapping[str, Any]) -> nn.Module:
    return mobilenetv3.MobileNetV3Net(sample, width=1.2, n_classes=10)


def _segmentation(sample: Mapping[str, Any]) -> nn.Module:
    return multi_resolution.MultiResolutionNet(sample, head="segmentation", n_classes=19)


def _video(sample: Mapping[str, Any]) -> nn.Module:
    return multi_resolution.MultiResolutionNet(sample, head="video")


OTHERS = {
    "mobilenetv3-w1.2-r97": Case(
        mobilenetv3.code_space(width=1.2, resolution=97, n_classes=10), _wide, (1, 3, 97, 97)
    ),
    "mobilenetv3-r32": Case(
        mobilenetv3.code_space(resolution=32),
        lambda s: mobilenetv3.MobileNetV3Net(s),
        (1, 3, 32, 32),
    ),
    "multi_resolution-seg": Case(
        multi_resolution.code_space(head="segmentation", input_size=(64, 100), n_classes=19),
        _segmentation,
        (1, 3, 64, 100),
    ),
    "multi_resolution-r32": Case(
        multi_resolution.code_space(input_size=32),
        lambda s: multi_resolution.MultiResolutionNet(s),
        (1, 3, 32, 32),
    ),
    "multi_resolution-frame": Case(
        multi_resolution.code_space(head="video", input_size=64), _video, (1, 3, 1, 64, 64)
    ),
    "nasbench201-in16": Case(
        nasbench201.code_space(data="imagenet16-120"),
        lambda s: nasbench201.NASBench201Net(s, data="imagenet16-120"),
        (1, 3, 16, 16),
    ),
    "transnas101_micro-jigsaw": Case(
        micro.code_space(task="jigsaw"),
        lambda s: micro.TransNASMicroNet(s, task="jigsaw"),
        (1, 9, 3, 64, 64),
    ),
    "transnas101_macro-autoencoder": Case(
        macro.code_space(task="autoencoder"),
        lambda s: macro.TransNASMacroNet(s, task="autoencoder"),
        (1, 3, 256, 256),
    ),
    "transnas101_macro-segmentsemantic": Case(
        macro.code_space(task="segmentsemantic"),
        lambda s: macro.TransNASMacroNet(s, task="segmentsemantic"),
        (1, 3, 256, 256),
    ),
}
CASES = READY | OTHERS


def samples(space: CodeSpace, n: int, seed: int = 0) -> list[Sample]:
    return space.sample(n, np.random.default_rng(seed))


def written(space: CodeSpace, sample: Sample) -> ComputeGraph:
    assert space.graph is not None
    return space.graph(sample)


def check(case: Case, sample: Sample) -> None:
    with torch.device("meta"):
        network = case.network(sample)
    read = from_module(network, case.shape)
    graph = written(case.space, sample)
    assert graph == read, sample
    assert graph.cost == read.cost
    assert graph.canonical().peak_memory() == read.canonical().peak_memory()
    assert graph.parameters == read.parameters
    assert graph.input_shapes == (case.shape,)
    assert written(case.space, case.space.canonical(sample)) == graph


def test_every_ready_space_has_graphs() -> None:
    assert READY.keys() == SPACES.keys()
    assert all(get_space(name).graph is not None for name in SPACES)


@pytest.mark.parametrize("name", CASES)
def test_graphs_from_codes_are_those_of_the_networks(name: str) -> None:
    for sample in samples(CASES[name].space, 3):
        check(CASES[name], sample)


@pytest.mark.slow
@pytest.mark.parametrize("name", READY)
def test_graphs_from_many_codes_are_those_of_the_networks(name: str) -> None:
    for sample in samples(READY[name].space, 20, seed=1):
        check(READY[name], sample)


@pytest.mark.slow
def test_graphs_from_cells_all_over_nasbench201() -> None:
    for place in range(0, nasbench201.N_CELLS, 101):
        check(READY["nasbench201"], nasbench201.from_index(place))


@pytest.mark.parametrize("last", ["avg_pool_3x3", "none", "skip_connect", "nor_conv_1x1"])
def test_cells_of_twins_and_zeros(last: str) -> None:
    # Both edges from node 1 make the same zeros, so that node 1 is read once; or the sums of
    # nodes 2 and 3 begin alike.
    for first, rest in (("none", "none"), ("avg_pool_3x3", "avg_pool_3x3")):
        cell = dict.fromkeys(nasbench201.LABELS, "skip_connect")
        cell |= {"op_01": first, "op_12": rest, "op_13": rest, "op_23": last}
        check(READY["nasbench201"], cell)


@pytest.mark.parametrize("name", READY)
def test_parameters_are_those_of_the_costs(name: str) -> None:
    space = READY[name].space
    drawn = samples(space, 20, seed=2)
    counted = space.costs["params"](torch.tensor(space.encode(drawn)))
    assert counted.tolist() == [written(space, sample).parameters for sample in drawn]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_other_doors_give_the_same_graph(name: str, other_door: Door) -> None:
    case = CASES[name]
    for sample in samples(case.space, 2, seed=3):
        network = case.network(sample).eval()
        assert other_door(network, torch.zeros(case.shape)) == written(case.space, sample)


def test_a_clip_of_several_frames() -> None:
    sample = samples(CASES["multi_resolution-frame"].space, 1)[0]
    for size in (64, 32):
        graph = multi_resolution.graph(sample, head="video", input_size=size, frames=4)
        assert graph == from_module(_video(sample), (1, 3, 4, size, size))


def test_the_sample_may_choose_the_resolution() -> None:
    space = mobilenetv3.code_space(resolution=(96, 128))
    sample = samples(space, 1)[0] | {"r": 128}
    assert written(space, sample) == mobilenetv3.graph(sample, resolution=128)
    with pytest.raises(SpaceError, match="'r' must be one of"):
        written(space, sample | {"r": 112})


@pytest.mark.parametrize("name", READY)
def test_a_sample_without_its_labels_is_refused(name: str) -> None:
    with pytest.raises(SpaceError):
        written(READY[name].space, {})
