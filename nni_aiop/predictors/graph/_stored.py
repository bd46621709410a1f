"""Files of graph predictors and of their adapters."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import nn
from typing_extensions import Self

from nni_aiop.errors import FileFormatError
from nni_aiop.files import whole
from nni_aiop.predictors.graph._adapters import KAdapter
from nni_aiop.predictors.graph._domain import Domain
from nni_aiop.predictors.graph._files import read_file, write_file
from nni_aiop.predictors.graph._model import Adapter, Array, GraphModel
from nni_aiop.predictors.graph._scores import TaskLabels
from nni_aiop.predictors.graph.few_shot import GPHead

_KIND = "nni-aiop graph predictor"


_ADAPTER_KIND = "nni-aiop adapter"


_DOMAIN, _HEAD = "domain.", "beside."


def _tensors(
    module: nn.Module, domain: Domain, head: GPHead | None, half: bool
) -> dict[str, NDArray[Any]]:
    """What files hold: weights of a module, the domain of its training graphs, a head."""
    rest = {f"{_DOMAIN}{name}": array for name, array in domain.to_arrays().items()}
    if head is not None:
        rest |= {f"{_HEAD}{name}": array for name, array in head.to_arrays().items()}
    weights = {name: tensor.cpu().numpy() for name, tensor in module.state_dict().items()}
    if not half:
        return weights | rest
    return _rounded(weights, np.float16) | _rounded(rest, np.float32)


def _rounded(arrays: Mapping[str, NDArray[Any]], kind: DTypeLike) -> dict[str, NDArray[Any]]:
    return {name: array.astype(kind) for name, array in arrays.items()}


def _restore(module: nn.Module, tensors: Mapping[str, NDArray[Any]]) -> Domain:
    """The domain of a file; the module gets its weights."""
    weights = {n: array for n, array in tensors.items() if not n.startswith((_DOMAIN, _HEAD))}
    for name, array in weights.items():
        if array.dtype.kind != "f" and not array.dtype == np.int64:
            raise ValueError(f"{name} must be of floating point, not {array.dtype}")
    module.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    module.eval()
    return Domain.from_arrays(part_of(tensors, _DOMAIN))


def _check_sizes(make: Callable[[], nn.Module], tensors: Mapping[str, NDArray[Any]]) -> None:
    """Refuse tensors that are not those of a module, before one of any size is made.

    Raises:
        ValueError: One is missing or has another shape.
    """
    with torch.device("meta"):
        wanted = make().state_dict()
    for name, own in wanted.items():
        if name not in tensors or tensors[name].shape != tuple(own.shape):
            found = tensors[name].shape if name in tensors else "none"
            raise ValueError(f"{name} must have shape {tuple(own.shape)}, not {found}")


def finite_of(tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Those that must be finite: the spread of a head is infinite where a feature never varied."""
    return {
        name: np.nan_to_num(array, nan=np.nan) if name.endswith(".spread") else array
        for name, array in tensors.items()
    }


def _deviation(value: Any) -> float:
    """A standard deviation of a file.

    Raises:
        ValueError: It is none.
    """
    number = float(value)
    if not 0 <= number < np.inf:
        raise ValueError(f"a deviation must be a finite number from 0 on, not {value!r:.80}")
    return number


def part_of(tensors: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, Array]:
    """Arrays whose names begin so, without that beginning, in full precision."""
    return {
        name.removeprefix(prefix): array.astype(np.float64)
        for name, array in tensors.items()
        if name.startswith(prefix)
    }


def digest_of(module: nn.Module) -> str:
    """SHA-256 of a module's tensors."""
    result = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        result.update(name.encode() + tensor.cpu().numpy().tobytes())
    return result.hexdigest()


class StoredModel(GraphModel):
    """A graph predictor that is written to files and read from them; see `GraphPredictor`."""

    def save(self, path: str | os.PathLike[str], *, half: bool = False) -> None:
        """Writes the backbone, without adapters, to a file that `load_graph_predictor` reads.

        Args:
            path: The file.
            half: Whether weights are rounded to 16 bits, and all else to 32; adapters are then to
                be trained beside what is read from the file, not beside this.

        Raises:
            NotFittedError: `fit` was not called.
        """
        self._require_fit()
        content = {
            "options": self._options(),
            "metrics": list(self.metrics_),
            "labels": [labels.to_json() for labels in self.labels_],
            "std": self.std_.tolist(),
            "n_rows": self.n_rows_,
        }
        write_file(path, _KIND, content, _tensors(self._backbone, self.domain_, None, half))

    def save_adapter(self, task: str, path: str | os.PathLike[str], *, half: bool = False) -> None:
        """Writes one adapter to a file that `load_adapter` reads beside the same backbone.

        Args:
            task: Its name.
            path: The file.
            half: Whether weights are rounded to 16 bits, and all else to 32.

        Raises:
            NotFittedError: `fit` was not called.
            KeyError: There is no such adapter.
        """
        self._require_fit()
        adapter = self._adapter(task)
        content = {
            "task": task,
            "backbone": digest_of(self._backbone.encoder),
            "labels": adapter.labels.to_json(),
            "std": adapter.std,
            "n_rows": adapter.n_rows,
        }
        tensors = _tensors(adapter.module, adapter.domain, adapter.head, half)
        write_file(path, _ADAPTER_KIND, content, tensors)

    def load_adapter(self, path: str | os.PathLike[str]) -> str:
        """The task of the adapter in a file, which this predictor has from now on.

        Raises:
            NotFittedError: `fit` was not called.
            FileFormatError: The file is truncated, changed, of another version or backbone.
            OSError: There is no such file.
        """
        self._require_fit()
        content, tensors = read_file(path, _ADAPTER_KIND)
        if content.get("backbone") != digest_of(self._backbone.encoder):
            raise FileFormatError(
                f"{path} must hold an adapter of this backbone, but it was trained on another one."
            )
        module = self._made(lambda: KAdapter(self._backbone.encoder))
        with whole(path, "an adapter", finite_of(tensors)):
            domain = _restore(module, tensors)
            task = str(content["task"])
            labels = TaskLabels.from_json(content["labels"])
            std, n_rows = _deviation(content["std"]), int(content["n_rows"])
            beside = part_of(tensors, _HEAD)
            head = GPHead.from_arrays(beside) if beside else None
            self.adapters_[task] = Adapter(module, labels, std, n_rows, domain, head)
        return task

    @classmethod
    def _of_file(cls, path: str | os.PathLike[str], device: str | torch.device | None) -> Self:
        content, tensors = read_file(path, _KIND)
        with whole(path, "a graph predictor", tensors):
            predictor = cls(**content["options"], device=device)
            predictor.metrics_ = tuple(content["metrics"])
            predictor.labels_ = tuple(map(TaskLabels.from_json, content["labels"]))
            predictor.std_ = np.array([*map(_deviation, content["std"])], np.float64)
            predictor.n_rows_ = int(content["n_rows"])
            m = len(predictor.metrics_)
            if not (
                len(predictor.labels_) == len(predictor.std_) == m == len({*content["metrics"]})
            ):
                raise ValueError("metrics must differ, each with its labels and its deviation")
            _check_sizes(lambda: predictor._bare_backbone(m), tensors)
            predictor._backbone = predictor._new_backbone(m)
            predictor.domain_ = _restore(predictor._backbone, tensors)
        predictor.adapters_ = {}
        predictor.losses_ = []
        return predictor
