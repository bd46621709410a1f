"""How a generator fills up: what missed the budget is repaired, then neighbours are looked at."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nni_aiop.errors import InfeasibleError
from nni_aiop.generators import BudgetGrid, ParetoGenerator, TrainingOptions
from nni_aiop.spaces import CodeSpace, Constraint, Nominal, Ordinal, repair

RULE = Constraint("no pooling at width 8", lambda x: x["op"] != "pool" or x["width"] != 8)


def generator() -> ParetoGenerator:
    space = CodeSpace(
        [
            Nominal("op", ("conv", "pool", "skip")),
            Ordinal("width", (8, 16, 32, 64)),
            Ordinal("depth", (1, 2, 3)),
        ],
        constraints=[RULE],
        costs={"ms": lambda c: 1 + 3 * c[:, 3] + 2 * c[:, 4]},
    )
    grid = BudgetGrid({"ms": (2.0, 6.0)})
    made = ParetoGenerator(space, grid, hidden=4, training=TrainingOptions(steps=1, samples=2))
    return made.fit_policy(lambda codes, costs, budgets: np.zeros(len(codes)))


def repaired(samples: list[dict], budget: float, n: int) -> list[dict]:
    made = generator()
    points = made.space.points(samples)
    kept: dict = {}
    missed = dict(zip(made.space.keys(points), points, strict=True))
    made._repair(kept, missed, np.array([budget]), n)
    return made.space.from_points(np.array(list(kept.values())))


def test_as_many_as_are_wanted_are_repaired_nearest_first() -> None:
    samples = [
        {"op": "conv", "width": 64, "depth": 3},  # 6 ms
        {"op": "skip", "width": 64, "depth": 1},  # 4 ms
        {"op": "conv", "width": 64, "depth": 2},  # 5 ms
    ]
    one, two = (repaired(samples, 3.0, n) for n in (1, 2))
    assert one == [{"op": "skip", "width": 32, "depth": 1}]
    assert two == [*one, {"op": "conv", "width": 16, "depth": 2}]


def test_what_cannot_be_repaired_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def stubborn(space: CodeSpace, given: list[dict], *rest: Any, **options: Any) -> list[dict]:
        if given[0]["op"] == "skip":
            raise InfeasibleError("stubborn")
        return repair(space, given, *rest, **options)

    monkeypatch.setattr("nni_aiop.generators._generator.repair", stubborn)
    samples = [{"op": "skip", "width": 64, "depth": 1}, {"op": "conv", "width": 64, "depth": 2}]
    assert repaired(samples, 3.0, 2) == [{"op": "conv", "width": 16, "depth": 2}]
    # Nothing is left but the cheapest.
    (cheapest,) = repaired(samples[:1], 3.0, 1)
    assert (cheapest["width"], cheapest["depth"]) == (8, 1)


def test_what_breaks_a_rule_within_the_budget_is_not_kept_as_it_is() -> None:
    found = repaired([{"op": "pool", "width": 8, "depth": 1}], 3.0, 1)
    assert len(found) == 1
    assert RULE.check(found[0])


def test_neighbours_fill_up_until_there_are_no_more() -> None:
    made = generator()
    limits = np.array([2.0])
    start = made.space.points([{"op": "conv", "width": 8, "depth": 1}])
    kept = {made.space.keys(start)[0]: start[0]}
    made._fill(kept, limits, 3)
    # The neighbours of one architecture come together.
    assert len(kept) == 4
    found = made.space.from_points(np.array(list(kept.values())))
    assert all(made.space.violation(sample) is None for sample in found)
    assert (made.space.cost("ms", made.space.encode(found)) <= 2.0).all()
    # Within 2 ms lie widths 8 and 16 at depth 1, width 8 at depth 2; pooling not at width 8.
    made._fill(kept, limits, 7)
    assert len(kept) == 7
    with pytest.raises(InfeasibleError, match="only 7 were found"):
        made._fill(kept, limits, 8)
