"""What tells the metrics of a sample: a predictor, a table, a supernet, a function.

A measure is called with a sample and returns its metrics. `default` is the one that a search
improves unless its objectives name others: a predictor or a table calls one of its own metrics so,
beside its name; a function's bare number is called so, and a function that returns a dict may name
its metrics as it likes. The NNI evaluators and the command line wrap these.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from nni_aiop.benchmarks import load_table
from nni_aiop.errors import AiopError, SpaceError
from nni_aiop.spaces import CodeSpace, Sample

if TYPE_CHECKING:
    from nni_aiop.graphs import ComputeGraph
    from nni_aiop.predictors import Prediction
    from nni_aiop.predictors.graph import GraphPredictor, TransferredPredictor
    from nni_aiop.supernet import Labelling, Supernet, SupernetData

__all__ = [
    "FunctionMeasure",
    "GraphMeasure",
    "Measure",
    "PredictedMeasure",
    "SupernetMeasure",
    "TableMeasure",
    "numbers",
]


class Measure(Protocol):
    """From a sample to its metrics; an exception is a failed evaluation."""

    def __call__(self, sample: Sample) -> Mapping[str, float]:
        """The metrics of a sample."""


class PredictedMeasure:
    """What a saved predictor predicts, each metric with its standard deviation as `NAME_std`.

    Args:
        path: The predictor's file, of `CodePredictor.save`.
        space: The space it was fitted on.
        metric: Which predicted metric is `default`; the first one by default.

    Raises:
        AiopError: The predictor has no such metric.
        FileFormatError: The file is damaged, or of a predictor of another space.
        OSError: There is no such file.
    """

    def __init__(
        self, path: str | os.PathLike[str], space: CodeSpace, metric: str | None = None
    ) -> None:
        from nni_aiop.predictors import load_predictor

        self.space = space
        self._predictor = load_predictor(path, space)
        self.metrics = tuple(self._predictor.metrics_)
        self._default = _one_of(self.metrics, metric, Path(path))

    def __call__(self, sample: Sample) -> dict[str, float]:
        found = _named(self._predictor.predict(self.space.encode([sample])))
        return {"default": found[self._default], **found}


class GraphMeasure:
    """What a graph predictor predicts of a network, each metric with its std as `NAME_std`.

    The network is never built: its compute graph is drawn from the sample.

    Args:
        predictor: The file of `GraphPredictor.save`, the predictor itself, or what its `transfer`,
            `few_shot` and their siblings returned.
        space: Whose samples are measured; None where only graphs are (`of_graph`).
        adapter: The file of `GraphPredictor.save_adapter`, or the task of an adapter that the
            predictor has; without one the backbone predicts.
        metric: Which predicted metric is `default`; the first one by default.

    Raises:
        AiopError: The predictor has no such metric.
        FileFormatError: A file is damaged, or the adapter is of another backbone.
        KeyError: The predictor has no such adapter.
        OSError: There is no such file.
        SpaceError: The space draws no graphs.
    """

    def __init__(
        self,
        predictor: str | os.PathLike[str] | GraphPredictor | TransferredPredictor,
        space: CodeSpace | None = None,
        *,
        adapter: str | os.PathLike[str] | None = None,
        metric: str | None = None,
    ) -> None:
        from nni_aiop.predictors.graph import GraphPredictor, load_graph_predictor

        if space is not None and space.graph is None:
            raise SpaceError("a space must draw the graphs of its samples, but this one does not.")
        if isinstance(predictor, (str, os.PathLike)):
            predictor = load_graph_predictor(predictor)
        self.space = space
        self._predictor = predictor
        self._adapters: list[str] = []
        if isinstance(predictor, GraphPredictor):
            self.metrics: tuple[str, ...] = predictor.metrics_
            if adapter is not None:
                known = adapter in predictor.adapters_
                task = str(adapter) if known else predictor.load_adapter(adapter)
                self._adapters = [task]
                self.metrics = (task,)
        else:
            self.metrics = (predictor.metric,)
        self._default = _one_of(self.metrics, metric, "the predictor")

    def __call__(self, sample: Sample) -> dict[str, float]:
        if self.space is None or self.space.graph is None:
            raise SpaceError(
                "a sample must be one of a space that draws graphs, but there is none."
            )
        return self.of_graph(self.space.graph(sample))

    def of_graph(self, graph: ComputeGraph) -> dict[str, float]:
        """The metrics of a network by its compute graph, among them `default`."""
        options: dict[str, Any] = {"adapters": self._adapters} if self._adapters else {}
        found = _named(self._predictor.predict([graph], **options))
        return {"default": found[self._default], **found}


class SupernetMeasure:
    """What a network reaches with the shared weights of a supernet.

    Args:
        supernet: A trained one, or one that `path` is read into.
        data: A `SupernetData`, or a pair of loaders (train, validation); by default the supernet's
            own.
        labelling: How a network is made ready; by default the supernet's own way.
        path: A file of `Supernet.save`, whose weights it gets.

    Raises:
        FileFormatError: The file is damaged, or of a supernet of another space or kind.
        OSError: There is no such file.
        ValueError: There is no data.
    """

    def __init__(
        self,
        supernet: Supernet,
        data: SupernetData | Sequence[Any] | None = None,
        *,
        labelling: Labelling | None = None,
        path: str | os.PathLike[str] | None = None,
    ) -> None:
        self.supernet = supernet
        self.space = supernet.space
        self._data = supernet.data_or(data)
        self._labelling = labelling
        self.metrics = (self._data.metric,)
        if path is not None:
            supernet.load(path)

    def __call__(self, sample: Sample) -> dict[str, float]:
        label = self.supernet.evaluate(sample, self._data, self._labelling)
        return {"default": label, self._data.metric: label}


class TableMeasure:
    """What a table of measured architectures holds.

    Args:
        path: A benchmark's original file, or a CSV with a column for each label and metric, as the
            `history.csv` of a search; see `nni_aiop.benchmarks.load_table`.
        space: What was measured.
        metric: Which column is `default`; the first metric by default.

    Attributes:
        points: (n, d) the rows as points of the space.

    Raises:
        AiopError: The table has no such metric.
        FileFormatError: The table is damaged or of another space.
        OSError: There is no such file.
    """

    def __init__(
        self, path: str | os.PathLike[str], space: CodeSpace, metric: str | None = None
    ) -> None:
        self.path = Path(path)
        self.space = space
        codes, self._columns = load_table(self.path, space)
        self.metrics = tuple(self._columns)
        self._default = _one_of(self.metrics, metric, self.path)
        self.points = space.decode_points(codes)
        self._row_of = {key: i for i, key in enumerate(space.keys(self.points))}

    def __len__(self) -> int:
        return len(self._row_of)

    def __contains__(self, sample: Sample) -> bool:
        return self.space.key(sample) in self._row_of

    def __call__(self, sample: Sample) -> dict[str, float]:
        """The row of a sample.

        Raises:
            SpaceError: The table lacks the sample.
        """
        row = self._row_of.get(self.space.key(sample))
        if row is None:
            raise SpaceError(f"{self.path} must hold the architecture, but lacks {sample}.")
        found = {name: float(column[row]) for name, column in self._columns.items()}
        return {"default": found[self._default], **found}


class FunctionMeasure:
    """What a function of the sample returns: a number, or a dict of metrics.

    A number is the metric `default`: what a search improves unless its objectives name others. A
    dict has the metrics by names of one's own, which are then the objectives, or `default`.

    Args:
        function: It is called with the sample (every label) and `arguments`.
        arguments: Scalars and texts for the function.

    Attributes:
        metric: How a bare number is called.
    """

    def __init__(
        self, function: Callable[..., float | Mapping[str, float]], **arguments: Any
    ) -> None:
        self.function = function
        self.arguments = arguments
        self.metric = "default"

    def __call__(self, sample: Sample) -> dict[str, float]:
        """The numbers that the function returns of a sample; what is no number is left out.

        Raises:
            AiopError: It returns neither a number nor a dict with a number in it.
        """
        found = self.function(sample, **self.arguments)
        metrics = numbers(found, self.metric)
        if not metrics:
            raise AiopError(
                f"{self.name} must return a number or a dict of numbers, "
                f"but returned {found!r:.80}."
            )
        return metrics

    @property
    def name(self) -> str:
        """The function's name."""
        return getattr(self.function, "__qualname__", repr(self.function))


def numbers(found: Any, name: str = "default") -> dict[str, float]:
    """The numbers, also NumPy's and PyTorch's, of what an evaluator returned.

    What is no number is left out.

    Args:
        found: Numbers by name, or a bare one.
        name: Of a bare one; NNI calls it `default`.
    """
    given = found if isinstance(found, Mapping) else {name: found}
    out = {}
    for name, value in given.items():
        if not isinstance(value, Real) and hasattr(value, "item"):
            try:
                value = value.item()
            except (TypeError, ValueError, RuntimeError):  # an array of several numbers
                continue
        if isinstance(value, Real):
            try:
                out[str(name)] = float(value)
            except OverflowError:  # an integer of many digits
                out[str(name)] = math.inf
    return out


def _one_of(known: Sequence[str], wanted: str | None, path: Path | str) -> str:
    """The wanted metric, or the first one."""
    if wanted is not None and wanted not in known:
        raise AiopError(f"{path} must have the metric {wanted!r}, but has {', '.join(known)}.")
    return known[0] if wanted is None else wanted


def _named(prediction: Prediction) -> dict[str, float]:
    """Each metric of one architecture, and its standard deviation as `NAME_std`."""
    found = {}
    for j, name in enumerate(prediction.metrics):
        found[name] = float(prediction.mean[0, j])
        found[f"{name}_std"] = float(prediction.std[0, j])
    return found
