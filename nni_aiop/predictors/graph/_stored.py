"""Files of graph predictors and of their adapters."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import nn
from typing_extensions import Self

from nni_aiop.errors import FileFormatError
from nni_aiop.predictors.graph._adapters import KAdapter
from nni_aiop.predictors.graph._domain import Domain
from nni_aiop.predictors.graph._files import read_file, write_file
from nni_aiop.predictors.graph._model import Adapter, Array, GraphModel
from nni_aiop.predictors.graph._scores import TaskLabels
from nni_aiop.predictors.graph.few_shot import GPHead

_KIND = "nni-aiop graph predictor"


_ADAPTER_KIND = "nni-aiop adapter"


_DOMAIN, _HEAD = "domain.", "beside."


@contextmanager
def _whole(path: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Turns what a wrong description raises into one sentence."""
    try:
        yield
    except (KeyError, TypeError, ValueError, RuntimeError) as err:
        raise FileFormatError(f"{path} must hold a whole {what}, but does not: {err}.") from err


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
    module.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    module.eval()
    return Domain.from_arrays(part_of(tensors, _DOMAIN))


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
        with _whole(path, "adapter"):
            domain = _restore(module, tensors)
            task = str(content["task"])
            labels = TaskLabels.from_json(content["labels"])
            std, n_rows = float(content["std"]), int(content["n_rows"])
            beside = part_of(tensors, _HEAD)
            head = GPHead.from_arrays(beside) if beside else None
            self.adapters_[task] = Adapter(module, labels, std, n_rows, domain, head)
        return task

    @classmethod
    def _of_file(cls, path: str | os.PathLike[str], device: str | torch.device | None) -> Self:
        content, tensors = read_file(path, _KIND)
        with _whole(path, "graph predictor"):
            predictor = cls(**content["options"], device=device)
            predictor.metrics_ = tuple(content["metrics"])
            predictor.labels_ = tuple(map(TaskLabels.from_json, content["labels"]))
            predictor.std_ = np.array(content["std"], np.float64)
            predictor.n_rows_ = int(content["n_rows"])
            predictor._backbone = predictor._new_backbone(len(predictor.metrics_))
            predictor.domain_ = _restore(predictor._backbone, tensors)
        predictor.adapters_ = {}
        predictor.losses_ = []
        return predictor
