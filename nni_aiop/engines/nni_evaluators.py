"""NNI evaluators that answer from the sample alone: a predictor, a published table, a function.

None of them builds the network. Their arguments are paths, references and scalars, because NNI
writes them into every trial.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from nni_aiop.benchmarks import load_table
from nni_aiop.engines._nni import importing_nni, load_object
from nni_aiop.engines.nni_space import as_code_space
from nni_aiop.errors import AiopError, SpaceError
from nni_aiop.spaces import CodeSpace, Sample, Subset, Value

with importing_nni():
    import nni
    from nni.nas.evaluator import Evaluator

__all__ = ["PredictedEvaluator", "SampleEvaluator", "TableEvaluator"]


class _ByTheSample(Evaluator):  # type: ignore[misc]
    """Reports what `measure` says of a model's sample; a subclass supplies `measure`.

    Args:
        space: Reference `module:attribute` to the CodeSpace or NNI ModelSpace that the samples are
            of; by default that of the model that is run.
    """

    def __init__(self, space: str | None = None) -> None:
        self.space = space
        self._code_space: CodeSpace | None = None

    def measure(self, sample: Sample) -> Mapping[str, float]:
        """The metrics of a sample (every label), among them `default`."""
        raise NotImplementedError

    def load(self) -> None:
        """Read what `measure` needs: a wrong file or name is known before the first trial."""
        raise NotImplementedError

    def prepare(self, model: Any) -> None:
        """Get ready for models of a space; `run_nni` does so before it starts.

        Args:
            model: Any of NNI's spaces or models.
        """
        self.code_space(model)
        self.load()

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

    def _execute(self, model: Any) -> dict[str, float]:
        sample = _own_sample(self.code_space(model), model.sample)
        metrics = {k: float(v) for k, v in self.measure(sample).items()}
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


@nni.trace
class PredictedEvaluator(_ByTheSample):
    """Reports what a saved predictor predicts, each metric with its std as `NAME_std`.

    Args:
        path: The predictor's file, of `CodePredictor.save`.
        metric: Which predicted metric is `default`; the first one by default.
        space: See `TableEvaluator`.

    Raises:
        FileFormatError: The file is damaged, or of a predictor of another space.
    """

    def __init__(
        self, path: str | os.PathLike[str], metric: str | None = None, space: str | None = None
    ) -> None:
        super().__init__(space)
        self.path = Path(path)
        self.metric = metric

    @cached_property
    def _predictor(self) -> Any:
        from nni_aiop.predictors import load_predictor

        return load_predictor(self.path, self.code_space())

    def measure(self, sample: Sample) -> dict[str, float]:
        prediction = self._predictor.predict(self.code_space().encode([sample]))
        found = {}
        for j, name in enumerate(prediction.metrics):
            found[name] = float(prediction.mean[0, j])
            found[f"{name}_std"] = float(prediction.std[0, j])
        default = _one_of(prediction.metrics, self.metric, self.path)
        return {"default": found[default], **found}

    def load(self) -> None:
        _one_of(self._predictor.metrics_, self.metric, self.path)


@nni.trace
class TableEvaluator(_ByTheSample):
    """Reports what a table of measured architectures has; an architecture that it lacks fails.

    Args:
        path: A benchmark's original file, or a CSV with a column for each label and metric, as the
            `history.csv` of a search; see `nni_aiop.benchmarks.load_table`.
        metric: Which column is `default`; the first metric by default.
        space: Reference `module:attribute` to the CodeSpace or NNI ModelSpace that the samples are
            of; by default that of the model that is run.

    Raises:
        FileFormatError: The table is damaged or of another space.
    """

    def __init__(
        self, path: str | os.PathLike[str], metric: str | None = None, space: str | None = None
    ) -> None:
        super().__init__(space)
        self.path = Path(path)
        self.metric = metric

    @cached_property
    def _table(self) -> tuple[dict[str, int], dict[str, Any]]:
        space = self.code_space()
        codes, columns = load_table(self.path, space)
        keys = space.keys(space.decode_points(codes))
        return {key: row for row, key in enumerate(keys)}, columns

    def measure(self, sample: Sample) -> dict[str, float]:
        rows, columns = self._table
        default = _one_of(columns, self.metric, self.path)
        row = rows.get(self.code_space().key(sample))
        if row is None:
            raise SpaceError(f"{self.path} must hold the architecture, but lacks {sample}.")
        found = {name: float(column[row]) for name, column in columns.items()}
        return {"default": found[default], **found}

    def load(self) -> None:
        _one_of(self._table[1], self.metric, self.path)


@nni.trace
class SampleEvaluator(_ByTheSample):
    """Reports what a function of the sample returns: a number, or a dict of metrics.

    Args:
        function: Reference `module:function`; it is called with the sample (every label) and
            `arguments`. The module is imported: name only modules that you trust.
        space: See `TableEvaluator`.
        arguments: Scalars and texts for the function.

    Raises:
        AiopError: The reference leads nowhere, or the result has no number `default`.
    """

    def __init__(self, function: str, space: str | None = None, **arguments: Any) -> None:
        super().__init__(space)
        self.function = function
        self.arguments = arguments

    @cached_property
    def _called(self) -> Any:
        return load_object(self.function)

    def measure(self, sample: Sample) -> Mapping[str, float]:
        found = self._called(sample, **self.arguments)
        metrics: Mapping[str, float] = found if isinstance(found, Mapping) else {"default": found}
        if "default" not in metrics:
            raise AiopError(
                f"{self.function} must return a number or a dict with 'default', "
                f"but returned {found!r}."
            )
        return metrics

    def load(self) -> None:
        _ = self._called


def _one_of(metrics: Iterable[str], wanted: str | None, path: Path) -> str:
    """The wanted metric, or the first one."""
    known = list(metrics)
    if wanted is not None and wanted not in known:
        raise AiopError(f"{path} must have the metric {wanted!r}, but has {', '.join(known)}.")
    return known[0] if wanted is None else wanted
