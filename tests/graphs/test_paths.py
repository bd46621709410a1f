"""What lies on the ways through a network, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from nni_aiop.graphs import ComputeGraph, GraphWriter
from nni_aiop.graphs._paths import PATH_COLUMNS, path_features
from nni_aiop.search_spaces import nasbench201
from nni_aiop.search_spaces.nasbench201 import canonical_string, from_index


def counts(graph: ComputeGraph) -> dict[str, float]:
    (row,) = path_features([graph]).columns
    found = dict(zip(PATH_COLUMNS, row.tolist(), strict=True))
    return {name: value if name == "ways" else 2**value - 1 for name, value in found.items()}


def fork(*, zero: bool = False) -> ComputeGraph:
    """conv 3x3, relu, then the sum of a pool and of two 1x1 convolutions (or of zeros), a head."""
    w = GraphWriter()
    x = w.relu(w.conv(w.input((1, 3, 8, 8)), 4, 3))
    y = w.conv(w.conv(w.zeros(x) if zero else x, 4, 1), 4, 1)
    x = w.add(w.max_pool(x, 3, stride=1, padding=1), y)
    w.output(w.linear(w.global_avg_pool(x), 2))
    return w.graph()


def test_ways_are_counted_one_by_one() -> None:
    found = counts(fork())
    expected = {
        "most:spatial": 1, "most:pointwise": 3, "most:pooling": 1, "most:activation": 1,
        "fewest:pointwise": 1, "fewest:pooling": 0, "mean:pointwise": 2, "mean:pooling": 0.5,
        "all:pointwise": 3, "all:any": 10, "most:learned": 4, "fewest:learned": 2,
        "most:window": 1, "most:any": 8, "fewest:any": 7, "joins": 1, "ways": np.log(2),
        "further_edges": 0, "most:depthwise": 0, "all:normalisation": 0,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_what_reads_zeros_alone_is_not_there() -> None:
    w = GraphWriter()
    x = w.relu(w.conv(w.input((1, 3, 8, 8)), 4, 3))
    w.output(w.linear(w.global_avg_pool(w.max_pool(x, 3, stride=1, padding=1)), 2))
    kept, whole = path_features([w.graph()]), path_features([fork(zero=True)])
    assert whole.columns.tolist() == kept.columns.tolist()
    assert whole.macs.tolist() == kept.macs.tolist() and not whole.constant[0]


def test_a_network_that_reads_nothing_is_told() -> None:
    w = GraphWriter()
    w.output(w.conv(w.zeros(w.input((1, 3, 8, 8))), 4, 3))
    found = path_features([w.graph(), fork()])
    assert found.constant.tolist() == [True, False]
    assert not found.columns[0].any() and found.macs[0] == 0


def test_isomorphic_cells_are_one_network() -> None:
    rng = np.random.default_rng(0)
    samples = [from_index(int(index)) for index in rng.permutation(15_625)[:400]]
    found = path_features([nasbench201.graph(sample) for sample in samples])
    groups: dict[str, list[int]] = {}
    for place, sample in enumerate(samples):
        groups.setdefault(canonical_string(sample), []).append(place)
    twins = [group for group in groups.values() if len(group) > 1]
    assert len(twins) > 20
    equal: list[bool] = []
    for group in twins:
        # A term that occurs twice may be computed twice, so that counts of all may differ.
        differ = np.ptp(found.columns[group], axis=0) > 1e-9
        deep = [place for place, name in enumerate(PATH_COLUMNS) if name.startswith("most:")]
        assert not differ[deep].any() and len({*found.constant[group].tolist()}) == 1
        equal.append(not differ.any())
    assert np.mean(equal) > 0.8


def test_several_graphs_are_each_as_alone_and_none_is_nothing() -> None:
    graphs = [fork(), fork(zero=True)]
    together = path_features(graphs)
    for place, graph in enumerate(graphs):
        assert together.columns[place].tolist() == path_features([graph]).columns[0].tolist()
    assert path_features([]).columns.shape == (0, len(PATH_COLUMNS))
