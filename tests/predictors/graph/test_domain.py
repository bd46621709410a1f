"""Domains: what is near known graphs, what is far, and how they are kept."""

from __future__ import annotations

import numpy as np
import pytest

from nni_aiop.errors import FileFormatError
from nni_aiop.predictors.graph._domain import Domain


def test_distances_are_worked_out_by_hand() -> None:
    # Columns 0, 1, 2, 3 with spread sqrt(1.25); every nearest neighbour is 1 away.
    domain = Domain.fit(np.arange(4.0)[:, None])
    assert domain.limit == pytest.approx(2 / np.sqrt(1.25))
    assert domain.distance([[1.0], [5.0], [7.0]]) == pytest.approx([0.0, 1.0, 2.0])


def test_groups_that_are_not_known_are_inside() -> None:
    # Of 0, 1, 11, 12 in two groups, the nearest of the other group are 11, 10, 10, 11 away.
    rows, groups = np.array([[0.0], [1.0], [11.0], [12.0]]), ["a", "a", "b", "b"]
    domain = Domain.fit(rows, groups)
    assert domain.limit * rows.std() == pytest.approx(11)
    assert domain.distance([[17.5], [24.0]]) == pytest.approx([0.5, 12 / 11])
    with pytest.raises(ValueError, match="groups must be 2 or more"):
        Domain.fit(rows, ["a"] * 4)
    with pytest.raises(ValueError, match="groups must be 2 or more"):
        Domain.fit(rows, groups[:3])


def test_what_never_varied_may_vary_a_little() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 3))
    rows[:, 2] = 0.0
    domain = Domain.fit(rows)
    near, far = rows[:1].copy(), rows[:1].copy()
    near[0, 2], far[0, 2] = 0.01, 1.0
    assert domain.distance(near)[0] < 1 < domain.distance(far)[0]


def test_the_same_after_a_file() -> None:
    rows = np.random.default_rng(0).normal(size=(700, 4))
    domain = Domain.fit(rows)
    assert domain.known.shape == (500, 4)
    again = Domain.from_arrays(domain.to_arrays())
    assert (again.distance(rows) == domain.distance(rows)).all()
    with pytest.raises(FileFormatError, match="must be whole"):
        Domain.from_arrays({"known": rows})


def test_one_graph_is_no_domain() -> None:
    with pytest.raises(ValueError, match="2 graphs or more"):
        Domain.fit(np.zeros((1, 3)))
