"""ONNX files: read with all their weights, written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import onnx
from onnx import ModelProto, external_data_helper

from nni_aiop.errors import FileFormatError
from nni_aiop.files import brief, write_atomically
from nni_aiop.graphs.doors.onnx import read_model

__all__ = ["load", "save"]

_MOST = 2**31 - 2**20
"""Bytes of one file of a model, which ONNX cannot read from 2 GB on."""

_LEAST_OUTSIDE = 1024
"""Bytes of a tensor that lies beside the model."""


def load(path: Path | str) -> tuple[ModelProto, bool]:
    """(a model with its weights, whether some of them lie in files beside it)."""
    before = read_model(Path(path))
    external = any(
        external_data_helper.uses_external_data(tensor)
        for tensor in external_data_helper._get_all_tensors(before)
    )
    if external:
        try:
            external_data_helper.load_external_data_for_model(before, str(Path(path).parent))
        except (OSError, ValueError, onnx.checker.ValidationError) as err:
            raise FileFormatError(
                f"{path} must have its weights beside it, but they cannot be read: "
                f"{brief(err).rstrip('.')}."
            ) from err
    return before, external


def save(model: ModelProto, path: Path | str, *, external: bool) -> Path:
    """Writes a model; see `OnnxNetwork.save`."""
    path = Path(path)
    if not external and model.ByteSize() < _MOST:
        return write_atomically(path, model.SerializeToString())
    twin = ModelProto()
    twin.CopyFrom(model)
    beside = f"{path.name}.data"
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        onnx.save_model(
            twin,
            str(Path(folder) / path.name),
            save_as_external_data=True,
            location=beside,
            size_threshold=_LEAST_OUTSIDE,
        )
        data = Path(folder) / beside
        if data.exists():  # no weight may be large enough
            os.replace(data, path.with_name(beside))
        os.replace(Path(folder) / path.name, path)
    return path
