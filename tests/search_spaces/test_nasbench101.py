"""The cell space of NAS-Bench-101: codes and costs of the published cells, and the networks."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nni_aiop.benchmarks import NASBench101, load_nas_bench_101
from nni_aiop.benchmarks import nas_bench_101 as published_names
from nni_aiop.errors import SpaceError
from nni_aiop.graphs import from_module
from nni_aiop.search import RandomSearch
from nni_aiop.search_spaces.nasbench101 import (
    EDGES,
    LABELS,
    MAX_EDGES,
    OPERATIONS,
    NASBench101Net,
    canonical_string,
    code_space,
    flops,
    from_matrix,
    graph,
    params,
    to_matrix,
)
from nni_aiop.spaces import Sample

C3, C1, POOL = OPERATIONS

BEST = from_matrix(
    # The paper's best cell: a residual of two branches.
    [
        [0, 1, 1, 0, 0, 1, 1],
        [0, 0, 0, 0, 0, 1, 0],
        [0, 0, 0, 1, 0, 0, 0],
        [0, 0, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0, 0, 0],
    ],
    [C1, C3, C3, C3, POOL],
)
UNEVEN = from_matrix(
    # Three vertices divide 128 channels into 43, 43, 42; the first leads to the third as well.
    [
        [0, 1, 1, 0, 0],
        [0, 0, 0, 1, 1],
        [0, 0, 0, 1, 1],
        [0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0],
    ],
    [C3, C1, POOL],
)
EDGE = from_matrix([[0, 1], [0, 0]], [])


@pytest.fixture(scope="module")
def published(data_dir: Path) -> NASBench101:
    return load_nas_bench_101(data_dir / "nas_bench_101" / "nb101_30k.csv.gz")


@pytest.fixture(scope="module")
def samples(published: NASBench101) -> list[Sample]:
    cells = zip(published.adjacency, published.operations, strict=True)
    return [from_matrix(matrix, operations) for matrix, operations in cells]


# --- codes --------------------------------------------------------------------------------------


def test_every_published_cell_has_a_code_of_its_own(
    published: NASBench101, samples: list[Sample]
) -> None:
    space = code_space()
    assert space.labels == LABELS and len(LABELS) == 21 + 5 and len(EDGES) == 21
    assert published_names.OPERATIONS == OPERATIONS
    codes = space.encode(samples)
    assert len(set(space.keys(space.points(samples)))) == len(samples) == 30_001
    chosen = range(0, 30_001, 37)
    for place, sample in zip(chosen, space.decode(codes[::37]), strict=True):
        assert sample == samples[place] and space.violation(sample) is None
        matrix, operations = to_matrix(sample)
        np.testing.assert_array_equal(matrix, published.adjacency[place])
        assert operations == published.operations[place]


def test_a_small_cell_takes_the_first_vertices() -> None:
    space = code_space()
    middle = [[0, 1, 0], [0, 0, 1], [0, 0, 0]]
    sample = from_matrix(middle, [C1])
    there = {f"edge_{i}{j}" for i, j in EDGES if sample[f"edge_{i}{j}"]}
    assert there == {"edge_01", "edge_16", "edge_02", "edge_03", "edge_04", "edge_05"}
    assert sample["op_1"] == C1
    active = space.canonical(sample)
    assert {label for label in active if active[label]} == {"edge_01", "edge_16", "op_1"}
    assert to_matrix(active) == (tuple(map(tuple, middle)), (C1,))
    # One edge more takes in a spare vertex, which reads the input already.
    grown = sample | {"edge_26": 1}
    assert grown in space.neighbours(sample)
    assert to_matrix(grown) == (((0, 1, 1, 0), (0, 0, 0, 1), (0, 0, 0, 1), (0, 0, 0, 0)), (C1, C3))


def test_what_does_not_count_is_pruned() -> None:
    # Vertex 1 is not reached, vertex 3 leads nowhere.
    matrix = np.zeros((5, 5), dtype=int)
    for source, target in ((0, 2), (1, 2), (1, 4), (2, 3), (2, 4)):
        matrix[source, target] = 1
    sample = from_matrix(matrix, [C3, POOL, C1])
    assert sample == from_matrix([[0, 1, 0], [0, 0, 1], [0, 0, 0]], [POOL])
    space = code_space()
    spread = {f"edge_{i}{j}": 0 for i, j in EDGES} | {f"op_{v}": C3 for v in range(1, 6)}
    spread |= {"edge_04": 1, "edge_46": 1, "edge_36": 1, "edge_23": 1, "op_4": POOL}
    assert space.violation(spread) is None and to_matrix(spread) == to_matrix(sample)
    np.testing.assert_array_equal(params(space.encode([spread])), params(space.encode([sample])))


def test_the_rules() -> None:
    space = code_space()
    apart = dict.fromkeys((f"edge_{i}{j}" for i, j in EDGES), 0) | {
        f"op_{v}": C1 for v in range(1, 6)
    }
    assert "the input leads to the output" in str(space.violation(apart))
    dense = apart | dict.fromkeys((f"edge_{i}{j}" for i, j in EDGES), 1)
    assert f"at most {MAX_EDGES} edges" in str(space.violation(dense))
    assert space.violation(dense | {"edge_46": 0, "edge_56": 0, "edge_36": 0}) is None
    for sample in (apart, dense):
        with pytest.raises(SpaceError):
            NASBench101Net(sample)
    rng = np.random.default_rng(0)
    for sample in space.decode(rng.normal(0.5, 1.0, (300, space.width))):
        matrix, _ = to_matrix(sample)
        assert np.sum(matrix) <= MAX_EDGES
        assert from_matrix(*to_matrix(sample)) == from_matrix(*to_matrix(space.canonical(sample)))


@pytest.mark.parametrize(
    ("matrix", "operations", "message"),
    [
        ([[0]], [], "2 to 7 rows"),
        ([0, 1], [], "2 to 7 rows"),
        ([[0, 1, 0], [0, 0, 1]], [C1], "2 to 7 rows"),
        (np.zeros((8, 8)), [C1] * 6, "2 to 7 rows"),
        ([[0, 2], [0, 0]], [], "zeros, and ones above its diagonal"),
        ([[0, 1], [1, 0]], [], "zeros, and ones above its diagonal"),
        ([[1, 1], [0, 0]], [], "zeros, and ones above its diagonal"),
        ([[0, 1], [0, 0]], [C1], "must have 0 operations"),
        ([[0, 1, 0], [0, 0, 1], [0, 0, 0]], ["conv5x5"], "must have 1 operations"),
        ([[0, 1, 0], [0, 0, 0], [0, 0, 0]], [C1], "lead to"),
        (np.triu(np.ones((5, 5)), 1), [C1] * 3, "at most 9 edges"),
    ],
)
def test_cells_that_are_none_are_refused(matrix: Any, operations: list[str], message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        from_matrix(matrix, operations)


# --- costs --------------------------------------------------------------------------------------


def test_params_equal_the_published_column_in_every_row(
    published: NASBench101, samples: list[Sample]
) -> None:
    space = code_space()
    codes = space.encode(samples)
    np.testing.assert_array_equal(params(codes), published.params)
    np.testing.assert_array_equal(space.cost("params", codes), published.params)


def test_costs_worked_out_by_hand() -> None:
    codes = code_space().encode([EDGE])
    # Stem, nine projections, classifier.
    widths = [128] * 4 + [256] * 3 + [512] * 3
    pairs = list(pairwise(widths))
    assert params(codes) == 27 * 128 + 256 + sum(a * b + 2 * b for a, b in pairs) + 5130
    areas = [1024] * 3 + [256] * 3 + [64] * 3
    convolutions = sum(a * b * area for (a, b), area in zip(pairs, areas, strict=True))
    assert flops(codes) == 27 * 128 * 1024 + convolutions + 5120


def network_costs(sample: Sample) -> tuple[int, float]:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        net = NASBench101Net(sample)
        assert net(torch.empty(1, 3, 32, 32)).shape == (1, 10)
    return sum(p.numel() for p in net.parameters()), counter.get_total_flops() / 2


@pytest.mark.slow
def test_networks_cost_what_the_formula_says(samples: list[Sample]) -> None:
    random = code_space().sample(6, np.random.default_rng(0))
    small = sorted(samples, key=lambda sample: len(to_matrix(sample)[0]))[:4]
    chosen = [BEST, UNEVEN, EDGE, *random, *small, *samples[::6000]]
    codes = code_space().encode(chosen)
    costs = [network_costs(sample) for sample in chosen]
    assert params(codes).tolist() == [n for n, _ in costs]
    assert flops(codes).tolist() == [n for _, n in costs]


def test_costs_have_gradients() -> None:
    codes = torch.tensor(code_space().encode([BEST, UNEVEN]), requires_grad=True)
    relaxed = torch.rand(3, 57, dtype=torch.float64, requires_grad=True)
    for x in (codes, relaxed):
        for cost in (params, flops):
            assert (cost(x) > 0).all()
            (gradient,) = torch.autograd.grad(cost(x).sum(), x)
            assert gradient.isfinite().all() and (gradient != 0).any()
    # A 3x3 convolution costs more than a 1x1, and that more than a pooling.
    (gradient,) = torch.autograd.grad(params(codes)[1], codes)
    three, one, pool = gradient[1, 42:45].tolist()
    assert three > one > pool == 0


def test_codes_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(n, 57\), but got \(2, 56\)"):
        params(np.zeros((2, 56)))


# --- networks -----------------------------------------------------------------------------------


def test_channels_are_divided_and_truncated() -> None:
    net = NASBench101Net(UNEVEN)
    cells = [layer for layer in net.layers if not isinstance(layer, nn.MaxPool2d)]
    assert [cell.channels for cell in cells[::3]] == [
        [0, 43, 43, 42, 128],
        [0, 86, 85, 85, 256],
        [0, 171, 171, 170, 512],
    ]
    assert len(cells) == 9


def test_a_cell_computes_what_its_matrix_says() -> None:
    torch.manual_seed(0)
    net = NASBench101Net(UNEVEN).eval()
    cell, x = net.layers[0], torch.randn(2, 128, 8, 8)
    with torch.no_grad():
        a = cell.operations[0](cell.projections["1"](x))
        b = cell.operations[1](cell.projections["2"](x))
        c = cell.operations[2](a[:, :42] + b[:, :42])
        torch.testing.assert_close(cell(x), torch.cat([a, b, c], dim=1))
        best = NASBench101Net(BEST).eval().layers[0]
        long = x
        for vertex, operation in enumerate(best.operations[1:4], start=2):
            long = operation(best.projections["2"](long) if vertex == 2 else long)
        short = best.operations[0](best.projections["1"](x))
        y = best.operations[4](short + long + best.projections["5"](x)) + best.projections["6"](x)
        torch.testing.assert_close(best(x), y)


@pytest.mark.parametrize("sample", [BEST, UNEVEN, EDGE], ids=["best", "uneven", "edge"])
def test_networks_learn(sample: Sample) -> None:
    torch.manual_seed(0)
    net = NASBench101Net(sample)
    scores = net(torch.randn(2, 3, 32, 32))
    nn.functional.cross_entropy(scores, torch.tensor([1, 2])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


# --- graphs -------------------------------------------------------------------------------------


def test_graphs_equal_those_of_the_networks() -> None:
    space = code_space()
    samples = [BEST, UNEVEN, EDGE, *space.sample(3, np.random.default_rng(1))]
    codes = space.encode(samples)
    for sample, n_params, n_flops in zip(samples, params(codes), flops(codes), strict=True):
        with torch.device("meta"):
            recorded = from_module(NASBench101Net(sample), torch.empty(1, 3, 32, 32))
        written = space.graph(sample)
        assert written == recorded
        assert written.parameters == recorded.parameters == n_params and written.macs == n_flops


def test_equal_pruned_cells_have_equal_graphs() -> None:
    space = code_space()
    for sample in space.sample(20, np.random.default_rng(2)):
        assert graph(space.canonical(sample)) == graph(from_matrix(*to_matrix(sample)))
    with pytest.raises(SpaceError, match="lacks"):
        graph({})


def test_isomorphic_cells_are_one_network(data_dir: Path) -> None:
    # 0 -> 1 -> 3, 0 -> 2 -> 3, 1 -> 2 with its inner vertices renamed where edges allow it.
    chain = [[0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]]
    one = from_matrix(chain, [OPERATIONS[0], OPERATIONS[2]])
    other = from_matrix(chain, [OPERATIONS[2], OPERATIONS[0]])
    third = from_matrix(chain, [OPERATIONS[2], OPERATIONS[2]])
    space = code_space()
    assert space.key(one) != space.key(other)
    assert space.network_key(one) == space.network_key(other) != space.network_key(third)
    # The table has each network once.
    table = load_nas_bench_101(data_dir / "nas_bench_101" / "nb101_30k.csv.gz")
    cells = list(zip(table.adjacency, table.operations, strict=True))[:2_000]
    assert len({canonical_string(from_matrix(*cell)) for cell in cells}) == len(cells)


def test_random_search_never_asks_for_a_network_twice() -> None:
    space = code_space()
    asked = RandomSearch(space, seed=0).ask(150)
    assert len({canonical_string(sample) for sample in asked}) == 150
    again = RandomSearch(space, seed=0, repeat_networks=True).ask(150)
    assert len({canonical_string(sample) for sample in again}) < 120
