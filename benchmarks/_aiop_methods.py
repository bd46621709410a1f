"""What predicts a task of which a few architectures are labelled: AIO-P and its baselines.

Each method takes a `Case` and returns the predicted labels of its test architectures. What is
trained is kept in the out folder, and not trained again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _aiop_data import Array, Benchmark, Rows, Subset
from torch.nn.functional import cross_entropy, mse_loss

from nni_aiop.predictors import default_predictor
from nni_aiop.predictors.graph import GPHead, GraphPredictor, load_graph_predictor
from nni_aiop.zero_cost import ZERO_COST


@dataclass(frozen=True)
class Kind:
    """How a backbone and its adapters are trained.

    Attributes:
        encoder: Of `GraphPredictor`.
        backbone_by_flops: Whether Eq. 5 applies to the labels of pretraining.
        by_flops: Whether it applies to those of adapters.
        adapted: Whether it gets adapters.
    """

    encoder: str
    backbone_by_flops: bool
    by_flops: bool
    adapted: bool = True


KINDS = {
    "default": Kind("default", False, False),
    "default, Eq. 5": Kind("default", False, True),
    "published": Kind("published", True, True),
    "published, own units": Kind("published", False, False, adapted=False),
}


@dataclass(frozen=True)
class Sizes:
    """How many architectures everything gets, and for how long it is trained.

    Attributes:
        pretraining: Architectures of NAS-Bench-101 for the backbone.
        adapters: Architectures of each adapter.
        few: Labelled architectures of a new task.
        targets: At most so many tasks of a benchmark are targets.
        test: At most so many are predicted of a task.
        in_space: Labels of NAS-Bench-101 and 201 in table c.
        resolutions: Those of NAS-Bench-MR.
        proxies: Test architectures of which zero-cost proxies are worked out,
        proxy_side: on images of so many pixels a side: two cores have to train on them.
        epochs: Of everything; as the encoder's recipe says by default.
        tuning: Epochs of fine-tuning.
    """

    pretraining: int = 10_000
    adapters: int = 1000
    few: int = 20
    targets: int | None = None
    test: int = 1000
    in_space: int = 1000
    resolutions: int = 2000
    proxies: int = 20
    proxy_side: int = 64
    epochs: int | None = None
    tuning: int = 100


QUICK = Sizes(
    pretraining=100,
    adapters=40,
    targets=1,
    test=40,
    in_space=100,
    resolutions=60,
    proxies=2,
    proxy_side=32,
    epochs=1,
    tuning=3,
)


@dataclass(frozen=True)
class Trainer:
    """Trains backbones and adapters of one seed, or reads those that were trained before."""

    folder: Path
    sizes: Sizes
    seed: int

    def _path(self, *parts: object) -> Path:
        sizes = self.sizes
        numbers = (sizes.pretraining, sizes.adapters, sizes.epochs or "recipe", self.seed)
        name = "-".join(str(part).replace(", ", "_").replace(" ", "") for part in parts)
        return self.folder / f"{name}-{'-'.join(map(str, numbers))}.safetensors"

    def backbone(self, kind: Kind, source: Callable[[], Subset]) -> GraphPredictor:
        """One that is pretrained on what `source` returns."""
        path = self._path("backbone", kind.encoder, kind.backbone_by_flops)
        if not path.exists():
            data = source()
            predictor = GraphPredictor(
                kind.encoder,
                by_flops=kind.backbone_by_flops,
                epochs=self.sizes.epochs,
                seed=self.seed,
            )
            predictor.fit(data.graphs, data.y).save(path)
        predictor = load_graph_predictor(path)
        predictor.by_flops = kind.by_flops
        return predictor

    def adapt(
        self,
        predictor: GraphPredictor,
        kind: Kind,
        benchmark: str,
        task: str,
        source: Callable[[], Subset],
    ) -> None:
        """Gives the predictor an adapter for a task, trained on what `source` returns."""
        path = self._path("adapter", kind.encoder, kind.by_flops, benchmark, task)
        if path.exists():
            predictor.load_adapter(path)
        else:
            data = source()
            predictor.adapt(task, data.graphs, data.y).save_adapter(task, path)


@dataclass(frozen=True)
class Case:
    """A task of which a few architectures are labelled.

    Attributes:
        predictors: By `KINDS`, with the adapters of the benchmark.
        benchmark: Of the architectures.
        task: The one to predict.
        adapters: Tasks of the adapters.
        few: Labelled architectures.
        test: Those to be predicted.
        seed: Of what is fitted.
        tuning: Epochs of fine-tuning.
    """

    predictors: dict[str, GraphPredictor]
    benchmark: Benchmark
    task: str
    adapters: tuple[str, ...]
    few: Subset
    test: Subset
    seed: int
    tuning: int

    def transferred(self, kind: str, how: str, **options: Any) -> Array:
        """What a method of `GraphPredictor` makes of the labelled architectures."""
        method = getattr(self.predictors[kind], how)
        fit = method(self.few.graphs, self.few.y, **options)
        return np.asarray(fit.predict(self.test.graphs).mean[:, 0])

    def by_size(self, few: Array, test: Array) -> Array:
        """Labels that grow with log `few`, with mean and spread of the labelled ones."""
        few, test = np.log(few), np.log(test)
        spread = few.std() or 1.0
        return self.few.y.mean() + self.few.y.std() * (test - few.mean()) / spread

    @cached_property
    def own_units(self) -> Array:
        """The backbone's own predictions, in percent of its own task."""
        return self.predictors["published, own units"].predict(self.test.graphs).mean[:, 0]


def code_predictor(case: Case) -> Array:
    fit = default_predictor(case.benchmark.space, case.seed)
    fit.fit(case.few.codes, {"metric": case.few.y})
    return np.asarray(fit.predict(case.test.codes).mean[:, 0])


def globals_predictor(case: Case) -> Array:
    head = GPHead().fit(case.few.graphs.u, case.few.y)
    return np.asarray(head.predict(case.test.graphs.u)[0])


ZERO_SHOT = "AIO-P, default encoder: zero-shot"
WEIGHTED = "AIO-P, default encoder: weights by the 20"
PUBLISHED = "AIO-P as published: zero-shot"
RESCALED_GNN = "GNN + Eqs. 4 & 5 (published)"
FLOPS, PARAMETERS = "FLOPs only", "parameters only"
HEADS = {"gp": "20-shot head: GP", "ridge": "20-shot head: ridge"}
ALONE = ("the 20 alone: code predictor", "the 20 alone: GP on global features")

METHODS: dict[str, Callable[[Case], Array]] = {
    "a constant, the mean of the 20": lambda case: np.full(len(case.test.y), case.few.y.mean()),
    FLOPS: lambda case: case.by_size(case.few.graphs.flops, case.test.graphs.flops),
    PARAMETERS: lambda case: case.by_size(case.few.parameters, case.test.parameters),
    "GNN (published, own units)": lambda case: case.own_units,
    RESCALED_GNN: lambda case: case.transferred("published", "transfer", weights="published"),
    "GNN + Eq. 4 (default encoder)": lambda case: case.transferred("default", "transfer"),
    PUBLISHED: lambda case: case.transferred(
        "published", "transfer", adapters=case.adapters, weights="published"
    ),
    "AIO-P as published: fine-tuned": lambda case: case.transferred(
        "published", "fine_tune", adapters=case.adapters, epochs=case.tuning
    ),
    ZERO_SHOT: lambda case: case.transferred("default", "transfer", adapters=case.adapters),
    WEIGHTED: lambda case: case.transferred(
        "default", "transfer", adapters=case.adapters, weights="fitted"
    ),
    "AIO-P, default encoder: AdaProxy": lambda case: case.transferred(
        "default", "rescale", adapters=case.adapters
    ),
    "AIO-P, default encoder: fine-tuned": lambda case: case.transferred(
        "default", "fine_tune", adapters=case.adapters, epochs=case.tuning
    ),
    HEADS["ridge"]: lambda case: case.transferred("default", "few_shot", head="ridge"),
    HEADS["gp"]: lambda case: case.transferred("default", "few_shot", head="gp"),
    ALONE[0]: code_predictor,
    ALONE[1]: globals_predictor,
}
"""Every row of tables a and b but the proxies, by its name."""


def ablations(case: Case) -> dict[str, Array]:
    """Predictions as Tables 8 to 11 of the paper vary them: adapters, Eqs. 4 and 5, fine-tuning."""
    first, second = case.adapters
    result = {}
    for names in ((first,), (second,), (first, second)):
        which = " + ".join(names)
        plain = case.predictors["default"]
        own = [plain.predict(case.test.graphs, adapters=[name]).mean[:, 0] for name in names]
        result[f"{which}, own units"] = np.mean(own, axis=0)
        for kind, equations in (("default", "Eq. 4"), ("default, Eq. 5", "Eqs. 4 & 5")):
            result[f"{which}, {equations}"] = case.transferred(
                kind, "transfer", adapters=names, weights="published"
            )
            result[f"{which}, {equations}, fine-tuned"] = case.transferred(
                kind, "fine_tune", adapters=names, epochs=case.tuning
            )
    return result


_IMAGES = ("normal", "autoencoder")  # tasks whose labels are images


def proxies(benchmark: Benchmark, task: str, rows: Rows, seed: int, side: int) -> dict[str, Array]:
    """Each zero-cost proxy of some rows, on a mini-batch of noise with labels at random.

    The benchmarks' own images are not at hand; Abdelfattah et al. (2021) use those.
    """
    assert benchmark.network is not None
    found: dict[str, list[float]] = {name: [] for name in ZERO_COST}
    for row in rows.tolist():
        torch.manual_seed(seed)
        module, shape = benchmark.network(task, benchmark.sample(row), side)
        inputs = torch.randn(4, *shape)
        with torch.no_grad():
            output = module(inputs)
        if task in _IMAGES:
            targets, loss = torch.randn_like(output), mse_loss
        else:
            targets = torch.randint(output.shape[1], (len(output), *output.shape[2:]))
            loss = cross_entropy
        for name, proxy in ZERO_COST.items():
            found[name].append(proxy(module, inputs, targets, loss))
    return {name: np.array(values) for name, values in found.items()}
