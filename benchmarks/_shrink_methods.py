"""How shrink.py makes networks smaller: ours, uniform and random edits, and torch-pruning.

Every method has the same CPU seconds for all that it does behind the trained network: what its
search takes is taken from its fine-tuning.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from _shrink_data import Split, accuracy, splits, tune
from torch import Tensor, nn
from torch.nn import functional as F

from nni_aiop.graphs import from_module
from nni_aiop.networks import Calibration, Network
from nni_aiop.search import FlopsReduction, Objective
from nni_aiop.spaces import Sample

__all__ = ["METHODS", "run_method"]

EXAMPLE = (1, 1, 16, 16)
MEASURED = 250  # calibration images whose loss is measured
TRIALS = 4  # proposals that are tried
TRIAL = 0.25  # epochs of a first trial, then twice as many for the better half

Outcome = dict[str, Any]
"""The accuracy, the part of the multiply-adds that is kept, and the CPU seconds it took."""


def _batches(split: Split, n: int) -> list[tuple[Tensor, Tensor]]:
    return [(split.images[:n], split.digits[:n])]


def _calibration(model: nn.Module, scale: float) -> Calibration:
    network = Network.capture(model, EXAMPLE)
    return Calibration(network, _batches(splits(scale)["calibration"], MEASURED), F.cross_entropy)


def _share(model: nn.Module, whole: int) -> float:
    return from_module(model, EXAMPLE).macs / whole


def original(model: nn.Module, budget: float, seconds: float, lr: float, seed: int,
             scale: float) -> nn.Module:  # fmt: skip
    """The network as it is, fine-tuned."""
    twin = copy.deepcopy(model)
    tune(twin, splits(scale)["train"], lr=lr, seed=seed, seconds=seconds)
    return twin


def ours(model: nn.Module, budget: float, seconds: float, lr: float, seed: int, scale: float,
         *, trials: int = TRIALS, predictor: Any = None) -> nn.Module:  # fmt: skip
    """FlopsReduction: short fine-tunes of what it asks for, the better halves trained on."""
    start = time.process_time()
    data = splits(scale)
    calibration = _calibration(model, scale)
    search = FlopsReduction(
        calibration.space, budgets=(budget,), score=calibration.loss,
        objectives=[Objective("loss", "minimize")], seed=seed, predictor=predictor,
    )  # fmt: skip
    race = []
    for place in range(trials):
        (sample,) = search.ask(1)
        small = calibration.edit(sample)
        tune(small, data["train"], lr=lr, seed=seed, epochs=TRIAL, falls=False)
        loss = _loss(small, data["calibration"])
        search.tell(sample, {"loss": loss})
        race.append((loss, place, small))
    epochs = 2 * TRIAL
    while len(race := sorted(race)[: len(race) // 2]) > 1:
        for at, (_, place, small) in enumerate(race):
            tune(small, data["train"], lr=lr, seed=seed, epochs=epochs, falls=False)
            race[at] = (_loss(small, data["calibration"]), place, small)
        epochs *= 2
    ((_, place, small),) = race
    left = seconds - (time.process_time() - start)
    tune(small, data["train"], lr=lr, seed=seed, seconds=max(left, 0.5))
    return small


def _loss(model: nn.Module, split: Split) -> float:
    """The mean cross entropy: over few images it tells networks apart better than accuracy."""
    with torch.no_grad():
        return float(F.cross_entropy(model(split.images), split.digits))


def longer(model: nn.Module, budget: float, seconds: float, lr: float, seed: int,
           scale: float) -> nn.Module:  # fmt: skip
    """The same with twice as many trials, half of them mutations of what was told best."""
    return ours(model, budget, seconds, lr, seed, scale, trials=2 * TRIALS)


def guided(model: nn.Module, budget: float, seconds: float, lr: float, seed: int,
           scale: float) -> nn.Module:  # fmt: skip
    """That with AIO-P's shipped predictor, as it may join by its weight rule after five results."""
    predictor = _aiop()
    return ours(model, budget, seconds, lr, seed, scale, trials=2 * TRIALS, predictor=predictor)


def published(model: nn.Module, budget: float, seconds: float, lr: float, seed: int,
              scale: float) -> nn.Module:  # fmt: skip
    """The published way: mutations that the predictor alone chooses, then fine-tuning."""
    start = time.process_time()
    calibration = _calibration(model, scale)
    judge = _aiop()
    search = FlopsReduction(calibration.space, budgets=(budget,), seed=seed)
    rng = np.random.default_rng(seed)
    pool: list[tuple[float, Sample]] = []
    for _ in range(6):
        if pool:
            pool.sort(key=lambda one: one[0], reverse=True)
            parents = [sample for _, sample in pool[:5]]
            made = [
                search.steps.mutated(parents[int(rng.integers(len(parents)))], rng)
                for _ in range(10)
            ]
        else:
            made = calibration.space.sample(10, rng)
        fits = [s for one in made if (s := search.steps.within(one, budget, rng)) is not None]
        if fits:
            figures = judge([calibration.space.graph_of(s) for s in fits])
            pool += list(zip(figures, fits, strict=True))
    best = max(pool, key=lambda one: one[0])[1]
    small = calibration.edit({**best, "criterion": "l2"})
    left = seconds - (time.process_time() - start)
    tune(small, splits(scale)["train"], lr=lr, seed=seed, seconds=max(left, 0.5))
    return small


def _aiop() -> Callable[[Any], Any]:
    from nni_aiop.predictors.graph import load_shipped_task

    predictor = load_shipped_task("imagenet-top1")

    def judge(graphs: Any) -> list[float]:
        mean = np.asarray(predictor.predict(list(graphs)).mean)
        return [float(figure) for figure in mean.reshape(len(mean), -1)[:, 0]]

    return judge


def uniform(model: nn.Module, budget: float, seconds: float, lr: float, seed: int,
            scale: float) -> nn.Module:  # fmt: skip
    """Every width cut alike, by the sum of squares."""
    return _first(model, budget, seconds, lr, seed, scale, random=False)


def random(model: nn.Module, budget: float, seconds: float, lr: float, seed: int,
           scale: float) -> nn.Module:  # fmt: skip
    """Random edits within the budget."""
    return _first(model, budget, seconds, lr, seed, scale, random=True)


def _first(model: nn.Module, budget: float, seconds: float, lr: float, seed: int, scale: float,
           *, random: bool) -> nn.Module:  # fmt: skip
    start = time.process_time()
    calibration = _calibration(model, scale)
    search = FlopsReduction(calibration.space, budgets=(budget,), seed=seed)
    if random:
        rng = np.random.default_rng(seed)
        found = (search.steps.within(s, budget, rng) for s in calibration.space.sample(20, rng))
        sample = next(s for s in found if s is not None)
    else:
        (sample,) = search.ask(1)
    small = calibration.edit({**sample, "criterion": "l2"})
    left = seconds - (time.process_time() - start)
    tune(small, splits(scale)["train"], lr=lr, seed=seed, seconds=max(left, 0.5))
    return small


def _pruned(model: nn.Module, budget: float, *, everywhere: bool) -> tuple[nn.Module, float]:
    """(torch-pruning's network nearest to a budget from below, seconds of its last pruning)."""
    import torch_pruning as tp

    whole = from_module(model, EXAMPLE).macs
    last = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == 10]
    names = {id(m): name for name, m in model.named_modules()}
    kept = [names[id(m)] for m in last]

    def cut(ratio: float) -> tuple[nn.Module, float]:
        start = time.process_time()
        twin = copy.deepcopy(model)
        modules = dict(twin.named_modules())
        pruner = tp.pruner.BasePruner(
            twin,
            torch.randn(EXAMPLE),
            importance=tp.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=ratio,
            global_pruning=everywhere,
            ignored_layers=[modules[name] for name in kept],
        )
        pruner.step()
        return twin, time.process_time() - start

    low, high, best = 0.0, 0.95, None
    for _ in range(10):
        ratio = (low + high) / 2
        small, took = cut(ratio)
        if _share(small, whole) <= budget:
            best, high = (small, took), ratio
        else:
            low = ratio
    assert best is not None
    return best


def tp_uniform(model: nn.Module, budget: float, seconds: float, lr: float, seed: int,
               scale: float) -> nn.Module:  # fmt: skip
    """torch-pruning, group L2, one ratio everywhere."""
    small, took = _pruned(model, budget, everywhere=False)
    tune(small, splits(scale)["train"], lr=lr, seed=seed, seconds=seconds - took)
    return small


def tp_global(model: nn.Module, budget: float, seconds: float, lr: float, seed: int,
              scale: float) -> nn.Module:  # fmt: skip
    """torch-pruning, group L2, compared over all layers."""
    small, took = _pruned(model, budget, everywhere=True)
    tune(small, splits(scale)["train"], lr=lr, seed=seed, seconds=seconds - took)
    return small


METHODS: dict[str, Callable[..., nn.Module]] = {
    "original": original,
    "FlopsReduction": ours,
    "eight trials": longer,
    "with AIO-P": guided,
    "AIO-P alone": published,
    "uniform L2": uniform,
    "random edits": random,
    "torch-pruning uniform": tp_uniform,
    "torch-pruning global": tp_global,
}


def run_method(
    name: str, state: str, budget: float, seconds: float, lr: float, seed: int, scale: float
) -> Outcome:
    """The test accuracy after a method, read once, and the part of the multiply-adds kept.

    Args:
        name: Of the method.
        state: A file with the trained network, saved by this benchmark.
        budget: The part to keep.
        seconds: CPU seconds for everything.
        lr: First learning rate of fine-tuning.
        seed: Of fine-tuning.
        scale: Of the data.
    """
    from _shrink_data import BASES

    kind, path = state.split("|")
    model = BASES[kind]()
    model.load_state_dict(torch.load(path, weights_only=True))
    model.eval()
    whole = from_module(model, EXAMPLE).macs
    start = time.process_time()
    small = METHODS[name](model, budget, seconds, lr, seed, scale)
    return {
        "accuracy": accuracy(small, splits(scale)["test"]),
        "calibration": accuracy(small, splits(scale)["calibration"]),
        "share": _share(small, whole),
        "seconds": time.process_time() - start,
    }
