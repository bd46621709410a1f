"""The spaces of TransNAS-Bench-101: codes, costs and networks for the seven tasks."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nni_aiop.benchmarks import load_transnas_bench_101
from nni_aiop.benchmarks import transnas_bench_101 as published_names
from nni_aiop.errors import SpaceError
from nni_aiop.graphs import from_module
from nni_aiop.search_spaces.transnas101 import TASKS, macro, micro
from nni_aiop.search_spaces.transnas101._network import FactorisedReduction, Zeroise
from nni_aiop.spaces import Sample, SampleCost

SPACES = {"micro": micro, "macro": macro}
NETWORKS = {"micro": micro.TransNASMicroNet, "macro": macro.TransNASMacroNet}

MIXED = micro.from_arch_string("64-41414-1_02_333")


def images(task: str, batch: int = 2) -> torch.Tensor:
    size = TASKS[task].image_size
    tiles = (TASKS[task].n_pieces,) if TASKS[task].n_pieces > 1 else ()
    return torch.randn(batch, *tiles, 3, size, size)


# --- codes --------------------------------------------------------------------------------------


def test_cells_in_the_benchmarks_own_notation() -> None:
    assert list(MIXED.values()) == [
        "skip_connect", "none", "conv_1x1", "conv_3x3", "conv_3x3", "conv_3x3",
    ]  # fmt: skip
    assert [f"op_{i}{j}" for i, j in micro.EDGES] == list(micro.LABELS)
    for digits in product("0123", repeat=6):
        text = "64-41414-{}_{}{}_{}{}{}".format(*digits)
        assert micro.arch_string(micro.from_arch_string(text)) == text
    for wrong in ("", "64-41414-", "64-41414-1_02_33", "64-41414-1_02_334", "64-41414-102_333",
                  "64-1234-basic", "32-41414-1_02_333", "1_02_333"):  # fmt: skip
        with pytest.raises(SpaceError, match="must read as"):
            micro.from_arch_string(wrong)
    with pytest.raises(SpaceError, match=r"lacks .*op_23"):
        micro.arch_string(dict.fromkeys(micro.LABELS[:-1], "none"))
    with pytest.raises(SpaceError, match="but got 'pool'"):
        micro.arch_string(MIXED | {"op_01": "pool"})


def test_skeletons_in_the_benchmarks_own_notation() -> None:
    sample = macro.from_arch_string("64-41414-basic")
    assert sample == {"n_modules": 5} | {f"module_{i}": t for i, t in enumerate((4, 1, 4, 1, 4), 1)}
    assert macro.arch_string(sample | {"module_6": 2}) == "64-41414-basic"
    for wrong in ("", "64-1234", "1234-basic", "64-12345-basic", "64--basic", "64-444-basic",
                  "64-1111-basic", "64-2222-basic", "64-44411-1_02_333", "64-4111111-basic",
                  ):  # fmt: skip
        with pytest.raises(SpaceError):
            macro.from_arch_string(wrong)


def test_the_macro_space_is_the_3256_published_skeletons(data_dir: Path) -> None:
    space = macro.code_space()
    samples = [
        {"n_modules": depth, **{f"module_{i}": t for i, t in enumerate(types, start=1)}}
        for depth in (4, 5, 6)
        for types in product((1, 2, 3, 4), repeat=depth)
    ]
    valid = {tuple(list(s.values())[1:]) for s in samples if space.violation(s) is None}
    file = data_dir / "transnas_bench_101" / "tnb101_macro.csv.gz"
    assert valid == set(load_transnas_bench_101(file).codes) and len(valid) == 3256


def test_the_micro_space_is_the_4096_published_cells(data_dir: Path) -> None:
    assert published_names.MICRO_OPERATIONS == micro.OPERATIONS
    assert published_names.TASKS.keys() == TASKS.keys()
    assert micro.code_space().size == 4096
    file = data_dir / "transnas_bench_101" / "tnb101_micro.csv.gz"
    assert len(set(load_transnas_bench_101(file).codes)) == 4096


# --- costs --------------------------------------------------------------------------------------


def chosen(kind: str) -> list[Sample]:
    random = SPACES[kind].code_space().sample(3, np.random.default_rng(0))
    if kind == "micro":
        return [MIXED, *(dict.fromkeys(micro.LABELS, o) for o in micro.OPERATIONS), *random]
    texts = ("4111", "1234", "444311", "33332", "41414")
    return [macro.from_arch_string(f"64-{text}-basic") for text in texts] + random


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", SPACES)
def test_networks_cost_what_the_formula_says(kind: str, task: str) -> None:
    space = SPACES[kind].code_space(task=task)
    samples = chosen(kind)[:: 3 if task == "jigsaw" else 1]
    codes = space.encode(samples)
    counted = []
    for sample in samples:
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            net = NETWORKS[kind](sample, task=task).eval()
            y = net(images(task, batch=1))
        size = () if TASKS[task].head == "linear" else (256, 256)
        assert tuple(y.shape) == (1, TASKS[task].n_outputs, *size)
        counted.append((sum(p.numel() for p in net.parameters()), counter.get_total_flops() / 2))
    assert space.cost("params", codes).tolist() == [n for n, _ in counted]
    assert space.cost("flops", codes).tolist() == [n for _, n in counted]


def test_costs_worked_out_by_hand() -> None:
    none = dict.fromkeys(micro.LABELS, "none")
    edge = none | {"op_23": "conv_1x1"}
    space = micro.code_space(task="room_layout")
    stem = 27 * 32 + 2 * 32 + 9 * 32 * 64 + 2 * 64
    assert space.cost("params", space.encode([none])) == stem + 513 * 9
    (more,) = np.diff(space.cost("params", space.encode([none, edge])))
    assert more == sum(n * (c * c + 2 * c) for n, c in ((4, 128), (4, 256), (2, 512)))


@pytest.mark.parametrize("task", ["class_scene", "jigsaw", "segmentsemantic", "normal"])
@pytest.mark.parametrize("kind", SPACES)
def test_costs_are_differentiable(kind: str, task: str) -> None:
    space = SPACES[kind].code_space(task=task)
    generator = torch.Generator().manual_seed(0)
    inside = torch.rand(
        2, space.width, generator=generator, dtype=torch.float64, requires_grad=True
    )
    for cost in (c for c in space.costs.values() if not isinstance(c, SampleCost)):
        assert torch.autograd.gradcheck(lambda codes, f=cost: f(codes) / 1e7, inside)


@pytest.mark.parametrize("kind", SPACES)
def test_unknown_tasks_are_refused(kind: str) -> None:
    for call in (SPACES[kind].code_space, lambda task: NETWORKS[kind](chosen(kind)[0], task=task)):
        with pytest.raises(ValueError, match=r"class_scene, .*autoencoder, but got 'depth'"):
            call(task="depth")


# --- networks -----------------------------------------------------------------------------------


def test_invalid_samples_have_no_network() -> None:
    with pytest.raises(SpaceError, match="op_23"):
        micro.TransNASMicroNet(dict.fromkeys(micro.LABELS[:-1], "none"))
    with pytest.raises(SpaceError, match="1 to 3 modules double"):
        macro.TransNASMacroNet({"n_modules": 4} | {f"module_{i}": 3 for i in range(1, 5)})


def test_a_cell_computes_what_its_code_says() -> None:
    torch.manual_seed(0)
    # Blocks behind the three layers of the stem: a striding cell, and one that keeps the shape.
    first, second = micro.TransNASMicroNet(MIXED).eval().body[3:5]
    x, z = torch.randn(2, 64, 16, 16), torch.randn(2, 128, 8, 8)
    with torch.no_grad():
        for cell, given in ((first, x), (second, z)):
            e01, e02, e12, e03, e13, e23 = cell.edges
            one = e01(given)
            two = e02(given) + e12(one)
            torch.testing.assert_close(cell(given), e03(given) + e13(one) + e23(two))
            assert cell(given).shape == (2, 128, 8, 8)
        assert isinstance(first.edges[0], FactorisedReduction)
        assert isinstance(second.edges[0], nn.Identity) and isinstance(first.edges[1], Zeroise)
        assert first.edges[1](x).eq(0).all() and first.edges[1](x).shape == (2, 128, 8, 8)


def test_a_factorised_reduction_sees_both_grids() -> None:
    reduction = FactorisedReduction(_block()).eval()
    x = torch.zeros(1, 4, 6, 6)
    x[0, 0, 3, 3] = 1.0  # odd: only the shifted half sees it
    with torch.no_grad():
        changed = (reduction(x) - reduction(torch.zeros_like(x))).abs()
    assert changed[0, :4].max() == 0 and changed[0, 4:].max() > 0
    assert changed[0, 4:].amax(0).nonzero().tolist() == [[1, 1]]
    assert reduction(torch.zeros(1, 4, 5, 5)).shape == (1, 8, 3, 3)


def _block() -> Any:
    from nni_aiop.search_spaces.transnas101._body import Block

    return Block(4, 8, 2)


@pytest.mark.parametrize("kind", SPACES)
def test_networks_learn(kind: str) -> None:
    torch.manual_seed(0)
    net = NETWORKS[kind](chosen(kind)[0], task="jigsaw")
    nn.functional.cross_entropy(net(images("jigsaw")), torch.tensor([1, 2])).backward()
    used = {name for name, p in net.named_parameters() if p.grad is not None}
    assert used == {name for name, _ in net.named_parameters()}


def test_the_jigsaws_tiles_share_one_body() -> None:
    torch.manual_seed(0)
    net = micro.TransNASMicroNet(MIXED, task="jigsaw").eval()
    x = images("jigsaw", batch=1)
    with torch.no_grad():
        features = [net.body(x[:, tile]).mean((2, 3)) for tile in range(9)]
        torch.testing.assert_close(net(x), net.head.linear(torch.cat(features, dim=1)))


# --- graphs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", SPACES)
def test_graphs_equal_those_of_the_networks(kind: str, task: str) -> None:
    space = SPACES[kind].code_space(task=task)
    samples = chosen(kind)[:: 3 if task == "jigsaw" else 1]
    codes = space.encode(samples)
    costs = zip(space.cost("params", codes), space.cost("flops", codes), strict=True)
    for sample, (n_params, n_flops) in zip(samples, costs, strict=True):
        with torch.device("meta"):
            net = NETWORKS[kind](sample, task=task).eval()
            recorded = from_module(net, images(task, batch=1))
        written = space.graph(sample)
        assert written == recorded and written.parameters == recorded.parameters
        # Every edge of a cell is read, so that its graph has the whole network's costs.
        assert written.parameters == n_params and written.macs == n_flops


@pytest.mark.parametrize("kind", SPACES)
def test_graphs_of_no_samples_are_refused(kind: str) -> None:
    with pytest.raises(SpaceError, match="lacks"):
        SPACES[kind].graph({})
    with pytest.raises(ValueError, match="but got 'depth'"):
        SPACES[kind].graph(chosen(kind)[0], task="depth")


def test_isomorphic_cells_are_one_network() -> None:
    space = micro.code_space()

    def cell(*operations: str) -> dict[str, str]:
        return dict(zip(micro.LABELS, operations, strict=True))

    skip, conv, none = "skip_connect", "conv_3x3", "none"
    # conv then identity, by way of node 1 or of node 2, or straight to the output.
    assert micro.canonical_string(cell(conv, none, none, none, skip, none)) == "(0)3"
    assert micro.canonical_string(cell(none, conv, none, none, none, skip)) == "(0)3"
    assert micro.canonical_string(cell(none, none, none, conv, none, none)) == "(0)3"
    # A skip connection from the cell's input may change the shape, and then has weights.
    assert micro.canonical_string(cell(skip, none, none, none, conv, none)) == "((0)s)3"
    assert len(set(space.network_keys(space.enumerate_points()))) == 1229
