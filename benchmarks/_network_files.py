"""ONNX files of networks as users make them: exported, optimised, quantised, of half precision."""

from __future__ import annotations

import contextlib
import copy
import importlib
import importlib.util
import io
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from _timm import create, input_shape
from onnx import ModelProto, NodeProto, TensorProto
from torch import Tensor, nn

__all__ = ["EXPORTS", "MADE", "NETWORKS", "export", "learned_entries", "network", "trained"]


class Tagger(nn.Module):
    """(batch, words) -> (batch, words, tags), by a bidirectional LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(500, 48)
        self.lstm = nn.LSTM(48, 64, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(128, 17)

    def forward(self, words: Tensor) -> Tensor:
        scores: Tensor = self.head(self.lstm(self.embedding(words))[0])
        return scores


class UNet(nn.Module):
    """(batch, 3, height, width) -> (batch, 2, height, width), with transposed convolutions."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.fine = self._block(3, width)
        self.coarse = self._block(width, 2 * width)
        self.bottom = self._block(2 * width, 4 * width)
        self.up = nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2)
        self.up_again = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.merge = self._block(4 * width, 2 * width)
        self.merge_again = self._block(2 * width, width)
        self.head = nn.Conv2d(width, 2, 1)
        self.pool = nn.MaxPool2d(2)

    @staticmethod
    def _block(before: int, after: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(before, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, padding=1),
            nn.BatchNorm2d(after),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(x)
        coarse = self.coarse(self.pool(fine))
        bottom = self.bottom(self.pool(coarse))
        up = self.merge(torch.cat([self.up(bottom), coarse], 1))
        y: Tensor = self.head(self.merge_again(torch.cat([self.up_again(up), fine], 1)))
        return y


def mlp() -> nn.Module:
    """(batch, 32) -> (batch, 10)."""
    return nn.Sequential(
        *(nn.Linear(32, 64), nn.BatchNorm1d(64), nn.ReLU()),
        *(nn.Linear(64, 64, bias=False), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10)),
    )


BY_HAND: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "mlp by hand": (mlp, lambda: torch.randn(1, 32)),
    "tagger by hand": (Tagger, lambda: torch.randint(500, (1, 20))),
    "unet by hand": (UNet, lambda: torch.randn(1, 3, 64, 64)),
}
NETWORKS = (
    *BY_HAND,
    "resnet18",
    "mobilenetv3_small_100",
    "efficientnet_b0",
    "ghostnet_100",
    "regnety_002",
    "convnext_atto",
    "vit_tiny_patch16_224",
    "levit_128s",
    "repvit_m0_9",
    "densenet121",
)

EXPORTS: dict[str, dict[str, Any]] = {
    "legacy": {"dynamo": False},
    "dynamo": {"dynamo": True},
    "dynamo, optimize=False": {"dynamo": True, "optimize": False},
}
"""Options of `torch.onnx.export`; all others are the default ones."""


def network(name: str) -> tuple[nn.Module, Tensor]:
    """A network of `NETWORKS`, untrained, in evaluation mode, and an example input."""
    torch.manual_seed(0)
    if name in BY_HAND:
        make, example = BY_HAND[name]
        return make().eval(), example()
    model = create(name)
    return model, torch.randn(input_shape(model))


def trained(model: nn.Module) -> nn.Module:
    """A copy whose tensors hold distinct numbers, as training leaves them."""
    model = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.rand(parameter.shape, generator=generator)
            if parameter.ndim < 2 or bool((parameter == parameter.flatten()[0]).all()):
                parameter.copy_(0.5 + noise)
            else:
                parameter.add_(noise - 0.5, alpha=0.01)
        for part in model.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is not None:
                part.running_mean.uniform_(-0.2, 0.2, generator=generator)
                part.running_var.uniform_(0.5, 1.5, generator=generator)
    return model


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the messages of exporters and optimisers."""
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)


def export(model: nn.Module, example: Tensor, how: str, path: Path) -> Path:
    """The path, which now holds the exported network."""
    with quiet():
        torch.onnx.export(model, (example,), str(path), **EXPORTS[how])
    return path


# --- what is made of an exported file -----------------------------------------------------------


def _slim(path: Path, out: Path, _: Tensor) -> None:
    package = "onnxslim"
    onnx.save(importlib.import_module(package).slim(onnx.load(path)), out)


def _sim(path: Path, out: Path, _: Tensor) -> None:
    package = "onnxsim"
    model, checked = importlib.import_module(package).simplify(onnx.load(path))
    if not checked:
        raise ValueError("onnxsim says that its result is another network")
    onnx.save(model, out)


def _optimised(level: str) -> Callable[[Path, Path, Tensor], None]:
    def make(path: Path, out: Path, _: Tensor) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(
            onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level}"
        )
        options.optimized_model_filepath = str(out)
        options.log_severity_level = 3
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    return make


class _Images:
    """Two examples for the calibration of a static quantisation."""

    def __init__(self, name: str, example: Tensor) -> None:
        self._left = [{name: example.numpy()} for _ in range(2)]

    def get_next(self) -> dict[str, Any] | None:
        return self._left.pop() if self._left else None


def _static(path: Path, out: Path, example: Tensor) -> None:
    from onnxruntime.quantization import quantize_static

    name = onnx.load(path, load_external_data=False).graph.input[0].name
    quantize_static(str(path), str(out), _Images(name, example))


def _dynamic(path: Path, out: Path, _: Tensor) -> None:
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(str(path), str(out))


def _half(path: Path, out: Path, _: Tensor) -> None:
    package = "onnxconverter_common"
    module = importlib.import_module(f"{package}.float16")
    onnx.save(module.convert_float_to_float16(onnx.load(path)), out)


def _half_inside(path: Path, out: Path, _: Tensor) -> None:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    onnx.save(convert_float_to_float16(onnx.load(path), keep_io_types=True), out)


MADE: dict[str, tuple[str, Callable[[Path, Path, Tensor], None], bool]] = {
    "onnxslim": ("onnxslim", _slim, True),
    "onnxsim": ("onnxsim", _sim, True),
    "onnxruntime BASIC": ("onnxruntime", _optimised("BASIC"), True),
    "onnxruntime EXTENDED": ("onnxruntime", _optimised("EXTENDED"), True),
    "float16": ("onnxconverter_common", _half, True),
    "float16 inside": ("onnxruntime", _half_inside, True),
    # Numbers that happen to be positive in calibration leave what a removed relu leaves.
    "static quantisation": ("onnxruntime", _static, False),
    "dynamic quantisation": ("onnxruntime", _dynamic, True),
}
"""Kind -> the package that makes it, how, and whether the file still holds the same network."""

# --- an independent count of the learned entries of a file --------------------------------------

_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16}
_NOT_LEARNED = {
    "BatchNormalization": {3, 4},
    "Clip": {1, 2},
    "DequantizeLinear": {1, 2},
    "DynamicQuantizeLSTM": {5, 6, 8, 9, 10, 11},
    "LSTM": {5, 6},
    "Pad": {1, 2},
    "QuantizeLinear": {1, 2},
    "Resize": {1, 2},
}
"""Inputs that are statistics, scales, limits or states."""
_SHORT = {TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32}
_WHOLE_NUMBERS = {
    "ConvInteger": {1},
    "DequantizeLinear": {0},
    "DynamicQuantizeLSTM": {1, 2},
    "Gather": {0},
    "MatMulInteger": {1},
    "QLinearConv": {3, 8},
    "QLinearMatMul": {3},
}
"""Inputs that are weights though they are of whole numbers."""


def learned_entries(model: ModelProto) -> int:
    """Entries of a file's tensors that some operator reads as learned ones.

    A tensor of a single number, or of one number throughout, is taken for a constant: give it
    networks whose tensors hold distinct numbers.
    """
    tensors: dict[str, Any] = {t.name: t for t in model.graph.initializer}
    same: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensors[node.output[0]] = node.attribute[0].t
        elif node.op_type in ("Identity", "Cast", "Transpose", "Reshape"):
            same[node.output[0]] = node.input[0]
    learned: set[str] = set()
    for node in model.graph.node:
        if node.output[0] not in same:
            learned |= {_source(n, same) for n in _weights(node, tensors, same)}
    return sum(int(np.prod(tensors[name].dims)) for name in learned if _varies(tensors[name]))


def _source(name: str, same: dict[str, str]) -> str:
    while name in same:
        name = same[name]
    return name


def _weights(node: NodeProto, tensors: dict[str, Any], same: dict[str, str]) -> Iterator[str]:
    for place, name in enumerate(node.input):
        tensor = tensors.get(_source(name, same))
        if tensor is None or place in _NOT_LEARNED.get(node.op_type, ()):
            continue
        whole = tensor.data_type in _SHORT and place in _WHOLE_NUMBERS.get(node.op_type, ())
        if tensor.data_type in _FLOATS or whole:
            yield name


def _varies(tensor: TensorProto) -> bool:
    if int(np.prod(tensor.dims)) < 2:
        return False
    values = onnx.numpy_helper.to_array(tensor)
    return bool((values != values.flat[0]).any())
