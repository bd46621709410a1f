"""Training of a supernet, what its labels are, and its files."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nni_aiop.errors import FileFormatError
from nni_aiop.search_spaces import digits, naap
from nni_aiop.supernet import (
    SAMPLINGS,
    Batches,
    Labelling,
    SupernetData,
    SupernetTraining,
    accuracy,
    explained,
    recalibrate,
    refit_head,
    train_supernet,
)
from tests.supernet import toy

SMALL = {"depth": 1, "width": 2}


# --- sampling -----------------------------------------------------------------------------------


def test_a_sandwich_has_the_largest_first_and_the_smallest_last() -> None:
    steps = SAMPLINGS["sandwich"](toy.space(), 3, seed=0)
    for _ in range(5):
        first, *drawn, last = steps.step()
        assert toy.space().canonical(first)["depth"] == 2 and first["width"] == 4
        assert toy.space().canonical(last) == SMALL
        assert len(drawn) == 3


def test_fair_sampling_trains_every_value_equally_often() -> None:
    space = toy.space()
    steps = SAMPLINGS["fair"](space, 2, seed=0)
    counts: dict[str, Counter[Any]] = {label: Counter() for label in space.labels}
    for _ in range(25):
        for sample in steps.step():
            for label, value in space.canonical(sample).items():
                counts[label][value] += 1
            for counted in counts.values():
                if len(counted) == 2:
                    assert max(counted.values()) - min(counted.values()) <= 1
    assert sum(counts["depth"].values()) == 50 == sum(counts["width"].values())
    assert sum(counts["op"].values()) == counts["depth"][2] == 25  # inactive ones do not count


@pytest.mark.parametrize("name", SAMPLINGS)
def test_sampling_goes_on_where_it_stood(name: str) -> None:
    space = naap.code_space()
    whole = SAMPLINGS[name](space, 3, seed=4)
    expected = [whole.step() for _ in range(7)]
    first = SAMPLINGS[name](space, 3, seed=4)
    got = [first.step() for _ in range(3)]
    second = SAMPLINGS[name](space, 3, seed=9)
    second.restore(first.state())
    assert got + [second.step() for _ in range(4)] == expected


# --- training -----------------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("distill", [False, True])
def test_training_learns(sampling: str, distill: bool) -> None:
    supernet = toy.supernet()
    recipe = SupernetTraining(
        epochs=12, sampling=sampling, count=2, distill=distill, learning_rate=0.05, clip=5.0
    )
    state = torch.get_rng_state()
    told: list[tuple[int, float]] = []
    losses = train_supernet(
        supernet, training=recipe, on_epoch=lambda epoch, loss: told.append((epoch, loss))
    )
    assert told == list(enumerate(losses, start=1)) and len(losses) == 12
    if not distill:  # soft targets change with the teacher
        assert np.mean(losses[-3:]) < np.mean(losses[:3])
    assert torch.equal(torch.get_rng_state(), state)
    assert supernet.evaluate(supernet.largest) > 75.0


def test_a_teacher_is_not_taught_by_its_pupils() -> None:
    # One step of a sandwich by hand: the teacher's loss has targets, the others have its softmax.
    supernet = toy.supernet()
    data = replace(toy.data(), train=[next(iter(toy.data().validation))])
    recipe = SupernetTraining(epochs=1, count=1, distill=True, learning_rate=1e-9, weight_decay=0.0)
    y = data.train[0][1]
    supernet.train()
    seen: list[torch.Tensor] = []
    forward = type(supernet).forward

    def watched(self: Any, x: Any, sample: Any) -> Any:
        out = forward(self, x, sample)
        seen.append(out.detach())
        return out

    type(supernet).forward = watched  # type: ignore[method-assign]
    try:
        (loss,) = train_supernet(supernet, data, recipe)
    finally:
        type(supernet).forward = forward  # type: ignore[method-assign]
    teacher, *pupils = seen
    cross_entropy = nn.functional.cross_entropy
    expected = [cross_entropy(teacher, y)]
    expected += [cross_entropy(pupil, teacher.softmax(1)) for pupil in pupils]
    assert len(pupils) == 2
    assert loss == pytest.approx(float(sum(expected)) / 3, rel=1e-5)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_broken_run_goes_on_to_the_same_weights(sampling: str, tmp_path: Path) -> None:
    recipe = SupernetTraining(epochs=5, sampling=sampling, count=2, seed=3)
    whole = toy.supernet()
    losses = train_supernet(whole, training=recipe)

    def stop(epoch: int, loss: float) -> None:
        if epoch == 3:
            raise KeyboardInterrupt

    path = tmp_path / "toy.training"
    with pytest.raises(KeyboardInterrupt):
        train_supernet(toy.supernet(), training=recipe, checkpoint=path, on_epoch=stop)
    other = toy.supernet(seed=8)
    assert train_supernet(other, training=recipe, checkpoint=path) == losses
    for name, value in other.arrays().items():
        np.testing.assert_array_equal(value, whole.arrays()[name])
    with pytest.raises(FileFormatError, match="differs in its options"):
        train_supernet(toy.supernet(), training=replace(recipe, count=3), checkpoint=path)
    other_data = replace(toy.data(), name="other")
    with pytest.raises(FileFormatError, match="differs in its data"):
        train_supernet(toy.supernet(), other_data, recipe, checkpoint=path)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(FileFormatError, match="checkpoint of a supernet"):
        train_supernet(toy.supernet(), training=recipe, checkpoint=path)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
def test_the_shortest_training_has_a_schedule(steps: int) -> None:
    data = replace(toy.data(), train=list(toy.data().validation)[:1] * steps)
    losses = train_supernet(toy.supernet(), data, SupernetTraining(epochs=1))
    assert len(losses) == 1 and np.isfinite(losses).all()


def test_tensors_that_come_late_are_trained_and_kept(tmp_path: Path) -> None:
    recipe = SupernetTraining(epochs=6, sampling="uniform", count=1, seed=1)
    reach = [{"depth": 1, "width": 4}]
    whole = toy.supernet(reach=reach)
    train_supernet(whole, training=recipe)
    drawn = toy.supernet(reach=reach)
    drawn.subnet({"depth": 2, "width": 4, "op": "conv"})
    assert whole.weights.keys() == drawn.weights.keys()
    assert not np.array_equal(whole.arrays()["block/weight"], drawn.arrays()["block/weight"])

    def stop(epoch: int, loss: float) -> None:
        if epoch == 3:
            raise KeyboardInterrupt

    path = tmp_path / "toy.training"
    with pytest.raises(KeyboardInterrupt):
        train_supernet(toy.supernet(reach=reach), training=recipe, checkpoint=path, on_epoch=stop)
    again = toy.supernet(reach=reach)
    train_supernet(again, training=recipe, checkpoint=path)
    for name, value in again.arrays().items():
        np.testing.assert_array_equal(value, whole.arrays()[name])
    whole.save(tmp_path / "toy.safetensors")
    loaded = toy.supernet(reach=reach).load(tmp_path / "toy.safetensors")
    assert loaded.weights.keys() == whole.weights.keys()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"epochs": 0}, "epochs must be at least 1, but got 0"),
        ({"count": 0}, "count must be at least 1, but got 0"),
        ({"sampling": "sandwhich"}, "did you mean 'sandwich'"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive, but got nan"),
        ({"weight_decay": -1.0}, "weight_decay must be 0 or more"),
        ({"clip": 0.0}, "clip must be positive or None"),
        ({"seed": -1}, "seed must be 0 or more"),
        ({"sampling": "fair", "count": 1, "distill": True}, "count must be 2, but got 1"),
    ],
)
def test_a_wrong_recipe_is_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        SupernetTraining(**options)


def test_what_cannot_be_trained_is_told() -> None:
    with pytest.raises(ValueError, match="must be given data to train and validate with"):
        train_supernet(naap.supernet(seed=0))
    data = toy.data()
    huge = replace(data, loss=lambda out, y: out.sum() * float("nan"))
    with pytest.raises(FloatingPointError, match="after epoch 1: lower the learning rate"):
        train_supernet(toy.supernet(), huge)
    with pytest.raises(ValueError, match="training data must have at least one batch"):
        train_supernet(toy.supernet(), replace(data, train=[]))
    with pytest.raises(TypeError, match="data must be a SupernetData, or a pair of loaders"):
        train_supernet(toy.supernet(), 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a batch must have 1 to 3 inputs, as there are"):
        Batches(torch.zeros(3, 1), torch.zeros(3), 4)


# --- labels -------------------------------------------------------------------------------------


def test_statistics_are_the_means_over_batches() -> None:
    norm = nn.Sequential(nn.BatchNorm2d(1))
    x = torch.tensor([0.0, 2.0, 10.0, 30.0]).reshape(4, 1, 1, 1).expand(4, 1, 2, 1)
    recalibrate(norm, Batches(x, torch.zeros(4), 2))
    assert norm[0].running_mean.item() == pytest.approx((1.0 + 20.0) / 2)
    # Unbiased variances of four numbers each: 4/3 and 400/3.
    assert norm[0].running_var.item() == pytest.approx((4 / 3 + 400 / 3) / 2)
    assert norm[0].momentum == 0.1 and not norm.training
    recalibrate(norm, Batches(x, torch.zeros(4), 2), batches=1)
    assert norm[0].running_mean.item() == pytest.approx(1.0)
    with pytest.raises(ValueError, match="batches must be at least 1, but got 0"):
        recalibrate(norm, Batches(x, torch.zeros(4), 2), batches=0)


def test_a_head_is_fitted_by_least_squares() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 3, generator=generator)
    y = (x[:, 0] - x[:, 1] > 0.2).long()
    network = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 2))
    with torch.no_grad():
        network[0].weight.copy_(torch.eye(3))
    refit_head(network, "1", Batches(x, y, 20))
    z = (x - x.mean(0)) / x.std(0, correction=0)
    one_hot = nn.functional.one_hot(y, 2).float()
    centred = one_hot - one_hot.mean(0)
    solved = np.linalg.solve(
        (z.T @ z / 60 + 0.01 * torch.eye(3)).numpy(), (z.T @ centred / 60).numpy()
    )
    expected = 10 * (z.numpy() @ solved + one_hot.mean(0).numpy())
    np.testing.assert_allclose(network(x).detach().numpy(), expected, atol=1e-3)
    assert float(accuracy(network(x), y).mean()) > 90
    with pytest.raises(ValueError, match="must be the name of a linear layer, but got '2'"):
        refit_head(network, "2", Batches(x, y, 20))
    with pytest.raises(ValueError, match="a head of 2 outputs is fitted to features"):
        refit_head(network, "1", Batches(x, torch.zeros(60), 20))


def test_a_label_is_the_accuracy_of_the_network_that_is_ready() -> None:
    supernet = toy.supernet()
    train_supernet(supernet, training=SupernetTraining(epochs=6, learning_rate=0.05))
    before = supernet.arrays()
    data = toy.data()
    for how in (Labelling(), Labelling(refit=False), Labelling(steps=2), Labelling(batches=1)):
        label = supernet.evaluate(supernet.largest, labelling=how)
        network = supernet.ready(supernet.largest, labelling=how)
        assert not network.training
        hits = [accuracy(network(x), y) for x, y in data.validation]
        assert label == pytest.approx(float(torch.cat(hits).mean()))
        assert label == supernet.evaluate(supernet.largest, labelling=how)
    for name, value in supernet.arrays().items():
        np.testing.assert_array_equal(value, before[name])
    pair = (data.train, data.validation)
    assert supernet.evaluate(SMALL, pair) == supernet.evaluate(SMALL)


def test_a_label_may_be_any_score() -> None:
    supernet = toy.supernet()
    data = replace(toy.data(), score=lambda out, y: torch.full((len(y),), 7.0), metric="seven")
    assert supernet.evaluate(SMALL, data) == 7.0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batches": 0}, "batches must be at least 1, but got 0"),
        ({"steps": -1}, "steps must be at least 0, but got -1"),
        ({"learning_rate": -0.1}, "learning_rate must be a number of 0 or more"),
    ],
)
def test_a_wrong_labelling_is_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Labelling(**options)


def test_a_head_must_be_named_to_be_fitted() -> None:
    supernet = toy.supernet()
    supernet.head = None
    assert 0 <= supernet.evaluate(SMALL) <= 100
    with pytest.raises(ValueError, match="where the supernet names one, but it names none"):
        supernet.evaluate(SMALL, labelling=Labelling(refit=True))


def test_several_inputs_go_in_as_a_tuple() -> None:
    class Two(nn.Module):
        def __init__(self, sample: Any) -> None:
            super().__init__()
            self.head = nn.Linear(sample["width"], 2)

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.head((a + b)[:, : self.head.in_features])
            return y

    from nni_aiop.supernet import Supernet

    x, y = torch.randn(6, 4), torch.tensor([0, 1] * 3)
    loader = [((x, -x), y)]
    supernet = Supernet(toy.space(), Two, data=lambda: SupernetData(loader, loader), seed=0)
    train_supernet(supernet, training=SupernetTraining(epochs=1))
    assert supernet.evaluate(SMALL) == 50.0


# --- files --------------------------------------------------------------------------------------


def test_a_file_gives_the_same_labels(tmp_path: Path) -> None:
    supernet = toy.supernet()
    train_supernet(supernet, training=SupernetTraining(epochs=2))
    path = tmp_path / "toy.safetensors"
    supernet.save(path)
    again = toy.supernet(seed=7).load(path)
    for sample in (supernet.largest, SMALL):
        assert again.evaluate(sample) == supernet.evaluate(sample)
    with pytest.raises(FileFormatError, match="must be of the space naap, but is of 'toy'"):
        naap.supernet(seed=0).load(path)
    with pytest.raises(FileFormatError, match=r"must keep apart the weights of \['width'\]"):
        toy.supernet(apart=("width",)).load(path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(FileFormatError, match="a supernet's file"):
        toy.supernet().load(path)
    with pytest.raises(OSError):
        toy.supernet().load(tmp_path / "missing")


@pytest.mark.slow
def test_labels_of_digits_rank_networks() -> None:
    supernet = digits.supernet(seed=0)
    train_supernet(supernet)
    space = digits.code_space()
    samples = space.sample(16, np.random.default_rng(3))
    labels = [supernet.evaluate(s) for s in samples]
    truth = [digits.train_and_evaluate(s)["val_accuracy"] for s in samples]
    from nni_aiop.predictors.metrics import spearman

    assert spearman(truth, labels) > 0.3


def test_explained_is_all_for_a_perfect_head_and_nothing_for_the_mean() -> None:
    classes = torch.arange(10)
    perfect = 10.0 * torch.eye(10)  # a fitted head's scores are spread tenfold
    assert explained(perfect, classes).tolist() == pytest.approx([100.0] * 10)
    assert explained(torch.full((10, 10), 1.0), classes).mean().item() == pytest.approx(0, abs=1e-4)
    assert explained(perfect.roll(1, 0), classes).mean().item() == pytest.approx(
        100 * (1 - 2 / 0.9), rel=1e-6
    )
