"""The cell space of NAS-Bench-201: codes and costs of all 15,625 cells, and the networks."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nni_aiop.benchmarks import NASBench201, load_nas_bench_201, load_nas_bench_201_csv
from nni_aiop.benchmarks import nas_bench_201 as published_names
from nni_aiop.errors import SpaceError
from nni_aiop.graphs import from_module
from nni_aiop.search_spaces.nasbench201 import (
    DATASETS,
    EDGES,
    LABELS,
    N_CELLS,
    OPERATIONS,
    NASBench201Net,
    all_cells,
    arch_string,
    canonical_string,
    code_space,
    features,
    flops,
    from_arch_string,
    from_index,
    graph,
    index,
    params,
)

MIXED = dict(
    zip(
        LABELS,
        (
            "nor_conv_3x3",
            "none",
            "skip_connect",
            "avg_pool_3x3",
            "nor_conv_1x1",
            "nor_conv_3x3",
        ),
        strict=True,
    )
)


def cell(*operations: str) -> dict[str, str]:
    short = {"p": "avg_pool_3x3", ".": "none", "s": "skip_connect"}
    short |= {"1": "nor_conv_1x1", "3": "nor_conv_3x3"}
    return {label: short[o] for label, o in zip(LABELS, operations, strict=True)}


@pytest.fixture(scope="module")
def tabled(data_dir: Path) -> NASBench201:
    return load_nas_bench_201_csv(data_dir / "nas_bench_201" / "nb201.csv.gz")


@pytest.fixture(scope="module")
def codes() -> Any:
    return code_space().encode(all_cells())


# --- codes --------------------------------------------------------------------------------------


def test_the_space_is_that_of_the_published_files(tabled: NASBench201) -> None:
    assert published_names.OPERATIONS == OPERATIONS
    assert tuple(f"op_{edge}" for edge in published_names.EDGES) == LABELS
    space = code_space()
    assert space.labels == LABELS and space.width == 30 and space.size == N_CELLS == 15_625
    samples = [dict(zip(LABELS, row, strict=True)) for row in tabled.operations]
    np.testing.assert_array_equal(space.encode(samples), tabled.embedding)
    assert space.decode(tabled.embedding) == samples


def test_index_and_cell_are_inverse() -> None:
    cells = all_cells()
    assert [index(c) for c in cells] == list(range(N_CELLS))
    assert [from_index(i) for i in range(N_CELLS)] == cells
    assert all(from_arch_string(arch_string(c)) == c for c in cells[::7])
    for wrong in (-1, N_CELLS):
        with pytest.raises(SpaceError, match=rf"0\.\.15624, but got {wrong}"):
            from_index(wrong)


def test_the_benchmarks_own_notation() -> None:
    text = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|nor_conv_3x3~2|"
    assert arch_string(MIXED) == text and from_arch_string(text) == MIXED
    for wrong in ("", "|none~0|", text[:-1], text.replace("~2", "~1"), text.replace("1x1", "5x5")):
        with pytest.raises(SpaceError, match="must read as"):
            from_arch_string(wrong)


def test_cells_that_are_none_are_refused() -> None:
    with pytest.raises(SpaceError, match="lacks 'op_23'"):
        index(dict.fromkeys(LABELS[:-1], "none"))
    with pytest.raises(SpaceError, match="but got 'max_pool'"):
        arch_string(MIXED | {"op_01": "max_pool"})


# --- isomorphism --------------------------------------------------------------------------------


def test_canonical_strings_worked_out_by_hand() -> None:
    assert canonical_string(cell(*"......")) == ""
    assert canonical_string(cell(*"3.....")) == ""  # nothing leaves node 1
    assert canonical_string(cell(*"...s..")) == "0"
    assert canonical_string(cell(*"s..1s.")) == "(0)1+0"
    assert canonical_string(cell(*"3...s.")) == canonical_string(cell(*"...3..")) == "(0)3"
    assert canonical_string(cell(*"33s..1")) == "((0)3+(0)3)1"
    assert canonical_string(cell(*"1s1p3s")) == "((0)1)1+((0)1)3+(0)p+0"


def test_isomorphic_cells_are_as_good(tabled: NASBench201) -> None:
    groups = defaultdict(list)
    for row, accuracy in zip(tabled.operations, tabled.metrics["c10_test"], strict=True):
        groups[canonical_string(dict(zip(LABELS, row, strict=True)))].append(accuracy)
    assert len(groups) == 4930
    spreads = [np.std(group) for group in groups.values() if len(group) > 1]
    assert np.median(spreads) < 0.15 and np.std(tabled.metrics["c10_test"]) > 10


def test_a_canonical_string_says_what_the_cell_computes() -> None:
    """Cells without convolutions have no weights: equal strings must mean equal outputs."""
    torch.manual_seed(0)
    images = torch.randn(1, 3, 8, 8)
    outputs: dict[str, torch.Tensor] = {}
    net = NASBench201Net(MIXED).eval()
    from nni_aiop.search_spaces.nasbench201._network import cell_of

    x = net.stem(images)
    without = [c for c in all_cells() if not any("conv" in o for o in c.values())]
    with torch.no_grad():
        for sample in without[::3]:
            y = cell_of(sample, 16)(x)
            known = outputs.setdefault(canonical_string(sample), y)
            torch.testing.assert_close(y, known)
    assert 10 < len(outputs) < len(without[::3])


# --- costs --------------------------------------------------------------------------------------


def test_costs_equal_the_published_columns_on_every_cell(tabled: NASBench201) -> None:
    assert len(tabled) == N_CELLS
    np.testing.assert_array_equal(params(tabled.embedding), tabled.params)
    # Published in millions with two decimals.
    assert np.abs(flops(tabled.embedding) - tabled.flops).max() <= 5000
    space = code_space()
    np.testing.assert_array_equal(space.cost("params", tabled.embedding), tabled.params)
    np.testing.assert_array_equal(space.cost("flops", tabled.embedding), flops(tabled.embedding))


@pytest.mark.parametrize(
    ("data", "column"), [("cifar10", "params_c10_m"), ("imagenet16-120", "params_in16_m")]
)
def test_params_equal_the_published_columns_of_the_other_data_sets(
    data: str, column: str, data_dir: Path, tabled: NASBench201
) -> None:
    import csv
    import gzip

    with gzip.open(data_dir / "nas_bench_201" / "nb201.csv.gz", "rt") as stream:
        published = np.array([float(row[column]) for row in csv.DictReader(stream)])
    np.testing.assert_array_equal(params(tabled.embedding, data=data) / 1e6, published)


def test_ncps_costs_are_those_of_isomorphic_cells(data_dir: Path) -> None:
    table = load_nas_bench_201(data_dir / "nas_bench_201")
    own = flops(table.embedding)
    siblings = defaultdict(set)
    texts = [canonical_string(dict(zip(LABELS, row, strict=True))) for row in table.operations]
    for text, cost in zip(texts, own, strict=True):
        siblings[text].add(round(cost / 1e4))
    published = (table.flops / 1e4).round()
    assert (np.abs(own / 1e4 - published) > 0.5).sum() == 150
    assert all(cost in siblings[text] for text, cost in zip(texts, published, strict=True))


def test_costs_are_linear_and_differentiable(codes: Any) -> None:
    relaxed = torch.tensor(codes[:2]).mean(0, keepdim=True).requires_grad_()
    for cost in (params, flops):
        for data in DATASETS:
            np.testing.assert_allclose(
                cost(relaxed, data=data).item(), cost(codes[:2], data=data).mean()
            )
            assert torch.autograd.gradcheck(lambda c, f=cost, d=data: f(c, data=d) / 1e6, relaxed)


def test_bad_arguments_are_refused(codes: Any) -> None:
    with pytest.raises(ValueError, match=r"shape \(n, 30\), but got \(2, 29\)"):
        params(codes[:2, 1:])
    for call in (
        lambda: flops(codes[:2], data="mnist"),
        lambda: code_space(data="mnist"),
        lambda: NASBench201Net(MIXED, data="mnist"),
    ):
        with pytest.raises(ValueError, match="cifar10, cifar100, imagenet16-120, but got 'mnist'"):
            call()


# --- features -----------------------------------------------------------------------------------


def test_features_of_a_cell_worked_out_by_hand() -> None:
    # 01 = 3x3, 12 = skip, 13 = 1x1, 23 = 3x3, 03 = pool: paths p, 3-1, 3-s-3; all five edges live.
    found = features(torch.tensor(code_space().encode([MIXED])))[0]
    paths = found[:40].exp().sub(1).round()
    assert paths.sum() == 3 and (paths > 0).sum() == 3
    assert found[40:44].tolist() == [1, 1, 1, 2]  # skip, pool, 1x1, 3x3
    assert found[44:].tolist() == [3, 3]  # two convolutions, both 3x3 (and one for being alive)
    dead = features(torch.tensor(code_space().encode([cell(*"333...")])))[0]
    assert dead.tolist() == [0.0] * 46


def test_features_do_not_see_what_has_no_effect(codes: Any) -> None:
    found = features(torch.tensor(codes)).round(decimals=9)
    texts = [canonical_string(c) for c in all_cells()]
    alike = defaultdict(set)
    for text, row in zip(texts, found.tolist(), strict=True):
        # A term that occurs twice may be computed once: only the counts of edges differ then.
        alike[text].add(tuple(row[:40] + row[44:]))
    assert all(len(rows) == 1 for rows in alike.values())
    assert found.isfinite().all() and len(torch.unique(found, dim=0)) > 4930


def test_features_are_differentiable_everywhere() -> None:
    generator = torch.Generator().manual_seed(0)
    inside = torch.rand(2, 30, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(features, inside)
    corner = torch.tensor(code_space().encode([MIXED, cell(*"......")]), requires_grad=True)
    (gradient,) = torch.autograd.grad(features(corner).sum(), corner)
    assert gradient.isfinite().all()
    assert code_space().features is features


# --- networks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("data", DATASETS)
def test_networks_cost_what_the_formula_says(data: str) -> None:
    cells = [cell(*"333333"), cell(*"......"), MIXED, from_index(1234), from_index(9876)]
    encoded = code_space().encode(cells)
    for sample, n_params, n_flops in zip(
        cells, params(encoded, data=data), flops(encoded, data=data), strict=True
    ):
        count = 0

        def hook(module: nn.Module, _: Any, out: torch.Tensor) -> None:
            nonlocal count
            if isinstance(module, nn.Conv2d | nn.Linear):
                count += out.numel() * (module.weight[0].numel() + (module.bias is not None))

        size = DATASETS[data].image_size
        with torch.device("meta"):
            net = NASBench201Net(sample, data=data)
            for module in net.modules():
                module.register_forward_hook(hook)
            scores = net(torch.empty(1, 3, size, size))
        assert tuple(scores.shape) == (1, DATASETS[data].n_classes)
        assert sum(p.numel() for p in net.parameters()) == n_params and count == n_flops


@pytest.mark.parametrize("data", DATASETS)
def test_networks_learn(data: str) -> None:
    torch.manual_seed(0)
    size = DATASETS[data].image_size
    net = NASBench201Net(MIXED, data=data)
    scores = net(torch.randn(2, 3, size, size))
    nn.functional.cross_entropy(scores, torch.tensor([1, 2])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_a_cell_without_paths_gives_constant_scores() -> None:
    net = NASBench201Net(cell(*"......")).eval()
    with torch.no_grad():
        scores = net(torch.randn(2, 3, 32, 32))
    assert scores.isfinite().all()
    torch.testing.assert_close(scores[0], scores[1])


def test_edges_run_forwards() -> None:
    assert len(EDGES) == 6 and all(source < target for source, target in EDGES)


# --- graphs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", DATASETS)
def test_graphs_equal_those_of_the_networks(data: str) -> None:
    cells = [
        MIXED,
        cell(*"......"),
        cell(*"ssssss"),
        cell(*"pppppp"),
        cell(*".ss.s."),
        cell(*"s3.1.s"),
    ]
    cells += code_space().sample(4, np.random.default_rng(0))
    costs = flops(code_space().encode(cells), data=data)
    size, n_classes = DATASETS[data].image_size, DATASETS[data].n_classes
    for sample, n_flops in zip(cells, costs, strict=True):
        with torch.device("meta"):
            net = NASBench201Net(sample, data=data)
            recorded = from_module(net, torch.empty(1, 3, size, size))
        written = code_space(data=data).graph(sample)
        assert written == recorded and written.parameters == recorded.parameters
        assert written.macs == n_flops - n_classes  # the published count adds the bias


def test_graphs_of_no_cells_are_refused() -> None:
    with pytest.raises(SpaceError, match="op_23"):
        graph(dict.fromkeys(LABELS[:-1], "none"))
    with pytest.raises(ValueError, match="but got 'mnist'"):
        graph(MIXED, data="mnist")
