"""FlopsReduction: what it asks for, within which budgets, and from what it learns."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from nni_aiop.errors import FileFormatError, SpaceError
from nni_aiop.graphs import from_module
from nni_aiop.search import FlopsReduction
from nni_aiop.search._budgeted import BudgetedEdits
from nni_aiop.spaces import CRITERION, CodeSpace, MutationSpace, Ordinal


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.body(x))


GRAPH = from_module(
    nn.Sequential(
        nn.Conv2d(3, 48, 3, padding=1), Block(48), Block(48), nn.Conv2d(48, 96, 3, 2, 1), Block(96),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 10),
    ),
    (1, 3, 16, 16),
)  # fmt: skip


def space(**options) -> MutationSpace:
    return MutationSpace(GRAPH, criteria=("l2", "taylor", "measured"), **options)


def loss(sample) -> float:
    """Blocks 1 and 2 do not matter much, block 4 does."""
    edits = SPACE.edits(sample)
    lost = 0.0
    for label, value in edits.items():
        weight = 5.0 if ":4." in label or label.endswith(":4") else 0.5
        if isinstance(value, int):
            lost += weight * (1 - value / SPACE.original[label])
        else:
            lost += 0.4 * weight
    return lost


SPACE = space()


def search(**options) -> FlopsReduction:
    return FlopsReduction(SPACE, **{"score": loss, **options})


def run(made: FlopsReduction, n: int) -> list[dict]:
    samples = []
    for _ in range(n):
        (sample,) = made.ask(1)
        samples.append(sample)
        made.tell(sample, {"default": -loss(sample)})
    return samples


@pytest.mark.parametrize("budget", [0.865, 0.7, 0.5, 0.3])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_proposal_uses_its_budget_and_none_is_above(budget: float, seed: int) -> None:
    for sample in run(search(budgets=(budget,), seed=seed), 10):
        kept = SPACE.graph_of(sample).macs / GRAPH.macs
        assert 0.985 * budget <= kept <= budget


def test_uniform_pruning_is_asked_first_with_each_criterion() -> None:
    first, second = run(search(budgets=(0.6,)), 2)
    assert [first[CRITERION], second[CRITERION]] == ["l2", "taylor"]
    for sample in (first, second):
        structural = [s for s in SPACE.sites if not s.counts and s.reason is None]
        assert all(sample[s.label] == s.value for s in structural)
        kept = [sample[s.label] / s.value for s in SPACE.sites if s.counts and s.reason is None]
        assert max(kept) - min(kept) < 0.3


def test_the_descent_follows_what_was_measured() -> None:
    uniform, _, greedy = run(search(budgets=(0.6,)), 3)
    assert greedy[CRITERION] == "measured"
    assert loss(greedy) < loss(uniform)
    matters = [label for label in SPACE.labels if label.startswith("width:4")]
    assert all(greedy[label] == SPACE.original[label] for label in matters)


def test_later_proposals_are_better_than_uniform_and_differ() -> None:
    made = search(budgets=(0.5,))
    samples = run(made, 24)
    assert len({SPACE.key(sample) for sample in samples}) == 24
    best = made.best()
    assert best is not None
    assert best[1]["default"] > -loss(samples[0])


def test_a_sample_that_uses_all_of_a_budget_keeps_it() -> None:
    sample = run(search(budgets=(0.7,)), 1)[0]
    (share,) = search().steps.shares([sample]).tolist()
    made = search(budgets=(share,))
    assert made.budget_of(sample) == share
    made.tell(sample, {"default": 1.0})
    best = made.best_within(share)
    assert best is not None and best[0] == sample
    assert made.best_within(share * (1 - 1e-6)) is None
    assert search(budgets=(share * (1 - 1e-6),)).budget_of(sample) is None


def test_several_budgets_take_turns_and_give_a_front() -> None:
    made = search(budgets=(0.5, 0.8))
    samples = run(made, 8)
    assert [made.budget_of(sample) for sample in samples].count(0.5) == 4
    front = made.front()
    assert set(front) == {0.8, 0.5}
    assert front[0.8][1]["default"] >= front[0.5][1]["default"]
    for budget, (sample, _) in front.items():
        assert SPACE.graph_of(sample).macs <= budget * GRAPH.macs


def test_best_reads_told_results_only() -> None:
    made = search(budgets=(0.5,))
    (first,) = made.ask(1)
    (second,) = made.ask(1)
    assert made.best() is None
    made.tell(first, {"default": 1.0})
    made.tell(second, {"default": 2.0})
    assert made.best() == (second, {"default": 2.0})


def test_a_state_resumes_to_the_same_proposals_without_measuring_again() -> None:
    made = search(budgets=(0.7, 0.5))
    run(made, 9)
    measured: list[dict] = []

    def counted(sample) -> float:
        measured.append(sample)
        return loss(sample)

    other = search(budgets=(0.7, 0.5), score=counted)
    other.load_state_dict(json.loads(json.dumps(made.state_dict())))
    assert other.ask(2) == made.ask(2)
    assert len(measured) < 10  # the children of these two, no sensitivity
    wrong = search(budgets=(0.6,))
    with pytest.raises(FileFormatError):
        wrong.load_state_dict(made.state_dict())


@pytest.mark.parametrize("how", ["a result that lacks the metric", "a loss that is no number"])
def test_a_state_that_is_refused_changes_nothing(how: str) -> None:
    made = search(budgets=(0.7, 0.5))
    run(made, 9)
    state = json.loads(json.dumps(made.state_dict()))
    known = next(iter(state["sensitivity"].values()))
    known[next(iter(known))] = 123.0
    if how == "a result that lacks the metric":
        state["history"][0][1] = {"other": 1.0}
    else:
        state["plain"] = float("nan")
    before = json.dumps(made.state_dict())
    with pytest.raises(FileFormatError):
        made.load_state_dict(state)
    assert json.dumps(made.state_dict()) == before


def test_a_predictor_counts_only_as_far_as_it_was_right() -> None:
    right = search(budgets=(0.5,), predictor=lambda graphs: [float(g.parameters) for g in graphs])
    assert right.predictor_weight == 0
    rng = np.random.default_rng(0)
    samples = [s for s in SPACE.sample(40, rng) if SPACE.graph_of(s).macs <= 0.5 * GRAPH.macs][:8]
    wrong = search(budgets=(0.5,), predictor=lambda graphs: [-float(g.parameters) for g in graphs])
    for sample in samples:
        for one in (right, wrong):
            one.tell(sample, {"default": float(SPACE.graph_of(sample).parameters)})
    assert right.predictor_weight == pytest.approx(1.0)
    assert wrong.predictor_weight == 0
    plain = search(budgets=(0.5,))
    for sample in samples:
        plain.tell(sample, {"default": float(SPACE.graph_of(sample).parameters)})
    assert wrong.ask(1) == plain.ask(1)


def test_without_a_score_it_still_keeps_its_budget() -> None:
    for sample in run(FlopsReduction(SPACE, budgets=(0.6,)), 6):
        assert 0.985 * 0.6 <= SPACE.graph_of(sample).macs / GRAPH.macs <= 0.6


def test_other_costs_have_budgets_too() -> None:
    for sample in run(search(budgets=(0.6,), cost="params"), 5):
        assert SPACE.graph_of(sample).parameters <= 0.6 * GRAPH.parameters


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budgets": (1.2,)}, r"budgets must be parts in \(0, 1\], but got \(1.2,\)"),
        ({"budgets": (0,)}, r"budgets must be parts in \(0, 1\]"),
        ({"budgets": ()}, r"budgets must be parts in \(0, 1\]"),
    ],
)
def test_what_budgets_cannot_be(options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        search(**options)


def test_it_needs_the_edits_of_a_network_and_a_cost_that_they_have() -> None:
    with pytest.raises(ValueError, match="must be given a MutationSpace"):
        FlopsReduction(CodeSpace([Ordinal("depth", (1, 2))]))
    with pytest.raises(SpaceError, match="must have the cost, but got 'speed'"):
        search(cost="speed")


# --- the steps by hand ----------------------------------------------------------------------------


def test_the_part_of_a_width_that_is_kept() -> None:
    steps = BudgetedEdits(SPACE, "flops", None)
    whole = SPACE.original
    for label in ("width:0", "width:4.body.0"):
        half = {**whole, label: whole[label] // 2}
        assert steps._kept_part(half, whole) == 0.5  # of the width before the step
        assert steps._kept_part(whole, half) == 1.0
    assert steps._kept_part(whole, whole) == 1.0


def test_widths_that_keep_least_are_raised_first() -> None:
    steps = BudgetedEdits(SPACE, "flops", None)
    half = {**SPACE.original, **{d.label: d.values[len(d.values) // 2 - 1]
            for d in steps.counted.values()}}  # fmt: skip
    (budget,) = steps.shares([half])
    for label in ("width:1.body.0", "width:4.body.0"):
        filled = steps.filled({**half, label: 8}, float(budget), even=True)
        kept = [filled[d.label] / d.values[-1] for d in steps.counted.values()]
        assert filled[label] == half[label] and max(kept) == 0.5
