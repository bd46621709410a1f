"""PNAG's generator: budgets kept, masks, repair, errors, files, resumption, several costs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError

from nni_aiop.errors import FileFormatError, InfeasibleError, SpaceError
from nni_aiop.files import read_described, write_described
from nni_aiop.generators import (
    BudgetGrid,
    ParetoGenerator,
    TrainingOptions,
    absolute_reward,
    cheapest,
    load_generator,
    multi_objective_reward,
)
from nni_aiop.generators._generator import _FORMAT, _VERSION
from nni_aiop.generators._policy import TokenTables
from nni_aiop.generators._training import PolicyTraining
from nni_aiop.spaces import CodeSpace, Condition, Constraint, Continuous, Nominal, Ordinal, Subset

RULE = Constraint("no pooling at width 8", lambda x: x["op"] != "pool" or x["w1"] != 8)


def widths(c):
    """(n, 3) widths of the blocks as codes, 0 beyond the depth."""
    return c[:, 4:7] * (3 * c[:, :1] - c.new_tensor([-1, 0.5, 2])).clamp(0, 1)


def space(**options) -> CodeSpace:
    """Costs: one for each block of the depth, more with its width; the op is free."""
    return CodeSpace(
        [
            Ordinal("depth", (1, 2, 3)),
            Nominal("op", ("conv", "pool", "skip")),
            *(Ordinal(f"w{i}", (8, 16, 32, 64)) for i in (1, 2, 3)),
            Continuous("dropout", 0.0, 0.5),
        ],
        conditions={"w2": Condition("depth", (2, 3)), "w3": Condition("depth", (3,))},
        costs={
            "ms": lambda c: 1 + 2 * c[:, 0] + widths(c).sum(1),
            "mb": lambda c: 1 + widths(c).square().sum(1),
        },
        **options,
    )


def labels(s: CodeSpace, n: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    points = s.canonical_points(s.points(s.sample(n, np.random.default_rng(seed))))
    codes = s.encode_points(points)
    return codes, accuracy_of(codes)


def accuracy_of(codes: np.ndarray) -> np.ndarray:
    return 3 * codes[:, 0] + 2 * widths(torch.as_tensor(codes)).sum(1).numpy() + codes[:, 1]


SMALL = {
    "hidden": 16,
    "training": TrainingOptions(steps=60, samples=16, lr=1e-2),
    "evaluator": {"hidden": 32, "steps": 200, "batch_size": 64},
}


@pytest.fixture(scope="module")
def fitted() -> ParetoGenerator:
    s = space()
    codes, accuracy = labels(s)
    grid = BudgetGrid.spread({"ms": s.cost("ms", codes)}, 4, low=0.2)
    return ParetoGenerator(s, grid, **SMALL, seed=3).fit(codes, accuracy)


def spent(s: CodeSpace, samples: list, cost: str = "ms") -> np.ndarray:
    return s.cost(cost, s.encode([s.complete(s.canonical(x)) for x in samples]))


def test_distinct_valid_architectures_keep_every_budget(fitted) -> None:
    s = fitted.space
    for budget in (2.3, 3.0, 3.7, 4.4):
        found = fitted.generate({"ms": budget}, 20)
        assert len({s.key(x) for x in found}) == 20
        assert all(s.violation(x) is None and set(x) == set(s.labels) for x in found)
        assert (spent(s, found) <= budget).all()


def test_what_is_generated_is_better_than_most(fitted) -> None:
    codes, accuracy = labels(fitted.space)
    costs = fitted.space.cost("ms", codes)
    for budget in (2.9, 4.1):
        (best,) = fitted.generate(budget)
        (reached,) = accuracy_of(fitted.space.encode([best]))
        assert reached >= np.quantile(accuracy[costs <= budget], 0.6)


def test_most_draws_keep_the_budget_before_any_repair(fitted) -> None:
    for budget in (2.5, 3.1, 4.0):
        codes = fitted.space.encode_points(fitted.draw(budget, 300))
        assert (fitted.space.cost("ms", codes) <= budget).mean() > 0.8


def test_inactive_dimensions_are_never_written() -> None:
    s = space()
    tables = TokenTables(s)
    generator = ParetoGenerator(s, BudgetGrid({"ms": (2.0, 4.0)}), **SMALL)
    training = PolicyTraining(tables, generator.grid, generator._new_policy(), SMALL["training"], 0)
    tokens, log_prob, entropy = training.policy(
        *_weights_and_draws(training, generator.grid, n=200)
    )
    t = tokens.numpy()
    samples = s.from_tokens(t)
    assert (s.tokens(samples) == t).all()
    assert (tables.points_of(t) == s.points(samples)).all()
    assert np.allclose(tables.codes_of(t), s.encode(samples))
    # At first every choice is uniform: 3 depths, 3 operations, 32 bins, 4 widths a block.
    blocks = 1 + (t[:, 0] > 1) + (t[:, 0] > 2)
    by_hand = 2 * np.log(3) + np.log(32) + blocks * np.log(4)
    assert np.allclose(entropy.detach().numpy(), by_hand, atol=1e-4)
    assert np.allclose(log_prob.detach().numpy(), -by_hand, atol=1e-4)


def test_dimensions_below_conditional_ones_and_of_two_parents_are_masked() -> None:
    s = CodeSpace(
        [Ordinal(label, (0, 1)) for label in "abc"] + [Ordinal("d", (1, 2, 3))],
        conditions={
            "b": Condition("a", (1,)),
            "c": Condition("b", (1,)),  # a = 0 leaves b, and so c, inactive
            "d": [Condition("a", (1,)), Condition("c", (0,))],
        },
        costs={"ms": lambda c: 1 + c[:, 0]},
    )
    generator = ParetoGenerator(s, BudgetGrid({"ms": (2.0,)}), **SMALL)
    training = PolicyTraining(
        generator._tables, generator.grid, generator._new_policy(), SMALL["training"], 0
    )
    tokens, _, _ = training.policy(*_weights_and_draws(training, generator.grid, n=300))
    t = tokens.numpy()
    samples = s.from_tokens(t)
    assert (s.tokens(samples) == t).all() and ((t == 0) == ~s.active(samples)).all()
    assert len(np.unique(t, axis=0)) == len({s.key(x) for x in samples}) == 6


@pytest.mark.parametrize("levels", [(3.0,), (2.0, 4.0)])
@pytest.mark.parametrize("by_accuracy", [True, False])
def test_one_level_trained_levels_alone_and_the_rule_without_accuracy(levels, by_accuracy) -> None:
    s = space()
    training = TrainingOptions(steps=40, samples=16, lr=1e-2, between=False)
    options = {**SMALL, "training": training}
    options["evaluator"] = {**SMALL["evaluator"], "by_accuracy": by_accuracy}
    generator = ParetoGenerator(s, BudgetGrid({"ms": levels}), **options).fit(*labels(s))
    cost = np.mean(spent(s, generator.generate(levels[-1], 20)))
    assert cost <= levels[-1] and (cost < 1.5) == (not by_accuracy)


def _weights_and_draws(training, grid, n):
    budgets = np.full((n, 1), 3.0)
    return torch.as_tensor(grid.weights(budgets)).float(), torch.Generator().manual_seed(0)


def test_constraints_are_kept() -> None:
    s = space(constraints=[RULE])
    codes, accuracy = labels(s, 80)
    grid = BudgetGrid.spread({"ms": s.cost("ms", codes)}, 3)
    few = {**SMALL, "training": TrainingOptions(steps=3, samples=4)}
    found = ParetoGenerator(s, grid, **few).fit(codes, accuracy).generate(3.0, 30)
    assert all(RULE.check(x) for x in found) and (spent(s, found) <= 3.0).all()


def test_an_untrained_policy_is_repaired_into_tight_budgets() -> None:
    s = space()
    grid = BudgetGrid({"ms": (1.3, 1.4, 4.0)})
    few = {**SMALL, "training": TrainingOptions(steps=0)}
    generator = ParetoGenerator(s, grid, **few).fit(*labels(s, 50))
    found = generator.generate(1.31, 40, pool=1)
    assert len({s.key(x) for x in found}) == 40 and (spent(s, found) <= 1.31).all()


def test_a_budget_below_the_cheapest_names_it(fitted) -> None:
    with pytest.raises(InfeasibleError, match=r"cheapest, depth=1, .*w1=8, .* has ms = 1"):
        fitted.generate(0.5)
    with pytest.raises(InfeasibleError, match="has ms = 1"):
        fitted.generate(0.5, extrapolate=True)


def test_a_budget_outside_the_trained_range_is_refused_unless_wanted(fitted) -> None:
    for budget in (1.1, 50.0):
        with pytest.raises(SpaceError, match="trained range"):
            fitted.generate(budget)
        found = fitted.generate(budget, 5, extrapolate=True)
        assert len(found) == 5 and (spent(fitted.space, found) <= budget).all()


def test_more_than_there_are_is_one_clear_error() -> None:
    s = CodeSpace([Ordinal("a", (1, 2, 3))], costs={"ms": lambda c: 1 + c[:, 0]})
    codes = s.encode([{"a": a} for a in (1, 2, 3)])
    few = {**SMALL, "training": TrainingOptions(steps=1)}
    generator = ParetoGenerator(s, BudgetGrid({"ms": (1.0, 2.0)}), **few).fit(codes, codes[:, 0])
    assert {x["a"] for x in generator.generate(1.5, 2)} == {1, 2}
    with pytest.raises(InfeasibleError, match="but only 2 were found"):
        generator.generate(1.5, 3)


def test_several_costs_are_kept_at_once() -> None:
    s = space()
    codes, accuracy = labels(s)
    grid = BudgetGrid.spread({name: s.cost(name, codes) for name in ("ms", "mb")}, 3)
    found = (
        ParetoGenerator(s, grid, **SMALL).fit(codes, accuracy).generate({"ms": 3.5, "mb": 1.5}, 9)
    )
    assert (spent(s, found) <= 3.5).all() and (spent(s, found, "mb") <= 1.5).all()


@pytest.mark.parametrize("budget", [2.6, 4.0])
def test_the_best_of_all_that_was_drawn_is_generated(fitted, budget: float) -> None:
    s = fitted.space
    for pool in (12, 48):
        points = fitted.draw(budget, pool, seed=2)
        points = np.unique(points, axis=0)
        codes = s.encode_points(points[s.cost("ms", s.encode_points(points)) <= budget])
        scores = fitted.evaluator_.score(codes, [budget])
        best = s.encode(fitted.generate(budget, pool=pool, seed=2))
        assert fitted.evaluator_.score(best, [budget])[0] == pytest.approx(scores.max(), abs=1e-4)
        assert len(scores) == 1 or scores.max() > np.sort(scores)[-2] + 1e-3


def test_without_a_cost_it_is_a_generator_of_the_best() -> None:
    s = space()
    codes, accuracy = labels(s)
    (best,) = ParetoGenerator(s, BudgetGrid({}), **SMALL).fit(codes, accuracy).generate({})
    assert best["depth"] == 3


def test_any_kind_of_dimension_can_be_written() -> None:
    s = CodeSpace(
        [Subset("taps", ("a", "b", "c"), 2), Nominal("x", ("p", "q"))],
        conditions={"x": Condition("taps", (("a", "b"),))},
        costs={"ms": lambda c: 1 + c[:, 0]},
    )
    few = {**SMALL, "training": TrainingOptions(steps=2)}
    generator = ParetoGenerator(s, BudgetGrid({"ms": (1.0, 2.0)}), **few)
    generator.fit_policy(multi_objective_reward(lambda codes: 0.5 + codes[:, 1]))
    assert len({s.key(x) for x in generator.generate(2.0, 4)}) == 4


@pytest.mark.parametrize("reward", [multi_objective_reward, absolute_reward])
def test_published_rewards_by_hand(reward) -> None:
    codes, costs = np.array([[0.5], [0.8]]), np.array([[2.0], [1.0]])
    found = reward(lambda c: c[:, 0])(codes, costs, np.ones((2, 1)))
    wanted = {multi_objective_reward: 0.5 * 2**-0.07, absolute_reward: 0.5 - 0.07}
    assert found == pytest.approx([wanted[reward], 0.8])


def test_the_hard_multi_objective_reward_charges_only_what_exceeds_a_budget() -> None:
    reward = multi_objective_reward(lambda c: c[:, 0], alpha=0, beta=-1)
    codes = np.array([[0.5], [0.8], [0.6]])
    costs = np.array([[2.0, 3.0], [0.5, 1.0], [0.5, 1.5]])
    assert reward(codes, costs, np.ones((3, 2))) == pytest.approx([0.5 / 6, 0.8, 0.4])


def test_a_saved_generator_generates_the_same(fitted, tmp_path: Path) -> None:
    fitted.save(tmp_path / "g.safetensors")
    again = load_generator(tmp_path / "g.safetensors", space())
    assert again.generate(3.3, 7) == fitted.generate(3.3, 7)
    assert fitted.generate(3.3, 7, seed=1) != fitted.generate(3.3, 7)
    with pytest.raises(FileFormatError, match="of the space other"):
        load_generator(tmp_path / "g.safetensors", CodeSpace([Ordinal("a", (1, 2))], name="other"))
    (tmp_path / "g.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(FileFormatError):
        load_generator(tmp_path / "g.safetensors", space())


def test_an_interrupted_training_ends_as_one_without_a_break(tmp_path: Path, monkeypatch) -> None:
    s = space()
    codes, accuracy = labels(s, 60)
    grid = BudgetGrid.spread({"ms": s.cost("ms", codes)}, 3)
    options = {**SMALL, "training": TrainingOptions(steps=12, samples=4)}
    whole = ParetoGenerator(s, grid, **options).fit(codes, accuracy)
    monkeypatch.setattr("nni_aiop.generators._generator._SAVE_EVERY", 5)
    update = PolicyTraining.update

    def broken(self, reward) -> None:
        if self.done == 7:
            raise KeyboardInterrupt
        update(self, reward)

    file = tmp_path / "training.safetensors"
    with monkeypatch.context() as patched:
        patched.setattr(PolicyTraining, "update", broken)
        with pytest.raises(KeyboardInterrupt):
            ParetoGenerator(s, grid, **options).fit(codes, accuracy, checkpoint=file)
    resumed = ParetoGenerator(s, grid, **options).fit(codes, accuracy, checkpoint=file)
    assert resumed.history_ == whole.history_
    assert resumed.generate(3.0, 5) == whole.generate(3.0, 5)
    with pytest.raises(FileFormatError, match="differs in its data"):
        ParetoGenerator(s, grid, **options).fit(codes, accuracy + 1, checkpoint=file)


def test_the_cheapest_is_found() -> None:
    sample, cost = cheapest(space(), "ms")
    assert (sample["depth"], sample["w1"], cost) == (1, 8, 1.0)


def test_wrong_arguments_are_refused(fitted) -> None:
    with pytest.raises(SpaceError, match="exact cost"):
        ParetoGenerator(space(), BudgetGrid({"joule": (1.0, 2.0)}))
    with pytest.raises(NotFittedError):
        ParetoGenerator(space(), fitted.grid).generate(3.0)
    with pytest.raises(SpaceError, match="must name ms"):
        fitted.generate({"mb": 3.0})
    with pytest.raises(ValueError, match="at least 1"):
        fitted.generate(3.0, 0)
    with pytest.raises(ValueError, match="samples at least 2"):
        TrainingOptions(samples=1)


# --- awkward spaces and costs -------------------------------------------------------------------


def space_with_activity() -> CodeSpace:
    """As nasbench101: a function says what is active; the cost reads inactive columns, too."""
    return CodeSpace(
        [Ordinal("depth", (1, 2)), *(Ordinal(f"w{i}", (1, 2, 3, 4)) for i in (1, 2))],
        activity=lambda x: {"depth", "w1"} | ({"w2"} if x["depth"] == 2 else set()),
        costs={"ms": lambda c: 1 + c.sum(1)},
    )


def test_inactive_dimensions_of_an_activity_are_at_their_defaults() -> None:
    s = space_with_activity()
    tables = TokenTables(s)
    tokens = np.array([[1, 2, 4], [2, 2, 4], [1, 2, 1]])
    assert tables.points_of(tokens).tolist() == [[0, 1, 1], [1, 1, 3], [0, 1, 1]]
    assert (tables.codes_of(tokens) == s.encode_points(tables.points_of(tokens))).all()
    points = s.canonical_points(s.sample_points(60, np.random.default_rng(0)))
    codes = s.encode_points(points)
    generator = ParetoGenerator(s, BudgetGrid({"ms": (1.5, 3.0)}), **SMALL).fit(codes, codes.sum(1))
    found = generator.generate(2.7, 6)
    assert len({s.key(x) for x in found}) == 6
    assert all(x == s.complete(s.canonical(x)) for x in found)
    scores = generator.evaluator_.score(s.encode(found), [2.7])
    assert (np.diff(scores) <= 0).all() and (s.cost("ms", s.encode(found)) <= 2.7).all()


def test_without_an_evaluator_architectures_come_as_they_are_drawn() -> None:
    s = space()
    few = {**SMALL, "training": TrainingOptions(steps=1, samples=4)}
    generator = ParetoGenerator(s, BudgetGrid({"ms": (2.0, 5.0)}), **few)
    generator.fit_policy(absolute_reward(lambda codes: codes[:, 0]))
    drawn = s.from_points(generator.draw(5.0, 48, seed=2))
    assert generator.generate(5.0, 3, seed=2) == [s.complete(s.canonical(x)) for x in drawn[:3]]


@pytest.mark.parametrize("n_layers", [4, 9])  # listed, and too many to be
def test_the_cheapest_lies_beyond_a_plateau(n_layers: int) -> None:
    s = CodeSpace(
        [Ordinal(f"w{i}", (1, 2, 3, 4)) for i in range(n_layers)],
        costs={"mb": lambda c: 1 + 3 * c.max(1).values},  # a peak: single edits seldom lower it
    )
    assert cheapest(s, "mb")[1] == 1.0


def test_an_unknown_cost_is_no_cheap_one() -> None:
    s = CodeSpace(
        [Ordinal("a", (1, 2, 3)), Continuous("b", 0.0, 1.0)],
        costs={"ms": lambda c: torch.where(c[:, 0] < 0.4, torch.nan, 1 + c[:, 0])},
    )
    sample, cost = cheapest(s, "ms")
    assert (sample["a"], cost) == (2, 1.5)
    codes = s.encode([{"a": a, "b": b} for a in (2, 3) for b in (0.1, 0.5, 0.9)])
    generator = ParetoGenerator(s, BudgetGrid({"ms": (1.5, 2.0)}), **SMALL).fit(codes, codes[:, 0])
    assert all(x["a"] == 2 for x in generator.generate(1.7, 10))
    nothing = CodeSpace([Ordinal("a", (1, 2))], costs={"ms": lambda c: c[:, 0] * torch.nan})
    with pytest.raises(InfeasibleError, match="whose ms is known"):
        cheapest(nothing, "ms")


def test_a_cost_of_zero_has_a_finite_reward() -> None:
    codes, costs = np.ones((2, 1)), np.array([[0.0], [1.0]])
    found = multi_objective_reward(lambda c: c[:, 0])(codes, costs, np.ones((2, 1)))
    assert np.isfinite(found).all() and found[0] > found[1]


def test_budgets_that_only_few_architectures_keep_are_met_by_their_neighbours() -> None:
    s = CodeSpace(
        [Ordinal(f"w{i}", tuple(range(1, 9))) for i in range(12)],
        costs={"ms": lambda c: 1 + 7 * c.sum(1)},
    )
    codes = s.encode(s.sample(60, np.random.default_rng(0)))
    few = {**SMALL, "training": TrainingOptions(steps=1, samples=4)}
    generator = ParetoGenerator(s, BudgetGrid({"ms": (4.0, 50.0)}), **few).fit(codes, codes[:, 0])
    found = generator.generate(4.0, 200)
    assert len({s.key(x) for x in found}) == 200 and (spent(s, found) <= 4.0).all()


def test_budgets_that_exclude_each_other_are_one_sentence() -> None:
    s = CodeSpace(
        [Ordinal("a", (1, 2, 3))],
        costs={"ms": lambda c: 1 + c[:, 0], "mb": lambda c: 2 - c[:, 0]},
    )
    codes = s.encode([{"a": a} for a in (1, 2, 3)])
    few = {**SMALL, "training": TrainingOptions(steps=1)}
    grid = BudgetGrid({"ms": (1.0, 2.0), "mb": (1.0, 2.0)})
    generator = ParetoGenerator(s, grid, **few).fit(codes, codes[:, 0])
    with pytest.raises(InfeasibleError, match=r"ms <= 1.2, mb <= 1.2, but .*: a=\d"):
        generator.generate({"ms": 1.2, "mb": 1.2})


# --- files that are whole by their checksum, but wrong ------------------------------------------


def rewritten(file: Path, change) -> Path:
    content, tensors = read_described(
        file, "generator", kind=_FORMAT, version=_VERSION, what="a file"
    )
    change(content, tensors)
    write_described(file, "generator", content, tensors)
    return file


@pytest.mark.parametrize(
    "change",
    [
        *(
            lambda c, t, name=name: c.pop(name)
            for name in ("space", "levels", "hidden", "training", "evaluator", "seed", "costs")
        ),
        lambda c, t: c.update(levels=5),
        lambda c, t: c.update(levels={"ms": ["a"]}),
        lambda c, t: c.update(levels={"ms": [3, 2]}),
        lambda c, t: c.update(hidden="x"),
        lambda c, t: c.update(hidden=-1),
        lambda c, t: c.update(training=[1]),
        lambda c, t: c.update(evaluator={"depth": 3}),
        lambda c, t: c.update(seed=2**70),
        lambda c, t: t.pop("policy.budgets"),
        lambda c, t: t.pop("evaluator.center"),
        lambda c, t: t.update({"evaluator.center": np.zeros(1)}),
        lambda c, t: t.update({"policy.budgets": t["policy.budgets"] * np.nan}),
    ],
)
def test_a_file_that_is_not_whole_is_one_sentence(fitted, tmp_path: Path, change) -> None:
    fitted.save(tmp_path / "g.safetensors")
    with pytest.raises(FileFormatError, match="a generator and whole, but is not"):
        load_generator(rewritten(tmp_path / "g.safetensors", change), space())


def test_a_file_of_other_costs_is_refused(fitted, tmp_path: Path) -> None:
    fitted.save(tmp_path / "g.safetensors")
    other = space()
    other.costs["ms"] = lambda c: 2 + c[:, 0]
    with pytest.raises(FileFormatError, match="the same costs"):
        load_generator(tmp_path / "g.safetensors", other)


def test_a_checkpoint_is_written_now_and_then_and_at_the_end(tmp_path: Path, monkeypatch) -> None:
    s = space()
    codes, accuracy = labels(s, 60)
    grid = BudgetGrid.spread({"ms": s.cost("ms", codes)}, 3)
    made = ParetoGenerator(s, grid, **{**SMALL, "training": TrainingOptions(steps=7, samples=4)})
    monkeypatch.setattr("nni_aiop.generators._generator._SAVE_EVERY", 3)
    kept: list[int] = []
    train = ParetoGenerator._train

    def watched(self, own: PolicyTraining, reward, progress, keep) -> None:
        train(self, own, reward, progress, lambda: (kept.append(own.done), keep()))

    monkeypatch.setattr(ParetoGenerator, "_train", watched)
    made.fit(codes, accuracy, checkpoint=tmp_path / "training.safetensors")
    assert kept == [3, 6, 7]


def test_a_checkpoint_is_there_before_the_first_update(tmp_path: Path, monkeypatch) -> None:
    s = space()
    codes, accuracy = labels(s, 60)
    options = {**SMALL, "training": TrainingOptions(steps=4, samples=4)}
    grid = BudgetGrid.spread({"ms": s.cost("ms", codes)}, 3)
    file = tmp_path / "training.safetensors"

    def broken(self, reward) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(PolicyTraining, "update", broken)
        with pytest.raises(KeyboardInterrupt):
            ParetoGenerator(s, grid, **options).fit(codes, accuracy, checkpoint=file)
    monkeypatch.setattr("nni_aiop.predictors.ParetoEvaluator.fit", None)  # not learned again
    resumed = ParetoGenerator(s, grid, **options).fit(codes, accuracy, checkpoint=file)
    assert len(resumed.history_) == 4
    content, tensors = read_described(
        file, "generator", kind="nni-aiop generator's training", version=_VERSION, what=""
    )
    content["state"]["done"] = 10**6
    write_described(file, "generator", content, tensors)
    with pytest.raises(FileFormatError, match=r"done must lie in 0\.\.4"):
        ParetoGenerator(s, grid, **options).fit(codes, accuracy, checkpoint=file)
