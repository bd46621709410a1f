"""NNI evaluators that answer from the sample alone: predictors, a published table, a
supernet, a function.

None of them trains the network that NNI makes. Their arguments are paths, references and scalars,
because NNI writes them into every trial.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from nni_aiop.engines._nni import importing_nni
from nni_aiop.engines._references import load_object
from nni_aiop.engines.nni_space import as_code_space
from nni_aiop.errors import SpaceError
from nni_aiop.measures import (
    FunctionMeasure,
    GraphMeasure,
    Measure,
    PredictedMeasure,
    SupernetMeasure,
    TableMeasure,
)
from nni_aiop.spaces import CodeSpace, Sample, Subset, Value

with importing_nni():
    import nni
    from nni.nas.evaluator import Evaluator

__all__ = [
    "GraphPredictorEvaluator",
    "PredictedEvaluator",
    "SampleEvaluator",
    "SupernetEvaluator",
    "TableEvaluator",
]


class _ByTheSample(Evaluator):  # type: ignore[misc]
    """Reports what a measure says of a model's sample; a subclass supplies how it is made.

    Args:
        space: Reference `module:attribute` to the CodeSpace or NNI ModelSpace that the samples are
            of; by default that of the model that is run.
    """

    def __init__(self, space: str | None = None) -> None:
        self.space = space
        self._code_space: CodeSpace | None = None

    def make_measure(self) -> Measure:
        """What `measure` is; it reads the files, and its errors are those of a wrong argument."""
        raise NotImplementedError

    @cached_property
    def measure(self) -> Measure:
        """From a sample (every label) to its metrics.

        Made when it is first needed. Whoever has made the same measure already may set it, so that
        nothing is read twice.
        """
        return self.make_measure()

    def prepare(self, model: Any) -> None:
        """Get ready for models of a space; `run_nni` does so before it starts.

        A wrong file or name is thus known before the first trial.

        Args:
            model: Any of NNI's spaces or models.
        """
        self.code_space(model)
        _ = self.measure

    def code_space(self, model: Any = None) -> CodeSpace:
        """The space of the samples; made once."""
        if self._code_space is None:
            self._code_space = as_code_space(model if self.space is None else self.space)
        return self._code_space

    def evaluate(self, model: Any) -> Any:
        """Not to be called: what is measured here is the sample, not the network.

        Raises:
            TypeError: Always.
        """
        raise TypeError(f"{type(self).__name__} must be run by NNI, which gives it the sample.")

    def measured(self, model: Any, sample: Sample) -> Mapping[str, float]:
        """The metrics of a model, whose sample has every label."""
        return self.measure(sample)

    def _execute(self, model: Any) -> dict[str, float]:
        sample = _own_sample(self.code_space(model), model.sample)
        metrics = {k: float(v) for k, v in self.measured(model, sample).items()}
        nni.report_final_result(metrics)
        return metrics


def _own_sample(space: CodeSpace, sample: Mapping[str, Value]) -> Sample:
    """The sample (every label) of a model that any of NNI's strategies proposed.

    Some of them leave notes of NNI's constraints among the labels, and write a subset as one
    boolean `label/i` for each candidate.

    Raises:
        SpaceError: It is not a sample of the space.
    """
    own: Sample = {}
    for d in space.dimensions:
        if d.label in sample:
            own[d.label] = sample[d.label]
        elif isinstance(d, Subset) and f"{d.label}/0" in sample:
            chosen = [sample.get(f"{d.label}/{i}") for i in range(len(d.values))]
            own[d.label] = [v for v, taken in zip(d.values, chosen, strict=True) if taken]
    problem = space.violation(own)
    if problem is not None:
        raise SpaceError(problem)
    return space.complete(own)


class _OfFile(_ByTheSample):
    """Reports what a file knows of the sample."""

    def __init__(
        self, path: str | os.PathLike[str], metric: str | None = None, space: str | None = None
    ) -> None:
        super().__init__(space)
        self.path = Path(path)
        self.metric = metric


@nni.trace
class PredictedEvaluator(_OfFile):
    """Reports what a saved predictor predicts; see `PredictedMeasure`.

    Args:
        path: The predictor's file, of `CodePredictor.save`.
        metric: Which predicted metric is `default`; the first one by default.
        space: Reference `module:attribute` to the CodeSpace or NNI ModelSpace that the samples are
            of; by default that of the model that is run.

    Raises:
        FileFormatError: The file is damaged, or of a predictor of another space.
    """

    def make_measure(self) -> Measure:
        return PredictedMeasure(self.path, self.code_space(), self.metric)


@nni.trace
class GraphPredictorEvaluator(_ByTheSample):
    """Reports what a saved graph predictor predicts; see `GraphMeasure`.

    The compute graph comes straight from the sample where the space draws it (`CodeSpace.graph`).
    Of any other NNI space the model is made on PyTorch's meta device, without weights, and read.

    Args:
        path: The predictor's file, of `GraphPredictor.save`.
        adapter: An adapter's file, of `GraphPredictor.save_adapter`; without one the backbone
            predicts.
        metric: Which predicted metric is `default`; the first one by default.
        input_shape: Shape of the networks' input, for spaces that draw no graphs.
        space: See `PredictedEvaluator`.

    Raises:
        FileFormatError: A file is damaged, or the adapter is of another backbone.
        SpaceError: The space draws no graphs, and no input shape is given.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        adapter: str | os.PathLike[str] | None = None,
        metric: str | None = None,
        input_shape: Sequence[int] | None = None,
        space: str | None = None,
    ) -> None:
        super().__init__(space)
        self.path = Path(path)
        self.adapter = None if adapter is None else Path(adapter)
        self.metric = metric
        self.input_shape = None if input_shape is None else tuple(input_shape)

    def make_measure(self) -> GraphMeasure:
        space = self.code_space()
        drawn = space if self.input_shape is None or space.graph is not None else None
        return GraphMeasure(self.path, drawn, adapter=self.adapter, metric=self.metric)

    def measured(self, model: Any, sample: Sample) -> Mapping[str, float]:
        measure = self.measure
        if not isinstance(measure, GraphMeasure) or measure.space is not None:
            return measure(sample)
        import torch

        from nni_aiop.graphs import from_module

        assert self.input_shape is not None
        with torch.device("meta"):
            network = model.executable_model()
        return measure.of_graph(from_module(network.eval(), self.input_shape))


@nni.trace
class TableEvaluator(_OfFile):
    """Reports what a table of measured architectures has; see `TableMeasure`.

    An architecture that the table lacks fails.

    Args:
        path: A benchmark's original file, or a CSV with a column for each label and metric, as the
            `history.csv` of a search; see `nni_aiop.benchmarks.load_table`.
        metric: Which column is `default`; the first metric by default.
        space: See `PredictedEvaluator`.

    Raises:
        FileFormatError: The table is damaged or of another space.
    """

    def make_measure(self) -> Measure:
        return TableMeasure(self.path, self.code_space(), self.metric)


@nni.trace
class SupernetEvaluator(_ByTheSample):
    """Reports what a network reaches with the shared weights of a supernet; see `SupernetMeasure`.

    Args:
        path: The supernet's file, of `Supernet.save`.
        supernet: Reference `module:attribute` to what the file is read into, a Supernet or what
            `as_supernet` makes one of; by default that of the model that is run.
        data: Reference to what gives a `SupernetData` or a pair of loaders; by default the
            supernet's own data.
        space: See `PredictedEvaluator`.
        labelling: Options of `nni_aiop.supernet.Labelling`, such as `steps`; without any the
            supernet's own way.

    Raises:
        AiopError: A reference leads nowhere.
        FileFormatError: The file is damaged, or of a supernet of another space or kind.
        ValueError: There is no data.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        supernet: str | None = None,
        data: str | None = None,
        space: str | None = None,
        **labelling: Any,
    ) -> None:
        super().__init__(space)
        self.path = Path(path)
        self.supernet = supernet
        self.data = data
        self.labelling = labelling
        self._model: Any = None

    def code_space(self, model: Any = None) -> CodeSpace:
        if model is not None:
            self._model = model
        return super().code_space(model)

    def make_measure(self) -> SupernetMeasure:
        from nni_aiop.engines.nni_supernet import as_supernet

        supernet = as_supernet(self._model if self.supernet is None else self.supernet)
        return SupernetMeasure(
            supernet,
            None if self.data is None else load_object(self.data)(),
            labelling=replace(supernet.labelling, **(self.labelling or {})),
            path=self.path,
        )


@nni.trace
class SampleEvaluator(_ByTheSample):
    """Reports what a function of the sample returns, a number or a dict; see `FunctionMeasure`.

    A search improves the metric `default`, as NNI calls a bare number, unless its `objectives` name
    others.

    Args:
        function: Reference `module:function`; it is called with the sample (every label) and
            `arguments`. The module is imported: name only modules that you trust.
        space: See `PredictedEvaluator`.
        arguments: Scalars and texts for the function.

    Raises:
        AiopError: The reference leads nowhere, or the result has no number.
    """

    def __init__(self, function: str, space: str | None = None, **arguments: Any) -> None:
        super().__init__(space)
        self.function = function
        self.arguments = arguments

    def make_measure(self) -> Measure:
        return FunctionMeasure(load_object(self.function), **self.arguments)
